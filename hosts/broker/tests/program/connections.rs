//! Connections lose nothing, and do no harm to others.

use crate::client::{Client, open, packet, publish, text};
use crate::{Broker, skip};
use rustix::process::{Resource, getrlimit, setrlimit};
use std::net::Shutdown;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;
use std::time::{Duration, Instant};

const LISTEN: [&str; 2] = ["--listen", "tcp://127.0.0.1:0"];

#[test]
fn flood_lets_other_clients_have_their_turn() {
    let broker = Broker::start(&LISTEN);
    let address = broker.address("tcp");
    let stop = AtomicBool::new(false);
    scope(|scope| {
        for number in 0..3 {
            let (address, stop) = (&address, &stop);
            scope.spawn(move || {
                let mut client = Client::connected(address, &format!("flood-{number}"), None);
                // To no subscriber, so the broker is busy with the input alone.
                let bytes = publish("a", "b").repeat(10_000);
                while !stop.load(Ordering::Relaxed) {
                    client.send(&bytes);
                }
            });
        }
        let mut client = Client::connected(&address, "other", None);
        let mut times: Vec<_> = (0..21)
            .map(|_| {
                let start = Instant::now();
                client.ping();
                start.elapsed()
            })
            .collect();
        stop.store(true, Ordering::Relaxed);
        times.sort();
        // 10 ms; 250 ms if each flood has all its input read at once.
        assert!(times[10] < Duration::from_millis(120), "{times:?}");
    });
}

/// Subscribes a client, and sends it more than its socket takes. Returns the number of messages.
fn fill(address: &str, client: &mut Client) -> usize {
    const COUNT: usize = 900;
    assert_eq!(client.subscribe("fill"), 0);
    let mut publisher = Client::connected(address, "publisher", None);
    let message = publish("fill", &"x".repeat(16_000));
    for _ in 0..COUNT {
        publisher.send(&message);
    }
    publisher.ping();
    COUNT
}

#[test]
fn last_message_is_delivered_when_client_closes_without_reading() {
    let broker = Broker::start(&LISTEN);
    let address = broker.address("tcp");
    let mut watcher = Client::connected(&address, "watcher", None);
    assert_eq!(watcher.subscribe("last"), 0);
    let mut client = Client::connected(&address, "client", None);
    fill(&address, &mut client);
    client.publish("last", "message");
    client.send(&[0xE0, 0]);
    // The client has not read all, so this is a reset, and output fails before input is read.
    drop(client);
    watcher.expect("last", "message");
}

#[test]
fn last_messages_of_many_clients_are_delivered_without_their_wills() {
    const ROUNDS: usize = 200;
    let broker = Broker::start(&LISTEN);
    let address = broker.address("tcp");
    let mut watcher = Client::connected(&address, "watcher", None);
    assert_eq!(watcher.subscribe("last/#"), 0);
    let will = [&text("last/will")[..], &text("will")].concat();
    let connect = [&text("MQTT")[..], &[4, 6, 0, 0], &text("client"), &will].concat();
    for round in 0..ROUNDS {
        let mut client = Client::tcp(&address);
        client.send(&packet(0x10, &connect));
        assert_eq!(client.receive(), [0x20, 2, 0, 0]);
        assert_eq!(client.subscribe("echo"), 0);
        // The broker has output for the client, which is not read.
        let echo = publish("echo", &"x".repeat(1_000)).repeat(round % 20);
        let last = publish("last/message", &round.to_string());
        client.send(&[&echo[..], &last, &[0xE0, 0]].concat());
        drop(client);
    }
    for round in 0..ROUNDS {
        watcher.expect("last/message", &round.to_string());
    }
    watcher.ping();
}

#[test]
fn client_that_downloads_slowly_and_pings_stays_connected() {
    let broker = Broker::start(&LISTEN);
    let address = broker.address("tcp");
    let mut client = Client::tcp(&address);
    let connect = [&text("MQTT")[..], &[4, 2, 0, 1], &text("client")].concat();
    client.send(&packet(0x10, &connect));
    assert_eq!(client.receive(), [0x20, 2, 0, 0]);
    let count = fill(&address, &mut client);
    let expected = publish("fill", &"x".repeat(16_000)).len() * count;
    // Three seconds are twice the time in which a silent client would be disconnected.
    let (mut received, mut pings) = (0, 0);
    while received < expected + 2 * pings {
        if pings < 10 {
            client.send(&[0xC0, 0]);
            pings += 1;
            std::thread::sleep(Duration::from_millis(300));
        }
        let mut buffer = vec![0; expected / 10];
        let length = client.transport.read(&mut buffer).unwrap();
        assert!(length > 0, "{received} of {expected} bytes, {pings} pings");
        received += length;
    }
    assert_eq!((received, pings), (expected + 20, 10));
}

/// An idle connection takes 2 KiB or less, all included.
#[test]
fn ten_thousand_idle_connections_take_little_memory() {
    const COUNT: usize = 10_000;
    let mut limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|maximum| maximum < COUNT as u64 + 100) {
        return skip("the limit of open files is too low");
    }
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let broker = Broker::start(&[&LISTEN[..], &["--max-connections", "10010"]].concat());
    let address = broker.address("tcp");
    let mut clients = Vec::new();
    let mut connect = |name: String| clients.push(Client::connected(&address, &name, None));
    (0..10).for_each(|number| connect(format!("warm-{number}")));
    let before = broker.resident_bytes();
    (0..COUNT).for_each(|number| connect(format!("client-{number}")));
    let each = (broker.resident_bytes() - before) / COUNT;
    assert!(each <= 2048, "{each} bytes for each connection");
}

#[test]
fn output_is_written_after_the_end_of_input() {
    let broker = Broker::start(&LISTEN);
    let address = broker.address("tcp");
    let stream = open(&address);
    let mut client = Client::new(stream.try_clone().unwrap());
    assert_eq!(client.connect(4, "client", None), 0);
    let count = fill(&address, &mut client);
    stream.shutdown(Shutdown::Write).unwrap();
    let expected = publish("fill", &"x".repeat(16_000)).len() * count;
    assert_eq!(client.expect_end().len(), expected);
}

#[test]
fn packet_that_is_never_finished_ends_its_connection() {
    let broker = Broker::start(&[&LISTEN[..], &["--packet-timeout", "1"]].concat());
    let mut client = Client::connected(&broker.address("tcp"), "a", None);
    client.send(&[0x30, 100, 0, 1]);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(500));
        client.send(b"a");
    }
    assert_eq!(client.expect_end(), b"");
    // Neither does silence help.
    let mut client = Client::connected(&broker.address("tcp"), "a", None);
    client.send(&[0x30, 100, 0, 1]);
    assert_eq!(client.expect_end(), b"");
}

/// [5.0 §3.14.2.1]
#[test]
fn clients_are_disconnected_with_a_reason_at_sigterm() {
    let mut broker = Broker::start(&LISTEN);
    let mut client = Client::tcp(&broker.address("tcp"));
    assert_eq!(client.connect(5, "a", None), 0);
    broker.signal("-TERM");
    let disconnect = client.receive();
    assert_eq!((disconnect[0], disconnect[2]), (0xE0, 0x8B));
    drop(client);
    assert!(broker.end(), "{}", broker.log());
}

/// [5.0 §3.2.2.2] [3.1.1 §3.2.2.3]
/// The queue has room for as many messages as one thread reads before it lets the other one write.
#[test]
fn fast_publisher_fills_no_queue_of_another_thread() {
    // They fit into the buffers of a socket.
    const MESSAGES: usize = 8_000;
    let broker = Broker::start(&[&LISTEN[..], &["--threads", "2"]].concat());
    let address = broker.address("tcp");
    let mut subscriber = Client::connected(&address, "subscriber", None);
    assert_eq!(subscriber.subscribe("t"), 0);
    let mut publisher = Client::connected(&address, "publisher", None);
    for _ in 0..5 {
        publisher.send(&publish("t", "x").repeat(MESSAGES));
        (0..MESSAGES).for_each(|_| subscriber.expect("t", "x"));
    }
}

#[test]
fn connection_beyond_the_limit_is_refused_with_connack() {
    let mut broker = Broker::start(&[&LISTEN[..], &["--max-connections", "1"]].concat());
    let address = broker.address("tcp");
    let first = Client::connected(&address, "a", None);
    for (version, expected) in [(5, 0x97), (4, 0x03), (3, 0x03)] {
        let mut client = Client::tcp(&address);
        assert_eq!(client.connect(version, "b", None), expected);
        client.expect_end();
    }
    broker.wait(|log| log.matches("client refused").count() == 3);
    assert!(broker.log().contains("client=\"b\" version=5.0 reason=\"Quota exceeded\""));
    drop(first);
    broker.wait(|log| log.contains("client=\"a\" version=3.1.1 cause=\"transport was closed"));
    Client::connected(&address, "c", None);
}

#[test]
fn flood_of_connections_beyond_the_limit_is_closed_unanswered() {
    let mut broker = Broker::start(&[&LISTEN[..], &["--max-connections", "1"]].concat());
    let address = broker.address("tcp");
    let mut first = Client::connected(&address, "a", None);
    let flood: Vec<_> = (0..120).map(|_| Client::tcp(&address)).collect();
    Client::tcp(&address).expect_end();
    first.ping();
    drop(flood);
    broker.wait(|log| log.contains("connections closed without an answer"));
}

#[test]
fn connections_of_one_address_are_limited() {
    let flags = [&LISTEN[..], &["--max-connections-per-address", "2"]].concat();
    let mut broker = Broker::start(&flags);
    let address = broker.address("tcp");
    let _first = Client::connected(&address, "a", None);
    let second = Client::connected(&address, "b", None);
    assert_eq!(Client::tcp(&address).connect(5, "c", None), 0x97);
    drop(second);
    broker.wait(|log| log.contains("client=\"b\" version=3.1.1 cause=\"transport was closed"));
    Client::connected(&address, "c", None);
}

/// [5.0 §3.2.2.2]
#[test]
fn connections_that_come_too_fast_are_refused() {
    for flag in ["--max-connection-rate", "--max-connection-rate-per-address"] {
        let broker = Broker::start(&[&LISTEN[..], &[flag, "2"]].concat());
        let address = broker.address("tcp");
        let codes: Vec<_> = (0..4).map(|_| Client::tcp(&address).connect(5, "a", None)).collect();
        assert_eq!(codes, [0, 0, 0x9F, 0x9F], "{flag}");
        std::thread::sleep(Duration::from_millis(600));
        Client::connected(&address, "a", None);
    }
}

#[test]
fn unit_of_systemd_is_valid() {
    if !crate::has("systemd-analyze") {
        return;
    }
    let directory = crate::Directory::new();
    let unit = include_str!("../../broker.service");
    let unit = unit.replace("/usr/local/bin/broker", env!("CARGO_BIN_EXE_broker"));
    let path = directory.write("broker.service", &unit);
    let output = Command::new("systemd-analyze").args(["verify", &path]).output().unwrap();
    // It ignores what it does not know, with a warning, and succeeds.
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    let about_it: Vec<_> = said.lines().filter(|line| line.contains("broker.service")).collect();
    assert!(output.status.success() && about_it.is_empty(), "{said}");
}

#[test]
fn systemd_learns_that_the_program_is_ready() {
    let directory = crate::Directory::new();
    let path = directory.path("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut broker = Broker::start_with(&LISTEN, &[("NOTIFY_SOCKET", &path)]);
    let expect = |expected: &str| {
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], expected.as_bytes());
    };
    expect("READY=1");
    broker.signal("-TERM");
    expect("STOPPING=1");
    assert!(broker.end());
}
