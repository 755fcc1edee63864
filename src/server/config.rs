//! The configuration of a server.

use crate::codec::{
    ConnackProperties, Expiry, Options, QoS, ReasonCode, SubscribeProperties, Subscription, Version,
};
use crate::session::{
    ANSWER_TIMEOUT, Available, CommonConfig, Limits, QueueLimit, Requested, common_config,
};
use core::num::NonZeroU16;
use core::time::Duration;

/// The limits of a server, both those that CONNACK states and those that it does not.
///
/// ```
/// use mqtt_sansio::codec::QoS;
/// use mqtt_sansio::server::ServerConfig;
///
/// let config = ServerConfig::new().maximum_qos(QoS::AtLeastOnce).receive_maximum(20);
/// assert_ne!(config, ServerConfig::default());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    pub(super) connect_timeout: Duration,
    pub(super) maximum_request_size: u32,
    pub(super) maximum_packet_size: u32,
    pub(super) receive_maximum: u16,
    pub(super) topic_alias_maximum: u16,
    pub(super) maximum_qos: QoS,
    pub(super) retain_available: bool,
    lower_before_5_0: bool,
    pub(super) available: Available,
    maximum_keep_alive: Option<NonZeroU16>,
    pub(super) maximum_session_expiry: Expiry,
    pub(super) maximum_in_flight: u16,
    pub(super) maximum_requests: usize,
    pub(crate) common: CommonConfig,
    pub(crate) answer_timeout: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl ServerConfig {
    /// Creates a configuration with the defaults that the setters name.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            maximum_request_size: 128 * 1024,
            maximum_packet_size: 1024 * 1024,
            receive_maximum: 1_024,
            topic_alias_maximum: 16,
            maximum_qos: QoS::ExactlyOnce,
            retain_available: true,
            lower_before_5_0: false,
            available: Available::ALL,
            maximum_keep_alive: None,
            maximum_session_expiry: Expiry::Never,
            maximum_in_flight: 256,
            maximum_requests: 8,
            common: CommonConfig::new(QueueLimit { messages: 1_000, bytes: 16 * 1024 * 1024 }),
            answer_timeout: ANSWER_TIMEOUT,
        }
    }

    /// Sets how long to wait for CONNECT, and for each AUTH before CONNACK. The default is 10
    /// seconds.
    #[must_use]
    pub const fn connect_timeout(self, connect_timeout: Duration) -> Self {
        Self { connect_timeout, ..self }
    }

    /// Sets the largest CONNECT, SUBSCRIBE or UNSUBSCRIBE in bytes that is accepted. The default is
    /// 128 KiB.
    ///
    /// The work for the filters of a SUBSCRIBE is many times that for its bytes. A client with more
    /// of them sends several packets.
    #[must_use]
    pub const fn maximum_request_size(self, maximum_request_size: u32) -> Self {
        Self { maximum_request_size, ..self }
    }

    /// Sets the largest packet in bytes that is accepted after CONNECT. The default is 1 MiB.
    /// [5.0 §3.2.2.3.6]
    #[must_use]
    pub const fn maximum_packet_size(self, maximum_packet_size: u32) -> Self {
        Self { maximum_packet_size, ..self }
    }

    /// Sets how many QoS 1 and 2 messages a 5.0 client can have in flight, at least 1. The default
    /// is 1,024. [5.0 §3.2.2.3.3]
    #[must_use]
    pub const fn receive_maximum(self, receive_maximum: u16) -> Self {
        Self { receive_maximum: if receive_maximum == 0 { 1 } else { receive_maximum }, ..self }
    }

    /// Sets the greatest topic alias that a client can use. The default is 16. [5.0 §3.2.2.3.8]
    #[must_use]
    pub const fn topic_alias_maximum(self, topic_alias_maximum: u16) -> Self {
        Self { topic_alias_maximum, ..self }
    }

    /// Sets the greatest QoS with which a client can publish. The default is QoS 2.
    /// [5.0 §3.2.2.3.4]
    #[must_use]
    pub const fn maximum_qos(self, maximum_qos: QoS) -> Self {
        Self { maximum_qos, ..self }
    }

    /// Sets whether messages can be retained. The default is true. [5.0 §3.2.2.3.5]
    #[must_use]
    pub const fn retain_available(self, retain_available: bool) -> Self {
        Self { retain_available, ..self }
    }

    /// Sets whether clients before 5.0, which cannot be told these two limits, may exceed them. The
    /// default is false: such a client is disconnected.
    ///
    /// The host must then treat their messages as if they had the [maximum
    /// QoS](Self::maximum_qos), and no RETAIN if it is [not available](Self::retain_available). The
    /// [`broker`](crate::broker) does.
    #[must_use]
    pub const fn lower_before_5_0(self, lower_before_5_0: bool) -> Self {
        Self { lower_before_5_0, ..self }
    }

    /// Lowers the QoS and RETAIN of a message to what is available.
    pub(crate) fn lower(&self, qos: &mut QoS, retain: &mut bool) {
        *qos = (*qos).min(self.maximum_qos);
        *retain &= self.retain_available;
    }

    /// Sets whether topic filters can have wildcards. The default is true. [5.0 §3.2.2.3.11]
    #[must_use]
    pub const fn wildcard_subscription_available(mut self, available: bool) -> Self {
        self.available.wildcard_subscription = available;
        self
    }

    /// Sets whether subscriptions can have identifiers. The default is true. [5.0 §3.2.2.3.12]
    #[must_use]
    pub const fn subscription_identifier_available(mut self, available: bool) -> Self {
        self.available.subscription_identifier = available;
        self
    }

    /// Sets whether subscriptions can be shared. The default is true. [5.0 §3.2.2.3.13]
    #[must_use]
    pub const fn shared_subscription_available(mut self, available: bool) -> Self {
        self.available.shared_subscription = available;
        self
    }

    /// Sets the longest Keep Alive in seconds. A 5.0 client that asks for more, or for none, is
    /// given this one. The default is `None`: what the client asks for. [5.0 §3.2.2.3.14]
    ///
    /// The server disconnects a client that sends nothing for 1.5 × Keep Alive. Bytes of an
    /// incomplete packet count, because the standard leaves this open and a large packet takes long
    /// on a slow connection. [5.0 MQTT-3.1.2-22] [3.1.1 MQTT-3.1.2-24]
    #[must_use]
    pub const fn maximum_keep_alive(self, maximum_keep_alive: Option<NonZeroU16>) -> Self {
        Self { maximum_keep_alive, ..self }
    }

    /// Sets how long a session can outlive its connection. It also holds for 3.1 and 3.1.1 sessions
    /// without Clean Session. The default is [`Expiry::Never`]: a session does not expire.
    /// [5.0 §3.2.2.3.2]
    #[must_use]
    pub const fn maximum_session_expiry(self, maximum_session_expiry: Expiry) -> Self {
        Self { maximum_session_expiry, ..self }
    }

    /// Sets how many QoS 1 and 2 messages can be in flight to a client, at least 1, even if it
    /// states a greater Receive Maximum. The default is 256.
    #[must_use]
    pub const fn maximum_in_flight(self, maximum_in_flight: u16) -> Self {
        Self {
            maximum_in_flight: if maximum_in_flight == 0 { 1 } else { maximum_in_flight },
            ..self
        }
    }

    /// Sets how many SUBSCRIBE and UNSUBSCRIBE packets can wait for the host's answer, at least 1,
    /// before no more input is read. The default is 8.
    #[must_use]
    pub const fn maximum_requests(self, maximum_requests: usize) -> Self {
        Self { maximum_requests: if maximum_requests == 0 { 1 } else { maximum_requests }, ..self }
    }

    common_config! {
        "Sets how many messages, and bytes of them, can wait for a client. A single message can be \
         larger. The default is 1,000 messages and 16 MiB."
    }

    /// Returns why a subscription must be refused, if its kind is not available. [5.0 §3.9.3]
    ///
    /// CONNACK tells a 5.0 client, and the machine ends its connection if it subscribes
    /// nevertheless. Before 5.0 the host refuses in SUBACK.
    pub fn check(
        &self,
        subscription: &Subscription<'_>,
        properties: &SubscribeProperties<'_>,
        version: Version,
    ) -> Result<(), ReasonCode> {
        self.available.check(subscription, properties, version)
    }

    /// Returns how much can wait for a client.
    #[must_use]
    pub const fn queue_limit(&self) -> QueueLimit {
        self.common.queue
    }

    /// Returns the limits that a client must keep. Before 5.0 the server cannot state a Receive
    /// Maximum, so the limit is 65,535.
    pub(super) fn limits(&self, version: Version) -> Limits {
        let v5 = version == Version::V5_0;
        let lower = self.lower_before_5_0 && !v5;
        Limits {
            receive_maximum: if v5 { self.receive_maximum } else { u16::MAX },
            maximum_packet_size: self.maximum_packet_size,
            topic_alias_maximum: if v5 { self.topic_alias_maximum } else { 0 },
            maximum_qos: if lower { QoS::ExactlyOnce } else { self.maximum_qos },
            retain_available: lower || self.retain_available,
            problem_information: true,
        }
    }

    /// Adds the limits to the properties of a CONNACK, unless the host has set them.
    pub(super) fn state<'a>(
        &self,
        mut properties: ConnackProperties<'a>,
        requested: &Requested,
    ) -> ConnackProperties<'a> {
        fn state<T>(property: &mut Option<T>, limit: Option<T>) {
            *property = property.take().or(limit);
        }
        let Requested { keep_alive, session_expiry: expiry, .. } = *requested;
        let p = &mut properties;
        let granted = Some(expiry.min(self.maximum_session_expiry)).filter(|it| *it != expiry);
        let longest = self.maximum_keep_alive.map(NonZeroU16::get);
        let is_too_long = |longest: &u16| keep_alive == 0 || keep_alive > *longest;
        state(&mut p.session_expiry_interval, granted.map(Expiry::to_seconds));
        state(&mut p.server_keep_alive, longest.filter(is_too_long));
        state(&mut p.receive_maximum, Some(self.receive_maximum).filter(|it| *it < u16::MAX));
        state(&mut p.topic_alias_maximum, Some(self.topic_alias_maximum).filter(|it| *it > 0));
        state(&mut p.maximum_qos, Some(self.maximum_qos).filter(|it| *it < QoS::ExactlyOnce));
        state(&mut p.maximum_packet_size, Some(self.maximum_packet_size.max(1)));
        let unless = |is_available: bool| (!is_available).then_some(false);
        let Available { wildcard_subscription, subscription_identifier, shared_subscription } =
            self.available;
        state(&mut p.retain_available, unless(self.retain_available));
        state(&mut p.wildcard_subscription_available, unless(wildcard_subscription));
        state(&mut p.subscription_identifier_available, unless(subscription_identifier));
        state(&mut p.shared_subscription_available, unless(shared_subscription));
        properties
    }
}
