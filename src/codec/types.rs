//! Values that several packets have: versions, roles, QoS and packet identifiers.

use core::fmt;
use core::num::NonZeroU16;

/// A version of the protocol. They are ordered by age.
#[expect(
    clippy::exhaustive_enums,
    reason = "a new version of the standard would change every layer"
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub enum Version {
    /// 3.1: protocol name `MQIsdp`, protocol level 3.
    V3_1,
    /// 3.1.1: protocol name `MQTT`, protocol level 4.
    V3_1_1,
    /// 5.0: protocol name `MQTT`, protocol level 5.
    V5_0,
}

impl Version {
    /// The Protocol Level or Protocol Version in CONNECT. [5.0 §3.1.2.2] [3.1.1 §3.1.2.2]
    #[must_use]
    pub const fn level(self) -> u8 {
        match self {
            Self::V3_1 => 3,
            Self::V3_1_1 => 4,
            Self::V5_0 => 5,
        }
    }

    /// The Protocol Name in CONNECT. [5.0 §3.1.2.1] [3.1.1 §3.1.2.1]
    pub(crate) const fn protocol_name(self) -> &'static [u8] {
        match self {
            Self::V3_1 => b"MQIsdp",
            Self::V3_1_1 | Self::V5_0 => b"MQTT",
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V3_1 => "3.1",
            Self::V3_1_1 => "3.1.1",
            Self::V5_0 => "5.0",
        })
    }
}

/// A side of a connection.
#[expect(clippy::exhaustive_enums, reason = "a connection has two sides")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub enum Role {
    /// The side that sends CONNECT.
    Client,
    /// The side that sends CONNACK.
    Server,
}

/// Quality of Service: how often a message may arrive. [5.0 §4.3] [3.1.1 §4.3]
#[expect(clippy::exhaustive_enums, reason = "the standard has closed the set")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub enum QoS {
    /// QoS 0: sent once and not acknowledged.
    #[default]
    AtMostOnce,
    /// QoS 1: sent again until acknowledged.
    AtLeastOnce,
    /// QoS 2: acknowledged in two steps, so that it arrives once.
    ExactlyOnce,
}

impl QoS {
    /// 0, 1 or 2.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        match self {
            Self::AtMostOnce => 0,
            Self::AtLeastOnce => 1,
            Self::ExactlyOnce => 2,
        }
    }

    /// The QoS of that number, if it is 0, 1 or 2.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// A Packet Identifier, which is never zero. [5.0 §2.2.1] [3.1.1 §2.3.1]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub struct PacketIdentifier(NonZeroU16);

impl PacketIdentifier {
    pub(crate) const FIRST: Self = Self(NonZeroU16::MIN);

    /// The identifier of that number, unless it is zero.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        match NonZeroU16::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Debug for PacketIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PacketIdentifier({})", self.0)
    }
}

impl fmt::Display for PacketIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
