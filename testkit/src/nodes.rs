//! Several brokers that share their clients over a log that all of them read, each at its own pace
//! and some entries twice. Clients are cut off, and come back at another node. A bridge links these
//! nodes to another broker: its local side is a client that moves as others do. A seed replays.

use crate::random::Random;
use mqtt_sansio::Instant;
use mqtt_sansio::bridge::{Bridge, BridgeConfig, Event, Side};
use mqtt_sansio::broker::journal::Record;
use mqtt_sansio::broker::{
    Action, Admission, Broker, BrokerConfig, ConnectionId, Forward, Interest, NodeId, Question,
    Route,
};
use mqtt_sansio::client::{self, Client, ClientConfig};
use mqtt_sansio::codec::{
    Connect, ConnectProperties, Disconnect, Publish, QoS, ReasonCode, SubscribeProperties,
    Subscription, TopicName, Version,
};
use std::collections::{BTreeSet, VecDeque};

/// Counts of events, so that a test can check that they occur.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub moves: usize,
    pub cuts: usize,
    pub forwarded: usize,
    pub repeated: usize,
    pub caught_up: usize,
    pub received: usize,
    /// The moves of the bridge, and the messages that it has carried.
    pub bridge_moves: usize,
    pub carried: usize,
}

/// How the hosts of the nodes treat the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    /// They do as the documentation says.
    Careful,
    /// They pass on messages without their position.
    WithoutPositions,
    /// A session moves to a node that has read less of the log, or more.
    MovesWithoutCatchingUp,
}

const NODES: usize = 3;
/// The broker at the other end of the bridge, which follows the nodes.
const FAR: usize = NODES;

/// The publishers are 0 and 1, the subscribers 2 and 3. The client of the broker at the other end
/// of the bridge does both, and the last two are the sides of the bridge.
const CLIENTS: usize = 7;
const FAR_CLIENT: usize = 4;
const LOCAL: usize = 5;
const REMOTE: usize = 6;
const NAMES: [&str; CLIENTS] = ["p0", "p1", "s0", "s1", "far", "local", "remote"];
/// Each client with a subscription, and its greatest QoS.
const SUBSCRIBERS: [(usize, QoS, &[&str]); 3] = [
    (2, QoS::ExactlyOnce, &["t/#", "u/#", "x/#"]),
    (3, QoS::AtLeastOnce, &["t/#", "u/#", "x/#"]),
    (FAR_CLIENT, QoS::ExactlyOnce, &["over/#", "x/#"]),
];

/// The topics of the bridge. Messages of `x` go in both directions, and must not come back.
const CARRIED: [&str; 3] = ["t/# out 2 \"\" over/", "u/# in 2", "x/# both 2"];

const STEPS: usize = 300;
/// The rounds in which nothing arrives, after which nothing more is on its way.
const QUIET_ROUNDS: usize = 10;
const NOW: Instant = Instant::from_millis(1_000_000);

/// Runs one seed to its end. Returns what was wrong.
pub fn run(seed: u64, care: Care, tally: &mut Tally) -> Result<(), String> {
    let mut world = World::new(seed, care);
    world.settle(tally);
    for (index, qos, filters) in SUBSCRIBERS {
        let one = &mut world.clients[index];
        let subscriptions: Vec<_> =
            filters.iter().map(|filter| Subscription::new(*filter, qos)).collect();
        let properties = SubscribeProperties::default();
        one.client.subscribe(0, &subscriptions, properties, NOW, &mut one.up).unwrap();
    }
    world.settle(tally);
    for _ in 0..STEPS {
        world.step(tally);
    }
    world.settle(tally);
    world.check(tally)
}

struct World {
    random: Random,
    care: Care,
    nodes: Vec<Node>,
    clients: Vec<One>,
    bridge: Bridge,
    /// The one log that all nodes read.
    log: Vec<Forward>,
}

struct Node {
    broker: Broker,
    /// The number of entries of the log that are handled.
    position: usize,
    /// Interests of other nodes that have not arrived.
    news: VecDeque<(NodeId, Interest)>,
}

/// A client and its connection. A side of the bridge does not use its client.
struct One {
    client: Client,
    at: Option<(usize, ConnectionId)>,
    /// The node that has the session.
    home: Option<usize>,
    up: Vec<u8>,
    input: Vec<u8>,
    published: Vec<(String, QoS, bool)>,
    inbox: Vec<String>,
}

impl World {
    fn new(seed: u64, care: Care) -> Self {
        let node = |number| Node {
            broker: Broker::new(BrokerConfig::default().is_node(number != FAR), seed.into(), NOW),
            position: 0,
            news: VecDeque::new(),
        };
        let one = |_| One {
            client: Client::new(ClientConfig::new()),
            at: None,
            home: None,
            up: Vec::new(),
            input: Vec::new(),
            published: Vec::new(),
            inbox: Vec::new(),
        };
        let topics = CARRIED.map(|topic| topic.parse().unwrap());
        Self {
            random: Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            care,
            nodes: (0..=FAR).map(node).collect(),
            clients: (0..CLIENTS).map(one).collect(),
            bridge: Bridge::new(BridgeConfig::new(topics).unwrap()),
            log: Vec::new(),
        }
    }

    fn step(&mut self, tally: &mut Tally) {
        let index = self.random.index(CLIENTS);
        match self.random.below(100) {
            0..=19 => {
                let publisher = self.random.pick(&[0, 1, FAR_CLIENT]);
                self.publish(publisher);
            }
            20..=59 => self.exchange(index, tally),
            60..=69 => {
                let node = self.random.index(NODES);
                self.append(node, tally);
            }
            70..=84 => {
                let node = self.random.index(NODES);
                self.read_log(node, tally);
            }
            85..=89 => {
                let node = self.random.index(NODES);
                self.tell(node);
            }
            90..=93 => self.cut(index, tally),
            _ => self.connect(index, tally),
        }
    }

    // ---- clients ----

    fn publish(&mut self, index: usize) {
        let one = &mut self.clients[index];
        let key = one.published.len();
        let qos = self.random.pick(&[QoS::AtLeastOnce, QoS::ExactlyOnce]);
        let kind = self.random.pick(&[if index == FAR_CLIENT { "u" } else { "t" }, "x"]);
        let retain = kind == "t" && key.is_multiple_of(7);
        let (topic, payload) = (format!("{kind}/a"), format!("{kind} {index} {qos:?} {key:04}"));
        let publish = Publish { qos, retain, ..Publish::new(&*topic, payload.as_bytes()) };
        if one.client.publish(key as u64, &publish, NOW, &mut one.up).is_ok() {
            one.published.push((payload, qos, false));
        }
    }

    /// Connects a client to any node, which takes its session from the node that has it, or to the
    /// broker at the other end of the bridge.
    fn connect(&mut self, index: usize, tally: &mut Tally) {
        if self.clients[index].at.is_some() {
            return;
        }
        let is_far = matches!(index, FAR_CLIENT | REMOTE);
        let node = if is_far { FAR } else { self.random.index(NODES) };
        let home = self.clients[index].home.replace(node).filter(|home| *home != node);
        let properties = ConnectProperties {
            session_expiry_interval: Some(u32::MAX),
            ..ConnectProperties::default()
        };
        let connect = Connect { properties, ..Connect::new(Version::V5_0, NAMES[index]) };
        let one = &mut self.clients[index];
        one.up.clear();
        match side(index) {
            Some(side) => self.bridge.connect(side, &connect, NOW).unwrap(),
            None => one.client.connect(&connect, NOW, &mut one.up).unwrap(),
        }
        one.at = Some((node, self.nodes[node].broker.open(NOW)));
        if let Some(home) = home {
            tally.moves += 1;
            tally.bridge_moves += usize::from(index == LOCAL);
            // What the client has published there comes before what it publishes here.
            self.append(home, tally);
            let position = self.nodes[home].position;
            while self.care != Care::MovesWithoutCatchingUp && self.nodes[node].position < position
            {
                self.read_log(node, tally);
            }
            while !self.nodes[home].news.is_empty() {
                self.tell(home);
            }
            let disconnect = Disconnect::new(ReasonCode::SESSION_TAKEN_OVER);
            let (mut records, broker) = (Vec::new(), &mut self.nodes[home].broker);
            let put = |record: Record<'_>| {
                records.push((record.key.to_vec(), record.value.unwrap().to_vec()));
            };
            let to = Some(NodeId(node as u32));
            assert!(broker.evict(NAMES[index], to, &disconnect, NOW, put));
            let logged = (1_u64..).zip(&self.log).map(|(position, forward)| {
                let key = [b"m", &position.to_be_bytes()[..]].concat();
                (key, forward.message.to_bytes().to_vec())
            });
            records.extend(logged);
            let records = records.iter().map(|(key, value)| Record { key, value: Some(value) });
            let Node { broker, position: last, .. } = &mut self.nodes[node];
            broker.import_session(records, NOW).unwrap();
            if self.care != Care::MovesWithoutCatchingUp {
                let missed = (1..).zip(&self.log).take(*last).skip(position);
                for (position, Forward { message, publisher, expires_at, .. }) in missed {
                    tally.caught_up += 1;
                    broker.catch_up(NAMES[index], message, publisher, *expires_at, position, NOW);
                }
            }
            // In this order, so that there is always a node that wants the messages.
            self.collect_interest(node);
            self.collect_interest(home);
        }
        self.exchange(index, tally);
    }

    fn cut(&mut self, index: usize, tally: &mut Tally) {
        if self.clients[index].at.is_some() {
            tally.cuts += 1;
            self.lose(index);
        }
    }

    fn lose(&mut self, index: usize) {
        let Some((node, id)) = self.clients[index].at.take() else { return };
        let _ = self.nodes[node].broker.connection_lost(id, NOW);
        let one = &mut self.clients[index];
        match side(index) {
            Some(side) => while self.bridge.connection_lost(side, NOW).is_some() {},
            None => while one.client.connection_lost().is_some() {},
        }
        one.up.clear();
        one.input.clear();
    }

    /// Carries bytes between a client and its broker until neither has more.
    fn exchange(&mut self, index: usize, tally: &mut Tally) {
        let Some((node, id)) = self.clients[index].at else { return };
        loop {
            let (one, broker) = (&mut self.clients[index], &mut self.nodes[node].broker);
            if let Some(side) = side(index) {
                self.bridge.transmit(side, &mut one.up);
            }
            let mut input = &one.up[..];
            while broker.handle_input(id, &mut input, NOW) {}
            let read = one.up.len() - input.len();
            one.up.drain(..read);
            if let Some((question, Question::Connect(_))) = broker.question(id) {
                broker.accept(question, Admission::default(), NOW).unwrap();
            }
            let mut down = Vec::new();
            while broker.transmit(id, NOW, &mut down) {}
            while broker.poll_action().is_some_and(|action| !matches!(action, Action::Closed(..))) {
            }
            one.input.extend(&down);
            let (mut input, before) = (&one.input[..], one.up.len());
            if let Some(side) = side(index) {
                while let Some(event) = self.bridge.handle_input(side, &mut input, NOW) {
                    assert!(
                        !matches!(event, Event::Refused { .. } | Event::Closed(..)),
                        "{event:?}"
                    );
                }
                self.bridge.transmit(side, &mut one.up);
            }
            while side(index).is_none() {
                let action = one.client.handle_input(&mut input, NOW, &mut one.up);
                let Some(action) = action else { break };
                match action {
                    client::Action::Message(message) => {
                        tally.received += 1;
                        one.inbox.push(String::from_utf8(message.payload.to_vec()).unwrap());
                    }
                    client::Action::Published(published) => {
                        one.published[published.key as usize].2 = true;
                    }
                    client::Action::Closed(cause) => panic!("{cause:?}"),
                    _ => {}
                }
            }
            let taken = one.input.len() - input.len();
            one.input.drain(..taken);
            if down.is_empty() && read == 0 && one.up.len() == before {
                break;
            }
        }
        self.collect_interest(node);
    }

    /// Returns how much was received, so that a round without more shows.
    fn progress(&self) -> usize {
        self.log.len() + self.clients.iter().map(|one| one.inbox.len()).sum::<usize>()
    }

    // ---- the hosts ----

    fn collect_interest(&mut self, node: usize) {
        while let Some(interest) = self.nodes[node].broker.poll_interest() {
            for (other, receiver) in self.nodes.iter_mut().enumerate() {
                // The broker at the other end is no node, and reports nothing to be told.
                if node != FAR && other != FAR && other != node {
                    receiver.news.push_back((NodeId(node as u32), interest.clone()));
                }
            }
        }
    }

    /// Tells a node what another one wants.
    fn tell(&mut self, node: usize) {
        let Node { broker, news, .. } = &mut self.nodes[node];
        if let Some((other, Interest { filter, is_wanted, .. })) = news.pop_front() {
            if is_wanted {
                broker.forward(other, &filter);
            } else {
                assert!(broker.stop_forwarding(other, &filter));
            }
        }
    }

    /// Appends what a node has accepted to the log, and reports that.
    fn append(&mut self, node: usize, tally: &mut Tally) {
        let broker = &mut self.nodes[node].broker;
        let batch = broker.poll_journal(|_| ());
        while let Some(forward) = broker.poll_forward() {
            assert_eq!(forward.route, Route::Log);
            tally.forwarded += 1;
            self.log.push(forward);
        }
        batch.into_iter().for_each(|batch| broker.durable(batch));
    }

    /// Lets a node handle the next entry of the log, or an old one again.
    fn read_log(&mut self, node: usize, tally: &mut Tally) {
        let position = self.nodes[node].position;
        let repeats = position > 0 && self.random.percent(20);
        let position = if repeats { self.random.index(position) } else { position };
        let Some(Forward { message, expires_at, publisher, .. }) = self.log.get(position) else {
            return;
        };
        let place = Some(position as u64 + 1).filter(|_| self.care != Care::WithoutPositions);
        tally.repeated += usize::from(repeats);
        self.nodes[node].position += usize::from(!repeats);
        self.nodes[node].broker.remote(message, publisher, *expires_at, place, NOW);
    }

    // ---- the end ----

    /// Lets everything arrive.
    fn settle(&mut self, tally: &mut Tally) {
        let mut quiet_rounds = 0;
        for _ in 0..2_000 {
            let before = self.progress();
            for index in 0..CLIENTS {
                self.connect(index, tally);
                self.exchange(index, tally);
            }
            for node in 0..NODES {
                self.tell(node);
                self.read_log(node, tally);
                self.append(node, tally);
            }
            let is_read = self.nodes[..NODES]
                .iter()
                .all(|node| node.position == self.log.len() && node.news.is_empty());
            let mut published = self.clients.iter().flat_map(|one| &one.published);
            let is_acknowledged = published.all(|(.., is_acknowledged)| *is_acknowledged);
            let is_quiet = is_read && is_acknowledged && self.progress() == before;
            quiet_rounds = if is_quiet { quiet_rounds + 1 } else { 0 };
            // A message on the bridge shows when it arrives at the other end.
            if quiet_rounds == QUIET_ROUNDS {
                break;
            }
        }
        // An exchange with QoS 2 waits for records three times.
        for _ in 0..4 {
            (0..NODES).for_each(|node| self.append(node, tally));
            (0..CLIENTS).for_each(|index| self.exchange(index, tally));
        }
    }

    fn check(&self, tally: &mut Tally) -> Result<(), String> {
        for (publisher, one) in self.clients.iter().enumerate() {
            for (payload, qos, is_acknowledged) in &one.published {
                if !is_acknowledged {
                    return Err(format!("{payload} was not acknowledged"));
                }
                for (subscriber, granted, _) in SUBSCRIBERS {
                    if payload.starts_with('u') && subscriber == FAR_CLIENT {
                        continue;
                    }
                    let inbox = &self.clients[subscriber].inbox;
                    let times = inbox.iter().filter(|one| *one == payload).count();
                    if (publisher == FAR_CLIENT) != (subscriber == FAR_CLIENT) {
                        tally.carried += times;
                    }
                    let is_right = match qos.min(&granted) {
                        QoS::ExactlyOnce => times == 1,
                        _ => times >= 1,
                    };
                    if !is_right {
                        let name = NAMES[subscriber];
                        return Err(format!("{payload} has arrived {times} times at {name}"));
                    }
                }
            }
        }
        for inbox in self.clients.iter().map(|one| &one.inbox) {
            let mut seen = BTreeSet::new();
            let first: Vec<_> = inbox.iter().filter(|one| seen.insert(one.as_str())).collect();
            // Messages of one publisher, topic and QoS.
            let kinds: BTreeSet<_> = first.iter().filter_map(|one| one.rsplit_once(' ')).collect();
            for kind in kinds.iter().map(|(kind, _)| kind) {
                if !first.iter().filter(|one| one.starts_with(kind)).is_sorted() {
                    return Err(format!("{kind} is out of order"));
                }
            }
        }
        let topic_name = TopicName::new("t/a").unwrap();
        let retained = |node: &Node| {
            node.broker.retained().get(&topic_name).map(|one| one.message.payload().to_vec())
        };
        if self.nodes[..NODES].iter().any(|node| retained(node) != retained(&self.nodes[0])) {
            return Err("the nodes have retained different messages".into());
        }
        Ok(())
    }
}

/// Returns the side of the bridge that a client is, if it is one.
const fn side(index: usize) -> Option<Side> {
    match index {
        LOCAL => Some(Side::Local),
        REMOTE => Some(Side::Remote),
        _ => None,
    }
}
