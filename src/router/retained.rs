//! Retained messages: the last one of each topic. [5.0 §3.3.1.3] [3.1.1 §3.3.1.3]

use crate::codec::{Text, TopicFilter};
use crate::session::Message;
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::ops::Bound;

/// The last retained message of each topic name.
///
/// The topics are in order, so a filter is looked up from the levels before its first wildcard on.
#[derive(Clone, Debug, Default)]
pub struct RetainedStore {
    messages: BTreeMap<Box<[u8]>, Retained>,
    bytes: usize,
    version: u64,
}

/// A message that is kept for later subscribers.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retained {
    /// The message.
    pub message: Message,
    /// From when on it is not sent any more. [5.0 §3.3.2.3.3]
    pub expires_at: Option<Instant>,
    /// The [version](RetainedStore::version) of the store that it made.
    pub version: u64,
    /// Whose it is, by client identifier: a subscription with No Local does not bring it to them.
    /// [5.0 MQTT-3.8.3-3]
    pub publisher: Arc<[u8]>,
}

impl Retained {
    /// Whether it must not be sent any more.
    #[must_use]
    pub fn is_expired(&self, now: Instant) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

impl RetainedStore {
    /// A store without messages.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many messages there are, those that have expired and were not met since included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether there are no messages.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// The bytes of all messages: topic names, properties and payloads.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Counts the messages that were ever kept: one with a greater version came later.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The message of a topic name.
    #[must_use]
    pub fn get<'t>(&self, topic_name: impl Into<Text<'t>>) -> Option<&Retained> {
        self.messages.get(topic_name.into().as_bytes())
    }

    /// Keeps a message in place of the one of its topic name; one without payload only removes
    /// that. [5.0 MQTT-3.3.1-5 to -7] [3.1.1 MQTT-3.3.1-5] [3.1.1 MQTT-3.3.1-10] [3.1.1
    /// MQTT-3.3.1-11]
    pub fn insert(&mut self, message: Message, expires_at: Option<Instant>, publisher: Arc<[u8]>) {
        let topic_name = message.topic_name().as_bytes();
        if message.payload().is_empty() {
            if let Some(old) = self.messages.remove(topic_name) {
                self.bytes -= old.message.size();
            }
            return;
        }
        self.bytes += message.size();
        self.version += 1;
        let retained =
            Retained { message: message.clone(), expires_at, version: self.version, publisher };
        if let Some(old) = self.messages.insert(topic_name.into(), retained) {
            self.bytes -= old.message.size();
        }
    }

    /// Removes all messages that have expired. It looks at each of them.
    pub fn remove_expired(&mut self, now: Instant) {
        self.messages.retain(|_, retained| !retained.is_expired(now));
        self.bytes = self.messages.values().map(|retained| retained.message.size()).sum();
    }

    /// The first message, by topic name, that the filter matches and that has not expired, after
    /// the topic name `after`.
    ///
    /// So the messages for a filter can be fetched one at a time, while others come and go.
    #[must_use]
    pub fn next(
        &self,
        filter: TopicFilter<'_>,
        after: Option<&[u8]>,
        now: Instant,
    ) -> Option<&Retained> {
        let bytes = filter.filter().as_bytes();
        let Some(wildcard) = bytes.iter().position(|byte| matches!(byte, b'+' | b'#')) else {
            let only = self.get(filter.filter()).filter(|retained| !retained.is_expired(now));
            return only.filter(|_| after.is_none());
        };
        // `a/b/#` matches `a/b` as well.
        let prefix = bytes.get(..wildcard).unwrap_or_default();
        let prefix = prefix.strip_suffix(b"/").unwrap_or(prefix);
        let start = after.map_or(Bound::Included(prefix), Bound::Excluded);
        self.messages
            .range::<[u8], _>((start, Bound::Unbounded))
            .take_while(|(topic_name, _)| topic_name.starts_with(prefix))
            .map(|(_, retained)| retained)
            .find(|retained| {
                !retained.is_expired(now) && filter.matches(retained.message.topic_name())
            })
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
        let mut found: Vec<String> = Vec::new();
        while let Some(retained) =
            store.next(filter, found.last().map(String::as_bytes), Instant::default())
        {
            found.push(retained.message.topic_name().to_str().into());
        }
        found
    }

    #[test]
    fn a_filter_finds_its_topics() {
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
    }

    /// [5.0 MQTT-3.3.1-6] [5.0 MQTT-3.3.1-7]
    #[test]
    fn a_message_without_payload_removes() {
        let mut store = RetainedStore::new();
        store.insert(message("a", "1"), None, Arc::default());
        store.insert(message("a", "22"), None, Arc::default());
        assert_eq!((store.len(), store.bytes()), (1, 3));
        store.insert(message("a", ""), None, Arc::default());
        store.insert(message("b", ""), None, Arc::default());
        assert_eq!((store.len(), store.bytes()), (0, 0));
    }
}
