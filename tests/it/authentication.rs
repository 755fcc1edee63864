//! Enhanced authentication: AUTH between CONNECT and CONNACK, and at any time after it. [5.0 §4.12]

use core::time::Duration;
use mqtt_sansio::Instant;
use mqtt_sansio::client::{self, Client, ClientConfig};
use mqtt_sansio::codec::{
    self, Auth, AuthProperties, Connack, ConnackProperties, Connect, DecodeError, Disconnect,
    Packet, PacketType, Publish, QoS, ReasonCode, Role, Rules, Sequence, UserProperty, Version,
};
use mqtt_sansio::server::{self, AnswerError, Server, ServerConfig};
use mqtt_sansio::session::{CloseCause, ProtocolError, RequestError};
use testkit::machine::{Hears, NOW, accepted, asked, connected, connecting};
use testkit::pair::{Chunks, Pair};
use testkit::wire::{V5_0, encoded, lasting, message, packets};

const METHOD: &str = "SCRAM";
const CONTINUE: ReasonCode = ReasonCode::CONTINUE_AUTHENTICATION;
const AGAIN: ReasonCode = ReasonCode::RE_AUTHENTICATE;

fn auth(reason_code: ReasonCode, method: &str) -> Auth<'_> {
    Auth {
        reason_code,
        properties: AuthProperties {
            authentication_method: Some(method.into()),
            ..Default::default()
        },
    }
}

fn with_method() -> Connect<'static> {
    let mut connect = lasting(V5_0);
    connect.properties.authentication_method = Some(METHOD.into());
    connect
}

fn method_of_server() -> ConnackProperties<'static> {
    ConnackProperties { authentication_method: Some(METHOD.into()), ..ConnackProperties::default() }
}

/// Runs one more step, for which the server asks and which the client answers.
fn step(client: &mut Client, server: &mut Server) {
    let mut out = Vec::new();
    server.challenge(&auth(CONTINUE, METHOD), NOW, &mut out).unwrap();
    let heard = client.hears(&out);
    assert_eq!(heard, (vec![client::Action::Authenticate(auth(CONTINUE, METHOD))], vec![]));
    out.clear();
    client.authenticate(&auth(CONTINUE, METHOD), NOW, &mut out).unwrap();
    assert_eq!(packets(&out, V5_0), [auth(CONTINUE, METHOD).into()]);
    let heard = server.hears(&out);
    assert_eq!(heard, (vec![server::Action::Authenticate(auth(CONTINUE, METHOD))], vec![]));
}

/// Starts re-authentication by the client. The server reads no input until its host has answered.
fn begin_again(client: &mut Client, server: &mut Server) {
    let mut out = Vec::new();
    client.authenticate(&auth(AGAIN, METHOD), NOW, &mut out).unwrap();
    let heard = server.hears(&out);
    assert_eq!(heard, (vec![server::Action::Authenticate(auth(AGAIN, METHOD))], vec![]));
    assert!(!server.wants_input());
}

/// [5.0 MQTT-4.12.0-2] [5.0 MQTT-4.12.0-3] [5.0 MQTT-4.12.0-5] [5.0 MQTT-3.1.2-30]
#[test]
fn server_accepts_a_client_after_any_number_of_auth_steps() {
    for steps in 0..4 {
        let mut client = connecting(ClientConfig::new(), &with_method());
        let mut server = asked(ServerConfig::new(), &with_method());
        let mut out = Vec::new();
        client.publish(1, &message(QoS::AtMostOnce, "waits"), NOW, &mut out).unwrap();
        assert!(out.is_empty());
        (0..steps).for_each(|_| step(&mut client, &mut server));
        server.accept(None, ConnackProperties::default(), NOW, &mut out).unwrap();
        assert!(matches!(packets(&out, V5_0)[0], Packet::Connack(connack)
                if connack.properties.authentication_method.unwrap() == METHOD));
        let (actions, said) = client.hears(&out);
        assert!(matches!(actions[..], [client::Action::Connected(_)]));
        assert!(matches!(server.hears(&said).0[..], [server::Action::Message(ref received)]
                if received.payload == b"waits"));
    }
}

/// [5.0 MQTT-4.12.0-4]
#[test]
fn server_can_refuse_a_client_after_any_auth_step() {
    for steps in 0..3 {
        let mut client = connecting(ClientConfig::new(), &with_method());
        let mut server = asked(ServerConfig::new(), &with_method());
        (0..steps).for_each(|_| step(&mut client, &mut server));
        let mut out = Vec::new();
        server
            .refuse(ReasonCode::NOT_AUTHORIZED, ConnackProperties::default(), NOW, &mut out)
            .unwrap();
        let (actions, _) = client.hears(&out);
        let [client::Action::Closed(CloseCause::Refused(connack))] = actions[..] else {
            panic!("{actions:?}")
        };
        assert_eq!(connack.reason_code, ReasonCode::NOT_AUTHORIZED);
        let closed = server::Action::Closed { cause: CloseCause::Requested, publish_will: false };
        assert_eq!(server.hears(&encoded(Packet::Pingreq, V5_0)), (vec![closed], vec![]));
    }
}

/// [5.0 MQTT-3.1.2-30]
#[test]
fn client_can_disconnect_before_authentication_ends() {
    let mut client = connecting(ClientConfig::new(), &with_method());
    let mut server = asked(ServerConfig::new(), &with_method());
    let mut out = Vec::new();
    server.challenge(&auth(CONTINUE, METHOD), NOW, &mut out).unwrap();
    client.hears(&out);
    out.clear();
    client.disconnect(&Disconnect::default(), NOW, &mut out).unwrap();
    let (actions, said) = server.hears(&out);
    let cause = CloseCause::Disconnected(Disconnect::default());
    assert_eq!(
        (actions, said),
        (vec![server::Action::Closed { cause, publish_will: false }], vec![])
    );
}

/// [5.0 MQTT-4.12.1-1] [5.0 §4.12.1]
#[test]
fn client_re_authenticates_while_messages_are_in_flight() {
    let (mut client, mut server) =
        (connected(&with_method(), method_of_server()), accepted(&with_method()));
    for steps in 0..3 {
        begin_again(&mut client, &mut server);
        for _ in 0..steps {
            let mut out = Vec::new();
            server.challenge(&auth(CONTINUE, METHOD), NOW, &mut out).unwrap();
            assert!(matches!(client.hears(&out).0[..], [client::Action::Authenticate(_)]));
            out.clear();
            client.publish(1, &message(QoS::AtMostOnce, "meanwhile"), NOW, &mut out).unwrap();
            client.authenticate(&auth(CONTINUE, METHOD), NOW, &mut out).unwrap();
            assert!(matches!(
                server.hears(&out).0[..],
                [server::Action::Message(_), server::Action::Authenticate(_)]
            ));
        }
        let mut out = Vec::new();
        server.challenge(&auth(ReasonCode::SUCCESS, METHOD), NOW, &mut out).unwrap();
        assert_eq!(
            client.hears(&out).0,
            [client::Action::Authenticate(auth(ReasonCode::SUCCESS, METHOD))]
        );
        assert!(server.wants_input() && client.is_connected());
    }
}

/// [5.0 MQTT-4.12.1-2]
#[test]
fn failed_re_authentication_ends_with_disconnect_and_no_connack() {
    let (mut client, mut server) =
        (connected(&with_method(), method_of_server()), accepted(&with_method()));
    begin_again(&mut client, &mut server);
    let mut out = Vec::new();
    let refused =
        server.refuse(ReasonCode::NOT_AUTHORIZED, ConnackProperties::default(), NOW, &mut out);
    let accepted = server.accept(None, ConnackProperties::default(), NOW, &mut out);
    assert_eq!(
        (refused, accepted.map_err(|refused| refused.error), out.len()),
        (Err(AnswerError::NotAsked), Err(AnswerError::NotAsked), 0)
    );
    server.disconnect(&Disconnect::new(ReasonCode::NOT_AUTHORIZED), NOW, &mut out).unwrap();
    assert_eq!(
        server.hears(&[]).0,
        [server::Action::Closed { cause: CloseCause::Requested, publish_will: true }]
    );
    let cause = CloseCause::Disconnected(Disconnect::new(ReasonCode::NOT_AUTHORIZED));
    assert_eq!(client.hears(&out).0, [client::Action::Closed(cause)]);
}

/// [5.0 MQTT-4.12.0-3] [5.0 MQTT-4.12.0-5] [5.0 MQTT-4.12.0-7] [5.0 MQTT-3.1.2-30] [5.0 §4.12.1]
#[test]
fn server_closes_the_connection_when_authentication_deviates() {
    let unexpected = |packet| ProtocolError::UnexpectedPacket(packet);
    for (packet, error) in [
        (auth(CONTINUE, "OTHER").into(), ProtocolError::AuthenticationMethod),
        (auth(AGAIN, METHOD).into(), unexpected(PacketType::Auth)),
        (Publish::new("t", b"x").into(), unexpected(PacketType::Publish)),
        (Packet::Pingreq, unexpected(PacketType::Pingreq)),
        (with_method().into(), unexpected(PacketType::Connect)),
    ] {
        let mut server = asked(ServerConfig::new(), &with_method());
        server.challenge(&auth(CONTINUE, METHOD), NOW, &mut Vec::new()).unwrap();
        let closed =
            server::Action::Closed { cause: CloseCause::Violation(error), publish_will: false };
        let refusal = vec![0x20, 3, 0, 0x82, 0];
        assert_eq!(
            server.hears(&encoded(packet, V5_0)),
            (vec![closed], refusal),
            "CONNACK, because none was sent"
        );
    }
    for (connect, first, packet) in [
        (with_method(), None, auth(CONTINUE, METHOD)),
        (with_method(), None, auth(AGAIN, "OTHER")),
        (with_method(), Some(auth(AGAIN, METHOD)), auth(AGAIN, METHOD)),
        (with_method(), Some(auth(AGAIN, METHOD)), auth(CONTINUE, "OTHER")),
        (lasting(V5_0), None, auth(AGAIN, METHOD)),
    ] {
        let mut server = accepted(&connect);
        if let Some(first) = first {
            server.hears(&encoded(first, V5_0));
            server.challenge(&auth(CONTINUE, METHOD), NOW, &mut Vec::new()).unwrap();
        }
        let cause = CloseCause::Violation(ProtocolError::AuthenticationMethod);
        let closed = server::Action::Closed { cause, publish_will: true };
        assert_eq!(
            server.hears(&encoded(packet, V5_0)),
            (vec![closed], vec![0xE0, 2, 0x82, 0]),
            "{first:?} {packet:?}"
        );
    }
}

/// The shortest AUTH means success, which only a server can send. [5.0 §3.15.2.1]
#[test]
fn only_a_server_can_send_auth_success() {
    for (role, allowed) in [(Role::Client, false), (Role::Server, true)] {
        let rules = Rules::new(V5_0).sent_by(role);
        let error = DecodeError::InvalidReasonCode(0);
        let frame = codec::frame(&[0xF0, 0x00], u32::MAX).unwrap().unwrap();
        assert_eq!(codec::decode(frame, rules).err(), (!allowed).then_some(error));
        let mut out = Vec::new();
        let encoded = codec::encode(&Auth::default().into(), rules, &mut out);
        assert_eq!(encoded.err(), (!allowed).then_some(error.into()));
        assert_eq!(out.is_empty(), !allowed);
    }
}

/// [5.0 MQTT-4.12.0-5] [5.0 MQTT-4.12.0-6]
#[test]
fn client_closes_the_connection_when_authentication_deviates() {
    let connack = |method: Option<&'static str>| {
        let properties = ConnackProperties {
            authentication_method: method.map(Into::into),
            ..ConnackProperties::default()
        };
        Packet::from(Connack { properties, ..Connack::default() })
    };
    let method = ProtocolError::AuthenticationMethod;
    for (connect, packet, error) in [
        (
            lasting(V5_0),
            auth(CONTINUE, METHOD).into(),
            ProtocolError::UnexpectedPacket(PacketType::Auth),
        ),
        (lasting(V5_0), connack(Some(METHOD)), method),
        (with_method(), auth(CONTINUE, "OTHER").into(), method),
        (with_method(), auth(ReasonCode::SUCCESS, METHOD).into(), method),
        (with_method(), connack(Some("OTHER")), method),
        (with_method(), connack(None), method),
    ] {
        let mut client = connecting(ClientConfig::new(), &connect);
        let closed = client::Action::Closed(CloseCause::Violation(error));
        assert_eq!(
            client.hears(&encoded(packet, V5_0)),
            (vec![closed], vec![0xE0, 2, 0x82, 0]),
            "the client sends the reason before CONNACK too"
        );
    }
    // After CONNACK only the client can start re-authentication, and only one at a time.
    for reason_code in [CONTINUE, ReasonCode::SUCCESS] {
        let mut client = connected(&with_method(), method_of_server());
        let closed = client::Action::Closed(CloseCause::Violation(method));
        assert_eq!(
            client.hears(&encoded(auth(reason_code, METHOD), V5_0)).0,
            core::slice::from_ref(&closed)
        );
        let mut client = connected(&with_method(), method_of_server());
        client.authenticate(&auth(AGAIN, METHOD), NOW, &mut Vec::new()).unwrap();
        let done = auth(ReasonCode::SUCCESS, METHOD);
        assert_eq!(client.hears(&encoded(done, V5_0)).0, [client::Action::Authenticate(done)]);
        assert_eq!(client.hears(&encoded(auth(reason_code, METHOD), V5_0)).0, [closed]);
    }
}

/// [5.0 MQTT-4.12.0-2] [5.0 MQTT-4.12.0-3] [5.0 MQTT-4.12.0-5] [5.0 MQTT-4.12.0-7]
/// [5.0 MQTT-4.12.1-1]
#[test]
fn host_cannot_send_an_auth_step_of_another_authentication() {
    let without = Auth { reason_code: CONTINUE, ..Auth::default() };
    let mut out = Vec::new();
    for (mut client, steps) in [
        (connecting(ClientConfig::new(), &lasting(V5_0)), &[auth(CONTINUE, METHOD), without][..]),
        (
            connected(&lasting(V5_0), ConnackProperties::default()),
            &[auth(AGAIN, METHOD), Auth { reason_code: AGAIN, ..without }],
        ),
        (
            connecting(ClientConfig::new(), &with_method()),
            &[auth(CONTINUE, "OTHER"), without, auth(AGAIN, METHOD)],
        ),
        (
            connected(&with_method(), method_of_server()),
            &[auth(AGAIN, "OTHER"), auth(CONTINUE, "OTHER"), auth(CONTINUE, METHOD), without],
        ),
    ] {
        for step in steps {
            assert_eq!(
                client.authenticate(step, NOW, &mut out),
                Err(RequestError::Authentication),
                "{step:?}"
            );
        }
        assert!(client.wants_input(), "the connection continues");
    }
    let mut client = connected(&with_method(), method_of_server());
    client.authenticate(&auth(AGAIN, METHOD), NOW, &mut Vec::new()).unwrap();
    assert_eq!(
        client.authenticate(&auth(AGAIN, METHOD), NOW, &mut out),
        Err(RequestError::Authentication),
        "one at a time"
    );
    for (connect, step, error) in [
        (with_method(), auth(CONTINUE, "OTHER"), AnswerError::AuthenticationMethod),
        (with_method(), without, AnswerError::AuthenticationMethod),
        (with_method(), auth(ReasonCode::SUCCESS, METHOD), AnswerError::NotAsked),
    ] {
        let mut server = asked(ServerConfig::new(), &connect);
        assert_eq!(server.challenge(&step, NOW, &mut out), Err(error));
        assert!(out.is_empty());
        server.challenge(&auth(CONTINUE, METHOD), NOW, &mut Vec::new()).unwrap();
    }
    assert!(out.is_empty());
}

/// [5.0 MQTT-4.12.0-5] [5.0 MQTT-4.12.0-6]
#[test]
fn connack_names_the_authentication_method_of_the_client() {
    let properties = ConnackProperties {
        authentication_method: Some("OTHER".into()),
        authentication_data: Some(b"data"),
        ..ConnackProperties::default()
    };
    let mut out = Vec::new();
    let mut server = asked(ServerConfig::new(), &lasting(V5_0));
    assert_eq!(
        server.challenge(&auth(CONTINUE, METHOD), NOW, &mut out),
        Err(AnswerError::AuthenticationMethod)
    );
    server.accept(None, properties, NOW, &mut out).unwrap();
    asked(ServerConfig::new(), &lasting(V5_0))
        .refuse(ReasonCode::NOT_AUTHORIZED, properties, NOW, &mut out)
        .unwrap();
    for packet in packets(&out, V5_0) {
        let Packet::Connack(Connack { properties, .. }) = packet else { panic!("{packet:?}") };
        assert_eq!(
            (properties.authentication_method, properties.authentication_data),
            (None, None)
        );
    }
    out.clear();
    asked(ServerConfig::new(), &with_method()).accept(None, properties, NOW, &mut out).unwrap();
    let Packet::Connack(Connack { properties, .. }) = packets(&out, V5_0)[0] else { panic!() };
    assert_eq!(
        (properties.authentication_method.unwrap().to_str(), properties.authentication_data),
        (METHOD, Some(&b"data"[..]))
    );
}

/// [5.0 MQTT-3.1.2-29] [5.0 MQTT-3.15.2-2] [5.0 MQTT-3.15.2-3]
#[test]
fn auth_omits_problem_information_when_unwanted_or_too_large() {
    let user = [UserProperty::new("name", "value")];
    let mut wordy = auth(CONTINUE, METHOD);
    (wordy.properties.reason_string, wordy.properties.user_properties) =
        (Some("because".into()), user.as_slice().into());
    let mut terse = wordy;
    terse.properties.user_properties = Sequence::default();
    for (problem_information, maximum_packet_size, expected) in [
        (None, None, wordy),
        (Some(true), None, wordy),
        (Some(false), None, auth(CONTINUE, METHOD)),
        (None, Some(36), wordy),
        (None, Some(35), terse),
    ] {
        let mut connect = with_method();
        connect.properties.request_problem_information = problem_information;
        connect.properties.maximum_packet_size = maximum_packet_size;
        let mut out = Vec::new();
        asked(ServerConfig::new(), &connect).challenge(&wordy, NOW, &mut out).unwrap();
        assert_eq!(packets(&out, V5_0), [expected.into()]);
    }
    // A client omits what does not fit. Its host gets an error if the rest does not fit either.
    (wordy.reason_code, terse.reason_code) = (AGAIN, AGAIN);
    for (maximum, expected) in [(36, Some(wordy)), (35, Some(terse)), (11, None)] {
        let properties =
            ConnackProperties { maximum_packet_size: Some(maximum), ..method_of_server() };
        let mut client = connected(&with_method(), properties);
        let mut out = Vec::new();
        let answer = expected.map(|_| ()).ok_or(RequestError::TooLarge { size: 12, maximum });
        assert_eq!(client.authenticate(&wordy, NOW, &mut out), answer);
        assert_eq!(packets(&out, V5_0), expected.into_iter().map(Packet::from).collect::<Vec<_>>());
    }
}

#[test]
fn each_auth_step_before_connack_has_its_own_deadline() {
    let after = |seconds| NOW + Duration::from_secs(seconds);
    let config = ClientConfig::new().connect_timeout(Duration::from_secs(4));
    let mut client = connecting(config, &with_method());
    client.hears_at(&encoded(auth(CONTINUE, METHOD), V5_0), after(3));
    assert_eq!(client.poll_timeout(), Some(after(33)), "the deadline of the host");
    assert_eq!(client.handle_timeout(after(5), &mut Vec::new()), None);
    client.authenticate(&auth(CONTINUE, METHOD), after(6), &mut Vec::new()).unwrap();
    assert_eq!(client.poll_timeout(), Some(after(10)));
    let closed = client.handle_timeout(after(10), &mut Vec::new());
    assert_eq!(closed, Some(client::Action::Closed(CloseCause::ConnectTimeout)));

    let mut server =
        asked(ServerConfig::new().connect_timeout(Duration::from_secs(4)), &with_method());
    for (at, deadline) in [(0, 30), (100, 33)] {
        assert_eq!(server.poll_timeout(), Some(after(deadline)), "the deadline of the host");
        server.challenge(&auth(CONTINUE, METHOD), after(at), &mut Vec::new()).unwrap();
        assert_eq!(server.poll_timeout(), Some(after(at + 4)));
        server.hears_at(&encoded(auth(CONTINUE, METHOD), V5_0), after(at + 3));
    }
    server
        .challenge(&auth(CONTINUE, METHOD), Instant::from_millis(500_000), &mut Vec::new())
        .unwrap();
    let closed = server.handle_timeout(Instant::from_millis(504_000), &mut Vec::new());
    assert_eq!(
        closed,
        Some(server::Action::Closed { cause: CloseCause::ConnectTimeout, publish_will: false })
    );
}

/// [5.0 MQTT-4.12.0-6] [5.0 §4.12.1]
#[test]
fn client_closes_the_connection_when_no_authentication_was_agreed() {
    let mut pair = Pair::new(Chunks::Whole);
    pair.connect(&lasting(Version::V5_0));
    let action = pair.client.handle_input(&mut &[0xF0, 0x00][..], pair.now, &mut Vec::new());
    let Some(client::Action::Closed(CloseCause::Violation(error))) = action else {
        panic!("{action:?}")
    };
    assert_eq!(error, ProtocolError::AuthenticationMethod);
}

/// [5.0 MQTT-4.12.0-3]
#[test]
fn client_answers_each_auth_challenge_once() {
    let mut out = Vec::new();
    let mut client = connecting(ClientConfig::new(), &with_method());
    let mut answer =
        |client: &mut Client, code| client.authenticate(&auth(code, METHOD), NOW, &mut out);
    let unasked = Err(RequestError::Authentication);
    assert_eq!(answer(&mut client, CONTINUE), unasked);
    client.hears(&encoded(auth(CONTINUE, METHOD), V5_0));
    assert_eq!([answer(&mut client, CONTINUE), answer(&mut client, CONTINUE)], [Ok(()), unasked]);
    client.hears(&encoded(Connack { properties: method_of_server(), ..Connack::default() }, V5_0));
    assert_eq!([answer(&mut client, CONTINUE), answer(&mut client, AGAIN)], [unasked, Ok(())]);
    assert_eq!([answer(&mut client, CONTINUE), answer(&mut client, AGAIN)], [unasked, unasked]);
    client.hears(&encoded(auth(CONTINUE, METHOD), V5_0));
    assert_eq!([answer(&mut client, CONTINUE), answer(&mut client, CONTINUE)], [Ok(()), unasked]);
    client.hears(&encoded(auth(ReasonCode::SUCCESS, METHOD), V5_0));
    assert_eq!([answer(&mut client, CONTINUE), answer(&mut client, AGAIN)], [unasked, Ok(())]);
}

/// A server that accepts the client without waiting for its answer no longer expects one.
/// [5.0 MQTT-4.12.1-1]
#[test]
fn connack_ends_an_unanswered_auth_challenge() {
    let mut out = Vec::new();
    let mut client = connecting(ClientConfig::new(), &with_method());
    client.hears(&encoded(auth(CONTINUE, METHOD), V5_0));
    client.hears(&encoded(Connack { properties: method_of_server(), ..Connack::default() }, V5_0));
    assert!(client.is_connected());
    assert_eq!(
        client.authenticate(&auth(CONTINUE, METHOD), NOW, &mut out),
        Err(RequestError::Authentication)
    );
    assert_eq!(client.authenticate(&auth(AGAIN, METHOD), NOW, &mut out), Ok(()));
}
