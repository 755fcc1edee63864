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
        let topic_name = topic_name.as_text();
        if publish.properties.is_empty() {
            return Self::copy(topic_name, publish, 0, &Size::default(), |_| ());
        }
        let properties = PublishProperties {
            topic_alias: None,
            subscription_identifiers: Sequence::default(),
            ..publish.properties
        };
        let mut size = Size::default();
        properties.write_section(&mut size);
        size.end(0)?;
        let length = size.remaining_length();
        Self::copy(topic_name, publish, length, &size, |writer| properties.write_section(writer))
    }

    /// Copies the parts of a message, of which the properties were measured.
    #[inline]
    fn copy(
        topic_name: Text<'_>,
        publish: &Publish<'_>,
        properties_length: u32,
        size: &Size,
        write_properties: impl FnOnce(&mut Writer<'_>),
    ) -> Result<Self, EncodeError> {
        let topic = topic_name.as_bytes();
        let topic_length = u16::try_from(topic.len()).map_err(|_| EncodeError::FieldTooLong)?;
        let fields = 2 + topic.len() + varint::length(properties_length) as usize + size.total();
        let length = fields.saturating_add(publish.payload.len());
        // A message that fits no packet is not kept.
        varint::check((length as u64).saturating_add(identifier_size(publish.qos) as u64))?;
        let mut bytes: Arc<[u8]> = core::iter::repeat_n(0, length).collect();
        // It is not shared yet.
        let room = Arc::get_mut(&mut bytes).unwrap_or_default();
        let mut writer = Writer::new(room, size);
        writer.bytes(topic_length.to_be_bytes());
        writer.copy(topic);
        writer.variable_byte_integer(properties_length);
        write_properties(&mut writer);
        writer.copy(publish.payload);
        debug_assert!(writer.is_full(), "a message is written as it was measured");
        let Publish { qos, retain, .. } = *publish;
        Ok(Self { bytes, topic_length, properties_length, qos, retain })
    }

    /// Returns the topic name.
    #[must_use]
    pub fn topic_name(&self) -> TopicName<'_> {
        TopicName::from_decoded(self.topic_text())
    }

    fn topic_text(&self) -> Text<'_> {
        Text::assume_topic_name(self.topic_bytes())
    }

    /// Returns the bytes of the topic name.
    #[inline]
    pub(crate) fn topic_bytes(&self) -> &[u8] {
        self.bytes.get(2..2 + usize::from(self.topic_length)).unwrap_or_default()
    }

    /// Returns the topic name with its length before it, as a packet has it.
    pub(crate) fn topic_name_with_length(&self) -> &[u8] {
        self.bytes.get(..2 + usize::from(self.topic_length)).unwrap_or_default()
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

    /// Measures the PUBLISH that [`write`](Self::write) writes.
    #[inline]
    pub(crate) fn measure(&self, version: Version) -> MessageSize {
        let skipped = if version == Version::V5_0 { 0 } else { self.property_section() };
        let length = self.bytes.len() + identifier_size(self.qos) - skipped;
        // It was checked when the message was made.
        MessageSize { skipped, remaining: u32::try_from(length).unwrap_or(u32::MAX) }
    }

    /// Returns the size of the properties and their length.
    const fn property_section(&self) -> usize {
        (varint::length(self.properties_length) + self.properties_length) as usize
    }

    /// Writes the message as a PUBLISH with its properties, after it was measured for the same
    /// version. Its parts were checked when it was made, so they are only copied.
    #[inline(always)]
    pub(crate) fn write(
        &self,
        size: MessageSize,
        version: Version,
        dup: bool,
        packet_identifier: Option<PacketIdentifier>,
        out: &mut impl Output,
    ) -> Result<(), EncodeError> {
        let first = publish::first_byte(self.qos, self.retain, dup);
        let MessageSize { remaining, skipped } = size;
        // In 5.0 without an identifier, the bytes are as on the wire.
        let is_whole = version == Version::V5_0 && packet_identifier.is_none();
        if let (true, Ok(short @ ..0x80)) = (is_whole, u8::try_from(remaining)) {
            out.make_room(2, remaining as usize)?;
            out.append_slice(&[first, short])?;
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

/// The size of a message as a PUBLISH of a version.
#[derive(Clone, Copy)]
pub(crate) struct MessageSize {
    remaining: u32,
    /// The size of the properties, which older versions do not have.
    skipped: usize,
}

impl MessageSize {
    /// Returns the size of the whole packet.
    #[inline]
    pub(crate) fn packet_size(self) -> u32 {
        1 + varint::length(self.remaining) + self.remaining
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
