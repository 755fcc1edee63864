//! Questions that only the host can answer.

use super::action::ConnectionId;
use super::grants::Grants;
use super::throttle::Rates;
use crate::codec::{AckProperties, ConnackProperties, Filter, OwnedPacket, SubscriptionOptions};
use crate::session::{AckToken, Message};
use crate::time::Instant;

/// The name of a question. A broker never gives it out twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuestionId {
    pub(super) connection: ConnectionId,
    pub(super) number: u32,
}

impl QuestionId {
    /// Returns the connection of the client that waits for the answer.
    #[must_use]
    pub const fn connection(self) -> ConnectionId {
        self.connection
    }
}

/// A question that the broker asks its host.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// A client asks to connect. The CONNECT has its user name, password and will.
    ///
    /// The host answers with [`accept`], [`refuse`], or, if the CONNECT asks for enhanced
    /// authentication, [`challenge`].
    ///
    /// [`accept`]: super::Broker::accept
    /// [`refuse`]: super::Broker::refuse
    /// [`challenge`]: super::Broker::challenge
    Connect(OwnedPacket),
    /// A client sent an AUTH: the next step of enhanced authentication, or the first one of a
    /// re-authentication. [5.0 §4.12]
    ///
    /// The host answers with the same calls. A re-authentication is completed by [`challenge`] with
    /// reason code [`SUCCESS`](crate::codec::ReasonCode::SUCCESS), and refused by a DISCONNECT.
    ///
    /// [`challenge`]: super::Broker::challenge
    Authenticate(OwnedPacket),
    /// A client publishes a message that its [`Grants`] do not cover.
    ///
    /// The host answers with [`allow`](super::Broker::allow) or [`refuse`](super::Broker::refuse).
    Publish(Message),
    /// A client subscribes to a filter that its [`Grants`] do not cover. Each such filter of a
    /// SUBSCRIBE is a question of its own.
    ///
    /// The host answers with [`allow`](super::Broker::allow) or [`refuse`](super::Broker::refuse).
    Subscribe(Filter, SubscriptionOptions),
}

/// The terms on which the host accepts a client.
///
/// By default a client can publish to, subscribe to, and receive all topics, at any rate.
#[expect(clippy::exhaustive_structs, reason = "all fields are the host's to choose")]
#[derive(Clone, Debug, Default)]
pub struct Admission<'a> {
    /// Properties of CONNACK, such as Response Information. Before 5.0 they are not sent.
    pub properties: ConnackProperties<'a>,
    /// The topics that the client may publish to, subscribe to, and receive.
    pub grants: Grants,
    /// The amount that the client may publish in each second.
    pub rates: Rates,
}

/// The reason why an answer had no effect.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The question is answered already, its time is over, or the connection has ended.
    #[error("question is no longer open")]
    NotOpen,
    /// The question asks for something else, such as whether a client can connect.
    #[error("question asks for an answer of another kind")]
    WrongKind,
    /// The AUTH has another method than CONNECT, or a reason code that does not fit.
    #[error("AUTH does not fit the authentication in progress")]
    Authentication,
}

/// A question that awaits its answer.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) number: u32,
    pub(super) content: Question,
    /// When the broker answers in place of the host. The server machine has a deadline of its own
    /// for CONNECT and AUTH.
    pub(super) deadline: Option<Instant>,
    /// For a PUBLISH with QoS 1 or 2.
    pub(super) token: Option<AckToken>,
    /// For a PUBLISH.
    pub(super) expires_at: Option<Instant>,
    /// Whether the host has fetched the question.
    pub(super) told: bool,
}

impl Pending {
    pub(super) const fn new(content: Question) -> Self {
        Self { number: 0, content, deadline: None, token: None, expires_at: None, told: false }
    }
}

/// Returns the properties of a refusal that PUBACK and PUBREC carry as well.
pub(super) const fn ack_properties(properties: ConnackProperties<'_>) -> AckProperties<'_> {
    AckProperties {
        reason_string: properties.reason_string,
        user_properties: properties.user_properties,
    }
}
