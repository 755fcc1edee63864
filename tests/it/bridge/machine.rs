//! The machine alone, fed with packets.

use super::world::{V3, V5, config};
use mqtt_sansio::Instant;
use mqtt_sansio::bridge::{
    Bridge, BridgeConfig, BridgeConfigError, BridgeTopic, BridgeTopicError, Event, Side,
};
use mqtt_sansio::codec::{
    Connack, ConnackProperties, Connect, ConnectProperties, Disconnect, Packet, Publish,
    PublishProperties, QoS, ReasonCode, Version,
};
use mqtt_sansio::session::CloseCause;
use testkit::wire::{encoded, identifier, packets};

const NOW: Instant = Instant::from_millis(1_000);

fn connecting(config: BridgeConfig, version: Version) -> Bridge {
    let mut bridge = Bridge::new(config);
    bridge.connect(Side::Local, &Connect::new(V5, "bridge"), NOW).unwrap();
    bridge.connect(Side::Remote, &Connect::new(version, "bridge"), NOW).unwrap();
    bridge
}

/// Returns a bridge that is connected to both sides, with its output taken.
fn connected(config: BridgeConfig, version: Version) -> Bridge {
    let mut bridge = connecting(config, version);
    for (side, version) in [(Side::Local, V5), (Side::Remote, version)] {
        hear(&mut bridge, side, &encoded(Connack::default(), version));
        output(&mut bridge, side);
    }
    bridge
}

fn output(bridge: &mut Bridge, side: Side) -> Vec<u8> {
    let mut out = Vec::new();
    bridge.transmit(side, &mut out);
    assert!(!bridge.wants_transmit(side));
    out
}

fn hear(bridge: &mut Bridge, side: Side, mut input: &[u8]) {
    while bridge.handle_input(side, &mut input, NOW).is_some() {}
    assert!(input.is_empty() || !bridge.wants_input(side));
}

fn publish(qos: QoS, number: u16, payload: &[u8], version: Version) -> Vec<u8> {
    let packet_identifier = (qos > QoS::AtMostOnce).then(|| identifier(number));
    encoded(Publish { qos, packet_identifier, ..Publish::new("t", payload) }, version)
}

#[test]
fn topic_line_is_parsed_with_the_defaults_of_mosquitto() {
    let parse = str::parse::<BridgeTopic>;
    let short = parse("a/#").unwrap();
    assert_eq!(short, parse("a/# out 0 \"\" \"\"").unwrap());
    let long = parse("  a/+  both 2 l/ r/ ").unwrap();
    assert_eq!(long.filter(Side::Local).to_string(), "l/a/+");
    assert_eq!(long.filter(Side::Remote).to_string(), "r/a/+");
    assert_eq!(long.maximum_qos(), QoS::ExactlyOnce);
    assert_eq!(long.translate(Side::Remote, "r/a/1".into()).as_deref(), Some("l/a/1"));
    assert_eq!(long.translate(Side::Remote, "a/1".into()), None);
    // The parent of a prefix does not begin with it.
    assert_eq!(parse("# in 0 l/ r/").unwrap().translate(Side::Remote, "r".into()), None);
    for (line, expected) in [
        ("", "expected a pattern, and at most"),
        ("a out 1 l/ r/ more", "expected a pattern, and at most"),
        ("a up", "expected `in`, `out` or `both`"),
        ("a in 3", "expected the QoS 0, 1 or 2"),
        ("a in 1 +/ r/", "local prefix is not the start of a topic name"),
        ("a in 1 l/ #", "remote prefix is not the start of a topic name"),
        ("# in 1 l/ r", "remote prefix and the pattern are no topic filter"),
        ("\"\" in 1 l/", "remote prefix and the pattern are no topic filter"),
        ("$share/g/a in 1", "expected no shared subscription on the local side"),
    ] {
        let error = parse(line).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{line:?}: {error}");
    }
    assert_eq!(parse("a up"), Err(BridgeTopicError::Direction));
}

#[test]
fn topics_with_the_same_filter_in_a_direction_are_refused() {
    let new = |lines: &[&str]| BridgeConfig::new(lines.iter().map(|line| line.parse().unwrap()));
    assert_eq!(new(&[]).unwrap_err(), BridgeConfigError::NoTopics);
    assert!(new(&["a out", "a in", "b both"]).is_ok());
    let error = new(&["b", "a both 0 l/ r/", "l/a out 1"]).unwrap_err();
    let expected = BridgeConfigError::SameFilter { first: 1, second: 2, side: Side::Local };
    assert_eq!(error, expected);
}

#[test]
fn connect_has_the_receive_maximum_and_a_lasting_session() {
    for (stated, expected) in [(None, 7), (Some(100), 7), (Some(3), 3)] {
        let mut bridge = Bridge::new(config(&["t"]).receive_maximum(7));
        let properties = ConnectProperties { receive_maximum: stated, ..Default::default() };
        let connect = Connect { properties, ..Connect::new(V5, "bridge") };
        bridge.connect(Side::Remote, &connect, NOW).unwrap();
        let out = output(&mut bridge, Side::Remote);
        let [Packet::Connect(connect)] = packets(&out, V5)[..] else { panic!("{out:?}") };
        assert_eq!(connect.properties.receive_maximum, Some(expected));
        assert_eq!(connect.properties.session_expiry_interval, Some(u32::MAX));
    }
}

#[test]
fn connect_before_5_0_is_marked_until_the_broker_refuses_that() {
    let level = |bridge: &mut Bridge| output(bridge, Side::Remote)[8];
    for version in [Version::V3_1, V3] {
        let mut bridge = connecting(config(&["t"]).marks_itself(false), version);
        let start = if version == V3 { 0 } else { 2 };
        assert_eq!(output(&mut bridge, Side::Remote)[8 + start], version as u8 + 3);
        let mut bridge = connecting(config(&["t"]), version);
        assert_eq!(output(&mut bridge, Side::Remote)[8 + start], 0x80 | (version as u8 + 3));
    }
    let mut bridge = connecting(config(&["t"]), V3);
    assert_eq!(level(&mut bridge), 0x84);
    // Lost connections change nothing.
    for reply in [&b""[..], b"\x20\x02\0\x03", b"\x20\x02\0\x01"] {
        hear(&mut bridge, Side::Remote, reply);
        let _ = bridge.connection_lost(Side::Remote, NOW);
        bridge.connect(Side::Remote, &Connect::new(V3, "bridge"), NOW).unwrap();
        let expected = if reply.ends_with(b"\x01") { 4 } else { 0x84 };
        assert_eq!(level(&mut bridge), expected);
    }
    let mut bridge = connecting(config(&["t"]), V5);
    assert_eq!(level(&mut bridge), 5);
}

/// [5.0 MQTT-3.3.2-4] [5.0 §3.3.2.3.2]
#[test]
fn wrong_payload_format_indicator_is_left_out() {
    let mut bridge = connected(config(&["t"]), V5);
    let properties =
        PublishProperties { payload_format_indicator: Some(true), ..Default::default() };
    let message = Publish { properties, ..Publish::new("t", b"ok") };
    hear(&mut bridge, Side::Local, &encoded(message, V5));
    // The bytes of the payload are no text.
    let mut wrong = encoded(message, V5);
    let last = wrong.len() - 1;
    wrong[last] = 0xFF;
    hear(&mut bridge, Side::Local, &wrong);
    let out = output(&mut bridge, Side::Remote);
    let found = packets(&out, V5);
    let Packet::Publish(second) = found[1] else { panic!("{found:?}") };
    assert_eq!(found[0], message.into());
    assert_eq!(second.properties, PublishProperties::default());
    assert_eq!(second.payload, b"o\xFF");
}

#[test]
fn reason_code_of_a_refusal_is_passed_on() {
    for (qos, answer, expected) in [
        (QoS::AtLeastOnce, &b"\x40\x04\0\x01\x87\0"[..], &b"\x40\x04\0\x09\x87\0"[..]),
        (QoS::ExactlyOnce, b"\x50\x04\0\x01\x97\0", b"\x50\x04\0\x09\x97\0"),
        (QoS::AtLeastOnce, b"\x40\x02\0\x01", b"\x40\x02\0\x09"),
    ] {
        let mut bridge = connected(config(&["t out 2"]), V5);
        hear(&mut bridge, Side::Local, &publish(qos, 9, b"m", V5));
        assert_eq!(output(&mut bridge, Side::Local), b"");
        hear(&mut bridge, Side::Remote, answer);
        assert_eq!(output(&mut bridge, Side::Local), expected);
    }
}

/// Returns the answer to a SUBSCRIBE with one topic filter.
fn suback(subscribe: &[u8], reason_code: u8) -> Vec<u8> {
    assert_eq!(subscribe[0], 0x82, "{subscribe:x?}");
    vec![0x90, 4, subscribe[2], subscribe[3], 0, reason_code]
}

#[test]
fn topic_is_subscribed_again_while_its_packet_identifier_is_in_use() {
    let awaits_suback = || {
        let mut bridge = connecting(config(&["t in"]), V5);
        for side in [Side::Local, Side::Remote] {
            output(&mut bridge, side);
            hear(&mut bridge, side, &encoded(Connack::default(), V5));
        }
        bridge
    };
    let subscribes = |bridge: &mut Bridge| output(bridge, Side::Remote);
    let hears = |bridge: &mut Bridge, answer: Vec<u8>| {
        bridge.handle_input(Side::Remote, &mut &answer[..], NOW).map(|event| format!("{event:?}"))
    };
    let mut bridge = awaits_suback();
    let first = subscribes(&mut bridge);
    assert_eq!(hears(&mut bridge, suback(&first, 0x91)), None);
    let second = subscribes(&mut bridge);
    assert_ne!(first[2..4], second[2..4]);
    assert_eq!((&first[4..], first.len()), (&second[4..], second.len()));
    assert_eq!(hears(&mut bridge, suback(&second, 0x01)), None);
    assert_eq!(subscribes(&mut bridge), b"");

    // A broker that always answers so is not asked for ever.
    let mut bridge = awaits_suback();
    let refused = (0..2_000).find_map(|_| {
        let subscribe = subscribes(&mut bridge);
        hears(&mut bridge, suback(&subscribe, 0x91))
    });
    let expected = Event::Refused {
        side: Side::Remote,
        topic: 0,
        reason_code: ReasonCode::PACKET_IDENTIFIER_IN_USE,
    };
    assert_eq!(refused, Some(format!("{expected:?}")));
    assert_eq!(subscribes(&mut bridge), b"");
}

#[test]
fn message_repeated_within_a_connection_is_carried_once() {
    let mut bridge = connected(config(&["t out 1"]), V5);
    let first = publish(QoS::AtLeastOnce, 9, b"m", V5);
    let mut again = first.clone();
    again[0] |= 8;
    hear(&mut bridge, Side::Local, &[first, again].concat());
    assert_eq!(packets(&output(&mut bridge, Side::Remote), V5).len(), 1);
    hear(&mut bridge, Side::Remote, b"\x40\x02\0\x01");
    assert_eq!(output(&mut bridge, Side::Local), b"\x40\x02\0\x09\x40\x02\0\x09");
}

/// [5.0 MQTT-4.4.0-1] [5.0 MQTT-3.3.1-1]
#[test]
fn resent_message_is_acknowledged_with_the_outcome_of_the_first() {
    let first = publish(QoS::AtLeastOnce, 9, b"m", V5);
    let mut again = first.clone();
    again[0] |= 8;
    let carried = |bridge: &mut Bridge| packets(&output(bridge, Side::Remote), V5).len();
    for (answered_before, session_present, resent, is_repeat) in [
        (false, true, &again, true),
        (true, true, &again, true),
        (false, true, &first, false),
        (false, false, &again, false),
    ] {
        let mut bridge = connected(config(&["t out 1"]), V5);
        hear(&mut bridge, Side::Local, &first);
        assert_eq!(carried(&mut bridge), 1);
        let _ = bridge.connection_lost(Side::Local, NOW);
        if answered_before {
            hear(&mut bridge, Side::Remote, b"\x40\x02\0\x01");
        }
        bridge.connect(Side::Local, &Connect::new(V5, "bridge"), NOW).unwrap();
        let connack = Connack { session_present, ..Connack::default() };
        hear(&mut bridge, Side::Local, &encoded(connack, V5));
        output(&mut bridge, Side::Local);
        hear(&mut bridge, Side::Local, resent);
        assert_eq!(carried(&mut bridge), usize::from(!is_repeat));
        if !answered_before {
            assert_eq!(output(&mut bridge, Side::Local), b"");
            hear(&mut bridge, Side::Remote, b"\x40\x02\0\x01\x40\x02\0\x02");
        }
        assert_eq!(output(&mut bridge, Side::Local), b"\x40\x02\0\x09");
        assert_eq!(bridge.stats(Side::Local).unfinished, 0);
    }
}

#[test]
fn messages_with_qos_0_are_dropped_while_their_receiver_is_away_or_slow() {
    let limited = config(&["t out 1"]).maximum_queued(10, 200_000);
    let mut bridge = connecting(limited.clone(), V5);
    hear(&mut bridge, Side::Local, &encoded(Connack::default(), V5));
    hear(&mut bridge, Side::Local, &publish(QoS::AtMostOnce, 0, b"m", V5));
    assert_eq!(bridge.stats(Side::Remote).dropped, 1);
    assert_eq!(bridge.stats(Side::Local).received, 1);
    // The remote broker allows one message in flight, so the others wait.
    let properties = ConnackProperties { receive_maximum: Some(1), ..Default::default() };
    let connack = Connack { properties, ..Connack::default() };
    hear(&mut bridge, Side::Remote, &encoded(connack, V5));
    for number in 1..=8 {
        hear(&mut bridge, Side::Local, &publish(QoS::AtLeastOnce, number, b"m", V5));
    }
    for _ in 0..5 {
        hear(&mut bridge, Side::Local, &publish(QoS::AtMostOnce, 0, b"m", V5));
    }
    let stats = bridge.stats(Side::Remote);
    assert_eq!((stats.sent, stats.dropped), (8 + 3, 1 + 2));
    assert_eq!(bridge.stats(Side::Local).unfinished, 8);
}

#[test]
fn side_waits_while_only_the_other_one_is_slow() {
    let limited = config(&["t both"]).maximum_queued(1_000, 200_000);
    let mut bridge = connected(limited, V5);
    let large = publish(QoS::AtMostOnce, 0, &[b'x'; 40_000], V5);
    hear(&mut bridge, Side::Local, &large);
    assert!(bridge.wants_input(Side::Local));
    hear(&mut bridge, Side::Local, &large);
    assert!(!bridge.wants_input(Side::Local) && bridge.wants_input(Side::Remote));
    // Nothing is read until the other side has taken something.
    let mut input = large.as_slice();
    assert_eq!(bridge.handle_input(Side::Local, &mut input, NOW), None);
    assert_eq!(input.len(), large.len());
    // If both are slow, both are read, so that neither broker waits for the other.
    hear(&mut bridge, Side::Remote, &[large.clone(), large.clone()].concat());
    assert!(bridge.wants_input(Side::Local) && bridge.wants_input(Side::Remote));
    for _ in 0..10 {
        hear(&mut bridge, Side::Local, &large);
    }
    assert!(bridge.stats(Side::Remote).dropped > 0);
    let out = output(&mut bridge, Side::Remote);
    assert!(out.len() < 300_000, "{}", out.len());
    assert!(bridge.wants_input(Side::Local));
}

#[test]
fn older_broker_is_not_read_from_beyond_twice_the_maximum() {
    let mut bridge = connected(config(&["t in 1"]).receive_maximum(5), V3);
    for number in 1..=20 {
        hear(&mut bridge, Side::Remote, &publish(QoS::AtLeastOnce, number, b"m", V3));
    }
    assert_eq!(bridge.stats(Side::Remote).unfinished, 10);
    assert!(!bridge.wants_input(Side::Remote));
    hear(&mut bridge, Side::Local, b"\x40\x02\0\x02");
    assert!(bridge.wants_input(Side::Remote));
}

#[test]
fn end_of_a_connection_is_reported_once_with_its_cause() {
    let mut bridge = connected(config(&["t"]), V5);
    let mut input = &b"\xE0\x01\x8B"[..];
    let event = bridge.handle_input(Side::Remote, &mut input, NOW);
    let disconnect = Disconnect::new(ReasonCode::SERVER_SHUTTING_DOWN);
    assert_eq!(event, Some(Event::Closed(Side::Remote, CloseCause::Disconnected(disconnect))));
    assert_eq!(bridge.connection_lost(Side::Remote, NOW), None);
    assert!(!bridge.is_connected(Side::Remote) && bridge.is_connected(Side::Local));
    bridge.disconnect(Side::Local, &Disconnect::default(), NOW).unwrap();
    assert_eq!(output(&mut bridge, Side::Local), b"\xE0\0");
    let event = bridge.handle_input(Side::Local, &mut &b""[..], NOW);
    assert_eq!(event, Some(Event::Closed(Side::Local, CloseCause::Requested)));
}

#[test]
fn silent_broker_is_disconnected() {
    let mut bridge = Bridge::new(config(&["t"]));
    let connect = Connect { keep_alive: 10, ..Connect::new(V5, "bridge") };
    bridge.connect(Side::Remote, &connect, NOW).unwrap();
    hear(&mut bridge, Side::Remote, &encoded(Connack::default(), V5));
    output(&mut bridge, Side::Remote);
    let ping = bridge.poll_timeout().unwrap();
    assert_eq!(ping, NOW.plus_seconds(10));
    assert_eq!(bridge.handle_timeout(ping), None);
    assert_eq!(output(&mut bridge, Side::Remote), b"\xC0\0");
    let late = bridge.poll_timeout().unwrap();
    let event = bridge.handle_timeout(late);
    assert_eq!(event, Some(Event::Closed(Side::Remote, CloseCause::KeepAliveTimeout)));
    assert_eq!(bridge.handle_timeout(late), None);
}

#[test]
fn debug_output_has_no_password() {
    let mut bridge = Bridge::new(config(&["t"]));
    let connect = Connect {
        user_name: Some("u".into()),
        password: Some(b"hunter2"),
        ..Connect::new(V3, "bridge")
    };
    bridge.connect(Side::Remote, &connect, NOW).unwrap();
    let shown = format!("{bridge:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("104, 117"), "{shown}");
}
