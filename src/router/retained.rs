//! Retained messages: the last one of each topic. [5.0 §3.3.1.3] [3.1.1 §3.3.1.3]

use crate::codec::{Topic, TopicFilter, TopicName};
use crate::session::{Message, QueueLimit};
use crate::time::Instant;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::borrow::Borrow as _;
use core::ops::Bound;

/// The last retained message of each topic name.
///
/// The topics are in order, so that a search for a filter starts at the levels before its first
/// wildcard.
///
/// ```
/// use mqtt_sansio::Instant;
/// use mqtt_sansio::codec::{Publish, TopicFilter, TopicName, Version};
/// use mqtt_sansio::router::RetainedStore;
/// use mqtt_sansio::session::Message;
///
/// let mut store = RetainedStore::new();
/// store.insert(Message::new(&Publish::new("room/4", b"21.5"))?, None, b"sensor"[..].into());
/// assert_eq!(store.get(TopicName::new("room/4")?).unwrap().message.payload(), b"21.5");
///
/// let rooms = TopicFilter::new("room/+", Version::V5_0)?;
/// let (topic, _) = store.next(rooms, None, Instant::from_millis(0)).unwrap();
/// assert_eq!(topic.as_text(), "room/4");
/// assert!(store.next(rooms, Some(topic), Instant::from_millis(0)).is_none());
/// # Ok::<_, mqtt_sansio::codec::EncodeError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct RetainedStore {
    messages: BTreeMap<Topic, Retained>,
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
        self.messages.get(topic_name.into().as_text().as_bytes())
    }

    /// Returns an iterator over all messages, in the order of their topics.
    pub fn iter(&self) -> impl Iterator<Item = (&Topic, &Retained)> {
        self.messages.iter()
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
    /// the old one. [5.0 MQTT-3.3.1-5 to -7] [3.1.1 MQTT-3.3.1-5] [3.1.1 MQTT-3.3.1-10]
    /// [3.1.1 MQTT-3.3.1-11]
    pub fn insert(&mut self, message: Message, expires_at: Option<Instant>, publisher: Arc<[u8]>) {
        let topic_name = message.topic_name();
        if message.payload().is_empty() {
            if let Some(old) = self.messages.remove(topic_name.as_text().as_bytes()) {
                self.bytes -= old.message.size();
            }
            return;
        }
        self.bytes += message.size();
        self.version += 1;
        let retained =
            Retained { message: message.clone(), expires_at, version: self.version, publisher };
        if let Some(old) = self.messages.insert(topic_name.into_topic(), retained) {
            self.bytes -= old.message.size();
        }
    }

    /// Removes all messages that have expired. Looks at each message.
    pub fn remove_expired(&mut self, now: Instant) {
        self.messages.retain(|_, retained| !retained.is_expired(now));
        self.bytes = self.messages.values().map(|retained| retained.message.size()).sum();
    }

    /// Returns the first message, by topic, that the filter matches and that has not expired, after
    /// the topic `after`.
    ///
    /// A caller can thus fetch the messages for a filter one at a time, while the store changes.
    #[must_use]
    pub fn next<'f>(
        &self,
        filter: impl Into<TopicFilter<'f>>,
        after: Option<&Topic>,
        now: Instant,
    ) -> Option<(&Topic, &Retained)> {
        let filter = filter.into();
        let bytes = filter.filter().as_bytes();
        let Some(wildcard) = bytes.iter().position(|byte| matches!(byte, b'+' | b'#')) else {
            let only = self.messages.get_key_value(bytes).filter(|_| after.is_none());
            return only.filter(|(_, retained)| !retained.is_expired(now));
        };
        // `a/b/#` matches `a/b` as well.
        let prefix = bytes.get(..wildcard).unwrap_or_default();
        let prefix = prefix.strip_suffix(b"/").unwrap_or(prefix);
        let start = after.map_or(Bound::Included(prefix), |topic| Bound::Excluded(topic.borrow()));
        self.messages
            .range::<[u8], _>((start, Bound::Unbounded))
            .take_while(|(topic, _)| topic.as_text().as_bytes().starts_with(prefix))
            .find(|(topic, retained)| !retained.is_expired(now) && filter.matches(*topic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Publish, Version};
    use alloc::string::String;
    use alloc::vec::Vec;

    fn message(topic_name: &str, payload: &str) -> Message {
        Message::new(&Publish { retain: true, ..Publish::new(topic_name, payload.as_bytes()) })
            .unwrap()
    }

    fn topics(store: &RetainedStore, filter: &str) -> Vec<String> {
        let filter = TopicFilter::new(filter, Version::V5_0).unwrap();
        let mut found: Vec<Topic> = Vec::new();
        while let Some((topic, _)) = store.next(filter, found.last(), Instant::default()) {
            found.push(topic.clone());
        }
        found.iter().map(|topic| topic.as_text().to_str().into()).collect()
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
        assert!(store.iter().is_sorted_by_key(|(topic, _)| topic));
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
