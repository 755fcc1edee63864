//! The durable state of a broker: what is stored, what waits for it, and what a crash leaves.

use super::*;
use mqtt_sansio::broker::journal::Batch;
use mqtt_sansio::broker::{Access, Action, ConnectionId, Grants, Restore};
use mqtt_sansio::codec::{
    Ack, Filter, QoS, Subscribe, SubscribeProperties, Subscription, SubscriptionIdentifier,
    Unsubscribe,
};
use proptest::prelude::*;
use support::Store;
use testkit::simulation::{self, Honesty, Tally};
use testkit::wire::packets;

fn simulate(seeds: u64, honesty: Honesty) -> (Tally, Vec<String>) {
    let mut tally = Tally::default();
    let wrong = (0..seeds).filter_map(|seed| {
        let wrong = simulation::run(seed, honesty, &mut tally).err()?;
        Some(format!("seed {seed}: {wrong}"))
    });
    let wrong = wrong.collect();
    (tally, wrong)
}

/// `SEEDS=1000000 cargo test --release --test it -- simulated_crashes` runs more.
#[test]
fn simulated_crashes_lose_and_double_nothing() {
    let seeds = std::env::var("SEEDS").map_or(3_000, |seeds| seeds.parse().unwrap());
    let (tally, wrong) = simulate(seeds, Honesty::Honest);
    assert_eq!(wrong, [""; 0]);
    let Tally { crashes, cuts, bridges, carried, received, repeated, wills, records } = tally;
    let counts = [crashes, cuts, bridges, carried, received, repeated, wills, records];
    assert!(counts.iter().all(|count| *count > 200), "{tally:?}");
}

/// The simulation notices what a host loses that reports records as durable too early.
#[test]
fn simulated_crashes_show_a_store_that_lies() {
    let (_, wrong) = simulate(1_000, Honesty::Lies);
    for what in ["has arrived 0 times", "has arrived 2 times"] {
        assert!(wrong.iter().any(|one| one.contains(what)), "{what}: {wrong:#?}");
    }
}

/// A host that decides itself when its store syncs.
struct Host {
    broker: Broker,
    now: Instant,
    store: Store,
}

const NOW: Instant = Instant::from_millis(1_000_000);

impl Host {
    fn new() -> Self {
        Self::with(BrokerConfig::default())
    }

    fn with(config: BrokerConfig) -> Self {
        let broker = Broker::new(config.durable(true), 0x5EED, NOW);
        Self { broker, now: NOW, store: Store::default() }
    }

    fn connect(&mut self, connect: Connect<'_>) -> ConnectionId {
        let id = self.broker.open(self.now);
        self.feed(id, connect);
        let (question, _) = self.broker.question(id).unwrap();
        self.broker.accept(question, Admission::default(), self.now).unwrap();
        id
    }

    /// Connects a client, and syncs what that changes.
    fn join(&mut self, connect: Connect<'_>) -> ConnectionId {
        let id = self.connect(connect);
        self.sync();
        assert!(self.sent(id).starts_with("connack 00"));
        id
    }

    fn feed<'p>(&mut self, id: ConnectionId, packet: impl Into<Packet<'p>>) {
        let bytes = encoded(packet, V5_0);
        let mut input = &bytes[..];
        while self.broker.handle_input(id, &mut input, self.now) {}
        assert!(input.is_empty(), "input is not wanted");
    }

    fn subscribe(&mut self, id: ConnectionId, filter: &str) {
        let subscriptions = [Subscription::new(filter, QoS::ExactlyOnce)];
        self.feed(id, Subscribe::new(identifier(9), &subscriptions));
        self.sync();
        assert!(self.sent(id).ends_with("suback #9 02"));
    }

    fn publish(&mut self, id: ConnectionId, number: u16, payload: &str, level: u8) {
        let packet_identifier = Some(identifier(number)).filter(|_| level > 0);
        self.feed(id, Publish { packet_identifier, ..message("t", payload, level) });
    }

    fn ack(&mut self, id: ConnectionId, packet: fn(Ack<'static>) -> Packet<'static>, number: u16) {
        self.feed(id, packet(Ack::new(identifier(number), ReasonCode::SUCCESS)));
    }

    /// Transmits, and shows the packets.
    fn sent(&mut self, id: ConnectionId) -> String {
        let mut out = Vec::new();
        assert!(!self.broker.transmit(id, self.now, &mut out));
        assert!(!self.broker.wants_transmit(id));
        packets(&out, V5_0).iter().map(|one| show(one, true)).collect::<Vec<_>>().join(", ")
    }

    /// Fetches a batch and stores it. Returns the kinds of its records, with `-` for deletions, in
    /// the order of the page of `journal`. The broker hands them out in any order.
    fn fetch(&mut self) -> (Option<Batch>, String) {
        let mut records = Vec::new();
        let store = &mut self.store;
        let batch = self.broker.poll_journal(|record| {
            let place = b"vmsfqoinr".iter().position(|kind| *kind == record.key[0]);
            records.push((place, record.key.to_vec(), record.value.is_none()));
            store.put(record);
        });
        records.sort();
        let shown = records.iter().map(|(_, key, is_deleted)| {
            format!("{}{}", if *is_deleted { "-" } else { "" }, char::from(key[0]))
        });
        (batch, shown.collect())
    }

    /// Stores a batch and syncs it. Returns the kinds of its records.
    fn sync(&mut self) -> String {
        let (batch, kinds) = self.fetch();
        batch.into_iter().for_each(|batch| self.broker.durable(batch));
        kinds
    }

    /// Loses the broker, and makes one of the store.
    fn crash(&mut self) {
        let (broker, damaged) = self.store.restore(BrokerConfig::default(), self.now);
        assert_eq!(damaged, []);
        self.broker = broker;
    }
}

/// [5.0 §4.4]
#[test]
fn acknowledgements_wait_until_records_are_durable() {
    let mut host = Host::new();
    let receiver = host.connect(kept(V5_0, "receiver"));
    assert!(!host.broker.wants_transmit(receiver));
    assert_eq!((host.sent(receiver).as_str(), host.sync().as_str()), ("", "vs"));
    assert_eq!(host.sent(receiver), "connack 00");
    host.subscribe(receiver, "t");
    let sender = host.join(clean(V5_0, "sender"));

    host.publish(sender, 1, "1", 1);
    // A PINGRESP keeps its place behind PUBACK. The subscriber need not wait.
    host.feed(sender, Packet::Pingreq);
    assert_eq!(host.sent(sender), "");
    assert_eq!(host.sent(receiver), "#1 t=1 q1");
    let (batch, kinds) = host.fetch();
    assert_eq!((host.sent(sender).as_str(), kinds.as_str()), ("", "mq"));
    while host.broker.poll_action().is_some() {}
    host.broker.durable(batch.unwrap());
    assert!(host.broker.wants_transmit(sender));
    assert_eq!(host.broker.poll_action(), Some(Action::Ready(sender)));
    assert_eq!(host.sent(sender), "puback #1 00, pingresp");
    host.ack(receiver, Packet::Puback, 1);
    assert_eq!(host.sync(), "-m-q");
}

/// [5.0 MQTT-4.3.3-2] [5.0 MQTT-4.3.3-8]
#[test]
fn each_packet_of_an_exchange_waits_for_its_record() {
    let mut host = Host::new();
    let receiver = host.join(kept(V5_0, "receiver"));
    host.subscribe(receiver, "t");
    let sender = host.join(kept(V5_0, "sender"));
    host.publish(sender, 5, "1", 2);
    assert_eq!((host.sent(sender), host.sent(receiver)), (String::new(), String::new()));
    assert_eq!(host.sync(), "mqoi");
    assert_eq!((&*host.sent(sender), &*host.sent(receiver)), ("pubrec #5 00", "#1 t=1 q2"));
    host.ack(sender, Packet::Pubrel, 5);
    host.ack(receiver, Packet::Pubrec, 1);
    assert_eq!((host.sent(sender), host.sent(receiver)), (String::new(), String::new()));
    assert_eq!(host.sync(), "-m-qo-i");
    assert_eq!((&*host.sent(sender), &*host.sent(receiver)), ("pubcomp #5 00", "#1 pubrel 00"));
    host.ack(receiver, Packet::Pubcomp, 1);
    assert_eq!(host.sync(), "-o");
}

#[test]
fn message_acknowledged_within_a_batch_is_not_written() {
    let mut host = Host::new();
    let receiver = host.join(kept(V5_0, "receiver"));
    host.subscribe(receiver, "t");
    let sender = host.join(kept(V5_0, "sender"));
    for number in 1..=9 {
        host.publish(sender, number, "1", 1);
        assert_eq!(host.sent(receiver), format!("#{number} t=1 q1"));
        host.ack(receiver, Packet::Puback, number);
    }
    assert_eq!(host.sent(sender), "");
    assert!(host.broker.wants_journal());
    assert_eq!(host.fetch(), (None, String::new()));
    assert!(!host.broker.wants_journal());
    assert_eq!(host.sent(sender).matches("puback").count(), 9);
}

#[test]
fn closed_batch_shrinks_with_each_acknowledgement() {
    let mut host = Host::new();
    let receiver = host.join(kept(V5_0, "receiver"));
    host.subscribe(receiver, "t");
    let sender = host.join(clean(V5_0, "sender"));
    host.publish(sender, 1, "1", 1);
    host.publish(sender, 2, "2", 1);
    let left =
        |host: &mut Host| host.broker.close_batch().map(|batch| (batch.records, batch.ended));
    assert_eq!(left(&mut host), Some((4, 0)));
    // This one is in the next batch.
    host.publish(sender, 3, "3", 1);
    assert_eq!(host.sent(receiver), "#1 t=1 q1, #2 t=2 q1, #3 t=3 q1");
    host.ack(receiver, Packet::Puback, 1);
    assert_eq!(left(&mut host), Some((2, 1)));
    host.ack(receiver, Packet::Puback, 2);
    assert_eq!(left(&mut host), Some((0, 2)));
    assert_eq!(host.sent(sender), "");
    assert_eq!(host.fetch(), (None, String::new()));
    assert_eq!(host.sent(sender), "puback #1 00, puback #2 00");
    assert!(host.broker.wants_journal());
    let (batch, kinds) = host.fetch();
    assert_eq!((kinds.as_str(), host.sent(sender).as_str()), ("mq", ""));
    host.ack(receiver, Packet::Puback, 3);
    host.broker.durable(batch.unwrap());
    assert_eq!(host.sent(sender), "puback #3 00");
    // Nothing is gained by waiting, but the ends of records are still to be stored.
    assert_eq!(left(&mut host), Some((0, 3)));
    assert_eq!(host.sync(), "-m-q");
}

#[test]
fn batch_is_not_closed_for_what_no_acknowledgement_ends() {
    let mut host = Host::new();
    let receiver = host.join(kept(V5_0, "receiver"));
    host.subscribe(receiver, "t");
    let sender = host.join(kept(V5_0, "sender"));
    assert_eq!(host.broker.close_batch(), None);
    host.publish(sender, 1, "2", 2);
    assert_eq!(host.broker.close_batch(), None);
    assert_eq!(host.sync(), "mqi");
    let _ = host.sent(receiver);
    assert_eq!(host.broker.close_batch(), None);
    assert_eq!(host.sync(), "o");
    let gone = host.join(kept(V5_0, "gone"));
    host.subscribe(gone, "t");
    let _ = host.broker.connection_lost(gone, NOW);
    host.sync();
    host.publish(sender, 2, "away", 1);
    assert_eq!(host.broker.close_batch(), None);
    assert_eq!(host.sync(), "mqq");
    // Another change ends the wait, and all is one batch.
    assert!(host.broker.end_session("gone", &Disconnect::default(), NOW));
    host.sync();
    host.publish(sender, 3, "online", 1);
    assert_eq!(host.broker.close_batch().map(|batch| batch.records), Some(2));
    host.publish(sender, 4, "online", 1);
    let retained = Publish { retain: true, ..message("r", "1", 0) };
    host.broker.publish(&retained, NOW).unwrap();
    assert_eq!(host.broker.close_batch(), None);
    assert_eq!(host.sync(), "mmmqqr");
    assert!(host.sent(sender).ends_with("puback #3 00, puback #4 00"));
}

#[test]
fn clean_sessions_write_no_record() {
    let mut host = Host::new();
    let (receiver, sender) = (host.join(clean(V5_0, "receiver")), host.join(clean(V5_0, "sender")));
    host.subscribe(receiver, "t");
    for (number, level) in [(1, 1), (2, 2)] {
        host.publish(sender, number, "1", level);
        assert!(host.sent(sender).starts_with("pub"), "nothing waits");
        assert!(host.sent(receiver).contains("t=1"));
    }
    assert!(!host.broker.wants_journal());
}

#[test]
fn empty_batch_waits_for_the_one_before() {
    let mut host = Host::new();
    let receiver = host.join(kept(V5_0, "receiver"));
    host.subscribe(receiver, "t");
    let sender = host.join(kept(V5_0, "sender"));
    host.publish(sender, 1, "1", 1);
    let (first, _) = host.fetch();
    host.publish(sender, 2, "2", 1);
    assert_eq!(host.sent(receiver), "#1 t=1 q1, #2 t=2 q1");
    host.ack(receiver, Packet::Puback, 2);
    // The second batch is empty, but must not be taken for durable before the first.
    let (second, kinds) = host.fetch();
    assert_eq!((host.sent(sender).as_str(), kinds.as_str()), ("", ""));
    host.broker.durable(first.unwrap());
    assert_eq!(host.sent(sender), "puback #1 00");
    host.broker.durable(second.unwrap());
    assert_eq!(host.sent(sender), "puback #2 00");
}

#[test]
fn connection_counts_as_closed_when_its_output_is_not_held_back() {
    let mut host = Host::new();
    let receiver = host.join(kept(V5_0, "receiver"));
    host.subscribe(receiver, "t");
    let sender = host.join(kept(V5_0, "sender"));
    host.publish(sender, 1, "1", 1);
    host.broker.disconnect(sender, &Disconnect::new(ReasonCode::SERVER_SHUTTING_DOWN), NOW);
    assert!(!host.broker.is_closed(sender) && host.broker.closed(sender).is_none());
    assert!(!host.broker.wants_input(sender));
    let is_closed = |action: &Action| matches!(action, Action::Closed(id, _) if *id == sender);
    assert!(!core::iter::from_fn(|| host.broker.poll_action()).any(|action| is_closed(&action)));
    host.sync();
    assert!(host.broker.is_closed(sender));
    assert!(core::iter::from_fn(|| host.broker.poll_action()).any(|action| is_closed(&action)));
    assert_eq!(host.sent(sender), "puback #1 00, disconnect 8b");
}

#[test]
fn input_is_not_wanted_while_many_records_are_not_durable() {
    let mut host = Host::with(BrokerConfig::default().maximum_unsynced(1_000));
    let receiver = host.join(kept(V5_0, "receiver"));
    host.subscribe(receiver, "t");
    let sender = host.join(kept(V5_0, "sender"));
    let publish = Publish { packet_identifier: Some(identifier(1)), ..message("t", "1", 1) };
    let bytes = encoded(publish, V5_0).repeat(100);
    let mut input = &bytes[..];
    let mut answers = 0;
    for _ in 0..100 {
        while host.broker.handle_input(sender, &mut input, NOW) {}
        assert_eq!(host.broker.wants_input(sender), input.is_empty());
        if input.is_empty() {
            break;
        }
        while host.broker.poll_action().is_some() {}
        assert_eq!(host.broker.close_batch(), None);
        host.sync();
        let hints: Vec<_> = core::iter::from_fn(|| host.broker.poll_action()).collect();
        assert!(hints.contains(&Action::Ready(sender)), "{hints:?}");
        assert!(host.broker.wants_input(sender));
        answers += host.sent(sender).matches("puback").count();
    }
    host.sync();
    answers += host.sent(sender).matches("puback").count();
    assert_eq!(answers, 100);
}

/// [5.0 MQTT-3.1.2-8] [5.0 MQTT-3.1.3-9]
#[test]
fn wills_and_expiry_survive_a_crash() {
    let mut host = Host::new();
    let watcher = host.join(kept(V5_0, "watcher"));
    host.subscribe(watcher, "will/#");
    let with_will = |name: &'static str, seconds, delay| {
        let properties = WillProperties { will_delay_interval: delay, ..Default::default() };
        let will =
            Will { qos: QoS::AtLeastOnce, properties, ..Will::new("will/t", name.as_bytes()) };
        Connect { will: Some(will), ..expiring(name, seconds) }
    };
    let connected = host.join(with_will("connected", 100, Some(10)));
    let _ = host.join(with_will("short", 5, Some(10)));
    let left = host.join(with_will("left", 100, Some(20)));
    let _ = host.broker.connection_lost(left, host.now);
    let _ = host.join(clean(V5_0, "clean"));
    host.sync();
    let _ = connected;
    host.crash();
    host.now = host.now.plus_seconds(1);
    let watcher = host.join(kept(V5_0, "watcher"));
    let mut seen = Vec::new();
    for second in 1..=110 {
        host.now = NOW.plus_seconds(second);
        host.broker.handle_timeout(host.now);
        let sent = host.sent(watcher);
        let without_number = sent.split_once(' ').map(|(_, message)| message);
        seen.extend(without_number.map(|message| format!("{second}: {message}")));
    }
    // The crash ends the connections. One had ended before.
    let expected = ["5: will/t=short q1", "10: will/t=connected q1", "20: will/t=left q1"];
    assert_eq!(seen, expected);
    assert_eq!(host.broker.stats().sessions, 1);
    host.sync();
    host.crash();
    assert_eq!(host.broker.stats().sessions, 1, "what has ended stays away");
}

#[test]
fn grants_survive_a_crash() {
    let mut host = Host::new();
    let id = host.join(kept(V5_0, "receiver"));
    host.subscribe(id, "#");
    let secret = Filter::new("secret/#", V5_0).unwrap();
    let group = Filter::new("$share/g/a", V5_0).unwrap();
    let grants =
        Grants::asked().allow(&[Access::Subscribe], &group).deny(&[Access::Receive], &secret);
    let grants = grants.allow(&[Access::Receive], &Filter::new("#", V5_0).unwrap());
    host.broker.set_grants(id, grants, NOW);
    host.sync();
    host.crash();
    for topic in ["secret/1", "open/1"] {
        let publish = Publish { qos: QoS::AtLeastOnce, ..Publish::new(topic, b"") };
        host.broker.publish(&publish, NOW).unwrap();
    }
    assert_eq!(host.broker.client("receiver").unwrap().queued, 1);
}

/// [5.0 §4.8.2]
#[test]
fn message_of_a_group_is_handed_on_after_a_crash() {
    let mut host = Host::new();
    let first = host.join(expiring("first", 10));
    host.subscribe(first, "$share/g/t");
    let sender = host.join(clean(V5_0, "sender"));
    host.publish(sender, 1, "1", 1);
    host.sync();
    assert_eq!(host.sent(first), "#1 t=1 q1");
    let second = host.join(kept(V5_0, "second"));
    host.subscribe(second, "$share/g/t");
    host.crash();
    let second = host.join(kept(V5_0, "second"));
    assert_eq!(host.sent(second), "");
    host.now = NOW.plus_seconds(10);
    host.broker.handle_timeout(host.now);
    host.sync();
    assert!(host.sent(second).ends_with("t=1 q1"));
    assert!(host.broker.client("first").is_none());
}

/// [5.0 MQTT-3.3.1-1] [5.0 MQTT-4.4.0-1] [3.1.1 MQTT-3.3.1-1] [3.1.1 MQTT-4.4.0-1]
#[test]
fn message_sent_before_the_connection_ended_keeps_its_identifier() {
    let mut host = Host::new();
    let receiver = host.join(kept(V5_0, "receiver"));
    host.subscribe(receiver, "t");
    let sender = host.join(clean(V5_0, "sender"));
    for (number, payload) in [(1, "one"), (2, "two"), (3, "three")] {
        host.publish(sender, number, payload, 1);
    }
    host.sync();
    assert_eq!(host.sent(receiver), "#1 t=one q1, #2 t=two q1, #3 t=three q1");
    host.ack(receiver, Packet::Puback, 2);
    assert_eq!(host.sync(), "-m-q");
    let _ = host.broker.connection_lost(receiver, NOW);
    host.publish(sender, 4, "four", 1);
    assert_eq!(host.sync(), "msqoo");
    // Twice, because what is restored is stored as it was.
    for _ in 0..2 {
        host.crash();
    }
    let receiver = host.connect(kept(V5_0, "receiver"));
    host.sync();
    let expected = "connack 00 present, #1 t=one q1 D, #3 t=three q1 D, #9 t=four q1";
    assert_eq!(host.sent(receiver), expected);
    host.ack(receiver, Packet::Puback, 3);
    assert_eq!(host.sync(), "-m-q-o");
}

/// [5.0 MQTT-3.3.1-1] [5.0 §3.3.1.1] [3.1.1 MQTT-3.3.1-1]
#[test]
fn message_that_was_possibly_sent_before_a_crash_has_dup() {
    let mut host = Host::new();
    let limits = ConnectProperties { receive_maximum: Some(2), ..kept(V5_0, "").properties };
    let connect = || Connect { properties: limits, ..kept(V5_0, "receiver") };
    let receiver = host.join(connect());
    host.subscribe(receiver, "t");
    let sender = host.join(clean(V5_0, "sender"));
    for (number, level) in [(1, 1), (2, 2), (3, 1), (4, 2), (5, 1)] {
        host.publish(sender, number, &number.to_string(), level);
    }
    host.sync();
    // With QoS 1 it need not wait.
    assert_eq!(host.sent(receiver), "#1 t=1 q1");
    host.sync();
    assert_eq!(host.sent(receiver), "#2 t=2 q2");
    host.crash();
    // The third has waited, which no record says. The fourth was not sent, so the fifth was not.
    let receiver = host.connect(connect());
    host.sync();
    assert_eq!(host.sent(receiver), "connack 00 present, #11 t=1 q1 D, #2 t=2 q2 D");
    host.ack(receiver, Packet::Puback, 11);
    assert_eq!(host.sent(receiver), "#12 t=3 q1 D");
    host.ack(receiver, Packet::Puback, 12);
    host.sync();
    assert_eq!(host.sent(receiver), "#13 t=4 q2");
    host.ack(receiver, Packet::Pubrec, 2);
    host.ack(receiver, Packet::Pubcomp, 2);
    host.sync();
    assert!(host.sent(receiver).ends_with("t=5 q1"));
}

/// A part of the answer was decided by an earlier call, whose records are not durable.
#[test]
fn suback_waits_for_the_records_of_earlier_calls() {
    let mut host = Host::new();
    let id = host.join(kept(V5_0, "client"));
    let filter = Filter::new("a", V5_0).unwrap();
    host.broker.set_grants(id, Grants::asked().allow(&[Access::Subscribe], &filter), NOW);
    host.sync();
    let subscriptions = ["a", "b"].map(|filter| Subscription::new(filter, QoS::AtLeastOnce));
    host.feed(id, Subscribe::new(identifier(1), &subscriptions));
    let (question, _) = host.broker.question(id).unwrap();
    let properties = ConnackProperties::default();
    host.broker.refuse(question, ReasonCode::NOT_AUTHORIZED, properties, NOW).unwrap();
    assert_eq!(host.sent(id), "");
    assert_eq!(host.sync(), "f");
    assert_eq!(host.sent(id), "suback #1 01 87");
}

/// Records of others are no matter of a session that is not stored.
#[test]
fn suback_of_a_clean_session_waits_for_nothing() {
    let mut host = Host::new();
    let id = host.join(clean(V5_0, "clean"));
    host.broker.publish(&Publish { retain: true, ..message("r", "x", 1) }, NOW).unwrap();
    assert!(host.broker.wants_journal());
    host.feed(id, Subscribe::new(identifier(1), &[Subscription::new("a", QoS::AtLeastOnce)]));
    assert_eq!(host.sent(id), "suback #1 01");
}

#[test]
fn connack_waits_for_the_end_of_an_earlier_session() {
    let mut host = Host::new();
    let id = host.join(kept(V5_0, "client"));
    assert!(host.broker.end_session("client", &Disconnect::default(), NOW));
    let _ = host.broker.connection_lost(id, NOW);
    let id = host.connect(Connect { clean_start: false, ..clean(V5_0, "client") });
    assert_eq!((&*host.sent(id), &*host.sync()), ("", "-s"));
    assert_eq!(host.sent(id), "connack 00");
}

/// A host reads from a connection only while it wants input, and else waits for a hint.
#[test]
fn each_connection_is_hinted_at_when_the_journal_has_room() {
    let mut host = Host::with(BrokerConfig::default().maximum_unsynced(100));
    let quiet: Vec<_> = ["a", "b", "c"].iter().map(|name| host.join(kept(V5_0, name))).collect();
    host.subscribe(quiet[0], "t");
    let sender = host.join(clean(V5_0, "sender"));
    host.publish(sender, 1, "1", 1);
    while host.broker.poll_action().is_some() {}
    assert_eq!(host.sent(quiet[0]), "#1 t=1 q1");
    assert!(quiet.iter().all(|id| !host.broker.wants_input(*id)));
    // The host is to blame that they are silent.
    host.now = NOW.plus_seconds(1_000);
    host.broker.handle_timeout(host.now);
    assert_eq!(host.broker.stats().connected, 4);
    host.sync();
    let hints: Vec<_> = core::iter::from_fn(|| host.broker.poll_action()).collect();
    for id in quiet {
        assert!(host.broker.wants_input(id) && hints.contains(&Action::Ready(id)), "{hints:?}");
    }
}

/// A log of a snapshot and of the batches after it is the state, too.
#[test]
fn snapshot_and_later_batches_are_the_state() {
    let mut host = Host::new();
    let id = host.join(kept(V5_0, "client"));
    host.subscribe(id, "t");
    let retain = |payload| Publish { retain: true, ..message("r", payload, 1) };
    host.broker.publish(&retain("old"), NOW).unwrap();
    host.publish(id, 1, "1", 1);
    let mut log = Store::default();
    host.broker.snapshot(|record| log.put(record));
    host.broker.publish(&retain(""), NOW).unwrap();
    host.feed(id, Unsubscribe::new(identifier(7), &["t".into()]));
    assert!(host.broker.end_session("client", &Disconnect::default(), NOW));
    let _ = log.commit(&mut host.broker);
    assert_eq!(log.0.keys().map(|key| key[0]).collect::<Vec<_>>(), *b"v");
}

/// A client can have many identifiers in use when its session ends.
#[test]
fn exchanges_of_an_ended_session_are_removed_in_steps() {
    let server = ServerConfig::new().receive_maximum(5_000);
    let mut host = Host::with(BrokerConfig::new(server));
    let id = host.join(kept(V5_0, "client"));
    for number in 1..=5_000 {
        host.publish(id, number, "x", 2);
        host.sync();
        let _ = host.sent(id);
    }
    assert!(host.broker.end_session("client", &Disconnect::default(), NOW));
    let (batch, kinds) = host.fetch();
    assert!(kinds.len() < 10, "{kinds}");
    host.broker.durable(batch.unwrap());
    host.broker.handle_timeout(NOW);
    let (_, kinds) = host.fetch();
    assert!(kinds.len() < 3_000, "{} records at once", kinds.len());
    while host.broker.poll_timeout().is_some_and(|due| due <= NOW) {
        host.broker.handle_timeout(NOW);
    }
    let _ = host.fetch();
    assert_eq!(host.store.0.len(), 1, "only the version is left");
}

// ---- the format ----

/// Returns records of every kind.
fn full() -> Store {
    let mut host = Host::with(BrokerConfig::default());
    let receiver = host.join(kept(V5_0, "receiver"));
    let subscriptions = [Subscription::new("t", QoS::ExactlyOnce)];
    let properties = SubscribeProperties {
        subscription_identifier: SubscriptionIdentifier::new(7),
        ..SubscribeProperties::default()
    };
    let subscriptions = (&subscriptions).into();
    let packet_identifier = identifier(1);
    host.feed(receiver, Subscribe { packet_identifier, properties, subscriptions });
    host.subscribe(receiver, "$share/g/t");
    let filter = Filter::new("t", V5_0).unwrap();
    host.broker.set_grants(receiver, Grants::all().deny(&[Access::Publish], &filter), NOW);
    let will = Will { qos: QoS::AtLeastOnce, ..Will::new("will", b"gone") };
    let sender = host.join(Connect { will: Some(will), ..expiring("sender", 60) });
    let expiry = PublishProperties { message_expiry_interval: Some(10), ..Default::default() };
    let old = Publish { retain: true, properties: expiry, ..message("r", "old", 1) };
    host.feed(sender, Publish { packet_identifier: Some(identifier(2)), ..old });
    for number in 3..=5 {
        host.publish(sender, number, "2", 2);
    }
    host.publish(sender, 6, "1", 1);
    assert_eq!((host.sent(receiver), host.sent(sender)), (String::new(), String::new()));
    host.sync();
    assert!(host.sent(receiver).contains("q2") && host.sent(sender).contains("pubrec"));
    host.ack(receiver, Packet::Pubrec, 1);
    host.ack(sender, Packet::Pubrel, 3);
    let away = host.join(kept(V5_0, "away"));
    host.subscribe(away, "a/#");
    let _ = host.broker.connection_lost(away, NOW);
    host.sync();
    // Only one of several nodes has a position.
    host.store.0.insert(b"n".into(), 17_u64.to_be_bytes().into());
    host.store
}

#[test]
fn records_equal_the_vectors() {
    let file = testkit::files::read("spec-vectors/journal.json");
    let file: serde_json::Value = serde_json::from_str(&file).unwrap();
    let hex = |one: &serde_json::Value, name: &str| -> Vec<u8> {
        let digits = one[name].as_str().unwrap().split_whitespace();
        digits.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
    };
    let mut expected = Store::default();
    for one in file["records"].as_array().unwrap() {
        expected.0.insert(hex(one, "key"), hex(one, "value"));
    }
    assert_eq!(full(), expected, "the records have changed");
    for one in file["damaged"].as_array().unwrap() {
        let mut restore = Restore::new(BrokerConfig::default(), 1, NOW);
        let error = restore.record(&hex(one, "key"), &hex(one, "value")).unwrap_err();
        assert_eq!(format!("{error:?}"), one["error"].as_str().unwrap(), "{one}");
    }
}

proptest! {
    /// Whatever the store has become, a broker is made, and can go on.
    #[test]
    fn damaged_records_do_no_harm(
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0..4_u8, any::<u8>(), any::<prop::sample::Index>()), 0..6),
    ) {
        let mut store = full();
        for (which, kind, byte, at) in changes {
            let keys: Vec<_> = store.0.keys().cloned().collect();
            let Some(key) = keys.get(which.index(keys.len().max(1))).cloned() else { continue };
            let mut value = store.0.remove(&key).unwrap();
            let mut key = key;
            match kind {
                0 => continue,
                1 if !value.is_empty() => { let at = at.index(value.len()); value[at] ^= byte | 1; }
                2 => { let at = at.index(key.len()); key[at] ^= byte | 1; }
                _ => value.truncate(at.index(value.len() + 1)),
            }
            store.0.insert(key, value);
        }
        let mut restore = Restore::new(BrokerConfig::default(), 1, NOW);
        for (key, value) in &store.0 {
            let _ = restore.record(key, value);
        }
        let Ok(broker) = restore.finish(|_, _| {}) else { return Ok(()) };
        let mut host = Host { broker, now: NOW, store };
        let receiver = host.connect(kept(V5_0, "receiver"));
        host.broker.handle_timeout(NOW.plus_seconds(100));
        let batch = host.broker.poll_journal(|_| {});
        batch.into_iter().for_each(|batch| host.broker.durable(batch));
        prop_assert!(host.sent(receiver).starts_with("connack 00"));
        let mut shot = Store::default();
        host.broker.snapshot(|record| shot.put(record));
        let (_, damaged) = shot.restore(BrokerConfig::default(), NOW);
        prop_assert_eq!(damaged, []);
    }
}
