//! Decode errors (the bytes are not a valid message) and encode errors (the message cannot be
//! written).

use crate::codec;

/// Declares [`DecodeError`]: for each rule its text and its section.
macro_rules! decode_errors {
    ($($name:ident $(($field:ty))?, $text:literal, $section:literal;)*) => {
        /// The rule that a single datagram breaks, so that its bytes are not a message.
        ///
        /// The receiver discards the datagram. [`citation`](Self::citation) returns the section of
        /// the specification.
        #[non_exhaustive]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
        pub enum DecodeError {
            $(
                #[doc = concat!("The ", $text, ". [SN ", $section, "]")]
                #[error($text)]
                $name $(($field))?,
            )*
        }

        impl DecodeError {
            /// Returns the section of the broken rule, such as `§5.2.1`.
            #[must_use]
            pub const fn citation(self) -> &'static str {
                match self {
                    $(Self::$name { .. } => $section,)*
                }
            }
        }
    };
}

decode_errors! {
    InvalidLength, "length field is smaller than the header that it belongs to", "§5.2.1";
    Truncated, "message ends inside a field, or before its length says", "§5.2.1";
    TrailingBytes, "message has bytes after its last field, or after its length", "§5.2.1";
    ReservedMessageType(u8), "message type {0:#04x} is reserved", "§5.2.2";
    Encapsulated, "message is encapsulated by a forwarder, expected a plain message", "§5.5";
    NotEncapsulated, "message is not encapsulated by a forwarder", "§5.5";
    ReservedControlBits, "reserved bits of the forwarder's control octet are set", "§5.5";
    ClientIdLength, "client identifier is not 1 to 23 characters long", "§5.3.1";
    ProtocolId(u8), "protocol identifier is {0:#04x}, expected 0x01", "§5.3.8";
    InvalidQos, "message has QoS 3, expected 0, 1 or 2", "§5.3.4";
    DupWithoutAcknowledgement, "PUBLISH with QoS 0 or -1 has DUP set", "§5.3.4";
    ReservedTopicIdType, "topic id type is 3, which is reserved", "§5.3.4";
    ReturnCode(u8), "return code {0:#04x} is reserved", "§5.3.10";
    ReservedTopicId, "topic id is one of the reserved values 0x0000 and 0xFFFF", "§5.3.11";
    MissingMessageId, "message id is 0, expected another one with QoS 1 or 2", "§5.4.12";
    UnexpectedMessageId, "message id is not 0, as expected with QoS 0 or -1", "§5.4.12";
    QosMinusOneTopic, "PUBLISH with QoS -1 has neither a predefined nor a short topic", "§6.8";
    InvalidUtf8, "string is not well-formed UTF-8", "§5.3.12";
    NullCharacter, "string contains U+0000", "§5.3.12";
    EmptyTopicName, "topic name or filter is empty", "§5.3.12";
    WildcardInTopicName, "topic name contains a wildcard", "§5.3.12";
    InvalidWildcard, "wildcard in the topic filter is not a whole level, or # is not last", "§6.9";
}

/// Returns the same rule about a string for messages of MQTT-SN.
impl From<codec::EncodeError> for DecodeError {
    fn from(error: codec::EncodeError) -> Self {
        use codec::DecodeError as Mqtt;
        let names = [
            (Mqtt::EmptyTopicName, Self::EmptyTopicName),
            (Mqtt::EmptyTopicFilter, Self::EmptyTopicName),
            (Mqtt::NullCharacter, Self::NullCharacter),
            (Mqtt::WildcardInTopicName, Self::WildcardInTopicName),
        ];
        // Bytes were checked to be UTF-8 before, so a filter can break only this other rule.
        let found = names.into_iter().find(|(rule, _)| error == (*rule).into());
        found.map_or(Self::InvalidWildcard, |(_, name)| name)
    }
}

/// The reason why a message was not encoded. Nothing was written.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum EncodeError {
    /// The message breaks a rule, so a receiver would have to discard it. `source` names the rule.
    #[error("message breaks a rule of the specification")]
    Forbidden(#[from] DecodeError),
    /// The message has more octets than its length field can say: 65,535, or 255 in the header of
    /// a forwarder. [SN §5.2.1] [SN §5.5]
    #[error("message of {0} bytes is longer than its length field can say")]
    TooLong(usize),
    /// An output of fixed size has too little room for the message.
    #[error("output has no room for the {0} bytes of the message")]
    NoRoom(usize),
}
