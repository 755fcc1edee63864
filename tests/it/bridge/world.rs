//! Brokers, clients and bridges in one thread, linked in memory. Packets are carried one by one, so
//! that a connection of a bridge can be cut after any of them.

use core::mem;
use core::time::Duration;
use mqtt_sansio::Instant;
use mqtt_sansio::bridge::{Bridge, BridgeConfig, Event, Side};
use mqtt_sansio::broker::{
    Action, Admission, Broker, BrokerConfig, ConnectionId, Grants, Question,
};
use mqtt_sansio::client::{self, Client, ClientConfig};
use mqtt_sansio::codec::{
    self, Connect, Publish, QoS, SubscribeProperties, Subscription, SubscriptionOptions, Version,
};

pub struct World {
    pub now: Instant,
    pub brokers: Vec<Broker>,
    pub clients: Vec<Tester>,
    pub bridges: Vec<Bridge>,
    pub links: Vec<Link>,
    /// The events of the bridges, as text.
    pub events: Vec<String>,
    /// The grants of the bridges.
    pub grants: Grants,
    /// A connection that was cut is not opened again.
    pub is_dead_after_cut: bool,
}

/// A client of a broker that a test looks at.
pub struct Tester {
    broker: usize,
    id: ConnectionId,
    client: Client,
    out: Vec<u8>,
    pub received: Vec<String>,
    /// How a message is shown.
    pub shown: fn(&Publish<'_>) -> String,
}

/// The connection of a side of a bridge.
pub struct Link {
    bridge: usize,
    side: Side,
    broker: usize,
    version: Version,
    /// `None` while there is no connection.
    id: Option<ConnectionId>,
    to_bridge: Vec<u8>,
    /// Packets in both directions since the start.
    pub carried: usize,
    /// The number of packets after which the connection breaks.
    pub cut_at: Option<usize>,
    /// The broker cannot be reached.
    pub is_dead: bool,
}

pub const V5: Version = Version::V5_0;
pub const V3: Version = Version::V3_1_1;

pub fn config(topics: &[&str]) -> BridgeConfig {
    BridgeConfig::new(topics.iter().map(|topic| topic.parse().unwrap())).unwrap()
}

pub fn message<'a>(topic: &'a str, payload: &'a str, qos: u8) -> Publish<'a> {
    Publish { qos: QoS::from_u8(qos).unwrap(), ..Publish::new(topic, payload.as_bytes()) }
}

impl World {
    pub fn new(brokers: usize) -> Self {
        let now = Instant::from_millis(1_000_000);
        let broker = |seed| Broker::new(BrokerConfig::default(), seed as u128, now);
        Self {
            now,
            brokers: (0..brokers).map(broker).collect(),
            clients: Vec::new(),
            bridges: Vec::new(),
            links: Vec::new(),
            events: Vec::new(),
            grants: Grants::all(),
            is_dead_after_cut: false,
        }
    }

    /// Makes two brokers, and a bridge from the first to the second.
    pub fn pair(version: Version, topics: &[&str]) -> Self {
        let mut world = Self::new(2);
        world.bridge(0, 1, version, config(topics));
        world.run();
        world
    }

    pub fn bridge(&mut self, local: usize, remote: usize, version: Version, config: BridgeConfig) {
        let bridge = self.bridges.len();
        self.bridges.push(Bridge::new(config));
        for (side, broker, version) in [(Side::Local, local, V5), (Side::Remote, remote, version)] {
            self.links.push(Link {
                bridge,
                side,
                broker,
                version,
                id: None,
                to_bridge: Vec::new(),
                carried: 0,
                cut_at: None,
                is_dead: false,
            });
        }
    }

    /// Connects a client that receives what `filter` matches.
    pub fn join(&mut self, broker: usize, filter: &str) -> usize {
        self.join_at(broker, filter, QoS::ExactlyOnce)
    }

    pub fn join_at(&mut self, broker: usize, filter: &str, maximum_qos: QoS) -> usize {
        let number = self.clients.len();
        let id = self.brokers[broker].open(self.now);
        let mut client = Client::new(ClientConfig::new().maximum_queued(100_000, 1 << 30));
        let mut out = Vec::new();
        let name = format!("client-{number}");
        let connect = Connect { clean_start: true, ..Connect::new(V5, name.as_str()) };
        client.connect(&connect, self.now, &mut out).unwrap();
        self.clients.push(Tester { broker, id, client, out, received: Vec::new(), shown: show });
        // Bridges stand still meanwhile, so that the client misses nothing of theirs.
        self.rest(false);
        let tester = &mut self.clients[number];
        let options = SubscriptionOptions {
            maximum_qos,
            retain_as_published: true,
            ..SubscriptionOptions::default()
        };
        let subscription = Subscription { topic_filter: filter.into(), options };
        let properties = SubscribeProperties::default();
        tester.client.subscribe(0, &[subscription], properties, self.now, &mut tester.out).unwrap();
        self.rest(false);
        self.run();
        number
    }

    pub fn publish(&mut self, client: usize, publish: &Publish<'_>) {
        let tester = &mut self.clients[client];
        tester.client.publish(1, publish, self.now, &mut tester.out).unwrap();
    }

    /// Publishes, and waits until nothing moves.
    pub fn send(&mut self, client: usize, topic: &str, payload: &str, qos: u8) {
        self.publish(client, &message(topic, payload, qos));
        self.run();
    }

    pub fn received(&mut self, client: usize) -> Vec<String> {
        mem::take(&mut self.clients[client].received)
    }

    pub fn wait(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
        for broker in &mut self.brokers {
            broker.handle_timeout(self.now);
        }
        self.run();
    }

    /// Carries packets until nothing moves. Connections of bridges are opened again.
    pub fn run(&mut self) {
        self.rest(true);
    }

    fn rest(&mut self, with_bridges: bool) {
        for round in 0.. {
            assert!(round < 3_000, "the world does not come to rest");
            let mut moved = false;
            for broker in 0..self.brokers.len() {
                self.obey(broker);
            }
            for client in 0..self.clients.len() {
                moved |= self.serve(client);
            }
            for link in 0..self.links.len() {
                moved |= with_bridges && self.carry(link);
            }
            if !moved {
                break;
            }
        }
    }

    /// Answers the questions of a broker.
    fn obey(&mut self, broker: usize) {
        let broker = &mut self.brokers[broker];
        while broker.poll_timeout().is_some_and(|at| at <= self.now) {
            broker.handle_timeout(self.now);
        }
        while let Some(action) = broker.poll_action() {
            if let Action::Ask(question, Question::Connect(_)) = action {
                let mut grants = Grants::all();
                if self.links.iter().any(|link| link.id == Some(question.connection())) {
                    grants = self.grants.clone();
                }
                let admission = Admission { grants, ..Admission::default() };
                broker.accept(question, admission, self.now).unwrap();
            }
        }
    }

    fn serve(&mut self, client: usize) -> bool {
        let Self { clients, brokers, now, .. } = self;
        let Tester { broker, id, client, out, received, shown } = &mut clients[client];
        let broker = &mut brokers[*broker];
        let mut to_client = Vec::new();
        while broker.transmit(*id, *now, &mut to_client) {}
        let mut input = to_client.as_slice();
        while let Some(action) = client.handle_input(&mut input, *now, out) {
            match action {
                client::Action::Message(message) => received.push(shown(&message.to_publish())),
                client::Action::Closed(cause) => panic!("{cause}"),
                _ => {}
            }
        }
        let from_client = mem::take(out);
        let mut input = from_client.as_slice();
        let _ = broker.handle_input(*id, &mut input, *now);
        assert_eq!(input, b"", "a tester must not be faster than the broker");
        !to_client.is_empty() || !from_client.is_empty()
    }

    fn carry(&mut self, index: usize) -> bool {
        if self.links[index].is_dead {
            return false;
        }
        if self.links[index].id.is_none() {
            self.open(index);
        }
        let Some(id) = self.links[index].id else { return false };
        let Link { bridge, side, broker, .. } = self.links[index];
        let mut from_bridge = Vec::new();
        self.bridges[bridge].transmit(side, &mut from_bridge);
        let mut rest = from_bridge.as_slice();
        while let Some(frame) = codec::frame(rest, u32::MAX).unwrap() {
            let size = frame.as_bytes().len();
            let _ = self.brokers[broker].handle_input(id, &mut &rest[..size], self.now);
            rest = &rest[size..];
            self.obey(broker);
            if self.count(index) {
                return true;
            }
        }
        let mut bytes = mem::take(&mut self.links[index].to_bridge);
        let before = bytes.len();
        while self.brokers[broker].transmit(id, self.now, &mut bytes) {}
        let mut moved = !from_bridge.is_empty() || bytes.len() > before;
        let mut rest = bytes.as_slice();
        while self.bridges[bridge].wants_input(side) {
            let Some(frame) = codec::frame(rest, u32::MAX).unwrap() else { break };
            let size = frame.as_bytes().len();
            let mut input = &rest[..size];
            if self.step(bridge, side, &mut input) {
                self.cut(index);
                return true;
            }
            assert_eq!(input, b"");
            rest = &rest[size..];
            moved = true;
            if self.count(index) {
                return true;
            }
        }
        self.links[index].to_bridge = rest.to_vec();
        moved
    }

    /// Returns whether the connection has ended.
    fn step(&mut self, bridge: usize, side: Side, input: &mut &[u8]) -> bool {
        let mut has_ended = false;
        while let Some(event) = self.bridges[bridge].handle_input(side, input, self.now) {
            has_ended |= matches!(event, Event::Closed(..));
            self.events.push(match event {
                Event::Connected(side, connack) => {
                    format!("{side} connected, {}", connack.session_present)
                }
                Event::Refused { side, topic, reason_code } => {
                    format!("{side} refuses {topic}: {reason_code}")
                }
                Event::Closed(side, cause) => format!("{side} closed: {cause}"),
                other => panic!("{other:?}"),
            });
        }
        has_ended
    }

    fn open(&mut self, index: usize) {
        let Link { bridge, side, broker, version, .. } = self.links[index];
        let name = format!("bridge-{bridge}");
        let connect = Connect::new(version, name.as_str());
        self.bridges[bridge].connect(side, &connect, self.now).unwrap();
        self.links[index].id = Some(self.brokers[broker].open(self.now));
    }

    /// Counts a packet. Returns whether the connection breaks after it.
    fn count(&mut self, index: usize) -> bool {
        let link = &mut self.links[index];
        link.carried += 1;
        let is_cut = link.cut_at == Some(link.carried);
        if is_cut {
            link.is_dead = self.is_dead_after_cut;
            self.cut(index);
        }
        is_cut
    }

    /// Breaks a connection of a bridge.
    pub fn cut(&mut self, index: usize) {
        let Link { bridge, side, broker, .. } = self.links[index];
        let _ = self.bridges[bridge].connection_lost(side, self.now);
        let link = &mut self.links[index];
        link.to_bridge.clear();
        let id = link.id.take().unwrap();
        let _ = self.brokers[broker].connection_lost(id, self.now);
    }

    /// Replaces a broker by a new one, which knows nothing.
    pub fn replace(&mut self, broker: usize) {
        for index in 0..self.links.len() {
            if self.links[index].broker == broker && self.links[index].id.is_some() {
                self.cut(index);
            }
        }
        self.brokers[broker] = Broker::new(BrokerConfig::default(), 99, self.now);
    }
}

/// Shows a message as `topic=payload q1 R`.
pub fn show(publish: &Publish<'_>) -> String {
    let payload = String::from_utf8_lossy(publish.payload);
    let retain = if publish.retain { " R" } else { "" };
    format!("{}={payload} q{}{retain}", publish.topic_name, publish.qos.as_u8())
}
