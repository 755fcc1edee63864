//! flowsdk: copies.

use crate::codec::{Codec, Refused, Seen, Unread};
use flowsdk::mqtt_serde::control_packet::MqttPacket;
use flowsdk::mqtt_serde::mqttv5::common::properties::Property;
use flowsdk::mqtt_serde::parser::ParseOk;

/// The protocol level.
pub struct Level(pub u8);

impl Codec for Level {
    type Buffer = Unread;
    type Packet<'a> = MqttPacket;
    type Outgoing<'a> = &'a MqttPacket;
    type Output = Vec<u8>;

    #[inline(always)]
    fn decode<'a, R>(
        &mut self,
        buffer: &'a mut Unread,
        user: impl FnOnce(&Self::Packet<'a>) -> R,
    ) -> Result<Option<R>, Refused> {
        let Some(whole) = buffer.whole()? else { return Ok(None) };
        match &MqttPacket::from_bytes_with_version(whole.bytes, self.0) {
            Ok(ParseOk::Packet(packet, _)) => Ok(Some(user(packet))),
            Ok(_) => Ok(None),
            Err(_) => Err(Refused),
        }
    }

    fn outgoing(packet: &MqttPacket) -> &MqttPacket {
        packet
    }

    /// Encodes to a new `Vec`, the only way that the crate has.
    #[inline(always)]
    fn encode(&mut self, packet: &MqttPacket, out: &mut Vec<u8>) -> Result<(), Refused> {
        *out = packet.to_bytes().map_err(|_| Refused)?;
        Ok(())
    }

    fn seen(packet: &MqttPacket) -> Option<Seen> {
        match packet {
            MqttPacket::Publish3(publish) => {
                Some(Seen::publish(&publish.topic_name, &publish.payload, publish.message_id))
            }
            MqttPacket::Publish5(publish) => {
                let seen = Seen::publish(&publish.topic_name, &publish.payload, publish.packet_id);
                let expiry = publish.properties.iter().find_map(|property| match property {
                    Property::MessageExpiryInterval(seconds) => Some(*seconds),
                    _ => None,
                });
                let content_type = publish.properties.iter().find_map(|property| match property {
                    Property::ContentType(text) => Some(text),
                    _ => None,
                });
                Some(seen.with(expiry, content_type))
            }
            MqttPacket::PubAck3(ack) => Some(Seen::puback(ack.message_id)),
            MqttPacket::PubAck5(ack) => Some(Seen::puback(ack.packet_id)),
            _ => None,
        }
    }
}
