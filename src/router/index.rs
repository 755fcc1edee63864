//! Subscriptions by topic filter, as a tree of topic levels.

use crate::codec::{Filter, TopicFilter, TopicName, Version, is_hidden, levels};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Subscriptions by topic filter: a subscriber `K` has a value `V` for each of its filters.
///
/// A search looks at the levels of the topic name and at the filters that match so far, not at the
/// others. Nothing is recursive, so a topic can have as many levels as its 65,535 bytes hold.
///
/// The share name of a filter is not part of the index: the caller's `K` must distinguish a group
/// from a client.
///
/// ```
/// use mqtt_sansio::codec::{QoS, TopicFilter, TopicName, Version};
/// use mqtt_sansio::router::SubscriptionIndex;
///
/// let (score, all) = (
///     TopicFilter::new("sport/+/score", Version::V5_0)?,
///     TopicFilter::new("sport/#", Version::V5_0)?,
/// );
/// let mut index = SubscriptionIndex::new();
/// index.insert(score, 1, QoS::AtMostOnce);
/// index.insert(all, 2, QoS::AtLeastOnce);
/// let mut found = Vec::new();
/// let topic = TopicName::new("sport/tennis/score")?;
/// index.matches(&topic, |subscriber, qos| found.push((*subscriber, *qos)));
/// found.sort();
/// assert_eq!(found, [(1, QoS::AtMostOnce), (2, QoS::AtLeastOnce)]);
/// assert_eq!(index.remove(all, &2), Some(QoS::AtLeastOnce));
/// # Ok::<_, mqtt_sansio::codec::EncodeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct SubscriptionIndex<K, V> {
    /// The root, the other nodes, and the free nodes that are listed in `free`.
    nodes: Vec<Node<K, V>>,
    free: Vec<usize>,
    length: usize,
}

const ROOT: usize = 0;

/// One level of the filters that begin with the levels on the way to it.
#[derive(Clone, Debug)]
struct Node<K, V> {
    parent: usize,
    /// The last level on the way.
    level: Box<[u8]>,
    children: BTreeMap<Box<[u8]>, usize>,
    /// The child for a `+`.
    any: Option<usize>,
    /// Subscribers whose filter ends here, in order.
    here: Vec<(K, V)>,
    /// Subscribers whose filter continues with a `#`, in order.
    below: Vec<(K, V)>,
}

impl<K, V> Node<K, V> {
    fn new(parent: usize, level: &[u8]) -> Self {
        let (children, here, below) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { parent, level: level.into(), children, any: None, here, below }
    }

    fn is_empty(&self) -> bool {
        self.here.is_empty()
            && self.below.is_empty()
            && self.children.is_empty()
            && self.any.is_none()
    }
}

impl<K, V> Default for SubscriptionIndex<K, V> {
    fn default() -> Self {
        Self { nodes: alloc::vec![Node::new(ROOT, &[])], free: Vec::new(), length: 0 }
    }
}

impl<K: Ord, V> SubscriptionIndex<K, V> {
    /// Returns an index without subscriptions.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the number of subscriptions.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether there are no subscriptions.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds a subscription, or replaces the one that the subscriber has for the same filter.
    /// Returns the value that was replaced.
    pub fn insert<'f>(
        &mut self,
        filter: impl Into<TopicFilter<'f>>,
        subscriber: K,
        value: V,
    ) -> Option<V> {
        let (_, entries) = self.descend(filter.into(), true)?;
        match entries.binary_search_by(|(other, _)| other.cmp(&subscriber)) {
            Ok(position) => {
                entries.get_mut(position).map(|(_, old)| core::mem::replace(old, value))
            }
            Err(position) => {
                entries.insert(position, (subscriber, value));
                self.length += 1;
                None
            }
        }
    }

    /// Removes a subscription. Returns its value.
    pub fn remove<'f>(&mut self, filter: impl Into<TopicFilter<'f>>, subscriber: &K) -> Option<V> {
        let (node, entries) = self.descend(filter.into(), false)?;
        let value = take(entries, subscriber)?;
        self.length -= 1;
        self.prune(node);
        Some(value)
    }

    /// Removes all subscriptions of a subscriber, and returns their number. Looks at each filter
    /// of the index.
    pub fn remove_subscriber(&mut self, subscriber: &K) -> usize {
        let before = self.length;
        for position in 0..self.nodes.len() {
            let Some(Node { here, below, .. }) = self.nodes.get_mut(position) else { continue };
            let removed =
                [here, below].map(|entries| usize::from(take(entries, subscriber).is_some()));
            if removed != [0, 0] {
                self.length -= removed.iter().sum::<usize>();
                self.prune(position);
            }
        }
        before - self.length
    }

    /// Returns an iterator over all subscriptions, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (Filter, &K, &V)> {
        self.nodes.iter().enumerate().flat_map(move |(position, node)| {
            let ends = [(&node.here, false), (&node.below, true)];
            ends.into_iter().filter(|(entries, _)| !entries.is_empty()).flat_map(
                move |(entries, is_below)| {
                    let filter = self.filter(position, is_below);
                    entries.iter().filter_map(move |(subscriber, value)| {
                        Some((filter.clone()?, subscriber, value))
                    })
                },
            )
        })
    }

    /// Calls `found` for each subscription whose filter matches, in no order, and once for each
    /// filter of a subscriber. [5.0 §4.7] [3.1.1 §4.7]
    pub fn matches<'t>(&self, topic_name: impl Into<TopicName<'t>>, mut found: impl FnMut(&K, &V)) {
        let topic_name = topic_name.into();
        let topic_name = topic_name.as_text();
        // Filters that start with a wildcard do not match such a name. [5.0 MQTT-4.7.2-1]
        // [3.1.1 MQTT-4.7.2-1]
        let hidden = is_hidden(topic_name);
        // The nodes that a `+` has led to, and the rest of the name there.
        let mut aside: Vec<(usize, Option<&[u8]>)> = Vec::new();
        let mut next = Some((ROOT, Some(topic_name.as_bytes())));
        while let Some((position, rest)) = next.take().or_else(|| aside.pop()) {
            let Some(node) = self.nodes.get(position) else { continue };
            let wildcards = !(hidden && position == ROOT);
            if wildcards {
                node.below.iter().for_each(|(subscriber, value)| found(subscriber, value));
            }
            let Some(rest) = rest else {
                node.here.iter().for_each(|(subscriber, value)| found(subscriber, value));
                continue;
            };
            let slash = rest.iter().position(|&byte| byte == b'/');
            let (level, rest) = match slash.and_then(|slash| rest.split_at_checked(slash)) {
                Some((level, rest)) => (level, rest.get(1..)),
                None => (rest, None),
            };
            next = node.children.get(level).map(|child| (*child, rest));
            if let Some(any) = node.any.filter(|_| wildcards) {
                aside.push((any, rest));
            }
        }
    }

    /// Walks to the end of a filter, adding nodes on the way if they may be added. Returns the last
    /// node, and its subscribers with this filter.
    fn descend(
        &mut self,
        filter: TopicFilter<'_>,
        adds_nodes: bool,
    ) -> Option<(usize, &mut Vec<(K, V)>)> {
        let (mut position, mut is_below) = (ROOT, false);
        for level in levels(filter.filter()) {
            if level == b"#" {
                is_below = true;
            } else if let Some(child) = self.child(position, level) {
                position = child;
            } else if adds_nodes {
                position = self.add_child(position, level);
            } else {
                return None;
            }
        }
        let node = self.nodes.get_mut(position)?;
        Some((position, if is_below { &mut node.below } else { &mut node.here }))
    }

    /// Returns the filter that ends at a node, or continues there with a `#`.
    fn filter(&self, mut position: usize, is_below: bool) -> Option<Filter> {
        let mut levels = Vec::new();
        while position != ROOT {
            let node = self.nodes.get(position)?;
            levels.push(&*node.level);
            position = node.parent;
        }
        levels.reverse();
        if is_below {
            levels.push(b"#");
        }
        let filter = levels.join(&b'/');
        Filter::new(core::str::from_utf8(&filter).ok()?, Version::V3_1_1).ok()
    }

    fn child(&self, node: usize, level: &[u8]) -> Option<usize> {
        let node = self.nodes.get(node)?;
        if level == b"+" { node.any } else { node.children.get(level).copied() }
    }

    fn add_child(&mut self, parent: usize, level: &[u8]) -> usize {
        let child = Node::new(parent, level);
        let position = match self.free.pop() {
            Some(position) => {
                if let Some(node) = self.nodes.get_mut(position) {
                    *node = child;
                }
                position
            }
            None => {
                self.nodes.push(child);
                self.nodes.len() - 1
            }
        };
        if let Some(node) = self.nodes.get_mut(parent) {
            if level == b"+" {
                node.any = Some(position);
            } else {
                node.children.insert(level.into(), position);
            }
        }
        position
    }

    /// Frees a node and those above it, as far as they are empty.
    fn prune(&mut self, mut position: usize) {
        while position != ROOT {
            let Some(node) = self.nodes.get_mut(position).filter(|node| node.is_empty()) else {
                return;
            };
            let (parent, level) = (node.parent, core::mem::take(&mut node.level));
            self.free.push(position);
            if let Some(parent) = self.nodes.get_mut(parent) {
                if *level == *b"+" {
                    parent.any = None;
                } else {
                    parent.children.remove(&level);
                }
            }
            position = parent;
        }
    }
}

fn take<K: Ord, V>(entries: &mut Vec<(K, V)>, subscriber: &K) -> Option<V> {
    let position = entries.binary_search_by(|(other, _)| other.cmp(subscriber)).ok()?;
    let (_, value) = entries.remove(position);
    if entries.is_empty() {
        entries.shrink_to_fit();
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use proptest::prelude::*;

    fn filter(text: &str) -> TopicFilter<'_> {
        TopicFilter::new(text, Version::V3_1_1).unwrap()
    }

    fn name(text: &str) -> TopicName<'_> {
        TopicName::new(text).unwrap()
    }

    fn topic(levels: &'static [&'static str]) -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(levels), 1..5)
            .prop_map(|levels| levels.join("/"))
    }

    proptest! {
        #[test]
        fn index_agrees_with_a_list_of_filters(
            operations in prop::collection::vec(
                (topic(&["a", "b", "$c", "", "+", "#"]), 0..4_u8, any::<bool>()),
                0..60,
            ),
            names in prop::collection::vec(topic(&["a", "b", "$c", ""]), 1..10),
        ) {
            let mut index = SubscriptionIndex::new();
            let mut list: Vec<(String, u8)> = Vec::new();
            for (text, subscriber, add) in operations {
                let Ok(filter) = TopicFilter::new(text.as_str(), Version::V3_1_1) else { continue };
                let known = list.iter().position(|entry| *entry == (text.clone(), subscriber));
                if add {
                    let replaced = index.insert(filter, subscriber, ());
                    prop_assert_eq!(replaced.is_some(), known.is_some());
                    if known.is_none() {
                        list.push((text, subscriber));
                    }
                } else {
                    prop_assert_eq!(index.remove(filter, &subscriber).is_some(), known.is_some());
                    known.map(|position| list.swap_remove(position));
                }
                prop_assert_eq!(index.len(), list.len());
            }
            for text in names.iter().filter(|text| !text.is_empty()) {
                let mut found = Vec::new();
                index.matches(name(text), |subscriber, ()| found.push(*subscriber));
                let matching = list.iter().filter(|(one, _)| filter(one).matches(text.as_str()));
                let mut expected: Vec<u8> = matching.map(|(_, subscriber)| *subscriber).collect();
                found.sort_unstable();
                expected.sort_unstable();
                prop_assert_eq!(found, expected, "{} in {:?}", text, list);
            }
            list.sort();
            let text = |one: &Filter| one.as_topic_filter().as_text().to_str().into();
            let mut all: Vec<_> = index.iter().map(|(one, who, ())| (text(&one), *who)).collect();
            all.sort();
            prop_assert_eq!(&all, &list);
            for subscriber in 0..2 {
                let count = list.iter().filter(|(_, who)| *who == subscriber).count();
                prop_assert_eq!(index.remove_subscriber(&subscriber), count);
            }
            for (text, subscriber) in list {
                prop_assert_eq!(index.remove(filter(&text), &subscriber).is_some(), subscriber > 1);
            }
            prop_assert_eq!(index.nodes.len(), index.free.len() + 1, "only the root is left");
        }
    }

    #[test]
    fn topic_can_have_32768_levels() {
        let topic = "/".repeat(32_767);
        let wild = "+/".repeat(32_767) + "#";
        let mut index = SubscriptionIndex::new();
        index.insert(filter(&topic), 1, ());
        index.insert(filter(&wild), 2, ());
        let mut found = Vec::new();
        index.matches(name(&topic), |subscriber, ()| found.push(*subscriber));
        found.sort_unstable();
        assert_eq!(found, [1, 2]);
    }
}
