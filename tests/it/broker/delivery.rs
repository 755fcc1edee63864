//! Delivery of messages to subscribers.

use super::*;

/// [5.0 MQTT-3.8.4-8] [3.1.1 MQTT-3.8.4-6]
#[test]
fn message_has_the_lesser_of_published_and_granted_qos() {
    each(|net, version| {
        for publisher in VERSIONS {
            let sender = net.join(clean(publisher, "sender"));
            for (published, granted) in
                [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]
            {
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

/// Receivers of one message that differ in their version, QoS or RETAIN flag, and two of each kind.
#[test]
fn each_of_many_receivers_has_its_own_version_qos_and_flag() {
    play(|net| {
        let sender = helper(net, "sender");
        let mut receivers = Vec::new();
        for number in 0..2 {
            for version in VERSIONS {
                for granted in 0..=2 {
                    for retain_as_published in [false, true] {
                        if retain_as_published && version < V5_0 {
                            continue;
                        }
                        let name = format!("{version} {granted} {retain_as_published} {number}");
                        let receiver = net.join(clean(version, &name));
                        let options = SubscriptionOptions { retain_as_published, ..at(granted) };
                        net.subscribe_all(receiver, None, &[("t/#", options)]);
                        receivers.push((receiver, granted, retain_as_published));
                    }
                }
            }
        }
        let properties = ConnectProperties { maximum_packet_size: Some(60), ..Default::default() };
        let small = net.join(Connect { properties, ..clean(V5_0, "small") });
        net.subscribe(small, "t/#", 2);
        let long = format!("t/{}", "x".repeat(60));
        for (topic, published) in [("t", 0), (&*long, 1), ("t/u", 2), ("t", 1)] {
            net.retain(sender, topic, "x", published);
            for (receiver, granted, retains) in &receivers {
                let flag = ["", " q1", " q2"][usize::from(published.min(*granted))];
                let expected = format!("{topic}=x{flag}{}", if *retains { " R" } else { "" });
                assert_eq!(net.messages(*receiver), [expected]);
            }
        }
        assert_eq!(net.messages(small), ["t=x", "t/u=x q2", "t=x q1"]);
    });
}

/// [5.0 MQTT-4.7.1-1] [5.0 MQTT-4.7.1-2] [5.0 MQTT-4.7.3-4] [3.1.1 MQTT-4.7.3-4] [5.0 §4.7.1]
/// [3.1.1 §4.7.1]
#[test]
fn filters_match_topics() {
    const ROWS: [(&str, &[&str], &[&str]); 14] = [
        (
            "sport/#",
            &["sport", "sport/", "sport/a", "sport/a/b", "sport//"],
            &["sports", "Sport", "a/sport", "/sport"],
        ),
        ("#", &["a", "/", "a/b", "/a", " "], &[]),
        ("sport/+", &["sport/a", "sport/"], &["sport", "sport/a/b", "sport/a/"]),
        ("+", &["a", "ab"], &["/a", "a/", "a/b"]),
        ("+/+", &["/finance", "a/b", "a/", "/"], &["a", "a/b/c"]),
        ("/+", &["/finance", "/"], &["finance", "a/finance"]),
        ("+/a/#", &["x/a", "/a", "x/a/b/c"], &["a", "a/b", "x/b"]),
        ("a/+/c", &["a/b/c", "a//c"], &["a/b/d", "a/b/b/c", "a/c"]),
        ("a//b", &["a//b"], &["a/b", "a/x/b"]),
        ("/a", &["/a"], &["a", "a/", "//a"]),
        (
            "Accounts payable",
            &["Accounts payable"],
            &["accounts payable", "Accounts  payable", "Accountspayable"],
        ),
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
                let expected: &[String] =
                    if matching.contains(topic) { &[format!("{topic}=")] } else { &[] };
                assert_eq!(net.messages(receiver), expected, "{filter} and {topic}");
            }
            net.leave(receiver);
        }
    });
}

/// [5.0 MQTT-4.7.2-1] [3.1.1 MQTT-4.7.2-1]
#[test]
fn leading_wildcard_does_not_match_dollar_topic() {
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
        assert_eq!(
            net.unsubscribe(receiver, &["$X/monitor/+"]).len(),
            usize::from(version == V5_0)
        );
        net.subscribe(receiver, "$X/#", 0);
        net.publish(sender, "$X/monitor/Clients", "2", 0);
        assert_eq!(net.messages(receiver), ["$X/monitor/Clients=2"]);
    });
}

/// [5.0 MQTT-4.7.2-1] [5.0 MQTT-3.3.1-9]
#[test]
fn leading_wildcard_does_not_match_retained_dollar_topic() {
    play(|net| {
        let (sender, receiver) = (helper(net, "sender"), helper(net, "receiver"));
        net.retain(sender, "$X/a", "1", 0);
        net.retain(sender, "a/$X", "2", 0);
        for (filter, expected) in [
            ("#", &["a/$X=2 R"][..]),
            ("+/a", &[]),
            ("+/#", &["a/$X=2 R"]),
            ("$X/+", &["$X/a=1 R"]),
            ("$X/#", &["$X/a=1 R"]),
        ] {
            net.subscribe(receiver, filter, 0);
            assert_eq!(net.messages(receiver), expected, "{filter}");
        }
    });
}

/// [5.0 MQTT-3.3.4-2] [5.0 MQTT-3.3.4-3] [5.0 MQTT-3.3.4-4] [3.1.1 MQTT-3.3.5-1]
#[test]
fn overlapping_subscriptions_bring_one_copy_with_all_identifiers() {
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
fn second_subscription_replaces_the_first_of_same_filter() {
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
        assert_eq!(
            net.unsubscribe(receiver, &["a/+"]),
            if version == V5_0 { &[0][..] } else { &[] }
        );
        net.publish(sender, "a/b", "x", 2);
        assert_eq!(net.messages(receiver), NONE, "there was one subscription");
    });
}

/// [5.0 MQTT-3.8.4-4] [3.1.1 MQTT-3.8.4-3]
#[test]
fn replaced_subscription_loses_no_messages() {
    play_on(ServerConfig::new().maximum_in_flight(1), |net| {
        for version in VERSIONS {
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
fn no_local_withholds_own_messages() {
    play(|net| {
        let no_local = SubscriptionOptions { no_local: true, ..at(2) };
        let me = net.join(kept(V5_0, "me"));
        net.subscribe_with(me, "t", no_local);
        let other = helper(net, "other");
        net.publish(me, "t", "mine", 1);
        net.publish(other, "t", "theirs", 1);
        assert_eq!(net.messages(me), ["t=theirs q1"]);
        // The client identifier decides, not the connection.
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
fn client_receives_its_own_messages() {
    each(|net, version| {
        let me = net.join(clean(version, "me"));
        net.subscribe(me, "t", 2);
        net.publish(me, "t", "mine", 2);
        assert_eq!(net.messages(me), ["t=mine q2"]);
    });
}

/// [5.0 MQTT-3.3.1-3] [3.1.1 MQTT-3.3.1-3]
#[test]
fn dup_is_not_forwarded() {
    each(|net, version| {
        let (sender, receiver) = (net.join(clean(version, "sender")), watcher(net));
        for number in 1..=2 {
            net.put(sender, Publish { dup: true, ..message("t", "x", number) });
        }
        assert_eq!(net.messages(receiver), ["t=x q1", "t=x q2"]);
    });
}

pub(crate) fn all_properties<'a>(user_properties: &'a [UserProperty<'a>]) -> PublishProperties<'a> {
    PublishProperties {
        payload_format_indicator: Some(true),
        content_type: Some("text/\u{e9}".into()),
        response_topic: Some("re/x".into()),
        correlation_data: Some(&[0, 255, 1]),
        user_properties: user_properties.into(),
        ..Default::default()
    }
}

pub(crate) fn user_properties() -> [UserProperty<'static>; 5] {
    [("b", "1"), ("a", "2"), ("b", "1"), ("", ""), ("b", "0")]
        .map(|(name, value)| UserProperty::new(name, value))
}

pub(crate) const ALL_PROPERTIES: &str =
    " text=true type=text/\u{e9} to=re/x for=[0, 255, 1] b:1 a:2 b:1 : b:0";

/// [5.0 MQTT-3.3.2-4] [5.0 MQTT-3.3.2-15] [5.0 MQTT-3.3.2-16] [5.0 MQTT-3.3.2-17]
/// [5.0 MQTT-3.3.2-18] [5.0 MQTT-3.3.2-20]
#[test]
fn properties_are_forwarded_unaltered_and_in_order() {
    play(|net| {
        let (user, sender, receiver) =
            (user_properties(), helper(net, "sender"), net.join(kept(V5_0, "receiver")));
        net.subscribe(receiver, "t", 2);
        for retain in [false, true] {
            for number in 0..=2 {
                net.put(
                    sender,
                    Publish {
                        properties: all_properties(&user),
                        retain,
                        ..message("t", "x", number)
                    },
                );
                let qos = ["", " q1", " q2"][usize::from(number)];
                assert_eq!(net.messages(receiver), [format!("t=x{qos}{ALL_PROPERTIES}")]);
            }
        }
        let late = helper(net, "late");
        net.subscribe_all(late, Some(9), &[("+", at(1))]);
        assert_eq!(
            net.messages(late),
            [format!("t=x q1 R{}", ALL_PROPERTIES.replace(" b:1 a", " ids=[9] b:1 a"))]
        );
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
fn properties_are_not_forwarded_before_5_0() {
    for version in [V3_1, V3_1_1] {
        play(|net| {
            let (user, sender, receiver) =
                (user_properties(), helper(net, "sender"), net.join(clean(version, "receiver")));
            net.subscribe(receiver, "+", 2);
            net.put(
                sender,
                Publish { properties: all_properties(&user), retain: true, ..message("t", "x", 1) },
            );
            net.subscribe(receiver, "t", 2);
            let properties = PublishProperties { topic_alias: Some(1), ..all_properties(&user) };
            net.put(sender, Publish { properties, ..message("u", "x", 2) });
            assert_eq!(net.messages(receiver), ["t=x q1", "t=x q1 R", "u=x q2"]);
        });
    }
}

/// [5.0 §3.3.3] [3.1.1 §3.3.3]
#[test]
fn payload_can_be_empty_or_large() {
    each(|net, version| {
        let (sender, receiver) =
            (net.join(clean(version, "sender")), net.join(clean(version, "receiver")));
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
fn messages_of_one_topic_and_qos_keep_their_order() {
    for version in VERSIONS {
        play_on(ServerConfig::new().maximum_in_flight(2), |net| {
            let (sender, mut receiver) =
                (net.join(clean(version, "sender")), net.join(kept(version, "receiver")));
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
                let payloads: Vec<_> = only(&received, kind)
                    .iter()
                    .map(|shown| shown.split(['=', ' ']).nth(1).unwrap())
                    .collect();
                let expected: Vec<_> = (first..20).step_by(2).map(|i| i.to_string()).collect();
                assert_eq!(payloads, expected, "{version} {kind}");
            }
        });
    }
}
