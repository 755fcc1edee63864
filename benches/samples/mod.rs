//! Sample packets: each type as it is commonly sent, and with everything that it can hold.

use mqtt_sansio::codec::{
    Ack, AckProperties, Auth, AuthProperties, Connack, ConnackProperties, Connect,
    ConnectProperties, Disconnect, Packet, PacketIdentifier, Publish, PublishProperties, QoS,
    ReasonCode, Sequence, Suback, Subscribe, SubscribeProperties, Subscription, Text, TopicFilter,
    TopicName, Unsubscribe, UnsubscribeProperties, UserProperty, Version, Will, WillProperties,
};

/// The topic name of the PUBLISH packets.
pub const TOPIC: &str = "sensors/room4/temp/1";

/// Topic names in other scripts: 48 bytes of two each, 41 of three, 26 of four.
pub const CYRILLIC: &str = "датчики/кухня/температура";
pub const CHINESE: &str = "传感器/四号房间/温度/一";
pub const EMOJI: &str = "🏠/🛋/🌡/🔋/💡";

/// Returns the packet identifier of every packet that has one.
pub fn identifier() -> PacketIdentifier {
    PacketIdentifier::new(10).unwrap()
}

const USER: [UserProperty<'static>; 2] = [
    UserProperty { name: Text::literal("region"), value: Text::literal("eu-central-1") },
    UserProperty { name: Text::literal("trace"), value: Text::literal("00-4bf92f3577b34da6-01") },
];
const ONE_USER: [UserProperty<'static>; 1] = [USER[0]];

/// The topic filters of SUBSCRIBE and UNSUBSCRIBE.
pub const FILTERS: [&str; 10] = [
    "sensors/room0/+/temp",
    "sensors/room1/#",
    "sensors/room2/temp",
    "sensors/+/temp",
    "sensors/room4/temp/+",
    "a/b/c/d/e",
    "sensors/room6/#",
    "$SYS/broker/load/#",
    "sensors/room8/temp",
    "sensors/room9/+",
];

/// Returns a packet of each type as it is commonly sent, and the largest ones.
pub fn packets(version: Version) -> Vec<(&'static str, Packet<'static>)> {
    static PAYLOAD: [u8; 65_536] = [b'x'; 65_536];
    let v5 = version == Version::V5_0;
    let publish = |size: usize| Publish::new(TOPIC, &PAYLOAD[..size]);
    let with_properties = Publish {
        qos: QoS::AtLeastOnce,
        packet_identifier: Some(identifier()),
        properties: PublishProperties {
            message_expiry_interval: Some(3_600),
            content_type: Some("application/json".into()),
            response_topic: Some("answers/room4".into()),
            correlation_data: Some(b"request-17"),
            user_properties: (&ONE_USER).into(),
            ..PublishProperties::default()
        },
        ..publish(256)
    };
    let user_properties = if v5 { Sequence::from(&USER) } else { Sequence::default() };
    let full = Connect {
        keep_alive: 60,
        will: Some(Will {
            qos: QoS::AtLeastOnce,
            topic: "status/client-0001".into(),
            payload: b"offline",
            properties: WillProperties { user_properties, ..WillProperties::default() },
            ..Will::default()
        }),
        user_name: Some("device-0001".into()),
        password: Some(b"correct horse battery staple"),
        properties: ConnectProperties {
            session_expiry_interval: v5.then_some(3_600),
            receive_maximum: v5.then_some(100),
            maximum_packet_size: v5.then_some(1 << 20),
            topic_alias_maximum: v5.then_some(10),
            user_properties,
            ..ConnectProperties::default()
        },
        ..Connect::new(version, "client-0001-with-a-name")
    };
    let subscriptions: &'static [_] =
        FILTERS.map(|filter| Subscription::new(filter, QoS::AtLeastOnce)).to_vec().leak();
    let filters: &'static [_] = FILTERS.map(Into::into).to_vec().leak();
    static CODES: [ReasonCode; 10] = [ReasonCode::GRANTED_QOS_1; 10];
    static UNSUBSCRIBED: [ReasonCode; 10] = [ReasonCode::SUCCESS; 10];
    let ack = Ack::new(identifier(), ReasonCode::SUCCESS);
    let mut packets = vec![
        ("publish 64 B", publish(64).into()),
        (
            "publish 1 KiB QoS 1",
            Publish {
                qos: QoS::AtLeastOnce,
                packet_identifier: Some(identifier()),
                ..publish(1_024)
            }
            .into(),
        ),
        ("publish 64 KiB", publish(65_536).into()),
        ("publish UTF-8", Publish::new(CYRILLIC, &PAYLOAD[..64]).into()),
        ("publish Chinese", Publish::new(CHINESE, &PAYLOAD[..64]).into()),
        ("publish emoji", Publish::new(EMOJI, &PAYLOAD[..64]).into()),
        ("puback", Packet::Puback(ack)),
        ("pubrec", Packet::Pubrec(ack)),
        ("pubrel", Packet::Pubrel(ack)),
        ("pubcomp", Packet::Pubcomp(ack)),
        ("connect", Connect { clean_start: true, ..Connect::new(version, "client-0001") }.into()),
        ("connect will and user", full.into()),
        ("subscribe 10", {
            let subscriptions = subscriptions.into();
            Subscribe {
                packet_identifier: identifier(),
                properties: SubscribeProperties::default(),
                subscriptions,
            }
            .into()
        }),
        ("suback 10", {
            let reason_codes = (&CODES).into();
            Packet::Suback(Suback {
                packet_identifier: identifier(),
                properties: AckProperties::default(),
                reason_codes,
            })
        }),
        ("unsubscribe 10", {
            let topic_filters = filters.into();
            Unsubscribe {
                packet_identifier: identifier(),
                properties: UnsubscribeProperties::default(),
                topic_filters,
            }
            .into()
        }),
        ("unsuback 10", {
            let reason_codes = if v5 { (&UNSUBSCRIBED).into() } else { Sequence::default() };
            Packet::Unsuback(Suback {
                packet_identifier: identifier(),
                properties: AckProperties::default(),
                reason_codes,
            })
        }),
        ("connack", Connack::default().into()),
        ("pingreq", Packet::Pingreq),
        ("pingresp", Packet::Pingresp),
        ("disconnect", Disconnect::default().into()),
    ];
    if v5 {
        packets.push(("publish 5 properties", with_properties.into()));
        let properties = ConnackProperties {
            session_expiry_interval: Some(3_600),
            assigned_client_identifier: Some("auto-0123456789".into()),
            server_keep_alive: Some(30),
            reason_string: Some("welcome back".into()),
            receive_maximum: Some(100),
            topic_alias_maximum: Some(10),
            maximum_qos: Some(QoS::AtLeastOnce),
            maximum_packet_size: Some(1 << 20),
            user_properties,
            ..ConnackProperties::default()
        };
        packets
            .push(("connack 10 properties", Connack { properties, ..Connack::default() }.into()));
        packets.push(("connect all", connect_all().into()));
        let properties = AuthProperties {
            authentication_method: Some("SCRAM-SHA-256".into()),
            authentication_data: Some(b"n,,n=device-0001,r=fyko"),
            ..AuthProperties::default()
        };
        packets.push((
            "auth",
            Auth { reason_code: ReasonCode::CONTINUE_AUTHENTICATION, properties }.into(),
        ));
    }
    packets
}

/// Returns a packet whose strings are checked, so that `encode` does not check them again.
#[allow(dead_code, reason = "not each bench has it")]
pub fn checked(packet: Packet<'static>) -> Packet<'static> {
    let text = |text: Text<'static>| Text::new(text.to_str()).unwrap();
    let name = |name: Text<'static>| -> Text<'static> {
        let name: &'static TopicName<'static> =
            Box::leak(Box::new(TopicName::new(name.to_str()).unwrap()));
        name.into()
    };
    let filter = |filter: Text<'static>| -> Text<'static> {
        TopicFilter::new(filter.to_str(), Version::V3_1_1).unwrap().into()
    };
    let user = |properties: Sequence<'static, UserProperty<'static>>| {
        let checked = properties.iter().map(|property| UserProperty {
            name: text(property.name),
            value: text(property.value),
        });
        let checked: &'static [_] = checked.collect::<Vec<_>>().leak();
        Sequence::from(checked)
    };
    match packet {
        Packet::Publish(mut publish) => {
            publish.topic_name = name(publish.topic_name);
            let properties = &mut publish.properties;
            properties.content_type = properties.content_type.map(text);
            properties.response_topic = properties.response_topic.map(name);
            properties.user_properties = user(properties.user_properties);
            publish.into()
        }
        Packet::Connect(mut connect) => {
            connect.client_identifier = text(connect.client_identifier);
            connect.user_name = connect.user_name.map(text);
            let properties = &mut connect.properties;
            properties.authentication_method = properties.authentication_method.map(text);
            properties.user_properties = user(properties.user_properties);
            if let Some(will) = &mut connect.will {
                will.topic = name(will.topic);
                let properties = &mut will.properties;
                properties.content_type = properties.content_type.map(text);
                properties.response_topic = properties.response_topic.map(name);
                properties.user_properties = user(properties.user_properties);
            }
            connect.into()
        }
        Packet::Connack(mut connack) => {
            let properties = &mut connack.properties;
            properties.assigned_client_identifier = properties.assigned_client_identifier.map(text);
            properties.reason_string = properties.reason_string.map(text);
            properties.user_properties = user(properties.user_properties);
            connack.into()
        }
        Packet::Subscribe(mut subscribe) => {
            let subscriptions = subscribe.subscriptions.iter().map(|subscription| {
                let topic_filter = filter(subscription.topic_filter);
                Subscription { topic_filter, ..subscription }
            });
            let subscriptions: &'static [_] = subscriptions.collect::<Vec<_>>().leak();
            subscribe.subscriptions = subscriptions.into();
            subscribe.into()
        }
        Packet::Unsubscribe(mut unsubscribe) => {
            let filters: &'static [_] =
                unsubscribe.topic_filters.iter().map(filter).collect::<Vec<_>>().leak();
            unsubscribe.topic_filters = filters.into();
            unsubscribe.into()
        }
        Packet::Auth(mut auth) => {
            let properties = &mut auth.properties;
            properties.authentication_method = properties.authentication_method.map(text);
            auth.into()
        }
        other @ (Packet::Puback(_)
        | Packet::Pubrec(_)
        | Packet::Pubrel(_)
        | Packet::Pubcomp(_)
        | Packet::Suback(_)
        | Packet::Unsuback(_)
        | Packet::Pingreq
        | Packet::Pingresp
        | Packet::Disconnect(_)) => other,
    }
}

/// Returns a CONNECT with every field and property of 5.0.
fn connect_all() -> Connect<'static> {
    let will = Will {
        qos: QoS::AtLeastOnce,
        retain: true,
        topic: "status/client-0001".into(),
        payload: b"offline",
        properties: WillProperties {
            payload_format_indicator: Some(true),
            message_expiry_interval: Some(120),
            content_type: Some("text/plain".into()),
            response_topic: Some("answers/status".into()),
            correlation_data: Some(b"will-1"),
            will_delay_interval: Some(30),
            user_properties: (&ONE_USER).into(),
        },
    };
    Connect {
        clean_start: true,
        keep_alive: 60,
        will: Some(will),
        user_name: Some("device-0001".into()),
        password: Some(b"correct horse battery"),
        properties: ConnectProperties {
            session_expiry_interval: Some(3_600),
            authentication_method: Some("SCRAM-SHA-256".into()),
            authentication_data: Some(b"n,,n=device-0001,r=fyko"),
            request_problem_information: Some(false),
            request_response_information: Some(true),
            receive_maximum: Some(100),
            topic_alias_maximum: Some(10),
            maximum_packet_size: Some(1 << 20),
            user_properties: (&USER).into(),
        },
        ..Connect::new(Version::V5_0, "client-0001-with-a-name")
    }
}
