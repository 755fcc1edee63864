//! Bytes to packets and back: pure functions, without state.
//!
//! Reading takes two steps. [`frame`] finds one packet at the start of the bytes received, and says
//! so when it is not all there yet; [`decode`] checks and reads it. A decoded [`Packet`] is a view
//! of the bytes: nothing is allocated for any packet. [`encode`](fn@encode) goes the other way,
//! [`Prepared`] does so for a packet that is written more than once, and [`OwnedPacket`] is for
//! whoever must keep a packet or send it to another task.
//!
//! ```
//! use mqtt_sansio::codec::{self, Packet, Publish, Version};
//!
//! let mut bytes = Vec::new();
//! codec::encode(&Publish::new("a/b", b"hello").into(), Version::V5_0, &mut bytes)?;
//!
//! let frame = codec::frame(&bytes, u32::MAX)?.expect("the packet is all there");
//! let Packet::Publish(publish) = codec::decode(frame, Version::V5_0)? else { panic!() };
//! assert_eq!(publish.topic_name, "a/b");
//! assert_eq!(publish.payload, b"hello");
//! assert_eq!(frame.as_bytes(), bytes);
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! Every rule that a single packet can break is checked, in both directions, and has its own
//! [`DecodeError`]. With [`Rules`] that name the sender, that goes for what only one side may send
//! as well.

mod ack;
mod connack;
mod connect;
mod disconnect;
mod encode;
mod error;
#[cfg(feature = "arbitrary")]
mod examples;
mod options;
mod owned;
mod property;
mod publish;
mod read;
mod reason;
mod sequence;
mod suback;
mod subscribe;
mod text;
mod topic;
mod types;
mod write;

pub use ack::Ack;
pub use connack::Connack;
pub use connect::{Connect, Will};
pub use disconnect::{Auth, Disconnect};
pub use encode::{Prepared, encode, encode_publish_header};
pub use error::{DecodeError, EncodeError};
pub use options::Options;
pub use owned::OwnedPacket;
pub use property::{
    AckProperties, AuthProperties, ConnackProperties, ConnectProperties, DisconnectProperties,
    PublishProperties, SubscribeProperties, SubscriptionIdentifier, UnsubscribeProperties,
    UserProperty, WillProperties,
};
pub use publish::Publish;
pub use reason::ReasonCode;
pub use sequence::{Iter, Sequence};
pub use suback::Suback;
pub use subscribe::{RetainHandling, Subscribe, Subscription, SubscriptionOptions, Unsubscribe};
pub use text::Text;
pub use topic::TopicFilter;
pub use types::{PacketIdentifier, QoS, Role, Rules, Version};
pub use write::{Fixed, Output};

pub(crate) use encode::{Encode, Identified, Measured};
pub(crate) use read::Reader;
pub(crate) use topic::{is_hidden, levels};
use write::length_of_length;
pub(crate) use write::{Append, Size, Writer, remaining_length};

/// The type of a packet. [5.0 §2.1.2] [3.1.1 §2.2.1]
#[expect(clippy::exhaustive_enums, reason = "the standard has given out all numbers but 0")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub enum PacketType {
    /// From the client: to be let in.
    Connect = 1,
    /// From the server: whether it is.
    Connack,
    /// A message.
    Publish,
    /// A message with QoS 1 has arrived.
    Puback,
    /// A message with QoS 2 has arrived.
    Pubrec,
    /// PUBREC has arrived.
    Pubrel,
    /// PUBREL has arrived.
    Pubcomp,
    /// From the client: which messages it wants.
    Subscribe,
    /// From the server: which it gets.
    Suback,
    /// From the client: which messages it no longer wants.
    Unsubscribe,
    /// From the server: that it gets them no longer.
    Unsuback,
    /// From the client: is there anybody?
    Pingreq,
    /// From the server: yes.
    Pingresp,
    /// The last packet of its sender.
    Disconnect,
    /// A step of enhanced authentication; 5.0 only.
    Auth,
}

impl PacketType {
    const fn from_number(number: u8) -> Option<Self> {
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

    /// One bit, for sets of packet types.
    pub(crate) const fn bit(self) -> u16 {
        1 << self as u16
    }

    /// The flags that the standard fixes for the fixed header; PUBLISH has its own. [5.0 §2.1.3]
    /// [3.1.1 §2.2.2]
    const fn flags(self) -> u8 {
        if matches!(self, Self::Pubrel | Self::Subscribe | Self::Unsubscribe) { 0x02 } else { 0 }
    }
}

/// The fixed header of a packet: all that is known before the rest has arrived. [5.0 §2.1] [3.1.1
/// §2.2]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    packet_type: PacketType,
    flags: u8,
    packet_size: u32,
}

impl Header {
    /// The type of the packet.
    #[must_use]
    pub const fn packet_type(self) -> PacketType {
        self.packet_type
    }

    /// The size of the whole packet in bytes, the header included. [5.0 §2.1.4]
    #[must_use]
    pub const fn packet_size(self) -> u32 {
        self.packet_size
    }
}

/// One packet's bytes, found but not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    packet_type: PacketType,
    flags: u8,
    /// Whether the Remaining Length has no more bytes than it needs.
    minimal: bool,
    bytes: &'a [u8],
    body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The type of the packet.
    #[must_use]
    pub const fn packet_type(self) -> PacketType {
        self.packet_type
    }

    /// The whole packet, from its first byte to its last.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The body, if the flags are right; not for PUBLISH, which has other flags.
    #[inline(always)]
    pub(crate) fn body(self, rules: Rules) -> Result<Reader<'a>, DecodeError> {
        let expected = self.packet_type.flags();
        // 3.1 lets a packet that is sent again carry DUP. [3.1 §3.6, §3.8, §3.10]
        let loose = rules.version == Version::V3_1
            && (rules.options.has(Options::UNUSED_HEADER_FLAGS)
                || expected != 0 && self.flags == expected | 0x08);
        if self.flags == expected || loose {
            self.any_body(rules)
        } else {
            Err(DecodeError::InvalidHeaderFlags)
        }
    }

    /// A CONNECT is judged by the version that it brings, which only options make a difference to.
    fn own_rules(self, rules: Rules) -> Rules {
        if self.packet_type != PacketType::Connect || rules.options == Options::NONE {
            return rules;
        }
        let version =
            Version::decode(&mut Reader(self.body), rules.options).unwrap_or(rules.version);
        Rules { version, ..rules }
    }

    /// Whether it may have been sent before; other packets than PUBLISH can only say so in 3.1.
    /// [3.1 §2.1]
    pub(crate) const fn dup(self) -> bool {
        self.flags & 0x08 != 0
    }

    /// The body, whatever the flags.
    #[inline(always)]
    fn any_body(self, rules: Rules) -> Result<Reader<'a>, DecodeError> {
        let right = self.minimal
            || rules.version < Version::V5_0 && rules.options.has(Options::NON_MINIMAL_LENGTH);
        if right { Ok(Reader(self.body)) } else { Err(DecodeError::NonMinimalVariableByteInteger) }
    }

    /// Reads a packet that is known to be a PUBLISH, and wraps it where it is made.
    #[inline(always)]
    pub(crate) fn publish<P>(
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

    /// The first packet of `input`, taken off it.
    #[inline]
    pub(crate) fn take(
        input: &mut &'a [u8],
        maximum_packet_size: u32,
    ) -> Result<Option<Self>, DecodeError> {
        let frame = frame(input, maximum_packet_size)?;
        if let Some(frame) = frame {
            *input = input.get(frame.bytes.len()..).unwrap_or_default();
        }
        Ok(frame)
    }
}

/// Reads the fixed header at the start of `bytes`, or gives `None` while it is not all there.
///
/// With the [`packet_size`](Header::packet_size) a reader knows how many bytes to wait for. A
/// packet larger than `maximum_packet_size` is refused here, before anything of it needs to be
/// kept.
///
/// ```
/// use mqtt_sansio::codec::{self, DecodeError};
///
/// let header = codec::header(&[0x30, 0x80, 0x01], u32::MAX)?.unwrap();
/// assert_eq!(header.packet_size(), 3 + 128);
/// let announced = [0x30, 0xFF, 0xFF, 0xFF, 0x7F];
/// assert_eq!(
///     codec::header(&announced, 1_000_000),
///     Err(DecodeError::PacketTooLarge { size: 268_435_460, maximum: 1_000_000 })
/// );
/// # Ok::<_, DecodeError>(())
/// ```
#[inline]
pub fn header(bytes: &[u8], maximum_packet_size: u32) -> Result<Option<Header>, DecodeError> {
    Ok(split_header(bytes, maximum_packet_size)?.map(|(header, _)| header))
}

/// The fixed header, and what follows it.
#[inline]
fn split_header(
    bytes: &[u8],
    maximum_packet_size: u32,
) -> Result<Option<(Header, &[u8])>, DecodeError> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    let packet_type = PacketType::from_number(first >> 4).ok_or(DecodeError::ReservedPacketType)?;
    let Some((remaining_length, after)) = read::remaining_length(rest)? else { return Ok(None) };
    let length_of_length = rest.len() - after.len();
    // At most 4 and 268,435,455.
    let packet_size = 1 + u32::try_from(length_of_length).unwrap_or(0) + remaining_length;
    if packet_size > maximum_packet_size {
        return Err(DecodeError::PacketTooLarge {
            size: packet_size,
            maximum: maximum_packet_size,
        });
    }
    Ok(Some((Header { packet_type, flags: first & 0x0F, packet_size }, after)))
}

/// Finds the packet at the start of `bytes`, or gives `None` while it is not all there.
///
/// "Not all there" is not an error, and nothing of the packet needs reading again but its header.
#[inline(always)]
pub fn frame(bytes: &[u8], maximum_packet_size: u32) -> Result<Option<Frame<'_>>, DecodeError> {
    // Two bytes of header are by far the most frequent.
    if let ([first, length @ 0..=0x7F, rest @ ..], 0x81..) = (bytes, maximum_packet_size) {
        let (packet_type, length) = (PacketType::from_number(first >> 4), usize::from(*length));
        if let (Some(packet_type), Some(body), Some(bytes)) =
            (packet_type, rest.get(..length), bytes.get(..length + 2))
        {
            return Ok(Some(Frame {
                packet_type,
                flags: first & 0x0F,
                minimal: true,
                bytes,
                body,
            }));
        }
    }
    any_frame(bytes, maximum_packet_size)
}

#[inline(never)]
fn any_frame(bytes: &[u8], maximum_packet_size: u32) -> Result<Option<Frame<'_>>, DecodeError> {
    let Some((Header { packet_type, flags, packet_size }, after)) =
        split_header(bytes, maximum_packet_size)?
    else {
        return Ok(None);
    };
    let header_size = bytes.len() - after.len();
    let Some(bytes) = usize::try_from(packet_size).ok().and_then(|size| bytes.get(..size)) else {
        return Ok(None);
    };
    let body = bytes.get(header_size..).unwrap_or_default();
    let minimal = remaining_length(body.len())
        .is_ok_and(|length| header_size == 1 + length_of_length(length) as usize);
    Ok(Some(Frame { packet_type, flags, minimal, bytes, body }))
}

/// The protocol version that the start of a CONNECT asks for, known or not, for an answer to one
/// that cannot be decoded.
pub(crate) fn connect_version(bytes: &[u8]) -> Option<u8> {
    let (_, body) = read::remaining_length(bytes.get(1..)?).ok()??;
    let mut reader = Reader(body);
    let name = reader.binary().ok()?;
    let is_known =
        [Version::V3_1, Version::V5_0].iter().any(|version| version.protocol_name() == name);
    reader.u8().ok().filter(|_| is_known)
}

/// A packet of any type, as a view of its bytes or of the values that it was made from.
///
/// It is as large as the largest of them, a CONNECT with a will; whoever expects one type matches
/// on [`Frame::packet_type`] first.
#[expect(clippy::exhaustive_enums, reason = "the standard has closed the set")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
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
    /// The packet without what is for people to read: the reason string and the user properties of
    /// an answer or a farewell. Those that ask or bring something have none; their user properties
    /// are for programs.
    pub(crate) fn without_diagnostics(mut self) -> Self {
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
        (*reason_string, *user_properties) = (None, Sequence::default());
        self
    }

    /// The type of the packet.
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

/// Reads a packet by the rules of a version and, if they name one, of a sender.
///
/// A CONNECT brings its own version.
#[inline(always)]
#[expect(clippy::wildcard_enum_match_arm, reason = "the other function has them all")]
pub fn decode<'a>(frame: Frame<'a>, rules: impl Into<Rules>) -> Result<Packet<'a>, DecodeError> {
    let rules = rules.into();
    // What most packets are is read in place, where the compiler sees what becomes of it: moving a
    // packet through memory costs more than reading it.
    match frame.packet_type {
        PacketType::Publish => frame.publish(rules, Packet::Publish),
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
        PacketType::Pingreq => frame
            .body(rules)?
            .end()
            .and_then(|()| rules.only_from(Role::Client))
            .map(|()| Packet::Pingreq),
        PacketType::Pingresp => frame
            .body(rules)?
            .end()
            .and_then(|()| rules.only_from(Role::Server))
            .map(|()| Packet::Pingresp),
        other => decode_other(other, frame.body(frame.own_rules(rules))?, rules),
    }
}

#[inline(never)]
#[expect(clippy::wildcard_enum_match_arm, reason = "the other function has them all")]
fn decode_other(
    packet_type: PacketType,
    r: Reader<'_>,
    rules: Rules,
) -> Result<Packet<'_>, DecodeError> {
    match packet_type {
        PacketType::Connack => Connack::decode(r, rules, Packet::Connack),
        PacketType::Suback => Suback::decode(r, PacketType::Suback, rules, Packet::Suback),
        PacketType::Unsuback => Suback::decode(r, PacketType::Unsuback, rules, Packet::Unsuback),
        PacketType::Disconnect => Disconnect::decode(r, rules, Packet::Disconnect),
        other => decode_large(other, r, rules),
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
        PacketType::Subscribe => read!(Subscribe::blank(), Subscribe),
        PacketType::Unsubscribe => read!(Unsubscribe::blank(), Unsubscribe),
        _ => read!(Auth::default(), Auth),
    }
}
