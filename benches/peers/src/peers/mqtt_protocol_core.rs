//! mqtt-protocol-core: the caller splits off the fixed header and selects the decoder by the type.
//! A payload is copied into an `Arc`.

use crate::codec::{Codec, Refused, Seen, Unread};
use mqtt_protocol_core::mqtt::packet::{GenericPacketTrait, Packet, Property, v3_1_1, v5_0};

macro_rules! version {
    (
        $name:ident, $version:ident, $publish:path, $puback:path,
        [$($number:literal $packet:ident)*], |$p:ident, $seen:ident| $with:expr
    ) => {
        pub struct $name;

        impl Codec for $name {
            type Buffer = Unread;
            type Packet<'a> = Packet;
            type Outgoing<'a> = &'a Packet;
            type Output = Vec<u8>;

            #[inline(always)]
            fn decode<'a, R>(
                &mut self,
                buffer: &'a mut Unread,
                user: impl FnOnce(&Self::Packet<'a>) -> R,
            ) -> Result<Option<R>, Refused> {
                let Some(whole) = buffer.whole()? else { return Ok(None) };
                let (first, body) = (whole.first_byte(), whole.body());
                let packet = match first >> 4 {
                    3 => $version::Publish::parse(first & 0x0F, body.into())
                        .map(|(packet, _)| packet.into()),
                    $($number => $version::$packet::parse(body).map(|(packet, _)| packet.into()),)*
                    _ => return Err(Refused),
                };
                match &packet {
                    Ok(packet) => Ok(Some(user(packet))),
                    Err(_) => Err(Refused),
                }
            }

            fn outgoing(packet: &Packet) -> &Packet {
                packet
            }

            #[inline(always)]
            fn encode(&mut self, packet: &Packet, out: &mut Vec<u8>) -> Result<(), Refused> {
                for part in packet.to_buffers() {
                    out.extend_from_slice(&part);
                }
                Ok(())
            }

            fn seen(packet: &Packet) -> Option<Seen> {
                match packet {
                    $publish($p) => {
                        let payload = $p.payload().as_slice();
                        let $seen = Seen::publish($p.topic_name(), payload, $p.packet_id());
                        Some($with)
                    }
                    $puback(ack) => Some(Seen::puback(ack.packet_id())),
                    _ => None,
                }
            }
        }
    };
}

version! {
    V4, v3_1_1, Packet::V3_1_1Publish, Packet::V3_1_1Puback,
    [1 Connect 2 Connack 4 Puback 5 Pubrec 6 Pubrel 7 Pubcomp 8 Subscribe 9 Suback 10 Unsubscribe 11 Unsuback
     12 Pingreq 13 Pingresp 14 Disconnect],
    |publish, seen| seen
}

version! {
    V5, v5_0, Packet::V5_0Publish, Packet::V5_0Puback,
    [1 Connect 2 Connack 4 Puback 5 Pubrec 6 Pubrel 7 Pubcomp 8 Subscribe 9 Suback 10 Unsubscribe 11 Unsuback
     12 Pingreq 13 Pingresp 14 Disconnect 15 Auth],
    |publish, seen| {
        let expiry = publish.props().iter().find_map(|property| match property {
            Property::MessageExpiryInterval(expiry) => Some(expiry.val()),
            _ => None,
        });
        let content_type = publish.props().iter().find_map(|property| match property {
            Property::ContentType(text) => Some(text.val()),
            _ => None,
        });
        seen.with(expiry, content_type)
    }
}
