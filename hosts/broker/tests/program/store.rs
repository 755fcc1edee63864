//! The store: nothing that was acknowledged is lost.

use crate::client::{Client, open, packet, text};
use crate::operation::get;
use crate::{Broker, Directory, run, skip};
use std::collections::{BTreeSet, VecDeque};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;
use std::time::{Duration, Instant};
use testkit::port::free_ports;

const LISTEN: [&str; 2] = ["--listen", "tcp://127.0.0.1:0"];

fn start(data: &str) -> Broker {
    Broker::start(&[&LISTEN[..], &["--data-dir", data]].concat())
}

/// Connects without Clean Session. Returns whether there was a session.
fn resume(address: &str, id: &str) -> (Client, bool) {
    let mut client = Client::tcp(address);
    client.send(&packet(0x10, &[&text("MQTT")[..], &[4, 0, 0, 0], &text(id)].concat()));
    let connack = client.receive();
    assert_eq!((connack[0], connack[3]), (0x20, 0));
    (client, connack[2] == 1)
}

fn subscribe(client: &mut Client, filter: &str, qos: u8) {
    client.send(&packet(0x82, &[&[0, 1], &text(filter)[..], &[qos]].concat()));
    assert_eq!(client.receive(), [0x90, 3, 0, 1, qos]);
}

fn publish(qos: u8, identifier: u16, topic: &str, payload: &str) -> Vec<u8> {
    let body = [&text(topic)[..], &identifier.to_be_bytes(), payload.as_bytes()].concat();
    packet(0x30 | qos << 1, &body)
}

fn store(data: &str, command: &str, input: &[u8]) -> (bool, String) {
    let mut process = Command::new(env!("CARGO_BIN_EXE_broker"))
        .args(["store", command, data])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    process.stdin.take().unwrap().write_all(input).unwrap();
    let output = process.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[test]
fn session_and_messages_survive_a_kill_an_export_and_an_import() {
    let directory = Directory::new();
    let data = directory.path("data");
    let broker = start(&data);
    let (mut client, present) = resume(&broker.address("tcp"), "away");
    assert!(!present);
    subscribe(&mut client, "t", 1);
    drop(client);
    let mut publisher = Client::connected(&broker.address("tcp"), "publisher", None);
    publisher.send(&publish(1, 7, "t", "kept"));
    assert_eq!(publisher.receive(), [0x40, 2, 0, 7]);
    // Without SIGTERM.
    drop(broker);

    let (is_good, text) = store(&data, "check", b"");
    assert!(is_good && text.contains(" records: 1 sessions, 0 retained"), "{text}");
    let (_, export) = store(&data, "export", b"");
    let copy = directory.path("copy");
    assert!(store(&copy, "import", export.as_bytes()).0);
    assert!(!store(&copy, "import", export.as_bytes()).0, "it has records already");
    for data in [&data, &copy] {
        let broker = start(data);
        let (mut client, present) = resume(&broker.address("tcp"), "away");
        assert!(present);
        let message = client.receive();
        // Whatever the packet identifier is.
        assert_eq!((message[0] & 0x06, &message[2..5]), (0x02, &b"\0\x01t"[..]));
        assert_eq!(&message[7..], b"kept");
    }
}

#[test]
fn second_broker_on_a_store_is_refused() {
    let directory = Directory::new();
    let data = directory.path("data");
    let _first = start(&data);
    let flags = [&LISTEN[..], &["--data-dir", &data]].concat();
    let mut second = Broker::start_without_waiting(&flags);
    assert!(!second.end());
    second.wait(|log| log.contains("--data-dir: another program uses this store"));
}

#[test]
fn damaged_record_is_reported_and_the_others_are_kept() {
    let directory = Directory::new();
    let (data, copy) = (directory.path("data"), directory.path("copy"));
    let broker = start(&data);
    for id in ["one", "two"] {
        subscribe(&mut resume(&broker.address("tcp"), id).0, "t", 1);
    }
    drop(broker);
    let (_, export) = store(&data, "export", b"");
    // The record of the first session.
    let mut lines: Vec<_> = export.lines().map(str::to_owned).collect();
    let session = lines.iter().position(|line| line.starts_with("{\"key\":\"cw")).unwrap();
    lines[session] = lines[session].replace("\"value\":\"", "\"value\":\"////");
    let (is_good, text) = store(&copy, "import", lines.join("\n").as_bytes());
    assert!(
        !is_good && text.contains("s\\x00") && text.contains("1 records are damaged"),
        "{text}"
    );
    let mut broker = start(&copy);
    broker.wait(|log| log.contains("stored record left out key=s\\x00"));
    let address = broker.address("tcp");
    let present = ["one", "two"].map(|id| resume(&address, id).1);
    assert_eq!(present.iter().filter(|present| **present).count(), 1);
}

/// Needs the right to mount a file system.
#[test]
fn full_disk_stops_acknowledgements_until_there_is_room() {
    let directory = Directory::new();
    let disk = directory.path("disk");
    std::fs::create_dir(&disk).unwrap();
    if !run("mount", &["-t", "tmpfs", "-o", "size=8m", "tmpfs", &disk]) {
        return skip("no file system can be mounted");
    }
    let data = directory.path("disk/data");
    let mut broker = start(&data);
    let address = broker.address("tcp");
    let (mut away, _) = resume(&address, "away");
    subscribe(&mut away, "t", 1);
    drop(away);
    let filler = directory.path("disk/filler");
    let _ = std::fs::write(&filler, vec![0; 8 << 20]);
    let mut publisher = Client::new(open(&address));
    assert_eq!(publisher.connect(4, "publisher", None), 0);
    // Not compressible: xorshift.
    let mut state = 1_u32;
    let mut letter = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        char::from(b'0' + (state >> 26) as u8)
    };
    let payload: String = (0..15_000).map(|_| letter()).collect();
    publisher.send(&publish(1, 1, "t", &payload));
    broker.wait(|log| log.contains("cannot store: until it is possible"));
    std::thread::sleep(Duration::from_millis(200));
    std::fs::remove_file(&filler).unwrap();
    assert_eq!(publisher.receive(), [0x40, 2, 0, 1]);
    broker.wait(|log| log.contains("stored: messages are acknowledged again"));
    drop(broker);
    let broker = start(&data);
    assert!(resume(&broker.address("tcp"), "away").1);
    drop(broker);
    assert!(run("umount", &[&disk]));
}

#[test]
fn connections_are_read_again_when_the_store_has_caught_up() {
    let directory = Directory::new();
    let data = directory.path("data");
    let flags = ["--data-dir", &data, "--max-unsynced-bytes", "20000"];
    let broker = Broker::start(&[&LISTEN[..], &flags].concat());
    let address = broker.address("tcp");
    subscribe(&mut resume(&address, "away").0, "t", 1);
    let mut publishers: Vec<_> = (0..50)
        .map(|number| Client::connected(&address, &format!("publisher-{number}"), None))
        .collect();
    for publisher in &mut publishers {
        let packets = (1..=4).map(|number| publish(1, number, "t", &"x".repeat(4_000)));
        publisher.send(&packets.collect::<Vec<_>>().concat());
    }
    for publisher in &mut publishers {
        for number in 1..=4 {
            assert_eq!(publisher.receive(), [0x40, 2, 0, number]);
        }
    }
}

/// Messages with QoS 1 and 2 go through a broker that is killed again and again: none that was
/// acknowledged is lost, none with QoS 2 is doubled, and their order is kept. `ROUNDS=100` kills
/// more often.
#[test]
fn kills_under_load_lose_and_double_nothing() {
    let rounds = std::env::var("ROUNDS").map_or(5, |rounds| rounds.parse().unwrap());
    let [once, twice] = play_with_kills(rounds, |_| {});
    println!("{} messages with QoS 1, {} with QoS 2", once.sent, twice.sent);
    assert!(once.sent > 100 && twice.sent > 100);
    assert_eq!((once.problem(), twice.problem()), (None, None));
}

/// The test above notices records that are lost.
#[test]
fn kills_under_load_show_a_store_that_loses_records() {
    let [once, twice] = play_with_kills(5, |data| {
        let files = std::fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path());
        let journals = files.filter(|path| path.extension().is_some_and(|end| end == "jnl"));
        for path in journals {
            let mut bytes = std::fs::read(&path).unwrap();
            let end = bytes.iter().rposition(|byte| *byte != 0).unwrap_or_default();
            bytes[end.saturating_sub(3_000)..].fill(0);
            std::fs::write(&path, bytes).unwrap();
        }
    });
    assert!(once.problem().or(twice.problem()).is_some());
}

/// Records and transactions for each message, as the README has them.
#[test]
fn message_costs_the_store_few_records_and_syncs() {
    for (qos, kind, records, syncs) in [
        (1, "prompt", 3, 1),
        (1, "late", 4, 2),
        (2, "late", 7, 4),
        (1, "away", 2, 1),
        (2, "away", 2, 1),
    ] {
        const MESSAGES: u16 = 50;
        let directory = Directory::new();
        let flags = ["--data-dir", &directory.path("data"), "--metrics", "127.0.0.1:0"];
        let broker = Broker::start(&[&LISTEN[..], &flags].concat());
        let (log, address) = (broker.log(), broker.address("tcp"));
        let metrics = log.split_once("serving figures address=").unwrap().1;
        let metrics = metrics.lines().next().unwrap();
        let counters = || {
            let answer = get(metrics, "/metrics");
            ["mqtt_stored_records_total ", "mqtt_stored_batches_total "].map(|name| {
                let line = answer.lines().find_map(|line| line.strip_prefix(name));
                line.unwrap().parse::<u64>().unwrap()
            })
        };
        let mut subscriber = resume(&address, "subscriber").0;
        subscribe(&mut subscriber, "t", qos);
        let mut publisher = Client::connected(&address, "publisher", None);
        let mut subscriber = (kind != "away").then_some(subscriber);
        // Also until the subscriber is away.
        std::thread::sleep(Duration::from_millis(100));
        let before = counters();
        for number in 1..=MESSAGES {
            publisher.send(&publish(qos, number, "t", "x"));
            if kind == "prompt" {
                answer(subscriber.as_mut().unwrap(), qos);
            }
            let number = number.to_be_bytes();
            if qos == 2 {
                assert_eq!(publisher.receive()[0], 0x50);
                publisher.send(&[&[0x62, 2], &number[..]].concat());
            }
            publisher.receive();
            if kind == "late" {
                answer(subscriber.as_mut().unwrap(), qos);
            }
        }
        std::thread::sleep(Duration::from_millis(100));
        let after = counters();
        let stored = [0, 1].map(|index| after[index] - before[index]);
        println!("QoS {qos}, {kind}: {stored:?} for {MESSAGES} messages");
        let at_most = [records, syncs].map(|each| each * u64::from(MESSAGES));
        assert!(stored[0] <= at_most[0] && stored[1] <= at_most[1], "{stored:?}");
    }
}

/// Receives a message and acknowledges it.
fn answer(subscriber: &mut Client, qos: u8) {
    let identifier = subscriber.receive()[5..7].to_vec();
    let kinds: &[u8] = if qos == 2 { &[0x50, 0x70] } else { &[0x40] };
    for kind in kinds {
        subscriber.send(&[&[*kind, 2], &identifier[..]].concat());
        if *kind == 0x50 {
            assert_eq!(subscriber.receive()[0], 0x62);
        }
    }
}

/// The messages of a publisher.
pub(crate) struct Flow {
    pub(crate) qos: u8,
    pub(crate) sent: u32,
    pub(crate) arrived: Vec<u32>,
}

impl Flow {
    /// Says what is wrong, if something is. A message with QoS 1 can arrive twice.
    pub(crate) fn problem(&self) -> Option<String> {
        let Self { qos, sent, arrived } = self;
        let mut seen = BTreeSet::new();
        let is_new = |number: &&u32| seen.insert(**number) || *qos == 2;
        let counted: Vec<u32> = arrived.iter().filter(is_new).copied().collect();
        let first = (0..*sent)
            .zip(counted.iter().map(Some).chain([None]))
            .find(|(expected, one)| *one != Some(expected));
        let (lost, doubled) = (*sent as usize - seen.len(), counted.len() - seen.len());
        let (expected, found) =
            first.or_else(|| counted.get(*sent as usize).map(|extra| (*sent, Some(extra))))?;
        Some(format!(
            "QoS {qos}: of {sent}, {lost} are lost and {doubled} doubled; the first: {expected} is \
             expected, {found:?} found"
        ))
    }
}

pub(crate) fn free_address() -> String {
    format!("127.0.0.1:{}", free_ports(1))
}

/// Kills a broker again and again. Calls `damage` with its directory each time.
fn play_with_kills(rounds: u32, damage: impl Fn(&str)) -> [Flow; 2] {
    let (directory, address) = (Directory::new(), free_address());
    let data = directory.path("data");
    let mut flags = vec!["--listen", &address, "--data-dir", &data];
    // On a busy machine, the subscriber can be late by more messages than the default.
    flags.extend(["--max-queued-messages", "1000000", "--max-queued-bytes", "1000000000"]);
    let start = || Broker::start(&flags);
    let mut broker = start();
    play(&address, || {
        for round in 0..rounds {
            std::thread::sleep(Duration::from_millis(100 + u64::from(round * 37 % 200)));
            let _ = broker.process.kill();
            let _ = broker.process.wait();
            damage(&data);
            broker = start();
        }
    })
}

/// Lets two publishers and a subscriber exchange messages while `disturb` runs.
pub(crate) fn play(address: &str, disturb: impl FnOnce()) -> [Flow; 2] {
    play_between(address, address, Duration::from_secs(2), disturb)
}

/// Does the same with the publishers at one broker and the subscriber at another, which receives
/// the last message within `rest`.
pub(crate) fn play_between(
    from: &str,
    to: &str,
    rest: Duration,
    disturb: impl FnOnce(),
) -> [Flow; 2] {
    drop(subscribe_all(to));
    let (stop, done) = (AtomicBool::new(false), AtomicBool::new(false));
    scope(|scope| {
        let stop = &stop;
        let publishers = [1, 2].map(|qos| {
            let publisher = Publisher { qos, sent: 0, in_flight: VecDeque::new() };
            scope.spawn(move || publisher.run(from, stop))
        });
        let subscriber = scope.spawn(|| Subscriber::default().run(to, &done));
        disturb();
        stop.store(true, Ordering::Relaxed);
        let sent = publishers.map(|publisher| publisher.join().unwrap());
        // All of them have been forwarded by now, or never will be.
        std::thread::sleep(rest);
        done.store(true, Ordering::Relaxed);
        let [once, twice] = subscriber.join().unwrap();
        [
            Flow { qos: 1, sent: sent[0], arrived: once },
            Flow { qos: 2, sent: sent[1], arrived: twice },
        ]
    })
}

/// Subscribes to the topics of the publishers.
fn subscribe_all(address: &str) -> Client {
    let mut client = resume(address, "subscriber").0;
    ["1", "2"].iter().for_each(|topic| subscribe(&mut client, topic, 2));
    client
}

/// Connects until it succeeds.
fn reconnect(address: &str, id: &str) -> TcpStream {
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < Duration::from_secs(120), "the broker does not come back");
        if let Ok(mut stream) = TcpStream::connect(address) {
            stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            stream.set_nodelay(true).unwrap();
            let connect = packet(0x10, &[&text("MQTT")[..], &[4, 0, 0, 0], &text(id)].concat());
            if stream.write_all(&connect).is_ok() && stream.read_exact(&mut [0; 4]).is_ok() {
                return stream;
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Returns the next packet, which is short.
fn next(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut packet = vec![0; 2];
    stream.read_exact(&mut packet)?;
    packet.resize(2 + usize::from(packet[1]), 0);
    stream.read_exact(&mut packet[2..])?;
    Ok(packet)
}

/// Publishes numbers.
pub(crate) struct Publisher {
    pub(crate) qos: u8,
    /// How many were sent.
    pub(crate) sent: u32,
    /// The packet identifier, and the packet that is to be sent again.
    pub(crate) in_flight: VecDeque<(u16, Vec<u8>)>,
}

impl Publisher {
    pub(crate) const WINDOW: usize = 10;

    /// Returns the packet of a number.
    pub(crate) fn packet(qos: u8, number: u32) -> (u16, Vec<u8>) {
        let identifier = (number % 60_000 + 1) as u16;
        (identifier, publish(qos, identifier, &qos.to_string(), &number.to_string()))
    }

    /// Publishes until it is told to stop and all are acknowledged. Returns how many were sent.
    pub(crate) fn run(mut self, address: &str, stop: &AtomicBool) -> u32 {
        let Self { qos, sent, in_flight } = &mut self;
        loop {
            let mut stream = reconnect(address, &format!("publisher-{qos}"));
            let again: Vec<u8> = in_flight.iter().flat_map(|(_, packet)| packet.clone()).collect();
            let mut result = stream.write_all(&again);
            in_flight
                .iter_mut()
                .filter(|(_, one)| one[0] & 0xF0 == 0x30)
                .for_each(|(_, one)| one[0] |= 8);
            while result.is_ok() {
                while in_flight.len() < Self::WINDOW && !stop.load(Ordering::Relaxed) {
                    let (identifier, mut bytes) = Self::packet(*qos, *sent);
                    let _ = stream.write_all(&bytes);
                    bytes[0] |= 8;
                    in_flight.push_back((identifier, bytes));
                    *sent += 1;
                }
                if in_flight.is_empty() {
                    return *sent;
                }
                result = next(&mut stream).map(|answer| {
                    let identifier = u16::from_be_bytes([answer[2], answer[3]]);
                    let found = in_flight.iter().position(|(one, _)| *one == identifier);
                    let (Some(found), kind) = (found, answer[0]) else { return };
                    if kind == 0x50 {
                        in_flight[found].1 = [&[0x62, 2], &answer[2..]].concat();
                        let _ = stream.write_all(&in_flight[found].1);
                    } else {
                        in_flight.remove(found);
                    }
                });
            }
        }
    }
}

/// Receives the numbers of the publishers.
#[derive(Default)]
pub(crate) struct Subscriber {
    /// The numbers with QoS 1, and those with QoS 2.
    pub(crate) arrived: [Vec<u32>; 2],
    /// The packet identifiers of messages with QoS 2 that are not released.
    accepted: BTreeSet<Vec<u8>>,
}

impl Subscriber {
    /// Receives until it is told to stop.
    pub(crate) fn run(mut self, address: &str, done: &AtomicBool) -> [Vec<u32>; 2] {
        while !done.load(Ordering::Relaxed) {
            let mut stream = reconnect(address, "subscriber");
            while let (Ok(packet), false) = (next(&mut stream), done.load(Ordering::Relaxed)) {
                let _ = stream.write_all(&self.receive(&packet));
            }
        }
        self.arrived
    }

    /// Receives a packet. Returns the answer.
    pub(crate) fn receive(&mut self, packet: &[u8]) -> Vec<u8> {
        match packet[0] & 0xF6 {
            0x62 => {
                self.accepted.remove(&packet[2..4]);
                [&[0x70, 2], &packet[2..4]].concat()
            }
            flags => {
                let qos = flags >> 1 & 3;
                let (identifier, payload) = (packet[5..7].to_vec(), &packet[7..]);
                let number = std::str::from_utf8(payload).unwrap().parse().unwrap();
                if qos == 1 || self.accepted.insert(identifier.clone()) {
                    self.arrived[usize::from(qos) - 1].push(number);
                }
                [&[if qos == 1 { 0x40 } else { 0x50 }, 2], &identifier[..]].concat()
            }
        }
    }
}
