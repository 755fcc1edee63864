//! mqttrs: borrowed, 3.1.1 only. It does not report how many bytes it consumed.

use crate::codec::{Codec, Refused, Seen, Slots, Unread};
use mqttrs::{Packet, decode_slice, encode_slice};

pub struct V4;

impl Codec for V4 {
    type Buffer = Unread;
    type Packet<'a> = Packet<'a>;
    type Outgoing<'a> = &'a Packet<'a>;
    type Output = Slots;

    #[inline(always)]
    fn decode<'a, R>(
        &mut self,
        buffer: &'a mut Unread,
        user: impl FnOnce(&Self::Packet<'a>) -> R,
    ) -> Result<Option<R>, Refused> {
        let Some(whole) = buffer.whole()? else { return Ok(None) };
        match &decode_slice(whole.bytes) {
            Ok(packet) => Ok(packet.as_ref().map(user)),
            Err(_) => Err(Refused),
        }
    }

    fn outgoing<'a>(packet: &'a Packet<'_>) -> &'a Packet<'a> {
        packet
    }

    #[inline(always)]
    fn encode(&mut self, packet: &Packet<'_>, out: &mut Slots) -> Result<(), Refused> {
        out.used = encode_slice(packet, &mut out.slots).map_err(|_| Refused)?;
        Ok(())
    }

    fn seen(packet: &Packet<'_>) -> Option<Seen> {
        match packet {
            Packet::Publish(publish) => {
                let identifier = publish.qospid.pid().map(|pid| pid.get());
                Some(Seen::publish(publish.topic_name, publish.payload, identifier))
            }
            Packet::Puback(pid) => Some(Seen::puback(pid.get())),
            _ => None,
        }
    }
}
