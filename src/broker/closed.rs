//! How a connection has ended.

use crate::codec::ReasonCode;
use crate::session::{self, ProtocolError};
use crate::sync::Arc;
use alloc::boxed::Box;
use core::fmt;

/// The end of a connection: who it was, and why it has ended.
///
/// Displayed, it is a line for a log.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The Client Identifier, if the client was accepted.
    pub client_identifier: Option<Arc<str>>,
    /// Why the connection has ended.
    pub cause: CloseCause,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.client_identifier {
            Some(client_identifier) => write!(f, "client {client_identifier:?}: {}", self.cause)?,
            None => write!(f, "client that was not accepted: {}", self.cause)?,
        }
        core::error::Error::source(&self.cause).map_or(Ok(()), |source| write!(f, ": {source}"))
    }
}

/// Why a connection of a broker has ended.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseCause {
    /// The host or the broker refused the client with this reason code.
    #[error("broker refused the client: {0}")]
    Refused(ReasonCode),
    /// The host ended the connection, or the broker did because of a limit, with this reason code.
    #[error("broker ended the connection: {0}")]
    Ended(ReasonCode),
    /// Another connection of the same client took the session over. [5.0 MQTT-3.1.4-3]
    /// [3.1.1 MQTT-3.1.4-2]
    #[error("another connection of the client took the session over")]
    TakenOver,
    /// The client sent DISCONNECT.
    #[error("client disconnected: {reason_code}")]
    Disconnected {
        /// The reason code of DISCONNECT.
        reason_code: ReasonCode,
        /// The reason string of DISCONNECT.
        reason_string: Option<Box<str>>,
    },
    /// The client broke a rule.
    #[error("client broke a rule")]
    Violation(#[source] ProtocolError),
    /// CONNECT, or the client's answer during authentication, did not arrive in time.
    #[error("client sent no CONNECT or AUTH in time")]
    ConnectTimeout,
    /// The host did not answer a CONNECT or AUTH in time.
    #[error("host did not answer CONNECT or AUTH in time")]
    AnswerTimeout,
    /// The client sent nothing for 1.5 × Keep Alive.
    #[error("client sent nothing for 1.5 × its keep alive")]
    KeepAliveTimeout,
    /// The transport failed, or the client closed it without DISCONNECT.
    #[error("transport was closed without DISCONNECT")]
    ConnectionLost,
}

impl CloseCause {
    /// Converts what the server machine of a connection reports. `own` stands for an end that the
    /// broker itself has caused.
    pub(super) fn new(cause: &session::CloseCause<'_>, own: Self) -> Self {
        match cause {
            session::CloseCause::Disconnected(disconnect) => Self::Disconnected {
                reason_code: disconnect.reason_code,
                reason_string: disconnect.properties.reason_string.map(|text| text.to_str().into()),
            },
            session::CloseCause::Violation(error) => Self::Violation(*error),
            session::CloseCause::ConnectTimeout => Self::ConnectTimeout,
            session::CloseCause::AnswerTimeout => Self::AnswerTimeout,
            session::CloseCause::KeepAliveTimeout => Self::KeepAliveTimeout,
            session::CloseCause::ConnectionLost => Self::ConnectionLost,
            // Only a client is refused.
            session::CloseCause::Requested | session::CloseCause::Refused(_) => own,
        }
    }
}
