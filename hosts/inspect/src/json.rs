//! Packets as JSON. Passwords and authentication data are left out.

use mqtt_sansio::codec::{
    AckProperties, Packet, PublishProperties, ReasonCode, Sequence, UserProperty, WillProperties,
};
use serde_json::{Map, Value, json};

/// Inserts fields that are there: `object, "name" => option` and so on.
macro_rules! insert {
    ($object:ident, $properties:expr, $($name:literal: $field:ident),* $(,)?) => {
        $(if let Some(value) = $properties.$field {
            $object.insert($name.into(), value.to_json());
        })*
    };
}

/// A value of a property.
trait ToJson {
    fn to_json(self) -> Value;
}

impl ToJson for u16 {
    fn to_json(self) -> Value {
        self.into()
    }
}

impl ToJson for u32 {
    fn to_json(self) -> Value {
        self.into()
    }
}

impl ToJson for bool {
    fn to_json(self) -> Value {
        self.into()
    }
}

impl ToJson for mqtt_sansio::codec::QoS {
    fn to_json(self) -> Value {
        self.as_u8().into()
    }
}

impl ToJson for mqtt_sansio::codec::Text<'_> {
    fn to_json(self) -> Value {
        self.to_str().into()
    }
}

impl ToJson for &[u8] {
    /// Returns text if the bytes are text, and else hex digits.
    fn to_json(self) -> Value {
        match std::str::from_utf8(self) {
            Ok(text) => text.into(),
            Err(_) => self.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into(),
        }
    }
}

impl ToJson for mqtt_sansio::codec::SubscriptionIdentifier {
    fn to_json(self) -> Value {
        self.get().into()
    }
}

fn user(object: &mut Map<String, Value>, user: Sequence<'_, UserProperty<'_>>) {
    if !user.is_empty() {
        let user = user.iter().map(|one| json!({ one.name.to_str(): one.value.to_str() }));
        object.insert("user-properties".into(), user.collect());
    }
}

/// Returns the properties of a PUBLISH, with the names of mosquitto.
pub fn publish_properties(properties: &PublishProperties<'_>) -> Value {
    let mut object = Map::new();
    insert!(object, properties,
        "payload-format-indicator": payload_format_indicator,
        "message-expiry-interval": message_expiry_interval,
        "content-type": content_type,
        "response-topic": response_topic,
        "correlation-data": correlation_data,
        "topic-alias": topic_alias,
    );
    let identifiers = properties.subscription_identifiers.iter().map(|one| one.get());
    let identifiers: Vec<_> = identifiers.collect();
    if !identifiers.is_empty() {
        object.insert("subscription-identifiers".into(), identifiers.into());
    }
    user(&mut object, properties.user_properties);
    object.into()
}

fn will_properties(properties: &WillProperties<'_>) -> Value {
    let mut object = Map::new();
    insert!(object, properties,
        "payload-format-indicator": payload_format_indicator,
        "message-expiry-interval": message_expiry_interval,
        "content-type": content_type,
        "response-topic": response_topic,
        "correlation-data": correlation_data,
        "will-delay-interval": will_delay_interval,
    );
    user(&mut object, properties.user_properties);
    object.into()
}

fn ack_properties(properties: &AckProperties<'_>) -> Value {
    let mut object = Map::new();
    insert!(object, properties, "reason-string": reason_string);
    user(&mut object, properties.user_properties);
    object.into()
}

fn code(code: ReasonCode) -> Value {
    json!({ "code": code.get(), "name": code.to_string() })
}

/// Returns the fields of a packet.
pub(crate) fn fields(packet: &Packet<'_>) -> Value {
    match packet {
        Packet::Connect(connect) => {
            let mut properties = Map::new();
            insert!(properties, connect.properties,
                "session-expiry-interval": session_expiry_interval,
                "authentication-method": authentication_method,
                "request-problem-information": request_problem_information,
                "request-response-information": request_response_information,
                "receive-maximum": receive_maximum,
                "topic-alias-maximum": topic_alias_maximum,
                "maximum-packet-size": maximum_packet_size,
            );
            user(&mut properties, connect.properties.user_properties);
            json!({
                "version": connect.version.to_string(),
                "client-identifier": connect.client_identifier.to_str(),
                "clean-start": connect.clean_start,
                "keep-alive": connect.keep_alive,
                "user-name": connect.user_name.map(|name| name.to_str()),
                "has-password": connect.password.is_some(),
                "will": connect.will.map(|will| json!({
                    "topic": will.topic.to_str(),
                    "qos": will.qos.as_u8(),
                    "retain": will.retain,
                    "payload": will.payload.to_json(),
                    "properties": will_properties(&will.properties),
                })),
                "properties": properties,
            })
        }
        Packet::Connack(connack) => {
            let mut properties = Map::new();
            insert!(properties, connack.properties,
                "session-expiry-interval": session_expiry_interval,
                "assigned-client-identifier": assigned_client_identifier,
                "server-keep-alive": server_keep_alive,
                "authentication-method": authentication_method,
                "response-information": response_information,
                "server-reference": server_reference,
                "reason-string": reason_string,
                "receive-maximum": receive_maximum,
                "topic-alias-maximum": topic_alias_maximum,
                "maximum-qos": maximum_qos,
                "retain-available": retain_available,
                "maximum-packet-size": maximum_packet_size,
                "wildcard-subscription-available": wildcard_subscription_available,
                "subscription-identifier-available": subscription_identifier_available,
                "shared-subscription-available": shared_subscription_available,
            );
            user(&mut properties, connack.properties.user_properties);
            json!({
                "reason": code(connack.reason_code),
                "session-present": connack.session_present,
                "properties": properties,
            })
        }
        Packet::Publish(publish) => json!({
            "topic": publish.topic_name.to_str(),
            "packet-identifier": publish.packet_identifier.map(|identifier| identifier.get()),
            "qos": publish.qos.as_u8(),
            "retain": publish.retain,
            "dup": publish.dup,
            "properties": publish_properties(&publish.properties),
            "payload": publish.payload.to_json(),
        }),
        Packet::Puback(ack) | Packet::Pubrec(ack) | Packet::Pubrel(ack) | Packet::Pubcomp(ack) => {
            json!({
                "packet-identifier": ack.packet_identifier.get(),
                "reason": code(ack.reason_code),
                "properties": ack_properties(&ack.properties),
            })
        }
        Packet::Subscribe(subscribe) => {
            let mut properties = Map::new();
            insert!(properties, subscribe.properties,
                "subscription-identifier": subscription_identifier,
            );
            user(&mut properties, subscribe.properties.user_properties);
            let subscriptions = subscribe.subscriptions.iter().map(|one| {
                json!({
                    "filter": one.topic_filter.to_str(),
                    "qos": one.options.maximum_qos.as_u8(),
                    "no-local": one.options.no_local,
                    "retain-as-published": one.options.retain_as_published,
                    "retain-handling": one.options.retain_handling as u8,
                })
            });
            json!({
                "packet-identifier": subscribe.packet_identifier.get(),
                "subscriptions": subscriptions.collect::<Vec<_>>(),
                "properties": properties,
            })
        }
        Packet::Suback(suback) | Packet::Unsuback(suback) => json!({
            "packet-identifier": suback.packet_identifier.get(),
            "reasons": suback.reason_codes.iter().map(code).collect::<Vec<_>>(),
            "properties": ack_properties(&suback.properties),
        }),
        Packet::Unsubscribe(unsubscribe) => {
            let mut properties = Map::new();
            user(&mut properties, unsubscribe.properties.user_properties);
            let filters = unsubscribe.topic_filters.iter().map(|filter| filter.to_str());
            json!({
                "packet-identifier": unsubscribe.packet_identifier.get(),
                "filters": filters.collect::<Vec<_>>(),
                "properties": properties,
            })
        }
        Packet::Pingreq | Packet::Pingresp => json!({}),
        Packet::Disconnect(disconnect) => {
            let mut properties = Map::new();
            insert!(properties, disconnect.properties,
                "session-expiry-interval": session_expiry_interval,
                "server-reference": server_reference,
                "reason-string": reason_string,
            );
            user(&mut properties, disconnect.properties.user_properties);
            json!({ "reason": code(disconnect.reason_code), "properties": properties })
        }
        Packet::Auth(auth) => {
            let mut properties = Map::new();
            insert!(properties, auth.properties,
                "authentication-method": authentication_method,
                "reason-string": reason_string,
            );
            user(&mut properties, auth.properties.user_properties);
            json!({ "reason": code(auth.reason_code), "properties": properties })
        }
    }
}
