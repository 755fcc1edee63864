//! mqtt-sansio.

use crate::codec::{Codec, Refused, Seen, Unread};
use bytes::BytesMut;
use mqtt_sansio::codec::{self, OwnedPacket, Packet, Role, Rules};

/// `codec::frame` and `codec::decode`.
pub struct Borrowed(pub Rules);

impl Codec for Borrowed {
    type Buffer = Unread;
    type Packet<'a> = Packet<'a>;
    type Outgoing<'a> = &'a Packet<'a>;
    type Output = Vec<u8>;

    fn decode<'a>(&mut self, buffer: &'a mut Unread) -> Result<Option<Packet<'a>>, Refused> {
        let Some(frame) = codec::frame(buffer.as_slice(), u32::MAX).map_err(|_| Refused)? else { return Ok(None) };
        let size = frame.as_bytes().len();
        // The frame borrows all of the buffer; its bytes taken from the buffer borrow no more than the packet needs.
        let rules = self.0;
        let bytes = buffer.advance(size);
        let Ok(Some(frame)) = codec::frame(bytes, u32::MAX) else { return Err(Refused) };
        codec::decode(frame, rules).map(Some).map_err(|_| Refused)
    }

    fn outgoing<'a>(packet: &'a Packet<'_>) -> &'a Packet<'a> {
        packet
    }

    fn encode(&mut self, packet: &Packet<'_>, out: &mut Vec<u8>) -> Result<(), Refused> {
        codec::encode(packet, self.0, out).map_err(|_| Refused)
    }

    fn hand_on<'a>(&mut self, packet: &'a Packet<'a>, out: &mut Vec<u8>) -> Result<&'a [u8], Refused> {
        let Packet::Publish(publish) = packet else { return Err(Refused) };
        codec::encode_publish_header(publish, self.0, out).map_err(|_| Refused)?;
        Ok(publish.payload)
    }

    fn seen(packet: &Packet<'_>) -> Option<Seen> {
        Seen::of(packet)
    }

    fn from_values(packet: &'static Packet<'static>) -> Option<Packet<'static>> {
        Some(*packet)
    }

    fn sent_by(&mut self, role: Role) {
        self.0 = self.0.sent_by(role);
    }
}

/// `OwnedPacket::split_from`, and with `READ` also `OwnedPacket::packet`, by which the fields are got at.
pub struct Owned<const READ: bool>(pub Rules);

impl<const READ: bool> Codec for Owned<READ> {
    type Buffer = BytesMut;
    type Packet<'a> = OwnedPacket;
    type Outgoing<'a> = &'a OwnedPacket;
    type Output = Vec<u8>;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<OwnedPacket>, Refused> {
        let packet = OwnedPacket::split_from(buffer, u32::MAX, self.0).map_err(|_| Refused)?;
        if READ {
            std::hint::black_box(packet.as_ref().map(OwnedPacket::packet));
        }
        Ok(packet)
    }

    fn outgoing<'a>(packet: &'a OwnedPacket) -> &'a OwnedPacket {
        packet
    }

    fn encode(&mut self, packet: &OwnedPacket, out: &mut Vec<u8>) -> Result<(), Refused> {
        codec::encode(&packet.packet(), self.0, out).map_err(|_| Refused)
    }

    fn seen(packet: &OwnedPacket) -> Option<Seen> {
        Seen::of(&packet.packet())
    }
}
