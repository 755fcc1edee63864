//! Subscriptions by topic filter, as a tree of topic levels.

use super::levels::{Key, Levels};
use super::place::{Level, Place};
use super::pool::{NONE, Pool};
use super::subscribers::Subscribers;
use super::table::Table;
use crate::codec::{Filter, TopicFilter, TopicName, Version, is_hidden, levels};
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
    /// The root, which has the number 0, and all others.
    nodes: Pool<Node>,
    /// The children of all nodes by parent and level, except those for a `+`.
    children: Table,
    levels: Levels,
    /// The subscribers of each filter.
    ends: Pool<Subscribers<K, V>>,
    key: Key,
    length: usize,
    /// The bytes of the subscribers outside `ends`.
    lists: usize,
}

const ROOT: u32 = 0;

/// The level of a node that is the child for a `+`.
const ANY: u32 = NONE;

/// One level of the filters that begin with the levels on the way to it. A number can be [`NONE`].
#[derive(Clone, Copy, Debug)]
struct Node {
    parent: u32,
    /// The last level on the way.
    level: u32,
    /// The child for a `+`.
    any: u32,
    /// The number of other children.
    children: u32,
    /// The subscribers of the filter that ends here.
    here: u32,
    /// The subscribers of the filter that continues with a `#`.
    below: u32,
}

impl Default for Node {
    fn default() -> Self {
        Self { parent: NONE, level: NONE, any: NONE, children: 0, here: NONE, below: NONE }
    }
}

impl<K: Ord, V> Default for SubscriptionIndex<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord, V> SubscriptionIndex<K, V> {
    /// Returns an index without subscriptions, with the seed 0, which everybody knows: see
    /// [`with_seed`](Self::with_seed).
    #[must_use]
    pub fn new() -> Self {
        Self::with_seed(0)
    }

    /// Returns an index without subscriptions.
    ///
    /// `seed` is random and secret. Clients that know it can compute filters that collide in the
    /// hash table of the index, so that each lookup compares many of them. The hash is fast and
    /// not cryptographic: it does not resist an attacker who can measure single lookups well
    /// enough to learn which names collide. The results of the index do not depend on the seed.
    #[must_use]
    pub fn with_seed(seed: u128) -> Self {
        Self::with_key(Key::new(seed))
    }

    fn with_key(key: Key) -> Self {
        let mut nodes = Pool::default();
        nodes.insert(Node::default());
        Self {
            nodes,
            children: Table::default(),
            levels: Levels::default(),
            ends: Pool::default(),
            key,
            length: 0,
            lists: 0,
        }
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

    /// Returns the number of bytes on the heap that the index holds, without those that subscribers
    /// and values hold. The bytes of a filter with very many subscribers are an estimate. Costs a
    /// step for each thousand nodes.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.nodes.memory()
            + self.children.memory()
            + self.levels.memory()
            + self.ends.memory()
            + self.lists
    }

    /// Adds a subscription, or replaces the one that the subscriber has for the same filter.
    /// Returns the value that was replaced.
    pub fn insert<'f>(
        &mut self,
        filter: impl Into<TopicFilter<'f>>,
        subscriber: K,
        value: V,
    ) -> Option<V> {
        let (node, is_below) = self.add_nodes(filter.into());
        let end = self.nodes.get_mut(node)?.end(is_below);
        if *end == NONE {
            *end = self.ends.insert(Subscribers::None);
        }
        let subscribers = self.ends.get_mut(*end)?;
        let before = subscribers.memory();
        let replaced = subscribers.insert(subscriber, value);
        self.lists = self.lists - before + subscribers.memory();
        self.length += usize::from(replaced.is_none());
        replaced
    }

    /// Removes a subscription. Returns its value.
    pub fn remove<'f>(&mut self, filter: impl Into<TopicFilter<'f>>, subscriber: &K) -> Option<V> {
        let (mut node, mut is_below) = (ROOT, false);
        for level in levels(filter.into().filter()) {
            match level {
                b"#" => is_below = true,
                name => node = self.child_by_name(node, name)?,
            }
        }
        self.remove_at(node, is_below, subscriber)
    }

    /// Removes all subscriptions of a subscriber, and returns their number. Looks at each filter
    /// of the index.
    pub fn remove_subscriber(&mut self, subscriber: &K) -> usize {
        let before = self.length;
        let nodes: Vec<u32> = self.nodes.iter().map(|(node, _)| node).collect();
        for node in nodes {
            for is_below in [false, true] {
                self.remove_at(node, is_below, subscriber);
            }
        }
        before - self.length
    }

    /// Returns an iterator over all subscriptions, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (Filter, &K, &V)> {
        self.nodes.iter().flat_map(move |(number, node)| {
            [(node.here, false), (node.below, true)].into_iter().flat_map(move |(end, is_below)| {
                let subscribers = self.ends.get(end);
                let filter = subscribers.and_then(|_| self.filter(number, is_below));
                subscribers.into_iter().flat_map(Subscribers::iter).filter_map(
                    move |(subscriber, value)| Some((filter.clone()?, subscriber, value)),
                )
            })
        })
    }

    /// Calls `found` for each subscription whose filter matches, in no order, and once for each
    /// filter of a subscriber. Allocates nothing. [5.0 §4.7] [3.1.1 §4.7]
    ///
    /// Returns the number of nodes that were visited, a measure of the work: filters with many
    /// levels and `+` can make it much greater than the number of matches.
    pub fn matches<'t>(
        &self,
        topic_name: impl Into<TopicName<'t>>,
        mut found: impl FnMut(&K, &V),
    ) -> usize {
        let topic_name = topic_name.into();
        let topic_name = topic_name.as_text();
        let mut report = |end| {
            if let Some(subscribers) = self.ends.get(end) {
                subscribers.iter().for_each(|(subscriber, value)| found(subscriber, value));
            }
        };
        let Some(mut node) = self.nodes.get(ROOT) else { return 0 };
        // Filters that start with a wildcard do not match such a name. [5.0 MQTT-4.7.2-1]
        // [3.1.1 MQTT-4.7.2-1]
        let root = Node { any: NONE, below: NONE, ..*node };
        if is_hidden(topic_name) {
            node = &root;
        }
        let mut number = ROOT;
        let mut place = Place::new(topic_name.as_bytes());
        // The number of nodes above whose child for a `+` comes later.
        let mut pending = 0_usize;
        let mut visited = 0;
        loop {
            visited += 1;
            if node.below != NONE {
                report(node.below);
            }
            let mut next = None;
            if place.is_end() {
                if node.here != NONE {
                    report(node.here);
                }
            } else {
                // Without such children nothing needs the hash of the level.
                if node.children > 0 {
                    let (level, topic) = place.level(self.key);
                    next = self.child(number, level, topic);
                }
                if node.any != NONE {
                    if next.is_some() {
                        pending += 1;
                    } else {
                        next = self.numbered(node.any);
                    }
                }
                if next.is_some() {
                    place.descend();
                }
            }
            if next.is_none() && pending > 0 {
                pending -= 1;
                next = self.pending(node, &mut place);
            }
            let Some(child) = next else { return visited };
            (number, node) = child;
        }
    }

    /// Goes up from a node to the first one whose child for a `+` comes later. Returns that child.
    fn pending<'i>(&'i self, mut node: &'i Node, place: &mut Place<'_>) -> Option<(u32, &'i Node)> {
        loop {
            let parent = self.nodes.get(node.parent)?;
            place.ascend();
            if node.level != ANY && parent.any != NONE {
                place.descend();
                return self.numbered(parent.any);
            }
            node = parent;
        }
    }

    /// Returns the node where a filter ends, and whether with a `#`. Adds the nodes on the way.
    fn add_nodes(&mut self, filter: TopicFilter<'_>) -> (u32, bool) {
        let (mut number, mut is_below) = (ROOT, false);
        for name in levels(filter.filter()) {
            if name == b"#" {
                is_below = true;
            } else {
                let child = self.child_by_name(number, name);
                number = child.unwrap_or_else(|| self.add_child(number, name));
            }
        }
        (number, is_below)
    }

    fn child_by_name(&self, parent: u32, name: &[u8]) -> Option<u32> {
        if name == b"+" {
            return self.nodes.get(parent).map(|node| node.any).filter(|any| *any != NONE);
        }
        let mut place = Place::new(name);
        let (level, name) = place.level(self.key);
        let (child, _) = self.child(parent, level, name)?;
        Some(child)
    }

    /// Returns the child of a node for a level, and its number.
    #[inline]
    fn child(&self, parent: u32, level: &mut Level, topic: &[u8]) -> Option<(u32, &Node)> {
        let mut found = None;
        let child = self.children.find(self.key.child(parent, level.hash), |child| {
            let node = self.nodes.get(child).filter(|node| {
                node.parent == parent
                    && (node.level == level.number
                        || level.number == NONE
                            && self.levels.name(node.level) == Some(level.name(topic)))
            });
            if let Some(node) = node {
                level.number = node.level;
                found = Some(node);
            }
            found.is_some()
        })?;
        Some((child, found?))
    }

    #[inline]
    fn numbered(&self, number: u32) -> Option<(u32, &Node)> {
        Some((number, self.nodes.get(number)?))
    }

    fn add_child(&mut self, parent: u32, name: &[u8]) -> u32 {
        if name == b"+" {
            let child = self.nodes.insert(Node { parent, level: ANY, ..Node::default() });
            if let Some(parent) = self.nodes.get_mut(parent) {
                parent.any = child;
            }
            return child;
        }
        let hash = self.key.name(name);
        let level = self.levels.add(name, hash);
        let child = self.nodes.insert(Node { parent, level, ..Node::default() });
        self.children.insert(self.key.child(parent, hash), child);
        if let Some(parent) = self.nodes.get_mut(parent) {
            parent.children += 1;
        }
        child
    }

    fn remove_at(&mut self, number: u32, is_below: bool, subscriber: &K) -> Option<V> {
        let end = self.nodes.get_mut(number)?.end(is_below);
        let subscribers = self.ends.get_mut(*end)?;
        let before = subscribers.memory();
        let value = subscribers.remove(subscriber)?;
        self.lists = self.lists - before + subscribers.memory();
        self.length -= 1;
        if subscribers.is_empty() {
            self.ends.remove(*end);
            *end = NONE;
            self.prune(number);
        }
        if self.is_empty() {
            *self = Self::with_key(self.key);
        }
        Some(value)
    }

    /// Removes a node and those above it, as far as no filter needs them.
    fn prune(&mut self, mut number: u32) {
        while number != ROOT {
            let Some(node) = self.nodes.get(number).copied().filter(Node::is_unused) else {
                break;
            };
            self.nodes.remove(number);
            if let Some(parent) = self.nodes.get_mut(node.parent) {
                if node.level == ANY {
                    parent.any = NONE;
                } else {
                    parent.children -= 1;
                    let hash = self.key.name(self.levels.name(node.level).unwrap_or(&[]));
                    self.children.remove(self.key.child(node.parent, hash), number);
                    self.levels.release(node.level, hash);
                }
            }
            number = node.parent;
        }
    }

    /// Returns the filter that ends at a node, or continues there with a `#`.
    fn filter(&self, mut number: u32, is_below: bool) -> Option<Filter> {
        let mut levels: Vec<&[u8]> = Vec::new();
        if is_below {
            levels.push(b"#");
        }
        while number != ROOT {
            let node = self.nodes.get(number)?;
            levels.push(if node.level == ANY { b"+" } else { self.levels.name(node.level)? });
            number = node.parent;
        }
        levels.reverse();
        let filter = levels.join(&b'/');
        Filter::new(core::str::from_utf8(&filter).ok()?, Version::V3_1_1).ok()
    }
}

impl Node {
    const fn end(&mut self, is_below: bool) -> &mut u32 {
        if is_below { &mut self.below } else { &mut self.here }
    }

    const fn is_unused(&self) -> bool {
        self.children == 0 && self.any == NONE && self.here == NONE && self.below == NONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
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
            // With 0, all hashes are the same.
            mask in prop::sample::select(&[u64::MAX, 0, 1, 0xFFFF_0000][..]),
        ) {
            let mut index = SubscriptionIndex::with_key(Key::with_mask(mask));
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
            prop_assert_eq!(index.nodes.len(), 1, "only the root is left");
        }
    }

    #[test]
    fn index_grows_and_gives_back_its_memory() {
        const COUNT: u32 = 20_000;
        let mut index = SubscriptionIndex::with_seed(1);
        let empty = index.memory();
        let text = |number: u32| match number % 4 {
            0 => format!("site/{}/device/{number}", number % 100),
            1 => format!("site/+/device/{number}/#"),
            2 => format!("{number}/a name of a level that is stored in a block of its own"),
            _ => format!("site/{}/all", number % 400),
        };
        for round in 0..2 {
            for number in 0..COUNT {
                assert_eq!(index.insert(filter(&text(number)), number, number), None);
            }
            assert_eq!(index.iter().count(), COUNT as usize);
            assert!(index.memory() < 130 * COUNT as usize, "{}", index.memory());
            for number in (0..COUNT).filter(|number| number % 3 != round) {
                assert_eq!(index.remove(filter(&text(number)), &number), Some(number));
            }
            for number in 0..COUNT {
                let text = text(number).replace('+', "7").replace('#', "x");
                let mut is_found = false;
                index.matches(name(&text), |who, _| is_found |= *who == number);
                assert_eq!(is_found, number % 3 == round, "{text}");
            }
            for number in (0..COUNT).filter(|number| number % 3 == round) {
                assert_eq!(index.remove(filter(&text(number)), &number), Some(number));
            }
            assert!(index.is_empty());
            assert!(index.memory() < empty + 1_000, "{} of {empty}", index.memory());
        }
    }

    /// More branches, and deeper ones, than are remembered on the way.
    #[test]
    fn topic_matches_each_mixture_of_names_and_wildcards() {
        let mut index = SubscriptionIndex::new();
        let tail = "/x".repeat(40);
        for choice in 0..1_u32 << 10 {
            let levels = (0..10).map(|bit| if (choice >> bit) & 1 == 1 { "+/" } else { "a/" });
            let text = levels.collect::<String>() + "b" + &tail;
            index.insert(filter(&text), choice, ());
            index.insert(filter(&text.replace("/x", "/+")), choice, ());
        }
        let mut count = 0;
        index.matches(name(&("a/".repeat(10) + "b" + &tail)), |_, ()| count += 1);
        assert_eq!(count, 2 << 10);
        index.matches(name(&("c/".repeat(10) + "b" + &tail)), |_, ()| count += 1);
        assert_eq!(count, (2 << 10) + 2);
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
