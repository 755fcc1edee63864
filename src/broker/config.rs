//! The limits and the choices of a broker.

use crate::server::ServerConfig;
use crate::session::QueueLimit;
use core::time::Duration;

/// The limits of each connection, and of the state that a broker keeps for its clients.
///
/// ```
/// use mqtt_sansio::broker::BrokerConfig;
/// use mqtt_sansio::server::ServerConfig;
///
/// let server = ServerConfig::new().maximum_packet_size(4096);
/// let config = BrokerConfig::new(server).maximum_sessions(500);
/// # let _ = config;
/// ```
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    pub(super) server: ServerConfig,
    pub(super) maximum_sessions: usize,
    pub(super) maximum_subscriptions: Limit,
    pub(super) maximum_levels: usize,
    pub(super) maximum_group_members: usize,
    pub(super) maximum_retained: QueueLimit,
    pub(super) overflow: Overflow,
    pub(super) shared_strategy: SharedStrategy,
    pub(super) shared_before_5_0: bool,
    pub(super) sys_interval: Option<Duration>,
    pub(super) sparkplug_aware: bool,
    pub(super) durable: bool,
    pub(super) maximum_unsynced: usize,
    pub(super) is_node: bool,
    pub(super) groups_span_nodes: bool,
    pub(super) maximum_forwarded: usize,
}

/// A limit in items and in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub(super) items: usize,
    pub(super) bytes: usize,
}

/// The treatment of a message for a client whose queue is full.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// The new message is dropped.
    #[default]
    DropNew,
    /// Waiting messages with QoS 0 are dropped, the oldest first. If there are none, the new
    /// message is dropped.
    DropOldestQos0,
    /// The client is disconnected with
    /// [`QUOTA_EXCEEDED`](crate::codec::ReasonCode::QUOTA_EXCEEDED). The new message is dropped. So
    /// is one for a client that is away.
    Disconnect,
}

/// Which member of a shared subscription receives a message. Members that are away or whose queue
/// is full are passed over.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SharedStrategy {
    /// The members take turns.
    #[default]
    RoundRobin,
    /// The member with the fewest messages that wait or are in flight.
    LeastInFlight,
    /// The same member for each message of a topic, while the members stay the same. So the order
    /// of a topic's messages is kept.
    TopicHash,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self::new(ServerConfig::new())
    }
}

impl BrokerConfig {
    /// Creates a configuration with the limits of `server` for each client, and with the defaults
    /// that the setters state.
    ///
    /// Whatever `server` says, the broker itself acknowledges messages, with the reason code that
    /// routing finds.
    #[must_use]
    pub const fn new(server: ServerConfig) -> Self {
        Self {
            server: server.manual_acknowledgement(true),
            maximum_sessions: 1_000_000,
            maximum_subscriptions: Limit { items: 10_000, bytes: 1024 * 1024 },
            maximum_levels: 128,
            maximum_group_members: 1_000,
            maximum_retained: QueueLimit { messages: 1_000_000, bytes: 1024 * 1024 * 1024 },
            overflow: Overflow::DropNew,
            shared_strategy: SharedStrategy::RoundRobin,
            shared_before_5_0: false,
            sys_interval: None,
            sparkplug_aware: false,
            durable: false,
            maximum_unsynced: 16 * 1024 * 1024,
            is_node: false,
            groups_span_nodes: false,
            maximum_forwarded: 16 * 1024 * 1024,
        }
    }

    /// Limits the sessions, including those of absent clients. The broker refuses more with
    /// [`QUOTA_EXCEEDED`](crate::codec::ReasonCode::QUOTA_EXCEEDED). The default is 1,000,000.
    #[must_use]
    pub const fn maximum_sessions(self, maximum_sessions: usize) -> Self {
        Self { maximum_sessions, ..self }
    }

    /// Limits the subscriptions of a session, and the bytes of their topic filters. The broker
    /// refuses more with [`QUOTA_EXCEEDED`](crate::codec::ReasonCode::QUOTA_EXCEEDED). The default
    /// is 10,000 subscriptions and 1 MiB.
    #[must_use]
    pub const fn maximum_subscriptions(self, subscriptions: usize, bytes: usize) -> Self {
        Self { maximum_subscriptions: Limit { items: subscriptions, bytes }, ..self }
    }

    /// Limits the levels of a topic filter. A subscription with more is refused with
    /// [`QUOTA_EXCEEDED`](crate::codec::ReasonCode::QUOTA_EXCEEDED). The default is 128.
    #[must_use]
    pub const fn maximum_levels(self, maximum_levels: usize) -> Self {
        Self { maximum_levels, ..self }
    }

    /// Limits the members of a shared subscription. More are refused with
    /// [`QUOTA_EXCEEDED`](crate::codec::ReasonCode::QUOTA_EXCEEDED). The default is 1,000.
    #[must_use]
    pub const fn maximum_group_members(self, maximum_group_members: usize) -> Self {
        Self { maximum_group_members, ..self }
    }

    /// Limits the retained messages and their bytes. The broker refuses more with
    /// [`QUOTA_EXCEEDED`](crate::codec::ReasonCode::QUOTA_EXCEEDED). The default is 1,000,000
    /// messages and 1 GiB.
    #[must_use]
    pub const fn maximum_retained(self, messages: usize, bytes: usize) -> Self {
        Self { maximum_retained: QueueLimit { messages, bytes }, ..self }
    }

    /// Sets what happens to a message for a client whose queue is full. The default is to drop it.
    /// The size of the queue is [`ServerConfig::maximum_queued`].
    #[must_use]
    pub const fn overflow(self, overflow: Overflow) -> Self {
        Self { overflow, ..self }
    }

    /// Sets which member of a shared subscription receives a message. The default is that the
    /// members take turns.
    #[must_use]
    pub const fn shared_strategy(self, shared_strategy: SharedStrategy) -> Self {
        Self { shared_strategy, ..self }
    }

    /// Sets whether `$share/{ShareName}/{filter}` is a shared subscription for clients before 5.0
    /// as well. The default is false: to them it is an ordinary filter. [3.1.1 §4.7]
    #[must_use]
    pub const fn shared_before_5_0(self, shared_before_5_0: bool) -> Self {
        Self { shared_before_5_0, ..self }
    }

    /// Sets whether the broker is a Sparkplug Aware MQTT Server. The default is false. (Sparkplug
    /// 3.0 §10.1.4)
    ///
    /// Such a broker publishes a retained copy of each birth message below
    /// `$sparkplug/certificates/`, where no client may publish.
    #[must_use]
    pub const fn sparkplug_aware(self, sparkplug_aware: bool) -> Self {
        Self { sparkplug_aware, ..self }
    }

    /// Sets whether the broker keeps a [journal](crate::broker::journal) of its durable state. The
    /// default is false. The host of a durable broker must fetch the journal.
    #[must_use]
    pub const fn durable(self, durable: bool) -> Self {
        Self { durable, ..self }
    }

    /// Limits the bytes of records that are not durable. While there are more, no connection wants
    /// input. The default is 16 MiB.
    #[must_use]
    pub const fn maximum_unsynced(self, bytes: usize) -> Self {
        Self { maximum_unsynced: bytes, ..self }
    }

    /// Sets whether the broker is one of several [nodes](crate::broker#other-nodes). The default is
    /// false.
    #[must_use]
    pub const fn is_node(self, is_node: bool) -> Self {
        Self { is_node, ..self }
    }

    /// Sets whether the members of a shared subscription at all [nodes](crate::broker#other-nodes)
    /// are one group. Then the host chooses the member for each message, and passes the message to
    /// [`Broker::deliver_to_member`]. The default is false: each node has a group of its own.
    ///
    /// [`Broker::deliver_to_member`]: crate::broker::Broker::deliver_to_member
    #[must_use]
    pub const fn groups_span_nodes(self, groups_span_nodes: bool) -> Self {
        Self { groups_span_nodes, ..self }
    }

    /// Limits the bytes of messages that wait for [`Broker::poll_forward`]. Beyond it, messages
    /// with QoS 0 are dropped. The default is 16 MiB.
    ///
    /// [`Broker::poll_forward`]: crate::broker::Broker::poll_forward
    #[must_use]
    pub const fn maximum_forwarded(self, bytes: usize) -> Self {
        Self { maximum_forwarded: bytes, ..self }
    }

    /// Sets how often the broker publishes its figures as retained messages below `$SYS/broker/`.
    /// The default is never.
    #[must_use]
    pub const fn sys_interval(self, sys_interval: Option<Duration>) -> Self {
        Self { sys_interval, ..self }
    }
}
