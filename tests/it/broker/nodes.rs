//! Brokers that share their clients, and sessions that move between them.

use super::*;
use mqtt_sansio::broker::journal::{Record, RecordError};
use mqtt_sansio::broker::{Forward, ImportError, Interest, Member, NodeId, Route};
use mqtt_sansio::codec::{Filter, QoS, TopicName};
use mqtt_sansio::session::Message;
use support::{Feed, Store, at};
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
    let seeds = std::env::var("SEEDS").map_or(400, |seeds| seeds.parse().unwrap());
    let (tally, wrong) = simulate(seeds, Care::Careful);
    assert_eq!(wrong, [""; 0]);
    let Tally { moves, cuts, forwarded, repeated, caught_up, received, .. } = tally;
    let Tally { bridge_moves, carried, .. } = tally;
    let counts = [moves, cuts, forwarded, repeated, caught_up, received, bridge_moves, carried];
    assert!(counts.iter().all(|count| *count > 200), "{tally:?}");
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

/// Returns the messages for the nodes since the last call.
fn forwards(net: &mut Net) -> Vec<Forward> {
    let rest: Vec<_> = core::iter::from_fn(|| net.broker.poll_forward()).collect();
    net.forwards.extend(rest);
    core::mem::take(&mut net.forwards)
}

#[test]
fn message_is_acknowledged_when_log_has_it_and_delivered_from_there() {
    let (mut net, now) = (node(), Instant::from_millis(1_000_000));
    let (local, publisher) = (watcher(&mut net), helper(&mut net, "publisher"));
    let publish = Publish { packet_identifier: Some(identifier(1)), ..message("t", "one", 1) };
    let (id, bytes) = (net.id(publisher), encoded(publish, V5_0));
    let _ = net.broker.handle_input(id, &mut &bytes[..], now);
    let batch = net.broker.poll_journal(|_| ()).unwrap();
    let [one] = &forwards(&mut net)[..] else { panic!() };
    assert_eq!((one.message.payload(), &*one.publisher), (&b"one"[..], "publisher"));
    assert!(!net.broker.wants_transmit(id));
    net.broker.durable(batch);
    assert!(net.broker.wants_transmit(id));
    assert_eq!(net.take(local), NONE);
    net.broker.remote(&one.message, &one.publisher, None, Some(1), now);
    net.drain();
    assert_eq!(net.take(local), ["t=one q1"]);
    assert_eq!(net.take(publisher), ["puback #1 00"]);
}

#[test]
fn output_that_waits_is_dropped_when_another_node_has_the_session() {
    let (mut net, now) = (node(), Instant::from_millis(1_000_000));
    let publisher = net.join(kept(V5_0, "publisher"));
    let publish = Publish { packet_identifier: Some(identifier(1)), ..message("t", "one", 2) };
    let (id, bytes) = (net.id(publisher), encoded(publish, V5_0));
    let _ = net.broker.handle_input(id, &mut &bytes[..], now);
    net.broker.drop_held_output(id);
    let disconnect = Disconnect::new(ReasonCode::SESSION_TAKEN_OVER);
    assert!(net.broker.evict("publisher", None, &disconnect, now, |_| ()));
    net.drain();
    assert_eq!(net.take(publisher), ["disconnect 8e", "closed"]);
}

#[test]
fn output_of_older_connection_is_dropped_when_another_node_has_the_session() {
    let (mut net, now) = (node(), Instant::from_millis(1_000_000));
    let older = net.join(kept(V5_0, "publisher"));
    let publish = Publish { packet_identifier: Some(identifier(1)), ..message("t", "one", 2) };
    let (id, bytes) = (net.id(older), encoded(publish, V5_0));
    let _ = net.broker.handle_input(id, &mut &bytes[..], now);
    net.broker.disconnect(id, &Disconnect::new(ReasonCode::SESSION_TAKEN_OVER), now);
    net.broker.drop_held_output_of_ended(|client| client == "somebody else");
    assert!(!net.broker.is_closed(id));
    net.broker.drop_held_output_of_ended(|client| client == "publisher");
    assert!(net.broker.is_closed(id) && !net.broker.wants_transmit(id));
    net.drain();
    assert_eq!(net.take(older), ["closed"]);
}

#[test]
fn message_with_qos_0_goes_to_nodes_that_want_it() {
    let mut net = node();
    net.broker.forward(NodeId(7), &filter("t/+"));
    net.broker.forward(NodeId(5), &filter("t/#"));
    net.broker.forward(NodeId(5), &filter("t/1"));
    let (local, publisher) = (watcher(&mut net), helper(&mut net, "publisher"));
    send(&mut net, publisher, message("t/1", "one", 0));
    assert_eq!(net.take(local), ["t/1=one"]);
    let routes = |net: &mut Net| forwards(net).into_iter().map(|one| one.route).collect::<Vec<_>>();
    assert_eq!(routes(&mut net), [Route::Direct(vec![NodeId(5), NodeId(7)])]);
    assert!(net.broker.stop_forwarding(NodeId(5), &filter("t/1")));
    assert!(!net.broker.stop_forwarding(NodeId(5), &filter("t/1")));
    send(&mut net, publisher, message("other", "two", 0));
    assert_eq!(routes(&mut net), []);
    assert!(net.broker.wants_nodes());
    assert_eq!(interests(&mut net).len(), 1);
    assert!(!net.broker.wants_nodes());
}

// 5.0 §3.8.3.1
#[test]
fn publisher_with_no_local_receives_no_own_message_from_log() {
    let mut net = node();
    let client = helper(&mut net, "client");
    net.subscribe_with(client, "t", SubscriptionOptions { no_local: true, ..at(1) });
    send(&mut net, client, message("t", "own", 1));
    assert_eq!(net.take(client), ["puback #1 00"]);
    let [own] = &forwards(&mut net)[..] else { panic!() };
    let now = Instant::from_millis(net.now);
    net.broker.remote(&own.message, &own.publisher, None, Some(1), now);
    net.drain();
    assert_eq!(net.take(client), NONE);
    net.broker.remote(&own.message, "somebody else", None, Some(2), now);
    net.drain();
    assert_eq!(net.take(client), ["t=own q1"]);
}

#[test]
fn retained_messages_go_to_all_nodes_in_one_order() {
    let mut net = node();
    let publisher = helper(&mut net, "publisher");
    send(&mut net, publisher, Publish { retain: true, ..message("t", "new", 0) });
    assert_eq!(net.broker.retained().iter().count(), 0);
    let [new] = &forwards(&mut net)[..] else { panic!() };
    // Another node was faster.
    let old = Publish { retain: true, ..message("t", "old", 0) };
    let old = Message::new(&old).unwrap();
    let now = Instant::from_millis(net.now);
    net.broker.remote(&old, "", None, Some(1), now);
    net.broker.remote(&new.message, &new.publisher, None, Some(2), now);
    let topic_name = TopicName::new("t").unwrap();
    assert_eq!(net.broker.retained().get(&topic_name).unwrap().message.payload(), b"new");
    // A message that is not new changes nothing.
    net.broker.remote(&old, "", None, Some(1), now);
    assert_eq!(net.broker.retained().get(&topic_name).unwrap().message.payload(), b"new");
    assert_eq!((net.broker.position(), forwards(&mut net).len()), (Some(2), 0));
}

#[test]
fn wills_and_messages_of_the_host_go_to_the_log() {
    let mut net = node();
    let mortal = net.join(Connect { will: Some(Will::new("will", b"gone")), ..clean(V5_0, "one") });
    net.cut(mortal);
    net.broker.publish(&message("host", "says", 1), Instant::from_millis(net.now)).unwrap();
    let shown = forwards(&mut net).into_iter().map(|one| {
        assert_eq!(one.route, Route::Log);
        (one.message.topic_name().to_str().to_owned(), one.publisher.to_string())
    });
    let expected = [("will", "one"), ("host", "")];
    assert!(shown.eq(expected.map(|(topic, name)| (topic.to_owned(), name.to_owned()))));
}

#[test]
fn session_names_messages_of_the_log_by_position() {
    let (mut net, now) = (node(), Instant::from_millis(0));
    let client = net.join(kept(V5_0, "a"));
    net.subscribe(client, "t", 1);
    net.leave(client);
    let one = Message::new(&message("t", "one", 1)).unwrap();
    net.broker.remote(&one, "", None, Some(17), now);
    net.broker.remote(&one, "", None, Some(17), now);
    let mut store = Store::default();
    assert!(net.broker.export_session("a", |record| store.put(record)));
    let queued = |store: &Store| {
        let of = |kind: u8| store.0.iter().filter(move |(key, _)| key[0] == kind);
        (of(b'm').count(), of(b'q').map(|(_, value)| value[..8].to_vec()).collect::<Vec<_>>())
    };
    assert_eq!(queued(&store), (0, vec![17_u64.to_be_bytes().to_vec()]));
    // Another node finds the message in the log, and what is behind it.
    let mut other = Broker::new(BrokerConfig::default().is_node(true), 0x5EED, now);
    store.0.insert([b"m", &17_u64.to_be_bytes()[..]].concat(), one.to_bytes().to_vec());
    other.import_session(store.records(), now).unwrap();
    let two = Message::new(&message("t", "two", 1)).unwrap();
    other.catch_up("a", &two, "", None, 18, now);
    assert_eq!(other.client("a").unwrap().queued, 2);
    let mut again = Store::default();
    assert!(other.export_session("a", |record| again.put(record)));
    let positions = [17_u64, 18].map(|position| position.to_be_bytes().to_vec());
    assert_eq!(queued(&again), (0, positions.to_vec()));
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
    let config = BrokerConfig::default().is_node(true);
    let mut broker = Broker::new(config.clone(), 0x5EED, Instant::from_millis(0));
    let one = Message::new(&message("t", "one", 1)).unwrap();
    broker.remote(&one, "", None, Some(17), Instant::from_millis(0));
    let mut store = Store::default();
    let _ = store.commit(&mut broker);
    let (restored, damaged) = store.restore(config, Instant::from_millis(0));
    assert_eq!((restored.position(), damaged), (Some(17), vec![]));
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

#[test]
fn own_message_of_host_stays_at_its_node() {
    let (mut net, now) = (node(), Instant::from_millis(1_000_000));
    let local = watcher(&mut net);
    let elsewhere = NodeId(7);
    net.broker.forward(elsewhere, &filter("t"));
    let publish = Publish { retain: true, ..Publish::new("t", b"own") };
    net.broker.publish_own(&publish, now).unwrap();
    net.drain();
    assert_eq!(net.take(local), ["t=own"]);
    assert_eq!(forwards(&mut net), []);
    assert_eq!(net.broker.stats().retained, 1);
}

/// Returns the changes of members since the last call.
fn members(net: &mut Net) -> Vec<(String, Option<bool>)> {
    let next = || net.broker.poll_member();
    let shown = |Member { client_identifier, is_connected, .. }| {
        (client_identifier.to_string(), is_connected)
    };
    core::iter::from_fn(next).map(shown).collect()
}

// [5.0 §4.8.2]
#[test]
fn host_chooses_members_of_groups_that_span_nodes() {
    let config = BrokerConfig::default().is_node(true).groups_span_nodes(true);
    let mut net = Net::new(config, Feed::Whole);
    let now = Instant::from_millis(1_000_000);
    let (a, b) = (helper(&mut net, "a"), helper(&mut net, "b"));
    let share = filter("$share/g/t");
    net.subscribe(a, "$share/g/t", 1);
    net.subscribe(b, "$share/g/t", 1);
    assert_eq!(members(&mut net), [("a".to_owned(), Some(true)), ("b".to_owned(), Some(true))]);
    assert_eq!(net.broker.member("a", &share), Some(true));
    // Neither a message of the log nor one with QoS 0 is delivered without a choice.
    let publish = |text: &'static str, qos| Message::new(&message("t", text, qos)).unwrap();
    let (one, two) = (publish("one", 1), publish("two", 1));
    net.broker.remote(&one, "", None, Some(1), now);
    net.broker.publish(&message("t", "zero", 0), now).unwrap();
    let [direct] = &forwards(&mut net)[..] else { panic!() };
    assert_eq!(direct.route, Route::Direct(Vec::new()));
    net.drain();
    assert_eq!(net.take(a), NONE);
    assert_eq!(net.take(b), NONE);
    assert!(net.broker.deliver_to_member("b", &share, &one, None, Some(1), now));
    assert!(!net.broker.deliver_to_member("c", &share, &one, None, Some(1), now));
    assert!(!net.broker.deliver_to_member("b", &filter("$share/h/t"), &one, None, Some(1), now));
    net.drain();
    assert_eq!(net.take(b), ["t=one q1"]);
    // What a session leaves is for another member. It is stored until then, although it ends with
    // its connection.
    net.broker.remote(&two, "", None, Some(2), now);
    let mut kinds = Vec::new();
    net.broker.snapshot(|record| kinds.push(record.key[0]));
    assert_eq!(kinds.iter().filter(|kind| **kind == b's').count(), 2);
    assert!(net.broker.deliver_to_member("a", &share, &two, None, Some(2), now));
    assert!(net.broker.end_session("a", &Disconnect::default(), now));
    assert_eq!(members(&mut net), [("a".to_owned(), None)]);
    let [left] = &forwards(&mut net)[..] else { panic!() };
    assert_eq!((&left.message, &*left.publisher), (&two, "a"));
    assert_eq!(left.route, Route::Share(share.clone()));
    // So is what the last member leaves here after it has left the group.
    assert_eq!(net.unsubscribe(b, &["$share/g/t"]), [0]);
    assert!(net.broker.end_session("b", &Disconnect::default(), now));
    assert_eq!(members(&mut net), [("b".to_owned(), None)]);
    let [left] = &forwards(&mut net)[..] else { panic!() };
    assert_eq!((&left.message, &*left.publisher), (&one, "b"));
    assert_eq!(left.route, Route::Share(share));
}
