//! mqtt5-protocol: one packet type for both versions. The caller splits packets off.

use crate::codec::{Codec, Refused, Seen};
use bytes::{Buf, BytesMut};
use mqtt5_protocol::packet::{FixedHeader, MqttPacket, Packet};
use mqtt5_protocol::packet::{pingreq::PingReqPacket, pingresp::PingRespPacket};

/// The protocol level.
pub struct Level(pub u8);

impl Codec for Level {
    type Buffer = BytesMut;
    type Packet<'a> = Packet;
    type Outgoing<'a> = &'a Packet;
    type Output = Vec<u8>;

    #[inline(always)]
    fn decode<'a, R>(
        &mut self,
        buffer: &'a mut BytesMut,
        user: impl FnOnce(&Self::Packet<'a>) -> R,
    ) -> Result<Option<R>, Refused> {
        // The crate reports an incomplete packet like any other error, so this looks for the end of
        // the length first.
        let header_is_there =
            buffer.len() > 4 || buffer.iter().skip(1).any(|byte| byte & 0x80 == 0);
        if !header_is_there {
            return Ok(None);
        }
        let mut rest = &buffer[..];
        let header = FixedHeader::decode(&mut rest).map_err(|_| Refused)?;
        let length = header.remaining_length as usize;
        if rest.len() < length {
            return Ok(None);
        }
        let before = buffer.len() - rest.len();
        buffer.advance(before);
        let mut body = buffer.split_to(length).freeze();
        match &Packet::decode_from_body_with_version(header.packet_type, &header, &mut body, self.0)
        {
            Ok(packet) => Ok(Some(user(packet))),
            Err(_) => Err(Refused),
        }
    }

    fn outgoing(packet: &Packet) -> &Packet {
        packet
    }

    #[inline(always)]
    fn encode(&mut self, packet: &Packet, out: &mut Vec<u8>) -> Result<(), Refused> {
        match packet {
            Packet::Connect(packet) => packet.encode(out),
            Packet::ConnAck(packet) => packet.encode(out),
            Packet::Publish(packet) => packet.encode(out),
            Packet::PubAck(packet) => packet.encode(out),
            Packet::PubRec(packet) => packet.encode(out),
            Packet::PubRel(packet) => packet.encode(out),
            Packet::PubComp(packet) => packet.encode(out),
            Packet::Subscribe(packet) => packet.encode(out),
            Packet::SubAck(packet) => packet.encode(out),
            Packet::Unsubscribe(packet) => packet.encode(out),
            Packet::UnsubAck(packet) => packet.encode(out),
            Packet::PingReq => PingReqPacket::default().encode(out),
            Packet::PingResp => PingRespPacket::default().encode(out),
            Packet::Disconnect(packet) => packet.encode(out),
            Packet::Auth(packet) => packet.encode(out),
        }
        .map_err(|_| Refused)
    }

    fn seen(packet: &Packet) -> Option<Seen> {
        match packet {
            Packet::Publish(publish) => {
                let seen = Seen::publish(&publish.topic_name, &publish.payload, publish.packet_id);
                let properties = &publish.properties;
                Some(
                    seen.with(
                        properties.get_message_expiry_interval(),
                        properties.get_content_type(),
                    ),
                )
            }
            Packet::PubAck(ack) => Some(Seen::puback(ack.packet_id)),
            _ => None,
        }
    }
}
