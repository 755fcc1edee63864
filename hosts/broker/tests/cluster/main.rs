//! Three nodes over three servers of NATS, as programs, under load and under faults. Without
//! `nats-server` the tests print SKIPPED and pass; in CI they fail.
//!
//! `ROUNDS=30 cargo test --release -p mqtt-sansio-broker --features cluster --test cluster` plays
//! more rounds of each fault.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic")]

mod client;
mod expiry;
mod figures;
mod line;
mod network;
mod programs;
mod repeats;
mod security;
mod shared;
mod start;

use client::{Peer, Role};
use mqtt_sansio::codec::QoS;
use network::{Machine, Network};
use programs::{Cluster, has};
use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

/// What happens to the cluster while clients publish and move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    KillBroker,
    PauseBroker,
    StopBroker,
    KillServer,
    KillLeader,
    CutOff,
    LoseMajority,
    /// A broker does not reach NATS for a few seconds, and for longer than clients stay connected.
    Partition,
    LongPartition,
    /// The same, by the link of a machine in a network.
    LinkOfBroker,
    LinkOfBrokerForLong,
    /// A server does not reach the others, nor brokers.
    LinkOfServer,
    LinkOfLeader,
}

impl Fault {
    const fn needs_network(self) -> bool {
        matches!(
            self,
            Self::LinkOfBroker
                | Self::LinkOfBrokerForLong
                | Self::LinkOfServer
                | Self::LinkOfLeader
        )
    }
}

fn rounds(few: usize) -> usize {
    std::env::var("ROUNDS").map_or(few, |rounds| rounds.parse().unwrap())
}

/// Plays a fault under load, and checks that nothing is lost or doubled.
fn play(fault: Fault, few: usize) {
    if !has("nats-server") {
        return;
    }
    let network = if fault.needs_network() { Network::new() } else { None };
    if fault.needs_network() && network.is_none() {
        return;
    }
    let mut cluster = Cluster::start_in(network, &[]);
    for round in 0..rounds(few) {
        let start = Instant::now();
        play_round(&mut cluster, fault, round);
        println!("{fault:?} {round}: {:.1} s", start.elapsed().as_secs_f32());
    }
}

fn play_round(cluster: &mut Cluster, fault: Fault, round: usize) {
    let nodes = cluster.nodes();
    let name = |what: &str| format!("{what}-{fault:?}-{round}");
    let topic = format!("load/{fault:?}/{round}");
    let subscribers = [(QoS::AtLeastOnce, "s1"), (QoS::ExactlyOnce, "s2")].map(|(qos, id)| {
        Peer::start(&name(id), nodes, round + 1, Role::Subscriber(format!("{topic}/#"), qos))
    });
    subscribers.iter().for_each(Peer::wait_for_subscription);
    let publishers = [(QoS::AtLeastOnce, "p1"), (QoS::ExactlyOnce, "p2")].map(|(qos, id)| {
        Peer::start(&name(id), nodes, round, Role::Publisher(format!("{topic}/{id}"), qos))
    });
    sleep(Duration::from_millis(700));
    let mut victim = round % 3;
    match fault {
        Fault::None => {}
        Fault::KillBroker => cluster.kill_broker(victim),
        Fault::PauseBroker => cluster.signal_broker(victim, "-STOP"),
        Fault::StopBroker => cluster.stop_broker(victim),
        Fault::KillServer => cluster.kill_server(victim),
        Fault::KillLeader => {
            let leader = cluster.leader("MQTT_LOG");
            cluster.kill_server(leader);
        }
        Fault::CutOff => cluster.signal_server(victim, "-STOP"),
        Fault::LoseMajority => {
            cluster.kill_server(victim);
            cluster.kill_server((victim + 1) % 3);
        }
        Fault::Partition | Fault::LongPartition => cluster.cut_lines(victim, true),
        Fault::LinkOfBroker | Fault::LinkOfBrokerForLong => {
            cluster.cut_link(Machine::Broker(victim), true);
        }
        Fault::LinkOfServer => cluster.cut_link(Machine::Server(victim), true),
        Fault::LinkOfLeader => {
            victim = cluster.leader("MQTT_LOG");
            cluster.cut_link(Machine::Server(victim), true);
        }
    }
    // Clients move meanwhile.
    for index in 0..6 {
        sleep(Duration::from_millis(500));
        subscribers[index % 2].cut();
        publishers[(index + 1) % 2].cut();
    }
    match fault {
        Fault::None => {}
        Fault::KillBroker | Fault::StopBroker => cluster.start_broker(victim),
        Fault::PauseBroker => {
            sleep(Duration::from_secs(3));
            cluster.signal_broker(victim, "-CONT");
        }
        Fault::KillServer | Fault::KillLeader => cluster.start_servers(),
        Fault::CutOff => {
            sleep(Duration::from_secs(2));
            cluster.signal_server(victim, "-CONT");
        }
        Fault::LoseMajority => {
            // Longer than the clients are kept connected.
            sleep(Duration::from_secs(11));
            assert!(cluster.logs().contains("nothing can be stored"), "{}", cluster.logs());
            cluster.start_servers();
        }
        Fault::Partition => cluster.cut_lines(victim, false),
        Fault::LinkOfBroker => cluster.cut_link(Machine::Broker(victim), false),
        Fault::LinkOfBrokerForLong => {
            sleep(Duration::from_secs(10));
            cluster.cut_link(Machine::Broker(victim), false);
        }
        Fault::LinkOfServer | Fault::LinkOfLeader => {
            sleep(Duration::from_secs(7));
            cluster.cut_link(Machine::Server(victim), false);
        }
        Fault::LongPartition => {
            sleep(Duration::from_secs(10));
            cluster.cut_lines(victim, false);
        }
    }
    sleep(Duration::from_secs(1));
    let published = publishers
        .map(|publisher| publisher.finish_publishing(Duration::from_secs(60), &|| cluster.logs()));
    let total: usize = published.iter().map(Vec::len).sum();
    assert!(total > 20, "{fault:?} {round}: only {total} messages");
    let all: BTreeSet<&String> = published.iter().flatten().collect();
    for (index, subscriber) in subscribers.iter().enumerate() {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let inbox = subscriber.inbox();
            let got: BTreeSet<&String> = inbox.iter().collect();
            let missing: Vec<_> = all.difference(&got).collect();
            if missing.is_empty() {
                break;
            }
            if Instant::now() > deadline {
                cluster.keep_logs();
                panic!(
                    "{fault:?} {round}: s{} lacks {} of {}: {:?}\n{}",
                    index + 1,
                    missing.len(),
                    all.len(),
                    &missing[..missing.len().min(5)],
                    cluster.logs()
                );
            }
            sleep(Duration::from_millis(50));
        }
    }
    sleep(Duration::from_millis(300));
    for (index, subscriber) in subscribers.into_iter().enumerate() {
        let (inbox, lost_sessions) = subscriber.stop();
        assert_eq!(lost_sessions, 0, "{fault:?} {round}: a session was not resumed");
        let mut counts = BTreeMap::<&String, usize>::new();
        inbox.iter().for_each(|one| *counts.entry(one).or_default() += 1);
        let mut first = Vec::new();
        let mut seen = BTreeSet::new();
        first.extend(inbox.iter().filter(|one| seen.insert(*one)));
        if index == 1 {
            let doubled = counts.iter().filter(|(one, count)| one.contains("p2") && **count > 1);
            let doubled: Vec<_> = doubled.collect();
            if !doubled.is_empty() {
                cluster.keep_logs();
            }
            assert!(doubled.is_empty(), "{fault:?} {round}: {doubled:?}\n{}", cluster.logs());
        }
        for publisher in ["p1", "p2"] {
            let of = first.iter().filter(|one| one.starts_with(publisher));
            let order: Vec<usize> =
                of.map(|one| one.rsplit(' ').next().unwrap().parse().unwrap()).collect();
            assert!(order.is_sorted(), "{fault:?} {round}: {publisher} is out of order: {order:?}");
        }
    }
}

#[test]
fn clients_move_between_nodes() {
    play(Fault::None, 1);
}

#[test]
fn broker_is_killed() {
    play(Fault::KillBroker, 2);
}

#[test]
fn broker_leaves() {
    play(Fault::StopBroker, 1);
}

#[test]
fn broker_stands_still() {
    play(Fault::PauseBroker, 1);
}

#[test]
fn server_is_killed() {
    play(Fault::KillServer, 1);
}

#[test]
fn leader_of_log_is_killed() {
    play(Fault::KillLeader, 1);
}

#[test]
fn server_stands_still() {
    play(Fault::CutOff, 1);
}

#[test]
fn broker_does_not_reach_the_servers() {
    play(Fault::Partition, 1);
}

#[test]
#[ignore = "half a minute: `--include-ignored`"]
fn broker_does_not_reach_the_servers_for_long() {
    play(Fault::LongPartition, 1);
}

#[test]
fn link_of_broker_is_down() {
    play(Fault::LinkOfBroker, 1);
}

#[test]
#[ignore = "half a minute: `--include-ignored`"]
fn link_of_broker_is_down_for_long() {
    play(Fault::LinkOfBrokerForLong, 1);
}

#[test]
fn link_of_server_is_down() {
    play(Fault::LinkOfServer, 1);
}

#[test]
#[ignore = "half a minute: `--include-ignored`"]
fn link_of_leader_is_down() {
    play(Fault::LinkOfLeader, 1);
}

#[test]
#[ignore = "half a minute: `--include-ignored`"]
fn majority_of_servers_is_lost() {
    play(Fault::LoseMajority, 1);
}

#[test]
fn session_that_falls_behind_the_log_misses_messages_that_are_counted() {
    if !has("nats-server") || !has("mosquitto_pub") {
        return;
    }
    let mut cluster = Cluster::start_in(None, &["--cluster-log-bytes", "200000"]);
    let ports = cluster.ports();
    let session = ["-i", "behind", "-c", "-t", "behind/#", "-q", "1"];
    programs::mosquitto_sub(ports[0], &[&session[..], &["-E"]].concat());
    let publish = |number: usize| {
        let text = format!("{number} {}", "x".repeat(10_000));
        programs::mosquitto_pub(ports[2], &["-t", "behind/x", "-m", &text, "-q", "1"]);
    };
    (0..10).for_each(publish);
    // Its node notes its queue, and is lost.
    sleep(Duration::from_secs(4));
    cluster.kill_broker(0);
    (10..25).for_each(publish);
    // Nor does the next one have the messages in memory.
    cluster.kill_broker(1);
    cluster.start_broker(1);
    let inbox = programs::mosquitto_sub(ports[1], &[&session[..], &["-W", "5"]].concat());
    let numbers: Vec<usize> =
        inbox.lines().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
    assert!((5..20).contains(&numbers.len()), "{numbers:?}");
    assert_eq!(numbers, (25 - numbers.len()..25).collect::<Vec<_>>());
    // Those that its queue named are counted, and the log says how many there are.
    let named = 10.min(25 - numbers.len());
    let figures = cluster.figures(1);
    assert!(figures.contains(&format!("mqtt_node_behind_total {named}\n")), "{figures}");
    assert!(cluster.logs().contains("the log has dropped messages of the session"));
}

#[test]
fn messages_wills_and_retained_messages_reach_clients_of_mosquitto() {
    if !has("nats-server") || !has("mosquitto_pub") {
        return;
    }
    let mut cluster = Cluster::start();
    let ports = cluster.ports();
    let receiver = spawn(move || {
        let lines = programs::mosquitto_sub(ports[1], &["-t", "m/#", "-q", "2", "-C", "3", "-v"]);
        let mut lines: Vec<_> = lines.lines().map(ToOwned::to_owned).collect();
        lines.sort();
        lines
    });
    sleep(Duration::from_secs(1));
    for qos in ["0", "1", "2"] {
        let topic = format!("m/{qos}");
        programs::mosquitto_pub(ports[0], &["-t", &topic, "-m", "text", "-q", qos]);
    }
    assert_eq!(receiver.join().unwrap(), ["m/0 text", "m/1 text", "m/2 text"]);
    // Odd levels, and a client of 3.1.1 at another node than one of 5.0.
    for topic in ["a//b", "/", "x.y/*", "w/>", "100%/ü", "with space/$"] {
        programs::mosquitto_pub(ports[2], &["-t", topic, "-m", topic, "-q", "1", "-r"]);
        for port in ports {
            let one = programs::mosquitto_sub(port, &["-t", topic, "-C", "1", "-V", "5"]);
            assert_eq!(one.trim_end_matches('\n'), topic);
        }
    }
    // Each node says which it is.
    for (index, port) in ports.into_iter().enumerate() {
        let name = programs::mosquitto_sub(port, &["-t", "$SYS/broker/node", "-C", "1"]);
        assert_eq!(name, format!("b{index}\n"));
        let figures = cluster.figures(index);
        let of_node = format!("mqtt_node_info{{node=\"b{index}\"}} 1\n");
        assert!(figures.contains(&of_node), "{figures}");
        assert!(figures.contains("mqtt_node_others 2\n"), "{figures}");
    }
    // A session that is replaced by one without records is still of its node.
    let keep = ["-i", "replaced", "-c", "-t", "nothing", "-q", "1", "-E"];
    programs::mosquitto_sub(ports[0], &keep);
    let receiver = spawn(move || {
        let arguments = ["-t", "replaced", "-q", "1", "-C", "4", "-W", "10"];
        programs::mosquitto_sub(ports[1], &arguments)
    });
    sleep(Duration::from_secs(1));
    let publish = ["-i", "replaced", "-t", "replaced", "-m", "text", "-q", "1"];
    let publish = [&publish[..], &["--repeat", "4", "--repeat-delay", "0.2"]].concat();
    programs::mosquitto_pub(ports[0], &publish);
    assert_eq!(receiver.join().unwrap(), "text\n".repeat(4));
    // A node that starts later has them, too.
    cluster.kill_broker(0);
    cluster.start_broker(0);
    let one = programs::mosquitto_sub(ports[0], &["-t", "a//b", "-C", "1"]);
    assert_eq!(one.trim_end(), "a//b");
    // The will of a client whose node dies comes once, also behind others of its topic.
    let wills = spawn(move || programs::mosquitto_sub(ports[1], &["-t", "will", "-W", "14"]));
    let mut mortal = programs::mosquitto_sub_with_will(ports[2], "will", "gone");
    sleep(Duration::from_secs(1));
    let others = ["-t", "will", "-m", "text", "-q", "1", "--repeat", "60"];
    programs::mosquitto_pub(ports[0], &others);
    cluster.kill_broker(2);
    assert_eq!(wills.join().unwrap(), "text\n".repeat(60) + "gone\n");
    let _ = mortal.kill();
    let _ = mortal.wait();
}

/// Plays what the broker program alone plays, with each client of paho-mqtt at another node than
/// the one before it.
#[test]
fn paho_clients_work_with_two_nodes() {
    let import = "import paho.mqtt.client as c; c.CallbackAPIVersion";
    let python = Command::new("python3").args(["-c", import]).stderr(Stdio::null()).status();
    let is_there = python.is_ok_and(|status| status.success());
    assert!(is_there || std::env::var_os("CI").is_none(), "paho-mqtt 2 is not installed");
    if !is_there || !has("nats-server") {
        println!("SKIPPED: paho-mqtt 2 or nats-server is missing");
        return;
    }
    let cluster = Cluster::start();
    let [one, other, _] = cluster.ports().map(|port| port.to_string());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/program/paho_clients.py");
    let output = Command::new("python3").args([script, &one, &other]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
