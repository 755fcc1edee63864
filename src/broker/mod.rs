//! A broker as one deterministic state machine: sessions of many clients, routing between them,
//! retained messages and wills.
//!
//! It knows no sockets, clocks, threads or users. The host decides which clients may connect.
//!
//! # Who may do what
//!
//! The host decides who may connect, and gives each client its [`Grants`]: filters for publishing,
//! subscribing and receiving. The broker checks them itself, so a message costs no question. Grants
//! can leave the topics that they do not cover to the host, which is then asked.
//!
//! # Limits
//!
//! Everything that a client can make the broker keep is limited in items and in bytes, by
//! [`BrokerConfig`] and [`ServerConfig`]. A call does a fixed amount
//! of work beyond the packet at hand and its deliveries; the rest continues at the next timer. So
//! no client makes the others wait.
//!
//! # State that survives
//!
//! A broker that is [durable](BrokerConfig::durable) reports its state as a [`journal`], which the
//! host stores. [`Restore`] makes a broker of it.
//!
//! # Other nodes
//!
//! A broker can be [one of several nodes](BrokerConfig::is_node) that share their clients, without
//! knowing a network. The host connects them by a *log* that all nodes read in one order:
//!
//! - It tells the other nodes which filters this one [wants](Broker::poll_interest), and the broker
//!   what they want, with [`Broker::forward`]. Too many filters do no harm.
//! - It fetches each message for the nodes with [`Broker::poll_forward`]. One with QoS 1 or 2, one
//!   that is retained, and a will take the way of the [log](Route::Log): the host appends it, and
//!   each node, this one too, delivers it by [`Broker::remote`] when it reads it there. It is
//!   acknowledged when the batch of the [`journal`] that it belongs to is durable. Other messages
//!   go [directly](Route::Direct) to the nodes that want them.
//! - Records of the journal name a message of the log by its position there, and the log keeps the
//!   message. So the records of a session, and the position at which they were handed out, are
//!   enough to resume it at any node: what is behind that position finds it again.
//! - When a client asks to connect, the host finds out whether another node has its session.
//!   [`Broker::evict`] takes it out there, and [`Broker::import_session`] and
//!   [`Broker::catch_up`] add it here, before the client is [accepted](Broker::accept). The host
//!   there appends what its clients have published before it gives the records away.
//!   If that node is lost, [`Broker::presume_sent`] gives DUP to what it can have sent.
//!
//! A shared subscription has a group at each node, and each of them receives the message. If
//! [groups span nodes](BrokerConfig::groups_span_nodes), there is one group, and the host chooses:
//!
//! - It fetches the [changes](Broker::poll_member) of the members here, and appends them to the
//!   log, in the batch that they belong to. So all nodes have the same members at each position.
//! - For each message and each shared subscription that matches, it chooses a member, and passes
//!   the message to [`Broker::deliver_to_member`] at the node that has its session.
//! - A session that ends leaves messages for [other members](Route::Share).
//!
//! # Inside
//!
//! Internally, *stores* own state and *flows* borrow it. A store is a type in its own file that
//! imports no other store of this module: `connections`, `nodes`, `sessions`, `tasks`, `timers`,
//! `wills`, and the cursors in `retained`. A flow handles one event from its first step to its
//! last. Each file in `flow` is a flow; they share `deliver`.

mod action;
mod closed;
mod config;
mod connections;
mod deliver;
mod flow;
mod grants;
pub mod journal;
mod keep;
mod nodes;
mod question;
mod request;
mod restore;
mod retained;
mod sessions;
mod sparkplug;
mod stats;
mod subscription;
mod sys;
mod tasks;
mod throttle;
mod timers;
mod transfer;
mod wills;

pub use action::{Action, ConnectionId};
pub use closed::{CloseCause, Closed};
pub use config::{BrokerConfig, Overflow, SharedStrategy};
pub use grants::{Access, Grants};
pub use nodes::{Forward, Interest, Member, NodeId, Route};
pub use question::{Admission, AnswerError, Question, QuestionId};
pub use restore::Restore;
pub use stats::{ClientStats, Counted, Dropped, Stats};
pub use throttle::Rates;
pub use transfer::ImportError;

use crate::codec::{Auth, ConnackProperties, Disconnect, EncodeError, Filter, Publish, ReasonCode};
use crate::router::{RetainedStore, ShareGroups, SubscriptionIndex};
use crate::server::{Server, ServerConfig};
use crate::session::{Message, Session};
use crate::sync::Arc;
use crate::time::Instant;
use action::SessionId;
use alloc::boxed::Box;
use alloc::vec::Vec;
use connections::{Connection, Connections};
use core::fmt;
use flow::{close, connect, exchange, publish};
use journal::{Batch, ClosedBatch, Journal, Record};
use keep::OptionalJournal;
use nodes::Nodes;
use retained::Cursors;
use sessions::{Presence, SessionState, Sessions};
use subscription::{Subscriber, Target};
use tasks::Tasks;
use timers::{Timer, Timers};
use wills::Wills;

/// A whole MQTT broker, without sockets and clocks.
///
/// The host opens, feeds and closes connections. All output leaves through
/// [`transmit`](Self::transmit). [`Action`]s hint that a call has changed something for a
/// connection, its own or another.
///
/// ```
/// use mqtt_sansio::broker::{Action, Admission, Broker, BrokerConfig, Question};
/// use mqtt_sansio::Instant;
///
/// let now = Instant::from_millis(0);
/// // A real host draws the seed at random.
/// let mut broker = Broker::new(BrokerConfig::default(), 0x5EED, now);
/// let (alice, bob) = (broker.open(now), broker.open(now));
/// let (mut to_alice, mut to_bob) = (Vec::new(), Vec::new());
/// let mut drain = |broker: &mut Broker, to_bob: &mut Vec<u8>| {
///     while let Some(action) = broker.poll_action() {
///         match action {
///             // The user name and password are in the CONNECT.
///             Action::Ask(question, Question::Connect(_connect)) => {
///                 broker.accept(question, Admission::default(), now).unwrap();
///             }
///             Action::Ready(connection) => {
///                 let out = if connection == bob { &mut *to_bob } else { &mut to_alice };
///                 while broker.transmit(connection, now, out) { /* the socket takes `out` */ }
///             }
///             Action::Closed(connection, closed) => {
///                 println!("{closed}");
///                 let _ = broker.connection_lost(connection, now);
///             }
///             // No grants leave anything else to the host.
///             _ => {}
///         }
///     }
/// };
///
/// // Both connect, Bob subscribes to "t", Alice publishes "hi" to it.
/// let _ = broker.handle_input(alice, &mut &b"\x10\x0D\0\x04MQTT\x04\x02\0\0\0\x01a"[..], now);
/// let _ = broker.handle_input(bob, &mut &b"\x10\x0D\0\x04MQTT\x04\x02\0\0\0\x01b"[..], now);
/// drain(&mut broker, &mut to_bob);
/// let _ = broker.handle_input(bob, &mut &b"\x82\x06\0\x07\0\x01t\0"[..], now);
/// let _ = broker.handle_input(alice, &mut &b"\x30\x05\0\x01thi"[..], now);
/// drain(&mut broker, &mut to_bob);
/// assert_eq!(to_bob, b"\x20\x02\0\0\x90\x03\0\x07\0\x30\x05\0\x01thi");
/// ```
///
/// # Level, not edge
///
/// The host can ask at any time what a connection needs: [`wants_transmit`](Self::wants_transmit),
/// [`closed`](Self::closed), [`wants_input`](Self::wants_input) and [`question`](Self::question)
/// depend on the state alone. A host that fetches actions late, acts on them twice, or calls these
/// methods instead, delivers the same bytes.
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
/// buffers. Short messages for which none waits are encoded at once, up to 512 bytes for a
/// connection.
pub struct Broker {
    config: BrokerConfig,
    /// The configuration of each connection, which they share.
    server_config: Arc<ServerConfig>,
    connections: Connections,
    sessions: Sessions,
    subscriptions: SubscriptionIndex<Target, Subscriber>,
    groups: ShareGroups<SessionId, Subscriber>,
    retained: RetainedStore,
    cursors: Cursors,
    wills: Wills,
    journal: OptionalJournal,
    /// The state for other nodes, if the broker is one of several.
    nodes: Option<Box<Nodes>>,
    timers: Timers,
    tasks: Tasks,
    /// The counters. The figures of the stores are added when the host asks.
    stats: Stats,
    created_at: Instant,
    /// The subscriptions that match the message at hand: a buffer that is used again.
    matches: Vec<(Target, Subscriber)>,
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
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

impl Broker {
    /// Returns a broker without sessions.
    ///
    /// `seed` must be random and secret: a client that knows it can guess the client identifiers
    /// that the broker assigns, and take their sessions over.
    #[must_use]
    pub fn new(config: BrokerConfig, seed: u128, now: Instant) -> Self {
        let mut timers = Timers::default();
        let now = timers.now(now);
        if config.sys_interval.is_some() {
            timers.arm(Timer::Sys, now);
        }
        let has_journal = config.durable || config.is_node;
        let journal = has_journal.then(|| Box::new(Journal::new(config.is_node)));
        let nodes = config.is_node.then(Box::default);
        Self {
            server_config: Arc::new(config.server.clone()),
            config,
            connections: Connections::default(),
            sessions: Sessions::new(seed),
            subscriptions: SubscriptionIndex::with_seed(seed),
            groups: ShareGroups::new(),
            retained: RetainedStore::new(),
            cursors: Cursors::default(),
            wills: Wills::default(),
            journal,
            nodes,
            timers,
            tasks: Tasks::default(),
            stats: Stats::default(),
            created_at: now,
            matches: Vec::new(),
        }
    }

    /// Begins a call of the host. Returns the time that it goes by.
    fn begin(&mut self, now: Instant) -> Instant {
        self.tasks.begin();
        self.note_journal();
        if let Some(journal) = &mut self.journal {
            journal.begin();
        }
        self.timers.now(now)
    }

    // ---- figures ----

    /// Returns the figures of the broker.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            connections: self.connections.len(),
            sessions: self.sessions.len(),
            retained: self.retained.len(),
            retained_bytes: self.retained.bytes(),
            ..self.stats
        }
    }

    /// Returns the figures of all clients that have a session, in any order.
    pub fn clients(&self) -> impl Iterator<Item = ClientStats<'_>> {
        self.sessions.iter().map(|(_, state)| self.client_stats(state))
    }

    /// Returns the figures of a client that has a session.
    #[must_use]
    pub fn client(&self, client_identifier: &str) -> Option<ClientStats<'_>> {
        let state = self.sessions.get(self.sessions.find(client_identifier)?)?;
        Some(self.client_stats(state))
    }

    fn client_stats<'b>(&'b self, state: &'b SessionState) -> ClientStats<'b> {
        let connection = state.presence.connection();
        let session = self.session_of(state);
        ClientStats {
            client_identifier: state.client_identifier(),
            connection,
            subscriptions: state.subscriptions.len(),
            queued: session.map_or(0, Session::queued),
            queued_bytes: session.map_or(0, Session::queued_bytes),
            in_flight: session.map_or(0, Session::in_flight),
            counted: connection.and_then(|id| self.connections.get(id)).map(|one| one.counted),
        }
    }

    /// Returns the messages of a session, which are with its connection if there is one.
    fn session_of<'b>(&'b self, state: &'b SessionState) -> Option<&'b Session> {
        match &state.presence {
            Presence::Away { session, .. } => Some(session),
            Presence::Connected(id) => self.connections.get(*id).map(|one| one.server.session()),
        }
    }

    /// Returns the retained messages.
    #[must_use]
    pub const fn retained(&self) -> &RetainedStore {
        &self.retained
    }

    // ---- connections ----

    /// Adds a connection whose transport is already open.
    #[must_use]
    pub fn open(&mut self, now: Instant) -> ConnectionId {
        self.open_with(&self.server_config.clone(), now)
    }

    /// Adds a connection with other limits than those of [`BrokerConfig`], such as those of a
    /// listener. The [queue](ServerConfig::maximum_queued) of its client and the checks of a
    /// SUBSCRIBE stay those of the broker.
    #[must_use]
    pub fn open_with(&mut self, config: &Arc<ServerConfig>, now: Instant) -> ConnectionId {
        let now = self.begin(now);
        let config = match config.common.manual_acknowledgement {
            true => config.clone(),
            // The broker itself acknowledges messages.
            false => Arc::new((**config).clone().manual_acknowledgement(true)),
        };
        let id = self.connections.open(Server::new(config, now));
        exchange::settle(self, id, now);
        id
    }

    /// Consumes complete packets of `input`, while the connection
    /// [wants input](Self::wants_input). The host keeps the remaining bytes, and calls again when
    /// more bytes arrive or when the connection wants input again.
    ///
    /// Returns true if the call has stopped only because it has done enough. The host then serves
    /// other connections, and calls again.
    #[must_use]
    pub fn handle_input(&mut self, id: ConnectionId, input: &mut &[u8], now: Instant) -> bool {
        let now = self.begin(now);
        exchange::handle_input(self, id, input, now)
    }

    /// Writes the output of a connection, as far as the client's limits allow and until `out` holds
    /// 64 KiB or more.
    ///
    /// Returns whether a call with an empty `out` would write more. No [`Action`] follows for the
    /// rest: the host calls again while the result is true.
    #[must_use]
    pub fn transmit(&mut self, id: ConnectionId, now: Instant, out: &mut Vec<u8>) -> bool {
        let now = self.begin(now);
        exchange::transmit(self, id, now, out)
    }

    /// Reports transport activity that the broker cannot observe: the host was not reading from
    /// the connection for a while.
    pub fn handle_progress(&mut self, id: ConnectionId, now: Instant) {
        let now = self.begin(now);
        if let Some(connection) = self.connections.get_mut(id) {
            connection.server.handle_progress(now);
        }
    }

    /// Forgets a connection whose transport is closed: by the client, by a failure, or after
    /// [`Action::Closed`]. Returns how it has ended, unless the connection is unknown.
    #[must_use = "the host can log how the connection has ended"]
    pub fn connection_lost(&mut self, id: ConnectionId, now: Instant) -> Option<Closed> {
        let now = self.begin(now);
        close::connection_lost(self, id, now)
    }

    /// Returns the next hint for the host.
    #[must_use]
    pub fn poll_action(&mut self) -> Option<Action> {
        self.note_journal();
        self.connections.next_action()
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) is due, if at all.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let dues = [self.timers.next(), self.retained.next_expiry(), self.tasks.due()];
        dues.into_iter().flatten().min()
    }

    /// Disconnects silent clients, publishes wills and ends sessions whose time has come, and goes
    /// on with work that other calls have put off. Does nothing if nothing is due.
    ///
    /// A call stops when it has done enough. Then [`poll_timeout`](Self::poll_timeout) returns a
    /// time that has come already.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.begin(now);
        exchange::handle_timeout(self, now);
    }

    // ---- needs of a connection ----

    /// Whether [`transmit`](Self::transmit) would write something, given room.
    #[must_use]
    pub fn wants_transmit(&self, id: ConnectionId) -> bool {
        self.connections.wants_transmit(id)
    }

    /// Whether [`handle_input`](Self::handle_input) would consume input. Returns false while a
    /// [question](Self::question) or a SUBSCRIBE of the client is open, while the client must wait
    /// because of its [`Rates`], while too many records are
    /// [not durable](BrokerConfig::maximum_unsynced), while 64 KiB of output or more wait for
    /// [`transmit`](Self::transmit), and after the connection has ended.
    #[must_use]
    pub fn wants_input(&self, id: ConnectionId) -> bool {
        self.connections.get(id).is_some_and(Connection::wants_input) && !self.is_unsynced()
    }

    /// Whether the connection has ended or is unknown. The host transmits what is left, closes the
    /// socket, and calls [`connection_lost`](Self::connection_lost).
    #[must_use]
    pub fn is_closed(&self, id: ConnectionId) -> bool {
        self.connections.get(id).is_none() || self.closed(id).is_some()
    }

    /// Returns how the connection has ended, if it has ended and the host has not closed it.
    #[must_use]
    pub fn closed(&self, id: ConnectionId) -> Option<&Closed> {
        self.connections.closed(id)
    }

    /// Returns the Client Identifier of an accepted client, which the broker may have assigned.
    #[must_use]
    pub fn client_identifier(&self, id: ConnectionId) -> Option<&str> {
        let session = self.connections.get(id)?.session()?;
        Some(self.sessions.get(session)?.client_identifier())
    }

    /// Returns the question that the connection waits for.
    #[must_use]
    pub fn question(&self, id: ConnectionId) -> Option<(QuestionId, &Question)> {
        self.connections.question(id)
    }

    // ---- durable state ----

    /// Closes the batch that is collected, so that later changes belong to the next one, if all
    /// that waits for its records can do without them: QoS 1 messages that connected clients are
    /// about to acknowledge. Each acknowledgement makes records of the closed batch unnecessary.
    /// `None` if the host should call [`poll_journal`](Self::poll_journal) now, if there is
    /// [something](Self::wants_journal) to hand out.
    ///
    /// A host that waits calls this method again to learn how far the batch is. It must not wait
    /// long, because acknowledgements to the publishers wait as well. If another change comes
    /// meanwhile, or [too much](BrokerConfig::maximum_unsynced), this method returns `None`.
    #[must_use = "without a closed batch, the host need not wait"]
    pub fn close_batch(&mut self) -> Option<ClosedBatch> {
        if self.is_unsynced() {
            return None;
        }
        self.journal.as_mut()?.close()
    }

    /// Hands out the records that have changed since the last call, or those of the batch that is
    /// [closed](Self::close_batch), as one batch that belongs into one transaction, in any order.
    /// Returns its number, which the host passes to [`durable`](Self::durable) when it has stored
    /// them. `None` if there is nothing to store.
    ///
    /// Afterwards output can have been released, so the host fetches [actions](Self::poll_action)
    /// after this method and after [`durable`](Self::durable).
    ///
    /// Without [`BrokerConfig::durable`] there are no records.
    #[must_use = "what waits for the batch is sent when it is reported as durable"]
    pub fn poll_journal(&mut self, record: impl FnMut(Record<'_>)) -> Option<Batch> {
        self.note_journal();
        let journal = self.journal.as_mut()?;
        let batch = journal.poll(record);
        self.connections.release_output(journal.durable());
        batch
    }

    /// Whether [`poll_journal`](Self::poll_journal) has something to hand out.
    #[must_use]
    pub fn wants_journal(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.wants_poll())
    }

    /// Notes that the batches up to this one will survive a crash. Output that waited for them can
    /// be transmitted now.
    pub fn durable(&mut self, batch: Batch) {
        self.note_journal();
        if let Some(journal) = &mut self.journal {
            let durable = journal.synced(batch);
            self.connections.release_output(durable);
        }
    }

    /// Notes whether the journal is full, and makes hints due when it is no longer.
    fn note_journal(&mut self) {
        let is_full = self.is_unsynced();
        if let Some(journal) = &mut self.journal {
            if journal.note_full(is_full) {
                self.connections.hint_all();
            }
        }
    }

    /// Whether too many records are not durable.
    fn is_unsynced(&self) -> bool {
        keep::is_full(&self.journal, &self.config)
    }

    // ---- other nodes ----

    /// Forwards the messages of this broker's clients that match a filter to another node. A share
    /// name in the filter has no effect.
    ///
    /// Does nothing if the broker is not [one of several nodes](BrokerConfig::is_node).
    pub fn forward(&mut self, node: NodeId, filter: &Filter) {
        if self.nodes.is_some() {
            self.subscriptions.insert(filter, Target::Node(node), Subscriber::NODE);
        }
    }

    /// Forwards the messages that match a filter to another node no longer. Returns whether it was
    /// forwarded.
    #[must_use = "the filter was possibly not forwarded to the node"]
    pub fn stop_forwarding(&mut self, node: NodeId, filter: &Filter) -> bool {
        self.subscriptions.remove(filter, &Target::Node(node)).is_some()
    }

    /// Returns the next filter that this broker wants the messages of other nodes for, or wants
    /// them for no longer. A change that is undone before the host fetches it is never reported.
    #[must_use = "other nodes must know what this one wants"]
    pub fn poll_interest(&mut self) -> Option<Interest> {
        self.nodes.as_mut()?.next_interest()
    }

    /// Returns all filters that this broker wants the messages of other nodes for, for a node that
    /// has just come.
    pub fn interests(&self) -> impl Iterator<Item = &Filter> {
        self.nodes.iter().flat_map(|nodes| nodes.wanted())
    }

    /// Returns the next change of a member of a shared subscription at this broker, if
    /// [groups span nodes](BrokerConfig::groups_span_nodes). Each change belongs to the same batch
    /// of the journal as a message for the log would.
    #[must_use = "other nodes must know the members"]
    pub fn poll_member(&mut self) -> Option<Member> {
        self.nodes.as_mut()?.next_member()
    }

    /// Returns whether a member of a shared subscription is connected. `None` if the client is no
    /// member at this broker, or is away and receives nothing above QoS 0. `filter` has the share
    /// name.
    #[must_use]
    pub fn member(&self, client_identifier: &str, filter: &Filter) -> Option<bool> {
        let (session, ..) = deliver::member(self, client_identifier, filter)?;
        Some(self.sessions.get(session)?.presence.connection().is_some())
    }

    /// Delivers a message of a node to a member of a shared subscription that the host has chosen,
    /// if [groups span nodes](BrokerConfig::groups_span_nodes). Returns whether the client is a
    /// member at this broker.
    ///
    /// `position` is its place in the log, as with [`remote`](Self::remote), which the host calls
    /// first: it does not deliver to members of shared subscriptions.
    #[must_use = "another member can receive the message"]
    pub fn deliver_to_member(
        &mut self,
        client_identifier: &str,
        filter: &Filter,
        message: &Message,
        expires_at: Option<Instant>,
        position: Option<u64>,
        now: Instant,
    ) -> bool {
        let now = self.begin(now);
        let position = self.journal.as_mut().zip(position);
        position.into_iter().for_each(|(journal, position)| journal.adopt(position, message));
        let client = client_identifier;
        let is_member = deliver::deliver_to_member(self, client, filter, message, expires_at, now);
        if let Some(journal) = &mut self.journal {
            journal.forget_unused(message);
        }
        is_member
    }

    /// Whether [`poll_interest`](Self::poll_interest), [`poll_forward`](Self::poll_forward) or
    /// [`poll_member`](Self::poll_member) possibly returns something.
    #[must_use]
    pub fn wants_nodes(&self) -> bool {
        self.nodes.as_ref().is_some_and(|nodes| nodes.has_news())
    }

    /// Returns the next message for the nodes.
    ///
    /// The host fetches all of them after each call of [`poll_journal`](Self::poll_journal). The
    /// ones for the [log](Route::Log) belong to that batch: it must not be reported as
    /// [durable](Self::durable) before the log has them.
    #[must_use = "a message that is dropped does not arrive"]
    pub fn poll_forward(&mut self) -> Option<Forward> {
        self.nodes.as_mut()?.next_forward()
    }

    /// Drops the output of a connection that waits for batches of the journal, for a host that
    /// cannot store what the output depends on, because another node has the session. Before
    /// [`evict`](Self::evict) it leaves a DISCONNECT to be sent, and after it none.
    pub fn drop_held_output(&mut self, id: ConnectionId) {
        self.connections.drop_held_output(id);
        self.connections.hint(id);
    }

    /// Drops the output of ended connections that waits for batches of the journal, for a host that
    /// has given sessions up, or other connections the sessions, and cannot store what the output
    /// depends on. `is_one` says which clients these are.
    ///
    /// Looks at all output that is held back, so the host calls it once for all clients.
    pub fn drop_held_output_of_ended(&mut self, is_one: impl FnMut(&str) -> bool) {
        self.connections.drop_held_output_of_ended(is_one);
    }

    /// Delivers a message of a node to the clients of this one, and retains it if it says so. It is
    /// not forwarded again. `publisher` is the client identifier of its publisher, or empty.
    ///
    /// `position` is its place in the log that all nodes read: a message that is not behind all
    /// earlier ones is dropped. Records name the message by its position, which is never 0.
    pub fn remote(
        &mut self,
        message: &Message,
        publisher: &str,
        expires_at: Option<Instant>,
        position: Option<u64>,
        now: Instant,
    ) {
        let now = self.begin(now);
        let Some(position) = position else {
            return publish::remote(self, message.clone(), publisher, expires_at, now);
        };
        if !self.advance(position) {
            return;
        }
        if let Some(journal) = &mut self.journal {
            journal.adopt(position, message);
        }
        publish::remote(self, message.clone(), publisher, expires_at, now);
        if let Some(journal) = &mut self.journal {
            journal.forget_unused(message);
        }
    }

    /// Delivers a message of the log to one client, if it matches its subscriptions.
    ///
    /// A host that has [imported](Self::import_session) a session passes the messages behind the
    /// position of its records, up to the one that this broker has handled, in order and before
    /// any others.
    ///
    /// Shared subscriptions do not receive it.
    pub fn catch_up(
        &mut self,
        client_identifier: &str,
        message: &Message,
        publisher: &str,
        expires_at: Option<Instant>,
        position: u64,
        now: Instant,
    ) {
        let now = self.begin(now);
        let Some(session) = self.sessions.find(client_identifier) else { return };
        if let Some(journal) = &mut self.journal {
            journal.adopt(position, message);
        }
        publish::catch_up(self, session, message, publisher, expires_at, now);
        if let Some(journal) = &mut self.journal {
            journal.forget_unused(message);
        }
    }

    /// Notes that this broker has handled the log up to a position. Returns whether the position is
    /// a new one.
    #[must_use = "a message at an old position is handled already"]
    pub fn advance(&mut self, position: u64) -> bool {
        let is_new = self.nodes.as_mut().is_some_and(|nodes| nodes.advance(position));
        if is_new {
            keep::advance(self, position);
        }
        is_new
    }

    /// Returns the position up to which the log is handled, if the broker is one of several nodes.
    #[must_use]
    pub fn position(&self) -> Option<u64> {
        self.nodes.as_ref().map(|nodes| nodes.position())
    }

    // ---- answers ----

    /// Accepts a client, which resumes its session if it has one. Another connection of the same
    /// client is closed. [5.0 §3.1.4] [3.1.1 §3.1.4]
    ///
    /// The broker refuses the client instead if the grants deny its will
    /// ([`NOT_AUTHORIZED`](ReasonCode::NOT_AUTHORIZED)), if there is no room for another session
    /// ([`QUOTA_EXCEEDED`](ReasonCode::QUOTA_EXCEEDED)), if the properties lack the authentication
    /// method of the CONNECT
    /// ([`BAD_AUTHENTICATION_METHOD`](ReasonCode::BAD_AUTHENTICATION_METHOD)), or if CONNACK cannot
    /// be encoded for the client.
    pub fn accept(
        &mut self,
        question: QuestionId,
        admission: Admission<'_>,
        now: Instant,
    ) -> Result<(), AnswerError> {
        let now = self.begin(now);
        connect::accept(self, question, admission, now)
    }

    /// Sends the next step of enhanced authentication, or the last one of a re-authentication.
    /// [5.0 §4.12]
    pub fn challenge(
        &mut self,
        question: QuestionId,
        auth: &Auth<'_>,
        now: Instant,
    ) -> Result<(), AnswerError> {
        let now = self.begin(now);
        connect::challenge(self, question, auth, now)
    }

    /// Allows a client to publish or to subscribe as it asked.
    ///
    /// If there is a `filter`, it is added to the client's grants, so that the topics that it
    /// covers cause no further questions.
    pub fn allow(
        &mut self,
        question: QuestionId,
        filter: Option<&Filter>,
        now: Instant,
    ) -> Result<(), AnswerError> {
        let now = self.begin(now);
        connect::allow(self, question, filter, now)
    }

    /// Refuses what a client asked for. `properties` can say why, or which other server to use.
    ///
    /// A reason code that the answer cannot carry becomes
    /// [`NOT_AUTHORIZED`](ReasonCode::NOT_AUTHORIZED).
    ///
    /// A client that asked to connect is disconnected, as is one that failed to authenticate again.
    /// A message is dropped: before 5.0 it is acknowledged all the same, because an acknowledgement
    /// has no reason code there. [3.1.1 MQTT-3.3.5-2]
    pub fn refuse(
        &mut self,
        question: QuestionId,
        reason_code: ReasonCode,
        properties: ConnackProperties<'_>,
        now: Instant,
    ) -> Result<(), AnswerError> {
        let now = self.begin(now);
        connect::refuse(self, question, reason_code, properties, now)
    }

    // ---- requests of the host ----

    /// Gives the client of a connection other grants, from the next packet on. Its subscriptions
    /// and its will end if the new grants deny them. Messages that wait for it already are sent.
    ///
    /// Looks at each subscription of the client.
    pub fn set_grants(&mut self, id: ConnectionId, grants: Grants, now: Instant) {
        self.begin(now);
        close::set_grants(self, id, grants);
    }

    /// Publishes a message of the host, which needs no connection and no grants. A host that must
    /// not lose it waits until the next batch of the journal is durable.
    ///
    /// Returns [`SUCCESS`](ReasonCode::SUCCESS),
    /// [`NO_MATCHING_SUBSCRIBERS`](ReasonCode::NO_MATCHING_SUBSCRIBERS), or
    /// [`QUOTA_EXCEEDED`](ReasonCode::QUOTA_EXCEEDED) if there is no room to retain it.
    pub fn publish(
        &mut self,
        publish: &Publish<'_>,
        now: Instant,
    ) -> Result<ReasonCode, EncodeError> {
        let now = self.begin(now);
        let message = Message::new(publish)?;
        Ok(publish::publish(self, message, publish.properties.message_expiry_interval, now))
    }

    /// Publishes a message of the host to the clients of this broker alone, also if it is one of
    /// several [nodes](super::broker#other-nodes).
    pub fn publish_own(&mut self, publish: &Publish<'_>, now: Instant) -> Result<(), EncodeError> {
        let now = self.begin(now);
        publish::publish_own(self, Message::new(publish)?, now);
        Ok(())
    }

    /// Ends a connection at the host's request. A 5.0 client receives `disconnect`.
    pub fn disconnect(&mut self, id: ConnectionId, disconnect: &Disconnect<'_>, now: Instant) {
        let now = self.begin(now);
        close::disconnect(self, id, disconnect, CloseCause::Ended(disconnect.reason_code), now);
    }

    /// Ends the session of a client, and its connection if it is connected. A 5.0 client receives
    /// `disconnect`. Returns whether there was a session.
    #[must_use = "there may have been no session"]
    pub fn end_session(
        &mut self,
        client_identifier: &str,
        disconnect: &Disconnect<'_>,
        now: Instant,
    ) -> bool {
        let now = self.begin(now);
        close::end_client(self, client_identifier, disconnect, now)
    }
}
