//! Figures of one run:
//! `cargo test --release -p mqtt-sansio-broker --features cluster --test cluster -- --ignored
//! --nocapture figures`.

use crate::programs::{Cluster, free_ports, has};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

/// The time for which messages are published.
const TIME: Duration = Duration::from_secs(6);
const PUBLISHERS: usize = 6;
/// Messages in flight of each publisher.
const WINDOW: usize = 200;
const PAYLOAD: usize = 300;

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    match body.len() {
        length @ 0..=127 => packet.push(length as u8),
        length => packet.extend([(length % 128) as u8 | 0x80, (length / 128) as u8]),
    }
    packet.extend(body);
    packet
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

fn connect(port: u16, id: &str, is_clean: bool) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let flags = if is_clean { 2 } else { 0 };
    let body = [text("MQTT"), vec![4, flags, 0, 0], text(id)].concat();
    stream.write_all(&packet(0x10, &body)).unwrap();
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).unwrap();
    assert_eq!(connack[3], 0);
    stream
}

fn subscribe(stream: &mut TcpStream, filter: &str, qos: u8) {
    stream.write_all(&packet(0x82, &[vec![0, 1], text(filter), vec![qos]].concat())).unwrap();
    let mut suback = [0; 5];
    stream.read_exact(&mut suback).unwrap();
}

fn publish(topic: &str, qos: u8, number: usize) -> Vec<u8> {
    let identifier = ((number % 60_000 + 1) as u16).to_be_bytes();
    let identifier = if qos > 0 { identifier.to_vec() } else { Vec::new() };
    packet(0x30 | qos << 1, &[text(topic), identifier, vec![b'x'; PAYLOAD]].concat())
}

/// Processor time of processes in seconds.
fn cpu(processes: &[u32]) -> f64 {
    let of = |id: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        ticks / 100.0
    };
    processes.iter().map(of).sum()
}

/// Publishes to the nodes at these ports for some seconds, and counts at the last one. Returns the
/// messages that were acknowledged, or with QoS 0 those that have arrived, and the seconds until
/// the last one has arrived.
fn throughput(ports: &[u16], qos: u8) -> (f64, f64) {
    let mut receiver = connect(*ports.last().unwrap(), "receiver", true);
    subscribe(&mut receiver, "figures/#", 0);
    receiver.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    sleep(Duration::from_millis(300));
    let start = Instant::now();
    let publishers = (0..PUBLISHERS).map(|index| {
        let port = ports[index % ports.len()];
        spawn(move || publish_until(port, &format!("publisher{index}"), qos, start + TIME))
    });
    let publishers: Vec<_> = publishers.collect();
    let sent = spawn(move || {
        let all = publishers.into_iter().map(|one| one.join().unwrap());
        let (streams, sent): (Vec<_>, Vec<usize>) = all.unzip();
        (streams, sent.iter().sum::<usize>())
    });
    let each = publish("figures/topic", 0, 0).len();
    let (mut bytes, mut last, mut buffer) = (0, start, vec![0; 64 * 1024]);
    // Messages with QoS 0 are dropped where they come too fast, so not all are awaited.
    while !sent.is_finished() || last.elapsed() < Duration::from_secs(1) {
        if let Ok(length) = receiver.read(&mut buffer) {
            bytes += length;
            last = Instant::now();
        }
    }
    let (_streams, sent) = sent.join().unwrap();
    let arrived = bytes / each;
    // The queue of the receiver, which subscribes with QoS 0, can be full.
    println!("    {arrived} of {sent} arrived");
    let count = if qos > 0 { sent } else { arrived };
    (count as f64, (last - start).as_secs_f64())
}

/// Publishes until a time, and then until all is acknowledged. Returns the number of messages.
fn publish_until(port: u16, id: &str, qos: u8, end: Instant) -> (TcpStream, usize) {
    let mut stream = connect(port, id, true);
    let (mut sent, mut acknowledged, mut buffer) = (0, 0, [0; 4_096]);
    loop {
        let is_over = Instant::now() > end;
        let mut out = Vec::new();
        while !is_over && sent - acknowledged < WINDOW {
            out.extend(publish("figures/topic", qos, sent));
            sent += 1;
        }
        stream.write_all(&out).unwrap();
        if qos == 0 {
            acknowledged = sent;
        }
        if is_over && acknowledged == sent {
            return (stream, sent);
        }
        if qos > 0 {
            let length = stream.read(&mut buffer).unwrap();
            // A part of a PUBACK can come later, but none is lost.
            acknowledged += length / 4;
            let rest = length % 4;
            if rest > 0 {
                stream.read_exact(&mut buffer[..4 - rest]).unwrap();
                acknowledged += 1;
            }
        }
    }
}

fn percentiles(mut times: Vec<f64>) -> String {
    times.sort_by(f64::total_cmp);
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)] * 1e3;
    format!("p50 {:.2} ms, p99 {:.2} ms", at(50), at(99))
}

fn latency(from: u16, to: u16, qos: u8) -> String {
    let mut receiver = connect(to, "receiver", true);
    subscribe(&mut receiver, "latency", 0);
    let mut publisher = connect(from, "publisher", true);
    sleep(Duration::from_millis(300));
    let mut buffer = vec![0; publish("latency", 0, 0).len()];
    let times = (0..1_000).map(|number| {
        let start = Instant::now();
        publisher.write_all(&publish("latency", qos, number)).unwrap();
        receiver.read_exact(&mut buffer).unwrap();
        let time = start.elapsed().as_secs_f64();
        if qos > 0 {
            publisher.read_exact(&mut [0; 4]).unwrap();
        }
        time
    });
    percentiles(times.collect())
}

fn claim(ports: [u16; 3]) -> String {
    let times = (0..300).map(|number| {
        let start = Instant::now();
        let stream = connect(ports[number % 3], "mover", false);
        let time = start.elapsed().as_secs_f64();
        drop(stream);
        time
    });
    percentiles(times.collect())
}

#[test]
#[ignore = "prints figures"]
fn figures() {
    if !has("nats-server") {
        return;
    }
    let [port] = free_ports();
    let mut single = Command::new(env!("CARGO_BIN_EXE_broker"))
        .args(["--listen", &format!("tcp://127.0.0.1:{port}"), "--sys-interval", "0"])
        .args(["--max-queued-messages", "50000", "--log-level", "error"])
        .spawn()
        .unwrap();
    sleep(Duration::from_millis(500));
    for qos in [0, 1] {
        let before = cpu(&[single.id()]);
        let (count, seconds) = throughput(&[port], qos);
        let used = (cpu(&[single.id()]) - before) / count * 1e6;
        println!(
            "one broker without a cluster, QoS {qos}: {:.0} messages/s, {used:.1} us of CPU each",
            count / seconds
        );
    }
    println!("QoS 1 within one broker: {}", latency(port, port, 1));
    single.kill().unwrap();
    single.wait().unwrap();

    let cluster = Cluster::start();
    let ports = cluster.ports();
    for count in 1..=3 {
        for qos in [0, 1] {
            let (brokers, servers) = cluster.processes();
            let (before, of_servers) = (cpu(&brokers), cpu(&servers));
            let (arrived, seconds) = throughput(&ports[..count], qos);
            let each = |after: f64, before: f64| (after - before) / arrived * 1e6;
            println!(
                "{count} nodes of 3, QoS {qos}: {:.0} messages/s, {:.1} us of CPU each in the \
                 brokers, {:.1} us in NATS",
                arrived / seconds,
                each(cpu(&brokers), before),
                each(cpu(&servers), of_servers),
            );
        }
    }
    println!("node to node, QoS 0: {}", latency(ports[0], ports[1], 0));
    println!("node to node, QoS 1: {}", latency(ports[0], ports[1], 1));
    println!("CONNECT of a session of another node: {}", claim(ports));
}
