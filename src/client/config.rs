//! The configuration of a client.

use crate::codec::Options;
use crate::session::{ANSWER_TIMEOUT, CommonConfig, QueueLimit, common_config};
use core::time::Duration;

/// The configuration of a client, apart from what its [`Connect`](crate::codec::Connect) tells the
/// server.
///
/// ```
/// use core::time::Duration;
/// use mqtt_sansio::client::ClientConfig;
///
/// let config =
///     ClientConfig::new().manual_acknowledgement(true).connect_timeout(Duration::from_secs(5));
/// assert_ne!(config, ClientConfig::default());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    pub(super) connect_timeout: Duration,
    pub(super) ping_timeout: Option<Duration>,
    pub(super) maximum_in_flight: Option<u16>,
    pub(super) maximum_packet_size: u32,
    pub(super) clean_start_when_required: bool,
    pub(super) common: CommonConfig,
    pub(super) answer_timeout: Duration,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl ClientConfig {
    /// Creates a configuration with the defaults that the setters name.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            connect_timeout: Duration::from_secs(30),
            ping_timeout: None,
            maximum_in_flight: None,
            maximum_packet_size: 268_435_460,
            clean_start_when_required: false,
            common: CommonConfig::new(QueueLimit { messages: 1_000, bytes: 64 * 1024 * 1024 }),
            answer_timeout: ANSWER_TIMEOUT,
        }
    }

    /// Sets how long to wait for each answer of the server until it has accepted the connection.
    /// The default is 30 seconds.
    #[must_use]
    pub const fn connect_timeout(self, connect_timeout: Duration) -> Self {
        Self { connect_timeout, ..self }
    }

    /// Sets how long the server can be silent after a PINGREQ. The default is the Keep Alive, as in
    /// 3.1.
    ///
    /// The machine sends a PINGREQ one Keep Alive after the last packet that it sent, and also one
    /// Keep Alive after the last byte that it received.
    #[must_use]
    pub const fn ping_timeout(self, ping_timeout: Duration) -> Self {
        Self { ping_timeout: Some(ping_timeout), ..self }
    }

    /// Sets how many QoS 1 and 2 messages can be in flight, at least 1, even if the server states a
    /// greater Receive Maximum. The default is what the server states. If it states none, it is
    /// 1,024, and 20 before 5.0, where a server cannot state one and some lose what exceeds it.
    #[must_use]
    pub const fn maximum_in_flight(self, maximum_in_flight: u16) -> Self {
        let maximum_in_flight = if maximum_in_flight == 0 { 1 } else { maximum_in_flight };
        Self { maximum_in_flight: Some(maximum_in_flight), ..self }
    }

    /// Sets the largest packet in bytes that is accepted. A smaller Maximum Packet Size in CONNECT
    /// takes precedence; only that one is sent to the server. The default is 268,435,460, the
    /// largest possible packet.
    #[must_use]
    pub const fn maximum_packet_size(self, maximum_packet_size: u32) -> Self {
        Self { maximum_packet_size, ..self }
    }

    /// Sets whether the machine sets Clean Start in the CONNECT that follows
    /// [`CleanStartRequired`](crate::session::ProtocolError::CleanStartRequired). The server then
    /// discards the session that this client does not have, with the messages that wait in it. The
    /// default is false.
    #[must_use]
    pub const fn clean_start_when_required(self, clean_start_when_required: bool) -> Self {
        Self { clean_start_when_required, ..self }
    }

    common_config! {
        "Sets how many messages, and bytes of them, can wait for a connection or for the server's \
         Receive Maximum. A single message can be larger. The default is 1,000 messages and 64 MiB."
    }
}
