//! The configuration of a gateway.

use crate::codec::{EncodeError, Topic};
use crate::sn::Retry;
use crate::sn::v1_2::TopicId;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use core::fmt;
use core::num::NonZeroU32;
use core::time::Duration;

/// The configuration of a [`Gateway`](super::Gateway).
///
/// ```
/// use mqtt_sansio::sn::GatewayConfig;
/// use mqtt_sansio::sn::v1_2::TopicId;
///
/// let config = GatewayConfig::new(1)
///     .predefined_topic(TopicId::new(7).unwrap(), "room/4")?
///     .maximum_clients(500);
/// # Ok::<_, mqtt_sansio::codec::EncodeError>(())
/// ```
#[derive(Clone)]
pub struct GatewayConfig {
    pub(super) gateway_id: u8,
    pub(super) predefined: BTreeMap<TopicId, Topic>,
    pub(super) retry: Retry,
    pub(super) duplicate_window: Duration,
    pub(super) wait: Duration,
    pub(super) advertise: Option<Duration>,
    pub(super) qos_minus_one: Option<Box<str>>,
    pub(super) user_name: Option<Box<str>>,
    pub(super) password: Option<Box<[u8]>>,
    pub(super) server_keep_alive: u16,
    pub(super) maximum_clients: usize,
    pub(super) maximum_per_source: usize,
    pub(super) maximum_connecting: usize,
    pub(super) maximum_connecting_per_source: usize,
    pub(super) maximum_connect_rate: Option<NonZeroU32>,
    pub(super) maximum_connect_rate_per_source: Option<NonZeroU32>,
    pub(super) maximum_topics: usize,
    pub(super) maximum_buffered: (usize, usize),
    pub(super) maximum_datagram: usize,
}

impl GatewayConfig {
    /// Creates a configuration with the defaults that the setters name.
    #[must_use]
    pub fn new(gateway_id: u8) -> Self {
        Self {
            gateway_id,
            predefined: BTreeMap::new(),
            retry: Retry::new(),
            duplicate_window: Duration::from_secs(5),
            wait: Duration::from_secs(300),
            advertise: None,
            qos_minus_one: Some("mqtt-sn-gateway".into()),
            user_name: None,
            password: None,
            server_keep_alive: 60,
            maximum_clients: 1_000,
            maximum_per_source: 1_000,
            maximum_connecting: 100,
            maximum_connecting_per_source: 50,
            maximum_connect_rate: None,
            maximum_connect_rate_per_source: None,
            maximum_topics: 256,
            maximum_buffered: (100, 65_536),
            maximum_datagram: 1_400,
        }
    }

    /// Adds a predefined topic, which the clients know, too. [SN §6.7]
    pub fn predefined_topic(mut self, id: TopicId, name: &str) -> Result<Self, EncodeError> {
        self.predefined.insert(id, Topic::new(name)?);
        Ok(self)
    }

    /// Sets T_retry and N_retry for messages that a client must answer.
    #[must_use]
    pub fn retry(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }

    /// Sets how long the network can delay a copy of a datagram. The default is 5 seconds.
    ///
    /// Within this time, a CONNECT or PUBLISH equal to one that was answered is a copy of it, and
    /// only the answer is sent again.
    #[must_use]
    pub fn duplicate_window(self, duplicate_window: Duration) -> Self {
        Self { duplicate_window, ..self }
    }

    /// Sets T_WAIT, the pause after a client has rejected a message because of congestion. The
    /// default is 5 minutes. [SN §7.2]
    #[must_use]
    pub fn wait(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }

    /// Sets T_ADV, the time between two ADVERTISE messages, at most 65,535 seconds. The default is
    /// none: the gateway does not advertise. [SN §6.1]
    #[must_use]
    pub fn advertise(self, advertise: Option<Duration>) -> Self {
        Self { advertise, ..self }
    }

    /// Sets the client identifier of the connection to the server that carries messages with
    /// QoS −1. With `None` such messages are discarded. The default is `mqtt-sn-gateway`. Each
    /// gateway of a server needs an identifier of its own. [SN §7.1]
    #[must_use]
    pub fn qos_minus_one(self, client_id: Option<&str>) -> Self {
        Self { qos_minus_one: client_id.map(Into::into), ..self }
    }

    /// Sets the user name and password of all connections to the server. MQTT-SN 1.2 has neither.
    /// The default is none.
    #[must_use]
    pub fn credentials(self, user_name: &str, password: Option<&[u8]>) -> Self {
        Self { user_name: Some(user_name.into()), password: password.map(Into::into), ..self }
    }

    /// Sets the Keep Alive in seconds of the connections to the server; 0 turns it off. The default
    /// is 60. It does not depend on the clients, which can sleep for longer.
    #[must_use]
    pub fn server_keep_alive(self, server_keep_alive: u16) -> Self {
        Self { server_keep_alive, ..self }
    }

    /// Sets how many clients the gateway knows. For another one, the gateway forgets the
    /// disconnected client that has been silent for longest; if all are connected, it rejects the
    /// CONNECT. The default is 1,000.
    #[must_use]
    pub fn maximum_clients(self, maximum_clients: usize) -> Self {
        Self { maximum_clients, ..self }
    }

    /// Sets how many clients of a [source](super::Gateway::with_source), such as an IP address or a
    /// forwarder, can be connected, active or asleep. The default is 1,000.
    #[must_use]
    pub fn maximum_per_source(self, maximum_per_source: usize) -> Self {
        Self { maximum_per_source, ..self }
    }

    /// Sets how many clients can be connecting at the same time, in all. The default is 100.
    #[must_use]
    pub fn maximum_connecting(self, maximum_connecting: usize) -> Self {
        Self { maximum_connecting, ..self }
    }

    /// Sets how many clients of a source can be connecting at the same time. The default is 50, so
    /// that one source alone cannot keep all others out.
    #[must_use]
    pub fn maximum_connecting_per_source(self, maximum: usize) -> Self {
        Self { maximum_connecting_per_source: maximum, ..self }
    }

    /// Sets how many clients can begin to connect in a second, in all. The default is no limit,
    /// because each of them opens a connection to the server, which can limit connections.
    #[must_use]
    pub fn maximum_connect_rate(self, maximum: Option<NonZeroU32>) -> Self {
        Self { maximum_connect_rate: maximum, ..self }
    }

    /// Sets how many clients of a source can begin to connect in a second. The default is no limit.
    #[must_use]
    pub fn maximum_connect_rate_per_source(self, maximum: Option<NonZeroU32>) -> Self {
        Self { maximum_connect_rate_per_source: maximum, ..self }
    }

    /// Sets how many topic ids a client can have, at most 65,534. The default is 256. A client's
    /// REGISTER beyond it is rejected; the gateway replaces the oldest one that it has registered.
    #[must_use]
    pub fn maximum_topics(self, maximum_topics: usize) -> Self {
        Self { maximum_topics, ..self }
    }

    /// Sets how many messages, and bytes of topic names and payloads, are buffered for a client.
    /// The default is 100 messages and 64 KiB.
    ///
    /// Messages with QoS 0 fill half of the buffer, and are dropped beyond that. If the buffer is
    /// full of others, the connection to the server is not read, so that the server keeps the rest.
    #[must_use]
    pub fn maximum_buffered(self, messages: usize, bytes: usize) -> Self {
        Self { maximum_buffered: (messages, bytes), ..self }
    }

    /// Sets the size in bytes of the largest datagram to a client. A message that does not fit is
    /// dropped. The default is 1,400. [SN §6.10]
    #[must_use]
    pub fn maximum_datagram(self, maximum_datagram: usize) -> Self {
        Self { maximum_datagram, ..self }
    }
}

/// Hides the password.
impl fmt::Debug for GatewayConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayConfig")
            .field("gateway_id", &self.gateway_id)
            .field("predefined", &self.predefined)
            .field("retry", &self.retry)
            .field("duplicate_window", &self.duplicate_window)
            .field("wait", &self.wait)
            .field("advertise", &self.advertise)
            .field("qos_minus_one", &self.qos_minus_one)
            .field("user_name", &self.user_name)
            .field("server_keep_alive", &self.server_keep_alive)
            .field("maximum_clients", &self.maximum_clients)
            .field("maximum_per_source", &self.maximum_per_source)
            .field("maximum_connecting", &self.maximum_connecting)
            .field("maximum_connecting_per_source", &self.maximum_connecting_per_source)
            .field("maximum_connect_rate", &self.maximum_connect_rate)
            .field("maximum_connect_rate_per_source", &self.maximum_connect_rate_per_source)
            .field("maximum_topics", &self.maximum_topics)
            .field("maximum_buffered", &self.maximum_buffered)
            .field("maximum_datagram", &self.maximum_datagram)
            .finish_non_exhaustive()
    }
}
