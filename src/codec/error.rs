//! What is wrong with bytes that are no packet, and with a packet that can be no bytes.

use super::reason::ReasonCode;
use super::types::Version;

/// Declares [`DecodeError`]: the rule, what it is in 5.0 and 3.1.1, and the reason code that the
/// peer is told.
macro_rules! decode_errors {
    ($($(#[$meta:meta])* $name:ident $(($(#[$field_meta:meta])* $field:ty))? $({ $($inner:tt)* })?, $text:literal, $code:ident, $v5:literal, $v3:literal;)*) => {
        /// The rule that a single packet breaks: its bytes are not a packet of this version, or not
        /// from this sender.
        ///
        /// Always fatal to the connection. [`reason_code`](Self::reason_code) is what the peer is
        /// told, where the version has a packet to tell it; [`citation`](Self::citation) is where
        /// the rule stands.
        #[non_exhaustive]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
        pub enum DecodeError {
            $(
                #[doc = concat!("The ", $text, ". [5.0 ", $v5, "] [3.1.1 ", $v3, "]")]
                $(#[$meta])*
                #[error($text)]
                $name $(($(#[$field_meta])* $field))? $({ $($inner)* })?,
            )*
        }

        impl DecodeError {
            /// The 5.0 reason code for a CONNACK or DISCONNECT that answers the packet. [5.0 §4.13]
            #[must_use]
            pub const fn reason_code(self) -> ReasonCode {
                match self {
                    $(Self::$name { .. } => ReasonCode::$code,)*
                }
            }

            /// The statement that is broken, such as `MQTT-3.3.1-4`, or the section where there is
            /// no numbered one; where the same is wrong with several packets or fields, the
            /// statements of them all, as in `MQTT-3.8.3-2, MQTT-3.10.3-2`. The standard for 3.1
            /// has no numbered statements; what is said for 3.1.1 is meant.
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
    InvalidRemainingLength, "variable byte integer goes on after four bytes", MALFORMED_PACKET, "§1.5.5", "§2.2.3";
    NonMinimalVariableByteInteger, "variable byte integer is longer than it need be", MALFORMED_PACKET, "MQTT-1.5.5-1", "§2.2.3";
    PacketTooLarge {
        /// The size that the header announces, with the header, in bytes.
        size: u32,
        /// The largest that is accepted.
        maximum: u32,
    }, "packet of {size} bytes is larger than the {maximum} that are accepted", PACKET_TOO_LARGE, "§3.2.2.3.6", "§2.2.3";
    ReservedPacketType, "packet type is reserved", MALFORMED_PACKET, "§2.1.2", "§2.2.1";
    InvalidHeaderFlags, "flags in the fixed header are not those of the packet type", MALFORMED_PACKET, "MQTT-2.1.3-1", "MQTT-2.2.2-2";
    WrongSender, "packet type is one that only the other side may send", PROTOCOL_ERROR, "§2.1.2", "§2.2.1";
    Truncated, "packet ends inside a field", MALFORMED_PACKET, "§4.13.1", "§4.8";
    TrailingBytes, "packet goes on after its last field", MALFORMED_PACKET, "§4.13.1", "§4.8";
    InvalidUtf8, "string is not well-formed UTF-8", MALFORMED_PACKET, "MQTT-1.5.4-1", "MQTT-1.5.3-1";
    NullCharacter, "string contains U+0000", MALFORMED_PACKET, "MQTT-1.5.4-2", "MQTT-1.5.3-2";
    ControlCharacter, "string has a control character or a noncharacter, which an option refuses", MALFORMED_PACKET, "§1.5.4", "§1.5.3";
    InvalidPayloadFormat, "payload is said to be UTF-8 and is not, which an option refuses", PAYLOAD_FORMAT_INVALID, "§3.3.2.3.2", "§3.3.3";
    InvalidQos, "PUBLISH has QoS 3", MALFORMED_PACKET, "MQTT-3.3.1-4", "MQTT-3.3.1-4";
    DupWithQos0, "PUBLISH has DUP set and QoS 0", MALFORMED_PACKET, "MQTT-3.3.1-2", "MQTT-3.3.1-2";
    ZeroPacketIdentifier, "packet identifier is zero", MALFORMED_PACKET, "MQTT-2.2.1-3, MQTT-2.2.1-4, MQTT-2.2.1-5, MQTT-2.2.1-6", "MQTT-2.3.1-1";
    WildcardInTopicName, "topic name contains a wildcard", MALFORMED_PACKET, "MQTT-4.7.0-1, MQTT-3.3.2-2", "MQTT-4.7.1-1, MQTT-3.3.2-2";
    EmptyTopicName, "topic name is empty", MALFORMED_PACKET, "MQTT-4.7.3-1", "MQTT-4.7.3-1";
    MissingTopicName, "PUBLISH has neither a topic name nor a topic alias", PROTOCOL_ERROR, "§3.3.2.1", "MQTT-4.7.3-1";
    EmptyTopicFilter, "topic filter is empty", MALFORMED_PACKET, "MQTT-4.7.3-1", "MQTT-4.7.3-1";
    InvalidWildcard, "wildcard in a topic filter does not occupy a whole level, or # is not in the last one", MALFORMED_PACKET, "MQTT-4.7.1-1, MQTT-4.7.1-2", "MQTT-4.7.1-2, MQTT-4.7.1-3";
    InvalidShareName, "shared subscription has no valid share name or no topic filter", MALFORMED_PACKET, "MQTT-4.8.2-1, MQTT-4.8.2-2", "§4.7";
    InvalidProtocolName, "protocol name is not one of MQTT", UNSUPPORTED_PROTOCOL_VERSION, "MQTT-3.1.2-1", "MQTT-3.1.2-1";
    UnsupportedProtocolVersion(
        /// The protocol level that was asked for.
        u8
    ), "protocol version {0} is not known", UNSUPPORTED_PROTOCOL_VERSION, "MQTT-3.1.2-1, MQTT-3.1.2-2", "MQTT-3.1.2-1, MQTT-3.1.2-2";
    ConnectReservedFlag, "reserved bit of the connect flags is set", MALFORMED_PACKET, "MQTT-3.1.2-3", "MQTT-3.1.2-3";
    InvalidWillQos, "will has QoS 3", MALFORMED_PACKET, "MQTT-3.1.2-12", "MQTT-3.1.2-14";
    WillQosWithoutWill, "will QoS is set without a will", MALFORMED_PACKET, "MQTT-3.1.2-11", "MQTT-3.1.2-13";
    WillRetainWithoutWill, "will retain is set without a will", MALFORMED_PACKET, "MQTT-3.1.2-13", "MQTT-3.1.2-15";
    PasswordWithoutUserName, "password comes without a user name", MALFORMED_PACKET, "§3.1.2.9", "MQTT-3.1.2-22";
    ClientIdentifierRejected, "client identifier is one that this version does not allow", CLIENT_IDENTIFIER_NOT_VALID, "§3.1.3.1", "MQTT-3.1.3-7, MQTT-3.1.3-8";
    ConnackReservedFlags, "reserved bits of the connect acknowledge flags are set", MALFORMED_PACKET, "MQTT-3.2.2-1", "§3.2.2.1";
    SessionPresentWithError, "CONNACK refuses with session present set", PROTOCOL_ERROR, "MQTT-3.2.2-6", "MQTT-3.2.2-4";
    InvalidReasonCode(
        /// The code, as the 5.0 reason code or 3.x return code that it was.
        u8
    ), "code {0:#04x} may not be sent in this packet", PROTOCOL_ERROR, "§2.4, MQTT-3.2.2-8, MQTT-3.4.2-1, MQTT-3.5.2-1, MQTT-3.6.2-1, MQTT-3.7.2-1, MQTT-3.9.3-2, MQTT-3.11.3-2, MQTT-3.14.2-1, MQTT-3.15.2-1", "§3.2.2.3, MQTT-3.9.3-2";
    EmptySubscribe, "packet lists no topic filter or no reason code", PROTOCOL_ERROR, "MQTT-3.8.3-2, MQTT-3.10.3-2, §3.9.3, §3.11.3", "MQTT-3.8.3-3, MQTT-3.10.3-2, §3.9.3";
    SubscribeReservedBits, "reserved bits of the subscription options are set", MALFORMED_PACKET, "MQTT-3.8.3-5", "MQTT-3.8.3-4";
    InvalidSubscriptionQos, "subscription asks for QoS 3", PROTOCOL_ERROR, "§3.8.3.1", "MQTT-3.8.3-4";
    InvalidRetainHandling, "subscription has retain handling 3", PROTOCOL_ERROR, "§3.8.3.1", "§3.8.3.1";
    NoLocalOnSharedSubscription, "shared subscription has no local set", PROTOCOL_ERROR, "MQTT-3.8.3-4", "§3.8.3.1";
    PropertyNotAllowed(
        /// The property identifier.
        u32
    ), "property {0:#04x} may not stand in this packet", MALFORMED_PACKET, "§2.2.2.2", "§2.2.2";
    DuplicateProperty(
        /// The property identifier.
        u32
    ), "property {0:#04x} stands twice", PROTOCOL_ERROR, "§2.2.2.2", "§2.2.2";
    InvalidPropertyValue(
        /// The property identifier.
        u32
    ), "property {0:#04x} has a value out of its range", PROTOCOL_ERROR, "§2.2.2.2", "§2.2.2";
    ZeroTopicAlias, "topic alias is zero", TOPIC_ALIAS_INVALID, "MQTT-3.3.2-8", "§2.2.2";
    AuthenticationDataWithoutMethod, "CONNECT has authentication data without an authentication method", PROTOCOL_ERROR, "§3.1.2.11.10", "§2.2.2";
    MissingAuthenticationMethod, "AUTH has no authentication method", PROTOCOL_ERROR, "§3.15.2.2.2", "§2.2.2";
    PropertyFromWrongSender(
        /// The property identifier.
        u32
    ), "property {0:#04x} is one that only the other side may send", PROTOCOL_ERROR, "MQTT-3.3.4-6, MQTT-3.14.2-2, §3.14.2.2.5", "§2.2.2";
}

/// Why a packet was not encoded. Nothing was written.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The packet breaks a rule: whoever received it would have to refuse it.
    #[error(transparent)]
    Forbidden(#[from] DecodeError),
    /// A string or binary field is longer than 65,535 bytes. [5.0 §1.5.4] [3.1.1 §1.5.3]
    #[error("string or binary field is longer than 65,535 bytes")]
    FieldTooLong,
    /// The Remaining Length would be more than 268,435,455. [5.0 §2.1.4] [3.1.1 §2.2.3]
    #[error("packet is longer than the 268,435,455 bytes that a remaining length can tell")]
    PacketTooLong,
    /// Something that this version has no place for: properties, a reason code, subscription
    /// options, AUTH.
    #[error("version {0} cannot say what the packet says")]
    NotInVersion(Version),
    /// A PUBLISH with QoS 0 has a packet identifier, or one with QoS 1 or 2 has none. [5.0
    /// MQTT-2.2.1-2] [3.1.1 MQTT-2.3.1-5]
    #[error("packet identifier does not go with the QoS")]
    PacketIdentifier,
    /// The packet does not fit what is left of an output of fixed size.
    #[error("output has no room for the packet's {0} bytes")]
    NoRoom(usize),
}
