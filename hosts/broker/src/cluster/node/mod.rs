//! A node: which sessions it has, what it appends before it acknowledges, and how it takes sessions
//! over. It knows neither NATS nor sockets.
//!

mod batches;
mod claims;
mod clock;
mod others;
mod shares;

use super::engine::{Append, Engine, Notice};
use super::record::{Choice, Item, Logged, Member, Owed};
use mqtt_sansio::Instant;
use mqtt_sansio::broker::{Broker, Forward, Interest, NodeId, Route};
use rustc_hash::{FxHashMap, FxHashSet};
use shares::Shares;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{Mutex, Notify, oneshot};
use tokio::time;

/// The silence after which a node counts as lost.
pub(crate) const LOST: Duration = Duration::from_secs(5);
/// A node that stood still for longer looks whether its sessions are still its own. Less than the
/// time that others wait for its answer.
const PAUSE: Duration = Duration::from_millis(1_500);
/// The time after which clients are disconnected if nothing can be stored.
const CUT_OFF: Duration = Duration::from_secs(10);
/// The pause before another attempt.
const RETRY: Duration = Duration::from_millis(100);
/// Messages and bytes of the log that stay in memory, for sessions that come from other nodes.
const WINDOW: (usize, usize) = (20_000, 32 * 1024 * 1024);

/// A node of a cluster.
pub(crate) struct Node<E, P> {
    pub(crate) engine: E,
    port: Rc<P>,
    name: String,
    /// The number of this run of the node.
    instance: u64,
    state: RefCell<State>,
    /// Counts the entries and tokens of this node.
    stamp: Cell<u64>,
    /// The changes of this node's interest.
    interest: Cell<u64>,
    log_moved: Notify,
    direct_moved: Notify,
    moved: Notify,
    started: time::Instant,
    last_tick: Cell<time::Instant>,
    /// When the engine last did what it was asked for.
    healthy_at: Cell<time::Instant>,
    /// Since when an append waits, if one does. Servers without a majority can still answer
    /// questions.
    waits_since: Cell<Option<time::Instant>>,
    /// All that this node reads from now on was appended after this time.
    read_since: Cell<time::Instant>,
    /// A time, and the end of the log then, which this node has not read yet.
    end: Cell<Option<(time::Instant, u64)>>,
    is_cut_off: Cell<bool>,
    /// Whether the engine did not answer when it was last asked.
    was_silent: Cell<bool>,
    must_verify: Cell<bool>,
    must_reconcile: Cell<bool>,
    /// Whether this node has handled the messages that were not settled when it started.
    is_settled: Cell<bool>,
}

/// The broker of the node.
pub(crate) trait Port: 'static {
    /// Calls the broker, obeys its actions, and passes it to [`Node::pump`].
    fn with<T>(self: &Rc<Self>, call: impl FnOnce(&mut Broker, Instant) -> T) -> T;
    /// Waits until the broker has records.
    fn journal_moved(&self) -> impl Future<Output = ()>;
    /// Notes whether records wait for the engine.
    fn note_batch(&self, is_open: bool);
    /// Ends all connections, because nothing can be stored.
    fn cut_off(self: &Rc<Self>);
}

/// Figures of the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Other nodes that live.
    pub(crate) others: usize,
    /// Sessions of this node.
    pub(crate) owned: usize,
    pub(crate) is_cut_off: bool,
    /// Sessions that came from another node, or from the engine.
    pub(crate) resumed: u64,
    /// Sessions that another node has taken.
    pub(crate) evicted: u64,
    /// Sessions that another node has claimed without asking.
    pub(crate) fenced: u64,
    /// Sessions of lost nodes that this one has claimed.
    pub(crate) adopted: u64,
    /// Messages of queues that the log does not have any more.
    pub(crate) behind: u64,
    /// Messages with QoS 0 that were not sent to another node, because too many waited.
    pub(crate) lost: u64,
    /// Messages that were appended to the log.
    pub(crate) appended: u64,
    /// Entries of sessions that were appended.
    pub(crate) entries: u64,
}

#[derive(Debug, Default)]
struct State {
    owned: FxHashMap<Rc<str>, Owned>,
    by_number: FxHashMap<u64, Rc<str>>,
    /// The clients whose session needs an entry.
    due: FxHashSet<Rc<str>>,
    /// The clients with changes that can wait, and since when.
    lazy: VecDeque<(time::Instant, Rc<str>)>,
    /// Messages for the log that belong to the next batch.
    forwards: Vec<Forward>,
    /// Requests for sessions.
    evictions: Vec<(Rc<str>, Option<oneshot::Sender<()>>)>,
    /// Clients without records whose connection has ended.
    gone: Vec<Rc<str>>,
    shares: Shares,
    /// Changes of members for the log.
    members: Vec<Member>,
    /// The members that have left here, with their shared subscriptions, until the log says so.
    leaving: BTreeMap<(Rc<str>, Rc<str>), Option<Owed>>,
    repairs: Vec<Repair>,
    /// The last settled position that the log has.
    settled: u64,
    /// The position of the last message that this node has read.
    last_message: u64,
    /// Whether the next batch has a settled position.
    settles: bool,
    /// Messages with QoS 0 for members here.
    direct: Vec<Logged>,
    /// The end of the log, in order.
    window: VecDeque<(u64, Logged)>,
    window_bytes: usize,
    peers: BTreeMap<u64, Peer>,
    next_id: u32,
    claims: FxHashMap<Rc<str>, Rc<Mutex<()>>>,
    figures: Figures,
}

/// A message that is appended again.
#[derive(Debug)]
struct Repair {
    /// The client whose session this node must have for that, or empty.
    client: Rc<str>,
    append: Append,
    /// The time before which no other node has appended it, if that is known.
    since: Option<time::Instant>,
}

/// A session of this node.
#[derive(Debug, Default)]
struct Owned {
    /// The sequence of its last entry.
    sequence: u64,
    /// Its number in the journal, if it outlives its connection.
    number: Option<u64>,
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The keys that the entries lack.
    dirty: BTreeSet<Vec<u8>>,
    /// The next entry has all records.
    is_fresh: bool,
    /// The entries since the last fresh one.
    entries: u32,
    /// The position of the last entry.
    position: u64,
    /// The will of a connection without records.
    will: Option<Owed>,
}

/// Another node.
#[derive(Debug)]
struct Peer {
    name: String,
    id: NodeId,
    seen: time::Instant,
    /// The number of its interest that is known here.
    interest: u64,
    filters: BTreeSet<String>,
}

impl<E: Engine, P: Port> Node<E, P> {
    pub(crate) fn new(engine: E, port: Rc<P>, name: String, instance: u64) -> Self {
        let now = time::Instant::now();
        Self {
            engine,
            port,
            name,
            instance,
            state: RefCell::default(),
            stamp: Cell::new(instance),
            interest: Cell::default(),
            log_moved: Notify::new(),
            direct_moved: Notify::new(),
            moved: Notify::new(),
            started: now,
            last_tick: Cell::new(now),
            healthy_at: Cell::new(now),
            waits_since: Cell::default(),
            read_since: Cell::new(now),
            end: Cell::default(),
            is_cut_off: Cell::new(false),
            was_silent: Cell::new(false),
            must_verify: Cell::new(false),
            must_reconcile: Cell::new(false),
            is_settled: Cell::new(false),
        }
    }

    /// Whether the node refuses clients, because nothing can be stored.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.is_cut_off.get()
    }

    pub(crate) fn figures(&self) -> Figures {
        let state = self.state.borrow();
        let (others, owned) = (state.peers.len(), state.owned.len());
        Figures { others, owned, is_cut_off: self.is_cut_off(), ..state.figures }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn stamp(&self) -> u64 {
        self.stamp.set(self.stamp.get().wrapping_add(1));
        self.stamp.get()
    }

    fn token(&self) -> String {
        format!("{:016x}-{:x}", self.instance, self.stamp())
    }

    /// Returns the will of a client as a message that is appended if its node is lost.
    fn owed_will(&self, will: Logged) -> Owed {
        let will = Logged { number: self.stamp(), ..will };
        Owed { token: self.token(), message: will.to_bytes() }
    }

    // ---- what the broker has for the nodes ----

    /// Takes what the broker has for the nodes. The port calls it after each call of the broker.
    pub(crate) fn pump(&self, broker: &mut Broker) {
        if !broker.wants_nodes() {
            return;
        }
        let mut state = self.state.borrow_mut();
        while let Some(Interest { filter, is_wanted, .. }) = broker.poll_interest() {
            self.interest.set(self.interest.get() + 1);
            let (number, filter) = (self.interest.get(), filter.to_string());
            self.engine.tell(&Notice::Interest { number, filter, is_wanted });
        }
        while let Some(member) = broker.poll_member() {
            let client: Rc<str> = (*member.client_identifier).into();
            let (share, is_connected) = (Rc::from(member.filter.to_string()), member.is_connected);
            if is_connected.is_none() {
                state.leaving.insert((client.clone(), Rc::clone(&share)), None);
            }
            state.members.push(Member { node: self.instance, share, client, is_connected });
            self.moved.notify_one();
        }
        while let Some(forward) = broker.poll_forward() {
            match forward.route {
                Route::Log | Route::Share(_) => state.forwards.push(forward),
                Route::Direct(ref nodes) => self.send(&mut state, &forward, nodes),
            }
        }
    }

    /// Sends a message to the nodes that want it, and to those of the members that receive it.
    fn send(&self, state: &mut State, forward: &Forward, nodes: &[NodeId]) {
        let Forward { message, publisher, expires_at, .. } = forward;
        let choices = state.shares.choose(message, false);
        let is_chosen = |instance: u64| {
            let seat = |one: &Choice| state.shares.seat(&one.share, &one.client);
            choices.iter().filter_map(seat).any(|seat| seat.node == instance)
        };
        let is_for = |instance: u64, peer: &Peer| nodes.contains(&peer.id) || is_chosen(instance);
        let to = state.peers.iter().filter(|(instance, peer)| is_for(**instance, peer));
        let to: Vec<u64> = to.map(|(instance, _)| *instance).collect();
        let is_own = is_chosen(self.instance);
        let (message, publisher) = (message.clone(), Rc::from(&**publisher));
        let (expires_at, share, of, number, known) = (*expires_at, None, 0, 0, 0);
        let logged = Logged { message, publisher, expires_at, share, of, number, known, choices };
        if !to.is_empty() {
            let bytes = logged.to_bytes();
            let is_lost = |one: &&u64| !self.engine.send(**one, bytes.clone());
            state.figures.lost += to.iter().filter(is_lost).count() as u64;
        }
        if is_own {
            state.direct.push(logged);
            self.direct_moved.notify_one();
        }
    }

    /// Notes that the connection of a client has ended.
    pub(crate) fn connection_ended(&self, client: &str) {
        let mut state = self.state.borrow_mut();
        if let Some((client, Owned { number: None, .. })) = state.owned.get_key_value(client) {
            let client = client.clone();
            state.gone.push(client);
            self.moved.notify_one();
        }
    }
    // ---- the log ----

    /// Takes the retained messages and the members at the end of the log, in order.
    pub(crate) fn start(&self, all: &[(u64, Item)]) {
        self.port.with(|broker, now| {
            for (position, item) in all {
                self.take(broker, *position, item, now);
            }
        });
    }

    /// Delivers what the log has, in order and without gaps.
    pub(crate) fn deliver(&self, all: Vec<(u64, Item)>) {
        self.port.with(|broker, now| {
            for (position, item) in &all {
                let is_new = self.take(broker, *position, item, now);
                if let (true, Item::Message(logged)) = (is_new, item) {
                    self.state.borrow_mut().last_message = *position;
                    self.deliver_shared(broker, *position, logged, now);
                }
            }
        });
        let mut state = self.state.borrow_mut();
        for (position, item) in all {
            let Item::Message(logged) = item else { continue };
            if state.window.back().is_none_or(|(last, _)| *last < position) {
                state.window_bytes += logged.message.size();
                state.window.push_back((position, logged));
            }
        }
        while state.window.len() > WINDOW.0 || state.window_bytes > WINDOW.1 {
            let Some((_, logged)) = state.window.pop_front() else { break };
            state.window_bytes -= logged.message.size();
        }
        drop(state);
        self.log_moved.notify_waiters();
    }

    /// Takes an item, except for shared subscriptions. Returns whether it is new.
    fn take(&self, broker: &mut Broker, position: u64, item: &Item, now: Instant) -> bool {
        if broker.position() >= Some(position) {
            return false;
        }
        match item {
            Item::Message(Logged { message, publisher, expires_at, share: None, .. }) => {
                broker.remote(message, publisher, *expires_at, Some(position), now);
            }
            Item::Message(_) => _ = broker.advance(position),
            Item::Settled(settled) => {
                let _ = broker.advance(position);
                let state = &mut *self.state.borrow_mut();
                state.settled = state.settled.max(*settled);
            }
            Item::Member(member) => {
                let _ = broker.advance(position);
                self.note_member(broker, member, position);
            }
        }
        true
    }

    /// Delivers a message that another node has sent directly.
    pub(crate) fn receive(&self, logged: &Logged) {
        let Logged { message, publisher, expires_at, .. } = logged;
        self.port.with(|broker, now| {
            broker.remote(message, publisher, *expires_at, None, now);
            self.deliver_choices(broker, logged, now);
        });
    }

    fn position(&self) -> u64 {
        self.port.with(|broker, _| broker.position()).unwrap_or(0)
    }
}

impl State {
    fn in_window(&self, position: u64) -> Option<Logged> {
        let index = self.window.binary_search_by_key(&position, |(position, _)| *position).ok()?;
        self.window.get(index).map(|(_, logged)| logged.clone())
    }
}
