//! Errors, and the causes of the end of a connection.

use crate::Answer;
use mqtt_sansio::codec::{EncodeError, OwnedPacket, Packet, ReasonCode, Role, Rules, Version};
use mqtt_sansio::session::{self, CloseCause, ProtocolError};
use std::fmt;
use std::io;
use std::sync::Arc;

/// The cause of the end of a connection, or of an attempt to connect.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub enum Ended {
    /// This side has ended the connection.
    Requested,
    /// The transport was not opened or has failed, or the server did not answer in time.
    Io(Arc<io::Error>),
    /// The server refused the connection with this CONNACK.
    Refused(OwnedPacket),
    /// The server sent this DISCONNECT.
    Disconnected(OwnedPacket),
    /// The server broke a rule.
    Violation(ProtocolError),
    /// CONNECT could not be sent, because of its content, or because enhanced authentication
    /// failed on this side.
    Connect(Arc<str>),
}

impl Ended {
    pub(crate) fn of(cause: &CloseCause<'_>, version: Version) -> Self {
        let rules = Rules::new(version).sent_by(Role::Server);
        let owned = |packet: Packet<'_>| OwnedPacket::new(&packet, rules).ok();
        let known = match *cause {
            CloseCause::Requested => Some(Self::Requested),
            CloseCause::Violation(error) => Some(Self::Violation(error)),
            CloseCause::Refused(connack) => owned(connack.into()).map(Self::Refused),
            CloseCause::Disconnected(packet) => owned(packet.into()).map(Self::Disconnected),
            CloseCause::ConnectTimeout | CloseCause::KeepAliveTimeout => {
                Some(io::Error::new(io::ErrorKind::TimedOut, cause.to_string()).into())
            }
            _ => None,
        };
        known.unwrap_or_else(|| io::Error::other(cause.to_string()).into())
    }

    /// Returns the reason code that the server sent, if any.
    #[must_use]
    pub fn reason_code(&self) -> Option<ReasonCode> {
        let (Self::Refused(packet) | Self::Disconnected(packet)) = self else { return None };
        match packet.decode() {
            Packet::Connack(connack) => Some(connack.reason_code),
            Packet::Disconnect(disconnect) => Some(disconnect.reason_code),
            _ => None,
        }
    }

    /// Returns the Server Reference of the server, if there is one: a list of other servers for the
    /// client, separated by spaces. The client follows it only with
    /// [`follow_server_reference`](crate::Options::follow_server_reference). [5.0 §4.11]
    #[must_use]
    pub fn server_reference(&self) -> Option<String> {
        let (Self::Refused(packet) | Self::Disconnected(packet)) = self else { return None };
        let reference = match packet.decode() {
            Packet::Connack(connack) => connack.properties.server_reference,
            Packet::Disconnect(disconnect) => disconnect.properties.server_reference,
            _ => None,
        };
        reference.map(|text| text.to_str().to_owned())
    }
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

/// Writes a sentence, with the reason string of the server if there is one.
impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let packet = match self {
            Self::Requested => return CloseCause::Requested.fmt(f),
            Self::Io(error) => return error.fmt(f),
            Self::Violation(error) => return write!(f, "server broke a rule: {error}"),
            Self::Connect(text) => return f.write_str(text),
            Self::Refused(packet) | Self::Disconnected(packet) => packet,
        };
        match packet.decode() {
            Packet::Connack(connack) => CloseCause::Refused(connack).fmt(f)?,
            Packet::Disconnect(disconnect) => CloseCause::Disconnected(disconnect).fmt(f)?,
            other => other.fmt(f)?,
        }
        match self.server_reference() {
            Some(reference) => write!(f, "; the server refers to {reference}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Ended {}

/// The reason why a message was not accepted for sending.
#[non_exhaustive]
#[derive(Clone, Debug, thiserror::Error)]
pub enum PublishError {
    /// The client was closed.
    #[error("client is closed")]
    Closed,
    /// The message is invalid, or CONNACK says that the server does not accept such messages. From
    /// [`try_publish`](crate::Client::try_publish), it can also mean that the queue is full.
    #[error(transparent)]
    Refused(#[from] session::PublishError),
}

/// The reason why a message was not delivered, or why it is unknown whether it was.
#[non_exhaustive]
#[derive(Clone, Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The server refused the message.
    #[error("server refused the message: {0}")]
    Refused(Answer),
    /// The message expired before it could be sent.
    #[error("message expired before it could be sent")]
    Expired,
    /// The message was queued, and the server of the next connection does not accept its size, QoS
    /// or RETAIN flag.
    #[error("server does not accept the size, QoS or RETAIN flag of the message")]
    NotAllowed,
    /// The server has lost the session while the message was in flight with QoS 2, so it is unknown
    /// whether it has arrived. A message with QoS 1 is published again instead.
    #[error("server has lost the session, so it is unknown whether the message has arrived")]
    SessionLost,
    /// The client was closed before the message was acknowledged.
    #[error("client was closed before the message was acknowledged")]
    Closed,
}

/// The reason why a SUBSCRIBE, an UNSUBSCRIBE or a request has failed.
#[non_exhaustive]
#[derive(Clone, Debug, thiserror::Error)]
pub enum RequestError {
    /// The client was closed.
    #[error("client is closed")]
    Closed,
    /// The server refused each filter.
    #[error("server refused: {0}")]
    Refused(ReasonCode),
    /// The packet was not sent.
    #[error(transparent)]
    NotSent(#[from] session::RequestError),
    /// The packet cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The message of a request was not accepted for sending.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The message of a request was not delivered.
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
}

/// The reason why a client was not started.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The stored session cannot be read, or does not belong to the client identifier.
    #[error("cannot load the session from {path}")]
    Store {
        /// The file.
        path: std::path::PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The first attempt to connect has failed. Only [`connect`](crate::Options::connect) reports
    /// this; [`start`](crate::Options::start) tries again.
    #[error("cannot connect to {url}: {cause}")]
    Connect {
        /// The server, without user name and password.
        url: String,
        /// The cause.
        cause: Ended,
    },
    /// The URL cannot be used.
    #[error(transparent)]
    Url(#[from] UrlError),
}

/// The reason why a URL cannot be used.
#[non_exhaustive]
#[derive(Clone, Debug, thiserror::Error)]
pub enum UrlError {
    /// The text has no scheme and server.
    #[error("expected a URL such as mqtt://host:1883, got {0:?}")]
    Syntax(String),
    /// The scheme is unknown, or its feature is off.
    #[error("expected mqtt, mqtts, ws, wss or unix as the scheme of the URL, got {0:?}")]
    Scheme(String),
    /// The user name or password cannot be in a CONNECT.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}
