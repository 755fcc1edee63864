//! PINGREQ and PINGRESP: two packet types without a body. [5.0 §3.12] [5.0 §3.13] [3.1.1 §3.12]
//! [3.1.1 §3.13]

#![expect(
    clippy::inline_always,
    reason = "measured: without it packets take 5 to 15 % more instructions to encode"
)]

use super::body::{Body, Short};
use super::error::{DecodeError, EncodeError};
use super::packet_type::PacketType;
use super::read::Reader;
use super::rules::Rules;
use super::types::Role;
use super::write::Sink;

/// Reads a PINGREQ or PINGRESP.
#[inline(always)]
pub(super) fn decode(r: Reader<'_>, packet: PacketType, rules: Rules) -> Result<(), DecodeError> {
    r.end()?;
    check(packet, rules)
}

#[inline(always)]
fn check(packet: PacketType, rules: Rules) -> Result<(), DecodeError> {
    let is_request = packet == PacketType::Pingreq;
    rules.only_from(if is_request { Role::Client } else { Role::Server })
}

/// PINGREQ or PINGRESP.
impl Body for PacketType {
    #[inline(always)]
    fn first_byte(self) -> u8 {
        Self::first_byte(self)
    }

    fn check(self, rules: Rules) -> Result<(), EncodeError> {
        Ok(check(self, rules)?)
    }

    #[inline(always)]
    fn write<S: Sink>(self, _: &mut S, _: Rules) {}

    #[inline(always)]
    fn short_form(self, rules: Rules) -> Option<Short> {
        check(self, rules).is_ok().then_some(Short::Two([self.first_byte(), 0]))
    }
}
