//! Values that several packets have: versions, roles, QoS and packet identifiers.

use super::{DecodeError, EncodeError, Options, Reader, Text};
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

    /// The version with that protocol name and level. [5.0 MQTT-3.1.2-1] [5.0 MQTT-3.1.2-2]
    pub(crate) fn decode(reader: &mut Reader<'_>, options: Options) -> Result<Self, DecodeError> {
        let (name, level) = (Text::decode(reader)?, reader.u8()?);
        let bridge = options.has(Options::BRIDGE_PROTOCOL_LEVEL) && matches!(level, 0x83 | 0x84);
        match (name.as_bytes(), if bridge { level & 0x7F } else { level }) {
            (b"MQTT", 5) => Ok(Self::V5_0),
            (b"MQTT", 4) => Ok(Self::V3_1_1),
            (b"MQIsdp", 3) => Ok(Self::V3_1),
            (b"MQTT" | b"MQIsdp", level) => Err(DecodeError::UnsupportedProtocolVersion(level)),
            _ => Err(DecodeError::InvalidProtocolName),
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

/// What a packet is read or written by: the version, and which side it comes from.
///
/// A version alone will do where the sender does not matter; what only one side may send is then
/// accepted.
///
/// ```
/// use mqtt_sansio::codec::{self, DecodeError, Role, Rules, Version};
///
/// let pingresp = codec::frame(&[0xD0, 0x00], u32::MAX)?.unwrap();
/// assert!(codec::decode(pingresp, Version::V5_0).is_ok());
/// let from_client = Rules::new(Version::V5_0).sent_by(Role::Client);
/// assert_eq!(codec::decode(pingresp, from_client), Err(DecodeError::WrongSender));
/// # Ok::<_, DecodeError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    pub(crate) version: Version,
    pub(crate) sender: Option<Role>,
    pub(crate) options: Options,
}

impl Rules {
    /// The rules of a version, for a packet from either side.
    #[must_use]
    pub const fn new(version: Version) -> Self {
        Self { version, sender: None, options: Options::NONE }
    }

    /// Also those for what only `sender`, or only the other side, may send.
    #[must_use]
    pub const fn sent_by(self, sender: Role) -> Self {
        Self { sender: Some(sender), ..self }
    }

    /// Also these options. Those that are about what a packet says, and not only about its form, go
    /// for writing as well.
    #[must_use]
    pub const fn with(self, options: Options) -> Self {
        Self { options: self.options.and(options), ..self }
    }

    /// For what came with 5.0, if it is there.
    #[inline(always)]
    pub(crate) fn since_5_0_if(self, is_there: impl FnOnce() -> bool) -> Result<(), EncodeError> {
        if self.version < Version::V5_0 && is_there() {
            Err(EncodeError::NotInVersion(self.version))
        } else {
            Ok(())
        }
    }

    /// For a packet that only one side may send.
    #[inline]
    pub(crate) fn only_from(self, sender: Role) -> Result<(), DecodeError> {
        if self.sender.is_none_or(|actual| actual == sender) {
            Ok(())
        } else {
            Err(DecodeError::WrongSender)
        }
    }
}

impl From<Version> for Rules {
    fn from(version: Version) -> Self {
        Self::new(version)
    }
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

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Self::new(reader.u16()?).ok_or(DecodeError::ZeroPacketIdentifier)
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
