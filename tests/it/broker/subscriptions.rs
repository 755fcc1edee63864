//! SUBSCRIBE and UNSUBSCRIBE.

use super::*;

/// [5.0 MQTT-3.8.4-5] [5.0 MQTT-3.8.4-6] [5.0 MQTT-3.8.4-7] [5.0 MQTT-3.9.3-1] [3.1.1 MQTT-3.8.4-4]
/// [3.1.1 MQTT-3.8.4-5]
#[test]
fn suback_has_a_code_for_each_filter() {
    for version in VERSIONS {
        play_with(&BrokerConfig::new(ServerConfig::new()).maximum_subscriptions(3, 100), |net| {
            let (sender, receiver) = (helper(net, "sender"), net.join(clean(version, "receiver")));
            let filters = [
                ("a", at(2)),
                ("b", at(1)),
                ("a", at(0)),
                ("c", at(0)),
                ("d", at(1)),
                ("b", at(2)),
            ];
            let codes = net.subscribe_all(receiver, None, &filters);
            // A fourth filter is one too many, which SUBACK of 3.1 cannot say. [3.1 §3.9]
            let refused = [1, 0x80, 0x97][usize::from(version.level() - 3)];
            assert_eq!((&codes[..4], codes[5], codes.len()), (&[2, 1, 0, 0][..], 2, 6));
            assert!(codes[4] == refused || version == V3_1 && codes[4] < 3, "{codes:?}");
            ["a", "b", "c", "d"].iter().for_each(|topic| net.publish(sender, topic, "x", 2));
            assert_eq!(net.messages(receiver), ["a=x", "b=x q2", "c=x"]);
            // After one is removed there is room for another.
            net.unsubscribe(receiver, &["c", "x"]);
            net.subscribe(receiver, "d", 1);
        });
    }
}

/// [5.0 §3.2.2.3.11] [5.0 §3.2.2.3.12] [5.0 §3.2.2.3.13] [5.0 §3.9.3] [3.1.1 MQTT-3.8.3-2]
#[test]
fn subscription_of_unavailable_kind_is_refused() {
    let config = ServerConfig::new()
        .wildcard_subscription_available(false)
        .shared_subscription_available(false)
        .subscription_identifier_available(false);
    play_on(config, |net| {
        // A client that ignores such a CONNACK breaks a rule.
        for (code, number, filter) in [
            (0xA2, None, "a/#"),
            (0xA2, None, "+"),
            (0xA1, Some(1), "a"),
            (0x9E, None, "$share/g/a"),
        ] {
            let client = helper(net, "client");
            net.ask_for(client, number, &[("a", at(0)), (filter, at(1))]);
            assert_eq!(net.take(client), [format!("disconnect {code:02x}"), "closed".to_owned()]);
        }
        let client = helper(net, "client");
        net.subscribe(client, "a", 0);
        let old = net.join(clean(V3_1_1, "old"));
        assert_eq!(
            net.subscribe_all(old, None, &[("a", at(0)), ("#", at(1)), ("b", at(1))]),
            [0, 0x80, 1]
        );
        let older = net.join(clean(V3_1, "older"));
        let codes = net.subscribe_all(older, None, &[("a", at(0)), ("#", at(1)), ("b", at(1))]);
        assert!((codes[0], codes[2]) == (0, 1) && codes[1] < 3, "{codes:?}");
        net.publish(client, "c", "x", 0);
        assert_eq!((net.messages(old), net.messages(older)), (vec![], vec![]));
    });
}

/// [3.1.1 §4.7]
#[test]
fn share_is_an_ordinary_level_before_5_0() {
    play(|net| {
        let old = net.join(clean(V3_1_1, "old"));
        net.subscribe(old, "$share/g/a", 0);
        net.publish(old, "a", "x", 0);
        assert_eq!(net.messages(old), NONE);
    });
}

/// [5.0 MQTT-3.10.4-1] [5.0 MQTT-3.10.4-2] [5.0 MQTT-3.10.4-5] [5.0 MQTT-3.10.4-6]
/// [5.0 MQTT-3.11.3-1] [3.1.1 MQTT-3.10.4-1]
#[test]
fn unsubscribe_compares_filters_character_by_character() {
    each(|net, version| {
        let (sender, receiver) = (helper(net, "sender"), net.join(clean(version, "receiver")));
        net.subscribe_all(receiver, None, &[("a/+", at(1)), ("a/b", at(0)), ("#", at(0))]);
        let codes = net.unsubscribe(receiver, &["a/c", "A/+", "a/b", "a/b", "+/+", "a/#"]);
        assert_eq!(
            codes,
            if version == V5_0 { &[0x11, 0x11, 0, 0x11, 0x11, 0x11][..] } else { &[] }
        );
        net.publish(sender, "a/b", "x", 1);
        assert_eq!(net.messages(receiver), ["a/b=x q1"]);
        net.unsubscribe(receiver, &["a/+"]);
        net.publish(sender, "a/b", "x", 1);
        assert_eq!(net.messages(receiver), ["a/b=x"]);
        net.unsubscribe(receiver, &["#"]);
        net.publish(sender, "a/b", "x", 1);
        assert_eq!(net.messages(receiver), NONE);
        assert_eq!(
            net.unsubscribe(receiver, &["#"]),
            if version == V5_0 { &[0x11][..] } else { &[] }
        );
    });
}

/// [5.0 MQTT-3.10.4-3] [3.1.1 MQTT-3.10.4-3]
#[test]
fn unsubscribe_lets_exchanges_in_flight_complete() {
    each(|net, version| {
        let (sender, receiver) = (helper(net, "sender"), net.join(kept(version, "receiver")));
        net.subscribe(receiver, "t", 2);
        (1..=2).for_each(|number| net.publish(sender, "t", "x", number));
        let numbers = net.numbers(receiver);
        assert_eq!(net.take(receiver), ["t=x q1", "t=x q2"]);
        net.unsubscribe(receiver, &["t"]);
        net.cut(receiver);
        let receiver = net.resume(kept(version, "receiver"));
        assert_eq!(net.numbers(receiver), numbers);
        assert_eq!(net.take(receiver), ["t=x q1 D", "t=x q2 D"]);
        net.ack(receiver, Packet::Puback, numbers[0], 0);
        net.ack(receiver, Packet::Pubrec, numbers[1], 0);
        assert_eq!(net.take(receiver), ["pubrel 00"]);
        net.ack(receiver, Packet::Pubcomp, numbers[1], 0);
        net.publish(sender, "t", "x", 1);
        assert_eq!(net.take(receiver), NONE);
    });
}
