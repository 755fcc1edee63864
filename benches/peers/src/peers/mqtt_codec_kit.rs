//! mqtt-codec-kit: copies, through `io::Read` and `io::Write`. Lengths are computed when a packet
//! is made, not when it is encoded.

use crate::cases::{IDENTIFIER, Request, Values};
use crate::codec::{Codec, Refused, Seen, Unread};
use mqtt_codec_kit::common::qos::QoSWithPacketIdentifier;
use mqtt_codec_kit::common::{
    Decodable, Encodable, QualityOfService, TopicFilter, TopicName, TopicNameRef,
};
use mqtt_codec_kit::{v4, v5};

macro_rules! version {
    (
        $name:ident, $version:ident,
        $topic:ident $packet:ident, $request:expr, $options:expr,
        |$publish:ident, $seen:ident| $with:expr
    ) => {
        pub struct $name;

        impl Codec for $name {
            type Buffer = Unread;
            type Packet<'a> = $version::packet::VariablePacket;
            type Outgoing<'a> = &'a $version::packet::VariablePacket;
            type Output = Vec<u8>;

            #[inline(always)]
            fn decode<'a, R>(
                &mut self,
                buffer: &'a mut Unread,
                user: impl FnOnce(&Self::Packet<'a>) -> R,
            ) -> Result<Option<R>, Refused> {
                let Some(whole) = buffer.whole()? else { return Ok(None) };
                match &$version::packet::VariablePacket::decode(&mut &*whole.bytes) {
                    Ok(packet) => Ok(Some(user(packet))),
                    Err(_) => Err(Refused),
                }
            }

            fn outgoing(
                packet: &$version::packet::VariablePacket,
            ) -> &$version::packet::VariablePacket {
                packet
            }

            #[inline(always)]
            fn encode(
                &mut self,
                packet: &$version::packet::VariablePacket,
                out: &mut Vec<u8>,
            ) -> Result<(), Refused> {
                packet.encode(out).map_err(|_| Refused)
            }

            #[inline(always)]
            fn make(&mut self, values: Values, out: &mut Vec<u8>) -> Result<(), Refused> {
                match values {
                    Values::Publish { topic, payload } => {
                        let topic = $topic::new(topic).map_err(|_| Refused)?;
                        let packet = $version::packet::$packet::new(
                            topic,
                            QoSWithPacketIdentifier::Level0,
                            payload,
                        );
                        packet.encode(out).map_err(|_| Refused)
                    }
                    Values::Request(request) => $request(request)?.encode(out).map_err(|_| Refused),
                    Values::Subscribe { filters } => {
                        let subscription = |filter: &&str| {
                            Ok((TopicFilter::new(*filter).map_err(|_| Refused)?, $options))
                        };
                        let subscriptions: Result<_, Refused> =
                            filters.iter().map(subscription).collect();
                        $version::packet::SubscribePacket::new(IDENTIFIER, subscriptions?)
                            .encode(out)
                            .map_err(|_| Refused)
                    }
                }
            }

            fn seen(packet: &$version::packet::VariablePacket) -> Option<Seen> {
                use $version::packet::VariablePacket;
                match packet {
                    VariablePacket::PublishPacket($publish) => {
                        let identifier = match $publish.qos() {
                            QoSWithPacketIdentifier::Level0 => None,
                            QoSWithPacketIdentifier::Level1(id)
                            | QoSWithPacketIdentifier::Level2(id) => Some(id),
                        };
                        let $seen = Seen::publish(
                            &$publish.topic_name()[..],
                            $publish.payload(),
                            identifier,
                        );
                        Some($with)
                    }
                    VariablePacket::PubackPacket(ack) => {
                        Some(Seen::puback(ack.packet_identifier()))
                    }
                    _ => None,
                }
            }
        }
    };
}

version! {
    V4, v4,
    TopicNameRef PublishPacketRef,
    |_| Err::<v4::packet::PublishPacket, _>(Refused),
    QualityOfService::Level1,
    |publish, seen| seen
}
// The `PublishPacketRef` of 5.0 is not used, because it writes no Property Length.
version! {
    V5, v5,
    TopicName PublishPacket,
    |request: &Request| {
        let topic = TopicName::new(request.topic).map_err(|_| Refused)?;
        let mut packet = v5::packet::PublishPacket::new(topic, QoSWithPacketIdentifier::Level1(IDENTIFIER), request.payload);
        let mut properties = v5::control::PublishProperties::default();
        properties.set_message_expiry_interval(Some(request.message_expiry_interval));
        properties.set_content_type(Some(request.content_type.into()));
        properties.set_response_topic(Some(request.response_topic.into()));
        properties.set_correlation_data(Some(request.correlation_data.into()));
        properties.add_user_property(request.user_property.0, request.user_property.1);
        packet.set_properties(properties);
        Ok(packet)
    },
    {
        let mut options = v5::packet::subscribe::SubscribeOptions::default();
        options.set_qos(QualityOfService::Level1);
        options
    },
    |publish, seen| {
        let properties = publish.properties();
        seen.with(properties.message_expiry_interval(), properties.content_type().as_ref())
    }
}
