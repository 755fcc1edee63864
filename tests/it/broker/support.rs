//! A broker, a clock and any number of clients, in one thread and without sockets.
//!
//! The packets that a client receives are shown in short words: `t=hi q1 R` is a PUBLISH to `t`
//! with QoS 1 and RETAIN, `suback #1 00 80` is a SUBACK for packet 1, `closed` is the end of the
//! connection.

use super::program::{self, CoreOnly, NotPlayed, Program, Socket};
use super::sn::{self, Meaning, Site};
use bytes::BytesMut;
use core::fmt::Write as _;
use core::mem;
use core::panic::AssertUnwindSafe;
use core::time::Duration;
use mqtt_sansio::Instant;
use mqtt_sansio::broker::journal::{Batch, Record, RecordError};
use mqtt_sansio::broker::{
    Action, Admission, Broker, BrokerConfig, Closed, ConnectionId, Forward, Question, QuestionId,
    Restore,
};
use mqtt_sansio::codec::{
    self, Ack, ConnackProperties, Connect, ConnectProperties, Disconnect, OwnedPacket, Packet,
    PacketIdentifier, PacketType, Publish, QoS, ReasonCode, Role, Rules, Subscribe,
    SubscribeProperties, Subscription, SubscriptionIdentifier, SubscriptionOptions, Text,
    Unsubscribe, UnsubscribeProperties, Version,
};
use mqtt_sansio::server::ServerConfig;
use mqtt_sansio::sn::Event;
use std::collections::BTreeMap;
use testkit::wire::{VERSIONS, encoded, identifier};

/// The number of a client, in the order of the connections.
pub type C = usize;

/// Plays a scenario with a broker of this configuration, with packets fed whole, byte by byte, and
/// cut in two at each position, with a durable broker, and with sessions that are exported and
/// imported. Each client must receive the same packets at the same times.
///
/// With a [program](super::program) it is played once, if the program can be given the
/// configuration.
pub fn play_with(config: &BrokerConfig, scenario: impl Fn(&mut Net)) {
    if let Some(command) = program::command() {
        if command == sn::COMMAND {
            return sn::play(config, scenario);
        }
        let is_default = format!("{config:?}") == format!("{:?}", BrokerConfig::default());
        let limits = program::limits(config);
        if let Some(limits) = limits.filter(|_| is_default || command.contains("{limits}")) {
            play_with_program(&command.replace("{limits}", &limits), scenario);
        }
        return;
    }
    let mut whole = Net::new(config.clone(), Feed::Whole);
    scenario(&mut whole);
    let cuts = (1..whole.longest.min(256)).map(Feed::Cut);
    let others = [Feed::Bytes, Feed::Stored, Feed::Moved(false), Feed::Moved(true), Feed::Node];
    for feed in others.into_iter().chain(cuts) {
        let mut net = Net::new(config.clone(), feed);
        scenario(&mut net);
        if !matches!(feed, Feed::Node) {
            net.check_store();
        }
        for (peer, expected) in net.peers.iter().zip(&whole.peers) {
            let shown = |log: &[(u64, String)]| -> Vec<(u64, String)> {
                let is_moved = matches!(feed, Feed::Moved(_));
                let show = |one: &str| match feed {
                    _ if is_moved => without_number(one),
                    // A node does not know the subscribers of the others.
                    Feed::Node if one.starts_with("puback") || one.starts_with("pubrec") => {
                        one.replace(" 10", " 00")
                    }
                    _ => one.into(),
                };
                log.iter().map(|(at, one)| (*at, show(one))).collect()
            };
            assert_eq!(shown(&peer.log), shown(&expected.log), "{feed:?} makes a difference");
        }
        assert_eq!(net.peers.len(), whole.peers.len());
    }
}

/// Plays a scenario with a program, up to where it needs the core.
fn play_with_program(command: &str, scenario: impl Fn(&mut Net)) {
    let mut net = Net::with_program(Program::start(command));
    let played = std::panic::catch_unwind(AssertUnwindSafe(|| scenario(&mut net)));
    match played {
        Ok(()) => println!("played with the program"),
        Err(payload) if payload.is::<NotPlayed>() => {}
        Err(payload) => std::panic::resume_unwind(payload),
    }
}

/// Leaves out the packet identifier of a broker's packet: a session that has moved
/// has others.
fn without_number(shown: &str) -> String {
    match shown.split_once(' ') {
        Some((number, rest)) if number.starts_with('#') => rest.into(),
        _ => shown.into(),
    }
}

/// Plays a scenario with the default limits and this server configuration.
pub fn play_on(server: ServerConfig, scenario: impl Fn(&mut Net)) {
    play_with(&BrokerConfig::new(server), scenario);
}

/// Plays a scenario with the default configuration.
pub fn play(scenario: impl Fn(&mut Net)) {
    play_on(ServerConfig::new(), scenario);
}

/// Plays a scenario for each version of a client.
pub fn each(scenario: impl Fn(&mut Net, Version)) {
    VERSIONS.into_iter().for_each(|version| play(|net| scenario(net, version)));
}

/// How the packets of the clients are cut on their way to the broker.
#[derive(Clone, Copy, Debug)]
pub enum Feed {
    Whole,
    Bytes,
    Cut(usize),
    /// Whole, and the state of the broker is stored.
    Stored,
    /// Whole. The session of a client that connects has been moved. It may be stored.
    Moved(bool),
    /// Whole. The broker is one of several nodes, and reads its log.
    Node,
}

pub fn qos(number: u8) -> QoS {
    QoS::from_u8(number).unwrap()
}

/// Returns options that state a QoS alone.
pub fn at(number: u8) -> SubscriptionOptions {
    SubscriptionOptions { maximum_qos: qos(number), ..SubscriptionOptions::default() }
}

/// Returns a CONNECT for a session that starts and ends with the connection.
pub fn clean(version: Version, name: &str) -> Connect<'_> {
    Connect { clean_start: true, ..Connect::new(version, name) }
}

/// Returns a CONNECT for a session that is resumed, and does not end.
pub fn kept(version: Version, name: &str) -> Connect<'_> {
    let forever = if version == Version::V5_0 { Some(u32::MAX) } else { None };
    Connect {
        properties: ConnectProperties { session_expiry_interval: forever, ..Default::default() },
        ..Connect::new(version, name)
    }
}

/// Returns a 5.0 CONNECT for a session that is resumed, and ends that many seconds after the
/// connection.
pub fn expiring(name: &str, seconds: u32) -> Connect<'_> {
    let properties =
        ConnectProperties { session_expiry_interval: Some(seconds), ..Default::default() };
    Connect { properties, ..Connect::new(Version::V5_0, name) }
}

/// Returns a PUBLISH to `topic` without a packet identifier.
pub fn message<'a>(topic: &'a str, payload: &'a str, number: u8) -> Publish<'a> {
    Publish { qos: qos(number), ..Publish::new(topic, payload.as_bytes()) }
}

struct Peer {
    id: ConnectionId,
    /// The connection to the program.
    socket: Option<Socket>,
    /// Whether the client is a device in front of the gateway of MQTT-SN.
    is_device: bool,
    /// The start of a packet that was not sent to the end.
    unfinished: Vec<u8>,
    has_sent: bool,
    /// The unanswered PINGREQ packets of the scenario, and of the network.
    pings: [usize; 2],
    version: Version,
    is_open: bool,
    is_stalled: bool,
    input: Vec<u8>,
    output: BytesMut,
    inbox: Vec<OwnedPacket>,
    /// The end of the connection was seen, and not taken by the test.
    ended: bool,
    next_identifier: u16,
    log: Vec<(u64, String)>,
}

pub struct Net {
    pub broker: CoreOnly<Broker>,
    program: Option<Program>,
    site: Option<Site>,
    pub now: u64,
    /// The answer to CONNECT. `None` leaves it for later, in `asked`.
    pub policy: CoreOnly<fn(&Connect<'_>) -> Option<ReasonCode>>,
    pub asked: CoreOnly<Vec<(QuestionId, Question)>>,
    /// The terms on which clients are accepted.
    pub admission: CoreOnly<Admission<'static>>,
    /// How connections have ended, in order.
    pub closed: CoreOnly<Vec<Closed>>,
    /// The durable state of the broker.
    pub store: Store,
    /// The messages for the nodes, unless the log brings them back.
    pub forwards: Vec<Forward>,
    /// Whether sessions can be moved. Retained messages that they await do not move with them.
    pub can_move: bool,
    peers: Vec<Peer>,
    feed: Feed,
    longest: usize,
}

impl Drop for Net {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let received: Vec<_> = self.peers.iter().map(|peer| &peer.log).collect();
            eprintln!("fed {:?}, at {} ms; received: {received:#?}", self.feed, self.now);
        }
    }
}

impl Net {
    pub fn new(config: BrokerConfig, feed: Feed) -> Self {
        Self::create(config, feed, None)
    }

    fn with_program(program: Program) -> Self {
        Self::create(BrokerConfig::default(), Feed::Whole, Some(program))
    }

    /// Makes each client of 3.1.1 a device in front of a gateway of MQTT-SN.
    pub fn through_gateway(config: BrokerConfig) -> Self {
        let mut net = Self::new(config, Feed::Whole);
        net.site = Some(Site::new());
        net
    }

    pub fn has_devices(&self) -> bool {
        self.peers.iter().any(|peer| peer.is_device)
    }

    fn create(config: BrokerConfig, feed: Feed, program: Option<Program>) -> Self {
        let is_program = program.is_some();
        let config = config.durable(matches!(feed, Feed::Stored | Feed::Moved(true)));
        let config = if matches!(feed, Feed::Node) { config.is_node(true) } else { config };
        let broker = Broker::new(config, 0x5EED, Instant::from_millis(1_000_000));
        let policy: fn(&Connect<'_>) -> _ = |_| Some(ReasonCode::SUCCESS);
        Self {
            broker: CoreOnly::new(broker, is_program),
            program,
            site: None,
            now: 1_000_000,
            policy: CoreOnly::new(policy, is_program),
            asked: CoreOnly::new(Vec::new(), is_program),
            admission: CoreOnly::new(Admission::default(), is_program),
            closed: CoreOnly::new(Vec::new(), is_program),
            store: Store::default(),
            forwards: Vec::new(),
            can_move: true,
            peers: Vec::new(),
            feed,
            longest: 0,
        }
    }

    pub fn instant(&self) -> Instant {
        Instant::from_millis(self.now)
    }

    // ---- connections ----

    pub fn open(&mut self, version: Version) -> C {
        let socket = self.program.as_ref().map(|program| Socket::new(program.connect()));
        let is_device = self.site.is_some() && version == Version::V3_1_1;
        let now = self.instant();
        let id = if socket.is_some() || is_device {
            // A name that is not used.
            Broker::new(BrokerConfig::default(), 0, now).open(now)
        } else {
            self.broker.open(now)
        };
        self.peers.push(Peer {
            id,
            socket,
            is_device,
            unfinished: Vec::new(),
            has_sent: false,
            pings: [0; 2],
            version,
            is_open: true,
            is_stalled: false,
            input: Vec::new(),
            output: BytesMut::new(),
            inbox: Vec::new(),
            ended: false,
            next_identifier: 1,
            log: Vec::new(),
        });
        self.peers.len() - 1
    }

    pub fn connect(&mut self, connect: Connect<'_>) -> C {
        if self.can_move && matches!(self.feed, Feed::Moved(_)) {
            self.move_session(connect.client_identifier.to_str());
        }
        let c = self.open(connect.version);
        self.send(c, connect.into());
        c
    }

    /// Evicts the session of a client that is away, and imports it.
    fn move_session(&mut self, name: &str) {
        if self.broker.client(name).is_none_or(|client| client.connection.is_some()) {
            return;
        }
        let (now, mut moved) = (Instant::from_millis(self.now), Store::default());
        let put = |record: Record<'_>| moved.put(record);
        assert!(self.broker.evict(name, None, &Disconnect::default(), now, put));
        assert_eq!(self.broker.client(name), None);
        self.broker.import_session(moved.records(), now).unwrap();
    }

    /// Connects, and expects no session.
    pub fn join(&mut self, connect: Connect<'_>) -> C {
        let c = self.connect(connect);
        assert_eq!(self.next(c).as_deref(), Some("connack 00"));
        c
    }

    /// Connects, and expects a session.
    pub fn resume(&mut self, connect: Connect<'_>) -> C {
        let c = self.connect(connect);
        let expected =
            if connect.version == Version::V3_1 { "connack 00" } else { "connack 00 present" };
        assert_eq!(self.next(c).as_deref(), Some(expected));
        c
    }

    pub fn leave(&mut self, c: C) {
        self.send(c, Disconnect::default().into());
    }

    /// Lets the transport fail.
    pub fn cut(&mut self, c: C) {
        if self.peers[c].socket.take().is_some() {
            self.peers[c].is_open = false;
            // Nothing shows when the program has noticed the end.
            std::thread::sleep(program::QUIET);
            self.meet_all();
        } else if self.peers[c].is_device {
            // The network of the gateway fails: no device can end a connection without
            // sending a packet.
            self.peers[c].is_open = false;
            self.cut_link(c);
        } else if mem::take(&mut self.peers[c].is_open) {
            self.closed.extend(
                self.broker.connection_lost(self.peers[c].id, Instant::from_millis(self.now)),
            );
            self.drain();
        }
    }

    pub fn disconnect(&mut self, c: C, reason_code: ReasonCode) {
        let (id, now) = (self.id(c), self.instant());
        self.broker.disconnect(id, &Disconnect::new(reason_code), now);
        self.drain();
    }

    pub fn is_open(&self, c: C) -> bool {
        self.peers[c].is_open
    }

    /// Accepts a client that was left waiting.
    pub fn accept(&mut self, question: QuestionId) {
        self.broker
            .accept(question, self.admission.clone(), Instant::from_millis(self.now))
            .unwrap();
        self.drain();
    }

    /// Allows what a client asked for.
    pub fn allow(&mut self, question: QuestionId) {
        self.broker.allow(question, None, Instant::from_millis(self.now)).unwrap();
        self.drain();
    }

    /// Refuses what a client asked for.
    pub fn refuse(&mut self, question: QuestionId, reason_code: ReasonCode) {
        let properties = ConnackProperties::default();
        self.broker
            .refuse(question, reason_code, properties, Instant::from_millis(self.now))
            .unwrap();
        self.drain();
    }

    pub fn id(&self, c: C) -> ConnectionId {
        if self.program.is_some() {
            program::not_played();
        }
        match &self.site {
            Some(site) if self.peers[c].is_device => site.link(c).expect("a connection").1,
            _ => self.peers[c].id,
        }
    }

    /// Sets whether the client reads nothing.
    pub fn stall(&mut self, c: C, is_stalled: bool) {
        if self.program.is_some() {
            // The system's buffers would take what the client leaves.
            program::not_played();
        }
        assert!(!self.peers[c].is_device, "a device cannot stop reading");
        self.peers[c].is_stalled = is_stalled;
        if !is_stalled {
            self.transmit(c);
            self.drain();
        }
    }

    /// Reports to the broker that the host was not reading from the client.
    pub fn progress(&mut self, c: C) {
        let (id, now) = (self.id(c), self.instant());
        self.broker.handle_progress(id, now);
    }

    // ---- time ----

    /// Lets time pass. The broker is woken at its deadlines.
    pub fn advance(&mut self, milliseconds: u64) {
        let end = self.now + milliseconds;
        let mut stuck = 0;
        while let Some(due) = self.poll_timeout().filter(|due| due.as_millis() <= end) {
            stuck = if due.as_millis() > self.now { 0 } else { stuck + 1 };
            assert!(stuck < 100, "the broker must not be woken at one deadline again and again");
            self.now = self.now.max(due.as_millis());
            self.handle_timeout();
            self.drain();
        }
        self.now = end;
    }

    fn handle_timeout(&mut self) {
        let now = self.instant();
        self.broker.handle_timeout(now);
        if let Some(site) = &mut self.site {
            site.gateway.handle_timeout(now);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let gateway = self.site.as_ref().and_then(|site| site.gateway.poll_timeout());
        [self.broker.poll_timeout(), gateway].into_iter().flatten().min()
    }

    // ---- to the broker ----

    pub fn send(&mut self, c: C, packet: Packet<'_>) {
        self.raw(c, &encoded(packet, self.peers[c].version));
    }

    pub fn raw(&mut self, c: C, bytes: &[u8]) {
        self.longest = self.longest.max(bytes.len());
        let size = match self.feed {
            Feed::Whole | Feed::Stored | Feed::Moved(_) | Feed::Node => bytes.len(),
            Feed::Bytes => 1,
            Feed::Cut(position) => position.min(bytes.len()),
        };
        let (first, rest) = bytes.split_at(size);
        self.feed(c, first);
        if matches!(self.feed, Feed::Bytes) {
            rest.iter().for_each(|byte| self.feed(c, &[*byte]));
        } else if !rest.is_empty() {
            self.feed(c, rest);
        }
    }

    fn feed(&mut self, c: C, bytes: &[u8]) {
        let now = self.instant();
        let peer = &mut self.peers[c];
        if let Some(socket) = &mut peer.socket {
            socket.write(bytes);
            peer.note_sent(bytes);
            self.meet(c);
            self.meet_all();
        } else if peer.is_device {
            self.feed_device(c, bytes);
        } else if peer.is_open {
            peer.input.extend_from_slice(bytes);
            let mut input = &peer.input[..];
            while self.broker.handle_input(peer.id, &mut input, now) {}
            let rest = input.len();
            peer.input.drain(..peer.input.len() - rest);
            self.drain();
        }
    }

    /// Lets a device say what the packets of the scenario say.
    fn feed_device(&mut self, c: C, bytes: &[u8]) {
        let rules = Rules::new(self.peers[c].version).sent_by(Role::Client);
        let mut input = BytesMut::from(bytes);
        while self.peers[c].is_open {
            let packet = OwnedPacket::split_from(&mut input, u32::MAX, rules);
            let packet = packet.expect("MQTT-SN says what is a packet");
            let Some(packet) = packet else { break };
            let (now, mut is_done) = (self.instant(), false);
            while !is_done {
                let site = self.site.as_mut().expect("a device has a gateway");
                is_done = site.send(c, &packet.decode(), now);
                self.drain();
            }
        }
        assert!(input.is_empty(), "MQTT-SN has no incomplete packets");
    }

    fn cut_link(&mut self, c: C) {
        let now = self.instant();
        let Some(site) = &mut self.site else { return };
        if let Some((link, id)) = site.link(c) {
            site.links.remove(&link);
            self.closed.extend(self.broker.connection_lost(id, now));
            site.gateway.closed(link, now);
            self.drain();
        }
    }

    /// Carries bytes between the gateway and the broker, and datagrams. Returns whether there were
    /// any.
    fn carry(&mut self) -> bool {
        let now = self.instant();
        let Some(site) = &mut self.site else { return false };
        let mut has_moved = false;
        while let Some(event) = site.gateway.poll_event() {
            has_moved = true;
            match event {
                Event::Open(link) => site.open(link, self.broker.open(now)),
                Event::Close(link) => {
                    if let Some(mut pipe) = site.links.remove(&link) {
                        site.gateway.transmit(link, &mut pipe.to_broker);
                        let mut input = &pipe.to_broker[..];
                        while self.broker.handle_input(pipe.id, &mut input, now) {}
                        self.closed.extend(self.broker.connection_lost(pipe.id, now));
                    }
                    site.gateway.closed(link, now);
                }
                _ => {}
            }
        }
        for (link, pipe) in &mut site.links {
            has_moved |= site.gateway.wants_transmit(*link);
            site.gateway.transmit(*link, &mut pipe.to_broker);
            let mut input = &pipe.to_broker[..];
            while self.broker.handle_input(pipe.id, &mut input, now) {}
            let rest = input.len();
            pipe.to_broker.drain(..pipe.to_broker.len() - rest);
            let before = pipe.to_gateway.len();
            while self.broker.transmit(pipe.id, now, &mut pipe.to_gateway) {}
            has_moved |= pipe.to_gateway.len() > before;
            if let ([0x20, 2, present, _, ..], Some(device)) =
                (&pipe.to_gateway[..], site.devices.get_mut(&pipe.c))
            {
                device.session_present = *present == 1;
            }
            let mut input = &pipe.to_gateway[..];
            site.gateway.handle_input(*link, &mut input, now);
            let rest = input.len();
            pipe.to_gateway.drain(..pipe.to_gateway.len() - rest);
        }
        for (c, meaning) in site.receive(now) {
            has_moved = true;
            let peer = &mut self.peers[c];
            match meaning {
                _ if !peer.is_open => {}
                Meaning::Packet(bytes) => peer.output.extend_from_slice(&bytes),
                Meaning::End(bytes) => {
                    peer.output.extend_from_slice(&bytes);
                    (peer.is_open, peer.ended) = (false, true);
                }
            }
        }
        has_moved
    }

    /// Reads what a program has sent to a client because of all that it has read so far from it.
    fn meet(&mut self, c: C) {
        let peer = &mut self.peers[c];
        let Some(socket) = &mut peer.socket else { return };
        // A reset must not lose the bytes that came before the end of the connection.
        socket.read(Duration::ZERO, &mut peer.output);
        let is_accepted = peer.log.iter().any(|(_, shown)| shown.starts_with("connack 00"));
        if is_accepted && peer.unfinished.is_empty() {
            // The answer comes after everything that the program has sent before.
            socket.write(&[0xC0, 0]);
            peer.pings[1] += 1;
        }
        let mut socket = peer.socket.take().expect("it was there");
        let mut output = mem::take(&mut peer.output);
        let is_asked = peer.log.is_empty() && peer.has_sent && peer.unfinished.is_empty();
        if peer.pings[1] > 0 || is_asked {
            socket.read_until(&mut output, |output| {
                mem::swap(&mut peer.output, output);
                peer.read(0);
                mem::swap(&mut peer.output, output);
                peer.pings[1] == 0 && !peer.log.is_empty()
            });
        } else if peer.has_sent {
            socket.read_rest(&mut output);
        }
        peer.output = output;
        if socket.is_closed {
            peer.is_open = false;
            peer.ended = true;
        } else {
            peer.socket = Some(socket);
        }
        peer.read(0);
    }

    /// Reads what a program has sent to all clients.
    fn meet_all(&mut self) {
        // Mosquitto writes messages after the answers to all packets of the same turn of its loop.
        (0..2 * self.peers.len()).for_each(|turn| self.meet(turn % self.peers.len()));
    }

    /// Sends a message and completes its exchange. Returns the reason code of the first answer.
    pub fn put(&mut self, c: C, publish: Publish<'_>) -> u8 {
        if publish.qos == QoS::AtMostOnce {
            self.send(c, publish.into());
            return 0;
        }
        let number = self.next_identifier(c);
        self.send(c, Publish { packet_identifier: Some(identifier(number)), ..publish }.into());
        let code = self.answer(c, |packet| match packet {
            Packet::Puback(ack) | Packet::Pubrec(ack) if ack.packet_identifier.get() == number => {
                Some(ack.reason_code.get())
            }
            _ => None,
        });
        if publish.qos == QoS::ExactlyOnce && code < 0x80 {
            self.ack(c, Packet::Pubrel, number, 0);
            self.answer(c, |packet| {
                matches!(packet, Packet::Pubcomp(ack) if ack.packet_identifier.get() == number)
                    .then_some(())
            });
        }
        code
    }

    pub fn publish(&mut self, c: C, topic: &str, payload: &str, qos: u8) {
        assert!(self.put(c, message(topic, payload, qos)) < 0x80);
    }

    pub fn retain(&mut self, c: C, topic: &str, payload: &str, qos: u8) {
        assert!(self.put(c, Publish { retain: true, ..message(topic, payload, qos) }) < 0x80);
    }

    pub fn ack(
        &mut self,
        c: C,
        packet: fn(Ack<'static>) -> Packet<'static>,
        number: u16,
        code: u8,
    ) {
        self.send(c, packet(Ack::new(identifier(number), ReasonCode::new(code))));
    }

    /// Subscribes, and returns the codes of the answer.
    pub fn subscribe_all(
        &mut self,
        c: C,
        number: Option<u32>,
        filters: &[(&str, SubscriptionOptions)],
    ) -> Vec<u8> {
        let packet_identifier = self.ask_for(c, number, filters);
        self.suback(c, packet_identifier)
    }

    /// Takes the codes of the answer to a SUBSCRIBE.
    pub fn suback(&mut self, c: C, packet_identifier: PacketIdentifier) -> Vec<u8> {
        self.answer(c, |packet| match packet {
            Packet::Suback(suback) if suback.packet_identifier == packet_identifier => {
                Some(suback.reason_codes.iter().map(ReasonCode::get).collect())
            }
            _ => None,
        })
    }

    /// Sends a SUBSCRIBE, and returns its packet identifier.
    pub fn ask_for(
        &mut self,
        c: C,
        number: Option<u32>,
        filters: &[(&str, SubscriptionOptions)],
    ) -> PacketIdentifier {
        let packet_identifier = identifier(self.next_identifier(c));
        let subscription_identifier =
            number.map(|number| SubscriptionIdentifier::new(number).unwrap());
        let subscriptions: Vec<_> = filters
            .iter()
            .map(|(filter, options)| Subscription {
                topic_filter: (*filter).into(),
                options: *options,
            })
            .collect();
        let properties = SubscribeProperties { subscription_identifier, ..Default::default() };
        self.send(
            c,
            Subscribe { packet_identifier, properties, subscriptions: subscriptions[..].into() }
                .into(),
        );
        packet_identifier
    }

    pub fn subscribe_with(&mut self, c: C, filter: &str, options: SubscriptionOptions) {
        assert_eq!(
            self.subscribe_all(c, None, &[(filter, options)]),
            [options.maximum_qos.as_u8()]
        );
    }

    pub fn subscribe(&mut self, c: C, filter: &str, qos: u8) {
        self.subscribe_with(c, filter, at(qos));
    }

    /// Unsubscribes, and returns the codes of the answer.
    pub fn unsubscribe(&mut self, c: C, filters: &[&str]) -> Vec<u8> {
        let packet_identifier = identifier(self.next_identifier(c));
        let filters: Vec<Text<'_>> = filters.iter().map(|filter| (*filter).into()).collect();
        let properties = UnsubscribeProperties::default();
        self.send(
            c,
            Unsubscribe { packet_identifier, properties, topic_filters: filters[..].into() }.into(),
        );
        self.answer(c, |packet| match packet {
            Packet::Unsuback(unsuback) if unsuback.packet_identifier == packet_identifier => {
                Some(unsuback.reason_codes.iter().map(ReasonCode::get).collect())
            }
            _ => None,
        })
    }

    fn next_identifier(&mut self, c: C) -> u16 {
        let number = self.peers[c].next_identifier;
        self.peers[c].next_identifier += 1;
        number
    }

    // ---- from the broker ----

    /// Takes the one received packet for which `find` returns a value.
    fn answer<T>(&mut self, c: C, find: impl Fn(&Packet<'_>) -> Option<T>) -> T {
        let inbox = &mut self.peers[c].inbox;
        let found = inbox
            .iter()
            .enumerate()
            .find_map(|(i, packet)| find(&packet.decode()).map(|found| (i, found)));
        let (i, found) = found.expect("the broker has answered");
        inbox.remove(i);
        found
    }

    /// Takes the first received packet.
    pub fn next_packet(&mut self, c: C) -> Option<OwnedPacket> {
        let inbox = &mut self.peers[c].inbox;
        if inbox.is_empty() { None } else { Some(inbox.remove(0)) }
    }

    pub fn next(&mut self, c: C) -> Option<String> {
        self.next_packet(c).map(|packet| show(&packet.decode(), false))
    }

    /// Takes all received packets, shown without the packet identifiers that the broker chose.
    pub fn take(&mut self, c: C) -> Vec<String> {
        self.take_shown(c, false)
    }

    /// Takes all received packets, shown with the packet identifiers that the broker chose.
    pub fn take_numbered(&mut self, c: C) -> Vec<String> {
        self.take_shown(c, true)
    }

    fn take_shown(&mut self, c: C, is_numbered: bool) -> Vec<String> {
        let packets = mem::take(&mut self.peers[c].inbox);
        let end = mem::take(&mut self.peers[c].ended).then(|| "closed".to_owned());
        packets.iter().map(|packet| show(&packet.decode(), is_numbered)).chain(end).collect()
    }

    /// Takes and acknowledges all messages that the client has received or then receives.
    pub fn messages(&mut self, c: C) -> Vec<String> {
        let mut messages = Vec::new();
        while let Some(packet) = self.next_packet(c) {
            let shown = show(&packet.decode(), false);
            let number = number_of(&packet.decode());
            match packet.decode() {
                Packet::Publish(publish) => {
                    messages.push(shown);
                    match publish.qos {
                        QoS::AtMostOnce => {}
                        QoS::AtLeastOnce => self.ack(c, Packet::Puback, number, 0),
                        QoS::ExactlyOnce => self.ack(c, Packet::Pubrec, number, 0),
                    }
                }
                Packet::Pubrel(_) => self.ack(c, Packet::Pubcomp, number, 0),
                _ => panic!("expected a message, found {shown}"),
            }
        }
        messages
    }

    /// Returns the packet identifiers of the received messages that were not taken.
    pub fn numbers(&self, c: C) -> Vec<u16> {
        let packets = self.peers[c].inbox.iter().map(OwnedPacket::decode);
        packets
            .filter(|packet| matches!(packet, Packet::Publish(_)))
            .map(|packet| number_of(&packet))
            .collect()
    }

    /// Returns all packets that the client has ever received, with their times.
    pub fn log(&self, c: C) -> &[(u64, String)] {
        &self.peers[c].log
    }

    // ---- the durable state ----

    /// Checks that the store has the state of the broker, and that a broker made of it has it too.
    fn check_store(&mut self) {
        self.drain();
        let mut shot = Store::default();
        self.broker.snapshot(|record| shot.put(record));
        assert_eq!(self.store.shown(), shot.shown(), "the store is not the state of the broker");
        let config = BrokerConfig::default();
        let (mut restored, damaged) = self.store.restore(config, self.instant());
        assert_eq!(damaged, [], "records are damaged");
        let _ = shot.commit(&mut restored);
        let mut again = Store::default();
        restored.snapshot(|record| again.put(record));
        assert_eq!(again.shown(), shot.shown(), "the restored broker is another one");
    }

    // ---- the host's loop ----

    /// Whether a connection is, or was, one of the gateway.
    fn is_of_gateway(&self, id: ConnectionId) -> bool {
        let is_other = self.peers.iter().any(|peer| peer.id == id && !peer.is_device);
        self.site.is_some() && !is_other
    }

    fn peer(&self, id: ConnectionId) -> C {
        let is_it = |peer: &Peer| peer.id == id && !peer.is_device;
        self.peers.iter().position(is_it).expect("the connection is one of ours")
    }

    fn transmit(&mut self, c: C) {
        for _ in 0..100_000 {
            let mut out = Vec::new();
            let more =
                self.broker.transmit(self.peers[c].id, Instant::from_millis(self.now), &mut out);
            self.peers[c].output.extend_from_slice(&out);
            if !more {
                return;
            }
        }
        panic!("there must be an end of output");
    }

    /// Calls `transmit` once. Returns its result and the number of actions that it has caused.
    pub fn transmit_once(&mut self, c: C) -> (bool, usize) {
        self.drain();
        let mut out = Vec::new();
        assert!(!self.peers[c].is_device, "a device has no output");
        let more = self.broker.transmit(self.peers[c].id, Instant::from_millis(self.now), &mut out);
        self.peers[c].output.extend_from_slice(&out);
        let caused = core::iter::from_fn(|| self.broker.poll_action()).count();
        self.drain();
        (more, caused)
    }

    pub fn drain(&mut self) {
        loop {
            while let Some(action) = self.broker.poll_action() {
                self.obey(action);
            }
            if self.broker.wants_journal() {
                let batch = self.store.commit(&mut self.broker);
                let forwards = core::iter::from_fn(|| self.broker.poll_forward());
                let forwards: Vec<_> = forwards.collect();
                batch.into_iter().for_each(|batch| self.broker.durable(batch));
                if matches!(self.feed, Feed::Node) {
                    self.read_log(forwards);
                } else {
                    self.forwards.extend(forwards);
                }
                continue;
            }
            if self.carry() {
                continue;
            }
            // Work can be put off to a time that has come already.
            if self.poll_timeout().is_none_or(|due| due > self.instant()) {
                break;
            }
            self.handle_timeout();
        }
        self.peers.iter_mut().for_each(|peer| peer.read(self.now));
    }

    /// Delivers the messages that the broker has passed to the log.
    fn read_log(&mut self, forwards: Vec<Forward>) {
        // The acknowledgements come first, as from a log that is far away.
        while let Some(action) = self.broker.poll_action() {
            self.obey(action);
        }
        let now = self.instant();
        for Forward { message, expires_at, publisher, .. } in forwards {
            let position = self.broker.position().map(|last| last + 1);
            self.broker.remote(&message, &publisher, expires_at, position, now);
        }
    }

    fn obey(&mut self, action: Action) {
        match action {
            Action::Ask(question, content) => {
                let Question::Connect(packet) = &content else {
                    return self.asked.push((question, content));
                };
                let Packet::Connect(connect) = packet.decode() else { panic!("{packet:?}") };
                let now = self.instant();
                let answered = match (self.policy)(&connect) {
                    Some(ReasonCode::SUCCESS) => {
                        self.broker.accept(question, self.admission.clone(), now)
                    }
                    Some(code) => {
                        self.broker.refuse(question, code, ConnackProperties::default(), now)
                    }
                    None => return self.asked.push((question, content)),
                };
                answered.unwrap();
            }
            // `carry` asks each of its connections for output.
            Action::Ready(id) if self.is_of_gateway(id) => {}
            Action::Closed(id, closed) if self.is_of_gateway(id) => {
                let now = self.instant();
                let site = self.site.as_mut().expect("the connection is the gateway's");
                let link = site.links.iter().find(|(_, pipe)| pipe.id == id).map(|(link, _)| *link);
                if let Some((link, mut pipe)) = link.and_then(|link| site.links.remove_entry(&link))
                {
                    while self.broker.transmit(id, now, &mut pipe.to_gateway) {}
                    site.gateway.handle_input(link, &mut &pipe.to_gateway[..], now);
                    let _ = self.broker.connection_lost(id, now);
                    site.gateway.closed(link, now);
                }
                self.closed.push(closed);
            }
            Action::Ready(id) => {
                let c = self.peer(id);
                if self.peers[c].is_open && !self.peers[c].is_stalled {
                    self.transmit(c);
                }
                if !self.peers[c].input.is_empty() && self.broker.wants_input(id) {
                    self.feed(c, &[]);
                }
            }
            Action::Closed(id, closed) => {
                let c = self.peer(id);
                // The hint can be older than the call of `connection_lost`.
                if self.peers[c].is_open {
                    self.transmit(c);
                    self.peers[c].is_open = false;
                    self.peers[c].ended = true;
                    assert_eq!(self.broker.closed(id), Some(&closed));
                    assert_eq!(
                        self.broker.connection_lost(id, Instant::from_millis(self.now)).as_ref(),
                        Some(&closed)
                    );
                    self.closed.push(closed);
                }
            }
            _ => panic!("{action:?}"),
        }
    }
}

/// The durable state of a broker, as a host stores it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Store(pub BTreeMap<Vec<u8>, Vec<u8>>);

impl Store {
    pub fn put(&mut self, record: Record<'_>) {
        match record.value {
            Some(value) => _ = self.0.insert(record.key.into(), value.into()),
            None => assert!(self.0.remove(record.key).is_some(), "{:x?} is unknown", record.key),
        }
    }

    /// Returns all records.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.0.iter().map(|(key, value)| Record { key, value: Some(value) })
    }

    /// Stores what the broker hands out.
    pub fn commit(&mut self, broker: &mut Broker) -> Option<Batch> {
        broker.poll_journal(|record| self.put(record))
    }

    /// Makes a broker of the records. Returns those that are damaged as well.
    pub fn restore(
        &self,
        config: BrokerConfig,
        now: Instant,
    ) -> (Broker, Vec<(Vec<u8>, RecordError)>) {
        let mut restore = Restore::new(config, 0x5EED, now);
        let mut damaged = Vec::new();
        for (key, value) in &self.0 {
            let taken = restore.record(key, value);
            damaged.extend(taken.err().map(|error| (key.clone(), error)));
        }
        let broker = restore.finish(|key, error| damaged.push((key.into(), error))).unwrap();
        (broker, damaged)
    }

    /// Returns the records in a readable form, with PUBREL packets numbered in their order.
    pub fn shown(&self) -> Vec<String> {
        let mut order = BTreeMap::new();
        for (key, value) in self.0.iter().filter(|(key, value)| key[0] == b'o' && value[0] == 2) {
            order.insert((&key[..9], value), 0_usize);
        }
        order.values_mut().enumerate().for_each(|(number, order)| *order = number);
        let shown = self.0.iter().map(|(key, value)| {
            match order.get(&(key.get(..9).unwrap_or(&[]), value)) {
                Some(number) => format!("{key:x?} PUBREL {number}"),
                None => format!("{}{:x?} {value:x?}", char::from(key[0]), &key[1..]),
            }
        });
        shown.collect()
    }
}

impl Peer {
    /// Notes what a scenario has sent to a program.
    fn note_sent(&mut self, bytes: &[u8]) {
        self.has_sent = true;
        self.unfinished.extend_from_slice(bytes);
        // The rest of what is no packet is never finished.
        while let Ok(Some(frame)) = codec::frame(&self.unfinished, u32::MAX) {
            self.pings[0] += usize::from(frame.packet_type() == PacketType::Pingreq);
            let length = frame.as_bytes().len();
            self.unfinished.drain(..length);
        }
    }

    /// Whether a PINGRESP answers the network, and not the scenario.
    fn is_own_answer(&mut self) -> bool {
        let [scenario, network] = &mut self.pings;
        let is_own = *scenario == 0 && *network > 0;
        let answered = if is_own { network } else { scenario };
        *answered = answered.saturating_sub(1);
        is_own
    }

    fn read(&mut self, now: u64) {
        let rules = Rules::new(self.version).sent_by(Role::Server);
        while let Some(packet) = OwnedPacket::split_from(&mut self.output, u32::MAX, rules)
            .expect("the broker's packets are right")
        {
            if matches!(packet.decode(), Packet::Pingresp) && self.is_own_answer() {
                continue;
            }
            let shown = show(&packet.decode(), true);
            // [5.0 MQTT-3.14.4-1]
            assert!(
                !self.log.iter().any(|(_, before)| before.starts_with("disconnect")),
                "{shown} comes after DISCONNECT"
            );
            // [5.0 MQTT-3.2.0-1] [3.1.1 MQTT-3.2.0-1] [5.0 MQTT-3.2.0-2]
            let is_first = self.log.iter().all(|(_, before)| before.starts_with("auth"));
            assert!(
                is_first == shown.starts_with("connack") || shown.starts_with("auth"),
                "{shown}"
            );
            self.log.push((now, shown));
            self.inbox.push(packet);
        }
        if self.ended && self.log.last().is_none_or(|(_, last)| last != "closed") {
            assert!(self.output.is_empty(), "the last packet is cut off");
            self.log.push((now, "closed".to_owned()));
        }
    }
}

pub fn number_of(packet: &Packet<'_>) -> u16 {
    match packet {
        Packet::Publish(publish) => publish.packet_identifier.map_or(0, PacketIdentifier::get),
        Packet::Puback(ack) | Packet::Pubrec(ack) | Packet::Pubrel(ack) | Packet::Pubcomp(ack) => {
            ack.packet_identifier.get()
        }
        Packet::Suback(suback) | Packet::Unsuback(suback) => suback.packet_identifier.get(),
        _ => 0,
    }
}

/// Shows a packet in short words, with its packet identifier if the client chose it or if
/// `is_numbered`.
pub fn show(packet: &Packet<'_>, is_numbered: bool) -> String {
    let number = number_of(packet);
    let chosen = if is_numbered && number > 0 { format!("#{number} ") } else { String::new() };
    let codes = |codes: Vec<ReasonCode>| {
        codes.iter().map(|code| format!(" {:02x}", code.get())).collect::<String>()
    };
    match packet {
        Packet::Connack(connack) => {
            let mut shown = format!("connack{}", codes(vec![connack.reason_code]));
            let present = connack.session_present.then_some(" present");
            shown.push_str(present.unwrap_or_default());
            let p = &connack.properties;
            let _ = p.session_expiry_interval.map(|value| write!(shown, " expiry={value}"));
            let _ = p
                .assigned_client_identifier
                .map(|value| write!(shown, " assigned={}", value.to_str()));
            // Mosquitto offers the greatest value to a client that asks for none.
            let keep_alive = p.server_keep_alive.filter(|value| *value < u16::MAX);
            let _ = keep_alive.map(|value| write!(shown, " keep-alive={value}"));
            shown
        }
        Packet::Publish(publish) => chosen + &show_publish(publish),
        Packet::Puback(ack) => format!("puback #{number}{}", codes(vec![ack.reason_code])),
        Packet::Pubrec(ack) => format!("pubrec #{number}{}", codes(vec![ack.reason_code])),
        Packet::Pubrel(ack) => format!("{chosen}pubrel{}", codes(vec![ack.reason_code])),
        Packet::Pubcomp(ack) => format!("pubcomp #{number}{}", codes(vec![ack.reason_code])),
        Packet::Suback(suback) => {
            format!("suback #{number}{}", codes(suback.reason_codes.iter().collect()))
        }
        Packet::Unsuback(suback) => {
            format!("unsuback #{number}{}", codes(suback.reason_codes.iter().collect()))
        }
        Packet::Pingresp => "pingresp".to_owned(),
        Packet::Auth(auth) => format!("auth{}", codes(vec![auth.reason_code])),
        Packet::Disconnect(disconnect) => {
            format!("disconnect{}", codes(vec![disconnect.reason_code]))
        }
        _ => panic!("a server does not send {packet:?}"),
    }
}

fn show_publish(publish: &Publish<'_>) -> String {
    let mut shown =
        format!("{}={}", publish.topic_name.to_str(), String::from_utf8_lossy(publish.payload));
    if publish.qos > QoS::AtMostOnce {
        let _ = write!(shown, " q{}", publish.qos.as_u8());
    }
    shown.push_str(if publish.retain { " R" } else { "" });
    shown.push_str(if publish.dup { " D" } else { "" });
    let p = &publish.properties;
    let _ = p.payload_format_indicator.map(|value| write!(shown, " text={value}"));
    let _ = p.message_expiry_interval.map(|value| write!(shown, " expiry={value}"));
    let _ = p.content_type.map(|value| write!(shown, " type={}", value.to_str()));
    let _ = p.response_topic.map(|value| write!(shown, " to={}", value.to_str()));
    let _ = p.correlation_data.map(|value| write!(shown, " for={value:?}"));
    let _ = p.topic_alias.map(|value| write!(shown, " alias={value}"));
    let mut identifiers: Vec<_> =
        p.subscription_identifiers.iter().map(SubscriptionIdentifier::get).collect();
    identifiers.sort_unstable();
    let _ = (!identifiers.is_empty()).then(|| write!(shown, " ids={identifiers:?}"));
    for property in &p.user_properties {
        let _ = write!(shown, " {}:{}", property.name.to_str(), property.value.to_str());
    }
    shown
}
