//! Records as bytes. The page of [`journal`](super) describes them.

use super::super::grants::{Access, Grants, Verdict};
use crate::codec::{
    DecodeError, Expiry, Filter, PacketIdentifier, QoS, Reader, SubscriptionIdentifier,
    SubscriptionOptions, Text, Topic, Version,
};
use crate::router::Retained;
use crate::session::stored::LoadError;
use crate::session::{Message, Outgoing, SubscriptionIdentifiers};
use crate::sync::Arc;
use crate::time::Instant;
use alloc::string::String;
use alloc::vec::Vec;

/// The version of the format.
pub(in crate::broker) const VERSION: u8 = 1;

/// All numbers of messages, sessions and positions are below this.
const MAXIMUM_NUMBER: u64 = 1 << 62;

/// Checks the version of records.
pub(in crate::broker) fn check_version(value: &[u8]) -> Result<(), RecordError> {
    match value {
        [VERSION] => Ok(()),
        [version] if *version > VERSION => Err(RecordError::Version(*version)),
        _ => Err(RecordError::Value),
    }
}

/// Why a record was not restored.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The records are of a later version of the format, so none of them can be read.
    #[error("expected records in version {VERSION} of the format, got version {0}")]
    Version(u8),
    /// The key is of no known kind, or incomplete.
    #[error("key is damaged")]
    Key,
    /// The value is incomplete, too long, or impossible.
    #[error("value is damaged")]
    Value,
    /// The record refers to a message that is missing or damaged.
    #[error("message of the record is missing")]
    MessageMissing,
    /// The client has another session already.
    #[error("client of the record has another session")]
    DuplicateClient,
}

impl From<DecodeError> for RecordError {
    fn from(_: DecodeError) -> Self {
        Self::Value
    }
}

impl From<LoadError> for RecordError {
    fn from(_: LoadError) -> Self {
        Self::Value
    }
}

// ---- keys ----

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::broker) enum Key {
    Format,
    Message(u64),
    Session(u64),
    Subscription(u64, Filter),
    Queued(u64, u64),
    Outbound(u64, PacketIdentifier),
    Inbound(u64, PacketIdentifier),
    Position,
    Retained(Topic),
}

impl Key {
    pub(in crate::broker) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Format => out.push(b'v'),
            Self::Message(number) => out.extend_from_slice(&numbered(b'm', *number)),
            Self::Session(number) => out.extend_from_slice(&numbered(b's', *number)),
            Self::Subscription(session, filter) => {
                out.extend_from_slice(&numbered(b'f', *session));
                out.push(is_shared(filter).into());
                out.extend_from_slice(filter.as_text().as_bytes());
            }
            Self::Queued(session, position) => {
                out.extend_from_slice(&numbered(b'q', *session));
                out.extend_from_slice(&position.to_be_bytes());
            }
            Self::Outbound(session, identifier) => {
                out.extend_from_slice(&numbered(b'o', *session));
                out.extend_from_slice(&identifier.get().to_be_bytes());
            }
            Self::Inbound(session, identifier) => {
                out.extend_from_slice(&numbered(b'i', *session));
                out.extend_from_slice(&identifier.get().to_be_bytes());
            }
            Self::Position => out.push(b'n'),
            Self::Retained(topic) => {
                out.push(b'r');
                out.extend_from_slice(topic.as_text().as_bytes());
            }
        }
    }

    pub(in crate::broker) fn read(bytes: &[u8]) -> Result<Self, RecordError> {
        Self::try_read(bytes).ok_or(RecordError::Key)
    }

    /// Returns the greatest number in the key.
    pub(in crate::broker) fn greatest_number(&self) -> u64 {
        match *self {
            Self::Format | Self::Position | Self::Retained(_) => 0,
            Self::Message(number)
            | Self::Session(number)
            | Self::Subscription(number, _)
            | Self::Outbound(number, _)
            | Self::Inbound(number, _) => number,
            Self::Queued(session, position) => session.max(position),
        }
    }

    fn try_read(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let mut reader = Reader(rest);
        let key = match kind {
            b'v' => Self::Format,
            b'm' => Self::Message(number(&mut reader)?),
            b's' => Self::Session(number(&mut reader)?),
            b'f' => {
                let (session, kind) = (number(&mut reader)?, reader.u8().ok()?);
                let text = core::mem::replace(&mut reader, Reader(&[])).0;
                Self::Subscription(session, filter(kind, core::str::from_utf8(text).ok()?)?)
            }
            b'q' => Self::Queued(number(&mut reader)?, number(&mut reader)?),
            b'o' => Self::Outbound(number(&mut reader)?, reader.packet_identifier().ok()?),
            b'i' => Self::Inbound(number(&mut reader)?, reader.packet_identifier().ok()?),
            b'n' => Self::Position,
            b'r' => {
                let text = core::mem::replace(&mut reader, Reader(&[])).0;
                Self::Retained(Topic::new(core::str::from_utf8(text).ok()?).ok()?)
            }
            _ => return None,
        };
        reader.end().ok()?;
        Some(key)
    }
}

/// Returns the kind of a key and its first number.
const fn numbered(kind: u8, number: u64) -> [u8; 9] {
    let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
    [kind, a, b, c, d, e, f, g, h]
}

fn number(reader: &mut Reader<'_>) -> Option<u64> {
    number_of(reader).ok()
}

// ---- values ----

/// A session: its record without subscriptions and messages.
#[derive(Debug)]
pub(in crate::broker) struct StoredSession<'a> {
    pub(in crate::broker) client_identifier: &'a str,
    pub(in crate::broker) left: Left,
    pub(in crate::broker) will: Option<StoredWill<'a>>,
    pub(in crate::broker) grants: &'a Grants,
}

/// Whether the client was connected, and how long the session lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum Left {
    Connected(Expiry),
    Away(Option<Instant>),
}

#[derive(Debug)]
pub(in crate::broker) struct StoredWill<'a> {
    pub(in crate::broker) delay: u32,
    pub(in crate::broker) due: Option<Instant>,
    pub(in crate::broker) message: &'a Message,
}

/// A session as it was read.
#[derive(Debug)]
pub(in crate::broker) struct LoadedSession {
    pub(in crate::broker) client_identifier: String,
    pub(in crate::broker) left: Left,
    pub(in crate::broker) will: Option<(u32, Option<Instant>, Message)>,
    pub(in crate::broker) grants: Grants,
}

const CONNECTED: u8 = 1;
const WILL: u8 = 2;
const GRANTS: u8 = 4;

impl StoredSession<'_> {
    pub(in crate::broker) fn write(&self) -> Vec<u8> {
        let Self { client_identifier, left, will, grants } = self;
        let is_connected = matches!(left, Left::Connected(_));
        let has_grants = **grants != Grants::all();
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        let flags =
            flag(is_connected, CONNECTED) | flag(will.is_some(), WILL) | flag(has_grants, GRANTS);
        let mut out = Vec::from([flags]);
        put_string(&mut out, client_identifier.as_bytes());
        match left {
            Left::Connected(expiry) => out.extend(expiry.to_seconds().to_be_bytes()),
            Left::Away(expires_at) => put_time(&mut out, *expires_at),
        }
        if let Some(StoredWill { delay, due, message }) = will {
            out.extend(delay.to_be_bytes());
            put_time(&mut out, *due);
            let message = message.to_bytes();
            out.extend(length(message.len()).to_be_bytes());
            out.extend(message);
        }
        if has_grants {
            put_grants(&mut out, grants);
        }
        out
    }
}

impl LoadedSession {
    pub(in crate::broker) fn read(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader(bytes);
        let flags = reader.u8()?;
        if flags & !(CONNECTED | WILL | GRANTS) != 0 {
            return Err(RecordError::Value);
        }
        let client_identifier = Text::decode(&mut reader)?.to_str().into();
        let left = if flags & CONNECTED != 0 {
            Left::Connected(Expiry::from_seconds(reader.u32()?))
        } else {
            Left::Away(time(&mut reader)?)
        };
        let will = if flags & WILL != 0 {
            let (delay, due) = (reader.u32()?, time(&mut reader)?);
            let length = usize::try_from(reader.u32()?).map_err(|_| RecordError::Value)?;
            Some((delay, due, Message::from_bytes(reader.take(length)?)?))
        } else {
            None
        };
        let grants = if flags & GRANTS != 0 { read_grants(&mut reader)? } else { Grants::all() };
        reader.end()?;
        Ok(Self { client_identifier, left, will, grants })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) struct StoredSubscription {
    pub(in crate::broker) options: SubscriptionOptions,
    pub(in crate::broker) identifier: Option<SubscriptionIdentifier>,
}

impl StoredSubscription {
    pub(in crate::broker) fn write(self) -> Vec<u8> {
        let identifier = self.identifier.map_or(0, SubscriptionIdentifier::get);
        let mut out = Vec::from([self.options.into()]);
        out.extend(identifier.to_be_bytes());
        out
    }

    pub(in crate::broker) fn read(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader(bytes);
        let options = SubscriptionOptions::try_from(reader.u8()?)?;
        let identifier = match reader.u32()? {
            0 => None,
            number => Some(identifier(number)?),
        };
        reader.end()?;
        Ok(Self { options, identifier })
    }
}

/// A message that waits for a client or is in flight.
#[derive(Debug)]
pub(in crate::broker) struct StoredQueued<'a> {
    pub(in crate::broker) message: u64,
    pub(in crate::broker) qos: QoS,
    pub(in crate::broker) retain: bool,
    pub(in crate::broker) expires_at: Option<Instant>,
    pub(in crate::broker) subscription_identifiers: &'a [SubscriptionIdentifier],
    pub(in crate::broker) share: Option<Filter>,
}

/// The same as it was read.
#[derive(Debug)]
pub(in crate::broker) struct LoadedQueued {
    pub(in crate::broker) message: u64,
    pub(in crate::broker) qos: QoS,
    pub(in crate::broker) retain: bool,
    pub(in crate::broker) expires_at: Option<Instant>,
    pub(in crate::broker) subscription_identifiers: SubscriptionIdentifiers,
    pub(in crate::broker) share: Option<Filter>,
}

const RETAIN: u8 = 4;
const SHARED: u8 = 8;

impl<'o> StoredQueued<'o> {
    pub(in crate::broker) fn new(
        message: u64,
        outgoing: &'o Outgoing,
        share: Option<Filter>,
    ) -> Self {
        let Outgoing { message: one, subscription_identifiers, expires_at, .. } = outgoing;
        let (qos, retain, expires_at) = (one.qos(), one.retain(), *expires_at);
        Self { message, qos, retain, expires_at, subscription_identifiers, share }
    }

    /// Returns the record if it is only its first part, as most are.
    pub(in crate::broker) fn as_head(&self) -> Option<QueuedHead> {
        let is_whole = self.subscription_identifiers.is_empty() && self.share.is_none();
        is_whole.then(|| self.head())
    }

    fn head(&self) -> QueuedHead {
        let retain = if self.retain { RETAIN } else { 0 };
        let shared = if self.share.is_some() { SHARED } else { 0 };
        // A packet has room for fewer than 2¹⁶ subscriptions of a client that match a topic.
        let count = u16::try_from(self.subscription_identifiers.len()).unwrap_or(u16::MAX);
        let flags = self.qos.as_u8() | retain | shared;
        QueuedHead { message: self.message, flags, expires_at: self.expires_at, count }
    }

    pub(in crate::broker) fn write(&self) -> Vec<u8> {
        let (head, identifiers) = (self.head(), self.subscription_identifiers);
        let mut out = Vec::with_capacity(QUEUED_HEAD + 4 * identifiers.len());
        out.extend(head.write());
        for identifier in identifiers.iter().take(head.count.into()) {
            out.extend(identifier.get().to_be_bytes());
        }
        self.share.iter().for_each(|filter| put_filter(&mut out, filter));
        out
    }
}

/// The first part of the record of a message that waits for a client or is in flight, which has a
/// fixed size.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) struct QueuedHead {
    message: u64,
    flags: u8,
    expires_at: Option<Instant>,
    /// The number of Subscription Identifiers that follow.
    count: u16,
}

/// The size of a [`QueuedHead`] as bytes.
pub(in crate::broker) const QUEUED_HEAD: usize = 19;

impl QueuedHead {
    pub(in crate::broker) fn write(self) -> [u8; QUEUED_HEAD] {
        let [a, b, c, d, e, f, g, h] = self.message.to_be_bytes();
        let [i, j, k, l, m, n, o, p] = time_bytes(self.expires_at);
        let [q, r] = self.count.to_be_bytes();
        [a, b, c, d, e, f, g, h, self.flags, i, j, k, l, m, n, o, p, q, r]
    }
}

impl LoadedQueued {
    pub(in crate::broker) fn read(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader(bytes);
        let message = number_of(&mut reader)?;
        let flags = reader.u8()?;
        let qos = match QoS::from_u8(flags & 3) {
            Some(qos) if qos > QoS::AtMostOnce => qos,
            _ => return Err(RecordError::Value),
        };
        if flags & !(3 | RETAIN | SHARED) != 0 {
            return Err(RecordError::Value);
        }
        let expires_at = time(&mut reader)?;
        let count = reader.u16()?;
        let subscription_identifiers =
            (0..count).map(|_| identifier(reader.u32()?)).collect::<Result<_, _>>()?;
        let share = (flags & SHARED != 0).then(|| read_filter(&mut reader)).transpose()?;
        reader.end()?;
        let retain = flags & RETAIN != 0;
        Ok(Self { message, qos, retain, expires_at, subscription_identifiers, share })
    }
}

/// The debt to the client under a packet identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum StoredOutbound {
    /// The PUBLISH at that position.
    Publish(u64),
    /// A PUBREL, after those with lesser numbers.
    Pubrel(u64),
    /// The identifier is reserved.
    Nothing,
}

impl StoredOutbound {
    pub(in crate::broker) fn write(self) -> Vec<u8> {
        let (kind, number) = match self {
            Self::Publish(position) => (1, Some(position)),
            Self::Pubrel(number) => (2, Some(number)),
            Self::Nothing => (3, None),
        };
        let mut out = Vec::from([kind]);
        out.extend(number.iter().flat_map(|number| number.to_be_bytes()));
        out
    }

    pub(in crate::broker) fn read(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader(bytes);
        let owed = match reader.u8()? {
            1 => Self::Publish(number_of(&mut reader)?),
            2 => Self::Pubrel(number_of(&mut reader)?),
            3 => Self::Nothing,
            _ => return Err(RecordError::Value),
        };
        reader.end()?;
        Ok(owed)
    }
}

#[derive(Debug)]
pub(in crate::broker) struct StoredRetained<'a> {
    /// The number of the message.
    pub(in crate::broker) number: u64,
    pub(in crate::broker) retained: &'a Retained,
}

/// The same as it was read.
#[derive(Debug)]
pub(in crate::broker) struct LoadedRetained {
    pub(in crate::broker) message: u64,
    pub(in crate::broker) qos: QoS,
    pub(in crate::broker) expires_at: Option<Instant>,
    pub(in crate::broker) publisher: Arc<[u8]>,
}

impl StoredRetained<'_> {
    pub(in crate::broker) fn write(&self) -> Vec<u8> {
        let Self { number, retained } = self;
        let mut out = number.to_be_bytes().to_vec();
        out.push(retained.message.qos().as_u8());
        put_time(&mut out, retained.expires_at);
        put_string(&mut out, &retained.publisher);
        out
    }
}

impl LoadedRetained {
    pub(in crate::broker) fn read(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader(bytes);
        let message = number_of(&mut reader)?;
        let qos = QoS::from_u8(reader.u8()?).ok_or(RecordError::Value)?;
        let expires_at = time(&mut reader)?;
        let publisher = Text::decode(&mut reader)?.as_bytes().into();
        reader.end()?;
        Ok(Self { message, qos, expires_at, publisher })
    }
}

// ---- parts of values ----

fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    // Strings come from packets, where their length has two bytes.
    out.extend(u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend(bytes);
}

/// Returns the length of something in memory that came from a packet.
fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn put_time(out: &mut Vec<u8>, time: Option<Instant>) {
    out.extend(time_bytes(time));
}

fn time_bytes(time: Option<Instant>) -> [u8; 8] {
    time.map_or(u64::MAX, Instant::as_millis).to_be_bytes()
}

fn time(reader: &mut Reader<'_>) -> Result<Option<Instant>, RecordError> {
    let milliseconds = u64_of(reader)?;
    Ok(Some(Instant::from_millis(milliseconds)).filter(|_| milliseconds != u64::MAX))
}

fn u64_of(reader: &mut Reader<'_>) -> Result<u64, RecordError> {
    Ok(u64::from(reader.u32()?) << 32 | u64::from(reader.u32()?))
}

/// Reads a number that the journal has given out.
fn number_of(reader: &mut Reader<'_>) -> Result<u64, RecordError> {
    let number = u64_of(reader)?;
    // At a thousand million a second they last for a hundred years.
    if number < MAXIMUM_NUMBER { Ok(number) } else { Err(RecordError::Value) }
}

fn identifier(number: u32) -> Result<SubscriptionIdentifier, RecordError> {
    SubscriptionIdentifier::new(number).ok_or(RecordError::Value)
}

fn is_shared(filter: &Filter) -> bool {
    filter.as_topic_filter().share_name().is_some()
}

fn put_filter(out: &mut Vec<u8>, filter: &Filter) {
    out.push(is_shared(filter).into());
    put_string(out, filter.as_text().as_bytes());
}

fn read_filter(reader: &mut Reader<'_>) -> Result<Filter, RecordError> {
    let kind = reader.u8()?;
    let text = Text::decode(reader)?;
    filter(kind, text.to_str()).ok_or(RecordError::Value)
}

fn filter(kind: u8, text: &str) -> Option<Filter> {
    // Before 5.0 there are no shared subscriptions.
    let version = match kind {
        0 => Version::V3_1_1,
        1 => Version::V5_0,
        _ => return None,
    };
    Filter::new(text, version).ok().filter(|filter| is_shared(filter) == (kind == 1))
}

/// Writes grants that are not those for everything.
fn put_grants(out: &mut Vec<u8>, grants: &Grants) {
    let Some((denied, allowed, otherwise)) = grants.parts() else { return };
    out.push(match otherwise {
        Verdict::Allowed => 0,
        Verdict::Denied => 1,
        Verdict::Asked => 2,
    });
    for list in [denied, allowed] {
        out.extend(length(list.len()).to_be_bytes());
        for (access, filter) in list {
            out.push(match access {
                Access::Publish => 0,
                Access::Subscribe => 1,
                Access::Receive => 2,
            });
            put_filter(out, filter);
        }
    }
}

fn read_grants(reader: &mut Reader<'_>) -> Result<Grants, RecordError> {
    let otherwise = match reader.u8()? {
        0 => Verdict::Allowed,
        1 => Verdict::Denied,
        2 => Verdict::Asked,
        _ => return Err(RecordError::Value),
    };
    let entry = |reader: &mut Reader<'_>| {
        let access = match reader.u8()? {
            0 => Access::Publish,
            1 => Access::Subscribe,
            2 => Access::Receive,
            _ => return Err(RecordError::Value),
        };
        Ok((access, read_filter(reader)?))
    };
    // Each entry takes bytes, so a list ends with them, whatever its count.
    let mut list = || (0..reader.u32()?).map(|_| entry(reader)).collect::<Result<_, _>>();
    Ok(Grants::from_parts(list()?, list()?, otherwise))
}
