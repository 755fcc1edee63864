//! Values that several messages share: return codes, topic ids, and the flags octet.

use super::error::DecodeError;
use crate::codec::{QoS, Text, TopicFilter, TopicName, Version};
use core::fmt;

/// The outcome of a request. [SN §5.3.10] Other values are reserved, and refused.
#[expect(clippy::exhaustive_enums, reason = "the set is closed by the specification")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, thiserror::Error)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub enum ReturnCode {
    /// 0x00: the request was accepted.
    #[default]
    #[error("accepted")]
    Accepted,
    /// 0x01. The sender waits for T_WAIT, more than five minutes, before it tries again.
    /// [SN §6.6]
    #[error("rejected: congestion")]
    Congestion,
    /// 0x02. A normal topic id must be registered again. [SN §6.6]
    #[error("rejected: invalid topic id")]
    InvalidTopicId,
    /// 0x03: the receiver does not support the request.
    #[error("rejected: not supported")]
    NotSupported,
}

impl ReturnCode {
    /// Returns the number.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        match self {
            Self::Accepted => 0,
            Self::Congestion => 1,
            Self::InvalidTopicId => 2,
            Self::NotSupported => 3,
        }
    }

    /// Returns the code with this number, unless it is reserved.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Accepted),
            1 => Some(Self::Congestion),
            2 => Some(Self::InvalidTopicId),
            3 => Some(Self::NotSupported),
            _ => None,
        }
    }
}

/// The number that stands for a topic name: neither 0x0000 nor 0xFFFF, which are reserved.
/// [SN §5.3.11]
///
/// ```
/// use mqtt_sansio::sn::v1_2::TopicId;
///
/// assert_eq!(TopicId::new(7).map(TopicId::get), Some(7));
/// assert_eq!(TopicId::new(0xFFFF), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(u16);

impl TopicId {
    /// The first topic id.
    pub const FIRST: Self = Self(1);

    /// Returns the topic id with this number, unless it is reserved.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        match number {
            0 | 0xFFFF => None,
            number => Some(Self(number)),
        }
    }

    /// Returns the number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicId({})", self.0)
    }
}

#[cfg(feature = "arbitrary")]
impl arbitrary::Arbitrary<'_> for TopicId {
    fn arbitrary(u: &mut arbitrary::Unstructured<'_>) -> arbitrary::Result<Self> {
        u.int_in_range(1..=0xFFFE).map(Self)
    }
}

/// The topic of a PUBLISH, in two octets. [SN §6.7]
#[expect(clippy::exhaustive_enums, reason = "the set is closed by the specification")]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub enum TopicRef {
    /// A topic id that both sides know from a REGISTER or SUBSCRIBE.
    Normal(TopicId),
    /// A topic id that both sides know without having exchanged it.
    Predefined(TopicId),
    /// A topic name of two octets.
    Short([u8; 2]),
}

impl From<TopicId> for TopicRef {
    fn from(id: TopicId) -> Self {
        Self::Normal(id)
    }
}

impl TopicRef {
    /// Makes a short topic from a name of two octets. Another length is refused as
    /// [`Truncated`](DecodeError::Truncated) or [`TrailingBytes`](DecodeError::TrailingBytes).
    pub fn short(name: &str) -> Result<Self, DecodeError> {
        let octets = match *name.as_bytes() {
            [] | [_] => return Err(DecodeError::Truncated),
            [first, second] => [first, second],
            _ => return Err(DecodeError::TrailingBytes),
        };
        Self::Short(octets).check().map(|()| Self::Short(octets))
    }

    /// Returns the name of a short topic.
    #[must_use]
    pub fn short_name(&self) -> Option<&str> {
        match self {
            Self::Short(octets) => core::str::from_utf8(octets).ok(),
            Self::Normal(_) | Self::Predefined(_) => None,
        }
    }

    /// Returns the two octets as they stand in PUBLISH and PUBACK. A short topic has no reserved
    /// value, because U+0000 and 0xFF are no part of a name.
    #[must_use]
    pub const fn wire_id(self) -> Option<TopicId> {
        match self {
            Self::Normal(id) | Self::Predefined(id) => Some(id),
            Self::Short(octets) => TopicId::new(u16::from_be_bytes(octets)),
        }
    }

    /// Returns the bits of the flags octet. [SN §5.3.4]
    pub(super) const fn flags(self) -> u8 {
        match self {
            Self::Normal(_) => 0,
            Self::Predefined(_) => PREDEFINED,
            Self::Short(_) => SHORT,
        }
    }

    pub(super) fn octets(self) -> [u8; 2] {
        match self {
            Self::Normal(id) | Self::Predefined(id) => id.get().to_be_bytes(),
            Self::Short(octets) => octets,
        }
    }

    pub(super) fn new(flags: u8, octets: [u8; 2]) -> Result<Self, DecodeError> {
        let id = || TopicId::new(u16::from_be_bytes(octets)).ok_or(DecodeError::ReservedTopicId);
        match flags & TOPIC_ID_TYPE {
            0 => id().map(Self::Normal),
            PREDEFINED => id().map(Self::Predefined),
            SHORT => Ok(Self::Short(octets)),
            _ => Err(DecodeError::ReservedTopicIdType),
        }
    }

    pub(super) fn check(&self) -> Result<(), DecodeError> {
        match self {
            Self::Short(octets) => {
                let name = core::str::from_utf8(octets).map_err(|_| DecodeError::InvalidUtf8)?;
                check_name(name.into())
            }
            Self::Normal(_) | Self::Predefined(_) => Ok(()),
        }
    }
}

impl fmt::Debug for TopicRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Normal(id) => write!(f, "Normal({})", id.get()),
            Self::Predefined(id) => write!(f, "Predefined({})", id.get()),
            Self::Short(octets) => write!(f, "Short(\"{}\")", octets.escape_ascii()),
        }
    }
}

/// The topic of a SUBSCRIBE or UNSUBSCRIBE. [SN §5.4.15] [SN §5.4.17]
#[expect(clippy::exhaustive_enums, reason = "the set is closed by the specification")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub enum SubscriptionTopic<'a> {
    /// A topic filter.
    Filter(Text<'a>),
    /// A predefined topic id.
    Predefined(TopicId),
    /// A short topic name, which has no wildcards. [SN §6.7]
    Short([u8; 2]),
}

impl SubscriptionTopic<'_> {
    pub(super) fn check(&self) -> Result<(), DecodeError> {
        match self {
            Self::Filter(filter) => Ok(TopicFilter::new(*filter, Version::V3_1_1).map(|_| ())?),
            Self::Predefined(_) => Ok(()),
            Self::Short(octets) => TopicRef::Short(*octets).check(),
        }
    }
}

/// Refuses text that is no topic name.
pub(super) fn check_name(name: Text<'_>) -> Result<(), DecodeError> {
    Ok(TopicName::new(name).map(|_| ())?)
}

/// The QoS of a PUBLISH, with the level of MQTT-SN that needs no connection. [SN §5.3.4] [SN §6.8]
#[expect(clippy::exhaustive_enums, reason = "the set is closed by the specification")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub enum PublishQos {
    /// QoS −1: sent once, without a connection, to a predefined or short topic.
    MinusOne,
    /// A level of MQTT.
    Level(QoS),
}

impl Default for PublishQos {
    fn default() -> Self {
        Self::Level(QoS::AtMostOnce)
    }
}

impl From<QoS> for PublishQos {
    fn from(qos: QoS) -> Self {
        Self::Level(qos)
    }
}

impl PublishQos {
    pub(super) const fn from_flags(flags: u8) -> Self {
        match QoS::from_u8(flags >> QOS_SHIFT & 3) {
            Some(qos) => Self::Level(qos),
            None => Self::MinusOne,
        }
    }

    pub(super) const fn flags(self) -> u8 {
        match self {
            Self::MinusOne => 3 << QOS_SHIFT,
            Self::Level(qos) => qos_flags(qos),
        }
    }

    /// Whether the receiver acknowledges the message.
    #[must_use]
    pub const fn is_acknowledged(self) -> bool {
        matches!(self, Self::Level(QoS::AtLeastOnce | QoS::ExactlyOnce))
    }
}

// The flags octet. [SN §5.3.4]
pub(super) const DUP: u8 = 0x80;
pub(super) const RETAIN: u8 = 0x10;
pub(super) const WILL: u8 = 0x08;
pub(super) const CLEAN_SESSION: u8 = 0x04;
const QOS_SHIFT: u8 = 5;
const TOPIC_ID_TYPE: u8 = 0x03;
pub(super) const PREDEFINED: u8 = 0x01;
pub(super) const SHORT: u8 = 0x02;

/// Reads the QoS of a message other than PUBLISH.
pub(super) fn qos(flags: u8) -> Result<QoS, DecodeError> {
    QoS::from_u8(flags >> QOS_SHIFT & 3).ok_or(DecodeError::InvalidQos)
}

pub(super) const fn qos_flags(qos: QoS) -> u8 {
    qos.as_u8() << QOS_SHIFT
}

pub(super) const fn flag(is_set: bool, flag: u8) -> u8 {
    if is_set { flag } else { 0 }
}
