//! Retained messages: the last one of each topic. [5.0 §3.3.1.3] [3.1.1 §3.3.1.3]

use crate::codec::{Filter, TopicFilter, TopicName};
use crate::session::{Message, QueueLimit};
use crate::sync::Arc;
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::borrow::Borrow;
use core::cmp::Ordering;
use core::ops::Bound;

/// The last retained message of each topic name.
///
/// The topics are in the order of their bytes, so that those below a topic stand together. A search
/// passes over each branch that a filter cannot match, and can stop and continue anywhere.
///
/// ```
/// use mqtt_sansio::Instant;
/// use mqtt_sansio::codec::{Filter, Publish, TopicName, Version};
/// use mqtt_sansio::router::{RetainedCursor, RetainedStore};
/// use mqtt_sansio::session::Message;
///
/// let now = Instant::from_millis(0);
/// let mut store = RetainedStore::new();
/// store.insert(Message::new(&Publish::new("room/4", b"21.5"))?, None, b"sensor"[..].into());
/// assert_eq!(store.get(TopicName::new("room/4")?).unwrap().message.payload(), b"21.5");
///
/// let mut rooms = RetainedCursor::new(Filter::new("room/+", Version::V5_0)?);
/// // At most 100 steps, so that a large store does not make others wait.
/// let found = store.next(&mut rooms, now, &mut 100).unwrap();
/// assert_eq!(found.message.topic_name(), "room/4");
/// rooms.pass();
/// assert!(store.next(&mut rooms, now, &mut 100).is_none());
/// assert!(rooms.is_at_end());
/// # Ok::<_, mqtt_sansio::codec::EncodeError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct RetainedStore {
    messages: BTreeSet<Entry>,
    /// The messages that expire, in the order of their ends.
    expiring: BTreeSet<(Instant, ByTopic)>,
    bytes: usize,
    version: u64,
}

/// A message that is kept for later subscribers.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retained {
    /// The message.
    pub message: Message,
    /// The time from which the message must not be sent. [5.0 §3.3.2.3.3]
    pub expires_at: Option<Instant>,
    /// The [version](RetainedStore::version) of the store when it retained this message.
    pub version: u64,
    /// The Client Identifier of its publisher, which does not receive it for a subscription with No
    /// Local. [5.0 MQTT-3.8.3-3]
    pub publisher: Arc<[u8]>,
}

impl Retained {
    /// Whether the message has expired, so that it must not be sent.
    #[must_use]
    pub fn is_expired(&self, now: Instant) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// A retained message in the order of its topic. Its block keeps the free places of the set small:
/// nearly half of them are free if the messages come in the order of their topics.
#[derive(Clone, Debug)]
struct Entry(Box<Retained>);

/// A message in the order of its topic.
#[derive(Clone, Debug)]
struct ByTopic(Message);

impl Borrow<[u8]> for Entry {
    #[inline]
    fn borrow(&self) -> &[u8] {
        self.0.message.topic_bytes()
    }
}

impl Borrow<[u8]> for ByTopic {
    fn borrow(&self) -> &[u8] {
        self.0.topic_bytes()
    }
}

/// Implements the order of the topic, which is the same as that of the borrowed bytes.
macro_rules! ordered_by_topic {
    ($($name:ident)+) => {$(
        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.cmp(other).is_eq()
            }
        }

        impl Eq for $name {}

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                Borrow::<[u8]>::borrow(self).cmp(other.borrow())
            }
        }
    )+};
}

ordered_by_topic!(Entry ByTopic);

/// The position of a search for the retained messages that match a filter.
///
/// The store may change between two steps of the search. The cursor then finds messages that were
/// retained after its position, and passes over those that are gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetainedCursor {
    filter: Filter,
    position: Position,
    /// The topic of the position. It is copied, so that no message is kept that was replaced.
    topic: Vec<u8>,
}

/// How far a search is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    Start,
    /// The next step looks at the topic again.
    AtTopic,
    AfterTopic,
    End,
}

impl RetainedCursor {
    /// Returns a cursor that stands before the first message.
    #[must_use]
    pub const fn new(filter: Filter) -> Self {
        Self { filter, position: Position::Start, topic: Vec::new() }
    }

    /// Returns the filter that the search is for.
    #[must_use]
    pub const fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Passes the message that [`RetainedStore::next`] has returned.
    pub fn pass(&mut self) {
        if self.position == Position::AtTopic {
            self.position = Position::AfterTopic;
        }
    }

    /// Whether the search has passed this topic.
    #[must_use]
    pub fn has_passed<'t>(&self, topic_name: impl Into<TopicName<'t>>) -> bool {
        let topic_name = topic_name.into();
        let topic = topic_name.as_text().as_bytes();
        match self.position {
            Position::Start => false,
            Position::AtTopic => topic < &*self.topic,
            Position::AfterTopic => topic <= &*self.topic,
            Position::End => true,
        }
    }

    /// Whether the search is over.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.position == Position::End
    }

    fn stand(&mut self, position: Position, topic: &[u8]) {
        self.position = position;
        self.topic.clear();
        self.topic.extend_from_slice(topic);
    }

    /// Ends the search, and releases the room for its topic.
    fn end(&mut self) {
        (self.position, self.topic) = (Position::End, Vec::new());
    }
}

impl RetainedStore {
    /// Returns a store without messages.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the number of messages, including expired ones that were not removed yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether there are no messages.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Returns the bytes of all messages: topic names, properties and payloads.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the number of messages retained since the store was created. A message with a
    /// greater version is newer.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Returns the message of a topic.
    #[must_use]
    pub fn get<'t>(&self, topic_name: impl Into<TopicName<'t>>) -> Option<&Retained> {
        let entry = self.messages.get(topic_name.into().as_text().as_bytes());
        entry.map(|Entry(retained)| &**retained)
    }

    /// Returns an iterator over all messages, in the order of the bytes of their topics.
    pub fn iter(&self) -> impl Iterator<Item = &Retained> {
        self.messages.iter().map(|Entry(retained)| &**retained)
    }

    /// Whether a message can be retained within a limit. One without payload always can.
    #[must_use]
    pub fn has_room(&self, message: &Message, limit: QueueLimit) -> bool {
        let old = self.get(message.topic_name()).map(|retained| retained.message.size());
        let bytes = self.bytes - old.unwrap_or(0) + message.size();
        let fits = (old.is_some() || self.len() < limit.messages) && bytes <= limit.bytes;
        fits || message.payload().is_empty()
    }

    /// Retains a message in place of the one of its topic. A message without payload only removes
    /// the old one. Returns the old one. [5.0 MQTT-3.3.1-5 to -7] [3.1.1 MQTT-3.3.1-5]
    /// [3.1.1 MQTT-3.3.1-10] [3.1.1 MQTT-3.3.1-11]
    pub fn insert(
        &mut self,
        message: Message,
        expires_at: Option<Instant>,
        publisher: Arc<[u8]>,
    ) -> Option<Retained> {
        if message.payload().is_empty() {
            return self.remove(message.topic_bytes());
        }
        self.bytes += message.size();
        self.version += 1;
        self.expiring.extend(expires_at.map(|at| (at, ByTopic(message.clone()))));
        let retained = Retained { message, expires_at, version: self.version, publisher };
        let Entry(old) = self.messages.replace(Entry(Box::new(retained)))?;
        self.bytes -= old.message.size();
        if old.expires_at != expires_at {
            self.forget_expiry(&old);
        }
        Some(*old)
    }

    /// Returns when the next message expires.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.expiring.first().map(|(at, _)| *at)
    }

    /// Removes the message that was the first to expire, if one has expired.
    pub fn pop_expired(&mut self, now: Instant) -> Option<Retained> {
        let (_, ByTopic(message)) = self.expiring.first().filter(|(at, _)| *at <= now)?;
        let message = message.clone();
        self.remove(message.topic_bytes())
    }

    fn remove(&mut self, topic: &[u8]) -> Option<Retained> {
        let Entry(old) = self.messages.take(topic)?;
        self.bytes -= old.message.size();
        self.forget_expiry(&old);
        Some(*old)
    }

    fn forget_expiry(&mut self, old: &Retained) {
        old.expires_at.map(|at| self.expiring.remove(&(at, ByTopic(old.message.clone()))));
    }

    /// Returns the first message at or after a cursor that matches its filter and has not expired.
    /// The cursor then stands at this message until it [passes](RetainedCursor::pass) it.
    ///
    /// Each message that is looked at takes one from `budget`. `None` with an empty budget means
    /// that the search can go on; otherwise the cursor [is at the end](RetainedCursor::is_at_end).
    pub fn next(
        &self,
        cursor: &mut RetainedCursor,
        now: Instant,
        budget: &mut usize,
    ) -> Option<&Retained> {
        let filter = cursor.filter.as_topic_filter();
        // No topic before this one matches.
        let mut skip = Vec::new();
        let from = match cursor.position {
            Position::Start if !filter.has_wildcard() => {
                return self.only(cursor, now, budget);
            }
            Position::Start => Bound::Included(first_topic(filter)),
            Position::AtTopic => Bound::Included(&*cursor.topic),
            Position::AfterTopic => Bound::Excluded(&*cursor.topic),
            Position::End => return None,
        };
        let mut entries = self.messages.range::<[u8], _>((from, Bound::Unbounded));
        let (mut last, mut skipped) = (None, 0);
        while *budget > 0 {
            let Some(Entry(retained)) = entries.next() else {
                cursor.end();
                return None;
            };
            let topic = retained.message.topic_bytes();
            *budget = budget.saturating_sub(1 + topic.len() / BYTES_OF_A_STEP);
            last = Some(topic);
            if *topic < *skip {
                skipped += 1;
                // A short branch is passed step by step, a long one by a look-up.
                if skipped == MOST_SKIPPED {
                    let from = Bound::Included(&*skip);
                    entries = self.messages.range::<[u8], _>((from, Bound::Unbounded));
                }
                continue;
            }
            skipped = 0;
            match fit(filter, topic, &mut skip) {
                Fit::Matches if retained.is_expired(now) => {}
                Fit::Matches => {
                    cursor.stand(Position::AtTopic, topic);
                    return Some(retained);
                }
                Fit::Later => {}
                Fit::Never => {
                    cursor.end();
                    return None;
                }
            }
        }
        if let Some(topic) = last {
            cursor.stand(Position::AfterTopic, topic);
        }
        None
    }

    /// Looks up the topic that a filter without wildcards names.
    fn only(
        &self,
        cursor: &mut RetainedCursor,
        now: Instant,
        budget: &mut usize,
    ) -> Option<&Retained> {
        if *budget == 0 {
            return None;
        }
        *budget -= 1;
        let topic = cursor.filter.as_topic_filter().filter().as_bytes();
        let found = self.messages.get(topic).filter(|Entry(retained)| !retained.is_expired(now));
        let Some(Entry(retained)) = found else {
            cursor.end();
            return None;
        };
        cursor.stand(Position::AtTopic, retained.message.topic_bytes());
        Some(retained)
    }
}

/// The bytes of a topic that take a further step.
const BYTES_OF_A_STEP: usize = 256;

/// How many topics a search passes one by one before it looks up where to go on.
const MOST_SKIPPED: usize = 4;

/// The smallest byte after the separator of levels. Topics below another one are those before this
/// byte and after the separator.
const AFTER_SEPARATOR: u8 = b'/' + 1;

/// Returns bytes that are not greater than any topic that a filter matches: the levels before its
/// first wildcard.
fn first_topic(filter: TopicFilter<'_>) -> &[u8] {
    let text = filter.filter().as_bytes();
    let wildcard = text.iter().position(|byte| matches!(byte, b'+' | b'#'));
    // Before a wildcard there is a separator: `a/#` matches `a` as well.
    let end = wildcard.map_or(text.len(), |wildcard| wildcard.saturating_sub(1));
    text.get(..end).unwrap_or_default()
}

/// How a topic compares with a filter.
enum Fit {
    Matches,
    /// A later topic can match.
    Later,
    /// No later topic matches.
    Never,
}

/// Compares a topic with a filter. If it does not match but a later one can, `skip` becomes bytes
/// that are not greater than any that can.
fn fit(filter: TopicFilter<'_>, topic: &[u8], skip: &mut Vec<u8>) -> Fit {
    let text = filter.filter();
    let mut skip_to = |parts: [&[u8]; 3]| {
        skip.clear();
        parts.into_iter().for_each(|part| skip.extend_from_slice(part));
        Fit::Later
    };
    // [5.0 MQTT-4.7.2-1] [3.1.1 MQTT-4.7.2-1]
    if topic.first() == Some(&b'$') && matches!(text.as_bytes(), [b'+' | b'#', ..]) {
        return skip_to([&[b'$' + 1], &[], &[]]);
    }
    let mut levels = topic.split(|&byte| byte == b'/');
    // The levels looked at are those before `end`. `varies` is whether others fit as well.
    let (mut start, mut end, mut varies) = (0, 0, false);
    for wanted in text.as_bytes().split(|&byte| byte == b'/') {
        if wanted == b"#" {
            return Fit::Matches;
        }
        // Below this topic, which has too few levels, there can be one that matches.
        let Some(level) = levels.next() else { return Fit::Later };
        if wanted == b"+" {
            varies = true;
        } else if level != wanted {
            let (before, rest) = topic.split_at_checked(start).unwrap_or_default();
            if rest < wanted {
                return skip_to([before, wanted, &[]]);
            }
            // `a-b` stands between `a` and `a/b`.
            if rest.strip_prefix(wanted).is_some_and(|rest| *rest < b"/"[..]) {
                return skip_to([before, wanted, b"/"]);
            }
            if !varies {
                return Fit::Never;
            }
            return skip_to([topic.get(..end).unwrap_or_default(), &[AFTER_SEPARATOR], &[]]);
        }
        end = start + level.len();
        start = end + 1;
    }
    match levels.next() {
        None => Fit::Matches,
        Some(_) if varies => {
            skip_to([topic.get(..end).unwrap_or_default(), &[AFTER_SEPARATOR], &[]])
        }
        Some(_) => Fit::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Publish, Version};
    use alloc::borrow::ToOwned as _;
    use alloc::format;
    use alloc::string::String;
    use alloc::vec;
    use proptest::prelude::*;

    fn message(topic_name: &str, payload: &str) -> Message {
        Message::new(&Publish { retain: true, ..Publish::new(topic_name, payload.as_bytes()) })
            .unwrap()
    }

    /// Searches with `budget` steps in each call.
    fn search(store: &RetainedStore, filter: &str, budget: usize) -> Vec<String> {
        let mut cursor = RetainedCursor::new(Filter::new(filter, Version::V5_0).unwrap());
        let mut found = Vec::new();
        while !cursor.is_at_end() {
            if let Some(next) = store.next(&mut cursor, Instant::default(), &mut { budget }) {
                assert!(!cursor.has_passed(next.message.topic_name()));
                cursor.pass();
                assert!(cursor.has_passed(next.message.topic_name()));
                found.push(next.message.topic_name().to_str().into());
            }
        }
        found
    }

    fn topics(store: &RetainedStore, filter: &str) -> Vec<String> {
        search(store, filter, usize::MAX)
    }

    #[test]
    fn store_finds_topics_of_a_filter() {
        let mut store = RetainedStore::new();
        for topic_name in ["a", "a/b", "a/c", "a-b", "a/b/c", "b", "$s/a", "/", "a/"] {
            store.insert(message(topic_name, "1"), None, Arc::default());
        }
        assert_eq!(topics(&store, "a/#"), ["a", "a/", "a/b", "a/b/c", "a/c"]);
        assert_eq!(topics(&store, "a/+"), ["a/", "a/b", "a/c"]);
        assert_eq!(topics(&store, "+"), ["a", "a-b", "b"]);
        assert_eq!(topics(&store, "+/+"), ["/", "a/", "a/b", "a/c"]);
        assert_eq!(topics(&store, "#").len(), 8, "all but the one with a dollar sign");
        assert_eq!(topics(&store, "$s/#"), ["$s/a"]);
        assert_eq!(topics(&store, "a/b"), ["a/b"]);
        assert_eq!(topics(&store, "nothing"), [""; 0]);
        assert_eq!(store.iter().count(), store.len());
    }

    proptest! {
        /// [5.0 §4.7.1] [5.0 MQTT-4.7.2-1]
        #[test]
        fn search_agrees_with_a_look_at_each_topic(
            names in prop::collection::vec(
                topic(&["a", "ab", "a-", "b", "$c", "", "\u{1}"]), 0..60,
            ),
            filters in prop::collection::vec(
                topic(&["a", "ab", "a-", "b", "$c", "", "+", "#"]), 1..10,
            ),
            budget in 1..7_usize,
        ) {
            let mut store = RetainedStore::new();
            for name in names.iter().filter(|name| !name.is_empty()) {
                store.insert(message(name, "1"), None, Arc::default());
            }
            for text in &filters {
                let Ok(filter) = TopicFilter::new(text.as_str(), Version::V5_0) else { continue };
                let names = store.iter().map(|one| one.message.topic_name().to_str().to_owned());
                let expected: Vec<String> =
                    names.filter(|name| filter.matches(name.as_str())).collect();
                prop_assert_eq!(&topics(&store, text), &expected, "{}", text);
                prop_assert_eq!(&search(&store, text, budget), &expected, "{} by steps", text);
            }
        }
    }

    fn topic(levels: &'static [&'static str]) -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(levels), 1..5)
            .prop_map(|levels| levels.join("/"))
    }

    #[test]
    fn search_passes_over_branches_that_cannot_match() {
        let mut store = RetainedStore::new();
        for device in 0..10 {
            for value in 0..1_000 {
                store.insert(message(&format!("{device}/{value:03}"), "1"), None, Arc::default());
            }
        }
        let mut cursor = RetainedCursor::new(Filter::new("+/500", Version::V5_0).unwrap());
        let mut budget = 200;
        while store.next(&mut cursor, Instant::default(), &mut budget).is_some() {
            cursor.pass();
        }
        assert!(cursor.is_at_end(), "10 of 10,000 topics are found in 200 steps");
    }

    #[test]
    fn expired_messages_are_removed_in_their_order() {
        let at = Instant::from_millis;
        let mut store = RetainedStore::new();
        for (name, end) in [("c", 3), ("a", 1), ("b", 2), ("d", 9)] {
            store.insert(message(name, "1"), Some(at(end)), Arc::default());
        }
        store.insert(message("a", "2"), None, Arc::default());
        store.insert(message("d", ""), None, Arc::default());
        assert_eq!(store.next_expiry(), Some(at(2)));
        assert!(store.pop_expired(at(3)).is_some() && store.pop_expired(at(2)).is_none());
        assert_eq!(
            (topics(&store, "#"), store.next_expiry()),
            (vec!["a".into(), "c".into()], Some(at(3)))
        );
        while store.pop_expired(at(3)).is_some() {}
        assert_eq!(
            (topics(&store, "#"), store.bytes(), store.next_expiry()),
            (vec!["a".into()], 2, None)
        );
    }

    /// [5.0 MQTT-3.3.1-6] [5.0 MQTT-3.3.1-7]
    #[test]
    fn message_without_payload_removes_its_topic() {
        let mut store = RetainedStore::new();
        store.insert(message("a", "1"), None, Arc::default());
        store.insert(message("a", "22"), None, Arc::default());
        assert_eq!((store.len(), store.bytes()), (1, 3));
        store.insert(message("a", ""), None, Arc::default());
        store.insert(message("b", ""), None, Arc::default());
        assert_eq!((store.len(), store.bytes()), (0, 0));
    }
}
