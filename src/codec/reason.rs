//! Reason codes, and the packets that can carry each. [5.0 §2.4]

use super::packet_type::PacketType;
use core::fmt;

/// An MQTT 5.0 Reason Code: any byte, with names for the values that the standard assigns.
/// [5.0 §2.4]
///
/// One set serves all versions. The codec translates the return codes 1 to 5 of a 3.1 or 3.1.1
/// CONNACK, in both directions, to the reason codes of the same meaning:
/// [`UNSUPPORTED_PROTOCOL_VERSION`](Self::UNSUPPORTED_PROTOCOL_VERSION),
/// [`CLIENT_IDENTIFIER_NOT_VALID`](Self::CLIENT_IDENTIFIER_NOT_VALID),
/// [`SERVER_UNAVAILABLE`](Self::SERVER_UNAVAILABLE),
/// [`BAD_USER_NAME_OR_PASSWORD`](Self::BAD_USER_NAME_OR_PASSWORD),
/// [`NOT_AUTHORIZED`](Self::NOT_AUTHORIZED). The codes of a 3.1 or 3.1.1 SUBACK have the same
/// number in 5.0.
///
/// ```
/// use mqtt_sansio::codec::ReasonCode;
///
/// let code = ReasonCode::new(0x87);
/// assert_eq!(code, ReasonCode::NOT_AUTHORIZED);
/// assert!(code.is_error());
/// assert_eq!(code.to_string(), "Not authorized");
/// assert_eq!(format!("{code:#x}"), "0x87");
/// assert_eq!(code.return_code(), Some(5));
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(from = "u8", into = "u8")
)]
pub struct ReasonCode(u8);

impl ReasonCode {
    /// Returns the reason code with this number.
    #[must_use]
    pub const fn new(code: u8) -> Self {
        Self(code)
    }

    /// Returns the number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Whether it means failure: 0x80 or greater. [5.0 §2.4]
    #[must_use]
    pub const fn is_error(self) -> bool {
        self.0 >= 0x80
    }

    /// Returns the packet types that can carry it in 5.0.
    pub(super) fn senders(self) -> Senders {
        SENDERS.get(usize::from(self.0)).copied().unwrap_or_default()
    }

    /// Returns the Connect Return code of 3.1 and 3.1.1 with the same meaning, 0 to 5, if there is
    /// one. [3.1.1 §3.2.2.3]
    #[must_use]
    pub const fn return_code(self) -> Option<u8> {
        match self {
            Self::SUCCESS => Some(0),
            Self::UNSUPPORTED_PROTOCOL_VERSION => Some(1),
            Self::CLIENT_IDENTIFIER_NOT_VALID => Some(2),
            Self::SERVER_UNAVAILABLE => Some(3),
            Self::BAD_USER_NAME_OR_PASSWORD => Some(4),
            Self::NOT_AUTHORIZED => Some(5),
            _ => None,
        }
    }

    /// Returns the reason code with the meaning of a Connect Return code of 3.1 and 3.1.1, if the
    /// code is 0 to 5. [3.1.1 §3.2.2.3]
    ///
    /// ```
    /// use mqtt_sansio::codec::ReasonCode;
    ///
    /// assert_eq!(ReasonCode::from_return_code(3), Some(ReasonCode::SERVER_UNAVAILABLE));
    /// assert_eq!(ReasonCode::from_return_code(6), None);
    /// ```
    #[must_use]
    pub const fn from_return_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::SUCCESS,
            1 => Self::UNSUPPORTED_PROTOCOL_VERSION,
            2 => Self::CLIENT_IDENTIFIER_NOT_VALID,
            3 => Self::SERVER_UNAVAILABLE,
            4 => Self::BAD_USER_NAME_OR_PASSWORD,
            5 => Self::NOT_AUTHORIZED,
            _ => return None,
        })
    }
}

/// The standard's name, or the number if it has none.
impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => write!(f, "Reason Code {:#04x}", self.0),
        }
    }
}

impl fmt::Debug for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReasonCode({:#04x}, {})", self.0, self.name().unwrap_or("?"))
    }
}

/// The packet types, one bit each, in which a client and a server can send a reason code.
#[derive(Clone, Copy, Default)]
pub(super) struct Senders {
    pub(super) client: u16,
    pub(super) server: u16,
}

/// Declares the reason codes with the packets in which a client, and the ones in which a server,
/// can send them.
macro_rules! reason_codes {
    ($($code:literal $name:ident $text:literal [$($client:ident)*] [$($server:ident)*];)*) => {
        impl ReasonCode {
            $(
                #[doc = concat!($text, ", ", stringify!($code), ". [5.0 §2.4]")]
                pub const $name: Self = Self($code);
            )*

            /// Returns the standard's name.
            pub(super) const fn name(self) -> Option<&'static str> {
                Some(match self.0 {
                    $($code => $text,)*
                    _ => return None,
                })
            }
        }

        const SENDERS: [Senders; 256] = {
            let mut table = [Senders { client: 0, server: 0 }; 256];
            $(table[$code] = Senders {
                client: 0 $(| PacketType::$client.bit())*,
                server: 0 $(| PacketType::$server.bit())*,
            };)*
            table
        };
    };
}

// Two entries are not in the tables of the packets. 0x8C in a DISCONNECT is in Table 2-6 but not in
// Table 3-10. 0x9B in a DISCONNECT from a client is what 3.3.4 tells the client to send.
reason_codes! {
    0x00 SUCCESS "Success" [Puback Pubrec Pubrel Pubcomp Disconnect] [Connack Puback Pubrec Pubrel Pubcomp Suback Unsuback Disconnect Auth];
    0x01 GRANTED_QOS_1 "Granted QoS 1" [] [Suback];
    0x02 GRANTED_QOS_2 "Granted QoS 2" [] [Suback];
    0x04 DISCONNECT_WITH_WILL_MESSAGE "Disconnect with Will Message" [Disconnect] [];
    0x10 NO_MATCHING_SUBSCRIBERS "No matching subscribers" [] [Puback Pubrec];
    0x11 NO_SUBSCRIPTION_EXISTED "No subscription existed" [] [Unsuback];
    0x18 CONTINUE_AUTHENTICATION "Continue authentication" [Auth] [Auth];
    0x19 RE_AUTHENTICATE "Re-authenticate" [Auth] [];
    0x80 UNSPECIFIED_ERROR "Unspecified error" [Puback Pubrec Disconnect] [Connack Puback Pubrec Suback Unsuback Disconnect];
    0x81 MALFORMED_PACKET "Malformed Packet" [Disconnect] [Connack Disconnect];
    0x82 PROTOCOL_ERROR "Protocol Error" [Disconnect] [Connack Disconnect];
    0x83 IMPLEMENTATION_SPECIFIC_ERROR "Implementation specific error" [Puback Pubrec Disconnect] [Connack Puback Pubrec Suback Unsuback Disconnect];
    0x84 UNSUPPORTED_PROTOCOL_VERSION "Unsupported Protocol Version" [] [Connack];
    0x85 CLIENT_IDENTIFIER_NOT_VALID "Client Identifier not valid" [] [Connack];
    0x86 BAD_USER_NAME_OR_PASSWORD "Bad User Name or Password" [] [Connack];
    0x87 NOT_AUTHORIZED "Not authorized" [Puback Pubrec] [Connack Puback Pubrec Suback Unsuback Disconnect];
    0x88 SERVER_UNAVAILABLE "Server unavailable" [] [Connack];
    0x89 SERVER_BUSY "Server busy" [] [Connack Disconnect];
    0x8A BANNED "Banned" [] [Connack];
    0x8B SERVER_SHUTTING_DOWN "Server shutting down" [] [Disconnect];
    0x8C BAD_AUTHENTICATION_METHOD "Bad authentication method" [] [Connack Disconnect];
    0x8D KEEP_ALIVE_TIMEOUT "Keep Alive timeout" [] [Disconnect];
    0x8E SESSION_TAKEN_OVER "Session taken over" [] [Disconnect];
    0x8F TOPIC_FILTER_INVALID "Topic Filter invalid" [] [Suback Unsuback Disconnect];
    0x90 TOPIC_NAME_INVALID "Topic Name invalid" [Puback Pubrec Disconnect] [Connack Puback Pubrec Disconnect];
    0x91 PACKET_IDENTIFIER_IN_USE "Packet Identifier in use" [Puback Pubrec] [Puback Pubrec Suback Unsuback];
    0x92 PACKET_IDENTIFIER_NOT_FOUND "Packet Identifier not found" [Pubrel Pubcomp] [Pubrel Pubcomp];
    0x93 RECEIVE_MAXIMUM_EXCEEDED "Receive Maximum exceeded" [Disconnect] [Disconnect];
    0x94 TOPIC_ALIAS_INVALID "Topic Alias invalid" [Disconnect] [Disconnect];
    0x95 PACKET_TOO_LARGE "Packet too large" [Disconnect] [Connack Disconnect];
    0x96 MESSAGE_RATE_TOO_HIGH "Message rate too high" [Disconnect] [Disconnect];
    0x97 QUOTA_EXCEEDED "Quota exceeded" [Puback Pubrec Disconnect] [Connack Puback Pubrec Suback Disconnect];
    0x98 ADMINISTRATIVE_ACTION "Administrative action" [Disconnect] [Disconnect];
    0x99 PAYLOAD_FORMAT_INVALID "Payload format invalid" [Puback Pubrec Disconnect] [Connack Puback Pubrec Disconnect];
    0x9A RETAIN_NOT_SUPPORTED "Retain not supported" [] [Connack Disconnect];
    0x9B QOS_NOT_SUPPORTED "QoS not supported" [Disconnect] [Connack Disconnect];
    0x9C USE_ANOTHER_SERVER "Use another server" [] [Connack Disconnect];
    0x9D SERVER_MOVED "Server moved" [] [Connack Disconnect];
    0x9E SHARED_SUBSCRIPTIONS_NOT_SUPPORTED "Shared Subscriptions not supported" [] [Suback Disconnect];
    0x9F CONNECTION_RATE_EXCEEDED "Connection rate exceeded" [] [Connack Disconnect];
    0xA0 MAXIMUM_CONNECT_TIME "Maximum connect time" [] [Disconnect];
    0xA1 SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED "Subscription Identifiers not supported" [] [Suback Disconnect];
    0xA2 WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED "Wildcard Subscriptions not supported" [] [Suback Disconnect];
}
