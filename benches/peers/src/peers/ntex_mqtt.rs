//! ntex-mqtt: its own `Bytes`; payloads come in the chunks in which they arrive, here each in one.

use crate::codec::{Codec, Refused, Seen};
use ntex_bytes::{BytePages, Bytes, BytesMut};
use ntex_codec::{Decoder, Encoder};

/// Payloads above this are chained, never copied into the pages.
const COPIED: usize = 4096;

macro_rules! version {
    ($name:ident, $version:ident, |$ack:pat_param| $identifier:expr, |$publish:ident, $seen:ident| $with:expr) => {
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
                type Packet<'a> = Encoded;
                type Outgoing<'a> = Encoded;
                type Output = BytePages;

                fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Encoded>, Refused> {
                    loop {
                        return Ok(match self.codec.decode(buffer).map_err(|_| Refused)? {
                            Some(Decoded::Packet(packet, _)) => Some(Encoded::Packet(packet)),
                            Some(Decoded::Publish(publish, payload, _)) => {
                                if payload.len() < publish.payload_size as usize {
                                    self.begun = Some(publish);
                                    continue;
                                }
                                Some(Encoded::Publish(publish, Some(payload)))
                            }
                            Some(Decoded::PayloadChunk(payload, _)) => {
                                self.begun.take().map(|publish| Encoded::Publish(publish, Some(payload)))
                            }
                            None => None,
                        });
                    }
                }

                fn outgoing(packet: &Encoded) -> Encoded {
                    packet.clone()
                }

                fn encode(&mut self, packet: Encoded, out: &mut BytePages) -> Result<(), Refused> {
                    match &packet {
                        Encoded::Publish(_, Some(payload)) if payload.len() > COPIED => Err(Refused),
                        _ => self.codec.encodev(packet, out).map_err(|_| Refused),
                    }
                }

                fn hand_on<'a>(&mut self, packet: Encoded, out: &mut BytePages) -> Result<&'a [u8], Refused> {
                    self.codec.encodev(packet, out).map_err(|_| Refused)?;
                    Ok(&[])
                }

                fn seen(packet: &Encoded) -> Option<Seen> {
                    match packet {
                        Encoded::Publish($publish, payload) => {
                            let payload: &Bytes = payload.as_ref()?;
                            let identifier = $publish.packet_id.map(|identifier| identifier.get());
                            let $seen = Seen::publish(&*$publish.topic, payload, identifier);
                            Some($with)
                        }
                        Encoded::Packet($ack) => Some(Seen::puback($identifier.get())),
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
        seen.with(expiry, publish.properties.content_type.as_ref().map(|text| &**text))
    }
}
