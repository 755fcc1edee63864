//! A client and a server machine on one clock, with a line between them that delays, splits and breaks, and hosts that store their
//! sessions and crash, against what the standard promises: QoS 0 at most once, QoS 1 at least once, QoS 2 exactly once, each in
//! order, each message with one end, and every deadline met to the millisecond. [`Watch`] reads all that passes on the line.
//!
//! `SEED=n cargo test --test model` replays a seed with its log, `SEEDS=n` runs so many.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    clippy::cast_possible_truncation,
    reason = "tests may panic"
)]

#[path = "../fuzz/watch.rs"]
mod watch;

use core::time::Duration;
use mqtt_sansio::Instant;
use mqtt_sansio::client::{self, Client, ClientConfig};
use mqtt_sansio::codec::{
    AckProperties, ConnackProperties, Connect, Disconnect, Options, Packet, PacketIdentifier, PacketType, Publish,
    PublishProperties, QoS, ReasonCode, Role, Rules, SubscribeProperties, Subscription, UnsubscribeProperties, Version, decode,
};
use mqtt_sansio::server::{self, Server, ServerConfig};
use mqtt_sansio::session::{
    AckToken, AcknowledgeError, CloseCause, Message, Outcome, Outgoing, PublishError, QueueLimit, Session,
};
use std::collections::VecDeque;
use watch::{Configured, Event, Verdict, Watch, ensure, frames, number};

const VERSIONS: [Version; 3] = [Version::V3_1, Version::V3_1_1, Version::V5_0];

/// From the client to the server, and back. What each side has is in that order too.
const UP: usize = 0;
const DOWN: usize = 1;

/// A small generator: the same seed, the same run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn index(&mut self, limit: usize) -> usize {
        self.below(limit as u64) as usize
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())]
    }

    fn small(&mut self) -> u16 {
        self.pick(&[1, 2, 3, 4, 5, 20])
    }
}

/// What a seed chooses for a whole run.
#[derive(Clone, Debug)]
struct Plan {
    version: Version,
    /// Whether a side acknowledges by hand.
    manual: [bool; 2],
    /// At most so many messages that a side has under way.
    in_flight: [u16; 2],
    receive_maximum: u16,
    maximum_requests: usize,
    queue: QueueLimit,
    /// How many topics a side gives an alias.
    aliases: [u16; 2],
    /// Seconds.
    keep_alive: u16,
    maximum_keep_alive: u16,
    ping_timeout: Option<Duration>,
    connect_timeout: [Duration; 2],
    /// Milliseconds that a chunk takes at most.
    delay: u64,
    /// How often, in a hundred messages, one expires.
    expiring: u64,
    /// How often, in a hundred times, a side is stored and loaded that could be.
    storing: u64,
    /// Whether both begin with an older session, the next identifier of which is nearly the last.
    old: bool,
}

impl Plan {
    fn new(random: &mut Random) -> Self {
        let version = random.pick(&VERSIONS);
        let milliseconds = Duration::from_millis;
        Self {
            version,
            manual: [random.percent(30), random.percent(30)],
            in_flight: [random.small(), random.small()],
            receive_maximum: random.small(),
            maximum_requests: random.pick(&[8, 1]),
            queue: QueueLimit { messages: random.pick(&[1_000, 1_000, 1_000, 5]), bytes: 1_000_000 },
            aliases: [random.pick(&[0, 0, 2]), random.pick(&[0, 0, 2])],
            keep_alive: random.pick(&[0, 0, 1, 2, 5]),
            maximum_keep_alive: random.pick(&[0, 0, 3]),
            ping_timeout: random.pick(&[None, Some(milliseconds(700)), Some(milliseconds(4_000))]),
            connect_timeout: [milliseconds(random.pick(&[30_000, 1_500])), milliseconds(random.pick(&[10_000, 1_200]))],
            delay: random.pick(&[0, 0, 30, 300, 1_500]),
            expiring: if version == Version::V5_0 { random.pick(&[0, 0, 40]) } else { 0 },
            storing: random.pick(&[0, 50]),
            old: random.percent(20),
        }
    }

    fn client(&self) -> ClientConfig {
        let config = ClientConfig::new()
            .manual_acknowledgement(self.manual[UP])
            .maximum_in_flight(self.in_flight[UP])
            .automatic_topic_aliases(self.aliases[UP])
            .maximum_queued(self.queue.messages, self.queue.bytes)
            .connect_timeout(self.connect_timeout[UP]);
        match self.ping_timeout {
            Some(timeout) => config.ping_timeout(timeout),
            None => config,
        }
    }

    fn server(&self) -> ServerConfig {
        ServerConfig::new()
            .manual_acknowledgement(self.manual[DOWN])
            .maximum_in_flight(self.in_flight[DOWN])
            .automatic_topic_aliases(self.aliases[DOWN])
            .receive_maximum(self.receive_maximum)
            .maximum_requests(self.maximum_requests)
            .maximum_queued(self.queue.messages, self.queue.bytes)
            .maximum_keep_alive(core::num::NonZeroU16::new(self.maximum_keep_alive))
            .connect_timeout(self.connect_timeout[DOWN])
    }

    fn watch(&self, side: usize) -> Watch {
        Watch::new(Configured {
            role: ROLES[side],
            options: Options::NONE,
            manual_acknowledgement: self.manual[side],
            maximum_in_flight: self.in_flight[side],
            receive_maximum: self.receive_maximum,
        })
    }
}

const ROLES: [Role; 2] = [Role::Client, Role::Server];

// ---- the messages, and what may become of them ----

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Acknowledged(ReasonCode),
    Expired,
    NotAllowed,
    Lost,
}

/// A message. Its number is its place in its direction, from 1 on.
#[derive(Debug)]
struct Letter {
    qos: QoS,
    large: bool,
    made_at: Instant,
    expires_at: Option<Instant>,
    written: bool,
    arrived: usize,
    /// How often the application has taken it, and with which errors it has not.
    taken: usize,
    refused: Vec<ReasonCode>,
    end: Option<End>,
    /// The sender has given up the session that it was in.
    given_up: bool,
    /// The sender's host has dropped it without a word.
    dropped: bool,
    /// The receiver has given up the session, so that it may take it again.
    again: bool,
    /// The receiver knows the identifier from another session, and does not look at what it takes for a repeat.
    unseen: bool,
}

/// All messages of one direction.
#[derive(Default)]
struct Letters {
    all: Vec<Letter>,
    /// The last that came for the first time, by QoS.
    last: [u64; 3],
}

impl Letters {
    fn add(&mut self, qos: QoS, large: bool, made_at: Instant, expires_at: Option<Instant>) {
        let (written, arrived, taken, refused, end) = (false, 0, 0, Vec::new(), None);
        let (given_up, dropped, again, unseen) = (false, false, false, false);
        let letter =
            Letter { qos, large, made_at, expires_at, written, arrived, taken, refused, end, given_up, dropped, again, unseen };
        self.all.push(letter);
    }

    fn get(&mut self, number: u64) -> Result<&mut Letter, String> {
        let index = (number as usize).checked_sub(1);
        index.and_then(|index| self.all.get_mut(index)).ok_or_else(|| format!("there is no message {number}"))
    }

    fn under_way(&mut self) -> impl Iterator<Item = &mut Letter> {
        self.all.iter_mut().filter(|letter| letter.qos > QoS::AtMostOnce && letter.written && letter.end.is_none())
    }

    /// Whether something is to become of one of them yet.
    fn are_owed(&self) -> bool {
        self.all.iter().any(|letter| letter.qos > QoS::AtMostOnce && letter.end.is_none() && !letter.dropped)
    }

    fn writes(&mut self, publish: &Publish<'_>, now: Instant) -> Verdict {
        let number = number(publish.payload).ok_or("a message has no number")?;
        let letter = self.get(number)?;
        if let Some(at) = letter.expires_at {
            // What is sent at once need not wait, even if it may not.
            ensure!(publish.dup || at > now || letter.made_at == now, "message {number} was sent at {now:?}, and not by {at:?}");
            let left = (at - now).as_millis().div_ceil(1_000);
            let stated = publish.properties.message_expiry_interval.map(u128::from);
            ensure!(stated == Some(left), "message {number} has {left} s left, and says {stated:?}");
        }
        ensure!(publish.dup == letter.written, "message {number} was sent with DUP {}: {letter:?}", publish.dup);
        ensure!(letter.end.is_none(), "message {number} was sent after its end");
        letter.written = true;
        Ok(())
    }

    /// The application is given a message, which it takes at once unless it acknowledges by hand.
    fn arrives(&mut self, number: u64, qos: QoS, by_hand: bool) -> Verdict {
        let last = self.last[usize::from(qos.as_u8())];
        let letter = self.get(number)?;
        ensure!(letter.qos == qos && letter.written, "message {number} came with {qos:?}");
        ensure!(qos > QoS::AtMostOnce || letter.arrived == 0, "message {number} came again");
        ensure!(qos < QoS::ExactlyOnce || letter.taken == 0 || letter.again, "message {number} came again after it was taken");
        ensure!(letter.end.is_none(), "message {number} came after {:?}", letter.end);
        letter.arrived += 1;
        if letter.arrived == 1 {
            ensure!(last < number, "message {number} came after {last}");
            self.last[usize::from(qos.as_u8())] = number;
        }
        if by_hand && qos > QoS::AtMostOnce { Ok(()) } else { self.takes(number, ReasonCode::SUCCESS) }
    }

    fn takes(&mut self, number: u64, code: ReasonCode) -> Verdict {
        let letter = self.get(number)?;
        if code.is_error() {
            letter.refused.push(code);
        } else {
            letter.taken += 1;
        }
        Ok(())
    }

    fn ends(&mut self, number: u64, end: End, now: Instant) -> Verdict {
        let letter = self.get(number)?;
        ensure!(letter.qos > QoS::AtMostOnce, "message {number} has an end: {end:?}");
        ensure!(letter.end.is_none(), "message {number} ended as {:?} and as {end:?}", letter.end);
        let once = letter.qos == QoS::AtLeastOnce;
        let right = match end {
            End::Acknowledged(code) if code.is_error() => {
                letter.refused.contains(&code) && (once || letter.taken == 0 || letter.again)
            }
            End::Acknowledged(_) => letter.taken > 0 || letter.unseen,
            End::Expired => !letter.written && letter.expires_at.is_some_and(|at| at <= now),
            End::NotAllowed => letter.large,
            End::Lost => letter.given_up,
        };
        ensure!(right && !letter.dropped, "message {number} ended as {end:?}: {letter:?}");
        letter.end = Some(end);
        Ok(())
    }

    /// All have arrived and ended as their QoS promises.
    fn check(&self) -> Verdict {
        for (number, letter) in (1..).zip(&self.all) {
            let Letter { end, taken, arrived, .. } = letter;
            let success = *end == Some(End::Acknowledged(ReasonCode::SUCCESS));
            let right = match letter.qos {
                QoS::AtMostOnce => end.is_none() && *arrived <= 1,
                _ if end.is_none() => letter.dropped,
                _ if *end == Some(End::Expired) => *arrived == 0,
                QoS::AtLeastOnce => !success || *taken > 0,
                QoS::ExactlyOnce => (*taken <= 1 || letter.again) && (!success || *taken > 0 || letter.unseen),
            };
            ensure!(right, "message {number} at the end: {letter:?}");
        }
        Ok(())
    }
}

// ---- the two ends ----

/// What was put on a connection, and has not arrived. `None` is the end of the transport.
#[derive(Default)]
struct Line {
    chunks: [VecDeque<(Instant, Option<Vec<u8>>)>; 2],
    /// Nothing more is carried.
    silent: bool,
    /// So many packets more are carried.
    packets: Option<usize>,
}

/// By which the deadlines of a side are foretold.
#[derive(Clone, Copy, Default)]
struct Clock {
    opened: Instant,
    accepted: Option<Instant>,
    last_written: Instant,
    last_heard: Instant,
    pinged: Option<Instant>,
    keep_alive: Duration,
}

/// The client, and its host.
struct Near {
    machine: Client,
    watch: Watch,
    received: Vec<u8>,
    tokens: Vec<(u64, AckToken)>,
    /// Of connections that have ended.
    stale: Vec<AckToken>,
    attached: bool,
    clock: Clock,
    asked_keep_alive: u16,
    /// Whether it has asked for a session that ends with the connection.
    asked_temporary: bool,
    /// Whether it has no session that the server could have.
    temporary: bool,
    /// Whether this machine has begun a connection, so that it knows the version.
    begun: bool,
}

/// The server's end of a connection, its host, and the line.
struct Far {
    machine: Server,
    watch: Watch,
    line: Line,
    received: Vec<u8>,
    tokens: Vec<(u64, AckToken)>,
    /// SUBSCRIBE and UNSUBSCRIBE packets that wait for an answer, with the number of their filters.
    requests: Vec<(PacketIdentifier, usize, PacketType)>,
    /// Whether it has the session.
    accepted: bool,
    closed: bool,
    clock: Clock,
}

/// A session of the server while there is no connection.
struct Parked {
    session: Session,
    watch: Watch,
    until: Option<Instant>,
}

/// What a run is counted by, and how often it must happen in a thousand runs, for a run in which nothing happens finds nothing.
const EVENTS: [(&str, u64); 12] = [
    ("messages arrived", 15_000),
    ("connections", 2_000),
    ("packets sent again", 2_000),
    ("breaks", 500),
    ("sessions taken over", 100),
    ("sessions stored", 100),
    ("messages refused", 20),
    ("messages expired", 100),
    ("messages lost", 100),
    ("keep alive timeouts", 100),
    ("connect timeouts", 100),
    ("pings", 500),
];

#[derive(Clone, Copy)]
enum Count {
    Arrived,
    Connected,
    SentAgain,
    Broken,
    TakenOver,
    Stored,
    Refused,
    Expired,
    Lost,
    Silent,
    Unanswered,
    Pinged,
}

type Tally = [u64; EVENTS.len()];

struct World {
    random: Random,
    plan: Plan,
    now: Instant,
    near: Near,
    /// The newest connection.
    far: Option<Far>,
    /// One before it, of which the server does not know that it is broken.
    ghost: Option<Far>,
    parked: Option<Parked>,
    letters: [Letters; 2],
    log: Option<Vec<String>>,
    /// The end of the run: nothing breaks any more.
    calm: bool,
    /// The server has dropped a session, and the client may not know.
    estranged: bool,
    keys: u64,
    tally: Tally,
}

impl World {
    fn new(seed: u64, log: bool) -> Self {
        let mut random = Random(seed);
        let plan = Plan::new(&mut random);
        let session = if plan.old { aged(&Session::established()) } else { Session::new() };
        let near = Near {
            machine: Client::with_session(plan.client(), session),
            watch: plan.watch(UP),
            received: Vec::new(),
            tokens: Vec::new(),
            stale: Vec::new(),
            attached: false,
            clock: Clock::default(),
            asked_keep_alive: 0,
            asked_temporary: false,
            temporary: !plan.old,
            begun: false,
        };
        let parked = plan.old.then(|| Parked { session: aged(&Session::new()), watch: plan.watch(DOWN), until: None });
        let log = log.then(|| vec![format!("{plan:?}")]);
        let (now, far, ghost, letters) = (Instant::from_millis(1_000), None, None, Default::default());
        let (calm, estranged, keys, tally) = (false, false, 0, Tally::default());
        Self { random, plan, now, near, far, ghost, parked, letters, log, calm, estranged, keys, tally }
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            let line = line();
            let end = line.find(" properties: ").unwrap_or(line.len());
            log.push(format!("{:>7} {}", self.now.as_millis(), &line[..end]));
        }
    }

    fn counts(&mut self, what: Count, happens: bool) {
        self.tally[what as usize] += u64::from(happens);
    }

    // ---- the line ----

    /// What a side has written is looked at, and put on the line.
    fn carry(&mut self, direction: usize, line: &mut Line, out: &[u8]) -> Verdict {
        let mut carried = 0;
        for frame in frames(out)? {
            let packet = decode(frame, Rules::new(self.plan.version).sent_by(ROLES[direction]));
            let packet = packet.map_err(|error| error.to_string())?;
            self.note(|| format!("{} {}", ["client writes", "server writes"][direction], in_short(&packet)));
            match &packet {
                Packet::Publish(publish) => {
                    self.counts(Count::SentAgain, publish.dup);
                    self.letters[direction].writes(publish, self.now)?;
                }
                Packet::Pingreq => {
                    self.near.clock.pinged.get_or_insert(self.now);
                    self.counts(Count::Pinged, true);
                }
                _ => {}
            }
            if line.packets != Some(0) {
                line.packets.iter_mut().for_each(|packets| *packets -= 1);
                carried += frame.as_bytes().len();
            }
        }
        let mut bytes = &out[..carried];
        while !bytes.is_empty() {
            let size = if self.random.percent(70) { bytes.len() } else { 1 + self.random.index(bytes.len()) };
            let (chunk, rest) = bytes.split_at(size);
            self.schedule(direction, line, Some(chunk.to_vec()));
            bytes = rest;
        }
        if line.packets == Some(0) {
            self.note(|| "the line breaks".into());
            self.schedule(UP, line, None);
            self.schedule(DOWN, line, None);
            (line.packets, line.silent) = (None, true);
        }
        Ok(())
    }

    fn schedule(&mut self, direction: usize, line: &mut Line, chunk: Option<Vec<u8>>) {
        if line.silent {
            return;
        }
        let delay = if self.plan.delay == 0 { 0 } else { self.random.below(self.plan.delay) };
        let at = self.now + Duration::from_millis(delay);
        let at = line.chunks[direction].back().map_or(at, |(last, _)| at.max(*last));
        line.chunks[direction].push_back((at, chunk));
    }

    /// A side has closed its transport. The other is told, or must find out.
    fn hang_up(&mut self, direction: usize, line: &mut Line) {
        if self.calm || self.random.percent(70) {
            self.schedule(direction, line, None);
        } else {
            line.silent = true;
        }
    }

    fn client_writes(&mut self, out: &[u8]) -> Verdict {
        if out.is_empty() {
            return Ok(());
        }
        let clock = &mut self.near.clock;
        if let Some(accepted) = clock.accepted.filter(|_| clock.keep_alive > Duration::ZERO) {
            let latest = accepted.max(clock.last_written + clock.keep_alive);
            ensure!(self.now <= latest, "the client was silent from {:?} to {:?}", clock.last_written, self.now);
        }
        clock.last_written = self.now;
        ensure!(self.near.attached, "the client writes to nobody: {out:?}");
        self.with_far(|world, far| world.carry(UP, &mut far.line, out))
    }

    // ---- the client ----

    fn client_steps(&mut self) -> Verdict {
        loop {
            let received = core::mem::take(&mut self.near.received);
            let (mut input, mut out) = (&received[..], Vec::new());
            let event = self.near.machine.handle_input(&mut input, self.now, &mut out).map(Event::Client);
            let (taken, left) = received.split_at(received.len() - input.len());
            self.near.received = left.to_vec();
            self.near.watch.goes_on();
            self.near.watch.step(taken, event.as_ref(), &out)?;
            if frames(taken)?.iter().any(|frame| frame.packet_type() == PacketType::Pingresp) {
                self.near.clock.pinged = None;
            }
            self.client_writes(&out)?;
            let Some(event) = event else { break };
            self.on_client_event(&event)?;
        }
        if self.near.attached { self.near.watch.rests(self.near.machine.session().in_flight()) } else { Ok(()) }
    }

    fn on_client_event(&mut self, event: &Event<'_>) -> Verdict {
        self.note(|| format!("{event:?}"));
        let Event::Client(action) = event else { return Ok(()) };
        match action {
            client::Action::Connected(connack) => {
                self.counts(Count::Connected, true);
                let seconds = connack.properties.server_keep_alive.unwrap_or(self.near.asked_keep_alive);
                self.near.clock.keep_alive = Duration::from_secs(seconds.into());
                self.near.clock.accepted = Some(self.now);
                self.near.temporary = self.near.asked_temporary;
                if !connack.session_present && self.plan.version > Version::V3_1 {
                    self.client_gives_up();
                }
            }
            client::Action::Message(message) => {
                self.counts(Count::Arrived, true);
                let (number, by_hand) = (number(message.payload).ok_or("a message has no number")?, self.plan.manual[UP]);
                ensure!(message.topic_name == topic(number), "message {number} came to {}", message.topic_name);
                self.letters[DOWN].arrives(number, message.qos, by_hand)?;
                self.near.tokens.extend(message.token.filter(|_| by_hand).map(|token| (number, token)));
            }
            client::Action::Published(published) => self.ends(UP, published.key, &published.outcome)?,
            client::Action::Closed(cause) => {
                self.note_close(cause)?;
                self.client_leaves();
            }
            _ => {}
        }
        Ok(())
    }

    fn note_close(&mut self, cause: &CloseCause<'_>) -> Verdict {
        self.counts(Count::Silent, *cause == CloseCause::KeepAliveTimeout);
        self.counts(Count::Unanswered, *cause == CloseCause::ConnectTimeout);
        ensure!(!matches!(cause, CloseCause::Violation(_) | CloseCause::Refused(_)), "no rule was broken: {cause:?}");
        Ok(())
    }

    fn ends(&mut self, direction: usize, key: u64, outcome: &Outcome<'_>) -> Verdict {
        let end = match outcome {
            Outcome::Acknowledged { reason_code, .. } => End::Acknowledged(*reason_code),
            Outcome::Expired => End::Expired,
            Outcome::NotAllowed(_) => End::NotAllowed,
            Outcome::SessionLost(_) => End::Lost,
            other => return Err(format!("{other:?}")),
        };
        match end {
            End::Acknowledged(code) => self.counts(Count::Refused, code.is_error()),
            End::Expired => self.counts(Count::Expired, true),
            End::Lost => self.counts(Count::Lost, true),
            End::NotAllowed => {}
        }
        self.letters[direction].get(key)?.unseen |= direction == DOWN && self.estranged;
        self.letters[direction].ends(key, end, self.now)
    }

    /// The client's session is over: what it has sent is lost, and what it has taken is forgotten.
    fn client_gives_up(&mut self) {
        self.estranged = false;
        self.letters[UP].under_way().for_each(|letter| letter.given_up = true);
        self.letters[DOWN].under_way().for_each(|letter| letter.again = true);
    }

    fn client_leaves(&mut self) {
        let near = &mut self.near;
        near.attached = false;
        near.received.clear();
        near.stale = near.tokens.drain(..).map(|(_, token)| token).collect();
        if let Some(mut far) = self.far.take() {
            self.hang_up(UP, &mut far.line);
            self.far = Some(far);
        }
    }

    fn connect(&mut self) -> Verdict {
        let mut connect = Connect::new(self.plan.version, "c");
        connect.keep_alive = self.plan.keep_alive;
        connect.clean_start = !self.calm && self.random.percent(5);
        if self.plan.version == Version::V5_0 {
            let expiry = self.random.pick(&[u32::MAX, u32::MAX, u32::MAX, u32::MAX, 20, 0]);
            connect.properties.session_expiry_interval = Some(if self.calm { u32::MAX } else { expiry });
            connect.properties.receive_maximum = (!self.calm && self.random.percent(50)).then(|| self.random.small());
            connect.properties.topic_alias_maximum = self.random.pick(&[None, Some(1), Some(10)]);
            connect.properties.maximum_packet_size = (!self.calm && self.random.percent(10)).then_some(60);
        }
        self.note(|| format!("client connects: {connect:?}"));
        // A connection that never came about is dropped; one that has the session lives on until the server notices.
        self.ghost = self.far.take().filter(|far| far.accepted).or_else(|| self.ghost.take());
        let mut line = Line::default();
        if !self.calm {
            line.packets = self.random.percent(40).then(|| self.random.index(30) + 1);
            line.silent = self.random.percent(3);
        }
        self.far = Some(Far {
            machine: Server::new(self.plan.server(), self.now),
            watch: self.plan.watch(DOWN),
            line,
            received: Vec::new(),
            tokens: Vec::new(),
            requests: Vec::new(),
            accepted: false,
            closed: false,
            clock: Clock { opened: self.now, ..Clock::default() },
        });
        if connect.clean_start || self.near.temporary {
            self.client_gives_up();
        }
        let (near, mut out) = (&mut self.near, Vec::new());
        near.clock = Clock { opened: self.now, last_written: self.now, last_heard: self.now, ..Clock::default() };
        // Until it is accepted, it may go on with an older session.
        (near.attached, near.begun, near.temporary) = (true, true, false);
        (near.asked_keep_alive, near.asked_temporary) = (connect.keep_alive, connect.session_expiry_interval() == 0);
        near.watch.reopens();
        near.machine.connect(&connect, self.now, &mut out).map_err(|error| error.to_string())?;
        near.watch.commands(&out)?;
        self.client_writes(&out)
    }

    fn publish(&mut self) -> Verdict {
        let (qos, large) = (self.qos(), self.random.percent(10));
        let expiry = self.random.percent(self.plan.expiring).then(|| self.random.pick(&[0, 1, 2, 10]));
        let number = self.letters[UP].all.len() as u64 + 1;
        let payload = payload(number, large);
        let properties = PublishProperties { message_expiry_interval: expiry, ..PublishProperties::default() };
        let publish = Publish { qos, properties, ..Publish::new(topic(number), &payload) };
        let (queued, mut out) = (self.near.machine.session().queued(), Vec::new());
        let done = self.near.machine.publish(number, &publish, self.now, &mut out);
        self.note(|| format!("client publishes {number} with {qos:?}, {expiry:?}: {done:?}"));
        if let Err(error) = done {
            let full = queued >= self.plan.queue.messages && error == PublishError::QueueFull;
            let right = full || !self.near.begun && error == PublishError::NotConnected;
            ensure!(right && out.is_empty(), "message {number} was refused: {error}");
            return Ok(());
        }
        let expires_at = expiry.map(|seconds| self.now + Duration::from_secs(seconds.into()));
        self.letters[UP].add(qos, large, self.now, expires_at);
        self.near.watch.commands(&out)?;
        self.client_writes(&out)
    }

    fn client_acknowledges(&mut self, index: usize) -> Verdict {
        let (near, mut out) = (&mut self.near, Vec::new());
        if near.tokens.is_empty() {
            let Some(token) = near.stale.pop() else { return Ok(()) };
            let stale = near.machine.acknowledge(token, ReasonCode::SUCCESS, self.now, &mut out);
            ensure!(stale == Err(AcknowledgeError::Stale) && out.is_empty(), "an old token is taken: {stale:?}");
            return Ok(());
        }
        let (number, token) = near.tokens.swap_remove(index % near.tokens.len());
        let code = self.judgement();
        self.note(|| format!("client acknowledges {number} with {code:?}"));
        let near = &mut self.near;
        near.machine.acknowledge(token, code, self.now, &mut out).map_err(|error| error.to_string())?;
        near.watch.acknowledged(token, code)?;
        near.watch.commands(&out)?;
        self.letters[DOWN].takes(number, code)?;
        self.client_writes(&out)
    }

    fn subscribe(&mut self) -> Verdict {
        self.keys += 1;
        let (near, mut out) = (&mut self.near, Vec::new());
        let done = if self.keys % 2 == 0 {
            let filters = [Subscription::new("a", QoS::AtMostOnce), Subscription::new("b", QoS::ExactlyOnce)];
            near.machine.subscribe(self.keys, &filters, SubscribeProperties::default(), self.now, &mut out)
        } else {
            near.machine.unsubscribe(self.keys, &["a".into()], UnsubscribeProperties::default(), self.now, &mut out)
        };
        near.watch.commands(&out)?;
        if done.is_ok() {
            near.watch.requested(self.keys)?;
        }
        self.client_writes(&out)
    }

    fn client_disconnects(&mut self) -> Verdict {
        let mut out = Vec::new();
        if self.near.machine.disconnect(&Disconnect::default(), self.now, &mut out).is_err() {
            return Ok(());
        }
        self.note(|| "client disconnects".into());
        self.near.watch.goes_on();
        self.near.watch.commands(&out)?;
        self.client_writes(&out)?;
        self.near.watch.closes();
        self.client_steps()
    }

    fn client_is_cut(&mut self) -> Verdict {
        let Some(action) = self.near.machine.connection_lost() else { return Ok(()) };
        let event = Event::Client(action);
        self.near.watch.step(&[], Some(&event), &[])?;
        self.on_client_event(&event)
    }

    /// The client ends, or crashes, and begins anew with what it has stored, a little later.
    fn client_restarts(&mut self) -> Verdict {
        self.counts(Count::Stored, true);
        let machine = core::mem::replace(&mut self.near.machine, Client::new(self.plan.client()));
        let crashes = can_be_stored_in_use(&self.near.watch) && !self.near.asked_temporary && self.random.percent(50);
        let bytes = if crashes { machine.session().to_bytes(self.now) } else { machine.into_session().to_bytes(self.now) };
        self.note(|| format!("client restarts, {} bytes are stored", bytes.len()));
        self.near.watch.ends();
        if self.near.attached {
            self.client_leaves();
        }
        let before = self.now;
        self.passes(2_000)?;
        let session = Session::from_bytes(&bytes, self.now, self.now - before).map_err(|error| error.to_string())?;
        self.near.machine = Client::with_session(self.plan.client(), session);
        self.near.begun = false;
        self.near.stale.clear();
        Ok(())
    }

    // ---- the server ----

    fn server_steps(&mut self, far: &mut Far) -> Verdict {
        loop {
            let received = core::mem::take(&mut far.received);
            let (mut input, mut out) = (&received[..], Vec::new());
            let event = far.machine.handle_input(&mut input, self.now, &mut out).map(Event::Server);
            let (taken, left) = received.split_at(received.len() - input.len());
            far.received = left.to_vec();
            far.watch.goes_on();
            far.watch.step(taken, event.as_ref(), &out)?;
            self.carry(DOWN, &mut far.line, &out)?;
            let Some(event) = event else { break };
            self.on_server_event(far, &event)?;
        }
        if far.accepted { far.watch.rests(far.machine.session().in_flight()) } else { Ok(()) }
    }

    fn on_server_event(&mut self, far: &mut Far, event: &Event<'_>) -> Verdict {
        self.note(|| format!("{event:?}"));
        let Event::Server(action) = event else { return Ok(()) };
        match action {
            server::Action::Connect(connect) => self.server_accepts(far, connect)?,
            server::Action::Message(message) => {
                self.counts(Count::Arrived, true);
                let (number, by_hand) = (number(message.payload).ok_or("a message has no number")?, self.plan.manual[DOWN]);
                ensure!(message.topic_name == topic(number), "message {number} came to {}", message.topic_name);
                self.letters[UP].arrives(number, message.qos, by_hand)?;
                far.tokens.extend(message.token.filter(|_| by_hand).map(|token| (number, token)));
            }
            server::Action::Published(published) => self.ends(DOWN, published.key, &published.outcome)?,
            server::Action::Subscribe(request) => {
                let filters = request.subscriptions.iter().count();
                far.requests.push((request.packet_identifier, filters, PacketType::Subscribe));
            }
            server::Action::Unsubscribe(request) => {
                let filters = request.topic_filters.iter().count();
                far.requests.push((request.packet_identifier, filters, PacketType::Unsubscribe));
            }
            server::Action::Closed { cause, publish_will } => {
                let normal = matches!(cause, CloseCause::Disconnected(_));
                ensure!(*publish_will == (far.accepted && !normal), "the will after {cause:?}: {publish_will}");
                self.note_close(cause)?;
                far.closed = true;
                far.received.clear();
                if far.accepted {
                    self.park(far);
                }
                self.hang_up(DOWN, &mut far.line);
            }
            _ => {}
        }
        if event.asks() && self.random.percent(70) { self.server_answers(far) } else { Ok(()) }
    }

    /// The session is kept for the client's next connection.
    fn park(&mut self, far: &mut Far) {
        far.accepted = false;
        far.watch.ends();
        let expiry = far.machine.session_expiry_interval();
        let until = (expiry < u32::MAX).then(|| self.now + Duration::from_secs(expiry.into()));
        let watch = core::mem::replace(&mut far.watch, self.plan.watch(DOWN));
        self.parked = Some(Parked { session: far.machine.take_session(), watch, until });
        self.expire_parked();
    }

    fn expire_parked(&mut self) {
        if self.parked.take_if(|parked| parked.until.is_some_and(|until| until <= self.now)).is_some() {
            self.note(|| "the server drops the session".into());
            // Should the client never learn of it, as when the next CONNACK is lost, it goes on with a session that is another one: it
            // sends again what was taken, and takes what is new for a repeat. By the standard nobody can tell.
            self.estranged = true;
            self.letters[UP].under_way().for_each(|letter| letter.again = true);
            self.server_forgets();
        }
    }

    fn server_forgets(&mut self) {
        let owed = self.letters[DOWN].all.iter_mut().filter(|letter| letter.end.is_none());
        owed.for_each(|letter| letter.dropped = true);
    }

    fn server_accepts(&mut self, far: &mut Far, connect: &Connect<'_>) -> Verdict {
        if let Some(mut ghost) = self.ghost.take() {
            self.note(|| "the server takes the session from an older connection".into());
            self.counts(Count::TakenOver, true);
            self.park(&mut ghost);
        }
        self.expire_parked();
        let mut session = None;
        match self.parked.take() {
            Some(parked) if !connect.clean_start => {
                far.watch.carries_on(parked.watch);
                session = Some(parked.session);
            }
            Some(_) => self.server_forgets(),
            None => {}
        }
        let mut out = Vec::new();
        let accepted = far.machine.accept(&mut session, ConnackProperties::default(), self.now, &mut out);
        accepted.map_err(|error| error.to_string())?;
        far.accepted = true;
        let (asked, most) = (connect.keep_alive, self.plan.maximum_keep_alive);
        let too_long = most > 0 && self.plan.version == Version::V5_0 && (asked == 0 || asked > most);
        far.clock.keep_alive = Duration::from_secs(if too_long { most } else { asked }.into());
        (far.clock.accepted, far.clock.last_heard) = (Some(self.now), self.now);
        far.watch.commands(&out)?;
        self.carry(DOWN, &mut far.line, &out)?;
        self.server_flushes(far)
    }

    fn server_answers(&mut self, far: &mut Far) -> Verdict {
        if far.requests.is_empty() || !far.accepted {
            return Ok(());
        }
        let (identifier, filters, request) = far.requests.swap_remove(self.random.index(far.requests.len()));
        let (codes, mut out) = (vec![ReasonCode::SUCCESS; filters], Vec::new());
        let answered = match request {
            PacketType::Subscribe => far.machine.suback(identifier, &codes, AckProperties::default(), &mut out),
            _ => far.machine.unsuback(identifier, &codes, AckProperties::default(), &mut out),
        };
        answered.map_err(|error| error.to_string())?;
        far.watch.commands(&out)?;
        self.carry(DOWN, &mut far.line, &out)
    }

    fn server_flushes(&mut self, far: &mut Far) -> Verdict {
        let mut out = Vec::new();
        let more = far.machine.flush(self.now, &mut out);
        ensure!(!more, "there is room for more than {} bytes", out.len());
        far.watch.commands(&out)?;
        self.carry(DOWN, &mut far.line, &out)
    }

    /// A message for the client, wherever its session is now.
    fn deliver(&mut self) -> Verdict {
        let (qos, large) = (self.qos(), self.random.percent(10));
        let expiry = self.random.percent(self.plan.expiring).then(|| self.random.pick(&[0, 500, 1_500, 10_000]));
        let expires_at = expiry.map(|milliseconds| self.now + Duration::from_millis(milliseconds));
        let number = self.letters[DOWN].all.len() as u64 + 1;
        let message = Message::new(&Publish { qos, ..Publish::new(topic(number), &payload(number, large)) }).unwrap();
        let outgoing = Outgoing { expires_at, ..Outgoing::new(Some(number), message) };
        let (queue, now) = (self.plan.queue, self.now);
        let live = [&mut self.far, &mut self.ghost].into_iter().flatten().find(|far| far.accepted);
        let (done, queued) = match (live, &mut self.parked) {
            (Some(far), _) => (far.machine.deliver(outgoing, now).is_ok(), far.machine.session().queued()),
            (None, Some(parked)) => (parked.session.enqueue(outgoing, queue, now).is_ok(), parked.session.queued()),
            (None, None) => return Ok(()),
        };
        self.note(|| format!("server delivers {number} with {qos:?}, {expires_at:?}: {done}"));
        ensure!(done || queued >= queue.messages, "message {number} was refused");
        if done {
            self.letters[DOWN].add(qos, large, self.now, expires_at);
        }
        let flush = |world: &mut Self, far: &mut Far| {
            world.server_flushes(far)?;
            world.server_steps(far)
        };
        self.with_far(flush)?;
        self.with_ghost(flush)
    }

    fn server_acknowledges(&mut self, far: &mut Far, index: usize) -> Verdict {
        if far.tokens.is_empty() || !far.accepted {
            return Ok(());
        }
        let (number, token) = far.tokens.swap_remove(index % far.tokens.len());
        let (code, mut out) = (self.judgement(), Vec::new());
        self.note(|| format!("server acknowledges {number} with {code:?}"));
        far.machine.acknowledge(token, code, &mut out).map_err(|error| error.to_string())?;
        far.watch.acknowledged(token, code)?;
        far.watch.commands(&out)?;
        self.letters[UP].takes(number, code)?;
        self.carry(DOWN, &mut far.line, &out)
    }

    fn server_disconnects(&mut self, far: &mut Far) -> Verdict {
        if !far.accepted {
            return Ok(());
        }
        let mut out = Vec::new();
        self.note(|| "server disconnects".into());
        let disconnected = far.machine.disconnect(&Disconnect::new(ReasonCode::SERVER_BUSY), &mut out);
        disconnected.map_err(|error| error.to_string())?;
        far.watch.goes_on();
        far.watch.commands(&out)?;
        far.watch.closes();
        self.carry(DOWN, &mut far.line, &out)?;
        self.server_steps(far)
    }

    fn server_is_cut(&mut self, far: &mut Far) -> Verdict {
        let Some(action) = far.machine.connection_lost() else { return Ok(()) };
        let event = Event::Server(action);
        far.watch.step(&[], Some(&event), &[])?;
        self.on_server_event(far, &event)
    }

    /// The server ends, or crashes, with all its connections, and begins anew with what it has stored, a little later.
    fn server_restarts(&mut self) -> Verdict {
        self.counts(Count::Stored, true);
        self.note(|| "server restarts".into());
        let live = [self.far.take(), self.ghost.take()].into_iter().flatten().find(|far| far.accepted);
        if let Some(mut far) = live {
            let crashes = can_be_stored_in_use(&far.watch) && self.random.percent(50);
            let bytes = far.machine.session().to_bytes(self.now);
            self.park(&mut far);
            if let Some(parked) = self.parked.as_mut().filter(|_| crashes) {
                parked.session = Session::from_bytes(&bytes, self.now, Duration::ZERO).map_err(|error| error.to_string())?;
            }
        }
        self.client_is_cut()?;
        let Some(parked) = self.parked.take() else { return Ok(()) };
        let (bytes, before) = (parked.session.to_bytes(self.now), self.now);
        self.passes(2_000)?;
        let session = Session::from_bytes(&bytes, self.now, self.now - before).map_err(|error| error.to_string())?;
        self.parked = Some(Parked { session, ..parked });
        Ok(())
    }

    // ---- time ----

    /// The machines' deadlines, by what has passed on the line.
    fn check_deadlines(&self) -> Verdict {
        let near = &self.near.clock;
        let expected = match near.accepted {
            _ if !self.near.attached => None,
            None => Some(near.opened + self.plan.connect_timeout[UP]),
            Some(_) => {
                let ping = (near.keep_alive > Duration::ZERO).then(|| near.last_written + near.keep_alive);
                let timeout = self.plan.ping_timeout.unwrap_or(near.keep_alive);
                ping.into_iter().chain(near.pinged.map(|pinged| pinged.max(near.last_heard) + timeout)).min()
            }
        };
        let due = self.near.machine.poll_timeout();
        ensure!(due == expected, "the client's deadline is {due:?}, not {expected:?}");
        for far in [&self.far, &self.ghost].into_iter().flatten() {
            let clock = &far.clock;
            let expected = match clock.accepted {
                _ if far.closed => None,
                None => Some(clock.opened + self.plan.connect_timeout[DOWN]),
                // A server that owes an answer does not read, so it cannot hear.
                _ if clock.keep_alive == Duration::ZERO || far.requests.len() >= self.plan.maximum_requests => None,
                Some(_) => Some(clock.last_heard + clock.keep_alive * 3 / 2),
            };
            let due = far.machine.poll_timeout();
            ensure!(due == expected, "the server's deadline is {due:?}, not {expected:?}");
        }
        Ok(())
    }

    /// Some time passes, and all happens that is to happen in it, in its order.
    fn passes(&mut self, most: u64) -> Verdict {
        let end = self.now + Duration::from_millis(self.random.below(most + 1));
        for _ in 0..100_000 {
            self.check_deadlines()?;
            let arrival = |far: &Option<Far>, direction: usize| {
                far.as_ref().and_then(|far| far.line.chunks[direction].front()).map(|(at, _)| *at)
            };
            let due = |far: &Option<Far>| far.as_ref().and_then(|far| far.machine.poll_timeout());
            let times = [
                arrival(&self.far, UP),
                arrival(&self.far, DOWN),
                arrival(&self.ghost, UP),
                self.near.machine.poll_timeout(),
                due(&self.far),
                due(&self.ghost),
            ];
            let Some(first) = times.iter().flatten().min().filter(|first| **first <= end).copied() else {
                self.now = end;
                self.expire_parked();
                return Ok(());
            };
            self.now = self.now.max(first);
            self.expire_parked();
            let at_once: Vec<_> = (0..times.len()).filter(|index| times[*index] == Some(first)).collect();
            match self.random.pick(&at_once) {
                0 => self.with_far(Self::arrives_at_server)?,
                1 => self.arrives_at_client()?,
                2 => self.with_ghost(Self::arrives_at_server)?,
                3 => self.client_is_due()?,
                4 => self.with_far(Self::server_is_due)?,
                _ => self.with_ghost(Self::server_is_due)?,
            }
        }
        Err(format!("there is no end of things to do at {:?}", self.now))
    }

    /// Lends out the newest connection.
    fn with_far(&mut self, run: impl FnOnce(&mut Self, &mut Far) -> Verdict) -> Verdict {
        let Some(mut far) = self.far.take() else { return Ok(()) };
        let verdict = run(self, &mut far);
        self.far = Some(far);
        verdict
    }

    /// Lends out the older one, which is gone once the server has noticed.
    fn with_ghost(&mut self, run: impl FnOnce(&mut Self, &mut Far) -> Verdict) -> Verdict {
        let Some(mut ghost) = self.ghost.take() else { return Ok(()) };
        let verdict = run(self, &mut ghost);
        self.ghost = Some(ghost).filter(|ghost| ghost.accepted);
        verdict
    }

    fn arrives_at_server(&mut self, far: &mut Far) -> Verdict {
        match far.line.chunks[UP].pop_front() {
            _ if far.closed => Ok(()),
            Some((_, Some(bytes))) => {
                far.received.extend_from_slice(&bytes);
                far.clock.last_heard = self.now;
                self.server_steps(far)
            }
            _ => self.server_is_cut(far),
        }
    }

    fn arrives_at_client(&mut self) -> Verdict {
        match self.far.as_mut().and_then(|far| far.line.chunks[DOWN].pop_front()) {
            _ if !self.near.attached => Ok(()),
            Some((_, Some(bytes))) => {
                self.near.received.extend_from_slice(&bytes);
                self.near.clock.last_heard = self.now;
                self.client_steps()
            }
            _ => self.client_is_cut(),
        }
    }

    fn client_is_due(&mut self) -> Verdict {
        let mut out = Vec::new();
        let event = self.near.machine.handle_timeout(self.now, &mut out).map(Event::Client);
        let pings = event.is_none() && out == [0xC0, 0x00];
        ensure!(pings || is_timeout(event.as_ref()), "nothing was due: {event:?} {out:?}");
        self.near.watch.step(&[], event.as_ref(), &out)?;
        self.client_writes(&out)?;
        event.map_or(Ok(()), |event| self.on_client_event(&event))
    }

    fn server_is_due(&mut self, far: &mut Far) -> Verdict {
        let mut out = Vec::new();
        let event = far.machine.handle_timeout(self.now, &mut out).map(Event::Server);
        ensure!(is_timeout(event.as_ref()), "nothing was due: {event:?}");
        far.watch.step(&[], event.as_ref(), &out)?;
        self.carry(DOWN, &mut far.line, &out)?;
        event.map_or(Ok(()), |event| self.on_server_event(far, &event))
    }

    // ---- what happens ----

    fn qos(&mut self) -> QoS {
        self.random.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
    }

    /// What an application that acknowledges by hand says of a message.
    fn judgement(&mut self) -> ReasonCode {
        let refuses = self.plan.version == Version::V5_0 && !self.calm && self.random.percent(15);
        if refuses { self.random.pick(&[ReasonCode::QUOTA_EXCEEDED, ReasonCode::NOT_AUTHORIZED]) } else { ReasonCode::SUCCESS }
    }

    fn happens(&mut self) -> Verdict {
        let index = self.random.index(100);
        match self.random.below(100) {
            0..25 => self.publish(),
            25..50 => self.deliver(),
            50..60 => self.client_acknowledges(index),
            60..70 => self.with_far(|world, far| world.server_acknowledges(far, index)),
            70..74 => self.subscribe(),
            74..77 => self.with_far(|world, far| {
                world.server_answers(far)?;
                world.server_steps(far)
            }),
            77..79 if self.near.attached => self.breaks(),
            79 => self.client_disconnects(),
            80 => self.with_far(Self::server_disconnects),
            81 if self.random.percent(self.plan.storing) => self.client_restarts(),
            82 if self.random.percent(self.plan.storing) => self.server_restarts(),
            83..100 if !self.near.attached => self.connect(),
            _ => Ok(()),
        }
    }

    /// The line breaks: one side, both or none are told.
    fn breaks(&mut self) -> Verdict {
        self.counts(Count::Broken, true);
        if let Some(far) = &mut self.far {
            far.line = Line { silent: true, ..Line::default() };
        }
        let told = self.random.index(4);
        self.note(|| format!("the line breaks, and {} know", ["both", "the client's", "the server's", "none"][told]));
        if told == 0 || told == 2 {
            self.with_far(Self::server_is_cut)?;
        }
        if told < 2 { self.client_is_cut() } else { Ok(()) }
    }

    /// All that is owed is done.
    fn settle(&mut self) -> Verdict {
        self.calm = true;
        let slowest = core::mem::take(&mut self.plan.delay) + 1;
        if self.far.as_ref().is_some_and(|far| far.line.silent || far.line.packets.is_some() || far.closed) {
            self.client_is_cut()?;
        }
        for _ in 0..200 {
            if !self.near.attached {
                self.connect()?;
            }
            self.passes(slowest)?;
            while !self.near.tokens.is_empty() {
                self.client_acknowledges(0)?;
            }
            self.with_far(|world, far| {
                while !far.tokens.is_empty() && far.accepted {
                    world.server_acknowledges(far, 0)?;
                }
                while !far.requests.is_empty() && far.accepted {
                    world.server_answers(far)?;
                }
                world.server_steps(far)
            })?;
            if !self.letters.iter().any(Letters::are_owed) {
                break;
            }
        }
        self.letters.iter().try_for_each(Letters::check)
    }

    fn run(&mut self) -> Verdict {
        self.connect()?;
        for _ in 0..80 {
            self.happens()?;
            let most = self.random.pick(&[0, 0, 20, 200, 1_500]);
            self.passes(most)?;
        }
        self.settle()
    }
}

fn is_timeout(event: Option<&Event<'_>>) -> bool {
    matches!(event.and_then(Event::closed), Some(CloseCause::KeepAliveTimeout | CloseCause::ConnectTimeout))
}

/// Whether nothing is amiss when a session is stored while it has a connection: what was acknowledged by hand, out of turn, is
/// known to the connection alone.
fn can_be_stored_in_use(watch: &Watch) -> bool {
    !watch.is_out_of_turn()
}

/// The session with 65,533 as its next identifier.
fn aged(session: &Session) -> Session {
    let mut bytes = session.to_bytes(Instant::default());
    bytes[5..7].copy_from_slice(&65_533_u16.to_be_bytes());
    Session::from_bytes(&bytes, Instant::default(), Duration::ZERO).unwrap()
}

/// A few topics, each of which comes again.
fn topic(number: u64) -> &'static str {
    TOPICS[number as usize % TOPICS.len()]
}

const TOPICS: [&str; 3] = ["a", "b", "c/d"];

fn payload(number: u64, large: bool) -> Vec<u8> {
    let mut payload = number.to_string().into_bytes();
    payload.resize(if large { 100 } else { payload.len() }, b' ');
    payload
}

/// A packet, for the log.
fn in_short(packet: &Packet<'_>) -> String {
    match packet {
        Packet::Publish(publish) => {
            let (number, dup) = (number(publish.payload).unwrap_or(0), if publish.dup { ", again" } else { "" });
            format!("PUBLISH {number} with {:?} as {:?}{dup}", publish.qos, publish.packet_identifier)
        }
        packet => format!("{packet:?}"),
    }
}

fn run(seed: u64, log: bool) -> (Verdict, World) {
    let mut world = World::new(seed, log);
    let verdict = world.run();
    (verdict, world)
}

#[test]
fn each_message_arrives_as_its_qos_promises_whatever_breaks() {
    let number = |name| std::env::var(name).ok().and_then(|value: String| value.parse::<u64>().ok());
    if let Some(seed) = number("SEED") {
        let (verdict, world) = run(seed, true);
        println!("{}\n{:?}\n{verdict:?}", world.log.unwrap().join("\n"), world.tally);
        return;
    }
    let seeds = number("SEEDS").unwrap_or(10_000);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let run_some = |first: u64| -> Result<Tally, String> {
        let mut tally = Tally::default();
        for seed in (first..seeds).step_by(threads) {
            let (verdict, world) = std::panic::catch_unwind(|| run(seed, false)).map_err(|_| format!("seed {seed} panics"))?;
            if let Err(wrong) = verdict {
                let log = run(seed, true).1.log.unwrap_or_default();
                return Err(format!("seed {seed}: {wrong}\n{}", log[log.len().saturating_sub(40)..].join("\n")));
            }
            tally.iter_mut().zip(world.tally).for_each(|(all, one)| *all += one);
        }
        Ok(tally)
    };
    let tallies: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|first| scope.spawn(move || run_some(first as u64))).collect();
        running.into_iter().map(|thread| thread.join().unwrap().unwrap_or_else(|wrong| panic!("{wrong}"))).collect()
    });
    for (index, (what, least)) in EVENTS.into_iter().enumerate() {
        let count: u64 = tallies.iter().map(|tally| tally[index]).sum();
        println!("{what}: {count}");
        assert!(seeds < 1_000 || count * 1_000 >= least * seeds, "{what}: {count} in {seeds} runs");
    }
}
