//! A gateway: clients of MQTT-SN become clients of an MQTT server. [SN §4.1]

mod config;
mod connect;
mod deliver;
mod device;
mod output;
mod publisher;
mod receive;
mod sources;
mod topics;
mod uplink;

pub use config::GatewayConfig;

use super::hash::Hash;
use super::v1_2::{
    Advertise, Connect, DecodeError, Encapsulated, GwInfo, Message, MessageType, Publish,
    PublishQos, ReturnCode, decode,
};
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;
use device::{Device, Phase};
use output::{Address, Context, Output};
use publisher::Publisher;
use sources::Sources;
use uplink::Uplink;

/// The number of the connection for messages with QoS −1.
const PUBLISHER: u64 = 0;

/// The timers that a call handles.
const TIMERS: usize = 64;

/// A connection to the server, which the host owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link {
    device: u64,
    generation: u32,
}

/// The destination of a datagram.
#[expect(clippy::exhaustive_enums, reason = "a datagram has one receiver, or all")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination<P> {
    /// The client or forwarder at that address.
    Peer(P),
    /// All clients of the network. [SN §6.1]
    Broadcast {
        /// The broadcast radius; 0 means all nodes. [SN §5.3.9]
        radius: u8,
        /// The client that asked for the datagram. Only it can be sent the datagram if the network
        /// has no broadcast. `None` for an ADVERTISE.
        asked_by: Option<P>,
    },
}

/// An event that the host of a gateway must act on or can log.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The host opens a transport to the server, and writes the output of [`Gateway::transmit`]. If
    /// the transport cannot be opened, the host calls [`Gateway::closed`].
    Open(Link),
    /// The host writes the output of [`Gateway::transmit`], closes the transport, and calls
    /// [`Gateway::closed`].
    Close(Link),
    /// The state of a client has changed.
    Changed {
        /// The client identifier.
        client_id: Box<str>,
        /// The present state.
        state: State,
    },
}

/// The state of a client. [SN §6.14]
///
/// ```text
///                      ┌───────────── CONNECT ────────────┐
///                      ▼                                  │
///  CONNECT ──► Connecting ──► Active ── DISCONNECT ──► Disconnected
///                      ▲       │  │ (duration)              ▲
///              CONNECT │       │  ▼                         │ DISCONNECT
///                      ├────── │ Asleep ◄──────────────┐   │
///                      │       │  │  └─ PINGREQ ► Awake ───┤
///                      │       ▼  ▼ (silent)         (sent) │
///                      └────── Lost                         │
/// ```
#[expect(clippy::exhaustive_enums, reason = "the set is closed by the specification")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// The CONNECT is not answered: the Will dialogue, or the connection to the server.
    Connecting,
    /// The client sends and receives.
    Active,
    /// The client sleeps. Messages are buffered.
    Asleep,
    /// The client receives what was buffered when it woke.
    Awake,
    /// The client was silent for too long. The server publishes its Will.
    Lost,
    /// The client has no connection.
    Disconnected,
}

/// The counters of a gateway.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GatewayStats {
    /// Datagrams that are not valid messages.
    pub malformed: u64,
    /// Messages that have no meaning in the state of their client, such as a second PUBLISH while
    /// one is not acknowledged.
    pub ignored: u64,
    /// Messages of clients that are not connected. A DISCONNECT tells them so.
    pub unknown: u64,
    /// CONNECT messages that were rejected because of a limit.
    pub rejected: u64,
    /// Messages that clients have published.
    pub published: u64,
    /// Messages that were sent to clients with QoS 0, or that a client has acknowledged.
    pub delivered: u64,
    /// Messages that were not delivered: too long for a datagram, rejected by the client, or with
    /// QoS 0 and a full buffer; and messages with QoS −1 that could not be published.
    pub dropped: u64,
    /// Messages that were sent again because a client had not answered.
    pub resent: u64,
}

/// A transparent gateway, without sockets and clocks. `P` is the address of a peer, such as a
/// socket address. The gateway only compares and returns it.
///
/// Each client of MQTT-SN has a [`Client`](crate::client::Client) of MQTT 3.1.1, which knows the
/// rules of the session. The gateway translates between both. The host carries datagrams between
/// the network and the gateway, and for each [`Link`] bytes between the gateway and a server: over
/// TCP, or in memory if the server is a [`Broker`](crate::broker::Broker) of the same program.
/// After each call the host fetches all datagrams and events, and writes the output of the links.
///
/// ```
/// use mqtt_sansio::Instant;
/// use mqtt_sansio::sn::{Destination, Event, Gateway, GatewayConfig};
///
/// let now = Instant::from_millis(0);
/// let mut gateway = Gateway::new(GatewayConfig::new(1));
///
/// // A client connects. The host opens a connection to the server.
/// gateway.handle_datagram(&"peer", b"\x0B\x04\x04\x01\0\x3Csn-45", now);
/// let link = loop {
///     match gateway.poll_event() {
///         Some(Event::Open(link)) => break link,
///         event => assert!(event.is_some()),
///     }
/// };
/// let mut to_server = Vec::new();
/// gateway.transmit(link, &mut to_server);
/// assert_eq!(to_server, b"\x10\x11\0\x04MQTT\x04\x02\0\x3C\0\x05sn-45");
///
/// // The server accepts, and so does the gateway.
/// gateway.handle_input(link, &mut &b"\x20\x02\0\0"[..], now);
/// let mut datagram = Vec::new();
/// assert_eq!(gateway.poll_datagram(&mut datagram), Some(Destination::Peer("peer")));
/// assert_eq!(datagram, b"\x03\x05\0");
///
/// // The client publishes.
/// gateway.handle_datagram(&"peer", b"\x0B\x0C\x02t4\0\021.5", now);
/// to_server.clear();
/// gateway.transmit(link, &mut to_server);
/// assert_eq!(to_server, b"\x30\x08\0\x02t421.5");
/// ```
///
/// # Which client a datagram belongs to
///
/// A client is its identifier and the address that its last CONNECT came from. A datagram from
/// another address never changes its state, except for a CONNECT with its identifier, as in MQTT. A
/// CONNECT with another identifier from the same address gets no state of the client that used the
/// address before. MQTT-SN 1.2 has no authentication: any peer that can send datagrams can send a
/// CONNECT with any identifier.
///
/// # Limits
///
/// [`GatewayConfig`] has limits for everything that grows. A call handles one datagram, the given
/// input, or a number of timers, and sends at most a few datagrams. A client that has more to
/// receive makes a timer due at once.
///
/// # Changes of the Will
///
/// MQTT 3.1.1 cannot change a Will during a connection. If a client that has changed its Will is
/// lost, the gateway publishes the new one itself, and ends the connection with DISCONNECT. The
/// server publishes the old one only if it loses the gateway.
pub struct Gateway<P> {
    config: GatewayConfig,
    devices: BTreeMap<u64, Device<P>>,
    by_client_id: BTreeMap<Box<str>, u64>,
    by_address: BTreeMap<Address<P>, u64>,
    sources: Sources<P>,
    timers: BTreeSet<(Instant, u64)>,
    publisher: Publisher,
    output: Output<P>,
    stats: GatewayStats,
    last_number: u64,
    is_available: bool,
    advertise_at: Option<Instant>,
    gwinfo_at: Option<Instant>,
    latest: Instant,
}

/// Shows only numbers, because messages and passwords are secrets of the clients.
impl<P> fmt::Debug for Gateway<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway")
            .field("config", &self.config)
            .field("clients", &self.devices.len())
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

impl<P: Clone + Ord> Gateway<P> {
    /// Creates a gateway without clients.
    #[must_use]
    pub fn new(config: GatewayConfig) -> Self {
        Self {
            publisher: Publisher::new(&config),
            advertise_at: config.advertise.map(|_| Instant::default()),
            config,
            devices: BTreeMap::new(),
            by_client_id: BTreeMap::new(),
            by_address: BTreeMap::new(),
            sources: Sources::new(),
            timers: BTreeSet::new(),
            output: Output { datagrams: VecDeque::new(), events: VecDeque::new() },
            stats: GatewayStats::default(),
            last_number: PUBLISHER,
            is_available: true,
            gwinfo_at: None,
            latest: Instant::default(),
        }
    }

    /// Sets which peers are one source, to which limits apply. The function returns the same peer
    /// for all peers of a source: for a socket address, the IP address with port 0. By default,
    /// each peer is a source. Call it before the first datagram.
    #[must_use]
    pub fn with_source(mut self, source: fn(&P) -> P) -> Self {
        self.sources.source = source;
        self
    }

    /// Returns the counters.
    #[must_use]
    pub const fn stats(&self) -> GatewayStats {
        self.stats
    }

    /// Returns the clients that the gateway knows, with their states.
    pub fn clients(&self) -> impl Iterator<Item = (&str, State)> {
        self.devices.values().map(|device| (&*device.client_id, device.state()))
    }

    /// Returns the state of a client, if the gateway knows it.
    #[must_use]
    pub fn state(&self, client_id: &str) -> Option<State> {
        self.devices.get(self.by_client_id.get(client_id)?).map(Device::state)
    }

    /// Returns the number of messages that are buffered for a client, and their bytes.
    #[must_use]
    pub fn buffered(&self, client_id: &str) -> Option<(usize, usize)> {
        let device = self.devices.get(self.by_client_id.get(client_id)?)?;
        Some((device.outbound.waiting(), device.outbound.bytes()))
    }

    /// Sets whether the server can be reached, which is true at first. A gateway that has no server
    /// does not advertise, and does not answer SEARCHGW. [SN §6.1]
    pub fn set_available(&mut self, is_available: bool) {
        self.is_available = is_available;
    }

    // ---- datagrams ----

    /// Handles a datagram of a client or forwarder.
    pub fn handle_datagram(&mut self, peer: &P, datagram: &[u8], now: Instant) {
        let now = self.advance(now);
        let mut address = Address { peer: peer.clone(), node: None };
        let mut datagram = datagram;
        let mut decoded = decode(datagram);
        if decoded == Err(DecodeError::Encapsulated) {
            if let Ok(Encapsulated { node_id, message, .. }) = Encapsulated::decode(datagram) {
                address.node = Some(node_id.into());
                (datagram, decoded) = (message, decode(message));
            }
        }
        match decoded {
            Ok(message) => self.on_message(&address, &message, now),
            Err(error) => {
                self.stats.malformed += 1;
                let is_unsupported =
                    matches!(error, DecodeError::ProtocolId(_) | DecodeError::ClientIdLength);
                if is_unsupported && is_connect(datagram) {
                    // [SN §6.2]
                    self.output.send(&address, &Message::Connack(ReturnCode::NotSupported));
                }
            }
        }
    }

    /// Returns the next datagram, whose bytes replace those in `out`. The host calls it after each
    /// call, until it returns `None`.
    #[must_use = "a datagram that is dropped is lost"]
    pub fn poll_datagram(&mut self, out: &mut Vec<u8>) -> Option<Destination<P>> {
        let (destination, datagram) = self.output.datagrams.pop_front()?;
        *out = datagram;
        Some(destination)
    }

    /// Returns the next event. The host calls it after each call, until it returns `None`.
    #[must_use = "an event that is dropped is lost"]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.output.events.pop_front()
    }

    // ---- the connections to the server ----

    /// Consumes complete packets of the server. The host keeps the remaining bytes, and calls again
    /// when more bytes arrive, or when the link [wants input](Self::wants_input) again.
    pub fn handle_input(&mut self, link: Link, input: &mut &[u8], now: Instant) {
        let now = self.advance(now);
        match link.device {
            _ if self.uplink(link).is_none() => {}
            PUBLISHER => self.with_publisher(now, |it, context| it.handle_input(input, context)),
            number => self.with_device(number, now, |it, context| it.handle_input(input, context)),
        }
    }

    /// Whether [`handle_input`](Self::handle_input) would consume input of a link. Returns false
    /// after the connection has ended, and while the buffer of the client is full.
    #[must_use]
    pub fn wants_input(&self, link: Link) -> bool {
        let device = self.devices.get(&link.device);
        let is_paused = device.is_some_and(|device| device.is_paused(&self.config));
        self.uplink(link).is_some_and(|uplink| uplink.client.wants_input()) && !is_paused
    }

    /// Appends the output for the server to `out`. The host calls it when the transport has taken
    /// the output before.
    pub fn transmit(&mut self, link: Link, out: &mut Vec<u8>) {
        let uplink = match link.device {
            PUBLISHER => Some(&mut self.publisher.uplink),
            device => self.devices.get_mut(&device).map(|device| &mut device.uplink),
        };
        if let Some(uplink) = uplink.filter(|uplink| uplink.link() == Some(link)) {
            out.append(&mut uplink.out);
        }
    }

    /// Whether [`transmit`](Self::transmit) would append something.
    #[must_use]
    pub fn wants_transmit(&self, link: Link) -> bool {
        self.uplink(link).is_some_and(|uplink| !uplink.out.is_empty())
    }

    /// Notes that the transport of a link is closed, or could not be opened.
    pub fn closed(&mut self, link: Link, now: Instant) {
        let now = self.advance(now);
        match link.device {
            _ if self.uplink(link).is_none() => {}
            PUBLISHER => self.with_publisher(now, Publisher::on_closed),
            number => self.with_device(number, now, Device::on_closed),
        }
    }

    fn uplink(&self, link: Link) -> Option<&Uplink> {
        let uplink = match link.device {
            PUBLISHER => Some(&self.publisher.uplink),
            device => self.devices.get(&device).map(|device| &device.uplink),
        };
        uplink.filter(|uplink| uplink.link() == Some(link))
    }

    // ---- time ----

    /// Returns when [`handle_timeout`](Self::handle_timeout) is due, if at all. Every other call
    /// can change it.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _)| *at);
        [timer, self.advertise_at].into_iter().flatten().min()
    }

    /// Does everything that is due: sends messages that were not answered again, ends connections
    /// of silent clients, and advertises the gateway.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.advance(now);
        if let (Some(at), Some(interval)) = (self.advertise_at, self.config.advertise) {
            if at <= now {
                self.advertise(interval, now);
            }
        }
        for _ in 0..TIMERS {
            let Some((at, number)) = self.timers.first().copied() else { return };
            if at > now {
                return;
            }
            if number == PUBLISHER {
                self.with_publisher(now, Publisher::handle_timeout);
            } else {
                self.with_device(number, now, Device::handle_timeout);
            }
        }
    }

    /// Ends the connections of all clients, because the host stops. Sends a DISCONNECT to each
    /// client that can receive it, and to the server, so that the server publishes no Will. The
    /// host then passes no more datagrams, and serves the links until each is closed.
    pub fn shut_down(&mut self, now: Instant) {
        let now = self.advance(now);
        self.is_available = false;
        let numbers: Vec<u64> = self.devices.keys().copied().collect();
        for number in numbers {
            self.with_device(number, now, Device::shut_down);
        }
        self.with_publisher(now, Publisher::shut_down);
    }

    /// Returns the time that has passed for this machine: a clock that steps back stands still.
    fn advance(&mut self, now: Instant) -> Instant {
        self.latest = self.latest.max(now);
        self.latest
    }

    /// Sends an ADVERTISE if there is a server. [SN §6.1]
    fn advertise(&mut self, interval: Duration, now: Instant) {
        self.advertise_at = Some(now + interval.max(Duration::from_secs(1)));
        if self.is_available {
            let duration = u16::try_from(interval.as_secs()).unwrap_or(u16::MAX);
            let advertise = Advertise { gateway_id: self.config.gateway_id, duration };
            self.output.broadcast(None, 0, &Message::Advertise(advertise));
        }
    }

    // ---- which client a message belongs to ----

    fn on_message(&mut self, address: &Address<P>, message: &Message<'_>, now: Instant) {
        if let Message::SearchGw(search) = message {
            return self.on_search(address, search.radius, now);
        }
        if let Message::Connect(connect) = message {
            return self.on_connect(address, connect, now);
        }
        if let Message::Publish(publish @ Publish { qos: PublishQos::MinusOne, .. }) = message {
            return self.with_publisher(now, |it, context| it.publish(publish, context));
        }
        let number = self.by_address.get(address).copied();
        // The PINGREQ of a client that wakes has its client identifier. [SN §6.14]
        let name = if let Message::Pingreq(name) = message { name.as_ref() } else { None };
        let is_named = |number: &u64| {
            name.is_none_or(|name| self.by_client_id.get(name.to_str()) == Some(number))
        };
        self.on_client_message(number.filter(is_named), address, message, now);
    }

    fn on_client_message(
        &mut self,
        number: Option<u64>,
        address: &Address<P>,
        message: &Message<'_>,
        now: Instant,
    ) {
        let mut is_unknown = true;
        if let Some(number) = number {
            self.with_device(number, now, |device, context| {
                is_unknown = device.on_client_message(message, context);
            });
        }
        if is_unknown {
            self.stats.unknown += 1;
            if needs_connection(message.message_type()) {
                // [SN §6.12]
                self.output.send(address, &Message::Disconnect(None));
            }
        }
    }

    /// Answers a SEARCHGW, at most once in a second, because all clients hear the answer. [SN §6.1]
    fn on_search(&mut self, address: &Address<P>, radius: u8, now: Instant) {
        if !self.is_available || self.gwinfo_at.is_some_and(|at| at > now) {
            self.stats.ignored += 1;
            return;
        }
        self.gwinfo_at = Some(now + Duration::from_secs(1));
        let info = GwInfo { gateway_id: self.config.gateway_id, address: b"" };
        self.output.broadcast(Some(address), radius, &Message::GwInfo(info));
    }

    fn on_connect(&mut self, address: &Address<P>, connect: &Connect<'_>, now: Instant) {
        let hash = Hash::new().connect(connect).value();
        let client_id = connect.client_id.to_str();
        let known = self.by_client_id.get(client_id).copied();
        let same_address = self.by_address.get(address).copied();
        let mut is_repeat = false;
        if let Some(number) = known.filter(|_| known == same_address) {
            self.with_device(number, now, |device, context| {
                is_repeat = device.is_repeat(hash, context);
                if is_repeat {
                    device.repeat_answer(context);
                }
            });
        }
        if is_repeat {
            return;
        }
        let is_new = known.is_none() || known != same_address;
        let is_accepted = self.sources.accept(&address.peer, is_new, &self.config, now);
        let number =
            if is_accepted { known.or_else(|| self.new_device(client_id, now)) } else { None };
        let Some(number) = number else {
            self.stats.rejected += 1;
            return self.output.send(address, &Message::Connack(ReturnCode::Congestion));
        };
        if same_address != Some(number) {
            // Another client has used this address. The new one gets none of its state.
            if let Some(other) = same_address {
                self.set_address(other, None);
            }
            self.set_address(number, Some(address));
        }
        self.with_device(number, now, |device, context| device.on_connect(connect, hash, context));
    }

    fn set_address(&mut self, number: u64, address: Option<&Address<P>>) {
        let Some(device) = self.devices.get_mut(&number) else { return };
        if let Some(before) = core::mem::replace(&mut device.address, address.cloned()) {
            self.by_address.remove(&before);
            self.sources.count_client(&before.peer, device.is_counted, false);
        }
        if let Some(address) = address {
            self.by_address.insert(address.clone(), number);
            self.sources.count_client(&address.peer, device.is_counted, true);
        }
    }

    /// Returns the number of a new client. If there are too many, forgets one that is disconnected.
    fn new_device(&mut self, client_id: &str, now: Instant) -> Option<u64> {
        if self.devices.len() >= self.config.maximum_clients {
            let away = self.devices.values().filter(|device| device.is_away());
            let oldest = away.min_by_key(|device| device.heard)?.number;
            self.remove(oldest);
        }
        self.last_number += 1;
        let number = self.last_number;
        self.devices.insert(number, Device::new(number, client_id, now));
        self.by_client_id.insert(client_id.into(), number);
        Some(number)
    }

    fn remove(&mut self, number: u64) {
        self.set_address(number, None);
        let Some(device) = self.devices.remove(&number) else { return };
        self.by_client_id.remove(&device.client_id);
        if let Some(at) = device.timer {
            self.timers.remove(&(at, number));
        }
    }

    // ---- calls of a client, and of the connection for QoS −1 ----

    fn with_device(
        &mut self,
        number: u64,
        now: Instant,
        call: impl FnOnce(&mut Device<P>, &mut Context<'_, P>),
    ) {
        let Some(device) = self.devices.get_mut(&number) else { return };
        let Self { config, output, stats, .. } = self;
        call(device, &mut Context { config, output, stats, now });
        let is_connecting = matches!(device.phase, Phase::Connecting(_));
        if is_connecting != core::mem::replace(&mut device.is_counted, is_connecting) {
            let peer = device.address.as_ref().map(|address| &address.peer);
            self.sources.count_connecting(peer, is_connecting);
        }
        let timer = device.deadline();
        set_timer(&mut self.timers, &mut device.timer, timer, number);
        if device.is_over() {
            self.remove(number);
        } else if matches!(device.phase, Phase::Lost { .. } | Phase::Disconnected) {
            // The limits no longer count this client, and its messages are answered as those of an
            // unknown client.
            self.set_address(number, None);
        }
    }

    fn with_publisher(
        &mut self,
        now: Instant,
        call: impl FnOnce(&mut Publisher, &mut Context<'_, P>),
    ) {
        let Self { config, output, stats, publisher, .. } = self;
        call(publisher, &mut Context { config, output, stats, now });
        let timer = publisher.uplink.poll_timeout();
        set_timer(&mut self.timers, &mut publisher.timer, timer, PUBLISHER);
    }
}

fn set_timer(
    timers: &mut BTreeSet<(Instant, u64)>,
    current: &mut Option<Instant>,
    timer: Option<Instant>,
    number: u64,
) {
    if *current != timer {
        current.take().map(|at| timers.remove(&(at, number)));
        timer.map(|at| timers.insert((at, number)));
        *current = timer;
    }
}

/// Whether a datagram has the message type of CONNECT.
fn is_connect(datagram: &[u8]) -> bool {
    let number = if datagram.first() == Some(&1) { datagram.get(3) } else { datagram.get(1) };
    number == Some(&(MessageType::Connect as u8))
}

/// Whether a client that sends such a message believes that it is connected. A DISCONNECT is
/// answered, too: the first answer can be lost.
const fn needs_connection(message_type: MessageType) -> bool {
    matches!(
        message_type,
        MessageType::Register
            | MessageType::Publish
            | MessageType::Subscribe
            | MessageType::Unsubscribe
            | MessageType::Pingreq
            | MessageType::Disconnect
            | MessageType::WillTopicUpd
            | MessageType::WillMsgUpd
    )
}
