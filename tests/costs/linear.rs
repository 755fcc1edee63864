//! An input that is a hundred times as long costs about a hundred times as much, not ten thousand
//! times: no element causes a search or a move of all others.

use core::hint::black_box;
use core::time::Duration;
use mqtt_sansio::Instant;
use mqtt_sansio::client::{Action, Client, ClientConfig};
use mqtt_sansio::codec::{
    self, Connect, Packet, PacketIdentifier, Publish, PublishProperties, QoS, Subscribe,
    SubscribeProperties, Subscription, UserProperty, Version,
};
use mqtt_sansio::session::{Message, Outgoing, QueueLimit, Session};
use std::time::Instant as Moment;

/// Returns the shortest time of several runs.
fn time(mut run: impl FnMut()) -> Duration {
    let once = |run: &mut dyn FnMut()| {
        let start = Moment::now();
        run();
        start.elapsed()
    };
    (0..15).map(|_| once(&mut run)).min().unwrap()
}

/// Fails if the long input costs more than twenty times what its length allows. Quadratic work
/// costs a hundred times as much; leaving the caches of a busy machine up to ten times.
fn assert_linear(what: &str, factor: u32, short: Duration, long: Duration) {
    let allowed = (short + Duration::from_micros(5)) * factor * 20;
    assert!(long < allowed, "{what}: {short:?} becomes {long:?} at {factor} times the length");
}

/// Times encoding, decoding, and iteration over the decoded packet.
fn both_ways(packet: &Packet<'_>) -> (Duration, Duration, Duration) {
    let mut bytes = Vec::new();
    let encode = time(|| {
        bytes.clear();
        codec::encode(packet, Version::V5_0, &mut bytes).unwrap();
    });
    let decoded =
        || codec::decode(codec::frame(&bytes, u32::MAX).unwrap().unwrap(), Version::V5_0).unwrap();
    let decode = time(|| _ = black_box(decoded()));
    (encode, decode, time(|| assert!(decoded() == *packet)))
}

fn compare(what: &str, factor: u32, short: &Packet<'_>, long: &Packet<'_>) {
    let (short, long) = (both_ways(short), both_ways(long));
    assert_linear(&format!("encoding {what}"), factor, short.0, long.0);
    assert_linear(&format!("decoding {what}"), factor, short.1, long.1);
    assert_linear(&format!("reading {what}"), factor, short.2, long.2);
}

#[test]
fn user_properties_cost_linear_time() {
    let all = vec![UserProperty::new("name", "value"); 10_000];
    let packet = |count| {
        let user_properties = all.get(..count).unwrap().into();
        Packet::from(Publish {
            properties: PublishProperties { user_properties, ..Default::default() },
            ..Publish::new("t", b"")
        })
    };
    compare("user properties", 100, &packet(100), &packet(10_000));
}

#[test]
fn topic_filters_cost_linear_time() {
    let all = vec![Subscription::new("a/+/c/#", QoS::AtLeastOnce); 20_000];
    let packet = |count| {
        let (packet_identifier, properties) =
            (PacketIdentifier::new(1).unwrap(), SubscribeProperties::default());
        Packet::from(Subscribe {
            packet_identifier,
            properties,
            subscriptions: all.get(..count).unwrap().into(),
        })
    };
    compare("topic filters", 100, &packet(200), &packet(20_000));
}

#[test]
fn payloads_cost_linear_time() {
    let payload = vec![b'x'; 16 * 1024 * 1024];
    let packet = |size| Packet::from(Publish::new("t", payload.get(..size).unwrap()));
    compare("payloads", 128, &packet(128 * 1024), &packet(16 * 1024 * 1024));
}

/// However many messages are in flight, acknowledging the oldest or the newest costs the same.
#[test]
fn messages_in_flight_cost_linear_time() {
    let round = |in_flight: u16, oldest: bool| {
        let mut client = Client::new(ClientConfig::new().maximum_in_flight(u16::MAX));
        let (now, mut out) = (Instant::default(), Vec::new());
        client.connect(&Connect::new(Version::V5_0, "c"), now, &mut out).unwrap();
        let mut connack = &b"\x20\x03\0\0\0"[..];
        while client.handle_input(&mut connack, now, &mut out).is_some() {}
        let message = Publish { qos: QoS::AtLeastOnce, ..Publish::new("t", b"x") };
        for key in 0..in_flight {
            client.publish(key.into(), &message, now, &mut out).unwrap();
        }
        let identifiers: Vec<u16> =
            if oldest { (1..=in_flight).collect() } else { (1..=in_flight).rev().collect() };
        let start = Moment::now();
        for identifier in identifiers {
            let [high, low] = identifier.to_be_bytes();
            let mut puback = &[0x40, 2, high, low][..];
            assert!(matches!(
                client.handle_input(&mut puback, now, &mut out),
                Some(Action::Published(_))
            ));
            client.publish(0, &message, now, &mut out).unwrap();
            out.clear();
        }
        start.elapsed()
    };
    for oldest in [true, false] {
        let best = |in_flight| (0..7).map(|_| round(in_flight, oldest)).min().unwrap();
        assert_linear("messages in flight", 1_000, best(10), best(10_000));
    }
}

/// A client that does not read has a full queue for long. Each message for it is refused at once.
#[test]
fn full_queue_costs_linear_time() {
    let round = |length: usize| {
        let limit = QueueLimit { messages: length, bytes: usize::MAX };
        let message = Message::new(&Publish::new("t", b"x")).unwrap();
        let later = Some(Instant::from_millis(1));
        let outgoing = || Outgoing { expires_at: later, ..Outgoing::new(None, message.clone()) };
        let mut session = Session::new();
        for _ in 0..length {
            session.enqueue(outgoing(), limit, Instant::default()).unwrap();
        }
        time(|| {
            (0..100).for_each(|_| {
                assert!(session.enqueue(outgoing(), limit, Instant::default()).is_err());
            });
        })
    };
    assert_linear("a refusal", 1, round(10), round(100_000));
}
