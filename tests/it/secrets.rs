//! No `Debug` and no `Display` form shows a password or authentication data, as text or as numbers.

use bytes::BytesMut;
use core::fmt::{Debug, Display};
use mqtt_sansio::Instant;
use mqtt_sansio::broker::{self, Admission, Broker, BrokerConfig, Question};
use mqtt_sansio::codec::{
    self, Auth, AuthProperties, Connack, ConnackProperties, Connect, ConnectProperties, Fixed,
    OwnedPacket, Packet, ReasonCode, Vectored, Version,
};
use mqtt_sansio::server::{self, Server, ServerConfig};

const PASSWORD: &[u8] = b"hunter2-password";
const DATA: &[u8] = b"hunter2-authdata";

/// Checks that a text has no secret, and no eight bytes of one as numbers in any usual form.
fn check(text: &str) {
    assert!(!text.contains("hunter2"), "{text}");
    let text: String = text.split_whitespace().collect();
    for secret in [PASSWORD, DATA] {
        let part = secret.get(..8).unwrap();
        let decimal: Vec<_> = part.iter().map(ToString::to_string).collect();
        let hex: Vec<_> = part.iter().map(|byte| format!("{byte:02x}")).collect();
        for separator in [",", "", "\\x", ",0x"] {
            for numbers in [&decimal, &hex] {
                assert!(!text.contains(&numbers.join(separator)), "{text}");
            }
        }
    }
}

fn check_debug(value: &impl Debug) {
    check(&format!("{value:?}"));
    check(&format!("{value:#?}"));
}

fn check_both(value: &(impl Debug + Display)) {
    check_debug(value);
    check(&value.to_string());
}

fn connect() -> Connect<'static> {
    Connect {
        user_name: Some("alice".into()),
        password: Some(PASSWORD),
        properties: ConnectProperties {
            authentication_method: Some("PLAIN".into()),
            authentication_data: Some(DATA),
            ..ConnectProperties::default()
        },
        ..Connect::new(Version::V5_0, "c")
    }
}

fn connack() -> Connack<'static> {
    Connack {
        properties: ConnackProperties {
            authentication_method: Some("PLAIN".into()),
            authentication_data: Some(DATA),
            ..ConnackProperties::default()
        },
        ..Connack::default()
    }
}

fn auth() -> Auth<'static> {
    Auth {
        reason_code: ReasonCode::CONTINUE_AUTHENTICATION,
        properties: AuthProperties {
            authentication_method: Some("PLAIN".into()),
            authentication_data: Some(DATA),
            ..AuthProperties::default()
        },
    }
}

#[test]
fn packets_and_their_properties_hide_secrets() {
    check_both(&connect());
    check_both(&connect().properties);
    check_both(&connack());
    check_both(&connack().properties);
    check_both(&auth());
    check_both(&auth().properties);
    for packet in [Packet::from(connect()), connack().into(), auth().into()] {
        check_both(&packet);
    }
}

#[test]
fn secrets_that_are_present_are_marked() {
    for text in [connect().to_string(), format!("{:?}", connect())] {
        assert_eq!(text.matches("***").count(), 2, "{text}");
    }
    assert_eq!(connack().to_string().matches("***").count(), 1);
    assert!(!format!("{:?}", Connect::new(Version::V5_0, "c")).contains("***"));
}

#[test]
fn bytes_of_packets_hide_secrets() {
    for packet in [Packet::from(connect()), connack().into(), auth().into()] {
        let mut memory = [0; 256];
        let mut out = Fixed::new(&mut memory);
        codec::encode(&packet, Version::V5_0, &mut out).unwrap();
        check_debug(&out);
        let frame = codec::frame(out.written(), u32::MAX).unwrap().unwrap();
        check_debug(&frame);
        check_debug(&codec::header(out.written(), u32::MAX).unwrap());
        check_both(&codec::decode(frame, Version::V5_0).unwrap());
        let mut received = BytesMut::from(frame.as_bytes());
        let owned = OwnedPacket::split_from(&mut received, u32::MAX, Version::V5_0);
        check_debug(&owned.unwrap().unwrap());
        let mut out = Vectored::new();
        codec::encode(&packet, Version::V5_0, &mut out).unwrap();
        check_debug(&out);
    }
}

#[test]
fn actions_and_machines_hide_secrets() {
    check_debug(&server::Action::Connect(connect()));
    check_debug(&server::Action::Authenticate(auth()));
    let bytes = OwnedPacket::new(&connect().into(), Version::V5_0).unwrap();
    let (now, mut out) = (Instant::from_millis(0), Vec::new());

    let mut server = Server::new(ServerConfig::new(), now);
    let mut input = bytes.as_bytes();
    let action = server.handle_input(&mut input, now, &mut out);
    check_debug(&action);
    assert!(matches!(action, Some(server::Action::Connect(_))));
    check_debug(&server);

    let mut broker = Broker::new(BrokerConfig::new(ServerConfig::new()), 0, now);
    let connection = broker.open(now);
    let connect = Connect { properties: ConnectProperties::default(), ..connect() };
    let mut sent = Vec::new();
    codec::encode(&connect.into(), Version::V5_0, &mut sent).unwrap();
    let _ = broker.handle_input(connection, &mut &sent[..], now);
    check_debug(&broker);
    let asked = broker.poll_action();
    check_debug(&asked);
    let Some(broker::Action::Ask(question, Question::Connect(_))) = asked else {
        panic!("{asked:?}");
    };
    check_debug(&Question::Connect(bytes));
    let admission = Admission { properties: connack().properties, ..Admission::default() };
    check_debug(&admission);
    broker.accept(question, admission, now).unwrap();
    check_debug(&broker);
}
