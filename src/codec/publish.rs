//! PUBLISH: a message. [5.0 §3.3] [3.1.1 §3.3]
//!
//! | field             | bytes | when                         |
//! |-------------------|-------|------------------------------|
//! | topic name        | 2 + n | always                       |
//! | packet identifier | 2     | QoS 1 and 2                  |
//! | properties        | n     | 5.0                          |
//! | payload           | n     | always: the rest of the packet |

#![expect(
    clippy::inline_always,
    reason = "measured: without it a short PUBLISH takes 17 % more instructions to encode"
)]

use super::body::{Body, measure_and_write};
use super::error::{DecodeError, EncodeError};
use super::options::Options;
use super::output::Output;
use super::packet_type::PacketType;
use super::property::PublishProperties;
use super::read::Reader;
use super::rules::Rules;
use super::text::Text;
use super::topic::TopicName;
use super::types::{PacketIdentifier, QoS, Version};
use super::write::Sink;

const RETAIN: u8 = 0x01;
const DUP: u8 = 0x08;

/// A PUBLISH packet. [5.0 §3.3] [3.1.1 §3.3]
///
/// ```
/// use mqtt_sansio::codec::{Publish, QoS};
///
/// let reading = Publish { qos: QoS::AtLeastOnce, ..Publish::new("room/4/temperature", b"21.5") };
/// assert!(!reading.retain);
/// ```
#[expect(clippy::exhaustive_structs, reason = "the fields are fixed by the standard")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Whether the sender might have sent the message before. [5.0 §3.3.1.1] [3.1.1 §3.3.1.1]
    pub dup: bool,
    /// The QoS of the message. [5.0 §3.3.1.2] [3.1.1 §3.3.1.2]
    pub qos: QoS,
    /// To a server: whether it must keep the message for later subscribers. From a server: whether
    /// it had kept the message. [5.0 §3.3.1.3] [3.1.1 §3.3.1.3]
    pub retain: bool,
    /// The topic name. Empty if a topic alias takes its place, or, before 5.0, if
    /// [`Options::UNREADABLE_TOPIC`](crate::codec::Options::UNREADABLE_TOPIC) accepted a name that
    /// is not UTF-8. [5.0 §3.3.2.1] [3.1.1 §3.3.2.1]
    pub topic_name: Text<'a>,
    /// The packet identifier, with QoS 1 and 2 only. [5.0 §3.3.2.2] [3.1.1 §3.3.2.2]
    pub packet_identifier: Option<PacketIdentifier>,
    /// The properties; always empty before 5.0.
    pub properties: PublishProperties<'a>,
    /// The payload, which can be any bytes. [5.0 §3.3.3] [3.1.1 §3.3.3]
    pub payload: &'a [u8],
}

/// A PUBLISH that was decoded, so that its topic name need not be checked again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DecodedPublish<'a>(Publish<'a>);

impl<'a> DecodedPublish<'a> {
    #[inline(always)]
    pub(crate) const fn get(&self) -> &Publish<'a> {
        &self.0
    }

    /// Returns the topic name, unless a topic alias stands for it.
    #[inline(always)]
    pub(crate) fn topic_name(&self) -> Option<TopicName<'a>> {
        let name = self.0.topic_name;
        (!name.is_empty()).then(|| TopicName::from_decoded(name))
    }
}

/// The fields of a PUBLISH before its properties. Most packets have no properties: a caller that
/// treats those by themselves moves no room for properties through memory.
#[derive(Clone, Copy)]
pub(crate) struct PublishStart<'a> {
    dup: bool,
    qos: QoS,
    retain: bool,
    topic_name: Text<'a>,
    packet_identifier: Option<PacketIdentifier>,
    /// The properties and the payload.
    rest: &'a [u8],
}

impl<'a> PublishStart<'a> {
    #[inline(always)]
    pub(super) fn read(mut r: Reader<'a>, flags: u8, rules: Rules) -> Result<Self, DecodeError> {
        let qos = QoS::from_u8(flags >> 1 & 3).ok_or(DecodeError::InvalidQos)?;
        let (mut dup, retain) = (flags & DUP != 0, flags & RETAIN != 0);
        if dup && qos == QoS::AtMostOnce {
            tolerate_dup(rules)?;
            dup = false;
        }
        let is_checked = rules.is_checked && !rules.tolerate_unreadable_topic();
        let bytes = r.binary()?;
        let topic_name = match Text::check_topic_name_bytes(bytes, is_checked) {
            Ok(()) => Text::assume_topic_name(bytes),
            Err(DecodeError::InvalidUtf8) if rules.tolerate_unreadable_topic() => {
                Text::literal(UNREADABLE)
            }
            Err(error) => return Err(error),
        };
        let packet_identifier =
            if qos == QoS::AtMostOnce { None } else { Some(r.packet_identifier()?) };
        Ok(Self { dup, qos, retain, topic_name, packet_identifier, rest: r.0 })
    }

    /// Returns the packet if it has no properties.
    #[inline(always)]
    pub(crate) fn without_properties(
        self,
        rules: Rules,
    ) -> Result<Option<DecodedPublish<'a>>, DecodeError> {
        let parts = self.parts_without_properties(rules)?;
        Ok(parts.map(|(topic_name, payload)| DecodedPublish(self.packet(topic_name, payload))))
    }

    /// Returns the topic name and the payload of a packet without properties.
    #[inline(always)]
    fn parts_without_properties(
        &self,
        rules: Rules,
    ) -> Result<Option<(Text<'a>, &'a [u8])>, DecodeError> {
        let mut r = Reader(self.rest);
        if rules.version == Version::V5_0 && !r.skip_zero() {
            return Ok(None);
        }
        let topic_name = self.topic_name;
        if topic_name.is_empty() {
            return Err(missing_topic_name(rules));
        }
        if rules.options != Options::NONE && !is_readable(topic_name, rules)? {
            return Ok(Some((Text::default(), r.0)));
        }
        Ok(Some((topic_name, r.0)))
    }

    /// Returns a packet that has properties, as only packets of 5.0 have.
    #[inline(always)]
    pub(crate) fn with_properties(self, rules: Rules) -> Result<DecodedPublish<'a>, DecodeError> {
        let mut publish = self.packet(self.topic_name, self.rest);
        publish.read_properties(rules)?;
        Ok(DecodedPublish(publish))
    }

    /// Returns a copy, field by field, so that this one can stay in registers.
    #[inline(always)]
    pub(crate) const fn copy(self) -> Self {
        let Self { dup, qos, retain, topic_name, packet_identifier, rest } = self;
        Self { dup, qos, retain, topic_name, packet_identifier, rest }
    }

    #[inline(always)]
    fn packet(self, topic_name: Text<'a>, payload: &'a [u8]) -> Publish<'a> {
        let Self { dup, qos, retain, packet_identifier, .. } = self;
        let properties = PublishProperties::default();
        Publish { dup, qos, retain, topic_name, packet_identifier, properties, payload }
    }
}

/// Stands for a topic name that is not UTF-8 and is accepted, until the packet has been checked.
const UNREADABLE: &str = "\0";

/// Returns the first byte of a PUBLISH.
#[inline(always)]
pub(super) const fn first_byte(qos: QoS, retain: bool, dup: bool) -> u8 {
    let retain = if retain { RETAIN } else { 0 };
    let dup = if dup { DUP } else { 0 };
    PacketType::Publish.first_byte() | dup | qos.as_u8() << 1 | retain
}

impl<'a> Publish<'a> {
    /// Makes a message with QoS 0 and without RETAIN.
    #[must_use]
    pub fn new(topic_name: impl Into<Text<'a>>, payload: &'a [u8]) -> Self {
        Self { topic_name: topic_name.into(), payload, ..Self::default() }
    }

    /// Returns the message without what a version cannot carry: properties, before 5.0.
    #[must_use]
    pub fn for_version(self, version: Version) -> Self {
        match version {
            Version::V5_0 => self,
            Version::V3_1 | Version::V3_1_1 => {
                Self { properties: PublishProperties::default(), ..self }
            }
        }
    }

    /// Reads a PUBLISH, whose payload is the rest of the packet.
    #[inline(always)]
    pub(super) fn decode<P>(
        r: Reader<'a>,
        flags: u8,
        rules: Rules,
        wrap: impl FnOnce(Self) -> P,
    ) -> Result<P, DecodeError> {
        let start = PublishStart::read(r, flags, rules)?;
        let Some((topic_name, payload)) = start.parts_without_properties(rules)? else {
            let mut publish = start.packet(start.topic_name, start.rest);
            publish.read_properties(rules)?;
            return Ok(wrap(publish));
        };
        Ok(wrap(start.packet(topic_name, payload)))
    }

    /// Reads the properties, which the payload still begins with.
    #[inline(never)]
    fn read_properties(&mut self, rules: Rules) -> Result<(), DecodeError> {
        let mut r = Reader(self.payload);
        self.properties.read(&mut r, rules)?;
        self.payload = r.0;
        self.check_content(rules)
    }

    /// Refuses a payload that its Payload Format Indicator does not describe.
    #[inline(always)]
    pub(crate) fn check_payload_format(&self, rules: Rules) -> Result<(), EncodeError> {
        let indicator = self.properties.payload_format_indicator;
        Ok(rules.check_own_payload(indicator, self.payload)?)
    }

    /// Checks the rules that concern several fields.
    #[inline(always)]
    fn check_content(&self, rules: Rules) -> Result<(), DecodeError> {
        if self.dup && self.qos == QoS::AtMostOnce {
            return Err(DecodeError::DupWithQos0);
        }
        if self.topic_name.is_empty() && self.properties.topic_alias.is_none() {
            return Err(missing_topic_name(rules));
        }
        if rules.options != Options::NONE {
            (*self).check_options(rules)?;
        }
        self.properties.check_sender(rules)
    }

    /// Checks the rules of options. Takes a copy, so that without options the packet can stay in
    /// registers.
    #[cold]
    #[inline(never)]
    fn check_options(self, rules: Rules) -> Result<(), DecodeError> {
        rules.check_payload(self.properties.payload_format_indicator, self.payload)?;
        rules.check_texts(|| self.topic_name.is_clean() && self.properties.is_clean())
    }
}

/// Refuses DUP with QoS 0, unless an option ignores it.
#[cold]
#[inline(never)]
fn tolerate_dup(rules: Rules) -> Result<(), DecodeError> {
    let ignores = rules.options.contains(Options::DUP_WITH_QOS_0);
    if ignores { Ok(()) } else { Err(DecodeError::DupWithQos0) }
}

#[cold]
fn missing_topic_name(rules: Rules) -> DecodeError {
    match rules.version {
        Version::V5_0 => DecodeError::MissingTopicName,
        Version::V3_1 | Version::V3_1_1 => DecodeError::EmptyTopicName,
    }
}

/// Checks the rules of options for a PUBLISH without properties. Returns whether its topic name can
/// be read.
#[cold]
#[inline(never)]
fn is_readable(topic_name: Text<'_>, rules: Rules) -> Result<bool, DecodeError> {
    if topic_name == Text::literal(UNREADABLE) {
        return Ok(false);
    }
    rules.check_texts(|| topic_name.is_clean())?;
    Ok(true)
}

/// A PUBLISH with a packet identifier in place of its own. A copy of the packet with another one
/// would cost as much as writing a short packet.
impl Body for (&Publish<'_>, Option<PacketIdentifier>) {
    #[inline(always)]
    fn first_byte(self) -> u8 {
        first_byte(self.0.qos, self.0.retain, self.0.dup)
    }

    #[inline(always)]
    fn check(self, rules: Rules) -> Result<(), EncodeError> {
        let (publish, packet_identifier) = self;
        if packet_identifier.is_some() != (publish.qos > QoS::AtMostOnce) {
            return Err(EncodeError::PacketIdentifier);
        }
        rules.since_5_0_if(|| !publish.properties.is_empty())?;
        publish.check_payload_format(rules)?;
        Ok(publish.check_content(rules)?)
    }

    #[inline(always)]
    fn write<S: Sink>(self, sink: &mut S, rules: Rules) {
        let (publish, packet_identifier) = self;
        sink.topic_name(publish.topic_name);
        if let Some(packet_identifier) = packet_identifier {
            sink.u16(packet_identifier.get());
        }
        publish.properties.write(rules.version, sink);
    }

    #[inline(always)]
    fn payload_length(self) -> usize {
        self.0.payload.len()
    }

    #[inline(always)]
    fn append_payload(self, out: &mut impl Output) -> Result<(), EncodeError> {
        out.append_slice(self.0.payload)
    }

    #[inline]
    fn encode(self, rules: Rules, out: &mut impl Output) -> Result<(), EncodeError> {
        // Most have no properties.
        if self.0.properties.is_empty() {
            encode_simple(self.0, self.1, rules, out)
        } else {
            measure_and_write(self, rules, out)
        }
    }
}

/// The topic name and payload are not longer in a packet that is written in one walk, so that its
/// Remaining Length has two bytes at most.
const LONGEST: usize = 16_000;

/// Writes a PUBLISH without properties, in one walk if it is valid and not long. Properties would
/// occupy registers: without them a checked topic name and 64 bytes take 185 instructions, not 289.
#[inline(never)]
fn encode_simple(
    publish: &Publish<'_>,
    packet_identifier: Option<PacketIdentifier>,
    rules: Rules,
    out: &mut impl Output,
) -> Result<(), EncodeError> {
    let Publish { dup, qos, retain, topic_name, payload, .. } = *publish;
    let is_simple = match packet_identifier {
        None => qos == QoS::AtMostOnce && !dup,
        Some(_) => qos > QoS::AtMostOnce,
    } && !topic_name.is_empty()
        && rules.options == Options::NONE
        && topic_name.len() + payload.len() <= LONGEST
        && (topic_name.is_plain_topic_name() || topic_name.check_topic_name().is_ok());
    if !is_simple {
        // It is long, has an error, or an option asks for another check.
        return measure_and_write((publish, packet_identifier), rules, out);
    }
    let identifier = if packet_identifier.is_some() { 2 } else { 0 };
    let property_length = usize::from(rules.version == Version::V5_0);
    let fields = 2 + topic_name.len() + identifier + property_length;
    let remaining = fields + payload.len();
    let is_short = remaining < 0x80;
    out.make_room(if is_short { 2 } else { 3 } + fields, payload.len())?;
    let [.., high, low] = topic_name.len().to_be_bytes();
    let first = first_byte(qos, retain, dup);
    let [one, ..] = remaining.to_le_bytes();
    if is_short {
        out.append_slice(&[first, one, high, low])?;
    } else {
        let [two, ..] = (remaining >> 7).to_le_bytes();
        out.append_slice(&[first, one | 0x80, two, high, low])?;
    }
    out.append_slice(topic_name.as_bytes())?;
    if let Some(packet_identifier) = packet_identifier {
        out.append_slice(&packet_identifier.get().to_be_bytes())?;
    }
    if property_length > 0 {
        out.append_slice(&[0])?;
    }
    out.append_slice(payload)
}
