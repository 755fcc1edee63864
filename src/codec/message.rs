//! A PUBLISH that is kept, in one allocation.

#![expect(
    clippy::inline_always,
    reason = "measured: decoded in place, a PUBLISH is not copied through memory"
)]

use super::error::EncodeError;
use super::output::Output;
use super::property::PublishProperties;
use super::publish::{self, Publish};
use super::read::Reader;
use super::sequence::Sequence;
use super::text::Text;
use super::topic::TopicName;
use super::types::{PacketIdentifier, QoS, Version};
use super::varint;
use super::write::{Sink as _, Size, Writer};
use crate::sync::Arc;
use core::fmt;

/// A stored message. Clones share the topic name, properties and payload, which are in one
/// allocation.
///
/// It does not depend on a version or a connection: it can be sent to clients of any version, and
/// resent after a reconnect.
///
/// ```
/// use mqtt_sansio::codec::{Publish, QoS};
/// use mqtt_sansio::session::Message;
///
/// let message = Message::new(&Publish::new("room/4", b"21.5"))?;
/// let retained = message.with(QoS::AtLeastOnce, true);
/// assert_eq!(retained.topic_name(), "room/4");
/// assert!(retained.retain() && !message.retain());
/// assert_eq!(Message::from_bytes(&retained.to_bytes())?, retained);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// The topic name, the properties and the payload as a PUBLISH of 5.0 has them, each of the
    /// first two with its length.
    bytes: Arc<[u8]>,
    topic_length: u16,
    properties_length: u32,
    qos: QoS,
    retain: bool,
}

impl Message {
    /// Copies a PUBLISH, without its packet identifier, DUP flag, topic alias and subscription
    /// identifiers.
    pub fn new(publish: &Publish<'_>) -> Result<Self, EncodeError> {
        Self::with_topic_name(&TopicName::new(publish.topic_name)?, publish)
    }

    /// Copies a PUBLISH with another topic name, which was checked. Inlined, so that the message is
    /// made where it stays.
    #[inline(always)]
    pub(crate) fn with_topic_name(
        topic_name: &TopicName<'_>,
        publish: &Publish<'_>,
    ) -> Result<Self, EncodeError> {
        let properties = (!publish.properties.is_empty()).then(|| PublishProperties {
            topic_alias: None,
            subscription_identifiers: Sequence::default(),
            ..publish.properties
        });
        let mut size = Size::default();
        if let Some(properties) = &properties {
            properties.write_section(&mut size);
        }
        size.end(0)?;
        let properties_length = size.remaining_length();
        let topic_name = topic_name.as_text();
        let topic = topic_name.as_bytes();
        let topic_length = u16::try_from(topic.len()).map_err(|_| EncodeError::FieldTooLong)?;
        let fields = 2 + topic.len() + varint::length(properties_length) as usize + size.total();
        let length = fields.saturating_add(publish.payload.len());
        // A message that fits no packet is not kept.
        varint::check((length as u64).saturating_add(identifier_size(publish.qos) as u64))?;
        let mut bytes: Arc<[u8]> = core::iter::repeat_n(0, length).collect();
        // It is not shared yet.
        let room = Arc::get_mut(&mut bytes).unwrap_or_default();
        let mut writer = Writer::new(room, &size);
        writer.bytes(topic_length.to_be_bytes());
        writer.copy(topic);
        writer.variable_byte_integer(properties_length);
        if let Some(properties) = &properties {
            properties.write_section(&mut writer);
        }
        writer.copy(publish.payload);
        debug_assert!(writer.is_full(), "a message is written as it was measured");
        Ok(Self {
            bytes,
            topic_length,
            properties_length,
            qos: publish.qos,
            retain: publish.retain,
        })
    }

    /// Returns the topic name.
    #[must_use]
    pub fn topic_name(&self) -> TopicName<'_> {
        TopicName::from_decoded(self.topic_text())
    }

    fn topic_text(&self) -> Text<'_> {
        Text::assume_topic_name(self.parts().0)
    }

    /// Returns the payload, which can be any bytes.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.parts().2
    }

    /// Returns the QoS at which the message was published.
    #[must_use]
    pub const fn qos(&self) -> QoS {
        self.qos
    }

    /// Returns the RETAIN flag with which the message was published.
    #[must_use]
    pub const fn retain(&self) -> bool {
        self.retain
    }

    /// Returns the message as a PUBLISH without a packet identifier. Reads the properties again.
    #[must_use]
    pub fn to_publish(&self) -> Publish<'_> {
        let (_, properties, payload) = self.parts();
        let (qos, retain, topic_name) = (self.qos, self.retain, self.topic_text());
        let mut publish = Publish { qos, retain, topic_name, payload, ..Publish::default() };
        let read = publish.properties.read_section(Reader(properties), true);
        debug_assert!(read.is_ok(), "`copy` has written the properties");
        publish
    }

    /// Returns the size in bytes of topic name, properties and payload.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len() - 2 - varint::length(self.properties_length) as usize
    }

    /// Returns a number that the copies of a message share, and no other message has while one of
    /// them exists: the address of the bytes.
    pub(crate) fn address(&self) -> usize {
        self.bytes.as_ptr().addr()
    }

    /// Returns the Message Expiry Interval with which it was published. Reads the properties again.
    pub(crate) fn message_expiry_interval(&self) -> Option<u32> {
        self.to_publish().properties.message_expiry_interval
    }

    /// Returns the size of the PUBLISH that [`write`](Self::write) writes.
    #[inline]
    pub(crate) fn packet_size(&self, version: Version) -> u32 {
        let remaining = self.remaining_length(version);
        1 + varint::length(remaining) + remaining
    }

    /// Returns the Remaining Length of the PUBLISH, which was checked when the message was made.
    fn remaining_length(&self, version: Version) -> u32 {
        let properties = if version == Version::V5_0 { 0 } else { self.property_section() };
        let length = self.bytes.len() + identifier_size(self.qos) - properties;
        u32::try_from(length).unwrap_or(u32::MAX)
    }

    /// Returns the size of the properties and their length.
    const fn property_section(&self) -> usize {
        (varint::length(self.properties_length) + self.properties_length) as usize
    }

    /// Writes the message as a PUBLISH with its properties. Its parts were checked when it was
    /// made, so they are only copied.
    #[inline]
    pub(crate) fn write(
        &self,
        version: Version,
        dup: bool,
        packet_identifier: Option<PacketIdentifier>,
        out: &mut impl Output,
    ) -> Result<(), EncodeError> {
        let first = publish::first_byte(self.qos, self.retain, dup);
        let remaining = self.remaining_length(version);
        // In 5.0 without an identifier, the bytes are as on the wire.
        let is_whole = version == Version::V5_0 && packet_identifier.is_none();
        if let (true, Ok(short @ ..0x80)) = (is_whole, u8::try_from(remaining)) {
            out.append_room(2, remaining as usize)?.copy_from_slice(&[first, short]);
            return out.append_shared(&self.bytes, 0);
        }
        let topic = if is_whole { 0 } else { 2 + usize::from(self.topic_length) };
        let identifier = identifier_size(self.qos);
        let size = 1 + varint::length(remaining) as usize + topic + identifier;
        let room = out.append_room(size, remaining as usize - topic - identifier)?;
        let mut writer = Writer::new(room, &Size::default());
        writer.u8(first);
        writer.variable_byte_integer(remaining);
        writer.copy(self.bytes.get(..topic).unwrap_or_default());
        if let Some(identifier) = packet_identifier {
            writer.u16(identifier.get());
        }
        debug_assert!(writer.is_full(), "a message is written as it was measured");
        let skipped = if version == Version::V5_0 { 0 } else { self.property_section() };
        out.append_shared(&self.bytes, topic + skipped)
    }

    /// Returns the same message with another QoS and RETAIN flag, sharing the bytes.
    #[must_use]
    pub fn with(&self, qos: QoS, retain: bool) -> Self {
        Self { qos, retain, ..self.clone() }
    }

    /// Returns topic name, properties and payload.
    pub(crate) fn parts(&self) -> (&[u8], &[u8], &[u8]) {
        let topic = 2 + usize::from(self.topic_length);
        let payload = topic + self.property_section();
        let properties = payload - self.properties_length as usize;
        let part = |range| self.bytes.get(range).unwrap_or_default();
        (part(2..topic), part(properties..payload), part(payload..self.bytes.len()))
    }
}

/// Returns the size of the packet identifier in a PUBLISH.
const fn identifier_size(qos: QoS) -> usize {
    if matches!(qos, QoS::AtMostOnce) { 0 } else { 2 }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_publish().fmt(f)
    }
}
