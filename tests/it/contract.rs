//! The guarantees to a host, whatever the peer does: outcomes, identifiers, deadlines, and outputs
//! with limited room.

use core::iter::repeat_n;
use core::time::Duration;
use mqtt_sansio::Instant;
use mqtt_sansio::client::{self, Client, ClientConfig, ConnectError};
use mqtt_sansio::codec::{
    Ack, AckProperties, Auth, AuthProperties, Connack, ConnackProperties, Connect, Disconnect,
    Fixed, Packet, PacketType, Publish, PublishProperties, QoS, ReasonCode, Subscribe,
    SubscribeProperties, Subscription, SubscriptionIdentifier, Text, UnsubscribeProperties,
    Version,
};
use mqtt_sansio::server::{self, Server, ServerConfig};
use mqtt_sansio::session::{
    Acknowledgement, CloseCause, Message, Outcome, Outgoing, ProtocolError, QueueLimit, Session,
};
use testkit::machine::{Hears, NOW, accepted, asked, connected, connecting, resume, resumed};
use testkit::wire::{VERSIONS, ack, encoded, identifier, lasting, message, packets, subscribe};

const V5_0: Version = Version::V5_0;

fn after(seconds: u64) -> Instant {
    NOW + Duration::from_secs(seconds)
}

fn violation<'a>(error: ProtocolError) -> client::Action<'a> {
    client::Action::Closed(CloseCause::Violation(error))
}

// ---- sessions and identifiers ----

/// [5.0 MQTT-3.2.2-4]
#[test]
fn restarted_client_can_set_clean_start_by_itself() {
    for recovers in [false, true] {
        let config = ClientConfig::new().clean_start_when_required(recovers);
        let mut client = connecting(config, &lasting(V5_0));
        let closed = violation(ProtocolError::CleanStartRequired);
        let connack = resumed(V5_0);
        assert_eq!(client.hears(&connack), (vec![closed], vec![0xE0, 2, 0x82, 0]));
        let mut out = Vec::new();
        client.connect(&lasting(V5_0), NOW, &mut out).unwrap();
        let [Packet::Connect(connect)] = packets(&out, V5_0)[..] else { panic!("{out:?}") };
        assert_eq!(connect.clean_start, recovers);
        // After a success the host decides again.
        client.hears(&encoded(Connack::default(), V5_0));
        let _ = client.connection_lost();
        out.clear();
        client.connect(&lasting(V5_0), NOW, &mut out).unwrap();
        let [Packet::Connect(connect)] = packets(&out, V5_0)[..] else { panic!("{out:?}") };
        assert!(!connect.clean_start);
    }
}

/// [5.0 MQTT-3.1.3-2] [3.1.1 MQTT-3.1.3-2]
#[test]
fn connect_refuses_another_client_identifier_and_keeps_the_session() {
    for version in VERSIONS {
        let mut client = connected(&lasting(version), ConnackProperties::default());
        client.publish(1, &message(QoS::AtLeastOnce, "x"), NOW, &mut Vec::new()).unwrap();
        let _ = client.connection_lost();
        for clean_start in [false, true] {
            let mut out = Vec::new();
            let other =
                Connect { client_identifier: "other".into(), clean_start, ..lasting(version) };
            let refused = client.connect(&other, NOW, &mut out);
            assert_eq!((refused, out), (Err(ConnectError::ClientIdentifier), vec![]));
        }
        assert_eq!(client.session().in_flight(), 1);
        let bytes = client.into_session().to_bytes(NOW);
        let session = Session::from_bytes(&bytes, NOW, Duration::ZERO).unwrap();
        let mut loaded = Client::with_session(ClientConfig::new(), session);
        let other = Connect { client_identifier: "other".into(), ..lasting(version) };
        let refused = loaded.connect(&other, NOW, &mut Vec::new());
        assert_eq!(refused, Err(ConnectError::ClientIdentifier));
        loaded.connect(&lasting(version), NOW, &mut Vec::new()).unwrap();
    }
}

/// [5.0 MQTT-3.1.3-7]
#[test]
fn session_adopts_the_assigned_client_identifier() {
    let nameless = Connect { client_identifier: "".into(), ..lasting(V5_0) };
    let assigned = ConnackProperties {
        assigned_client_identifier: Some("auto-7".into()),
        ..ConnackProperties::default()
    };
    let mut client = connected(&nameless, assigned);
    assert_eq!(client.session().client_identifier(), Some("auto-7"));
    client.publish(1, &message(QoS::AtLeastOnce, "x"), NOW, &mut Vec::new()).unwrap();
    let _ = client.connection_lost();
    let named = Connect { client_identifier: "auto-7".into(), ..lasting(V5_0) };
    client.connect(&named, NOW, &mut Vec::new()).unwrap();
    assert_eq!(client.session().in_flight(), 1, "the session is resumed");
    let _ = client.connection_lost();
    // Without an identifier the server gives another one, and the session is another one.
    client.connect(&nameless, NOW, &mut Vec::new()).unwrap();
    assert_eq!((client.session().in_flight(), client.session().client_identifier()), (0, None));
}

/// [5.0 MQTT-3.2.2-4]
#[test]
fn connect_without_identifier_or_answer_establishes_no_session() {
    let nameless = Connect { client_identifier: "".into(), ..lasting(V5_0) };
    let mut client = connecting(ClientConfig::new(), &nameless);
    let _ = client.connection_lost();
    client.connect(&lasting(V5_0), NOW, &mut Vec::new()).unwrap();
    let connack = resumed(V5_0);
    assert_eq!(client.hears(&connack).0, [violation(ProtocolError::CleanStartRequired)]);
}

/// [5.0 MQTT-3.1.3-7] [5.0 §3.1.2.11.6] [5.0 §4.13.1]
#[test]
fn client_closes_when_connack_lacks_an_identifier_or_has_unrequested_information() {
    let nameless = Connect { client_identifier: "".into(), ..lasting(V5_0) };
    let information = ConnackProperties {
        response_information: Some("r/".into()),
        ..ConnackProperties::default()
    };
    for (connect, properties, error) in [
        (nameless, ConnackProperties::default(), ProtocolError::NoAssignedClientIdentifier),
        (lasting(V5_0), information, ProtocolError::ResponseInformation),
    ] {
        let mut client = connecting(ClientConfig::new(), &connect);
        let connack = encoded(Connack { properties, ..Connack::default() }, V5_0);
        assert_eq!(client.hears(&connack), (vec![violation(error)], vec![0xE0, 2, 0x82, 0]));
    }
    let mut connect = lasting(V5_0);
    connect.properties.request_response_information = Some(true);
    connected(&connect, information);
}

// ---- outcomes ----

/// Each request ends once, and before the end of the connection.
#[test]
fn unanswered_requests_are_reported_as_lost_before_the_end() {
    type End = fn(&mut Client) -> Vec<client::Action<'static>>;
    fn all(
        mut next: impl FnMut() -> Option<client::Action<'static>>,
    ) -> Vec<client::Action<'static>> {
        core::iter::from_fn(&mut next).collect()
    }
    let ends: [(End, CloseCause<'static>); 4] = [
        (|client| all(|| client.connection_lost()), CloseCause::ConnectionLost),
        (
            |client| {
                client.disconnect(&Disconnect::default(), NOW, &mut Vec::new()).unwrap();
                all(|| client.handle_input(&mut &[][..], NOW, &mut Vec::new()))
            },
            CloseCause::Requested,
        ),
        (
            |client| {
                // A DISCONNECT of the server stays in the input until it is reported.
                let mut input = &[0xE0, 1, 0x8B][..];
                all(|| client.handle_input(&mut input, NOW, &mut Vec::new()))
            },
            CloseCause::Disconnected(Disconnect::new(ReasonCode::SERVER_SHUTTING_DOWN)),
        ),
        (
            |client| {
                assert!(client.handle_timeout(after(10), &mut Vec::new()).is_none(), "PINGREQ");
                all(|| client.handle_timeout(after(20), &mut Vec::new()))
            },
            CloseCause::KeepAliveTimeout,
        ),
    ];
    for (end, cause) in ends {
        let connect = Connect { keep_alive: 10, ..lasting(V5_0) };
        let mut client = connected(&connect, ConnackProperties::default());
        let mut out = Vec::new();
        let subscriptions = [Subscription::new("a", QoS::AtMostOnce)];
        let properties = SubscribeProperties::default();
        client.subscribe(7, &subscriptions, properties, NOW, &mut out).unwrap();
        client.publish(1, &message(QoS::AtLeastOnce, "x"), NOW, &mut out).unwrap();
        let properties = UnsubscribeProperties::default();
        client.unsubscribe(8, &[Text::from("a")], properties, NOW, &mut out).unwrap();
        let expected = [
            client::Action::RequestLost(7),
            client::Action::RequestLost(8),
            client::Action::Closed(cause),
        ];
        assert_eq!(end(&mut client), expected);
        assert!(client.connection_lost().is_none(), "nothing follows");
        assert_eq!(client.session().in_flight(), 1);
    }
}

/// A message waits for the connection that sends it, which judges it.
#[test]
fn publish_waits_for_the_next_connection_and_is_judged_by_it() {
    let mut client = Client::new(ClientConfig::new());
    let mut out = Vec::new();
    let properties = PublishProperties { content_type: Some("x".into()), ..Default::default() };
    let typed = Publish { properties, ..message(QoS::AtLeastOnce, "typed") };
    client.publish(1, &typed, NOW, &mut out).unwrap();
    client.publish(2, &message(QoS::ExactlyOnce, "exactly once"), NOW, &mut out).unwrap();
    let aliased = PublishProperties { topic_alias: Some(9), ..Default::default() };
    let aliased = Publish { properties: aliased, ..message(QoS::AtMostOnce, "aliased") };
    client.publish(3, &aliased, NOW, &mut out).unwrap();
    assert!(out.is_empty(), "nothing is written without a connection");
    // 3.1.1 has no properties, so they are left out.
    client.connect(&lasting(Version::V3_1_1), NOW, &mut out).unwrap();
    let (_, said) = client.hears(&[0x20, 2, 0, 0]);
    let sent = packets(&said, Version::V3_1_1);
    let payloads: Vec<_> = sent
        .iter()
        .map(|packet| match packet {
            Packet::Publish(publish) => publish.payload,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(payloads, [&b"typed"[..], b"exactly once", b"aliased"]);
    // A server without QoS 2 refuses the second one: on a new session, so that it waits again.
    let mut client = Client::new(ClientConfig::new());
    client.publish(2, &message(QoS::ExactlyOnce, "exactly once"), NOW, &mut out).unwrap();
    client.connect(&lasting(V5_0), NOW, &mut out).unwrap();
    let properties =
        ConnackProperties { maximum_qos: Some(QoS::AtLeastOnce), ..Default::default() };
    let connack = encoded(Connack { properties, ..Connack::default() }, V5_0);
    let (actions, said) = client.hears(&connack);
    let [client::Action::Connected(_), client::Action::Published(published)] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert!(published.key == 2 && matches!(published.outcome, Outcome::NotAllowed(_)));
    assert!(said.is_empty());
}

#[test]
fn lost_messages_are_reported_after_connected() {
    for clean_start in [false, true] {
        let mut client = connected(&lasting(V5_0), ConnackProperties::default());
        client.publish(1, &message(QoS::AtLeastOnce, "x"), NOW, &mut Vec::new()).unwrap();
        let _ = client.connection_lost();
        let connect = Connect { clean_start, ..lasting(V5_0) };
        client.connect(&connect, NOW, &mut Vec::new()).unwrap();
        assert!(client.hears(b"").0.is_empty(), "nothing before CONNACK");
        let connack = encoded(Connack::default(), V5_0);
        let (actions, _) = client.hears(&connack);
        assert!(matches!(
            &actions[..],
            [client::Action::Connected(_), client::Action::Published(lost)]
                if matches!(lost.outcome, Outcome::SessionLost(Some(_)))
        ));
    }
}

/// Returns a message that expires at once, with QoS 1.
fn now_or_never() -> Outgoing {
    let properties =
        PublishProperties { message_expiry_interval: Some(0), ..PublishProperties::default() };
    let publish = Publish { properties, ..message(QoS::AtLeastOnce, "now or never") };
    Outgoing { expires_at: Some(NOW), ..Outgoing::new(Some(1), Message::new(&publish).unwrap()) }
}

/// [5.0 MQTT-3.3.2-5] [5.0 §3.3.2.3.3]
#[test]
fn message_with_expiry_interval_0_is_sent_when_nothing_waits_before_it() {
    for waits in [false, true] {
        let mut server = accepted(&lasting(V5_0));
        if waits {
            let before = Message::new(&message(QoS::AtLeastOnce, "before")).unwrap();
            server.deliver(Outgoing::new(None, before), NOW).unwrap();
        }
        server.deliver(now_or_never(), NOW).unwrap();
        let mut out = Vec::new();
        let _ = server.flush(after(1), &mut out);
        assert_eq!(packets(&out, V5_0).len(), 1, "one of the two is sent");
        let (actions, _) = server.hears_at(b"", after(1));
        assert_eq!(actions.len(), usize::from(waits), "an expired message has an outcome");
    }
}

/// [5.0 MQTT-3.3.2-5]
#[test]
fn message_with_expiry_interval_0_expires_when_the_connection_ends() {
    let mut server = accepted(&lasting(V5_0));
    server.deliver(now_or_never(), NOW).unwrap();
    let session = server.take_session();
    let mut next = asked(ServerConfig::new(), &lasting(V5_0));
    let mut out = Vec::new();
    next.accept(Some(session), ConnackProperties::default(), NOW, &mut out).unwrap();
    assert!(matches!(packets(&out, V5_0)[..], [Packet::Connack(_)]));
    let (actions, _) = next.hears(b"");
    assert!(matches!(&actions[..], [server::Action::Published(published)]
        if published.outcome == Outcome::Expired));
}

// ---- limits ----

/// [5.0 §3.3.4] [5.0 §3.4.2.1]
#[test]
fn refused_messages_count_towards_the_receive_maximum() {
    let config = ServerConfig::new().receive_maximum(3).manual_acknowledgement(true);
    let mut server = asked(config, &lasting(V5_0));
    server.accept(None, ConnackProperties::default(), NOW, &mut Vec::new()).unwrap();
    // A message that the host does not acknowledge, and a request that it does not answer.
    let first = b"\x32\x06\0\x01a\0\x01\0";
    assert_eq!(server.hears(first).0.len(), 1);
    assert_eq!(server.hears(&subscribe(2, "a", QoS::AtMostOnce, V5_0)).0.len(), 1);
    let refused = b"\x32\x06\0\x01a\0\x02\0";
    assert_eq!(server.hears(refused), (vec![], vec![]));
    assert_eq!(server.hears(refused), (vec![], vec![]));
    let cause = CloseCause::Violation(ProtocolError::ReceiveMaximumExceeded);
    let (actions, _) = server.hears(refused);
    assert_eq!(actions, [server::Action::Closed { cause, publish_will: true }]);
}

#[test]
fn queue_limit_counts_subscription_identifiers() {
    let limit = QueueLimit { messages: 1_000, bytes: 1_000 };
    let message = Message::new(&message(QoS::AtMostOnce, "x")).unwrap();
    let outgoing = Outgoing {
        subscription_identifiers: repeat_n(SubscriptionIdentifier::MAX, 100).collect(),
        ..Outgoing::new(None, message)
    };
    assert!(outgoing.size() >= 400);
    let mut session = Session::new();
    let queued = (0..100).filter(|_| session.enqueue(outgoing.clone(), limit, NOW).is_ok()).count();
    assert_eq!(queued, 2);
    assert_eq!(session.queued_bytes(), 2 * outgoing.size());
}

/// Outcomes are reported by steps, and a host can flush without taking any.
#[test]
fn unreported_outcomes_are_bounded_by_the_queue_limit() {
    let config = ServerConfig::new().maximum_queued(100, 10_000);
    let mut server = asked(config, &lasting(V5_0));
    server.accept(None, ConnackProperties::default(), NOW, &mut Vec::new()).unwrap();
    let message = Message::new(&message(QoS::AtLeastOnce, "x")).unwrap();
    let deliver = |server: &mut Server, key| {
        let outgoing =
            Outgoing { expires_at: Some(NOW), ..Outgoing::new(Some(key), message.clone()) };
        let is_queued = server.deliver(outgoing, NOW).is_ok();
        let _ = server.flush(NOW, &mut Vec::new());
        is_queued
    };
    assert_eq!((0..1_000).filter(|key| deliver(&mut server, *key)).count(), 100);
    assert_eq!(server.hears(b"").0.len(), 100);
    assert!(deliver(&mut server, 1_000));
}

#[test]
fn client_has_a_finite_window_without_a_stated_receive_maximum() {
    for (version, window) in [(Version::V3_1_1, 20), (V5_0, 1_024)] {
        let config = ClientConfig::new().maximum_queued(5_000, usize::MAX);
        let mut client = connecting(config, &lasting(version));
        client.hears(&encoded(Connack::default(), version));
        for key in 0..2_000 {
            client.publish(key, &message(QoS::AtLeastOnce, "x"), NOW, &mut Vec::new()).unwrap();
        }
        assert_eq!(client.session().in_flight(), window, "{version}");
    }
    let properties =
        ConnackProperties { receive_maximum: Some(2_000), ..ConnackProperties::default() };
    let mut client = connected(&lasting(V5_0), properties);
    for key in 0..2_000 {
        client.publish(key, &message(QoS::AtLeastOnce, "x"), NOW, &mut Vec::new()).unwrap();
    }
    assert_eq!(client.session().in_flight(), 2_000, "a stated Receive Maximum is used");
}

// ---- time ----

#[test]
fn host_that_does_not_answer_in_time_ends_the_connection() {
    let config = ServerConfig::new().answer_timeout(Duration::from_secs(5));
    for (version, said) in
        [(Version::V3_1_1, vec![0x20, 2, 0, 3]), (V5_0, vec![0x20, 3, 0, 0x88, 0])]
    {
        let mut server = asked(config.clone(), &lasting(version));
        assert_eq!(server.poll_timeout(), Some(after(5)));
        assert_eq!(server.handle_timeout(after(4), &mut Vec::new()), None);
        let mut out = Vec::new();
        let closed = server.handle_timeout(after(5), &mut out);
        let cause = CloseCause::AnswerTimeout;
        assert_eq!(closed, Some(server::Action::Closed { cause, publish_will: false }));
        assert_eq!(out, said, "{version}");
    }
    let method = AuthProperties { authentication_method: Some("M".into()), ..Default::default() };
    let mut connect = lasting(V5_0);
    connect.properties.authentication_method = method.authentication_method;
    let auth = |reason_code| Auth { reason_code, properties: method };
    // A re-authentication.
    let mut server = asked(config, &connect);
    server.accept(None, ConnackProperties::default(), NOW, &mut Vec::new()).unwrap();
    assert_eq!(server.hears(&encoded(auth(ReasonCode::RE_AUTHENTICATE), V5_0)).0.len(), 1);
    let mut out = Vec::new();
    let closed = server.handle_timeout(after(5), &mut out);
    assert!(matches!(
        closed,
        Some(server::Action::Closed { cause: CloseCause::AnswerTimeout, publish_will: true })
    ));
    assert_eq!(packets(&out, V5_0), [Disconnect::new(ReasonCode::SERVER_BUSY).into()]);
    // A client whose host owes an AUTH.
    let config = ClientConfig::new().answer_timeout(Duration::from_secs(5));
    let mut client = connecting(config, &connect);
    client.hears(&encoded(auth(ReasonCode::CONTINUE_AUTHENTICATION), V5_0));
    assert_eq!(client.poll_timeout(), Some(after(5)));
    let closed = client.handle_timeout(after(5), &mut Vec::new());
    assert_eq!(closed, Some(client::Action::Closed(CloseCause::AnswerTimeout)));
}

#[test]
fn clock_that_steps_back_is_treated_as_standing_still() {
    let connect = Connect { keep_alive: 10, ..lasting(V5_0) };
    let mut server = accepted(&connect);
    server.hears_at(&[0xC0, 0], after(8));
    server.hears_at(&[0xC0, 0], NOW);
    assert_eq!(server.poll_timeout(), Some(after(23)), "the deadline does not move back");
    let mut client = connected(&connect, ConnackProperties::default());
    client.hears_at(&[0xD0, 0], after(8));
    client.publish(1, &message(QoS::AtMostOnce, "x"), after(8), &mut Vec::new()).unwrap();
    client.publish(1, &message(QoS::AtMostOnce, "x"), NOW, &mut Vec::new()).unwrap();
    client.hears_at(&[0xD0, 0], NOW);
    assert_eq!(client.poll_timeout(), Some(after(18)));
}

/// The packets that fill the output keep the connection alive.
#[test]
fn ping_without_room_is_sent_one_interval_later() {
    let connect = Connect { keep_alive: 10, ..lasting(V5_0) };
    let mut client = connected(&connect, ConnackProperties::default());
    assert_eq!(client.handle_timeout(after(10), &mut Fixed::new(&mut [])), None);
    assert_eq!(client.poll_timeout(), Some(after(20)));
    let mut out = Vec::new();
    assert_eq!(client.handle_timeout(after(20), &mut out), None);
    assert_eq!(out, [0xC0, 0]);
    let closed = client.handle_timeout(after(30), &mut out);
    assert_eq!(closed, Some(client::Action::Closed(CloseCause::KeepAliveTimeout)));
}

// ---- answers and outputs ----

/// [5.0 §3.4.2.2] [5.0 MQTT-3.1.2-29]
#[test]
fn acknowledgement_carries_a_reason_string_to_clients_that_want_it() {
    let properties =
        AckProperties { reason_string: Some("disk is full".into()), ..AckProperties::default() };
    let refusal = Acknowledgement { reason_code: ReasonCode::QUOTA_EXCEEDED, properties };
    for (wanted, version) in [(true, V5_0), (false, V5_0), (true, Version::V3_1_1)] {
        let mut connect = lasting(version);
        if version == V5_0 {
            connect.properties.request_problem_information = Some(wanted);
        }
        let config = ServerConfig::new().manual_acknowledgement(true);
        let mut server = asked(config, &connect);
        server.accept(None, ConnackProperties::default(), NOW, &mut Vec::new()).unwrap();
        let publish = |number| {
            let identifier = mqtt_sansio::codec::PacketIdentifier::new(number);
            let publish = message(QoS::AtLeastOnce, "x");
            encoded(Publish { packet_identifier: identifier, ..publish }, version)
        };
        let input = [publish(1), publish(2)].concat();
        let (actions, _) = server.hears(&input);
        let tokens: Vec<_> = actions
            .iter()
            .map(|action| match action {
                server::Action::Message(message) => message.token.unwrap(),
                other => panic!("{other:?}"),
            })
            .collect();
        // The second one is decided first, and waits for its turn with its reason string.
        let mut out = Vec::new();
        server.acknowledge(tokens[1], refusal, NOW, &mut out).unwrap();
        assert!(out.is_empty());
        server.acknowledge(tokens[0], ReasonCode::SUCCESS, NOW, &mut out).unwrap();
        let sent = packets(&out, version);
        let [Packet::Puback(_), Packet::Puback(Ack { reason_code, properties, .. })] = &sent[..]
        else {
            panic!("{sent:?}")
        };
        let says = (version == V5_0, wanted && version == V5_0);
        assert_eq!((reason_code.is_error(), properties.reason_string.is_some()), says);
    }
}

/// A machine writes to an output of a fixed size, and loses nothing.
#[test]
fn machines_exchange_everything_over_outputs_of_64_bytes() {
    let mut client = Client::new(ClientConfig::new());
    let mut server = Server::new(ServerConfig::new(), NOW);
    let (mut up, mut down) = ([0; 64], [0; 64]);
    let (mut up, mut down) = (Fixed::new(&mut up), Fixed::new(&mut down));
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    client.connect(&lasting(V5_0), NOW, &mut up).unwrap();
    for key in 1..=20 {
        let qos = if key % 2 == 0 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
        client
            .publish(key, &message(qos, "a payload of some length"), NOW, &mut Vec::new())
            .unwrap();
    }
    let (mut at_server, mut done, mut at_client) = (0, Vec::new(), 0);
    for _ in 0..2_000 {
        to_server.extend_from_slice(up.written());
        up.clear();
        let mut input = &to_server[..];
        while let Some(action) = server.handle_input(&mut input, NOW, &mut down) {
            match action {
                server::Action::Connect(_) => {
                    server.accept(None, ConnackProperties::default(), NOW, &mut down).unwrap();
                    for _ in 0..20 {
                        let message = message(QoS::ExactlyOnce, "and one back");
                        let outgoing = Outgoing::new(None, Message::new(&message).unwrap());
                        server.deliver(outgoing, NOW).unwrap();
                    }
                }
                server::Action::Message(_) => at_server += 1,
                other => panic!("{other:?}"),
            }
        }
        let left = input.len();
        to_server.drain(..to_server.len() - left);
        let _ = server.flush(NOW, &mut down);
        to_client.extend_from_slice(down.written());
        down.clear();
        let mut input = &to_client[..];
        while let Some(action) = client.handle_input(&mut input, NOW, &mut up) {
            match action {
                client::Action::Message(_) => at_client += 1,
                client::Action::Published(published) => done.push(published.key),
                client::Action::Connected(_) => {}
                other => panic!("{other:?}"),
            }
        }
        let left = input.len();
        to_client.drain(..to_client.len() - left);
    }
    done.sort_unstable();
    assert_eq!(done, (1..=20).collect::<Vec<_>>());
    assert_eq!((at_server, at_client), (20, 20));
    assert_eq!((client.session().in_flight(), server.session().in_flight()), (0, 0));
}

/// A reason string is left out rather than waited for: the acknowledgement is what the peer needs.
#[test]
fn acknowledgement_omits_a_reason_string_when_the_output_lacks_room() {
    for size in [16, 20, 64, 128] {
        let config = ServerConfig::new().manual_acknowledgement(true);
        let mut server = asked(config, &lasting(V5_0));
        server.accept(None, ConnackProperties::default(), NOW, &mut Vec::new()).unwrap();
        let publish = message(QoS::AtLeastOnce, "x");
        let publish = Publish { packet_identifier: Some(identifier(1)), ..publish };
        let publish = encoded(publish, V5_0);
        let (actions, _) = server.hears(&publish);
        let [server::Action::Message(message)] = &actions[..] else { panic!("{actions:?}") };
        let reason_string = Some("the disk is full, and so are all of the others".into());
        let properties = AckProperties { reason_string, ..AckProperties::default() };
        let refusal = Acknowledgement { reason_code: ReasonCode::QUOTA_EXCEEDED, properties };
        let mut memory = vec![0; size];
        let mut out = Fixed::new(&mut memory);
        server.acknowledge(message.token.unwrap(), refusal, NOW, &mut out).unwrap();
        let sent = packets(out.written(), V5_0);
        let [Packet::Puback(Ack { reason_code, properties, .. })] = sent[..] else {
            panic!("{sent:?}")
        };
        assert_eq!(reason_code, ReasonCode::QUOTA_EXCEEDED);
        assert_eq!(properties.reason_string.is_some(), size >= 64);
        assert_eq!(server.handle_input(&mut &[][..], NOW, &mut out), None);
    }
}

/// The client broke the rule, and the Maximum Packet Size has nothing to do with it.
/// [5.0 MQTT-2.2.1-3]
#[test]
fn subscribe_with_identifier_in_use_is_a_violation_when_the_output_lacks_room() {
    let mut server = accepted(&lasting(V5_0));
    server.hears(&subscribe(5, "a", QoS::AtMostOnce, V5_0));
    let subscriptions = [Subscription::new("a", QoS::AtMostOnce); 80];
    let request = encoded(
        Subscribe {
            packet_identifier: identifier(5),
            properties: SubscribeProperties::default(),
            subscriptions: (&subscriptions).into(),
        },
        V5_0,
    );
    let mut memory = [0; 64];
    let mut out = Fixed::new(&mut memory);
    let action = server.handle_input(&mut &request[..], NOW, &mut out);
    let cause = CloseCause::Violation(ProtocolError::PacketIdentifierInUse(PacketType::Subscribe));
    assert_eq!(action, Some(server::Action::Closed { cause, publish_will: true }));
    assert_eq!(out.written(), [0xE0, 2, 0x82, 0]);
}

/// [5.0 MQTT-4.3.3-9]
#[test]
fn refused_message_counts_as_new_when_its_refusal_was_not_sent() {
    let mut client = connected(&lasting(V5_0), ConnackProperties::default());
    let publish = message(QoS::ExactlyOnce, "x");
    let publish = encoded(Publish { packet_identifier: Some(identifier(1)), ..publish }, V5_0);
    let mut out = Vec::new();
    let action = client.handle_input(&mut &publish[..], NOW, &mut out);
    let Some(client::Action::Message(message)) = action else { panic!("{action:?}") };
    let token = message.token.unwrap();
    let mut full = Fixed::new(&mut []);
    client.acknowledge(token, ReasonCode::QUOTA_EXCEEDED, NOW, &mut full).unwrap();
    resume(&mut client, &lasting(V5_0));
    assert_eq!(client.hears(&publish).0.len(), 1);
}

/// Otherwise the host would not learn that it must publish the will. [5.0 MQTT-3.1.2-8]
#[test]
fn end_is_reported_after_the_session_was_taken() {
    for disconnects in [false, true] {
        let mut server = accepted(&lasting(V5_0));
        if disconnects {
            server.disconnect(&Disconnect::default(), NOW, &mut Vec::new()).unwrap();
        }
        let _ = server.take_session();
        let cause = if disconnects { CloseCause::Requested } else { CloseCause::ConnectionLost };
        let closed = server::Action::Closed { cause, publish_will: true };
        assert_eq!(server.connection_lost(), Some(closed));
        let _ = server.take_session();
        assert_eq!(server.connection_lost(), None);
    }
}

/// [3.1.1 §4.4] [5.0 §4.4]
#[test]
fn copy_of_a_session_in_use_is_resumed() {
    for version in VERSIONS {
        let mut client = connected(&lasting(version), ConnackProperties::default());
        let mut out = Vec::new();
        client.publish(1, &message(QoS::AtLeastOnce, "x"), NOW, &mut out).unwrap();
        client.publish(2, &message(QoS::ExactlyOnce, "y"), NOW, &mut out).unwrap();
        let subscriptions = [Subscription::new("a", QoS::AtMostOnce)];
        let properties = SubscribeProperties::default();
        client.subscribe(3, &subscriptions, properties, NOW, &mut out).unwrap();
        let publish = message(QoS::ExactlyOnce, "z");
        let publish = Publish { packet_identifier: Some(identifier(9)), ..publish };
        client.hears(&encoded(publish, version));
        let copy = client.session().clone();
        let mut other = Client::with_session(ClientConfig::new(), copy);
        let said = resume(&mut other, &lasting(version));
        assert_eq!(packets(&said, version).len(), 2, "both messages are resent");
        assert_eq!(other.hears(&ack(Packet::Pubrel, 9, version)).0, []);
        let puback = ack(Packet::Puback, 1, version);
        assert_eq!(other.hears(&puback).0.len(), 1);
    }
}

/// The session knows nothing of the machine, so it can be copied.
#[test]
fn session_can_be_cloned() {
    let mut client = connected(&lasting(V5_0), ConnackProperties::default());
    client.publish(1, &message(QoS::ExactlyOnce, "x"), NOW, &mut Vec::new()).unwrap();
    let copy = client.session().clone();
    client.hears(&[ack(Packet::Pubrec, 1, V5_0), ack(Packet::Pubcomp, 1, V5_0)].concat());
    assert_eq!((client.session().in_flight(), copy.in_flight()), (0, 1));
}
