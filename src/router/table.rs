//! A hash table of numbers, which grows and shrinks in small steps.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

/// Numbers below `u32::MAX` by 32-bit hashes. The caller knows the keys: it compares them, and
/// computes the hashes.
///
/// The table is divided into segments by linear hashing: when it is full, one segment is split,
/// and the others stay as they are. So no step moves more than two segments, however large the
/// table is. Within a segment, a number is at the place that its hash says or behind it (linear
/// probing). A slot has the hash, too, so other keys are hardly ever compared.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    segments: Vec<Segment>,
    /// The smallest power of two that is not below the number of segments, minus one.
    mask: usize,
    length: usize,
}

/// The mean number of entries in a segment at which the table is full.
const FULL: usize = 2_048;

impl Table {
    /// Returns the number of bytes that the table holds.
    pub(super) fn memory(&self) -> usize {
        let slots: usize = self.segments.iter().map(|segment| segment.slots.len()).sum();
        slots * size_of::<u64>() + self.segments.capacity() * size_of::<Segment>()
    }

    /// Returns the number with this hash that `is_it` accepts.
    #[inline]
    pub(crate) fn find(&self, hash: u32, is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        self.segments.get(self.segment(hash))?.find(hash, is_it)
    }

    /// Adds a number that is not in the table.
    pub(crate) fn insert(&mut self, hash: u32, number: u32) {
        if self.segments.is_empty() {
            self.segments.push(Segment::with_room(0));
        }
        self.put(slot(hash, number));
        self.length += 1;
        if self.length > FULL * self.segments.len() {
            self.split();
        }
    }

    /// Removes a number.
    pub(crate) fn remove(&mut self, hash: u32, number: u32) {
        let segment = self.segment(hash);
        let Some(segment) = self.segments.get_mut(segment) else { return };
        if !segment.remove(slot(hash, number)) {
            return;
        }
        self.length -= 1;
        // Between the two limits is a gap, so that a number that comes and goes moves no others. It
        // is small: the allocator joins the blocks that were freed before when it is asked for a
        // large one, and the first merge after a long time waits for that.
        if self.length < FULL / 16 * 15 * (self.segments.len() - 1) {
            self.merge();
        }
    }

    /// Returns the position of the segment with a hash.
    #[inline]
    fn segment(&self, hash: u32) -> usize {
        let segment = hash as usize & self.mask;
        // The segment from which it will be split.
        if segment < self.segments.len() { segment } else { segment & (self.mask >> 1) }
    }

    /// Adds a segment, and moves its entries there.
    fn split(&mut self) {
        let new = self.segments.len();
        let from = self.segment(low(new));
        self.segments.push(Segment::with_room(FULL / 2));
        self.mask = self.segments.len().next_power_of_two() - 1;
        let Some(from) = self.segments.get_mut(from) else { return };
        let from = core::mem::replace(from, Segment::with_room(from.used / 2));
        from.entries().for_each(|entry| self.put(entry));
    }

    /// Moves the entries of the last segment back to the one from which it was split.
    fn merge(&mut self) {
        let Some(last) = self.segments.pop() else { return };
        self.mask = self.segments.len().next_power_of_two() - 1;
        let into = self.segment(low(self.segments.len()));
        let Some(into) = self.segments.get_mut(into) else { return };
        // Room for all at first: entries that come in the order of their hashes would fill the
        // start of a smaller segment, where each had to pass all before it.
        let old = core::mem::replace(into, Segment::with_room(into.used + last.used));
        old.entries().chain(last.entries()).for_each(|entry| into.insert(entry));
    }

    fn put(&mut self, entry: u64) {
        let segment = self.segment(hash_of(entry));
        if let Some(segment) = self.segments.get_mut(segment) {
            segment.insert(entry);
        }
    }
}

/// A part of the table, with a table of its own.
#[derive(Clone, Debug)]
struct Segment {
    /// The entries: the hash above, and the number plus one below. 0 is a free slot.
    slots: Box<[u64]>,
    used: usize,
}

impl Segment {
    /// Returns an empty segment that has two slots for each entry.
    fn with_room(entries: usize) -> Self {
        let length = 2 * entries.max(1);
        Self { slots: vec![0; length].into_boxed_slice(), used: 0 }
    }

    #[inline]
    fn find(&self, hash: u32, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let (before, mut slots) = self.slots.split_at_checked(self.home(hash))?;
        loop {
            for &slot in slots {
                if slot == 0 {
                    return None;
                }
                if hash_of(slot) == hash && is_it(number_of(slot)) {
                    return Some(number_of(slot));
                }
            }
            // A slot is free, so the search ends before it comes here again.
            slots = before;
        }
    }

    fn insert(&mut self, entry: u64) {
        // At most two thirds are used. Then a search in vain looks at five slots on average.
        if 3 * (self.used + 1) > 2 * self.slots.len() {
            self.resize(self.used + 1);
        }
        self.put(entry);
        self.used += 1;
    }

    fn remove(&mut self, entry: u64) -> bool {
        let mut free = self.home(hash_of(entry));
        loop {
            match self.slots.get(free) {
                None | Some(0) => return false,
                Some(slot) if *slot == entry => break,
                Some(_) => free = self.after(free),
            }
        }
        // Moves entries into the free slot, so that no search ends before them.
        let mut position = free;
        loop {
            position = self.after(position);
            let slot = self.slots.get(position).copied().unwrap_or(0);
            if slot == 0 {
                break;
            }
            if self.distance(hash_of(slot), position) >= self.between(free, position) {
                self.set(free, slot);
                free = position;
            }
        }
        self.set(free, 0);
        self.used -= 1;
        if 4 * self.used < self.slots.len() && self.slots.len() > 2 {
            self.resize(self.used);
        }
        true
    }

    fn resize(&mut self, entries: usize) {
        let old = core::mem::replace(self, Self::with_room(entries));
        old.entries().for_each(|entry| self.put(entry));
        self.used = old.used;
    }

    fn put(&mut self, entry: u64) {
        let mut position = self.home(hash_of(entry));
        while self.slots.get(position).is_some_and(|slot| *slot != 0) {
            position = self.after(position);
        }
        self.set(position, entry);
    }

    fn set(&mut self, position: usize, entry: u64) {
        if let Some(slot) = self.slots.get_mut(position) {
            *slot = entry;
        }
    }

    fn entries(&self) -> impl Iterator<Item = u64> {
        self.slots.iter().copied().filter(|slot| *slot != 0)
    }

    /// Returns the slot at which a search begins. The segment is chosen by the lowest bits of the
    /// hash, and the slot by the highest.
    #[inline]
    fn home(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.slots.len() as u64) >> 32) as usize
    }

    #[inline]
    fn after(&self, position: usize) -> usize {
        if position + 1 < self.slots.len() { position + 1 } else { 0 }
    }

    /// Returns how far a slot is behind the one where the search for its hash begins.
    fn distance(&self, hash: u32, position: usize) -> usize {
        self.between(self.home(hash), position)
    }

    const fn between(&self, first: usize, second: usize) -> usize {
        if second >= first { second - first } else { second + self.slots.len() - first }
    }
}

/// Returns a hash that belongs to a segment.
fn low(segment: usize) -> u32 {
    u32::try_from(segment).unwrap_or(u32::MAX)
}

fn slot(hash: u32, number: u32) -> u64 {
    (u64::from(hash) << 32) | (u64::from(number) + 1)
}

const fn hash_of(slot: u64) -> u32 {
    (slot >> 32) as u32
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half")]
const fn number_of(slot: u64) -> u32 {
    (slot as u32).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;

    proptest! {
        /// With hashes that spread, and with hashes that nearly all collide.
        #[test]
        fn table_agrees_with_a_map(
            numbers in prop::collection::vec((0..40_u32, any::<bool>()), 0..400),
            hashes in prop::sample::select(&[u32::MAX, 3, 0, 0xF000_0000][..]),
        ) {
            let hash = |number: u32| number.wrapping_mul(0x9E37_79B9) & hashes;
            let (mut table, mut model) = (Table::default(), BTreeMap::new());
            for (number, add) in numbers {
                if add && model.insert(number, ()).is_none() {
                    table.insert(hash(number), number);
                } else if !add && model.remove(&number).is_some() {
                    table.remove(hash(number), number);
                }
                for number in 0..40 {
                    let found = table.find(hash(number), |other| other == number);
                    prop_assert_eq!(found.is_some(), model.contains_key(&number));
                }
            }
        }
    }

    #[test]
    fn table_splits_and_merges_segments() {
        const COUNT: u32 = 100_000;
        let hash = |number: u32| number.wrapping_mul(0x9E37_79B9);
        let check = |table: &Table, from: u32| {
            let found =
                |number: &u32| table.find(hash(*number), |other| other == *number).is_some();
            assert_eq!((0..COUNT).filter(found).count(), (COUNT - from) as usize);
            assert!(table.segments.iter().all(|one| one.entries().count() == one.used));
        };
        let mut table = Table::default();
        for number in 0..COUNT {
            table.insert(hash(number), number);
        }
        check(&table, 0);
        assert_eq!(table.segments.len(), (COUNT as usize).div_ceil(FULL));
        assert!(table.memory() < 17 * COUNT as usize, "{} bytes", table.memory());
        for number in 0..COUNT {
            table.remove(hash(number), number);
            if number % 9_999 == 0 {
                check(&table, number + 1);
            }
        }
        assert_eq!((table.segments.len(), table.length), (1, 0));
        assert_eq!(table.segments[0].slots.len(), 2);
    }
}
