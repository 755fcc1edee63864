//! How a connection starts and ends, seen from one side, and what the next connection keeps of it.

use core::time::Duration;
use mqtt_sansio::Instant;
use mqtt_sansio::client::{self, Client, ClientConfig, ConnectError};
use mqtt_sansio::codec::{
    AckProperties, Auth, Connack, ConnackProperties, Connect, DecodeError, Disconnect,
    DisconnectProperties, Expiry, Options, Packet, Publish, QoS, ReasonCode, SubscribeProperties,
    Subscription, Text, UnsubscribeProperties, UserProperty, Version,
};
use mqtt_sansio::server::{self, AcceptError, AnswerError, Server, ServerConfig};
use mqtt_sansio::session::{CloseCause, Message, Outgoing, ProtocolError, RequestError, Session};
use testkit::machine::{
    Hears, NOW, accepted, asked, connected, connecting, resume, resumed, tokens,
};
use testkit::pair::{Chunks, Pair};
use testkit::wire::{V5_0, VERSIONS, ack, encoded, identifier, lasting, message, packets};

fn after(seconds: u64) -> Instant {
    NOW + Duration::from_secs(seconds)
}

// ---- before CONNECT and after DISCONNECT ----

/// Returns what a client writes if its host calls everything except `connect`.
fn says(client: &mut Client) -> Vec<u8> {
    let mut out = Vec::new();
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        // A message is queued, or refused while the version is not known.
        let _ = client.publish(1, &message(qos, "x"), NOW, &mut out);
    }
    let filters = [Subscription::new("#", QoS::AtMostOnce)];
    let subscribed = client.subscribe(1, &filters, SubscribeProperties::default(), NOW, &mut out);
    let unsubscribed =
        client.unsubscribe(1, &["#".into()], UnsubscribeProperties::default(), NOW, &mut out);
    assert_eq!(
        (subscribed, unsubscribed),
        (Err(RequestError::NotConnected), Err(RequestError::NotConnected))
    );
    assert!(client.authenticate(&Auth::default(), NOW, &mut out).is_err());
    out
}

/// [5.0 MQTT-3.1.0-1] [3.1.1 MQTT-3.1.0-1] [5.0 MQTT-3.14.4-1] [3.1.1 MQTT-3.14.4-2]
#[test]
fn client_writes_nothing_before_connect_before_connack_or_after_disconnect() {
    for version in VERSIONS {
        let again = |client: &mut Client| {
            let mut out = Vec::new();
            let ended = client.disconnect(&Disconnect::default(), NOW, &mut out);
            assert_eq!((ended, out.len()), (Err(RequestError::NotConnected), 0));
            assert_eq!((client.handle_timeout(after(1_000), &mut out), out.len()), (None, 0));
        };
        let mut client = Client::new(ClientConfig::new());
        assert_eq!(says(&mut client), [0; 0], "before CONNECT");
        again(&mut client);
        let mut out = Vec::new();
        client.connect(&lasting(version), NOW, &mut out).unwrap();
        assert_eq!(packets(&out, version), [lasting(version).into()]);
        assert_eq!(says(&mut client), [0; 0], "before CONNACK");
        let _ = client.connection_lost();
        assert_eq!(says(&mut client), [0; 0], "after the end");
        again(&mut client);

        let mut client = connected(&lasting(version), ConnackProperties::default());
        out.clear();
        client.disconnect(&Disconnect::default(), NOW, &mut out).unwrap();
        assert_eq!((out, says(&mut client)), (vec![0xE0, 0], vec![]));
        assert_eq!(
            client.disconnect(&Disconnect::default(), NOW, &mut Vec::new()),
            Err(RequestError::NotConnected)
        );
    }
}

/// [5.0 MQTT-3.14.4-1] [5.0 MQTT-3.14.4-2] [3.1.1 MQTT-3.14.4-1] [3.1.1 MQTT-3.14.4-2]
#[test]
fn client_closes_and_ignores_input_after_its_disconnect() {
    let closed = client::Action::Closed(CloseCause::Requested);
    for version in VERSIONS {
        let disconnected = || {
            let mut client = connected(&lasting(version), ConnackProperties::default());
            client.disconnect(&Disconnect::default(), NOW, &mut Vec::new()).unwrap();
            assert!(!client.is_connected() && !client.wants_input());
            assert!(
                client.poll_timeout().is_some_and(|at| at <= NOW),
                "the host gets a report at once"
            );
            client
        };
        let late = encoded(
            Publish { packet_identifier: Some(identifier(1)), ..message(QoS::AtLeastOnce, "late") },
            version,
        );
        // The next call, whichever it is, reports the end, once.
        let mut client = disconnected();
        assert_eq!(client.hears(&late), (vec![closed.clone()], vec![]));
        assert_eq!(client.connection_lost(), None);
        let mut client = disconnected();
        assert_eq!(client.handle_timeout(NOW, &mut Vec::new()), Some(closed.clone()));
        assert_eq!(client.hears(&late), (vec![], vec![]));
        let mut client = disconnected();
        assert_eq!(client.connection_lost(), Some(closed.clone()));
        assert_eq!((client.hears(&late), client.poll_timeout()), ((vec![], vec![]), None));
    }
}

/// [5.0 MQTT-3.14.4-1] [5.0 MQTT-4.3.2-4]
#[test]
fn server_acknowledges_received_messages_before_it_disconnects() {
    for version in VERSIONS {
        for (qos, answer) in [
            (QoS::AtLeastOnce, ack(Packet::Puback, 1, version)),
            (QoS::ExactlyOnce, ack(Packet::Pubrec, 1, version)),
        ] {
            let mut server = accepted(&lasting(version));
            let bytes = encoded(
                Publish { packet_identifier: Some(identifier(1)), ..message(qos, "x") },
                version,
            );
            let mut out = Vec::new();
            assert!(matches!(
                server.handle_input(&mut &bytes[..], NOW, &mut out),
                Some(server::Action::Message(_))
            ));
            server
                .disconnect(&Disconnect::new(ReasonCode::SERVER_SHUTTING_DOWN), NOW, &mut out)
                .unwrap();
            let farewell = if version == V5_0 { &[0xE0, 2, 0x8B, 0][..] } else { &[] };
            assert_eq!(out, [&answer, farewell].concat());
            assert_eq!(
                server.disconnect(&Disconnect::default(), NOW, &mut out),
                Err(AnswerError::NotAsked)
            );
            let closed =
                server::Action::Closed { cause: CloseCause::Requested, publish_will: true };
            assert_eq!(server.hears(&encoded(Packet::Pingreq, version)), (vec![closed], vec![]));
        }
    }
}

/// [5.0 §3.14.2] [5.0 MQTT-3.14.4-3]
#[test]
fn disconnect_arrives_with_its_properties() {
    let mut connect = lasting(V5_0);
    connect.properties.session_expiry_interval = Some(10);
    let (mut client, mut server) =
        (connected(&connect, ConnackProperties::default()), accepted(&connect));
    let user = [UserProperty::new("name", "value")];
    let properties = DisconnectProperties {
        session_expiry_interval: Some(0),
        reason_string: Some("bye".into()),
        user_properties: user.as_slice().into(),
        ..DisconnectProperties::default()
    };
    let farewell = Disconnect { reason_code: ReasonCode::DISCONNECT_WITH_WILL_MESSAGE, properties };
    let mut out = Vec::new();
    client.disconnect(&farewell, NOW, &mut out).unwrap();
    let closed =
        server::Action::Closed { cause: CloseCause::Disconnected(farewell), publish_will: true };
    assert_eq!(server.hears(&out), (vec![closed], vec![]));
    assert_eq!(server.session_expiry(), Expiry::AT_DISCONNECT);
}

/// [5.0 §4.11]
#[test]
fn client_reports_server_references_to_its_host() {
    let elsewhere = Some("elsewhere:1883".into());
    let properties =
        ConnackProperties { server_reference: elsewhere, ..ConnackProperties::default() };
    let mut out = Vec::new();
    asked(ServerConfig::new(), &lasting(V5_0))
        .refuse(ReasonCode::USE_ANOTHER_SERVER, properties, NOW, &mut out)
        .unwrap();
    let refusal =
        Connack { session_present: false, reason_code: ReasonCode::USE_ANOTHER_SERVER, properties };
    let closed = client::Action::Closed(CloseCause::Refused(refusal));
    assert_eq!(connecting(ClientConfig::new(), &lasting(V5_0)).hears(&out).0, [closed]);

    let properties =
        DisconnectProperties { server_reference: elsewhere, ..DisconnectProperties::default() };
    let farewell = Disconnect { reason_code: ReasonCode::SERVER_MOVED, properties };
    let mut out = Vec::new();
    accepted(&lasting(V5_0)).disconnect(&farewell, NOW, &mut out).unwrap();
    let closed = client::Action::Closed(CloseCause::Disconnected(farewell));
    assert_eq!(connected(&lasting(V5_0), ConnackProperties::default()).hears(&out).0, [closed]);
}

// ---- sessions ----

/// [5.0 MQTT-3.1.2-4] [3.1.1 MQTT-3.1.2-6]
#[test]
fn clean_start_client_refuses_session_present() {
    for version in VERSIONS {
        let mut server =
            asked(ServerConfig::new(), &Connect { clean_start: true, ..lasting(version) });
        let session = Some(Session::new());
        let mut out = Vec::new();
        let refused = server.accept(session, ConnackProperties::default(), NOW, &mut out);
        let AcceptError { error, session } = refused.unwrap_err();
        assert_eq!((error, session.is_some(), out.len()), (AnswerError::CleanStart, true, 0));
        server.accept(None, ConnackProperties::default(), NOW, &mut out).unwrap();
        assert!(matches!(packets(&out, version)[..], [Packet::Connack(connack)]
                if !connack.session_present));
    }
}

/// A client whose version is not supported is answered in its own version or the nearest one. A
/// bridge of 3.1.1 sets the highest bit of the level. [5.0 MQTT-3.1.2-2] [3.1.1 MQTT-3.1.2-2]
#[test]
fn unknown_version_is_refused_in_the_form_of_its_client() {
    let connect = |level| {
        [&[0x10, 0x0D, 0x00, 0x04][..], b"MQTT", &[level, 0x02, 0x00, 0x00, 0x00, 0x01, b'a']]
            .concat()
    };
    for level in [0, 2, 3, 6, 0x7F, 0x83, 0x84, 0xFF] {
        let refusal = if (5..0x80).contains(&level) {
            vec![0x20, 3, 0, 0x84, 0]
        } else {
            vec![0x20, 2, 0, 1]
        };
        let mut server = Server::new(ServerConfig::new(), NOW);
        let cause = CloseCause::Violation(DecodeError::UnsupportedProtocolVersion(level).into());
        let closed = server::Action::Closed { cause, publish_will: false };
        assert_eq!(server.hears(&connect(level)), (vec![closed], refusal), "{level:#x}");
    }
}

/// With `UNUSED_HEADER_FLAGS` a server accepts a CONNECT of 3.1 and 3.1.1 with any header flags.
/// [3.1 §2.1] [3.1.1 MQTT-2.2.2-2]
#[test]
fn server_ignores_unused_connect_flags_when_an_option_allows_them() {
    let v3_1 = [&[0x18, 0x0F, 0x00, 0x06][..], b"MQIsdp", &[3, 0x02, 0, 0, 0, 1, b'a']].concat();
    let v3_1_1 = [&[0x12, 0x0D, 0x00, 0x04][..], b"MQTT", &[4, 0x02, 0, 0, 0, 1, b'a']].concat();
    for (options, read) in [(Options::NONE, false), (Options::UNUSED_HEADER_FLAGS, true)] {
        for connect in [&v3_1, &v3_1_1] {
            let mut server = Server::new(ServerConfig::new().options(options), NOW);
            let (actions, _) = server.hears(connect);
            assert_eq!(matches!(actions[..], [server::Action::Connect(_)]), read, "{actions:?}");
        }
        let mut server = Server::new(ServerConfig::new().options(options), NOW);
        let (actions, _) = server.hears(b"GET / HTTP/1.1");
        assert!(matches!(
            actions[..],
            [server::Action::Closed {
                cause: CloseCause::Violation(ProtocolError::NotConnect),
                ..
            }]
        ));
    }
}

/// An oversized CONNECT is answered in the form of its version, unless its protocol is not MQTT.
/// [5.0 MQTT-3.1.2-1]
#[test]
fn server_answers_an_oversized_connect_when_its_protocol_is_mqtt() {
    for (name, answer) in [(b"MQTT", &[0x20, 3, 0, 0x95, 0][..]), (b"MQTX", &[])] {
        let connect =
            [&[0x10, 0xFF, 0xFF, 0xFF, 0x7F, 0, 4][..], name, &[5, 0x02, 0, 0, 0, 0]].concat();
        let (actions, out) = Server::new(ServerConfig::new(), NOW).hears(&connect);
        let too_large = DecodeError::PacketTooLarge { size: 268_435_460, maximum: 131_072 };
        let cause = CloseCause::Violation(ProtocolError::Packet(too_large));
        assert_eq!(
            (actions, &out[..]),
            (vec![server::Action::Closed { cause, publish_will: false }], answer)
        );
    }
}

/// A failure becomes what the version can express, which an option extends for 3.1.
/// [3.1.1 MQTT-3.9.3-2]
#[test]
fn suback_carries_the_failures_that_its_version_has() {
    for (version, options, said) in [
        (Version::V3_1, Options::NONE, 0x00),
        (Version::V3_1, Options::SUBACK_FAILURE, 0x80),
        (Version::V3_1_1, Options::NONE, 0x80),
    ] {
        let mut server = asked(ServerConfig::new().options(options), &lasting(version));
        server.accept(None, ConnackProperties::default(), NOW, &mut Vec::new()).unwrap();
        let token = tokens(&server.hears(&[0x82, 6, 0, 1, 0, 1, b'a', 0]).0)[0];
        let mut out = Vec::new();
        server
            .suback(token, &[ReasonCode::NOT_AUTHORIZED], AckProperties::default(), NOW, &mut out)
            .unwrap();
        assert_eq!(out, [0x90, 3, 0, 1, said]);
    }
}

/// The session expiry shows in the next CONNECT of the client: messages in flight end if the server
/// cannot have the session. [5.0 §3.2.2.3.2] [5.0 §3.14.2.2.2] [5.0 MQTT-3.2.2-4]
#[test]
fn session_expiry_of_connack_and_disconnect_overrides_that_of_connect() {
    for (asked, granted, at_the_end, is_kept) in [
        (Some(100), None, None, true),
        (Some(100), Some(10), None, true),
        (Some(100), Some(0), None, false),
        (None, None, None, false),
        (None, Some(10), None, true),
        (Some(100), None, Some(0), false),
        (Some(100), Some(0), Some(10), true),
        (Some(100), Some(10), Some(0), false),
    ] {
        let mut connect = Connect::new(V5_0, "c");
        connect.properties.session_expiry_interval = asked;
        let properties =
            ConnackProperties { session_expiry_interval: granted, ..ConnackProperties::default() };
        let mut client = connected(&connect, properties);
        client.publish(1, &message(QoS::AtLeastOnce, "x"), NOW, &mut Vec::new()).unwrap();
        if at_the_end.is_some() {
            let properties = DisconnectProperties {
                session_expiry_interval: at_the_end,
                ..DisconnectProperties::default()
            };
            client
                .disconnect(
                    &Disconnect { properties, ..Disconnect::default() },
                    NOW,
                    &mut Vec::new(),
                )
                .unwrap();
        }
        let _ = client.connection_lost();
        client.connect(&connect, NOW, &mut Vec::new()).unwrap();
        assert_eq!(
            client.session().in_flight(),
            usize::from(is_kept),
            "{asked:?} {granted:?} {at_the_end:?}"
        );
        let connack = resumed(V5_0);
        let (actions, said) = client.hears(&connack);
        if is_kept {
            assert!(matches!(actions[..], [client::Action::Connected(_)]));
            assert!(matches!(packets(&said, V5_0)[..], [Packet::Publish(publish)] if publish.dup));
        } else {
            let unknown =
                client::Action::Closed(CloseCause::Violation(ProtocolError::CleanStartRequired));
            assert_eq!(actions, [unknown]);
            assert!(client.next_completed().is_some(), "the message is lost");
        }
    }
}

/// [5.0 §4.1] [3.1.1 §4.1]
#[test]
fn session_moves_to_another_machine() {
    for version in VERSIONS {
        let publish = message(QoS::ExactlyOnce, "x");
        let is_again = |packet: &Packet<'_>| match packet {
            Packet::Publish(publish) => {
                publish.dup && publish.packet_identifier == Some(identifier(1))
            }
            _ => false,
        };
        let mut client = connected(&lasting(version), ConnackProperties::default());
        client.publish(1, &publish, NOW, &mut Vec::new()).unwrap();
        let mut client = Client::with_session(ClientConfig::new(), client.into_session());
        let said = resume(&mut client, &lasting(version));
        assert!(matches!(&packets(&said, version)[..], [packet] if is_again(packet)));
        let mut out = Vec::new();
        client.publish(2, &publish, NOW, &mut out).unwrap();
        assert!(matches!(packets(&out, version)[..], [Packet::Publish(publish)]
                if publish.packet_identifier == Some(identifier(2))));

        let mut server = accepted(&lasting(version));
        server.deliver(Outgoing::new(Some(1), Message::new(&publish).unwrap()), NOW).unwrap();
        let _ = server.flush(NOW, &mut Vec::new());
        let session = Some(server.take_session());
        assert!(!server.is_connected(), "a session has one connection");
        let mut server = asked(ServerConfig::new(), &lasting(version));
        out.clear();
        server.accept(session, ConnackProperties::default(), NOW, &mut out).unwrap();
        assert!(
            matches!(&packets(&out, version)[..], [Packet::Connack(_), packet] if is_again(packet))
        );
    }
}

/// The client does not learn from a lost CONNACK that the server has the session.
/// [5.0 MQTT-3.1.2-4]
#[test]
fn lost_connack_loses_neither_the_session_nor_messages() {
    for version in VERSIONS {
        let mut pair = Pair::new(Chunks::Whole);
        pair.open(&lasting(version));
        assert!(pair.carry_packet(), "CONNECT; the CONNACK is lost");
        pair.cut();
        pair.connect(&lasting(version));
        assert!(pair.client.is_connected(), "{version} {:#?}", pair.log);
        // An exchange that the server has started, and the client has answered.
        pair.deliver(1, &message(QoS::ExactlyOnce, "old"));
        assert!(pair.carry_packet(), "PUBLISH");
        pair.cut();
        pair.open(&Connect { clean_start: true, ..lasting(version) });
        assert!(pair.carry_packet(), "CONNECT; the CONNACK is lost");
        pair.cut();
        pair.connect(&lasting(version));
        pair.deliver(2, &message(QoS::ExactlyOnce, "new"));
        pair.settle();
        assert_eq!(pair.at_client, ["old", "new"], "{version}");
    }
}

/// [5.0 MQTT-3.14.4-1] [3.1.1 MQTT-3.14.4-2]
#[test]
fn server_writes_nothing_after_disconnect() {
    let mut pair = Pair::new(Chunks::Whole);
    pair.connect(&lasting(Version::V5_0));
    pair.client(|client, now, out| client.disconnect(&Disconnect::default(), now, out)).unwrap();
    pair.publish(1, &message(QoS::AtLeastOnce, "later"));
    assert_eq!(pair.written_by_client(), [0xE0, 0x00]);
    assert_eq!(pair.client.session().queued(), 1);
    pair.deliver(2, &message(QoS::AtLeastOnce, "x"));
    let mut out = Vec::new();
    pair.server
        .disconnect(&Disconnect::new(ReasonCode::SERVER_SHUTTING_DOWN), NOW, &mut out)
        .unwrap();
    let written = out.len();
    assert!(!pair.server.flush(pair.now, &mut out));
    assert_eq!(out.len(), written);
    pair.settle();
    pair.connect(&lasting(Version::V5_0));
    assert_eq!((pair.at_server, pair.at_client), (vec!["later".to_owned()], vec!["x".to_owned()]));
}

/// [5.0 MQTT-3.2.2-4] [5.0 MQTT-3.2.2-2]
#[test]
fn client_closes_the_connection_when_it_lacks_the_session() {
    let present = Connack { session_present: true, ..Connack::default() };
    for (version, session, clean_start, accepted) in [
        (Version::V5_0, Session::new(), false, false),
        (Version::V5_0, Session::established(), false, true),
        (Version::V5_0, Session::established(), true, false),
        (Version::V3_1_1, Session::new(), false, true),
        (Version::V3_1_1, Session::new(), true, false),
    ] {
        let mut client = Client::with_session(ClientConfig::new(), session);
        let mut out = Vec::new();
        client
            .connect(&Connect { clean_start, ..lasting(version) }, Instant::default(), &mut out)
            .unwrap();
        let bytes = encoded(Packet::Connack(present), version);
        match client.handle_input(&mut &bytes[..], Instant::default(), &mut out) {
            Some(client::Action::Connected(_)) => assert!(accepted, "{version} {clean_start}"),
            Some(client::Action::Closed(CloseCause::Violation(
                ProtocolError::CleanStartRequired,
            ))) => {
                assert!(!accepted);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// [5.0 MQTT-3.1.2-2] [3.1.1 MQTT-3.1.2-2] [3.1.1 MQTT-3.1.3-8] [3.1.1 MQTT-3.1.4-1]
#[test]
fn refusal_has_the_form_of_the_requested_version() {
    let connect = |name: &str, level: u8, flags: u8, rest: &[u8]| {
        let mut body = vec![0, u8::try_from(name.len()).unwrap()];
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(&[level, flags, 0, 0]);
        body.extend_from_slice(rest);
        [&[0x10, u8::try_from(body.len()).unwrap()], &body[..]].concat()
    };
    for (bytes, answer) in [
        (connect("MQTT", 6, 2, &[0, 0, 0]), &[0x20, 0x03, 0x00, 0x84, 0x00][..]),
        (connect("MQTT", 3, 2, &[0, 0]), &[0x20, 0x02, 0x00, 0x01][..]),
        (connect("MQIsdp", 4, 2, &[0, 1, b'c']), &[0x20, 0x02, 0x00, 0x01][..]),
        (connect("MQTT", 4, 0, &[0, 0]), &[0x20, 0x02, 0x00, 0x02][..]),
        (connect("MQIsdp", 3, 2, &[0, 0]), &[0x20, 0x02, 0x00, 0x02][..]),
        (connect("MQTT", 4, 3, &[0, 1, b'c']), &[][..]),
        (connect("MQTT", 5, 3, &[0, 0, 1, b'c']), &[0x20, 0x03, 0x00, 0x81, 0x00][..]),
        (connect("HTTP", 5, 2, &[0, 0, 1, b'c']), &[][..]),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), &[][..]),
        (vec![0xC0, 0x00], &[][..]),
    ] {
        let mut server = Server::new(ServerConfig::new(), Instant::default());
        let mut out = Vec::new();
        let action = server.handle_input(&mut &bytes[..], Instant::default(), &mut out);
        assert!(
            matches!(action, Some(server::Action::Closed { publish_will: false, .. })),
            "{bytes:?} {action:?}"
        );
        assert_eq!(out, answer, "{bytes:?}");
        assert!(!server.wants_input());
    }
}

/// [5.0 §3.2.2.2] [3.1.1 MQTT-3.2.2-6]
#[test]
fn refusal_uses_the_nearest_return_code_of_the_version() {
    for (version, code, answer) in [
        (Version::V5_0, ReasonCode::BANNED, &[0x20, 0x03, 0x00, 0x8A, 0x00][..]),
        (Version::V3_1_1, ReasonCode::BANNED, &[0x20, 0x02, 0x00, 0x05][..]),
        (Version::V3_1, ReasonCode::SERVER_BUSY, &[0x20, 0x02, 0x00, 0x03][..]),
        (Version::V3_1_1, ReasonCode::BAD_USER_NAME_OR_PASSWORD, &[0x20, 0x02, 0x00, 0x04][..]),
        (Version::V3_1_1, ReasonCode::PAYLOAD_FORMAT_INVALID, &[][..]),
    ] {
        let mut server = Server::new(ServerConfig::new(), Instant::default());
        let bytes = encoded(Connect::new(version, "c"), version);
        let mut out = Vec::new();
        let following = [&bytes[..], &[0xC0, 0x00]].concat();
        let mut input = &following[..];
        assert!(matches!(
            server.handle_input(&mut input, Instant::default(), &mut out),
            Some(server::Action::Connect(_))
        ));
        assert!(server.handle_input(&mut input, Instant::default(), &mut out).is_none());
        assert!(!server.wants_input(), "the host must answer");
        server.refuse(code, ConnackProperties::default(), NOW, &mut out).unwrap();
        let action = server.handle_input(&mut input, Instant::default(), &mut out);
        assert!(matches!(
            action,
            Some(server::Action::Closed { cause: CloseCause::Requested, publish_will: false })
        ));
        assert_eq!(out, answer);
        assert_eq!(input.len(), 2, "[5.0 MQTT-3.1.4-6]: the following bytes are not read");
        // A client of that version learns the reason.
        let mut client = Client::new(ClientConfig::new());
        client.connect(&Connect::new(version, "c"), Instant::default(), &mut Vec::new()).unwrap();
        if !out.is_empty() {
            let action = client.handle_input(&mut &out[..], Instant::default(), &mut Vec::new());
            assert!(
                matches!(action, Some(client::Action::Closed(CloseCause::Refused(_)))),
                "{action:?}"
            );
        }
    }
}

/// [5.0 §3.1.2.2] [3.1.1 §3.1.2.2]
#[test]
fn client_reads_a_refusal_in_the_form_of_another_version() {
    for (version, bytes) in [
        (Version::V5_0, &[0x20, 0x02, 0x00, 0x01][..]),
        (Version::V3_1_1, &[0x20, 0x03, 0x00, 0x84, 0x00][..]),
    ] {
        let mut client = Client::new(ClientConfig::new());
        client.connect(&Connect::new(version, "c"), Instant::default(), &mut Vec::new()).unwrap();
        let action = client.handle_input(&mut &bytes[..], Instant::default(), &mut Vec::new());
        let Some(client::Action::Closed(CloseCause::Refused(connack))) = action else {
            panic!("{action:?}")
        };
        assert_eq!(connack.reason_code, ReasonCode::UNSUPPORTED_PROTOCOL_VERSION);
    }
}

/// [5.0 MQTT-3.1.0-2] [3.1.1 MQTT-3.1.0-2]
#[test]
fn second_connect_packet_closes_the_connection() {
    for version in VERSIONS {
        let mut pair = Pair::new(Chunks::Whole);
        pair.connect(&lasting(version));
        pair.forge_to_server(&encoded(lasting(version), version));
        pair.settle();
        let log = pair.take_log().join("\n");
        assert!(
            log.contains(
                "server: Closed { cause: Violation(UnexpectedPacket(Connect)), publish_will: true }"
            ),
            "{log}"
        );
    }
}

#[test]
fn client_refuses_a_second_connect_call_while_connected() {
    let mut pair = Pair::new(Chunks::Whole);
    pair.connect(&lasting(Version::V5_0));
    let again = pair.client(|client, now, out| client.connect(&lasting(Version::V5_0), now, out));
    assert_eq!(again, Err(ConnectError::InUse));
}

/// [5.0 MQTT-3.14.4-3] [5.0 MQTT-3.1.2-8] [3.1.1 MQTT-3.14.4-3]
#[test]
fn will_is_published_unless_the_client_disconnects_normally() {
    for (version, reason_code, publish_will) in [
        (Version::V3_1_1, ReasonCode::SUCCESS, false),
        (Version::V5_0, ReasonCode::SUCCESS, false),
        (Version::V5_0, ReasonCode::DISCONNECT_WITH_WILL_MESSAGE, true),
        (Version::V5_0, ReasonCode::UNSPECIFIED_ERROR, true),
    ] {
        Pair::in_all_chunks(|pair| {
            pair.connect(&lasting(version));
            pair.client(|client, now, out| {
                client.disconnect(&Disconnect::new(reason_code), now, out)
            })
            .unwrap();
            pair.settle();
            let log = pair.log.join("\n");
            assert!(
                log.contains("server: Closed { cause: Disconnected(")
                    && log.contains(&format!("publish_will: {publish_will}")),
                "{log}"
            );
        });
    }
}

/// [5.0 §3.14.2.2.2]
#[test]
fn zero_session_expiry_cannot_be_changed_by_disconnect() {
    let properties = DisconnectProperties {
        session_expiry_interval: Some(10),
        ..DisconnectProperties::default()
    };
    let farewell = Disconnect { properties, ..Disconnect::default() };
    Pair::in_all_chunks(|pair| {
        pair.connect(&Connect::new(Version::V5_0, "c"));
        assert!(pair.client(|client, now, out| client.disconnect(&farewell, now, out)).is_err());
        pair.forge_to_server(&encoded(farewell, Version::V5_0));
        pair.settle();
        let log = pair.take_log().join("\n");
        assert!(
            log.contains(
                "server: Closed { cause: Violation(SessionExpiryInterval), publish_will: true }"
            ),
            "{log}"
        );
    });
}

#[test]
fn client_closes_the_connection_when_the_server_is_not_mqtt() {
    for bytes in [
        &b"HTTP/1.1 400 Bad Request\r\n"[..],
        b"SSH-2.0-OpenSSH_9.2\r\n",
        &[0x30, 0xFF, 0xFF, 0xFF, 0x7F],
    ] {
        let mut client = Client::new(ClientConfig::new());
        client.connect(&lasting(Version::V5_0), Instant::default(), &mut Vec::new()).unwrap();
        let action = client.handle_input(&mut &bytes[..1], Instant::default(), &mut Vec::new());
        assert!(matches!(
            action,
            Some(client::Action::Closed(CloseCause::Violation(ProtocolError::NotConnack)))
        ));
    }
}

#[test]
fn disconnect_call_acknowledges_received_messages_first() {
    let mut pair = Pair::new(Chunks::Whole);
    pair.connect(&lasting(Version::V3_1_1));
    pair.deliver(1, &message(QoS::AtLeastOnce, "x"));
    let bytes = pair.written_by_server();
    let mut out = Vec::new();
    assert!(pair.client.handle_input(&mut &bytes[..], pair.now, &mut out).is_some());
    pair.client.disconnect(&Disconnect::default(), pair.now, &mut out).unwrap();
    assert_eq!(out, [0x40, 0x02, 0x00, 0x01, 0xE0, 0x00]);
}

/// A server that has refused a client has no session for it. [5.0 MQTT-3.2.2-4]
/// [3.1.1 MQTT-3.1.2-4]
#[test]
fn refused_client_has_only_the_session_it_had_before() {
    for (clean_start, had_session) in [(false, false), (true, false), (true, true), (false, true)] {
        let mut client = if had_session {
            connected(&lasting(V5_0), ConnackProperties::default())
        } else {
            Client::new(ClientConfig::new())
        };
        let _ = client.connection_lost();
        client.connect(&Connect { clean_start, ..lasting(V5_0) }, NOW, &mut Vec::new()).unwrap();
        let busy = Connack { reason_code: ReasonCode::SERVER_BUSY, ..Connack::default() };
        let refusal = encoded(busy, V5_0);
        assert!(matches!(
            client.hears(&refusal).0[..],
            [client::Action::Closed(CloseCause::Refused(_))]
        ));
        client.connect(&lasting(V5_0), NOW, &mut Vec::new()).unwrap();
        let connack = resumed(V5_0);
        let (actions, _) = client.hears(&connack);
        let resumes = matches!(actions[..], [client::Action::Connected(_)]);
        let closes = actions
            == [client::Action::Closed(CloseCause::Violation(ProtocolError::CleanStartRequired))];
        assert_eq!(
            (resumes, closes),
            (had_session && !clean_start, !had_session || clean_start),
            "{actions:?}"
        );
    }
}

/// [5.0 MQTT-3.1.3-7] [5.0 MQTT-3.2.2-16]
#[test]
fn server_cannot_accept_without_an_identifier_or_refuse_with_success() {
    let mut out = Vec::new();
    let nameless = Connect { clean_start: true, ..Connect::new(V5_0, "") };
    let mut server = asked(ServerConfig::new(), &nameless);
    let named = |name| ConnackProperties {
        assigned_client_identifier: Some(Text::from(name)),
        ..ConnackProperties::default()
    };
    for properties in [ConnackProperties::default(), named("")] {
        assert_eq!(
            server.accept(None, properties, NOW, &mut out).map_err(|refused| refused.error),
            Err(AnswerError::ClientIdentifier)
        );
    }
    assert_eq!(out, b"");
    server.accept(None, named("chosen"), NOW, &mut out).unwrap();
    // Before 5.0 no identifier can be assigned in CONNACK.
    let nameless = Connect { clean_start: true, ..Connect::new(Version::V3_1_1, "") };
    asked(ServerConfig::new(), &nameless)
        .accept(None, ConnackProperties::default(), NOW, &mut out)
        .unwrap();
    out.clear();
    for code in [ReasonCode::SUCCESS, ReasonCode::GRANTED_QOS_1] {
        let mut server = asked(ServerConfig::new(), &lasting(V5_0));
        assert_eq!(
            server.refuse(code, ConnackProperties::default(), NOW, &mut out),
            Err(AnswerError::ReasonCode(code))
        );
        assert_eq!(
            (server.hears(b"").0.len(), out.len()),
            (1, 0),
            "the connection has ended without a packet"
        );
    }
}
