//! The properties that the fuzz targets check, one function each. `tests/it/corpus.rs` runs them as
//! ordinary tests.

use crate::wire::VERSIONS;
use arbitrary::{Arbitrary, Unstructured};
use mqtt_sansio::codec::{
    self, DecodeError, Filter, Options, OwnedPacket, Packet, Role, Rules, TopicFilter, TopicName,
    Version,
};
use mqtt_sansio::router::SubscriptionIndex;

const OPTIONS: Options = Options::DEPLOYED_DEVICES
    .union(Options::REFUSE_CONTROL_CHARACTERS)
    .union(Options::CHECK_PAYLOAD_FORMAT);

/// Returns the rules that the first byte selects, and the other bytes.
fn rules(data: &[u8]) -> Option<(Rules, &[u8])> {
    let (first, rest) = data.split_first()?;
    let rules = Rules::new(VERSIONS[usize::from(first % 3)]);
    let rules = match first / 3 % 3 {
        0 => rules,
        1 => rules.sent_by(Role::Client),
        _ => rules.sent_by(Role::Server),
    };
    // The vectors, whose first byte is less than 9, are read without options.
    Some((if first / 9 % 2 == 1 { rules.with(OPTIONS) } else { rules }, rest))
}

/// Checks that arbitrary bytes are a packet or an error with a text, a reason code and a citation.
pub fn decode(data: &[u8]) {
    let Some((rules, bytes)) = rules(data) else { return };
    let told = |error: DecodeError| {
        assert!(!error.to_string().is_empty());
        assert!(error.reason_code().is_error());
        assert!(VERSIONS.iter().all(|version| !error.citation(*version).is_empty()));
    };
    match codec::frame(bytes, u32::MAX) {
        Ok(None) => {
            if let Some(header) = codec::header(bytes, u32::MAX).unwrap() {
                assert!(header.packet_size() as usize > bytes.len());
            }
        }
        Ok(Some(frame)) => match codec::decode(frame, rules) {
            // The `Debug` form visits every field and every element.
            Ok(packet) => assert!(format!("{packet:?}").len() >= 7),
            Err(error) => told(error),
        },
        Err(error) => told(error),
    }
    let limited = codec::frame(bytes, 16);
    assert!(!matches!(limited, Ok(Some(frame)) if frame.as_bytes().len() > 16));
}

/// Checks that a decoded packet encodes to bytes that decode equal, and encodes again to the same
/// bytes.
pub fn roundtrip(data: &[u8]) {
    let Some((rules, bytes)) = rules(data) else { return };
    let Ok(Some(frame)) = codec::frame(bytes, u32::MAX) else { return };
    let Ok(packet) = codec::decode(frame, rules) else { return };
    let rules = rules.forwarding();
    let mut encoded = Vec::new();
    let written = codec::encode(&packet, rules, &mut encoded);
    // A topic name that an option accepted is lost.
    if matches!(packet, Packet::Publish(publish) if publish.topic_name.is_empty())
        && rules.version() < Version::V5_0
    {
        return assert_eq!(written, Err(DecodeError::EmptyTopicName.into()));
    }
    written.expect("a decoded packet encodes");
    let again = codec::frame(&encoded, u32::MAX).unwrap().expect("a whole packet");
    assert_eq!(again.as_bytes().len(), encoded.len());
    let decoded = codec::decode(again, rules).expect("an encoded packet decodes");
    assert_eq!(decoded, packet);
    // A CONNECT of 3.1 can omit fields that its flags announce. Otherwise only an acknowledgement
    // without properties becomes longer, by one byte.
    assert!(encoded.len() <= frame.as_bytes().len() + 1);
    let mut twice = Vec::new();
    codec::encode(&decoded, rules, &mut twice).unwrap();
    assert_eq!(twice, encoded);
    let owned = OwnedPacket::new(&packet, rules).unwrap();
    assert_eq!((owned.decode(), owned.as_bytes()), (packet, &encoded[..]));
}

/// Checks that every division of a stream gives the same packets and the same error, and nothing
/// before the last byte of a packet.
pub fn split(data: &[u8]) {
    let Some((rules, stream)) = rules(data) else { return };
    let step = usize::from(data[0] / 18) + 2;
    let whole = outcomes(stream, usize::MAX, rules);
    assert_eq!(outcomes(stream, step, rules), whole);
    if stream.len() <= 64 {
        assert_eq!(outcomes(stream, 1, rules), whole);
    }
}

/// Returns the outcomes of a stream that arrives in chunks: packets as text, and how it ends.
fn outcomes(stream: &[u8], step: usize, rules: Rules) -> Vec<String> {
    let mut outcomes = Vec::new();
    let (mut start, mut end) = (0, 0);
    loop {
        match codec::frame(&stream[start..end], 4096) {
            Ok(Some(frame)) => {
                start += frame.as_bytes().len();
                outcomes.push(format!("{:?}", codec::decode(frame, rules)));
                continue;
            }
            Ok(None) if end == stream.len() => {
                outcomes.push(format!("{} bytes are left", end - start));
                return outcomes;
            }
            Ok(None) => {}
            Err(error) => {
                outcomes.push(format!("{error:?}"));
                return outcomes;
            }
        }
        end = end.saturating_add(step).min(stream.len());
    }
}

/// Checks that an arbitrary packet either encodes, and decodes equal, or is refused with the output
/// unchanged.
pub fn encode(data: &[u8]) {
    let Some((rules, rest)) = rules(data) else { return };
    // One in two is a packet of 5.0 from either side, which other rules often refuse.
    let drawn_by = if data[0] / 18 % 2 == 1 { rules } else { Version::V5_0.into() };
    let packet = Packet::arbitrary_by(drawn_by, &mut Unstructured::new(rest));
    packet.into_iter().for_each(|packet| encode_by(packet, rules));
}

fn encode_by(packet: Packet<'_>, rules: Rules) {
    let mut out = b"before".to_vec();
    let result = codec::encode(&packet, rules, &mut out);
    let size = u32::try_from(out.len() - b"before".len()).expect("at most 268,435,460");
    assert_eq!(codec::packet_size(&packet, rules), result.map(|()| size));
    match result {
        Ok(()) => {
            let encoded = out.strip_prefix(b"before").expect("encoding appends");
            let frame = codec::frame(encoded, u32::MAX).unwrap().expect("a whole packet");
            assert_eq!(frame.as_bytes().len(), encoded.len());
            let decoded = codec::decode(frame, rules).expect("what was encoded");
            assert_eq!(decoded, packet);
            // The strings of the decoded packet are not checked again. No version may notice.
            for version in [Version::V3_1, Version::V3_1_1, Version::V5_0] {
                let (mut first, mut second) = (Vec::new(), Vec::new());
                let result = codec::encode(&packet, version, &mut first);
                assert_eq!(codec::encode(&decoded, version, &mut second), result);
                assert_eq!(first, second);
            }
        }
        Err(_) => assert_eq!(out, b"before"),
    }
}

/// Checks the syntax and the matching of topic filters against a plain implementation of the
/// standard.
pub fn topic(data: &[u8]) {
    let Ok((filter, name)) = <(&str, &str)>::arbitrary(&mut Unstructured::new(data)) else {
        return;
    };
    let parsed = TopicFilter::new(filter, Version::V3_1_1);
    assert_eq!(parsed.is_ok(), is_filter(filter), "{filter:?}");
    if let Ok(parsed) = parsed {
        let filter_levels: Vec<_> = filter.split('/').collect();
        let name_levels: Vec<_> = name.split('/').collect();
        let hidden = name.starts_with('$') && (filter.starts_with('+') || filter.starts_with('#'));
        let expected = !hidden && matches(&filter_levels, &name_levels);
        assert_eq!(parsed.matches(name), expected, "{filter:?} {name:?}");
    }
    let shared = filter.strip_prefix("$share/").map(|rest| rest.split_once('/'));
    let expected = match shared {
        _ if filter.len() > 65_535 => false,
        None => is_filter(filter),
        Some(None) => false,
        Some(Some((group, rest))) => {
            !group.is_empty() && !group.contains(['+', '#', '\0']) && is_filter(rest)
        }
    };
    assert_eq!(TopicFilter::new(filter, Version::V5_0).is_ok(), expected, "{filter:?}");
}

/// Checks that a subscription index agrees with a list of filters, after operations and for names
/// that a few levels make likely to meet.
pub fn router(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let Ok(seed) = u128::arbitrary(&mut u) else { return };
    let mut index = SubscriptionIndex::with_seed(seed);
    let mut list: Vec<(String, u8, u8)> = Vec::new();
    while !u.is_empty() {
        let Ok((kind, subscriber, text)) = operation(&mut u) else { return };
        let same = |(other, who, _): &(String, u8, u8)| *other == text && *who == subscriber;
        let known = list.iter().position(same);
        match (kind, TopicFilter::new(&text, Version::V3_1_1)) {
            (0..128, Ok(filter)) => {
                let replaced = index.insert(filter, subscriber, kind);
                assert_eq!(replaced, known.map(|known| list.swap_remove(known).2));
                list.push((text, subscriber, kind));
            }
            (128..192, Ok(filter)) => {
                let removed = index.remove(filter, &subscriber);
                assert_eq!(removed, known.map(|known| list.swap_remove(known).2));
            }
            (255, Ok(_)) => {
                let before = list.len();
                list.retain(|(_, who, _)| *who != subscriber);
                assert_eq!(index.remove_subscriber(&subscriber), before - list.len());
            }
            _ => {
                let Ok(name) = TopicName::new(&text) else { continue };
                let (mut found, mut expected) = (Vec::new(), Vec::new());
                index.matches(&name, |subscriber, value| found.push((*subscriber, *value)));
                for (filter, subscriber, value) in &list {
                    if TopicFilter::new(filter, Version::V3_1_1).unwrap().matches(&name) {
                        expected.push((*subscriber, *value));
                    }
                }
                found.sort_unstable();
                expected.sort_unstable();
                assert_eq!(found, expected, "{text:?} in {list:?}");
            }
        }
        assert_eq!(index.len(), list.len());
    }
    let owned = |(filter, subscriber, value): (Filter, &u8, &u8)| {
        (filter.as_topic_filter().as_text().to_str().to_owned(), *subscriber, *value)
    };
    let mut all: Vec<_> = index.iter().map(owned).collect();
    all.sort_unstable();
    list.sort_unstable();
    assert_eq!(all, list);
}

/// Returns the kind of an operation, a subscriber, and a topic filter or name.
fn operation(u: &mut Unstructured<'_>) -> arbitrary::Result<(u8, u8, String)> {
    const LEVELS: [&str; 8] = ["a", "b", "", "$c", "+", "#", "+", "a level that is not short"];
    let (kind, subscriber, count) = (u.arbitrary()?, u.arbitrary()?, u.int_in_range(1..=20)?);
    let levels = (0..count).map(|_| match u.int_in_range(0..=11_u8)? {
        level @ 0..8 => Ok(LEVELS[usize::from(level)]),
        _ => <&str>::arbitrary(u),
    });
    Ok((kind, subscriber, levels.collect::<arbitrary::Result<Vec<_>>>()?.join("/")))
}

fn is_filter(filter: &str) -> bool {
    let levels: Vec<_> = filter.split('/').collect();
    let level = |(index, level): (usize, &&str)| match *level {
        "#" => index + 1 == levels.len(),
        "+" => true,
        level => !level.contains(['+', '#', '\0']),
    };
    (1..=65_535).contains(&filter.len()) && levels.iter().enumerate().all(level)
}

fn matches(filter: &[&str], name: &[&str]) -> bool {
    match (filter, name) {
        (["#"], _) => true,
        (["+", filter @ ..], [_, name @ ..]) => matches(filter, name),
        ([level, filter @ ..], [other, name @ ..]) => level == other && matches(filter, name),
        (filter, name) => filter.is_empty() && name.is_empty(),
    }
}
