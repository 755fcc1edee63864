//! What a connection must not lose, and what it must not do to others.

use crate::Broker;
use crate::client::{Client, connect, open, packet, publish, text};
use std::io::Write as _;
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
        let start = Instant::now();
        let longest = (0..20).map(|_| {
            let before = start.elapsed();
            client.ping();
            start.elapsed() - before
        });
        let longest = longest.max().unwrap();
        stop.store(true, Ordering::Relaxed);
        assert!(longest < Duration::from_secs(2), "{longest:?}");
    });
}

#[test]
fn last_message_is_delivered_when_client_closes_without_reading() {
    let broker = Broker::start(&LISTEN);
    let address = broker.address("tcp");
    let mut subscriber = Client::connected(&address, "subscriber", None);
    assert_eq!(subscriber.subscribe("last/#"), 0);
    for number in 0..100 {
        let id = number.to_string();
        let mut stream = open(&address);
        let mut bytes = connect(4, &id, None);
        // The answer to SUBSCRIBE is a message that waits in the socket, so the close is a reset.
        bytes.extend(packet(0x82, &[&[0, 1], &text("x")[..], &[0]].concat()));
        bytes.extend(publish(&format!("last/{id}"), "message"));
        bytes.extend([0xE0, 0]);
        stream.write_all(&bytes).unwrap();
        drop(stream);
    }
    // In the order in which the broker has read them.
    let mut received: Vec<_> = (0..100).map(|_| subscriber.receive()).collect();
    received.sort();
    received.dedup();
    assert_eq!(received.len(), 100);
}

#[test]
fn output_is_written_after_the_end_of_input() {
    let broker = Broker::start(&LISTEN);
    let stream = open(&broker.address("tcp"));
    let mut client = Client::new(stream.try_clone().unwrap());
    let mut bytes = connect(4, "a", None);
    bytes.extend(packet(0x82, &[&[0, 1], &text("x")[..], &[0]].concat()));
    bytes.extend(publish("x", "y"));
    client.send(&bytes);
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let expected = [&[0x20, 2, 0, 0][..], &[0x90, 3, 0, 1, 0], &publish("x", "y")].concat();
    assert_eq!(client.expect_end(), expected);
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

#[test]
fn connection_beyond_the_limit_is_refused() {
    let mut broker = Broker::start(&[&LISTEN[..], &["--max-connections", "1"]].concat());
    let _first = Client::connected(&broker.address("tcp"), "a", None);
    let _second = Client::tcp(&broker.address("tcp"));
    broker.wait(|log| log.contains("refused, too many connections are open"));
}
