//! A broker as one deterministic state machine: sessions of many clients, routing between them,
//! retained messages and wills.
//!
//! It knows no sockets, clocks, threads or users. The host decides which clients may connect.
//!
//! The broker does not yet support shared subscriptions (CONNACK says so), enhanced authentication
//! (the broker refuses it with "Bad authentication method"), authorisation of single messages and
//! subscriptions, or durability.
//!
//! Internally, *stores* own state and *flows* borrow it. A store is a type in its own file that
//! imports no other store of this module: `connections`, `sessions`, `timers`, `wills`, and the
//! cursors in `retained`. A flow handles one event from its first step to its last. Each file in
//! `flow` is a flow; they share `deliver`.

mod action;
mod config;
mod connections;
mod deliver;
mod flow;
mod retained;
mod sessions;
mod slab;
mod subscription;
mod timers;
mod wills;

pub use action::{Action, ConnectionId};
pub use config::BrokerConfig;

use crate::codec::{ConnackProperties, Disconnect, OwnedPacket, ReasonCode};
use crate::router::{RetainedStore, SubscriptionIndex};
use crate::server::Server;
use crate::time::Instant;
use action::SessionId;
use alloc::vec::Vec;
use connections::{Connection, Connections, Phase};
use core::fmt;
use flow::{close, connect, exchange};
use retained::Cursors;
use sessions::Sessions;
use subscription::Subscriber;
use timers::Timers;
use wills::Wills;

/// A whole MQTT broker, without sockets and clocks.
///
/// The host opens, feeds and closes connections. All output leaves through
/// [`transmit`](Self::transmit). [`Action`]s hint that a call has changed something for a
/// connection, its own or another.
///
/// ```
/// use mqtt_sansio::broker::{Action, Broker, BrokerConfig};
/// use mqtt_sansio::codec::ConnackProperties;
/// use mqtt_sansio::Instant;
///
/// let now = Instant::from_millis(0);
/// let mut broker = Broker::new(BrokerConfig::default(), 0x5EED);
/// let (alice, bob) = (broker.open(now), broker.open(now));
/// let (mut to_alice, mut to_bob) = (Vec::new(), Vec::new());
/// let mut drain = |broker: &mut Broker, to_bob: &mut Vec<u8>| {
///     while let Some(action) = broker.poll_action() {
///         match action {
///             Action::Connect { connection, .. } => {
///                 broker.accept(connection, ConnackProperties::default(), now);
///             }
///             Action::Transmit(connection) => {
///                 let out = if connection == bob { &mut *to_bob } else { &mut to_alice };
///                 while broker.transmit(connection, now, out) { /* the socket takes `out` */ }
///             }
///             Action::Closed(connection) => broker.connection_lost(connection, now),
///             _ => {}
///         }
///     }
/// };
///
/// // Both connect, Bob subscribes to "t", Alice publishes "hi" to it.
/// broker.handle_input(alice, &mut &b"\x10\x0D\0\x04MQTT\x04\x02\0\0\0\x01a"[..], now);
/// broker.handle_input(bob, &mut &b"\x10\x0D\0\x04MQTT\x04\x02\0\0\0\x01b"[..], now);
/// drain(&mut broker, &mut to_bob);
/// broker.handle_input(bob, &mut &b"\x82\x06\0\x07\0\x01t\0"[..], now);
/// broker.handle_input(alice, &mut &b"\x30\x05\0\x01thi"[..], now);
/// drain(&mut broker, &mut to_bob);
/// assert_eq!(to_bob, b"\x20\x02\0\0\x90\x03\0\x07\0\x30\x05\0\x01thi");
/// ```
///
/// # Level, not edge
///
/// The host can ask at any time what a connection needs: [`wants_transmit`](Self::wants_transmit),
/// [`is_closed`](Self::is_closed), [`wants_input`](Self::wants_input) and
/// [`pending_connect`](Self::pending_connect) depend on the state alone. A host that fetches
/// actions late, acts on them twice, or calls these methods instead, delivers the same bytes.
///
/// # Time
///
/// The host calls [`handle_timeout`](Self::handle_timeout) at the time that
/// [`poll_timeout`](Self::poll_timeout) returns. A clock that steps back is treated as standing
/// still.
///
/// # Back-pressure
///
/// Messages wait in the sessions, bounded by the configuration, until [`transmit`](Self::transmit)
/// encodes them. The host calls it when the socket can take more, and so keeps no copies in its
/// buffers.
pub struct Broker {
    config: BrokerConfig,
    connections: Connections,
    sessions: Sessions,
    subscriptions: SubscriptionIndex<SessionId, Subscriber>,
    retained: RetainedStore,
    cursors: Cursors,
    wills: Wills,
    timers: Timers,
    dropped: u64,
    /// The subscriptions that match the message at hand: a buffer that is used again.
    matches: Vec<(SessionId, Subscriber)>,
}

/// Shows only numbers, because connections hold passwords and output that was not sent.
impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker")
            .field("config", &self.config)
            .field("connections", &self.connections.len())
            .field("sessions", &self.sessions.len())
            .field("subscriptions", &self.subscriptions.len())
            .field("retained", &self.retained.len())
            .field("dropped", &self.dropped)
            .finish_non_exhaustive()
    }
}

impl Broker {
    /// Returns a broker without sessions.
    ///
    /// `seed` is random. It keeps the client identifiers that this broker assigns apart from those
    /// of earlier brokers.
    #[must_use]
    pub fn new(config: BrokerConfig, seed: u64) -> Self {
        Self {
            config,
            connections: Connections::default(),
            sessions: Sessions::new(seed),
            subscriptions: SubscriptionIndex::new(),
            retained: RetainedStore::new(),
            cursors: Cursors::default(),
            wills: Wills::default(),
            timers: Timers::default(),
            dropped: 0,
            matches: Vec::new(),
        }
    }

    /// Returns the number of open connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Returns the number of sessions, including those of absent clients.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Returns the retained messages.
    #[must_use]
    pub const fn retained(&self) -> &RetainedStore {
        &self.retained
    }

    /// Returns the number of messages that were dropped because a queue or the retained store was
    /// full.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    // ---- connections ----

    /// Adds a connection whose transport is already open.
    #[must_use]
    pub fn open(&mut self, now: Instant) -> ConnectionId {
        let now = self.timers.now(now);
        let id = self.connections.open(Server::new(self.config.server.clone(), now));
        exchange::settle(self, id, now);
        id
    }

    /// Consumes all complete packets of `input`, while the connection
    /// [wants input](Self::wants_input). The host keeps the remaining bytes, and calls again when
    /// more bytes arrive or when the connection wants input again.
    pub fn handle_input(&mut self, id: ConnectionId, input: &mut &[u8], now: Instant) {
        let now = self.timers.now(now);
        exchange::handle_input(self, id, input, now);
    }

    /// Writes the output of a connection, as far as the client's limits allow and until `out` holds
    /// 64 KiB or more.
    ///
    /// Returns whether a call with an empty `out` would write more. No [`Action`] follows for the
    /// rest: the host calls again while the result is true.
    #[must_use]
    pub fn transmit(&mut self, id: ConnectionId, now: Instant, out: &mut Vec<u8>) -> bool {
        let now = self.timers.now(now);
        exchange::transmit(self, id, now, out)
    }

    /// Reports transport activity that the broker cannot observe: the host was not reading from
    /// the connection for a while.
    pub fn handle_progress(&mut self, id: ConnectionId, now: Instant) {
        let now = self.timers.now(now);
        if let Some(connection) = self.connections.get_mut(id) {
            connection.server.handle_progress(now);
        }
    }

    /// Forgets a connection whose transport is closed: by the client, by a failure, or after
    /// [`Action::Closed`].
    pub fn connection_lost(&mut self, id: ConnectionId, now: Instant) {
        let now = self.timers.now(now);
        close::connection_lost(self, id, now);
    }

    /// Returns the next hint for the host.
    #[must_use]
    pub fn poll_action(&mut self) -> Option<Action> {
        self.connections.next_action()
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) is due, if at all.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Disconnects silent clients, publishes wills and ends sessions whose time has come. Does
    /// nothing if nothing is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.timers.now(now);
        exchange::handle_timeout(self, now);
    }

    // ---- needs of a connection ----

    /// Whether [`transmit`](Self::transmit) would write something, given room.
    #[must_use]
    pub fn wants_transmit(&self, id: ConnectionId) -> bool {
        self.connections.get(id).is_some_and(Connection::wants_transmit)
    }

    /// Whether [`handle_input`](Self::handle_input) would consume input. Returns false while the
    /// host owes an answer to [`Action::Connect`], while 64 KiB of output or more wait for
    /// [`transmit`](Self::transmit), and after the connection has ended.
    #[must_use]
    pub fn wants_input(&self, id: ConnectionId) -> bool {
        self.connections.get(id).is_some_and(Connection::wants_input)
    }

    /// Whether the connection has ended or is unknown. The host transmits what is left, closes the
    /// socket, and calls [`connection_lost`](Self::connection_lost).
    #[must_use]
    pub fn is_closed(&self, id: ConnectionId) -> bool {
        self.connections.get(id).is_none_or(|one| matches!(one.phase(), Phase::Closed))
    }

    /// Returns the CONNECT that awaits [`accept`](Self::accept) or [`refuse`](Self::refuse).
    #[must_use]
    pub fn pending_connect(&self, id: ConnectionId) -> Option<&OwnedPacket> {
        match self.connections.get(id)?.phase() {
            Phase::Asked(connect) => Some(connect),
            Phase::AwaitConnect | Phase::Connected(_) | Phase::Closed => None,
        }
    }

    // ---- answers and requests of the host ----

    /// Accepts the client of a connection, which resumes its session if it has one. Another
    /// connection of the same client is closed. [5.0 §3.1.4] [3.1.1 §3.1.4]
    ///
    /// The broker adds `properties`, such as Response Information, to a 5.0 CONNACK. It refuses the
    /// client instead if there is no room for another session, if the CONNECT asks for enhanced
    /// authentication, or if the client cannot accept the CONNACK. Does nothing if the connection
    /// awaits no answer.
    pub fn accept(&mut self, id: ConnectionId, properties: ConnackProperties<'_>, now: Instant) {
        let now = self.timers.now(now);
        connect::accept(self, id, properties, now);
    }

    /// Refuses the client of a connection. `properties` can say why, or which other server to use.
    pub fn refuse(
        &mut self,
        id: ConnectionId,
        reason_code: ReasonCode,
        properties: ConnackProperties<'_>,
        now: Instant,
    ) {
        let now = self.timers.now(now);
        connect::refuse(self, id, reason_code, properties, now);
    }

    /// Ends a connection at the host's request. A 5.0 client receives `disconnect`.
    pub fn disconnect(&mut self, id: ConnectionId, disconnect: &Disconnect<'_>, now: Instant) {
        let now = self.timers.now(now);
        close::disconnect(self, id, disconnect, now);
    }
}
