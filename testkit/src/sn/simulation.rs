//! Clients and a gateway with a broker, over a network that loses, repeats and reorders datagrams.
//! Clients sleep, restart without their memory, and come from other addresses; the connections of
//! the gateway to the broker break. A seed replays.

use super::{Peer, Site};
use crate::random::Random;
use core::time::Duration;
use mqtt_sansio::Instant;
use mqtt_sansio::codec::QoS;
use mqtt_sansio::sn::client::{Action, Client, ClientConfig, ClientState};
use mqtt_sansio::sn::v1_2::{Message, ReturnCode, SubscriptionTopic, TopicId, TopicRef, decode};
use mqtt_sansio::sn::{Destination, GatewayConfig};
use std::collections::{BTreeMap, VecDeque};

/// Counts of events, so that a test can check that they occur.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub published: u64,
    pub received: u64,
    pub repeated: u64,
    pub dropped: u64,
    pub copied: u64,
    pub restarts: u64,
    pub cuts: u64,
    pub sleeps: u64,
    pub wakes: u64,
    pub buffered: u64,
    pub resent: u64,
}

/// A fault on purpose, so that the simulation can be seen to notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// A PUBLISH that is sent again is always lost.
    NoResend,
    /// A client takes each copy of a message with QoS 2 for a new message.
    NoMemory,
}

const CLIENTS: usize = 3;
const NAMES: [&str; CLIENTS] = ["node-0", "node-1", "node-2"];
/// The actions of each client while the network is bad.
const ACTIONS: usize = 24;
/// The most messages and bytes that the gateway buffers for a client.
const BUFFER: (usize, usize) = (6, 120);
/// The most bytes of a topic name and payload.
const LARGEST: usize = 16;
/// The longest delay of a datagram, which is shorter than the window for copies.
const DELAY: u64 = 2_000;

/// Runs one seed to its end. Returns what was wrong.
pub fn run(seed: u64, fault: Fault, tally: &mut Tally) -> Result<(), String> {
    let mut world = World::new(seed, fault);
    world.run_until_idle()?;
    world.is_bad = true;
    while world.nodes.iter().any(|node| node.actions > 0) {
        world.step()?;
    }
    world.is_bad = false;
    world.run_until_idle()?;
    world.check()?;
    tally.add(&world);
    Ok(())
}

impl Tally {
    fn add(&mut self, world: &World) {
        let Self { dropped, copied, restarts, cuts, sleeps, wakes, buffered, .. } = world.tally;
        self.published += world.nodes.iter().map(|node| node.published.len() as u64).sum::<u64>();
        let inboxes = || world.nodes.iter().flat_map(|node| node.inbox.values());
        self.received += inboxes().count() as u64;
        self.repeated += inboxes().filter(|lives| lives.len() > 1).count() as u64;
        self.dropped += dropped;
        self.copied += copied;
        self.restarts += restarts;
        self.cuts += cuts;
        self.sleeps += sleeps;
        self.wakes += wakes;
        self.buffered = self.buffered.max(buffered);
        self.resent += world.site.gateway.stats().resent;
    }
}

struct World {
    random: Random,
    fault: Fault,
    is_bad: bool,
    site: Site,
    nodes: Vec<Node>,
    network: BTreeMap<(Instant, u64), Datagram>,
    last_datagram: u64,
    tally: Tally,
}

struct Datagram {
    peer: Peer,
    is_to_gateway: bool,
    bytes: Vec<u8>,
}

/// A device and its application.
struct Node {
    peer: Peer,
    client: Client,
    /// The number of restarts.
    life: usize,
    setup: Setup,
    topic: Option<TopicId>,
    act_at: Instant,
    actions: usize,
    waiting: VecDeque<Outgoing>,
    in_flight: Option<Outgoing>,
    /// The messages with their QoS, and whether the gateway has acknowledged them.
    published: BTreeMap<String, (QoS, bool)>,
    /// The lives in which a message has arrived.
    inbox: BTreeMap<String, Vec<usize>>,
}

#[derive(Clone)]
struct Outgoing {
    payload: String,
    qos: QoS,
    is_predefined: bool,
}

/// The next exchange of an application after its start.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Setup {
    Wildcard,
    Predefined,
    Register,
    Done,
}

fn predefined() -> TopicId {
    TopicId::new(9).unwrap()
}

impl World {
    fn new(seed: u64, fault: Fault) -> Self {
        let mut random = Random(seed);
        let config = GatewayConfig::new(1)
            .predefined_topic(predefined(), "pre")
            .unwrap()
            .maximum_buffered(BUFFER.0, BUFFER.1)
            .maximum_topics(4);
        let site = Site::new(config);
        let nodes = (0..CLIENTS).map(|index| Node::new(index, site.now, &mut random)).collect();
        let (network, tally) = (BTreeMap::new(), Tally::default());
        Self { random, fault, is_bad: false, site, nodes, network, last_datagram: 0, tally }
    }

    /// Runs on a good network until all have received and acknowledged everything.
    fn run_until_idle(&mut self) -> Result<(), String> {
        let end = self.site.now + Duration::from_secs(3_000);
        let is_idle = |world: &Self| {
            world.nodes.iter().all(Node::is_idle) && world.missing().next().is_none()
        };
        while !is_idle(self) {
            if self.site.now > end {
                let missing: Vec<_> = self.missing().collect();
                return Err(format!("not idle: {missing:?} {}", self.shown()));
            }
            self.step()?;
        }
        Ok(())
    }

    /// Advances to the next event, and handles it.
    fn step(&mut self) -> Result<(), String> {
        let far = Instant::from_millis(u64::MAX);
        let site = [self.site.gateway.poll_timeout(), self.site.broker.poll_timeout()];
        let site = site.map(|at| at.unwrap_or(far)).into_iter().min().unwrap_or(far);
        let mut next = self.network.first_key_value().map_or(far, |((at, _), _)| *at).min(site);
        for node in &self.nodes {
            next = next.min(node.act_at).min(node.client.poll_timeout().unwrap_or(far));
        }
        self.site.now = self.site.now.max(next);
        let now = self.site.now;
        while let Some(entry) = self.network.first_entry().filter(|entry| entry.key().0 <= now) {
            let Datagram { peer, is_to_gateway, bytes } = entry.remove();
            if is_to_gateway {
                self.site.send_bytes(peer, &bytes);
                self.carry();
                self.check_memory()?;
            } else if let Some(index) = self.nodes.iter().position(|node| node.peer == peer) {
                let mut out = Vec::new();
                let action = self.nodes[index].client.handle_datagram(&bytes, now, &mut out);
                self.nodes[index].on_action(action, self.fault, &bytes)?;
                self.send(index, out);
            }
        }
        if site <= now {
            self.site.gateway.handle_timeout(now);
            self.site.broker.handle_timeout(now);
            self.site.settle();
            self.carry();
            self.check_memory()?;
        }
        for index in 0..CLIENTS {
            let node = &mut self.nodes[index];
            if node.client.poll_timeout().is_some_and(|at| at <= now) {
                let mut out = Vec::new();
                let action = node.client.handle_timeout(now, &mut out);
                node.on_action(action, self.fault, b"")?;
                self.send(index, out);
            }
            if self.nodes[index].act_at <= now {
                self.act(index);
            }
        }
        Ok(())
    }

    /// Sends the datagrams of the gateway.
    fn carry(&mut self) {
        for (to, bytes) in core::mem::take(&mut self.site.sent) {
            if let Destination::Peer(peer) = to {
                self.transfer(Datagram { peer, is_to_gateway: false, bytes });
            }
        }
    }

    fn send(&mut self, index: usize, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            let peer = self.nodes[index].peer;
            self.transfer(Datagram { peer, is_to_gateway: true, bytes });
        }
    }

    /// Passes a datagram to the network, which can lose or copy it, and delays each copy.
    fn transfer(&mut self, datagram: Datagram) {
        if self.fault == Fault::NoResend
            && matches!(decode(&datagram.bytes), Ok(Message::Publish(publish)) if publish.dup)
        {
            return;
        }
        let copies = match self.is_bad {
            true if self.random.percent(20) => 0,
            true if self.random.percent(15) => 2,
            _ => 1,
        };
        self.tally.dropped += u64::from(copies == 0);
        self.tally.copied += u64::from(copies == 2);
        for _ in 0..copies {
            let delay = if self.is_bad { 1 + self.random.below(DELAY) } else { 20 };
            let at = self.site.now + Duration::from_millis(delay);
            self.last_datagram += 1;
            let Datagram { peer, is_to_gateway, ref bytes } = datagram;
            let copy = Datagram { peer, is_to_gateway, bytes: bytes.clone() };
            self.network.insert((at, self.last_datagram), copy);
        }
    }

    /// Lets an application do something.
    fn act(&mut self, index: usize) {
        let (now, is_bad, random) = (self.site.now, self.is_bad, &mut self.random);
        let node = &mut self.nodes[index];
        let pause = if is_bad { 100 + random.below(8_000) } else { 1_000 };
        node.act_at = now + Duration::from_millis(pause);
        node.actions -= usize::from(is_bad && node.actions > 0);
        if is_bad && random.percent(4) {
            self.tally.cuts += 1;
            self.site.cut();
            return self.carry();
        }
        if is_bad && random.percent(5) {
            self.tally.restarts += 1;
            node.restart(random);
        }
        let mut out = Vec::new();
        match node.client.state() {
            ClientState::Disconnected => {
                if is_bad && random.percent(20) {
                    // Another port.
                    node.peer += 100;
                }
                node.client.connect(false, now, &mut out).unwrap();
            }
            ClientState::Active if node.client.is_busy() => {}
            ClientState::Active => match node.setup {
                Setup::Done if is_bad && random.percent(20) => {
                    self.tally.sleeps += 1;
                    node.client.sleep(30 + random.small(), now, &mut out).unwrap();
                }
                Setup::Done if is_bad && random.percent(5) => {
                    node.client.disconnect(now, &mut out).unwrap();
                }
                Setup::Done => {
                    if is_bad {
                        node.write(index, random);
                    }
                    node.publish(now, &mut out);
                }
                _ => node.set_up(index, now, &mut out),
            },
            ClientState::Asleep => {
                if is_bad && random.percent(60) {
                    self.tally.wakes += 1;
                    node.client.wake(now, &mut out).unwrap();
                } else if !is_bad || random.percent(50) {
                    node.client.connect(false, now, &mut out).unwrap();
                }
            }
            _ => {}
        }
        self.send(index, out);
    }

    fn check_memory(&mut self) -> Result<(), String> {
        if self.site.gateway.clients().count() > CLIENTS {
            return Err("more clients than there are".to_owned());
        }
        for name in NAMES {
            if let Some((messages, bytes)) = self.site.gateway.buffered(name) {
                self.tally.buffered = self.tally.buffered.max(messages as u64);
                if messages > BUFFER.0 || bytes > BUFFER.1 + LARGEST {
                    return Err(format!("{messages} messages of {bytes} bytes are buffered"));
                }
            }
        }
        Ok(())
    }

    fn shown(&self) -> String {
        let nodes = self.nodes.iter().enumerate().map(|(index, node)| {
            let buffered = self.site.gateway.buffered(NAMES[index]);
            let state = self.site.gateway.state(NAMES[index]);
            let (client, waiting) = (&node.client, node.waiting.len());
            format!("\n{client:?}, {waiting} waiting, at the gateway {state:?} with {buffered:?}")
        });
        format!("{:?}{}", self.site.gateway.stats(), nodes.collect::<String>())
    }

    /// Returns the acknowledged messages that have not arrived everywhere.
    fn missing(&self) -> impl Iterator<Item = (&String, QoS, usize)> {
        let published = self.nodes.iter().flat_map(|node| &node.published);
        let acknowledged = published.filter(|(_, (_, is_acknowledged))| *is_acknowledged);
        acknowledged.flat_map(move |(payload, (qos, _))| {
            let nodes = self.nodes.iter().enumerate();
            let without = nodes.filter(move |(_, node)| !node.inbox.contains_key(payload));
            without.map(move |(index, _)| (payload, *qos, index))
        })
    }

    /// Checks that QoS 1 messages arrive at least once, and QoS 2 messages exactly once. A client
    /// that has restarted can receive a message again, because it has forgotten that it had it.
    fn check(&self) -> Result<(), String> {
        let published: BTreeMap<_, _> =
            self.nodes.iter().flat_map(|node| &node.published).collect();
        for (index, node) in self.nodes.iter().enumerate() {
            for (payload, lives) in &node.inbox {
                let Some((qos, _)) = published.get(payload) else {
                    return Err(format!("client {index} has received {payload}"));
                };
                let is_repeated = lives.windows(2).any(|pair| pair[0] == pair[1]);
                if *qos == QoS::ExactlyOnce && is_repeated {
                    return Err(format!("client {index} has received {payload} twice: {lives:?}"));
                }
            }
        }
        Ok(())
    }
}

impl Node {
    fn new(index: usize, now: Instant, random: &mut Random) -> Self {
        Self {
            peer: index as Peer,
            client: Self::new_client(index, random),
            life: 0,
            setup: Setup::Wildcard,
            topic: None,
            act_at: now + Duration::from_millis(random.below(1_000)),
            actions: ACTIONS,
            waiting: VecDeque::new(),
            in_flight: None,
            published: BTreeMap::new(),
            inbox: BTreeMap::new(),
        }
    }

    fn new_client(index: usize, random: &mut Random) -> Client {
        let first = random.below(65_000) as u16 + 1;
        let config = ClientConfig::new(NAMES[index]).unwrap().maximum_topics(3);
        Client::new(config.first_message_id(first))
    }

    /// Forgets everything, except for what the test must know.
    fn restart(&mut self, random: &mut Random) {
        let index = self.peer as usize % 100;
        self.client = Self::new_client(index, random);
        self.life += 1;
        (self.setup, self.topic, self.in_flight) = (Setup::Wildcard, None, None);
    }

    fn is_idle(&self) -> bool {
        self.client.state() == ClientState::Active
            && !self.client.is_busy()
            && self.setup == Setup::Done
            && self.waiting.is_empty()
            && self.in_flight.is_none()
    }

    fn set_up(&mut self, index: usize, now: Instant, out: &mut Vec<u8>) {
        let qos = QoS::ExactlyOnce;
        let sent = match self.setup {
            Setup::Wildcard => {
                self.client.subscribe(SubscriptionTopic::Filter("w/+".into()), qos, now, out)
            }
            Setup::Predefined => {
                self.client.subscribe(SubscriptionTopic::Predefined(predefined()), qos, now, out)
            }
            Setup::Register | Setup::Done => self.client.register(&format!("w/{index}"), now, out),
        };
        sent.unwrap();
    }

    /// Adds a message that is to be published.
    fn write(&mut self, index: usize, random: &mut Random) {
        let qos = random.pick(&[QoS::AtLeastOnce, QoS::ExactlyOnce]);
        let payload = format!("{index}-{}", self.published.len());
        let is_predefined = random.percent(30);
        self.published.insert(payload.clone(), (qos, false));
        self.waiting.push_back(Outgoing { payload, qos, is_predefined });
    }

    fn publish(&mut self, now: Instant, out: &mut Vec<u8>) {
        let (Some(next), Some(topic)) = (self.waiting.pop_front(), self.topic) else { return };
        let topic =
            if next.is_predefined { TopicRef::Predefined(predefined()) } else { topic.into() };
        let payload = next.payload.as_bytes();
        self.client.publish(topic, next.qos, false, payload, now, out).unwrap();
        self.in_flight = Some(next);
    }

    fn on_action(
        &mut self,
        action: Option<Action<'_>>,
        fault: Fault,
        datagram: &[u8],
    ) -> Result<(), String> {
        match action {
            Some(Action::Message(message)) => self.note(message.data),
            None if fault == Fault::NoMemory => {
                if let Ok(Message::Publish(publish)) = decode(datagram) {
                    self.note(publish.data);
                }
            }
            Some(Action::Subscribed { return_code: ReturnCode::Accepted, .. }) => {
                self.setup = match self.setup {
                    Setup::Wildcard => Setup::Predefined,
                    _ => Setup::Register,
                };
            }
            Some(Action::Registered(Ok(topic))) => {
                (self.topic, self.setup) = (Some(topic), Setup::Done);
            }
            Some(Action::Published(code)) => {
                let Some(outgoing) = self.in_flight.take() else {
                    return Err(format!("{} was not published", self.life));
                };
                if code == ReturnCode::Accepted {
                    self.published.insert(outgoing.payload, (outgoing.qos, true));
                } else {
                    self.waiting.push_front(outgoing);
                    self.setup = Setup::Register;
                }
            }
            Some(Action::Refused(ReturnCode::Congestion)) => {}
            Some(
                action @ (Action::Refused(_) | Action::Subscribed { .. } | Action::Registered(_)),
            ) => {
                return Err(format!("{action:?}"));
            }
            _ => {}
        }
        Ok(())
    }

    fn note(&mut self, payload: &[u8]) {
        let payload = String::from_utf8(payload.to_vec()).unwrap();
        self.inbox.entry(payload).or_default().push(self.life);
    }
}
