//! Encoding of packets of any type.

use super::body::{Body, measure_into, write_head};
use super::error::EncodeError;
use super::output::Output;
use super::packet::Packet;
use super::packet_type::PacketType;
use super::publish::Publish;
use super::rules::Rules;
use super::write::{Sink, Size};

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

/// Checks a packet as [`encode`] does, and returns its size in bytes. [5.0 §2.1.4]
///
/// ```
/// use mqtt_sansio::codec::{self, Publish, Version};
///
/// let packet = Publish::new("a/b", b"21.5").into();
/// assert_eq!(codec::packet_size(&packet, Version::V3_1_1)?, 11);
/// # Ok::<_, codec::EncodeError>(())
/// ```
pub fn packet_size(packet: &Packet<'_>, rules: impl Into<Rules>) -> Result<u32, EncodeError> {
    Ok(packet.measure(rules.into())?.packet_size())
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
    let (packet, rules) = ((publish, publish.packet_identifier), rules.into());
    let mut size = Size::default();
    measure_into(packet, rules, &mut size)?;
    write_head(packet, 0, &size, rules, out)
}

/// Evaluates the call with the packet's own type, so that it is compiled for that type alone.
macro_rules! for_own_type {
    ($self:expr, $packet:ident => $call:expr) => {
        for_own_type! {
            $self, $packet => $call;
            Connect(connect) = connect,
            Connack(connack) = connack,
            Publish(publish) = (publish, publish.packet_identifier),
            Puback(ack) = (PacketType::Puback, ack),
            Pubrec(ack) = (PacketType::Pubrec, ack),
            Pubrel(ack) = (PacketType::Pubrel, ack),
            Pubcomp(ack) = (PacketType::Pubcomp, ack),
            Subscribe(subscribe) = subscribe,
            Suback(suback) = (PacketType::Suback, suback),
            Unsubscribe(unsubscribe) = unsubscribe,
            Unsuback(suback) = (PacketType::Unsuback, suback),
            Pingreq = PacketType::Pingreq,
            Pingresp = PacketType::Pingresp,
            Disconnect(disconnect) = disconnect,
            Auth(auth) = auth,
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

impl Body for &Packet<'_> {
    fn first_byte(self) -> u8 {
        for_own_type!(self, packet => packet.first_byte())
    }

    fn check(self, rules: Rules) -> Result<(), EncodeError> {
        for_own_type!(self, packet => packet.check(rules))
    }

    fn write<S: Sink>(self, sink: &mut S, rules: Rules) {
        for_own_type!(self, packet => packet.write(sink, rules));
    }

    // The next three choose the type once. The others are not called then.

    fn measure(self, rules: Rules) -> Result<Size, EncodeError> {
        for_own_type!(self, packet => packet.measure(rules))
    }

    fn write_measured(
        self,
        size: &Size,
        rules: Rules,
        out: &mut impl Output,
    ) -> Result<(), EncodeError> {
        for_own_type!(self, packet => packet.write_measured(size, rules, out))
    }

    #[inline]
    fn encode(self, rules: Rules, out: &mut impl Output) -> Result<(), EncodeError> {
        for_own_type!(self, packet => packet.encode(rules, out))
    }
}
