//! Packets of any type, and how each is read.

#![expect(
    clippy::inline_always,
    reason = "measured: decoded in place, a PUBLISH is not copied through memory"
)]

use super::ack::Ack;
use super::connack::Connack;
use super::connect::{Connect, own_rules};
use super::disconnect::{Auth, Disconnect};
use super::error::DecodeError;
use super::frame::Frame;
use super::packet_type::PacketType;
use super::ping;
use super::publish::{Publish, PublishStart};
use super::read::Reader;
use super::rules::Rules;
use super::sequence::Sequence;
use super::suback::Suback;
use super::subscribe::{Subscribe, Unsubscribe};
use super::types::{PacketIdentifier, Version};

/// A packet of any type, as a view of its bytes or of the values that it was made from.
///
/// The enum is as large as its largest variant, a CONNECT with a will. A caller that expects one
/// type matches on [`Frame::packet_type`] first.
#[expect(clippy::exhaustive_enums, reason = "the standard has closed the set")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the types have the names of the variants")]
pub enum Packet<'a> {
    Connect(Connect<'a>),
    Connack(Connack<'a>),
    Publish(Publish<'a>),
    Puback(Ack<'a>),
    Pubrec(Ack<'a>),
    Pubrel(Ack<'a>),
    Pubcomp(Ack<'a>),
    Subscribe(Subscribe<'a>),
    Suback(Suback<'a>),
    Unsubscribe(Unsubscribe<'a>),
    Unsuback(Suback<'a>),
    Pingreq,
    Pingresp,
    Disconnect(Disconnect<'a>),
    Auth(Auth<'a>),
}

impl Packet<'_> {
    /// Returns the packet with or without its reason string and its user properties, where they are
    /// diagnostics: in answers and in DISCONNECT. User properties of other packets are data.
    pub(crate) fn keeping(
        mut self,
        keeps_reason_string: bool,
        keeps_user_properties: bool,
    ) -> Self {
        let (reason_string, user_properties) = match &mut self {
            Self::Connack(Connack { properties, .. }) => {
                (&mut properties.reason_string, &mut properties.user_properties)
            }
            Self::Puback(Ack { properties, .. })
            | Self::Pubrec(Ack { properties, .. })
            | Self::Pubrel(Ack { properties, .. })
            | Self::Pubcomp(Ack { properties, .. })
            | Self::Suback(Suback { properties, .. })
            | Self::Unsuback(Suback { properties, .. }) => {
                (&mut properties.reason_string, &mut properties.user_properties)
            }
            Self::Disconnect(Disconnect { properties, .. }) => {
                (&mut properties.reason_string, &mut properties.user_properties)
            }
            Self::Auth(Auth { properties, .. }) => {
                (&mut properties.reason_string, &mut properties.user_properties)
            }
            Self::Connect(_)
            | Self::Publish(_)
            | Self::Subscribe(_)
            | Self::Unsubscribe(_)
            | Self::Pingreq
            | Self::Pingresp => {
                return self;
            }
        };
        if !keeps_reason_string {
            *reason_string = None;
        }
        if !keeps_user_properties {
            *user_properties = Sequence::default();
        }
        self
    }

    /// Whether the packet can be encoded.
    #[cfg(feature = "arbitrary")]
    pub(super) fn is_valid(&self, rules: Rules) -> bool {
        super::body::Body::measure(self, rules).is_ok()
    }

    /// Returns the type of the packet.
    #[must_use]
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::Connack(_) => PacketType::Connack,
            Self::Publish(_) => PacketType::Publish,
            Self::Puback(_) => PacketType::Puback,
            Self::Pubrec(_) => PacketType::Pubrec,
            Self::Pubrel(_) => PacketType::Pubrel,
            Self::Pubcomp(_) => PacketType::Pubcomp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::Suback(_) => PacketType::Suback,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::Unsuback(_) => PacketType::Unsuback,
            Self::Pingreq => PacketType::Pingreq,
            Self::Pingresp => PacketType::Pingresp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }
}

macro_rules! from_struct {
    ($($name:ident)*) => {
        $(impl<'a> From<$name<'a>> for Packet<'a> {
            fn from(packet: $name<'a>) -> Self {
                Self::$name(packet)
            }
        })*
    };
}

from_struct! { Connect Connack Publish Subscribe Unsubscribe Disconnect Auth }

impl<'a> Frame<'a> {
    /// Reads the start of a packet that is known to be a PUBLISH.
    #[inline(always)]
    pub(crate) fn publish(self, rules: Rules) -> Result<PublishStart<'a>, DecodeError> {
        PublishStart::read(self.any_body(rules)?, self.flags, rules)
    }

    /// Decodes a PUBLISH in the place of the result.
    #[inline(always)]
    fn publish_as<P>(
        self,
        rules: Rules,
        wrap: impl FnOnce(Publish<'a>) -> P,
    ) -> Result<P, DecodeError> {
        Publish::decode(self.any_body(rules)?, self.flags, rules, wrap)
    }

    /// Reads a packet that is known to be one of the four acknowledgements.
    #[inline(always)]
    pub(crate) fn ack(self, rules: Rules) -> Result<Ack<'a>, DecodeError> {
        Ack::decode(self.body(rules)?, self.packet_type, rules, core::convert::identity)
    }
}

/// Checks and reads a packet by rules: of a version, and of a sender if they name one.
///
/// A CONNECT carries its own version.
#[inline(always)]
pub fn decode<'a>(frame: Frame<'a>, rules: impl Into<Rules>) -> Result<Packet<'a>, DecodeError> {
    decode_by(frame, Rules { is_checked: false, ..rules.into() })
}

/// Reads a packet that was checked by the same rules before.
#[inline(always)]
pub(super) fn decode_again(frame: Frame<'_>, rules: Rules) -> Result<Packet<'_>, DecodeError> {
    decode_by(frame, Rules { is_checked: true, ..rules })
}

#[inline(always)]
#[expect(clippy::wildcard_enum_match_arm, reason = "the other functions have them all")]
fn decode_by(frame: Frame<'_>, rules: Rules) -> Result<Packet<'_>, DecodeError> {
    // The common packet types are decoded inline, so that the optimizer sees how the result is
    // used: moving a packet through memory costs more than reading it.
    match frame.packet_type {
        PacketType::Publish => frame.publish_as(rules, Packet::Publish),
        PacketType::Puback => {
            Ack::decode(frame.body(rules)?, PacketType::Puback, rules, Packet::Puback)
        }
        PacketType::Pubrec => {
            Ack::decode(frame.body(rules)?, PacketType::Pubrec, rules, Packet::Pubrec)
        }
        PacketType::Pubrel => {
            Ack::decode(frame.body(rules)?, PacketType::Pubrel, rules, Packet::Pubrel)
        }
        PacketType::Pubcomp => {
            Ack::decode(frame.body(rules)?, PacketType::Pubcomp, rules, Packet::Pubcomp)
        }
        PacketType::Pingreq => {
            ping::decode(frame.body(rules)?, PacketType::Pingreq, rules).map(|()| Packet::Pingreq)
        }
        PacketType::Pingresp => {
            ping::decode(frame.body(rules)?, PacketType::Pingresp, rules).map(|()| Packet::Pingresp)
        }
        PacketType::Connack
        | PacketType::Suback
        | PacketType::Unsuback
        | PacketType::Disconnect => decode_other(frame.packet_type, frame.body(rules)?, rules),
        other => decode_large(other, frame.body(own_rules(frame, rules))?, rules),
    }
}

#[inline(never)]
#[expect(clippy::wildcard_enum_match_arm, reason = "there is one left")]
fn decode_other(
    packet_type: PacketType,
    r: Reader<'_>,
    rules: Rules,
) -> Result<Packet<'_>, DecodeError> {
    match packet_type {
        PacketType::Connack => Connack::decode(r, rules, Packet::Connack),
        PacketType::Suback => Suback::decode(r, PacketType::Suback, rules, Packet::Suback),
        PacketType::Unsuback => Suback::decode(r, PacketType::Unsuback, rules, Packet::Unsuback),
        _ => Disconnect::decode(r, rules, Packet::Disconnect),
    }
}

#[inline(never)]
#[expect(clippy::wildcard_enum_match_arm, reason = "there is one left")]
fn decode_large(
    packet_type: PacketType,
    r: Reader<'_>,
    rules: Rules,
) -> Result<Packet<'_>, DecodeError> {
    macro_rules! read {
        ($blank:expr, $variant:ident) => {{
            let mut packet = $blank;
            packet.read(r, rules).map(|()| Packet::$variant(packet))
        }};
    }
    match packet_type {
        PacketType::Connect => read!(Connect::new(Version::V5_0, ""), Connect),
        PacketType::Subscribe => read!(Subscribe::new(PacketIdentifier::FIRST, &[]), Subscribe),
        PacketType::Unsubscribe => {
            read!(Unsubscribe::new(PacketIdentifier::FIRST, &[]), Unsubscribe)
        }
        _ => read!(Auth::default(), Auth),
    }
}
