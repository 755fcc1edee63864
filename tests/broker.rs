//! What the two standards ask of a broker, seen from its clients: each test plays a scenario with packets fed whole, byte by byte,
//! and cut in two at each position. Where 3.1 is silent, what 3.1.1 says is taken for it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests may panic")]
#![allow(clippy::wildcard_enum_match_arm, reason = "what a test does not expect is a failure")]
#![allow(missing_docs, unreachable_pub, reason = "the support module is public to nobody")]

mod support;

use core::cell::{Cell, RefCell};
use core::num::NonZeroU16;
use core::time::Duration;
use mqtt_sansio::broker::BrokerConfig;
use mqtt_sansio::codec::{
    Auth, AuthProperties, Connect, ConnectProperties, Disconnect, DisconnectProperties, Packet, Publish, PublishProperties,
    ReasonCode, RetainHandling, SubscriptionOptions, UserProperty, Version, Will, WillProperties,
};
use mqtt_sansio::server::ServerConfig;
use std::collections::{BTreeMap, BTreeSet};
use support::{
    ALL, C, Net, at, clean, each, encoded, expiring, identifier, kept, message, number_of, play, play_on, play_with, qos, show,
};

use Version::{V3_1, V3_1_1, V5_0};

const NONE: [&str; 0] = [];

/// A 5.0 client that is not there to be tested.
fn helper(net: &mut Net, name: &str) -> C {
    net.join(clean(V5_0, name))
}

/// A client that receives all topics without `$` at their own QoS, in a session of its connection.
fn watcher(net: &mut Net) -> C {
    let watcher = helper(net, "watcher");
    net.subscribe(watcher, "#", 2);
    watcher
}

fn only<'a>(all: &'a [String], kind: &str) -> Vec<&'a str> {
    all.iter().map(String::as_str).filter(|shown| shown.contains(kind)).collect()
}

// ---- delivery ----

/// [5.0 MQTT-3.8.4-8] [3.1.1 MQTT-3.8.4-6]
#[test]
fn a_message_comes_at_the_lesser_of_its_qos_and_the_granted_one() {
    each(|net, version| {
        for publisher in ALL {
            let sender = net.join(clean(publisher, "sender"));
            for (published, granted) in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)] {
                let receiver = net.join(clean(version, "receiver"));
                net.subscribe(receiver, "t", granted);
                net.publish(sender, "t", "x", published);
                let expected = ["t=x", "t=x q1", "t=x q2"][usize::from(published.min(granted))];
                assert_eq!(net.messages(receiver), [expected], "{published} and {granted}");
                net.leave(receiver);
            }
            net.leave(sender);
        }
    });
}

/// [5.0 MQTT-4.7.1-1] [5.0 MQTT-4.7.1-2] [5.0 MQTT-4.7.3-4] [3.1.1 MQTT-4.7.3-4] [5.0 §4.7.1] [3.1.1 §4.7.1]
#[test]
fn filters_match_topics() {
    const ROWS: [(&str, &[&str], &[&str]); 14] = [
        ("sport/#", &["sport", "sport/", "sport/a", "sport/a/b", "sport//"], &["sports", "Sport", "a/sport", "/sport"]),
        ("#", &["a", "/", "a/b", "/a", " "], &[]),
        ("sport/+", &["sport/a", "sport/"], &["sport", "sport/a/b", "sport/a/"]),
        ("+", &["a", "ab"], &["/a", "a/", "a/b"]),
        ("+/+", &["/finance", "a/b", "a/", "/"], &["a", "a/b/c"]),
        ("/+", &["/finance", "/"], &["finance", "a/finance"]),
        ("+/a/#", &["x/a", "/a", "x/a/b/c"], &["a", "a/b", "x/b"]),
        ("a/+/c", &["a/b/c", "a//c"], &["a/b/d", "a/b/b/c", "a/c"]),
        ("a//b", &["a//b"], &["a/b", "a/x/b"]),
        ("/a", &["/a"], &["a", "a/", "//a"]),
        ("Accounts payable", &["Accounts payable"], &["accounts payable", "Accounts  payable", "Accountspayable"]),
        ("\u{e9}", &["\u{e9}"], &["e\u{301}", "e"]),
        ("+/\u{feff}", &["a/\u{feff}"], &["a/"]),
        ("a/$b/+", &["a/$b/c"], &["a/b/c"]),
    ];
    each(|net, version| {
        let sender = net.join(clean(version, "sender"));
        for (filter, matching, others) in ROWS {
            let receiver = net.join(clean(version, "receiver"));
            net.subscribe(receiver, filter, 0);
            for topic in matching.iter().chain(others) {
                net.publish(sender, topic, "", 0);
                let expected: &[String] = if matching.contains(topic) { &[format!("{topic}=")] } else { &[] };
                assert_eq!(net.messages(receiver), expected, "{filter} and {topic}");
            }
            net.leave(receiver);
        }
    });
}

/// [5.0 MQTT-4.7.2-1] [3.1.1 MQTT-4.7.2-1]
#[test]
fn a_wildcard_at_the_start_does_not_match_a_dollar() {
    each(|net, version| {
        let sender = helper(net, "sender");
        let receiver = net.join(clean(version, "receiver"));
        for filter in ["#", "+/monitor/Clients", "+/monitor/#", "+", "+/#"] {
            net.subscribe(receiver, filter, 0);
        }
        net.publish(sender, "$X/monitor/Clients", "", 0);
        net.retain(sender, "$X", "", 0);
        assert_eq!(net.messages(receiver), NONE);
        net.subscribe(receiver, "$X/monitor/+", 0);
        net.publish(sender, "$X/monitor/Clients", "1", 0);
        assert_eq!(net.messages(receiver), ["$X/monitor/Clients=1"]);
        assert_eq!(net.unsubscribe(receiver, &["$X/monitor/+"]).len(), usize::from(version == V5_0));
        net.subscribe(receiver, "$X/#", 0);
        net.publish(sender, "$X/monitor/Clients", "2", 0);
        assert_eq!(net.messages(receiver), ["$X/monitor/Clients=2"]);
    });
}

/// [5.0 MQTT-4.7.2-1] [5.0 MQTT-3.3.1-9]
#[test]
fn a_wildcard_at_the_start_does_not_bring_what_is_retained_under_a_dollar() {
    play(|net| {
        let (sender, receiver) = (helper(net, "sender"), helper(net, "receiver"));
        net.retain(sender, "$X/a", "1", 0);
        net.retain(sender, "a/$X", "2", 0);
        for (filter, expected) in
            [("#", &["a/$X=2 R"][..]), ("+/a", &[]), ("+/#", &["a/$X=2 R"]), ("$X/+", &["$X/a=1 R"]), ("$X/#", &["$X/a=1 R"])]
        {
            net.subscribe(receiver, filter, 0);
            assert_eq!(net.messages(receiver), expected, "{filter}");
        }
    });
}

/// [5.0 MQTT-3.3.4-2] [5.0 MQTT-3.3.4-3] [5.0 MQTT-3.3.4-4] [3.1.1 MQTT-3.3.5-1]
#[test]
fn overlapping_subscriptions_bring_one_copy_at_the_highest_qos_with_all_identifiers() {
    each(|net, version| {
        let (sender, receiver) = (helper(net, "sender"), net.join(clean(version, "receiver")));
        let v5 = version == V5_0;
        net.subscribe_all(receiver, v5.then_some(1), &[("a/#", at(0)), ("b", at(2))]);
        net.subscribe_all(receiver, v5.then_some(268_435_455), &[("a/+", at(2))]);
        net.subscribe_all(receiver, None, &[("a/b", at(1)), ("c", at(1))]);
        for (topic, expected) in [
            ("a/b", "a/b=x q2 ids=[1, 268435455]"),
            ("a/b/c", "a/b/c=x ids=[1]"),
            ("a/c", "a/c=x q2 ids=[1, 268435455]"),
            ("b", "b=x q2 ids=[1]"),
            ("c", "c=x q1"),
        ] {
            net.publish(sender, topic, "x", 2);
            let expected = if v5 { expected } else { expected.split(" ids").next().unwrap() };
            assert_eq!(net.messages(receiver), [expected]);
        }
    });
}

/// [5.0 MQTT-3.8.4-3] [3.1.1 MQTT-3.8.4-3]
#[test]
fn a_second_subscription_with_the_same_filter_replaces_the_first() {
    each(|net, version| {
        let (sender, receiver) = (helper(net, "sender"), net.join(kept(version, "receiver")));
        for (qos, number) in [(0, Some(3)), (2, None), (1, Some(4)), (1, Some(5)), (0, None)] {
            let number = number.filter(|_| version == V5_0);
            assert_eq!(net.subscribe_all(receiver, number, &[("a/+", at(qos))]), [qos]);
            net.publish(sender, "a/b", "x", 2);
            let qos = ["", " q1", " q2"][usize::from(qos)];
            let ids = number.map_or(String::new(), |number| format!(" ids=[{number}]"));
            assert_eq!(net.messages(receiver), [format!("a/b=x{qos}{ids}")]);
        }
        assert_eq!(net.unsubscribe(receiver, &["a/+"]), if version == V5_0 { &[0][..] } else { &[] });
        net.publish(sender, "a/b", "x", 2);
        assert_eq!(net.messages(receiver), NONE, "there was one subscription");
    });
}

/// [5.0 MQTT-3.8.4-4] [3.1.1 MQTT-3.8.4-3]
#[test]
fn replacing_a_subscription_loses_no_messages() {
    play_on(ServerConfig::new().maximum_in_flight(1), |net| {
        for version in ALL {
            let (sender, receiver) = (helper(net, "sender"), net.join(clean(version, "receiver")));
            net.subscribe(receiver, "t", 2);
            let payloads = ["1", "2", "3"];
            payloads.iter().for_each(|payload| net.publish(sender, "t", payload, 1));
            net.subscribe(receiver, "t", 1);
            net.publish(sender, "t", "4", 1);
            assert_eq!(net.messages(receiver), ["t=1 q1", "t=2 q1", "t=3 q1", "t=4 q1"]);
        }
    });
}

/// [5.0 MQTT-3.8.3-3]
#[test]
fn no_local_keeps_a_clients_own_messages_from_it() {
    play(|net| {
        let no_local = SubscriptionOptions { no_local: true, ..at(2) };
        let me = net.join(kept(V5_0, "me"));
        net.subscribe_with(me, "t", no_local);
        let other = helper(net, "other");
        net.publish(me, "t", "mine", 1);
        net.publish(other, "t", "theirs", 1);
        assert_eq!(net.messages(me), ["t=theirs q1"]);
        // It is the client identifier that counts, not the connection.
        net.cut(me);
        let me = net.resume(kept(V5_0, "me"));
        net.publish(me, "t", "mine", 0);
        assert_eq!(net.messages(me), NONE);
        // Another subscription of the client matches as well.
        net.subscribe(me, "+", 1);
        net.publish(me, "t", "mine", 1);
        assert_eq!(net.messages(me), ["t=mine q1"]);
    });
}

/// [3.1.1 §3.3.5] [5.0 §3.8.3.1]
#[test]
fn a_client_receives_its_own_messages() {
    each(|net, version| {
        let me = net.join(clean(version, "me"));
        net.subscribe(me, "t", 2);
        net.publish(me, "t", "mine", 2);
        assert_eq!(net.messages(me), ["t=mine q2"]);
    });
}

/// [5.0 MQTT-3.3.1-3] [3.1.1 MQTT-3.3.1-3]
#[test]
fn dup_is_not_handed_on() {
    each(|net, version| {
        let (sender, receiver) = (net.join(clean(version, "sender")), watcher(net));
        for number in 1..=2 {
            net.put(sender, Publish { dup: true, ..message("t", "x", number) });
        }
        assert_eq!(net.messages(receiver), ["t=x q1", "t=x q2"]);
    });
}

fn all_properties<'a>(user_properties: &'a [UserProperty<'a>]) -> PublishProperties<'a> {
    PublishProperties {
        payload_format_indicator: Some(true),
        content_type: Some("text/\u{e9}".into()),
        response_topic: Some("re/x".into()),
        correlation_data: Some(&[0, 255, 1]),
        user_properties: user_properties.into(),
        ..Default::default()
    }
}

fn user_properties() -> [UserProperty<'static>; 5] {
    [("b", "1"), ("a", "2"), ("b", "1"), ("", ""), ("b", "0")].map(|(name, value)| UserProperty::new(name, value))
}

const ALL_PROPERTIES: &str = " text=true type=text/\u{e9} to=re/x for=[0, 255, 1] b:1 a:2 b:1 : b:0";

/// [5.0 MQTT-3.3.2-4] [5.0 MQTT-3.3.2-15] [5.0 MQTT-3.3.2-16] [5.0 MQTT-3.3.2-17] [5.0 MQTT-3.3.2-18] [5.0 MQTT-3.3.2-20]
#[test]
fn properties_are_handed_on_unaltered_and_in_order() {
    play(|net| {
        let (user, sender, receiver) = (user_properties(), helper(net, "sender"), net.join(kept(V5_0, "receiver")));
        net.subscribe(receiver, "t", 2);
        for retain in [false, true] {
            for number in 0..=2 {
                net.put(sender, Publish { properties: all_properties(&user), retain, ..message("t", "x", number) });
                let qos = ["", " q1", " q2"][usize::from(number)];
                assert_eq!(net.messages(receiver), [format!("t=x{qos}{ALL_PROPERTIES}")]);
            }
        }
        let late = helper(net, "late");
        net.subscribe_all(late, Some(9), &[("+", at(1))]);
        assert_eq!(net.messages(late), [format!("t=x q1 R{}", ALL_PROPERTIES.replace(" b:1 a", " ids=[9] b:1 a"))]);
        net.cut(receiver);
        net.put(sender, Publish { properties: all_properties(&user), ..message("t", "x", 1) });
        let receiver = net.resume(kept(V5_0, "receiver"));
        assert_eq!(net.messages(receiver), [format!("t=x q1{ALL_PROPERTIES}")]);
        let empty = PublishProperties {
            payload_format_indicator: Some(false),
            content_type: Some("".into()),
            correlation_data: Some(&[]),
            ..Default::default()
        };
        net.put(sender, Publish { properties: empty, ..message("t", "x", 0) });
        assert_eq!(net.messages(receiver), ["t=x text=false type= for=[]"]);
    });
}

/// [3.1.1 §3.3.2]
#[test]
fn properties_stay_behind_before_5_0() {
    for version in [V3_1, V3_1_1] {
        play(|net| {
            let (user, sender, receiver) = (user_properties(), helper(net, "sender"), net.join(clean(version, "receiver")));
            net.subscribe(receiver, "+", 2);
            net.put(sender, Publish { properties: all_properties(&user), retain: true, ..message("t", "x", 1) });
            net.subscribe(receiver, "t", 2);
            let properties = PublishProperties { topic_alias: Some(1), ..all_properties(&user) };
            net.put(sender, Publish { properties, ..message("u", "x", 2) });
            assert_eq!(net.messages(receiver), ["t=x q1", "t=x q1 R", "u=x q2"]);
        });
    }
}

/// [5.0 §3.3.3] [3.1.1 §3.3.3]
#[test]
fn a_payload_may_be_empty_or_large() {
    each(|net, version| {
        let (sender, receiver) = (net.join(clean(version, "sender")), net.join(clean(version, "receiver")));
        net.subscribe(receiver, "t", 1);
        for length in [0, 1, 122, 123, 124, 125, 16_383] {
            let payload = "z".repeat(length);
            net.publish(sender, "t", &payload, 1);
            assert_eq!(net.messages(receiver), [format!("t={payload} q1")]);
        }
    });
}

/// [5.0 MQTT-4.6.0-5] [3.1.1 MQTT-4.6.0-6]
#[test]
fn messages_of_a_topic_and_qos_keep_their_order() {
    for version in ALL {
        play_on(ServerConfig::new().maximum_in_flight(2), |net| {
            let (sender, mut receiver) = (net.join(clean(version, "sender")), net.join(kept(version, "receiver")));
            net.subscribe(receiver, "#", 2);
            let mut received = Vec::new();
            for i in 0..20 {
                net.publish(sender, "t", &i.to_string(), i % 2 + 1);
                match i {
                    5 => net.cut(receiver),
                    8 | 11 | 15 => {
                        net.cut(receiver);
                        receiver = net.resume(kept(version, "receiver"));
                    }
                    13 | 18 => received.extend(net.messages(receiver)),
                    _ => {}
                }
            }
            received.extend(net.messages(receiver));
            for (kind, first) in [("q1", 0), ("q2", 1)] {
                let payloads: Vec<_> =
                    only(&received, kind).iter().map(|shown| shown.split(['=', ' ']).nth(1).unwrap()).collect();
                let expected: Vec<_> = (first..20).step_by(2).map(|i| i.to_string()).collect();
                assert_eq!(payloads, expected, "{version} {kind}");
            }
        });
    }
}

// ---- SUBSCRIBE and UNSUBSCRIBE ----

/// [5.0 MQTT-3.8.4-5] [5.0 MQTT-3.8.4-6] [5.0 MQTT-3.8.4-7] [5.0 MQTT-3.9.3-1] [3.1.1 MQTT-3.8.4-4] [3.1.1 MQTT-3.8.4-5]
#[test]
fn a_subscribe_with_several_filters_gets_a_code_for_each() {
    for version in ALL {
        play_with(&BrokerConfig::new(ServerConfig::new()).maximum_subscriptions(3), |net| {
            let (sender, receiver) = (helper(net, "sender"), net.join(clean(version, "receiver")));
            let filters = [("a", at(2)), ("b", at(1)), ("a", at(0)), ("c", at(0)), ("d", at(1)), ("b", at(2))];
            let codes = net.subscribe_all(receiver, None, &filters);
            // A fourth filter is one too many. Before 3.1.1 nobody can be told so. [3.1 §3.9]
            let refused = [1, 0x80, 0x97][usize::from(version.level() - 3)];
            assert_eq!((&codes[..4], codes[5], codes.len()), (&[2, 1, 0, 0][..], 2, 6));
            assert!(codes[4] == refused || version == V3_1 && codes[4] < 3, "{codes:?}");
            ["a", "b", "c", "d"].iter().for_each(|topic| net.publish(sender, topic, "x", 2));
            assert_eq!(net.messages(receiver), ["a=x", "b=x q2", "c=x"]);
            // With one fewer there is room for another.
            net.unsubscribe(receiver, &["c", "x"]);
            net.subscribe(receiver, "d", 1);
        });
    }
}

/// [5.0 §3.2.2.3.11] [5.0 §3.2.2.3.12] [5.0 §3.2.2.3.13] [5.0 §3.9.3] [3.1.1 MQTT-3.8.3-2]
#[test]
fn subscriptions_of_a_kind_that_is_not_available_are_refused() {
    let config = ServerConfig::new().wildcard_subscription_available(false).subscription_identifier_available(false);
    play_on(config, |net| {
        // The standard speaks of DISCONNECT in one place and of SUBACK in another, with the same code.
        for (code, number, filter) in [(0xA2, None, "a/#"), (0xA2, None, "+"), (0xA1, Some(1), "a"), (0x9E, None, "$share/g/a")] {
            let client = helper(net, "client");
            assert_eq!(net.subscribe_all(client, number, &[(filter, at(1))]), [code]);
            net.publish(client, "a", "x", 0);
            assert_eq!(net.messages(client), NONE);
        }
        let client = helper(net, "client");
        assert_eq!(net.subscribe_all(client, None, &[("a", at(0)), ("#", at(1)), ("b", at(1))]), [0, 0xA2, 1]);
        let old = net.join(clean(V3_1_1, "old"));
        assert_eq!(net.subscribe_all(old, None, &[("a", at(0)), ("#", at(1)), ("b", at(1))]), [0, 0x80, 1]);
        let older = net.join(clean(V3_1, "older"));
        let codes = net.subscribe_all(older, None, &[("a", at(0)), ("#", at(1)), ("b", at(1))]);
        assert!((codes[0], codes[2]) == (0, 1) && codes[1] < 3, "{codes:?}");
        net.publish(client, "c", "x", 0);
        assert_eq!((net.messages(old), net.messages(older)), (vec![], vec![]));
    });
}

/// [3.1.1 §4.7]
#[test]
fn share_is_a_word_like_others_before_5_0() {
    play(|net| {
        let old = net.join(clean(V3_1_1, "old"));
        net.subscribe(old, "$share/g/a", 0);
        net.publish(old, "a", "x", 0);
        assert_eq!(net.messages(old), NONE);
    });
}

/// [5.0 MQTT-3.10.4-1] [5.0 MQTT-3.10.4-2] [5.0 MQTT-3.10.4-5] [5.0 MQTT-3.10.4-6] [5.0 MQTT-3.11.3-1] [3.1.1 MQTT-3.10.4-1]
#[test]
fn unsubscribe_compares_filters_character_by_character() {
    each(|net, version| {
        let (sender, receiver) = (helper(net, "sender"), net.join(clean(version, "receiver")));
        net.subscribe_all(receiver, None, &[("a/+", at(1)), ("a/b", at(0)), ("#", at(0))]);
        let codes = net.unsubscribe(receiver, &["a/c", "A/+", "a/b", "a/b", "+/+", "a/#"]);
        assert_eq!(codes, if version == V5_0 { &[0x11, 0x11, 0, 0x11, 0x11, 0x11][..] } else { &[] });
        net.publish(sender, "a/b", "x", 1);
        assert_eq!(net.messages(receiver), ["a/b=x q1"]);
        net.unsubscribe(receiver, &["a/+"]);
        net.publish(sender, "a/b", "x", 1);
        assert_eq!(net.messages(receiver), ["a/b=x"]);
        net.unsubscribe(receiver, &["#"]);
        net.publish(sender, "a/b", "x", 1);
        assert_eq!(net.messages(receiver), NONE);
        assert_eq!(net.unsubscribe(receiver, &["#"]), if version == V5_0 { &[0x11][..] } else { &[] });
    });
}

/// [5.0 MQTT-3.10.4-3] [3.1.1 MQTT-3.10.4-3]
#[test]
fn unsubscribe_lets_deliveries_that_have_begun_come_to_their_end() {
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

// ---- retained messages ----

/// [5.0 MQTT-3.3.1-5] [5.0 MQTT-3.3.1-12] [3.1.1 MQTT-3.3.1-5] [3.1.1 MQTT-3.3.1-6] [3.1.1 MQTT-3.3.1-8] [3.1.1 MQTT-3.3.1-9]
#[test]
fn the_last_retained_message_comes_with_a_new_subscription() {
    each(|net, version| {
        let (sender, old) = (net.join(clean(version, "sender")), net.join(clean(version, "old")));
        net.subscribe(old, "#", 2);
        for (published, granted) in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)] {
            net.retain(sender, "a/b", "before", 1);
            net.retain(sender, "a/b", "x", published);
            assert_eq!(net.messages(old).last().unwrap(), ["a/b=x", "a/b=x q1", "a/b=x q2"][usize::from(published)]);
            for filter in ["a/b", "a/+", "#", "a/b/#"] {
                let new = net.join(clean(version, "new"));
                net.subscribe(new, filter, granted);
                let expected = ["a/b=x R", "a/b=x q1 R", "a/b=x q2 R"][usize::from(published.min(granted))];
                assert_eq!(net.messages(new), [expected]);
            }
        }
    });
}

/// [5.0 MQTT-3.3.1-6] [5.0 MQTT-3.3.1-7] [3.1.1 MQTT-3.3.1-10] [3.1.1 MQTT-3.3.1-11]
#[test]
fn an_empty_retained_message_removes_the_one_that_is_there() {
    each(|net, version| {
        let (sender, old) = (net.join(clean(version, "sender")), net.join(clean(version, "old")));
        net.subscribe(old, "#", 2);
        for number in 0..=2 {
            net.retain(sender, "t", "x", 2 - number);
            net.retain(sender, "t", "", number);
            assert_eq!(net.messages(old).last().unwrap(), ["t=", "t= q1", "t= q2"][usize::from(number)]);
            assert!(net.broker.retained().is_empty());
            let new = net.join(clean(version, "new"));
            net.subscribe(new, "#", 0);
            assert_eq!(net.messages(new), NONE);
        }
    });
}

/// [5.0 MQTT-3.3.1-8] [3.1.1 MQTT-3.3.1-12]
#[test]
fn a_message_without_retain_changes_nothing_that_is_retained() {
    each(|net, version| {
        let sender = net.join(clean(version, "sender"));
        net.retain(sender, "t", "kept", 1);
        for payload in ["x", ""] {
            net.publish(sender, "t", payload, 1);
            net.publish(sender, "u", payload, 1);
        }
        let receiver = net.join(clean(version, "receiver"));
        net.subscribe(receiver, "#", 0);
        assert_eq!(net.messages(receiver), ["t=kept R"]);
    });
}

/// [3.1.1 MQTT-3.1.2-7] [5.0 §3.1.2.4]
#[test]
fn retained_messages_outlive_the_session_that_sent_them() {
    each(|net, version| {
        let sender = net.join(clean(version, "sender"));
        net.retain(sender, "t", "x", 1);
        net.cut(sender);
        net.advance(1_000_000);
        let receiver = net.join(clean(version, "sender"));
        net.subscribe(receiver, "t", 1);
        assert_eq!(net.messages(receiver), ["t=x q1 R"]);
    });
}

/// [5.0 MQTT-3.3.1-12] [5.0 MQTT-3.3.1-13]
#[test]
fn retain_as_published_goes_for_established_subscriptions() {
    play(|net| {
        for (retain_as_published, live) in [(false, "t=x"), (true, "t=x R")] {
            let options = SubscriptionOptions { retain_as_published, ..at(0) };
            let (sender, receiver) = (net.join(clean(V3_1_1, "sender")), helper(net, "receiver"));
            net.subscribe_with(receiver, "t", options);
            assert_eq!(net.messages(receiver), NONE);
            net.publish(sender, "t", "x", 0);
            net.retain(sender, "t", "x", 0);
            assert_eq!(net.messages(receiver), ["t=x", live]);
            net.subscribe_with(receiver, "t", options);
            assert_eq!(net.messages(receiver), ["t=x R"]);
            net.retain(sender, "t", "", 0);
            assert_eq!(net.messages(receiver), [live.replace('x', "")]);
        }
    });
}

/// [5.0 MQTT-3.3.1-9] [5.0 MQTT-3.3.1-10] [5.0 MQTT-3.3.1-11] [5.0 MQTT-3.8.4-4] [5.0 §3.8.3.1]
#[test]
fn retain_handling_says_when_a_subscription_brings_retained_messages() {
    use RetainHandling::{DoNotSend, Send, SendIfNew};
    const COMES: &[&str] = &["t=x R"];
    play(|net| {
        let sender = helper(net, "sender");
        net.retain(sender, "t", "x", 1);
        // At the first SUBSCRIBE, at a second, and at one in a resumed session.
        for (retain_handling, first, again, resumed) in
            [(Send, COMES, COMES, COMES), (SendIfNew, COMES, &[], &[]), (DoNotSend, &[], &[], &[])]
        {
            let options = SubscriptionOptions { retain_handling, ..at(0) };
            let mut receiver = net.join(Connect { clean_start: true, ..kept(V5_0, "receiver") });
            let subscribed = |net: &mut Net, receiver| {
                net.subscribe_with(receiver, "t", options);
                net.messages(receiver)
            };
            assert_eq!(subscribed(net, receiver), first);
            assert_eq!(subscribed(net, receiver), again);
            net.cut(receiver);
            receiver = net.resume(kept(V5_0, "receiver"));
            assert_eq!(net.messages(receiver), NONE, "resuming alone brings none");
            assert_eq!(subscribed(net, receiver), resumed);
            net.unsubscribe(receiver, &["t"]);
            assert_eq!(subscribed(net, receiver), first, "after UNSUBSCRIBE it is new");
            net.cut(receiver);
            receiver = net.join(Connect { clean_start: true, ..kept(V5_0, "receiver") });
            assert_eq!(subscribed(net, receiver), first, "in a new session it is new");
        }
    });
}

/// [3.1.1 MQTT-3.8.4-3] [5.0 MQTT-3.8.4-5]
#[test]
fn each_subscription_brings_the_retained_messages() {
    each(|net, version| {
        let (sender, receiver) = (helper(net, "sender"), net.join(clean(version, "receiver")));
        net.retain(sender, "t", "x", 2);
        net.subscribe(receiver, "t", 0);
        net.subscribe(receiver, "t", 2);
        net.subscribe_all(receiver, None, &[("#", at(1)), ("+", at(0))]);
        assert_eq!(net.messages(receiver), ["t=x R", "t=x q2 R", "t=x q1 R", "t=x R"]);
    });
}

fn retain_many(net: &mut Net, count: usize) -> BTreeSet<String> {
    let sender = helper(net, "sender");
    (0..count).for_each(|i| net.retain(sender, &format!("many/{i}"), "x", u8::try_from(i % 3).unwrap()));
    (0..count).map(|i| format!("many/{i}=x{} R", ["", " q1", " q2"][i % 3])).collect()
}

/// [5.0 MQTT-3.3.1-9] [3.1.1 MQTT-3.3.1-6]
#[test]
fn more_retained_messages_than_the_queue_holds_all_come() {
    for (version, limit) in ALL.into_iter().flat_map(|version| [(3, 1_000), (1_000, 20)].map(|limit| (version, limit))) {
        play_on(ServerConfig::new().maximum_queued(limit.0, limit.1).maximum_in_flight(2), |net| {
            let expected = retain_many(net, 40);
            let receiver = net.join(clean(version, "receiver"));
            for filter in ["many/+", "#"] {
                net.subscribe(receiver, filter, 2);
                let received = net.messages(receiver);
                assert_eq!((received.len(), received.into_iter().collect()), (40, expected.clone()));
            }
            // So it is for a client that takes its time.
            net.stall(receiver, true);
            net.subscribe_all(receiver, None, &[("many/#", at(2)), ("+/+", at(2))]);
            net.stall(receiver, false);
            let received = net.messages(receiver);
            assert_eq!((received.len(), received.into_iter().collect()), (80, expected));
            assert_eq!(net.broker.dropped(), 0);
        });
    }
}

/// [5.0 MQTT-3.3.1-9] [3.1.1 MQTT-3.3.1-6] [5.0 MQTT-4.4.0-1]
#[test]
fn retained_messages_still_to_be_sent_come_after_a_resume() {
    for version in ALL {
        play_on(ServerConfig::new().maximum_in_flight(2), |net| {
            let expected: BTreeSet<_> = retain_many(net, 200).into_iter().filter(|shown| shown.contains('q')).collect();
            let mut receiver = net.join(kept(version, "receiver"));
            net.subscribe(receiver, "#", 2);
            net.cut(receiver);
            receiver = net.resume(kept(version, "receiver"));
            let received: BTreeSet<_> = net.messages(receiver).iter().map(|shown| shown.replace(" D", "")).collect();
            assert!(received.is_superset(&expected), "{} of {}", received.intersection(&expected).count(), expected.len());
        });
    }
}

/// [5.0 MQTT-4.6.0-5] [3.1.1 MQTT-4.6.0-6] [5.0 MQTT-3.3.1-9] [3.1.1 MQTT-3.3.1-6]
#[test]
fn a_retained_message_comes_before_what_is_published_after_the_subscription() {
    for (version, retain) in ALL.into_iter().flat_map(|version| [false, true].map(|retain| (version, retain))) {
        play_on(ServerConfig::new().maximum_in_flight(1), |net| {
            let (sender, receiver) = (helper(net, "sender"), net.join(clean(version, "receiver")));
            let topics: Vec<_> = (0..200).map(|i| format!("many/{i}")).collect();
            topics.iter().for_each(|topic| net.retain(sender, topic, "1", 1));
            net.subscribe(receiver, "#", 1);
            for topic in &topics {
                net.put(sender, Publish { retain, ..message(topic, "2", 1) });
            }
            let received = net.messages(receiver);
            for topic in topics {
                assert_eq!(only(&received, &format!("{topic}=")), [format!("{topic}=1 q1 R"), format!("{topic}=2 q1")]);
            }
        });
    }
}

/// [5.0 §3.3.1.3] [5.0 MQTT-3.3.1-12] [3.1.1 MQTT-3.3.1-9]
#[test]
fn a_message_retained_after_the_subscription_comes_once_and_not_as_retained() {
    for version in ALL {
        play_on(ServerConfig::new().maximum_in_flight(1), |net| {
            retain_many(net, 200);
            let (sender, receiver) = (helper(net, "sender"), net.join(clean(version, "receiver")));
            net.subscribe(receiver, "#", 2);
            ["a", "many/~", "z"].iter().for_each(|topic| net.retain(sender, topic, "new", 2));
            assert_eq!(only(&net.messages(receiver), "new"), ["a=new q2", "many/~=new q2", "z=new q2"]);
        });
    }
}

/// [5.0 MQTT-3.10.4-2] [3.1.1 MQTT-3.10.4-2]
#[test]
fn a_message_retained_after_unsubscribe_does_not_come() {
    for version in ALL {
        play_on(ServerConfig::new().maximum_in_flight(1), |net| {
            retain_many(net, 200);
            let (sender, receiver) = (helper(net, "sender"), net.join(clean(version, "receiver")));
            net.subscribe(receiver, "#", 2);
            net.unsubscribe(receiver, &["#"]);
            ["a", "many/~", "z"].iter().for_each(|topic| net.retain(sender, topic, "new", 2));
            assert_eq!(only(&net.messages(receiver), "new"), NONE);
        });
    }
}

/// [5.0 §3.3.1.3] [5.0 MQTT-3.3.2-6]
#[test]
fn a_retained_message_expires() {
    play(|net| {
        let (sender, receiver) = (helper(net, "sender"), helper(net, "receiver"));
        let properties = PublishProperties { message_expiry_interval: Some(10), ..Default::default() };
        net.put(sender, Publish { retain: true, properties, ..message("t", "x", 1) });
        for (wait, expected) in
            [(0, &["t=x R expiry=10"][..]), (4_000, &["t=x R expiry=6"]), (5_000, &["t=x R expiry=1"]), (1_000, &[])]
        {
            net.advance(wait);
            net.subscribe(receiver, "t", 0);
            assert_eq!(net.messages(receiver), expected);
        }
        let old = net.join(clean(V3_1_1, "old"));
        net.put(sender, Publish { retain: true, properties, ..message("t", "x", 1) });
        net.advance(9_000);
        net.subscribe(old, "t", 0);
        net.advance(1_000);
        net.subscribe(old, "t", 0);
        assert_eq!(net.messages(old), ["t=x R"]);
    });
}

/// [5.0 §3.3.1.3]
#[test]
fn a_new_retained_message_has_its_own_expiry() {
    play(|net| {
        let (sender, receiver) = (helper(net, "sender"), helper(net, "receiver"));
        let properties = PublishProperties { message_expiry_interval: Some(10), ..Default::default() };
        net.put(sender, Publish { retain: true, properties, ..message("t", "old", 0) });
        net.put(sender, Publish { retain: true, properties, ..message("u", "old", 0) });
        net.advance(5_000);
        net.put(sender, Publish { retain: true, properties, ..message("t", "new", 0) });
        net.retain(sender, "u", "new", 0);
        net.advance(9_000);
        net.subscribe(receiver, "+", 0);
        assert_eq!(net.messages(receiver), ["t=new R expiry=1", "u=new R"]);
    });
}

/// [5.0 §3.4.2.1] [5.0 §3.5.2.1]
#[test]
fn more_retained_messages_than_there_may_be_are_refused() {
    play_with(&BrokerConfig::new(ServerConfig::new()).maximum_retained(2, 10_000), |net| {
        let sender = helper(net, "sender");
        ["a", "b"].iter().for_each(|topic| net.retain(sender, topic, "x", 1));
        for number in 1..=2 {
            assert_eq!(net.put(sender, Publish { retain: true, ..message("c", "x", number) }), 0x97);
        }
        net.retain(sender, "a", "y", 1);
        net.retain(sender, "b", "", 1);
        net.retain(sender, "c", "x", 1);
        let receiver = helper(net, "receiver");
        net.subscribe(receiver, "#", 0);
        assert_eq!(net.messages(receiver), ["a=y R", "c=x R"]);
    });
}

// ---- wills ----

#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    /// DISCONNECT with this reason code; before 5.0 without one.
    Disconnect(u8),
    /// DISCONNECT with a reason code that the standard does not know.
    UndefinedDisconnect,
    ConnectionLost,
    KeepAlive,
    Violation,
    SecondConnect,
    /// The host ends the connection.
    Host,
    /// Another connection with the same client identifier, and whether it begins a new session.
    TakeOver(bool),
}

const ENDINGS: [Ending; 12] = [
    Ending::Disconnect(0x00),
    Ending::Disconnect(0x04),
    Ending::Disconnect(0x80),
    Ending::Disconnect(0x99),
    Ending::UndefinedDisconnect,
    Ending::ConnectionLost,
    Ending::KeepAlive,
    Ending::Violation,
    Ending::SecondConnect,
    Ending::Host,
    Ending::TakeOver(false),
    Ending::TakeOver(true),
];

fn end(net: &mut Net, c: C, connect: Connect<'_>, ending: Ending) {
    match ending {
        Ending::Disconnect(code) => {
            let code = if connect.version == V5_0 { code } else { 0 };
            net.send(c, Disconnect::new(ReasonCode::new(code)).into());
        }
        Ending::UndefinedDisconnect => net.raw(c, &[0xE0, 1, 3]),
        Ending::ConnectionLost => net.cut(c),
        Ending::KeepAlive => net.advance(15_000),
        Ending::Violation => net.raw(c, &[0, 0]),
        Ending::SecondConnect => net.send(c, connect.into()),
        Ending::Host => net.disconnect(c, ReasonCode::ADMINISTRATIVE_ACTION),
        Ending::TakeOver(clean_start) => {
            net.connect(Connect { clean_start, will: None, keep_alive: 0, ..connect });
        }
    }
    assert!(!net.is_open(c), "{ending:?}");
}

/// Milliseconds after an instant at which a client received such a message.
fn arrivals(net: &Net, c: C, start: u64, topic: &str) -> Vec<u64> {
    net.log(c).iter().filter(|(_, shown)| shown.contains(topic)).map(|(at, _)| at - start).collect()
}

/// [5.0 MQTT-3.1.2-8] [5.0 MQTT-3.1.2-10] [5.0 MQTT-3.1.3-9] [5.0 MQTT-3.14.4-3] [5.0 §3.1.3.2.2] [5.0 §3.1.4]
#[test]
fn a_will_comes_once_or_never() {
    let backs = [None, Some(false), Some(true)];
    for (delay, expiry) in [0, 1, 5].into_iter().flat_map(|delay| [0, 3, 60, u32::MAX].map(|expiry| (delay, expiry))) {
        for (ending, back) in ENDINGS.into_iter().flat_map(|ending| backs.map(|back| (ending, back))) {
            if matches!(ending, Ending::TakeOver(_)) && back.is_some() {
                continue;
            }
            // The will is due after its delay or at the end of the session, whatever is first.
            let due = u64::from(delay.min(expiry)) * 1_000;
            let expected = match (ending, back) {
                (Ending::Disconnect(0), _) => None,
                (Ending::TakeOver(clean_start), _) => (clean_start || due == 0).then_some(0),
                // The client is back after two seconds: with its session, or at the end of it.
                (_, Some(false)) if due > 2_000 => None,
                (_, Some(true)) if due > 2_000 => Some(2_000),
                _ => Some(due),
            };
            play(|net| {
                let watcher = watcher(net);
                let properties = WillProperties { will_delay_interval: Some(delay), ..Default::default() };
                let will = Will { topic: "will".into(), payload: b"x", properties, ..Default::default() };
                let connect = Connect { keep_alive: 10, will: Some(will), ..expiring("dying", expiry) };
                let dying = net.join(connect);
                net.advance(1_000);
                net.send(dying, Packet::Pingreq);
                end(net, dying, connect, ending);
                let start = net.now;
                net.advance(2_000);
                if let Some(clean_start) = back {
                    net.connect(Connect { clean_start, will: None, keep_alive: 0, ..connect });
                }
                net.advance(10_000_000);
                let expected: Vec<_> = expected.into_iter().collect();
                let found = arrivals(net, watcher, start, "will=x");
                assert_eq!(found, expected, "{ending:?}, delay {delay}, expiry {expiry}, back {back:?}");
            });
        }
    }
}

/// [3.1.1 MQTT-3.1.2-8] [3.1.1 MQTT-3.1.2-10] [3.1.1 MQTT-3.14.4-3]
#[test]
fn a_will_comes_at_once_or_never_before_5_0() {
    for (version, ending) in [V3_1, V3_1_1].into_iter().flat_map(|version| ENDINGS.map(|ending| (version, ending))) {
        let expected: &[u64] = match ending {
            Ending::Disconnect(0) => &[],
            Ending::Disconnect(_) => continue,
            _ => &[0],
        };
        for clean_start in [false, true] {
            play(|net| {
                let watcher = watcher(net);
                let will = Will { topic: "will".into(), payload: b"x", ..Default::default() };
                let connect = Connect { keep_alive: 10, will: Some(will), clean_start, ..Connect::new(version, "dying") };
                let dying = net.join(connect);
                end(net, dying, connect, ending);
                let start = net.now;
                net.advance(10_000_000);
                net.connect(Connect { will: None, ..connect });
                net.advance(10_000_000);
                assert_eq!(arrivals(net, watcher, start, "will=x"), expected, "{version} {ending:?}");
            });
        }
    }
}

/// [5.0 MQTT-3.1.2-8] [5.0 §3.14.2.2.2]
#[test]
fn disconnect_with_another_session_expiry_moves_the_end_of_the_session_and_its_will() {
    for (expiry, expected) in [(Some(3), 3_000), (Some(0), 0), (Some(100), 5_000), (None, 5_000)] {
        play(|net| {
            let watcher = watcher(net);
            let properties = WillProperties { will_delay_interval: Some(5), ..Default::default() };
            let will = Will { topic: "will".into(), payload: b"x", properties, ..Default::default() };
            let dying = net.join(Connect { will: Some(will), ..expiring("dying", 60) });
            let properties = DisconnectProperties { session_expiry_interval: expiry, ..Default::default() };
            net.send(dying, Disconnect { reason_code: ReasonCode::DISCONNECT_WITH_WILL_MESSAGE, properties }.into());
            let start = net.now;
            net.advance(1_000_000);
            assert_eq!(arrivals(net, watcher, start, "will=x"), [expected]);
        });
    }
}

/// [5.0 MQTT-3.1.3-10] [5.0 §3.1.3.2] [5.0 MQTT-3.1.2-14] [5.0 MQTT-3.1.2-15] [3.1.1 MQTT-3.1.2-16] [3.1.1 MQTT-3.1.2-17]
#[test]
fn a_will_is_published_with_its_qos_retain_flag_and_properties() {
    play(|net| {
        let (user, watcher) = (user_properties(), watcher(net));
        let message = all_properties(&user);
        let properties = WillProperties {
            payload_format_indicator: message.payload_format_indicator,
            message_expiry_interval: Some(10),
            content_type: message.content_type,
            response_topic: message.response_topic,
            correlation_data: message.correlation_data,
            will_delay_interval: Some(20),
            user_properties: message.user_properties,
        };
        let told = ALL_PROPERTIES.replace(" type", " expiry=10 type");
        for (retain, number) in [false, true].into_iter().flat_map(|retain| [0, 1, 2].map(|number| (retain, number))) {
            let will = Will { qos: qos(number), retain, topic: "will".into(), payload: b"x", properties };
            let dying = net.join(Connect { will: Some(will), ..expiring("dying", 60) });
            net.cut(dying);
            net.advance(20_000);
            let qos = ["", " q1", " q2"][usize::from(number)];
            assert_eq!(net.messages(watcher), [format!("will=x{qos}{told}")]);
            let late = helper(net, "late");
            net.subscribe(late, "will", 2);
            let expected: &[String] = if retain { &[format!("will=x{qos} R{told}")] } else { &[] };
            assert_eq!(net.messages(late), expected);
            net.advance(100_000);
            net.subscribe(late, "will", 2);
            assert_eq!(net.messages(late), NONE, "it has expired");
        }
    });
}

/// [5.0 MQTT-3.3.1-6] [3.1.1 MQTT-3.3.1-10] [3.1.1 MQTT-3.1.2-17]
#[test]
fn an_empty_retained_will_removes_what_is_retained() {
    each(|net, version| {
        let watcher = watcher(net);
        net.retain(watcher, "will", "x", 0);
        let will = Will { retain: true, topic: "will".into(), ..Default::default() };
        let dying = net.join(Connect { will: Some(will), ..clean(version, "dying") });
        net.cut(dying);
        assert_eq!(net.messages(watcher), ["will=x", "will="]);
        assert!(net.broker.retained().is_empty());
    });
}

/// [5.0 MQTT-3.1.2-10] [3.1.1 MQTT-3.1.2-10] [3.1.1 MQTT-3.1.2-12]
#[test]
fn a_will_is_that_of_the_last_connection() {
    each(|net, version| {
        let watcher = watcher(net);
        for (payload, expected) in [(Some("1"), &["will=1"][..]), (Some("2"), &["will=2"]), (None, &[])] {
            let will = payload.map(|payload| Will { topic: "will".into(), payload: payload.as_bytes(), ..Default::default() });
            let dying = net.connect(Connect { will, ..kept(version, "dying") });
            net.cut(dying);
            assert_eq!(net.messages(watcher), expected);
        }
    });
}

/// [5.0 MQTT-4.5.0-1] [3.1.1 MQTT-4.5.0-1]
#[test]
fn a_will_waits_in_the_sessions_that_subscribe_to_it() {
    each(|net, version| {
        let will = Will { qos: qos(1), topic: "will".into(), payload: b"x", ..Default::default() };
        let connect = Connect { will: Some(will), ..kept(version, "dying") };
        let dying = net.join(connect);
        net.subscribe(dying, "will", 2);
        net.cut(dying);
        let back = net.resume(connect);
        assert_eq!(net.messages(back), ["will=x q1"]);
        net.leave(back);
    });
}

/// [3.1.1 MQTT-3.1.2-8] [5.0 MQTT-3.1.4-2]
#[test]
fn a_client_that_is_not_let_in_leaves_no_will_and_takes_nothing_over() {
    each(|net, version| {
        let watcher = watcher(net);
        let first = net.join(kept(version, "same"));
        net.policy = |_| Some(ReasonCode::NOT_AUTHORIZED);
        let will = Will { topic: "will".into(), ..Default::default() };
        let second = net.connect(Connect { will: Some(will), clean_start: true, ..kept(version, "same") });
        assert!(net.is_open(first) && !net.is_open(second));
        assert_eq!(net.take(second), ["connack 87", "closed"]);
        net.send(first, Packet::Pingreq);
        assert_eq!((net.take(first), net.messages(watcher)), (vec!["pingresp".to_owned()], vec![]));
        net.cut(first);
        net.policy = |_| Some(ReasonCode::SUCCESS);
        net.resume(kept(version, "same"));
    });
}

// ---- sessions ----

/// [5.0 MQTT-3.1.2-5] [5.0 MQTT-3.2.2-3] [5.0 MQTT-4.5.0-1] [3.1.1 MQTT-3.1.2-4] [3.1.1 MQTT-3.1.2-5] [3.1.1 MQTT-3.2.2-2]
#[test]
fn a_session_keeps_its_subscriptions_and_messages_while_its_client_is_away() {
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
fn a_clean_start_ends_the_session_that_was() {
    each(|net, version| {
        let sender = net.join(clean(version, "sender"));
        for is_connected in [false, true] {
            let receiver = net.join(Connect { clean_start: version == V5_0, ..kept(version, "receiver") });
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
            // That session has ended with its connection.
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
fn a_session_that_began_with_a_clean_start_goes_on_as_its_expiry_says() {
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
fn a_session_ends_when_its_expiry_interval_has_passed() {
    // The greatest interval that the server grants, what CONNECT asks for, what DISCONNECT says, and when the session ends.
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
    ] {
        play_on(ServerConfig::new().maximum_session_expiry_interval(granted), |net| {
            let properties = ConnectProperties { session_expiry_interval: asked, ..Default::default() };
            let connect = Connect { properties, ..Connect::new(V5_0, "client") };
            let client = net.connect(connect);
            // The client is told when it is given less than it asked for.
            let told = asked.filter(|asked| *asked > granted).map_or(String::new(), |_| format!(" expiry={granted}"));
            assert_eq!(net.take(client), [format!("connack 00{told}")]);
            net.advance(50_000_000);
            assert_eq!(net.broker.sessions(), 1, "no session ends while its connection is there");
            match override_ {
                None => net.cut(client),
                Some(_) => {
                    let properties = DisconnectProperties { session_expiry_interval: override_, ..Default::default() };
                    net.send(client, Disconnect { properties, ..Default::default() }.into());
                }
            }
            let case = (granted, asked, override_);
            let Some(end) = end else {
                net.advance(u64::from(u32::MAX) * 2_000);
                assert_eq!(net.broker.sessions(), 1, "{case:?}");
                return;
            };
            if end > 0 {
                net.advance(u64::from(end) * 1_000 - 1);
                assert_eq!(net.broker.sessions(), 1, "{case:?}");
                net.advance(1);
            }
            assert_eq!(net.broker.sessions(), 0, "{case:?}");
            let client = net.connect(connect);
            assert_eq!(net.take(client), [format!("connack 00{told}")]);
        });
    }
}

/// [5.0 MQTT-4.1.0-2] [5.0 MQTT-3.1.2-8]
#[test]
fn a_host_that_is_late_prolongs_no_session_and_swallows_no_will() {
    // The session has ended with its will, or its will alone was due.
    for (expiry, expected) in [(10, "connack 00"), (100, "connack 00 present")] {
        play(|net| {
            let watcher = watcher(net);
            let properties = WillProperties { will_delay_interval: Some(10), ..Default::default() };
            let will = Will { topic: "will".into(), payload: b"x", properties, ..Default::default() };
            let client = net.join(Connect { will: Some(will), ..expiring("client", expiry) });
            net.cut(client);
            // The clock goes on, and nobody calls `handle_timeout`.
            net.now += 10_001;
            let client = net.connect(expiring("client", 10));
            net.advance(0);
            assert_eq!((net.take(client), net.messages(watcher)), (vec![expected.to_owned()], vec!["will=x".to_owned()]));
        });
    }
}

/// [5.0 §3.1.2.11.2]
#[test]
fn each_connection_sets_the_session_expiry_anew() {
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
fn a_session_without_expiry_cannot_be_given_one_in_disconnect() {
    for asked in [None, Some(0)] {
        play(|net| {
            let watcher = watcher(net);
            let will = Will { topic: "will".into(), payload: b"x", ..Default::default() };
            let properties = ConnectProperties { session_expiry_interval: asked, ..Default::default() };
            let client = net.join(Connect { will: Some(will), properties, ..Connect::new(V5_0, "client") });
            let properties = DisconnectProperties { session_expiry_interval: Some(5), ..Default::default() };
            net.send(client, Disconnect { properties, ..Default::default() }.into());
            assert_eq!(net.take(client), ["disconnect 82", "closed"]);
            assert_eq!(net.messages(watcher), ["will=x"], "it is not a valid DISCONNECT");
            net.join(expiring("client", 10));
        });
    }
}

/// [5.0 MQTT-4.4.0-1] [5.0 MQTT-3.3.1-1] [5.0 MQTT-4.3.3-6] [3.1.1 MQTT-4.4.0-1] [3.1.1 MQTT-4.6.0-1]
#[test]
fn what_is_unacknowledged_is_sent_again_in_order_with_its_identifiers() {
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
        assert_eq!(net.take(receiver), NONE, "nothing is sent again on the same connection");
        let mut resent: Vec<_> =
            [0, 3, 4].map(|i| format!("#{} t={} q{} D", numbers[i], i + 1, if i == 3 { 2 } else { 1 })).to_vec();
        for new in ["7", "8"] {
            net.cut(receiver);
            net.publish(sender, "t", new, 1);
            receiver = net.resume(kept(version, "receiver"));
            let received = net.take_numbered(receiver);
            assert_eq!(only(&received, "pubrel"), [format!("#{} pubrel 00", numbers[1])]);
            assert_eq!(only(&received, " D"), resent);
            let last = received.last().unwrap();
            assert!(last.ends_with(&format!("t={new} q1")), "what is new comes last: {received:?}");
            resent.push(format!("{last} D"));
        }
        let fresh = net.connect(clean(version, "receiver"));
        assert_eq!(net.take(fresh), ["connack 00"]);
    });
}

/// A receiver whose connection breaks after so many packets, of either direction. Whether it broke.
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
            assert_eq!(publish.dup, sent.contains_key(&payload), "DUP says that it was sent before");
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
            let packet = packet.packet();
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
                note(&packet.packet());
            }
            receiver = net.resume(kept(version, "receiver"));
        }
    }
    if number == 1 {
        // The last copies are in order. [5.0 §4.6]
        let all = received.clone();
        received =
            all.iter().enumerate().filter(|(i, payload)| !all[i + 1..].contains(payload)).map(|(_, p)| p.clone()).collect();
    }
    assert_eq!(received, ["1", "2", "3"], "a break after {break_after} packets");
    net.cut(receiver);
    let receiver = net.resume(kept(version, "receiver"));
    assert_eq!(net.take(receiver), NONE);
    packets > break_after
}

/// [5.0 MQTT-4.3.3-1] [5.0 MQTT-4.3.3-3] [5.0 MQTT-4.3.3-5] [5.0 MQTT-4.4.0-1] [3.1.1 MQTT-4.3.3-1] [3.1.1 MQTT-4.4.0-1]
#[test]
fn a_break_after_any_packet_loses_and_doubles_nothing_for_a_receiver() {
    for (version, number) in ALL.into_iter().flat_map(|version| [1, 2].map(|number| (version, number))) {
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

/// A sender whose connection breaks after so many packets, of either direction. Whether it broke.
fn send_with_a_break(net: &mut Net, version: Version, number: u8, break_after: usize) -> bool {
    let receiver = watcher(net);
    let mut sender = net.join(kept(version, "sender"));
    let mut packets = 0;
    for (payload, id) in [("1", 1), ("2", 2), ("3", 1)] {
        let publish = Publish { packet_identifier: Some(identifier(id)), ..message("t", payload, number) };
        let (mut next, mut dup) = (Some(false), false);
        // `Some(whether PUBREL is due)` while the flow goes on.
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
                let shown = show(&answer.packet(), true);
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
    assert_eq!(received, ["1", "2", "3"].map(|payload| format!("t={payload} q{number}")), "a break after {break_after} packets");
    packets > break_after
}

/// [5.0 MQTT-4.3.3-10] [5.0 MQTT-4.3.3-11] [5.0 MQTT-4.3.3-12] [3.1.1 MQTT-4.3.3-2]
#[test]
fn a_break_after_any_packet_loses_and_doubles_nothing_from_a_sender() {
    for (version, number) in ALL.into_iter().flat_map(|version| [1, 2].map(|number| (version, number))) {
        for break_after in 0..20 {
            play(|net| {
                let breaks = send_with_a_break(net, version, number, break_after);
                assert_eq!(breaks, break_after < usize::from(number) * 6, "a break after {break_after} packets");
            });
        }
    }
}

/// [5.0 MQTT-4.3.2-5] [5.0 MQTT-4.3.3-10] [5.0 MQTT-4.3.3-11] [5.0 MQTT-4.3.3-12] [3.1.1 MQTT-4.3.2-2] [3.1.1 MQTT-4.3.3-2]
#[test]
fn a_repeated_identifier_is_a_new_message_once_the_flow_has_ended() {
    each(|net, version| {
        let (sender, receiver) = (net.join(kept(version, "sender")), watcher(net));
        let publish = |number: u8, dup| Publish { dup, packet_identifier: Some(identifier(7)), ..message("t", "x", number) };
        net.send(sender, publish(1, false).into());
        net.send(sender, publish(1, true).into());
        assert_eq!((net.take(sender), net.messages(receiver).len()), (vec!["puback #7 00".to_owned(); 2], 2));
        for (dup, expected) in [(false, 1), (true, 0), (false, 0)] {
            net.send(sender, publish(2, dup).into());
            assert_eq!((net.take(sender), net.messages(receiver).len()), (vec!["pubrec #7 00".to_owned()], expected));
        }
        net.ack(sender, Packet::Pubrel, 7, 0);
        assert_eq!(net.take(sender), ["pubcomp #7 00"]);
        // An identifier that is not known is no violation. [5.0 §3.7.2.1]
        net.ack(sender, Packet::Pubrel, 7, 0);
        assert_eq!(net.take(sender), [if version == V5_0 { "pubcomp #7 92" } else { "pubcomp #7 00" }]);
        net.send(sender, publish(2, true).into());
        assert_eq!((net.take(sender), net.messages(receiver).len()), (vec!["pubrec #7 00".to_owned()], 1));
        // What has begun is forgotten with the session.
        net.cut(sender);
        let fresh = net.connect(clean(version, "sender"));
        net.next(fresh);
        net.send(fresh, publish(2, false).into());
        assert_eq!((net.take(fresh), net.messages(receiver).len()), (vec!["pubrec #7 00".to_owned()], 1));
    });
}

/// [5.0 MQTT-4.4.0-2] [5.0 MQTT-4.3.3-4] [5.0 §4.9]
#[test]
fn a_message_that_the_receiver_refuses_is_done_with() {
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
fn an_acknowledgement_of_nothing_known_is_answered_and_does_no_harm() {
    each(|net, version| {
        let client = net.join(clean(version, "client"));
        net.ack(client, Packet::Pubrec, 5, 0);
        assert_eq!(net.take_numbered(client), [if version == V5_0 { "#5 pubrel 92" } else { "#5 pubrel 00" }]);
        assert!(net.is_open(client));
    });
}

/// [5.0 §3.8.4] [5.0 MQTT-3.3.4-3]
#[test]
fn a_session_keeps_its_subscription_identifiers() {
    play(|net| {
        let (sender, receiver) = (helper(net, "sender"), net.join(kept(V5_0, "receiver")));
        net.subscribe_all(receiver, Some(7), &[("t", at(1))]);
        net.publish(sender, "t", "1", 1);
        net.cut(receiver);
        net.publish(sender, "t", "2", 1);
        let receiver = net.resume(kept(V5_0, "receiver"));
        net.publish(sender, "t", "3", 1);
        assert_eq!(net.messages(receiver), ["t=1 q1 D ids=[7]", "t=2 q1 ids=[7]", "t=3 q1 ids=[7]"]);
    });
}

/// [5.0 MQTT-4.3.3-9] [5.0 §3.3.4]
#[test]
fn a_message_that_the_broker_refuses_frees_its_identifier_and_its_place() {
    play_with(&BrokerConfig::new(ServerConfig::new().receive_maximum(1)).maximum_retained(0, 0), |net| {
        let (sender, receiver) = (helper(net, "sender"), watcher(net));
        let publish = Publish { retain: true, packet_identifier: Some(identifier(9)), ..message("t", "x", 2) };
        net.send(sender, publish.into());
        assert_eq!((net.take(sender), net.messages(receiver)), (vec!["pubrec #9 97".to_owned()], vec![]));
        net.send(sender, Publish { retain: false, ..publish }.into());
        assert_eq!((net.take(sender), net.messages(receiver)), (vec!["pubrec #9 00".to_owned()], vec!["t=x q2".to_owned()]));
    });
}

/// [5.0 §4.1] [3.1.1 §4.1]
#[test]
fn nothing_is_left_of_clients_that_are_gone() {
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
            assert_eq!((net.broker.connections(), net.broker.sessions(), net.broker.poll_timeout()), (0, 0, None), "{ending:?}");
        }
    });
}

/// [5.0 MQTT-3.1.4-3] [3.1.1 MQTT-3.1.4-2] [5.0 MQTT-4.4.0-1]
#[test]
fn a_second_connection_of_a_client_takes_over() {
    for (before, after) in ALL.into_iter().flat_map(|before| ALL.map(|after| (before, after))) {
        play(|net| {
            let sender = helper(net, "sender");
            let first = net.join(kept(before, "same"));
            net.subscribe(first, "t", 2);
            net.publish(sender, "t", "1", 1);
            assert_eq!(net.take(first), ["t=1 q1"]);
            let second = net.resume(kept(after, "same"));
            assert_eq!(net.take(first), if before == V5_0 { &["disconnect 8e", "closed"][..] } else { &["closed"] });
            assert!(net.is_open(second) && !net.is_open(first));
            net.publish(sender, "t", "2", 1);
            assert_eq!(net.messages(second), ["t=1 q1 D", "t=2 q1"]);
            let third = net.connect(clean(after, "same"));
            net.publish(sender, "t", "3", 1);
            assert_eq!(net.take(third), ["connack 00"]);
            assert_eq!(net.broker.connections(), 2);
        });
    }
}

/// [3.1.1 MQTT-3.1.2-6] [5.0 §3.1.2.11.2]
#[test]
fn a_session_that_ends_with_its_connection_cannot_be_taken_over() {
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
fn of_two_connections_that_wait_for_the_host_the_one_let_in_last_stays() {
    each(|net, version| {
        net.policy = |_| None;
        let clients = [net.connect(kept(version, "same")), net.connect(kept(version, "same"))];
        let asked = core::mem::take(&mut net.asked);
        assert_eq!((net.take(clients[0]), net.take(clients[1])), (vec![], vec![]));
        net.admit(asked[1]);
        net.admit(asked[0]);
        assert!(net.is_open(clients[0]) && !net.is_open(clients[1]));
        assert_eq!((net.broker.connections(), net.broker.sessions()), (1, 1));
        assert_eq!(net.take(clients[0]).len(), 1);
    });
}

/// [5.0 §3.1.4] [3.1.1 §3.1.4]
#[test]
fn the_hosts_answer_may_come_when_the_client_is_gone() {
    each(|net, version| {
        net.policy = |_| None;
        let client = net.connect(kept(version, "client"));
        let asked = net.asked.pop().unwrap();
        net.cut(client);
        net.admit(asked);
        net.broker.refuse(asked, ReasonCode::NOT_AUTHORIZED);
        assert_eq!((net.broker.connections(), net.broker.sessions(), net.take(client).len()), (0, 0, 0));
    });
}

/// [5.0 MQTT-3.1.3-6] [5.0 MQTT-3.1.3-7] [5.0 MQTT-3.2.2-16]
#[test]
fn a_client_without_an_identifier_is_given_a_new_one() {
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
        assert_eq!((net.broker.sessions(), net.broker.connections()), (3, 3));
    });
    // A broker with the same seed would choose the same, were it not taken.
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
        assert!(told.starts_with("connack 00 assigned=") && !told.ends_with(&*taken.borrow()), "{told}");
    });
}

/// [3.1.1 MQTT-3.1.3-6] [3.1.1 MQTT-3.1.3-7] [3.1.1 MQTT-3.1.3-8] [3.1 §3.1]
#[test]
fn a_client_without_an_identifier_must_begin_a_clean_session_in_3_1_1() {
    play(|net| {
        let clients = [0, 1, 2].map(|_| net.join(clean(V3_1_1, "")));
        assert!(clients.iter().all(|client| net.is_open(*client)));
        assert_eq!(net.broker.sessions(), 3);
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
        for name in ["0", "a", "Z", "0123456789abcdefghijklm", "nopqrstuvwxyzABCDEFGHIJ", "KLMNOPQRSTUVWXYZ"] {
            net.join(kept(version, name));
        }
        assert_eq!(net.broker.sessions(), 6);
    });
    play(|net| {
        let client = net.open(V3_1);
        net.raw(client, &connect_bytes(V3_1, 3, 2, "012345678901234567890123"));
        assert_eq!(net.take(client), ["connack 85", "closed"]);
    });
}

// ---- message expiry ----

/// [5.0 MQTT-3.3.2-5] [5.0 MQTT-3.3.2-6]
#[test]
fn a_message_that_waits_too_long_is_not_sent_and_others_come_with_what_is_left() {
    let properties = PublishProperties { message_expiry_interval: Some(10), ..Default::default() };
    for (wait, v5, v3) in [
        (0, &["t=1 q1 expiry=10", "t=2 q1"][..], &["t=1 q1", "t=2 q1"][..]),
        (4_000, &["t=1 q1 expiry=6", "t=2 q1"], &["t=1 q1", "t=2 q1"]),
        (9_000, &["t=1 q1 expiry=1", "t=2 q1"], &["t=1 q1", "t=2 q1"]),
        (10_000, &["t=2 q1"], &["t=2 q1"]),
        (10_001, &["t=2 q1"], &["t=2 q1"]),
    ] {
        each(|net, version| {
            let (sender, receiver) = (helper(net, "sender"), net.join(kept(version, "receiver")));
            net.subscribe(receiver, "t", 2);
            let expected = if version == V5_0 { v5 } else { v3 };
            let send = |net: &mut Net| {
                net.put(sender, Publish { properties, ..message("t", "1", 1) });
                net.publish(sender, "t", "2", 1);
            };
            net.stall(receiver, true);
            send(net);
            net.advance(wait);
            net.stall(receiver, false);
            assert_eq!(net.messages(receiver), expected, "connected, after {wait} ms");
            net.cut(receiver);
            send(net);
            net.advance(wait);
            let receiver = net.resume(kept(version, "receiver"));
            assert_eq!(net.messages(receiver), expected, "away, after {wait} ms");
        });
    }
}

/// [5.0 MQTT-4.3.3-7] [5.0 MQTT-4.4.0-1]
#[test]
fn a_message_that_was_sent_does_not_expire() {
    play(|net| {
        let (sender, receiver) = (helper(net, "sender"), net.join(kept(V5_0, "receiver")));
        net.subscribe(receiver, "t", 2);
        let properties = PublishProperties { message_expiry_interval: Some(10), ..Default::default() };
        (1..=2).for_each(|number| assert_eq!(net.put(sender, Publish { properties, ..message("t", "x", number) }), 0));
        assert_eq!(net.take(receiver), ["t=x q1 expiry=10", "t=x q2 expiry=10"]);
        net.cut(receiver);
        net.advance(20_000);
        let receiver = net.resume(kept(V5_0, "receiver"));
        let received = net.messages(receiver);
        assert!(
            received.len() == 2 && received[0].starts_with("t=x q1 D") && received[1].starts_with("t=x q2 D"),
            "{received:?}"
        );
    });
}

// ---- limits of a client ----

fn with_receive_maximum(connect: Connect<'_>, receive_maximum: u16) -> Connect<'_> {
    Connect { properties: ConnectProperties { receive_maximum: Some(receive_maximum), ..connect.properties }, ..connect }
}

/// [5.0 MQTT-3.3.4-9] [5.0 MQTT-3.3.4-10] [5.0 MQTT-4.9.0-2] [5.0 MQTT-4.9.0-3]
#[test]
fn no_more_messages_are_under_way_than_the_client_takes() {
    play(|net| {
        let (sender, receiver) = (helper(net, "sender"), net.join(with_receive_maximum(clean(V5_0, "receiver"), 2)));
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
fn the_window_is_that_of_the_connection() {
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
        assert_eq!(net.messages(receiver), ["t=1 q1 D", "t=2 q1 D", "t=3 q1 D", "t=4 q1 D", "t=5 q1 D"]);
    });
}

/// [5.0 MQTT-3.3.4-9] [5.0 MQTT-3.3.4-10] [5.0 §4.9]
#[test]
fn a_pubrel_that_is_sent_again_takes_no_place_and_frees_none() {
    play(|net| {
        let (sender, receiver) = (helper(net, "sender"), net.join(with_receive_maximum(kept(V5_0, "receiver"), 3)));
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
            assert!(sent <= 1, "more is under way than the client takes");
        }
        assert_eq!(sent, 1);
    });
}

/// [5.0 MQTT-3.1.2-24] [5.0 MQTT-3.1.2-25]
#[test]
fn a_message_to_be_sent_again_may_have_become_too_large() {
    for number in 1..=2 {
        play(|net| {
            let (sender, receiver) = (helper(net, "sender"), net.join(kept(V5_0, "receiver")));
            net.subscribe(receiver, "t", 2);
            net.publish(sender, "t", &"x".repeat(200), number);
            assert_eq!(net.take(receiver).len(), 1);
            net.cut(receiver);
            let connect = with_receive_maximum(kept(V5_0, "receiver"), 1);
            let properties = ConnectProperties { maximum_packet_size: Some(100), ..connect.properties };
            let receiver = net.resume(Connect { properties, ..connect });
            net.publish(sender, "t", "small", number);
            assert_eq!(net.messages(receiver), [format!("t=small q{number}")]);
        });
    }
}

/// [5.0 MQTT-4.9.0-1]
#[test]
fn the_broker_may_have_a_smaller_window_of_its_own() {
    for version in ALL {
        play_on(ServerConfig::new().maximum_in_flight(3), |net| {
            let (sender, receiver) = (helper(net, "sender"), net.join(clean(version, "receiver")));
            net.subscribe(receiver, "t", 1);
            ["1", "2", "3", "4", "5"].iter().for_each(|payload| net.publish(sender, "t", payload, 1));
            assert_eq!(net.numbers(receiver).len(), 3);
            assert_eq!(net.messages(receiver).len(), 5);
        });
    }
}

/// [5.0 MQTT-3.1.2-24] [5.0 MQTT-3.1.2-25]
#[test]
fn a_message_that_is_too_large_for_a_client_counts_as_sent() {
    for number in 0..=2 {
        play(|net| {
            let packet_identifier = (number > 0).then(|| identifier(1));
            let fitting = Publish { packet_identifier, ..message("t", "12345678901234567890123456789012", number) };
            let maximum = u32::try_from(encoded(fitting.into(), V5_0).len()).unwrap();
            let (sender, other) = (helper(net, "sender"), watcher(net));
            let properties =
                ConnectProperties { maximum_packet_size: Some(maximum), receive_maximum: Some(1), ..kept(V5_0, "").properties };
            let connect = Connect { properties, ..kept(V5_0, "receiver") };
            let mut receiver = net.join(connect);
            net.subscribe(receiver, "t", 2);
            let send = |net: &mut Net| {
                for payload in
                    ["123456789012345678901234567890123", "12345678901234567890123456789012", "\0".repeat(300).as_str(), "x"]
                {
                    net.publish(sender, "t", payload, number);
                }
            };
            let expected = ["t=12345678901234567890123456789012", "t=x"].map(|shown| match number {
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
fn identifiers_count_in_the_size_of_a_message() {
    play(|net| {
        let maximum = u32::try_from(encoded(message("t", "123456789012345678901", 0).into(), V5_0).len()).unwrap();
        let properties = ConnectProperties { maximum_packet_size: Some(maximum), ..Default::default() };
        let receiver = net.join(Connect { properties, ..clean(V5_0, "receiver") });
        net.subscribe(receiver, "t", 0);
        net.publish(receiver, "t", "123456789012345678901", 0);
        net.subscribe_all(receiver, Some(1), &[("t", at(0))]);
        net.publish(receiver, "t", "123456789012345678902", 0);
        net.publish(receiver, "t", "1234567890123456789", 0);
        assert_eq!(net.messages(receiver), ["t=123456789012345678901", "t=1234567890123456789 ids=[1]"]);
    });
}

/// [5.0 MQTT-3.1.2-24] [5.0 MQTT-3.1.4-5]
#[test]
fn a_connack_that_is_too_large_for_the_client_is_not_sent() {
    for maximum in 1..40 {
        play(|net| {
            let properties = ConnectProperties { maximum_packet_size: Some(maximum), ..Default::default() };
            let client = net.connect(Connect { properties, ..clean(V5_0, "client") });
            let connack = net.next_packet(client);
            assert_eq!(connack.is_some(), net.is_open(client));
            assert!(connack.is_none_or(|connack| connack.as_bytes().len() <= usize::try_from(maximum).unwrap()));
        });
    }
}

/// [5.0 §4.1.1] [3.1.1 §4.1]
#[test]
fn a_queue_that_is_full_takes_no_more_messages() {
    for version in ALL {
        play_on(ServerConfig::new().maximum_queued(3, 10_000), |net| {
            let (sender, mut receiver) = (helper(net, "sender"), net.join(kept(version, "receiver")));
            net.subscribe(receiver, "t", 1);
            for is_connected in [true, false] {
                if is_connected {
                    net.stall(receiver, true);
                } else {
                    net.cut(receiver);
                }
                let before = net.broker.dropped();
                ["1", "2", "3", "4", "5"].iter().for_each(|payload| net.publish(sender, "t", payload, 1));
                assert_eq!(net.broker.dropped() - before, 2, "and the sender is none the wiser");
                if is_connected {
                    net.stall(receiver, false);
                } else {
                    receiver = net.resume(kept(version, "receiver"));
                }
                assert_eq!(net.messages(receiver), ["t=1 q1", "t=2 q1", "t=3 q1"]);
                net.publish(sender, "t", "6", 1);
                assert_eq!(net.messages(receiver), ["t=6 q1"]);
            }
        });
    }
}

/// [5.0 §4.1.1]
#[test]
fn a_client_that_does_not_read_fills_its_queue() {
    for number in 0..=2 {
        play_on(ServerConfig::new().maximum_queued(1_000, 300), |net| {
            let (sender, receiver) = (helper(net, "sender"), helper(net, "receiver"));
            net.subscribe(receiver, "t", 2);
            net.stall(receiver, true);
            (0..10).for_each(|_| net.publish(sender, "t", &"x".repeat(100), number));
            let dropped = usize::try_from(net.broker.dropped()).unwrap();
            assert!((7..=9).contains(&dropped), "{dropped}");
            net.stall(receiver, false);
            assert_eq!(net.messages(receiver).len(), 10 - dropped);
            net.publish(sender, "t", &"x".repeat(1_000), number);
            assert_eq!(net.messages(receiver).len(), 1, "a single message may be larger");
        });
    }
}

// ---- limits of the server ----

fn limits(net: &mut Net) -> String {
    let client = net.connect(Connect { keep_alive: 60, ..kept(V5_0, "limits") });
    let packet = net.next_packet(client).unwrap();
    let Packet::Connack(connack) = packet.packet() else { panic!("{packet:?}") };
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
fn connack_tells_the_limits() {
    play(|net| assert_eq!(limits(net), "1024 16 Some(1048576) 2 true true true false 60 4294967295"));
    let config = ServerConfig::new()
        .receive_maximum(7)
        .topic_alias_maximum(0)
        .maximum_packet_size(1_000)
        .maximum_qos(qos(1))
        .retain_available(false)
        .wildcard_subscription_available(false)
        .subscription_identifier_available(false)
        .shared_subscription_available(true)
        .maximum_keep_alive(NonZeroU16::new(9))
        .maximum_session_expiry_interval(8);
    play_on(config, |net| assert_eq!(limits(net), "7 0 Some(1000) 1 false false false false 9 8"));
    play_on(ServerConfig::new().maximum_qos(qos(0)), |net| assert!(limits(net).contains(" 0 true")));
}

/// [5.0 §3.2.2.3.4] [5.0 MQTT-3.2.2-10] [5.0 §3.2.2.3.5] [5.0 §3.2.2.3.6] [5.0 §3.3.4] [5.0 MQTT-4.13.1-1] [3.1.1 MQTT-4.8.0-1]
#[test]
fn who_goes_beyond_a_limit_of_the_server_is_told_which() {
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
        let publish = |publish: Publish<'_>| encoded(publish.into(), V5_0);
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
            assert_eq!(net.take(client), [format!("disconnect {code}"), "closed".to_owned()], "{bytes:?}");
            assert_eq!(net.messages(watcher), NONE);
        }
        for version in [V3_1, V3_1_1] {
            for publish in [qos_2, Publish { retain: true, ..message("t", "x", 0) }, message("t", &"x".repeat(300), 0)] {
                let client = net.join(clean(version, "client"));
                net.send(client, publish.into());
                assert_eq!(net.take(client), ["closed"]);
            }
        }
    });
}

/// [5.0 §3.2.2.3.6] [5.0 §2.1.4]
#[test]
fn a_packet_may_be_as_large_as_the_limit() {
    play_on(ServerConfig::new().maximum_packet_size(200), |net| {
        let (client, empty) = (helper(net, "client"), encoded(message("t", &"x".repeat(150), 0).into(), V5_0).len() - 150);
        net.publish(client, "t", &"x".repeat(200 - empty), 0);
        assert!(net.is_open(client));
        net.publish(client, "t", &"x".repeat(201 - empty), 0);
        assert_eq!(net.take(client), ["disconnect 95", "closed"]);
    });
}

/// [5.0 MQTT-3.2.2-12] [5.0 MQTT-3.2.2-13]
#[test]
fn a_will_beyond_a_limit_of_the_server_is_refused() {
    play_on(ServerConfig::new().maximum_qos(qos(1)).retain_available(false), |net| {
        let watcher = watcher(net);
        for (number, retain, expected) in [(2, false, "connack 9b"), (0, true, "connack 9a"), (1, false, "connack 00")] {
            let will = Will { qos: qos(number), retain, topic: "will".into(), payload: b"x", ..Default::default() };
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
fn more_messages_under_way_than_the_server_takes_are_a_violation_and_repeats_are_not() {
    play_on(ServerConfig::new().receive_maximum(2), |net| {
        let (client, _) = (helper(net, "client"), watcher(net));
        let publish = |id, dup| Publish { dup, packet_identifier: Some(identifier(id)), ..message("t", "x", 2) };
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
        // Before 5.0 nobody can be told.
        let old = net.join(clean(V3_1_1, "old"));
        (1..=5).for_each(|id| net.send(old, publish(id, false).into()));
        assert_eq!(net.take(old).len(), 5);
    });
}

/// [5.0 MQTT-3.3.2-7] [5.0 MQTT-3.3.2-12] [5.0 §3.3.2.3.4]
#[test]
fn a_topic_alias_stands_for_its_topic_within_its_connection() {
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
fn a_topic_alias_is_set_by_a_message_that_is_refused_or_repeated_as_well() {
    play_with(&BrokerConfig::new(ServerConfig::new()).maximum_retained(0, 0), |net| {
        let (receiver, client) = (watcher(net), helper(net, "client"));
        let properties = |alias| PublishProperties { topic_alias: Some(alias), ..Default::default() };
        let publish = Publish { packet_identifier: Some(identifier(99)), ..message("a", "x", 2) };
        net.send(client, publish.into());
        net.send(client, Publish { dup: true, properties: properties(1), ..publish }.into());
        net.send(client, Publish { properties: properties(1), ..message("", "1", 0) }.into());
        assert_eq!(net.put(client, Publish { retain: true, properties: properties(2), ..message("b", "x", 1) }), 0x97);
        net.send(client, Publish { properties: properties(2), ..message("", "2", 0) }.into());
        assert_eq!(net.messages(receiver), ["a=x q2", "a=1", "b=2"]);
    });
}

/// [5.0 MQTT-3.2.2-22] [5.0 §3.2.2.3.14] [5.0 MQTT-3.1.2-22] [3.1.1 MQTT-3.1.2-24]
#[test]
fn a_silent_client_is_given_up_after_one_and_a_half_times_its_keep_alive() {
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
            let told = if asked == granted { String::new() } else { format!(" keep-alive={granted}") };
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
            assert_eq!(net.take(client), if version == V5_0 { &["disconnect 8d", "closed"][..] } else { &["closed"] });
        });
    }
}

/// [5.0 §3.1.2.10] [3.1.1 §3.1.2.10]
#[test]
fn any_byte_of_a_client_keeps_it_alive_and_what_it_is_sent_does_not() {
    each(|net, version| {
        let (sender, client) = (helper(net, "sender"), net.join(Connect { keep_alive: 10, ..clean(version, "client") }));
        net.subscribe(client, "t", 0);
        for byte in encoded(message("t", "hello", 0).into(), version) {
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

// ---- beginnings ----

/// A CONNECT with fields that the codec would refuse.
fn connect_bytes(version: Version, level: u8, flags: u8, name: &str) -> Vec<u8> {
    let protocol: &[u8] = if version == V3_1 { b"\0\x06MQIsdp" } else { b"\0\x04MQTT" };
    let properties: &[u8] = if level >= 5 { &[0] } else { &[] };
    let length = [0, u8::try_from(name.len()).unwrap()];
    let body = [protocol, &[level, flags, 0, 0], properties, &length, name.as_bytes()].concat();
    [&[0x10, u8::try_from(body.len()).unwrap()], &body[..]].concat()
}

/// [5.0 MQTT-3.1.2-2] [3.1.1 MQTT-3.1.2-2]
#[test]
fn a_version_that_is_not_known_is_refused_in_the_form_of_its_time() {
    // The level, the protocol name's version, and how the answer is read.
    for (level, name, version) in [
        (6, V5_0, V5_0),
        (9, V5_0, V5_0),
        (255, V5_0, V5_0),
        (0, V3_1_1, V3_1_1),
        (2, V3_1_1, V3_1_1),
        (3, V3_1_1, V3_1_1),
        (2, V3_1, V3_1),
        (4, V3_1, V3_1_1),
    ] {
        play(|net| {
            let client = net.open(version);
            net.raw(client, &connect_bytes(name, level, 2, "client"));
            assert_eq!(net.take(client), ["connack 84", "closed"], "level {level}");
        });
    }
}

/// [5.0 MQTT-3.1.4-1] [5.0 MQTT-3.1.2-1] [5.0 §4.13.1] [3.1.1 MQTT-3.1.2-3] [3.1.1 MQTT-3.2.2-6] [3.1.1 MQTT-3.1.0-1]
#[test]
fn a_broken_connect_is_refused() {
    const LATE: &[u8] = b"\x30\x04\0\x01t!";
    play(|net| {
        let watcher = watcher(net);
        let with_will_qos_3 = b"\x10\x14\0\x04MQTT\x05\x1E\0\0\0\0\x01c\0\0\x01w\0\0".as_slice();
        for (version, bytes, expected) in [
            (V5_0, connect_bytes(V5_0, 5, 3, "c"), &["connack 81", "closed"][..]),
            (V5_0, with_will_qos_3.to_vec(), &["connack 81", "closed"]),
            (V3_1_1, connect_bytes(V3_1_1, 4, 3, "c"), &["closed"]),
            (V3_1_1, connect_bytes(V3_1_1, 4, 2 | 0x18, "c"), &["closed"]),
            (V3_1_1, connect_bytes(V3_1_1, 4, 2 | 0x40, "c"), &["closed"]),
            (V3_1_1, connect_bytes(V3_1_1, 4, 2, "\0"), &["closed"]),
            (V3_1_1, b"\x10\x04HTTP".to_vec(), &["closed"]),
            (V3_1_1, b"GET / HTTP/1.1\r\n\r\n".to_vec(), &["closed"]),
        ] {
            let client = net.open(version);
            net.raw(client, &[&bytes, LATE].concat());
            assert_eq!(net.take(client), expected, "{bytes:?}");
        }
        assert_eq!(net.messages(watcher), NONE);
    });
}

/// [5.0 §3.1.2.2] [5.0 §3.2.2.2]
#[test]
fn a_connect_that_is_too_large_is_refused() {
    play_on(ServerConfig::new().maximum_connect_size(100), |net| {
        let name = "n".repeat(100);
        let client = net.connect(clean(V5_0, &name));
        assert!(!net.is_open(client));
        let received = net.take(client);
        assert!(received == ["connack 95", "closed"] || received == ["closed"], "{received:?}");
        let old = net.connect(clean(V3_1_1, &name));
        assert_eq!(net.take(old), ["closed"]);
        assert_eq!(net.broker.connections(), 0);
    });
}

/// [5.0 §3.2.2.2] [3.1.1 §3.2.2.3] [3.1.1 MQTT-3.2.2-5] [3.1.1 MQTT-3.2.2-6] [5.0 MQTT-3.2.2-7]
#[test]
fn the_hosts_refusal_is_told_in_the_form_of_the_version() {
    macro_rules! refusals {
        ($($code:ident $v5:literal $v3:expr;)*) => {
            [$((|_: &Connect<'_>| Some(ReasonCode::$code), $v5, $v3)),*] as [(fn(&Connect<'_>) -> Option<ReasonCode>, &str, &[u8]); 6]
        };
    }
    let refusals = refusals! {
        BAD_USER_NAME_OR_PASSWORD "connack 86" &[4];
        NOT_AUTHORIZED "connack 87" &[5];
        SERVER_UNAVAILABLE "connack 88" &[3];
        CLIENT_IDENTIFIER_NOT_VALID "connack 85" &[2];
        BANNED "connack 8a" &[];
        SERVER_BUSY "connack 89" &[];
    };
    each(|net, version| {
        for (policy, v5, v3) in refusals {
            net.policy = policy;
            let client = net.connect(clean(version, "client"));
            assert!(!net.is_open(client));
            let received = net.take(client);
            match (version, v3) {
                (V5_0, _) => assert_eq!(received, [v5, "closed"]),
                // `show` tells the return codes in terms of 5.0.
                (_, [_]) => assert_eq!(received, [v5, "closed"]),
                // No return code says that: none is sent, or a kindred one.
                _ => assert!(received.len() <= 2 && received[0] != "connack 00", "{received:?}"),
            }
        }
        assert_eq!((net.broker.sessions(), net.broker.connections()), (0, 0));
    });
}

/// [5.0 MQTT-3.1.4-6] [3.1.1 MQTT-3.1.4-5] [5.0 §3.1.4]
#[test]
fn what_follows_connect_is_read_when_the_client_is_let_in_and_else_is_not() {
    each(|net, version| {
        let watcher = watcher(net);
        let bytes = [
            encoded(clean(version, "client").into(), version),
            encoded(message("t", "x", 0).into(), version),
            encoded(Packet::Pingreq, version),
        ]
        .concat();
        net.policy = |_| Some(ReasonCode::NOT_AUTHORIZED);
        let refused = net.open(version);
        net.raw(refused, &bytes);
        assert_eq!((net.take(refused), net.messages(watcher)), (vec!["connack 87".to_owned(), "closed".to_owned()], vec![]));
        net.policy = |_| None;
        let client = net.open(version);
        net.raw(client, &bytes);
        assert_eq!((net.take(client), net.messages(watcher)), (vec![], vec![]));
        let asked = net.asked.pop().unwrap();
        net.admit(asked);
        assert_eq!(
            (net.take(client).join(" "), net.messages(watcher)),
            ("connack 00 pingresp".to_owned(), vec!["t=x".to_owned()])
        );
    });
}

/// [5.0 MQTT-3.1.0-1] [5.0 MQTT-3.14.0-1] [5.0 MQTT-3.2.0-1] [3.1.1 MQTT-3.1.0-1] [3.1.1 MQTT-3.2.0-1]
#[test]
fn a_connection_that_does_not_begin_with_connect_is_closed_without_a_word() {
    play(|net| {
        let watcher = watcher(net);
        for bytes in [
            &b"\x30\x04\0\x01t!"[..],
            b"\x30\x05\0\x01t\0!",
            b"\xC0\0",
            b"\xE0\0",
            b"\x82\x06\0\x01\0\x01t\0",
            b"\xF0\0",
            b"\x20\x02\0\0",
            b"\0\0",
            b"\x62\x02\0\x01",
        ] {
            let client = net.open(V5_0);
            net.raw(client, bytes);
            assert_eq!(net.take(client), ["closed"], "{bytes:?}");
        }
        assert_eq!(net.messages(watcher), NONE);
    });
}

/// [5.0 MQTT-3.1.0-2] [3.1.1 MQTT-3.1.0-2]
#[test]
fn a_second_connect_ends_the_connection() {
    each(|net, version| {
        for name in ["client", "another"] {
            let client = net.join(clean(version, "client"));
            net.send(client, clean(version, name).into());
            assert_eq!(net.take(client), if version == V5_0 { &["disconnect 82", "closed"][..] } else { &["closed"] });
            assert_eq!((net.broker.sessions(), net.broker.connections()), (0, 0));
        }
    });
}

/// [5.0 §4.13.1] [5.0 MQTT-4.13.1-1] [3.1.1 MQTT-4.8.0-1]
#[test]
fn a_violation_ends_the_connection_and_nothing_after_it_is_read() {
    // The bytes, and the reason codes that fit.
    const ROWS: [(&[u8], &[&str]); 13] = [
        (b"\0\0", &["81"]),
        (b"\x36\x07\0\x01t\0\x01\0!", &["81"]),
        (b"\x30\x05\0\x01#\0!", &["81", "82", "90"]),
        (b"\x30\x03\0\0\0", &["82"]),
        (b"\x82\x03\0\x01\0", &["82", "81"]),
        (b"\x80\x07\0\x01\0\0\x01t\0", &["81"]),
        (b"\x82\x07\0\0\0\0\x01t\0", &["81", "82"]),
        (b"\x82\x08\0\x01\0\0\x02a#\0", &["81", "82", "8f"]),
        (b"\x20\x03\0\0\0", &["81", "82"]),
        (b"\xD0\0", &["81", "82"]),
        (b"\xF0\0", &["82", "81"]),
        (b"\xC0\x01\0", &["81"]),
        (b"\x90\x04\0\x01\0\0", &["81", "82"]),
    ];
    play(|net| {
        let watcher = watcher(net);
        for (bytes, codes) in ROWS {
            let client = helper(net, "client");
            net.raw(client, &[bytes, b"\x30\x05\0\x01t\0!"].concat());
            let received = net.take(client);
            let fits = codes.iter().any(|code| received == [format!("disconnect {code}"), "closed".to_owned()]);
            assert!(fits, "{bytes:?}: {received:?}");
            let old = net.join(clean(V3_1_1, "old"));
            net.raw(old, b"\x3E\x04\0\x01t!\x30\x04\0\x01t!");
            assert_eq!(net.take(old), ["closed"]);
        }
        assert_eq!(net.messages(watcher), NONE);
    });
}

/// [5.0 MQTT-4.12.0-1] [5.0 §4.12.1]
#[test]
fn enhanced_authentication_is_refused() {
    play(|net| {
        let properties = ConnectProperties { authentication_method: Some("SCRAM".into()), ..Default::default() };
        let client = net.connect(Connect { properties, ..clean(V5_0, "client") });
        assert_eq!(net.take(client), ["connack 8c", "closed"]);
        let client = helper(net, "client");
        let properties = AuthProperties { authentication_method: Some("SCRAM".into()), ..Default::default() };
        net.send(client, Auth { reason_code: ReasonCode::RE_AUTHENTICATE, properties }.into());
        let received = net.take(client);
        assert!(received == ["disconnect 82", "closed"] || received == ["disconnect 8c", "closed"], "{received:?}");
    });
}

/// [5.0 MQTT-3.14.0-1] [5.0 MQTT-3.14.4-2] [3.1.1 §3.14]
#[test]
fn the_host_ends_a_connection_without_disconnect_before_connack_and_before_5_0() {
    each(|net, version| {
        let expected = if version == V5_0 { &["disconnect 98", "closed"][..] } else { &["closed"] };
        let client = net.join(clean(version, "client"));
        net.disconnect(client, ReasonCode::ADMINISTRATIVE_ACTION);
        assert_eq!(net.take(client), expected);
        net.policy = |_| None;
        let (silent, waiting) = (net.open(version), net.connect(clean(version, "client")));
        for early in [silent, waiting] {
            net.disconnect(early, ReasonCode::ADMINISTRATIVE_ACTION);
            assert_eq!(net.take(early), ["closed"]);
        }
        assert_eq!((net.broker.connections(), net.broker.sessions()), (0, 0));
    });
}

/// [5.0 §3.1.4] [3.1.1 §3.1.4]
#[test]
fn a_connection_without_connect_is_given_up() {
    for seconds in [10, 3] {
        play_on(ServerConfig::new().connect_timeout(Duration::from_secs(seconds)), |net| {
            let (silent, slow) = (net.open(V5_0), net.open(V5_0));
            let bytes = encoded(clean(V5_0, "client").into(), V5_0);
            net.raw(slow, &bytes[..4]);
            net.advance(seconds * 1_000 - 1);
            net.raw(slow, &bytes[4..6]);
            assert!(net.is_open(silent) && net.is_open(slow));
            let fast = helper(net, "fast");
            net.advance(1);
            assert_eq!((net.take(silent), net.take(slow)), (vec!["closed".to_owned()], vec!["closed".to_owned()]));
            net.advance(1_000_000);
            assert!(net.is_open(fast));
        });
    }
}

/// [5.0 §3.2.2.2]
#[test]
fn more_sessions_than_there_may_be_are_refused() {
    play_with(&BrokerConfig::new(ServerConfig::new()).maximum_sessions(2), |net| {
        let (first, second) = (net.join(kept(V5_0, "first")), net.join(kept(V3_1_1, "second")));
        let third = net.connect(clean(V5_0, "third"));
        assert_eq!(net.take(third), ["connack 97", "closed"]);
        let old = net.connect(clean(V3_1_1, "old"));
        assert!(!net.is_open(old) && !net.take(old).contains(&"connack 00".to_owned()));
        net.cut(first);
        let first = net.resume(kept(V5_0, "first"));
        let first = {
            net.cut(first);
            net.connect(clean(V5_0, "first"))
        };
        assert_eq!(net.take(first), ["connack 00"]);
        net.cut(first);
        net.join(clean(V5_0, "third"));
        assert!(net.is_open(second));
    });
}

/// [5.0 MQTT-3.12.4-1] [3.1.1 MQTT-3.12.4-1]
#[test]
fn a_ping_is_answered() {
    each(|net, version| {
        let client = net.join(clean(version, "client"));
        net.send(client, Packet::Pingreq);
        assert_eq!(net.take(client), ["pingresp"]);
    });
}
