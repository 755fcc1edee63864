//! PUBACK, PUBREC, PUBREL and PUBCOMP: four packet types, one body. [5.0 §3.4 to §3.7] [3.1.1 §3.4
//! to §3.7]
//!
//! | field             | bytes | 3.1, 3.1.1 | 5.0                               |
//! |-------------------|-------|------------|-----------------------------------|
//! | packet identifier | 2     | always     | always                            |
//! | reason code       | 1     | never      | can be omitted when it is 0x00    |
//! | properties        | n     | never      | can be omitted when there are none  |

#![expect(
    clippy::inline_always,
    reason = "measured: without it packets take 5 to 15 % more instructions to encode"
)]

use super::body::{Body, Short};
use super::ending::reason_at_end;
use super::error::{DecodeError, EncodeError};
use super::packet_type::PacketType;
use super::property::AckProperties;
use super::read::Reader;
use super::reason::ReasonCode;
use super::rules::Rules;
use super::types::{PacketIdentifier, Version};
use super::write::Sink;

/// The content of the four acknowledgements of a PUBLISH. [5.0 §3.4 to §3.7] [3.1.1 §3.4 to §3.7]
#[expect(clippy::exhaustive_structs, reason = "the fields are fixed by the standard")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// The packet identifier of the acknowledged PUBLISH.
    pub packet_identifier: PacketIdentifier,
    /// The outcome; always [`ReasonCode::SUCCESS`] before 5.0, which has no such field.
    pub reason_code: ReasonCode,
    /// The properties; always empty before 5.0.
    pub properties: AckProperties<'a>,
}

impl<'a> Ack<'a> {
    /// Makes an acknowledgement without properties.
    #[must_use]
    #[inline]
    pub fn new(packet_identifier: PacketIdentifier, reason_code: ReasonCode) -> Self {
        Self { packet_identifier, reason_code, properties: AckProperties::default() }
    }

    /// Reads an acknowledgement.
    #[inline(always)]
    pub(crate) fn decode<P>(
        mut r: Reader<'a>,
        packet: PacketType,
        rules: Rules,
        wrap: impl FnOnce(Self) -> P,
    ) -> Result<P, DecodeError> {
        let packet_identifier = r.packet_identifier()?;
        if r.is_empty() {
            return Ok(wrap(Self::new(packet_identifier, ReasonCode::SUCCESS)));
        }
        Self::decode_reason(packet_identifier, r, packet, rules).map(wrap)
    }

    /// Reads the ending. [5.0 §3.4.2.1] [5.0 §3.4.2.2.1]
    #[inline(never)]
    fn decode_reason(
        packet_identifier: PacketIdentifier,
        mut r: Reader<'a>,
        packet: PacketType,
        rules: Rules,
    ) -> Result<Self, DecodeError> {
        let mut ack = Self::new(packet_identifier, ReasonCode::SUCCESS);
        if rules.version == Version::V5_0 {
            ack.reason_code = ReasonCode::new(r.u8()?);
            if !r.is_empty() {
                ack.properties.read(&mut r, rules)?;
            }
        }
        r.end()?;
        ack.check_content(packet, rules)?;
        Ok(ack)
    }

    fn check_content(&self, packet: PacketType, rules: Rules) -> Result<(), DecodeError> {
        rules.check_reason_code(self.reason_code, packet)?;
        rules.check_texts(|| self.properties.is_clean())
    }
}

/// Returns one of the four acknowledgements that reports success and has no properties. It is the
/// same in all versions.
#[inline(always)]
pub(crate) const fn acknowledgement(
    packet: PacketType,
    packet_identifier: PacketIdentifier,
) -> [u8; 4] {
    let [high, low] = packet_identifier.get().to_be_bytes();
    [packet.first_byte(), 2, high, low]
}

/// One of the four acknowledgements, by its packet type.
impl Body for (PacketType, &Ack<'_>) {
    #[inline(always)]
    fn first_byte(self) -> u8 {
        self.0.first_byte()
    }

    #[inline(always)]
    fn check(self, rules: Rules) -> Result<(), EncodeError> {
        let (packet, ack) = self;
        if ack.says_nothing() {
            return Ok(());
        }
        rules.since_5_0_if(|| true)?;
        Ok(ack.check_content(packet, rules)?)
    }

    #[inline(always)]
    fn write<S: Sink>(self, sink: &mut S, rules: Rules) {
        sink.u16(self.1.packet_identifier.get());
        self.1.write_ending(sink, rules);
    }

    #[inline(always)]
    fn short_form(self, _: Rules) -> Option<Short> {
        let (packet, ack) = self;
        let short = || Short::Four(acknowledgement(packet, ack.packet_identifier));
        ack.says_nothing().then(short)
    }
}

reason_at_end! { Ack }
