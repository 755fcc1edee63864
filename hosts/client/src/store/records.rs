//! The records of a stored session, and the state that results from them.
//!
//! All numbers are big-endian. A record is a kind of one byte and its content:
//!
//! | kind | content |
//! |---|---|
//! | 1 | the client identifier, with a length of 2 bytes |
//! | 2 | a message to send: the key of 8 bytes; the Unix time in milliseconds at which it expires, or 2⁶⁴ − 1; and the message in the format of [`mqtt_sansio::session::stored`], with a length of 4 bytes |
//! | 3 | the outcome of a message: its key |
//! | 4 to 9 | a [`Change`]: `Sent`, `Released`, `Withheld`, `Ended`, `Accepted`, `Completed`: the packet identifier of 2 bytes, and for the first two the key, or 0 |

use mqtt_sansio::Instant;
use mqtt_sansio::codec::{PacketIdentifier, Publish, QoS};
use mqtt_sansio::session::{Change, Message, Outgoing, Owed, Session};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const IDENTIFIER: u8 = 1;
const MESSAGE: u8 = 2;
const OUTCOME: u8 = 3;
const SENT: u8 = 4;
const RELEASED: u8 = 5;
const WITHHELD: u8 = 6;
const ENDED: u8 = 7;
const ACCEPTED: u8 = 8;
const COMPLETED: u8 = 9;

/// Stands for a message that does not expire.
const NEVER: u64 = u64::MAX;

/// Records that are stored together or not at all.
#[derive(Debug, Default)]
pub(crate) struct Records {
    pub(super) bytes: Vec<u8>,
    /// Whether the records must be on the disk before the output is sent. The others can be lost
    /// with the power, because the client then only resends a QoS 1 message.
    pub(super) must_sync: bool,
}

impl Records {
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Adds the records of another batch.
    pub(super) fn append(&mut self, mut other: Self) {
        self.bytes.append(&mut other.bytes);
        self.must_sync |= other.must_sync;
    }

    pub(crate) fn client_identifier(&mut self, identifier: &str) {
        self.put([IDENTIFIER]);
        self.put(u16::try_from(identifier.len()).unwrap_or(u16::MAX).to_be_bytes());
        self.bytes.extend_from_slice(identifier.as_bytes());
        self.must_sync = true;
    }

    /// Records a message that must be sent. A message with QoS 0 can be lost, so it is not stored.
    pub(crate) fn message(&mut self, key: u64, publish: &Publish<'_>) {
        let Ok(message) = Message::new(publish) else { return };
        if publish.qos == QoS::AtMostOnce {
            return;
        }
        let interval = publish.properties.message_expiry_interval;
        let expires_at = interval.map(|seconds| unix_time() + Duration::from_secs(seconds.into()));
        let expires_at = expires_at.map_or(NEVER, |at| milliseconds(at).min(NEVER - 1));
        self.stored_message(key, &StoredMessage { expires_at, bytes: message.to_bytes() });
        self.must_sync = true;
    }

    fn stored_message(&mut self, key: u64, message: &StoredMessage) {
        self.put([MESSAGE]);
        self.put(key.to_be_bytes());
        self.put(message.expires_at.to_be_bytes());
        self.put(u32::try_from(message.bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
        self.bytes.extend_from_slice(&message.bytes);
    }

    /// Records that the exchange of a message is over.
    pub(crate) fn outcome(&mut self, key: u64) {
        self.put([OUTCOME]);
        self.put(key.to_be_bytes());
    }

    pub(crate) fn change(&mut self, change: Change) {
        self.must_sync |= change.holds_output();
        let (kind, packet_identifier, key) = match change {
            Change::Sent { packet_identifier, key } => (SENT, packet_identifier, Some(key)),
            Change::Released { packet_identifier, key } => (RELEASED, packet_identifier, Some(key)),
            Change::Withheld { packet_identifier } => (WITHHELD, packet_identifier, None),
            Change::Ended { packet_identifier } => (ENDED, packet_identifier, None),
            Change::Accepted { packet_identifier } => (ACCEPTED, packet_identifier, None),
            Change::Completed { packet_identifier } => (COMPLETED, packet_identifier, None),
        };
        self.put([kind]);
        self.put(packet_identifier.get().to_be_bytes());
        if let Some(key) = key {
            self.put(key.unwrap_or(0).to_be_bytes());
        }
    }

    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        self.bytes.extend_from_slice(&bytes);
    }
}

/// The state after some records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    client_identifier: Option<String>,
    /// The messages by their keys, which rise in the order of the calls.
    messages: BTreeMap<u64, StoredMessage>,
    exchanges: BTreeMap<PacketIdentifier, Exchange>,
    /// The number of PUBREC packets so far.
    released: u64,
    /// The QoS 2 messages that were received.
    accepted: BTreeSet<PacketIdentifier>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct StoredMessage {
    expires_at: u64,
    bytes: Vec<u8>,
}

/// The exchange of a QoS 2 message that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exchange {
    Sent { key: u64 },
    Released { order: u64, key: u64 },
    Withheld,
}

/// A session as it was stored.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) session: Session,
    /// The highest key of a message.
    pub(crate) last_key: u64,
}

impl State {
    /// Applies records. Returns `None` if they are damaged.
    pub(super) fn apply(&mut self, mut records: &[u8]) -> Option<()> {
        while let Some((kind, rest)) = records.split_first() {
            records = rest;
            self.apply_one(*kind, &mut records)?;
        }
        Some(())
    }

    fn apply_one(&mut self, kind: u8, rest: &mut &[u8]) -> Option<()> {
        match kind {
            IDENTIFIER => {
                let length = u16::from_be_bytes(take(rest)?);
                let text = take_slice(rest, length.into())?;
                self.client_identifier = Some(std::str::from_utf8(text).ok()?.to_owned());
            }
            MESSAGE => {
                let key = u64::from_be_bytes(take(rest)?);
                let expires_at = u64::from_be_bytes(take(rest)?);
                let length = usize::try_from(u32::from_be_bytes(take(rest)?)).ok()?;
                let bytes = take_slice(rest, length)?.to_vec();
                self.messages.insert(key, StoredMessage { expires_at, bytes });
            }
            OUTCOME => drop(self.messages.remove(&u64::from_be_bytes(take(rest)?))),
            _ => self.apply_change(kind, rest)?,
        }
        Some(())
    }

    fn apply_change(&mut self, kind: u8, rest: &mut &[u8]) -> Option<()> {
        let packet_identifier = PacketIdentifier::new(u16::from_be_bytes(take(rest)?))?;
        match kind {
            SENT => {
                let key = u64::from_be_bytes(take(rest)?);
                self.exchanges.insert(packet_identifier, Exchange::Sent { key });
            }
            RELEASED => {
                let key = u64::from_be_bytes(take(rest)?);
                self.messages.remove(&key);
                self.released += 1;
                let exchange = Exchange::Released { order: self.released, key };
                self.exchanges.insert(packet_identifier, exchange);
            }
            WITHHELD => {
                let before = self.exchanges.insert(packet_identifier, Exchange::Withheld);
                self.forget_message(before);
            }
            ENDED => {
                let before = self.exchanges.remove(&packet_identifier);
                self.forget_message(before);
            }
            ACCEPTED => drop(self.accepted.insert(packet_identifier)),
            COMPLETED => drop(self.accepted.remove(&packet_identifier)),
            _ => return None,
        }
        Some(())
    }

    /// Removes the message of an exchange that is over. The record of its outcome can follow or be
    /// lost, but the message must not be sent again, because the receiver can have it.
    fn forget_message(&mut self, exchange: Option<Exchange>) {
        if let Some(Exchange::Sent { key }) = exchange {
            self.messages.remove(&key);
        }
    }

    /// Returns the fewest records that result in this state.
    pub(super) fn to_records(&self) -> Vec<u8> {
        let mut records = Records::default();
        if let Some(identifier) = &self.client_identifier {
            records.client_identifier(identifier);
        }
        for (key, message) in &self.messages {
            records.stored_message(*key, message);
        }
        for (packet_identifier, exchange) in self.in_order() {
            let key_of = |key| Some(key).filter(|key| *key != 0);
            records.change(match exchange {
                Exchange::Sent { key } => Change::Sent { packet_identifier, key: key_of(key) },
                Exchange::Released { key, .. } => {
                    Change::Released { packet_identifier, key: key_of(key) }
                }
                Exchange::Withheld => Change::Withheld { packet_identifier },
            });
        }
        for packet_identifier in &self.accepted {
            records.change(Change::Accepted { packet_identifier: *packet_identifier });
        }
        records.bytes
    }

    /// Returns the exchanges in the order in which their packets are resent.
    fn in_order(&self) -> Vec<(PacketIdentifier, Exchange)> {
        let mut all: Vec<_> = self.exchanges.iter().map(|(id, own)| (*id, *own)).collect();
        all.sort_by_key(|(packet_identifier, exchange)| match exchange {
            Exchange::Sent { key } => (0, *key),
            Exchange::Released { order, .. } => (1, *order),
            Exchange::Withheld => (2, packet_identifier.get().into()),
        });
        all
    }

    /// Returns the session. Returns `None` if a message is damaged.
    ///
    /// The client sends its messages in the order of their keys. So each message before the last
    /// QoS 2 message that was sent is in flight, and keeps its place. The packet identifier of a
    /// QoS 1 message is not stored: no server remembers it, so any other will do.
    pub(super) fn to_stored(&self, now: Instant) -> Option<Stored> {
        let unix_now = milliseconds(unix_time());
        let sent =
            self.exchanges.iter().filter_map(|(packet_identifier, exchange)| match exchange {
                Exchange::Sent { key } => Some((*key, *packet_identifier)),
                _ => None,
            });
        let sent: HashMap<_, _> = sent.collect();
        let last_sent = sent.keys().max().copied().unwrap_or(0);
        let mut free = (1..=u16::MAX).filter_map(PacketIdentifier::new);
        let mut free = free.by_ref().filter(|one| !self.exchanges.contains_key(one));
        let (mut owed, mut waiting) = (Vec::new(), Vec::new());
        for (key, stored) in &self.messages {
            let mut outgoing = Outgoing::new(Some(*key), Message::from_bytes(&stored.bytes).ok()?);
            let left = Duration::from_millis(stored.expires_at.saturating_sub(unix_now));
            outgoing.expires_at = (stored.expires_at != NEVER).then(|| now + left);
            let identifier = match sent.get(key) {
                Some(packet_identifier) => Some(*packet_identifier),
                None if *key < last_sent => free.next(),
                None => None,
            };
            match identifier {
                Some(identifier) => owed.push((identifier, Owed::Publish(outgoing))),
                None => waiting.push(outgoing),
            }
        }
        for (packet_identifier, exchange) in self.in_order() {
            match exchange {
                Exchange::Sent { key } if self.messages.contains_key(&key) => {}
                Exchange::Released { key, .. } => {
                    owed.push((packet_identifier, Owed::Pubrel(Some(key).filter(|key| *key != 0))));
                }
                // The packet identifier of an exchange without a message is only reserved.
                Exchange::Sent { .. } | Exchange::Withheld => {
                    owed.push((packet_identifier, Owed::Nothing));
                }
            }
        }
        let keys = self.exchanges.values().map(|exchange| match exchange {
            Exchange::Sent { key } | Exchange::Released { key, .. } => *key,
            Exchange::Withheld => 0,
        });
        let last_key = keys.chain(self.messages.keys().copied()).max().unwrap_or(0);
        let session = Session::restore(owed, self.accepted.iter().copied(), waiting)?;
        let session = session.established_for(self.client_identifier.as_deref());
        Some(Stored { session, last_key })
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

fn take_slice<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (first, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(first)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
