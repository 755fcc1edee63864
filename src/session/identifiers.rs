//! Values by packet identifier, in the order in which they were inserted.

use crate::codec::PacketIdentifier;
use alloc::boxed::Box;
use alloc::vec::Vec;

/// A map from packet identifiers to values that keeps the order of insertion and chooses the next
/// identifier.
///
/// A session that has used none, as most have, has no memory for them.
#[derive(Clone, Debug)]
pub(crate) struct Identifiers<T> {
    table: Option<Box<Table<T>>>,
    /// The identifier to try first. Identifiers rise, so that one is not reused soon.
    pub(super) next: u16,
}

/// The values stand in a slab. A linked list keeps their order and a hash table finds them, so an
/// operation costs the same whatever the number of values and the order in which they leave; the
/// peer decides both.
#[derive(Clone, Debug)]
struct Table<T> {
    entries: Vec<Entry<T>>,
    /// For each hash, the position of the first entry. Its length is a power of two, and at least
    /// that of `entries`.
    heads: Box<[u32]>,
    first: u32,
    last: u32,
    /// The first vacant entry. Vacant entries are linked by `after`.
    vacant: u32,
    length: u32,
    /// The identifiers in use, kept since there were many of them.
    used: Option<Used>,
}

#[derive(Clone, Debug)]
struct Entry<T> {
    identifier: u16,
    before: u32,
    after: u32,
    /// The next entry with the same hash.
    collision: u32,
    /// `None` if the entry is vacant.
    value: Option<T>,
}

/// The position that stands for no entry.
const NONE: u32 = u32::MAX;

/// The number of packet identifiers: 1 to 65,535.
pub(crate) const IDENTIFIERS: u32 = 65_535;

/// The number of values from which on the identifiers in use are kept as a set. With fewer, a
/// search for a free identifier looks at no more than that many.
const MANY: u32 = 256;

/// Memory for more values than this is released when the last one leaves.
const KEPT_CAPACITY: usize = 64;

impl<T> Default for Identifiers<T> {
    fn default() -> Self {
        Self { table: None, next: 1 }
    }
}

impl<T> Identifiers<T> {
    /// Returns the identifier that the next value should have, unless all are in use.
    #[inline]
    pub(crate) fn allocate(&self) -> Option<PacketIdentifier> {
        match &self.table {
            Some(table) if table.find(self.next).is_some() => table.search(self.next),
            _ => PacketIdentifier::new(self.next),
        }
    }

    /// Returns the number of identifiers in use.
    pub(crate) fn len(&self) -> usize {
        self.table.as_ref().map_or(0, |table| table.length as usize)
    }

    /// Whether an identifier is free.
    pub(crate) fn has_free(&self) -> bool {
        self.table.as_ref().is_none_or(|table| table.length < IDENTIFIERS)
    }

    /// Appends a value under an identifier that is not in use. Inlined, so that the value is made
    /// in its place.
    #[inline]
    pub(crate) fn insert(&mut self, identifier: PacketIdentifier, value: T) {
        self.next = successor(identifier.get());
        let table = self.table.get_or_insert_default();
        let position = table.add(identifier.get());
        if let Some(Entry { value: vacant @ None, .. }) = table.entry_mut(position) {
            *vacant = Some(value);
        }
    }

    pub(crate) fn get(&self, identifier: PacketIdentifier) -> Option<&T> {
        self.table.as_ref()?.find(identifier.get())?.value.as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, identifier: PacketIdentifier) -> Option<&mut T> {
        let table = self.table.as_mut()?;
        let position = table.position(identifier.get());
        table.entry_mut(position)?.value.as_mut()
    }

    /// Removes the value of an identifier, which then is free.
    pub(crate) fn remove(&mut self, identifier: PacketIdentifier) -> Option<T> {
        self.remove_with(identifier, Option::take).flatten()
    }

    /// Removes the value of an identifier and drops it where it is.
    pub(crate) fn discard(&mut self, identifier: PacketIdentifier) {
        self.remove_with(identifier, |value| *value = None);
    }

    #[inline]
    fn remove_with<R>(
        &mut self,
        identifier: PacketIdentifier,
        end: impl FnOnce(&mut Option<T>) -> R,
    ) -> Option<R> {
        let table = self.table.as_mut()?;
        let ended = table.vacate(identifier.get()).map(|entry| end(&mut entry.value));
        if table.length == 0 && table.entries.len() > KEPT_CAPACITY {
            self.table = None;
        }
        ended
    }

    /// Moves a value to the end of the order.
    pub(crate) fn move_to_back(&mut self, identifier: PacketIdentifier) {
        if let Some(table) = &mut self.table {
            table.move_to_back(identifier.get());
        }
    }

    /// Returns the first identifier in the order.
    pub(crate) fn first(&self) -> Option<PacketIdentifier> {
        let table = self.table.as_ref()?;
        PacketIdentifier::new(table.entry(table.first)?.identifier)
    }

    /// Returns the identifier that follows another one in the order.
    pub(crate) fn after(&self, identifier: PacketIdentifier) -> Option<PacketIdentifier> {
        let table = self.table.as_ref()?;
        let after = table.find(identifier.get())?.after;
        PacketIdentifier::new(table.entry(after)?.identifier)
    }

    /// Returns all values in their order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (PacketIdentifier, &T)> {
        self.table.iter().flat_map(|table| table.iter())
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            heads: Box::default(),
            first: NONE,
            last: NONE,
            vacant: NONE,
            length: 0,
            used: None,
        }
    }
}

impl<T> Table<T> {
    #[cold]
    fn search(&self, mut identifier: u16) -> Option<PacketIdentifier> {
        if let Some(used) = &self.used {
            return used.first_free(identifier).and_then(PacketIdentifier::new);
        }
        for _ in 0..=self.length {
            if self.find(identifier).is_none() {
                return PacketIdentifier::new(identifier);
            }
            identifier = successor(identifier);
        }
        None
    }

    /// Makes an entry without a value at the end of the list.
    fn add(&mut self, identifier: u16) -> u32 {
        debug_assert!(self.find(identifier).is_none(), "the identifier is free");
        let mut position = self.vacant;
        if let Some(entry) = self.entries.get_mut(position as usize) {
            entry.identifier = identifier;
            self.vacant = entry.after;
        } else {
            position = u32::try_from(self.entries.len()).unwrap_or(NONE);
            let (before, after, collision) = (NONE, NONE, NONE);
            // Most sessions have one message in flight. Without this it takes room for four.
            if self.entries.capacity() == 0 {
                self.entries.reserve_exact(1);
            }
            self.entries.push(Entry { identifier, before, after, collision, value: None });
            if self.entries.len() > self.heads.len() {
                self.grow_heads();
            }
        }
        self.add_collision(identifier, position);
        self.link_last(position);
        self.length += 1;
        if self.length >= MANY || self.used.is_some() {
            self.note_used(identifier);
        }
        position
    }

    /// Takes an identifier out of the map, and returns its entry, whose value the caller removes.
    #[inline]
    fn vacate(&mut self, identifier: u16) -> Option<&mut Entry<T>> {
        let position = self.position(identifier);
        self.remove_collision(identifier, position)?;
        self.unlink(position);
        self.length -= 1;
        if let Some(used) = &mut self.used {
            used.clear(identifier);
        }
        let vacant = core::mem::replace(&mut self.vacant, position);
        let entry = self.entry_mut(position)?;
        (entry.identifier, entry.after) = (0, vacant);
        Some(entry)
    }

    fn move_to_back(&mut self, identifier: u16) {
        let position = self.position(identifier);
        if position == NONE || position == self.last {
            return;
        }
        self.unlink(position);
        self.link_last(position);
    }

    fn iter(&self) -> impl Iterator<Item = (PacketIdentifier, &T)> {
        let mut next = self.first;
        core::iter::from_fn(move || {
            let entry = self.entry(next)?;
            next = entry.after;
            PacketIdentifier::new(entry.identifier).zip(entry.value.as_ref())
        })
    }

    #[inline]
    fn entry(&self, position: u32) -> Option<&Entry<T>> {
        self.entries.get(position as usize)
    }

    #[inline]
    fn entry_mut(&mut self, position: u32) -> Option<&mut Entry<T>> {
        self.entries.get_mut(position as usize)
    }

    /// Returns the entry of an identifier.
    #[inline]
    fn find(&self, identifier: u16) -> Option<&Entry<T>> {
        self.entry(self.position(identifier))
    }

    /// Returns the position of an identifier, or `NONE`.
    ///
    /// The hash of an identifier is the end of its number, so those that are given out in a row do
    /// not collide, and no more than 65,536 divided by the length of `heads` ever do.
    #[inline]
    fn position(&self, identifier: u16) -> u32 {
        let bucket = usize::from(identifier) & self.heads.len().wrapping_sub(1);
        let mut position = self.heads.get(bucket).copied().unwrap_or(NONE);
        while let Some(entry) = self.entry(position) {
            if entry.identifier == identifier {
                break;
            }
            position = entry.collision;
        }
        position
    }

    fn bucket(&mut self, identifier: u16) -> Option<&mut u32> {
        let bucket = usize::from(identifier) & self.heads.len().wrapping_sub(1);
        self.heads.get_mut(bucket)
    }

    /// Takes an entry out of the hash table.
    #[inline]
    fn remove_collision(&mut self, identifier: u16, position: u32) -> Option<()> {
        let next = self.entry(position)?.collision;
        let mut link = self.bucket(identifier)?;
        while *link != position {
            let other = *link as usize;
            link = &mut self.entries.get_mut(other)?.collision;
        }
        *link = next;
        Some(())
    }

    /// Puts an entry into the hash table.
    #[inline]
    fn add_collision(&mut self, identifier: u16, position: u32) {
        let head = self.bucket(identifier);
        let collision = head.map_or(NONE, |head| core::mem::replace(head, position));
        if let Some(entry) = self.entry_mut(position) {
            entry.collision = collision;
        }
    }

    #[cold]
    fn grow_heads(&mut self) {
        let length = self.entries.len().next_power_of_two().max(4);
        self.heads = alloc::vec![NONE; length].into();
        let mut position = self.first;
        while let Some(entry) = self.entry(position) {
            let (identifier, after) = (entry.identifier, entry.after);
            self.add_collision(identifier, position);
            position = after;
        }
    }

    /// Appends an entry to the list.
    #[inline]
    fn link_last(&mut self, position: u32) {
        let last = core::mem::replace(&mut self.last, position);
        if let Some(entry) = self.entry_mut(position) {
            (entry.before, entry.after) = (last, NONE);
        }
        match self.entry_mut(last) {
            Some(last) => last.after = position,
            None => self.first = position,
        }
    }

    fn unlink(&mut self, position: u32) {
        let Some(entry) = self.entry(position) else { return };
        let (before, after) = (entry.before, entry.after);
        match self.entry_mut(before) {
            Some(entry) => entry.after = after,
            None => self.first = after,
        }
        match self.entry_mut(after) {
            Some(entry) => entry.before = before,
            None => self.last = before,
        }
    }

    fn note_used(&mut self, identifier: u16) {
        let mut used = self.used.take().unwrap_or_else(|| {
            let mut used = Used::default();
            self.iter().for_each(|(identifier, _)| used.set(identifier.get()));
            used
        });
        used.set(identifier);
        self.used = Some(used);
    }
}

/// A set of identifiers that finds the next one that is not in it. It has one bit for each, and the
/// bit of 0, which is none, is always set.
#[derive(Clone, Debug)]
struct Used(Box<[u64]>);

impl Default for Used {
    fn default() -> Self {
        let mut used = Self(alloc::vec![0; 1 << 10].into());
        used.set(0);
        used
    }
}

impl Used {
    fn set(&mut self, identifier: u16) {
        if let Some(word) = self.0.get_mut(usize::from(identifier >> 6)) {
            *word |= 1 << (identifier & 63);
        }
    }

    fn clear(&mut self, identifier: u16) {
        if let Some(word) = self.0.get_mut(usize::from(identifier >> 6)) {
            *word &= !(1 << (identifier & 63));
        }
    }

    /// Returns the first identifier from `from` on that is not in the set, and after 65,535 the
    /// first from 1 on. Looks at no more than 1,025 words.
    fn first_free(&self, from: u16) -> Option<u16> {
        let start = usize::from(from >> 6);
        let first = self.0.get(start)? | !(u64::MAX << (from & 63));
        let words = self.0.iter().copied().enumerate();
        let rest = words.clone().skip(start + 1).chain(words.take(start + 1));
        let mut all = core::iter::once((start, first)).chain(rest);
        let (index, word) = all.find(|(_, word)| *word != u64::MAX)?;
        u16::try_from((index << 6) + word.trailing_ones() as usize).ok()
    }
}

/// Returns the identifier after another one.
const fn successor(identifier: u16) -> u16 {
    if identifier == u16::MAX { 1 } else { identifier + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use proptest::prelude::*;

    fn insert(identifiers: &mut Identifiers<u64>, value: u64) -> Option<PacketIdentifier> {
        let identifier = identifiers.allocate()?;
        identifiers.insert(identifier, value);
        Some(identifier)
    }

    fn order(identifiers: &Identifiers<u64>) -> Vec<u64> {
        identifiers.iter().map(|(_, value)| *value).collect()
    }

    #[test]
    fn identifier_in_use_is_never_given_out() {
        let mut identifiers = Identifiers::default();
        let stuck = insert(&mut identifiers, 0).unwrap();
        for value in 1..200_000 {
            let identifier = insert(&mut identifiers, value).unwrap();
            assert_ne!(identifier, stuck);
            assert_eq!(identifiers.remove(identifier), Some(value));
        }
        assert_eq!(identifiers.get(stuck), Some(&0));
        let table = identifiers.table.unwrap();
        assert!(table.entries.len() <= 2 && table.heads.len() <= 4);
    }

    /// Beyond 256 values the identifiers in use are kept as a set, which must know those of later
    /// values too.
    #[test]
    fn identifier_in_use_is_never_given_out_after_a_burst() {
        let mut identifiers = Identifiers::default();
        let burst: Vec<_> =
            (0..300).map(|value| insert(&mut identifiers, value).unwrap()).collect();
        let (last, others) = burst.split_last().unwrap();
        for identifier in others {
            identifiers.remove(*identifier);
        }
        let mut stuck: Vec<_> = (0..10).map(|_| insert(&mut identifiers, 0).unwrap()).collect();
        stuck.push(*last);
        for value in 0..70_000 {
            let identifier = insert(&mut identifiers, value).unwrap();
            assert!(!stuck.contains(&identifier));
            assert_eq!(identifiers.remove(identifier), Some(value));
        }
    }

    #[test]
    fn all_identifiers_can_be_in_use_and_leave_in_any_order() {
        let mut identifiers = Identifiers::default();
        let all: Vec<_> =
            (0..IDENTIFIERS.into()).map(|value| insert(&mut identifiers, value).unwrap()).collect();
        assert_eq!(insert(&mut identifiers, 0), None);
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 65_535);
        for index in [30_000, 29_999, 65_534, 0, 30_001] {
            assert_eq!(identifiers.remove(all[index]), Some(index as u64));
            assert_eq!(insert(&mut identifiers, index as u64), Some(all[index]));
            assert_eq!(insert(&mut identifiers, 0), None);
            assert_eq!(identifiers.iter().last(), Some((all[index], &(index as u64))));
        }
        for identifier in all.into_iter().rev() {
            assert!(identifiers.remove(identifier).is_some());
        }
        assert!(identifiers.table.is_none());
    }

    proptest! {
        /// The map agrees with a plain list, also where identifiers collide in its table.
        #[test]
        fn map_agrees_with_a_list(
            steps in prop::collection::vec(
                (0..4_u8, any::<prop::sample::Index>(), 1..50_u16), 1..300,
            ),
        ) {
            let mut identifiers = Identifiers::default();
            let mut list: Vec<(PacketIdentifier, u64)> = Vec::new();
            for (value, (step, index, jump)) in steps.into_iter().enumerate() {
                match step {
                    0 if !list.is_empty() => {
                        let (identifier, value) = list.remove(index.index(list.len()));
                        prop_assert_eq!(identifiers.remove(identifier), Some(value));
                        prop_assert_eq!(identifiers.remove(identifier), None);
                    }
                    1 if !list.is_empty() => {
                        let moved = list.remove(index.index(list.len()));
                        identifiers.move_to_back(moved.0);
                        list.push(moved);
                    }
                    _ => {
                        identifiers.next = jump * 8;
                        let identifier = insert(&mut identifiers, value as u64).unwrap();
                        prop_assert!(list.iter().all(|(other, _)| *other != identifier));
                        list.push((identifier, value as u64));
                    }
                }
                let expected: Vec<_> = list.iter().map(|(_, value)| *value).collect();
                prop_assert_eq!(order(&identifiers), expected);
                prop_assert_eq!(identifiers.len(), list.len());
                for (position, (identifier, value)) in list.iter().enumerate() {
                    prop_assert_eq!(identifiers.get(*identifier), Some(value));
                    let after = list.get(position + 1).map(|(identifier, _)| *identifier);
                    prop_assert_eq!(identifiers.after(*identifier), after);
                }
            }
        }

        #[test]
        fn set_finds_the_next_free_identifier(
            ranges in prop::collection::vec((1..=u16::MAX, 0..3_000_u16), 0..40),
            from in 1..=u16::MAX,
        ) {
            let mut used = Used::default();
            let mut list = BTreeSet::new();
            for (start, length) in ranges {
                for identifier in start..=start.saturating_add(length) {
                    used.set(identifier);
                    list.insert(identifier);
                }
            }
            let expected = (from..=u16::MAX).chain(1..from).find(|free| !list.contains(free));
            prop_assert_eq!(used.first_free(from), expected);
        }
    }
}
