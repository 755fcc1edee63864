//! The host's own hands: figures, messages of its own, and the end of sessions. Full queues.

use super::*;
use mqtt_sansio::broker::{CloseCause, Overflow};

#[test]
fn figures_count_what_happens() {
    play(|net| {
        let (sender, receiver) = (helper(net, "sender"), net.join(kept(V5_0, "receiver")));
        net.subscribe_all(receiver, None, &[("t", at(1)), ("$share/g/u", at(1))]);
        net.retain(sender, "t", "x", 2);
        net.publish(sender, "u", "x", 1);
        net.publish(sender, "v", "x", 0);
        let stats = net.broker.stats();
        assert_eq!((stats.connections, stats.sessions, stats.connected), (2, 2, 2));
        assert_eq!((stats.subscriptions, stats.retained, stats.retained_bytes), (2, 1, 2));
        assert_eq!((stats.messages_received, stats.messages_queued), ([1, 1, 1], [0, 2, 0]));
        let client = net.broker.client("receiver").unwrap();
        assert_eq!((client.subscriptions, client.queued, client.in_flight), (2, 0, 2));
        let counted = client.counted.unwrap();
        assert_eq!((counted.messages_received, counted.messages_queued), (0, 2));
        let sum = net
            .broker
            .clients()
            .filter_map(|one| one.counted)
            .fold((0, 0), |sum, one| (sum.0 + one.bytes_received, sum.1 + one.bytes_sent));
        assert_eq!(sum, (stats.bytes_received, stats.bytes_sent));
        net.cut(receiver);
        net.leave(sender);
        let stats = net.broker.stats();
        assert_eq!((stats.connections, stats.sessions, stats.connected), (0, 1, 0));
        let clients: Vec<_> = net.broker.clients().map(|one| one.client_identifier).collect();
        assert_eq!(clients, ["receiver"]);
        assert!(net.broker.client("sender").is_none());
        net.join(clean(V5_0, "receiver"));
        assert_eq!(net.broker.stats().subscriptions, 0);
    });
}

#[test]
fn host_publishes_without_a_connection() {
    play(|net| {
        let receiver = helper(net, "receiver");
        net.subscribe_all(receiver, None, &[("t", at(2)), ("$SYS/x", at(2))]);
        let now = net.instant();
        let mut publish = |topic, level| {
            let publish = Publish { retain: true, ..message(topic, "x", level) };
            let code = net.broker.publish(&publish, now).unwrap();
            net.advance(0);
            code
        };
        assert_eq!(publish("t", 1), ReasonCode::SUCCESS);
        assert_eq!(publish("$SYS/x", 0), ReasonCode::SUCCESS);
        let unwanted = publish("u", 2);
        // A node does not know the subscribers of the others.
        let is_node = net.broker.position().is_some();
        let expected =
            if is_node { ReasonCode::SUCCESS } else { ReasonCode::NO_MATCHING_SUBSCRIBERS };
        assert_eq!(unwanted, expected);
        assert!(net.broker.publish(&message("#", "x", 0), now).is_err());
        net.drain();
        net.leave(receiver);
        assert_eq!(net.take(receiver), ["t=x q1", "$SYS/x=x", "closed"]);
        assert_eq!(net.broker.retained().len(), 3);
    });
}

#[test]
fn figures_are_published_at_an_interval() {
    let interval = Some(Duration::from_secs(10));
    play_with(&BrokerConfig::default().sys_interval(interval), |net| {
        net.advance(0);
        let receiver = helper(net, "receiver");
        net.subscribe(receiver, "$SYS/broker/clients/+", 0);
        // The first figures are retained. There was no client then.
        let first = ["connected=0 R", "disconnected=0 R", "total=0 R"];
        assert_eq!(net.messages(receiver), first.map(|one| format!("$SYS/broker/clients/{one}")));
        net.advance(9_999);
        assert_eq!(net.messages(receiver), NONE);
        net.advance(1);
        let mut got = net.messages(receiver);
        got.sort();
        assert_eq!(
            got,
            ["connected=1", "disconnected=0", "total=1"]
                .map(|one| format!("$SYS/broker/clients/{one}"))
        );
        let late = helper(net, "late");
        net.subscribe(late, "#", 0);
        assert_eq!(net.messages(late), NONE);
        net.subscribe(late, "$SYS/#", 0);
        assert_eq!(net.messages(late).len(), net.broker.retained().len());
    });
}

#[test]
fn host_ends_a_session_by_its_name() {
    each(|net, version| {
        let (client, watcher) = (net.join(kept(version, "client")), watcher(net));
        net.subscribe(client, "t", 1);
        let now = net.instant();
        let disconnect = Disconnect::new(ReasonCode::ADMINISTRATIVE_ACTION);
        assert!(!net.broker.end_session("nobody", &disconnect, now));
        assert!(net.broker.end_session("client", &disconnect, now));
        net.advance(0);
        net.publish(watcher, "t", "x", 1);
        let expected = if version == V5_0 { &["disconnect 98", "closed"][..] } else { &["closed"] };
        assert_eq!(net.take(client), expected);
        assert_eq!(
            net.closed.last().unwrap().cause,
            CloseCause::Ended(ReasonCode::ADMINISTRATIVE_ACTION)
        );
        let client = net.join(kept(version, "client"));
        net.cut(client);
        assert!(net.broker.end_session("client", &disconnect, now));
        assert_eq!(net.broker.stats().sessions, 1);
    });
}

#[test]
fn full_queue_drops_what_the_configuration_says() {
    let server = ServerConfig::new().maximum_queued(3, 1_000_000).maximum_in_flight(1);
    for (overflow, expected) in [
        (Overflow::DropNew, &["t=0 q1", "t=1", "t=2 q1", "t=3", "t=4 q1"][..]),
        (Overflow::DropOldestQos0, &["t=0 q1", "t=1", "t=2 q1", "t=4 q1", "t=6 q1"]),
        (Overflow::Disconnect, &["t=0 q1", "t=1", "disconnect 97", "closed"]),
    ] {
        play_with(&BrokerConfig::new(server.clone()).overflow(overflow), |net| {
            let (sender, receiver) = (helper(net, "sender"), helper(net, "receiver"));
            net.subscribe(receiver, "t", 1);
            net.publish(sender, "t", "0", 1);
            for number in 1..7 {
                net.publish(sender, "t", &number.to_string(), 1 - number % 2);
            }
            let got = match overflow {
                Overflow::Disconnect => net.take(receiver),
                _ => net.messages(receiver),
            };
            assert_eq!(got, expected, "{overflow:?}");
            let dropped = if overflow == Overflow::Disconnect { 1 } else { 2 };
            assert_eq!(net.broker.stats().dropped.queue_full, dropped, "{overflow:?}");
        });
    }
}

#[test]
fn queue_of_no_messages_still_delivers() {
    play_on(ServerConfig::new().maximum_queued(0, 0), |net| {
        let (sender, receiver) = (helper(net, "sender"), helper(net, "receiver"));
        net.subscribe(receiver, "t", 1);
        for _ in 0..3 {
            net.publish(sender, "t", "x", 1);
        }
        assert_eq!(net.messages(receiver).len(), 3);
    });
}

/// [5.0 MQTT-3.2.2-16]
#[test]
fn assigned_identifiers_tell_nothing_of_each_other() {
    play(|net| {
        let names: BTreeSet<String> = (0..20)
            .map(|_| {
                let client = net.connect(clean(V5_0, ""));
                let connack = net.next(client).unwrap();
                let (_, name) = connack.split_once("assigned=").unwrap();
                assert_eq!((name.len(), &name[..5]), (37, "auto-"));
                assert_eq!(net.broker.client_identifier(net.id(client)), Some(name));
                name[5..].to_owned()
            })
            .collect();
        assert_eq!(names.len(), 20);
        // Neighbours share no more than chance makes them share.
        let names: Vec<_> = names.into_iter().collect();
        let shared = |a: &str, b: &str| a.bytes().zip(b.bytes()).filter(|(a, b)| a == b).count();
        assert!(names.windows(2).all(|pair| shared(&pair[0], &pair[1]) < 16));
    });
}

/// [5.0 §3.3.4] [5.0 MQTT-3.3.4-9]
#[test]
fn retained_messages_keep_coming_as_they_are_acknowledged() {
    play(|net| {
        let sender = helper(net, "sender");
        for number in 0..60 {
            net.retain(sender, &format!("t/{number}"), "x", 1);
        }
        let properties = ConnectProperties {
            receive_maximum: Some(5.try_into().unwrap()),
            ..Default::default()
        };
        let receiver = net.join(Connect { properties, ..clean(V5_0, "receiver") });
        net.subscribe(receiver, "t/#", 1);
        assert_eq!(net.messages(receiver).len(), 60);
    });
}

/// Each client's will fills the queue of the next one, which does not read.
#[test]
fn overflow_of_many_clients_is_not_recursive() {
    let server = ServerConfig::new().maximum_queued(1, 1_000);
    let config = BrokerConfig::new(server).overflow(Overflow::Disconnect);
    let mut net = Net::new(config, support::Feed::Whole);
    const COUNT: usize = 3_000;
    // A shorter message would be written at once.
    const LONG: [u8; 600] = [b'x'; 600];
    for number in 0..COUNT {
        let (name, topic) = (format!("client-{number}"), format!("will/{}", number + 1));
        let will = Some(Will::new(topic.as_str(), &LONG));
        let client = net.join(Connect { will, ..clean(V5_0, &name) });
        net.subscribe(client, &format!("will/{number}"), 0);
        net.stall(client, true);
        let full = Publish::new(format!("will/{number}").leak() as &str, &LONG);
        net.broker.publish(&full, Instant::from_millis(net.now)).unwrap();
    }
    net.broker.publish(&message("will/0", "x", 0), Instant::from_millis(net.now)).unwrap();
    net.advance(1);
    assert_eq!(net.broker.stats().connected, 0);
    assert_eq!(net.closed.len(), COUNT);
}
