//! mqute-codec: `Bytes` payload, `String` topic.

use crate::cases::{IDENTIFIER, Request, Values};
use crate::codec::{Codec, Refused, Seen};
use bytes::{Bytes, BytesMut};
use mqute_codec::codec::PacketCodec;
use mqute_codec::protocol::{Flags, QoS, v4, v5};
use std::time::Duration;
use tokio_util::codec::Decoder;

macro_rules! version {
    (
        $name:ident, $version:ident,
        |$topic:ident, $payload:ident| $make:expr, $request:expr, $subscribe:expr,
        |$publish:ident, $seen:ident| $with:expr
    ) => {
        pub struct $name(PacketCodec);

        impl $name {
            pub fn new() -> Self {
                Self(PacketCodec::new(None, None))
            }
        }

        impl Codec for $name {
            type Buffer = BytesMut;
            type Packet<'a> = $version::Packet;
            type Outgoing<'a> = &'a $version::Packet;
            type Output = BytesMut;

            #[inline(always)]
            fn decode<'a, R>(
                &mut self,
                buffer: &'a mut BytesMut,
                user: impl FnOnce(&Self::Packet<'a>) -> R,
            ) -> Result<Option<R>, Refused> {
                let Some(raw) = self.0.decode(buffer).map_err(|_| Refused)? else {
                    return Ok(None);
                };
                match &$version::Packet::decode(raw) {
                    Ok(packet) => Ok(Some(user(packet))),
                    Err(_) => Err(Refused),
                }
            }

            fn outgoing(packet: &$version::Packet) -> &$version::Packet {
                packet
            }

            #[inline(always)]
            fn encode(
                &mut self,
                packet: &$version::Packet,
                out: &mut BytesMut,
            ) -> Result<(), Refused> {
                packet.encode(out).map_err(|_| Refused)
            }

            #[inline(always)]
            fn make(&mut self, values: Values, out: &mut BytesMut) -> Result<(), Refused> {
                let packet = match values {
                    Values::Publish { topic: $topic, payload } => {
                        let $payload = Bytes::from_static(payload);
                        $version::Packet::Publish($make)
                    }
                    Values::Request(request) => $version::Packet::Publish($request(request)?),
                    Values::Subscribe { filters } => {
                        $version::Packet::Subscribe($subscribe(filters))
                    }
                };
                self.encode(&packet, out)
            }

            fn seen(packet: &$version::Packet) -> Option<Seen> {
                match packet {
                    $version::Packet::Publish($publish) => {
                        let $seen = Seen::publish(
                            $publish.topic(),
                            $publish.payload(),
                            $publish.packet_id(),
                        );
                        Some($with)
                    }
                    $version::Packet::PubAck(ack) => Some(Seen::puback(ack.packet_id())),
                    _ => None,
                }
            }
        }
    };
}

version! {
    V4, v4,
    |topic, payload| v4::Publish::new(topic, 0, payload, Flags::default()),
    |_| Err(Refused),
    |filters: &[&str; 10]| v4::Subscribe::new(IDENTIFIER, filters.iter().map(|filter| v4::TopicQosFilter::new(*filter, QoS::AtLeastOnce))),
    |publish, seen| seen
}
version! {
    V5, v5,
    |topic, payload| v5::Publish::new(topic, 0, None, payload, Flags::default()),
    |request: &'static Request| {
        let (name, value) = request.user_property;
        let properties = v5::PublishProperties {
            payload_format_indicator: None,
            message_expiry_interval: Some(Duration::from_secs(request.message_expiry_interval.into())),
            topic_alias: None,
            response_topic: Some(request.response_topic.into()),
            correlation_data: Some(Bytes::from_static(request.correlation_data)),
            user_properties: vec![(name.into(), value.into())],
            subscription_id: Vec::new(),
            content_type: Some(request.content_type.into()),
        };
        let flags = Flags { qos: QoS::AtLeastOnce, ..Flags::default() };
        let payload = Bytes::from_static(request.payload);
        Ok(v5::Publish::new(request.topic, IDENTIFIER, Some(properties), payload, flags))
    },
    |filters: &[&str; 10]| {
        let filter = |filter: &&str| {
            v5::TopicOptionFilter::new(*filter, QoS::AtLeastOnce, false, false, v5::RetainHandling::Send)
        };
        v5::Subscribe::new(IDENTIFIER, None, filters.iter().map(filter))
    },
    |publish, seen| match publish.properties() {
        Some(properties) => {
            let expiry = properties.message_expiry_interval.map(|interval| interval.as_secs() as u32);
            seen.with(expiry, properties.content_type)
        }
        None => seen,
    }
}
