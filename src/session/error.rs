//! What ends a connection, and what a command can be refused for.

use crate::codec::{Connack, DecodeError, Disconnect, EncodeError, PacketType, QoS, ReasonCode};
use core::fmt;

/// A rule that the peer has broken. It ends the connection.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Its bytes are not a packet.
    #[error(transparent)]
    Packet(#[from] DecodeError),
    /// The first bytes do not begin a CONNECT. [5.0 MQTT-3.1.0-1] [3.1.1 MQTT-3.1.0-1]
    #[error("first packet is not a CONNECT")]
    NotConnect,
    /// The first bytes do not begin a CONNACK, nor an AUTH. [3.1.1 MQTT-3.2.0-1]
    #[error("first packet is not a CONNACK")]
    NotConnack,
    /// The packet may not come now: before CONNACK, or for the second time. [5.0 MQTT-3.1.0-2]
    /// [3.1.1 MQTT-3.1.0-2]
    #[error("{0:?} packet came when it must not")]
    UnexpectedPacket(PacketType),
    /// More QoS 1 and 2 messages at once than this side has allowed. [5.0 §3.3.4]
    #[error("more messages were sent at once than the receive maximum allows")]
    ReceiveMaximumExceeded,
    /// A topic alias greater than this side has allowed. [5.0 §3.3.4]
    #[error("topic alias {0} is greater than the topic alias maximum")]
    TopicAliasInvalid(u16),
    /// A topic alias alone that no message has given a topic to. [5.0 §3.3.4]
    #[error("topic alias {0} stands for no topic")]
    UnknownTopicAlias(u16),
    /// A QoS greater than the server has said to support. [5.0 §3.2.2.3.4]
    #[error("message has a greater QoS than the maximum QoS")]
    QosNotSupported,
    /// A message to be retained, though the server has said not to support it. [5.0 §3.2.2.3.5]
    #[error("message is to be retained, which is not supported")]
    RetainNotSupported,
    /// A subscription of a kind that the server has said not to support, which the reason code
    /// names. [5.0 §3.2.2.3.11 to §3.2.2.3.13]
    #[error("client asks for what is not available: {0}")]
    SubscriptionNotSupported(ReasonCode),
    /// A request, or a message, with the packet identifier of another that is not answered; 5.0 has
    /// an answer that says so. [3.1.1 MQTT-2.3.1-2]
    #[error("{0:?} packet has the identifier of another that is not answered")]
    PacketIdentifierInUse(PacketType),
    /// A reason string or user properties that the client has asked not to be sent. [5.0
    /// §3.1.2.11.7]
    #[error("problem information was not asked for")]
    ProblemInformation,
    /// An acknowledgement for another kind of packet than was sent with the identifier. [5.0 §4.3]
    /// [3.1.1 §4.3]
    #[error("{0:?} packet acknowledges a packet of another kind")]
    WrongAcknowledgement(PacketType),
    /// A SUBACK or UNSUBACK that nothing was sent for, or with more or fewer codes than filters.
    /// [5.0 MQTT-3.8.4-6] [3.1.1 MQTT-3.8.4-5]
    #[error("{0:?} packet does not answer what was asked")]
    WrongAnswer(PacketType),
    /// The server goes on with a session that the client does not have. [5.0 MQTT-3.2.2-4]
    #[error("server resumes a session that this client does not have")]
    UnknownSession,
    /// An AUTH packet, or an authentication method, that does not belong to the authentication.
    /// [5.0 MQTT-4.12.0-5]
    #[error("authentication does not go on as it began")]
    AuthenticationMethod,
    /// A non-zero Session Expiry Interval in DISCONNECT when it was zero in CONNECT. [5.0
    /// §3.14.2.2.2]
    #[error("session expiry interval was zero and cannot be changed")]
    SessionExpiryInterval,
    /// The Maximum Packet Size of the peer leaves no room for an answer that it must be given. [5.0
    /// MQTT-3.1.2-24]
    #[error("maximum packet size of the peer leaves no room for an answer")]
    NoRoomForAnswer,
}

impl ProtocolError {
    /// What the peer is told. [5.0 §4.13]
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
            | Self::WrongAcknowledgement(_)
            | Self::WrongAnswer(_)
            | Self::UnknownSession
            | Self::AuthenticationMethod
            | Self::SessionExpiryInterval => ReasonCode::PROTOCOL_ERROR,
        }
    }
}

/// Why a connection has ended. It is the last thing that a machine says of it.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCause<'a> {
    /// The host asked for it.
    Requested,
    /// The server refused it. Only a client learns this; a server that refuses says
    /// [`Requested`](Self::Requested).
    Refused(Connack<'a>),
    /// The peer sent DISCONNECT.
    Disconnected(Disconnect<'a>),
    /// The peer broke a rule. It was told, where it could be.
    Violation(ProtocolError),
    /// CONNECT or CONNACK, or an answer during authentication, did not come in time.
    ConnectTimeout,
    /// Nothing came for one and a half times the Keep Alive, or no answer to a PINGREQ.
    KeepAliveTimeout,
    /// The host said that the connection is lost.
    ConnectionLost,
}

/// A sentence for people, with the reason string of the peer if it gave one.
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
            Self::Violation(error) => return write!(f, "peer broke a rule: {error}"),
            Self::ConnectTimeout => return f.write_str("peer did not answer in time"),
            Self::KeepAliveTimeout => return f.write_str("peer fell silent"),
            Self::ConnectionLost => return f.write_str("connection was lost"),
        };
        write!(f, "{text}: {}", self.reason_code())?;
        reason_string.map_or(Ok(()), |reason_string| write!(f, " ({reason_string})"))
    }
}

impl CloseCause<'_> {
    /// The reason code that was received or sent, or that says the same.
    #[must_use]
    pub const fn reason_code(&self) -> ReasonCode {
        match self {
            Self::Requested => ReasonCode::SUCCESS,
            Self::Refused(connack) => connack.reason_code,
            Self::Disconnected(disconnect) => disconnect.reason_code,
            Self::Violation(error) => error.reason_code(),
            Self::KeepAliveTimeout => ReasonCode::KEEP_ALIVE_TIMEOUT,
            Self::ConnectTimeout | Self::ConnectionLost => ReasonCode::UNSPECIFIED_ERROR,
        }
    }
}

/// Why a message was not taken. Nothing was written or kept; the connection goes on.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// No connection was ever asked for, so the version is not known.
    #[error("there is no connection")]
    NotConnected,
    /// The DUP flag or a packet identifier is set; both are the session's to choose.
    #[error("DUP flag or packet identifier is set, which the session chooses")]
    NotNew,
    /// The packet cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The packet is larger than the peer takes. [5.0 MQTT-3.2.2-15] [5.0 MQTT-3.1.2-24]
    #[error("packet of {size} bytes is larger than the {maximum} that the peer takes")]
    TooLarge {
        /// The size of the whole packet in bytes.
        size: u32,
        /// The Maximum Packet Size of the peer.
        maximum: u32,
    },
    /// The server does not take messages with that QoS. [5.0 MQTT-3.2.2-11]
    #[error("server takes no QoS greater than {}", maximum.as_u8())]
    QosNotSupported {
        /// The Maximum QoS of the server.
        maximum: QoS,
    },
    /// The server does not retain messages. [5.0 MQTT-3.2.2-14]
    #[error("server does not retain messages")]
    RetainNotSupported,
    /// The alias is greater than the peer takes. [5.0 MQTT-3.3.2-9] [5.0 MQTT-3.3.2-11]
    #[error("topic alias is greater than {maximum}, the greatest that the peer takes")]
    TopicAliasInvalid {
        /// The Topic Alias Maximum of the peer; 0 is none, or that the aliases are the machine's
        /// own to give.
        maximum: u16,
    },
    /// There is no topic name, and no message of this connection has given the alias one.
    #[error("topic alias stands for no topic on this connection")]
    UnknownTopicAlias,
    /// As many messages, or bytes of messages, are waiting as may wait.
    #[error("as many messages are waiting as may wait")]
    QueueFull,
}

/// Why a SUBSCRIBE, UNSUBSCRIBE, AUTH or DISCONNECT was not sent. It was not written; the
/// connection goes on.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The server has not accepted a connection, or it has ended.
    #[error("there is no connection")]
    NotConnected,
    /// The packet cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The packet is larger than the server takes. [5.0 MQTT-3.2.2-15]
    #[error("packet of {size} bytes is larger than the {maximum} that the server takes")]
    TooLarge {
        /// The size of the whole packet in bytes.
        size: u32,
        /// The Maximum Packet Size of the server.
        maximum: u32,
    },
    /// The server has said that it does not support what the reason code names: wildcards,
    /// identifiers or shared subscriptions. [5.0 §3.2.2.3.11 to §3.2.2.3.13]
    #[error("server says: {0}")]
    NotSupported(ReasonCode),
    /// The authentication method is not that of CONNECT, the server has not asked, or a
    /// re-authentication is begun before it has accepted. [5.0 MQTT-4.12.0-3] [5.0 MQTT-4.12.0-5]
    /// [5.0 MQTT-4.12.0-7] [5.0 MQTT-4.12.1-1]
    #[error("authentication is not the one that CONNECT began")]
    Authentication,
    /// All packet identifiers are in use.
    #[error("all packet identifiers are in use")]
    NoPacketIdentifier,
}

impl From<PublishError> for RequestError {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Encode(error) => Self::Encode(error),
            PublishError::TooLarge { size, maximum } => Self::TooLarge { size, maximum },
            PublishError::NotConnected
            | PublishError::NotNew
            | PublishError::QosNotSupported { .. }
            | PublishError::RetainNotSupported
            | PublishError::TopicAliasInvalid { .. }
            | PublishError::UnknownTopicAlias
            | PublishError::QueueFull => Self::NotConnected,
        }
    }
}

/// Why a message was not acknowledged.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcknowledgeError {
    /// The connection that the message came by has ended; the peer will send the message again.
    #[error("message came by a connection that has ended")]
    Stale,
    /// It is acknowledged already, by hand or by itself.
    #[error("message is acknowledged already")]
    AlreadyAcknowledged,
    /// A PUBACK or PUBREC from this side may not carry the code. [5.0 MQTT-3.4.2-1]
    #[error("{0} may not be sent in an acknowledgement")]
    ReasonCode(ReasonCode),
}
