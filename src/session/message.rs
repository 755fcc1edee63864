//! Messages on their way: received ones as views of the input, kept ones in an allocation of their
//! own.

use super::AckToken;
use crate::codec::{
    AckProperties, Message, Publish, PublishProperties, QoS, ReasonCode, SubscriptionIdentifier,
    TopicName,
};
use crate::time::Instant;
use alloc::vec::Vec;

/// A message that has arrived: a view of the input, apart from a topic that an alias stood for.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received<'a> {
    /// The topic, whether it came as a name or as an alias.
    pub topic_name: TopicName<'a>,
    /// Any bytes.
    pub payload: &'a [u8],
    /// At which it was sent to this side.
    pub qos: QoS,
    /// To a server: whether it is to be kept. From one: whether it was.
    pub retain: bool,
    /// Whether the peer says that it may have sent it before.
    pub dup: bool,
    /// Without the topic alias, which means nothing outside the connection.
    pub properties: PublishProperties<'a>,
    /// With QoS 1 and 2: what acknowledges it, for those who do so by hand.
    pub token: Option<AckToken>,
}

impl Received<'_> {
    /// The message as a PUBLISH, to be sent on or kept.
    #[must_use]
    pub fn publish(&self) -> Publish<'_> {
        Publish {
            dup: false,
            qos: self.qos,
            retain: self.retain,
            topic_name: self.topic_name.as_text(),
            packet_identifier: None,
            properties: self.properties,
            payload: self.payload,
        }
    }
}

/// A message for one receiver, and what is to be said of it there.
#[expect(clippy::exhaustive_structs, reason = "all of it is the caller's to choose")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The message, with the QoS and RETAIN flag that it is to be sent with.
    pub message: Message,
    /// The caller's name for it, under which its end comes back; without one nothing is heard of
    /// it.
    pub key: Option<u64>,
    /// Those of the subscriptions for which it is sent; none before 5.0 and from a client.
    pub subscription_identifiers: Vec<SubscriptionIdentifier>,
    /// From when on it must no longer be sent for the first time. [5.0 MQTT-3.3.2-5]
    pub expires_at: Option<Instant>,
}

impl Outgoing {
    /// A message without subscription identifiers that does not expire.
    #[must_use]
    pub const fn new(key: Option<u64>, message: Message) -> Self {
        Self { message, key, subscription_identifiers: Vec::new(), expires_at: None }
    }

    /// Its end, of which nothing is said for QoS 0.
    pub(crate) fn ended(&self, outcome: Outcome<'static>) -> Option<Published<'static>> {
        let key = self.key.filter(|_| self.message.qos() > QoS::AtMostOnce)?;
        Some(Published { key, outcome })
    }
}

/// A message with QoS 1 or 2 has come to its end. Each one does once, under its key.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published<'a> {
    /// The caller's name for the message.
    pub key: u64,
    /// How it ended.
    pub outcome: Outcome<'a>,
}

/// How a message with QoS 1 or 2 has ended.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// The receiver has answered, with PUBACK, PUBCOMP, or a PUBREC with an error.
    Acknowledged {
        /// An [error](ReasonCode::is_error) if it did not take the message.
        reason_code: ReasonCode,
        /// What else the answer says.
        properties: AckProperties<'a>,
    },
    /// The message waited until it had expired, and was not sent. [5.0 MQTT-3.3.2-5]
    Expired,
    /// The message waited, or was to be sent again, for a connection that turned out not to allow
    /// it, by its size, QoS or RETAIN flag. One that was to be sent again may have arrived before.
    /// A server's counts as delivered. [5.0 MQTT-3.1.2-25] [5.0 MQTT-3.2.2-15]
    NotAllowed(Message),
    /// The peer has no session any more, and it is not known whether the message had arrived. To
    /// send it again may make it arrive twice. Without the message if it had arrived, and only the
    /// end of a QoS 2 exchange was missing.
    SessionLost(Option<Message>),
}
