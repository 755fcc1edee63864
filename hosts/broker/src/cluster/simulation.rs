//! Three nodes over an engine in memory: a log and a map whose operations are atomic, with answers
//! that come late, not at all, or after the operation was done. Nodes crash and are cut off, and
//! clients move between them. Time is simulated, so a seed replays.

use super::engine::{Append, Engine, Evicted, Head, Notice, Refusal, Silent};
use super::node::{Node, Port};
use super::record::{Entry, Item, Logged, Mark};
use crate::host::is_open;
use mqtt_sansio::Instant;
use mqtt_sansio::broker::{
    Action, Admission, Broker, BrokerConfig, ConnectionId, Question, QuestionId,
};
use mqtt_sansio::client::{self, Client, ClientConfig};
use mqtt_sansio::codec::{
    Connect, ConnectProperties, Packet, Publish, QoS, SubscribeProperties, Subscription,
    UnsubscribeProperties, Version, Will,
};
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::btree_map::Entry as Token;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::{Rc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, LocalSet, spawn_local};
use tokio::time::{self, sleep};

const NODES: usize = 3;
/// The publishers are 0 and 1, the subscribers 2 and 3. The others are members of a shared
/// subscription: one that stays, one that leaves it and comes back, and one whose session ends with
/// its connection.
const NAMES: [&str; 7] = ["p0", "p1", "s0", "s1", "g0", "g1", "g2"];
const LEAVES: usize = 5;
const ENDS: usize = 6;
const STEPS: usize = 120;
const GROUP: &str = "$share/g/t/#";

/// Counts of events, so that the test can check that they occur.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    moves: usize,
    crashes: usize,
    cuts: usize,
    stalls: usize,
    lags: usize,
    lost_answers: usize,
    received: usize,
    repeated: usize,
    fenced: u64,
    adopted: u64,
    resumed: u64,
    wills: usize,
    shared: usize,
    again: usize,
}

/// How the engine treats an append with an expected sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Care {
    Careful,
    /// Each append succeeds, as if nothing was expected.
    WithoutFence,
    /// A token is not looked at.
    WithoutTokens,
    /// Messages are not found in the log, so nodes rely on tokens alone.
    WithoutMarks,
    /// No answer is lost, and nothing fails.
    Calm,
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % limit
    }
}

/// The state of the engine, and how it behaves.
struct Store {
    random: RefCell<Random>,
    care: Care,
    log: RefCell<Vec<Vec<u8>>>,
    /// The tokens that are remembered, and since when.
    tokens: RefCell<BTreeMap<String, time::Instant>>,
    sessions: RefCell<BTreeMap<String, Vec<(u64, Entry)>>>,
    last: Cell<u64>,
    moved: Notify,
    nodes: RefCell<Vec<Weak<SimNode>>>,
    lost_answers: Cell<usize>,
}

type SimNode = Node<Memory, Host>;

/// The engine as one node sees it.
struct Memory {
    store: Rc<Store>,
    instance: u64,
    state: Rc<Line>,
}

/// The line between a node and the engine.
#[derive(Default)]
struct Line {
    is_cut: Cell<bool>,
    /// Whether appends to the log are not answered, while all else works.
    is_stalled: Cell<bool>,
    /// Whether the node does not read the log, while all else works.
    is_behind: Cell<bool>,
    is_dead: Cell<bool>,
}

impl Line {
    fn mend(&self) {
        self.is_cut.set(false);
        self.is_stalled.set(false);
        self.is_behind.set(false);
    }
}

impl Memory {
    /// Does something, if the request arrives. The answer can be lost.
    async fn ask<T>(&self, work: impl FnOnce(&Store) -> T) -> Result<T, Silent> {
        let draw = |limit| self.store.random.borrow_mut().below(limit);
        sleep(Duration::from_micros(200 + draw(4_000))).await;
        if self.state.is_dead.get() {
            std::future::pending::<()>().await;
        }
        if self.state.is_cut.get() {
            sleep(Duration::from_millis(200 + draw(800))).await;
            // A request can be on its way when the line is cut, and arrive late.
            if draw(4) > 0 {
                return Err(Silent);
            }
        }
        let result = work(&self.store);
        let is_lost = draw(40) == 0 && self.store.care != Care::Calm || self.state.is_cut.get();
        sleep(Duration::from_micros(200 + draw(4_000))).await;
        if self.state.is_dead.get() {
            std::future::pending::<()>().await;
        }
        if is_lost {
            self.store.lost_answers.set(self.store.lost_answers.get() + 1);
            sleep(Duration::from_millis(300)).await;
            return Err(Silent);
        }
        Ok(result)
    }
}

impl Engine for Memory {
    const WINDOW: Duration = Duration::from_secs(12);

    async fn append(&self, all: &[Append], token: &str) -> Result<(), Silent> {
        let all = all.to_vec();
        let is_stalled = self.state.is_stalled.get();
        let never_arrives = || {
            let is_one_of_four = self.store.random.borrow_mut().below(4) == 0;
            self.store.care == Care::Calm || !is_one_of_four
        };
        if is_stalled && never_arrives() {
            sleep(Duration::from_millis(300)).await;
            return Err(Silent);
        }
        self.ask(move |store| {
            let (mut log, mut tokens) = (store.log.borrow_mut(), store.tokens.borrow_mut());
            let is_careful = store.care != Care::WithoutTokens;
            let now = time::Instant::now();
            tokens.retain(|_, since| now - *since < Self::WINDOW);
            let mut is_new = |token| match tokens.entry(token) {
                Token::Vacant(entry) => {
                    entry.insert(now);
                    true
                }
                Token::Occupied(_) => false,
            };
            if is_careful && !is_new(format!("batch {token}")) {
                return;
            }
            for append in all {
                let is_new = append.token.is_none_or(&mut is_new);
                if is_new || !is_careful {
                    log.push(append.bytes.to_vec());
                }
            }
            drop(log);
            store.moved.notify_waiters();
        })
        .await?;
        if is_stalled { Err(Silent) } else { Ok(()) }
    }

    async fn appended(&self, after: u64, all: &[Append]) -> Result<Vec<bool>, Silent> {
        self.ask(|store| {
            let log = store.log.borrow();
            let marks = (1..).zip(log.iter()).filter_map(|(at, bytes)| {
                let mark = Logged::from_bytes(bytes)?.mark();
                (at > after || matches!(mark, Mark::Repeat { .. })).then_some(mark)
            });
            let is_careful = store.care != Care::WithoutMarks;
            let marks: BTreeSet<_> = marks.filter(|_| is_careful).collect();
            let is_there =
                |append: &Append| append.mark.as_ref().is_some_and(|it| marks.contains(it));
            all.iter().map(is_there).collect()
        })
        .await
    }

    async fn append_entry(
        &self,
        client: &str,
        expected: u64,
        entry: &Entry,
    ) -> Result<u64, Refusal> {
        let answer = self.ask(|store| {
            let mut sessions = store.sessions.borrow_mut();
            let entries = sessions.entry(client.to_owned()).or_default();
            let last = entries.last().map_or(0, |(sequence, _)| *sequence);
            if last != expected && store.care != Care::WithoutFence {
                return Err(Refusal::Stale);
            }
            store.last.set(store.last.get() + 1);
            if entry.is_fresh {
                entries.clear();
            }
            // As they are stored.
            let entry = Entry::from_bytes(&entry.to_bytes()).unwrap();
            entries.push((store.last.get(), entry));
            Ok(store.last.get())
        });
        answer.await.unwrap_or(Err(Refusal::Silent))
    }

    async fn entries(&self, client: &str) -> Result<Vec<(u64, Entry)>, Silent> {
        self.ask(|store| store.sessions.borrow().get(client).cloned().unwrap_or_default()).await
    }

    async fn heads(&self) -> Result<Vec<Head>, Silent> {
        self.ask(|store| {
            let sessions = store.sessions.borrow();
            let head = |(client, entries): (&String, &Vec<(u64, Entry)>)| {
                let (sequence, last) = entries.last()?;
                let has_ended = last.has_ended && last.owed.is_empty();
                let client = client.clone();
                Some(Head { client, sequence: *sequence, owner: last.owner, has_ended })
            };
            sessions.iter().filter_map(head).collect()
        })
        .await
    }

    async fn log(&self, after: u64, to: u64, _: &[String]) -> Result<Vec<(u64, Logged)>, Silent> {
        self.ask(|store| {
            let log = store.log.borrow();
            let all = (1..).zip(log.iter()).filter(|(at, _)| *at > after && *at <= to);
            all.filter_map(|(at, bytes)| Some((at, Logged::from_bytes(bytes)?))).collect()
        })
        .await
    }

    async fn items(
        &self,
        after: u64,
        to: u64,
        are_members: bool,
    ) -> Result<Vec<(u64, Item)>, Silent> {
        self.ask(|store| {
            let log = store.log.borrow();
            let all = (1..).zip(log.iter()).filter(|(at, _)| *at > after && *at <= to);
            let all = all.filter_map(|(at, bytes)| Some((at, Item::from_bytes(bytes)?)));
            all.filter(|(_, item)| !are_members || matches!(item, Item::Member(_))).collect()
        })
        .await
    }

    async fn message(&self, position: u64) -> Result<Option<Logged>, Silent> {
        self.ask(|store| {
            let index = usize::try_from(position).unwrap().checked_sub(1)?;
            store.log.borrow().get(index).and_then(|bytes| Logged::from_bytes(bytes))
        })
        .await
    }

    async fn bounds(&self) -> Result<(u64, u64), Silent> {
        self.ask(|store| (1, store.log.borrow().len() as u64)).await
    }

    async fn evict(&self, node: u64, client: &str) -> Evicted {
        let Ok(Some(other)) = self.ask(|store| store.node(node)).await else {
            return Evicted::Silent;
        };
        let given = other.give_up(client);
        match time::timeout(Duration::from_secs(2), given).await {
            Ok(Ok(())) => Evicted::Done,
            _ => Evicted::Silent,
        }
    }

    fn send(&self, _: u64, _: Vec<u8>) -> bool {
        true
    }

    fn tell(&self, notice: &Notice) {
        if self.state.is_cut.get() || self.state.is_dead.get() {
            return;
        }
        let (store, notice, from) = (self.store.clone(), notice.clone(), self.instance);
        spawn_local(async move {
            sleep(Duration::from_millis(1)).await;
            let nodes: Vec<_> = store.nodes.borrow().iter().filter_map(Weak::upgrade).collect();
            for node in nodes {
                let Line { is_cut, is_dead, .. } = &*node.engine.state;
                if !is_cut.get() && !is_dead.get() {
                    node.notice(from, notice.clone());
                }
            }
        });
    }
}

impl Store {
    /// Returns the node that has the session of a client.
    fn owner(&self, client: &str) -> Option<u64> {
        self.sessions.borrow().get(client)?.last().map(|(_, entry)| entry.owner)
    }

    fn node(&self, instance: u64) -> Option<Rc<SimNode>> {
        let nodes = self.nodes.borrow();
        let mut living = nodes.iter().filter_map(Weak::upgrade);
        living.find(|node| {
            let Line { is_cut, is_dead, .. } = &*node.engine.state;
            node.engine.instance == instance && !is_cut.get() && !is_dead.get()
        })
    }
}

/// The host of a node.
struct Host {
    broker: RefCell<Broker>,
    node: OnceCell<Weak<SimNode>>,
    moved: Notify,
    /// When the broker wants to be called.
    due: Cell<Option<Instant>>,
    due_moved: Notify,
    started: time::Instant,
}

impl Port for Host {
    fn with<T>(self: &Rc<Self>, call: impl FnOnce(&mut Broker, Instant) -> T) -> T {
        let now = self.now();
        let broker = &mut *self.broker.borrow_mut();
        let result = call(broker, now);
        let node = self.node.get().and_then(Weak::upgrade);
        while let Some(action) = broker.poll_action() {
            if let (Action::Ask(question, Question::Connect(connect)), Some(node)) = (action, &node)
            {
                let Packet::Connect(connect) = connect.decode() else { panic!() };
                let client = connect.client_identifier.to_str().to_owned();
                spawn_local(self.clone().claim(node.clone(), question, client));
            }
        }
        if let Some(node) = node {
            node.pump(broker);
        }
        if broker.wants_journal() {
            self.moved.notify_one();
        }
        let due = broker.poll_timeout();
        if self.due.replace(due) != due {
            self.due_moved.notify_one();
        }
        result
    }

    async fn journal_moved(&self) {
        self.moved.notified().await;
    }

    fn note_batch(&self, _: bool) {}

    fn cut_off(self: &Rc<Self>) {}
}

impl Host {
    async fn claim(self: Rc<Self>, node: Rc<SimNode>, question: QuestionId, client: String) {
        let waits = || is_open(&self.broker.borrow(), question);
        let claimed = node.claim(&client, None, waits).await;
        self.with(|broker, now| {
            if claimed.is_ok() {
                let _ = broker.accept(question, Admission::default(), now);
            } else {
                let id = question.connection();
                broker.disconnect(id, &mqtt_sansio::codec::Disconnect::default(), now);
            }
        });
    }

    fn now(&self) -> Instant {
        Instant::from_millis(1_000_000) + self.started.elapsed()
    }

    async fn run_timer(self: Rc<Self>) {
        loop {
            let wait = self.due.get().map(|due| due - self.now());
            let is_due = match wait {
                Some(wait) => time::timeout(wait, self.due_moved.notified()).await.is_err(),
                None => {
                    self.due_moved.notified().await;
                    false
                }
            };
            if is_due {
                self.with(|broker, now| broker.handle_timeout(now));
            }
        }
    }
}

/// A node with its host.
struct Machine {
    node: Rc<SimNode>,
    host: Rc<Host>,
    /// The tasks that end with the machine.
    tasks: Vec<AbortHandle>,
}

/// A client and its connection.
struct One {
    client: Client,
    at: Option<(usize, ConnectionId)>,
    up: Vec<u8>,
    input: Vec<u8>,
    published: Vec<(String, QoS, bool)>,
    inbox: Vec<String>,
    /// How often each message came without DUP.
    firsts: BTreeMap<String, usize>,
    connections: usize,
    lost_sessions: usize,
    is_connected: bool,
    is_subscribed: bool,
    /// Whether it has sent SUBSCRIBE.
    is_asked: bool,
    /// Whether it has left its group.
    is_away: bool,
}

struct World {
    random: Random,
    store: Rc<Store>,
    hosts: Vec<Machine>,
    clients: Vec<One>,
    tally: Tally,
    instances: u64,
    started: time::Instant,
    /// Whether the group has one member.
    is_alone: bool,
    /// The steps until all nodes lose their power.
    steps_with_power: Option<usize>,
}

impl World {
    fn new(seed: u64, care: Care) -> Self {
        let is_alone = seed.is_multiple_of(4);
        let seed = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let store = Rc::new(Store {
            random: RefCell::new(Random(seed.rotate_left(17) | 1)),
            care,
            log: RefCell::default(),
            tokens: RefCell::default(),
            sessions: RefCell::default(),
            last: Cell::default(),
            moved: Notify::new(),
            nodes: RefCell::default(),
            lost_answers: Cell::default(),
        });
        let one = |_| One {
            client: Client::new(ClientConfig::new()),
            at: None,
            up: Vec::new(),
            input: Vec::new(),
            published: Vec::new(),
            inbox: Vec::new(),
            firsts: BTreeMap::new(),
            connections: 0,
            lost_sessions: 0,
            is_connected: false,
            is_subscribed: false,
            is_asked: false,
            is_away: false,
        };
        let mut world = Self {
            random: Random(seed),
            store,
            hosts: Vec::new(),
            clients: (0..NAMES.len()).map(one).collect(),
            tally: Tally::default(),
            instances: 0,
            started: time::Instant::now(),
            is_alone,
            steps_with_power: None,
        };
        for _ in 0..NODES {
            let node = world.start_node();
            world.hosts.push(node);
        }
        world
    }

    fn start_node(&mut self) -> Machine {
        self.instances += 1;
        let instance = self.instances.wrapping_mul(0xD6E8_FEB8_6659_FD93) | 1;
        let seed = instance.into();
        let config = BrokerConfig::default().is_node(true).groups_span_nodes(true);
        let host = Rc::new(Host {
            broker: RefCell::new(Broker::new(config, seed, Instant::from_millis(1_000_000))),
            node: OnceCell::new(),
            moved: Notify::new(),
            due: Cell::default(),
            due_moved: Notify::new(),
            started: self.started,
        });
        let (store, state) = (self.store.clone(), Rc::new(Line::default()));
        let engine = Memory { store: store.clone(), instance, state: state.clone() };
        let node = Rc::new(Node::new(engine, host.clone(), format!("n{instance:x}"), instance));
        let _ = host.node.set(Rc::downgrade(&node));
        store.nodes.borrow_mut().push(Rc::downgrade(&node));
        let start = store.log.borrow().len();
        let last: Vec<_> = {
            let log = store.log.borrow();
            let all = (1..).zip(log.iter().map(|bytes| Item::from_bytes(bytes).unwrap()));
            all.filter(|(_, item)| !matches!(item, Item::Message(_))).collect()
        };
        node.start(&last);
        host.with(|broker, _| broker.advance(start as u64));
        let reader = node.clone();
        let read = spawn_local(async move {
            let mut position = start;
            loop {
                let pause = store.random.borrow_mut().below(8);
                sleep(Duration::from_millis(pause)).await;
                let chunk: Vec<_> = {
                    let log = store.log.borrow();
                    let behind = (1_u64..).zip(log.iter()).skip(position).take(5);
                    behind.map(|(at, bytes)| (at, Item::from_bytes(bytes).unwrap())).collect()
                };
                if state.is_cut.get() || state.is_behind.get() {
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
                if chunk.is_empty() {
                    store.moved.notified().await;
                    continue;
                }
                position += chunk.len();
                reader.deliver(chunk);
            }
        });
        let tasks = [
            spawn_local(node.clone().settle(start as u64)),
            spawn_local(node.clone().run_direct()),
            spawn_local(node.clone().run_batches()),
            spawn_local(node.clone().run_clock()),
            spawn_local(host.clone().run_timer()),
            read,
        ];
        let tasks = tasks.map(|task| task.abort_handle()).into();
        Machine { node, host, tasks }
    }

    fn pick(&mut self, limit: usize) -> usize {
        usize::try_from(self.random.below(limit as u64)).unwrap()
    }

    fn now(&self) -> Instant {
        Instant::from_millis(1_000_000) + self.started.elapsed()
    }

    async fn run(mut self) -> (Tally, Result<(), String>) {
        self.settle(true).await;
        for _ in 0..STEPS {
            self.step();
            let pause = match self.random.0 & 0xFF {
                // The engine forgets tokens meanwhile.
                0 => 20_000,
                bits if bits & 31 == 0 => 3_000,
                _ => 12,
            };
            let pause = self.random.below(pause);
            sleep(Duration::from_millis(pause)).await;
            (0..NAMES.len()).for_each(|index| self.exchange(index));
        }
        self.settle(false).await;
        let result = self.check();
        for Machine { node, .. } in &self.hosts {
            let figures = node.figures();
            self.tally.fenced += figures.fenced;
            self.tally.adopted += figures.adopted;
            self.tally.resumed += figures.resumed;
        }
        self.tally.lost_answers = self.store.lost_answers.get();
        (self.tally, result)
    }

    fn step(&mut self) {
        self.steps_with_power = match self.steps_with_power {
            Some(0) => {
                (0..NODES).for_each(|victim| self.crash(victim));
                None
            }
            steps => steps.map(|steps| steps - 1),
        };
        let index = self.pick(NAMES.len());
        if self.store.care == Care::Calm {
            return match self.pick(10) {
                0 => self.change_subscription(LEAVES),
                _ => self.publish(index % 2),
            };
        }
        match self.pick(100) {
            0..=41 => self.publish(index % 2),
            42..=44 => self.change_subscription(LEAVES),
            45..=54 => self.lose(index),
            // The broker does not notice it.
            55..=59 => _ = self.leave(index),
            60..=89 => self.connect(index),
            90..=91 => {
                let victim = self.pick(NODES);
                self.crash(victim);
            }
            // All nodes lose their power, while members change.
            92 => {
                self.publish(0);
                self.publish(1);
                self.change_subscription(LEAVES);
                self.lose(ENDS);
                self.steps_with_power = Some(1 + self.pick(4));
            }
            93..=96 => {
                let (victim, kind) = (self.pick(NODES), self.pick(4));
                let Line { is_cut, is_stalled, is_behind, .. } =
                    &*self.hosts[victim].node.engine.state;
                let (tally, state) = match kind {
                    0 => (&mut self.tally.stalls, is_stalled),
                    1 => (&mut self.tally.lags, is_behind),
                    _ => (&mut self.tally.cuts, is_cut),
                };
                *tally += 1;
                state.set(true);
            }
            _ => self.hosts.iter().for_each(|one| one.node.engine.state.mend()),
        }
    }

    fn crash(&mut self, victim: usize) {
        self.tally.crashes += 1;
        self.hosts[victim].node.engine.state.is_dead.set(true);
        for index in 0..NAMES.len() {
            if self.clients[index].at.is_some_and(|(node, _)| node == victim) {
                self.lose(index);
            }
        }
        self.hosts[victim].tasks.iter().for_each(AbortHandle::abort);
        self.hosts[victim] = self.start_node();
    }

    // ---- clients ----

    fn publish(&mut self, index: usize) {
        let qos = if self.pick(2) == 0 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
        self.publish_with(index, qos);
    }

    fn publish_with(&mut self, index: usize, qos: QoS) {
        let now = self.now();
        let one = &mut self.clients[index];
        let key = one.published.len();
        let payload = format!("{index} {qos:?} {key:04}");
        let publish = Publish { qos, ..Publish::new("t/a", payload.as_bytes()) };
        if one.is_connected && one.client.publish(key as u64, &publish, now, &mut one.up).is_ok() {
            one.published.push((payload, qos, false));
        }
    }

    fn connect(&mut self, index: usize) {
        if self.clients[index].at.is_some() {
            return;
        }
        // Some connections end at their broker while their client waits for an answer.
        let (node, keeps_alive) = (self.pick(NODES), self.pick(2) == 0);
        let keep_alive = u16::from(keeps_alive && self.store.care != Care::Calm);
        self.connect_to(index, node, keep_alive);
    }

    fn connect_to(&mut self, index: usize, node: usize, keep_alive: u16) {
        let now = self.now();
        self.tally.moves += 1;
        let id = self.hosts[node].host.with(|broker, now| broker.open(now));
        let one = &mut self.clients[index];
        one.connections += 1;
        let will = format!("will {index} {}", one.connections);
        let properties = ConnectProperties {
            session_expiry_interval: (index != ENDS).then_some(u32::MAX),
            ..ConnectProperties::default()
        };
        let will = Will { qos: QoS::ExactlyOnce, ..Will::new("t/will", will.as_bytes()) };
        let will = Some(will).filter(|_| index < 2);
        let connect = Connect::new(Version::V5_0, NAMES[index]);
        let connect = Connect { keep_alive, properties, will, ..connect };
        one.client.connect(&connect, now, &mut one.up).unwrap();
        one.at = Some((node, id));
        self.exchange(index);
    }

    fn lose(&mut self, index: usize) {
        let Some((node, id)) = self.leave(index) else { return };
        let Machine { node, host, .. } = &self.hosts[node];
        if !node.engine.state.is_dead.get() {
            host.with(|broker, now| broker.connection_lost(id, now));
        }
    }

    /// Ends a connection at the client alone.
    fn leave(&mut self, index: usize) -> Option<(usize, ConnectionId)> {
        let one = &mut self.clients[index];
        let at = one.at.take()?;
        while one.client.connection_lost().is_some() {}
        one.up.clear();
        one.input.clear();
        one.is_connected = false;
        // A SUBSCRIBE that was not answered is sent again.
        one.is_asked = one.is_subscribed;
        Some(at)
    }

    /// Carries bytes between a client and its broker until neither has more.
    fn exchange(&mut self, index: usize) {
        let Some((node, id)) = self.clients[index].at else { return };
        let (host, now) = (self.hosts[node].host.clone(), self.now());
        let instance = self.hosts[node].node.engine.instance;
        let one = &mut self.clients[index];
        if one.client.poll_timeout().is_some_and(|due| due <= now) {
            let action = one.client.handle_timeout(now, &mut one.up);
            if matches!(action, Some(client::Action::Closed(_))) {
                return self.lose(index);
            }
        }
        loop {
            let one = &mut self.clients[index];
            let mut down = Vec::new();
            let (read, is_closed) = host.with(|broker, now| {
                let mut input = &one.up[..];
                while broker.handle_input(id, &mut input, now) {}
                while broker.transmit(id, now, &mut down) {}
                (one.up.len() - input.len(), broker.is_closed(id))
            });
            one.up.drain(..read);
            one.input.extend(&down);
            let (mut input, before) = (&one.input[..], one.up.len());
            // A node that was cut off sends until it knows that another one has the session.
            let is_owner = self.store.owner(NAMES[index]) == Some(instance);
            let mut has_ended = is_closed && down.is_empty();
            while let Some(action) = one.client.handle_input(&mut input, now, &mut one.up) {
                match action {
                    client::Action::Connected(connack) => {
                        one.is_connected = true;
                        let is_kept = connack.session_present;
                        if index == ENDS {
                            assert!(!is_kept);
                            (one.is_subscribed, one.is_asked) = (false, false);
                        }
                        let is_lost = one.is_subscribed && !is_kept;
                        one.lost_sessions += usize::from(is_lost);
                    }
                    client::Action::Message(message) => {
                        let payload = String::from_utf8(message.payload.to_vec()).unwrap();
                        self.tally.received += 1;
                        self.tally.repeated += usize::from(message.dup);
                        if !message.dup && is_owner {
                            *one.firsts.entry(payload.clone()).or_default() += 1;
                        }
                        one.inbox.push(payload);
                    }
                    client::Action::Published(published) => {
                        one.published[usize::try_from(published.key).unwrap()].2 = true;
                    }
                    client::Action::Subscribed(..) => one.is_subscribed = true,
                    client::Action::Unsubscribed(..) => one.is_away = true,
                    client::Action::Closed(_) => has_ended = true,
                    _ => {}
                }
            }
            let taken = one.input.len() - input.len();
            one.input.drain(..taken);
            if one.is_connected && !one.is_subscribed && !one.is_asked {
                one.is_asked = true;
                self.subscribe(index);
            }
            if has_ended {
                return self.lose(index);
            }
            let one = &self.clients[index];
            if down.is_empty() && read == 0 && one.up.len() == before {
                return;
            }
        }
    }

    fn subscribe(&mut self, index: usize) {
        let is_exact = [2, 4, LEAVES].contains(&index);
        let qos = if is_exact { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
        let filter = match index {
            2 | 3 => "t/#",
            4 => GROUP,
            LEAVES | ENDS if !self.is_alone => GROUP,
            _ => "nothing",
        };
        let subscriptions = [Subscription::new(filter, qos)];
        let (properties, now) = (SubscribeProperties::default(), self.now());
        let one = &mut self.clients[index];
        one.is_away = false;
        let _ = one.client.subscribe(0, &subscriptions, properties, now, &mut one.up);
    }

    /// Lets a member leave its group, or come back.
    fn change_subscription(&mut self, index: usize) {
        let now = self.now();
        let one = &mut self.clients[index];
        if self.is_alone || !one.is_connected || !one.is_subscribed {
            return;
        }
        if one.is_away {
            return self.subscribe(index);
        }
        let properties = UnsubscribeProperties::default();
        let filters = [GROUP.into()];
        let _ = one.client.unsubscribe(0, &filters, properties, now, &mut one.up);
    }

    /// Lets time pass for some clients.
    async fn pass(&mut self, milliseconds: u64, clients: &[usize]) {
        for _ in 0..milliseconds / 10 {
            clients.iter().for_each(|index| self.exchange(*index));
            sleep(Duration::from_millis(10)).await;
        }
    }

    // ---- the end ----

    /// Lets everything arrive.
    async fn settle(&mut self, is_start: bool) {
        self.hosts.iter().for_each(|one| one.node.engine.state.mend());
        let (start, mut done_at) = (time::Instant::now(), None);
        let (mut received, mut lacks) = (None, true);
        while start.elapsed() < Duration::from_secs(200) {
            for index in 0..NAMES.len() {
                self.connect(index);
                self.exchange(index);
            }
            sleep(Duration::from_millis(if done_at.is_some() { 500 } else { 10 })).await;
            let is_subscribed = self.clients.iter().all(|one| one.is_subscribed);
            let mut published = self.clients.iter().flat_map(|one| &one.published);
            let is_done = is_subscribed && published.all(|(.., is_acknowledged)| *is_acknowledged);
            if is_done && received.replace(self.tally.received) != Some(self.tally.received) {
                lacks = !is_start && self.lacking().is_some();
            }
            let is_done = is_done && !lacks;
            let is_connected = self.clients.iter().all(|one| one.is_connected);
            if is_done && is_connected {
                // The nodes look at all sessions now and then.
                let since = *done_at.get_or_insert_with(time::Instant::now);
                if is_start || since.elapsed() > Duration::from_secs(65) {
                    return;
                }
            }
        }
    }

    /// Returns a message that has not arrived everywhere.
    fn lacking(&self) -> Option<String> {
        let inboxes: [&[usize]; 3] = [&[2], &[3], &[4, LEAVES, ENDS]];
        let inboxes = inboxes.map(|members| {
            let inboxes = members.iter().flat_map(|index| &self.clients[*index].inbox);
            inboxes.collect::<BTreeSet<&String>>()
        });
        let mut published = self.clients.iter().flat_map(|one| &one.published);
        published
            .find(|(payload, ..)| inboxes.iter().any(|inbox| !inbox.contains(payload)))
            .map(|(payload, ..)| payload.clone())
    }

    /// Checks that each message came to one member of the group.
    fn check_group(&mut self) -> Result<(), String> {
        for (payload, qos, _) in self.clients.iter().flat_map(|one| &one.published) {
            let times = [4, LEAVES, ENDS].map(|index| {
                self.clients[index].inbox.iter().filter(|one| *one == payload).count()
            });
            let sum: usize = times.iter().sum();
            self.tally.shared += 1;
            self.tally.again += sum - sum.min(1);
            // One was chosen that receives with QoS 1.
            let log = self.store.log.borrow();
            let was_lowered = log.iter().filter_map(|bytes| Logged::from_bytes(bytes)).any(|one| {
                let is_it = one.message.payload() == payload.as_bytes();
                is_it && one.choices.iter().any(|choice| &*choice.client == NAMES[ENDS])
            });
            let can_repeat = *qos == QoS::AtLeastOnce || was_lowered;
            let is_calm = self.store.care == Care::Calm;
            if sum > 1 && (is_calm || !can_repeat) && self.store.care != Care::WithoutTokens {
                return Err(format!("{payload} has arrived at the members {times:?} times"));
            }
        }
        Ok(())
    }

    /// Checks that each message of the log came to a session without DUP at most once.
    /// [5.0 MQTT-3.3.1-1]
    fn check_repeats(&self) -> Result<(), String> {
        let log = self.store.log.borrow();
        let mut logged = BTreeMap::<_, usize>::new();
        for one in log.iter().filter_map(|bytes| Logged::from_bytes(bytes)) {
            let payload = String::from_utf8(one.message.payload().to_vec()).unwrap();
            *logged.entry(payload).or_default() += 1;
        }
        let firsts = NAMES.iter().zip(&self.clients).filter(|(name, _)| **name != NAMES[ENDS]);
        let mut firsts = firsts.flat_map(|(name, one)| one.firsts.iter().map(move |it| (name, it)));
        let is_repeat = |(_, (payload, times)): &(&&str, (&String, &usize))| {
            logged.get(*payload).is_none_or(|logged| *times > logged)
        };
        match firsts.find(is_repeat) {
            Some((name, (payload, times))) => {
                Err(format!("{payload} has arrived at {name} {times} times without DUP"))
            }
            None => Ok(()),
        }
    }

    fn check(&mut self) -> Result<(), String> {
        for (payload, qos, is_acknowledged) in self.clients.iter().flat_map(|one| &one.published) {
            if !is_acknowledged {
                return Err(format!("{payload} was not acknowledged"));
            }
            let times = self.clients[2].inbox.iter().filter(|one| *one == payload).count();
            if *qos == QoS::ExactlyOnce && times > 1 {
                let log = self.store.log.borrow();
                let is_it = |bytes: &&Vec<u8>| {
                    let logged = Logged::from_bytes(bytes);
                    logged.is_some_and(|one| one.message.payload() == payload.as_bytes())
                };
                let logged = log.iter().filter(is_it).count();
                return Err(format!("{payload} has arrived {times} times, logged {logged} times"));
            }
        }
        self.check_group()?;
        self.check_repeats()?;
        if let Some(payload) = self.lacking() {
            return Err(format!("{payload} has not arrived"));
        }
        let mut wills = BTreeSet::new();
        for will in self.clients[2].inbox.iter().filter(|one| one.starts_with("will")) {
            self.tally.wills += 1;
            if !wills.insert(will) {
                return Err(format!("{will} has arrived twice"));
            }
        }
        for (name, one) in NAMES.iter().zip(&self.clients) {
            if one.lost_sessions > 0 {
                return Err(format!("the session of {name} was not resumed"));
            }
            let has = |one: &&Machine| one.host.with(|broker, _| broker.client(name).is_some());
            let owners = self.hosts.iter().filter(has).count();
            if owners != 1 {
                return Err(format!("{owners} nodes have the session of {name}"));
            }
            let mut seen = BTreeSet::new();
            let first: Vec<_> = one.inbox.iter().filter(|one| seen.insert(one.as_str())).collect();
            // A message that has found another member comes late.
            let is_member = name.starts_with('g');
            for kind in ["0 AtLeastOnce", "0 ExactlyOnce", "1 AtLeastOnce", "1 ExactlyOnce"] {
                if !is_member && !first.iter().filter(|one| one.starts_with(kind)).is_sorted() {
                    return Err(format!("{kind} is out of order at {name}"));
                }
            }
        }
        Ok(())
    }
}

/// Lets time pass for a script.
fn block_on<T>(script: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    LocalSet::new().block_on(&runtime.unwrap(), script)
}

fn run(seed: u64, care: Care) -> (Tally, Result<(), String>) {
    block_on(async { World::new(seed, care).run().await })
}

fn simulate(seeds: std::ops::Range<u64>, care: Care) -> (Tally, Vec<String>) {
    let (mut total, mut wrong) = (Tally::default(), Vec::new());
    for seed in seeds {
        let (tally, result) = run(seed, care);
        total.moves += tally.moves;
        total.crashes += tally.crashes;
        total.cuts += tally.cuts;
        total.stalls += tally.stalls;
        total.lags += tally.lags;
        total.lost_answers += tally.lost_answers;
        total.received += tally.received;
        total.repeated += tally.repeated;
        total.fenced += tally.fenced;
        total.adopted += tally.adopted;
        total.resumed += tally.resumed;
        total.wills += tally.wills;
        total.shared += tally.shared;
        total.again += tally.again;
        wrong.extend(result.err().map(|error| format!("seed {seed}: {error}")));
    }
    (total, wrong)
}

/// `SEEDS=100000 cargo test --release -p mqtt-sansio-broker --features cluster simulated` plays
/// more.
#[test]
fn simulated_nodes_lose_and_double_nothing() {
    let number = |name: &str| std::env::var(name).ok().map(|number| number.parse().unwrap());
    let (first, seeds) = (number("FIRST").unwrap_or(0), number("SEEDS").unwrap_or(100));
    let (tally, wrong) = simulate(first..first + seeds, Care::Careful);
    println!("{tally:?}");
    assert_eq!(wrong, [""; 0]);
    if first > 0 {
        return;
    }
    let Tally { moves, crashes, cuts, lost_answers, received, wills, shared, again, .. } = tally;
    let Tally { fenced, adopted, resumed, repeated, stalls, lags, .. } = tally;
    let counts = [moves, crashes, cuts, stalls, lags, lost_answers];
    let counts = counts.into_iter().chain([received, repeated, wills, shared, again]);
    let counts = counts.map(|count| count as u64);
    let is_often = counts.chain([fenced, resumed]).all(|count| count > 20);
    // Most clients come back before another node adopts their session.
    assert!(is_often && adopted > 0, "{tally:?}");
}

#[test]
fn simulated_group_receives_each_message_once_without_faults() {
    let (tally, wrong) = simulate(0..20, Care::Calm);
    assert_eq!(wrong, [""; 0]);
    assert!(tally.shared > 500 && tally.again == 0, "{tally:?}");
}

/// The simulation notices an engine that does not do what the nodes rely on.
#[test]
fn simulated_nodes_show_careless_engines() {
    for care in [Care::WithoutFence, Care::WithoutTokens, Care::WithoutMarks] {
        assert!((0..200).any(|seed| run(seed, care).1.is_err()), "{care:?}");
    }
}

/// A node that cannot append to the log for a while notices by other means that another one has
/// claimed a session. What waits for the client then, on a connection that has ended, is not sent.
#[test]
fn fenced_node_sends_nothing_on_ended_connections() {
    block_on(async {
        let mut world = World::new(1, Care::Calm);
        world.settle(true).await;
        let (p0, p1, s0) = (0, 1, 2);
        [p0, p1, s0].into_iter().for_each(|index| world.lose(index));
        world.connect_to(p0, 1, 0);
        world.connect_to(p1, 0, 0);
        world.pass(500, &[p0, p1]).await;
        let line = world.hosts[0].node.engine.state.clone();
        line.is_stalled.set(true);
        world.publish_with(p1, QoS::AtLeastOnce);
        world.pass(500, &[p0, p1]).await;
        world.connect_to(s0, 0, 1);
        world.pass(100, &[p0, p1, s0]).await;
        world.publish_with(p0, QoS::ExactlyOnce);
        // The client waits for CONNACK, and the keep alive ends its connection.
        world.pass(3_000, &[p0]).await;
        assert!(!world.clients[s0].is_connected);
        let other = world.hosts[1].node.clone();
        assert!(other.claim(NAMES[s0], None, || true).await.is_ok());
        // An answer that does not come lets the node look at its sessions.
        line.is_cut.set(true);
        world.pass(3_000, &[p0]).await;
        line.is_cut.set(false);
        world.pass(3_000, &[p0]).await;
        line.mend();
        world.pass(3_000, &[p0]).await;
        assert_eq!(world.hosts[0].node.figures().fenced, 1);
        assert!(world.clients[p0].published[0].2, "the message was not acknowledged");
        world.exchange(s0);
        assert!(world.clients[s0].inbox.is_empty(), "{:?}", world.clients[s0].inbox);
    });
}
