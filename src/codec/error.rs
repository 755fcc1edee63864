//! Decode errors (the bytes are not a valid packet) and encode errors (the packet cannot be
//! written).

use super::reason::ReasonCode;
use super::types::Version;

/// Declares [`DecodeError`]: for each rule its text, its reason code, and its statements in 5.0 and
/// in 3.1.1.
macro_rules! decode_errors {
    ($(
        $(#[$meta:meta])*
        $name:ident $(($(#[$field_meta:meta])* $field:ty))? $({ $($inner:tt)* })?,
        $text:literal, $code:ident, $v5:literal, $v3:literal;
    )*) => {
        /// The rule that a single packet breaks, so that its bytes are not a packet of this version
        /// or not one from this sender.
        ///
        /// It always ends the connection. [`reason_code`](Self::reason_code) returns the code for
        /// the peer, if the version has a packet that carries one.
        /// [`citation`](Self::citation) returns the place of the rule in the standard.
        #[non_exhaustive]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
        pub enum DecodeError {
            $(
                #[doc = concat!("The ", $text, ". [5.0 ", $v5, "] [3.1.1 ", $v3, "]")]
                $(#[$meta])*
                #[error($text)]
                $name $(($(#[$field_meta])* $field))? $({ $($inner)* })?,
            )*
        }

        impl DecodeError {
            /// Returns the 5.0 reason code for the CONNACK or DISCONNECT that answers the packet.
            /// [5.0 §4.13]
            #[must_use]
            pub const fn reason_code(self) -> ReasonCode {
                match self {
                    $(Self::$name { .. } => ReasonCode::$code,)*
                }
            }

            /// Returns the broken statement, such as `MQTT-3.3.1-4`, or the section if it has no
            /// numbered one.
            ///
            /// If the rule concerns several packets or fields, the statements of all are listed, as
            /// in `MQTT-3.8.3-2, MQTT-3.10.3-2`. 3.1 has no numbered statements; the ones of 3.1.1
            /// are returned for it.
            #[must_use]
            pub const fn citation(self, version: Version) -> &'static str {
                match (self, version) {
                    $(
                        (Self::$name { .. }, Version::V5_0) => $v5,
                        (Self::$name { .. }, Version::V3_1 | Version::V3_1_1) => $v3,
                    )*
                }
            }
        }
    };
}

decode_errors! {
    InvalidRemainingLength, "variable byte integer is longer than four bytes", MALFORMED_PACKET, "§1.5.5", "§2.2.3";
    NonMinimalVariableByteInteger, "variable byte integer has more bytes than its value needs", MALFORMED_PACKET, "MQTT-1.5.5-1", "§2.2.3";
    PacketTooLarge {
        /// The size of the packet in bytes, with its header, as the header announces it.
        size: u32,
        /// The largest accepted size in bytes.
        maximum: u32,
    }, "packet has {size} bytes, more than the {maximum} that are accepted", PACKET_TOO_LARGE, "§3.2.2.3.6", "§2.2.3";
    ReservedPacketType, "packet type is reserved in this version", MALFORMED_PACKET, "§2.1.2", "§2.2.1";
    InvalidHeaderFlags, "fixed header flags are not the ones that the packet type requires", MALFORMED_PACKET, "MQTT-2.1.3-1", "MQTT-2.2.2-2";
    WrongSender, "packet type is one that only the other side can send", PROTOCOL_ERROR, "§2.1.2", "§2.2.1";
    Truncated, "packet ends inside a field", MALFORMED_PACKET, "§4.13.1", "§4.8";
    TrailingBytes, "packet has bytes after its last field", MALFORMED_PACKET, "§4.13.1", "§4.8";
    InvalidUtf8, "string is not well-formed UTF-8", MALFORMED_PACKET, "MQTT-1.5.4-1", "MQTT-1.5.3-1";
    NullCharacter, "string contains U+0000", MALFORMED_PACKET, "MQTT-1.5.4-2", "MQTT-1.5.3-2";
    ControlCharacter, "string contains a control character or a noncharacter, which an option refuses", MALFORMED_PACKET, "§1.5.4", "§1.5.3";
    InvalidPayloadFormat, "payload is not UTF-8, although its payload format indicator is 1", PAYLOAD_FORMAT_INVALID, "§3.3.2.3.2", "§3.3.3";
    InvalidQos, "PUBLISH has QoS 3, expected 0, 1 or 2", MALFORMED_PACKET, "MQTT-3.3.1-4", "MQTT-3.3.1-4";
    DupWithQos0, "PUBLISH has DUP set and QoS 0", MALFORMED_PACKET, "MQTT-3.3.1-2", "MQTT-3.3.1-2";
    ZeroPacketIdentifier, "packet identifier is 0, expected 1 to 65,535", MALFORMED_PACKET, "MQTT-2.2.1-3, MQTT-2.2.1-4, MQTT-2.2.1-5, MQTT-2.2.1-6", "MQTT-2.3.1-1";
    WildcardInTopicName, "topic name contains a wildcard", MALFORMED_PACKET, "MQTT-4.7.0-1, MQTT-3.3.2-2", "MQTT-4.7.1-1, MQTT-3.3.2-2";
    WildcardInResponseTopic, "response topic contains a wildcard", MALFORMED_PACKET, "MQTT-3.3.2-14, MQTT-4.7.0-1", "§2.2.2";
    EmptyTopicName, "topic name is empty", MALFORMED_PACKET, "MQTT-4.7.3-1", "MQTT-4.7.3-1";
    MissingTopicName, "PUBLISH has neither a topic name nor a topic alias", PROTOCOL_ERROR, "§3.3.2.1", "MQTT-4.7.3-1";
    EmptyTopicFilter, "topic filter is empty", MALFORMED_PACKET, "MQTT-4.7.3-1", "MQTT-4.7.3-1";
    InvalidWildcard, "topic filter has a wildcard that is not alone in its level, or a # before the last level", MALFORMED_PACKET, "MQTT-4.7.1-1, MQTT-4.7.1-2", "MQTT-4.7.1-2, MQTT-4.7.1-3";
    InvalidShareName, "shared subscription lacks a valid share name or a topic filter", MALFORMED_PACKET, "MQTT-4.8.2-1, MQTT-4.8.2-2", "§4.7";
    InvalidProtocolName, "protocol name is not MQTT or MQIsdp", UNSUPPORTED_PROTOCOL_VERSION, "MQTT-3.1.2-1", "MQTT-3.1.2-1";
    UnsupportedProtocolVersion(
        /// The protocol level in CONNECT.
        u8
    ), "protocol level is {0}, expected 3 with MQIsdp, or 4 or 5 with MQTT", UNSUPPORTED_PROTOCOL_VERSION, "MQTT-3.1.2-1, MQTT-3.1.2-2", "MQTT-3.1.2-1, MQTT-3.1.2-2";
    ConnectReservedFlag, "reserved bit of the connect flags is set", MALFORMED_PACKET, "MQTT-3.1.2-3", "MQTT-3.1.2-3";
    InvalidWillQos, "will has QoS 3, expected 0, 1 or 2", MALFORMED_PACKET, "MQTT-3.1.2-12", "MQTT-3.1.2-14";
    WillQosWithoutWill, "will QoS is set without a will", MALFORMED_PACKET, "MQTT-3.1.2-11", "MQTT-3.1.2-13";
    WillRetainWithoutWill, "will retain is set without a will", MALFORMED_PACKET, "MQTT-3.1.2-13", "MQTT-3.1.2-15";
    PasswordWithoutUserName, "password is present without a user name", MALFORMED_PACKET, "§3.1.2.9", "MQTT-3.1.2-22";
    ClientIdentifierRejected, "client identifier is empty or longer than this version allows", CLIENT_IDENTIFIER_NOT_VALID, "§3.1.3.1", "MQTT-3.1.3-7, MQTT-3.1.3-8";
    ConnackReservedFlags, "reserved bits of the connect acknowledge flags are set", MALFORMED_PACKET, "MQTT-3.2.2-1", "§3.2.2.1";
    SessionPresentWithError, "CONNACK with an error has session present set", PROTOCOL_ERROR, "MQTT-3.2.2-6", "MQTT-3.2.2-4";
    InvalidReasonCode(
        /// The 5.0 reason code or 3.x return code, as on the wire.
        u8
    ), "code {0:#04x} is not one that this packet can carry", PROTOCOL_ERROR, "§2.4, MQTT-3.2.2-8, MQTT-3.4.2-1, MQTT-3.5.2-1, MQTT-3.6.2-1, MQTT-3.7.2-1, MQTT-3.9.3-2, MQTT-3.11.3-2, MQTT-3.14.2-1, MQTT-3.15.2-1", "§3.2.2.3, MQTT-3.9.3-2";
    EmptySubscribe, "packet has an empty list, expected at least one topic filter or reason code", PROTOCOL_ERROR, "MQTT-3.8.3-2, MQTT-3.10.3-2, §3.9.3, §3.11.3", "MQTT-3.8.3-3, MQTT-3.10.3-2, §3.9.3";
    SubscribeReservedBits, "reserved bits of the subscription options are set", MALFORMED_PACKET, "MQTT-3.8.3-5", "MQTT-3.8.3-4";
    InvalidSubscriptionQos, "subscription requests QoS 3, expected 0, 1 or 2", PROTOCOL_ERROR, "§3.8.3.1", "MQTT-3.8.3-4";
    InvalidRetainHandling, "subscription has retain handling 3, expected 0, 1 or 2", PROTOCOL_ERROR, "§3.8.3.1", "§3.8.3.1";
    NoLocalOnSharedSubscription, "shared subscription has no local set", PROTOCOL_ERROR, "MQTT-3.8.3-4", "§3.8.3.1";
    PropertyNotAllowed(
        /// The property identifier.
        u32
    ), "property {0:#04x} is not one that this packet can carry", MALFORMED_PACKET, "§2.2.2.2", "§2.2.2";
    DuplicateProperty(
        /// The property identifier.
        u32
    ), "property {0:#04x} is present twice", PROTOCOL_ERROR, "§2.2.2.2", "§2.2.2";
    InvalidPropertyValue(
        /// The property identifier.
        u32
    ), "property {0:#04x} has a value outside its range", PROTOCOL_ERROR, "§2.2.2.2", "§2.2.2";
    ZeroTopicAlias, "topic alias is 0, expected 1 to 65,535", TOPIC_ALIAS_INVALID, "MQTT-3.3.2-8", "§2.2.2";
    AuthenticationDataWithoutMethod, "CONNECT has authentication data without an authentication method", PROTOCOL_ERROR, "§3.1.2.11.10", "§2.2.2";
    MissingAuthenticationMethod, "AUTH has no authentication method", PROTOCOL_ERROR, "§3.15.2.2.2", "§2.2.2";
    PropertyFromWrongSender(
        /// The property identifier.
        u32
    ), "property {0:#04x} is one that only the other side can send", PROTOCOL_ERROR, "MQTT-3.3.4-6, MQTT-3.14.2-2, §3.14.2.2.5", "§2.2.2";
}

/// The reason why a packet was not encoded. Nothing was written.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum EncodeError {
    /// The packet breaks a rule, so a receiver would have to refuse it. `source` names the rule.
    #[error("packet breaks a rule of the standard")]
    Forbidden(#[from] DecodeError),
    /// A string or binary field has more than 65,535 bytes. [5.0 §1.5.4] [3.1.1 §1.5.3]
    #[error("string or binary field is longer than 65,535 bytes")]
    FieldTooLong,
    /// The Remaining Length would exceed 268,435,455. [5.0 §2.1.4] [3.1.1 §2.2.3]
    #[error("remaining length of the packet exceeds 268,435,455 bytes")]
    PacketTooLong,
    /// The packet has something that this version lacks: properties, a reason code, subscription
    /// options, or the packet type AUTH.
    #[error("packet has a part that version {0} lacks")]
    NotInVersion(Version),
    /// A PUBLISH with QoS 0 has a packet identifier, or one with QoS 1 or 2 has none.
    /// [5.0 MQTT-2.2.1-2] [3.1.1 MQTT-2.3.1-5]
    #[error("PUBLISH has a packet identifier with QoS 0, or none with QoS 1 or 2")]
    PacketIdentifier,
    /// An output of fixed size has too little room for the packet.
    #[error("output has no room for the {0} bytes of the packet")]
    NoRoom(usize),
}
