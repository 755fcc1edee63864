//! Brokers that share their clients, and sessions that move between them.

use super::*;
use mqtt_sansio::broker::journal::{Record, RecordError};
use mqtt_sansio::broker::{Forward, ImportError, Interest, NodeId, Question};
use mqtt_sansio::codec::{Filter, QoS, TopicName};
use support::{Feed, Store};
use testkit::nodes::{self, Care, Tally};

fn simulate(seeds: u64, care: Care) -> (Tally, Vec<String>) {
    let mut tally = Tally::default();
    let wrong = (0..seeds).filter_map(|seed| {
        let wrong = nodes::run(seed, care, &mut tally).err()?;
        Some(format!("seed {seed}: {wrong}"))
    });
    let wrong = wrong.collect();
    (tally, wrong)
}

/// `SEEDS=1000000 cargo test --release --test it -- simulated_nodes` runs more.
#[test]
fn simulated_nodes_lose_and_double_nothing() {
    let seeds = std::env::var("SEEDS").map_or(200, |seeds| seeds.parse().unwrap());
    let (tally, wrong) = simulate(seeds, Care::Careful);
    assert_eq!(wrong, [""; 0]);
    let Tally { moves, cuts, forwarded, repeated, received } = tally;
    assert!(
        [moves, cuts, forwarded, repeated, received].iter().all(|count| *count > 200),
        "{tally:?}"
    );
}

/// The simulation notices hosts that do not follow the rules.
#[test]
fn simulated_nodes_show_careless_hosts() {
    let (_, wrong) = simulate(50, Care::WithoutPositions);
    assert!(wrong.iter().any(|one| one.contains("has arrived 2 times")), "{wrong:#?}");
    let (_, wrong) = simulate(100, Care::MovesWithoutCatchingUp);
    for what in ["has arrived 0 times", "has arrived 2 times"] {
        assert!(wrong.iter().any(|one| one.contains(what)), "{what}: {wrong:#?}");
    }
}

/// Sends a message, under the packet identifier 1 if it needs one.
fn send(net: &mut Net, c: C, publish: Publish<'_>) {
    let packet_identifier = (publish.qos > QoS::AtMostOnce).then(|| identifier(1));
    net.send(c, Publish { packet_identifier, ..publish }.into());
}

fn node() -> Net {
    Net::new(BrokerConfig::default().is_node(true), Feed::Whole)
}

fn filter(text: &str) -> Filter {
    Filter::new(text, V5_0).unwrap()
}

fn interests(net: &mut Net) -> Vec<(String, bool)> {
    let next = || net.broker.poll_interest();
    let shown = |Interest { filter, is_wanted, .. }| (filter.to_string(), is_wanted);
    core::iter::from_fn(next).map(shown).collect()
}

#[test]
fn interest_is_told_for_first_and_last_subscription() {
    let mut net = node();
    let (a, b) = (helper(&mut net, "a"), helper(&mut net, "b"));
    net.subscribe(a, "t/#", 1);
    net.subscribe(b, "t/#", 0);
    net.subscribe(b, "$share/g/t", 0);
    net.subscribe(b, "t", 0);
    let told = [("t".to_owned(), true), ("t/#".to_owned(), true)];
    assert_eq!(interests(&mut net), told);
    assert_eq!(net.broker.interests().count(), 2);
    net.leave(a);
    assert_eq!(interests(&mut net), []);
    net.leave(b);
    assert_eq!(interests(&mut net), told.map(|(filter, _)| (filter, false)));
    // A change that is undone is not told.
    let c = helper(&mut net, "c");
    net.subscribe(c, "t", 0);
    net.leave(c);
    assert_eq!(interests(&mut net), []);
    assert_eq!(net.broker.interests().count(), 0);
}

#[test]
fn message_for_other_node_waits_for_host() {
    let mut net = node();
    net.broker.forward(NodeId(7), &filter("t/+"));
    net.broker.forward(NodeId(5), &filter("t/#"));
    net.broker.forward(NodeId(5), &filter("t/1"));
    let (local, publisher) = (watcher(&mut net), helper(&mut net, "publisher"));
    send(&mut net, publisher, message("t/1", "one", 1));
    assert_eq!(net.take(local), NONE);
    assert_eq!(net.take(publisher), NONE);
    let (question, asked) = net.asked.pop().unwrap();
    let Question::Forward(Forward { message: sent, nodes, .. }) = asked else { panic!() };
    assert_eq!((sent.payload(), nodes), (&b"one"[..], vec![NodeId(5), NodeId(7)]));
    net.allow(question);
    assert_eq!(net.take(local), ["t/1=one q1"]);
    assert_eq!(net.take(publisher), ["puback #1 00"]);

    // The publisher does not wait for a message with QoS 0.
    send(&mut net, publisher, message("t/1", "two", 0));
    assert_eq!(net.take(local), ["t/1=two"]);
    let Forward { message: sent, nodes, .. } = net.broker.poll_forward().unwrap();
    assert_eq!((sent.qos(), nodes.len()), (QoS::AtMostOnce, 2));
    assert_eq!(net.broker.poll_forward(), None);

    assert!(net.broker.stop_forwarding(NodeId(5), &filter("t/1")));
    assert!(!net.broker.stop_forwarding(NodeId(5), &filter("t/1")));
    send(&mut net, publisher, message("other", "three", 1));
    assert_eq!(net.take(publisher), ["puback #1 00"]);
}

#[test]
fn message_that_cannot_be_forwarded_is_refused_or_sent_again() {
    for version in VERSIONS {
        let mut net = node();
        net.broker.forward(NodeId(1), &filter("t"));
        let (local, publisher) = (watcher(&mut net), net.join(clean(version, "publisher")));
        send(&mut net, publisher, message("t", "one", 1));
        let (question, _) = net.asked.pop().unwrap();
        net.refuse(question, ReasonCode::QUOTA_EXCEEDED);
        let expected = if version == V5_0 { "puback #1 97" } else { "closed" };
        assert_eq!(net.take(publisher), [expected]);
        assert_eq!(net.take(local), NONE);
        assert_eq!(net.broker.stats().dropped.not_forwarded, u64::from(version == V5_0));

        // The host does not answer.
        let late = net.join(clean(version, "late"));
        send(&mut net, late, message("t", "two", 2));
        net.advance(600_000);
        let all = net.take(late);
        assert_eq!(all.last().unwrap(), "closed", "{all:?}");
        assert!(!all.iter().any(|one| one.contains("pubrec")), "{all:?}");
    }
}

#[test]
fn retained_messages_go_to_all_nodes_in_one_order() {
    let mut net = node();
    let publisher = helper(&mut net, "publisher");
    send(&mut net, publisher, Publish { retain: true, ..message("t", "new", 0) });
    assert_eq!(net.broker.retained().iter().count(), 0);
    let (question, _) = net.asked.pop().unwrap();
    // Another node was faster.
    let old = Publish { retain: true, ..message("t", "old", 0) };
    let old = mqtt_sansio::session::Message::new(&old).unwrap();
    net.broker.remote(&old, None, Some((NodeId(0), 1)), Instant::from_millis(net.now));
    net.allow(question);
    let topic_name = TopicName::new("t").unwrap();
    assert_eq!(net.broker.retained().get(&topic_name).unwrap().message.payload(), b"new");
    // It is not told again, and a message that is not new changes nothing.
    net.broker.remote(&old, None, Some((NodeId(0), 1)), Instant::from_millis(net.now));
    assert_eq!(net.broker.retained().get(&topic_name).unwrap().message.payload(), b"new");
    assert_eq!(net.broker.position(NodeId(0)), Some(1));
    assert_eq!(net.broker.poll_forward(), None);
}

#[test]
fn wills_and_messages_of_the_host_are_forwarded() {
    let mut net = node();
    net.broker.forward(NodeId(1), &filter("#"));
    let will = Will { qos: QoS::AtLeastOnce, ..Will::new("will", b"gone") };
    let mortal = net.join(Connect { will: Some(will), ..clean(V5_0, "mortal") });
    net.cut(mortal);
    net.broker.publish(&message("host", "says", 1), Instant::from_millis(net.now)).unwrap();
    let shown = core::iter::from_fn(|| net.broker.poll_forward())
        .map(|one| one.message.topic_name().to_str().to_owned());
    assert_eq!(shown.collect::<Vec<_>>(), ["will", "host"]);
}

#[test]
fn messages_that_the_host_does_not_fetch_are_bounded() {
    let config = BrokerConfig::default().is_node(true).maximum_forwarded(10_000);
    let mut net = Net::new(config, Feed::Whole);
    net.broker.forward(NodeId(1), &filter("#"));
    let publisher = helper(&mut net, "publisher");
    for _ in 0..100 {
        send(&mut net, publisher, message("t", &"x".repeat(1_000), 0));
    }
    let kept = core::iter::from_fn(|| net.broker.poll_forward()).count();
    assert!((8..10).contains(&kept), "{kept}");
    assert_eq!(net.broker.stats().dropped.not_forwarded, 100 - kept as u64);
}

#[test]
fn position_survives_a_crash() {
    let config = BrokerConfig::default().is_node(true).durable(true);
    let mut broker = Broker::new(config.clone(), 0x5EED, Instant::from_millis(0));
    let one = mqtt_sansio::session::Message::new(&message("t", "one", 1)).unwrap();
    broker.remote(&one, None, Some((NodeId(3), 17)), Instant::from_millis(0));
    let mut store = Store::default();
    let _ = store.commit(&mut broker);
    let (restored, damaged) = store.restore(config, Instant::from_millis(0));
    assert_eq!((restored.position(NodeId(3)), damaged), (Some(17), vec![]));
}

#[test]
fn sessions_that_cannot_be_imported_are_refused() {
    let (mut net, now) = (Net::new(BrokerConfig::default(), Feed::Whole), Instant::from_millis(0));
    let client = net.join(kept(V5_0, "a"));
    net.subscribe(client, "t", 2);
    net.leave(client);
    net.broker.publish(&message("t", "waits", 1), now).unwrap();
    let mut store = Store::default();
    assert!(!net.broker.export_session("b", |_| panic!("there is no session")));
    assert!(net.broker.export_session("a", |record| store.put(record)));
    let import = |broker: &mut Broker, store: &Store| broker.import_session(store.records(), now);

    let error = import(&mut net.broker, &store).unwrap_err();
    assert!(matches!(
        &error,
        ImportError::Record { key, error: RecordError::DuplicateClient } if key[0] == b's'
    ));
    let mut full = Broker::new(BrokerConfig::default().maximum_sessions(0), 0x5EED, now);
    assert_eq!(import(&mut full, &store), Err(ImportError::Full));
    let mut other = Broker::new(BrokerConfig::default(), 0x5EED, now);
    assert_eq!(other.import_session([], now), Err(ImportError::NotOneSession(0)));
    let end = Record { key: b"v", value: None };
    assert!(other.import_session([end], now).is_err());
    // Without any of its records the session is refused, or it is another one.
    for (key, value) in store.0.clone() {
        store.0.remove(&key);
        let imported = import(&mut other, &store);
        assert_eq!(imported.is_err(), matches!(key[0], b's' | b'm'), "{key:x?}");
        if imported.is_ok() {
            assert!(other.end_session("a", &Disconnect::default(), now));
        }
        assert_eq!(other.stats().sessions, 0);
        // Damaged records do not panic.
        store.0.insert(key.clone(), value[..value.len() / 2].to_vec());
        let _ = import(&mut other, &store);
        let _ = other.end_session("a", &Disconnect::default(), now);
        store.0.insert(key, value);
    }
    assert_eq!(import(&mut other, &store), Ok(()));
    assert_eq!(other.client("a").unwrap().queued, 1);
}
