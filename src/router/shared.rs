//! The groups of shared subscriptions. [5.0 §4.8.2]

use super::slab::Slab;
use crate::codec::Filter;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// The groups of shared subscriptions: members `K` with a value `V` each, by the whole filter
/// `$share/{ShareName}/{filter}`.
///
/// A message for a group goes to one of its members. The caller knows which members can take it.
///
/// ```
/// use mqtt_sansio::codec::{Filter, Version};
/// use mqtt_sansio::router::ShareGroups;
///
/// let filter = Filter::new("$share/workers/job/#", Version::V5_0)?;
/// let mut groups = ShareGroups::new();
/// let group = groups.insert(&filter, "ann", ()).group;
/// groups.insert(&filter, "bob", ());
/// groups.insert(&filter, "cleo", ());
///
/// // Bob is busy.
/// let mut pick = || groups.pick(group, None, |member, ()| *member != "bob").map(|found| *found.0);
/// assert_eq!([pick(), pick(), pick()], [Some("ann"), Some("cleo"), Some("ann")]);
/// # Ok::<_, mqtt_sansio::codec::EncodeError>(())
/// ```
#[derive(Debug)]
pub struct ShareGroups<K, V> {
    by_filter: BTreeMap<Filter, GroupId>,
    groups: Slab<Group<K, V>>,
}

/// The name of a group. It is never given out twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(u64);

impl GroupId {
    /// Returns the name as a number.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Returns the name of a group from its number.
    #[must_use]
    pub const fn from_u64(number: u64) -> Self {
        Self(number)
    }
}

/// The outcome of [`ShareGroups::insert`] and [`ShareGroups::remove`].
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed<V> {
    /// The group.
    pub group: GroupId,
    /// The value that the member had before.
    pub before: Option<V>,
    /// The number of members after the change. A group without members is gone.
    pub members: usize,
}

#[derive(Debug)]
struct Group<K, V> {
    filter: Filter,
    /// In the order of `K`.
    members: Vec<(K, V)>,
    /// The position of the member whose turn it is.
    next: usize,
}

impl<K, V> Default for ShareGroups<K, V> {
    fn default() -> Self {
        Self { by_filter: BTreeMap::new(), groups: Slab::new() }
    }
}

impl<K: Ord, V> ShareGroups<K, V> {
    /// Returns a store without groups.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the number of groups.
    #[must_use]
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether there are no groups.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the group of a filter.
    #[must_use]
    pub fn find(&self, filter: &Filter) -> Option<GroupId> {
        self.by_filter.get(filter).copied()
    }

    /// Returns the filter of a group.
    #[must_use]
    pub fn filter(&self, group: GroupId) -> Option<&Filter> {
        self.groups.get(group.0).map(|group| &group.filter)
    }

    /// Returns an iterator over the filters and their groups, in the order of the filters.
    pub fn iter(&self) -> impl Iterator<Item = (&Filter, GroupId)> {
        self.by_filter.iter().map(|(filter, group)| (filter, *group))
    }

    /// Returns the members of a group, in their order.
    #[must_use]
    pub fn members(&self, group: GroupId) -> &[(K, V)] {
        self.groups.get(group.0).map_or(&[], |group| &group.members)
    }

    /// Adds a member, or replaces its value. The first member makes the group.
    pub fn insert(&mut self, filter: &Filter, member: K, value: V) -> Changed<V> {
        let group = self.find(filter).unwrap_or_else(|| {
            let id = GroupId(self.groups.insert(Group {
                filter: filter.clone(),
                members: Vec::new(),
                next: 0,
            }));
            self.by_filter.insert(filter.clone(), id);
            id
        });
        let Some(Group { members, next, .. }) = self.groups.get_mut(group.0) else {
            return Changed { group, before: None, members: 0 };
        };
        let before = match members.binary_search_by(|(other, _)| other.cmp(&member)) {
            Ok(position) => {
                members.get_mut(position).map(|(_, old)| core::mem::replace(old, value))
            }
            Err(position) => {
                members.insert(position, (member, value));
                *next += usize::from(position < *next);
                None
            }
        };
        Changed { group, before, members: members.len() }
    }

    /// Removes a member. The last one takes the group with it.
    pub fn remove(&mut self, filter: &Filter, member: &K) -> Option<Changed<V>> {
        let id = self.find(filter)?;
        let Group { members, next, .. } = self.groups.get_mut(id.0)?;
        let position = members.binary_search_by(|(other, _)| other.cmp(member)).ok()?;
        let (_, value) = members.remove(position);
        *next -= usize::from(position < *next);
        let changed = Changed { group: id, before: Some(value), members: members.len() };
        if changed.members == 0 {
            self.groups.remove(id.0);
            self.by_filter.remove(filter);
        }
        Some(changed)
    }

    /// Returns the first member that `accepts` a message. Asks each member once at most.
    ///
    /// Without `first`, it begins with the member whose turn it is, and the next turn is that of
    /// the member after the one that accepts. Otherwise it begins at this position of
    /// [`members`](Self::members).
    pub fn pick(
        &mut self,
        group: GroupId,
        first: Option<usize>,
        mut accepts: impl FnMut(&K, &V) -> bool,
    ) -> Option<(&K, &V)> {
        let Group { members, next, .. } = self.groups.get_mut(group.0)?;
        let start = first.unwrap_or(*next);
        let (before, after) = members.split_at_checked(start).unwrap_or((&[], members));
        let skipped = after.iter().chain(before).position(|(key, value)| accepts(key, value))?;
        let position = (start + skipped) % members.len();
        if first.is_none() {
            *next = (position + 1) % members.len();
        }
        members.get(position).map(|(key, value)| (key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Version;
    use alloc::format;
    use proptest::prelude::*;

    proptest! {
        /// The members of a group take turns, whichever of them come and go.
        #[test]
        fn groups_agree_with_lists_of_members(
            operations in prop::collection::vec((0..3_u8, 0..5_u8, 0..4_u8), 0..60),
        ) {
            let mut groups = ShareGroups::new();
            let mut lists = [const { Vec::new() }; 3];
            for (name, member, operation) in operations {
                let filter = Filter::new(&*format!("$share/{name}/a"), Version::V5_0).unwrap();
                let list = &mut lists[usize::from(name)];
                let known = list.iter().position(|other| *other == member);
                match operation {
                    0 | 1 => {
                        let changed = groups.insert(&filter, member, operation);
                        prop_assert_eq!(changed.before.is_some(), known.is_some());
                        if known.is_none() {
                            list.push(member);
                        }
                        prop_assert_eq!(changed.members, list.len());
                    }
                    2 => {
                        let changed = groups.remove(&filter, &member);
                        prop_assert_eq!(changed.is_some(), known.is_some());
                        known.map(|position| list.remove(position));
                    }
                    _ => {
                        let group = groups.find(&filter);
                        let picked: Option<Vec<u8>> = group.map(|group| {
                            let pick = |_| *groups.pick(group, None, |_, _| true).unwrap().0;
                            list.iter().map(pick).collect()
                        });
                        let mut picked = picked.unwrap_or_default();
                        picked.sort_unstable();
                        list.sort_unstable();
                        prop_assert_eq!(&picked, &*list, "each member has one turn");
                    }
                }
                let others = lists.iter().filter(|list| !list.is_empty()).count();
                prop_assert_eq!(groups.len(), others);
            }
        }
    }
}
