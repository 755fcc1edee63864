//! Limits of a client.

use super::*;

fn with_receive_maximum(connect: Connect<'_>, receive_maximum: u16) -> Connect<'_> {
    Connect {
        properties: ConnectProperties {
            receive_maximum: Some(receive_maximum),
            ..connect.properties
        },
        ..connect
    }
}

/// [5.0 MQTT-3.3.4-9] [5.0 MQTT-3.3.4-10] [5.0 MQTT-4.9.0-2] [5.0 MQTT-4.9.0-3]
#[test]
fn messages_in_flight_stay_within_receive_maximum_of_client() {
    play(|net| {
        let (sender, receiver) =
            (helper(net, "sender"), net.join(with_receive_maximum(clean(V5_0, "receiver"), 2)));
        net.subscribe(receiver, "t", 2);
        for (payload, number) in [("1", 2), ("2", 1), ("3", 2), ("4", 1), ("5", 1)] {
            net.publish(sender, "t", payload, number);
        }
        let mut numbers = net.numbers(receiver);
        assert_eq!(net.take(receiver), ["t=1 q2", "t=2 q1"]);
        net.send(receiver, Packet::Pingreq);
        assert_eq!(net.subscribe_all(receiver, None, &[("u", at(1))]), [1]);
        assert_eq!(net.take(receiver), ["pingresp"]);
        net.ack(receiver, Packet::Pubrec, numbers[0], 0);
        assert_eq!(net.take(receiver), ["pubrel 00"], "PUBREC frees nothing");
        net.ack(receiver, Packet::Pubcomp, numbers[0], 0);
        numbers.extend(net.numbers(receiver));
        assert_eq!(net.take(receiver), ["t=3 q2"]);
        net.ack(receiver, Packet::Puback, numbers[1], 0);
        numbers.extend(net.numbers(receiver));
        assert_eq!(net.take(receiver), ["t=4 q1"]);
        net.ack(receiver, Packet::Pubrec, numbers[2], 0x80);
        assert_eq!(net.take(receiver), ["t=5 q1"], "a PUBREC that refuses does");
    });
}

/// [5.0 §4.9] [5.0 MQTT-4.9.0-1]
#[test]
fn receive_maximum_counts_anew_on_each_connection() {
    play(|net| {
        let sender = helper(net, "sender");
        let mut receiver = net.join(with_receive_maximum(kept(V5_0, "receiver"), 4));
        net.subscribe(receiver, "t", 1);
        ["1", "2", "3", "4", "5"].iter().for_each(|payload| net.publish(sender, "t", payload, 1));
        assert_eq!(net.take(receiver).len(), 4);
        for (window, expected) in [(1, 1), (2, 2), (3, 3), (65_535, 5)] {
            net.cut(receiver);
            receiver = net.resume(with_receive_maximum(kept(V5_0, "receiver"), window));
            assert_eq!(net.take(receiver).len(), expected);
        }
        net.cut(receiver);
        receiver = net.resume(with_receive_maximum(kept(V5_0, "receiver"), 1));
        assert_eq!(
            net.messages(receiver),
            ["t=1 q1 D", "t=2 q1 D", "t=3 q1 D", "t=4 q1 D", "t=5 q1 D"]
        );
    });
}

/// [5.0 §4.9] [5.0 MQTT-3.1.4-3]
#[test]
fn receive_maximum_counts_anew_after_take_over() {
    play(|net| {
        let sender = helper(net, "sender");
        let mut receiver = net.join(with_receive_maximum(kept(V5_0, "receiver"), 5));
        net.subscribe(receiver, "t", 1);
        (0..6).for_each(|_| net.publish(sender, "t", "x", 1));
        assert_eq!(net.take(receiver).len(), 5);
        for (window, expected) in [(2, 2), (4, 4), (65_535, 6)] {
            receiver = net.resume(with_receive_maximum(kept(V5_0, "receiver"), window));
            assert_eq!(net.take(receiver).len(), expected);
        }
        assert_eq!(net.broker.stats().connections, 2);
    });
}

/// [5.0 MQTT-3.3.4-9] [5.0 MQTT-3.3.4-10] [5.0 §4.9]
#[test]
fn resent_pubrel_does_not_change_send_quota() {
    play(|net| {
        let (sender, receiver) =
            (helper(net, "sender"), net.join(with_receive_maximum(kept(V5_0, "receiver"), 3)));
        net.subscribe(receiver, "t", 2);
        ["1", "2", "3"].iter().for_each(|payload| net.publish(sender, "t", payload, 2));
        let numbers = net.numbers(receiver);
        numbers.iter().for_each(|number| net.ack(receiver, Packet::Pubrec, *number, 0));
        net.cut(receiver);
        ["4", "5", "6"].iter().for_each(|payload| net.publish(sender, "t", payload, 1));
        let receiver = net.resume(with_receive_maximum(kept(V5_0, "receiver"), 1));
        let received = net.take_numbered(receiver);
        assert_eq!(only(&received, "pubrel").len(), 3, "they do not wait");
        let mut sent = received.len() - 3;
        for number in numbers {
            net.ack(receiver, Packet::Pubcomp, number, 0);
            sent += net.take(receiver).len();
            assert!(sent <= 1, "more messages are in flight than the client accepts");
        }
        assert_eq!(sent, 1);
    });
}

/// [5.0 MQTT-3.1.2-24] [5.0 MQTT-3.1.2-25]
#[test]
fn message_is_not_resent_when_new_connection_limits_size() {
    for number in 1..=2 {
        play(|net| {
            let (sender, receiver) = (helper(net, "sender"), net.join(kept(V5_0, "receiver")));
            net.subscribe(receiver, "t", 2);
            net.publish(sender, "t", &"x".repeat(200), number);
            assert_eq!(net.take(receiver).len(), 1);
            net.cut(receiver);
            let connect = with_receive_maximum(kept(V5_0, "receiver"), 1);
            let properties =
                ConnectProperties { maximum_packet_size: Some(100), ..connect.properties };
            let receiver = net.resume(Connect { properties, ..connect });
            net.publish(sender, "t", "small", number);
            assert_eq!(net.messages(receiver), [format!("t=small q{number}")]);
        });
    }
}

/// [5.0 MQTT-4.9.0-1]
#[test]
fn broker_limits_messages_in_flight_below_receive_maximum() {
    for version in VERSIONS {
        play_on(ServerConfig::new().maximum_in_flight(3), |net| {
            let (sender, receiver) = (helper(net, "sender"), net.join(clean(version, "receiver")));
            net.subscribe(receiver, "t", 1);
            ["1", "2", "3", "4", "5"]
                .iter()
                .for_each(|payload| net.publish(sender, "t", payload, 1));
            assert_eq!(net.numbers(receiver).len(), 3);
            assert_eq!(net.messages(receiver).len(), 5);
        });
    }
}

/// [5.0 MQTT-3.1.2-24] [5.0 MQTT-3.1.2-25]
#[test]
fn oversized_message_counts_as_sent() {
    for number in 0..=2 {
        play(|net| {
            let packet_identifier = (number > 0).then(|| identifier(1));
            let fitting = Publish {
                packet_identifier,
                ..message("t", "12345678901234567890123456789012", number)
            };
            let maximum = u32::try_from(encoded(fitting, V5_0).len()).unwrap();
            let (sender, other) = (helper(net, "sender"), watcher(net));
            let properties = ConnectProperties {
                maximum_packet_size: Some(maximum),
                receive_maximum: Some(1),
                ..kept(V5_0, "").properties
            };
            let connect = Connect { properties, ..kept(V5_0, "receiver") };
            let mut receiver = net.join(connect);
            net.subscribe(receiver, "t", 2);
            let send = |net: &mut Net| {
                for payload in [
                    "123456789012345678901234567890123",
                    "12345678901234567890123456789012",
                    "\0".repeat(300).as_str(),
                    "x",
                ] {
                    net.publish(sender, "t", payload, number);
                }
            };
            let expected =
                ["t=12345678901234567890123456789012", "t=x"].map(|shown| match number {
                    0 => shown.to_owned(),
                    _ => format!("{shown} q{number}"),
                });
            send(net);
            assert_eq!((net.messages(receiver), net.messages(other).len()), (expected.to_vec(), 4));
            net.cut(receiver);
            send(net);
            receiver = net.resume(connect);
            assert_eq!(net.messages(receiver), if number > 0 { &expected[..] } else { &[] });
            net.retain(sender, "t", "123456789012345678901234567890123", number);
            net.subscribe(receiver, "t", 2);
            assert_eq!(net.messages(receiver), NONE);
        });
    }
}

/// [5.0 MQTT-3.1.2-24] [5.0 MQTT-3.1.2-25]
#[test]
fn subscription_identifiers_count_in_packet_size() {
    play(|net| {
        let maximum =
            u32::try_from(encoded(message("t", "123456789012345678901", 0), V5_0).len()).unwrap();
        let properties =
            ConnectProperties { maximum_packet_size: Some(maximum), ..Default::default() };
        let receiver = net.join(Connect { properties, ..clean(V5_0, "receiver") });
        net.subscribe(receiver, "t", 0);
        net.publish(receiver, "t", "123456789012345678901", 0);
        net.subscribe_all(receiver, Some(1), &[("t", at(0))]);
        net.publish(receiver, "t", "123456789012345678902", 0);
        net.publish(receiver, "t", "1234567890123456789", 0);
        assert_eq!(
            net.messages(receiver),
            ["t=123456789012345678901", "t=1234567890123456789 ids=[1]"]
        );
    });
}

/// [5.0 MQTT-3.1.2-24] [5.0 MQTT-3.1.4-5]
#[test]
fn oversized_connack_is_not_sent() {
    for maximum in 1..40 {
        play(|net| {
            let properties =
                ConnectProperties { maximum_packet_size: Some(maximum), ..Default::default() };
            let client = net.connect(Connect { properties, ..clean(V5_0, "client") });
            let connack = net.next_packet(client);
            // A refusing CONNACK can be short enough when an accepting one is not.
            let accepted =
                connack.as_ref().is_some_and(|connack| connack.as_bytes().get(3) == Some(&0));
            assert_eq!(accepted, net.is_open(client));
            assert!(connack.is_none_or(
                |connack| connack.as_bytes().len() <= usize::try_from(maximum).unwrap()
            ));
        });
    }
}

/// [5.0 MQTT-3.1.2-24]
#[test]
fn client_is_disconnected_when_answer_exceeds_its_maximum() {
    for (filters, fits) in [(25, true), (26, false)] {
        play(|net| {
            let properties =
                ConnectProperties { maximum_packet_size: Some(30), ..Default::default() };
            let client = net.join(Connect { properties, ..clean(V5_0, "client") });
            let subscribe =
                [&[0x82, 3 + 4 * filters, 0, 1, 0][..], &b"\0\x01t\0".repeat(filters.into())]
                    .concat();
            net.raw(client, &subscribe);
            let suback = format!("suback #1{}", " 00".repeat(filters.into()));
            let farewell = ["disconnect 95".to_owned(), "closed".to_owned()];
            assert_eq!(net.take(client), if fits { vec![suback] } else { farewell.to_vec() });
        });
    }
}

/// [5.0 §4.1.1] [3.1.1 §4.1]
#[test]
fn full_queue_drops_new_messages() {
    for version in VERSIONS {
        play_on(ServerConfig::new().maximum_queued(3, 10_000), |net| {
            let (sender, mut receiver) =
                (helper(net, "sender"), net.join(kept(version, "receiver")));
            net.subscribe(receiver, "t", 1);
            for is_connected in [true, false] {
                if is_connected {
                    net.stall(receiver, true);
                } else {
                    net.cut(receiver);
                }
                let before = net.broker.stats().dropped.total();
                // Shorter ones would be written at once.
                let payloads = ["1", "2", "3", "4", "5"].map(|digit| digit.repeat(600));
                payloads.iter().for_each(|payload| net.publish(sender, "t", payload, 1));
                assert_eq!(
                    net.broker.stats().dropped.total() - before,
                    2,
                    "the sender does not notice"
                );
                if is_connected {
                    net.stall(receiver, false);
                } else {
                    receiver = net.resume(kept(version, "receiver"));
                }
                let queued = [0, 1, 2].map(|number| format!("t={} q1", payloads[number]));
                assert_eq!(net.messages(receiver), queued);
                net.publish(sender, "t", "6", 1);
                assert_eq!(net.messages(receiver), ["t=6 q1"]);
            }
        });
    }
}

/// [5.0 §4.1.1]
#[test]
fn client_that_does_not_read_fills_its_queue() {
    for number in 0..=2 {
        play_on(ServerConfig::new().maximum_queued(1_000, 3_000), |net| {
            let (sender, receiver) = (helper(net, "sender"), helper(net, "receiver"));
            net.subscribe(receiver, "t", 2);
            net.stall(receiver, true);
            (0..10).for_each(|_| net.publish(sender, "t", &"x".repeat(1_000), number));
            let dropped = usize::try_from(net.broker.stats().dropped.total()).unwrap();
            assert!((7..=9).contains(&dropped), "{dropped}");
            net.stall(receiver, false);
            assert_eq!(net.messages(receiver).len(), 10 - dropped);
            net.publish(sender, "t", &"x".repeat(1_000), number);
            assert_eq!(net.messages(receiver).len(), 1, "a single message may be larger");
        });
    }
}

/// [3.1.1 MQTT-4.8.0-1]
#[test]
fn clients_before_5_0_can_exceed_limits_that_they_cannot_know() {
    let server =
        ServerConfig::new().maximum_qos(qos(1)).retain_available(false).lower_before_5_0(true);
    for version in [V3_1, V3_1_1] {
        play_on(server.clone(), |net| {
            let watcher = watcher(net);
            let will = Some(Will { qos: qos(2), retain: true, ..Will::new("will", b"x") });
            let client = net.join(Connect { will, ..clean(version, "client") });
            net.retain(client, "t", "x", 2);
            net.retain(client, "t", "x", 0);
            net.cut(client);
            assert_eq!(net.messages(watcher), ["t=x q1", "t=x", "will=x q1"]);
            assert!(net.broker.retained().is_empty());
            // A 5.0 client was told.
            let client = helper(net, "client");
            net.send(client, Publish { retain: true, ..message("t", "x", 0) }.into());
            assert_eq!(net.take(client), ["disconnect 9a", "closed"]);
        });
    }
}
