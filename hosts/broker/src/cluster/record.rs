//! The bytes of what the nodes store: messages in the log, and the state of sessions.
//!
//! All integers are big-endian. A *string* is a length of two bytes and UTF-8, *bytes* are a length
//! of four bytes and the bytes. The first byte says what follows: 1 for a message or an entry, 2
//! for a member, and 3 for a settled position.
//!
//! | message | |
//! |---|---|
//! | expiry | time (8) in milliseconds since 1970, or all ones |
//! | publisher | client identifier as a string, empty for the host of a node |
//! | share | the filter of the shared subscription that the message is for alone, or empty |
//! | of | if there is a share: position (8) of the message that this one repeats, or 0 |
//! | number | (8) of the message, which no other one has, or 0 if it repeats one |
//! | known | position (8) up to which the node that chose the members had read the log, or 0 if none has chosen |
//! | choices | count (2); each the filter of a shared subscription and the client identifier of the member that receives the message, as strings, and the position (8) and the node (8) of the member |
//! | message | in the format of stored messages of the library |
//!
//! | member of a shared subscription | |
//! |---|---|
//! | node | instance (8) of the node that has the session |
//! | state | (1): 0 it is no member any more, 1 its client is away, 2 it is connected |
//! | share | the filter with the share name, as a string |
//! | client | client identifier, as a string |
//!
//! | settled position | |
//! |---|---|
//! | position | (8) up to which no message of a shared subscription must be appended again |
//!
//! | entry of a session | |
//! |---|---|
//! | owner | instance (8) of the node that has the session, or 0 |
//! | stamp | number (8) of this entry among those of its writer |
//! | flags | 1: fresh, earlier entries do not count. 2: the session has ended. 4: a claim, which changes only the owner and the will |
//! | position | (8) up to which the log is handled in the records |
//! | records | count (4); each a key as bytes, and 1 and a value as bytes, or 0 for its end |
//! | owed | count (2); each a token as a string, and a message as bytes. The owner of the session appends them to the log, under this token, unless a later entry is there |
//! | will | count (1), at most 1; as above. Published if a session without records loses its owner |

use mqtt_sansio::Instant;
use mqtt_sansio::session::Message;
use std::collections::BTreeMap;
use std::rc::Rc;

/// The first byte of a message and of an entry.
const VERSION: u8 = 1;
/// The first byte of a member.
const MEMBER: u8 = 2;
/// The first byte of a settled position.
const SETTLED: u8 = 3;
const FRESH: u8 = 1;
const ENDED: u8 = 2;
const CLAIM: u8 = 4;

/// An item of the log.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Message(Logged),
    Member(Member),
    /// Up to this position all messages that must be appended again are.
    Settled(u64),
}

/// A message in the log.
#[derive(Clone, Debug)]
pub(crate) struct Logged {
    pub(crate) message: Message,
    pub(crate) publisher: Rc<str>,
    pub(crate) expires_at: Option<Instant>,
    /// The shared subscription that the message is for alone.
    pub(crate) share: Option<Rc<str>>,
    /// The position of the message that it repeats for this share. 0 if it repeats none.
    pub(crate) of: u64,
    /// Its number, which no other message has, or 0 if it repeats one or is not for the log.
    pub(crate) number: u64,
    /// The position up to which the node that chose the members had read the log. 0 if no node has
    /// chosen.
    pub(crate) known: u64,
    /// The members that receive it.
    pub(crate) choices: Vec<Choice>,
}

/// The mark by which a message is found in the log, so that it is not appended twice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mark {
    Number(u64),
    Repeat { of: u64, share: Rc<str> },
}

/// The member of a shared subscription that receives a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) share: Rc<str>,
    pub(crate) client: Rc<str>,
    /// The position of the member in the log, as the node that has chosen it knows it.
    pub(crate) member: u64,
    /// The node of the member there.
    pub(crate) node: u64,
}

/// The state of a member of a shared subscription, from its position in the log on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) node: u64,
    pub(crate) share: Rc<str>,
    pub(crate) client: Rc<str>,
    /// Whether its client is connected. `None` if it is no member any more at this node.
    pub(crate) is_connected: Option<bool>,
}

/// A message that is appended once, however often that is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owed {
    pub(crate) token: String,
    pub(crate) message: Vec<u8>,
}

/// An entry of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) owner: u64,
    pub(crate) stamp: u64,
    pub(crate) is_fresh: bool,
    pub(crate) has_ended: bool,
    pub(crate) is_claim: bool,
    pub(crate) position: u64,
    pub(crate) records: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    pub(crate) owed: Vec<Owed>,
    pub(crate) will: Option<Owed>,
}

/// The state of a session, from its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) owner: u64,
    pub(crate) has_ended: bool,
    pub(crate) position: u64,
    pub(crate) records: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) owed: Vec<Owed>,
    pub(crate) will: Option<Owed>,
    /// The log up to this position does not have the will.
    pub(crate) before_will: u64,
    /// Whether a node has claimed the session since then, and has possibly published the will.
    pub(crate) is_will_claimed: bool,
}

impl State {
    /// Adds the next entry.
    pub(crate) fn apply(&mut self, entry: Entry) {
        let Entry { owner, is_fresh, has_ended, is_claim, position, records, owed, will, .. } =
            entry;
        if is_fresh {
            *self = Self::default();
        }
        self.owner = owner;
        self.has_ended = has_ended;
        if !is_claim {
            self.position = position;
            // The writer of this entry has appended what was owed before.
            self.owed = owed;
        }
        self.is_will_claimed = will.is_none() && (self.is_will_claimed || is_claim);
        if will.is_some() {
            (self.will, self.before_will) = (will, position);
        }
        for (key, value) in records {
            match value {
                Some(value) => _ = self.records.insert(key, value),
                None => _ = self.records.remove(&key),
            }
        }
    }

    /// Whether there is a session that outlives its connection.
    pub(crate) fn is_kept(&self) -> bool {
        !self.has_ended && self.records.keys().any(|key| key.first() == Some(&b's'))
    }
}

// ---- encoding ----

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(bytes);
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend(text.as_bytes());
}

impl Logged {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let message = self.message.to_bytes();
        let mut out = Vec::with_capacity(message.len() + self.publisher.len() + 11);
        out.push(VERSION);
        let expires_at = self.expires_at.map_or(u64::MAX, Instant::as_millis);
        out.extend(expires_at.to_be_bytes());
        put_string(&mut out, &self.publisher);
        put_string(&mut out, self.share.as_deref().unwrap_or_default());
        if self.share.is_some() {
            out.extend(self.of.to_be_bytes());
        }
        out.extend(self.number.to_be_bytes());
        out.extend(self.known.to_be_bytes());
        out.extend(u16::try_from(self.choices.len()).unwrap_or(u16::MAX).to_be_bytes());
        for Choice { share, client, member, node } in self.choices.iter().take(u16::MAX.into()) {
            put_string(&mut out, share);
            put_string(&mut out, client);
            out.extend(member.to_be_bytes());
            out.extend(node.to_be_bytes());
        }
        out.extend(message);
        out
    }

    /// Returns `None` if the bytes are not those of a message.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        reader.version()?;
        let expires_at = reader.u64()?;
        let expires_at = (expires_at != u64::MAX).then(|| Instant::from_millis(expires_at));
        let publisher = reader.string()?.into();
        let share = Some(reader.string()?).filter(|share| !share.is_empty()).map(Rc::from);
        let of = if share.is_some() { reader.u64()? } else { 0 };
        let (number, known, mut choices) = (reader.u64()?, reader.u64()?, Vec::new());
        for _ in 0..reader.u16()? {
            let (share, client) = (reader.string()?.into(), reader.string()?.into());
            choices.push(Choice { share, client, member: reader.u64()?, node: reader.u64()? });
        }
        let message = Message::from_bytes(reader.0).ok()?;
        Some(Self { message, publisher, expires_at, share, of, number, known, choices })
    }

    pub(crate) fn mark(&self) -> Mark {
        match &self.share {
            Some(share) if self.of > 0 => Mark::Repeat { of: self.of, share: share.clone() },
            _ => Mark::Number(self.number),
        }
    }
}

impl Member {
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![MEMBER];
        out.extend(self.node.to_be_bytes());
        out.push(self.is_connected.map_or(0, |is_connected| 1 + u8::from(is_connected)));
        put_string(&mut out, &self.share);
        put_string(&mut out, &self.client);
        out
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        reader.u8().filter(|kind| *kind == MEMBER)?;
        let node = reader.u64()?;
        let is_connected = match reader.u8()? {
            0 => None,
            state => Some(state == 2),
        };
        let (share, client) = (reader.string()?.into(), reader.string()?.into());
        reader.0.is_empty().then_some(Self { node, share, client, is_connected })
    }
}

impl Item {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Message(logged) => logged.to_bytes(),
            Self::Member(member) => member.to_bytes(),
            Self::Settled(position) => [&[SETTLED], &position.to_be_bytes()[..]].concat(),
        }
    }

    /// Returns `None` if the bytes are not those of an item.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first() {
            Some((&MEMBER, _)) => Member::from_bytes(bytes).map(Self::Member),
            Some((&SETTLED, rest)) => {
                rest.try_into().ok().map(|rest| Self::Settled(u64::from_be_bytes(rest)))
            }
            _ => Logged::from_bytes(bytes).map(Self::Message),
        }
    }
}

impl Entry {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend(self.owner.to_be_bytes());
        out.extend(self.stamp.to_be_bytes());
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        let claim = flag(self.is_claim, CLAIM);
        out.push(flag(self.is_fresh, FRESH) | flag(self.has_ended, ENDED) | claim);
        out.extend(self.position.to_be_bytes());
        out.extend(u32::try_from(self.records.len()).unwrap_or(u32::MAX).to_be_bytes());
        for (key, value) in &self.records {
            put_bytes(&mut out, key);
            out.push(value.is_some().into());
            if let Some(value) = value {
                put_bytes(&mut out, value);
            }
        }
        out.extend(u16::try_from(self.owed.len()).unwrap_or(u16::MAX).to_be_bytes());
        self.owed.iter().for_each(|owed| owed.write(&mut out));
        out.push(self.will.is_some().into());
        self.will.iter().for_each(|will| will.write(&mut out));
        out
    }

    /// Returns `None` if the bytes are not those of an entry.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        reader.version()?;
        let (owner, stamp, flags) = (reader.u64()?, reader.u64()?, reader.u8()?);
        let position = reader.u64()?;
        let mut records = Vec::new();
        for _ in 0..reader.u32()? {
            let key = reader.bytes()?.to_vec();
            let value = match reader.u8()? {
                0 => None,
                _ => Some(reader.bytes()?.to_vec()),
            };
            records.push((key, value));
        }
        let owed = (0..reader.u16()?).map(|_| Owed::read(&mut reader)).collect::<Option<_>>()?;
        let will = match reader.u8()? {
            0 => None,
            _ => Some(Owed::read(&mut reader)?),
        };
        let (is_fresh, has_ended) = (flags & FRESH != 0, flags & ENDED != 0);
        let is_claim = flags & CLAIM != 0;
        let is_whole = reader.0.is_empty();
        let entry =
            Self { owner, stamp, is_fresh, has_ended, is_claim, position, records, owed, will };
        is_whole.then_some(entry)
    }
}

impl Owed {
    fn write(&self, out: &mut Vec<u8>) {
        put_string(out, &self.token);
        put_bytes(out, &self.message);
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self { token: reader.string()?.to_owned(), message: reader.bytes()?.to_vec() })
    }
}

/// The bytes that are left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.take(usize::try_from(length).ok()?)
    }

    fn string(&mut self) -> Option<&'a str> {
        let length = self.u16()?;
        std::str::from_utf8(self.take(length.into())?).ok()
    }

    fn version(&mut self) -> Option<()> {
        (self.u8()? == VERSION).then_some(())
    }
}

// ---- records of the library's journal ----

/// Returns the kind of a record, and the number of its session, if it belongs to one.
pub(crate) fn session_of(key: &[u8]) -> Option<(u8, u64)> {
    let (kind, rest) = key.split_first()?;
    let number = rest.first_chunk().copied().map(u64::from_be_bytes)?;
    b"sfqoi".contains(kind).then_some((*kind, number))
}

/// Returns the client identifier in the record of a session.
pub(crate) fn client_of(value: &[u8]) -> Option<&str> {
    let mut reader = Reader(value);
    reader.u8()?;
    reader.string()
}

/// Whether the client is connected, in the record of a session.
pub(crate) fn is_connected(value: &[u8]) -> bool {
    value.first().is_some_and(|flags| flags & 1 != 0)
}

/// Returns the position in the log of the message that a record of a queue names.
pub(crate) fn position_of(value: &[u8]) -> Option<u64> {
    value.first_chunk().copied().map(u64::from_be_bytes)
}

/// Returns the key of the record of a message in the log.
pub(crate) fn key_of_message(position: u64) -> Vec<u8> {
    [b"m", &position.to_be_bytes()[..]].concat()
}

/// Returns the topic filter in the key of a subscription, without its share name.
pub(crate) fn filter_of(key: &[u8]) -> Option<&str> {
    let filter = std::str::from_utf8(key.get(10..)?).ok()?;
    let is_shared = key.get(9) == Some(&1);
    if is_shared { filter.splitn(3, '/').nth(2) } else { Some(filter) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mqtt_sansio::codec::Publish;

    fn entry() -> Entry {
        let owed = |token: &str| Owed { token: token.into(), message: b"message".to_vec() };
        Entry {
            owner: 7,
            stamp: 1 << 40,
            is_fresh: true,
            has_ended: false,
            is_claim: false,
            position: 3,
            records: vec![(b"s1".to_vec(), Some(b"x".to_vec())), (b"q2".to_vec(), None)],
            owed: vec![owed("a"), owed("b")],
            will: Some(owed("w")),
        }
    }

    #[test]
    fn entries_and_messages_are_read_as_written() {
        let bytes = entry().to_bytes();
        assert_eq!(Entry::from_bytes(&bytes), Some(entry()));
        // Any other bytes are refused, without a panic.
        for length in 0..bytes.len() {
            assert_eq!(Entry::from_bytes(&bytes[..length]), None);
        }
        assert_eq!(Entry::from_bytes(&[&bytes[..], &[0]].concat()), None);
        let message = Message::new(&Publish::new("a/b", b"payload")).unwrap();
        let expires_at = Some(Instant::from_millis(17));
        let (share, client) = ("$share/g/a".into(), "member".into());
        let choice = Choice { share, client, member: 9, node: 7 };
        let (share, choices) = (Some(choice.share.clone()), vec![choice]);
        let (publisher, of, number, known) = ("client".into(), 5, 13, 11);
        let logged = Logged { message, publisher, expires_at, share, of, number, known, choices };
        let bytes = logged.to_bytes();
        let Some(Item::Message(read)) = Item::from_bytes(&bytes) else { panic!() };
        assert_eq!((&read.share, &read.choices), (&logged.share, &logged.choices));
        assert_eq!((read.of, read.number, read.known), (of, number, known));
        assert_eq!((read.message, read.expires_at), (logged.message, expires_at));
        assert_eq!(&*read.publisher, "client");
        for length in 0..bytes.len() {
            assert!(Item::from_bytes(&bytes[..length]).is_none());
        }
        let bytes = Item::Settled(1 << 40).to_bytes();
        assert!(matches!(Item::from_bytes(&bytes), Some(Item::Settled(0x100_0000_0000))));
        assert!((0..bytes.len()).all(|length| Item::from_bytes(&bytes[..length]).is_none()));
        for is_connected in [None, Some(false), Some(true)] {
            let (share, client) = ("$share/g/a".into(), "member".into());
            let member = Member { node: 7, share, client, is_connected };
            let bytes = member.to_bytes();
            assert!(matches!(Item::from_bytes(&bytes), Some(Item::Member(read)) if read == member));
            for length in 0..bytes.len() {
                assert!(Item::from_bytes(&bytes[..length]).is_none());
            }
        }
    }

    #[test]
    fn state_is_what_entries_leave() {
        let mut state = State::default();
        state.apply(entry());
        state.apply(Entry { owner: 8, is_claim: true, ..Entry::default() });
        assert_eq!((state.owner, state.position, state.owed.len()), (8, 3, 2));
        assert!(state.is_kept() && state.will.is_some());
        let records = vec![(b"s1".to_vec(), None)];
        state.apply(Entry { owner: 8, position: 5, records, ..Entry::default() });
        assert_eq!((state.position, state.owed.len(), state.is_kept()), (5, 0, false));
        state.apply(Entry { is_fresh: true, has_ended: true, ..Entry::default() });
        assert_eq!(state, State { has_ended: true, ..State::default() });
        // The position of a will is that of the entry that has it.
        let will = entry().will;
        state.apply(Entry { is_claim: true, position: 9, will, ..Entry::default() });
        state.apply(Entry { position: 12, ..Entry::default() });
        assert_eq!((state.before_will, state.position), (9, 12));
        assert!(!state.is_will_claimed);
        state.apply(Entry { is_claim: true, ..Entry::default() });
        state.apply(Entry { position: 13, ..Entry::default() });
        assert!(state.is_will_claimed);
    }
}
