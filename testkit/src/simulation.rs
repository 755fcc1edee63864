//! A durable broker with clients, links that are slow and cut, and a store that loses what it has
//! not synced, all on one clock. The host crashes and restores the broker. A seed replays.

use crate::random::Random;
use core::fmt::Write as _;
use mqtt_sansio::Instant;
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
const STEPS: usize = 250;

/// The clients that have an ordinary subscription to `p/#`.
const LISTENERS: [usize; 2] = [2, 3];
/// The clients that share a subscription to `s/#`.
const MEMBERS: [usize; 2] = [1, 3];
/// The client that has a will.
const MORTAL: usize = 3;

/// Runs one seed to its end. Returns what was wrong.
pub fn run(seed: u64, honesty: Honesty, tally: &mut Tally) -> Result<(), String> {
    let mut world = World::new(seed, honesty);
    world.heal(tally)?;
    for (index, filters) in
        [(1, &["$share/g/s/#"][..]), (2, &["p/#"]), (3, &["p/#", "$share/g/s/#"])]
    {
        let subscriptions: Vec<_> =
            filters.iter().map(|filter| Subscription::new(*filter, QoS::ExactlyOnce)).collect();
        let (now, node) = (world.now, &mut world.nodes[index]);
        let properties = SubscribeProperties::default();
        node.client.subscribe(0, &subscriptions, properties, now, &mut node.up).unwrap();
    }
    world.heal(tally)?;
    for _ in 0..STEPS {
        world.step(tally);
    }
    world.heal(tally)?;
    world.check(tally)
}

/// A client, and its end of the link.
struct Node {
    client: Client,
    connection: Option<ConnectionId>,
    /// Bytes on their way to the broker, and those that have arrived there.
    up: Vec<u8>,
    arrived: Vec<u8>,
    /// Bytes on their way to the client, and those that have arrived there.
    down: Vec<u8>,
    input: Vec<u8>,
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
    /// The durable records, and the batches that the store has not synced.
    store: BTreeMap<Vec<u8>, Vec<u8>>,
    unsynced: VecDeque<(Batch, Vec<StoredRecord>)>,
}

fn config() -> BrokerConfig {
    let server = ServerConfig::new().maximum_in_flight(3).receive_maximum(4);
    BrokerConfig::new(server).durable(true).maximum_unsynced(4_000)
}

impl World {
    fn new(seed: u64, honesty: Honesty) -> Self {
        let now = Instant::from_millis(1_000_000);
        let node = || Node {
            client: Client::new(ClientConfig::new().maximum_in_flight(4)),
            connection: None,
            up: Vec::new(),
            arrived: Vec::new(),
            down: Vec::new(),
            input: Vec::new(),
            connects: 0,
            published: Vec::new(),
            inbox: Vec::new(),
        };
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        Self {
            pace: random.pick(&[100, 30, 10]),
            random,
            honesty,
            now,
            broker: Broker::new(config(), seed.into(), now),
            asked: Vec::new(),
            nodes: core::array::from_fn(|_| node()),
            store: BTreeMap::new(),
            unsynced: VecDeque::new(),
        }
    }

    fn step(&mut self, tally: &mut Tally) {
        let index = self.random.index(CLIENTS);
        match self.random.below(100) {
            0..=19 => self.publish(index),
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
            _ => self.wait(),
        }
    }

    // ---- clients ----

    fn connect(&mut self, index: usize) {
        let (now, node) = (self.now, &mut self.nodes[index]);
        if node.connection.is_some() {
            return;
        }
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
        node.client.connect(&connect, now, &mut node.up).unwrap();
        node.connection = Some(self.broker.open(now));
    }

    fn publish(&mut self, index: usize) {
        let (now, node) = (self.now, &mut self.nodes[index]);
        let key = node.published.len();
        let kind = self.random.pick(&["p", "p", "s", "r"]);
        // Messages of one QoS keep their order, so the last one stays.
        let qos = match kind {
            "r" => QoS::AtLeastOnce,
            _ => self.random.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]),
        };
        let (topic, payload) = (format!("{kind}/{index}"), format!("{kind} {index} {key}"));
        let publish =
            Publish { qos, retain: kind == "r", ..Publish::new(&*topic, payload.as_bytes()) };
        if node.client.publish(key as u64, &publish, now, &mut node.up).is_ok() {
            node.published.push((payload, qos, false));
        }
    }

    fn carry_up(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let Some(id) = node.connection else { return };
        let length = self.random.index(node.up.len() + 1).min(60);
        node.arrived.extend(node.up.drain(..length));
        self.feed(index, id);
    }

    fn feed(&mut self, index: usize, id: ConnectionId) {
        let node = &mut self.nodes[index];
        let mut input = &node.arrived[..];
        while self.broker.handle_input(id, &mut input, self.now) {}
        let read = node.arrived.len() - input.len();
        node.arrived.drain(..read);
    }

    fn carry_down(&mut self, index: usize, tally: &mut Tally) {
        let node = &mut self.nodes[index];
        if node.connection.is_some() {
            let length = self.random.index(node.down.len() + 1).min(60);
            self.read(index, length, tally);
        }
    }

    fn read(&mut self, index: usize, length: usize, tally: &mut Tally) {
        let (now, node) = (self.now, &mut self.nodes[index]);
        node.input.extend(node.down.drain(..length));
        let mut input = &node.input[..];
        let mut is_closed = false;
        while let Some(action) = node.client.handle_input(&mut input, now, &mut node.up) {
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
        let read = node.input.len() - input.len();
        node.input.drain(..read);
        if is_closed {
            self.cut(index);
        }
    }

    fn cut(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let Some(id) = node.connection.take() else { return };
        let _ = self.broker.connection_lost(id, self.now);
        node.hang_up();
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
        self.nodes.iter().position(|node| node.connection == Some(id))
    }

    fn answer(&mut self) {
        if !self.asked.is_empty() {
            let question = self.asked.remove(self.random.index(self.asked.len()));
            // The connection may have ended.
            let _ = self.broker.accept(question, Admission::default(), self.now);
        }
    }

    fn transmit(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if let Some(id) = node.connection {
            while self.broker.transmit(id, self.now, &mut node.down) {}
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
        for node in &mut self.nodes {
            if node.connection.take().is_some() {
                node.hang_up();
            }
        }
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
            for index in 0..CLIENTS {
                self.connect(index);
            }
            while self.broker.wants_journal() || !self.unsynced.is_empty() {
                is_quiet = false;
                self.fetch_batch(tally);
                self.sync();
            }
            while let Some(due) = self.broker.poll_timeout().filter(|due| *due <= self.now) {
                is_quiet = false;
                self.broker.handle_timeout(due.max(self.now));
            }
            for index in 0..CLIENTS {
                let Some(id) = self.nodes[index].connection else { continue };
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
                let node = &mut self.nodes[index];
                is_quiet &= node.up.is_empty() && node.down.is_empty();
                node.arrived.append(&mut node.up);
                self.feed(index, id);
                is_quiet &= !self.broker.wants_transmit(id);
                self.transmit(index);
                let length = self.nodes[index].down.len();
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
                    Some("p") => LISTENERS.map(count).into(),
                    Some("s") => vec![MEMBERS.map(count).iter().sum()],
                    _ => continue,
                };
                for count in counts {
                    tally.repeated += usize::from(count > 1);
                    let is_right = match qos {
                        QoS::AtMostOnce => count <= 1,
                        QoS::AtLeastOnce => count >= 1,
                        QoS::ExactlyOnce => count == 1,
                    };
                    if !is_right {
                        let _ = writeln!(wrong, "{payload} with {qos:?} has arrived {count} times");
                    }
                }
            }
            for (qos, listener) in [QoS::AtLeastOnce, QoS::ExactlyOnce]
                .into_iter()
                .flat_map(|qos| LISTENERS.map(|listener| (qos, listener)))
            {
                let first = |payload: &String| {
                    self.nodes[listener].inbox.iter().position(|received| received == payload)
                };
                let sent = node
                    .published
                    .iter()
                    .filter(|(payload, one, _)| *one == qos && payload.starts_with('p'));
                let arrived: Vec<_> = sent.filter_map(|(payload, ..)| first(payload)).collect();
                if !arrived.is_sorted() {
                    let _ = writeln!(wrong, "{qos:?} of {publisher} has lost its order");
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
        let left = [b'q', b'o', b'i'].map(of);
        if left != [0; 3] || of(b'm') != of(b'r') || of(b's') != CLIENTS {
            let _ = writeln!(wrong, "records are left: q, o, i {left:?}, m {}", of(b'm'));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

impl Node {
    fn hang_up(&mut self) {
        while self.client.connection_lost().is_some() {}
        for bytes in [&mut self.up, &mut self.arrived, &mut self.down, &mut self.input] {
            bytes.clear();
        }
    }
}
