//! Sessions as bytes: a stored session resumes, its format is stable, and no bytes do harm.

use core::time::Duration;
use mqtt_sansio::Instant;
use mqtt_sansio::client::{Client, ClientConfig};
use mqtt_sansio::codec::{
    Connect, Publish, PublishProperties, QoS, SubscriptionIdentifier, UserProperty, Version,
};
use mqtt_sansio::session::stored::LoadError;
use mqtt_sansio::session::{Message, Outcome, Outgoing, QueueLimit, Session};
use proptest::prelude::*;
use testkit::pair::{Chunks, Pair};
use testkit::wire::lasting;

const LIMIT: QueueLimit = QueueLimit { messages: 100, bytes: 10_000 };

fn load(bytes: &[u8]) -> Result<Session, LoadError> {
    Session::from_bytes(bytes, Instant::default(), Duration::ZERO)
}

fn outgoing(key: Option<u64>, qos: QoS, payload: &str) -> Outgoing {
    let user_properties = [UserProperty::new("n", "v")];
    let properties = PublishProperties {
        user_properties: (&user_properties).into(),
        ..PublishProperties::default()
    };
    let publish = Publish { qos, properties, ..Publish::new("t", payload.as_bytes()) };
    Outgoing::new(key, Message::new(&publish).unwrap())
}

/// Returns a client's session with every kind of content.
fn full() -> Session {
    let mut pair = Pair::with(
        ClientConfig::new().maximum_in_flight(5),
        mqtt_sansio::server::ServerConfig::new(),
        Chunks::Whole,
    );
    let qos = |qos| Publish { qos, ..Publish::new("up", b"1") };
    pair.connect(&lasting(Version::V3_1_1));
    for key in 1..=7 {
        pair.publish(key, &qos(if key % 2 == 0 { QoS::AtLeastOnce } else { QoS::ExactlyOnce }));
    }
    pair.try_deliver(8, &qos(QoS::ExactlyOnce));
    // The first acknowledgements arrive, and the answers to them are lost.
    pair.carry_bytes(true, usize::MAX);
    pair.carry_bytes(false, 8);
    pair.cut();
    let mut session = pair.client.into_session();
    let expiring = Outgoing {
        expires_at: Some(Instant::from_millis(1_500)),
        ..outgoing(Some(9), QoS::AtLeastOnce, "late")
    };
    session.enqueue(expiring, LIMIT, Instant::default()).unwrap();
    let identified = [SubscriptionIdentifier::new(1).unwrap(), SubscriptionIdentifier::MAX];
    let identified = identified.into_iter().collect();
    let anonymous =
        Outgoing { subscription_identifiers: identified, ..outgoing(None, QoS::AtMostOnce, "") };
    session.enqueue(anonymous, LIMIT, Instant::default()).unwrap();
    session
}

#[test]
fn stored_session_loads_equal() {
    let session = full();
    let bytes = session.to_bytes(Instant::default());
    let loaded = load(&bytes).unwrap();
    assert_eq!(loaded.to_bytes(Instant::default()), bytes);
    assert_eq!((loaded.in_flight(), loaded.queued()), (session.in_flight(), session.queued()));
    assert_eq!(loaded.queued_bytes(), session.queued_bytes());
    assert!(loaded.in_flight() > 3 && loaded.queued() > 2);
    let json = serde_json::to_string(&session).unwrap();
    let from_json: Session = serde_json::from_str(&json).unwrap();
    assert_eq!(from_json.to_bytes(Instant::default()), bytes);
    assert!(serde_json::from_str::<Session>("[77, 81, 83, 2]").is_err());
}

/// A loaded session sends the same packets as the stored one.
#[test]
fn loaded_session_resumes_like_the_stored_one() {
    let session = full();
    let resume = |session| {
        let mut client = Client::with_session(ClientConfig::new(), session);
        let mut out = Vec::new();
        client.connect(&lasting(Version::V3_1_1), Instant::default(), &mut out).unwrap();
        let mut input = &b"\x20\x02\x01\x00"[..];
        while client.handle_input(&mut input, Instant::default(), &mut out).is_some() {}
        out
    };
    let loaded = load(&session.to_bytes(Instant::default())).unwrap();
    let resumed = resume(loaded);
    assert_eq!(resumed, resume(session));
    assert!(resumed.len() > 60, "{}", resumed.len());
}

#[test]
fn session_in_use_is_stored_as_if_disconnected() {
    let mut pair = Pair::new(Chunks::Whole);
    pair.connect(&lasting(Version::V5_0));
    for (key, qos) in [(1, QoS::AtLeastOnce), (2, QoS::ExactlyOnce)] {
        pair.publish(key, &Publish { qos, ..Publish::new("t", b"x") });
    }
    pair.try_deliver(3, &Publish { qos: QoS::ExactlyOnce, ..Publish::new("t", b"y") });
    pair.carry_bytes(false, usize::MAX);
    let [client, server] =
        [pair.client.session(), pair.server.session()].map(|session| session.to_bytes(pair.now));
    pair.cut();
    assert_eq!(pair.client.session().to_bytes(pair.now), client);
    assert_eq!(pair.parked.unwrap().to_bytes(pair.now), server);
}

#[test]
fn messages_expire_while_stored() {
    let bytes = full().to_bytes(Instant::from_millis(1_000));
    for (ago, expired) in [(499, false), (500, true), (u64::MAX, true)] {
        let now = Instant::from_millis(7);
        let mut session = Session::from_bytes(&bytes, now, Duration::from_millis(ago)).unwrap();
        // If the queue is full, expired messages make room.
        let limit = QueueLimit { messages: session.queued(), ..LIMIT };
        assert_eq!(
            session.enqueue(outgoing(None, QoS::AtMostOnce, ""), limit, now).is_ok(),
            expired,
            "{ago}"
        );
        let end = session.next_completed().map(|published| (published.key, published.outcome));
        assert_eq!(end, expired.then_some((9, Outcome::Expired)));
    }
}

/// Unreported outcomes are stored, here of messages whose session the server has lost.
#[test]
fn unreported_outcomes_are_stored() {
    let mut client = Client::with_session(ClientConfig::new(), full());
    let mut out = Vec::new();
    let connect = Connect { clean_start: true, ..lasting(Version::V5_0) };
    client.connect(&connect, Instant::default(), &mut out).unwrap();
    let mut session = client.into_session();
    let mut loaded = load(&session.to_bytes(Instant::default())).unwrap();
    let mut ends = 0;
    while let Some(end) = session.next_completed() {
        assert_eq!(loaded.next_completed(), Some(end));
        ends += 1;
    }
    assert_eq!(loaded.next_completed(), None);
    assert!(ends > 3, "{ends}");
}

#[test]
fn stored_format_equals_its_documentation() {
    let mut session = Session::established();
    session
        .enqueue(outgoing(Some(0x0102), QoS::AtLeastOnce, "hi"), LIMIT, Instant::default())
        .unwrap();
    #[rustfmt::skip]
    let expected = [
        &b"MQS\x01"[..], // format 1
        &[1],            // established
        &[0, 1],         // the next packet identifier
        &[0, 0, 0, 0],   // nothing in flight
        &[0, 0, 0, 1],   // one message waits
        &[1],            // with a key
        &[0, 0, 0, 0, 0, 0, 1, 2],
        &[0, 0, 0, 0],   // no subscription identifiers
        &[1],            // QoS 1
        &[0, 1], b"t",
        &[0, 0, 0, 7], &[0x26, 0, 1], b"n", &[0, 1], b"v",
        &[0, 0, 0, 2], b"hi",
        &[0, 0, 0, 0],   // nothing received
        &[0, 0, 0, 0],   // nothing ended
    ]
    .concat();
    assert_eq!(session.to_bytes(Instant::default()), expected);
    assert_eq!(load(b"").err(), Some(LoadError::Format));
    assert_eq!(load(b"MQS\x02").err(), Some(LoadError::Format));
}

#[test]
fn damaged_bytes_are_refused_or_load_another_session() {
    let bytes = full().to_bytes(Instant::default());
    for length in 0..bytes.len() {
        assert!(load(&bytes[..length]).is_err(), "{length}");
    }
    assert_eq!(load(&[&bytes[..], &[0]].concat()).err(), Some(LoadError::Damaged));
    let mut accepted = 0;
    for position in 0..bytes.len() {
        for byte in 0..=255 {
            let mut damaged = bytes.clone();
            damaged[position] = byte;
            accepted += usize::from(survives(&damaged));
        }
    }
    assert!(accepted > bytes.len(), "{accepted}");
}

/// Whether the bytes are a session. If so, it can be stored again, and used.
fn survives(bytes: &[u8]) -> bool {
    let Ok(session) = load(bytes) else { return false };
    let again = session.to_bytes(Instant::default());
    assert_eq!(load(&again).unwrap().to_bytes(Instant::default()), again);
    let mut client = Client::with_session(ClientConfig::new(), session);
    let mut out = Vec::new();
    // The session is bound to the identifier that the bytes have, which can be any text.
    let identifier = client.session().client_identifier().unwrap_or("c").to_owned();
    let connect = Connect { client_identifier: (&identifier).into(), ..lasting(Version::V5_0) };
    client.connect(&connect, Instant::default(), &mut out).unwrap();
    let mut input = &b"\x20\x03\x01\x00\x00"[..];
    for _ in 0..1_000 {
        if client.handle_input(&mut input, Instant::default(), &mut out).is_none() {
            break;
        }
    }
    true
}

proptest! {
    #[test]
    fn arbitrary_stored_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        survives(&[b"MQS\x01", &bytes[..]].concat());
    }
}
