#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic")]

use super::*;
use mqtt_sansio::client::{Client, ClientConfig};
use mqtt_sansio::codec::{
    Connect, Packet, PacketIdentifier, Publish, PublishProperties, QoS, Role, Rules, Version,
};
use mqtt_sansio::session::Change;
use std::time::Duration;

/// Returns a file in which messages of each QoS pass through each state, a frame for each step,
/// and the state after each frame.
fn history() -> (Vec<u8>, Vec<(usize, State)>) {
    let (mut file, mut states) = (FORMAT.to_vec(), vec![(FORMAT.len(), State::default())]);
    for key in 1..=12_u64 {
        let packet_identifier = PacketIdentifier::new(u16::try_from(key).unwrap() * 3).unwrap();
        let name = |records: &mut Records| records.client_identifier("worker-4");
        let queue = |records: &mut Records| {
            let qos = if key % 3 == 0 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
            let properties = PublishProperties {
                message_expiry_interval: Some(1_000).filter(|_| key % 4 == 0),
                ..PublishProperties::default()
            };
            let payload = vec![7; usize::try_from(key).unwrap()];
            records.message(key, &Publish { qos, properties, ..Publish::new("a/b", &payload) });
        };
        let change = |change| move |records: &mut Records| records.change(change);
        let key_of = (key % 3 != 0).then_some(key);
        let sent = change(Change::Sent { packet_identifier, key: key_of });
        let released = change(Change::Released { packet_identifier, key: key_of });
        let ended = change(if key % 5 == 0 {
            Change::Withheld { packet_identifier }
        } else {
            Change::Ended { packet_identifier }
        });
        let accepted = change(Change::Accepted { packet_identifier });
        let completed = change(Change::Completed { packet_identifier });
        let outcome = |records: &mut Records| records.outcome(key);
        let steps: [&dyn Fn(&mut Records); 8] =
            [&name, &queue, &sent, &accepted, &released, &ended, &outcome, &completed];
        // Each message stops at another step, so that the last state has all of them.
        for step in &steps[..=usize::try_from(key % 8).unwrap()] {
            let mut records = Records::default();
            step(&mut records);
            file.extend(frame(&records.bytes).unwrap());
            let mut state = states.last().unwrap().1.clone();
            state.apply(&records.bytes).unwrap();
            states.push((file.len(), state));
        }
    }
    (file, states)
}

#[test]
fn file_cut_at_each_byte_has_state_of_complete_frames() {
    let (file, states) = history();
    for cut in FORMAT.len()..=file.len() {
        let (end, expected) = states.iter().rfind(|(end, _)| *end <= cut).unwrap();
        let (state, torn) = parse(&file[..cut]).unwrap();
        assert_eq!((&state, torn), (expected, cut - end), "{cut}");
        assert!(state.to_stored(Instant::default()).is_some(), "{cut}");
    }
}

#[test]
fn file_with_changed_byte_has_earlier_state_or_is_refused() {
    let (file, states) = history();
    for position in 0..file.len() {
        for bit in [0x01, 0x80] {
            let mut file = file.clone();
            file[position] ^= bit;
            let parsed = parse(&file).map(|(state, _)| state);
            let is_earlier = |state| states.iter().any(|(_, other)| *other == state);
            assert!(parsed.is_none_or(is_earlier), "{position}");
        }
    }
}

#[test]
fn fewest_records_lead_to_same_state() {
    for (_, state) in history().1 {
        let mut again = State::default();
        again.apply(&state.to_records()).unwrap();
        let stored = |state: &State| {
            let Stored { session, last_key } = state.to_stored(Instant::default()).unwrap();
            (session.to_bytes(Instant::default()), last_key)
        };
        assert_eq!(stored(&again).1, stored(&state).1);
        assert_eq!(again.to_records(), state.to_records());
    }
}

/// [5.0 MQTT-4.6.0-1]
#[test]
fn stored_messages_are_resent_in_order() {
    let mut records = Records::default();
    for (key, qos) in [(1, QoS::AtLeastOnce), (2, QoS::ExactlyOnce), (3, QoS::AtLeastOnce)] {
        records.message(key, &Publish { qos, ..Publish::new("a", &[48 + key as u8]) });
    }
    let packet_identifier = PacketIdentifier::new(9).unwrap();
    records.change(Change::Sent { packet_identifier, key: Some(2) });
    records.client_identifier("c");
    let mut state = State::default();
    state.apply(&records.bytes).unwrap();
    let (now, mut out) = (Instant::default(), Vec::new());
    let Stored { session, last_key } = state.to_stored(now).unwrap();
    let mut client = Client::with_session(ClientConfig::new(), session);
    client.connect(&Connect::new(Version::V3_1_1, "c"), now, &mut out).unwrap();
    out.clear();
    let mut input = &b"\x20\x02\x01\0"[..];
    while client.handle_input(&mut input, now, &mut out).is_some() {}
    let mut resent = Vec::new();
    let mut rest = out.as_slice();
    let rules = Rules::new(Version::V3_1_1).sent_by(Role::Client);
    while let Ok(Some(frame)) = mqtt_sansio::codec::frame(rest, u32::MAX) {
        let packet = mqtt_sansio::codec::decode(frame, rules).unwrap();
        let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
        resent.push((publish.payload[0] - 48, publish.dup, publish.packet_identifier));
        rest = &rest[frame.as_bytes().len()..];
    }
    let number = |number| PacketIdentifier::new(number);
    assert_eq!(resent, [(1, true, number(1)), (2, true, number(9)), (3, false, number(2))]);
    assert_eq!(last_key, 3);
}

#[tokio::test]
async fn file_is_replaced_when_it_has_grown() {
    let path = std::env::temp_dir().join(format!("mqtt-sansio-store-{}", std::process::id()));
    let mut store = Store::new(path.clone());
    let mut longest = 0;
    for key in 1..=3_000 {
        let mut records = Records::default();
        records.message(key, &Publish { qos: QoS::AtLeastOnce, ..Publish::new("a", &[0; 500]) });
        if key > 10 {
            records.outcome(key - 10);
        }
        records.must_sync = false;
        store.save(records).await.unwrap();
        longest = longest.max(std::fs::metadata(&path).unwrap().len());
    }
    assert!(longest < LEAST_GROWTH + 50_000, "{longest}");
    // A torn frame is dropped, and writing goes on after it.
    let file = std::fs::read(&path).unwrap();
    std::fs::write(&path, &file[..file.len() - 1]).unwrap();
    let mut store = Store::new(path.clone());
    assert_eq!(store.load(Instant::default()).unwrap().unwrap().session.queued(), 10);
    let mut records = Records::default();
    records.message(5_000, &Publish { qos: QoS::AtLeastOnce, ..Publish::new("a", b"x") });
    // A call that is dropped does not disturb the next one.
    let saving = tokio::time::timeout(Duration::ZERO, store.save(records)).await;
    store.save(Records::default()).await.unwrap();
    let stored = Store::new(path.clone()).load(Instant::default()).unwrap().unwrap();
    assert_eq!((stored.session.queued(), stored.last_key), (11, 5_000), "{saving:?}");
    std::fs::remove_file(&path).unwrap();
}
