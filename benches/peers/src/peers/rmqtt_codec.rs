//! rmqtt-codec: `Bytes` and `ByteString`, large packets boxed.

use crate::codec::{Codec, Refused, Seen};
use bytes::BytesMut;
use rmqtt_codec::{v3, v5};
use tokio_util::codec::{Decoder, Encoder};

macro_rules! version {
    ($name:ident, $version:ident, |$ack:pat_param| $identifier:expr) => {
        #[derive(Default)]
        pub struct $name($version::Codec);

        impl Codec for $name {
            type Buffer = BytesMut;
            type Packet<'a> = $version::Packet;
            type Outgoing<'a> = $version::Packet;
            type Output = BytesMut;

            #[inline(always)]
            fn decode<'a, R>(
                &mut self,
                buffer: &'a mut BytesMut,
                user: impl FnOnce(&Self::Packet<'a>) -> R,
            ) -> Result<Option<R>, Refused> {
                match &self.0.decode(buffer) {
                    Ok(Some((packet, _))) => Ok(Some(user(packet))),
                    Ok(None) => Ok(None),
                    Err(_) => Err(Refused),
                }
            }

            fn outgoing(packet: &$version::Packet) -> $version::Packet {
                packet.clone()
            }

            #[inline(always)]
            fn encode(
                &mut self,
                packet: $version::Packet,
                out: &mut BytesMut,
            ) -> Result<(), Refused> {
                self.0.encode(packet, out).map_err(|_| Refused)
            }

            fn seen(packet: &$version::Packet) -> Option<Seen> {
                match packet {
                    $version::Packet::Publish(publish) => {
                        let identifier = publish.packet_id.map(|identifier| identifier.get());
                        let seen = Seen::publish(&*publish.topic, &publish.payload, identifier);
                        let Some(properties) = &publish.properties else { return Some(seen) };
                        let expiry =
                            properties.message_expiry_interval.map(|seconds| seconds.get());
                        Some(
                            seen.with(expiry, properties.content_type.as_ref().map(|text| &**text)),
                        )
                    }
                    $ack => Some(Seen::puback($identifier.get())),
                    _ => None,
                }
            }
        }
    };
}

version! { V4, v3, |v3::Packet::PublishAck { packet_id }| packet_id }
version! { V5, v5, |v5::Packet::PublishAck(ack)| ack.packet_id }
