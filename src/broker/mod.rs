//! A broker as one deterministic state machine: sessions of many clients, routing between them,
//! retained messages and wills. It knows no sockets, clocks, threads or users; who may connect is a
//! question to the host.
//!
//! Not here yet: shared subscriptions, which CONNACK says are unavailable, enhanced authentication,
//! which is refused with "Bad authentication method", questions about single messages and
//! subscriptions, and durability.

mod config;
mod routing;
mod slab;

pub use config::BrokerConfig;

use crate::codec::{
    AckProperties, ConnackProperties, Connect, Disconnect, OwnedPacket, Packet, ReasonCode, Role,
    Rules, Will,
};
use crate::router::{RetainedStore, SubscriptionIndex};
use crate::server::{self, Server};
use crate::session::{Message, Session};
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use routing::{RetainedCursor, Subscriber};
use slab::Slab;

/// Names a connection of a [`Broker`]. It is never given out twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SessionId(u64);

/// What only the host can do.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A client asks to be let in. To be answered with [`Broker::admit`] or [`Broker::refuse`], now
    /// or later; until then nothing more of the client is read.
    Authenticate {
        /// Whose answer it is to be.
        connection: ConnectionId,
        /// The CONNECT packet, with user name and password.
        connect: OwnedPacket,
    },
    /// There is output for a connection: [`Broker::transmit`] writes it.
    Transmit(ConnectionId),
    /// A connection has ended: [`Broker::transmit`] what is left, close the socket, and say
    /// [`Broker::closed`].
    Close(ConnectionId),
}

/// A whole MQTT broker, but for its sockets and clocks.
///
/// Connections are opened, fed and closed by the host. What they cause for others is told as
/// [`Action`]s.
///
/// ```
/// use mqtt_sansio::broker::{Action, Broker, BrokerConfig};
/// use mqtt_sansio::codec::ConnackProperties;
/// use mqtt_sansio::server::ServerConfig;
/// use mqtt_sansio::Instant;
///
/// let now = Instant::from_millis(0);
/// let mut broker = Broker::new(BrokerConfig::new(ServerConfig::new()), 0x5EED);
/// let (alice, bob) = (broker.open(now), broker.open(now));
/// let (mut to_alice, mut to_bob) = (Vec::new(), Vec::new());
/// let mut drain = |broker: &mut Broker, to_bob: &mut Vec<u8>| {
///     while let Some(action) = broker.poll_action() {
///         match action {
///             Action::Authenticate { connection, .. } => broker.admit(connection, ConnackProperties::default(), now),
///             Action::Transmit(connection) => {
///                 broker.transmit(connection, now, if connection == bob { &mut *to_bob } else { &mut to_alice });
///             }
///             Action::Close(connection) => broker.closed(connection, now),
///             _ => {}
///         }
///     }
/// };
///
/// // Both connect, Bob subscribes to "t", Alice publishes "hi" to it.
/// let mut out = Vec::new();
/// broker.handle_input(alice, &mut &b"\x10\x0D\0\x04MQTT\x04\x02\0\0\0\x01a"[..], now, &mut out);
/// broker.handle_input(bob, &mut &b"\x10\x0D\0\x04MQTT\x04\x02\0\0\0\x01b"[..], now, &mut out);
/// drain(&mut broker, &mut to_bob);
/// assert_eq!(to_bob, b"\x20\x02\0\0");
/// broker.handle_input(bob, &mut &b"\x82\x06\0\x07\0\x01t\0"[..], now, &mut out);
/// assert_eq!(out, b"\x90\x03\0\x07\0");
/// broker.handle_input(alice, &mut &b"\x30\x05\0\x01thi"[..], now, &mut out);
/// to_bob.clear();
/// drain(&mut broker, &mut to_bob);
/// assert_eq!(to_bob, b"\x30\x05\0\x01thi");
/// ```
///
/// After each call the host drains [`poll_action`](Self::poll_action), and has
/// [`handle_timeout`](Self::handle_timeout) called when [`poll_timeout`](Self::poll_timeout) says.
///
/// Messages wait in the sessions, bounded by the configuration, until [`transmit`](Self::transmit)
/// encodes them: a host that calls it when the socket can take more has back-pressure, and no
/// copies waiting in its buffers.
#[derive(Debug)]
pub struct Broker {
    config: BrokerConfig,
    connections: Slab<Connection>,
    sessions: Slab<SessionState>,
    /// The sessions by Client Identifier. [5.0 MQTT-3.1.3-2] [3.1.1 MQTT-3.1.3-2]
    by_client: BTreeMap<Arc<[u8]>, SessionId>,
    subscriptions: SubscriptionIndex<SessionId, Subscriber>,
    retained: RetainedStore,
    actions: VecDeque<Action>,
    /// When to look at what. An entry may be early: then it is put in anew.
    timers: BTreeSet<(Instant, Timer)>,
    seed: u64,
    assigned: u64,
    dropped: u64,
    /// How often retained messages were asked for.
    cursors: u64,
    /// Used anew for each message.
    matches: Vec<(SessionId, Subscriber)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Connection(ConnectionId),
    Session(SessionId),
}

#[derive(Debug)]
struct Connection {
    server: Server,
    session: Option<SessionId>,
    /// The CONNECT that waits for an answer.
    asked: Option<OwnedPacket>,
    /// What was written while the host was not there to take it.
    out: Vec<u8>,
    /// Whether the host was told that there is output.
    told: bool,
    /// The earliest timer that is set.
    timer: Option<Instant>,
    closed: bool,
    /// Whether the host knows that it has ended.
    gone: bool,
}

#[derive(Debug)]
struct SessionState {
    client_identifier: Arc<[u8]>,
    connection: Option<ConnectionId>,
    /// While the client is away. Else the session is with the connection.
    parked: Session,
    subscriptions: BTreeMap<Box<[u8]>, Subscriber>,
    /// Retained messages that are still to be sent, by topic filter.
    retained: BTreeMap<Box<[u8]>, RetainedCursor>,
    /// The topic names of those that were sent before their turn, and which cursors there were
    /// then.
    sent_early: BTreeMap<Box<[u8]>, u64>,
    will: Option<StoredWill>,
    /// While the client is away: when the will is published, and when the session ends.
    will_at: Option<Instant>,
    expires_at: Option<Instant>,
    /// The timer that is set.
    timer: Option<Instant>,
}

/// A will that waits for the end of the connection.
#[derive(Debug)]
struct StoredWill {
    message: Message,
    delay: u32,
}

impl Broker {
    /// A broker without sessions.
    ///
    /// `seed` is random: it keeps the client identifiers that this broker assigns apart from those
    /// of earlier ones.
    #[must_use]
    pub fn new(config: BrokerConfig, seed: u64) -> Self {
        Self {
            config,
            connections: Slab::default(),
            sessions: Slab::default(),
            by_client: BTreeMap::new(),
            subscriptions: SubscriptionIndex::new(),
            retained: RetainedStore::new(),
            actions: VecDeque::new(),
            timers: BTreeSet::new(),
            seed,
            assigned: 0,
            dropped: 0,
            cursors: 0,
            matches: Vec::new(),
        }
    }

    /// How many connections are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// How many sessions there are, those of clients that are away included.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// The retained messages.
    #[must_use]
    pub const fn retained(&self) -> &RetainedStore {
        &self.retained
    }

    /// How many messages were dropped for clients whose queue was full.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    // ---- connections ----

    /// A client's transport is open.
    pub fn open(&mut self, now: Instant) -> ConnectionId {
        let connection = Connection {
            server: Server::new(self.config.server.clone(), now),
            session: None,
            asked: None,
            out: Vec::new(),
            told: false,
            timer: None,
            closed: false,
            gone: false,
        };
        let id = ConnectionId(self.connections.insert(connection));
        self.set_timer(id);
        id
    }

    /// Consumes packets from `input`, all that are complete, and writes the answers to them.
    ///
    /// While the host owes an answer to [`Action::Authenticate`], nothing is consumed; the host
    /// keeps the bytes and calls again after it.
    pub fn handle_input(
        &mut self,
        id: ConnectionId,
        input: &mut &[u8],
        now: Instant,
        out: &mut Vec<u8>,
    ) {
        let Some(connection) = self.connections.get_mut(id.0) else { return };
        out.append(&mut connection.out);
        while let Some(connection) = self.connections.get_mut(id.0) {
            let Some(action) = connection.server.handle_input(input, now, out) else { break };
            self.on_action(id, action, now, out);
        }
        self.set_timer(id);
        let due = self.session_of(id).is_some_and(|(_, session)| !session.retained.is_empty());
        if due
            || self.connections.get(id.0).is_some_and(|connection| connection.server.wants_flush())
        {
            self.tell(id);
        }
    }

    /// Writes what there is for a connection, as far as its client may be sent and until `out`
    /// holds 64 KiB or more.
    ///
    /// Whether there is more once `out` is empty; if not, an [`Action::Transmit`] will tell of what
    /// comes later.
    pub fn transmit(&mut self, id: ConnectionId, now: Instant, out: &mut Vec<u8>) -> bool {
        let Some(connection) = self.connections.get_mut(id.0) else { return false };
        // Nothing that this call itself causes is an action: the host would take it for older than
        // the result.
        connection.told = true;
        out.append(&mut connection.out);
        loop {
            let Some(connection) = self.connections.get_mut(id.0) else { return false };
            let more = connection.server.flush(now, out);
            if more || !self.deliver_retained(id, now) {
                if let Some(connection) = self.connections.get_mut(id.0) {
                    connection.told = false;
                }
                return more;
            }
        }
    }

    /// The transport of a connection goes on, though the broker cannot see it: the host was not
    /// reading from it for a while.
    pub fn handle_progress(&mut self, id: ConnectionId, now: Instant) {
        if let Some(connection) = self.connections.get_mut(id.0) {
            connection.server.handle_progress(now);
        }
    }

    /// The transport of a connection is closed: by the peer, by a failure, or after
    /// [`Action::Close`]. The connection is forgotten.
    pub fn closed(&mut self, id: ConnectionId, now: Instant) {
        let Some(connection) = self.connections.get_mut(id.0) else { return };
        connection.gone = true;
        if let Some(action) = connection.server.connection_lost() {
            self.on_action(id, action, now, &mut Vec::new());
        }
        if let Some(connection) = self.connections.remove(id.0) {
            connection.timer.map(|at| self.timers.remove(&(at, Timer::Connection(id))));
        }
    }

    /// What the host is to do next.
    #[must_use]
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due, if at all.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Does what is due: gives up on silent clients, publishes wills, ends sessions. Harmless when
    /// nothing is.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((_, timer)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.pop_first();
            match timer {
                Timer::Connection(id) => {
                    let Some(connection) = self.connections.get_mut(id.0) else { continue };
                    connection.timer = None;
                    let action = connection.server.handle_timeout(now, &mut connection.out);
                    if let Some(action) = action {
                        self.on_action(id, action, now, &mut Vec::new());
                    }
                    self.set_timer(id);
                }
                Timer::Session(id) => self.on_session_timer(id, now),
            }
        }
    }

    // ---- answers ----

    /// Lets the client of a connection in, with its session if it has one. Another connection of
    /// the same client is closed. [5.0 §3.1.4] [3.1.1 §3.1.4]
    ///
    /// `properties` are what the host has to add to CONNACK, such as Response Information; before
    /// 5.0 they cannot be sent.
    pub fn admit(&mut self, id: ConnectionId, properties: ConnackProperties<'_>, now: Instant) {
        let Some(asked) =
            self.connections.get_mut(id.0).and_then(|connection| connection.asked.take())
        else {
            return;
        };
        let Packet::Connect(connect) = asked.decode() else { return };
        match self.admit_asked(id, &connect, properties, now) {
            Ok(()) => {
                self.set_timer(id);
                self.tell(id);
            }
            Err(reason_code) => {
                self.refuse_asked(id, reason_code, ConnackProperties::default(), now)
            }
        }
    }

    fn admit_asked(
        &mut self,
        id: ConnectionId,
        connect: &Connect<'_>,
        properties: ConnackProperties<'_>,
        now: Instant,
    ) -> Result<(), ReasonCode> {
        if connect.properties.authentication_method.is_some() {
            return Err(ReasonCode::BAD_AUTHENTICATION_METHOD);
        }
        let will = connect.will.map(|will| stored_will(&will)).transpose()?;
        let assigned =
            if connect.client_identifier.is_empty() { Some(self.assign()) } else { None };
        let client_identifier =
            assigned.as_deref().map_or(connect.client_identifier.as_bytes(), str::as_bytes);
        let assigned_client_identifier = assigned.as_deref().map(Into::into);
        let properties = ConnackProperties { assigned_client_identifier, ..properties };
        // Before anything is changed for it: a client that takes not even a CONNACK leaves all as
        // it was.
        let connection = self.connections.get(id.0).ok_or(ReasonCode::UNSPECIFIED_ERROR)?;
        connection
            .server
            .check_accept(false, properties)
            .map_err(|_| ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR)?;
        let (session_id, mut session) = match self.resume(client_identifier, connect, now) {
            Some((session_id, session)) => (session_id, Some(session)),
            None if self.sessions.len() >= self.config.maximum_sessions => {
                return Err(ReasonCode::QUOTA_EXCEEDED);
            }
            None => (self.insert_session(client_identifier), None),
        };
        if let Some(state) = self.sessions.get_mut(session_id.0) {
            state.connection = Some(id);
            state.will = will;
            (state.will_at, state.expires_at) = (None, None);
        }
        self.set_session_timer(session_id);
        if let Some(connection) = self.connections.get_mut(id.0) {
            connection.session = Some(session_id);
            // It was checked that it can.
            let _ = connection.server.accept(&mut session, properties, now, &mut connection.out);
        }
        Ok(())
    }

    /// Does not let the client of a connection in; `properties` may say why, or where else to go.
    pub fn refuse(
        &mut self,
        id: ConnectionId,
        reason_code: ReasonCode,
        properties: ConnackProperties<'_>,
        now: Instant,
    ) {
        if self
            .connections
            .get_mut(id.0)
            .is_some_and(|connection| connection.asked.take().is_some())
        {
            self.refuse_asked(id, reason_code, properties, now);
        }
    }

    /// Ends a connection on the host's own account; before 5.0 without a word.
    pub fn disconnect(&mut self, id: ConnectionId, disconnect: &Disconnect<'_>, now: Instant) {
        let Some(connection) = self.connections.get_mut(id.0) else { return };
        // Where the farewell cannot be said, the end comes without it.
        let _ = connection.server.disconnect(disconnect, &mut connection.out);
        let action = connection.server.connection_lost();
        action.into_iter().for_each(|action| self.on_action(id, action, now, &mut Vec::new()));
    }

    // ---- inside ----

    fn on_action(
        &mut self,
        id: ConnectionId,
        action: server::Action<'_>,
        now: Instant,
        out: &mut Vec<u8>,
    ) {
        match action {
            server::Action::Connect(connect) => self.ask(id, connect),
            server::Action::Message(message) => {
                let reason_code = self.on_message(id, &message.publish(), now);
                if let Some((token, connection)) = message.token.zip(self.connections.get_mut(id.0))
                {
                    // The token is of this step, so it is not stale.
                    let _ = connection.server.acknowledge(token, reason_code, out);
                }
            }
            server::Action::Subscribe(subscribe) => {
                let codes = self.subscribe(id, &subscribe);
                self.answer(id, now, |server| {
                    server.suback(
                        subscribe.packet_identifier,
                        &codes,
                        AckProperties::default(),
                        now,
                        out,
                    )
                });
            }
            server::Action::Unsubscribe(unsubscribe) => {
                let codes = self.unsubscribe(id, &unsubscribe);
                self.answer(id, now, |server| {
                    server.unsuback(
                        unsubscribe.packet_identifier,
                        &codes,
                        AckProperties::default(),
                        now,
                        out,
                    )
                });
            }
            server::Action::Closed { publish_will, .. } => self.on_closed(id, publish_will, now),
            // What a message has come to is the session's business, and enhanced authentication was
            // refused.
            server::Action::Published(_) | server::Action::Authenticate(_) => {}
        }
    }

    /// Answers a client; one that takes no packet of that size is let go.
    fn answer(
        &mut self,
        id: ConnectionId,
        now: Instant,
        answer: impl FnOnce(&mut Server) -> Result<(), server::AnswerError>,
    ) {
        let Some(connection) = self.connections.get_mut(id.0) else { return };
        if answer(&mut connection.server).is_err() {
            self.disconnect(id, &Disconnect::new(ReasonCode::PACKET_TOO_LARGE), now);
        }
    }

    fn ask(&mut self, id: ConnectionId, connect: Connect<'_>) {
        let rules = Rules::new(connect.version)
            .sent_by(Role::Client)
            .with(self.config.server.conduct.options);
        let Some(connection) = self.connections.get_mut(id.0) else { return };
        // It was decoded just now, by the rules by which it is encoded.
        if let Ok(packet) = OwnedPacket::new(&connect.into(), rules) {
            connection.asked = Some(packet.clone());
            self.actions.push_back(Action::Authenticate { connection: id, connect: packet });
        }
    }

    fn refuse_asked(
        &mut self,
        id: ConnectionId,
        reason_code: ReasonCode,
        properties: ConnackProperties<'_>,
        now: Instant,
    ) {
        let Some(connection) = self.connections.get_mut(id.0) else { return };
        // A client that takes not even a CONNACK gets none.
        let _ = connection.server.refuse(reason_code, properties, &mut connection.out);
        connection.server.connection_lost();
        self.on_closed(id, false, now);
    }

    /// The session that the client goes on with; the end of the one that it does not. [5.0
    /// §3.1.2.4] [3.1.1 §3.1.2.4]
    fn resume(
        &mut self,
        client_identifier: &[u8],
        connect: &Connect<'_>,
        now: Instant,
    ) -> Option<(SessionId, Session)> {
        let id = *self.by_client.get(client_identifier)?;
        // What was due while the host was late: the session may have ended, and its will been
        // published. [5.0 MQTT-4.1.0-2]
        self.on_session_timer(id, now);
        if let Some(old) = self.sessions.get(id.0)?.connection {
            // [5.0 MQTT-3.1.4-3] [3.1.1 MQTT-3.1.4-2]
            self.disconnect(old, &Disconnect::new(ReasonCode::SESSION_TAKEN_OVER), now);
        }
        if connect.clean_start {
            self.end_session(id, now);
            return None;
        }
        // A session that was to end with the old connection is gone by now. The will of one that
        // goes on is not published. [5.0 MQTT-3.1.3-9]
        let state = self.sessions.get_mut(id.0)?;
        state.will = None;
        Some((id, core::mem::take(&mut state.parked)))
    }

    fn insert_session(&mut self, client_identifier: &[u8]) -> SessionId {
        let client_identifier: Arc<[u8]> = client_identifier.into();
        let state = SessionState {
            client_identifier: client_identifier.clone(),
            connection: None,
            parked: Session::new(),
            subscriptions: BTreeMap::new(),
            retained: BTreeMap::new(),
            sent_early: BTreeMap::new(),
            timer: None,
            will: None,
            will_at: None,
            expires_at: None,
        };
        let id = SessionId(self.sessions.insert(state));
        self.by_client.insert(client_identifier, id);
        id
    }

    /// A client identifier that no session has. [5.0 MQTT-3.2.2-16] [3.1.1 MQTT-3.1.3-6]
    fn assign(&mut self) -> String {
        loop {
            self.assigned += 1;
            let name = format!("auto-{:016x}-{}", self.seed, self.assigned);
            if !self.by_client.contains_key(name.as_bytes()) {
                return name;
            }
        }
    }

    /// A connection has ended; its session may go on. [5.0 §3.1.2.5] [5.0 §4.1] [3.1.1 §3.1.2.5]
    fn on_closed(&mut self, id: ConnectionId, publish_will: bool, now: Instant) {
        let Some(connection) = self.connections.get_mut(id.0) else { return };
        if core::mem::replace(&mut connection.closed, true) {
            return;
        }
        connection.asked = None;
        if !connection.gone {
            self.actions.push_back(Action::Close(id));
        }
        let Some(session_id) = connection.session.take() else { return };
        let expiry = connection.server.session_expiry_interval();
        let session = connection.server.take_session();
        let Some(state) = self.sessions.get_mut(session_id.0) else { return };
        state.connection = None;
        state.parked = session;
        if !publish_will {
            state.will = None;
        }
        let delay = state.will.as_ref().map_or(0, |will| will.delay);
        if expiry == 0 {
            return self.end_session(session_id, now);
        }
        // For ever has no end. [5.0 §3.1.2.11.2]
        state.expires_at = if expiry == u32::MAX { None } else { Some(now.plus_seconds(expiry)) };
        if delay == 0 {
            self.publish_will(session_id, now);
        } else if let Some(state) = self.sessions.get_mut(session_id.0) {
            state.will_at = Some(now.plus_seconds(delay));
        }
        self.set_session_timer(session_id);
    }

    fn on_session_timer(&mut self, id: SessionId, now: Instant) {
        let Some(state) = self.sessions.get_mut(id.0).filter(|state| state.connection.is_none())
        else {
            return;
        };
        if let Some(set) = state.timer.take() {
            self.timers.remove(&(set, Timer::Session(id)));
        }
        if state.expires_at.is_some_and(|at| at <= now) {
            return self.end_session(id, now);
        }
        if state.will_at.is_some_and(|at| at <= now) {
            state.will_at = None;
            self.publish_will(id, now);
        }
        self.set_session_timer(id);
    }

    /// The end of a session, with which its will does not wait any longer. [5.0 MQTT-3.1.2-8]
    fn end_session(&mut self, id: SessionId, now: Instant) {
        self.publish_will(id, now);
        let Some(state) = self.sessions.remove(id.0) else { return };
        if let Some(set) = state.timer {
            self.timers.remove(&(set, Timer::Session(id)));
        }
        self.by_client.remove(&state.client_identifier);
        for filter in state.subscriptions.keys() {
            self.subscriptions.remove(crate::codec::Text::assume_checked(filter), &id);
        }
    }

    fn set_timer(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id.0) else { return };
        let Some(due) = connection.server.poll_timeout() else { return };
        // A later one is set when the earlier one is looked at, so that not every packet moves it.
        if connection.timer.is_some_and(|set| set <= due) {
            return;
        }
        if let Some(set) = connection.timer.replace(due) {
            self.timers.remove(&(set, Timer::Connection(id)));
        }
        self.timers.insert((due, Timer::Connection(id)));
    }

    fn set_session_timer(&mut self, id: SessionId) {
        let Some(state) = self.sessions.get_mut(id.0) else { return };
        let due = state.will_at.into_iter().chain(state.expires_at).min();
        if let Some(set) = core::mem::replace(&mut state.timer, due) {
            self.timers.remove(&(set, Timer::Session(id)));
        }
        if let Some(due) = due {
            self.timers.insert((due, Timer::Session(id)));
        }
    }

    /// Tells the host of output, once.
    fn tell(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(id.0) {
            if !core::mem::replace(&mut connection.told, true) {
                self.actions.push_back(Action::Transmit(id));
            }
        }
    }

    fn session_of(&mut self, id: ConnectionId) -> Option<(SessionId, &mut SessionState)> {
        let session_id = self.connections.get(id.0)?.session?;
        self.sessions.get_mut(session_id.0).map(|state| (session_id, state))
    }
}

/// A will as it will be published; or why the client is refused for it.
fn stored_will(will: &Will<'_>) -> Result<StoredWill, ReasonCode> {
    let message = routing::will_message(will).map_err(|_| ReasonCode::PACKET_TOO_LARGE)?;
    Ok(StoredWill { message, delay: will.properties.will_delay_interval.unwrap_or(0) })
}
