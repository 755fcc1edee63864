//! A client and a server machine under random commands and a line that is cut anywhere, against what the standard promises:
//! QoS 0 at most once, QoS 1 at least once, QoS 2 exactly once, each in order, and each message with one end. Sessions are stored and
//! loaded between connections, time passes, and hosts acknowledge by hand.
//!
//! `SEED=n cargo test --test model` replays a seed with its log, `SEEDS=n` runs so many.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::wildcard_enum_match_arm, reason = "tests may panic")]

mod pair;

use core::time::Duration;
use mqtt_sansio::client::ClientConfig;
use mqtt_sansio::codec::{Connect, Publish, QoS, Version};
use mqtt_sansio::server::ServerConfig;
use pair::{Chunks, Pair, VERSIONS, lasting};
use std::collections::{BTreeMap, BTreeSet};

/// A small generator: the same seed, the same run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// The messages of one direction. The payload of a message is its key.
#[derive(Default)]
struct Sent {
    qos: BTreeMap<u64, QoS>,
    /// Those that were under way when a session was given up: they may come twice, or not.
    given_up: BTreeSet<u64>,
}

impl Sent {
    fn next(&self, random: &mut Random) -> (u64, QoS) {
        let qos = QoS::from_u8(random.below(3).try_into().unwrap()).unwrap();
        (self.qos.len() as u64 + 1, qos)
    }

    fn give_up(&mut self) {
        self.given_up.extend(self.qos.keys());
    }

    /// What is wrong with what has arrived and what has ended, if anything.
    fn check(&self, arrived: &[String], done: &[(u64, String)], at_the_end: bool) -> Option<String> {
        let mut times: BTreeMap<u64, usize> = BTreeMap::new();
        let mut last = [0; 3];
        for payload in arrived {
            let key = payload.parse().unwrap();
            let times = times.entry(key).or_default();
            *times += 1;
            let qos = usize::from(self.qos[&key].as_u8());
            if *times == 1 {
                if last[qos] > key {
                    return Some(format!("{key} came after {}", last[qos]));
                }
                last[qos] = key;
            }
        }
        let mut ends = BTreeMap::new();
        for (key, outcome) in done {
            if ends.insert(*key, outcome.as_str()).is_some() {
                return Some(format!("{key} ended twice"));
            }
        }
        for (key, qos) in &self.qos {
            let times = times.get(key).copied().unwrap_or(0);
            let acknowledged = ends.get(key) == Some(&"Success");
            let wrong = match qos {
                QoS::AtMostOnce => times > 1 || ends.contains_key(key),
                QoS::AtLeastOnce => acknowledged && times == 0,
                QoS::ExactlyOnce => times > 1 && !self.given_up.contains(key) || acknowledged && times == 0,
            };
            let unfinished = *qos > QoS::AtMostOnce && !ends.contains_key(key) && !self.given_up.contains(key);
            if wrong || at_the_end && unfinished {
                return Some(format!("{key} with {qos:?} came {times} times and ended {:?}", ends.get(key)));
            }
        }
        None
    }
}

fn run(seed: u64) -> Result<usize, String> {
    let mut random = Random(seed);
    let version = VERSIONS[usize::try_from(random.below(3)).unwrap()];
    let small = |random: &mut Random| u16::try_from(1 + random.below(5)).unwrap();
    let server = ServerConfig::new().receive_maximum(small(&mut random)).maximum_in_flight(small(&mut random));
    let client = ClientConfig::new().maximum_in_flight(small(&mut random));
    let by_hand = random.percent(30);
    let (client, server) = (client.manual_acknowledgement(by_hand), server.manual_acknowledgement(by_hand));
    let mut pair = Pair::with(client, server, Chunks::Whole);
    pair.by_hand = by_hand;
    // A keep alive, and a link that is slow, so that a side may give up.
    let keep_alive = if random.percent(30) { small(&mut random) } else { 0 };
    let lasting = |version| Connect { keep_alive, ..lasting(version) };
    let (mut up, mut down) = (Sent::default(), Sent::default());
    let mut temporary = false;
    pair.connect(&lasting(version));
    for _ in 0..200 {
        match random.below(12) {
            10 => {
                pair.acknowledge(random.percent(50), usize::try_from(random.below(4)).unwrap());
            }
            11 if keep_alive > 0 => pair.advance(Duration::from_millis(random.below(3_000))),
            0..2 => {
                let (key, qos) = up.next(&mut random);
                pair.publish(key, &Publish { qos, ..Publish::new("t", key.to_string().as_bytes()) });
                up.qos.insert(key, qos);
            }
            2..4 => {
                let (key, qos) = down.next(&mut random);
                if pair.try_deliver(key, &Publish { qos, ..Publish::new("t", key.to_string().as_bytes()) }) {
                    down.qos.insert(key, qos);
                }
            }
            4..8 if pair.is_connected() => {
                let count = random.below(40);
                pair.carry_bytes(random.percent(50), usize::try_from(count).unwrap());
            }
            8 if pair.is_connected() => pair.settle(),
            9 if pair.is_connected() && random.percent(50) => pair.cut(),
            _ if !pair.is_connected() => {
                let mut connect = Connect { clean_start: random.percent(5), ..lasting(version) };
                // Before 5.0 such a session ends with its connection.
                temporary = connect.clean_start && version < Version::V5_0;
                if connect.clean_start {
                    up.give_up();
                    down.give_up();
                } else if version == Version::V5_0 && random.percent(50) {
                    connect.properties.receive_maximum = Some(small(&mut random));
                }
                if random.percent(30) {
                    pair.restart();
                }
                pair.open(&connect);
                if connect.clean_start {
                    // A server that never learns of it keeps the session that the client has given up.
                    pair.settle();
                }
            }
            _ => {}
        }
        if temporary && !pair.is_connected() {
            up.give_up();
            down.give_up();
        }
    }
    if !pair.is_connected() {
        pair.open(&lasting(version));
    }
    pair.settle();
    while pair.acknowledge(true, usize::MAX) | pair.acknowledge(false, usize::MAX) {
        pair.settle();
    }
    let wrong = up.check(&pair.at_server, &pair.done_at_client, true);
    match wrong.or_else(|| down.check(&pair.at_client, &pair.done_at_server, true)) {
        Some(wrong) => Err(format!("seed {seed}, {version}: {wrong}\n{:#?}", pair.log)),
        None => Ok(pair.at_server.len() + pair.at_client.len()),
    }
}

#[test]
fn each_message_arrives_as_its_qos_promises_wherever_the_line_is_cut() {
    let number = |name| std::env::var(name).ok().and_then(|value: String| value.parse().ok());
    if let Some(seed) = number("SEED") {
        println!("{:?}", run(seed));
        return;
    }
    let seeds = number("SEEDS").unwrap_or(10_000);
    let mut arrived = 0;
    for seed in 0..seeds {
        match run(seed) {
            Ok(count) => arrived += count,
            Err(wrong) => panic!("{}", wrong.lines().take(40).collect::<Vec<_>>().join("\n")),
        }
    }
    assert!(arrived as u64 > seeds * 20, "only {arrived} messages in {seeds} runs");
}
