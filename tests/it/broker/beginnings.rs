//! The beginning and the end of connections.

use super::*;

/// Returns a CONNECT with fields that the codec would refuse.
pub(crate) fn connect_bytes(version: Version, level: u8, flags: u8, name: &str) -> Vec<u8> {
    let protocol: &[u8] = if version == V3_1 { b"\0\x06MQIsdp" } else { b"\0\x04MQTT" };
    let properties: &[u8] = if level >= 5 { &[0] } else { &[] };
    let length = [0, u8::try_from(name.len()).unwrap()];
    let body = [protocol, &[level, flags, 0, 0], properties, &length, name.as_bytes()].concat();
    [&[0x10, u8::try_from(body.len()).unwrap()], &body[..]].concat()
}

/// [5.0 MQTT-3.1.2-2] [3.1.1 MQTT-3.1.2-2]
#[test]
fn connect_of_unknown_version_is_refused_in_the_matching_form() {
    // The protocol level, the protocol name, and the version of the answer.
    for (level, name, version) in [
        (6, V5_0, V5_0),
        (9, V5_0, V5_0),
        (127, V5_0, V5_0),
        (0x84, V3_1_1, V3_1_1),
        (0x83, V3_1, V3_1_1),
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

/// [5.0 MQTT-3.1.4-1] [5.0 MQTT-3.1.2-1] [5.0 §4.13.1] [3.1.1 MQTT-3.1.2-3] [3.1.1 MQTT-3.2.2-6]
/// [3.1.1 MQTT-3.1.0-1]
#[test]
fn malformed_connect_is_refused() {
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
fn oversized_connect_is_refused() {
    play_on(ServerConfig::new().maximum_request_size(100), |net| {
        let name = "n".repeat(100);
        let client = net.connect(clean(V5_0, &name));
        assert!(!net.is_open(client));
        let received = net.take(client);
        assert!(received == ["connack 95", "closed"] || received == ["closed"], "{received:?}");
        let old = net.connect(clean(V3_1_1, &name));
        assert_eq!(net.take(old), ["closed"]);
        assert_eq!(net.broker.stats().connections, 0);
    });
}

/// [5.0 §3.2.2.2] [3.1.1 §3.2.2.3] [3.1.1 MQTT-3.2.2-5] [3.1.1 MQTT-3.2.2-6] [5.0 MQTT-3.2.2-7]
#[test]
fn refusal_by_host_has_the_form_of_the_version() {
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
            *net.policy = policy;
            let client = net.connect(clean(version, "client"));
            assert!(!net.is_open(client));
            let received = net.take(client);
            match (version, v3) {
                (V5_0, _) => assert_eq!(received, [v5, "closed"]),
                // `show` writes return codes as reason codes of 5.0.
                (_, [_]) => assert_eq!(received, [v5, "closed"]),
                // No return code has this meaning: none is sent, or a similar one.
                _ => assert!(received.len() <= 2 && received[0] != "connack 00", "{received:?}"),
            }
        }
        assert_eq!((net.broker.stats().sessions, net.broker.stats().connections), (0, 0));
    });
}

/// [5.0 MQTT-3.1.4-6] [3.1.1 MQTT-3.1.4-5] [5.0 §3.1.4]
#[test]
fn input_after_connect_is_read_only_when_client_is_accepted() {
    each(|net, version| {
        let watcher = watcher(net);
        let bytes = [
            encoded(clean(version, "client"), version),
            encoded(message("t", "x", 0), version),
            encoded(Packet::Pingreq, version),
        ]
        .concat();
        *net.policy = |_| Some(ReasonCode::NOT_AUTHORIZED);
        let refused = net.open(version);
        net.raw(refused, &bytes);
        assert_eq!(
            (net.take(refused), net.messages(watcher)),
            (vec!["connack 87".to_owned(), "closed".to_owned()], vec![])
        );
        *net.policy = |_| None;
        let client = net.open(version);
        net.raw(client, &bytes);
        assert_eq!((net.take(client), net.messages(watcher)), (vec![], vec![]));
        let (asked, _) = net.asked.pop().unwrap();
        net.accept(asked);
        assert_eq!(
            (net.take(client).join(" "), net.messages(watcher)),
            ("connack 00 pingresp".to_owned(), vec!["t=x".to_owned()])
        );
    });
}

/// [5.0 MQTT-3.1.0-1] [5.0 MQTT-3.14.0-1] [5.0 MQTT-3.2.0-1] [3.1.1 MQTT-3.1.0-1]
/// [3.1.1 MQTT-3.2.0-1]
#[test]
fn connection_without_leading_connect_closes_without_a_packet() {
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
fn second_connect_closes_the_connection() {
    each(|net, version| {
        for name in ["client", "another"] {
            let client = net.join(clean(version, "client"));
            net.send(client, clean(version, name).into());
            assert_eq!(
                net.take(client),
                if version == V5_0 { &["disconnect 82", "closed"][..] } else { &["closed"] }
            );
            assert_eq!((net.broker.stats().sessions, net.broker.stats().connections), (0, 0));
        }
    });
}

/// [5.0 §4.13.1] [5.0 MQTT-4.13.1-1] [3.1.1 MQTT-4.8.0-1]
#[test]
fn violation_closes_the_connection_before_later_input() {
    // The bytes, and the possible reason codes.
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
            let fits = codes
                .iter()
                .any(|code| received == [format!("disconnect {code}"), "closed".to_owned()]);
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
        let properties =
            ConnectProperties { authentication_method: Some("SCRAM".into()), ..Default::default() };
        let client = net.connect(Connect { properties, ..clean(V5_0, "client") });
        assert_eq!(net.take(client), ["connack 8c", "closed"]);
        let client = helper(net, "client");
        let properties =
            AuthProperties { authentication_method: Some("SCRAM".into()), ..Default::default() };
        net.send(client, Auth { reason_code: ReasonCode::RE_AUTHENTICATE, properties }.into());
        let received = net.take(client);
        assert!(
            received == ["disconnect 82", "closed"] || received == ["disconnect 8c", "closed"],
            "{received:?}"
        );
    });
}

/// [5.0 MQTT-3.14.0-1] [5.0 MQTT-3.14.4-2] [3.1.1 §3.14]
#[test]
fn host_disconnects_without_packet_before_connack_and_before_5_0() {
    each(|net, version| {
        let expected = if version == V5_0 { &["disconnect 98", "closed"][..] } else { &["closed"] };
        let client = net.join(clean(version, "client"));
        net.disconnect(client, ReasonCode::ADMINISTRATIVE_ACTION);
        assert_eq!(net.take(client), expected);
        *net.policy = |_| None;
        let (silent, waiting) = (net.open(version), net.connect(clean(version, "client")));
        for early in [silent, waiting] {
            net.disconnect(early, ReasonCode::ADMINISTRATIVE_ACTION);
            assert_eq!(net.take(early), ["closed"]);
        }
        assert_eq!((net.broker.stats().connections, net.broker.stats().sessions), (0, 0));
    });
}

/// [5.0 §3.1.4] [3.1.1 §3.1.4]
#[test]
fn connection_closes_when_connect_does_not_come() {
    for seconds in [10, 3] {
        play_on(ServerConfig::new().connect_timeout(Duration::from_secs(seconds)), |net| {
            let (silent, slow) = (net.open(V5_0), net.open(V5_0));
            let bytes = encoded(clean(V5_0, "client"), V5_0);
            net.raw(slow, &bytes[..4]);
            net.advance(seconds * 1_000 - 1);
            net.raw(slow, &bytes[4..6]);
            assert!(net.is_open(silent) && net.is_open(slow));
            let fast = helper(net, "fast");
            net.advance(1);
            assert_eq!(
                (net.take(silent), net.take(slow)),
                (vec!["closed".to_owned()], vec!["closed".to_owned()])
            );
            net.advance(1_000_000);
            assert!(net.is_open(fast));
        });
    }
}

/// [5.0 §3.2.2.2]
#[test]
fn connect_is_refused_when_maximum_sessions_exist() {
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
fn pingreq_is_answered() {
    each(|net, version| {
        let client = net.join(clean(version, "client"));
        net.send(client, Packet::Pingreq);
        assert_eq!(net.take(client), ["pingresp"]);
    });
}
