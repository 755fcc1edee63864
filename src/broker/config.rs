//! What a broker offers and how much it keeps.

use crate::server::ServerConfig;
use crate::session::QueueLimit;

/// What a broker offers its clients, and how much it keeps of what they leave.
///
/// ```
/// use mqtt_sansio::broker::BrokerConfig;
/// use mqtt_sansio::server::ServerConfig;
///
/// let config = BrokerConfig::new(ServerConfig::new().maximum_packet_size(4096)).maximum_sessions(500);
/// # let _ = config;
/// ```
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    pub(super) server: ServerConfig,
    pub(super) maximum_sessions: usize,
    pub(super) maximum_subscriptions: usize,
    pub(super) maximum_levels: usize,
    pub(super) maximum_retained: QueueLimit,
}

impl BrokerConfig {
    /// What each client is offered, with the defaults that the methods name.
    ///
    /// Shared subscriptions are said to be unavailable, and messages are acknowledged with what
    /// routing finds, whatever the configuration says of them.
    #[must_use]
    pub const fn new(server: ServerConfig) -> Self {
        Self {
            server: server.shared_subscription_available(false).manual_acknowledgement(true),
            maximum_sessions: 1_000_000,
            maximum_subscriptions: 10_000,
            maximum_levels: 128,
            maximum_retained: QueueLimit { messages: 1_000_000, bytes: 1024 * 1024 * 1024 },
        }
    }

    /// How many sessions there may be, those of clients that are away included; more are refused
    /// with [`QUOTA_EXCEEDED`](crate::codec::ReasonCode::QUOTA_EXCEEDED). The default is 1,000,000.
    #[must_use]
    pub const fn maximum_sessions(self, maximum_sessions: usize) -> Self {
        Self { maximum_sessions, ..self }
    }

    /// How many subscriptions a session may have; more are refused with
    /// [`QUOTA_EXCEEDED`](crate::codec::ReasonCode::QUOTA_EXCEEDED). The default is 10,000.
    #[must_use]
    pub const fn maximum_subscriptions(self, maximum_subscriptions: usize) -> Self {
        Self { maximum_subscriptions, ..self }
    }

    /// How many levels the topic filter of a subscription may have; more are refused with
    /// [`QUOTA_EXCEEDED`](crate::codec::ReasonCode::QUOTA_EXCEEDED). The default is 128.
    #[must_use]
    pub const fn maximum_levels(self, maximum_levels: usize) -> Self {
        Self { maximum_levels, ..self }
    }

    /// How many messages, and bytes of them, may be retained; more are refused with
    /// [`QUOTA_EXCEEDED`](crate::codec::ReasonCode::QUOTA_EXCEEDED). The default is 1,000,000
    /// messages and 1 GiB.
    #[must_use]
    pub const fn maximum_retained(self, messages: usize, bytes: usize) -> Self {
        Self { maximum_retained: QueueLimit { messages, bytes }, ..self }
    }
}
