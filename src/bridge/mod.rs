//! A bridge: messages of one broker become messages of another one.
//!
//! A bridge is a client of both brokers: two [clients](crate::client) back to back. It knows
//! nothing of the brokers, so both can be of any kind. The broker that it belongs to is its local
//! side. A host of [`Broker`](crate::broker::Broker) connects that side in memory.
//!
//! # What is kept
//!
//! - **Messages.** A message is acknowledged on the side that it came from when the other side has
//!   acknowledged it. So each broker keeps what the other one does not have yet: while a connection
//!   is away, and if this program ends. QoS 1 messages are lost by neither, and QoS 2 messages are
//!   doubled only if this program or a broker loses its state. QoS 0 messages are dropped while
//!   their receiver is not connected. Known gap: after a restart of this program, the broker still
//!   has the packet identifiers of unfinished QoS 2 messages, and the new `Bridge` does not know
//!   them. If it uses one of them for another message, the broker drops that message as a repeat.
//! - **Content.** Payload, user properties, content type and correlation data stay the same, the
//!   Message Expiry Interval is the remaining time, and RETAIN is as it was published. A response
//!   topic gets the name under which a response on the other side is carried back, if a topic of
//!   the bridge does so. A broker before 5.0 receives no properties.
//! - **Order.** Messages of a side reach the other one in their order, unless that broker loses its
//!   session.
//!
//! QoS and RETAIN are lowered if the receiving broker does not support them. A message that it
//! cannot accept at all, such as one that exceeds its Maximum Packet Size, is dropped and
//! [counted](BridgeStats::dropped). A reason code with which it refuses a message is passed on.
//!
//! # Loops
//!
//! Subscriptions have No Local and Retain As Published, so no broker sends the bridge its own
//! messages. Before 5.0 there is no such option. mosquitto grants both to a client that
//! [marks itself](BridgeConfig::marks_itself) as a bridge. Any other broker before 5.0 returns each
//! message that a topic in both directions carries to it, once. Use 5.0, or topics that do not
//! overlap. A ring of three or more brokers is a loop that no bridge can notice.
//!
//! # Sessions
//!
//! The bridge subscribes when a broker has no session for it, and once for each `Bridge` value,
//! because the topics can be others than in the last run. It then unsubscribes what is carried in
//! the other direction only. A filter that has left the configuration cannot be known to the
//! bridge; its messages are acknowledged and [counted](BridgeStats::unroutable) until the host
//! connects with Clean Start once.

mod config;
mod end;
mod topic;

pub use config::{BridgeConfig, BridgeConfigError};
pub use end::BridgeStats;
pub use topic::{BridgeTopic, BridgeTopicError, Direction, Side};

use crate::client::{Action, ConnectError};
use crate::codec::{
    Connack, Connect, Disconnect, Publish, PublishProperties, QoS, ReasonCode, RetainHandling,
    Sequence, SubscribeProperties, Subscription, SubscriptionOptions, UnsubscribeProperties,
    Version,
};
use crate::session::{CloseCause, Outcome, Published, Received, RequestError};
use crate::time::Instant;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::{fmt, mem};
use end::End;

/// How often a bridge subscribes again with another packet identifier on one connection. The broker
/// uses more of them only if the bridge before had more QoS 2 messages in flight.
const MOST_COLLISIONS: u16 = 1_000;

/// An event that the host of a bridge can log or must act on.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The broker of a side has accepted the connection.
    Connected(Side, Connack<'a>),
    /// The broker of a side does not allow a subscription. Its messages are not carried.
    Refused {
        /// The side of the broker.
        side: Side,
        /// The index of the topic in [`BridgeConfig::topics`].
        topic: usize,
        /// The reason code of the broker.
        reason_code: ReasonCode,
    },
    /// The connection of a side has ended: the host [transmits](Bridge::transmit) what is left,
    /// closes the socket, and connects again after a while.
    Closed(Side, CloseCause<'a>),
}

/// A bridge between two brokers, without sockets and clocks.
///
/// The host opens a transport for each side, and calls [`connect`](Self::connect). It then carries
/// bytes between the transports and the bridge. Each call can change what both sides need: after
/// it, the host writes what [`transmit`](Self::transmit) returns for both sides, and reads from
/// those that [want input](Self::wants_input).
///
/// ```
/// use mqtt_sansio::Instant;
/// use mqtt_sansio::bridge::{Bridge, BridgeConfig, Event, Side};
/// use mqtt_sansio::codec::{Connect, Version};
///
/// let now = Instant::from_millis(0);
/// let mut bridge = Bridge::new(BridgeConfig::new(["t out 1 \"\" site/".parse()?])?);
/// let (mut to_local, mut to_remote) = (Vec::new(), Vec::new());
/// bridge.connect(Side::Local, &Connect::new(Version::V5_0, "bridge"), now)?;
/// bridge.connect(Side::Remote, &Connect::new(Version::V3_1_1, "site"), now)?;
///
/// // Both brokers accept. The bridge subscribes to "t" on the local side.
/// let event = bridge.handle_input(Side::Remote, &mut &b"\x20\x02\0\0"[..], now);
/// assert!(matches!(event, Some(Event::Connected(Side::Remote, _))));
/// let event = bridge.handle_input(Side::Local, &mut &b"\x20\x03\0\0\0"[..], now);
/// assert!(matches!(event, Some(Event::Connected(Side::Local, _))));
/// bridge.transmit(Side::Local, &mut to_local);
/// assert!(to_local.ends_with(b"\x82\x07\0\x01\0\0\x01t\x1D"));
/// bridge.transmit(Side::Remote, &mut to_remote); // CONNECT
///
/// // A message arrives. It is acknowledged when the remote broker has acknowledged it.
/// let mut input = &b"\x90\x04\0\x01\0\x01\x32\x08\0\x01t\0\x07\0hi"[..];
/// assert_eq!(bridge.handle_input(Side::Local, &mut input, now), None);
/// to_remote.clear();
/// bridge.transmit(Side::Remote, &mut to_remote);
/// assert_eq!(to_remote, b"\x32\x0C\0\x06site/t\0\x01hi");
/// assert!(!bridge.wants_transmit(Side::Local));
/// assert_eq!(bridge.handle_input(Side::Remote, &mut &b"\x40\x02\0\x01"[..], now), None);
/// to_local.clear();
/// bridge.transmit(Side::Local, &mut to_local);
/// assert_eq!(to_local, b"\x40\x02\0\x07");
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub struct Bridge {
    config: BridgeConfig,
    local: End,
    remote: End,
    /// The subscriptions that were refused, and not reported to the host.
    refused: VecDeque<(Side, usize, ReasonCode)>,
}

/// Shows only numbers, because the output can hold a password.
impl fmt::Debug for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bridge")
            .field("config", &self.config)
            .field("local", &self.local.stats)
            .field("remote", &self.remote.stats)
            .finish_non_exhaustive()
    }
}

impl Bridge {
    /// Creates a bridge that is not connected.
    #[must_use]
    pub fn new(config: BridgeConfig) -> Self {
        let end = || End::new(config.client(), config.buffer, config.receive_maximum);
        Self { local: end(), remote: end(), refused: VecDeque::new(), config }
    }

    /// Returns the configuration.
    #[must_use]
    pub const fn config(&self) -> &BridgeConfig {
        &self.config
    }

    /// Returns the counters of a side.
    #[must_use]
    pub const fn stats(&self, side: Side) -> BridgeStats {
        self.end(side).stats
    }

    /// Whether the broker of a side has accepted the connection, and it has not ended.
    #[must_use]
    pub const fn is_connected(&self, side: Side) -> bool {
        self.end(side).client.is_connected()
    }

    // ---- commands ----

    /// Starts MQTT on a transport of a side that is already open.
    ///
    /// The packet has the client identifier, user name, password, will and Keep Alive. Without
    /// Clean Start the bridge resumes its session, also one of an earlier run. In 5.0 the bridge
    /// lowers the Receive Maximum to its own, and a CONNECT without a Session Expiry Interval asks
    /// for a session that does not expire. Enhanced authentication is not supported.
    pub fn connect(
        &mut self,
        side: Side,
        connect: &Connect<'_>,
        now: Instant,
    ) -> Result<(), ConnectError> {
        let mut connect = *connect;
        let is_5_0 = connect.version == Version::V5_0;
        if is_5_0 {
            let (maximum, properties) = (self.config.receive_maximum, &mut connect.properties);
            let receive_maximum = properties.receive_maximum.unwrap_or(maximum).min(maximum);
            properties.receive_maximum = Some(receive_maximum);
            properties.session_expiry_interval.get_or_insert(u32::MAX);
        }
        let marks_itself = self.config.marks_itself && !is_5_0;
        let (end, _) = self.ends(side);
        let mut out = Vec::new();
        end.client.connect(&connect, now, &mut out)?;
        if marks_itself && !end.refuses_mark {
            mark(&mut out);
        }
        // Output that is left from the last connection has no meaning any more.
        (end.version, end.out) = (connect.version, out);
        Ok(())
    }

    /// Ends the connection of a side with a DISCONNECT. [`Event::Closed`] follows from
    /// [`handle_input`](Self::handle_input).
    pub fn disconnect(
        &mut self,
        side: Side,
        disconnect: &Disconnect<'_>,
        now: Instant,
    ) -> Result<(), RequestError> {
        let (end, _) = self.ends(side);
        end.client.disconnect(disconnect, now, &mut end.out)
    }

    // ---- bytes and time ----

    /// Consumes complete packets of `input`, which is from the broker of `side`, up to the first
    /// that has an event. The host calls it until it returns `None`, keeps the remaining bytes, and
    /// calls again when more bytes arrive or when the side [wants input](Self::wants_input) again.
    #[must_use = "an event that is dropped is lost"]
    pub fn handle_input<'i>(
        &mut self,
        side: Side,
        input: &mut &'i [u8],
        now: Instant,
    ) -> Option<Event<'i>> {
        loop {
            if let Some((side, topic, reason_code)) = self.refused.pop_front() {
                return Some(Event::Refused { side, topic, reason_code });
            }
            let (end, other) = self.ends(side);
            let action = if end.is_paused(other) {
                // This side is not read from, so the broker is not silent.
                end.client.handle_progress(now);
                end.client.handle_input(&mut &[][..], now, &mut end.out)
            } else {
                end.client.handle_input(input, now, &mut end.out)
            };
            if let Some(event) = self.on_action(side, action?, now) {
                return Some(event);
            }
        }
    }

    /// Whether [`handle_input`](Self::handle_input) would consume input of a side. Returns false
    /// while the other side is slower, after the connection has ended, and while a broker before
    /// 5.0 has sent too many messages that are not acknowledged.
    #[must_use]
    pub fn wants_input(&self, side: Side) -> bool {
        let (end, other) = (self.end(side), self.end(side.other()));
        end.client.wants_input() && !end.is_paused(other)
    }

    /// Appends the output for the broker of a side to `out`. The host calls it when the socket has
    /// taken the output before, so that it keeps no second buffer.
    pub fn transmit(&mut self, side: Side, out: &mut Vec<u8>) {
        let (end, _) = self.ends(side);
        if out.is_empty() {
            mem::swap(out, &mut end.out);
        } else {
            out.append(&mut end.out);
        }
    }

    /// Whether [`transmit`](Self::transmit) would append something.
    #[must_use]
    pub fn wants_transmit(&self, side: Side) -> bool {
        !self.end(side).out.is_empty()
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) is due, if at all. Every other call
    /// can change it.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let (local, remote) = (self.local.client.poll_timeout(), self.remote.client.poll_timeout());
        local.into_iter().chain(remote).min()
    }

    /// Sends PINGREQ packets that are due, and ends the connections of silent brokers. The host
    /// calls it until it returns `None`.
    #[must_use = "an event that is dropped is lost"]
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Event<'static>> {
        for side in [Side::Local, Side::Remote] {
            loop {
                let (end, _) = self.ends(side);
                let Some(action) = end.client.handle_timeout(now, &mut end.out) else { break };
                if let Some(event) = self.on_action(side, action, now) {
                    return Some(event);
                }
            }
        }
        None
    }

    /// Reports that a part of a long output was written to a side, as
    /// [`Client::handle_progress`](crate::client::Client::handle_progress) explains.
    pub fn handle_progress(&mut self, side: Side, now: Instant) {
        self.ends(side).0.client.handle_progress(now);
    }

    /// Ends the connection of a side because its transport is closed or broken. Returns
    /// [`Event::Closed`], unless the host has it already.
    #[must_use = "the host can log how the connection has ended"]
    pub fn connection_lost(&mut self, side: Side, now: Instant) -> Option<Event<'static>> {
        while let Some(action) = self.ends(side).0.client.connection_lost() {
            if let Some(event) = self.on_action(side, action, now) {
                return Some(event);
            }
        }
        None
    }

    // ---- what a client asks for ----

    fn on_action<'i>(&mut self, side: Side, action: Action<'i>, now: Instant) -> Option<Event<'i>> {
        match action {
            Action::Connected(connack) => {
                self.on_connected(side, connack.session_present, now);
                Some(Event::Connected(side, connack))
            }
            Action::Message(message) => {
                self.on_message(side, &message, now);
                None
            }
            Action::Published(published) => {
                self.on_published(side, published, now);
                None
            }
            Action::Subscribed(topic, suback) => {
                let code = suback.reason_codes.iter().next().unwrap_or_default();
                // The key was made from an index.
                let topic = usize::try_from(topic).unwrap_or(usize::MAX);
                let subscriptions = &mut self.ends(side).0.subscriptions;
                if code == ReasonCode::PACKET_IDENTIFIER_IN_USE
                    && subscriptions.collisions < MOST_COLLISIONS
                {
                    // A QoS 2 message from before a restart has it. The next one may be free.
                    subscriptions.collisions += 1;
                    subscriptions.pending -= 1;
                    self.subscribe(side, topic, true, now);
                } else {
                    self.on_subscribed(side, topic, code);
                }
                None
            }
            Action::Closed(cause) => {
                let (end, _) = self.ends(side);
                end.disconnected();
                let is_refused = matches!(cause, CloseCause::Refused(_));
                end.refuses_mark |=
                    is_refused && cause.reason_code() == ReasonCode::UNSUPPORTED_PROTOCOL_VERSION;
                Some(Event::Closed(side, cause))
            }
            // Without an answer to an AUTH the connection ends.
            Action::Unsubscribed(..) | Action::RequestLost(_) | Action::Authenticate(_) => None,
        }
    }

    fn on_connected(&mut self, side: Side, session_present: bool, now: Instant) {
        let (end, _) = self.ends(side);
        if !session_present {
            end.forget_session();
        }
        if end.subscriptions.complete {
            return;
        }
        end.subscriptions.refused = false;
        for index in 0..self.config.topics().len() {
            self.subscribe(side, index, session_present, now);
        }
        let subscriptions = &mut self.ends(side).0.subscriptions;
        subscriptions.complete = subscriptions.pending == 0 && !subscriptions.refused;
    }

    /// Subscribes to a topic, or unsubscribes it if messages go only in the other direction.
    fn subscribe(&mut self, side: Side, index: usize, session_present: bool, now: Instant) {
        let Self { config, local, remote, .. } = self;
        let end = if side == Side::Local { local } else { remote };
        let Some(topic) = config.topics().get(index) else { return };
        let (filter, key) = (topic.filter(side).as_text(), index as u64);
        if topic.direction().is_from(side) {
            let is_5_0 = end.version == Version::V5_0;
            let options = SubscriptionOptions {
                maximum_qos: topic.maximum_qos(),
                no_local: is_5_0,
                retain_as_published: is_5_0,
                // A session that is resumed has received the retained messages.
                retain_handling: match is_5_0 {
                    true => RetainHandling::SendIfNew,
                    false => RetainHandling::default(),
                },
            };
            let subscription = [Subscription { topic_filter: filter, options }];
            let properties = SubscribeProperties::default();
            let sent = end.client.subscribe(key, &subscription, properties, now, &mut end.out);
            end.subscriptions.pending += 1;
            if let Err(error) = sent {
                let known =
                    if let RequestError::NotSupported(code) = error { Some(code) } else { None };
                self.on_subscribed(side, index, known.unwrap_or(ReasonCode::UNSPECIFIED_ERROR));
            }
        } else if session_present {
            let is_same = |other: &BridgeTopic| other.filter(side).as_text() == filter;
            let is_wanted = |other: &BridgeTopic| other.direction().is_from(side);
            if !config.topics().iter().any(|other| is_wanted(other) && is_same(other)) {
                let properties = UnsubscribeProperties::default();
                // If it cannot be sent, its messages are unroutable.
                let _ = end.client.unsubscribe(key, &[filter], properties, now, &mut end.out);
            }
        }
    }

    fn on_subscribed(&mut self, side: Side, topic: usize, reason_code: ReasonCode) {
        let subscriptions = &mut self.ends(side).0.subscriptions;
        subscriptions.pending -= 1;
        subscriptions.refused |= reason_code.is_error();
        subscriptions.complete = subscriptions.pending == 0 && !subscriptions.refused;
        if reason_code.is_error() {
            self.refused.push_back((side, topic, reason_code));
        }
    }

    fn on_message(&mut self, side: Side, message: &Received<'_>, now: Instant) {
        let Self { config, local, remote, .. } = self;
        let (from, to) = if side == Side::Local { (local, remote) } else { (remote, local) };
        from.stats.received += 1;
        let exchange = message.token.and_then(|token| {
            let identifier = from.client.packet_identifier(token)?;
            Some((identifier, token))
        });
        if let Some((identifier, token)) = exchange {
            if from.is_repeat(identifier, token, message.dup, now) {
                return;
            }
        }
        let mut qos = None;
        let key = from.next_key(exchange.map(|(identifier, _)| identifier));
        if let Some((name, maximum_qos)) = config.route(side, message.topic_name.as_text()) {
            let response = message.properties.response_topic;
            let translated = response.and_then(|topic| config.response(side, topic));
            let publish = Publish {
                topic_name: (&*name).into(),
                qos: message.qos.min(maximum_qos),
                properties: PublishProperties {
                    response_topic: translated.as_deref().map(Into::into).or(response),
                    subscription_identifiers: Sequence::default(),
                    ..message.properties
                },
                ..message.to_publish()
            };
            qos = to.publish(key, &publish, now);
        } else {
            from.stats.unroutable += 1;
        }
        match exchange {
            Some((identifier, token)) if qos > Some(QoS::AtMostOnce) => {
                from.begin(key, identifier, token);
            }
            Some((_, token)) => _ = from.acknowledge(token, ReasonCode::SUCCESS, now),
            None => {}
        }
    }

    /// Handles the outcome of a message that was published on a side.
    fn on_published(&mut self, side: Side, published: Published<'_>, now: Instant) {
        let (to, from) = self.ends(side);
        let Published { key, outcome } = published;
        let reason_code = match outcome {
            Outcome::Acknowledged { reason_code, .. } => reason_code,
            Outcome::Expired | Outcome::SessionLost(None) => ReasonCode::SUCCESS,
            // The broker has other limits now, or has lost its session: a message that
            // arrives twice is better than a lost one.
            Outcome::NotAllowed(message) | Outcome::SessionLost(Some(message)) => {
                if to.publish(key, &message.to_publish(), now) > Some(QoS::AtMostOnce) {
                    return;
                }
                ReasonCode::SUCCESS
            }
        };
        from.finish(key, reason_code, now);
    }

    // ---- helpers ----

    const fn end(&self, side: Side) -> &End {
        match side {
            Side::Local => &self.local,
            Side::Remote => &self.remote,
        }
    }

    /// Returns the end of a side, and the other one.
    const fn ends(&mut self, side: Side) -> (&mut End, &mut End) {
        match side {
            Side::Local => (&mut self.local, &mut self.remote),
            Side::Remote => (&mut self.remote, &mut self.local),
        }
    }
}

/// Sets the highest bit of the protocol level of a CONNECT.
///
/// It stands after the first byte, the Remaining Length and the protocol name with its length.
fn mark(connect: &mut [u8]) {
    let Some(length) = connect.iter().skip(1).position(|byte| byte & 0x80 == 0) else { return };
    let name = length + 2;
    let size = connect.get(name + 1).copied().unwrap_or_default();
    if let Some(level) = connect.get_mut(name + 2 + usize::from(size)) {
        *level |= 0x80;
    }
}
