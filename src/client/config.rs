//! How a client behaves, apart from what its CONNECT says.

use crate::codec::Options;
use crate::session::{Conduct, QueueLimit, conduct};
use core::time::Duration;

/// How a client behaves, apart from what it tells the server in its
/// [`Connect`](crate::codec::Connect).
///
/// ```
/// use core::time::Duration;
/// use mqtt_sansio::client::ClientConfig;
///
/// let config = ClientConfig::new().manual_acknowledgement(true).connect_timeout(Duration::from_secs(5));
/// # let _ = config;
/// ```
#[derive(Clone, Debug)]
pub struct ClientConfig {
    pub(super) connect_timeout: Duration,
    pub(super) ping_timeout: Option<Duration>,
    pub(super) maximum_in_flight: Option<u16>,
    pub(super) maximum_packet_size: u32,
    pub(crate) conduct: Conduct,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl ClientConfig {
    /// The defaults that the methods name.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            connect_timeout: Duration::from_secs(30),
            ping_timeout: None,
            maximum_in_flight: None,
            maximum_packet_size: 268_435_460,
            conduct: Conduct::new(QueueLimit { messages: 1_000, bytes: 64 * 1024 * 1024 }),
        }
    }

    /// How long to wait for each answer of the server until it has accepted the connection. The
    /// default is 30 seconds.
    #[must_use]
    pub const fn connect_timeout(self, connect_timeout: Duration) -> Self {
        Self { connect_timeout, ..self }
    }

    /// How long the server may be silent after a PINGREQ. The default is the Keep Alive, as 3.1 has
    /// it.
    #[must_use]
    pub const fn ping_timeout(self, ping_timeout: Duration) -> Self {
        Self { ping_timeout: Some(ping_timeout), ..self }
    }

    /// How many messages with QoS 1 and 2 may be under way, at least 1, whatever greater Receive
    /// Maximum the server states. The default is what the server states; before 5.0, where it
    /// cannot, it is 20, since some servers lose what is more.
    #[must_use]
    pub const fn maximum_in_flight(self, maximum_in_flight: u16) -> Self {
        Self {
            maximum_in_flight: Some(if maximum_in_flight == 0 { 1 } else { maximum_in_flight }),
            ..self
        }
    }

    /// The largest packet in bytes that is accepted; a smaller Maximum Packet Size in CONNECT goes
    /// before it. The server is told of the latter only. The default is 268,435,460, the largest
    /// that there is.
    #[must_use]
    pub const fn maximum_packet_size(self, maximum_packet_size: u32) -> Self {
        Self { maximum_packet_size, ..self }
    }

    conduct! {
        "How many messages, and bytes of them, may wait for a connection or for the server's Receive Maximum; a single message may be \
         larger. The default is 1,000 messages and 64 MiB."
    }
}
