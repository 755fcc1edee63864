//! mqttrs: borrowed, 3.1.1 only. It does not say how many bytes it has used.

use crate::codec::{Codec, Refused, Seen, Slots, Unread};
use mqttrs::{Packet, decode_slice, encode_slice};

pub struct V4;

impl Codec for V4 {
    type Buffer = Unread;
    type Packet<'a> = Packet<'a>;
    type Outgoing<'a> = &'a Packet<'a>;
    type Output = Slots;

    fn decode<'a>(&mut self, buffer: &'a mut Unread) -> Result<Option<Packet<'a>>, Refused> {
        let Some(whole) = buffer.whole()? else { return Ok(None) };
        decode_slice(whole.bytes).map_err(|_| Refused)
    }

    fn outgoing<'a>(packet: &'a Packet<'_>) -> &'a Packet<'a> {
        packet
    }

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
