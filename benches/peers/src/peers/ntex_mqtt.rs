//! ntex-mqtt: its own `Bytes`; payloads are delivered in chunks as received, here one chunk each.

use crate::codec::{Codec, Refused, Seen};
use ntex_bytes::{BytePages, BytesMut};
use ntex_codec::{Decoder, Encoder};

/// Payloads above this are chained, never copied into the pages.
const COPIED: usize = 4096;

macro_rules! version {
    (
        $name:ident, $version:ident, |$ack:pat_param| $identifier:expr,
        |$publish:ident, $seen:ident| $with:expr
    ) => {
        pub mod $name {
            use super::*;
            use ntex_mqtt::$version::codec::{self, Decoded, Encoded};

            pub struct Codec {
                codec: codec::Codec,
                /// Decoded before its payload had arrived.
                begun: Option<codec::Publish>,
            }

            impl Codec {
                pub fn new() -> Self {
                    let codec = codec::Codec::new();
                    codec.set_min_chunk_size(u32::MAX);
                    Self { codec, begun: None }
                }
            }

            impl super::Codec for Codec {
                type Buffer = BytesMut;
                type Packet<'a> = Decoded;
                type Outgoing<'a> = Encoded;
                type Output = BytePages;

                #[inline(always)]
                fn decode<'a, R>(
                    &mut self,
                    buffer: &'a mut BytesMut,
                    user: impl FnOnce(&Self::Packet<'a>) -> R,
                ) -> Result<Option<R>, Refused> {
                    loop {
                        let decoded = &self.codec.decode(buffer);
                        return match decoded {
                            Ok(Some(Decoded::Publish(publish, payload, _)))
                                if payload.len() < publish.payload_size as usize =>
                            {
                                self.begun = Some(publish.clone());
                                continue;
                            }
                            Ok(Some(Decoded::PayloadChunk(payload, _))) => {
                                let publish = self.begun.take().ok_or(Refused)?;
                                let size = publish.payload_size;
                                Ok(Some(user(&Decoded::Publish(publish, payload.clone(), size))))
                            }
                            Ok(Some(packet)) => Ok(Some(user(packet))),
                            Ok(None) => Ok(None),
                            Err(_) => Err(Refused),
                        };
                    }
                }

                fn outgoing(packet: &Decoded) -> Encoded {
                    match packet.clone() {
                        Decoded::Packet(packet, _) => Encoded::Packet(packet),
                        Decoded::Publish(publish, payload, _) => {
                            Encoded::Publish(publish, Some(payload))
                        }
                        Decoded::PayloadChunk(payload, _) => Encoded::PayloadChunk(payload),
                    }
                }

                #[inline(always)]
                fn encode(&mut self, packet: Encoded, out: &mut BytePages) -> Result<(), Refused> {
                    match &packet {
                        Encoded::Publish(_, Some(payload)) if payload.len() > COPIED => {
                            Err(Refused)
                        }
                        _ => self.codec.encodev(packet, out).map_err(|_| Refused),
                    }
                }

                #[inline(always)]
                fn hand_on(&mut self, packet: Encoded, out: &mut BytePages) -> Result<(), Refused> {
                    self.codec.encodev(packet, out).map_err(|_| Refused)
                }

                fn seen(packet: &Decoded) -> Option<Seen> {
                    match packet {
                        Decoded::Publish($publish, payload, _) => {
                            let identifier = $publish.packet_id.map(|identifier| identifier.get());
                            let $seen = Seen::publish(&*$publish.topic, payload, identifier);
                            Some($with)
                        }
                        Decoded::Packet($ack, _) => Some(Seen::puback($identifier.get())),
                        _ => None,
                    }
                }
            }
        }
    };
}

version! { v4, v3, |codec::Packet::PublishAck { packet_id }| packet_id, |publish, seen| seen }
version! {
    v5, v5, |codec::Packet::PublishAck(ack)| ack.packet_id,
    |publish, seen| {
        let expiry = publish.properties.message_expiry_interval.map(|seconds| seconds.get());
        seen.with(expiry, publish.properties.content_type.as_deref())
    }
}
