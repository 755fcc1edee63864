//! A PUBLISH that is kept, in one allocation.

#![expect(
    clippy::inline_always,
    reason = "measured: decoded in place, a PUBLISH is not copied through memory"
)]

use super::error::EncodeError;
use super::output::Output;
use super::property::PublishProperties;
use super::publish::Publish;
use super::read::Reader;
use super::sequence::Sequence;
use super::text::Text;
use super::topic::TopicName;
use super::types::QoS;
use super::varint;
use super::write::{Size, Writer};
use alloc::vec::Vec;
use bytes::Bytes;
use core::fmt;

/// A stored message. Clones share the topic name, properties and payload, which are in one
/// allocation; the first clone adds a small allocation for the reference count.
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
    /// Topic name, properties as 5.0 writes them, payload.
    bytes: Bytes,
    topic_length: u16,
    properties_length: u32,
    qos: QoS,
    retain: bool,
}

impl Message {
    /// Copies a PUBLISH, without its packet identifier, DUP flag, topic alias and subscription
    /// identifiers.
    pub fn new(publish: &Publish<'_>) -> Result<Self, EncodeError> {
        TopicName::new(publish.topic_name)?;
        Self::copy(publish)
    }

    /// Copies a PUBLISH whose topic name was checked by the decoder, or is checked when the PUBLISH
    /// is written. Inlined, so that the message is made where it stays.
    #[inline(always)]
    pub(crate) fn copy(publish: &Publish<'_>) -> Result<Self, EncodeError> {
        let properties = (!publish.properties.is_empty()).then(|| PublishProperties {
            topic_alias: None,
            subscription_identifiers: Sequence::default(),
            ..publish.properties
        });
        let mut size = Size::default();
        if let Some(properties) = &properties {
            properties.write_section(&mut size);
        }
        size.end(&[])?;
        let properties_length = size.remaining_length();
        let topic = publish.topic_name.as_bytes();
        let topic_length = u16::try_from(topic.len()).map_err(|_| EncodeError::FieldTooLong)?;
        // A message that fits no packet is not kept.
        let length =
            varint::check((topic.len() + size.total()).saturating_add(publish.payload.len()))?;
        let mut bytes = Vec::with_capacity(length as usize);
        let mut writer = Writer::new(
            bytes.append_room(topic.len() + size.total(), publish.payload.len())?,
            &size,
        );
        writer.copy(topic);
        if let Some(properties) = &properties {
            properties.write_section(&mut writer);
        }
        debug_assert!(writer.is_full(), "a message is written as it was measured");
        bytes.append_slice(publish.payload)?;
        Ok(Self {
            bytes: bytes.into(),
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
        Text::assume_checked(self.parts().0)
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
        let read = publish.properties.read_section(Reader(properties));
        debug_assert!(read.is_ok(), "`copy` has written the properties");
        publish
    }

    /// Returns the size in bytes of topic name, properties and payload.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
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

    /// Returns the same message with another QoS and RETAIN flag, sharing the bytes.
    #[must_use]
    pub fn with(&self, qos: QoS, retain: bool) -> Self {
        Self { qos, retain, ..self.clone() }
    }

    /// Returns topic name, properties and payload.
    pub(crate) fn parts(&self) -> (&[u8], &[u8], &[u8]) {
        let (topic, rest) =
            self.bytes.split_at_checked(self.topic_length.into()).unwrap_or_default();
        let (properties, payload) =
            rest.split_at_checked(self.properties_length as usize).unwrap_or_default();
        (topic, properties, payload)
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_publish().fmt(f)
    }
}
