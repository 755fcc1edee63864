//! SUBACK and UNSUBACK: two packet types, one body. [5.0 §3.9] [5.0 §3.11] [3.1.1 §3.9]
//! [3.1.1 §3.11]
//!
//! | field             | bytes | SUBACK                | UNSUBACK            |
//! |-------------------|-------|-----------------------|---------------------|
//! | packet identifier | 2     | always                | always              |
//! | properties        | n     | 5.0                   | 5.0                 |
//! | reason codes      | 1     | one for each filter   | 5.0: one for each filter |

#![expect(
    clippy::inline_always,
    reason = "measured: without it packets take 5 to 15 % more instructions to encode"
)]

use super::body::{Body, Short};
use super::error::{DecodeError, EncodeError};
use super::packet_type::PacketType;
use super::property::AckProperties;
use super::read::Reader;
use super::reason::ReasonCode;
use super::rules::Rules;
use super::sequence::{Element, Sequence};
use super::types::{PacketIdentifier, Role, Version};
use super::write::Sink;

/// The content of a SUBACK and an UNSUBACK. [5.0 §3.9] [5.0 §3.11] [3.1.1 §3.9] [3.1.1 §3.11]
#[expect(clippy::exhaustive_structs, reason = "the fields are fixed by the standard")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suback<'a> {
    /// The packet identifier of the SUBSCRIBE or UNSUBSCRIBE.
    pub packet_identifier: PacketIdentifier,
    /// The properties; always empty before 5.0.
    pub properties: AckProperties<'a>,
    /// One reason code for each topic filter, in their order; none in an UNSUBACK before 5.0.
    pub reason_codes: Sequence<'a, ReasonCode>,
}

impl<'a> Suback<'a> {
    /// Makes a SUBACK or UNSUBACK without properties.
    ///
    /// ```
    /// use mqtt_sansio::codec::{Packet, PacketIdentifier, ReasonCode, Suback};
    ///
    /// let codes = [ReasonCode::GRANTED_QOS_1];
    /// let suback = Packet::Suback(Suback::new(PacketIdentifier::try_from(7)?, &codes));
    /// assert_eq!(suback.to_string(), "SUBACK id=7 codes=[0x01]");
    /// # Ok::<_, mqtt_sansio::codec::ConversionError>(())
    /// ```
    #[must_use]
    pub fn new(
        packet_identifier: PacketIdentifier,
        reason_codes: impl Into<Sequence<'a, ReasonCode>>,
    ) -> Self {
        let (properties, reason_codes) = (AckProperties::default(), reason_codes.into());
        Self { packet_identifier, properties, reason_codes }
    }

    /// Reads a SUBACK or UNSUBACK.
    #[inline]
    pub(crate) fn decode<P>(
        mut r: Reader<'a>,
        packet: PacketType,
        rules: Rules,
        wrap: impl FnOnce(Self) -> P,
    ) -> Result<P, DecodeError> {
        rules.only_from(Role::Server)?;
        let packet_identifier = r.packet_identifier()?;
        if has_codes(packet, rules) {
            return Self::decode_codes(packet_identifier, r, packet, rules).map(wrap);
        }
        // An UNSUBACK of 3.1 or 3.1.1 ends here; bytes left over are refused.
        r.end()?;
        Ok(wrap(Self::new(packet_identifier, &[])))
    }

    #[inline(never)]
    fn decode_codes(
        packet_identifier: PacketIdentifier,
        mut r: Reader<'a>,
        packet: PacketType,
        rules: Rules,
    ) -> Result<Self, DecodeError> {
        let mut properties = AckProperties::default();
        properties.read(&mut r, rules)?;
        let suback = Self { packet_identifier, properties, reason_codes: Sequence::wire(r.0) };
        if !rules.is_checked {
            suback.check_content(packet, rules)?;
        }
        Ok(suback)
    }

    fn check_content(&self, packet: PacketType, rules: Rules) -> Result<(), DecodeError> {
        if has_codes(packet, rules) && self.reason_codes.is_empty() {
            return Err(DecodeError::EmptySubscribe);
        }
        // Most codes are those of success, which any version allows.
        let granted = if packet == PacketType::Suback { 2 } else { 0 };
        if !self.reason_codes.iter().all(|code| code.get() <= granted) {
            self.reason_codes.iter().try_for_each(|code| rules.check_reason_code(code, packet))?;
        }
        rules.check_texts(|| self.properties.is_clean())
    }
}

/// SUBACK or UNSUBACK, by its packet type.
impl Body for (PacketType, &Suback<'_>) {
    fn first_byte(self) -> u8 {
        self.0.first_byte()
    }

    fn check(self, rules: Rules) -> Result<(), EncodeError> {
        let (packet, suback) = self;
        rules.only_from(Role::Server)?;
        let codes = !has_codes(packet, rules) && !suback.reason_codes.is_empty();
        rules.since_5_0_if(|| codes || !suback.properties.is_empty())?;
        Ok(suback.check_content(packet, rules)?)
    }

    #[inline(always)]
    fn write<S: Sink>(self, sink: &mut S, rules: Rules) {
        sink.u16(self.1.packet_identifier.get());
        self.1.properties.write(rules.version, sink);
        self.1.reason_codes.write(sink, |code, sink| sink.u8(code.get()));
    }

    #[inline(always)]
    fn short_form(self, rules: Rules) -> Option<Short> {
        let (packet, suback) = self;
        let [high, low] = suback.packet_identifier.get().to_be_bytes();
        let right = packet == PacketType::Unsuback
            && rules.version < Version::V5_0
            && suback.reason_codes.is_empty()
            && suback.properties.is_empty()
            && rules.only_from(Role::Server).is_ok();
        right.then_some(Short::Four([packet.first_byte(), 2, high, low]))
    }
}

fn has_codes(packet: PacketType, rules: Rules) -> bool {
    packet == PacketType::Suback || rules.version == Version::V5_0
}

impl Element<'_> for ReasonCode {
    fn next(r: &mut Reader<'_>, _: u8) -> Result<Option<Self>, DecodeError> {
        if r.is_empty() { Ok(None) } else { r.u8().map(Self::new).map(Some) }
    }
}
