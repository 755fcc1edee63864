//! DISCONNECT and AUTH: a reason code and properties, both of which can be omitted. [5.0 §3.14]
//! [5.0 §3.15] [3.1.1 §3.14]
//!
//! | field       | bytes | 3.1, 3.1.1 | 5.0                                 |
//! |-------------|-------|------------|-------------------------------------|
//! | reason code | 1     | never      | can be omitted when it is 0x00      |
//! | properties  | n     | never      | can be omitted when there are none  |

#![expect(
    clippy::inline_always,
    reason = "measured: without it packets take 5 to 15 % more instructions to encode"
)]

use super::body::{Body, Short};
use super::ending::reason_at_end;
use super::error::{DecodeError, EncodeError};
use super::packet_type::PacketType;
use super::property::{AuthProperties, DisconnectProperties};
use super::read::Reader;
use super::reason::ReasonCode;
use super::rules::Rules;
use super::types::{Role, Version};
use super::write::Sink;

/// A DISCONNECT packet: the last packet of its sender. [5.0 §3.14] [3.1.1 §3.14]
#[expect(clippy::exhaustive_structs, reason = "the fields are fixed by the standard")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// The reason; always [`ReasonCode::SUCCESS`] before 5.0, which has no such field.
    pub reason_code: ReasonCode,
    /// The properties; always empty before 5.0.
    pub properties: DisconnectProperties<'a>,
}

impl<'a> Disconnect<'a> {
    /// Makes a DISCONNECT without properties.
    #[must_use]
    pub fn new(reason_code: ReasonCode) -> Self {
        Self { reason_code, properties: DisconnectProperties::default() }
    }

    /// Reads a DISCONNECT.
    #[inline(always)]
    pub(crate) fn decode<P>(
        r: Reader<'a>,
        rules: Rules,
        wrap: impl FnOnce(Self) -> P,
    ) -> Result<P, DecodeError> {
        // [5.0 §3.14.2.1]
        if rules.version == Version::V5_0 && !r.is_empty() {
            return Self::decode_reason(r, rules).map(wrap);
        }
        r.end()?;
        check_version(rules)?;
        Ok(wrap(Self::new(ReasonCode::SUCCESS)))
    }

    /// Reads the ending. [5.0 §3.14.2.2.1]
    #[inline(never)]
    fn decode_reason(mut r: Reader<'a>, rules: Rules) -> Result<Self, DecodeError> {
        let mut disconnect = Self::new(ReasonCode::new(r.u8()?));
        if !r.is_empty() {
            disconnect.properties.read(&mut r, rules)?;
        }
        r.end()?;
        disconnect.check_content(rules)?;
        Ok(disconnect)
    }

    fn check_content(&self, rules: Rules) -> Result<(), DecodeError> {
        rules.check_reason_code(self.reason_code, PacketType::Disconnect)?;
        rules.check_texts(|| self.properties.is_clean())?;
        self.properties.check_sender(rules)
    }
}

impl Body for &Disconnect<'_> {
    #[inline(always)]
    fn first_byte(self) -> u8 {
        PacketType::Disconnect.first_byte()
    }

    #[inline(always)]
    fn check(self, rules: Rules) -> Result<(), EncodeError> {
        if self.says_nothing() {
            return Ok(check_version(rules)?);
        }
        rules.since_5_0_if(|| true)?;
        Ok(self.check_content(rules)?)
    }

    #[inline(always)]
    fn write<S: Sink>(self, sink: &mut S, rules: Rules) {
        self.write_ending(sink, rules);
    }

    #[inline(always)]
    fn short_form(self, rules: Rules) -> Option<Short> {
        let right = self.says_nothing() && check_version(rules).is_ok();
        right.then_some(Short::Two([self.first_byte(), 0]))
    }
}

/// Refuses a DISCONNECT from a server before 5.0. [3.1.1 §3.14]
#[inline]
fn check_version(rules: Rules) -> Result<(), DecodeError> {
    if rules.version < Version::V5_0 { rules.only_from(Role::Client) } else { Ok(()) }
}

/// An AUTH packet: a step of enhanced authentication, in 5.0 only. [5.0 §3.15]
#[expect(clippy::exhaustive_structs, reason = "the fields are fixed by the standard")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Auth<'a> {
    /// [`SUCCESS`](ReasonCode::SUCCESS),
    /// [`CONTINUE_AUTHENTICATION`](ReasonCode::CONTINUE_AUTHENTICATION) or
    /// [`RE_AUTHENTICATE`](ReasonCode::RE_AUTHENTICATE).
    pub reason_code: ReasonCode,
    /// The properties, with an authentication method unless the packet only says "success".
    /// [5.0 §3.15.2.2.2]
    pub properties: AuthProperties<'a>,
}

impl<'a> Auth<'a> {
    pub(crate) fn read(&mut self, mut r: Reader<'a>, rules: Rules) -> Result<(), DecodeError> {
        if rules.version < Version::V5_0 {
            return Err(DecodeError::ReservedPacketType);
        }
        // [5.0 §3.15.2.1]
        if r.is_empty() {
            return self.check_reason_code(rules);
        }
        self.reason_code = ReasonCode::new(r.u8()?);
        self.properties.read(&mut r, rules)?;
        r.end()?;
        self.check_content(rules)
    }

    fn check_reason_code(&self, rules: Rules) -> Result<(), DecodeError> {
        rules.check_reason_code(self.reason_code, PacketType::Auth)
    }

    fn check_content(&self, rules: Rules) -> Result<(), DecodeError> {
        self.check_reason_code(rules)?;
        if self.properties.authentication_method.is_none() {
            return Err(DecodeError::MissingAuthenticationMethod);
        }
        rules.check_texts(|| self.properties.is_clean())
    }
}

impl Body for &Auth<'_> {
    #[inline(always)]
    fn first_byte(self) -> u8 {
        PacketType::Auth.first_byte()
    }

    #[inline(always)]
    fn check(self, rules: Rules) -> Result<(), EncodeError> {
        rules.since_5_0_if(|| true)?;
        let checked = if self.says_nothing() {
            self.check_reason_code(rules)
        } else {
            self.check_content(rules)
        };
        Ok(checked?)
    }

    #[inline(always)]
    fn write<S: Sink>(self, sink: &mut S, rules: Rules) {
        self.write_ending(sink, rules);
    }
}

reason_at_end! { Disconnect Auth }
