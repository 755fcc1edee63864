//! Bridges between brokers, seen from the clients of those brokers.

mod machine;
mod world;

use core::iter::repeat_n;
use mqtt_sansio::bridge::{BridgeConfig, BridgeTopic, Side};
use mqtt_sansio::broker::{Access, Broker, BrokerConfig, Grants};
use mqtt_sansio::codec::{Filter, Publish, PublishProperties, QoS, UserProperty, Version};
use mqtt_sansio::server::ServerConfig;
use std::collections::BTreeSet;
use world::{V3, V5, World, config, message};

const LOCAL: usize = 0;
const REMOTE: usize = 1;

const NONE: [&str; 0] = [];

#[test]
fn messages_are_carried_in_their_direction_under_their_names() {
    for version in [V3, V5] {
        let topics = [
            "up/# out 2 \"\" site/",
            "down/+ in 2 here/ \"\"",
            "x/# both 2 a/ b/",
            "\"\" out 1 one/name other/name",
        ];
        let mut world = World::pair(version, &topics);
        let (local, remote) = (world.join(LOCAL, "#"), world.join(REMOTE, "#"));
        for qos in 0..=2 {
            for (topic, carried) in [
                ("up/1/2", Some("site/up/1/2")),
                ("a/x/1", Some("b/x/1")),
                ("one/name", Some("other/name")),
                ("down/1", None),
                ("here/down/1", None),
                ("a", None),
            ] {
                world.send(local, topic, "m", qos);
                assert_eq!(world.received(local)[0], format!("{topic}=m q{qos}"));
                let qos = if topic == "one/name" { qos.min(1) } else { qos };
                let expected = carried.map(|name| format!("{name}=m q{qos}"));
                assert_eq!(world.received(remote), Vec::from_iter(expected), "{version} {topic}");
            }
            for (topic, carried) in [
                ("down/1", Some("here/down/1")),
                ("b/x", Some("a/x")),
                ("down/1/2", None),
                ("site/up/1", None),
                ("other/name", None),
            ] {
                world.send(remote, topic, "m", qos);
                assert_eq!(world.received(remote)[0], format!("{topic}=m q{qos}"));
                let expected = carried.map(|name| format!("{name}=m q{qos}"));
                assert_eq!(world.received(local), Vec::from_iter(expected), "{version} {topic}");
            }
        }
    }
}

/// [5.0 MQTT-3.8.3-3]
#[test]
fn message_of_a_topic_in_both_directions_arrives_once() {
    let mut world = World::pair(V5, &["# both 2"]);
    let (local, remote) = (world.join(LOCAL, "#"), world.join(REMOTE, "#"));
    for (sender, qos) in [(local, 0), (remote, 1), (local, 2), (remote, 2)] {
        let before: usize = world.links.iter().map(|link| link.carried).sum();
        world.send(sender, "t", "m", qos);
        for client in [local, remote] {
            assert_eq!(world.received(client), [format!("t=m q{qos}")]);
        }
        let after: usize = world.links.iter().map(|link| link.carried).sum();
        assert_eq!(after - before, [2, 4, 8][usize::from(qos)], "packets for QoS {qos}");
    }
}

/// A 3.1.1 broker that does not know bridges returns what it was sent.
#[test]
fn message_returns_at_most_once_from_a_broker_before_5_0() {
    let mut world = World::pair(V3, &["# both 1"]);
    let (local, remote) = (world.join(LOCAL, "#"), world.join(REMOTE, "#"));
    world.send(local, "t", "m", 1);
    assert_eq!(world.received(remote), ["t=m q1"]);
    assert_eq!(world.received(local), ["t=m q1", "t=m q1"]);
    world.send(remote, "t", "m", 1);
    assert_eq!(world.received(remote), ["t=m q1"]);
    assert_eq!(world.received(local), ["t=m q1"]);
}

/// [5.0 MQTT-3.3.1-13]
#[test]
fn retained_messages_keep_their_flag() {
    let mut world = World::new(2);
    let (local, remote) = (world.join(LOCAL, "none"), world.join(REMOTE, "#"));
    let retained = |payload| Publish { retain: true, ..message("t/1", payload, 1) };
    world.publish(local, &retained("before"));
    world.run();
    world.bridge(LOCAL, REMOTE, V5, config(&["t/# both 1"]));
    world.run();
    assert_eq!(world.received(remote), ["t/1=before q1 R"]);
    world.publish(local, &retained("after"));
    world.send(local, "t/1", "live", 1);
    assert_eq!(world.received(remote), ["t/1=after q1 R", "t/1=live q1"]);
    // A resumed session is not sent them again.
    world.cut(0);
    world.cut(1);
    world.run();
    assert_eq!(world.received(remote), NONE);
    let late = world.join(REMOTE, "#");
    assert_eq!(world.received(late), ["t/1=after q1 R"]);
    // An empty payload removes the message on both sides.
    world.publish(local, &retained(""));
    world.run();
    assert!(world.brokers.iter().all(|broker| broker.retained().is_empty()));
}

#[test]
fn properties_are_carried_with_translated_response_topic() {
    for (topics, response) in [
        (["q/# out 1 \"\" site/", "r/# in 1 \"\" site/"], "site/r/1"),
        (["q/# out 1 \"\" site/", "s/# in 1 \"\" site/"], "r/1"),
    ] {
        let mut world = World::pair(V5, &topics);
        let local = world.join(LOCAL, "none");
        world.links[1].is_dead = true;
        world.cut(1);
        let user = [UserProperty { name: "k".into(), value: "v".into() }];
        let properties = PublishProperties {
            payload_format_indicator: Some(true),
            message_expiry_interval: Some(10),
            content_type: Some("text".into()),
            response_topic: Some("r/1".into()),
            correlation_data: Some(b"\x01"),
            user_properties: (&user).into(),
            ..PublishProperties::default()
        };
        world.publish(local, &Publish { properties, ..message("q", "m", 1) });
        world.run();
        // Four seconds pass on the way.
        world.wait(4);
        let remote = world.join(REMOTE, "#");
        world.clients[remote].shown = |publish| format!("{:?}", publish.properties);
        world.links[1].is_dead = false;
        world.run();
        let expected = PublishProperties {
            message_expiry_interval: Some(6),
            response_topic: Some(response.into()),
            ..properties
        };
        assert_eq!(world.received(remote), [format!("{expected:?}")]);
    }
}

/// Publishes five messages with QoS 1 and five with QoS 2 from one side, and breaks a connection of
/// the bridge after `cut_at` packets. Returns whether it was broken, and what has arrived.
fn cut(version: Version, sender: usize, link: usize, cut_at: usize) -> (bool, Vec<String>) {
    let mut world = World::pair(version, &["t/# both 2 l/ r/"]);
    let names = ["l/t", "r/t"];
    let (from, to) = (world.join(sender, "none"), world.join(1 - sender, names[1 - sender]));
    world.links[link].carried = 0;
    world.links[link].cut_at = Some(cut_at);
    for number in 0..10 {
        let qos = 1 + number % 2;
        world.publish(from, &message(names[sender], &number.to_string(), qos));
    }
    world.run();
    // The links work, and nothing is left over.
    world.send(from, names[sender], "last", 2);
    for side in [Side::Local, Side::Remote] {
        assert_eq!(world.bridges[0].stats(side).unfinished, 0);
    }
    (world.links[link].carried >= cut_at, world.received(to))
}

/// [5.0 MQTT-4.4.0-1] [3.1.1 MQTT-4.4.0-1]
#[test]
fn broken_connections_lose_nothing_and_double_no_qos_2() {
    for (version, sender, link) in
        [V3, V5].iter().flat_map(|v| [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(s, l)| (*v, s, l)))
    {
        let mut cuts = 0;
        for cut_at in 1.. {
            let (is_cut, received) = cut(version, sender, link, cut_at);
            if !is_cut {
                break;
            }
            cuts += 1;
            let context = format!("{version}, from {sender}, link {link}, after {cut_at}");
            let exactly: Vec<_> = received.iter().filter(|shown| shown.contains("q2")).collect();
            let name = ["r/t", "l/t"][sender];
            let numbers = ["1", "3", "5", "7", "9", "last"];
            let expected: Vec<_> = numbers.map(|n| format!("{name}={n} q2")).into();
            assert_eq!(exactly, expected.iter().collect::<Vec<_>>(), "{context}");
            let least: BTreeSet<_> = received.iter().filter(|one| one.contains("q1")).collect();
            assert_eq!(least.len(), 5, "{context}: {received:?}");
        }
        // Two packets for each message with QoS 1, four for each with QoS 2.
        assert!(cuts >= 34, "{cuts}");
    }
}

#[test]
fn chain_of_brokers_carries_messages_in_both_directions() {
    let mut world = World::new(3);
    world.bridge(0, 1, V5, config(&["# both 2"]));
    world.bridge(1, 2, V5, config(&["# both 2"]));
    world.run();
    let clients = [0, 1, 2].map(|broker| world.join(broker, "#"));
    for (sender, qos) in [(0, 0), (1, 1), (2, 2), (0, 2)] {
        world.send(clients[sender], "t", "m", qos);
        for client in clients {
            assert_eq!(world.received(client), [format!("t=m q{qos}")]);
        }
    }
}

#[test]
fn dead_remote_leaves_messages_with_the_local_broker() {
    let mut world = World::new(2);
    let topics = ["t/# out 1".parse::<BridgeTopic>().unwrap()];
    let server = ServerConfig::new().maximum_queued(100_000, 1 << 30);
    world.brokers[LOCAL] = Broker::new(BrokerConfig::new(server), 7, world.now);
    world.bridge(LOCAL, REMOTE, V5, BridgeConfig::new(topics).unwrap().receive_maximum(10));
    world.links[1].is_dead = true;
    let local = world.join(LOCAL, "none");
    for number in 0..5_000 {
        world.publish(local, &message("t/1", &number.to_string(), number as u8 % 2));
        if number % 100 == 0 {
            world.run();
        }
    }
    world.run();
    let (from, to) = (world.bridges[0].stats(Side::Local), world.bridges[0].stats(Side::Remote));
    assert_eq!((from.unfinished, to.sent), (10, 10));
    // The broker holds the others back, also those with QoS 0 behind them.
    let held = world.brokers[LOCAL].client("bridge-0").unwrap().queued as u64;
    assert_eq!(held + to.sent + to.dropped, 5_000);
    world.links[1].is_dead = false;
    let remote = world.join(REMOTE, "#");
    let expected: Vec<_> = (1..5_000).step_by(2).map(|n| format!("t/1={n} q1")).collect();
    let least: Vec<_> = world.received(remote).into_iter().filter(|m| m.contains("q1")).collect();
    assert_eq!(least.len(), expected.len());
    assert_eq!(least, expected);
}

#[test]
fn bridge_subscribes_again_when_a_session_is_lost() {
    for (version, broker) in [(V3, REMOTE), (V5, REMOTE), (V5, LOCAL)] {
        let mut world = World::pair(version, &["t/1 out 2 l/ r/", "t/2 in 2 l/ r/"]);
        world.replace(broker);
        let clients = [world.join(LOCAL, "l/#"), world.join(REMOTE, "r/#")];
        world.send(clients[0], "l/t/1", "a", 2);
        world.send(clients[1], "r/t/2", "b", 1);
        assert_eq!(world.received(clients[0]), ["l/t/1=a q2", "l/t/2=b q1"]);
        assert_eq!(world.received(clients[1]), ["r/t/1=a q2", "r/t/2=b q1"]);
    }
}

#[test]
fn messages_in_flight_are_published_again_when_the_remote_loses_its_session() {
    let mut world = World::pair(V5, &["t out 1"]);
    let local = world.join(LOCAL, "none");
    // The connection breaks when the remote broker has been sent all three.
    world.links[1].carried = 0;
    world.links[1].cut_at = Some(3);
    for payload in ["1", "2", "3"] {
        world.publish(local, &message("t", payload, 1));
    }
    world.is_dead_after_cut = true;
    world.run();
    assert_eq!(world.bridges[0].stats(Side::Local).unfinished, 3);
    world.replace(REMOTE);
    let remote = world.join(REMOTE, "#");
    world.links[1].is_dead = false;
    world.run();
    assert_eq!(world.received(remote), ["t=1 q1", "t=2 q1", "t=3 q1"]);
    assert_eq!(world.bridges[0].stats(Side::Local).unfinished, 0);
}

#[test]
fn new_bridge_resumes_the_sessions_of_the_last_run() {
    let mut world = World::pair(V5, &["a/# in 1", "b/# out 1"]);
    let (local, remote) = (world.join(LOCAL, "#"), world.join(REMOTE, "#"));
    // A session that is resumed is not sent retained messages again.
    world.publish(local, &Publish { retain: true, ..message("b/1", "0", 1) });
    world.run();
    world.links[1].is_dead = true;
    world.cut(1);
    for payload in ["1", "2"] {
        world.send(local, "b/1", payload, 1);
        world.send(remote, "a/1", payload, 1);
    }
    world.received(local);
    world.received(remote);
    // The program ends, and starts with the direction of one topic turned.
    world.cut(0);
    world.links.clear();
    world.bridges.clear();
    world.bridge(LOCAL, REMOTE, V5, config(&["a/# out 1", "b/# out 1"]));
    world.run();
    // The messages that waited are acknowledged: no topic covers those of the remote broker.
    assert_eq!(world.received(local), NONE);
    assert_eq!(world.received(remote), ["b/1=1 q1", "b/1=2 q1"]);
    assert_eq!(world.bridges[0].stats(Side::Remote).unroutable, 2);
    // It has unsubscribed.
    world.send(remote, "a/1", "3", 1);
    assert_eq!(world.bridges[0].stats(Side::Remote).unroutable, 2);
    world.send(local, "a/1", "4", 1);
    assert_eq!(world.received(remote), ["a/1=3 q1", "a/1=4 q1"]);
}

#[test]
fn refused_topic_is_reported_and_the_others_work() {
    let mut world = World::new(2);
    let secret: Filter = "secret/#".parse().unwrap();
    world.grants = Grants::all().deny(&[Access::Subscribe], &secret);
    world.bridge(LOCAL, REMOTE, V5, config(&["t in 1", "secret/# in 1"]));
    world.run();
    assert!(
        world.events.contains(&"remote refuses 1: Not authorized".to_owned()),
        "{:?}",
        world.events
    );
    let (local, remote) = (world.join(LOCAL, "#"), world.join(REMOTE, "none"));
    world.send(remote, "t", "m", 1);
    assert_eq!(world.received(local), ["t=m q1"]);
}

#[test]
fn qos_and_retain_are_lowered_to_what_the_receiver_supports() {
    let mut world = World::new(2);
    let server = ServerConfig::new().maximum_qos(QoS::AtLeastOnce).retain_available(false);
    let server = server.maximum_packet_size(100);
    world.brokers[REMOTE] = Broker::new(BrokerConfig::new(server), 7, world.now);
    world.bridge(LOCAL, REMOTE, V5, config(&["t out 2"]));
    let local = world.join(LOCAL, "none");
    let retained = |payload| Publish { retain: true, ..message("t", payload, 2) };
    world.publish(local, &retained("a"));
    world.run();
    // While there is no connection, nothing is known about its limits.
    world.links[1].is_dead = true;
    world.cut(1);
    let long: String = repeat_n('x', 100).collect();
    world.publish(local, &retained("b"));
    world.send(local, "t", &long, 2);
    world.links[1].is_dead = false;
    let remote = world.join_at(REMOTE, "#", QoS::AtLeastOnce);
    world.send(local, "t", &long, 2);
    world.publish(local, &retained("c"));
    world.run();
    assert_eq!(world.received(remote), ["t=b q1", "t=c q1"]);
    let stats = world.bridges[0].stats(Side::Remote);
    assert_eq!(stats.dropped, 2);
    assert_eq!(world.bridges[0].stats(Side::Local).unfinished, 0);
}
