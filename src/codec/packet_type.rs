//! The 15 packet types. [5.0 §2.1.2] [3.1.1 §2.2.1]

use super::types::{Role, Version};
use core::fmt;

/// The type of a packet. [5.0 §2.1.2] [3.1.1 §2.2.1]
#[expect(clippy::exhaustive_enums, reason = "the standard assigns all numbers except 0")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub enum PacketType {
    /// Client to server: requests a connection.
    Connect = 1,
    /// Server to client: accepts or refuses the connection.
    Connack,
    /// A message.
    Publish,
    /// Acknowledges a message with QoS 1.
    Puback,
    /// Acknowledges a message with QoS 2, step 1.
    Pubrec,
    /// Answers PUBREC, step 2 of QoS 2.
    Pubrel,
    /// Answers PUBREL, step 3 of QoS 2.
    Pubcomp,
    /// Client to server: requests messages for topic filters.
    Subscribe,
    /// Server to client: answers SUBSCRIBE.
    Suback,
    /// Client to server: withdraws topic filters.
    Unsubscribe,
    /// Server to client: answers UNSUBSCRIBE.
    Unsuback,
    /// Client to server: keep-alive probe.
    Pingreq,
    /// Server to client: answers PINGREQ.
    Pingresp,
    /// The last packet of a connection from its sender.
    Disconnect,
    /// 5.0: a step of enhanced authentication.
    Auth,
}

impl PacketType {
    pub(super) const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Connect,
            2 => Self::Connack,
            3 => Self::Publish,
            4 => Self::Puback,
            5 => Self::Pubrec,
            6 => Self::Pubrel,
            7 => Self::Pubcomp,
            8 => Self::Subscribe,
            9 => Self::Suback,
            10 => Self::Unsubscribe,
            11 => Self::Unsuback,
            12 => Self::Pingreq,
            13 => Self::Pingresp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }

    /// Whether a side may send packets of this type in a version. [5.0 §2.1.2] [3.1.1 §2.2.1]
    ///
    /// ```
    /// use mqtt_sansio::codec::{PacketType, Role, Version};
    ///
    /// assert!(PacketType::Subscribe.may_be_sent_by(Role::Client, Version::V3_1_1));
    /// assert!(!PacketType::Subscribe.may_be_sent_by(Role::Server, Version::V3_1_1));
    /// // 5.0 introduced AUTH, and DISCONNECT from a server.
    /// assert!(PacketType::Disconnect.may_be_sent_by(Role::Server, Version::V5_0));
    /// assert!(!PacketType::Disconnect.may_be_sent_by(Role::Server, Version::V3_1_1));
    /// assert!(!PacketType::Auth.may_be_sent_by(Role::Client, Version::V3_1_1));
    /// ```
    #[must_use]
    pub const fn may_be_sent_by(self, sender: Role, version: Version) -> bool {
        match self {
            Self::Connect | Self::Subscribe | Self::Unsubscribe | Self::Pingreq => {
                matches!(sender, Role::Client)
            }
            Self::Connack | Self::Suback | Self::Unsuback | Self::Pingresp => {
                matches!(sender, Role::Server)
            }
            Self::Publish | Self::Puback | Self::Pubrec | Self::Pubrel | Self::Pubcomp => true,
            Self::Disconnect => matches!(sender, Role::Client) || matches!(version, Version::V5_0),
            Self::Auth => matches!(version, Version::V5_0),
        }
    }

    /// Returns a set of this type alone, as one bit.
    pub(crate) const fn bit(self) -> u16 {
        1 << self as u16
    }

    /// Returns the first byte of a packet, without the flags that PUBLISH has.
    pub(super) const fn first_byte(self) -> u8 {
        (self as u8) << 4 | self.flags()
    }

    /// Returns the fixed header flags that the standard requires. PUBLISH has its own. [5.0 §2.1.3]
    /// [3.1.1 §2.2.2]
    pub(super) const fn flags(self) -> u8 {
        if matches!(self, Self::Pubrel | Self::Subscribe | Self::Unsubscribe) { 0x02 } else { 0 }
    }
}

/// The name in the standard, such as `PUBLISH`.
impl fmt::Display for PacketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Connect => "CONNECT",
            Self::Connack => "CONNACK",
            Self::Publish => "PUBLISH",
            Self::Puback => "PUBACK",
            Self::Pubrec => "PUBREC",
            Self::Pubrel => "PUBREL",
            Self::Pubcomp => "PUBCOMP",
            Self::Subscribe => "SUBSCRIBE",
            Self::Suback => "SUBACK",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::Unsuback => "UNSUBACK",
            Self::Pingreq => "PINGREQ",
            Self::Pingresp => "PINGRESP",
            Self::Disconnect => "DISCONNECT",
            Self::Auth => "AUTH",
        })
    }
}
