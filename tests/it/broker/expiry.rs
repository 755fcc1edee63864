//! Message expiry.

use super::*;

/// [5.0 MQTT-3.3.2-5] [5.0 MQTT-3.3.2-6]
#[test]
fn waiting_message_expires_or_is_sent_with_remaining_interval() {
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
fn sent_message_does_not_expire() {
    play(|net| {
        let (sender, receiver) = (helper(net, "sender"), net.join(kept(V5_0, "receiver")));
        net.subscribe(receiver, "t", 2);
        let properties =
            PublishProperties { message_expiry_interval: Some(10), ..Default::default() };
        (1..=2).for_each(|number| {
            assert_eq!(net.put(sender, Publish { properties, ..message("t", "x", number) }), 0);
        });
        assert_eq!(net.take(receiver), ["t=x q1 expiry=10", "t=x q2 expiry=10"]);
        net.cut(receiver);
        net.advance(20_000);
        let receiver = net.resume(kept(V5_0, "receiver"));
        let received = net.messages(receiver);
        assert!(
            received.len() == 2
                && received[0].starts_with("t=x q1 D")
                && received[1].starts_with("t=x q2 D"),
            "{received:?}"
        );
    });
}

/// [5.0 MQTT-4.3.3-13]
#[test]
fn exchange_continues_when_its_message_has_expired() {
    play(|net| {
        let (sender, receiver) = (helper(net, "sender"), net.join(kept(V5_0, "receiver")));
        net.subscribe(receiver, "t", 2);
        net.cut(receiver);
        let properties =
            PublishProperties { message_expiry_interval: Some(1), ..Default::default() };
        let publish =
            Publish { properties, packet_identifier: Some(identifier(1)), ..message("t", "x", 2) };
        net.send(sender, publish.into());
        net.advance(5_000);
        net.send(sender, Publish { dup: true, ..publish }.into());
        net.ack(sender, Packet::Pubrel, 1, 0);
        assert_eq!(net.take(sender), ["pubrec #1 00", "pubrec #1 00", "pubcomp #1 00"]);
        let receiver = net.resume(kept(V5_0, "receiver"));
        assert_eq!(net.messages(receiver), NONE);
    });
}

/// [5.0 §3.3.2.3.3]
#[test]
fn message_with_expiry_interval_0_is_sent_at_once_or_never() {
    play(|net| {
        let (sender, receiver) = (helper(net, "sender"), net.join(kept(V5_0, "receiver")));
        net.subscribe(receiver, "t", 2);
        let properties =
            PublishProperties { message_expiry_interval: Some(0), ..Default::default() };
        let send = |net: &mut Net, number| {
            net.put(sender, Publish { properties, ..message("t", "now", number) });
        };
        (0..=2).for_each(|number| send(net, number));
        assert_eq!(
            net.messages(receiver),
            ["t=now expiry=0", "t=now q1 expiry=0", "t=now q2 expiry=0"]
        );
        net.cut(receiver);
        (0..=2).for_each(|number| send(net, number));
        let receiver = net.resume(kept(V5_0, "receiver"));
        assert_eq!(net.messages(receiver), NONE);
    });
    // It expires while others are in flight before it.
    play_on(ServerConfig::new().maximum_in_flight(1), |net| {
        let (sender, receiver) = (helper(net, "sender"), net.join(kept(V5_0, "receiver")));
        net.subscribe(receiver, "t", 1);
        let properties =
            PublishProperties { message_expiry_interval: Some(0), ..Default::default() };
        net.publish(sender, "t", "first", 1);
        net.put(sender, Publish { properties, ..message("t", "now", 1) });
        net.advance(1);
        assert_eq!(net.messages(receiver), ["t=first q1"]);
    });
}
