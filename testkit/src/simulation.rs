//! A durable broker with clients and a bridge, links that are slow and cut, and a store that loses
//! records that are not synced, all on one clock. The host crashes and restores the broker, and
//! restarts the bridge. A seed replays.
//!
//! Both sides of the bridge are connected to the same broker: it carries messages from topics of
//! their publishers to topics below `over/`.

use crate::random::Random;
use core::fmt::Write as _;
use mqtt_sansio::Instant;
use mqtt_sansio::bridge::{Bridge, BridgeConfig, Event, Side};
use mqtt_sansio::broker::journal::Batch;
use mqtt_sansio::broker::{
    Action, Admission, Broker, BrokerConfig, ConnectionId, Question, QuestionId, Restore,
};
use mqtt_sansio::client::{self, Client, ClientConfig};
use mqtt_sansio::codec::{
    Connect, ConnectProperties, Publish, QoS, SubscribeProperties, Subscription, TopicName,
    Version, Will, WillProperties,
};
use mqtt_sansio::server::ServerConfig;
use std::collections::{BTreeMap, VecDeque};

/// Counts of events, so that a test can check that they occur.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub crashes: usize,
    pub cuts: usize,
    pub bridges: usize,
    pub carried: usize,
    pub received: usize,
    pub repeated: usize,
    pub wills: usize,
    pub records: usize,
}

/// How the host treats the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Honesty {
    /// It reports a batch as durable when it is.
    Honest,
    /// It reports a batch as durable at once. Crashes then lose messages, which shows that the
    /// simulation notices.
    Lies,
}

const CLIENTS: usize = 4;
const STEPS: usize = 300;

/// The sides of the bridge, whose links follow those of the clients.
const SIDES: [Side; 2] = [Side::Local, Side::Remote];
const LINKS: usize = CLIENTS + SIDES.len();

/// The topics of the bridge: it carries messages of `b` from its local side to its remote side, and
/// messages of `c` from its remote side to its local side.
const CARRIED: [&str; 2] = ["b/# out 2 \"\" over/", "c/# in 2 over/ \"\""];

/// The clients that have ordinary subscriptions to `p/#` and `over/#`.
const LISTENERS: [usize; 2] = [2, 3];
/// The clients that share a subscription to `s/#`.
const MEMBERS: [usize; 2] = [1, 3];
/// The client that has a will.
const MORTAL: usize = 3;

/// Runs one seed to its end. Returns what was wrong.
pub fn run(seed: u64, honesty: Honesty, tally: &mut Tally) -> Result<(), String> {
    let mut world = World::new(seed, honesty);
    world.heal(tally)?;
    for (index, filters) in [
        (1, &["$share/g/s/#"][..]),
        (2, &["p/#", "over/#"]),
        (3, &["p/#", "over/#", "$share/g/s/#"]),
    ] {
        let subscriptions: Vec<_> =
            filters.iter().map(|filter| Subscription::new(*filter, QoS::ExactlyOnce)).collect();
        let (now, client) = (world.now, &mut world.nodes[index].client);
        let properties = SubscribeProperties::default();
        let up = &mut world.links[index].up;
        client.subscribe(0, &subscriptions, properties, now, up).unwrap();
    }
    world.heal(tally)?;
    for _ in 0..STEPS {
        world.step(tally);
    }
    world.heal(tally)?;
    world.check(tally)
}

/// The link of a client, or of a side of the bridge.
#[derive(Default)]
struct Link {
    connection: Option<ConnectionId>,
    /// Bytes on their way to the broker, and those that have arrived there.
    up: Vec<u8>,
    arrived: Vec<u8>,
    /// Bytes on their way to the client, and those that have arrived there.
    down: Vec<u8>,
    input: Vec<u8>,
}

/// A client.
struct Node {
    client: Client,
    connects: usize,
    /// The messages that the client has published, by key: payload, QoS, whether acknowledged.
    published: Vec<(String, QoS, bool)>,
    inbox: Vec<String>,
}

/// A key and its new value.
type StoredRecord = (Vec<u8>, Option<Vec<u8>>);

struct World {
    random: Random,
    honesty: Honesty,
    /// How fast the store is, in percent.
    pace: u64,
    now: Instant,
    broker: Broker,
    asked: Vec<QuestionId>,
    nodes: [Node; CLIENTS],
    bridge: Bridge,
    /// Whether the program of the bridge ends now and then.
    has_mortal_bridge: bool,
    /// Whether the bridge was restarted. The broker still has packet identifiers of unfinished
    /// QoS 2 messages, and can drop a new message with one of them as a repeat.
    was_bridge_lost: bool,
    links: [Link; LINKS],
    /// The durable records, and the batches that the store has not synced.
    store: BTreeMap<Vec<u8>, Vec<u8>>,
    unsynced: VecDeque<(Batch, Vec<StoredRecord>)>,
}

fn config() -> BrokerConfig {
    let server = ServerConfig::new().maximum_in_flight(3).receive_maximum(4);
    BrokerConfig::new(server).durable(true).maximum_unsynced(4_000)
}

fn new_bridge() -> Bridge {
    let topics = CARRIED.map(|topic| topic.parse().unwrap());
    Bridge::new(BridgeConfig::new(topics).unwrap())
}

impl World {
    fn new(seed: u64, honesty: Honesty) -> Self {
        let now = Instant::from_millis(1_000_000);
        let node = || Node {
            client: Client::new(ClientConfig::new().maximum_in_flight(4)),
            connects: 0,
            published: Vec::new(),
            inbox: Vec::new(),
        };
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        Self {
            pace: random.pick(&[100, 30, 10]),
            has_mortal_bridge: random.percent(50),
            random,
            honesty,
            now,
            broker: Broker::new(config(), seed.into(), now),
            asked: Vec::new(),
            nodes: core::array::from_fn(|_| node()),
            bridge: new_bridge(),
            was_bridge_lost: false,
            links: core::array::from_fn(|_| Link::default()),
            store: BTreeMap::new(),
            unsynced: VecDeque::new(),
        }
    }

    fn step(&mut self, tally: &mut Tally) {
        // Messages of the bridge pass two links.
        let index = self.random.pick(&[0, 1, 2, 3, 4, 4, 5, 5]);
        match self.random.below(100) {
            0..=19 => self.publish(index % CLIENTS),
            20..=39 => self.carry_up(index),
            40..=59 => self.carry_down(index, tally),
            60..=69 => self.obey_one(),
            70..=74 => self.transmit(index),
            75..=86 if !self.random.percent(self.pace) => {}
            75 => _ = self.broker.close_batch(),
            76..=80 => self.fetch_batch(tally),
            81..=86 => self.sync(),
            87..=90 => self.connect(index),
            91..=92 => self.answer(),
            93..=94 => {
                self.cut(index);
                tally.cuts += 1;
            }
            95 => self.crash(tally),
            96 if self.has_mortal_bridge => self.replace_bridge(tally),
            _ => self.wait(),
        }
    }

    // ---- clients ----

    fn connect(&mut self, index: usize) {
        let (now, link) = (self.now, &mut self.links[index]);
        if link.connection.is_some() {
            return;
        }
        link.connection = Some(self.broker.open(now));
        let Some(node) = self.nodes.get_mut(index) else {
            let side = SIDES[index - CLIENTS];
            let connect = Connect::new(Version::V5_0, ["local", "remote"][index - CLIENTS]);
            return self.bridge.connect(side, &connect, now).unwrap();
        };
        node.connects += 1;
        let payload = format!("will {}", node.connects);
        let delay = Some(1).filter(|_| node.connects % 2 == 0);
        let will = (index == MORTAL).then(|| Will {
            qos: QoS::ExactlyOnce,
            properties: WillProperties { will_delay_interval: delay, ..Default::default() },
            ..Will::new("p/will", payload.as_bytes())
        });
        let properties = ConnectProperties {
            session_expiry_interval: Some(u32::MAX),
            receive_maximum: Some(3),
            ..ConnectProperties::default()
        };
        let name = ["zero", "one", "two", "three"][index];
        let connect = Connect { will, properties, ..Connect::new(Version::V5_0, name) };
        node.client.connect(&connect, now, &mut link.up).unwrap();
    }

    fn publish(&mut self, index: usize) {
        let (now, node) = (self.now, &mut self.nodes[index]);
        let key = node.published.len();
        let kind = self.random.pick(&["p", "p", "s", "r", "b", "c"]);
        // Messages of one QoS keep their order, so the last one stays.
        let qos = match kind {
            "r" => QoS::AtLeastOnce,
            _ => self.random.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]),
        };
        let (topic, payload) = (format!("{kind}/{index}"), format!("{kind} {index} {key}"));
        let publish =
            Publish { qos, retain: kind == "r", ..Publish::new(&*topic, payload.as_bytes()) };
        let up = &mut self.links[index].up;
        if node.client.publish(key as u64, &publish, now, up).is_ok() {
            node.published.push((payload, qos, false));
        }
    }

    fn carry_up(&mut self, index: usize) {
        self.collect(index);
        let link = &mut self.links[index];
        let Some(id) = link.connection else { return };
        let length = self.random.index(link.up.len() + 1).min(60);
        link.arrived.extend(link.up.drain(..length));
        self.feed(index, id);
    }

    /// Takes the output of the bridge. Each call of the bridge can add output for both sides.
    fn collect(&mut self, index: usize) {
        if let (Some(side), Some(_)) = (side(index), self.links[index].connection) {
            self.bridge.transmit(side, &mut self.links[index].up);
        }
    }

    fn feed(&mut self, index: usize, id: ConnectionId) {
        let link = &mut self.links[index];
        let mut input = &link.arrived[..];
        while self.broker.handle_input(id, &mut input, self.now) {}
        let read = link.arrived.len() - input.len();
        link.arrived.drain(..read);
    }

    fn carry_down(&mut self, index: usize, tally: &mut Tally) {
        let link = &mut self.links[index];
        if link.connection.is_some() {
            let length = self.random.index(link.down.len() + 1).min(60);
            self.read(index, length, tally);
        }
    }

    fn read(&mut self, index: usize, length: usize, tally: &mut Tally) {
        let (now, link) = (self.now, &mut self.links[index]);
        link.input.extend(link.down.drain(..length));
        let mut input = &link.input[..];
        let mut is_closed = false;
        if let Some(side) = side(index) {
            while let Some(event) = self.bridge.handle_input(side, &mut input, now) {
                assert!(!matches!(event, Event::Refused { .. }), "{event:?}");
                is_closed |= matches!(event, Event::Closed(..));
            }
        }
        while let Some(node) = self.nodes.get_mut(index) {
            let action = node.client.handle_input(&mut input, now, &mut link.up);
            let Some(action) = action else { break };
            match action {
                client::Action::Message(message) => {
                    tally.received += 1;
                    node.inbox.push(String::from_utf8(message.payload.to_vec()).unwrap());
                }
                client::Action::Published(published) => {
                    node.published[published.key as usize].2 = true;
                }
                client::Action::Closed(cause) => {
                    assert!(!format!("{cause:?}").contains("Violation"), "{cause:?}");
                    is_closed = true;
                }
                _ => {}
            }
        }
        let read = link.input.len() - input.len();
        link.input.drain(..read);
        if is_closed {
            self.cut(index);
        }
    }

    fn cut(&mut self, index: usize) {
        if let Some(id) = self.hang_up(index) {
            let _ = self.broker.connection_lost(id, self.now);
        }
    }

    /// Ends a link for its client. Returns the connection of the broker.
    fn hang_up(&mut self, index: usize) -> Option<ConnectionId> {
        let id = self.links[index].connection.take()?;
        self.links[index] = Link::default();
        match side(index) {
            Some(side) => while self.bridge.connection_lost(side, self.now).is_some() {},
            None => while self.nodes[index].client.connection_lost().is_some() {},
        }
        Some(id)
    }

    /// Ends the program of the bridge, which keeps nothing, and starts it again.
    fn replace_bridge(&mut self, tally: &mut Tally) {
        tally.bridges += 1;
        self.was_bridge_lost = true;
        (CLIENTS..LINKS).for_each(|index| self.cut(index));
        self.bridge = new_bridge();
    }

    // ---- the host ----

    fn obey_one(&mut self) {
        match self.broker.poll_action() {
            Some(Action::Ask(question, Question::Connect(_))) => self.asked.push(question),
            Some(Action::Ready(id)) => {
                if let Some(index) = self.of(id) {
                    self.transmit(index);
                    self.feed(index, id);
                }
            }
            Some(Action::Closed(id, _)) => {
                if let Some(index) = self.of(id) {
                    self.transmit(index);
                    self.cut(index);
                }
            }
            _ => {}
        }
    }

    fn of(&self, id: ConnectionId) -> Option<usize> {
        self.links.iter().position(|link| link.connection == Some(id))
    }

    fn answer(&mut self) {
        if !self.asked.is_empty() {
            let question = self.asked.remove(self.random.index(self.asked.len()));
            // The connection may have ended.
            let _ = self.broker.accept(question, Admission::default(), self.now);
        }
    }

    fn transmit(&mut self, index: usize) {
        let link = &mut self.links[index];
        if let Some(id) = link.connection {
            while self.broker.transmit(id, self.now, &mut link.down) {}
        }
    }

    fn wait(&mut self) {
        self.now = self.now + core::time::Duration::from_millis(self.random.below(400));
        if self.broker.poll_timeout().is_some_and(|due| due <= self.now) {
            self.broker.handle_timeout(self.now);
        }
    }

    // ---- the store ----

    fn fetch_batch(&mut self, tally: &mut Tally) {
        let mut records = Vec::new();
        let batch = self.broker.poll_journal(|record| {
            records.push((record.key.to_vec(), record.value.map(<[u8]>::to_vec)));
        });
        tally.records += records.len();
        if let Some(batch) = batch {
            self.unsynced.push_back((batch, records));
            if self.honesty == Honesty::Lies {
                self.broker.durable(batch);
            }
        }
    }

    fn sync(&mut self) {
        if let Some(batch) = self.apply() {
            self.broker.durable(batch);
        }
    }

    fn apply(&mut self) -> Option<Batch> {
        let (batch, records) = self.unsynced.pop_front()?;
        for (key, value) in records {
            match value {
                Some(value) => _ = self.store.insert(key, value),
                None => assert!(self.store.remove(&key).is_some(), "{key:x?} is not stored"),
            }
        }
        Some(batch)
    }

    /// Loses the broker, the links, and some of the batches that are not synced.
    fn crash(&mut self, tally: &mut Tally) {
        tally.crashes += 1;
        let synced = self.random.index(self.unsynced.len() + 1);
        if self.honesty == Honesty::Honest {
            (0..synced).for_each(|_| _ = self.apply());
        }
        self.unsynced.clear();
        self.asked.clear();
        (0..LINKS).for_each(|index| _ = self.hang_up(index));
        let mut restore = Restore::new(config(), 1, self.now);
        for (key, value) in &self.store {
            restore.record(key, value).unwrap();
        }
        self.broker = restore.finish(|key, error| panic!("{key:x?}: {error}")).unwrap();
    }

    // ---- the end ----

    /// Lets everything go its way until nothing is left to do.
    fn heal(&mut self, tally: &mut Tally) -> Result<(), String> {
        for _ in 0..2_000 {
            let mut is_quiet = true;
            (0..LINKS).for_each(|index| self.connect(index));
            while self.broker.wants_journal() || !self.unsynced.is_empty() {
                is_quiet = false;
                self.fetch_batch(tally);
                self.sync();
            }
            while let Some(due) = self.broker.poll_timeout().filter(|due| *due <= self.now) {
                is_quiet = false;
                self.broker.handle_timeout(due.max(self.now));
            }
            for index in 0..LINKS {
                let Some(id) = self.links[index].connection else { continue };
                if self.broker.is_closed(id) {
                    self.transmit(index);
                    self.cut(index);
                    is_quiet = false;
                    continue;
                }
                if let Some((question, _)) = self.broker.question(id) {
                    self.broker.accept(question, Admission::default(), self.now).unwrap();
                    is_quiet = false;
                }
                self.collect(index);
                let link = &mut self.links[index];
                is_quiet &= link.up.is_empty() && link.down.is_empty() && link.input.is_empty();
                link.arrived.append(&mut link.up);
                self.feed(index, id);
                is_quiet &= !self.broker.wants_transmit(id);
                self.transmit(index);
                let length = self.links[index].down.len();
                self.read(index, length, tally);
            }
            if is_quiet {
                return Ok(());
            }
        }
        Err(String::from("it never becomes quiet"))
    }

    fn check(&mut self, tally: &mut Tally) -> Result<(), String> {
        let mut wrong = String::new();
        for (publisher, node) in self.nodes.iter().enumerate() {
            for (payload, qos, is_acknowledged) in &node.published {
                if *qos > QoS::AtMostOnce && !is_acknowledged {
                    let _ = writeln!(wrong, "{payload} is not acknowledged");
                }
                let count = |index: usize| {
                    self.nodes[index].inbox.iter().filter(|received| *received == payload).count()
                };
                let counts: Vec<usize> = match payload.get(..1) {
                    Some("p" | "b" | "c") => LISTENERS.map(count).into(),
                    Some("s") => vec![MEMBERS.map(count).iter().sum()],
                    _ => continue,
                };
                let is_carried = payload.starts_with(['b', 'c']);
                for count in counts {
                    tally.repeated += usize::from(count > 1);
                    tally.carried += if is_carried { count } else { 0 };
                    let is_right = match qos {
                        QoS::AtMostOnce => count <= 1,
                        QoS::AtLeastOnce => count >= 1,
                        QoS::ExactlyOnce if is_carried && self.was_bridge_lost => true,
                        QoS::ExactlyOnce => count == 1,
                    };
                    if !is_right {
                        let _ = writeln!(wrong, "{payload} with {qos:?} has arrived {count} times");
                    }
                }
            }
            for (kind, qos, listener) in ['p', 'b', 'c'].into_iter().flat_map(|kind| {
                let both = [QoS::AtLeastOnce, QoS::ExactlyOnce].into_iter();
                both.flat_map(move |qos| LISTENERS.map(|listener| (kind, qos, listener)))
            }) {
                let first = |payload: &String| {
                    self.nodes[listener].inbox.iter().position(|received| received == payload)
                };
                let sent = node
                    .published
                    .iter()
                    .filter(|(payload, one, _)| *one == qos && payload.starts_with(kind));
                let arrived: Vec<_> = sent.filter_map(|(payload, ..)| first(payload)).collect();
                if !arrived.is_sorted() {
                    let _ = writeln!(wrong, "{kind} {qos:?} of {publisher} has lost its order");
                }
            }
            let last = node.published.iter().rfind(|(payload, ..)| payload.starts_with('r'));
            let topic = format!("r/{publisher}");
            let retained = self.broker.retained().get(TopicName::new(&*topic).unwrap());
            let retained = retained.map(|retained| retained.message.payload());
            if retained != last.map(|(payload, ..)| payload.as_bytes()) {
                let _ = writeln!(wrong, "the retained message of {publisher} is not the last one");
            }
        }
        for listener in LISTENERS {
            let mut wills: Vec<_> =
                self.nodes[listener].inbox.iter().filter(|one| one.starts_with("will")).collect();
            tally.wills += wills.len();
            wills.sort();
            if wills.windows(2).any(|pair| pair[0] == pair[1]) {
                let _ = writeln!(wrong, "a will has arrived twice");
            }
        }
        let of = |kind: u8| self.store.keys().filter(|key| key[0] == kind).count();
        let mut left = [b'q', b'o', b'i'].map(of);
        if self.was_bridge_lost {
            left[2] = 0;
        }
        if left != [0; 3] || of(b'm') != of(b'r') || of(b's') != LINKS {
            let _ = writeln!(wrong, "records are left: q, o, i {left:?}, m {}", of(b'm'));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

/// Returns the side of the bridge that a link belongs to, if it is not that of a client.
fn side(index: usize) -> Option<Side> {
    index.checked_sub(CLIENTS).map(|side| SIDES[side])
}
