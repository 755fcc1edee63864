//! Sessions that outlive their connections.

use super::*;

/// [5.0 MQTT-3.1.2-5] [5.0 MQTT-3.2.2-3] [5.0 MQTT-4.5.0-1] [3.1.1 MQTT-3.1.2-4]
/// [3.1.1 MQTT-3.1.2-5] [3.1.1 MQTT-3.2.2-2]
#[test]
fn session_keeps_subscriptions_and_messages_while_client_is_away() {
    each(|net, version| {
        let sender = net.join(clean(version, "sender"));
        let mut receiver = net.join(kept(version, "receiver"));
        net.subscribe(receiver, "#", 2);
        for is_cut in [false, true] {
            if is_cut {
                net.cut(receiver);
            } else {
                net.leave(receiver);
            }
            for (payload, number) in [("1", 1), ("2", 0), ("3", 2), ("4", 1), ("5", 2), ("6", 0)] {
                net.publish(sender, "t", payload, number);
            }
            net.advance(1_000_000_000);
            receiver = net.resume(kept(version, "receiver"));
            assert_eq!(net.messages(receiver), ["t=1 q1", "t=3 q2", "t=4 q1", "t=5 q2"]);
            net.publish(sender, "t", "7", 0);
            assert_eq!(net.messages(receiver), ["t=7"]);
        }
    });
}

/// [5.0 MQTT-3.1.2-4] [5.0 MQTT-3.2.2-2] [3.1.1 MQTT-3.1.2-6] [3.1.1 MQTT-3.2.2-1]
#[test]
fn clean_start_ends_the_previous_session() {
    each(|net, version| {
        let sender = net.join(clean(version, "sender"));
        for is_connected in [false, true] {
            let receiver =
                net.join(Connect { clean_start: version == V5_0, ..kept(version, "receiver") });
            net.subscribe(receiver, "#", 2);
            net.publish(sender, "t", "1", 1);
            if !is_connected {
                net.cut(receiver);
            }
            net.publish(sender, "t", "2", 2);
            let fresh = net.join(clean(version, "receiver"));
            net.publish(sender, "t", "3", 1);
            assert_eq!(net.take(fresh), NONE);
            net.cut(fresh);
            // The session has ended with its connection.
            let again = net.join(kept(version, "receiver"));
            net.publish(sender, "t", "4", 1);
            assert_eq!(net.take(again), NONE);
            net.cut(again);
            if version != V5_0 {
                let end = net.connect(clean(version, "receiver"));
                net.cut(end);
            }
        }
    });
}

/// [5.0 MQTT-3.1.2-23] [5.0 MQTT-3.1.2-4]
#[test]
fn session_of_clean_start_is_resumed_within_its_expiry() {
    play(|net| {
        let first = net.join(Connect { clean_start: true, ..expiring("client", 10) });
        net.subscribe(first, "t", 1);
        net.cut(first);
        let second = net.resume(expiring("client", 0));
        net.publish(second, "t", "x", 1);
        assert_eq!(net.messages(second), ["t=x q1"]);
        net.cut(second);
        net.join(expiring("client", 0));
    });
}

/// [5.0 MQTT-4.1.0-2] [5.0 §3.1.2.11.2] [5.0 §3.14.2.2.2] [5.0 §3.2.2.3.2]
#[test]
fn session_ends_when_its_expiry_interval_has_passed() {
    // The greatest interval that the server grants, the intervals of CONNECT and DISCONNECT, and
    // the end of the session.
    for (granted, asked, override_, end) in [
        (u32::MAX, Some(10), None, Some(10)),
        (u32::MAX, Some(1), None, Some(1)),
        (u32::MAX, Some(0), None, Some(0)),
        (u32::MAX, None, None, Some(0)),
        (u32::MAX, Some(u32::MAX - 1), None, Some(u32::MAX - 1)),
        (u32::MAX, Some(u32::MAX), None, None),
        (u32::MAX, Some(10), Some(100), Some(100)),
        (u32::MAX, Some(10), Some(2), Some(2)),
        (u32::MAX, Some(10), Some(0), Some(0)),
        (u32::MAX, Some(10), Some(u32::MAX), None),
        (u32::MAX, Some(u32::MAX), Some(5), Some(5)),
        (u32::MAX, Some(0), Some(0), Some(0)),
        (20, Some(100), None, Some(20)),
        (20, Some(u32::MAX), None, Some(20)),
        (20, Some(20), None, Some(20)),
        (20, Some(100), Some(7), Some(7)),
        (20, Some(10), Some(100), Some(20)),
        (20, Some(10), Some(u32::MAX), Some(20)),
    ] {
        let granted_expiry = mqtt_sansio::codec::Expiry::from_seconds(granted);
        play_on(ServerConfig::new().maximum_session_expiry(granted_expiry), |net| {
            let properties =
                ConnectProperties { session_expiry_interval: asked, ..Default::default() };
            let connect = Connect { properties, ..Connect::new(V5_0, "client") };
            let client = net.connect(connect);
            // CONNACK states an interval that is shorter than requested.
            let told = asked
                .filter(|asked| *asked > granted)
                .map_or(String::new(), |_| format!(" expiry={granted}"));
            assert_eq!(net.take(client), [format!("connack 00{told}")]);
            net.advance(50_000_000);
            assert_eq!(
                net.broker.stats().sessions,
                1,
                "no session ends while its connection is there"
            );
            match override_ {
                None => net.cut(client),
                Some(_) => {
                    let properties = DisconnectProperties {
                        session_expiry_interval: override_,
                        ..Default::default()
                    };
                    net.send(client, Disconnect { properties, ..Default::default() }.into());
                }
            }
            let case = (granted, asked, override_);
            let Some(end) = end else {
                net.advance(u64::from(u32::MAX) * 2_000);
                assert_eq!(net.broker.stats().sessions, 1, "{case:?}");
                return;
            };
            if end > 0 {
                net.advance(u64::from(end) * 1_000 - 1);
                assert_eq!(net.broker.stats().sessions, 1, "{case:?}");
                net.advance(1);
            }
            assert_eq!(net.broker.stats().sessions, 0, "{case:?}");
            let client = net.connect(connect);
            assert_eq!(net.take(client), [format!("connack 00{told}")]);
        });
    }
}

/// [5.0 MQTT-4.1.0-2] [5.0 MQTT-3.1.2-8]
#[test]
fn late_host_prolongs_no_session_and_loses_no_will() {
    // Both the session and its will were due, or the will alone.
    for (expiry, expected) in [(10, "connack 00"), (100, "connack 00 present")] {
        play(|net| {
            let watcher = watcher(net);
            let properties = WillProperties { will_delay_interval: Some(10), ..Default::default() };
            let will =
                Will { topic: "will".into(), payload: b"x", properties, ..Default::default() };
            let client = net.join(Connect { will: Some(will), ..expiring("client", expiry) });
            net.cut(client);
            // Time passes, and the host does not call `handle_timeout`.
            net.now += 10_001;
            let client = net.connect(expiring("client", 10));
            net.advance(0);
            assert_eq!(
                (net.take(client), net.messages(watcher)),
                (vec![expected.to_owned()], vec!["will=x".to_owned()])
            );
        });
    }
}

/// [5.0 §3.1.2.11.2]
#[test]
fn each_connection_sets_the_session_expiry() {
    play(|net| {
        let mut client = net.join(expiring("client", 10));
        for (expiry, away) in [(5, 9_999), (20, 4_999), (10, 19_999)] {
            net.cut(client);
            net.advance(away);
            client = net.resume(expiring("client", expiry));
            net.advance(1_000_000);
        }
        net.cut(client);
        net.advance(10_000);
        net.join(expiring("client", 10));
    });
}

/// [5.0 §3.14.2.2.2] [5.0 MQTT-3.1.2-8]
#[test]
fn disconnect_cannot_add_an_expiry_to_a_session() {
    for asked in [None, Some(0)] {
        play(|net| {
            let watcher = watcher(net);
            let will = Will { topic: "will".into(), payload: b"x", ..Default::default() };
            let properties =
                ConnectProperties { session_expiry_interval: asked, ..Default::default() };
            let client =
                net.join(Connect { will: Some(will), properties, ..Connect::new(V5_0, "client") });
            let properties =
                DisconnectProperties { session_expiry_interval: Some(5), ..Default::default() };
            net.send(client, Disconnect { properties, ..Default::default() }.into());
            assert_eq!(net.take(client), ["disconnect 82", "closed"]);
            assert_eq!(net.messages(watcher), ["will=x"], "it is not a valid DISCONNECT");
            net.join(expiring("client", 10));
        });
    }
}

/// [5.0 MQTT-4.4.0-1] [5.0 MQTT-3.3.1-1] [5.0 MQTT-4.3.3-6] [3.1.1 MQTT-4.4.0-1]
/// [3.1.1 MQTT-4.6.0-1]
#[test]
fn unacknowledged_packets_are_resent_in_order_with_their_identifiers() {
    each(|net, version| {
        let (sender, mut receiver) = (helper(net, "sender"), net.join(kept(version, "receiver")));
        net.subscribe(receiver, "t", 2);
        for (payload, number) in [("1", 1), ("2", 2), ("3", 1), ("4", 2), ("5", 1), ("6", 2)] {
            net.publish(sender, "t", payload, number);
        }
        let numbers = net.numbers(receiver);
        net.take(receiver);
        net.ack(receiver, Packet::Puback, numbers[2], 0);
        net.ack(receiver, Packet::Pubrec, numbers[1], 0);
        net.ack(receiver, Packet::Pubrec, numbers[5], 0);
        net.ack(receiver, Packet::Pubcomp, numbers[5], 0);
        assert_eq!(net.take(receiver), ["pubrel 00", "pubrel 00"]);
        net.advance(100_000_000);
        assert_eq!(net.take(receiver), NONE, "nothing is resent on the same connection");
        let mut resent: Vec<_> = [0, 3, 4]
            .map(|i| format!("#{} t={} q{} D", numbers[i], i + 1, if i == 3 { 2 } else { 1 }))
            .to_vec();
        for new in ["7", "8"] {
            net.cut(receiver);
            net.publish(sender, "t", new, 1);
            receiver = net.resume(kept(version, "receiver"));
            let received = net.take_numbered(receiver);
            assert_eq!(only(&received, "pubrel"), [format!("#{} pubrel 00", numbers[1])]);
            assert_eq!(only(&received, " D"), resent);
            let last = received.last().unwrap();
            assert!(
                last.ends_with(&format!("t={new} q1")),
                "the new message comes last: {received:?}"
            );
            resent.push(format!("{last} D"));
        }
        let fresh = net.connect(clean(version, "receiver"));
        assert_eq!(net.take(fresh), ["connack 00"]);
    });
}

/// Plays a receiver whose connection breaks after that many packets of either direction. Returns
/// whether it broke.
fn receive_with_a_break(net: &mut Net, version: Version, number: u8, break_after: usize) -> bool {
    let (sender, mut receiver) = (helper(net, "sender"), net.join(kept(version, "receiver")));
    net.subscribe(receiver, "t", 2);
    ["1", "2", "3"].iter().for_each(|payload| net.publish(sender, "t", payload, number));
    let (mut packets, mut received, mut holds) = (0, Vec::new(), BTreeSet::new());
    let (mut sent, mut released) = (BTreeMap::new(), BTreeSet::new());
    let mut note = |packet: &Packet<'_>| match packet {
        Packet::Publish(publish) => {
            let identifier = number_of(packet);
            let payload = publish.payload.to_vec();
            assert_eq!(
                publish.dup,
                sent.contains_key(&payload),
                "DUP says that it was sent before"
            );
            assert_eq!(*sent.entry(payload).or_insert(identifier), identifier);
            assert!(!released.contains(&identifier), "no PUBLISH after PUBREL");
        }
        _ => {
            released.insert(number_of(packet));
        }
    };
    loop {
        let lost = |packets: usize| packets == break_after;
        let mut is_lost = lost(packets);
        if !is_lost {
            let Some(packet) = net.next_packet(receiver) else { break };
            let packet = packet.decode();
            note(&packet);
            let answer = match packet {
                Packet::Publish(publish) => {
                    if publish.qos == qos(1) || holds.insert(number_of(&packet)) {
                        received.push(String::from_utf8_lossy(publish.payload).into_owned());
                    }
                    if publish.qos == qos(1) { Packet::Puback } else { Packet::Pubrec }
                }
                _ => {
                    holds.remove(&number_of(&packet));
                    Packet::Pubcomp
                }
            };
            packets += 1;
            is_lost = lost(packets);
            if !is_lost {
                net.ack(receiver, answer, number_of(&packet), 0);
            }
        }
        packets += 1;
        if is_lost {
            net.cut(receiver);
            while let Some(packet) = net.next_packet(receiver) {
                note(&packet.decode());
            }
            receiver = net.resume(kept(version, "receiver"));
        }
    }
    if number == 1 {
        // The last copies are in order. [5.0 §4.6]
        let all = received.clone();
        received = all
            .iter()
            .enumerate()
            .filter(|(i, payload)| !all[i + 1..].contains(payload))
            .map(|(_, p)| p.clone())
            .collect();
    }
    assert_eq!(received, ["1", "2", "3"], "a break after {break_after} packets");
    net.cut(receiver);
    let receiver = net.resume(kept(version, "receiver"));
    assert_eq!(net.take(receiver), NONE);
    packets > break_after
}

/// [5.0 MQTT-4.3.3-1] [5.0 MQTT-4.3.3-3] [5.0 MQTT-4.3.3-5] [5.0 MQTT-4.4.0-1] [3.1.1 MQTT-4.3.3-1]
/// [3.1.1 MQTT-4.4.0-1]
#[test]
fn break_after_any_packet_is_harmless_for_a_receiver() {
    for (version, number) in
        VERSIONS.into_iter().flat_map(|version| [1, 2].map(|number| (version, number)))
    {
        for window in [1, 2, 10] {
            for break_after in 0.. {
                let goes_on = Cell::new(false);
                play_on(ServerConfig::new().maximum_in_flight(window), |net| {
                    goes_on.set(receive_with_a_break(net, version, number, break_after));
                });
                if !goes_on.get() {
                    assert!(break_after >= 6, "there was nothing to break");
                    break;
                }
            }
        }
    }
}

/// Plays a sender whose connection breaks after that many packets of either direction. Returns
/// whether it broke.
fn send_with_a_break(net: &mut Net, version: Version, number: u8, break_after: usize) -> bool {
    let receiver = watcher(net);
    let mut sender = net.join(kept(version, "sender"));
    let mut packets = 0;
    for (payload, id) in [("1", 1), ("2", 2), ("3", 1)] {
        let publish =
            Publish { packet_identifier: Some(identifier(id)), ..message("t", payload, number) };
        let (mut next, mut dup) = (Some(false), false);
        // `Some(whether PUBREL is due)` during the exchange.
        while let Some(is_released) = next {
            let mut answer = None;
            if packets != break_after {
                match is_released {
                    false => net.send(sender, Publish { dup, ..publish }.into()),
                    true => net.ack(sender, Packet::Pubrel, id, 0),
                }
                answer = net.next_packet(sender);
                packets += 1;
            }
            if packets == break_after {
                net.cut(sender);
                sender = net.resume(kept(version, "sender"));
                dup = true;
                answer = None;
            }
            packets += 1;
            if let Some(answer) = answer {
                let shown = show(&answer.decode(), true);
                next = match shown.split(' ').next().unwrap() {
                    "puback" | "pubcomp" => None,
                    "pubrec" => Some(true),
                    _ => panic!("{shown}"),
                };
            }
        }
    }
    let mut received = net.messages(receiver);
    if number == 1 {
        received.dedup();
    }
    assert_eq!(
        received,
        ["1", "2", "3"].map(|payload| format!("t={payload} q{number}")),
        "a break after {break_after} packets"
    );
    packets > break_after
}

/// [5.0 MQTT-4.3.3-10] [5.0 MQTT-4.3.3-11] [5.0 MQTT-4.3.3-12] [3.1.1 MQTT-4.3.3-2]
#[test]
fn break_after_any_packet_is_harmless_for_a_sender() {
    for (version, number) in
        VERSIONS.into_iter().flat_map(|version| [1, 2].map(|number| (version, number)))
    {
        for break_after in 0..20 {
            play(|net| {
                let breaks = send_with_a_break(net, version, number, break_after);
                assert_eq!(
                    breaks,
                    break_after < usize::from(number) * 6,
                    "a break after {break_after} packets"
                );
            });
        }
    }
}

/// [5.0 MQTT-4.3.2-5] [5.0 MQTT-4.3.3-10] [5.0 MQTT-4.3.3-11] [5.0 MQTT-4.3.3-12]
/// [3.1.1 MQTT-4.3.2-2] [3.1.1 MQTT-4.3.3-2]
#[test]
fn repeated_identifier_is_a_new_message_after_its_exchange() {
    each(|net, version| {
        let (sender, receiver) = (net.join(kept(version, "sender")), watcher(net));
        let publish = |number: u8, dup| Publish {
            dup,
            packet_identifier: Some(identifier(7)),
            ..message("t", "x", number)
        };
        net.send(sender, publish(1, false).into());
        net.send(sender, publish(1, true).into());
        assert_eq!(
            (net.take(sender), net.messages(receiver).len()),
            (vec!["puback #7 00".to_owned(); 2], 2)
        );
        for (dup, expected) in [(false, 1), (true, 0), (false, 0)] {
            net.send(sender, publish(2, dup).into());
            assert_eq!(
                (net.take(sender), net.messages(receiver).len()),
                (vec!["pubrec #7 00".to_owned()], expected)
            );
        }
        net.ack(sender, Packet::Pubrel, 7, 0);
        assert_eq!(net.take(sender), ["pubcomp #7 00"]);
        // An unknown identifier is no violation. [5.0 §3.7.2.1]
        net.ack(sender, Packet::Pubrel, 7, 0);
        assert_eq!(
            net.take(sender),
            [if version == V5_0 { "pubcomp #7 92" } else { "pubcomp #7 00" }]
        );
        net.send(sender, publish(2, true).into());
        assert_eq!(
            (net.take(sender), net.messages(receiver).len()),
            (vec!["pubrec #7 00".to_owned()], 1)
        );
        // Exchanges are forgotten with the session.
        net.cut(sender);
        let fresh = net.connect(clean(version, "sender"));
        net.next(fresh);
        net.send(fresh, publish(2, false).into());
        assert_eq!(
            (net.take(fresh), net.messages(receiver).len()),
            (vec!["pubrec #7 00".to_owned()], 1)
        );
    });
}

/// [5.0 MQTT-4.3.3-11] [3.1.1 MQTT-4.3.3-2]
#[test]
fn pubrel_is_known_after_resume() {
    each(|net, version| {
        let mut sender = net.join(kept(version, "sender"));
        net.send(
            sender,
            Publish { packet_identifier: Some(identifier(7)), ..message("t", "x", 2) }.into(),
        );
        assert_eq!(net.take(sender).len(), 1);
        net.cut(sender);
        sender = net.resume(kept(version, "sender"));
        net.ack(sender, Packet::Pubrel, 7, 0);
        assert_eq!(net.take(sender), ["pubcomp #7 00"]);
    });
}

/// [5.0 MQTT-3.1.3-2] [5.0 MQTT-4.3.3-10] [3.1.1 MQTT-3.1.3-2] [3.1.1 MQTT-4.3.3-2]
#[test]
fn same_packet_identifier_of_two_clients_is_two_exchanges() {
    each(|net, version| {
        let (one, two) = (net.join(kept(version, "one")), net.join(kept(version, "two")));
        let receiver = watcher(net);
        let publish = |payload| Publish {
            packet_identifier: Some(identifier(7)),
            ..message("t", payload, 2)
        };
        for (client, payload) in [(one, "1"), (two, "2")] {
            net.send(client, publish(payload).into());
            assert_eq!(net.take(client), ["pubrec #7 00"]);
        }
        assert_eq!(net.messages(receiver), ["t=1 q2", "t=2 q2"]);
        // The end of one exchange does not end the other.
        net.ack(one, Packet::Pubrel, 7, 0);
        [one, two]
            .iter()
            .for_each(|client| net.send(*client, Publish { dup: true, ..publish("again") }.into()));
        assert_eq!(net.messages(receiver), ["t=again q2"]);
        net.ack(two, Packet::Pubrel, 7, 0);
        assert_eq!(net.take(one), ["pubcomp #7 00", "pubrec #7 00"]);
        assert_eq!(net.take(two), ["pubrec #7 00", "pubcomp #7 00"]);
    });
}

/// [5.0 MQTT-4.4.0-2] [5.0 MQTT-4.3.3-4] [5.0 §4.9]
#[test]
fn message_ends_when_receiver_refuses_it() {
    play_on(ServerConfig::new().maximum_in_flight(1), |net| {
        let (sender, receiver) = (helper(net, "sender"), net.join(kept(V5_0, "receiver")));
        net.subscribe(receiver, "t", 2);
        for (number, packet) in [(1, Packet::Puback as fn(_) -> _), (2, Packet::Pubrec)] {
            net.publish(sender, "t", "1", number);
            net.publish(sender, "t", "2", number);
            let first = net.numbers(receiver)[0];
            assert_eq!(net.take(receiver).len(), 1);
            net.ack(receiver, packet, first, 0x87);
            assert_eq!(net.messages(receiver), [format!("t=2 q{number}")], "its place is free");
        }
        net.cut(receiver);
        let receiver = net.resume(kept(V5_0, "receiver"));
        assert_eq!(net.take(receiver), NONE);
    });
}

/// [5.0 §3.5.2.1] [5.0 §3.6.2.1] [3.1.1 MQTT-4.3.3-1]
#[test]
fn unknown_acknowledgement_is_answered_and_harmless() {
    each(|net, version| {
        let client = net.join(clean(version, "client"));
        net.ack(client, Packet::Pubrec, 5, 0);
        assert_eq!(
            net.take_numbered(client),
            [if version == V5_0 { "#5 pubrel 92" } else { "#5 pubrel 00" }]
        );
        assert!(net.is_open(client));
    });
}

/// [5.0 §3.8.4] [5.0 MQTT-3.3.4-3]
#[test]
fn session_keeps_its_subscription_identifiers() {
    play(|net| {
        let (sender, receiver) = (helper(net, "sender"), net.join(kept(V5_0, "receiver")));
        net.subscribe_all(receiver, Some(7), &[("t", at(1))]);
        net.publish(sender, "t", "1", 1);
        net.cut(receiver);
        net.publish(sender, "t", "2", 1);
        let receiver = net.resume(kept(V5_0, "receiver"));
        net.publish(sender, "t", "3", 1);
        assert_eq!(
            net.messages(receiver),
            ["t=1 q1 D ids=[7]", "t=2 q1 ids=[7]", "t=3 q1 ids=[7]"]
        );
    });
}

/// [5.0 MQTT-4.3.3-9] [5.0 §3.3.4]
#[test]
fn refused_message_frees_its_identifier_and_quota() {
    play_with(
        &BrokerConfig::new(ServerConfig::new().receive_maximum(1)).maximum_retained(0, 0),
        |net| {
            let (sender, receiver) = (helper(net, "sender"), watcher(net));
            let publish = Publish {
                retain: true,
                packet_identifier: Some(identifier(9)),
                ..message("t", "x", 2)
            };
            net.send(sender, publish.into());
            assert_eq!(
                (net.take(sender), net.messages(receiver)),
                (vec!["pubrec #9 97".to_owned()], vec![])
            );
            net.send(sender, Publish { retain: false, ..publish }.into());
            assert_eq!(
                (net.take(sender), net.messages(receiver)),
                (vec!["pubrec #9 00".to_owned()], vec!["t=x q2".to_owned()])
            );
        },
    );
}

/// [5.0 §4.1] [3.1.1 §4.1]
#[test]
fn departed_clients_leave_nothing_behind() {
    each(|net, version| {
        let will = Will { topic: "will".into(), ..Default::default() };
        let connect = Connect { will: Some(will), keep_alive: 10, ..clean(version, "client") };
        for ending in ENDINGS {
            let client = net.join(connect);
            net.subscribe(client, "t", 1);
            end(net, client, connect, ending);
            net.connect(clean(version, "client"));
            let last = net.connect(clean(version, "client"));
            net.leave(last);
            assert_eq!(
                (
                    net.broker.stats().connections,
                    net.broker.stats().sessions,
                    net.broker.poll_timeout()
                ),
                (0, 0, None),
                "{ending:?}"
            );
        }
    });
}

/// [5.0 MQTT-3.1.4-3] [3.1.1 MQTT-3.1.4-2] [5.0 MQTT-4.4.0-1]
#[test]
fn second_connection_of_client_takes_over() {
    for (before, after) in
        VERSIONS.into_iter().flat_map(|before| VERSIONS.map(|after| (before, after)))
    {
        play(|net| {
            let sender = helper(net, "sender");
            let first = net.join(kept(before, "same"));
            net.subscribe(first, "t", 2);
            net.publish(sender, "t", "1", 1);
            assert_eq!(net.take(first), ["t=1 q1"]);
            let second = net.resume(kept(after, "same"));
            assert_eq!(
                net.take(first),
                if before == V5_0 { &["disconnect 8e", "closed"][..] } else { &["closed"] }
            );
            assert!(net.is_open(second) && !net.is_open(first));
            net.publish(sender, "t", "2", 1);
            assert_eq!(net.messages(second), ["t=1 q1 D", "t=2 q1"]);
            let third = net.connect(clean(after, "same"));
            net.publish(sender, "t", "3", 1);
            assert_eq!(net.take(third), ["connack 00"]);
            assert_eq!(net.broker.stats().connections, 2);
        });
    }
}

/// [3.1.1 MQTT-3.1.2-6] [5.0 §3.1.2.11.2]
#[test]
fn session_that_ends_with_its_connection_is_not_taken_over() {
    each(|net, version| {
        let first = net.join(clean(version, "same"));
        net.subscribe(first, "t", 2);
        let second = net.join(kept(version, "same"));
        net.publish(second, "t", "x", 1);
        assert_eq!(net.take(second), NONE);
    });
}

/// [5.0 MQTT-3.1.4-3] [3.1.1 MQTT-3.1.4-2]
#[test]
fn last_accepted_of_two_waiting_connections_stays() {
    each(|net, version| {
        *net.policy = |_| None;
        let clients = [net.connect(kept(version, "same")), net.connect(kept(version, "same"))];
        let asked = core::mem::take(&mut *net.asked);
        assert_eq!((net.take(clients[0]), net.take(clients[1])), (vec![], vec![]));
        net.accept(asked[1].0);
        net.accept(asked[0].0);
        assert!(net.is_open(clients[0]) && !net.is_open(clients[1]));
        assert_eq!((net.broker.stats().connections, net.broker.stats().sessions), (1, 1));
        assert_eq!(net.take(clients[0]).len(), 1);
    });
}

/// [5.0 §3.1.4] [3.1.1 §3.1.4]
#[test]
fn answer_of_host_can_come_after_client_is_gone() {
    each(|net, version| {
        *net.policy = |_| None;
        let client = net.connect(kept(version, "client"));
        let (asked, _) = net.asked.pop().unwrap();
        net.cut(client);
        let now = net.instant();
        let accepted = net.broker.accept(asked, Admission::default(), now);
        assert_eq!(accepted, Err(AnswerError::NotOpen));
        let properties = ConnackProperties::default();
        let refused = net.broker.refuse(asked, ReasonCode::NOT_AUTHORIZED, properties, now);
        assert_eq!(refused, Err(AnswerError::NotOpen));
        assert_eq!(
            (net.broker.stats().connections, net.broker.stats().sessions, net.take(client).len()),
            (0, 0, 0)
        );
    });
}

/// [5.0 MQTT-3.1.3-6] [5.0 MQTT-3.1.3-7] [5.0 MQTT-3.2.2-16]
#[test]
fn client_without_identifier_is_assigned_a_new_one() {
    play(|net| {
        let mut names = BTreeSet::new();
        for clean_start in [true, false, true] {
            let client = net.connect(Connect { clean_start, ..expiring("", 100) });
            let told = net.next(client).unwrap();
            let name = told.strip_prefix("connack 00 assigned=").unwrap().to_owned();
            net.subscribe(client, "t", 1);
            net.cut(client);
            assert_eq!(net.messages(client), NONE);
            let back = net.resume(expiring(&name, 100));
            net.publish(back, "t", "x", 1);
            assert_eq!(net.messages(back), ["t=x q1"]);
            assert!(names.insert(name), "{names:?}");
        }
        assert_eq!((net.broker.stats().sessions, net.broker.stats().connections), (3, 3));
    });
    // A broker with the same seed assigns the same identifier, unless a client has it.
    let taken = RefCell::new(String::new());
    play(|net| {
        let client = net.connect(expiring("", 100));
        *taken.borrow_mut() = net.next(client).unwrap().split('=').nth(1).unwrap().to_owned();
    });
    play(|net| {
        let first = net.join(expiring(&taken.borrow(), 100));
        let second = net.connect(expiring("", 100));
        assert!(net.is_open(first));
        let told = net.next(second).unwrap();
        assert!(
            told.starts_with("connack 00 assigned=") && !told.ends_with(&*taken.borrow()),
            "{told}"
        );
    });
}

/// [3.1.1 MQTT-3.1.3-6] [3.1.1 MQTT-3.1.3-7] [3.1.1 MQTT-3.1.3-8] [3.1 §3.1]
#[test]
fn empty_identifier_requires_clean_session_in_3_1_1() {
    play(|net| {
        let clients = [0, 1, 2].map(|_| net.join(clean(V3_1_1, "")));
        assert!(clients.iter().all(|client| net.is_open(*client)));
        assert_eq!(net.broker.stats().sessions, 3);
        for (level, flags) in [(4, 0), (3, 2), (3, 0)] {
            let version = if level == 4 { V3_1_1 } else { V3_1 };
            let refused = net.open(version);
            net.raw(refused, &connect_bytes(version, level, flags, ""));
            assert_eq!(net.take(refused), ["connack 85", "closed"]);
        }
    });
}

/// [5.0 MQTT-3.1.3-5] [3.1.1 MQTT-3.1.3-5] [3.1 §3.1]
#[test]
fn client_identifiers_of_up_to_23_characters_are_accepted() {
    each(|net, version| {
        for name in [
            "0",
            "a",
            "Z",
            "0123456789abcdefghijklm",
            "nopqrstuvwxyzABCDEFGHIJ",
            "KLMNOPQRSTUVWXYZ",
        ] {
            net.join(kept(version, name));
        }
        assert_eq!(net.broker.stats().sessions, 6);
    });
    play(|net| {
        let client = net.open(V3_1);
        net.raw(client, &connect_bytes(V3_1, 3, 2, "012345678901234567890123"));
        assert_eq!(net.take(client), ["connack 85", "closed"]);
    });
}
