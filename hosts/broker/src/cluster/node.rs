//! A node: which sessions it has, what it appends before it acknowledges, and how it takes sessions
//! over. It knows neither NATS nor sockets.
//!
//! # One batch after the other
//!
//! The changes of the broker are batches of its journal. For each batch the node
//!
//! 1. appends an entry to each session that has changed, and that must not be lost;
//! 2. appends the messages that clients have published to the log;
//! 3. reports the batch as durable, so that acknowledgements leave.
//!
//! The first step fails if another node has claimed a session: it ends here, with its connection,
//! and what it has published is not appended. Queued messages and acknowledged ones need no entry
//! at once, because the log and the position of the last entry show them again. They are added to
//! the next entry, or after [`LAZY`].

use super::engine::{Append, Engine, Evicted, Head, Notice, Refusal, Silent};
use super::record::{self, Entry, Logged, Owed, State as Stored};
use mqtt_sansio::Instant;
use mqtt_sansio::broker::journal::{Batch, Record};
use mqtt_sansio::broker::{Broker, ConnectionId, Forward, Interest, NodeId, Route};
use mqtt_sansio::codec::{Disconnect, Filter, QoS, ReasonCode, Version};
use rustc_hash::{FxHashMap, FxHashSet};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::mem;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{Mutex, Notify, oneshot};
use tokio::task::{spawn_local, yield_now};
use tokio::time::{self, sleep, timeout};
use tracing::{info, warn};

/// The time between two looks at the clock, and at what is due.
const TICK: Duration = Duration::from_millis(250);
/// The time between two signs of life.
const BEAT: Duration = Duration::from_secs(1);
/// The silence after which a node counts as lost.
pub(crate) const LOST: Duration = Duration::from_secs(5);
/// A node that stood still for longer looks whether its sessions are still its own. Less than the
/// time that others wait for its answer.
const PAUSE: Duration = Duration::from_millis(1_500);
/// The time after which clients are disconnected if nothing can be stored.
const CUT_OFF: Duration = Duration::from_secs(10);
/// The time in which acknowledged messages get into an entry.
const LAZY: Duration = Duration::from_secs(2);
/// The pause before another attempt.
const RETRY: Duration = Duration::from_millis(100);
/// The entries of a session after which all of its records are written again.
const ENTRIES: u32 = 64;
/// Entries that a tick makes due.
const DUE_AT_ONCE: usize = 500;
/// Messages and bytes of an append to the log.
const APPEND: (usize, usize) = (500, 512 * 1024);
/// Messages and bytes of the log that stay in memory, for sessions that come from other nodes.
const WINDOW: (usize, usize) = (20_000, 32 * 1024 * 1024);

/// Records of a session, and their new values.
type Changes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

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
    /// The end of the log, in order.
    window: VecDeque<(u64, Logged)>,
    window_bytes: usize,
    peers: BTreeMap<u64, Peer>,
    next_id: u32,
    claims: FxHashMap<Rc<str>, Rc<Mutex<()>>>,
    figures: Figures,
}

/// An entry on its way.
struct Pending {
    client: Rc<str>,
    expected: u64,
    entry: Entry,
    /// The connection that ends with the session.
    connection: Option<ConnectionId>,
}

/// The appends of a batch.
#[derive(Default)]
struct Work {
    batch: Option<Batch>,
    entries: Vec<Pending>,
    log: Vec<(Rc<str>, Append)>,
    replies: Vec<oneshot::Sender<()>>,
}

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
    moved: Notify,
    started: time::Instant,
    last_tick: Cell<time::Instant>,
    /// When the engine last did what it was asked for.
    healthy_at: Cell<time::Instant>,
    /// Since when an append waits, if one does. Servers without a majority can still answer
    /// questions.
    waits_since: Cell<Option<time::Instant>>,
    is_cut_off: Cell<bool>,
    /// Whether the engine did not answer when it was last asked.
    was_silent: Cell<bool>,
    must_verify: Cell<bool>,
    must_reconcile: Cell<bool>,
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
            moved: Notify::new(),
            started: now,
            last_tick: Cell::new(now),
            healthy_at: Cell::new(now),
            waits_since: Cell::default(),
            is_cut_off: Cell::new(false),
            was_silent: Cell::new(false),
            must_verify: Cell::new(false),
            must_reconcile: Cell::new(false),
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
        while let Some(forward) = broker.poll_forward() {
            match &forward.route {
                Route::Log => state.forwards.push(forward),
                Route::Direct(nodes) => {
                    let Forward { ref message, ref publisher, expires_at, .. } = forward;
                    let (message, publisher) = (message.clone(), Rc::from(&**publisher));
                    let bytes = Logged { message, publisher, expires_at }.to_bytes();
                    let is_for = |peer: &Peer| nodes.contains(&peer.id);
                    let to = state.peers.iter().filter(|(_, peer)| is_for(peer));
                    let is_lost = |one: &&u64| !self.engine.send(**one, bytes.clone());
                    let lost = to.map(|(instance, _)| instance).filter(is_lost).count();
                    state.figures.lost += lost as u64;
                }
            }
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

    // ---- batches ----

    /// Stores for ever what the broker changes.
    pub(crate) async fn run_batches(self: Rc<Self>) {
        loop {
            // Connections that can be served now have their turn: their records join the batch.
            yield_now().await;
            if self.must_verify.take() {
                self.verify().await;
            }
            let Some(work) = self.collect() else {
                tokio::select! {
                    () = self.port.journal_moved() => {}
                    () = self.moved.notified() => {}
                }
                continue;
            };
            self.port.note_batch(true);
            self.waits_since.set(Some(time::Instant::now()));
            self.store(work).await;
            self.waits_since.set(None);
            self.port.note_batch(false);
        }
    }

    async fn store(self: &Rc<Self>, work: Work) {
        let Work { batch, entries, log, replies } = work;
        let appends = entries.into_iter().map(|pending| {
            let node = self.clone();
            spawn_local(async move {
                let Pending { client, expected, entry, connection } = pending;
                let appended = node.append_entry(&client, expected, &entry).await;
                (client, entry.position, connection, appended)
            })
        });
        let appends: Vec<_> = appends.collect();
        let mut lost = FxHashSet::default();
        for append in appends {
            let Ok((client, position, connection, appended)) = append.await else { continue };
            match appended {
                Some(sequence) => {
                    let mut state = self.state.borrow_mut();
                    state.figures.entries += 1;
                    // The session can have been given up, and claimed again meanwhile.
                    let owned = state.owned.get_mut(&client);
                    if let Some(owned) = owned.filter(|owned| owned.sequence < sequence) {
                        (owned.sequence, owned.position) = (sequence, position);
                    }
                }
                None => {
                    // It can be given up already, with output that depends on the entry.
                    if let Some(id) = connection {
                        self.port.with(|broker, _| broker.drop_held_output(id));
                    }
                    self.fence(&client);
                    lost.insert(client);
                }
            }
        }
        let log: Vec<_> = log.into_iter().filter(|(client, _)| !lost.contains(client)).collect();
        self.append_all(log.into_iter().map(|(_, append)| append).collect()).await;
        if self.last_tick.get().elapsed() > PAUSE || self.must_verify.take() {
            self.verify().await;
        }
        self.healthy_at.set(time::Instant::now());
        if let Some(batch) = batch {
            self.port.with(|broker, _| broker.durable(batch));
        }
        for reply in replies {
            let _ = reply.send(());
        }
    }

    /// Takes what the next batch needs. `None` if there is nothing to do.
    fn collect(&self) -> Option<Work> {
        let (mut work, mut changes) = (Work::default(), Vec::new());
        let (mut evicted, mut forwards) = (Vec::new(), Vec::new());
        let (mut gone, mut position) = (Vec::new(), 0);
        self.port.with(|broker, now| {
            let evictions = mem::take(&mut self.state.borrow_mut().evictions);
            let disconnect = Disconnect::new(ReasonCode::SESSION_TAKEN_OVER);
            for (client, reply) in evictions {
                work.replies.extend(reply);
                if !self.state.borrow().owned.contains_key(&client) {
                    continue;
                }
                let mut records = Vec::new();
                let put = |Record { key, value }: Record<'_>| {
                    records.push((key.to_vec(), value.map(<[u8]>::to_vec)));
                };
                let connection = broker.client(&client).and_then(|client| client.connection);
                let has_session = broker.evict(&client, None, &disconnect, now, put);
                evicted.push((client, has_session, connection, records));
            }
            work.batch = broker.poll_journal(|Record { key, value }| {
                changes.push((key.to_vec(), value.map(<[u8]>::to_vec)));
            });
            position = broker.position().unwrap_or(0);
            self.pump(broker);
            let mut state = self.state.borrow_mut();
            gone = mem::take(&mut state.gone);
            for forward in mem::take(&mut state.forwards) {
                let client = broker.client(&forward.publisher);
                let is_connected = client.as_ref().is_some_and(|one| one.connection.is_some());
                if client.is_none() {
                    gone.push(forward.publisher.as_ref().into());
                }
                forwards.push((forward, is_connected));
            }
            gone.retain(|client| broker.client(client).is_none());
        });
        // Before the messages, which depend on the session's being kept.
        let ended = note_changes(&mut self.state.borrow_mut(), changes);
        let mut owed = self.take_forwards(forwards, &evicted, &mut work);
        let state = &mut *self.state.borrow_mut();
        let new_entry =
            || Entry { owner: self.instance, stamp: self.stamp(), position, ..Entry::default() };
        for (client, has_session, connection, records) in evicted {
            let Some(Owned { sequence, number, .. }) = state.owned.remove(&client) else {
                continue;
            };
            number.iter().for_each(|number| _ = state.by_number.remove(number));
            state.figures.evicted += 1;
            let owed = owed.remove(&client).unwrap_or_default();
            let entry = Entry {
                owner: 0,
                is_fresh: true,
                has_ended: !has_session,
                records,
                owed,
                ..new_entry()
            };
            work.entries.push(Pending { client, expected: sequence, entry, connection });
        }
        let gone = gone.into_iter().chain(ended).collect::<BTreeSet<_>>();
        for client in gone {
            let is_over = state.owned.get(&client).is_some_and(|owned| owned.number.is_none());
            if !is_over {
                continue;
            }
            let Some(Owned { sequence, .. }) = state.owned.remove(&client) else { continue };
            let owed = owed.remove(&client).unwrap_or_default();
            // A client whose identifier is from this node has no entry.
            if sequence > 0 || !owed.is_empty() {
                let entry = Entry { is_fresh: true, has_ended: true, owed, ..new_entry() };
                let connection = None;
                work.entries.push(Pending { client, expected: sequence, entry, connection });
            }
        }
        let mut due = mem::take(&mut state.due);
        due.extend(owed.keys().cloned());
        for client in due {
            let Some(owned) = state.owned.get_mut(&client) else { continue };
            let owed = owed.remove(&client).unwrap_or_default();
            let entry = owned.entry(Entry { owed, ..new_entry() });
            let expected = owned.sequence;
            work.entries.push(Pending { client, expected, entry, connection: None });
        }
        let Work { batch, entries, log, replies } = &work;
        let is_empty =
            batch.is_none() && entries.is_empty() && log.is_empty() && replies.is_empty();
        (!is_empty).then_some(work)
    }

    /// Takes the messages for the log. Returns those that an entry of their publisher must have,
    /// because that entry also says that they are accepted.
    fn take_forwards(
        &self,
        forwards: Vec<(Forward, bool)>,
        evicted: &[(Rc<str>, bool, Option<ConnectionId>, Changes)],
        work: &mut Work,
    ) -> FxHashMap<Rc<str>, Vec<Owed>> {
        let mut state = self.state.borrow_mut();
        let mut owed: FxHashMap<Rc<str>, Vec<Owed>> = FxHashMap::default();
        for (forward, is_connected) in forwards {
            let Forward { message, expires_at, publisher, .. } = forward;
            let publisher: Rc<str> = publisher.as_ref().into();
            let owned = state.owned.get(&publisher);
            let is_evicted = || evicted.iter().any(|(client, ..)| *client == publisher);
            if !publisher.is_empty() && owned.is_none() && !is_evicted() {
                // Another node has claimed the session, and publishes its will.
                continue;
            }
            let is_kept = owned.is_some_and(|owned| owned.number.is_some());
            let is_twice_written = !publisher.is_empty()
                && (!is_connected || (is_kept && message.qos() == QoS::ExactlyOnce));
            let token = is_twice_written.then(|| self.token());
            let (topic_name, is_retained) =
                (message.topic_name().to_str().into(), message.retain());
            let bytes = Logged { message, publisher: publisher.clone(), expires_at }.to_bytes();
            if let Some(token) = token.clone() {
                let message = bytes.clone();
                owed.entry(publisher.clone()).or_default().push(Owed { token, message });
            }
            state.figures.appended += 1;
            work.log.push((
                publisher,
                Append { topic_name, is_retained, message: bytes.into(), token },
            ));
        }
        owed
    }

    /// Appends messages to the log, however long that takes.
    async fn append_all(&self, all: Vec<Append>) {
        let mut rest = &all[..];
        while !rest.is_empty() {
            let (mut count, mut bytes) = (0, 0);
            for append in rest.iter().take(APPEND.0) {
                bytes += append.message.len();
                if count > 0 && bytes > APPEND.1 {
                    break;
                }
                count += 1;
            }
            let (part, after) = rest.split_at(count);
            let token = self.token();
            while self.engine.append(part, &token).await.is_err() {
                sleep(RETRY).await;
            }
            let now = time::Instant::now();
            self.healthy_at.set(now);
            self.waits_since.set(Some(now));
            rest = after;
        }
    }

    /// Appends an entry, however long that takes. Returns `None` if another node has appended one.
    async fn append_entry(&self, client: &str, expected: u64, entry: &Entry) -> Option<u64> {
        loop {
            match self.engine.append_entry(client, expected, entry).await {
                Ok(sequence) => return Some(sequence),
                Err(Refusal::Stale) => {
                    // The answer to an earlier attempt can be lost.
                    if let Ok(entries) = self.engine.entries(client).await {
                        return own(&entries, entry);
                    }
                }
                Err(Refusal::Silent) => {}
            }
            sleep(RETRY).await;
        }
    }

    /// Ends a session here that another node has.
    fn fence(&self, client: &Rc<str>) {
        {
            let mut state = self.state.borrow_mut();
            let Some(owned) = state.owned.remove(client) else { return };
            owned.number.iter().for_each(|number| _ = state.by_number.remove(number));
            state.figures.fenced += 1;
        }
        warn!(client = &**client, "another node has claimed the session: it ends here");
        let disconnect = Disconnect::new(ReasonCode::SESSION_TAKEN_OVER);
        self.port.with(|broker, now| {
            // Its output that waits depends on an entry that was not appended.
            let connection = broker.client(client).and_then(|client| client.connection);
            connection.into_iter().for_each(|id| broker.drop_held_output(id));
            let _ = broker.evict(client, None, &disconnect, now, |_| ());
        });
        // The client publishes them again at the other node, which publishes the will, too. They
        // must not be taken for those of a session that comes back here.
        self.state.borrow_mut().forwards.retain(|forward| *forward.publisher != **client);
    }

    /// Ends the sessions that other nodes have claimed while this one stood still.
    async fn verify(&self) {
        let heads = loop {
            match self.engine.heads().await {
                Ok(heads) => break heads,
                Err(Silent) => sleep(RETRY).await,
            }
        };
        for Head { client, sequence, owner, .. } in heads {
            let client: Rc<str> = client.into();
            let is_lost = {
                let state = self.state.borrow();
                let owned = state.owned.get(&client);
                owned.is_some_and(|owned| owner != self.instance && sequence > owned.sequence)
            };
            if is_lost {
                self.fence(&client);
            }
        }
    }

    // ---- the log ----

    /// Delivers messages of the log, in order.
    pub(crate) fn deliver(&self, all: Vec<(u64, Logged)>) {
        self.port.with(|broker, now| {
            for (position, Logged { message, publisher, expires_at }) in &all {
                broker.remote(message, publisher, *expires_at, Some(*position), now);
            }
        });
        let mut state = self.state.borrow_mut();
        for (position, logged) in all {
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

    /// Delivers a message that another node has sent directly.
    pub(crate) fn receive(&self, Logged { message, publisher, expires_at }: &Logged) {
        self.port.with(|broker, now| broker.remote(message, publisher, *expires_at, None, now));
    }

    fn position(&self) -> u64 {
        self.port.with(|broker, _| broker.position()).unwrap_or(0)
    }

    // ---- claims ----

    /// Takes the session of a client to this node, before the client is accepted. `will` is that of
    /// its CONNECT.
    pub(crate) async fn claim(
        self: &Rc<Self>,
        client: &str,
        will: Option<Logged>,
    ) -> Result<(), Silent> {
        let client: Rc<str> = client.into();
        let lock = self.state.borrow_mut().claims.entry(client.clone()).or_default().clone();
        let result = {
            let _guard = lock.lock().await;
            let will = will.map(|will| Owed { token: self.token(), message: will.to_bytes() });
            let start = time::Instant::now();
            loop {
                // The election of a leader takes a while.
                match self.claim_alone(&client, will.clone(), false).await {
                    Err(Silent) if start.elapsed() < CUT_OFF && !self.is_cut_off() => {
                        sleep(RETRY).await;
                    }
                    result => break result,
                }
            }
        };
        let mut state = self.state.borrow_mut();
        // This one, and the map's.
        if Rc::strong_count(&lock) == 2 {
            state.claims.remove(&client);
        }
        result
    }

    /// Notes a client whose identifier this node has chosen, and its will.
    pub(crate) fn note_assigned(&self, client: &str, will: Option<Logged>) {
        let client: Rc<str> = client.into();
        let will = will.map(|will| Logged { publisher: client.clone(), ..will });
        let will = will.map(|will| Owed { token: self.token(), message: will.to_bytes() });
        let mut state = self.state.borrow_mut();
        if will.is_some() {
            state.due.insert(client.clone());
            self.moved.notify_one();
        }
        let owned = state.owned.entry(client).or_default();
        (owned.will, owned.is_fresh) = (will, true);
    }

    async fn claim_alone(
        self: &Rc<Self>,
        client: &Rc<str>,
        will: Option<Owed>,
        is_adoption: bool,
    ) -> Result<(), Silent> {
        {
            let state = &mut *self.state.borrow_mut();
            if let Some(owned) = state.owned.get_mut(client) {
                let has_will = will.is_some() || owned.will.is_some();
                if !is_adoption && has_will && owned.number.is_none() {
                    (owned.will, owned.is_fresh) = (will, true);
                    state.due.insert(client.clone());
                    self.moved.notify_one();
                }
                return Ok(());
            }
        }
        let mut asked = None;
        let (stored, sequence) = loop {
            let (mut stored, mut last) = (Stored::default(), 0);
            for (sequence, entry) in self.engine.entries(client).await? {
                stored.apply(entry);
                last = sequence;
            }
            let owner = stored.owner;
            if is_adoption && self.is_alive(owner) {
                return Ok(());
            }
            let is_elsewhere = owner != 0 && owner != self.instance && !stored.has_ended;
            if is_elsewhere && !is_adoption && asked != Some(last) {
                asked = Some(last);
                if self.engine.evict(owner, client).await == Evicted::Silent {
                    let name = self.state.borrow().peers.get(&owner).map(|peer| peer.name.clone());
                    info!(client = &**client, node = name, "the node of the session is silent");
                }
                continue;
            }
            let is_over = !stored.is_kept() && stored.owed.is_empty() && stored.will.is_none();
            if is_adoption && (is_over || last == 0) {
                return Ok(());
            }
            let entry = Entry {
                owner: self.instance,
                stamp: self.stamp(),
                is_fresh: is_over,
                is_claim: true,
                will: will.clone(),
                ..Entry::default()
            };
            match self.engine.append_entry(client, last, &entry).await {
                Ok(sequence) => break (stored, sequence),
                Err(Refusal::Stale) => {}
                Err(Refusal::Silent) => {
                    // It can have been appended all the same.
                    if let Some(sequence) = own(&self.engine.entries(client).await?, &entry) {
                        break (stored, sequence);
                    }
                }
            }
        };
        let is_kept = stored.is_kept();
        let Stored { owed, will: old_will, .. } = &stored;
        // A session without records whose owner is lost: its connection has ended, too.
        let old_will = old_will.iter().filter(|_| !is_kept && stored.owner != 0);
        for Owed { token, message } in owed.iter().chain(old_will) {
            let Some(logged) = Logged::from_bytes(message) else { continue };
            let append = Append {
                topic_name: logged.message.topic_name().to_str().into(),
                is_retained: logged.message.retain(),
                message: message.clone().into(),
                token: Some(token.clone()),
            };
            self.engine.append(&[append], token).await?;
        }
        let owned = Owned { sequence, will, is_fresh: true, ..Owned::default() };
        if is_kept {
            self.resume(client, stored, owned).await?;
        } else {
            let mut state = self.state.borrow_mut();
            if !owed.is_empty() || stored.will.is_some() {
                // The messages that were owed are appended.
                state.due.insert(client.clone());
            }
            state.owned.insert(client.clone(), owned);
            if is_adoption {
                state.gone.push(client.clone());
            }
        }
        self.state.borrow_mut().figures.adopted += u64::from(is_adoption);
        self.moved.notify_one();
        Ok(())
    }

    /// Gives the broker a session that is stored.
    async fn resume(&self, client: &Rc<str>, stored: Stored, owned: Owned) -> Result<(), Silent> {
        let Stored { mut records, position: mut from, .. } = stored;
        // The messages of its queue.
        let of_queue = |(key, value): (&Vec<u8>, &Vec<u8>)| {
            (key.first() == Some(&b'q')).then(|| record::position_of(value)).flatten()
        };
        let positions: BTreeSet<u64> = records.iter().filter_map(of_queue).collect();
        let mut messages = BTreeMap::new();
        for position in positions {
            let known = self.state.borrow().in_window(position);
            let message = match known {
                Some(message) => Some(message),
                None => self.engine.message(position).await?,
            };
            match message {
                Some(message) => _ = messages.insert(position, message),
                None => self.state.borrow_mut().figures.behind += 1,
            }
        }
        drop_missing(&mut records, &messages);
        let filters: Vec<String> = records
            .keys()
            .filter(|key| key.first() == Some(&b'f') && key.get(9) == Some(&0))
            .filter_map(|key| record::filter_of(key).map(ToOwned::to_owned))
            .collect();
        // This node must not deliver again what is in the records.
        while self.position() < from {
            let _ = timeout(BEAT, self.log_moved.notified()).await;
        }
        let mut missed = Vec::new();
        loop {
            let position = self.position();
            let first =
                self.state.borrow().window.front().map_or(position + 1, |(first, _)| *first);
            if from + 1 >= first || from >= position || filters.is_empty() {
                break;
            }
            let to = (first - 1).min(position);
            missed.extend(self.engine.log(from, to, &filters).await?);
            from = to;
        }
        for (position, message) in &messages {
            records.insert(record::key_of_message(*position), message.message.to_bytes());
        }
        let window: Vec<_> = {
            let mut state = self.state.borrow_mut();
            state.owned.insert(client.clone(), owned);
            let behind = state.window.iter().filter(|(position, _)| *position > from);
            let behind = behind.cloned().collect();
            state.figures.resumed += 1;
            behind
        };
        let imported = self.port.with(|broker, now| {
            let records = records.iter().map(|(key, value)| Record { key, value: Some(value) });
            broker.import_session(records, now)?;
            for (position, logged) in missed.iter().chain(&window) {
                let Logged { message, publisher, expires_at } = logged;
                broker.catch_up(client, message, publisher, *expires_at, *position, now);
            }
            Ok::<_, mqtt_sansio::broker::ImportError>(())
        });
        if let Err(error) = imported {
            warn!(client = &**client, %error, "the session cannot be resumed here");
            self.state.borrow_mut().owned.remove(client);
            return Err(Silent);
        }
        Ok(())
    }

    /// Gives a session to another node. The receiver resolves when it has been stored.
    pub(crate) fn give_up(&self, client: &str) -> oneshot::Receiver<()> {
        let (done, is_done) = oneshot::channel();
        self.state.borrow_mut().evictions.push((client.into(), Some(done)));
        self.moved.notify_one();
        is_done
    }

    /// Gives all sessions up, so that other nodes can have them.
    pub(crate) async fn leave(&self) {
        let clients: Vec<Rc<str>> = self.state.borrow().owned.keys().cloned().collect();
        let given: Vec<_> = clients.iter().map(|client| self.give_up(client)).collect();
        for one in given {
            let _ = one.await;
        }
        self.engine.tell(&Notice::Leaving);
    }

    // ---- other nodes ----

    fn is_alive(&self, instance: u64) -> bool {
        instance == self.instance || self.state.borrow().peers.contains_key(&instance)
    }

    /// Handles a notice of another node.
    pub(crate) fn notice(&self, from: u64, notice: Notice) {
        if from == self.instance {
            return;
        }
        match notice {
            Notice::Alive { name, interest } => {
                let mut state = self.state.borrow_mut();
                let next = NodeId(state.next_id);
                let peer = state.peers.entry(from).or_insert_with(|| {
                    info!(node = name, "another node is there");
                    let (seen, filters) = (time::Instant::now(), BTreeSet::new());
                    Peer { name, id: next, seen, interest: 0, filters }
                });
                peer.seen = time::Instant::now();
                let (is_new, is_behind) = (peer.id == next, peer.interest != interest);
                state.next_id += u32::from(is_new);
                if is_behind {
                    self.engine.tell(&Notice::Ask { of: from });
                }
            }
            Notice::Interest { number, filter, is_wanted } => {
                let id = {
                    let mut state = self.state.borrow_mut();
                    let Some(peer) = state.peers.get_mut(&from) else { return };
                    if number != peer.interest + 1 {
                        // One is lost. The next sign of life shows it.
                        return;
                    }
                    peer.interest = number;
                    match is_wanted {
                        true => peer.filters.insert(filter.clone()),
                        false => peer.filters.remove(&filter),
                    };
                    peer.id
                };
                self.want(id, &[(filter, is_wanted)]);
            }
            Notice::Interests { number, filters } => {
                let (id, changes) = {
                    let mut state = self.state.borrow_mut();
                    let Some(peer) = state.peers.get_mut(&from) else { return };
                    peer.interest = number;
                    let filters = filters.into_iter().collect::<BTreeSet<_>>();
                    let ended = peer.filters.difference(&filters).map(|one| (one.clone(), false));
                    let new = filters.difference(&peer.filters).map(|one| (one.clone(), true));
                    let changes = ended.chain(new).collect::<Vec<_>>();
                    peer.filters = filters;
                    (peer.id, changes)
                };
                self.want(id, &changes);
            }
            Notice::Ask { of } if of == self.instance => {
                let filters = self.port.with(|broker, _| {
                    broker.interests().map(ToString::to_string).collect::<Vec<_>>()
                });
                let number = self.interest.get();
                self.engine.tell(&Notice::Interests { number, filters });
            }
            Notice::Ask { .. } => {}
            Notice::Leaving => {
                self.lose(from);
                self.must_reconcile.set(true);
            }
        }
    }

    fn want(&self, node: NodeId, changes: &[(String, bool)]) {
        self.port.with(|broker, _| {
            for (filter, is_wanted) in changes {
                let Ok(filter) = Filter::new(filter, Version::V5_0) else { continue };
                match is_wanted {
                    true => broker.forward(node, &filter),
                    false => _ = broker.stop_forwarding(node, &filter),
                }
            }
        });
    }

    fn lose(&self, instance: u64) {
        let Some(peer) = self.state.borrow_mut().peers.remove(&instance) else { return };
        info!(node = peer.name, "a node is gone");
        let changes: Vec<_> = peer.filters.into_iter().map(|filter| (filter, false)).collect();
        self.want(peer.id, &changes);
    }

    // ---- the clock ----

    /// Gives signs of life, and does what is due, for ever.
    pub(crate) async fn run_clock(self: Rc<Self>) {
        let mut beat_at = time::Instant::now();
        let mut reconcile_at = beat_at + LOST + BEAT;
        let mut ask_at = beat_at;
        loop {
            let now = time::Instant::now();
            if now - self.last_tick.get() > PAUSE {
                warn!("this node stood still: it looks whether its sessions are still its own");
                self.must_verify.set(true);
                self.moved.notify_one();
                // The others were not heard meanwhile.
                for peer in self.state.borrow_mut().peers.values_mut() {
                    peer.seen = now;
                }
            }
            self.last_tick.set(now);
            if now >= beat_at {
                beat_at = now + BEAT;
                let (name, interest) = (self.name.clone(), self.interest.get());
                self.engine.tell(&Notice::Alive { name, interest });
                self.make_due(now);
            }
            let silent = |peer: &&Peer| now - peer.seen > LOST;
            let lost: Vec<u64> = {
                let state = self.state.borrow();
                state.peers.iter().filter(|(_, peer)| silent(peer)).map(|(one, _)| *one).collect()
            };
            for instance in lost {
                self.lose(instance);
                self.must_reconcile.set(true);
            }
            if now >= reconcile_at || (self.must_reconcile.get() && self.started.elapsed() > LOST) {
                self.must_reconcile.set(false);
                reconcile_at = now + 30 * BEAT;
                spawn_local(self.clone().reconcile());
            }
            if now >= ask_at {
                ask_at = now + 2 * BEAT;
                spawn_local(self.clone().ask());
            }
            self.note_health(now);
            sleep(TICK).await;
        }
    }

    fn note_health(&self, now: time::Instant) {
        let waits_since = self.waits_since.get().unwrap_or(now);
        let is_cut_off = now - self.healthy_at.get().min(waits_since) > CUT_OFF;
        if self.is_cut_off.replace(is_cut_off) == is_cut_off {
            return;
        }
        if is_cut_off {
            warn!(
                "nothing can be stored: clients are disconnected, and refused until it is possible"
            );
            self.port.cut_off();
        } else {
            info!("messages can be stored: clients are accepted again");
            self.must_verify.set(true);
            self.moved.notify_one();
        }
    }

    /// Asks the engine for the bounds of the log, which shows whether it works, and writes new
    /// entries of sessions whose position is in the older part.
    async fn ask(self: Rc<Self>) {
        let Ok((first, last)) = self.engine.bounds().await else {
            return self.was_silent.set(true);
        };
        self.healthy_at.set(time::Instant::now());
        if self.was_silent.take() {
            // Other nodes have possibly asked for sessions in vain, and claimed them.
            self.must_verify.set(true);
            self.moved.notify_one();
        }
        let oldest = first + last.saturating_sub(first) / 4;
        let state = &mut *self.state.borrow_mut();
        let kept = state.owned.iter().filter(|(_, owned)| owned.number.is_some());
        let behind = kept.filter(|(_, owned)| owned.position < oldest && last > first + 1_000);
        state.due.extend(behind.take(DUE_AT_ONCE).map(|(client, _)| client.clone()));
        if !state.due.is_empty() {
            self.moved.notify_one();
        }
    }

    /// Makes entries due for changes that have waited.
    fn make_due(&self, now: time::Instant) {
        let state = &mut *self.state.borrow_mut();
        for _ in 0..DUE_AT_ONCE {
            let is_late = state.lazy.front().is_some_and(|(since, _)| now - *since > LAZY);
            let Some((_, client)) = is_late.then(|| state.lazy.pop_front()).flatten() else {
                break;
            };
            // Another entry can have had the changes.
            if state.owned.get(&client).is_some_and(|owned| !owned.dirty.is_empty()) {
                state.due.insert(client);
            }
        }
        if !state.due.is_empty() {
            self.moved.notify_one();
        }
    }

    /// Claims the sessions of lost nodes, so that their wills are published and they expire. Each
    /// is for the node that has the greatest hash with it.
    async fn reconcile(self: Rc<Self>) {
        let Ok(heads) = self.engine.heads().await else { return self.must_reconcile.set(true) };
        for Head { client, owner, has_ended, sequence } in heads {
            let is_claimed = |owned: &Owned| owner != self.instance && sequence > owned.sequence;
            if self.state.borrow().owned.get(&*client).is_some_and(is_claimed) {
                self.must_verify.set(true);
                self.moved.notify_one();
            }
            if has_ended || self.is_alive(owner) || !self.is_chosen(&client) {
                continue;
            }
            let client: Rc<str> = client.into();
            let lock = self.state.borrow_mut().claims.entry(client.clone()).or_default().clone();
            let _guard = lock.lock().await;
            if self.claim_alone(&client, None, true).await.is_err() {
                return self.must_reconcile.set(true);
            }
        }
        let mut state = self.state.borrow_mut();
        state.claims.retain(|_, lock| Rc::strong_count(lock) > 1);
    }

    fn is_chosen(&self, client: &str) -> bool {
        let state = self.state.borrow();
        let own = rank(client, self.instance);
        state.peers.keys().all(|peer| rank(client, *peer) < own)
    }
}

impl State {
    fn in_window(&self, position: u64) -> Option<Logged> {
        let index = self.window.binary_search_by_key(&position, |(position, _)| *position).ok()?;
        self.window.get(index).map(|(_, logged)| logged.clone())
    }
}

impl Owned {
    /// Adds the records that the entries lack to an entry.
    fn entry(&mut self, entry: Entry) -> Entry {
        self.entries += 1;
        let is_fresh = mem::take(&mut self.is_fresh) || self.entries > ENTRIES;
        let dirty = mem::take(&mut self.dirty);
        let will = self.will.clone().filter(|_| self.number.is_none());
        let records = if is_fresh {
            self.entries = 0;
            self.records.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect()
        } else {
            dirty.into_iter().map(|key| (key.clone(), self.records.get(&key).cloned())).collect()
        };
        Entry { is_fresh, records, will, ..entry }
    }
}

/// Notes the changes of a batch. Returns the clients whose session has ended.
fn note_changes(state: &mut State, changes: Changes) -> Vec<Rc<str>> {
    // New sessions first: one can replace another of the same client.
    for (key, value) in &changes {
        let (Some((b's', number)), Some(value)) = (record::session_of(key), value) else {
            continue;
        };
        let Some(client) = record::client_of(value) else { continue };
        if state.by_number.contains_key(&number) {
            continue;
        }
        let client: Rc<str> = client.into();
        let Some(owned) = state.owned.get_mut(&client) else { continue };
        if let Some(old) = owned.number.replace(number) {
            state.by_number.remove(&old);
        }
        owned.is_fresh = true;
        owned.records.clear();
        owned.dirty.clear();
        state.by_number.insert(number, client);
    }
    let (mut ended, now) = (Vec::new(), time::Instant::now());
    for (key, value) in changes {
        let Some((kind, number)) = record::session_of(&key) else { continue };
        let Some(client) = state.by_number.get(&number).cloned() else { continue };
        let Some(owned) = state.owned.get_mut(&client) else { continue };
        if kind == b's' && value.is_none() {
            (owned.number, owned.records) = (None, BTreeMap::new());
            state.by_number.remove(&number);
            ended.push(client);
            continue;
        }
        // The log shows queued messages again, and PUBREL repeats the end of an exchange.
        let can_wait = kind == b'q' || (kind == b'o' && value.is_none());
        if !can_wait {
            state.due.insert(client);
        } else if owned.dirty.is_empty() {
            state.lazy.push_back((now, client));
        }
        owned.dirty.insert(key.clone());
        match value {
            Some(value) => _ = owned.records.insert(key, value),
            None => _ = owned.records.remove(&key),
        }
    }
    ended
}

/// Removes the records of a queue whose messages are missing.
fn drop_missing(records: &mut BTreeMap<Vec<u8>, Vec<u8>>, messages: &BTreeMap<u64, Logged>) {
    let is_missing = |value: &Vec<u8>| {
        record::position_of(value).is_none_or(|position| !messages.contains_key(&position))
    };
    let gone: BTreeSet<Vec<u8>> = records
        .iter()
        .filter(|(key, value)| key.first() == Some(&b'q') && is_missing(value))
        .filter_map(|(key, _)| key.get(9..).map(<[u8]>::to_vec))
        .collect();
    records.retain(|key, value| match key.first() {
        Some(b'q') => !key.get(9..).is_some_and(|position| gone.contains(position)),
        // A PUBLISH in flight names its place in the queue.
        Some(b'o') if value.first() == Some(&1) => {
            !value.get(1..).is_some_and(|position| gone.contains(position))
        }
        _ => true,
    });
}

/// Returns the sequence of an entry, if it is the last one.
fn own(entries: &[(u64, Entry)], entry: &Entry) -> Option<u64> {
    let (sequence, last) = entries.last()?;
    let is_own = (last.owner, last.stamp) == (entry.owner, entry.stamp) && last == entry;
    is_own.then_some(*sequence)
}

/// Returns a number of a client and a node, so that each client has another order of the nodes.
fn rank(client: &str, instance: u64) -> u64 {
    let mut hash = instance ^ 0xCBF2_9CE4_8422_2325;
    for byte in client.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
    }
    hash ^= hash >> 32;
    hash.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}
