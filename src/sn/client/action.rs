//! The actions that a client asks of its host.

use crate::codec::QoS;
use crate::sn::v1_2::{ReturnCode, TopicId, TopicRef};

/// An event that the host needs to know about. Each call returns at most one.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action<'d> {
    /// The gateway has accepted the connection.
    Connected,
    /// The gateway has rejected the connection.
    Refused(ReturnCode),
    /// The gateway has registered a topic name, or rejected it.
    Registered(Result<TopicId, ReturnCode>),
    /// The outcome of a message with QoS 1 or 2. With
    /// [`InvalidTopicId`](ReturnCode::InvalidTopicId), the host registers the topic again.
    Published(ReturnCode),
    /// The gateway has rejected a message with QoS 0.
    Rejected {
        /// The two octets of the topic.
        topic_id: Option<TopicId>,
        /// The reason.
        return_code: ReturnCode,
    },
    /// The outcome of a SUBSCRIBE.
    Subscribed {
        /// The granted QoS.
        qos: QoS,
        /// The topic id of the messages, for a topic name without wildcards.
        topic_id: Option<TopicId>,
        /// Whether the subscription was accepted.
        return_code: ReturnCode,
    },
    /// The gateway has ended a subscription.
    Unsubscribed,
    /// The gateway has changed the Will.
    WillUpdated(ReturnCode),
    /// A message has arrived. The acknowledgement is in the output.
    Message(Received<'d>),
    /// The client is asleep, and can turn its radio off until it wakes.
    Asleep {
        /// Whether the gateway has confirmed it. If not, the gateway did not answer.
        is_confirmed: bool,
    },
    /// The connection has ended with a DISCONNECT of either side.
    Disconnected,
    /// The gateway did not answer. The host tries another gateway, or connects again. [SN §6.13]
    Lost,
    /// A gateway has announced itself, or a client has named one. [SN §6.1]
    GatewayFound {
        /// The number of the gateway.
        gateway_id: u8,
        /// The address in the form of the network; empty if the gateway is the sender.
        address: &'d [u8],
    },
}

/// A message that has arrived.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received<'d> {
    /// The topic. [`Client::topic_name`](super::Client::topic_name) returns its name.
    pub topic: TopicRef,
    /// The QoS with which it was sent.
    pub qos: QoS,
    /// Whether the server had retained it.
    pub retain: bool,
    /// The payload.
    pub data: &'d [u8],
}

/// The reason why a request was not sent. Nothing was written.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The client is not in a state in which it can send that.
    #[error("client is not in a state for this request")]
    State,
    /// The last request is not answered. A client has one at a time. [SN §6.5] [SN §6.6]
    #[error("last request is not answered")]
    Busy,
    /// The message cannot be encoded.
    #[error(transparent)]
    Encode(#[from] crate::sn::v1_2::EncodeError),
}
