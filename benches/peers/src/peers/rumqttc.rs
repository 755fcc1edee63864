//! rumqttc and mqttbytes: siblings, with almost the same types.
//!
//! rumqttc's 5.0 codec keeps the topic as unchecked bytes.

use crate::cases::{IDENTIFIER, Request, Values};
use crate::codec::{Codec, Refused, Seen};
use bytes::{Bytes, BytesMut};

/// Implements a codec. `$read` returns `$more` if the packet is incomplete.
macro_rules! sibling {
    (
        $name:ident, $packet:path, $read:expr, $write:expr, $more:pat, $make:expr,
        |$publish:ident, $seen:ident| $with:expr
        $(, $left_out:expr)?
    ) => {
        pub struct $name;

        impl Codec for $name {
            type Buffer = BytesMut;
            type Packet<'a> = $packet;
            type Outgoing<'a> = &'a $packet;
            type Output = BytesMut;
            $(const LEFT_OUT: Option<(&'static str, &'static str)> = Some($left_out);)?

            #[inline(always)]
            fn decode<'a, R>(
                &mut self,
                buffer: &'a mut BytesMut,
                user: impl FnOnce(&Self::Packet<'a>) -> R,
            ) -> Result<Option<R>, Refused> {
                match &$read(buffer) {
                    Ok(packet) => Ok(Some(user(packet))),
                    Err($more) => Ok(None),
                    Err(_) => Err(Refused),
                }
            }

            fn outgoing(packet: &$packet) -> &$packet {
                packet
            }

            #[inline(always)]
            fn encode(&mut self, packet: &$packet, out: &mut BytesMut) -> Result<(), Refused> {
                $write(packet, out).map(drop).map_err(|_| Refused)
            }

            #[inline(always)]
            fn make(&mut self, values: Values, out: &mut BytesMut) -> Result<(), Refused> {
                self.encode(&$make(values)?, out)
            }

            fn seen(packet: &$packet) -> Option<Seen> {
                use $packet as Packet;
                match packet {
                    Packet::Publish($publish) => {
                        let pkid = $publish.pkid;
                        let $seen = Seen::publish(&$publish.topic, &$publish.payload, pkid);
                        Some($with)
                    }
                    Packet::PubAck(ack) => Some(Seen::puback(ack.pkid)),
                    _ => None,
                }
            }
        }
    };
}

macro_rules! with_properties {
    ($publish:ident, $seen:ident) => {
        match &$publish.properties {
            Some(properties) => {
                $seen.with(properties.message_expiry_interval, properties.content_type.as_ref())
            }
            None => $seen,
        }
    };
}

sibling!(
    RumqttcV4,
    rumqttc::mqttbytes::v4::Packet,
    |buffer: &mut BytesMut| rumqttc::mqttbytes::v4::Packet::read(buffer, usize::MAX),
    |packet: &rumqttc::mqttbytes::v4::Packet, out: &mut BytesMut| packet.write(out, usize::MAX),
    rumqttc::mqttbytes::Error::InsufficientBytes(_),
    rumqttc_v4,
    |publish, seen| seen
);

sibling!(
    RumqttcV5,
    rumqttc::v5::mqttbytes::v5::Packet,
    |buffer: &mut BytesMut| rumqttc::v5::mqttbytes::v5::Packet::read(buffer, None),
    |packet: &rumqttc::v5::mqttbytes::v5::Packet, out: &mut BytesMut| packet.write(out, None),
    rumqttc::v5::mqttbytes::Error::InsufficientBytes(_),
    rumqttc_v5,
    |publish, seen| with_properties!(publish, seen)
);

sibling!(
    MqttbytesV4,
    mqttbytes::v4::Packet,
    |buffer: &mut BytesMut| mqttbytes::v4::read(buffer, usize::MAX),
    write_v4,
    mqttbytes::Error::InsufficientBytes(_),
    mqttbytes_v4,
    |publish, seen| seen
);

sibling!(
    MqttbytesV5,
    mqttbytes::v5::Packet,
    |buffer: &mut BytesMut| mqttbytes::v5::read(buffer, usize::MAX),
    write_v5,
    mqttbytes::Error::InsufficientBytes(_),
    mqttbytes_v5,
    |publish, seen| with_properties!(publish, seen),
    ("UNSUBSCRIBE", "has a `dbg!` left in it")
);

/// Calls the `write` of each packet, which mqttbytes leaves to its users.
macro_rules! write {
    ($name:ident, $version:ident, $($variant:ident)*, $disconnect:pat => $write:expr) => {
        fn $name(
            packet: &mqttbytes::$version::Packet,
            out: &mut BytesMut,
        ) -> Result<usize, mqttbytes::Error> {
            use mqttbytes::$version::*;
            match packet {
                Packet::PingReq => PingReq.write(out),
                Packet::PingResp => PingResp.write(out),
                $disconnect => $write.write(out),
                $(Packet::$variant(packet) => packet.write(out),)*
            }
        }
    };
}

write! {
    write_v4, v4, Connect ConnAck Publish PubAck PubRec PubRel PubComp Subscribe SubAck Unsubscribe UnsubAck,
    Packet::Disconnect => Disconnect
}
write! {
    write_v5, v5, Connect ConnAck Publish PubAck PubRec PubRel PubComp Subscribe SubAck Unsubscribe UnsubAck,
    Packet::Disconnect(disconnect) => disconnect
}

/// Its users can share a static topic, because the topic of 5.0 is `Bytes`.
fn static_bytes(topic: &'static str) -> Bytes {
    Bytes::from_static(topic.as_bytes())
}

/// Makes packets; packets of 5.0 have `$properties`.
macro_rules! make {
    (
        $name:ident, [$($path:tt)*], $version:ident, $topic:expr, $filter:expr,
        $request:expr $(, $properties:ident)?
    ) => {
        fn $name(values: Values) -> Result<$($path)*::$version::Packet, Refused> {
            use $($path)*::$version::{Packet, Publish, Subscribe};
            use $($path)*::QoS;
            Ok(match values {
                Values::Publish { topic, payload } => Packet::Publish(Publish {
                    dup: false,
                    qos: QoS::AtMostOnce,
                    retain: false,
                    topic: $topic(topic),
                    pkid: 0,
                    payload: Bytes::from_static(payload),
                    $($properties: None,)?
                }),
                Values::Request(request) => Packet::Publish($request(request)?),
                Values::Subscribe { filters } => Packet::Subscribe(Subscribe {
                    pkid: IDENTIFIER,
                    filters: filters
                        .iter()
                        .map(|filter| $filter((*filter).to_owned(), QoS::AtLeastOnce))
                        .collect(),
                    $($properties: None,)?
                }),
            })
        }
    };
}

macro_rules! request {
    ($topic:expr, $($path:tt)*) => {
        |request: &'static Request| {
            use $($path)*::v5::{Publish, PublishProperties};
            let (name, value) = request.user_property;
            let properties = PublishProperties {
                payload_format_indicator: None,
                message_expiry_interval: Some(request.message_expiry_interval),
                topic_alias: None,
                response_topic: Some(request.response_topic.to_owned()),
                correlation_data: Some(Bytes::from_static(request.correlation_data)),
                user_properties: vec![(name.to_owned(), value.to_owned())],
                subscription_identifiers: Vec::new(),
                content_type: Some(request.content_type.to_owned()),
            };
            Ok(Publish {
                dup: false,
                qos: $($path)*::QoS::AtLeastOnce,
                retain: false,
                topic: $topic(request.topic),
                pkid: IDENTIFIER,
                payload: Bytes::from_static(request.payload),
                properties: Some(properties),
            })
        }
    };
}

make!(
    rumqttc_v4,
    [rumqttc::mqttbytes],
    v4,
    str::to_owned,
    rumqttc::mqttbytes::v4::SubscribeFilter::new,
    |_| Err(Refused)
);
make!(mqttbytes_v4, [mqttbytes], v4, str::to_owned, mqttbytes::v4::SubscribeFilter::new, |_| Err(
    Refused
));
make!(
    rumqttc_v5,
    [rumqttc::v5::mqttbytes],
    v5,
    static_bytes,
    rumqttc::v5::mqttbytes::v5::Filter::new,
    request!(static_bytes, rumqttc::v5::mqttbytes),
    properties
);
make!(
    mqttbytes_v5,
    [mqttbytes],
    v5,
    str::to_owned,
    mqttbytes::v5::SubscribeFilter::new,
    request!(str::to_owned, mqttbytes),
    properties
);
