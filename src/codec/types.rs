//! Values that several packets share: versions, roles, QoS and packet identifiers.

use core::fmt;
use core::num::NonZeroU16;

/// A version of the protocol. The order is by age.
///
/// ```
/// use mqtt_sansio::codec::Version;
///
/// let version: Version = "3.1.1".parse()?;
/// assert_eq!(version.level(), 4);
/// assert_eq!(Version::from_level(4), Some(version));
/// assert!(version < Version::V5_0);
/// # Ok::<_, mqtt_sansio::codec::ConversionError>(())
/// ```
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
    /// Returns the Protocol Level, in 5.0 called Protocol Version, of CONNECT. [5.0 §3.1.2.2]
    /// [3.1.1 §3.1.2.2]
    #[must_use]
    pub const fn level(self) -> u8 {
        match self {
            Self::V3_1 => 3,
            Self::V3_1_1 => 4,
            Self::V5_0 => 5,
        }
    }

    /// Returns the version with this Protocol Level: 3, 4 or 5. [5.0 §3.1.2.2] [3.1.1 §3.1.2.2]
    #[must_use]
    pub const fn from_level(level: u8) -> Option<Self> {
        match level {
            3 => Some(Self::V3_1),
            4 => Some(Self::V3_1_1),
            5 => Some(Self::V5_0),
            _ => None,
        }
    }

    /// Returns the Protocol Name of CONNECT. [5.0 §3.1.2.1] [3.1.1 §3.1.2.1]
    pub(crate) const fn protocol_name(self) -> &'static [u8] {
        match self {
            Self::V3_1 => b"MQIsdp",
            Self::V3_1_1 | Self::V5_0 => b"MQTT",
        }
    }
}

/// A side of a connection.
#[expect(clippy::exhaustive_enums, reason = "a connection has two sides")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub enum Role {
    /// The side that sends CONNECT.
    Client,
    /// The side that sends CONNACK.
    Server,
}

/// Quality of Service: how often a message can arrive. [5.0 §4.3] [3.1.1 §4.3]
///
/// ```
/// use mqtt_sansio::codec::QoS;
///
/// assert_eq!(QoS::try_from(1)?, QoS::AtLeastOnce);
/// assert_eq!("2".parse(), Ok(QoS::ExactlyOnce));
/// assert_eq!(QoS::AtMostOnce.to_string(), "0");
/// # Ok::<_, mqtt_sansio::codec::ConversionError>(())
/// ```
#[expect(clippy::exhaustive_enums, reason = "the standard has closed the set")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "u8", into = "u8")
)]
pub enum QoS {
    /// QoS 0: sent once, not acknowledged.
    #[default]
    AtMostOnce,
    /// QoS 1: resent until acknowledged.
    AtLeastOnce,
    /// QoS 2: acknowledged in two steps, so that it arrives once.
    ExactlyOnce,
}

impl QoS {
    /// Returns the number: 0, 1 or 2.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        match self {
            Self::AtMostOnce => 0,
            Self::AtLeastOnce => 1,
            Self::ExactlyOnce => 2,
        }
    }

    /// Returns the QoS with this number, if it is 0, 1 or 2.
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
///
/// ```
/// use mqtt_sansio::codec::PacketIdentifier;
///
/// let identifier = PacketIdentifier::try_from(7)?;
/// assert_eq!(identifier.get(), 7);
/// assert!(PacketIdentifier::try_from(0).is_err());
/// # Ok::<_, mqtt_sansio::codec::ConversionError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "u16", into = "u16")
)]
pub struct PacketIdentifier(NonZeroU16);

impl PacketIdentifier {
    pub(crate) const FIRST: Self = Self(NonZeroU16::MIN);

    /// Returns the identifier with this number, unless it is zero.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        match NonZeroU16::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// Returns the number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl From<NonZeroU16> for PacketIdentifier {
    fn from(number: NonZeroU16) -> Self {
        Self(number)
    }
}

impl From<PacketIdentifier> for NonZeroU16 {
    fn from(identifier: PacketIdentifier) -> Self {
        identifier.0
    }
}

impl fmt::Debug for PacketIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PacketIdentifier({})", self.0)
    }
}
