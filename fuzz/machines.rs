//! What the fuzz targets `client` and `server` check. Arbitrary data becomes a series of operations on one machine: packets of a peer
//! that is right, wrong or mad, commands of the host in any order, and time. `tests/corpus.rs` runs it as an ordinary test.
//!
//! [`Watch`] says what may be written. Here is what a host relies on: each message ends once, a closed connection is silent, nothing
//! grows but by what was put in, and every loop comes to its end.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    clippy::cast_possible_truncation,
    reason = "a panic is a finding"
)]

#[path = "watch.rs"]
mod watch;

use arbitrary::{Arbitrary, Unstructured};
use core::time::Duration;
use mqtt_sansio::Instant;
use mqtt_sansio::client::{self, Client, ClientConfig};
use mqtt_sansio::codec::{
    self, Ack, AckProperties, Auth, AuthProperties, Connack, ConnackProperties, Connect, ConnectProperties, Disconnect, Options,
    Packet, PacketIdentifier, PacketType, Publish, PublishProperties, QoS, ReasonCode, Role, Rules, Sequence, Suback, Subscribe,
    SubscribeProperties, Subscription, SubscriptionIdentifier, Text, Unsubscribe, UnsubscribeProperties, Version, Will,
};
use mqtt_sansio::server::{self, AnswerError, Server, ServerConfig};
use mqtt_sansio::session::{AckToken, AcknowledgeError, Message, Outcome, Outgoing, QueueLimit, Session};
use std::collections::BTreeMap;
use watch::{Configured, Event, Kept, Phase, Watch};

/// What has happened, so that a test can tell that something has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) operations: usize,
    pub(crate) connections: usize,
    pub(crate) received: usize,
    pub(crate) acknowledged: usize,
    pub(crate) sent_again: usize,
    pub(crate) expired: usize,
    pub(crate) not_allowed: usize,
    pub(crate) lost: usize,
    pub(crate) requests: usize,
    pub(crate) violations: usize,
    pub(crate) timeouts: usize,
    pub(crate) stored: usize,
}

/// Operations on a client.
pub(crate) fn client(data: &[u8], tally: &mut Tally) {
    run::<Client>(data, tally);
}

/// Operations on the server's end of one connection after another.
pub(crate) fn server(data: &[u8], tally: &mut Tally) {
    run::<Server>(data, tally);
}

/// Beginnings for the fuzzer: each asks for the operations in turn, from another one on, with little and with much in each.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for first in 0..=32 {
        for (setup, step) in [(0, 1), (0, 7), (0, 37), (1, 101), (1, 5), (2, 11)] {
            let operations = (0_u32..300).map(|index| (first + index * step) as u8);
            seeds.push([setup; SETUP].into_iter().chain(operations).collect());
        }
    }
    seeds
}

/// How many bytes [`Setup::draw`] takes.
const SETUP: usize = 16;

fn run<M: Machine>(data: &[u8], tally: &mut Tally) {
    let mut draw = Draw(Unstructured::new(data));
    let setup = Setup::draw(&mut draw);
    let mut host = Host::<M>::new(&setup, usize::MAX);
    host.tally = *tally;
    let mut script = Vec::new();
    while !draw.0.is_empty() && script.len() < 400 {
        let operation = M::draw(&host, &mut draw);
        host.operate(&operation, script.len() as u64 + 1);
        script.push(operation);
    }
    host.finish();
    // Once more, with what comes in cut in pieces: nothing may change. Where so much waits that the output is cut off, it may.
    if let Some(piece) = setup.piece.filter(|_| !host.wrote_much) {
        let mut again = Host::<M>::new(&setup, piece);
        for (number, operation) in (1..).zip(&script) {
            again.operate(operation, number);
        }
        assert_eq!(again.trace, host.trace, "pieces of {piece} bytes");
    }
    *tally = host.tally;
    tally.operations += script.len();
    tally.sent_again += host.watch.sent_again;
}

// ---- what the data stand for ----

struct Draw<'a>(Unstructured<'a>);

/// At the end of the data all of them give the first choice.
impl<'a> Draw<'a> {
    fn below(&mut self, limit: u8) -> u8 {
        self.0.arbitrary::<u8>().unwrap_or(0) % limit
    }

    /// Whether it is the last of so many choices.
    fn one_in(&mut self, choices: u8) -> bool {
        self.below(choices) == choices - 1
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.below(choices.len() as u8))]
    }

    fn maybe<T: Copy>(&mut self, choices: &[T]) -> Option<T> {
        if self.one_in(3) { Some(self.pick(choices)) } else { None }
    }

    fn bytes(&mut self, most: u8) -> &'a [u8] {
        let count = usize::from(self.below(most)).min(self.0.len());
        self.0.bytes(count).unwrap_or_default()
    }

    /// Anything at all, from a few bytes: strings would take as many as there are.
    fn any<T: Arbitrary<'a>>(&mut self) -> Option<T> {
        T::arbitrary(&mut Unstructured::new(self.bytes(100))).ok()
    }

    fn version(&mut self) -> Version {
        self.pick(&[Version::V5_0, Version::V3_1_1, Version::V5_0, Version::V3_1])
    }

    fn qos(&mut self) -> QoS {
        self.pick(&[QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::AtMostOnce])
    }

    /// Small, so that it is one that is in use.
    fn identifier(&mut self) -> PacketIdentifier {
        let number = if self.one_in(16) { self.any().unwrap_or(1) } else { 1 + u16::from(self.below(6)) };
        PacketIdentifier::new(number).unwrap_or(PacketIdentifier::new(1).unwrap())
    }

    /// Mostly success.
    fn code(&mut self) -> ReasonCode {
        const CODES: [ReasonCode; 4] = [
            ReasonCode::QUOTA_EXCEEDED,
            ReasonCode::PACKET_IDENTIFIER_NOT_FOUND,
            ReasonCode::NO_MATCHING_SUBSCRIBERS,
            ReasonCode::UNSPECIFIED_ERROR,
        ];
        if self.one_in(3) { self.pick(&CODES) } else { ReasonCode::SUCCESS }
    }

    /// A message, without its number. One in so many has an alias.
    fn publish(&mut self, aliases: u8) -> Publish<'a> {
        if self.one_in(12) {
            return self.any().unwrap_or_default();
        }
        let properties = PublishProperties {
            message_expiry_interval: if self.one_in(4) { Some(self.pick(&[0, 1, 2, 60])) } else { None },
            topic_alias: if self.one_in(aliases) { Some(self.pick(&[1, 2, 3, 0])) } else { None },
            content_type: if self.one_in(8) { self.any() } else { None },
            ..PublishProperties::default()
        };
        let topic_name = self.pick(&["t", "a/b", "", "a long topic name, for packets that are too large"]);
        Publish { qos: self.qos(), retain: self.one_in(6), properties, payload: self.bytes(12), ..Publish::new(topic_name, b"") }
    }

    fn connect(&mut self) -> Connect<'a> {
        if self.one_in(12) {
            return self.any().unwrap_or_else(|| Connect::new(Version::V5_0, ""));
        }
        let mut connect = Connect::new(self.version(), "c");
        connect.clean_start = self.one_in(4);
        connect.keep_alive = self.pick(&[0, 10, 65_535, 1]);
        if self.one_in(8) {
            let (qos, retain) = (self.qos(), self.one_in(2));
            connect.will = Some(Will { qos, retain, topic: "w".into(), ..Will::default() });
        }
        if connect.version == Version::V5_0 {
            connect.properties = ConnectProperties {
                session_expiry_interval: self.pick(&[Some(u32::MAX), Some(60), None, Some(0)]),
                receive_maximum: self.maybe(&[1, 2, 5, 65_535]),
                topic_alias_maximum: self.maybe(&[2, 0, 65_535]),
                maximum_packet_size: self.maybe(&[100, 60, 200, 1_000, 20, 4, 2, 1]),
                authentication_method: if self.one_in(4) { Some("m".into()) } else { None },
                request_problem_information: self.maybe(&[false, true]),
                ..ConnectProperties::default()
            };
        }
        connect
    }

    fn connack(&mut self, watch: &Watch) -> Connack<'a> {
        let refused = self.one_in(12);
        let session_present = watch.resumes() != self.one_in(8);
        let mut connack = Connack { session_present: !refused && session_present, ..Connack::default() };
        if refused {
            connack.reason_code = self.pick(&[ReasonCode::NOT_AUTHORIZED, ReasonCode::SERVER_BUSY]);
        }
        if watch.version == Version::V3_1 {
            connack.session_present = false;
        }
        if watch.version == Version::V5_0 {
            connack.properties = ConnackProperties {
                session_expiry_interval: self.maybe(&[0, 60, u32::MAX]),
                server_keep_alive: self.maybe(&[0, 1, 5]),
                receive_maximum: self.maybe(&[1, 2, 5, 65_535]),
                topic_alias_maximum: self.maybe(&[2, 0, 65_535]),
                maximum_qos: if self.one_in(6) { Some(self.pick(&[QoS::AtLeastOnce, QoS::AtMostOnce])) } else { None },
                retain_available: if self.one_in(6) { Some(false) } else { None },
                maximum_packet_size: self.maybe(&[100, 60, 200, 1_000, 20, 4, 2, 1]),
                wildcard_subscription_available: self.maybe(&[true, false]),
                subscription_identifier_available: self.maybe(&[true, false]),
                shared_subscription_available: self.maybe(&[true, false]),
                authentication_method: if watch.authenticates() != self.one_in(16) { Some("m".into()) } else { None },
                ..ConnackProperties::default()
            };
        }
        connack
    }

    fn auth(&mut self) -> Auth<'a> {
        if self.one_in(8) {
            return self.any().unwrap_or_default();
        }
        let reason_code = self.pick(&[ReasonCode::CONTINUE_AUTHENTICATION, ReasonCode::RE_AUTHENTICATE, ReasonCode::SUCCESS]);
        let method = if self.one_in(8) { "n" } else { "m" };
        Auth {
            reason_code,
            properties: AuthProperties { authentication_method: Some(method.into()), ..AuthProperties::default() },
        }
    }

    fn filters(&mut self) -> &'static [Subscription<'static>] {
        let all = [&ONE_FILTER[..], &THREE_FILTERS, &[], &WRONG_FILTERS];
        self.pick(&all)
    }

    /// Something that the peer could say now, if it kept the rules.
    fn right_packet(&mut self, watch: &Watch) -> Option<Packet<'a>> {
        let possible = watch.possible();
        let (packet, identifier, codes) = *possible.get(usize::from(self.below(255)) % possible.len().max(1))?;
        let packet_identifier = PacketIdentifier::new(identifier)?;
        let ack = Ack::new(packet_identifier, if watch.version == Version::V5_0 { self.code() } else { ReasonCode::SUCCESS });
        Some(match packet {
            PacketType::Puback => Packet::Puback(ack),
            PacketType::Pubrec => Packet::Pubrec(ack),
            PacketType::Pubrel => Packet::Pubrel(Ack::new(packet_identifier, ReasonCode::SUCCESS)),
            PacketType::Pubcomp => Packet::Pubcomp(Ack::new(packet_identifier, ReasonCode::SUCCESS)),
            _ => {
                let reason_codes = Sequence::from(&CODES[..codes.min(CODES.len())]);
                let suback = Suback { packet_identifier, properties: AckProperties::default(), reason_codes };
                let no_codes = Suback { reason_codes: Sequence::default(), ..suback };
                match packet {
                    PacketType::Suback => Packet::Suback(suback),
                    _ if watch.version < Version::V5_0 => Packet::Unsuback(no_codes),
                    _ => Packet::Unsuback(suback),
                }
            }
        })
    }

    /// Bytes of the peer: mostly whole packets by its rules.
    fn feed(&mut self, watch: &Watch, sender: Role) -> Vec<u8> {
        let rules = Rules::new(watch.version).sent_by(sender);
        let small = [Packet::Puback, Packet::Pubrec, Packet::Pubrel, Packet::Pubcomp];
        let packet = match self.below(128) {
            0..40 => {
                let publish = self.publish(12);
                let packet_identifier = if publish.qos == QoS::AtMostOnce { None } else { Some(self.identifier()) };
                let dup = publish.qos > QoS::AtMostOnce && self.one_in(3);
                Some(Publish { packet_identifier, dup, ..publish.for_version(watch.version) }.into())
            }
            40..50 if sender == Role::Client => Some(self.request()),
            40..106 => self.right_packet(watch),
            106..110 => {
                let code = if watch.version == Version::V5_0 { self.code() } else { ReasonCode::SUCCESS };
                Some(self.pick(&small)(Ack::new(self.identifier(), code)))
            }
            110..118 => Some(if sender == Role::Client { Packet::Pingreq } else { Packet::Pingresp }),
            118..122 if watch.authenticates() => Some(self.auth().into()),
            118 => Some(self.auth().into()),
            119 if sender == Role::Client => Some(self.connect().into()),
            119 => Some(self.connack(watch).into()),
            120 | 121 => self.any(),
            122 => Some(Disconnect::default().into()),
            123 | 124 => return self.bytes(40).to_vec(),
            _ => None,
        };
        let mut bytes = Vec::new();
        if let Some(packet) = packet {
            let _ = codec::encode(&packet, rules, &mut bytes);
        }
        if self.one_in(64) && !bytes.is_empty() {
            let at = usize::from(self.below(255)) % bytes.len();
            bytes[at] ^= 1 << self.below(8);
        }
        // Now and then the end stays away.
        bytes.truncate(if self.one_in(64) { bytes.len() / 2 } else { bytes.len() });
        bytes
    }

    fn request(&mut self) -> Packet<'a> {
        let packet_identifier = self.identifier();
        if self.one_in(2) {
            let topic_filters = Sequence::from(&FILTERS[..1 + usize::from(self.below(2))]);
            return Unsubscribe { packet_identifier, properties: UnsubscribeProperties::default(), topic_filters }.into();
        }
        let subscriptions = if self.one_in(2) { &ONE_FILTER[..] } else { &THREE_FILTERS };
        Subscribe { packet_identifier, properties: SubscribeProperties::default(), subscriptions: subscriptions.into() }.into()
    }
}

const FILTERS: [Text<'static>; 2] = [Text::literal("t"), Text::literal("a/+")];
const CODES: [ReasonCode; 3] = [ReasonCode::SUCCESS, ReasonCode::GRANTED_QOS_1, ReasonCode::NOT_AUTHORIZED];

const fn filter(topic_filter: &'static str) -> Subscription<'static> {
    let options = codec::SubscriptionOptions {
        maximum_qos: QoS::ExactlyOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: codec::RetainHandling::Send,
    };
    Subscription { topic_filter: Text::literal(topic_filter), options }
}

const ONE_FILTER: [Subscription<'static>; 1] = [filter("t")];
const THREE_FILTERS: [Subscription<'static>; 3] = [filter("a/#"), filter("+"), filter("$share/g/t")];
const WRONG_FILTERS: [Subscription<'static>; 1] = [filter("a#")];

/// How the machine and its host are made.
#[derive(Clone)]
struct Setup {
    manual_acknowledgement: bool,
    options: Options,
    maximum_in_flight: u16,
    receive_maximum: u16,
    maximum_requests: usize,
    maximum_packet_size: u32,
    queue: QueueLimit,
    connect_timeout: Duration,
    ping_timeout: Option<Duration>,
    maximum_keep_alive: u16,
    maximum_qos: QoS,
    retain_available: bool,
    automatic_topic_aliases: u16,
    start: Instant,
    /// The size of the pieces in which everything comes in the second time.
    piece: Option<usize>,
    /// What the host answers to whom, one after the other.
    answers: Vec<u8>,
}

impl Setup {
    fn draw(draw: &mut Draw<'_>) -> Self {
        let options = [
            Options::NONE,
            Options::REFUSE_CONTROL_CHARACTERS.and(Options::CHECK_PAYLOAD_FORMAT),
            Options::NON_MINIMAL_LENGTH
                .and(Options::UNUSED_HEADER_FLAGS)
                .and(Options::BRIDGE_PROTOCOL_LEVEL)
                .and(Options::LONG_CLIENT_IDENTIFIER)
                .and(Options::PASSWORD_WITHOUT_USER_NAME)
                .and(Options::DUP_WITH_QOS_0)
                .and(Options::SUBACK_FAILURE),
        ];
        Self {
            manual_acknowledgement: draw.one_in(2),
            options: draw.pick(&options),
            maximum_in_flight: draw.pick(&[20, 1, 2, 65_535]),
            receive_maximum: draw.pick(&[20, 1, 2, 65_535]),
            maximum_requests: draw.pick(&[8, 1, 2]),
            maximum_packet_size: draw.pick(&[1_048_576, 268_435_460, 100_000, 80]),
            queue: draw.pick(&[
                QueueLimit { messages: 1_000, bytes: 1_000_000 },
                QueueLimit { messages: 3, bytes: 1_000 },
                QueueLimit { messages: 20, bytes: 30 },
                QueueLimit { messages: 0, bytes: 0 },
            ]),
            connect_timeout: Duration::from_millis(draw.pick(&[10_000, 1, 0])),
            ping_timeout: draw.pick(&[None, Some(Duration::from_millis(500)), Some(Duration::ZERO)]),
            maximum_keep_alive: draw.pick(&[0, 5]),
            maximum_qos: draw.pick(&[QoS::ExactlyOnce, QoS::ExactlyOnce, QoS::ExactlyOnce, QoS::AtLeastOnce, QoS::AtMostOnce]),
            retain_available: !draw.one_in(4),
            automatic_topic_aliases: draw.pick(&[0, 0, 2]),
            start: Instant::from_millis(draw.pick(&[0, 1 << 40])),
            piece: draw.pick(&[None, Some(1), Some(3)]),
            answers: draw.bytes(8).to_vec(),
        }
    }

    fn configured(&self, role: Role) -> Configured {
        Configured {
            role,
            options: self.options,
            manual_acknowledgement: self.manual_acknowledgement,
            maximum_in_flight: self.maximum_in_flight,
            receive_maximum: self.receive_maximum,
        }
    }
}

#[derive(Debug)]
enum Operation<'a> {
    /// The peer says something, or nothing.
    Feed(Vec<u8>),
    Wait {
        milliseconds: u64,
        /// Whether the host looks at the clock then.
        handle: bool,
    },
    /// Time passes until something is due.
    WaitUntilDue,
    Lost,
    Progress,
    Acknowledge {
        index: usize,
        code: ReasonCode,
    },
    Publish {
        publish: Publish<'a>,
        /// A payload of so many bytes more.
        padding: usize,
        subscription_identifiers: usize,
        flush: bool,
    },
    /// The session becomes bytes, and after so long a session again; with a byte changed, perhaps.
    Store {
        milliseconds: u64,
        changed: Option<(usize, u8)>,
    },
    Authenticate(Auth<'a>),
    Disconnect(Disconnect<'a>),
    // A client's.
    Connect(Box<Connect<'a>>),
    Subscribe(&'static [Subscription<'static>], SubscribeProperties<'a>),
    Unsubscribe(&'static [Text<'static>]),
    // A server's.
    Open,
    Accept {
        resume: bool,
        properties: Box<ConnackProperties<'a>>,
    },
    Refuse(ReasonCode),
    Answer {
        index: usize,
        identifier: PacketIdentifier,
        codes: usize,
        other: bool,
    },
}

fn draw_common<'a, M: Machine>(host: &Host<M>, draw: &mut Draw<'a>) -> Operation<'a> {
    let peer = if M::ROLE == Role::Client { Role::Server } else { Role::Client };
    match draw.below(24) {
        0..10 => Operation::Feed(draw.feed(&host.watch, peer)),
        10..16 => Operation::Publish {
            publish: draw.publish(3),
            padding: if draw.one_in(64) { 70_000 } else { 0 },
            subscription_identifiers: if draw.one_in(8) { 2 } else { 0 },
            flush: draw.one_in(2),
        },
        16 => {
            Operation::Wait { milliseconds: draw.pick(&[1, 500, 1, 1_000, 500, 10_000, 1, 100_000_000]), handle: draw.one_in(2) }
        }
        17 => Operation::WaitUntilDue,
        18..21 => Operation::Acknowledge { index: draw.below(255).into(), code: draw.code() },
        21 if draw.one_in(3) => {
            let changed = if draw.one_in(8) { Some((draw.below(255).into(), draw.below(255))) } else { None };
            Operation::Store { milliseconds: draw.pick(&[0, 1, 1_500, 100_000]), changed }
        }
        22 if draw.one_in(4) => Operation::Lost,
        22 if host.watch.authenticates() || draw.one_in(4) => Operation::Authenticate(draw.auth()),
        23 if draw.one_in(4) => {
            Operation::Disconnect(if draw.one_in(3) { draw.any().unwrap_or_default() } else { Disconnect::default() })
        }
        23 => Operation::Progress,
        _ => M::draw(host, draw),
    }
}

// ---- the host ----

trait Machine: Sized {
    const ROLE: Role;

    fn new(setup: &Setup) -> Self;
    fn input<'i>(&mut self, input: &mut &'i [u8], now: Instant, out: &mut Vec<u8>) -> Option<Event<'i>>;
    fn timeout(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<Event<'static>>;
    fn lost(&mut self) -> Option<Event<'static>>;
    fn due(&self) -> Option<Instant>;
    fn session(&self) -> &Session;
    fn takes_input(&self) -> bool;
    fn progress(&mut self, now: Instant);
    fn acknowledge(&mut self, token: AckToken, code: ReasonCode, now: Instant, out: &mut Vec<u8>)
    -> Result<(), AcknowledgeError>;
    /// The version that the next packet is written in, if that is known to the machine alone.
    fn version(&self) -> Option<Version>;

    fn draw<'a>(host: &Host<Self>, draw: &mut Draw<'a>) -> Operation<'a>;
    /// What only this role does.
    fn operate(host: &mut Host<Self>, operation: &Operation<'_>, number: u64);
    /// The host was told that the connection has ended.
    fn closed(host: &mut Host<Self>, event: &Event<'_>);
    /// What the host does at once when it is told of something else.
    fn react(host: &mut Host<Self>, event: &Event<'_>);
    /// Takes the session out of the host, in whatever state it is.
    fn unload(host: &mut Host<Self>) -> Option<Session>;
    fn load(host: &mut Host<Self>, session: Session);
}

struct Host<M> {
    machine: M,
    setup: Setup,
    watch: Watch,
    now: Instant,
    /// What has come in, and was not taken.
    received: Vec<u8>,
    piece: usize,
    /// There is no connection, or it has ended.
    over: bool,
    /// The host has ended the connection, and was not told so yet.
    closing: bool,
    /// Messages with QoS 1 and 2 that have not ended, and how many bytes of each are kept at most.
    live: BTreeMap<u64, usize>,
    longest_topic: usize,
    tokens: Vec<AckToken>,
    /// How often the host was asked.
    asked: usize,
    /// A server's session while there is no connection, with what is known of it.
    parked: Option<(Session, Kept)>,
    accepted: bool,
    /// Messages and requests so far, each of which may have taken an identifier.
    given: usize,
    wrote_much: bool,
    /// What the host was told, and what was written, operation by operation.
    trace: Vec<(Vec<String>, Vec<u8>)>,
    tally: Tally,
}

impl<M: Machine> Host<M> {
    fn new(setup: &Setup, piece: usize) -> Self {
        Self {
            machine: M::new(setup),
            setup: setup.clone(),
            watch: Watch::new(setup.configured(M::ROLE)),
            now: setup.start,
            received: Vec::new(),
            piece,
            over: M::ROLE == Role::Client,
            closing: false,
            live: BTreeMap::new(),
            longest_topic: 1,
            tokens: Vec::new(),
            asked: 0,
            parked: None,
            accepted: false,
            given: 0,
            wrote_much: false,
            trace: Vec::new(),
            tally: Tally::default(),
        }
    }

    fn operate(&mut self, operation: &Operation<'_>, number: u64) {
        self.trace.push((Vec::new(), Vec::new()));
        match operation {
            Operation::Feed(bytes) => {
                if self.over {
                    let (mut input, mut out) = (&bytes[..], Vec::new());
                    let event = self.machine.input(&mut input, self.now, &mut out);
                    assert!(input.len() == bytes.len());
                    self.judge(&[], event.as_ref(), &out);
                    return;
                }
                self.take_steps();
                for piece in bytes.chunks(self.piece.min(bytes.len()).max(1)) {
                    if !self.over {
                        self.received.extend_from_slice(piece);
                        self.take_steps();
                    }
                }
                self.take_steps();
            }
            Operation::Wait { milliseconds, handle } => {
                self.now = self.now + Duration::from_millis(*milliseconds);
                if *handle {
                    self.look_at_the_clock();
                }
            }
            Operation::WaitUntilDue => {
                self.now = self.machine.due().map_or(self.now, |due| due.max(self.now));
                self.look_at_the_clock();
            }
            Operation::Progress => self.machine.progress(self.now),
            Operation::Lost => {
                let event = self.machine.lost();
                assert_eq!(event.is_some(), !self.over, "the end comes once");
                self.judge(&[], event.as_ref(), &[]);
            }
            Operation::Acknowledge { index, code } => self.acknowledge(*index, *code),
            Operation::Store { milliseconds, changed } => self.store(*milliseconds, *changed),
            _ => M::operate(self, operation, number),
        }
        self.check();
    }

    /// All steps that what was received allows.
    fn take_steps(&mut self) {
        loop {
            let received = core::mem::take(&mut self.received);
            let (wanted, held) = (self.machine.takes_input(), self.held());
            let (mut input, mut out) = (&received[..], Vec::new());
            let event = self.machine.input(&mut input, self.now, &mut out);
            let taken = received.len() - input.len();
            assert!(core::ptr::eq(&received[taken..], input), "input is taken from its front");
            assert!(wanted || taken == 0, "input is not taken when it is not wanted");
            assert!(out.len() <= 64 + 4 * taken + held, "{} bytes for {taken} that came and {held} that waited", out.len());
            // Either something was taken, or something has ended for good: so the loop ends.
            let ended = event.as_ref().is_none_or(|event| event.published().is_some() || event.closed().is_some());
            assert!(taken > 0 || ended, "{event:?} out of nothing");
            self.watch.goes_on();
            self.judge(&received[..taken], event.as_ref(), &out);
            if !self.over {
                self.received = received[taken..].to_vec();
            }
            match event {
                Some(event) => M::react(self, &event),
                None if out.len() < HIGH_WATER => break,
                None => {}
            }
        }
        if !self.over && !self.closing && (M::ROLE == Role::Client || self.accepted) {
            self.watch.rests(self.machine.session().in_flight()).unwrap();
        }
    }

    /// At most so many bytes can be written of what is there already.
    fn held(&self) -> usize {
        2 * self.machine.session().to_bytes(self.now).len() + 8 * self.watch.waiting()
    }

    fn look_at_the_clock(&mut self) {
        for _ in 0..3 {
            let due = self.machine.due();
            let (before, mut out) = (self.closing, Vec::new());
            let event = self.machine.timeout(self.now, &mut out);
            assert!(out.len() <= 64, "{} bytes for no reason", out.len());
            if due.is_none_or(|due| due > self.now) && !before {
                assert!(event.is_none() && out.is_empty(), "{event:?} before {due:?}");
            }
            if event.is_some() {
                self.tally.timeouts += 1;
            }
            self.judge(&[], event.as_ref(), &out);
            if self.machine.due().is_none_or(|due| due > self.now) {
                return;
            }
        }
        panic!("{:?} is due at {:?}, whatever is done", self.machine.due(), self.now);
    }

    fn acknowledge(&mut self, index: usize, code: ReasonCode) {
        let Some(token) = self.tokens.get(index % self.tokens.len().max(1)).copied() else { return };
        let (mut out, bound) = (Vec::new(), 64 + self.held());
        if self.machine.acknowledge(token, code, self.now, &mut out).is_ok() {
            self.watch.acknowledged(token, code).unwrap();
        } else {
            assert!(out.is_empty());
        }
        assert!(out.len() <= bound);
        self.judge(&[], None, &out);
    }

    /// Whatever a call has brought.
    fn judge(&mut self, read: &[u8], event: Option<&Event<'_>>, out: &[u8]) {
        if self.over {
            assert!(event.is_none() && out.is_empty(), "{event:?} after the end");
        }
        if self.closing {
            assert!(out.is_empty() && event.is_none_or(|event| event.closed().is_some()), "{event:?} after the last word");
        }
        if let Some(version) = self.machine.version().filter(|_| self.watch.phase == Phase::Before) {
            self.watch.version = version;
        }
        self.watch.step(read, event, out).unwrap();
        self.wrote_much |= out.len() >= HIGH_WATER;
        if self.setup.piece.is_some() {
            let (events, written) = self.trace.last_mut().unwrap();
            events.extend(event.map(|event| format!("{event:?}")));
            written.extend_from_slice(out);
        }
        let Some(event) = event else { return };
        if let Some(message) = event.message() {
            self.tally.received += 1;
            self.tokens.extend(message.token);
        }
        if let Some(published) = event.published() {
            self.ended(published.key, &published.outcome);
        }
        if matches!(event, Event::Client(client::Action::Connected(_))) {
            self.tally.connections += 1;
        }
        self.tally.requests += usize::from(event.asks() || event.answered().is_some());
        if let Some(cause) = event.closed() {
            assert!(!cause.to_string().is_empty());
            self.tally.violations += usize::from(matches!(cause, mqtt_sansio::session::CloseCause::Violation(_)));
            (self.over, self.closing) = (true, false);
            self.received.clear();
            M::closed(self, event);
        }
    }

    fn ended(&mut self, key: u64, outcome: &Outcome<'_>) {
        if self.watch.kept.unknown {
            return;
        }
        assert!(self.live.remove(&key).is_some(), "message {key} ends a second time: {outcome:?}");
        *match outcome {
            Outcome::Acknowledged { .. } => &mut self.tally.acknowledged,
            Outcome::Expired => &mut self.tally.expired,
            Outcome::NotAllowed(message) => {
                assert_eq!(watch::number(message.payload()), Some(key));
                &mut self.tally.not_allowed
            }
            Outcome::SessionLost(message) => {
                assert!(message.as_ref().is_none_or(|message| watch::number(message.payload()) == Some(key)));
                &mut self.tally.lost
            }
            other => panic!("{other:?}"),
        } += 1;
    }

    /// What must hold at any time.
    fn check(&self) {
        let session = self.parked.as_ref().map_or_else(|| self.machine.session(), |(session, _)| session);
        if self.watch.kept.unknown || self.parked.as_ref().is_some_and(|(_, kept)| kept.unknown) {
            return;
        }
        let (queued, bytes) = (session.queued(), session.queued_bytes());
        assert!(queued <= self.setup.queue.messages, "{queued} messages wait");
        assert!(bytes <= self.setup.queue.bytes || queued == 1, "{bytes} bytes wait");
        assert!(self.watch.requests() <= self.setup.maximum_requests);
        let taken = self.watch.taken() + self.parked.as_ref().map_or(0, |(_, kept)| kept.taken());
        let live: usize = self.live.values().sum();
        let bound = 64 + live + bytes + 64 * queued + self.given + 2 * taken;
        let stored = session.to_bytes(self.now).len();
        assert!(stored <= bound, "a session of {stored} bytes, from {live} of messages, {taken} identifiers, {queued} that wait");
    }

    /// Through bytes and back: nothing is lost, and a session in use is stored as if the line had broken.
    fn store(&mut self, milliseconds: u64, changed: Option<(usize, u8)>) {
        let in_use = self.machine.session().to_bytes(self.now);
        let in_turn = !self.watch.is_out_of_turn();
        let used = !self.over && (M::ROLE == Role::Client || self.accepted);
        let Some(session) = M::unload(self) else { return };
        let mut bytes = session.to_bytes(self.now);
        let again = |bytes: &[u8]| Session::from_bytes(bytes, self.now, Duration::ZERO).expect("it is loaded").to_bytes(self.now);
        assert_eq!(again(&bytes), bytes);
        if used && in_turn {
            assert_eq!(again(&in_use)[5..], bytes[5..], "what would be left if the line broke");
        }
        self.now = self.now + Duration::from_millis(milliseconds);
        if let Some((at, byte)) = changed {
            let at = at % bytes.len();
            bytes[at] = byte;
            self.live.clear();
        }
        let loaded = Session::from_bytes(&bytes, self.now, Duration::from_millis(milliseconds));
        if changed.is_some() {
            self.watch.kept = Kept::default();
            self.watch.kept.unknown = loaded.is_ok();
        }
        let session = if changed.is_some() { loaded.unwrap_or_default() } else { loaded.expect("what was stored is loaded") };
        M::load(self, session);
        self.tally.stored += 1;
    }

    /// Each message has ended or is in the session.
    fn finish(&mut self) {
        let unknown = self.watch.kept.unknown || self.parked.as_ref().is_some_and(|(_, kept)| kept.unknown);
        let Some(mut session) = M::unload(self) else { return };
        while let Some(published) = session.next_completed() {
            if !unknown {
                self.ended(published.key, &published.outcome);
            }
        }
        if !unknown {
            let kept = session.in_flight() + session.queued();
            assert!(self.live.len() <= kept && kept <= self.live.len() + self.given, "{kept} of {} are kept", self.live.len());
        }
    }

    /// Notes a message that was taken.
    fn given(&mut self, number: u64, publish: &Publish<'_>) {
        self.given += 1;
        if publish.qos > QoS::AtMostOnce {
            // An alias may stand for any topic that there was.
            self.longest_topic = self.longest_topic.max(publish.topic_name.as_bytes().len());
            let message = Message::new(&Publish { topic_name: "t".into(), ..*publish }).expect("only a message is taken");
            self.live.insert(number, message.size() + self.longest_topic + 64);
        }
    }
}

/// A server's output that is cut off is at least so long.
const HIGH_WATER: usize = 64 * 1024;

fn payload(number: u64, publish: &Publish<'_>, padding: usize) -> Vec<u8> {
    let mut payload = format!("{number} ").into_bytes();
    payload.extend_from_slice(publish.payload);
    payload.resize(payload.len() + padding, b'x');
    payload
}

impl Machine for Client {
    const ROLE: Role = Role::Client;

    fn new(setup: &Setup) -> Self {
        Self::new(client_config(setup))
    }

    fn input<'i>(&mut self, input: &mut &'i [u8], now: Instant, out: &mut Vec<u8>) -> Option<Event<'i>> {
        self.handle_input(input, now, out).map(Event::Client)
    }

    fn timeout(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<Event<'static>> {
        self.handle_timeout(now, out).map(Event::Client)
    }

    fn lost(&mut self) -> Option<Event<'static>> {
        self.connection_lost().map(Event::Client)
    }

    fn due(&self) -> Option<Instant> {
        self.poll_timeout()
    }

    fn session(&self) -> &Session {
        self.session()
    }

    fn takes_input(&self) -> bool {
        self.wants_input()
    }

    fn progress(&mut self, now: Instant) {
        self.handle_progress(now);
    }

    fn acknowledge(
        &mut self,
        token: AckToken,
        code: ReasonCode,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<(), AcknowledgeError> {
        self.acknowledge(token, code, now, out)
    }

    fn version(&self) -> Option<Version> {
        None
    }

    fn draw<'a>(host: &Host<Self>, draw: &mut Draw<'a>) -> Operation<'a> {
        match (host.over, host.watch.phase) {
            (true, _) if !draw.one_in(6) => Operation::Connect(Box::new(draw.connect())),
            (false, Phase::Handshake) if !draw.one_in(6) => {
                let mut bytes = Vec::new();
                let connack = draw.connack(&host.watch);
                let _ = codec::encode(&connack.into(), host.watch.version, &mut bytes);
                Operation::Feed(bytes)
            }
            _ => match draw.below(32) {
                0 => Operation::Connect(Box::new(draw.connect())),
                1 => Operation::Unsubscribe(&FILTERS[..usize::from(draw.below(3))]),
                2 => {
                    let subscription_identifier = if draw.one_in(3) { SubscriptionIdentifier::new(7) } else { None };
                    let properties = SubscribeProperties { subscription_identifier, ..SubscribeProperties::default() };
                    Operation::Subscribe(draw.filters(), properties)
                }
                _ => draw_common(host, draw),
            },
        }
    }

    fn operate(host: &mut Host<Self>, operation: &Operation<'_>, number: u64) {
        let (now, mut out) = (host.now, Vec::new());
        let client = &mut host.machine;
        let queued = client.session().queued();
        let done = match operation {
            Operation::Connect(connect) => {
                let done = client.connect(connect, now, &mut out).is_ok();
                assert!(host.over || !done, "one connection at a time");
                if done {
                    (host.over, host.closing) = (false, false);
                    host.watch.reopens();
                    host.received.clear();
                }
                done
            }
            Operation::Publish { publish, padding, .. } => {
                let payload = payload(number, publish, *padding);
                let publish = Publish { payload: &payload, ..*publish };
                let done = client.publish(number, &publish, now, &mut out).is_ok();
                // What has expired may have made room, in vain.
                assert!(done || client.session().queued() <= queued, "what is refused does not wait");
                if done {
                    host.given(number, &publish);
                    host.watch.publishes(number, &publish).unwrap();
                }
                done
            }
            Operation::Subscribe(filters, properties) => client.subscribe(number, filters, *properties, now, &mut out).is_ok(),
            Operation::Unsubscribe(filters) => {
                client.unsubscribe(number, filters, UnsubscribeProperties::default(), now, &mut out).is_ok()
            }
            Operation::Authenticate(auth) => client.authenticate(auth, now, &mut out).is_ok(),
            Operation::Disconnect(disconnect) => {
                // What was delivered is acknowledged before it, whether or not it can be written itself.
                let done = client.disconnect(disconnect, now, &mut out).is_ok();
                if done || !out.is_empty() {
                    host.watch.goes_on();
                }
                host.judge(&[], None, &out);
                if done {
                    host.closing = true;
                    host.watch.closes();
                }
                return;
            }
            _ => false,
        };
        assert!(done || out.is_empty(), "{operation:?} is refused, and {out:?} written");
        host.judge(&[], None, &out);
        if done && matches!(operation, Operation::Subscribe(..) | Operation::Unsubscribe(_)) {
            host.given += 1;
            host.watch.requested(number).unwrap();
        }
    }

    fn closed(_host: &mut Host<Self>, _event: &Event<'_>) {}

    fn react(_host: &mut Host<Self>, _event: &Event<'_>) {}

    fn unload(host: &mut Host<Self>) -> Option<Session> {
        let machine = core::mem::replace(&mut host.machine, Self::new(client_config(&host.setup)));
        host.watch.ends();
        (host.over, host.closing) = (true, false);
        host.received.clear();
        host.tokens.clear();
        Some(machine.into_session())
    }

    fn load(host: &mut Host<Self>, session: Session) {
        host.machine = Self::with_session(client_config(&host.setup), session);
    }
}

fn client_config(setup: &Setup) -> ClientConfig {
    let config = ClientConfig::new()
        .manual_acknowledgement(setup.manual_acknowledgement)
        .options(setup.options)
        .maximum_in_flight(setup.maximum_in_flight)
        .maximum_packet_size(setup.maximum_packet_size)
        .maximum_queued(setup.queue.messages, setup.queue.bytes)
        .automatic_topic_aliases(setup.automatic_topic_aliases)
        .connect_timeout(setup.connect_timeout);
    match setup.ping_timeout {
        Some(timeout) => config.ping_timeout(timeout),
        None => config,
    }
}

impl Machine for Server {
    const ROLE: Role = Role::Server;

    fn new(setup: &Setup) -> Self {
        Self::new(server_config(setup), setup.start)
    }

    fn input<'i>(&mut self, input: &mut &'i [u8], now: Instant, out: &mut Vec<u8>) -> Option<Event<'i>> {
        self.handle_input(input, now, out).map(Event::Server)
    }

    fn timeout(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<Event<'static>> {
        self.handle_timeout(now, out).map(Event::Server)
    }

    fn lost(&mut self) -> Option<Event<'static>> {
        self.connection_lost().map(Event::Server)
    }

    fn due(&self) -> Option<Instant> {
        self.poll_timeout()
    }

    fn session(&self) -> &Session {
        self.session()
    }

    fn takes_input(&self) -> bool {
        self.wants_input()
    }

    fn progress(&mut self, now: Instant) {
        self.handle_progress(now);
    }

    fn acknowledge(
        &mut self,
        token: AckToken,
        code: ReasonCode,
        _now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<(), AcknowledgeError> {
        self.acknowledge(token, code, out)
    }

    fn version(&self) -> Option<Version> {
        Some(self.version())
    }

    fn draw<'a>(host: &Host<Self>, draw: &mut Draw<'a>) -> Operation<'a> {
        match (host.over, host.watch.phase) {
            (true, _) if !draw.one_in(6) => Operation::Open,
            (false, Phase::Before) if !draw.one_in(6) => {
                let mut bytes = Vec::new();
                let connect = draw.connect();
                let _ = codec::encode(&connect.into(), connect.version, &mut bytes);
                Operation::Feed(bytes)
            }
            (false, Phase::Handshake) if !draw.one_in(6) => {
                Operation::Accept { resume: !draw.one_in(6), properties: Box::default() }
            }
            _ => match draw.below(24) {
                0 => Operation::Open,
                1 => Operation::Accept { resume: draw.one_in(2), properties: Box::new(draw.any().unwrap_or_default()) },
                2 => Operation::Refuse(draw.any().unwrap_or_default()),
                3..6 => Operation::Answer {
                    index: draw.below(8).into(),
                    identifier: draw.identifier(),
                    codes: if draw.one_in(8) { draw.below(4).into() } else { usize::MAX },
                    other: draw.one_in(8),
                },
                _ => draw_common(host, draw),
            },
        }
    }

    fn operate(host: &mut Host<Self>, operation: &Operation<'_>, number: u64) {
        let (now, mut out) = (host.now, Vec::new());
        match operation {
            Operation::Publish { publish, padding, subscription_identifiers, flush } => {
                let payload = payload(number, publish, *padding);
                deliver(host, number, &Publish { payload: &payload, ..*publish }, *subscription_identifiers, *flush);
                return;
            }
            Operation::Open => {
                let session = <Self as Machine>::unload(host);
                host.machine = Self::new(server_config(&host.setup), now);
                host.watch.reopens();
                (host.over, host.accepted) = (false, false);
                if let Some(session) = session {
                    <Self as Machine>::load(host, session);
                }
            }
            Operation::Accept { resume, properties } => {
                accept(host, *resume, properties);
                return;
            }
            Operation::Refuse(code) => {
                let done = host.machine.refuse(*code, ConnackProperties::default(), &mut out);
                host.judge(&[], None, &out);
                if done != Err(AnswerError::NotAsked) {
                    host.closing = true;
                    host.watch.closes();
                }
                return;
            }
            Operation::Authenticate(auth) => {
                let done = host.machine.challenge(auth, now, &mut out).is_ok();
                assert!(done || out.is_empty());
            }
            Operation::Answer { index, identifier, codes, other } => {
                let known = host.watch.request(*index).filter(|_| !other);
                let (packet, identifier, filters) = known.unwrap_or((PacketType::Subscribe, *identifier, 1));
                let codes = vec![ReasonCode::SUCCESS; filters.min(*codes)];
                let done = match packet {
                    PacketType::Subscribe => host.machine.suback(identifier, &codes, AckProperties::default(), &mut out),
                    _ => host.machine.unsuback(identifier, &codes, AckProperties::default(), &mut out),
                };
                assert!(done.is_ok() || out.is_empty());
            }
            Operation::Disconnect(disconnect) => {
                let open = !host.over && !host.closing;
                let done = host.machine.disconnect(disconnect, &mut out);
                assert!(open || done.is_err());
                host.watch.goes_on();
                host.judge(&[], None, &out);
                if open {
                    host.closing = true;
                    host.watch.closes();
                }
                return;
            }
            _ => {}
        }
        host.judge(&[], None, &out);
    }

    fn closed(host: &mut Host<Self>, event: &Event<'_>) {
        assert!(host.accepted || !matches!(event, Event::Server(server::Action::Closed { publish_will: true, .. })));
        if core::mem::take(&mut host.accepted) {
            park(host);
        }
    }

    /// Answers some questions at once, and leaves others to an operation.
    fn react(host: &mut Host<Self>, event: &Event<'_>) {
        if host.over {
            return;
        }
        let answer = host.setup.answers.get(host.asked % host.setup.answers.len().max(1)).copied().unwrap_or(0);
        host.asked += 1;
        if answer % 2 == 1 {
            return;
        }
        let mut out = Vec::new();
        match event {
            Event::Server(server::Action::Connect(_)) => return accept(host, answer % 4 == 0, &ConnackProperties::default()),
            Event::Server(server::Action::Subscribe(request)) => {
                let codes: Vec<_> = request.subscriptions.iter().map(|_| ReasonCode::GRANTED_QOS_2).collect();
                let _ = host.machine.suback(request.packet_identifier, &codes, AckProperties::default(), &mut out);
            }
            Event::Server(server::Action::Unsubscribe(request)) => {
                let codes: Vec<_> = request.topic_filters.iter().map(|_| ReasonCode::SUCCESS).collect();
                let _ = host.machine.unsuback(request.packet_identifier, &codes, AckProperties::default(), &mut out);
            }
            _ => {}
        }
        host.judge(&[], None, &out);
    }

    fn unload(host: &mut Host<Self>) -> Option<Session> {
        if host.accepted {
            host.accepted = false;
            park(host);
        } else if !host.over {
            // Its own is a new one.
            let _ = host.machine.take_session();
            host.watch.ends();
        }
        (host.over, host.closing) = (true, false);
        host.received.clear();
        let (session, kept) = host.parked.take()?;
        host.watch.kept = kept;
        Some(session)
    }

    fn load(host: &mut Host<Self>, session: Session) {
        host.parked = Some((session, core::mem::take(&mut host.watch.kept)));
    }
}

fn server_config(setup: &Setup) -> ServerConfig {
    ServerConfig::new()
        .manual_acknowledgement(setup.manual_acknowledgement)
        .options(setup.options)
        .maximum_in_flight(setup.maximum_in_flight)
        .receive_maximum(setup.receive_maximum)
        .maximum_requests(setup.maximum_requests)
        .maximum_packet_size(setup.maximum_packet_size)
        .maximum_connect_size(setup.maximum_packet_size)
        .maximum_queued(setup.queue.messages, setup.queue.bytes)
        .automatic_topic_aliases(setup.automatic_topic_aliases)
        .connect_timeout(setup.connect_timeout)
        .maximum_keep_alive(core::num::NonZeroU16::new(setup.maximum_keep_alive))
        .maximum_qos(setup.maximum_qos)
        .retain_available(setup.retain_available)
}

/// The connection has ended: its session waits for the next.
fn park(host: &mut Host<Server>) {
    let session = host.machine.take_session();
    host.watch.ends();
    host.tokens.clear();
    host.parked = Some((session, core::mem::take(&mut host.watch.kept)));
}

fn accept(host: &mut Host<Server>, resume: bool, properties: &ConnackProperties<'_>) {
    let (mut session, kept) = match host.parked.take_if(|_| resume) {
        Some((session, kept)) => (Some(session), kept),
        None => (None, Kept::default()),
    };
    let held = session.as_ref().map_or(0, |session| session.to_bytes(host.now).len());
    let (resumed, mut out) = (session.is_some(), Vec::new());
    if host.machine.accept(&mut session, *properties, host.now, &mut out).is_ok() {
        assert!(session.is_none());
        assert!(out.len() <= 512 + 4 * format!("{properties:?}").len() + 2 * held, "{} bytes for {held}", out.len());
        if !resumed {
            // What there was is dropped.
            host.live.clear();
            host.parked = None;
        }
        host.watch.kept = kept;
        host.accepted = true;
        host.tally.connections += 1;
    } else {
        assert!(session.is_some() == resumed && out.is_empty());
        host.parked = host.parked.take().or_else(|| session.map(|session| (session, kept)));
    }
    host.judge(&[], None, &out);
    flush(host);
}

fn deliver(host: &mut Host<Server>, number: u64, publish: &Publish<'_>, identifiers: usize, step: bool) {
    let expiry = publish.properties.message_expiry_interval;
    let Ok(message) = Message::new(publish) else { return };
    let outgoing = Outgoing {
        subscription_identifiers: vec![SubscriptionIdentifier::MAX; identifiers],
        expires_at: expiry.map(|seconds| host.now + Duration::from_secs(seconds.into())),
        ..Outgoing::new(Some(number), message)
    };
    let done = match &mut host.parked {
        Some((session, _)) if !host.accepted => session.enqueue(outgoing, host.setup.queue, host.now),
        _ => host.machine.deliver(outgoing, host.now),
    };
    assert!(done.is_err() || host.accepted || host.parked.is_some());
    if done.is_ok() {
        let properties = PublishProperties { topic_alias: None, ..publish.properties };
        host.given(number, publish);
        host.watch.publishes(number, &Publish { properties, ..*publish }).unwrap();
    }
    if step {
        host.take_steps();
    } else {
        flush(host);
    }
}

/// Writes what waits, as a host does before it reads on.
fn flush(host: &mut Host<Server>) {
    loop {
        let (mut out, held) = (Vec::new(), host.held());
        let more = host.machine.flush(host.now, &mut out);
        assert!(out.len() <= 64 + held);
        assert!(!more || out.len() >= HIGH_WATER, "there is room for more than {} bytes", out.len());
        host.judge(&[], None, &out);
        if !more {
            return;
        }
    }
}
