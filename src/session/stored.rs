//! The byte format of stored sessions and messages.
//!
//! All numbers are big-endian, as on the wire. A session is:
//!
//! | field            | bytes    | content                                                        |
//! |------------------|----------|----------------------------------------------------------------|
//! | format           | 4        | `MQS` and the version of the format, 1                         |
//! | flags            | 1        | bit 0: the server can have this session; bit 1: a client identifier |
//! | identifier       | 2 + n    | the client identifier, only if bit 1 is set                    |
//! | next             | 2        | the packet identifier to try first for the next packet         |
//! | in flight        | 4 + n    | a count, and the exchanges in the order in which they are resent |
//! | queue            | 4 + n    | a count, and the outgoing messages, the next to be sent first  |
//! | received         | 4 + 2 n  | a count, and the identifiers of the QoS 2 messages that wait for PUBREL, in rising order |
//! | outcomes         | 4 + n    | a count, and the outcomes that are not reported yet            |
//!
//! An exchange is a packet identifier of 2 bytes and a state: 1 and an outgoing message for a
//! PUBLISH that must be resent; 2 for one that must not be; 3 for a PUBREL that must be resent, or
//! 4 and a key of 8 bytes.
//!
//! An outgoing message is one byte of flags (bit 0: a key, bit 1: an expiry), the key of 8 bytes,
//! the milliseconds until it expires in 8, a count of 4, Subscription Identifiers of 4 bytes each,
//! and a message. A message is one byte with its QoS in bits 0 and 1 and RETAIN in bit 2, the topic
//! name with a length of 2 bytes, the properties as in 5.0 with a length of 4, and the payload with
//! a length of 4. An outcome is a key of 8 bytes and a kind: 0 for expired; 1 and a message for not
//! allowed; 2, or 3 and a message, for a lost session.
//!
//! With the feature `serde` a [`Session`] and a [`Message`] are serialized as these bytes. In a
//! session the expiry is on the host's clock, which must then continue from one run to the next.

use super::inbound::Exchange;
use super::outbound::Outbound;
use super::slot::Slot;
use super::{Key, Message, Outcome, Outgoing, Published, Session};
use crate::codec::{
    DecodeError, PacketIdentifier, Publish, QoS, Reader, SubscriptionIdentifier, Text,
};
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

const FORMAT: &[u8; 4] = b"MQS\x01";
const ESTABLISHED: u8 = 1;
const IDENTIFIER: u8 = 2;
const KEY: u8 = 1;
const EXPIRY: u8 = 2;
const RETAIN: u8 = 4;

/// Why bytes were not loaded.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The bytes do not begin with a known version of the format.
    #[error("expected the bytes of a session in a known format")]
    Format,
    /// The bytes are incomplete, too long, or hold impossible values.
    #[error("bytes are damaged")]
    Damaged,
}

impl Session {
    /// Returns the session as bytes, in version 1 of the [format](crate::session::stored).
    ///
    /// For a session in use, the bytes describe the state after an abrupt disconnect: a message
    /// that was delivered to the host and is not acknowledged will be redelivered. Messages keep
    /// the time that is left until they expire.
    ///
    /// ```
    /// use core::time::Duration;
    /// use mqtt_sansio::Instant;
    /// use mqtt_sansio::codec::{Publish, QoS};
    /// use mqtt_sansio::session::{Message, Outgoing, QueueLimit, Session};
    ///
    /// let now = Instant::from_millis(0);
    /// let publish = Publish { qos: QoS::AtLeastOnce, ..Publish::new("a", b"!") };
    /// let mut session = Session::new();
    /// let limit = QueueLimit { messages: 10, bytes: 1_000 };
    /// session.enqueue(Outgoing::new(Some(7), Message::new(&publish)?), limit, now).unwrap();
    ///
    /// let bytes = session.to_bytes(now);
    /// let loaded = Session::from_bytes(&bytes, now, Duration::from_secs(60))?;
    /// assert_eq!(loaded.queued(), 1);
    /// assert_eq!(loaded.to_bytes(now), bytes);
    /// assert!(Session::from_bytes(&bytes[1..], now, Duration::ZERO).is_err());
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn to_bytes(&self, now: Instant) -> Vec<u8> {
        let mut out = Writer { bytes: FORMAT.to_vec(), now };
        let identifier = self.client_identifier();
        out.put([u8::from(self.established) * ESTABLISHED + identifier.map_or(0, |_| IDENTIFIER)]);
        if let Some(identifier) = identifier {
            // Its length was checked when it was made.
            out.put(u16::try_from(identifier.len()).unwrap_or(u16::MAX).to_be_bytes());
            out.bytes.extend_from_slice(identifier.as_bytes());
        }
        out.put(self.outbound.slots.next.to_be_bytes());
        let slots = self.outbound.slots.iter();
        let in_flight = slots.filter(|(_, slot)| !matches!(slot, Slot::AwaitSuback { .. }));
        out.list(in_flight, |out, (identifier, slot)| {
            out.put(identifier.get().to_be_bytes());
            out.slot(slot);
        });
        out.list(self.outbound.queue.iter(), Writer::outgoing);
        let received = self.inbound.iter().filter(|(_, exchange)| exchange.is_accepted());
        out.list(received, |out, (identifier, _)| out.put(identifier.get().to_be_bytes()));
        out.list(self.completed.iter(), |out, Published { key, outcome }| {
            out.put(key.to_be_bytes());
            out.outcome(outcome);
        });
        out.bytes
    }

    /// Loads a session from bytes that were stored the given time ago. Any bytes can be passed.
    pub fn from_bytes(bytes: &[u8], now: Instant, ago: Duration) -> Result<Self, LoadError> {
        let rest = bytes.strip_prefix(FORMAT).ok_or(LoadError::Format)?;
        let mut input = Loader { reader: Reader(rest), now, ago };
        let flags = input.flags(ESTABLISHED | IDENTIFIER)?;
        let has_identifier = flags & IDENTIFIER != 0;
        let identifier = has_identifier.then(|| Text::decode(&mut input.reader)).transpose()?;
        if identifier.is_some_and(Text::is_empty) {
            return Err(LoadError::Damaged);
        }
        let client_identifier = identifier.map(|text| Box::new(text.to_str().into()));
        let next = input.identifier()?;
        let slots =
            input.list(u32::from(u16::MAX), |input| Ok((input.identifier()?, input.slot()?)))?;
        let queue = input.list(u32::MAX, Loader::outgoing)?;
        let outbound = Outbound::load(next, slots, queue).ok_or(LoadError::Damaged)?;
        let established = flags & ESTABLISHED != 0;
        let mut session = Self { established, client_identifier, outbound, ..Self::default() };
        for identifier in input.list(u32::MAX, Loader::identifier)? {
            if session.inbound.last_key_value().is_some_and(|(last, _)| *last >= identifier) {
                return Err(LoadError::Damaged);
            }
            session.inbound.insert(identifier, Exchange::ACCEPTED);
        }
        session.completed.extend(input.list(u32::MAX, Loader::published)?);
        input.reader.end().map_err(|_| LoadError::Damaged)?;
        Ok(session)
    }
}

impl Message {
    /// Returns the message as bytes, in the [format](crate::session::stored) of stored sessions.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write_bytes(&mut out);
        out
    }

    /// Appends the message in the format of [`to_bytes`](Self::to_bytes).
    pub(crate) fn write_bytes(&self, out: &mut Vec<u8>) {
        let (_, properties, payload) = self.parts();
        let topic_name = self.topic_name_with_length();
        out.reserve(9 + topic_name.len() + properties.len() + payload.len());
        out.push(self.qos().as_u8() | if self.retain() { RETAIN } else { 0 });
        out.extend_from_slice(topic_name);
        put_long(out, properties);
        put_long(out, payload);
    }

    /// Loads a message from bytes. Any bytes can be passed.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, LoadError> {
        let (now, ago) = (Instant::default(), Duration::ZERO);
        let mut input = Loader { reader: Reader(bytes), now, ago };
        let message = input.message()?;
        input.reader.end().map_err(|_| LoadError::Damaged)?;
        Ok(message)
    }
}

struct Writer {
    bytes: Vec<u8>,
    now: Instant,
}

impl Writer {
    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        self.bytes.extend_from_slice(&bytes);
    }

    /// Writes a count of things in memory, of which there are fewer than 2³².
    fn count(&mut self, count: usize) {
        self.put(u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
    }

    fn list<T>(&mut self, items: impl Iterator<Item = T>, write: impl Fn(&mut Self, T)) {
        let items: Vec<_> = items.collect();
        self.count(items.len());
        items.into_iter().for_each(|item| write(self, item));
    }

    /// Writes a slot as it will be after the connection has ended.
    fn slot(&mut self, slot: &Slot) {
        match slot {
            Slot::DuePublish(outgoing) | Slot::AwaitAck(outgoing) => {
                self.put([1]);
                self.outgoing(outgoing);
            }
            // Requests are filtered out before.
            Slot::Withheld | Slot::AwaitSuback { .. } => self.put([2]),
            Slot::DuePubrel { key: None } | Slot::AwaitPubcomp { key: None, .. } => self.put([3]),
            Slot::DuePubrel { key: Some(key) } | Slot::AwaitPubcomp { key: Some(key), .. } => {
                self.put([4]);
                self.put(key.to_be_bytes());
            }
        }
    }

    fn outcome(&mut self, outcome: &Outcome<'_>) {
        let (kind, message) = match outcome {
            // An acknowledgement is reported at once, and never kept.
            Outcome::Acknowledged { .. } | Outcome::Expired => (0, None),
            Outcome::NotAllowed(message) => (1, Some(message)),
            Outcome::SessionLost(None) => (2, None),
            Outcome::SessionLost(Some(message)) => (3, Some(message)),
        };
        self.put([kind]);
        if let Some(message) = message {
            self.message(message);
        }
    }

    fn outgoing(&mut self, outgoing: &Outgoing) {
        let Outgoing { message, key, subscription_identifiers, expires_at } = outgoing;
        self.put([key.map_or(0, |_| KEY) | expires_at.map_or(0, |_| EXPIRY)]);
        if let Some(key) = key {
            self.put(key.get().to_be_bytes());
        }
        if let Some(at) = expires_at {
            self.put(at.as_millis().saturating_sub(self.now.as_millis()).to_be_bytes());
        }
        self.list(subscription_identifiers.iter(), |out, identifier| {
            out.put(identifier.get().to_be_bytes());
        });
        self.message(message);
    }

    fn message(&mut self, message: &Message) {
        message.write_bytes(&mut self.bytes);
    }
}

/// Writes bytes that were in one packet.
fn put_long(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}

struct Loader<'a> {
    reader: Reader<'a>,
    now: Instant,
    ago: Duration,
}

impl<'a> Loader<'a> {
    /// Reads a byte in which no other bits are set.
    fn flags(&mut self, known: u8) -> Result<u8, LoadError> {
        let flags = self.reader.u8()?;
        if flags & !known == 0 { Ok(flags) } else { Err(LoadError::Damaged) }
    }

    fn identifier(&mut self) -> Result<PacketIdentifier, LoadError> {
        PacketIdentifier::new(self.reader.u16()?).ok_or(LoadError::Damaged)
    }

    fn u64(&mut self) -> Result<u64, LoadError> {
        Ok(u64::from(self.reader.u32()?) << 32 | u64::from(self.reader.u32()?))
    }

    /// Reads a counted list. Each element takes at least a byte, so the list ends with the bytes,
    /// whatever the count.
    fn list<T>(
        &mut self,
        most: u32,
        read: impl Fn(&mut Self) -> Result<T, LoadError>,
    ) -> Result<Vec<T>, LoadError> {
        let count = self.reader.u32()?;
        if count > most {
            return Err(LoadError::Damaged);
        }
        (0..count).map(|_| read(self)).collect()
    }

    fn long(&mut self) -> Result<&'a [u8], LoadError> {
        let length = usize::try_from(self.reader.u32()?).map_err(|_| LoadError::Damaged)?;
        Ok(self.reader.take(length)?)
    }

    fn slot(&mut self) -> Result<Slot, LoadError> {
        Ok(match self.reader.u8()? {
            1 => match self.outgoing()? {
                outgoing if outgoing.message.qos() > QoS::AtMostOnce => Slot::DuePublish(outgoing),
                _ => return Err(LoadError::Damaged),
            },
            2 => Slot::Withheld,
            3 => Slot::DuePubrel { key: None },
            4 => Slot::DuePubrel { key: Some(self.u64()?) },
            _ => return Err(LoadError::Damaged),
        })
    }

    fn published(&mut self) -> Result<Published<'static>, LoadError> {
        let key = self.u64()?;
        let outcome = match self.reader.u8()? {
            0 => Outcome::Expired,
            1 => Outcome::NotAllowed(self.message()?),
            2 => Outcome::SessionLost(None),
            3 => Outcome::SessionLost(Some(self.message()?)),
            _ => return Err(LoadError::Damaged),
        };
        Ok(Published { key, outcome })
    }

    fn outgoing(&mut self) -> Result<Outgoing, LoadError> {
        let flags = self.flags(KEY | EXPIRY)?;
        let key = |input: &mut Self| Key::new(input.u64()?).ok_or(LoadError::Damaged);
        let key = (flags & KEY != 0).then(|| key(self)).transpose()?;
        let left = (flags & EXPIRY != 0).then(|| self.u64()).transpose()?;
        let left = left.map(|left| Duration::from_millis(left).saturating_sub(self.ago));
        let expires_at = left.map(|left| self.now + left);
        let identifier = |input: &mut Self| {
            SubscriptionIdentifier::new(input.reader.u32()?).ok_or(LoadError::Damaged)
        };
        let subscription_identifiers = self.list(u32::MAX, identifier)?.into_iter().collect();
        Ok(Outgoing { message: self.message()?, key, subscription_identifiers, expires_at })
    }

    fn message(&mut self) -> Result<Message, LoadError> {
        let flags = self.flags(3 | RETAIN)?;
        let qos = QoS::from_u8(flags & 3).ok_or(LoadError::Damaged)?;
        let mut publish = Publish { qos, retain: flags & RETAIN != 0, ..Publish::default() };
        publish.topic_name = Text::decode_topic_name(&mut self.reader)?;
        publish.properties.read_section(Reader(self.long()?), false)?;
        publish.payload = self.long()?;
        if publish.properties.topic_alias.is_some()
            || !publish.properties.subscription_identifiers.is_empty()
        {
            return Err(LoadError::Damaged);
        }
        Message::new(&publish).map_err(|_| LoadError::Damaged)
    }
}

impl From<DecodeError> for LoadError {
    fn from(_: DecodeError) -> Self {
        Self::Damaged
    }
}

#[cfg(feature = "serde")]
mod with_serde {
    use super::{Duration, Instant, Message, Session};
    use crate::codec::Octets;
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    impl Serialize for Session {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_bytes(&self.to_bytes(Instant::default()))
        }
    }

    impl<'de> Deserialize<'de> for Session {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let Octets(bytes) = Octets::deserialize(deserializer)?;
            Self::from_bytes(&bytes, Instant::default(), Duration::ZERO).map_err(D::Error::custom)
        }
    }

    impl Serialize for Message {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_bytes(&self.to_bytes())
        }
    }

    impl<'de> Deserialize<'de> for Message {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let Octets(bytes) = Octets::deserialize(deserializer)?;
            Self::from_bytes(&bytes).map_err(D::Error::custom)
        }
    }
}
