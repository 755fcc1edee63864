//! Subscriptions by topic filter, as a tree of topic levels.

use crate::codec::{Text, is_hidden, levels};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Subscriptions by topic filter: a subscriber `K` has a value `V` for each of its filters.
///
/// Finding the subscriptions for a topic name looks at the levels of the name and at the filters
/// that match so far, not at the others. Nothing is recursive, so a topic may have as many levels
/// as its 65,535 bytes hold.
///
/// ```
/// use mqtt_sansio::codec::QoS;
/// use mqtt_sansio::router::SubscriptionIndex;
///
/// let mut index = SubscriptionIndex::new();
/// index.insert("sport/+/score", 1, QoS::AtMostOnce);
/// index.insert("sport/#", 2, QoS::AtLeastOnce);
/// let mut found = Vec::new();
/// index.matches("sport/tennis/score", |subscriber, qos| found.push((*subscriber, *qos)));
/// found.sort();
/// assert_eq!(found, [(1, QoS::AtMostOnce), (2, QoS::AtLeastOnce)]);
/// assert_eq!(index.remove("sport/#", &2), Some(QoS::AtLeastOnce));
/// ```
#[derive(Clone, Debug)]
pub struct SubscriptionIndex<K, V> {
    /// The root is the first. Those that are free are listed in `free`.
    nodes: Vec<Node<K, V>>,
    free: Vec<usize>,
    length: usize,
}

const ROOT: usize = 0;

/// A place in the tree, for the levels on the way to it.
#[derive(Clone, Debug)]
struct Node<K, V> {
    parent: usize,
    /// The last of the levels.
    level: Box<[u8]>,
    children: BTreeMap<Box<[u8]>, usize>,
    /// The child for a `+`.
    any: Option<usize>,
    /// Whose filter ends here, in order.
    here: Vec<(K, V)>,
    /// Whose filter goes on with a `#`, in order.
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
    /// An index without subscriptions.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many subscriptions there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether there are no subscriptions.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds a subscription, or replaces the one that the subscriber has for the same filter, and
    /// gives that back.
    ///
    /// The filter is one whose syntax was checked, without a share name.
    pub fn insert<'f>(
        &mut self,
        filter: impl Into<Text<'f>>,
        subscriber: K,
        value: V,
    ) -> Option<V> {
        let mut node = ROOT;
        let mut below = false;
        for level in levels(filter.into()) {
            if level == b"#" {
                below = true;
            } else {
                node = self.child(node, level).unwrap_or_else(|| self.add_child(node, level));
            }
        }
        let entry = self.nodes.get_mut(node)?;
        let entries = if below { &mut entry.below } else { &mut entry.here };
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

    /// Removes a subscription.
    pub fn remove<'f>(&mut self, filter: impl Into<Text<'f>>, subscriber: &K) -> Option<V> {
        let mut node = ROOT;
        let mut below = false;
        for level in levels(filter.into()) {
            if level == b"#" {
                below = true;
            } else {
                node = self.child(node, level)?;
            }
        }
        let entry = self.nodes.get_mut(node)?;
        let entries = if below { &mut entry.below } else { &mut entry.here };
        let position = entries.binary_search_by(|(other, _)| other.cmp(subscriber)).ok()?;
        let (_, value) = entries.remove(position);
        if entries.is_empty() {
            entries.shrink_to_fit();
        }
        self.length -= 1;
        self.prune(node);
        Some(value)
    }

    /// Calls `found` for each subscription whose filter matches, in no order; once for each filter
    /// of a subscriber. [5.0 §4.7] [3.1.1 §4.7]
    pub fn matches<'t>(&self, topic_name: impl Into<Text<'t>>, mut found: impl FnMut(&K, &V)) {
        let topic_name = topic_name.into();
        // Filters that start with a wildcard do not match it. [5.0 MQTT-4.7.2-1] [3.1.1
        // MQTT-4.7.2-1]
        let hidden = is_hidden(topic_name);
        // Where a `+` has led beside the levels that are the same, and what of the name is left
        // there.
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

    /// Gives back what nobody needs any more, from there up.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{TopicFilter, Version};
    use alloc::string::String;
    use proptest::prelude::*;

    fn topic(levels: &'static [&'static str]) -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(levels), 1..5)
            .prop_map(|levels| levels.join("/"))
    }

    proptest! {
        #[test]
        fn the_index_agrees_with_a_look_at_each_filter(
            operations in prop::collection::vec((topic(&["a", "b", "$c", "", "+", "#"]), 0..4_u8, any::<bool>()), 0..60),
            names in prop::collection::vec(topic(&["a", "b", "$c", ""]), 1..10),
        ) {
            let mut index = SubscriptionIndex::new();
            let mut list: Vec<(String, u8)> = Vec::new();
            for (filter, subscriber, add) in operations {
                if TopicFilter::new(filter.as_str(), Version::V3_1_1).is_err() {
                    continue;
                }
                let known = list.iter().position(|entry| *entry == (filter.clone(), subscriber));
                if add {
                    prop_assert_eq!(index.insert(filter.as_str(), subscriber, ()).is_some(), known.is_some());
                    if known.is_none() {
                        list.push((filter, subscriber));
                    }
                } else {
                    prop_assert_eq!(index.remove(filter.as_str(), &subscriber).is_some(), known.is_some());
                    known.map(|position| list.swap_remove(position));
                }
                prop_assert_eq!(index.len(), list.len());
            }
            for name in names.iter().filter(|name| !name.is_empty()) {
                let mut found = Vec::new();
                index.matches(name.as_str(), |subscriber, ()| found.push(*subscriber));
                let matching = list.iter().filter(|(filter, _)| {
                    TopicFilter::new(filter.as_str(), Version::V3_1_1).unwrap().matches(name.as_str())
                });
                let mut expected: Vec<u8> = matching.map(|(_, subscriber)| *subscriber).collect();
                found.sort_unstable();
                expected.sort_unstable();
                prop_assert_eq!(found, expected, "{} in {:?}", name, list);
            }
            for (filter, subscriber) in list {
                index.remove(filter.as_str(), &subscriber);
            }
            prop_assert_eq!(index.nodes.len(), index.free.len() + 1, "only the root is left");
        }
    }

    #[test]
    fn a_topic_may_have_32768_levels() {
        let name = "/".repeat(32_767);
        let filter = "+/".repeat(32_767) + "#";
        let mut index = SubscriptionIndex::new();
        index.insert(name.as_str(), 1, ());
        index.insert(filter.as_str(), 2, ());
        let mut found = Vec::new();
        index.matches(name.as_str(), |subscriber, ()| found.push(*subscriber));
        found.sort_unstable();
        assert_eq!(found, [1, 2]);
    }
}
