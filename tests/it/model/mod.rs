//! A client and a server machine on one clock, with a connection that delays, splits and breaks,
//! and hosts that store their sessions and crash. The model checks the promises of the standard:
//! QoS 0 at most once, QoS 1 at least once, QoS 2 exactly once, each in order, each message with
//! one outcome, and every deadline met to the millisecond. [`Watch`] reads all bytes of the
//! connection.
//!
//! `SEED=n cargo test --test it model` replays a seed with its log, `SEEDS=n` runs that many seeds.

mod far;
mod letters;
mod near;

use core::time::Duration;
use letters::Letters;
use mqtt_sansio::Instant;
use mqtt_sansio::client::{Client, ClientConfig};
use mqtt_sansio::codec::{
    Options, Packet, PacketType, QoS, ReasonCode, Role, Rules, Version, decode,
};
use mqtt_sansio::server::{RequestToken, Server, ServerConfig};
use mqtt_sansio::session::{AckToken, CloseCause, QueueLimit, Session};
use std::collections::VecDeque;
use testkit::random::Random;
use testkit::watch::{Configured, Event, Verdict, Watch, ensure, frames, number};
use testkit::wire::VERSIONS;

/// The direction from the client to the server, and back. Arrays of both sides have the same order.
const UP: usize = 0;
const DOWN: usize = 1;

/// The choices of a seed for a whole run.
#[derive(Clone, Debug)]
struct Plan {
    version: Version,
    /// Whether a side acknowledges manually.
    manual: [bool; 2],
    /// The largest number of messages that a side has in flight.
    in_flight: [u16; 2],
    receive_maximum: u16,
    maximum_requests: usize,
    queue: QueueLimit,
    /// The number of topics to which a side assigns an alias.
    aliases: [u16; 2],
    /// In seconds.
    keep_alive: u16,
    maximum_keep_alive: u16,
    ping_timeout: Option<Duration>,
    connect_timeout: [Duration; 2],
    /// The longest delay of a chunk in milliseconds.
    delay: u64,
    /// The percentage of messages that expire.
    expiring: u64,
    /// The percentage of opportunities at which a side is stored and loaded.
    storing: u64,
    /// Whether both sides start with an older session, whose next identifier is nearly the last.
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
            queue: QueueLimit {
                messages: random.pick(&[1_000, 1_000, 1_000, 5]),
                bytes: 1_000_000,
            },
            aliases: [random.pick(&[0, 0, 2]), random.pick(&[0, 0, 2])],
            keep_alive: random.pick(&[0, 0, 1, 2, 5]),
            maximum_keep_alive: random.pick(&[0, 0, 3]),
            ping_timeout: random.pick(&[None, Some(milliseconds(700)), Some(milliseconds(4_000))]),
            connect_timeout: [
                milliseconds(random.pick(&[30_000, 1_500])),
                milliseconds(random.pick(&[10_000, 1_200])),
            ],
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

// ---- the two ends ----

/// Bytes that were sent on a connection, and have not arrived. `None` is the end of the transport.
#[derive(Default)]
struct Line {
    chunks: [VecDeque<(Instant, Option<Vec<u8>>)>; 2],
    /// Whether nothing more is carried.
    silent: bool,
    /// The number of packets that are still carried.
    packets: Option<usize>,
}

/// The values from which the deadlines of a side follow.
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
    /// Tokens of connections that have ended.
    stale: Vec<AckToken>,
    attached: bool,
    clock: Clock,
    asked_keep_alive: u16,
    /// Whether it has asked for a session that ends with the connection.
    asked_temporary: bool,
    /// Whether it has no session that the server could have.
    temporary: bool,
    /// Whether this machine has started a connection, so that it knows the version.
    begun: bool,
}

/// The server's end of a connection, its host, and the connection itself.
struct Far {
    machine: Server,
    watch: Watch,
    line: Line,
    received: Vec<u8>,
    tokens: Vec<(u64, AckToken)>,
    /// SUBSCRIBE and UNSUBSCRIBE packets that wait for an answer, with the number of their filters.
    requests: Vec<(RequestToken, usize, PacketType)>,
    /// Whether it has the session.
    accepted: bool,
    closed: bool,
    clock: Clock,
}

/// A session of the server without a connection.
struct Parked {
    session: Session,
    watch: Watch,
    until: Option<Instant>,
}

/// The events of a run, and how often each must occur in a thousand runs. A run without events
/// would find nothing.
const EVENTS: [(&str, u64); 12] = [
    ("messages arrived", 15_000),
    ("connections", 2_000),
    ("packets resent", 2_000),
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
    /// An older connection that the server does not yet know to be broken.
    ghost: Option<Far>,
    parked: Option<Parked>,
    letters: [Letters; 2],
    log: Option<Vec<String>>,
    /// The end of the run, in which nothing breaks.
    calm: bool,
    /// The server has dropped a session, perhaps without the client's knowledge.
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
        let parked = plan.old.then(|| Parked {
            session: aged(&Session::new()),
            watch: plan.watch(DOWN),
            until: None,
        });
        let log = log.then(|| vec![format!("{plan:?}")]);
        let (now, far, ghost, letters) =
            (Instant::from_millis(1_000), None, None, Default::default());
        let (calm, estranged, keys, tally) = (false, false, 0, Tally::default());
        Self {
            random,
            plan,
            now,
            near,
            far,
            ghost,
            parked,
            letters,
            log,
            calm,
            estranged,
            keys,
            tally,
        }
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

    // ---- the connection ----

    /// Checks the output of a side, and puts it on the connection.
    fn carry(&mut self, direction: usize, line: &mut Line, out: &[u8]) -> Verdict {
        let mut carried = 0;
        for frame in frames(out)? {
            let packet = decode(frame, Rules::new(self.plan.version).sent_by(ROLES[direction]));
            let packet = packet.map_err(|error| error.to_string())?;
            self.note(|| {
                format!("{} {}", ["client writes", "server writes"][direction], in_short(&packet))
            });
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
            let size = if self.random.percent(70) {
                bytes.len()
            } else {
                1 + self.random.index(bytes.len())
            };
            let (chunk, rest) = bytes.split_at(size);
            self.schedule(direction, line, Some(chunk.to_vec()));
            bytes = rest;
        }
        if line.packets == Some(0) {
            self.note(|| "the connection breaks".into());
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

    /// Closes the transport of a side. The other is notified, or must find out.
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
            ensure!(
                self.now <= latest,
                "the client was silent from {:?} to {:?}",
                clock.last_written,
                self.now
            );
        }
        clock.last_written = self.now;
        ensure!(self.near.attached, "the client writes without a connection: {out:?}");
        self.with_far(|world, far| world.carry(UP, &mut far.line, out))
    }

    // ---- time ----

    /// Checks the machines' deadlines against the bytes of the connection.
    fn check_deadlines(&self) -> Verdict {
        let near = &self.near.clock;
        let expected = match near.accepted {
            _ if !self.near.attached => None,
            None => Some(near.opened + self.plan.connect_timeout[UP]),
            Some(_) => {
                let since = match near.pinged {
                    Some(_) => near.last_written,
                    None => near.last_written.min(near.last_heard),
                };
                let ping = (near.keep_alive > Duration::ZERO).then(|| since + near.keep_alive);
                let timeout = self.plan.ping_timeout.unwrap_or(near.keep_alive);
                ping.into_iter()
                    .chain(near.pinged.map(|pinged| pinged.max(near.last_heard) + timeout))
                    .min()
            }
        };
        let due = self.near.machine.poll_timeout();
        ensure!(due == expected, "the client's deadline is {due:?}, not {expected:?}");
        for far in [&self.far, &self.ghost].into_iter().flatten() {
            let clock = &far.clock;
            let expected = match clock.accepted {
                _ if far.closed => None,
                None => Some(clock.opened + self.plan.connect_timeout[DOWN]),
                // A server that owes an answer does not read, so it cannot notice activity.
                _ if clock.keep_alive == Duration::ZERO
                    || far.requests.len() >= self.plan.maximum_requests =>
                {
                    None
                }
                Some(_) => Some(clock.last_heard + clock.keep_alive * 3 / 2),
            };
            let due = far.machine.poll_timeout();
            ensure!(due == expected, "the server's deadline is {due:?}, not {expected:?}");
        }
        Ok(())
    }

    /// Lets time pass, and runs all events that are due in it, in order.
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
            let Some(first) = times.iter().flatten().min().filter(|first| **first <= end).copied()
            else {
                self.now = end;
                self.expire_parked();
                return Ok(());
            };
            self.now = self.now.max(first);
            self.expire_parked();
            let at_once: Vec<_> =
                (0..times.len()).filter(|index| times[*index] == Some(first)).collect();
            match self.random.pick(&at_once) {
                0 => self.with_far(Self::arrives_at_server)?,
                1 => self.arrives_at_client()?,
                2 => self.with_ghost(Self::arrives_at_server)?,
                3 => self.client_is_due()?,
                4 => self.with_far(Self::server_is_due)?,
                _ => self.with_ghost(Self::server_is_due)?,
            }
        }
        Err(format!("the deadline at {:?} is never reached", self.now))
    }

    /// Lends out the newest connection.
    fn with_far(&mut self, run: impl FnOnce(&mut Self, &mut Far) -> Verdict) -> Verdict {
        let Some(mut far) = self.far.take() else { return Ok(()) };
        let verdict = run(self, &mut far);
        self.far = Some(far);
        verdict
    }

    /// Lends out the older connection, which is dropped once the server has noticed.
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
        let mut event = self.near.machine.handle_timeout(self.now, &mut out).map(Event::Client);
        // Unanswered requests are reported first.
        while let Some(lost) = event.take_if(|event| event.request_lost().is_some()) {
            self.near.watch.step(&[], Some(&lost), &[])?;
            self.on_client_event(&lost)?;
            event = self.near.machine.handle_timeout(self.now, &mut out).map(Event::Client);
        }
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

    // ---- events ----

    fn qos(&mut self) -> QoS {
        self.random.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
    }

    /// Chooses how an application acknowledges a message manually, and the code that results:
    /// before 5.0 it cannot refuse.
    fn judgement(&mut self) -> (ReasonCode, ReasonCode) {
        let refuses = !self.calm && self.random.percent(15);
        let code = if refuses {
            self.random.pick(&[ReasonCode::QUOTA_EXCEEDED, ReasonCode::NOT_AUTHORIZED])
        } else {
            ReasonCode::SUCCESS
        };
        (code, if self.plan.version == Version::V5_0 { code } else { ReasonCode::SUCCESS })
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

    /// Breaks the connection. One side, both or none are notified.
    fn breaks(&mut self) -> Verdict {
        self.counts(Count::Broken, true);
        if let Some(far) = &mut self.far {
            far.line = Line { silent: true, ..Line::default() };
        }
        let told = self.random.index(4);
        self.note(|| {
            format!(
                "the connection breaks, and {} know",
                ["both", "the client's", "the server's", "none"][told]
            )
        });
        if told == 0 || told == 2 {
            self.with_far(Self::server_is_cut)?;
        }
        if told < 2 { self.client_is_cut() } else { Ok(()) }
    }

    /// Completes everything that is pending.
    fn settle(&mut self) -> Verdict {
        self.calm = true;
        let slowest = core::mem::take(&mut self.plan.delay) + 1;
        if self
            .far
            .as_ref()
            .is_some_and(|far| far.line.silent || far.line.packets.is_some() || far.closed)
        {
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
    matches!(
        event.and_then(Event::closed),
        Some(CloseCause::KeepAliveTimeout | CloseCause::ConnectTimeout)
    )
}

/// Whether a session can be stored exactly while it has a connection. Manual acknowledgements out
/// of order are known to the connection only.
fn can_be_stored_in_use(watch: &Watch) -> bool {
    !watch.is_out_of_turn()
}

/// Returns the session with 65,533 as its next identifier.
fn aged(session: &Session) -> Session {
    let mut bytes = session.to_bytes(Instant::default());
    bytes[5..7].copy_from_slice(&65_533_u16.to_be_bytes());
    Session::from_bytes(&bytes, Instant::default(), Duration::ZERO).unwrap()
}

/// Returns one of a few topics, each of which recurs.
fn topic(number: u64) -> &'static str {
    TOPICS[number as usize % TOPICS.len()]
}

const TOPICS: [&str; 3] = ["a", "b", "c/d"];

fn payload(number: u64, large: bool) -> Vec<u8> {
    let mut payload = number.to_string().into_bytes();
    payload.resize(if large { 100 } else { payload.len() }, b' ');
    payload
}

/// Describes a packet, for the log.
fn in_short(packet: &Packet<'_>) -> String {
    match packet {
        Packet::Publish(publish) => {
            let (number, dup) =
                (number(publish.payload).unwrap_or(0), if publish.dup { ", again" } else { "" });
            format!(
                "PUBLISH {number} with {:?} as {:?}{dup}",
                publish.qos, publish.packet_identifier
            )
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
fn messages_arrive_as_their_qos_promises_whatever_breaks() {
    let number =
        |name| std::env::var(name).ok().and_then(|value: String| value.parse::<u64>().ok());
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
            let (verdict, world) = std::panic::catch_unwind(|| run(seed, false))
                .map_err(|_| format!("seed {seed} panics"))?;
            if let Err(wrong) = verdict {
                let log = run(seed, true).1.log.unwrap_or_default();
                return Err(format!(
                    "seed {seed}: {wrong}\n{}",
                    log[log.len().saturating_sub(40)..].join("\n")
                ));
            }
            tally.iter_mut().zip(world.tally).for_each(|(all, one)| *all += one);
        }
        Ok(tally)
    };
    let tallies: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> =
            (0..threads).map(|first| scope.spawn(move || run_some(first as u64))).collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap().unwrap_or_else(|wrong| panic!("{wrong}")))
            .collect()
    });
    for (index, (what, least)) in EVENTS.into_iter().enumerate() {
        let count: u64 = tallies.iter().map(|tally| tally[index]).sum();
        println!("{what}: {count}");
        assert!(seeds < 1_000 || count * 1_000 >= least * seeds, "{what}: {count} in {seeds} runs");
    }
}
