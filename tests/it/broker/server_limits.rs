//! Limits of the server.

use super::*;

fn limits(net: &mut Net) -> String {
    let client = net.connect(Connect { keep_alive: 60, ..kept(V5_0, "limits") });
    let packet = net.next_packet(client).unwrap();
    let Packet::Connack(connack) = packet.decode() else { panic!("{packet:?}") };
    let p = connack.properties;
    net.cut(client);
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        p.receive_maximum.unwrap_or(65_535),
        p.topic_alias_maximum.unwrap_or(0),
        p.maximum_packet_size,
        p.maximum_qos.map_or(2, |qos| qos.as_u8()),
        p.retain_available.unwrap_or(true),
        p.wildcard_subscription_available.unwrap_or(true),
        p.subscription_identifier_available.unwrap_or(true),
        p.shared_subscription_available.unwrap_or(true),
        p.server_keep_alive.unwrap_or(60),
        p.session_expiry_interval.unwrap_or(u32::MAX),
    )
}

/// [5.0 §3.2.2.3] [5.0 MQTT-3.2.2-9]
#[test]
fn connack_states_the_limits() {
    play(|net| {
        assert_eq!(limits(net), "1024 16 Some(1048576) 2 true true true true 60 4294967295");
    });
    let config = ServerConfig::new()
        .receive_maximum(7)
        .topic_alias_maximum(0)
        .maximum_packet_size(1_000)
        .maximum_qos(qos(1))
        .retain_available(false)
        .wildcard_subscription_available(false)
        .subscription_identifier_available(false)
        .shared_subscription_available(false)
        .maximum_keep_alive(NonZeroU16::new(9))
        .maximum_session_expiry(mqtt_sansio::codec::Expiry::After(8));
    play_on(config, |net| assert_eq!(limits(net), "7 0 Some(1000) 1 false false false false 9 8"));
    play_on(ServerConfig::new().maximum_qos(qos(0)), |net| {
        assert!(limits(net).contains(" 0 true"));
    });
}

/// [5.0 §3.2.2.3.4] [5.0 MQTT-3.2.2-10] [5.0 §3.2.2.3.5] [5.0 §3.2.2.3.6] [5.0 §3.3.4]
/// [5.0 MQTT-4.13.1-1] [3.1.1 MQTT-4.8.0-1]
#[test]
fn exceeding_a_server_limit_closes_with_its_reason_code() {
    let config = ServerConfig::new()
        .maximum_qos(qos(1))
        .retain_available(false)
        .maximum_packet_size(200)
        .receive_maximum(2)
        .topic_alias_maximum(3);
    play_on(config, |net| {
        let alias = |alias, topic| Publish {
            properties: PublishProperties { topic_alias: Some(alias), ..Default::default() },
            ..message(topic, "x", 0)
        };
        let publish = |publish: Publish<'_>| encoded(publish, V5_0);
        let qos_2 = Publish { packet_identifier: Some(identifier(1)), ..message("t", "x", 2) };
        for (bytes, code) in [
            (publish(qos_2), "9b"),
            (publish(Publish { retain: true, ..message("t", "x", 0) }), "9a"),
            (publish(Publish { retain: true, ..message("t", "", 0) }), "9a"),
            (publish(message("t", &"x".repeat(300), 0)), "95"),
            (vec![0x30, 0xFF, 0xFF, 0xFF, 0x7F], "95"),
            (publish(alias(4, "t")), "94"),
            (publish(alias(65_535, "t")), "94"),
            (vec![0x30, 7, 0, 1, b't', 3, 0x23, 0, 0], "94"),
            (publish(alias(3, "")), "82"),
        ] {
            let watcher = watcher(net);
            let client = helper(net, "client");
            assert!(net.subscribe_all(client, None, &[("t", at(2))])[0] <= 2);
            net.raw(client, &bytes);
            assert_eq!(
                net.take(client),
                [format!("disconnect {code}"), "closed".to_owned()],
                "{bytes:?}"
            );
            assert_eq!(net.messages(watcher), NONE);
        }
        for version in [V3_1, V3_1_1] {
            for publish in [
                qos_2,
                Publish { retain: true, ..message("t", "x", 0) },
                message("t", &"x".repeat(300), 0),
            ] {
                let client = net.join(clean(version, "client"));
                net.send(client, publish.into());
                assert_eq!(net.take(client), ["closed"]);
            }
        }
    });
}

/// [5.0 §3.2.2.3.6] [5.0 §2.1.4]
#[test]
fn packet_can_be_as_large_as_the_limit() {
    play_on(ServerConfig::new().maximum_packet_size(200), |net| {
        let (client, empty) =
            (helper(net, "client"), encoded(message("t", &"x".repeat(150), 0), V5_0).len() - 150);
        net.publish(client, "t", &"x".repeat(200 - empty), 0);
        assert!(net.is_open(client));
        net.publish(client, "t", &"x".repeat(201 - empty), 0);
        assert_eq!(net.take(client), ["disconnect 95", "closed"]);
    });
}

/// [5.0 MQTT-3.2.2-12] [5.0 MQTT-3.2.2-13]
#[test]
fn connect_is_refused_when_will_exceeds_a_limit() {
    play_on(ServerConfig::new().maximum_qos(qos(1)).retain_available(false), |net| {
        let watcher = watcher(net);
        for (number, retain, expected) in
            [(2, false, "connack 9b"), (0, true, "connack 9a"), (1, false, "connack 00")]
        {
            let will = Will {
                qos: qos(number),
                retain,
                topic: "will".into(),
                payload: b"x",
                ..Default::default()
            };
            let client = net.connect(Connect { will: Some(will), ..clean(V5_0, "client") });
            assert_eq!(net.next(client).unwrap(), expected);
            assert_eq!(net.is_open(client), expected == "connack 00");
            if expected != "connack 00" {
                let old = net.connect(Connect { will: Some(will), ..clean(V3_1_1, "old") });
                assert!(!net.is_open(old) && !net.take(old).contains(&"connack 00".to_owned()));
            }
        }
        assert_eq!(net.messages(watcher), NONE);
    });
}

/// [5.0 §3.3.4] [5.0 MQTT-4.3.3-10]
#[test]
fn exceeding_receive_maximum_is_a_violation_and_resending_is_not() {
    play_on(ServerConfig::new().receive_maximum(2), |net| {
        let (client, _) = (helper(net, "client"), watcher(net));
        let publish = |id, dup| Publish {
            dup,
            packet_identifier: Some(identifier(id)),
            ..message("t", "x", 2)
        };
        for (id, dup) in [(1, false), (2, false), (1, true), (2, true), (1, false)] {
            net.send(client, publish(id, dup).into());
            assert_eq!(net.take(client), [format!("pubrec #{id} 00")]);
        }
        net.ack(client, Packet::Pubrel, 1, 0);
        net.send(client, publish(3, false).into());
        assert_eq!(net.take(client), ["pubcomp #1 00", "pubrec #3 00"]);
        net.put(client, message("t", "x", 0));
        net.send(client, publish(4, false).into());
        assert_eq!(net.take(client), ["disconnect 93", "closed"]);
        // No packet before 5.0 can say so.
        let old = net.join(clean(V3_1_1, "old"));
        (1..=5).for_each(|id| net.send(old, publish(id, false).into()));
        assert_eq!(net.take(old).len(), 5);
    });
}

/// [5.0 MQTT-3.3.2-7] [5.0 MQTT-3.3.2-12] [5.0 §3.3.2.3.4]
#[test]
fn topic_alias_stands_for_its_topic_on_its_connection() {
    play(|net| {
        let receiver = watcher(net);
        let (one, two) = (helper(net, "one"), net.join(kept(V5_0, "two")));
        let send = |net: &mut Net, client, alias, topic, number| {
            let properties = PublishProperties { topic_alias: Some(alias), ..Default::default() };
            net.put(client, Publish { properties, ..message(topic, "x", number) });
        };
        send(net, one, 1, "a", 0);
        send(net, two, 1, "b", 1);
        send(net, one, 16, "c", 2);
        for alias in [1, 16] {
            send(net, one, alias, "", 1);
        }
        send(net, two, 1, "", 2);
        send(net, one, 1, "d", 0);
        send(net, one, 1, "", 0);
        let expected = ["a=x", "b=x q1", "c=x q2", "a=x q1", "c=x q1", "b=x q2", "d=x", "d=x"];
        assert_eq!(net.messages(receiver), expected);
        net.cut(two);
        let two = net.resume(kept(V5_0, "two"));
        send(net, two, 1, "", 0);
        assert_eq!(net.take(two), ["disconnect 82", "closed"]);
    });
}

/// [5.0 MQTT-3.3.2-12] [5.0 MQTT-4.3.3-10]
#[test]
fn topic_alias_is_set_by_refused_and_repeated_messages() {
    play_with(&BrokerConfig::new(ServerConfig::new()).maximum_retained(0, 0), |net| {
        let (receiver, client) = (watcher(net), helper(net, "client"));
        let properties =
            |alias| PublishProperties { topic_alias: Some(alias), ..Default::default() };
        let publish = Publish { packet_identifier: Some(identifier(99)), ..message("a", "x", 2) };
        net.send(client, publish.into());
        net.send(client, Publish { dup: true, properties: properties(1), ..publish }.into());
        net.send(client, Publish { properties: properties(1), ..message("", "1", 0) }.into());
        assert_eq!(
            net.put(
                client,
                Publish { retain: true, properties: properties(2), ..message("b", "x", 1) }
            ),
            0x97
        );
        net.send(client, Publish { properties: properties(2), ..message("", "2", 0) }.into());
        assert_eq!(net.messages(receiver), ["a=x q2", "a=1", "b=2"]);
    });
}

/// [5.0 MQTT-3.2.2-22] [5.0 §3.2.2.3.14] [5.0 MQTT-3.1.2-22] [3.1.1 MQTT-3.1.2-24]
#[test]
fn silent_client_is_disconnected_after_1_5_times_keep_alive() {
    for (version, asked, maximum, granted) in [
        (V5_0, 10, None, 10),
        (V5_0, 1, None, 1),
        (V5_0, 65_535, None, 65_535),
        (V5_0, 0, None, 0),
        (V5_0, 60, Some(10), 10),
        (V5_0, 0, Some(10), 10),
        (V5_0, 10, Some(10), 10),
        (V5_0, 5, Some(10), 5),
        (V3_1_1, 10, None, 10),
        (V3_1_1, 7, Some(5), 7),
        (V3_1_1, 0, None, 0),
        (V3_1, 3, None, 3),
    ] {
        play_on(ServerConfig::new().maximum_keep_alive(maximum.and_then(NonZeroU16::new)), |net| {
            let client = net.connect(Connect { keep_alive: asked, ..clean(version, "client") });
            let told =
                if asked == granted { String::new() } else { format!(" keep-alive={granted}") };
            assert_eq!(net.take(client), [format!("connack 00{told}")]);
            if granted == 0 {
                net.advance(1_000_000_000_000);
                assert!(net.is_open(client));
                return;
            }
            let patience = u64::from(granted) * 1_500;
            net.advance(patience - 1);
            net.send(client, Packet::Pingreq);
            assert_eq!(net.take(client), ["pingresp"]);
            net.advance(patience - 1);
            assert!(net.is_open(client));
            net.advance(1);
            assert!(!net.is_open(client));
            assert_eq!(
                net.take(client),
                if version == V5_0 { &["disconnect 8d", "closed"][..] } else { &["closed"] }
            );
        });
    }
}

/// [5.0 §3.1.2.10] [3.1.1 §3.1.2.10]
#[test]
fn keep_alive_counts_received_bytes_only() {
    each(|net, version| {
        let (sender, client) = (
            helper(net, "sender"),
            net.join(Connect { keep_alive: 10, ..clean(version, "client") }),
        );
        net.subscribe(client, "t", 0);
        for byte in encoded(message("t", "hello", 0), version) {
            net.advance(14_999);
            net.raw(client, &[byte]);
            assert!(net.is_open(client));
        }
        assert_eq!(net.messages(client), ["t=hello"]);
        net.advance(14_999);
        net.publish(sender, "t", "x", 0);
        net.advance(1);
        assert!(!net.is_open(client));
    });
}

/// [5.0 MQTT-3.1.2-22] [3.1.1 MQTT-3.1.2-24]
#[test]
fn handle_progress_keeps_an_unread_client_connected() {
    each(|net, version| {
        let client = net.join(Connect { keep_alive: 10, ..clean(version, "client") });
        for _ in 0..3 {
            net.advance(14_999);
            net.progress(client);
        }
        net.advance(14_999);
        assert!(net.is_open(client));
        net.advance(1);
        assert!(!net.is_open(client));
    });
}

/// A filter costs memory for each of its levels.
#[test]
fn filter_with_too_many_levels_is_refused() {
    for version in [V3_1_1, V5_0] {
        play(|net| {
            let client = net.join(clean(version, "client"));
            let (fits, too_many) = ("/".repeat(127), "/".repeat(128));
            let codes = net.subscribe_all(client, None, &[(&fits, at(0)), (&too_many, at(0))]);
            assert_eq!(codes, [0, if version == V5_0 { 0x97 } else { 0x80 }]);
        });
    }
}

/// [5.0 MQTT-3.1.2-5] [3.1.1 MQTT-3.1.2-4]
#[test]
fn answer_of_host_after_the_end_changes_nothing() {
    let now = Instant::default();
    let mut broker = Broker::new(BrokerConfig::new(ServerConfig::new()), 1, now);
    let connect = encoded(kept(V3_1_1, "client"), V3_1_1);
    let open = |broker: &mut Broker| {
        let id = broker.open(now);
        let _ = broker.handle_input(id, &mut &connect[..], now);
        (id, broker.question(id).unwrap().0)
    };
    let accept = |broker: &mut Broker, question| broker.accept(question, Admission::default(), now);
    let (first, question) = open(&mut broker);
    assert_eq!(accept(&mut broker, question), Ok(()));
    let _ = broker.connection_lost(first, now);
    let (second, question) = open(&mut broker);
    broker.disconnect(second, &Disconnect::default(), now);
    assert_eq!(accept(&mut broker, question), Err(AnswerError::NotOpen));
    let _ = broker.connection_lost(second, now);
    let (third, question) = open(&mut broker);
    assert_eq!(accept(&mut broker, question), Ok(()));
    assert_eq!(accept(&mut broker, question), Err(AnswerError::NotOpen));
    let mut out = Vec::new();
    assert!(!broker.transmit(third, now, &mut out));
    assert_eq!(out, [0x20, 0x02, 0x01, 0x00], "the session is there");
    assert_eq!((broker.stats().sessions, broker.stats().connections), (1, 1));
}

/// [5.0 §3.1.2.11.4] [5.0 §4.13]
#[test]
fn request_can_have_a_smaller_limit_than_other_packets() {
    play_on(ServerConfig::new().maximum_request_size(100), |net| {
        for (bytes, is_large) in [([0x82, 98], false), ([0x82, 99], true), ([0xA2, 99], true)] {
            let client = helper(net, "client");
            net.send(client, message("t", &"x".repeat(200), 0).into());
            net.raw(client, &bytes);
            let expected = if is_large { &["disconnect 95", "closed"][..] } else { &[] };
            assert_eq!(net.take(client), expected);
        }
    });
}
