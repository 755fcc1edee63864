//! mqtt-format: borrowed, 3.1.1 only. It looks for the continuation of the length in the wrong
//! bytes. So it refuses bodies of 128 bytes or more, and bodies whose first byte is 0x80 or more,
//! such as a PUBACK with the packet identifier 32,768.

use crate::codec::{Codec, Refused, Seen, Unread};
use mqtt_format::v3::packet::{MPacket, mpacket};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

pub struct V4;

impl Codec for V4 {
    type Buffer = Unread;
    type Packet<'a> = MPacket<'a>;
    type Outgoing<'a> = &'a MPacket<'a>;
    type Output = Vec<u8>;

    #[inline(always)]
    fn decode<'a, R>(
        &mut self,
        buffer: &'a mut Unread,
        user: impl FnOnce(&Self::Packet<'a>) -> R,
    ) -> Result<Option<R>, Refused> {
        let Some(whole) = buffer.whole()? else { return Ok(None) };
        match &mpacket(whole.bytes) {
            Ok((_, packet)) => Ok(Some(user(packet))),
            Err(_) => Err(Refused),
        }
    }

    fn outgoing<'a>(packet: &'a MPacket<'_>) -> &'a MPacket<'a> {
        packet
    }

    /// Polls once, because a `Vec` is always ready.
    #[inline(always)]
    fn encode(&mut self, packet: &MPacket<'_>, out: &mut Vec<u8>) -> Result<(), Refused> {
        match pin!(packet.write_to(Pin::new(out))).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => Ok(()),
            _ => Err(Refused),
        }
    }

    fn seen(packet: &MPacket<'_>) -> Option<Seen> {
        match packet {
            MPacket::Publish(publish) => Some(Seen::publish(
                publish.topic_name.value,
                publish.payload,
                publish.id.map(|id| id.0),
            )),
            MPacket::Puback(ack) => Some(Seen::puback(ack.id.0)),
            _ => None,
        }
    }
}
