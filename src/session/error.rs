//! Errors: why a connection ended, and why a command was refused.

use crate::codec::{Connack, DecodeError, Disconnect, EncodeError, PacketType, QoS, ReasonCode};
use core::fmt;

/// A rule that the peer broke. It ends the connection.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The bytes are not a valid packet.
    #[error(transparent)]
    Packet(#[from] DecodeError),
    /// The first bytes are not the start of a CONNECT. [5.0 MQTT-3.1.0-1] [3.1.1 MQTT-3.1.0-1]
    #[error("expected a CONNECT as the first packet")]
    NotConnect,
    /// The first bytes are not the start of a CONNACK or AUTH. [3.1.1 MQTT-3.2.0-1]
    #[error("expected a CONNACK as the first packet")]
    NotConnack,
    /// The packet is not allowed in this state, such as a second CONNECT. [5.0 MQTT-3.1.0-2]
    /// [3.1.1 MQTT-3.1.0-2]
    #[error("{0:?} packet is not allowed in this state of the connection")]
    UnexpectedPacket(PacketType),
    /// The peer sent more QoS 1 and 2 messages at once than this side's Receive Maximum.
    /// [5.0 §3.3.4]
    #[error("more messages in flight than the receive maximum allows")]
    ReceiveMaximumExceeded,
    /// The topic alias is greater than this side's Topic Alias Maximum. [5.0 §3.3.4]
    #[error("topic alias {0} is greater than the topic alias maximum")]
    TopicAliasInvalid(u16),
    /// The topic alias has no topic name on this connection. [5.0 §3.3.4]
    #[error("topic alias {0} has no topic name on this connection")]
    UnknownTopicAlias(u16),
    /// The QoS is greater than the Maximum QoS of the server. [5.0 §3.2.2.3.4]
    #[error("message has a greater QoS than the maximum QoS")]
    QosNotSupported,
    /// The message has RETAIN set, and the server has stated that it does not support it.
    /// [5.0 §3.2.2.3.5]
    #[error("message has RETAIN set, which the server does not support")]
    RetainNotSupported,
    /// The server has stated that it does not support this kind of subscription, which the reason
    /// code names. [5.0 §3.2.2.3.11 to §3.2.2.3.13]
    #[error("subscription is of a kind that is not available: {0}")]
    SubscriptionNotSupported(ReasonCode),
    /// A request or message reuses the packet identifier of an unanswered one. In 5.0 a reason code
    /// reports this instead, unless the output has no room for it. [3.1.1 MQTT-2.3.1-2]
    #[error("{0:?} packet has a packet identifier that is in use")]
    PacketIdentifierInUse(PacketType),
    /// The server sent a reason string or user properties, although the client set Request Problem
    /// Information to 0. [5.0 §3.1.2.11.7]
    #[error("reason string or user properties were sent although the client refused them")]
    ProblemInformation,
    /// The server sent Response Information that the client did not request. [5.0 §3.1.2.11.6]
    #[error("response information was sent although the client did not request it")]
    ResponseInformation,
    /// The client has no identifier, and CONNACK does not assign one. [5.0 MQTT-3.1.3-7]
    #[error("server assigned no client identifier to a client without one")]
    NoAssignedClientIdentifier,
    /// The acknowledgement is for another kind of packet than was sent with the identifier.
    /// [5.0 §4.3] [3.1.1 §4.3]
    #[error("{0:?} packet acknowledges a packet of another kind")]
    WrongAcknowledgement(PacketType),
    /// The SUBACK or UNSUBACK answers no request, or has more or fewer codes than the request has
    /// filters. [5.0 MQTT-3.8.4-6] [3.1.1 MQTT-3.8.4-5]
    #[error("{0:?} packet does not match a request")]
    WrongAnswer(PacketType),
    /// The server resumes a session that this client does not have, most often because the client's
    /// program was restarted. [5.0 MQTT-3.2.2-4]
    ///
    /// Every further CONNECT without Clean Start ends the same way. The remedy is one of three:
    /// connect with [Clean Start](crate::codec::Connect::clean_start) set; let the machine do so
    /// ([`clean_start_when_required`][required]); or store the session and give it to the next run
    /// ([`Session::to_bytes`][store], [`Client::with_session`][load]).
    ///
    /// [required]: crate::client::ClientConfig::clean_start_when_required
    /// [store]: super::Session::to_bytes
    /// [load]: crate::client::Client::with_session
    #[error(
        "server resumes a session that this client does not have: \
         connect with clean start, or restore the stored session"
    )]
    CleanStartRequired,
    /// The AUTH packet or authentication method does not belong to this authentication.
    /// [5.0 MQTT-4.12.0-5]
    #[error("AUTH packet or authentication method does not match the authentication in progress")]
    AuthenticationMethod,
    /// DISCONNECT changes a Session Expiry Interval that was 0 in CONNECT. [5.0 §3.14.2.2.2]
    #[error("DISCONNECT changes a session expiry interval that was 0 in CONNECT")]
    SessionExpiryInterval,
    /// The peer's Maximum Packet Size is too small for a packet that must be sent.
    /// [5.0 MQTT-3.1.2-24]
    #[error("maximum packet size of the peer is too small for a required answer")]
    NoRoomForAnswer,
}

impl ProtocolError {
    /// Returns the reason code that is sent to the peer. [5.0 §4.13]
    #[must_use]
    pub const fn reason_code(self) -> ReasonCode {
        match self {
            Self::Packet(error) => error.reason_code(),
            Self::ReceiveMaximumExceeded => ReasonCode::RECEIVE_MAXIMUM_EXCEEDED,
            Self::TopicAliasInvalid(_) => ReasonCode::TOPIC_ALIAS_INVALID,
            Self::QosNotSupported => ReasonCode::QOS_NOT_SUPPORTED,
            Self::RetainNotSupported => ReasonCode::RETAIN_NOT_SUPPORTED,
            Self::SubscriptionNotSupported(reason_code) => reason_code,
            Self::NoRoomForAnswer => ReasonCode::PACKET_TOO_LARGE,
            Self::NotConnect
            | Self::NotConnack
            | Self::UnexpectedPacket(_)
            | Self::UnknownTopicAlias(_)
            | Self::PacketIdentifierInUse(_)
            | Self::ProblemInformation
            | Self::ResponseInformation
            | Self::NoAssignedClientIdentifier
            | Self::WrongAcknowledgement(_)
            | Self::WrongAnswer(_)
            | Self::CleanStartRequired
            | Self::AuthenticationMethod
            | Self::SessionExpiryInterval => ReasonCode::PROTOCOL_ERROR,
        }
    }
}

/// Why a connection has ended. A machine reports it last.
///
/// It is an [`Error`](core::error::Error), so that a host can return it with `?`; the variants that
/// borrow from the input must be turned into text or a reason code first.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCause<'a> {
    /// The host asked for it.
    Requested,
    /// The server refused the connection. Only a client reports this. A server that refuses reports
    /// [`Requested`](Self::Requested).
    Refused(Connack<'a>),
    /// The peer sent DISCONNECT.
    Disconnected(Disconnect<'a>),
    /// The peer broke a rule. This side reported it in DISCONNECT or CONNACK if the version allows
    /// it.
    Violation(ProtocolError),
    /// CONNECT, CONNACK, or an answer during authentication did not arrive in time.
    ConnectTimeout,
    /// The host did not answer a CONNECT or AUTH in time.
    AnswerTimeout,
    /// The client sent nothing for 1.5 × Keep Alive, or the server did not answer a PINGREQ.
    KeepAliveTimeout,
    /// The host reported that the transport is closed.
    ConnectionLost,
}

impl CloseCause<'_> {
    /// Returns the reason code that was received or sent, or else the nearest one.
    #[must_use]
    pub const fn reason_code(&self) -> ReasonCode {
        match self {
            Self::Requested => ReasonCode::SUCCESS,
            Self::Refused(connack) => connack.reason_code,
            Self::Disconnected(disconnect) => disconnect.reason_code,
            Self::Violation(error) => error.reason_code(),
            Self::KeepAliveTimeout => ReasonCode::KEEP_ALIVE_TIMEOUT,
            Self::AnswerTimeout => ReasonCode::SERVER_UNAVAILABLE,
            Self::ConnectTimeout | Self::ConnectionLost => ReasonCode::UNSPECIFIED_ERROR,
        }
    }
}

/// Writes a sentence for logs, with the reason string of the peer if there is one. The source names
/// the rule that the peer broke.
impl fmt::Display for CloseCause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (text, reason_string) = match self {
            Self::Requested => return f.write_str("connection was closed on request"),
            Self::Refused(connack) => {
                ("server refused the connection", connack.properties.reason_string)
            }
            Self::Disconnected(disconnect) => {
                ("peer closed the connection", disconnect.properties.reason_string)
            }
            Self::Violation(_) => return f.write_str("peer broke a rule"),
            Self::ConnectTimeout => return f.write_str("peer did not answer in time"),
            Self::AnswerTimeout => return f.write_str("host did not answer in time"),
            Self::KeepAliveTimeout => return f.write_str("peer sent nothing in time"),
            Self::ConnectionLost => return f.write_str("connection was lost"),
        };
        write!(f, "{text}: {}", self.reason_code())?;
        reason_string.map_or(Ok(()), |reason_string| write!(f, " ({reason_string})"))
    }
}

impl core::error::Error for CloseCause<'_> {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        if let Self::Violation(error) = self { Some(error) } else { None }
    }
}

/// The reason why a message was not accepted for sending. Nothing was written or kept, and the
/// connection is unaffected.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The DUP flag or a packet identifier is set; the session chooses both.
    #[error("expected no DUP flag and no packet identifier, which the session chooses")]
    NotNew,
    /// The packet cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The packet exceeds the peer's Maximum Packet Size. [5.0 MQTT-3.2.2-15] [5.0 MQTT-3.1.2-24]
    #[error("packet of {size} bytes exceeds the peer's maximum packet size of {maximum}")]
    TooLarge {
        /// The size of the whole packet in bytes.
        size: u32,
        /// The Maximum Packet Size of the peer.
        maximum: u32,
    },
    /// The QoS is greater than the Maximum QoS of the server. [5.0 MQTT-3.2.2-11]
    #[error("server accepts no QoS greater than {}", maximum.as_u8())]
    QosNotSupported {
        /// The Maximum QoS of the server.
        maximum: QoS,
    },
    /// The server does not support retained messages. [5.0 MQTT-3.2.2-14]
    #[error("server does not support retained messages")]
    RetainNotSupported,
    /// The topic alias is 0 or greater than the peer allows. [5.0 MQTT-3.3.2-9]
    /// [5.0 MQTT-3.3.2-11]
    #[error("topic alias is not in the range from 1 to {maximum} that the peer allows")]
    TopicAliasInvalid {
        /// The Topic Alias Maximum of the peer. It is 0 if the machine assigns the aliases itself.
        maximum: u16,
    },
    /// The message has no topic name, and its topic alias has none on this connection.
    #[error("topic alias has no topic name on this connection")]
    UnknownTopicAlias,
    /// The queue has no room for the message.
    #[error("queue of waiting messages is full")]
    QueueFull,
}

/// Why a SUBSCRIBE, UNSUBSCRIBE, AUTH or DISCONNECT was not sent. Nothing was written, and the
/// connection is unaffected.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The server has not accepted a connection, or it has ended.
    #[error("there is no connection")]
    NotConnected,
    /// The packet cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The packet exceeds the server's Maximum Packet Size. [5.0 MQTT-3.2.2-15]
    #[error("packet of {size} bytes exceeds the server's maximum packet size of {maximum}")]
    TooLarge {
        /// The size of the whole packet in bytes.
        size: u32,
        /// The Maximum Packet Size of the server.
        maximum: u32,
    },
    /// The server has stated that it does not support what the reason code names: wildcards,
    /// subscription identifiers or shared subscriptions. [5.0 §3.2.2.3.11 to §3.2.2.3.13]
    #[error("subscription is of a kind that the server does not support: {0}")]
    NotSupported(ReasonCode),
    /// The authentication method differs from that of CONNECT, the server has not asked for an
    /// AUTH, or a re-authentication starts before the server has accepted. [5.0 MQTT-4.12.0-3]
    /// [5.0 MQTT-4.12.0-5] [5.0 MQTT-4.12.0-7] [5.0 MQTT-4.12.1-1]
    #[error("AUTH does not match the authentication that CONNECT started")]
    Authentication,
    /// All packet identifiers are in use.
    #[error("all packet identifiers are in use")]
    NoPacketIdentifier,
}

/// The reason why a message was not acknowledged.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcknowledgeError {
    /// The connection that delivered the message has ended. The peer will redeliver the message.
    #[error("connection that delivered the message has ended")]
    Stale,
    /// The message is already acknowledged, by the host or by the machine.
    #[error("message is already acknowledged")]
    AlreadyAcknowledged,
    /// A PUBACK or PUBREC from this side must not carry the code. [5.0 MQTT-3.4.2-1]
    #[error("{0} is not a reason code of an acknowledgement")]
    ReasonCode(ReasonCode),
    /// The reason string or user properties cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// Why a packet was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteError {
    /// The packet cannot be encoded, or the output has no room for it.
    Encode(EncodeError),
    /// The packet exceeds the peer's Maximum Packet Size.
    TooLarge { size: u32, maximum: u32 },
}

impl From<EncodeError> for WriteError {
    fn from(error: EncodeError) -> Self {
        Self::Encode(error)
    }
}

/// Defines the conversion of [`WriteError`] to the error of a command.
macro_rules! from_write_error {
    ($error:ty) => {
        impl From<WriteError> for $error {
            fn from(error: WriteError) -> Self {
                match error {
                    WriteError::Encode(error) => Self::Encode(error),
                    WriteError::TooLarge { size, maximum } => Self::TooLarge { size, maximum },
                }
            }
        }
    };
}

pub(crate) use from_write_error;

from_write_error!(PublishError);
from_write_error!(RequestError);
