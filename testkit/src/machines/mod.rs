//! The properties that the fuzz targets `client` and `server` check. Arbitrary data becomes a
//! series of operations on one machine: packets of a peer that follows the rules or not, commands
//! of the host in any order, and time. `tests/it/corpus.rs` runs it as an ordinary test.
//!
//! [`Watch`] judges the output. This module checks the promises to the host: each message ends
//! once, a closed connection is silent, memory grows only with the input, and every loop ends.

mod client_end;
mod draw;
mod server_end;

use crate::watch::{self, Event, Kept, Phase, Watch};
use arbitrary::Unstructured;
use core::time::Duration;
use draw::{Draw, Operation, Setup};
use mqtt_sansio::Instant;
use mqtt_sansio::client::{self, Client};
use mqtt_sansio::codec::{PacketIdentifier, Publish, QoS, ReasonCode, Role, Version};
use mqtt_sansio::server::{RequestToken, Server};
use mqtt_sansio::session::{AckToken, AcknowledgeError, Message, Outcome, Session};
use std::collections::BTreeMap;

/// Counts of events, so that a test can check that they occur.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub operations: usize,
    pub connections: usize,
    pub received: usize,
    pub acknowledged: usize,
    pub sent_again: usize,
    pub expired: usize,
    pub not_allowed: usize,
    pub lost: usize,
    pub requests: usize,
    pub violations: usize,
    pub timeouts: usize,
    pub stored: usize,
}

/// Runs operations on a client.
pub fn client(data: &[u8], tally: &mut Tally) {
    run::<Client>(data, tally);
}

/// Runs operations on the server's end of one connection after another.
pub fn server(data: &[u8], tally: &mut Tally) {
    run::<Server>(data, tally);
}

/// Seeds for the fuzzer: each asks for all operations in turn, from a different one on, with little
/// and with much data in each.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for first in 0..=32 {
        for (setup, step) in [(0, 1), (0, 7), (0, 37), (1, 101), (1, 5), (2, 11)] {
            let operations = (0_u32..300).map(|index| (first + index * step) as u8);
            seeds.push([setup; SETUP].into_iter().chain(operations).collect());
        }
    }
    seeds
}

/// The number of bytes that [`Setup::draw`] uses.
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
    // A second run with divided input must agree, unless so much waits that the output is limited.
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
trait Machine: Sized {
    const ROLE: Role;

    fn new(setup: &Setup) -> Self;
    fn input<'i>(
        &mut self,
        input: &mut &'i [u8],
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Option<Event<'i>>;
    fn timeout(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<Event<'static>>;
    fn lost(&mut self) -> Option<Event<'static>>;
    fn due(&self) -> Option<Instant>;
    fn session(&self) -> &Session;
    fn takes_input(&self) -> bool;
    fn progress(&mut self, now: Instant);
    fn acknowledge(
        &mut self,
        token: AckToken,
        code: ReasonCode,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<(), AcknowledgeError>;
    /// Returns the version of the next packet, if only the machine knows it.
    fn version(&self) -> Option<Version>;

    fn draw<'a>(host: &Host<Self>, draw: &mut Draw<'a>) -> Operation<'a>;
    /// Runs an operation that only this role has.
    fn operate(host: &mut Host<Self>, operation: &Operation<'_>, number: u64);
    /// Records that the host got the end of the connection.
    fn closed(host: &mut Host<Self>, event: &Event<'_>);
    /// Reacts at once to another event.
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
    /// Input that was not consumed.
    received: Vec<u8>,
    piece: usize,
    /// There is no connection, or it has ended.
    over: bool,
    /// The host has ended the connection, and has not got the report yet.
    closing: bool,
    /// Messages with QoS 1 and 2 that have not ended, with the largest size that each may keep.
    live: BTreeMap<u64, usize>,
    longest_topic: usize,
    tokens: Vec<AckToken>,
    /// The last request of a client with each identifier.
    requests: BTreeMap<PacketIdentifier, RequestToken>,
    /// How often the host was asked.
    asked: usize,
    /// A server's session while there is no connection, with the account of it.
    parked: Option<(Session, Kept)>,
    accepted: bool,
    /// The number of messages and requests so far, each of which may have used an identifier.
    given: usize,
    wrote_much: bool,
    /// The events and the output of each operation.
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
            requests: BTreeMap::new(),
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
                assert_eq!(event.is_some(), !self.over, "the end is reported once");
                self.judge(&[], event.as_ref(), &[]);
            }
            Operation::Acknowledge { index, code } => self.acknowledge(*index, *code),
            Operation::Store { milliseconds, changed } => self.store(*milliseconds, *changed),
            _ => M::operate(self, operation, number),
        }
        self.check();
    }

    /// Takes all steps that the input allows.
    fn take_steps(&mut self) {
        loop {
            let received = core::mem::take(&mut self.received);
            let (wanted, held) = (self.machine.takes_input(), self.held());
            let (mut input, mut out) = (&received[..], Vec::new());
            let event = self.machine.input(&mut input, self.now, &mut out);
            let taken = received.len() - input.len();
            assert!(core::ptr::eq(&received[taken..], input), "input is consumed from its front");
            assert!(wanted || taken == 0, "input is not consumed when it is not wanted");
            assert!(
                out.len() <= 64 + 4 * taken + held,
                "{} bytes are written for {taken} consumed and {held} queued",
                out.len()
            );
            // Each step consumes input or ends something for good, so the loop ends.
            let ended =
                event.as_ref().is_none_or(|event| event.published().is_some() || event.is_last());
            assert!(taken > 0 || ended, "{event:?} without input");
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

    /// Returns the largest output that the present state can cause.
    fn held(&self) -> usize {
        2 * self.machine.session().to_bytes(self.now).len() + 8 * self.watch.waiting()
    }

    fn look_at_the_clock(&mut self) {
        for _ in 0..3 + self.watch.own_requests() {
            let due = self.machine.due();
            let (before, mut out) = (self.closing, Vec::new());
            let event = self.machine.timeout(self.now, &mut out);
            assert!(out.len() <= 64, "{} bytes are written by a timeout", out.len());
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
        let Some(token) = self.tokens.get(index % self.tokens.len().max(1)).copied() else {
            return;
        };
        let (mut out, bound) = (Vec::new(), 64 + self.held());
        if self.machine.acknowledge(token, code, self.now, &mut out).is_ok() {
            self.watch.acknowledged(token, code).unwrap();
        } else {
            assert!(out.is_empty());
        }
        assert!(out.len() <= bound);
        self.judge(&[], None, &out);
    }

    /// Judges the effects of a call.
    fn judge(&mut self, read: &[u8], event: Option<&Event<'_>>, out: &[u8]) {
        if self.over {
            assert!(event.is_none() && out.is_empty(), "{event:?} after the end");
        }
        if self.closing {
            assert!(
                out.is_empty() && event.is_none_or(Event::is_last),
                "{event:?} after the last packet"
            );
        }
        if let Some(version) = self.machine.version().filter(|_| self.watch.phase == Phase::Before)
        {
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
            self.tally.violations +=
                usize::from(matches!(cause, mqtt_sansio::session::CloseCause::Violation(_)));
            (self.over, self.closing) = (true, false);
            self.received.clear();
            M::closed(self, event);
        }
    }

    fn ended(&mut self, key: u64, outcome: &Outcome<'_>) {
        if self.watch.kept.unknown {
            return;
        }
        assert!(
            self.live.remove(&key).is_some(),
            "message {key} has a second outcome: {outcome:?}"
        );
        *match outcome {
            Outcome::Acknowledged { .. } => &mut self.tally.acknowledged,
            Outcome::Expired => &mut self.tally.expired,
            Outcome::NotAllowed(message) => {
                assert_eq!(watch::number(message.payload()), Some(key));
                &mut self.tally.not_allowed
            }
            Outcome::SessionLost(message) => {
                assert!(
                    message
                        .as_ref()
                        .is_none_or(|message| watch::number(message.payload()) == Some(key))
                );
                &mut self.tally.lost
            }
            other => panic!("{other:?}"),
        } += 1;
    }

    /// Checks the invariants of the session.
    fn check(&self) {
        let session =
            self.parked.as_ref().map_or_else(|| self.machine.session(), |(session, _)| session);
        if self.watch.kept.unknown || self.parked.as_ref().is_some_and(|(_, kept)| kept.unknown) {
            return;
        }
        let (queued, bytes) = (session.queued(), session.queued_bytes());
        assert!(queued <= self.setup.queue.messages.max(1), "{queued} messages are queued");
        assert!(bytes <= self.setup.queue.bytes || queued == 1, "{bytes} bytes are queued");
        assert!(self.watch.requests() <= self.setup.maximum_requests);
        let taken = self.watch.taken() + self.parked.as_ref().map_or(0, |(_, kept)| kept.taken());
        let live: usize = self.live.values().sum();
        // A server can assign an identifier of any length.
        let name = session.client_identifier().map_or(0, str::len);
        let bound = 64 + name + live + bytes + 64 * queued + self.given + 2 * taken;
        let stored = session.to_bytes(self.now).len();
        assert!(
            stored <= bound,
            "a session of {stored} bytes, from {live} of messages, {taken} identifiers, \
             {queued} queued"
        );
    }

    /// Stores and loads the session: nothing is lost, and a session in use is stored as if
    /// disconnected.
    fn store(&mut self, milliseconds: u64, changed: Option<(usize, u8)>) {
        let in_use = self.machine.session().to_bytes(self.now);
        let in_turn = !self.watch.is_out_of_turn();
        let used = !self.over && (M::ROLE == Role::Client || self.accepted);
        let Some(session) = M::unload(self) else { return };
        let mut bytes = session.to_bytes(self.now);
        let again = |bytes: &[u8]| {
            Session::from_bytes(bytes, self.now, Duration::ZERO)
                .expect("the stored session loads")
                .to_bytes(self.now)
        };
        assert_eq!(again(&bytes), bytes);
        if used && in_turn {
            assert_eq!(again(&in_use)[5..], bytes[5..], "the session as if disconnected");
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
        let session = if changed.is_some() {
            loaded.unwrap_or_default()
        } else {
            loaded.expect("the stored session loads")
        };
        M::load(self, session);
        self.tally.stored += 1;
    }

    /// Checks that each message has ended or is in the session.
    fn finish(&mut self) {
        let unknown =
            self.watch.kept.unknown || self.parked.as_ref().is_some_and(|(_, kept)| kept.unknown);
        let Some(mut session) = M::unload(self) else { return };
        while let Some(published) = session.next_completed() {
            if !unknown {
                self.ended(published.key, &published.outcome);
            }
        }
        if !unknown {
            let kept = session.in_flight() + session.queued();
            assert!(
                self.live.len() <= kept && kept <= self.live.len() + self.given,
                "{kept} of {} are kept",
                self.live.len()
            );
        }
    }

    /// Records a message that was accepted for sending.
    fn given(&mut self, number: u64, publish: &Publish<'_>) {
        self.given += 1;
        if publish.qos > QoS::AtMostOnce {
            // An alias can stand for any earlier topic.
            self.longest_topic = self.longest_topic.max(publish.topic_name.as_bytes().len());
            let message = Message::new(&Publish { topic_name: "t".into(), ..*publish })
                .expect("only a valid message is accepted");
            self.live.insert(number, message.size() + self.longest_topic + 64);
        }
    }
}

/// The output of a server is at least that long when it is limited.
const HIGH_WATER: usize = 64 * 1024;

fn payload(number: u64, publish: &Publish<'_>, padding: usize) -> Vec<u8> {
    let mut payload = format!("{number} ").into_bytes();
    payload.extend_from_slice(publish.payload);
    payload.resize(payload.len() + padding, b'x');
    payload
}
