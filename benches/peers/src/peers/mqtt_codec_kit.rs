//! mqtt-codec-kit: copies, through `io::Read` and `io::Write`. The lengths are worked out when a packet is made, not when it is
//! encoded.

use crate::codec::{Codec, Refused, Seen, Unread};
use mqtt_codec_kit::common::qos::QoSWithPacketIdentifier;
use mqtt_codec_kit::common::{Decodable, Encodable};
use mqtt_codec_kit::{v4, v5};

macro_rules! version {
    ($name:ident, $version:ident, |$publish:ident, $seen:ident| $with:expr) => {
        pub struct $name;

        impl Codec for $name {
            type Buffer = Unread;
            type Packet<'a> = $version::packet::VariablePacket;
            type Outgoing<'a> = &'a $version::packet::VariablePacket;
            type Output = Vec<u8>;

            #[inline(always)]
            fn decode<'a, R>(
                &mut self,
                buffer: &'a mut Unread,
                user: impl FnOnce(&Self::Packet<'a>) -> R,
            ) -> Result<Option<R>, Refused> {
                let Some(whole) = buffer.whole()? else { return Ok(None) };
                match &$version::packet::VariablePacket::decode(&mut &*whole.bytes) {
                    Ok(packet) => Ok(Some(user(packet))),
                    Err(_) => Err(Refused),
                }
            }

            fn outgoing(packet: &$version::packet::VariablePacket) -> &$version::packet::VariablePacket {
                packet
            }

            #[inline(always)]
            fn encode(&mut self, packet: &$version::packet::VariablePacket, out: &mut Vec<u8>) -> Result<(), Refused> {
                packet.encode(out).map_err(|_| Refused)
            }

            fn seen(packet: &$version::packet::VariablePacket) -> Option<Seen> {
                use $version::packet::VariablePacket;
                match packet {
                    VariablePacket::PublishPacket($publish) => {
                        let identifier = match $publish.qos() {
                            QoSWithPacketIdentifier::Level0 => None,
                            QoSWithPacketIdentifier::Level1(id) | QoSWithPacketIdentifier::Level2(id) => Some(id),
                        };
                        let $seen = Seen::publish(&$publish.topic_name()[..], $publish.payload(), identifier);
                        Some($with)
                    }
                    VariablePacket::PubackPacket(ack) => Some(Seen::puback(ack.packet_identifier())),
                    _ => None,
                }
            }
        }
    };
}

version! { V4, v4, |publish, seen| seen }
version! {
    V5, v5,
    |publish, seen| {
        let properties = publish.properties();
        seen.with(properties.message_expiry_interval(), properties.content_type().as_ref())
    }
}
