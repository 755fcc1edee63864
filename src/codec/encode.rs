//! Encoding of packets of any type.

use super::body::{Encode, measure_into, write_measured};
use super::error::EncodeError;
use super::output::Output;
use super::packet::Packet;
use super::packet_type::PacketType;
use super::publish::Publish;
use super::rules::Rules;
use super::write::Size;

/// Appends a packet to `out`, by the rules of a version, and of a sender if they name one. A
/// CONNECT carries its own version.
///
/// Returns an error if a receiver would have to refuse the packet, if the version has no place for
/// its content, or if a [`Fixed`](super::Fixed) output has no room. On error `out` is unchanged.
#[inline]
pub fn encode(
    packet: &Packet<'_>,
    rules: impl Into<Rules>,
    out: &mut impl Output,
) -> Result<(), EncodeError> {
    packet.encode(rules.into(), out)
}

/// A packet that was checked and measured, and can be written more than once.
///
/// Use it if the size must be known first, or to send the same packet to many receivers, such as a
/// message with QoS 0. [`encode`] measures and writes at once.
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
    size: Size,
}

impl<'p, 'a> Prepared<'p, 'a> {
    /// Checks a packet as [`encode`] does.
    pub fn new(packet: &'p Packet<'a>, rules: impl Into<Rules>) -> Result<Self, EncodeError> {
        let rules = rules.into();
        Ok(Self { packet, rules, size: packet.measure(rules)? })
    }

    /// Returns the size of the whole packet in bytes. [5.0 §2.1.4]
    #[must_use]
    pub const fn packet_size(&self) -> u32 {
        self.size.packet_size()
    }

    /// Appends the packet to `out`. Fails only if a [`Fixed`](super::Fixed) output has too little
    /// room; the output is then unchanged.
    #[inline]
    pub fn write(&self, out: &mut impl Output) -> Result<(), EncodeError> {
        Encode::write(self.packet, &self.size, self.rules, out)
    }
}

/// Appends a PUBLISH without its payload to `out`.
///
/// A caller that sends the payload without copying it sends these bytes and then
/// [`Publish::payload`](field@Publish::payload).
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
    let (packet, rules) = (&(publish, publish.packet_identifier), rules.into());
    let mut size = Size::default();
    measure_into(packet, rules, &mut size)?;
    write_measured(packet, &[], &size, rules, out)
}

/// Evaluates the call with the packet's own type, so that it is compiled for that type alone.
macro_rules! for_own_type {
    ($self:expr, $packet:ident => $call:expr) => {
        for_own_type! {
            $self, $packet => $call;
            Connect(connect) = &connect,
            Connack(connack) = &connack,
            Publish(publish) = &&(publish, publish.packet_identifier),
            Puback(ack) = &(PacketType::Puback, ack),
            Pubrec(ack) = &(PacketType::Pubrec, ack),
            Pubrel(ack) = &(PacketType::Pubrel, ack),
            Pubcomp(ack) = &(PacketType::Pubcomp, ack),
            Subscribe(subscribe) = &subscribe,
            Suback(suback) = &(PacketType::Suback, suback),
            Unsubscribe(unsubscribe) = &unsubscribe,
            Unsuback(suback) = &(PacketType::Unsuback, suback),
            Pingreq = &PacketType::Pingreq,
            Pingresp = &PacketType::Pingresp,
            Disconnect(disconnect) = &disconnect,
            Auth(auth) = &auth,
        }
    };
    ($self:expr, $packet:ident => $call:expr; $($name:ident $(($field:ident))? = $own:expr,)*) => {
        match $self {
            $(Packet::$name $(($field))? => {
                let $packet = $own;
                $call
            })*
        }
    };
}

impl Encode for Packet<'_> {
    fn measure(&self, rules: Rules) -> Result<Size, EncodeError> {
        for_own_type!(self, packet => packet.measure(rules))
    }

    #[inline]
    fn write(&self, size: &Size, rules: Rules, out: &mut impl Output) -> Result<(), EncodeError> {
        for_own_type!(self, packet => Encode::write(packet, size, rules, out))
    }

    #[inline]
    fn encode(&self, rules: Rules, out: &mut impl Output) -> Result<(), EncodeError> {
        for_own_type!(self, packet => packet.encode(rules, out))
    }
}
