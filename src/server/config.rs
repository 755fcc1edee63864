//! What a server offers its clients.

use crate::codec::{
    ConnackProperties, Options, QoS, ReasonCode, SubscribeProperties, Subscription, Version,
};
use crate::session::{Available, Conduct, Limits, QueueLimit, conduct};
use core::time::Duration;

/// What a server offers its clients: the limits that CONNACK can state, and those that need no
/// stating.
///
/// ```
/// use mqtt_sansio::codec::QoS;
/// use mqtt_sansio::server::ServerConfig;
///
/// let config = ServerConfig::new().maximum_qos(QoS::AtLeastOnce).receive_maximum(20);
/// # let _ = config;
/// ```
#[derive(Clone, Debug)]
pub struct ServerConfig {
    pub(super) connect_timeout: Duration,
    pub(super) maximum_connect_size: u32,
    pub(super) maximum_packet_size: u32,
    pub(super) receive_maximum: u16,
    pub(super) topic_alias_maximum: u16,
    pub(super) maximum_qos: QoS,
    pub(super) retain_available: bool,
    pub(super) available: Available,
    maximum_keep_alive: u16,
    maximum_session_expiry_interval: u32,
    pub(super) maximum_in_flight: u16,
    pub(super) maximum_requests: usize,
    pub(crate) conduct: Conduct,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl ServerConfig {
    /// The defaults that the methods name.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            maximum_connect_size: 128 * 1024,
            maximum_packet_size: 1024 * 1024,
            receive_maximum: 1_024,
            topic_alias_maximum: 16,
            maximum_qos: QoS::ExactlyOnce,
            retain_available: true,
            available: Available::ALL,
            maximum_keep_alive: 0,
            maximum_session_expiry_interval: u32::MAX,
            maximum_in_flight: 256,
            maximum_requests: 8,
            conduct: Conduct::new(QueueLimit { messages: 1_000, bytes: 16 * 1024 * 1024 }),
        }
    }

    /// How long to wait for CONNECT, and for each AUTH before CONNACK. The default is 10 seconds.
    #[must_use]
    pub const fn connect_timeout(self, connect_timeout: Duration) -> Self {
        Self { connect_timeout, ..self }
    }

    /// The largest CONNECT in bytes that is accepted. The default is 128 KiB.
    #[must_use]
    pub const fn maximum_connect_size(self, maximum_connect_size: u32) -> Self {
        Self { maximum_connect_size, ..self }
    }

    /// The largest packet in bytes that is accepted after CONNECT. The default is 1 MiB. [5.0
    /// §3.2.2.3.6]
    #[must_use]
    pub const fn maximum_packet_size(self, maximum_packet_size: u32) -> Self {
        Self { maximum_packet_size, ..self }
    }

    /// How many messages with QoS 1 and 2 a 5.0 client may have under way, at least 1. The default
    /// is 1,024. [5.0 §3.2.2.3.3]
    #[must_use]
    pub const fn receive_maximum(self, receive_maximum: u16) -> Self {
        Self { receive_maximum: if receive_maximum == 0 { 1 } else { receive_maximum }, ..self }
    }

    /// The greatest topic alias that a client may use. The default is 16. [5.0 §3.2.2.3.8]
    #[must_use]
    pub const fn topic_alias_maximum(self, topic_alias_maximum: u16) -> Self {
        Self { topic_alias_maximum, ..self }
    }

    /// The greatest QoS with which a client may publish. The default is QoS 2. [5.0 §3.2.2.3.4]
    #[must_use]
    pub const fn maximum_qos(self, maximum_qos: QoS) -> Self {
        Self { maximum_qos, ..self }
    }

    /// Whether messages can be retained. The default is true. [5.0 §3.2.2.3.5]
    #[must_use]
    pub const fn retain_available(self, retain_available: bool) -> Self {
        Self { retain_available, ..self }
    }

    /// Whether topic filters may have wildcards. The default is true. [5.0 §3.2.2.3.11]
    #[must_use]
    pub const fn wildcard_subscription_available(
        self,
        wildcard_subscription_available: bool,
    ) -> Self {
        Self {
            available: Available {
                wildcard_subscription: wildcard_subscription_available,
                ..self.available
            },
            ..self
        }
    }

    /// Whether subscriptions may have identifiers. The default is true. [5.0 §3.2.2.3.12]
    #[must_use]
    pub const fn subscription_identifier_available(
        self,
        subscription_identifier_available: bool,
    ) -> Self {
        Self {
            available: Available {
                subscription_identifier: subscription_identifier_available,
                ..self.available
            },
            ..self
        }
    }

    /// Whether subscriptions may be shared. The default is true. [5.0 §3.2.2.3.13]
    #[must_use]
    pub const fn shared_subscription_available(self, shared_subscription_available: bool) -> Self {
        Self {
            available: Available {
                shared_subscription: shared_subscription_available,
                ..self.available
            },
            ..self
        }
    }

    /// The longest Keep Alive in seconds, which 5.0 clients that ask for more, or for none, are
    /// given. The default is `None`: as the client asks. [5.0 §3.2.2.3.14]
    ///
    /// A client that is silent for one and a half times its Keep Alive is given up. It is not
    /// silent while bytes of it arrive: the standard leaves open whether those of an unfinished
    /// packet count, and a large one takes its time on a slow line. [5.0 MQTT-3.1.2-22] [3.1.1
    /// MQTT-3.1.2-24]
    #[must_use]
    pub const fn maximum_keep_alive(
        self,
        maximum_keep_alive: Option<core::num::NonZeroU16>,
    ) -> Self {
        let maximum_keep_alive = match maximum_keep_alive {
            Some(seconds) => seconds.get(),
            None => 0,
        };
        Self { maximum_keep_alive, ..self }
    }

    /// The longest Session Expiry Interval in seconds; it goes for 3.1 and 3.1.1 sessions without
    /// Clean Session as well. The default is 4,294,967,295: for ever. [5.0 §3.2.2.3.2]
    #[must_use]
    pub const fn maximum_session_expiry_interval(
        self,
        maximum_session_expiry_interval: u32,
    ) -> Self {
        Self { maximum_session_expiry_interval, ..self }
    }

    /// How many messages with QoS 1 and 2 may be under way to a client, at least 1, whatever
    /// greater Receive Maximum it states. The default is 256.
    #[must_use]
    pub const fn maximum_in_flight(self, maximum_in_flight: u16) -> Self {
        Self {
            maximum_in_flight: if maximum_in_flight == 0 { 1 } else { maximum_in_flight },
            ..self
        }
    }

    /// How many SUBSCRIBE and UNSUBSCRIBE packets may wait for the host's answer, at least 1,
    /// before no more input is taken. The default is 8.
    #[must_use]
    pub const fn maximum_requests(self, maximum_requests: usize) -> Self {
        Self { maximum_requests: if maximum_requests == 0 { 1 } else { maximum_requests }, ..self }
    }

    conduct! {
        "How many messages, and bytes of them, may wait for a client; a single message may be larger. The default is 1,000 messages and \
         16 MiB."
    }

    /// What the server says to a subscription before looking further: whether its kind is
    /// available. [5.0 §3.9.3]
    ///
    /// A 5.0 client was told so, and the machine ends its connection should it ask all the same;
    /// before 5.0 the host says it in SUBACK.
    pub fn check(
        &self,
        subscription: &Subscription<'_>,
        properties: &SubscribeProperties<'_>,
        version: Version,
    ) -> Result<(), ReasonCode> {
        self.available.check(subscription, properties, version)
    }

    /// How much may wait for a client.
    #[must_use]
    pub const fn queue_limit(&self) -> QueueLimit {
        self.conduct.queue
    }

    /// What is enforced. Before 5.0 a client cannot be told of a Receive Maximum, so there is none.
    pub(super) fn limits(&self, version: Version) -> Limits {
        let v5 = version == Version::V5_0;
        Limits {
            receive_maximum: if v5 { self.receive_maximum } else { u16::MAX },
            maximum_packet_size: self.maximum_packet_size,
            topic_alias_maximum: if v5 { self.topic_alias_maximum } else { 0 },
            maximum_qos: self.maximum_qos,
            retain_available: self.retain_available,
        }
    }

    /// The Keep Alive in force. Before 5.0 it cannot be but what the client asks for.
    pub(super) fn keep_alive(&self, asked: u16, version: Version) -> u16 {
        let too_long = asked == 0 || asked > self.maximum_keep_alive;
        if self.maximum_keep_alive > 0 && too_long && version == Version::V5_0 {
            self.maximum_keep_alive
        } else {
            asked
        }
    }

    pub(super) fn session_expiry_interval(&self, asked: u32) -> u32 {
        asked.min(self.maximum_session_expiry_interval)
    }

    /// Adds to the properties of a CONNACK what the client must know of the limits, where the host
    /// has not said something else.
    pub(super) fn state<'a>(
        &self,
        properties: ConnackProperties<'a>,
        keep_alive: u16,
        expiry: u32,
    ) -> ConnackProperties<'a> {
        let granted = self.session_expiry_interval(expiry);
        let server_keep_alive = self.keep_alive(keep_alive, Version::V5_0);
        let Available { wildcard_subscription, subscription_identifier, shared_subscription } =
            self.available;
        let unless = |available: bool| if available { None } else { Some(false) };
        let p = properties;
        ConnackProperties {
            session_expiry_interval: p
                .session_expiry_interval
                .or_else(|| (granted != expiry).then_some(granted)),
            server_keep_alive: p
                .server_keep_alive
                .or_else(|| (server_keep_alive != keep_alive).then_some(server_keep_alive)),
            receive_maximum: p
                .receive_maximum
                .or_else(|| (self.receive_maximum < u16::MAX).then_some(self.receive_maximum)),
            topic_alias_maximum: p
                .topic_alias_maximum
                .or_else(|| (self.topic_alias_maximum > 0).then_some(self.topic_alias_maximum)),
            maximum_qos: p
                .maximum_qos
                .or_else(|| (self.maximum_qos < QoS::ExactlyOnce).then_some(self.maximum_qos)),
            retain_available: p.retain_available.or_else(|| unless(self.retain_available)),
            maximum_packet_size: p
                .maximum_packet_size
                .or_else(|| Some(self.maximum_packet_size.max(1))),
            wildcard_subscription_available: p
                .wildcard_subscription_available
                .or_else(|| unless(wildcard_subscription)),
            subscription_identifier_available: p
                .subscription_identifier_available
                .or_else(|| unless(subscription_identifier)),
            shared_subscription_available: p
                .shared_subscription_available
                .or_else(|| unless(shared_subscription)),
            ..p
        }
    }
}
