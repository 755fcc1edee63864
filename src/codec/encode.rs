//! Packets to bytes: what all packets have in common when they are written, and how each is asked
//! for its own part.

use super::ack::Ack;
use super::connack::Connack;
use super::connect::Connect;
use super::disconnect::{Auth, Disconnect};
use super::error::EncodeError;
use super::packet::Packet;
use super::packet_type::PacketType;
use super::publish::Publish;
use super::rules::Rules;
use super::suback::Suback;
use super::subscribe::{Subscribe, Unsubscribe};
use super::types::{PacketIdentifier, Role, Version};
use super::varint;
use super::write::{Output, Sink, Size, Writer};

/// Appends a packet to `out`, by the rules of a version and, if they name one, of a sender; a
/// CONNECT brings its own version.
///
/// What a receiver would have to refuse, and what the version has no place for, is an error, and
/// `out` holds what it held. So it does when it is [`Fixed`](super::Fixed) and has no room for the
/// packet.
#[inline]
pub fn encode(
    packet: &Packet<'_>,
    rules: impl Into<Rules>,
    out: &mut impl Output,
) -> Result<(), EncodeError> {
    packet.encode_to(rules.into(), out)
}

/// A packet that has been checked and measured, and needs only to be written: for who must know its
/// size first, or sends the very same packet to many, as a message with QoS 0. [`encode`] does both
/// at once.
///
/// ```
/// use mqtt_sansio::codec::{Prepared, Publish, Version};
///
/// let packet = Publish::new("a/b", b"21.5").into();
/// let prepared = Prepared::new(&packet, Version::V3_1_1)?;
/// assert_eq!(prepared.packet_size(), 11);
///
/// let mut outputs = [Vec::new(), Vec::new()];
/// for out in &mut outputs {
///     prepared.write(out)?;
/// }
/// assert_eq!(outputs, [b"\x30\x09\0\x03a/b21.5"; 2]);
/// # Ok::<_, mqtt_sansio::codec::EncodeError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Prepared<'p, 'a> {
    packet: &'p Packet<'a>,
    rules: Rules,
    measured: Measured,
}

impl<'p, 'a> Prepared<'p, 'a> {
    /// Checks a packet as [`encode`] does.
    pub fn new(packet: &'p Packet<'a>, rules: impl Into<Rules>) -> Result<Self, EncodeError> {
        let rules = rules.into();
        Ok(Self { packet, rules, measured: packet.measure(rules)? })
    }

    /// The size of the whole packet in bytes. [5.0 §2.1.4]
    #[must_use]
    pub const fn packet_size(&self) -> u32 {
        self.measured.packet_size()
    }

    /// Appends the packet to `out`. The only error is that a [`Fixed`](super::Fixed) output has no
    /// room for it; it then is as it was.
    #[inline]
    pub fn write(&self, out: &mut impl Output) -> Result<(), EncodeError> {
        self.packet.write_measured(&self.measured, self.rules, out)
    }
}

/// Appends a PUBLISH without its payload to `out`, for who hands the payload on without copying it:
/// the packet is what is written here and then [`Publish::payload`](field@Publish::payload).
///
/// ```
/// use mqtt_sansio::codec::{self, Publish, Version};
///
/// let publish = Publish::new("a", &[0; 65_536]);
/// let mut out = Vec::new();
/// codec::encode_publish_header(&publish, Version::V3_1_1, &mut out)?;
/// assert_eq!(out, [0x30, 0x83, 0x80, 0x04, 0x00, 0x01, b'a']);
/// # Ok::<_, codec::EncodeError>(())
/// ```
pub fn encode_publish_header(
    publish: &Publish<'_>,
    rules: impl Into<Rules>,
    out: &mut impl Output,
) -> Result<(), EncodeError> {
    encode_parts(&Identified(publish, publish.packet_identifier), &[], rules.into(), out)
}

/// What can be encoded: a packet of one type, or of any.
pub(crate) trait Encode {
    /// Leaves the output as it was if there is an error.
    fn encode_to(&self, rules: Rules, out: &mut impl Output) -> Result<(), EncodeError>;

    /// The first half of that, which finds all errors but that there is no room.
    fn measure(&self, rules: Rules) -> Result<Measured, EncodeError>;

    /// The second half, by the same rules.
    fn write_measured(
        &self,
        measured: &Measured,
        rules: Rules,
        out: &mut impl Output,
    ) -> Result<(), EncodeError>;
}

/// The sizes of the parts of a packet. [5.0 §2.1.4]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Measured {
    /// The body without the payload.
    body: Size,
    remaining_length: u32,
}

impl Measured {
    pub(crate) const fn packet_size(self) -> u32 {
        1 + varint::length(self.remaining_length) + self.remaining_length
    }
}

/// A packet of one type.
trait Body {
    /// Packet type and flags.
    fn first_byte(&self) -> u8;

    /// What must not be wrong apart from single strings and values, which [`write`](Self::write)
    /// has checked by then.
    fn check(&self, rules: Rules) -> Result<(), EncodeError>;

    /// Writes all that follows the Remaining Length but the payload; into a [`Size`] first.
    fn write<S: Sink>(&self, sink: &mut S, rules: Rules) -> Result<(), EncodeError>;

    /// The payload, which only a PUBLISH has.
    #[inline(always)]
    fn payload(&self) -> &[u8] {
        &[]
    }

    /// The whole of a packet that is right and as short as packets of its type can be.
    #[inline(always)]
    fn plain(&self, _: Rules) -> Option<Plain> {
        None
    }
}

/// A whole packet.
enum Plain {
    Two([u8; 2]),
    Four([u8; 4]),
}

impl Plain {
    #[inline(always)]
    fn append_to(self, out: &mut impl Output) -> Result<(), EncodeError> {
        match self {
            Self::Two(bytes) => out.append_slice(&bytes),
            Self::Four(bytes) => out.append_slice(&bytes),
        }
    }
}

impl<T: Body> Encode for T {
    #[inline(always)]
    fn encode_to(&self, rules: Rules, out: &mut impl Output) -> Result<(), EncodeError> {
        match self.plain(rules) {
            Some(plain) => plain.append_to(out),
            None => encode_parts(self, self.payload(), rules, out),
        }
    }

    fn measure(&self, rules: Rules) -> Result<Measured, EncodeError> {
        let mut measured = Measured::default();
        measure_into(self, rules, &mut measured)?;
        Ok(measured)
    }

    fn write_measured(
        &self,
        measured: &Measured,
        rules: Rules,
        out: &mut impl Output,
    ) -> Result<(), EncodeError> {
        match self.plain(rules) {
            Some(plain) => plain.append_to(out),
            None => write_parts(self, self.payload(), measured, rules, out),
        }
    }
}

#[inline(never)]
fn encode_parts(
    packet: &impl Body,
    payload: &[u8],
    rules: Rules,
    out: &mut impl Output,
) -> Result<(), EncodeError> {
    let mut measured = Measured::default();
    measure_into(packet, rules, &mut measured)?;
    write_parts(packet, payload, &measured, rules, out)
}

/// Measures in place: what is moved within a `Result` is moved in pieces that a processor has to
/// wait for.
#[inline(always)]
fn measure_into(
    packet: &impl Body,
    rules: Rules,
    measured: &mut Measured,
) -> Result<(), EncodeError> {
    packet.write(&mut measured.body, rules)?;
    measured.remaining_length =
        varint::check(measured.body.total().saturating_add(packet.payload().len()))?;
    packet.check(rules)
}

#[inline(always)]
fn write_parts(
    packet: &impl Body,
    payload: &[u8],
    measured: &Measured,
    rules: Rules,
    out: &mut impl Output,
) -> Result<(), EncodeError> {
    let size = 1 + varint::length(measured.remaining_length) as usize + measured.body.total();
    let mut writer = Writer::new(out.append_room(size, payload.len())?, &measured.body);
    writer.u8(packet.first_byte());
    writer.variable_byte_integer(measured.remaining_length);
    packet.write(&mut writer, rules)?;
    debug_assert!(writer.is_full(), "a packet is written as it was measured");
    out.append_slice(payload)
}

/// Calls the function for the packet's own type, so that it is made for that type alone.
macro_rules! for_own_type {
    ($self:expr, $packet:ident => $call:expr) => {
        match $self {
            Packet::Publish(publish) => {
                let $packet = &Identified(publish, publish.packet_identifier);
                $call
            }
            Packet::Puback(ack)
            | Packet::Pubrec(ack)
            | Packet::Pubrel(ack)
            | Packet::Pubcomp(ack) => {
                let $packet = &($self.packet_type(), ack);
                $call
            }
            Packet::Connect($packet) => $call,
            Packet::Connack($packet) => $call,
            Packet::Subscribe($packet) => $call,
            Packet::Unsubscribe($packet) => $call,
            Packet::Suback(suback) | Packet::Unsuback(suback) => {
                let $packet = &($self.packet_type(), suback);
                $call
            }
            Packet::Pingreq | Packet::Pingresp => {
                let $packet = &$self.packet_type();
                $call
            }
            Packet::Disconnect($packet) => $call,
            Packet::Auth($packet) => $call,
        }
    };
}

impl Encode for Packet<'_> {
    #[inline]
    fn encode_to(&self, rules: Rules, out: &mut impl Output) -> Result<(), EncodeError> {
        for_own_type!(self, packet => packet.encode_to(rules, out))
    }

    fn measure(&self, rules: Rules) -> Result<Measured, EncodeError> {
        for_own_type!(self, packet => packet.measure(rules))
    }

    #[inline]
    fn write_measured(
        &self,
        measured: &Measured,
        rules: Rules,
        out: &mut impl Output,
    ) -> Result<(), EncodeError> {
        for_own_type!(self, packet => packet.write_measured(measured, rules, out))
    }
}

macro_rules! bodies {
    ($($name:ident $(($plain:ident))?)*) => {
        $(impl Body for $name<'_> {
            #[inline(always)]
            fn first_byte(&self) -> u8 {
                PacketType::$name.first_byte()
            }

            #[inline(always)]
            fn check(&self, rules: Rules) -> Result<(), EncodeError> {
                self.check_encode(rules)
            }

            #[inline(always)]
            fn write<S: Sink>(&self, sink: &mut S, rules: Rules) -> Result<(), EncodeError> {
                self.encode(sink, rules)
            }

            $(#[inline(always)]
            fn plain(&self, rules: Rules) -> Option<Plain> {
                $plain(self, rules)
            })?
        })*
    };
}

bodies! { Connect Connack Subscribe Unsubscribe Disconnect(plain_disconnect) Auth }

#[inline(always)]
fn plain_disconnect(packet: &Disconnect<'_>, rules: Rules) -> Option<Plain> {
    let right = packet.says_nothing() && packet.check_encode(rules).is_ok();
    right.then_some(Plain::Two([packet.first_byte(), 0]))
}

/// A PUBLISH with that packet identifier instead of its own: a copy of it would cost as much as a
/// short one.
pub(crate) struct Identified<'p, 'a>(
    pub(crate) &'p Publish<'a>,
    pub(crate) Option<PacketIdentifier>,
);

impl Body for Identified<'_, '_> {
    #[inline(always)]
    fn first_byte(&self) -> u8 {
        PacketType::Publish.first_byte() | self.0.flags()
    }

    #[inline(always)]
    fn check(&self, rules: Rules) -> Result<(), EncodeError> {
        self.0.check_encode(self.1, rules)
    }

    #[inline(always)]
    fn write<S: Sink>(&self, sink: &mut S, rules: Rules) -> Result<(), EncodeError> {
        self.0.encode(self.1, sink, rules)
    }

    #[inline(always)]
    fn payload(&self) -> &[u8] {
        self.0.payload
    }
}

/// One of the four acknowledgements, by its packet type.
impl Body for (PacketType, &Ack<'_>) {
    #[inline(always)]
    fn first_byte(&self) -> u8 {
        self.0.first_byte()
    }

    #[inline(always)]
    fn check(&self, rules: Rules) -> Result<(), EncodeError> {
        self.1.check_encode(self.0, rules)
    }

    #[inline(always)]
    fn write<S: Sink>(&self, sink: &mut S, rules: Rules) -> Result<(), EncodeError> {
        self.1.encode(sink, rules)
    }

    #[inline(always)]
    fn plain(&self, _: Rules) -> Option<Plain> {
        let [high, low] = self.1.packet_identifier.get().to_be_bytes();
        self.1.says_nothing().then_some(Plain::Four([self.0.first_byte(), 2, high, low]))
    }
}

/// SUBACK or UNSUBACK.
impl Body for (PacketType, &Suback<'_>) {
    fn first_byte(&self) -> u8 {
        self.0.first_byte()
    }

    fn check(&self, rules: Rules) -> Result<(), EncodeError> {
        self.1.check_encode(self.0, rules)
    }

    #[inline(always)]
    fn write<S: Sink>(&self, sink: &mut S, rules: Rules) -> Result<(), EncodeError> {
        self.1.encode(sink, rules)
    }

    #[inline(always)]
    fn plain(&self, rules: Rules) -> Option<Plain> {
        let [high, low] = self.1.packet_identifier.get().to_be_bytes();
        let short = self.0 == PacketType::Unsuback
            && rules.version < Version::V5_0
            && self.1.says_nothing();
        let right = short && rules.only_from(Role::Server).is_ok();
        right.then_some(Plain::Four([self.0.first_byte(), 2, high, low]))
    }
}

/// PINGREQ or PINGRESP.
impl Body for PacketType {
    #[inline(always)]
    fn first_byte(&self) -> u8 {
        (*self as u8) << 4 | self.flags()
    }

    fn check(&self, rules: Rules) -> Result<(), EncodeError> {
        let sender = if *self == Self::Pingreq { Role::Client } else { Role::Server };
        Ok(rules.only_from(sender)?)
    }

    #[inline(always)]
    fn write<S: Sink>(&self, _: &mut S, _: Rules) -> Result<(), EncodeError> {
        Ok(())
    }

    #[inline(always)]
    fn plain(&self, rules: Rules) -> Option<Plain> {
        self.check(rules).is_ok().then_some(Plain::Two([self.first_byte(), 0]))
    }
}
