//! mqtt-sansio.

use crate::cases::{IDENTIFIER, Values};
use crate::codec::{Codec, Refused, Seen, Unread};
use crate::samples;
use bytes::BytesMut;
use mqtt_sansio::codec::{
    self, OwnedPacket, Packet, PacketIdentifier, Publish, PublishProperties, QoS, Role, Rules,
    Subscribe, SubscribeProperties, Subscription, UserProperty, Version,
};
use std::hint::black_box;

/// `codec::frame` and `codec::decode`.
pub struct Borrowed(pub Rules);

impl Codec for Borrowed {
    type Buffer = Unread;
    type Packet<'a> = Packet<'a>;
    type Outgoing<'a> = &'a Packet<'a>;
    type Output = Vec<u8>;

    #[inline(always)]
    fn decode<'a, R>(
        &mut self,
        buffer: &'a mut Unread,
        user: impl FnOnce(&Self::Packet<'a>) -> R,
    ) -> Result<Option<R>, Refused> {
        let Unread { bytes, start } = buffer;
        let Some(frame) = codec::frame(&bytes[*start..], u32::MAX).map_err(|_| Refused)? else {
            return Ok(None);
        };
        *start += frame.as_bytes().len();
        match &codec::decode(frame, self.0) {
            Ok(packet) => Ok(Some(user(packet))),
            Err(_) => Err(Refused),
        }
    }

    fn outgoing<'a>(packet: &'a Packet<'_>) -> &'a Packet<'a> {
        packet
    }

    #[inline(always)]
    fn encode(&mut self, packet: &Packet<'_>, out: &mut Vec<u8>) -> Result<(), Refused> {
        codec::encode(packet, self.0, out).map_err(|_| Refused)
    }

    #[inline(always)]
    fn hand_on(&mut self, packet: &Packet<'_>, out: &mut Vec<u8>) -> Result<(), Refused> {
        let Packet::Publish(publish) = packet else { return Err(Refused) };
        codec::encode_publish_header(publish, self.0, out).map_err(|_| Refused)
    }

    #[inline(always)]
    fn make(&mut self, values: Values, out: &mut Vec<u8>) -> Result<(), Refused> {
        let user_properties;
        let subscriptions;
        let packet = match values {
            Values::Publish { topic, payload } => Publish::new(topic, payload).into(),
            Values::Request(request) => {
                let (name, value) = request.user_property;
                user_properties = [UserProperty { name: name.into(), value: value.into() }];
                let properties = PublishProperties {
                    message_expiry_interval: Some(request.message_expiry_interval),
                    content_type: Some(request.content_type.into()),
                    response_topic: Some(request.response_topic.into()),
                    correlation_data: Some(request.correlation_data),
                    user_properties: (&user_properties).into(),
                    ..PublishProperties::default()
                };
                let packet_identifier = PacketIdentifier::new(IDENTIFIER);
                let message = Publish::new(request.topic, request.payload);
                Publish { qos: QoS::AtLeastOnce, packet_identifier, properties, ..message }.into()
            }
            Values::Subscribe { filters } => {
                subscriptions = filters.map(|filter| Subscription::new(filter, QoS::AtLeastOnce));
                let packet_identifier = PacketIdentifier::new(IDENTIFIER).ok_or(Refused)?;
                let properties = SubscribeProperties::default();
                Subscribe { packet_identifier, properties, subscriptions: (&subscriptions).into() }
                    .into()
            }
        };
        codec::encode(&packet, self.0, out).map_err(|_| Refused)
    }

    const PAYLOAD_APART: bool = true;

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

/// A packet whose strings were checked when it was made, not when it is encoded. The packets of
/// `mqtt-codec-kit` are checked and measured when they are made, too.
pub struct Checked<const V5: bool>;

impl<const V5: bool> Codec for Checked<V5> {
    type Buffer = Unread;
    type Packet<'a> = Packet<'a>;
    type Outgoing<'a> = &'a Packet<'a>;
    type Output = Vec<u8>;

    fn decode<'a, R>(
        &mut self,
        _: &'a mut Unread,
        _: impl FnOnce(&Self::Packet<'a>) -> R,
    ) -> Result<Option<R>, Refused> {
        Err(Refused)
    }

    fn outgoing<'a>(packet: &'a Packet<'_>) -> &'a Packet<'a> {
        packet
    }

    #[inline(always)]
    fn encode(&mut self, packet: &Packet<'_>, out: &mut Vec<u8>) -> Result<(), Refused> {
        let version = if V5 { Version::V5_0 } else { Version::V3_1_1 };
        codec::encode(packet, version, out).map_err(|_| Refused)
    }

    fn seen(_: &Packet<'_>) -> Option<Seen> {
        None
    }

    fn from_values(packet: &'static Packet<'static>) -> Option<Packet<'static>> {
        Some(samples::checked(*packet))
    }
}

/// `OwnedPacket::split_from`, and with `READ` also `OwnedPacket::decode`, by which the fields are
/// got at.
pub struct Owned<const READ: bool>(pub Rules);

impl<const READ: bool> Codec for Owned<READ> {
    type Buffer = BytesMut;
    type Packet<'a> = OwnedPacket;
    type Outgoing<'a> = &'a OwnedPacket;
    type Output = Vec<u8>;

    #[inline(always)]
    fn decode<'a, R>(
        &mut self,
        buffer: &'a mut BytesMut,
        user: impl FnOnce(&Self::Packet<'a>) -> R,
    ) -> Result<Option<R>, Refused> {
        match &OwnedPacket::split_from(buffer, u32::MAX, self.0) {
            Ok(Some(packet)) => {
                if READ {
                    black_box(&packet.decode());
                }
                Ok(Some(user(packet)))
            }
            Ok(None) => Ok(None),
            Err(_) => Err(Refused),
        }
    }

    fn outgoing(packet: &OwnedPacket) -> &OwnedPacket {
        packet
    }

    #[inline(always)]
    fn encode(&mut self, packet: &OwnedPacket, out: &mut Vec<u8>) -> Result<(), Refused> {
        codec::encode(&packet.decode(), self.0, out).map_err(|_| Refused)
    }

    fn seen(packet: &OwnedPacket) -> Option<Seen> {
        Seen::of(&packet.decode())
    }
}
