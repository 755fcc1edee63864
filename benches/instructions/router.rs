//! Lookups among 10,000 subscriptions and 10,000 retained messages.

use crate::{Cases, Repeat};
use core::hint::black_box;
use mqtt_sansio::Instant;
use mqtt_sansio::codec::{Filter, Publish, QoS, TopicFilter, TopicName, Version};
use mqtt_sansio::router::{RetainedCursor, RetainedStore, SubscriptionIndex};
use mqtt_sansio::session::Message;

const NOW: Instant = Instant::from_millis(1);

pub fn add(cases: &mut Cases) {
    cases.add("router 10k match 1", || matches("site/3/room/50/temp/0", 1));
    cases.add("router 10k match 13", || matches("site/3/room/42/temp/0", 13));
    cases.add("router 10k match none", || matches("site/3/room/4200/humidity", 0));
    cases.add("router 10k insert and remove", insert_and_remove);
    cases.add("retained 10k one topic", || retained("site/3/room/42/temp", 1));
    cases.add("retained 10k last level any", || retained("site/3/room/42/+", 1));
    cases.add("retained 10k subtree of 101", || retained("site/3/room/4/#", 101));
}

/// Returns 10,000 filters of ten sites: 9,600 without wildcards, 200 with `+` at the end, 100 with
/// `#`, and 100 with `+` before the end, ten of which are the same each time.
fn index() -> SubscriptionIndex<usize, QoS> {
    let mut index = SubscriptionIndex::new();
    for number in 0..10_000 {
        let (site, room) = (number / 1_000, number % 1_000);
        let filter = match room % 100 {
            0..96 => format!("site/{site}/room/{room}/temp/0"),
            96..98 => format!("site/{site}/room/{}/temp/+", room - 54),
            98 => format!("site/{site}/room/{}/#", room - 56),
            _ => format!("site/+/room/{}/temp/0", room - 57),
        };
        let filter = TopicFilter::new(filter.as_str(), Version::V5_0).unwrap();
        index.insert(filter, number, QoS::AtLeastOnce);
    }
    assert_eq!(index.len(), 10_000);
    index
}

fn matches(topic_name: &'static str, expected: usize) -> Repeat {
    let index = index();
    let topic_name = TopicName::new(topic_name).unwrap();
    Box::new(move |count| {
        for _ in 0..count {
            let mut found = 0;
            index.matches(black_box(&topic_name), |subscriber, qos| {
                black_box((subscriber, qos));
                found += 1;
            });
            black_box(found);
        }
        let mut found = 0;
        index.matches(&topic_name, |_, _| found += 1);
        assert_eq!(found, expected, "{topic_name}");
    })
}

fn insert_and_remove() -> Repeat {
    let mut index = index();
    let filter = TopicFilter::new("site/3/room/+/humidity/#", Version::V5_0).unwrap();
    Box::new(move |count| {
        for _ in 0..count {
            let filter = black_box(filter);
            assert!(index.insert(filter, 1, QoS::AtMostOnce).is_none());
            assert!(index.remove(filter, &1).is_some());
        }
    })
}

/// Fetches all messages that a filter matches, one by one.
fn retained(filter: &'static str, expected: usize) -> Repeat {
    let mut store = RetainedStore::new();
    for number in 0..10_000 {
        let (site, room) = (number / 1_000, number % 1_000);
        let topic_name = match room {
            0..900 => format!("site/{site}/room/{room}/temp"),
            _ => format!("site/{site}/room/4/sensor/{room}"),
        };
        let message = Message::new(&Publish::new(topic_name.as_str(), b"21.5")).unwrap();
        store.insert(message, None, b"publisher"[..].into());
    }
    assert_eq!(store.len(), 10_000);
    Box::new(move |count| {
        for _ in 0..count {
            let filter = Filter::new(black_box(filter), Version::V5_0).unwrap();
            let (mut found, mut cursor) = (0, RetainedCursor::new(filter));
            while store.next(&mut cursor, NOW, &mut 1_000_000).is_some() {
                cursor.pass();
                found += 1;
            }
            assert_eq!(found, expected);
        }
    })
}
