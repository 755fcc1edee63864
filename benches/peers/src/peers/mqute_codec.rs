//! mqute-codec: `Bytes` payload, `String` topic.

use crate::codec::{Codec, Refused, Seen};
use bytes::BytesMut;
use mqute_codec::codec::PacketCodec;
use mqute_codec::protocol::{v4, v5};
use tokio_util::codec::Decoder;

macro_rules! version {
    ($name:ident, $version:ident, |$publish:ident, $seen:ident| $with:expr) => {
        pub struct $name(PacketCodec);

        impl $name {
            pub fn new() -> Self {
                Self(PacketCodec::new(None, None))
            }
        }

        impl Codec for $name {
            type Buffer = BytesMut;
            type Packet<'a> = $version::Packet;
            type Outgoing<'a> = &'a $version::Packet;
            type Output = BytesMut;

            #[inline(always)]
            fn decode<'a, R>(
                &mut self,
                buffer: &'a mut BytesMut,
                user: impl FnOnce(&Self::Packet<'a>) -> R,
            ) -> Result<Option<R>, Refused> {
                let Some(raw) = self.0.decode(buffer).map_err(|_| Refused)? else { return Ok(None) };
                match &$version::Packet::decode(raw) {
                    Ok(packet) => Ok(Some(user(packet))),
                    Err(_) => Err(Refused),
                }
            }

            fn outgoing(packet: &$version::Packet) -> &$version::Packet {
                packet
            }

            #[inline(always)]
            fn encode(&mut self, packet: &$version::Packet, out: &mut BytesMut) -> Result<(), Refused> {
                packet.encode(out).map_err(|_| Refused)
            }

            fn seen(packet: &$version::Packet) -> Option<Seen> {
                match packet {
                    $version::Packet::Publish($publish) => {
                        let $seen = Seen::publish($publish.topic(), $publish.payload(), $publish.packet_id());
                        Some($with)
                    }
                    $version::Packet::PubAck(ack) => Some(Seen::puback(ack.packet_id())),
                    _ => None,
                }
            }
        }
    };
}

version! { V4, v4, |publish, seen| seen }
version! {
    V5, v5,
    |publish, seen| match publish.properties() {
        Some(properties) => {
            let expiry = properties.message_expiry_interval.map(|interval| interval.as_secs() as u32);
            seen.with(expiry, properties.content_type)
        }
        None => seen,
    }
}
