//! Retained messages.

use super::*;

/// [5.0 MQTT-3.3.1-5] [5.0 MQTT-3.3.1-12] [3.1.1 MQTT-3.3.1-5] [3.1.1 MQTT-3.3.1-6]
/// [3.1.1 MQTT-3.3.1-8] [3.1.1 MQTT-3.3.1-9]
#[test]
fn new_subscription_brings_the_last_retained_message() {
    each(|net, version| {
        let (sender, old) = (net.join(clean(version, "sender")), net.join(clean(version, "old")));
        net.subscribe(old, "#", 2);
        for (published, granted) in
            [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]
        {
            net.retain(sender, "a/b", "before", 1);
            net.retain(sender, "a/b", "x", published);
            assert_eq!(
                net.messages(old).last().unwrap(),
                ["a/b=x", "a/b=x q1", "a/b=x q2"][usize::from(published)]
            );
            for filter in ["a/b", "a/+", "#", "a/b/#"] {
                let new = net.join(clean(version, "new"));
                net.subscribe(new, filter, granted);
                let expected =
                    ["a/b=x R", "a/b=x q1 R", "a/b=x q2 R"][usize::from(published.min(granted))];
                assert_eq!(net.messages(new), [expected]);
            }
        }
    });
}

/// [5.0 MQTT-3.3.1-6] [5.0 MQTT-3.3.1-7] [3.1.1 MQTT-3.3.1-10] [3.1.1 MQTT-3.3.1-11]
#[test]
fn empty_retained_message_removes_the_retained_one() {
    each(|net, version| {
        let (sender, old) = (net.join(clean(version, "sender")), net.join(clean(version, "old")));
        net.subscribe(old, "#", 2);
        for number in 0..=2 {
            net.retain(sender, "t", "x", 2 - number);
            net.retain(sender, "t", "", number);
            assert_eq!(
                net.messages(old).last().unwrap(),
                ["t=", "t= q1", "t= q2"][usize::from(number)]
            );
            assert!(net.broker.retained().is_empty());
            let new = net.join(clean(version, "new"));
            net.subscribe(new, "#", 0);
            assert_eq!(net.messages(new), NONE);
        }
    });
}

/// [5.0 MQTT-3.3.1-8] [3.1.1 MQTT-3.3.1-12]
#[test]
fn message_without_retain_leaves_the_retained_one() {
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
fn retained_message_outlives_the_session_of_its_publisher() {
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
fn retain_as_published_affects_established_subscriptions() {
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
fn retain_handling_decides_when_retained_messages_are_sent() {
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
            assert_eq!(
                net.messages(receiver),
                NONE,
                "a resume without a subscription brings no message"
            );
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
fn each_subscription_brings_its_retained_messages() {
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
    (0..count)
        .for_each(|i| net.retain(sender, &format!("many/{i}"), "x", u8::try_from(i % 3).unwrap()));
    (0..count).map(|i| format!("many/{i}=x{} R", ["", " q1", " q2"][i % 3])).collect()
}

/// [5.0 MQTT-3.3.1-9] [3.1.1 MQTT-3.3.1-6]
#[test]
fn all_retained_messages_come_when_queue_is_smaller() {
    for (version, limit) in VERSIONS
        .into_iter()
        .flat_map(|version| [(3, 1_000), (1_000, 20)].map(|limit| (version, limit)))
    {
        play_on(ServerConfig::new().maximum_queued(limit.0, limit.1).maximum_in_flight(2), |net| {
            let expected = retain_many(net, 40);
            let receiver = net.join(clean(version, "receiver"));
            for filter in ["many/+", "#"] {
                net.subscribe(receiver, filter, 2);
                let received = net.messages(receiver);
                assert_eq!(
                    (received.len(), received.into_iter().collect()),
                    (40, expected.clone())
                );
            }
            // The same holds for a slow client.
            net.stall(receiver, true);
            let request = net.ask_for(receiver, None, &[("many/#", at(2)), ("+/+", at(2))]);
            net.stall(receiver, false);
            assert_eq!(net.suback(receiver, request), [2, 2]);
            let received = net.messages(receiver);
            assert_eq!((received.len(), received.into_iter().collect()), (80, expected));
            assert_eq!(net.broker.stats().dropped.total(), 0);
        });
    }
}

/// A queue counts the subscription identifiers of its messages too.
#[test]
fn retained_messages_with_identifiers_come_when_queue_is_small() {
    for bytes in 10..60 {
        play_on(ServerConfig::new().maximum_queued(1_000, bytes).maximum_in_flight(2), |net| {
            let expected = retain_many(net, 40);
            let receiver = net.join(clean(V5_0, "receiver"));
            let request = net.ask_for(receiver, Some(7), &[("#", at(2))]);
            assert_eq!(net.suback(receiver, request), [2]);
            let received = net.messages(receiver);
            assert_eq!((received.len(), expected.len()), (40, 40), "{bytes} bytes");
        });
    }
}

/// [5.0 MQTT-3.3.1-9] [3.1.1 MQTT-3.3.1-6] [5.0 MQTT-4.4.0-1]
#[test]
fn pending_retained_messages_come_after_resume() {
    for version in VERSIONS {
        play_on(ServerConfig::new().maximum_in_flight(2), |net| {
            net.can_move = false;
            let expected: BTreeSet<_> =
                retain_many(net, 200).into_iter().filter(|shown| shown.contains('q')).collect();
            let mut receiver = net.join(kept(version, "receiver"));
            net.subscribe(receiver, "#", 2);
            net.cut(receiver);
            receiver = net.resume(kept(version, "receiver"));
            let received: BTreeSet<_> =
                net.messages(receiver).iter().map(|shown| shown.replace(" D", "")).collect();
            assert!(
                received.is_superset(&expected),
                "{} of {}",
                received.intersection(&expected).count(),
                expected.len()
            );
        });
    }
}

/// Includes topics to which QoS 0 messages were published meanwhile, which the client misses.
/// [5.0 MQTT-3.3.1-9] [3.1.1 MQTT-3.3.1-6]
#[test]
fn pending_retained_messages_survive_absence_of_client() {
    for version in VERSIONS {
        play_on(ServerConfig::new().maximum_in_flight(2), |net| {
            net.can_move = false;
            let (sender, mut receiver) =
                (helper(net, "sender"), net.join(kept(version, "receiver")));
            let topics: Vec<_> = (0..200).map(|i| format!("many/{i}")).collect();
            topics.iter().for_each(|topic| net.retain(sender, topic, "kept", 0));
            net.stall(receiver, true);
            net.ask_for(receiver, None, &[("#", at(0))]);
            net.cut(receiver);
            topics.iter().for_each(|topic| net.publish(sender, topic, "passing", 0));
            receiver = net.resume(kept(version, "receiver"));
            let due = topics.len() - net.messages(receiver).len();
            assert!(due < 32, "{due} of {} did not come", topics.len());
        });
    }
}

/// A newer message is dropped, not sent before the retained one. [5.0 MQTT-4.6.0-5]
/// [3.1.1 MQTT-4.6.0-6]
#[test]
fn retained_message_without_room_is_not_overtaken() {
    for version in VERSIONS {
        play_on(ServerConfig::new().maximum_queued(100, 1_000).maximum_in_flight(1), |net| {
            let (sender, receiver) = (helper(net, "sender"), net.join(clean(version, "receiver")));
            let (long, large) = ("x".repeat(700), "r".repeat(500));
            net.subscribe(receiver, "first", 1);
            net.stall(receiver, true);
            // One message is in flight, the next waits.
            net.publish(sender, "first", "1", 1);
            net.publish(sender, "first", &long, 1);
            net.retain(sender, "second", &large, 1);
            let request = net.ask_for(receiver, None, &[("second", at(1)), ("+", at(1))]);
            net.publish(sender, "second", "new", 1);
            net.stall(receiver, false);
            assert_eq!(net.suback(receiver, request), [1, 1]);
            let received = net.messages(receiver);
            let received = only(&received, "second=");
            assert!(
                !received.is_empty() && received.iter().all(|shown| shown.ends_with(" R")),
                "{received:?}"
            );
            assert_eq!(
                net.broker.stats().dropped.total(),
                1,
                "the message that came while there was no room"
            );
        });
    }
}

/// [5.0 MQTT-4.6.0-5] [3.1.1 MQTT-4.6.0-6] [5.0 MQTT-3.3.1-9] [3.1.1 MQTT-3.3.1-6]
#[test]
fn retained_message_comes_before_later_messages() {
    for (version, retain) in
        VERSIONS.into_iter().flat_map(|version| [false, true].map(|retain| (version, retain)))
    {
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
                assert_eq!(
                    only(&received, &format!("{topic}=")),
                    [format!("{topic}=1 q1 R"), format!("{topic}=2 q1")]
                );
            }
        });
    }
}

/// [5.0 §3.3.1.3] [5.0 MQTT-3.3.1-12] [3.1.1 MQTT-3.3.1-9]
#[test]
fn message_retained_after_subscription_comes_once_without_retain() {
    for version in VERSIONS {
        play_on(ServerConfig::new().maximum_in_flight(1), |net| {
            retain_many(net, 200);
            let (sender, receiver) = (helper(net, "sender"), net.join(clean(version, "receiver")));
            net.subscribe(receiver, "#", 2);
            ["a", "many/~", "z"].iter().for_each(|topic| net.retain(sender, topic, "new", 2));
            assert_eq!(
                only(&net.messages(receiver), "new"),
                ["a=new q2", "many/~=new q2", "z=new q2"]
            );
        });
    }
}

/// [5.0 MQTT-3.10.4-2] [3.1.1 MQTT-3.10.4-2]
#[test]
fn pending_retained_messages_end_with_unsubscribe() {
    for version in VERSIONS {
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

/// [5.0 MQTT-3.8.3-3]
#[test]
fn no_local_withholds_own_retained_messages() {
    play_on(ServerConfig::new().maximum_in_flight(1), |net| {
        let no_local = SubscriptionOptions { no_local: true, ..at(1) };
        let (mut me, other) = (net.join(kept(V5_0, "me")), helper(net, "other"));
        ["a", "b", "mine/1", "mine/2", "mine/3"]
            .iter()
            .for_each(|topic| net.retain(me, topic, "mine", 1));
        ["b", "c", "d"].iter().for_each(|topic| net.retain(other, topic, "theirs", 1));
        // An own message does not come before a later one of another client either.
        net.subscribe_with(me, "#", no_local);
        net.publish(other, "mine/3", "new", 1);
        assert_eq!(
            net.messages(me),
            ["b=theirs q1 R", "c=theirs q1 R", "d=theirs q1 R", "mine/3=new q1"]
        );
        // They remain its own on its next connection.
        net.cut(me);
        me = net.resume(kept(V5_0, "me"));
        net.subscribe_with(me, "+", no_local);
        assert_eq!(net.messages(me), ["b=theirs q1 R", "c=theirs q1 R", "d=theirs q1 R"]);
        net.subscribe(me, "a", 1);
        assert_eq!(net.messages(me), ["a=mine q1 R"]);
    });
}

/// [5.0 MQTT-3.3.1-9] [5.0 MQTT-3.8.4-4]
#[test]
fn replaced_subscription_still_brings_pending_retained_messages() {
    for retain_handling in
        [RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend]
    {
        play_on(ServerConfig::new().maximum_in_flight(2), |net| {
            let expected = retain_many(net, 50);
            let receiver = helper(net, "receiver");
            net.subscribe(receiver, "#", 2);
            net.subscribe_with(receiver, "#", SubscriptionOptions { retain_handling, ..at(2) });
            let received: BTreeSet<_> = net.messages(receiver).into_iter().collect();
            assert_eq!(received, expected, "{retain_handling:?}");
        });
    }
}

/// [5.0 §3.3.1.3] [5.0 MQTT-3.3.2-6]
#[test]
fn retained_message_expires() {
    play(|net| {
        let (sender, receiver) = (helper(net, "sender"), helper(net, "receiver"));
        let properties =
            PublishProperties { message_expiry_interval: Some(10), ..Default::default() };
        net.put(sender, Publish { retain: true, properties, ..message("t", "x", 1) });
        for (wait, expected) in [
            (0, &["t=x R expiry=10"][..]),
            (4_000, &["t=x R expiry=6"]),
            (5_000, &["t=x R expiry=1"]),
            (1_000, &[]),
        ] {
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
fn new_retained_message_has_its_own_expiry() {
    play(|net| {
        let (sender, receiver) = (helper(net, "sender"), helper(net, "receiver"));
        let properties =
            PublishProperties { message_expiry_interval: Some(10), ..Default::default() };
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
fn retained_message_is_refused_when_maximum_is_reached() {
    play_with(&BrokerConfig::new(ServerConfig::new()).maximum_retained(2, 10_000), |net| {
        let sender = helper(net, "sender");
        ["a", "b"].iter().for_each(|topic| net.retain(sender, topic, "x", 1));
        for number in 1..=2 {
            assert_eq!(
                net.put(sender, Publish { retain: true, ..message("c", "x", number) }),
                0x97
            );
        }
        net.retain(sender, "a", "y", 1);
        net.retain(sender, "b", "", 1);
        net.retain(sender, "c", "x", 1);
        let receiver = helper(net, "receiver");
        net.subscribe(receiver, "#", 0);
        assert_eq!(net.messages(receiver), ["a=y R", "c=x R"]);
    });
}
