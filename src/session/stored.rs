//! A session as bytes: to be kept in a file or a database while nobody is connected, or over a
//! restart.
//!
//! All numbers are big-endian, as on the wire. A session is:
//!
//! | field            | bytes    | what                                                                    |
//! |------------------|----------|-------------------------------------------------------------------------|
//! | format           | 4        | `MQS` and the version of the format, 1                                  |
//! | flags            | 1        | bit 0: for a client, the server can have this session                   |
//! | first identifier | 2        | the packet identifier of the first place in the ring, or the next to be given out |
//! | ring             | 4 + n    | a count, and for each place: 0 for a free one; 1 and an outgoing message for a PUBLISH that must be sent again; 2 for one that may not be; 3 and a number of 8 bytes, which rises in the order of the PUBREC packets, for a PUBREL that must be sent again, or 4, the number and a key of 8 bytes |
//! | left behind      | 4 + n    | a count, and for each packet identifier that is older than the ring: the identifier in 2, and as for a place of the ring, but 0 |
//! | queue            | 4 + n    | a count, and as many outgoing messages, the next to be sent first       |
//! | received         | 4 + 2 n  | a count, and the identifiers of the QoS 2 messages that wait for PUBREL, in rising order |
//! | ended            | 4 + n    | a count, and for each message whose end nobody was told of: its key of 8 bytes, and 0 for expired; 1 and a message for not allowed; 2, or 3 and a message, for a lost session |
//!
//! An outgoing message is one byte of flags (bit 0: a key, bit 1: an expiry), the key of 8 bytes,
//! the milliseconds that are left of it in 8, a count of 4 and as many Subscription Identifiers of
//! 4 bytes, and a message. A message is one byte with its QoS in bits 0 and 1 and RETAIN in bit 2,
//! the topic name with a length of 2 bytes, the properties as 5.0 writes them with a length of 4,
//! and the payload with a length of 4.
//!
//! With the feature `serde` a [`Session`] is serialized as these bytes, with the expiry on the
//! host's clock: for a clock that goes on counting from one run to the next.

use super::inbound::Exchange;
use super::outbound::Slot;
use super::{Message, Outcome, Outgoing, Published, Session};
use crate::codec::{
    DecodeError, PacketIdentifier, Publish, QoS, Reader, SubscriptionIdentifier, Text,
};
use crate::time::Instant;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

const FORMAT: &[u8; 4] = b"MQS\x01";
const ESTABLISHED: u8 = 1;
const KEY: u8 = 1;
const EXPIRY: u8 = 2;
const RETAIN: u8 = 4;

/// Why bytes are not a session.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoredSessionError {
    /// They do not begin as a session does, or as one of a version of the format that is not known.
    #[error("bytes are not a session of a known format")]
    Format,
    /// They end early, go on after the end, or hold what cannot be.
    #[error("bytes are damaged")]
    Damaged,
}

impl Session {
    /// The session as bytes, in version 1 of the [format](crate::session::stored).
    ///
    /// Of a session that has a connection, it is what a host can go on with that ends without a
    /// word: a message that the host was given, and has not acknowledged by hand or by taking the
    /// next step, will come again. Messages keep the time that is left until they expire.
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
        out.u8(if self.established { ESTABLISHED } else { 0 });
        out.u16(self.outbound.first());
        out.count(self.outbound.ring().len());
        for slot in self.outbound.ring() {
            out.slot(slot);
        }
        let mut left_behind = self.outbound.left_behind();
        left_behind.retain(|(_, slot)| !matches!(slot, Slot::AwaitSuback { .. }));
        out.count(left_behind.len());
        for (identifier, slot) in left_behind {
            out.u16(identifier.get());
            out.slot(slot);
        }
        out.count(self.outbound.queue().len());
        self.outbound.queue().for_each(|outgoing| out.outgoing(outgoing));
        let received = self.inbound.iter().filter(|(_, exchange)| exchange.is_taken());
        out.count(received.clone().count());
        received.for_each(|(identifier, _)| out.u16(identifier.get()));
        let ended: Vec<_> = self
            .completed
            .iter()
            .filter_map(|Published { key, outcome }| Some((key, ended(outcome)?)))
            .collect();
        out.count(ended.len());
        for (key, (how, message)) in ended {
            out.u64(*key);
            out.u8(how);
            message.into_iter().for_each(|message| out.message(message));
        }
        out.bytes
    }

    /// The session that was made into these bytes so long ago. Any bytes may be given.
    pub fn from_bytes(
        bytes: &[u8],
        now: Instant,
        ago: Duration,
    ) -> Result<Self, StoredSessionError> {
        let rest = bytes.strip_prefix(FORMAT).ok_or(StoredSessionError::Format)?;
        let mut input = Loader { reader: Reader(rest), now, ago };
        let mut session = Self { established: input.flags(ESTABLISHED)? != 0, ..Self::default() };
        let first = input.identifier()?;
        let ring = input.list(u32::from(u16::MAX), Loader::slot)?;
        let left_behind =
            input.list(u32::from(u16::MAX), |input| Ok((input.identifier()?, input.slot()?)))?;
        let queue = input.list(u32::MAX, Loader::outgoing)?;
        if !session.outbound.load(first, left_behind, ring.into(), queue) {
            return Err(StoredSessionError::Damaged);
        }
        for identifier in input.list(u32::MAX, Loader::identifier)? {
            if session.inbound.last_key_value().is_some_and(|(last, _)| *last >= identifier) {
                return Err(StoredSessionError::Damaged);
            }
            session.inbound.insert(identifier, Exchange::TAKEN);
        }
        session.completed = VecDeque::from(input.list(u32::MAX, |input| {
            let key = input.u64()?;
            let outcome = match input.reader.u8()? {
                0 => Outcome::Expired,
                1 => Outcome::NotAllowed(input.message()?),
                2 => Outcome::SessionLost(None),
                3 => Outcome::SessionLost(Some(input.message()?)),
                _ => return Err(StoredSessionError::Damaged),
            };
            Ok(Published { key, outcome })
        })?);
        input.reader.end().map_err(|_| StoredSessionError::Damaged)?;
        Ok(session)
    }
}

/// How a message has ended that no packet has ended: those that one has are told of at once.
fn ended<'a>(outcome: &'a Outcome<'_>) -> Option<(u8, Option<&'a Message>)> {
    match outcome {
        Outcome::Acknowledged { .. } => None,
        Outcome::Expired => Some((0, None)),
        Outcome::NotAllowed(message) => Some((1, Some(message))),
        Outcome::SessionLost(None) => Some((2, None)),
        Outcome::SessionLost(Some(message)) => Some((3, Some(message))),
    }
}

struct Writer {
    bytes: Vec<u8>,
    now: Instant,
}

impl Writer {
    fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    fn u16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// Of things in memory; there are never as many as 2³².
    fn count(&mut self, count: usize) {
        self.bytes.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
    }

    fn long(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    /// As it will be when the connection has ended.
    fn slot(&mut self, slot: &Slot) {
        match slot {
            Slot::Free | Slot::AwaitSuback { .. } => self.u8(0),
            Slot::DuePublish(outgoing) | Slot::AwaitAck(outgoing) => {
                self.u8(1);
                self.outgoing(outgoing);
            }
            Slot::Barred => self.u8(2),
            Slot::DuePubrel { key, received } | Slot::AwaitPubcomp { key, received, .. } => {
                self.u8(if key.is_some() { 4 } else { 3 });
                self.u64(*received);
                key.iter().for_each(|key| self.u64(*key));
            }
        }
    }

    fn outgoing(&mut self, outgoing: &Outgoing) {
        let Outgoing { message, key, subscription_identifiers, expires_at } = outgoing;
        self.u8(key.map_or(0, |_| KEY) | expires_at.map_or(0, |_| EXPIRY));
        if let Some(key) = key {
            self.u64(*key);
        }
        if let Some(at) = expires_at {
            self.u64(at.as_millis().saturating_sub(self.now.as_millis()));
        }
        self.count(subscription_identifiers.len());
        for identifier in subscription_identifiers {
            self.bytes.extend_from_slice(&identifier.get().to_be_bytes());
        }
        self.message(message);
    }

    fn message(&mut self, message: &Message) {
        let (topic_name, properties, payload) = message.parts();
        self.u8(message.qos().as_u8() | if message.retain() { RETAIN } else { 0 });
        // It was measured when the message was made.
        self.u16(u16::try_from(topic_name.len()).unwrap_or(u16::MAX));
        self.bytes.extend_from_slice(topic_name);
        self.long(properties);
        self.long(payload);
    }
}

struct Loader<'a> {
    reader: Reader<'a>,
    now: Instant,
    ago: Duration,
}

impl<'a> Loader<'a> {
    /// A byte in which no other bits may be set.
    fn flags(&mut self, known: u8) -> Result<u8, StoredSessionError> {
        let flags = self.reader.u8()?;
        if flags & !known == 0 { Ok(flags) } else { Err(StoredSessionError::Damaged) }
    }

    fn identifier(&mut self) -> Result<PacketIdentifier, StoredSessionError> {
        PacketIdentifier::new(self.reader.u16()?).ok_or(StoredSessionError::Damaged)
    }

    fn u64(&mut self) -> Result<u64, StoredSessionError> {
        Ok(u64::from(self.reader.u32()?) << 32 | u64::from(self.reader.u32()?))
    }

    /// A number that nobody has counted to, and that others can follow.
    fn number(&mut self) -> Result<u64, StoredSessionError> {
        let number = self.u64()?;
        if number >> 63 == 0 { Ok(number) } else { Err(StoredSessionError::Damaged) }
    }

    /// As many as the count says. Each takes at least a byte, so the list ends with the bytes,
    /// whatever the count.
    fn list<T>(
        &mut self,
        most: u32,
        read: impl Fn(&mut Self) -> Result<T, StoredSessionError>,
    ) -> Result<Vec<T>, StoredSessionError> {
        let count = self.reader.u32()?;
        if count > most {
            return Err(StoredSessionError::Damaged);
        }
        let mut list = Vec::new();
        for _ in 0..count {
            list.push(read(self)?);
        }
        Ok(list)
    }

    fn long(&mut self) -> Result<&'a [u8], StoredSessionError> {
        let length =
            usize::try_from(self.reader.u32()?).map_err(|_| StoredSessionError::Damaged)?;
        Ok(self.reader.take(length)?)
    }

    fn slot(&mut self) -> Result<Slot, StoredSessionError> {
        Ok(match self.reader.u8()? {
            0 => Slot::Free,
            1 => Slot::DuePublish(self.outgoing().and_then(|outgoing| {
                if outgoing.message.qos() > QoS::AtMostOnce {
                    Ok(outgoing)
                } else {
                    Err(StoredSessionError::Damaged)
                }
            })?),
            2 => Slot::Barred,
            3 => Slot::DuePubrel { received: self.number()?, key: None },
            4 => Slot::DuePubrel { received: self.number()?, key: Some(self.u64()?) },
            _ => return Err(StoredSessionError::Damaged),
        })
    }

    fn outgoing(&mut self) -> Result<Outgoing, StoredSessionError> {
        let flags = self.flags(KEY | EXPIRY)?;
        let key = if flags & KEY == 0 { None } else { Some(self.u64()?) };
        let expires_at = if flags & EXPIRY == 0 {
            None
        } else {
            let left = Duration::from_millis(self.u64()?).saturating_sub(self.ago);
            Some(self.now + left)
        };
        let identifier = |input: &mut Self| {
            SubscriptionIdentifier::new(input.reader.u32()?).ok_or(StoredSessionError::Damaged)
        };
        let subscription_identifiers = self.list(u32::MAX, identifier)?;
        Ok(Outgoing { message: self.message()?, key, subscription_identifiers, expires_at })
    }

    fn message(&mut self) -> Result<Message, StoredSessionError> {
        let flags = self.flags(3 | RETAIN)?;
        let qos = QoS::from_u8(flags & 3).ok_or(StoredSessionError::Damaged)?;
        let mut publish = Publish { qos, retain: flags & RETAIN != 0, ..Publish::default() };
        publish.topic_name = Text::decode_topic_name(&mut self.reader)?;
        publish.properties.read_section(Reader(self.long()?))?;
        publish.payload = self.long()?;
        if publish.properties.topic_alias.is_some()
            || !publish.properties.subscription_identifiers.is_empty()
        {
            return Err(StoredSessionError::Damaged);
        }
        Message::new(&publish).map_err(|_| StoredSessionError::Damaged)
    }
}

impl From<DecodeError> for StoredSessionError {
    fn from(_: DecodeError) -> Self {
        Self::Damaged
    }
}

#[cfg(feature = "serde")]
mod with_serde {
    use super::{Duration, Instant, Session, Vec};
    use core::fmt;
    use serde::de::{Error, SeqAccess, Visitor};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    impl Serialize for Session {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_bytes(&self.to_bytes(Instant::default()))
        }
    }

    impl<'de> Deserialize<'de> for Session {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Bytes;

            impl<'de> Visitor<'de> for Bytes {
                type Value = Session;

                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("the bytes of a session")
                }

                fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Session, E> {
                    Session::from_bytes(bytes, Instant::default(), Duration::ZERO)
                        .map_err(E::custom)
                }

                /// For formats that have no bytes, such as JSON.
                fn visit_seq<A: SeqAccess<'de>>(
                    self,
                    mut sequence: A,
                ) -> Result<Session, A::Error> {
                    let mut bytes = Vec::new();
                    while let Some(byte) = sequence.next_element()? {
                        bytes.push(byte);
                    }
                    self.visit_bytes(&bytes)
                }
            }

            deserializer.deserialize_bytes(Bytes)
        }
    }
}
