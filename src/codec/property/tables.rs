//! The tables of the properties: one list of all, and the properties of each packet. [5.0 §2.2.2]

use super::*;

property_list! {
    0x01 payload_format_indicator: bool;
    0x02 message_expiry_interval: u32;
    0x03 content_type: Text<'a>;
    0x08 response_topic: Text<'a> = check_response_topic;
    0x09 correlation_data: &'a [u8];
    0x0B subscription_identifier: SubscriptionIdentifier;
    0x11 session_expiry_interval: u32;
    0x12 assigned_client_identifier: Text<'a>;
    0x13 server_keep_alive: u16;
    0x15 authentication_method: Text<'a>;
    0x16 authentication_data: &'a [u8];
    0x17 request_problem_information: bool;
    0x18 will_delay_interval: u32;
    0x19 request_response_information: bool;
    0x1A response_information: Text<'a>;
    0x1C server_reference: Text<'a>;
    0x1F reason_string: Text<'a>;
    0x21 receive_maximum: u16 = check_not_zero;
    0x22 topic_alias_maximum: u16;
    0x23 topic_alias: u16 = check_topic_alias;
    0x24 maximum_qos: QoS = check_below_2;
    0x25 retain_available: bool;
    0x26 user_property: UserProperty<'a>;
    0x27 maximum_packet_size: u32 = check_not_zero;
    0x28 wildcard_subscription_available: bool;
    0x29 subscription_identifier_available: bool;
    0x2A shared_subscription_available: bool;
}

properties! {
    /// Properties of a CONNECT packet. [5.0 §3.1.2.11]
    pub struct ConnectProperties<'a> {
        /// Seconds that the session outlives the connection. Absent: 0. 0xFFFFFFFF: forever.
        /// [5.0 §3.1.2.11.2]
        session_expiry_interval,
        /// The name of the method of enhanced authentication. [5.0 §3.1.2.11.9]
        authentication_method,
        /// The first data of the method. [5.0 §3.1.2.11.10]
        authentication_data,
        /// Whether the server can send reason strings and user properties in any packet. Absent:
        /// true. [5.0 §3.1.2.11.7]
        request_problem_information,
        /// Whether the server should send Response Information. Absent: false. [5.0 §3.1.2.11.6]
        request_response_information,
        /// QoS 1 and 2 messages that the client accepts in flight, at least 1. Absent: 65,535.
        /// [5.0 §3.1.2.11.3]
        receive_maximum,
        /// The greatest topic alias that the client accepts. Absent: 0, none. [5.0 §3.1.2.11.5]
        topic_alias_maximum,
        /// The largest packet in bytes that the client accepts, at least 1. Absent: no limit.
        /// [5.0 §3.1.2.11.4]
        maximum_packet_size,
    } repeated {
        /// [5.0 §3.1.2.11.8]
        user_properties: user_property,
    }
}

properties! {
    /// Properties of a Will Message. [5.0 §3.1.3.2]
    pub struct WillProperties<'a> {
        /// Whether the payload is UTF-8 text. Absent: false. [5.0 §3.1.3.2.3]
        payload_format_indicator,
        /// Seconds after publication until the message expires. Absent: never. [5.0 §3.1.3.2.4]
        message_expiry_interval,
        /// The kind of content of the payload, as the applications define it. [5.0 §3.1.3.2.5]
        content_type,
        /// The topic name for a response. [5.0 §3.1.3.2.6]
        response_topic,
        /// Identifies the request that a response is for. [5.0 §3.1.3.2.7]
        correlation_data,
        /// Seconds from the end of the connection to the publication. Absent: 0. [5.0 §3.1.3.2.2]
        will_delay_interval,
    } repeated {
        /// [5.0 §3.1.3.2.8]
        user_properties: user_property,
    }
}

properties! {
    /// Properties of a CONNACK packet. [5.0 §3.2.2.3]
    pub struct ConnackProperties<'a> {
        /// Seconds that the session outlives the connection. Absent: as requested in CONNECT.
        /// [5.0 §3.2.2.3.2]
        session_expiry_interval,
        /// The client identifier that the server assigns because CONNECT had none. [5.0 §3.2.2.3.7]
        assigned_client_identifier,
        /// Seconds of keep alive that the client must use in place of its own. 0: none.
        /// [5.0 §3.2.2.3.14]
        server_keep_alive,
        /// The authentication method of CONNECT. [5.0 §3.2.2.3.17]
        authentication_method,
        /// The last data of the method. [5.0 §3.2.2.3.18]
        authentication_data,
        /// A basis on which the client can create response topics. [5.0 §3.2.2.3.15]
        response_information,
        /// Other servers to use, separated by spaces. [5.0 §3.2.2.3.16]
        server_reference,
        /// Diagnostics for people. [5.0 §3.2.2.3.9]
        reason_string,
        /// QoS 1 and 2 messages that the server accepts in flight, at least 1. Absent: 65,535.
        /// [5.0 §3.2.2.3.3]
        receive_maximum,
        /// The greatest topic alias that the server accepts. Absent: 0, none. [5.0 §3.2.2.3.8]
        topic_alias_maximum,
        /// The greatest QoS that the server accepts, 0 or 1. Absent: 2. [5.0 §3.2.2.3.4]
        maximum_qos,
        /// Whether the server keeps retained messages. Absent: true. [5.0 §3.2.2.3.5]
        retain_available,
        /// The largest packet in bytes that the server accepts, at least 1. Absent: no limit.
        /// [5.0 §3.2.2.3.6]
        maximum_packet_size,
        /// Whether filters can have wildcards. Absent: true. [5.0 §3.2.2.3.11]
        wildcard_subscription_available,
        /// Whether subscriptions can have identifiers. Absent: true. [5.0 §3.2.2.3.12]
        subscription_identifier_available,
        /// Whether subscriptions can be shared. Absent: true. [5.0 §3.2.2.3.13]
        shared_subscription_available,
    } repeated {
        /// [5.0 §3.2.2.3.10]
        user_properties: user_property,
    }
}

properties! {
    /// Properties of a PUBLISH packet. [5.0 §3.3.2.3]
    pub struct PublishProperties<'a> {
        /// Whether the payload is UTF-8 text. Absent: false. [5.0 §3.3.2.3.2]
        payload_format_indicator,
        /// Seconds until the message expires. Absent: never. [5.0 §3.3.2.3.3]
        message_expiry_interval,
        /// The kind of content of the payload, as the applications define it. [5.0 §3.3.2.3.9]
        content_type,
        /// The topic name for a response. [5.0 §3.3.2.3.5]
        response_topic,
        /// Identifies the request that a response is for. [5.0 §3.3.2.3.6]
        correlation_data,
        /// The number that stands for the topic name, or is assigned to it; at least 1.
        /// [5.0 §3.3.2.3.4]
        topic_alias,
    } repeated {
        /// The identifiers of the subscriptions for which a server sends the message.
        /// [5.0 §3.3.2.3.8]
        subscription_identifiers: subscription_identifier,
        /// [5.0 §3.3.2.3.7]
        user_properties: user_property,
    }
}

properties! {
    /// Properties of the acknowledgements: PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and
    /// UNSUBACK. [5.0 §3.4.2.2]
    pub struct AckProperties<'a> {
        /// Diagnostics for people. [5.0 §3.4.2.2.2]
        reason_string,
    } repeated {
        /// [5.0 §3.4.2.2.3]
        user_properties: user_property,
    }
}

properties! {
    /// Properties of a SUBSCRIBE packet. [5.0 §3.8.2.1]
    pub struct SubscribeProperties<'a> {
        /// The number that the server adds to each message for these subscriptions.
        /// [5.0 §3.8.2.1.2]
        subscription_identifier,
    } repeated {
        /// [5.0 §3.8.2.1.3]
        user_properties: user_property,
    }
}

properties! {
    /// Properties of an UNSUBSCRIBE packet. [5.0 §3.10.2.1]
    pub struct UnsubscribeProperties<'a> {
    } repeated {
        /// [5.0 §3.10.2.1.2]
        user_properties: user_property,
    }
}

properties! {
    /// Properties of a DISCONNECT packet. [5.0 §3.14.2.2]
    pub struct DisconnectProperties<'a> {
        /// Seconds that the session outlives the connection, in place of the value in CONNECT. Only
        /// a client sends it. [5.0 §3.14.2.2.2]
        session_expiry_interval,
        /// Other servers to use, separated by spaces. Only a server sends it. [5.0 §3.14.2.2.5]
        server_reference,
        /// Diagnostics for people. [5.0 §3.14.2.2.3]
        reason_string,
    } repeated {
        /// [5.0 §3.14.2.2.4]
        user_properties: user_property,
    }
}

properties! {
    /// Properties of an AUTH packet. [5.0 §3.15.2.2]
    pub struct AuthProperties<'a> {
        /// The authentication method of CONNECT. [5.0 §3.15.2.2.2]
        authentication_method,
        /// The next data of the method. [5.0 §3.15.2.2.3]
        authentication_data,
        /// Diagnostics for people. [5.0 §3.15.2.2.4]
        reason_string,
    } repeated {
        /// [5.0 §3.15.2.2.5]
        user_properties: user_property,
    }
}
