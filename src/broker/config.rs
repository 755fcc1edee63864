//! The limits of a broker.

use crate::server::ServerConfig;
use crate::session::QueueLimit;

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
    pub(super) maximum_subscriptions: usize,
    pub(super) maximum_levels: usize,
    pub(super) maximum_retained: QueueLimit,
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
    /// Whatever `server` says, shared subscriptions are unavailable, and the broker itself
    /// acknowledges messages, with the reason code that routing finds.
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

    /// Limits the sessions, including those of absent clients. The broker refuses more with
    /// [`QUOTA_EXCEEDED`](crate::codec::ReasonCode::QUOTA_EXCEEDED). The default is 1,000,000.
    #[must_use]
    pub const fn maximum_sessions(self, maximum_sessions: usize) -> Self {
        Self { maximum_sessions, ..self }
    }

    /// Limits the subscriptions of a session. The broker refuses more with
    /// [`QUOTA_EXCEEDED`](crate::codec::ReasonCode::QUOTA_EXCEEDED). The default is 10,000.
    #[must_use]
    pub const fn maximum_subscriptions(self, maximum_subscriptions: usize) -> Self {
        Self { maximum_subscriptions, ..self }
    }

    /// Limits the levels of a topic filter. A subscription with more is refused with
    /// [`QUOTA_EXCEEDED`](crate::codec::ReasonCode::QUOTA_EXCEEDED). The default is 128.
    #[must_use]
    pub const fn maximum_levels(self, maximum_levels: usize) -> Self {
        Self { maximum_levels, ..self }
    }

    /// Limits the retained messages and their bytes. The broker refuses more with
    /// [`QUOTA_EXCEEDED`](crate::codec::ReasonCode::QUOTA_EXCEEDED). The default is 1,000,000
    /// messages and 1 GiB.
    #[must_use]
    pub const fn maximum_retained(self, messages: usize, bytes: usize) -> Self {
        Self { maximum_retained: QueueLimit { messages, bytes }, ..self }
    }
}
