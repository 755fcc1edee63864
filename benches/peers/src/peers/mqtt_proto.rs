//! mqtt-proto: copies. Measured on its synchronous path, which is faster than `Packet::decode`.

use crate::codec::{Codec, Refused, Seen, Unread};
use mqtt_proto::{PollHeader, v3, v5};

macro_rules! version {
    (
        $name:ident, $version:ident, |$puback:ident| $pid:expr,
        |$publish:ident, $seen:ident| $with:expr
    ) => {
        pub struct $name;

        impl Codec for $name {
            type Buffer = Unread;
            type Packet<'a> = $version::Packet;
            type Outgoing<'a> = &'a $version::Packet;
            type Output = Vec<u8>;

            #[inline(always)]
            fn decode<'a, R>(
                &mut self,
                buffer: &'a mut Unread,
                user: impl FnOnce(&Self::Packet<'a>) -> R,
            ) -> Result<Option<R>, Refused> {
                let Some(whole) = buffer.whole()? else { return Ok(None) };
                let (length, size) = (whole.body().len() as u32, whole.bytes.len() as u32);
                let header = $version::Header::new_with(whole.first_byte(), length, size)
                    .map_err(|_| Refused)?;
                if let Some(packet) = &header.build_empty_packet() {
                    return Ok(Some(user(packet)));
                }
                match &header.decode_buffer(whole.body(), &mut 0) {
                    Ok(packet) => Ok(Some(user(packet))),
                    Err(_) => Err(Refused),
                }
            }

            fn outgoing(packet: &$version::Packet) -> &$version::Packet {
                packet
            }

            /// Encodes to a new array or `Vec`, the only way that the crate has.
            #[inline(always)]
            fn encode(
                &mut self,
                packet: &$version::Packet,
                out: &mut Vec<u8>,
            ) -> Result<(), Refused> {
                out.extend_from_slice(packet.encode().map_err(|_| Refused)?.as_ref());
                Ok(())
            }

            fn seen(packet: &$version::Packet) -> Option<Seen> {
                match packet {
                    $version::Packet::Publish($publish) => {
                        let identifier = $publish.qos_pid.pid().map(|pid| pid.value());
                        let $seen =
                            Seen::publish(&*$publish.topic_name, &$publish.payload, identifier);
                        Some($with)
                    }
                    $version::Packet::Puback($puback) => Some(Seen::puback($pid.value())),
                    _ => None,
                }
            }
        }
    };
}

version! { V4, v3, |pid| pid, |publish, seen| seen }
version! {
    V5, v5, |puback| puback.pid,
    |publish, seen| seen.with(publish.properties.message_expiry_interval, publish.properties.content_type.as_ref())
}
