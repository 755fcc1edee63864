//! The properties that the fuzz target `broker` checks. Arbitrary data becomes a series of events
//! around one broker: bytes of many clients that follow the rules or not, and all calls of a host
//! in any order. `tests/it/corpus.rs` runs it as an ordinary test.

use crate::wire::{VERSIONS, identifier};
use core::num::NonZeroU32;
use core::time::Duration;
use mqtt_sansio::Instant;
use mqtt_sansio::broker::journal::{Batch, Record};
use mqtt_sansio::broker::{
    Access, Admission, Broker, BrokerConfig, ConnectionId, Forward, Grants, NodeId, Overflow,
    Question, Rates, Restore, Route, SharedStrategy,
};
use mqtt_sansio::codec::{
    self, Ack, Auth, AuthProperties, ConnackProperties, Connect, ConnectProperties, Disconnect,
    Filter, Packet, PacketIdentifier, Publish, PublishProperties, QoS, ReasonCode, Role, Rules,
    Subscribe, Subscription, SubscriptionOptions, Unsubscribe, Version, Will, WillProperties,
};
use mqtt_sansio::server::ServerConfig;
use mqtt_sansio::session::Message;
use std::collections::BTreeMap;

/// Counts of events, so that a test can check that they occur.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub events: usize,
    pub accepted: usize,
    pub delivered: usize,
    pub asked: usize,
    pub closed: usize,
    pub dropped: usize,
    pub crashed: usize,
}

const QUEUE: (usize, usize) = (4, 200);
const SESSIONS: usize = 5;
const SUBSCRIPTIONS: (usize, usize) = (6, 60);
const RETAINED: (usize, usize) = (5, 100);
const TOPICS: [&str; 6] = ["a", "a/b", "b", "$SYS/x", "$x", "a/b/c"];
const FILTERS: [&str; 10] =
    ["a", "#", "a/#", "+/b", "$share/g/a/#", "$share/h/#", "$SYS/#", "b", "a/+", "$share/g/+"];
const NAMES: [&str; 4] = ["one", "two", "three", ""];

/// Runs events on a broker.
pub fn run(data: &[u8], tally: &mut Tally) {
    let mut data = data.iter().copied();
    let mut host = Host::new(data.next().unwrap_or(0));
    while let Some(event) = data.next() {
        let mut draw = || data.next().unwrap_or(0);
        host.event(event, &mut draw, tally);
        host.check();
        tally.events += 1;
    }
    host.end(tally);
}

/// The host's end of one connection.
struct Peer {
    id: ConnectionId,
    version: Version,
    input: Vec<u8>,
    /// The identifiers of messages that the client has received, and of PUBREL.
    received: Vec<(u16, QoS)>,
    released: Vec<u16>,
    next: u16,
}

struct Host {
    broker: Broker,
    config: BrokerConfig,
    now: Instant,
    peers: [Option<Peer>; 5],
    /// The records that the broker has handed out, and those that are durable.
    written: Records,
    durable: Records,
    batch: Option<Batch>,
    fetched: usize,
    has_crashed: bool,
    /// The log of the nodes.
    log: Vec<(Message, String)>,
}

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

impl Host {
    fn new(setup: u8) -> Self {
        let server = ServerConfig::new()
            .maximum_queued(QUEUE.0, QUEUE.1)
            .maximum_in_flight(2)
            .receive_maximum(3)
            .answer_timeout(Duration::from_secs(3));
        let overflow = [Overflow::DropNew, Overflow::DropOldestQos0, Overflow::Disconnect];
        let strategy =
            [SharedStrategy::RoundRobin, SharedStrategy::LeastInFlight, SharedStrategy::TopicHash];
        let config = BrokerConfig::new(server)
            .maximum_sessions(SESSIONS)
            .maximum_subscriptions(SUBSCRIPTIONS.0, SUBSCRIPTIONS.1)
            .maximum_group_members(2)
            .maximum_retained(RETAINED.0, RETAINED.1)
            .overflow(overflow[usize::from(setup % 3)])
            .shared_strategy(strategy[usize::from(setup / 3 % 3)])
            .is_node(setup & 16 != 0)
            .durable(setup & 32 != 0)
            .maximum_unsynced(2_000)
            .shared_before_5_0(setup & 64 != 0)
            .sys_interval((setup & 128 != 0).then_some(Duration::from_secs(7)));
        let now = Instant::from_millis(1_000);
        Self {
            broker: Broker::new(config.clone(), setup.into(), now),
            config,
            now,
            peers: Default::default(),
            written: Records::new(),
            durable: Records::new(),
            batch: None,
            fetched: 0,
            has_crashed: false,
            log: Vec::new(),
        }
    }

    fn event(&mut self, event: u8, draw: &mut impl FnMut() -> u8, tally: &mut Tally) {
        let slot = usize::from(event >> 5) % self.peers.len();
        match event & 31 {
            0 => self.open(slot, VERSIONS[usize::from(draw()) % VERSIONS.len()], tally),
            1..=3 => self.connect(slot, draw, tally),
            4..=6 => self.subscribe(slot, draw, tally),
            7 => {
                let filters = [FILTERS[usize::from(draw()) % FILTERS.len()].into()];
                self.request(slot, tally, |number| Unsubscribe::new(number, &filters).into());
            }
            8..=13 => self.publish(slot, draw, tally),
            14..=17 => self.acknowledge(slot, draw, tally),
            18 => self.send(slot, Packet::Pingreq, tally),
            19 => {
                let codes = [ReasonCode::SUCCESS, ReasonCode::new(4), ReasonCode::new(0x80)];
                let reason_code = codes[usize::from(draw()) % codes.len()];
                self.send(slot, Disconnect::new(reason_code).into(), tally);
            }
            20 => {
                let bytes: Vec<u8> = (0..draw() % 16).map(|_| draw()).collect();
                self.feed(slot, &bytes, tally);
            }
            21 | 22 => self.transmit(slot, tally),
            23 => self.lose(slot, tally),
            24 => {
                self.now = self.now.plus_seconds(u32::from(draw() % 16));
                self.settle();
            }
            25 | 26 => self.answer(slot, draw, tally),
            27 => {
                if let Some(peer) = &self.peers[slot] {
                    self.broker.set_grants(peer.id, grants(draw()), self.now);
                }
            }
            28 => {
                let topic = TOPICS[usize::from(draw()) % TOPICS.len()];
                let retain = draw() & 1 != 0;
                let publish = Publish { retain, ..Publish::new(topic, b"host") };
                self.broker.publish(&publish, self.now).unwrap();
            }
            29 => {
                let name = NAMES[usize::from(draw()) % NAMES.len()];
                match draw() % 4 {
                    0 => self.move_session(name, draw),
                    1 => self.act_as_node(draw),
                    _ => {
                        let _ = self.broker.end_session(name, &Disconnect::default(), self.now);
                        assert!(self.broker.client(name).is_none());
                    }
                }
            }
            30 => match draw() % 5 {
                0 => self.fetch_batch(),
                1 => self.sync(),
                2 if draw() & 3 == 0 => self.crash(tally),
                3 => _ = self.broker.close_batch(),
                _ => while self.broker.poll_action().is_some() {},
            },
            _ => {
                if let Some(peer) = &self.peers[slot] {
                    self.broker.disconnect(peer.id, &Disconnect::default(), self.now);
                }
            }
        }
    }

    // ---- clients ----

    fn open(&mut self, slot: usize, version: Version, tally: &mut Tally) {
        self.lose(slot, tally);
        let id = self.broker.open(self.now);
        let (input, received, released) = (Vec::new(), Vec::new(), Vec::new());
        self.peers[slot] = Some(Peer { id, version, input, received, released, next: 0 });
    }

    fn connect(&mut self, slot: usize, draw: &mut impl FnMut() -> u8, tally: &mut Tally) {
        let version = VERSIONS[usize::from(draw()) % VERSIONS.len()];
        self.open(slot, version, tally);
        let (bits, v5) = (draw(), version == Version::V5_0);
        let properties = ConnectProperties {
            session_expiry_interval: [None, Some(5), Some(u32::MAX)][usize::from(bits % 3)]
                .filter(|_| v5),
            receive_maximum: Some(1 + u16::from(bits >> 6)).filter(|_| v5),
            authentication_method: (bits & 4 != 0 && bits & 8 != 0 && v5).then_some("m".into()),
            ..ConnectProperties::default()
        };
        let will = (bits & 16 != 0).then(|| Will {
            qos: QoS::from_u8(bits % 3).unwrap(),
            properties: WillProperties {
                will_delay_interval: (v5 && bits & 8 != 0).then_some(2),
                ..WillProperties::default()
            },
            ..Will::new(TOPICS[usize::from(bits >> 3) % TOPICS.len()], b"will")
        });
        let name = NAMES[usize::from(draw()) % NAMES.len()];
        let clean_start = bits & 32 != 0 || name.is_empty() || version == Version::V3_1;
        let name = if name.is_empty() && version == Version::V3_1 { "old" } else { name };
        let connect = Connect { clean_start, will, properties, ..Connect::new(version, name) };
        self.send(slot, connect.into(), tally);
        if bits & 64 == 0 {
            self.answer(slot, &mut || 0, tally);
        }
    }

    fn subscribe(&mut self, slot: usize, draw: &mut impl FnMut() -> u8, tally: &mut Tally) {
        let subscriptions: Vec<_> = (0..1 + draw() % 3)
            .map(|_| {
                let filter = FILTERS[usize::from(draw()) % FILTERS.len()];
                let maximum_qos = QoS::from_u8(draw() % 3).unwrap();
                let options = SubscriptionOptions { maximum_qos, ..Default::default() };
                Subscription { topic_filter: filter.into(), options }
            })
            .collect();
        self.request(slot, tally, |number| Subscribe::new(number, &subscriptions).into());
    }

    fn request<'p>(
        &mut self,
        slot: usize,
        tally: &mut Tally,
        packet: impl FnOnce(PacketIdentifier) -> Packet<'p>,
    ) {
        let Some(peer) = &mut self.peers[slot] else { return };
        peer.next = peer.next % 100 + 1;
        let packet = packet(identifier(peer.next));
        self.send(slot, packet, tally);
    }

    fn publish(&mut self, slot: usize, draw: &mut impl FnMut() -> u8, tally: &mut Tally) {
        let Some(peer) = &mut self.peers[slot] else { return };
        let bits = draw();
        let qos = QoS::from_u8(bits % 3).unwrap();
        peer.next = peer.next % 100 + 1;
        let topic = TOPICS[usize::from(draw()) % TOPICS.len()];
        let payload = vec![b'x'; usize::from(draw() % 60)];
        let expiry = (bits & 16 != 0 && peer.version == Version::V5_0).then_some(3);
        let publish = Publish {
            qos,
            retain: bits & 4 != 0,
            packet_identifier: (qos > QoS::AtMostOnce).then(|| identifier(peer.next)),
            properties: PublishProperties {
                message_expiry_interval: expiry,
                ..PublishProperties::default()
            },
            ..Publish::new(topic, &payload)
        };
        self.send(slot, publish.into(), tally);
    }

    /// Acknowledges what the client has received, or something else.
    fn acknowledge(&mut self, slot: usize, draw: &mut impl FnMut() -> u8, tally: &mut Tally) {
        let Some(peer) = &mut self.peers[slot] else { return };
        let bits = draw();
        let code = if bits & 64 != 0 && peer.version == Version::V5_0 { 0x80 } else { 0 };
        let ack = |number| Ack::new(identifier(number), ReasonCode::new(code));
        let released = peer.released.pop();
        let packet = match (bits % 5, peer.received.pop(), released) {
            (0, ..) => Packet::Pubrel(Ack::new(identifier(peer.next.max(1)), ReasonCode::SUCCESS)),
            (1, ..) => Packet::Puback(ack(u16::from(bits) + 1)),
            (_, _, Some(number)) => {
                Packet::Pubcomp(Ack::new(identifier(number), ReasonCode::SUCCESS))
            }
            (_, Some((number, QoS::AtLeastOnce)), _) => Packet::Puback(ack(number)),
            (_, Some((number, _)), _) => Packet::Pubrec(ack(number)),
            _ => Packet::Pingreq,
        };
        self.send(slot, packet, tally);
    }

    fn send(&mut self, slot: usize, packet: Packet<'_>, tally: &mut Tally) {
        let Some(peer) = &self.peers[slot] else { return };
        let mut bytes = Vec::new();
        // Some packets cannot be said in some versions.
        if codec::encode(&packet, peer.version, &mut bytes).is_ok() {
            self.feed(slot, &bytes, tally);
        }
    }

    // ---- the host ----

    fn feed(&mut self, slot: usize, bytes: &[u8], tally: &mut Tally) {
        let Some(peer) = &mut self.peers[slot] else { return };
        peer.input.extend(bytes);
        let mut input = &peer.input[..];
        while self.broker.handle_input(peer.id, &mut input, self.now) {}
        let rest = input.len();
        assert!(rest == 0 || !input.starts_with(&[0xC0, 0]) || !self.broker.wants_input(peer.id));
        peer.input.drain(..peer.input.len() - rest);
        tally.asked += usize::from(self.broker.question(peer.id).is_some());
    }

    fn transmit(&mut self, slot: usize, tally: &mut Tally) {
        // Most of the time the store is fast.
        if tally.events & 3 != 0 {
            self.fetch_batch();
            self.sync();
        }
        let Some(peer) = &mut self.peers[slot] else { return };
        let wants_transmit = self.broker.wants_transmit(peer.id);
        let mut out = Vec::new();
        while self.broker.transmit(peer.id, self.now, &mut out) {}
        assert!(wants_transmit || out.is_empty(), "output was not announced");
        assert!(!self.broker.wants_transmit(peer.id), "output is left");
        let rules = Rules::new(peer.version).sent_by(Role::Server);
        let mut rest = &out[..];
        while let Some(frame) = codec::frame(rest, u32::MAX).unwrap() {
            rest = &rest[frame.as_bytes().len()..];
            match codec::decode(frame, rules).unwrap() {
                Packet::Publish(publish) => {
                    tally.delivered += 1;
                    let number = publish.packet_identifier.map(PacketIdentifier::get);
                    peer.received.extend(number.map(|number| (number, publish.qos)));
                }
                Packet::Pubrel(ack) => peer.released.push(ack.packet_identifier.get()),
                _ => {}
            }
        }
        assert!(rest.is_empty(), "packets are whole");
        // The client's input can be read again when the output is gone.
        self.feed(slot, &[], tally);
    }

    fn lose(&mut self, slot: usize, tally: &mut Tally) {
        let Some(peer) = self.peers[slot].take() else { return };
        assert!(self.broker.connection_lost(peer.id, self.now).is_some());
        assert!(self.broker.is_closed(peer.id) && self.broker.closed(peer.id).is_none());
        tally.closed += 1;
    }

    fn answer(&mut self, slot: usize, draw: &mut impl FnMut() -> u8, tally: &mut Tally) {
        let Some(peer) = &self.peers[slot] else { return };
        let Some((id, question)) = self.broker.question(peer.id) else { return };
        let (bits, now) = (draw(), self.now);
        let properties = ConnackProperties {
            authentication_method: match question {
                Question::Connect(packet) => match packet.decode() {
                    Packet::Connect(connect) => {
                        connect.properties.authentication_method.map(|_| "m".into())
                    }
                    _ => None,
                },
                Question::Authenticate(_) => Some("m".into()),
                _ => None,
            },
            ..ConnackProperties::default()
        };
        let before = self.broker.stats().connected;
        let answered = match bits % 5 {
            0 | 1 => {
                let rates =
                    Rates { messages_per_second: NonZeroU32::new(bits.into()), ..Rates::default() };
                let grants = grants(bits >> 2);
                self.broker.accept(id, Admission { properties, grants, rates }, now)
            }
            2 => self.broker.refuse(id, ReasonCode::NOT_AUTHORIZED, properties, now),
            3 => {
                let filter = Filter::new(FILTERS[usize::from(bits) % 4], Version::V5_0).unwrap();
                self.broker.allow(id, (bits & 64 != 0).then_some(&filter), now)
            }
            _ => {
                let properties = AuthProperties {
                    authentication_method: Some("m".into()),
                    ..AuthProperties::default()
                };
                let codes = [ReasonCode::CONTINUE_AUTHENTICATION, ReasonCode::SUCCESS];
                let auth = Auth { reason_code: codes[usize::from(bits >> 7)], properties };
                self.broker.challenge(id, &auth, now)
            }
        };
        tally.accepted += usize::from(self.broker.stats().connected > before);
        let is_open = self.broker.question(id.connection()).is_some_and(|(other, _)| other == id);
        assert_eq!(answered.is_err(), is_open, "an answered question is closed");
        self.feed(slot, &[], tally);
    }

    /// Takes a session out, and puts it back. Its records can be damaged.
    fn move_session(&mut self, name: &str, draw: &mut impl FnMut() -> u8) {
        let (to, mut records) = (Some(NodeId(draw().into())), Records::new());
        let put = |record: Record<'_>| {
            records.insert(record.key.into(), record.value.unwrap().into());
        };
        let had = self.broker.evict(name, to, &Disconnect::default(), self.now, put);
        assert_eq!(had, !records.is_empty());
        assert!(self.broker.client(name).is_none());
        let (which, change) = (usize::from(draw()), draw());
        let damage = change & 7 == 0;
        if had {
            records.extend(self.logged());
        }
        if let Some(value) = records.values_mut().nth(which % 8).filter(|_| damage) {
            value.truncate(usize::from(change >> 3));
        }
        let records = records.iter().map(|(key, value)| Record { key, value: Some(value) });
        let imported = self.broker.import_session(records, self.now);
        assert!(damage || !had || imported.is_ok(), "{imported:?}");
    }

    /// Does what the host of one of several nodes does.
    fn act_as_node(&mut self, draw: &mut impl FnMut() -> u8) {
        let (node, bits) = (NodeId(u32::from(draw() % 3)), draw());
        let filter =
            Filter::new(FILTERS[usize::from(bits) % FILTERS.len()], Version::V5_0).unwrap();
        match bits % 4 {
            0 => self.broker.forward(node, &filter),
            1 => _ = self.broker.stop_forwarding(node, &filter),
            2 => {
                while let Some(interest) = self.broker.poll_interest() {
                    let is_wanted = self.broker.interests().any(|one| *one == interest.filter);
                    assert_eq!(is_wanted, interest.is_wanted);
                }
                self.read_log();
            }
            _ => {
                let topic = TOPICS[usize::from(bits >> 2) % TOPICS.len()];
                let publish = Publish { retain: bits & 16 != 0, ..Publish::new(topic, b"remote") };
                let message = Message::new(&publish).unwrap();
                self.log.push((message, "another".into()));
                self.read_log();
            }
        }
    }

    /// Appends what the broker forwards to the log, and delivers what is new there.
    fn read_log(&mut self) {
        if self.broker.position().is_none() {
            assert_eq!(self.broker.poll_forward(), None);
            return;
        }
        loop {
            while let Some(Forward { message, publisher, route, .. }) = self.broker.poll_forward() {
                if route == Route::Log {
                    self.log.push((message, publisher.to_string()));
                }
            }
            let position = self.broker.position().unwrap();
            let next = usize::try_from(position).ok().and_then(|position| self.log.get(position));
            let Some((message, publisher)) = next else { break };
            self.broker.remote(message, publisher, None, Some(position + 1), self.now);
            // A message is not delivered twice.
            self.broker.remote(message, publisher, None, Some(position + 1), self.now);
        }
    }

    /// Returns the records of the messages in the log.
    fn logged(&self) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
        (1_u64..).zip(&self.log).map(|(position, (message, _))| {
            ([b"m", &position.to_be_bytes()[..]].concat(), message.to_bytes().to_vec())
        })
    }

    // ---- the store ----

    fn fetch_batch(&mut self) {
        // The exchanges of ended sessions are removed in steps.
        self.settle();
        let written = &mut self.written;
        // There can be a closed batch before the one that is collected.
        for _ in 0..2 {
            let batch = self.broker.poll_journal(|record| match record.value {
                Some(value) => _ = written.insert(record.key.into(), value.into()),
                None => assert!(written.remove(record.key).is_some(), "unknown {:x?}", record.key),
            });
            self.batch = batch.or(self.batch);
        }
        self.fetched += 1;
        if self.fetched & 7 != 0 {
            return;
        }
        let mut all = Records::new();
        self.broker
            .snapshot(|record| _ = all.insert(record.key.into(), record.value.unwrap().into()));
        // Records of PUBREL packets have numbers of their own in a snapshot.
        let (written, all) = (without_order(&self.written), without_order(&all));
        assert_eq!(written, all, "the records are not the state");
    }

    fn sync(&mut self) {
        if let Some(batch) = self.batch.take() {
            self.durable = self.written.clone();
            self.broker.durable(batch);
        }
    }

    fn crash(&mut self, tally: &mut Tally) {
        if self.broker.wants_journal() || self.batch.is_some() || !self.durable.is_empty() {
            (0..self.peers.len()).for_each(|slot| self.peers[slot] = None);
            tally.crashed += 1;
            self.has_crashed = true;
            let mut restore = Restore::new(self.config.clone(), 1, self.now);
            for (key, value) in &self.durable {
                restore.record(key, value).unwrap();
            }
            for (key, value) in self.logged().filter(|_| self.broker.position().is_some()) {
                restore.record(&key, &value).unwrap();
            }
            self.broker = restore.finish(|key, error| panic!("{key:x?}: {error}")).unwrap();
            self.written = self.durable.clone();
            self.batch = None;
        }
    }

    /// Lets the broker do all that is due.
    fn settle(&mut self) {
        let mut calls = 0;
        while self.broker.poll_timeout().is_some_and(|due| due <= self.now) {
            self.broker.handle_timeout(self.now);
            calls += 1;
            assert!(calls < 1_000, "the work has an end");
        }
        self.read_log();
    }

    fn check(&self) {
        let stats = self.broker.stats();
        let open = self.peers.iter().flatten().count();
        assert_eq!(stats.connections, open);
        assert_eq!(stats.sessions, self.broker.clients().count());
        assert!(stats.sessions <= SESSIONS && stats.connected <= open, "{stats:?}");
        let connected = self.broker.clients().filter(|client| client.connection.is_some()).count();
        assert_eq!(stats.connected, connected);
        assert!(stats.retained <= RETAINED.0.max(20), "{stats:?}");
        for client in self.broker.clients() {
            // Messages in flight at a crash wait again.
            let more = if self.has_crashed { 2 } else { 0 };
            assert!(client.queued <= QUEUE.0 + more, "{client:?}");
            assert!(client.in_flight <= 2 + QUEUE.0, "{client:?}");
            let bytes = QUEUE.1 + more * QUEUE.1;
            assert!(client.queued_bytes <= bytes || client.queued == 1, "{client:?}");
            assert!(client.subscriptions <= SUBSCRIPTIONS.0, "{client:?}");
        }
    }

    /// Ends all connections and sessions. Nothing of them is left.
    fn end(&mut self, tally: &mut Tally) {
        tally.dropped += usize::try_from(self.broker.stats().dropped.total()).unwrap();
        (0..self.peers.len()).for_each(|slot| self.lose(slot, tally));
        let names: Vec<String> =
            self.broker.clients().map(|client| client.client_identifier.to_owned()).collect();
        for name in names {
            assert!(self.broker.end_session(&name, &Disconnect::default(), self.now));
        }
        self.settle();
        while self.broker.poll_interest().is_some() {}
        assert_eq!(self.broker.interests().count(), 0);
        let stats = self.broker.stats();
        assert_eq!((stats.connections, stats.sessions, stats.subscriptions), (0, 0, 0));
        self.fetch_batch();
        let kinds = self.written.keys().map(|key| key[0]);
        let is_of_sessions = |kind: &u8| b"sfqoi".contains(kind);
        assert_eq!(kinds.filter(is_of_sessions).count(), 0, "{:x?}", self.written);
    }
}

fn without_order(records: &Records) -> Records {
    let mut records = records.clone();
    let pubrels = records.iter_mut().filter(|(key, value)| key[0] == b'o' && value[0] == 2);
    pubrels.for_each(|(_, value)| value.truncate(1));
    records
}

fn grants(choice: u8) -> Grants {
    let filter = |text| Filter::new(text, Version::V5_0).unwrap();
    let all = [Access::Publish, Access::Subscribe, Access::Receive];
    match choice % 4 {
        0 => Grants::all(),
        1 => Grants::all().deny(&all, &filter("a/b")),
        2 => Grants::none().allow(&all, &filter("a/#")),
        _ => Grants::asked().allow(&all, &filter("b")),
    }
}
