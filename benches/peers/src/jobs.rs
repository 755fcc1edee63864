//! The cases of the machines: the work for one message. A machine is timed only after a check that
//! it does the work.

use crate::cases::{PAYLOAD, Random, TOPIC, no_properties, packet, string};
use crate::machine::{Host, Machine};
use crate::measure::{Bench, Cost, timed};
use mqtt_sansio::codec::{self, QoS, Rules, Version};
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// One measurement.
pub struct Case {
    pub name: String,
    pub version: Version,
    pub side: Side,
    pub task: Task,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
    /// A client that sends to a server.
    Pair,
}

/// The work for one message, up to its last acknowledgement.
#[derive(Clone, Copy)]
pub enum Task {
    Receive(QoS),
    Send(QoS),
    /// Keeps this many QoS 1 messages in flight: sends one for each that is acknowledged.
    Keep {
        in_flight: u16,
        shuffled: bool,
    },
}

/// The prefix of the names of the cases of [`Side::Pair`].
pub const PAIR: &str = "client to server";

const LEVELS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

/// Returns each case, in the order of the table.
pub fn all() -> Vec<Case> {
    const VERSIONS: [(Version, &str); 2] = [(Version::V3_1_1, "v4"), (Version::V5_0, "v5")];
    const SIDES: [(Side, &str); 2] = [(Side::Client, "client"), (Side::Server, "server")];
    let mut cases = Vec::new();
    let mut add = |what: &str, side: Side, task: fn(QoS) -> Task| {
        for (version, level) in VERSIONS {
            cases.extend(LEVELS.map(|qos| Case {
                name: format!("{what}: {level} QoS {}", qos.as_u8()),
                version,
                side,
                task: task(qos),
            }));
        }
    };
    for (side, name) in SIDES {
        add(&format!("{name} receives"), side, Task::Receive);
        add(&format!("{name} sends"), side, Task::Send);
    }
    add(PAIR, Side::Pair, Task::Send);
    for (side, name) in SIDES {
        for (version, level) in VERSIONS {
            for (shuffled, order) in [(false, "oldest first"), (true, "shuffled")] {
                cases.extend([10, 1_000, 10_000].map(|in_flight| {
                    let name = format!(
                        "{name} sends, acknowledged {order}: {level} QoS 1, {in_flight} in flight"
                    );
                    Case { name, version, side, task: Task::Keep { in_flight, shuffled } }
                }));
            }
        }
    }
    cases
}

/// A machine of any type, or two.
pub trait Contestant {
    /// Returns its bench in a case, or the reason why it must not be timed.
    fn bench(&self, case: &Case) -> Result<Bench, String> {
        catch_unwind(AssertUnwindSafe(|| self.checked(case)))
            .unwrap_or_else(|_| Err("panics".into()))
    }

    fn checked(&self, case: &Case) -> Result<Bench, String>;

    /// Whether a QoS 2 message that is received twice before its PUBREL is delivered twice. Such a
    /// machine is timed, because no case has that.
    fn delivers_twice(&self, _version: Version) -> bool {
        false
    }
}

/// Makes a machine for at most this many messages in flight.
pub struct One<F>(pub F);

/// The same for a client and a server.
pub struct Both<F, G>(pub F, pub G);

/// The number in flight for cases that do not depend on it: some crates allocate a table of that
/// size.
const FEW: u16 = 32;

impl<M: Machine + 'static, F: Fn(u16) -> M> Contestant for One<F> {
    fn checked(&self, case: &Case) -> Result<Bench, String> {
        let Self(make) = self;
        match case.task {
            Task::Receive(qos) => {
                check_receiving(make, case.version, qos)?;
                let mut identifiers = (1..=u16::MAX).cycle();
                bench(
                    move || identifiers.next().unwrap_or(1),
                    receiving(make(FEW), case.version, qos),
                )
            }
            Task::Send(qos) => {
                check_sending(make(FEW), case.version, qos)?;
                bench(move || M::outgoing(qos), sending(make(FEW), qos))
            }
            Task::Keep { in_flight, shuffled } => {
                check_sending(make(FEW), case.version, QoS::AtLeastOnce)?;
                // In shuffled order, identifiers in use can be this far apart.
                let machine = make(2 * in_flight);
                bench(|| M::outgoing(QoS::AtLeastOnce), keeping(machine, in_flight, shuffled))
            }
        }
    }

    fn delivers_twice(&self, version: Version) -> bool {
        let (mut machine, mut heard, publish) =
            (self.0(FEW), Vec::new(), publish(version, QoS::ExactlyOnce, 1));
        for _ in 0..2 {
            machine.receive(&publish, &mut heard);
        }
        heard.len() > 1
    }
}

impl<C: Machine + 'static, S: Machine + 'static, F: Fn(u16) -> C, G: Fn(u16) -> S> Contestant
    for Both<F, G>
{
    fn checked(&self, case: &Case) -> Result<Bench, String> {
        let (Self(client, server), Task::Send(qos)) = (self, case.task) else {
            return Err("has no such case".into());
        };
        check_sending(client(FEW), case.version, qos)?;
        check_receiving(server, case.version, qos)?;
        bench(move || C::outgoing(qos), handing_over(client(FEW), server(FEW), qos))
    }
}

// ---- timing ----

/// The number of messages between two readings of the clock.
const AT_ONCE: usize = 256;

/// Returns the bench of a job, if the job is correct. `job` returns false for a message without its
/// outcome.
fn bench<T: 'static>(
    mut message: impl FnMut() -> T + 'static,
    mut job: impl FnMut(T) -> bool + 'static,
) -> Result<Bench, String> {
    let mut some = move || {
        let messages: Vec<T> = (0..AT_ONCE).map(|_| message()).collect();
        timed(|| exchange_all(black_box(messages), &mut job))
    };
    if some().packets != AT_ONCE as u64 {
        return Err("does not bring all to an end".into());
    }
    Ok(Box::new(move |at_least| {
        let mut cost = Cost::default();
        while cost.packets < at_least {
            cost += some();
        }
        assert_eq!(cost.packets % AT_ONCE as u64, 0, "it was right when it was checked");
        cost
    }))
}

/// Does the job for one message after another. Not inlined, so that `callgrind --toggle-collect`
/// can find it.
#[inline(never)]
fn exchange_all<T>(messages: Vec<T>, job: &mut impl FnMut(T) -> bool) -> u64 {
    messages.into_iter().map(|message| u64::from(job(message))).sum()
}

/// A host that reads each message and counts.
#[derive(Default)]
struct Tally {
    messages: u64,
    completed: u64,
    last_completed: u64,
}

impl Host for Tally {
    #[inline(always)]
    fn message(&mut self, topic: &[u8], payload: &[u8]) {
        black_box((topic, payload));
        self.messages += 1;
    }

    #[inline(always)]
    fn completed(&mut self, name: u64) {
        self.completed += 1;
        self.last_completed = name;
    }
}

/// Receives PUBLISH, and PUBREL, in one read each; the answer is written before the next read.
fn receiving<M: Machine>(mut machine: M, version: Version, qos: QoS) -> impl FnMut(u16) -> bool {
    let mut publish = publish(version, qos, 1);
    let mut tally = Tally::default();
    move |identifier| {
        if qos > QoS::AtMostOnce {
            publish[IDENTIFIER].copy_from_slice(&identifier.to_be_bytes());
        }
        let before = tally.messages;
        machine.receive(black_box(&publish), &mut tally);
        let mut answered = machine.written(|bytes| !black_box(bytes).is_empty());
        if qos == QoS::ExactlyOnce {
            machine.receive(&ack(PUBREL, identifier), &mut tally);
            answered &= machine.written(|bytes| !black_box(bytes).is_empty());
        }
        tally.messages == before + 1 && answered == (qos > QoS::AtMostOnce)
    }
}

/// Publishes, and receives each acknowledgement in a read of its own.
fn sending<M: Machine>(mut machine: M, qos: QoS) -> impl FnMut(M::Outgoing) -> bool {
    let mut tally = Tally::default();
    move |message| {
        let (name, identifier) = publish_one(&mut machine, message);
        match qos {
            QoS::AtMostOnce => return true,
            QoS::AtLeastOnce => machine.receive(&ack(PUBACK, identifier), &mut tally),
            QoS::ExactlyOnce => {
                machine.receive(&ack(PUBREC, identifier), &mut tally);
                machine.written(|bytes| _ = black_box(bytes));
                machine.receive(&ack(PUBCOMP, identifier), &mut tally);
            }
        }
        machine.written(|bytes| black_box(bytes).is_empty()) && tally.last_completed == name
    }
}

/// Acknowledges one message and publishes another. Blocks of all messages in flight are
/// acknowledged in the order of sending or, if shuffled, each in an independent random order.
fn keeping<M: Machine>(
    mut machine: M,
    in_flight: u16,
    shuffled: bool,
) -> impl FnMut(M::Outgoing) -> bool {
    let count = usize::from(in_flight);
    let mut places: Vec<_> =
        (0..count).map(|_| publish_one(&mut machine, M::outgoing(QoS::AtLeastOnce))).collect();
    let mut order: Vec<usize> = (0..count).chain(0..count).collect();
    if shuffled {
        let mut random = Random(1);
        (1..count).rev().for_each(|last| order[..count].swap(last, random.below(last + 1)));
    }
    let (mut at, mut tally) = (0, Tally::default());
    move |message| {
        let place = &mut places[order[at]];
        at = (at + 1) % order.len();
        let (name, identifier) = *place;
        machine.receive(&ack(PUBACK, identifier), &mut tally);
        *place = publish_one(&mut machine, message);
        tally.last_completed == name
    }
}

/// Publishes a message and returns the key of its outcome, and the packet identifier on the wire.
#[inline(always)]
fn publish_one<M: Machine>(machine: &mut M, message: M::Outgoing) -> (u64, u16) {
    let name = machine.publish(message);
    (name, machine.written(|bytes| identifier(black_box(bytes))))
}

/// The number of messages to publish before the transport carries bytes.
const BURST: u64 = 16;

/// Publishes, and after each burst carries bytes in both directions until both sides are silent.
fn handing_over<C: Machine, S: Machine>(
    mut client: C,
    mut server: S,
    qos: QoS,
) -> impl FnMut(C::Outgoing) -> bool {
    let (mut published, mut at_client, mut at_server) = (0, Tally::default(), Tally::default());
    move |message| {
        client.publish(message);
        published += 1;
        if published % BURST != 0 {
            return true;
        }
        while client.written(|bytes| carry(bytes, &mut server, &mut at_server))
            | server.written(|bytes| carry(bytes, &mut client, &mut at_client))
        {}
        at_server.messages == published
            && (qos == QoS::AtMostOnce || at_client.completed == published)
    }
}

fn carry(bytes: &[u8], to: &mut impl Machine, host: &mut impl Host) -> bool {
    if !bytes.is_empty() {
        to.receive(bytes, host);
    }
    !bytes.is_empty()
}

// ---- packets ----

const PUBACK: u8 = 0x40;
const PUBREC: u8 = 0x50;
const PUBREL: u8 = 0x62;
const PUBCOMP: u8 = 0x70;

/// Returns an acknowledgement of success, which has the same form in both versions.
fn ack(first: u8, identifier: u16) -> [u8; 4] {
    let [high, low] = identifier.to_be_bytes();
    [first, 2, high, low]
}

/// The position of the packet identifier: after a fixed header of 2 bytes and the topic.
const IDENTIFIER: std::ops::Range<usize> = 4 + TOPIC.len()..6 + TOPIC.len();

fn publish(version: Version, qos: QoS, identifier: u16) -> Vec<u8> {
    let identifier = if qos > QoS::AtMostOnce { &identifier.to_be_bytes()[..] } else { &[] };
    packet(
        0x30 | qos.as_u8() << 1,
        &[&string(TOPIC), identifier, no_properties(version), &PAYLOAD[..64]],
    )
}

/// Returns the packet identifier of a PUBLISH, or 0.
fn identifier(publish: &[u8]) -> u16 {
    publish.get(IDENTIFIER).map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
}

// ---- checks ----

/// An event that a machine reports.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Message(String, String),
    Completed(u64),
}

impl Host for Vec<Told> {
    fn message(&mut self, topic: &[u8], payload: &[u8]) {
        let [topic, payload] =
            [topic, payload].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        self.push(Told::Message(topic, payload));
    }

    fn completed(&mut self, name: u64) {
        self.push(Told::Completed(name));
    }
}

/// Checks receiving with QoS 0, 1 or 2, whole and byte by byte, with repeated identifiers.
fn check_receiving<M: Machine>(
    make: impl Fn(u16) -> M,
    version: Version,
    qos: QoS,
) -> Result<(), String> {
    for size in [usize::MAX, 1] {
        let mut machine = make(FEW);
        let mut expect = |bytes: &[u8], told, answer: &[u8]| {
            expect(&mut machine, version, bytes.chunks(size), told, answer)
        };
        for identifier in [1, 2, u16::MAX, 1] {
            let message = Told::Message(TOPIC.to_owned(), "x".repeat(64));
            let publish = publish(version, qos, identifier);
            match qos {
                QoS::AtMostOnce => expect(&publish, vec![message], &[])?,
                QoS::AtLeastOnce => expect(&publish, vec![message], &ack(PUBACK, identifier))?,
                QoS::ExactlyOnce => {
                    expect(&publish, vec![message], &ack(PUBREC, identifier))?;
                    expect(&ack(PUBREL, identifier), vec![], &ack(PUBCOMP, identifier))?;
                }
            }
        }
    }
    Ok(())
}

/// Checks sending more messages than can be in flight, one after another.
fn check_sending<M: Machine>(mut machine: M, version: Version, qos: QoS) -> Result<(), String> {
    for _ in 0..2 * FEW {
        let name = machine.publish(M::outgoing(qos));
        let bytes = machine.written(<[u8]>::to_vec);
        let identifier = identifier(&bytes);
        if canonical(&bytes, version) != Some(publish(version, qos, identifier)) || identifier == 0
        {
            return Err(format!("publishes {bytes:x?}"));
        }
        let mut expect = |first, told, answer: &[u8]| {
            let bytes = ack(first, identifier);
            expect(&mut machine, version, bytes.chunks(usize::MAX), told, answer)
        };
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => expect(PUBACK, vec![Told::Completed(name)], &[])?,
            QoS::ExactlyOnce => {
                expect(PUBREC, vec![], &ack(PUBREL, identifier))?;
                expect(PUBCOMP, vec![Told::Completed(name)], &[])?;
            }
        }
    }
    Ok(())
}

/// Checks that the machine reports these events for some bytes, and answers these bytes.
fn expect<'a>(
    machine: &mut impl Machine,
    version: Version,
    chunks: impl Iterator<Item = &'a [u8]>,
    told: Vec<Told>,
    answer: &[u8],
) -> Result<(), String> {
    let (mut heard, mut written) = (Vec::new(), Vec::new());
    for chunk in chunks {
        machine.receive(chunk, &mut heard);
        machine.written(|bytes| written.extend_from_slice(bytes));
    }
    let right = heard == told && canonical(&written, version).as_deref() == Some(answer);
    if right {
        Ok(())
    } else {
        Err(format!("tells {heard:?} and answers {written:x?}, not {told:?} and {answer:x?}"))
    }
}

/// Returns the same packets as this crate writes them: an acknowledgement of 5.0 can state success
/// in more bytes.
fn canonical(mut bytes: &[u8], version: Version) -> Option<Vec<u8>> {
    let mut same = Vec::new();
    while let Some(frame) = codec::frame(bytes, u32::MAX).ok()? {
        bytes = &bytes[frame.as_bytes().len()..];
        codec::encode(&codec::decode(frame, version).ok()?, Rules::new(version), &mut same).ok()?;
    }
    bytes.is_empty().then_some(same)
}
