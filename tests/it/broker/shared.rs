//! Shared subscriptions.

use super::*;
use mqtt_sansio::broker::SharedStrategy;

/// Connects members of the group `$share/g/t/#`.
fn members(net: &mut Net, count: usize, level: u8) -> Vec<C> {
    let join = |number: usize| {
        let client = net.join(clean(V5_0, &format!("member-{number}")));
        net.subscribe(client, "$share/g/t/#", level);
        client
    };
    (0..count).map(join).collect()
}

fn received(net: &mut Net, members: &[C]) -> Vec<Vec<String>> {
    members.iter().map(|member| net.messages(*member)).collect()
}

/// The store of the state has its shared subscription as long as the message waits.
#[test]
fn message_waits_after_the_last_member_has_left_its_group() {
    for is_read in [false, true] {
        play(|net| {
            let (sender, member) = (helper(net, "sender"), net.join(kept(V5_0, "member")));
            net.subscribe(member, "$share/g/t", 1);
            net.cut(member);
            net.publish(sender, "t", "x", 1);
            let member = net.resume(kept(V5_0, "member"));
            assert_eq!(net.unsubscribe(member, &["$share/g/t"]), [0]);
            net.cut(member);
            if is_read {
                let member = net.resume(kept(V5_0, "member"));
                assert_eq!(net.messages(member), ["t=x q1 D"]);
            }
        });
    }
}

/// [5.0 §4.8.2] [5.0 MQTT-4.8.2-3]
#[test]
fn members_take_turns() {
    play(|net| {
        let sender = helper(net, "sender");
        let members = members(net, 3, 1);
        let other = helper(net, "other");
        net.subscribe(other, "$share/h/t/1", 2);
        let ordinary = helper(net, "ordinary");
        net.subscribe(ordinary, "t/#", 0);
        for _ in 0..4 {
            for level in [0, 1, 2] {
                net.publish(sender, "t/1", "x", level);
            }
        }
        for got in received(net, &members) {
            assert_eq!(got.len(), 4, "{got:?}");
            // The QoS is that of the member.
            assert!(got.iter().all(|one| one == "t/1=x" || one == "t/1=x q1"), "{got:?}");
        }
        assert_eq!((net.messages(other).len(), net.messages(ordinary).len()), (12, 12));
    });
}

/// [5.0 §4.8.2]
#[test]
fn member_that_is_away_or_full_is_passed_over() {
    let server = ServerConfig::new().maximum_queued(2, 1_000_000);
    play_on(server, |net| {
        let sender = helper(net, "sender");
        let mut members = members(net, 2, 1);
        let away = net.join(kept(V5_0, "away"));
        net.subscribe(away, "$share/g/t/#", 1);
        net.cut(away);
        net.stall(members[0], true);
        for number in 0..5 {
            net.publish(sender, "t/1", &number.to_string(), 1);
            net.messages(members[1]);
        }
        net.stall(members[0], false);
        assert_eq!(net.messages(members[0]), ["t/1=0 q1", "t/1=2 q1"]);
        // Without a connected member, messages wait for one that is away.
        for member in members.drain(..) {
            net.leave(member);
        }
        net.publish(sender, "t/1", "late", 1);
        net.publish(sender, "t/1", "lost", 0);
        let away = net.resume(kept(V5_0, "away"));
        assert_eq!(net.messages(away), ["t/1=late q1"]);
        assert_eq!(net.broker.stats().dropped.no_member, 1);
    });
}

/// [5.0 MQTT-4.8.2-4] [5.0 MQTT-4.8.2-5] [5.0 MQTT-4.8.2-6]
#[test]
fn messages_of_an_ended_session_go_to_another_member() {
    let server = ServerConfig::new().maximum_in_flight(2);
    play_on(server, |net| {
        let sender = helper(net, "sender");
        let members = members(net, 1, 2);
        let numbers: Vec<_> = (0..4).map(|number| number.to_string()).collect();
        net.publish(sender, "t/1", "twice", 2);
        for number in &numbers {
            net.publish(sender, "t/1", number, 1);
        }
        let next = net.join(clean(V5_0, "next"));
        net.subscribe(next, "$share/g/t/#", 1);
        // One with QoS 2 and one with QoS 1 are in flight, three wait. None is acknowledged.
        assert_eq!(net.numbers(members[0]).len(), 2);
        net.cut(members[0]);
        assert_eq!(net.messages(next), ["t/1=0 q1", "t/1=1 q1", "t/1=2 q1", "t/1=3 q1"]);
        // A message that a member refuses is not handed on.
        net.publish(sender, "t/1", "no", 1);
        let number = net.numbers(next)[0];
        net.ack(next, Packet::Puback, number, 0x80);
        net.take(next);
        let last = net.join(clean(V5_0, "last"));
        net.subscribe(last, "$share/g/t/#", 1);
        net.cut(next);
        assert_eq!(net.messages(last), NONE);
    });
}

/// [5.0 MQTT-3.8.3-4] [5.0 §4.8.2] [5.0 MQTT-4.8.2-1] [5.0 MQTT-4.8.2-2]
#[test]
fn shared_subscription_brings_no_retained_message() {
    play(|net| {
        let sender = helper(net, "sender");
        net.retain(sender, "t/1", "old", 1);
        let member = members(net, 1, 1)[0];
        assert_eq!(net.messages(member), NONE);
        assert_eq!(net.unsubscribe(member, &["$share/other/t/#", "$share/g/t/#"]), [0x11, 0]);
        net.publish(sender, "t/1", "x", 1);
        assert_eq!((net.messages(member), net.broker.stats().subscriptions), (vec![], 0));
        // No Local is a protocol error here.
        net.raw(member, b"\x82\x12\0\x09\0\0\x0C$share/g/t/#\x05");
        assert_eq!(net.take(member), ["disconnect 82", "closed"]);
    });
}

/// [3.1.1 §4.7]
#[test]
fn clients_before_5_0_share_if_the_host_says_so() {
    let config = BrokerConfig::default().shared_before_5_0(true);
    for version in [V3_1, V3_1_1] {
        play_with(&config, |net| {
            let sender = helper(net, "sender");
            let clients = ["one", "two"].map(|name| net.join(clean(version, name)));
            for client in clients {
                assert_eq!(net.subscribe_all(client, None, &[("$share/g/t", at(1))]), [1]);
            }
            for _ in 0..4 {
                net.publish(sender, "t", "x", 1);
            }
            assert_eq!(clients.map(|client| net.messages(client).len()), [2, 2]);
            net.unsubscribe(clients[0], &["$share/g/t"]);
            net.publish(sender, "t", "x", 1);
            assert_eq!(clients.map(|client| net.messages(client).len()), [0, 1]);
        });
    }
}

#[test]
fn strategy_decides_who_receives() {
    let least = BrokerConfig::default().shared_strategy(SharedStrategy::LeastInFlight);
    play_with(&least, |net| {
        let sender = helper(net, "sender");
        let members = members(net, 3, 1);
        for _ in 0..9 {
            net.publish(sender, "t/1", "x", 1);
        }
        // The second one acknowledges, the others do not.
        net.messages(members[1]);
        for _ in 0..3 {
            net.publish(sender, "t/1", "y", 1);
        }
        assert_eq!(received(net, &members).iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 3]);
    });
    let hash = BrokerConfig::default().shared_strategy(SharedStrategy::TopicHash);
    play_with(&hash, |net| {
        let sender = helper(net, "sender");
        let members = members(net, 4, 1);
        for topic in 0..40 {
            for _ in 0..2 {
                net.publish(sender, &format!("t/{topic}"), "x", 1);
            }
        }
        let got = received(net, &members);
        assert_eq!(got.iter().map(Vec::len).sum::<usize>(), 80);
        for one in &got {
            assert!(one.chunks(2).all(|pair| pair[0] == pair[1]), "a topic has one receiver");
            assert!(!one.is_empty(), "40 topics are spread over 4 members");
        }
    });
}

#[test]
fn group_has_a_limit() {
    play_with(&BrokerConfig::default().maximum_group_members(2), |net| {
        let members = members(net, 2, 1);
        let third = helper(net, "third");
        assert_eq!(net.subscribe_all(third, None, &[("$share/g/t/#", at(0))]), [0x97]);
        // A member can change its options.
        net.subscribe(members[0], "$share/g/t/#", 0);
        net.leave(members[1]);
        net.subscribe(third, "$share/g/t/#", 0);
    });
}

/// [5.0 MQTT-4.8.2-3]
#[test]
fn member_with_qos_0_that_is_away_takes_no_message() {
    play(|net| {
        let sender = helper(net, "sender");
        for (name, level) in [("first", 0), ("second", 1)] {
            let away = net.join(kept(V5_0, name));
            net.subscribe(away, "$share/g/t", level);
            net.cut(away);
        }
        for _ in 0..4 {
            net.publish(sender, "t", "x", 1);
        }
        let second = net.resume(kept(V5_0, "second"));
        assert_eq!(net.messages(second).len(), 4);
    });
}

/// [5.0 MQTT-3.1.2-25]
#[test]
fn oversized_shared_messages_do_not_close_the_queue() {
    play_on(ServerConfig::new().maximum_queued(3, 1_000), |net| {
        let sender = helper(net, "sender");
        let properties =
            ConnectProperties { maximum_packet_size: Some(60), ..ConnectProperties::default() };
        let client = net.join(Connect { properties, ..clean(V5_0, "client") });
        net.subscribe_all(client, None, &[("$share/g/t", at(1)), ("u", at(1))]);
        for _ in 0..10 {
            net.publish(sender, "t", &"x".repeat(100), 1);
        }
        net.publish(sender, "u", "y", 1);
        assert_eq!(net.messages(client), ["u=y q1"]);
    });
}
