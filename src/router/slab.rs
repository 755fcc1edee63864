//! Values that come and go, found by a number.

use alloc::vec::Vec;

/// Values by keys. No key is given out twice.
///
/// The values stand in pages, so that none moves when others come, and no call takes long.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    pages: Vec<Vec<Place<T>>>,
    free: Vec<u32>,
    length: usize,
}

const PAGE: usize = 64;

#[derive(Debug)]
struct Place<T> {
    /// The number of values that the place had before: the upper half of the key.
    generation: u32,
    value: Option<T>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self { pages: Vec::new(), free: Vec::new(), length: 0 }
    }

    pub(crate) fn insert(&mut self, value: T) -> u64 {
        self.length += 1;
        if let Some(free) = self.free.pop() {
            let place = self.place_mut(free.into());
            let generation = place.map_or(0, |place| {
                place.value = Some(value);
                place.generation
            });
            return key(generation, free);
        }
        if self.pages.last().is_none_or(|page| page.len() == PAGE) {
            self.pages.push(Vec::with_capacity(PAGE));
        }
        let before = (self.pages.len() - 1) * PAGE;
        let Some(page) = self.pages.last_mut() else { return u64::MAX };
        page.push(Place { generation: 0, value: Some(value) });
        // Memory ends before four thousand million places.
        (before + page.len() - 1) as u64
    }

    pub(crate) fn get(&self, key: u64) -> Option<&T> {
        let position = position(key);
        let place = self.pages.get(position / PAGE)?.get(position % PAGE)?;
        place.value.as_ref().filter(|_| place.generation == generation(key))
    }

    pub(crate) fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        let place = self.place_mut(key)?;
        place.value.as_mut().filter(|_| place.generation == generation(key))
    }

    pub(crate) fn remove(&mut self, key: u64) -> Option<T> {
        let place = self.place_mut(key)?;
        let value = place.value.take_if(|_| place.generation == generation(key))?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(low_half(key));
        self.length -= 1;
        Some(value)
    }

    /// Returns the number of the place of a key. No two values have the same at a time.
    pub(crate) const fn place(key: u64) -> u32 {
        low_half(key)
    }

    /// Returns the value at a place, with its key.
    pub(crate) fn at(&self, place: u32) -> Option<(u64, &T)> {
        let position = place as usize;
        let found = self.pages.get(position / PAGE)?.get(position % PAGE)?;
        Some((key(found.generation, place), found.value.as_ref()?))
    }

    /// Returns the values with their keys, in the order of their places.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        // Memory ends before four thousand million places.
        let places = (0_u32..).zip(self.pages.iter().flatten());
        places.filter_map(|(number, place)| {
            Some((key(place.generation, number), place.value.as_ref()?))
        })
    }

    /// Returns all values, in the order of their places.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.pages.iter_mut().flatten().filter_map(|place| place.value.as_mut())
    }

    /// Removes the values that `is_removed` accepts. Looks at all of them, in the order of their
    /// places.
    pub(crate) fn remove_if(&mut self, mut is_removed: impl FnMut(&T) -> bool) {
        let mut left = self.length;
        // Memory ends before four thousand million places.
        let places = (0_u32..).zip(self.pages.iter_mut().flatten());
        for (number, place) in places {
            if left == 0 {
                break;
            }
            let Some(value) = &place.value else { continue };
            left -= 1;
            if is_removed(value) {
                place.value = None;
                place.generation = place.generation.wrapping_add(1);
                self.free.push(number);
                self.length -= 1;
            }
        }
    }

    /// Returns the number of places, with and without a value.
    pub(crate) fn places(&self) -> usize {
        self.length + self.free.len()
    }

    /// Returns the key of the first value at a position or after it, and the position after that.
    pub(crate) fn next_key(&self, position: usize) -> Option<(u64, usize)> {
        // Each page is full, except for the last one.
        let pages = self.pages.iter().enumerate().skip(position / PAGE);
        let places = pages.flat_map(|(page, places)| (page * PAGE..).zip(places));
        let mut values = places.skip(position % PAGE).filter(|(_, place)| place.value.is_some());
        let (position, place) = values.next()?;
        Some((key(place.generation, low_half(position as u64)), position + 1))
    }

    pub(crate) const fn len(&self) -> usize {
        self.length
    }

    fn place_mut(&mut self, key: u64) -> Option<&mut Place<T>> {
        let position = position(key);
        self.pages.get_mut(position / PAGE)?.get_mut(position % PAGE)
    }
}

/// Returns the key of a value at a place, which had that many values before.
fn key(generation: u32, place: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(place)
}

#[expect(clippy::cast_possible_truncation, reason = "it returns the lower half")]
const fn low_half(key: u64) -> u32 {
    key as u32
}

const fn position(key: u64) -> usize {
    low_half(key) as usize
}

const fn generation(key: u64) -> u32 {
    low_half(key >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_key_finds_no_value() {
        let mut slab = Slab::default();
        let first = slab.insert('a');
        assert_eq!(slab.remove(first), Some('a'));
        let second = slab.insert('b');
        assert_ne!(first, second);
        assert_eq!((slab.get(first), slab.get(second), slab.len()), (None, Some(&'b'), 1));
        assert_eq!(slab.remove(first), None);
    }

    #[test]
    fn keys_follow_each_other_by_position() {
        let mut slab = Slab::default();
        let mut keys: Vec<_> = (0..300).map(|number| slab.insert(number)).collect();
        for position in (0..300).filter(|position| position % 7 != 3 || *position < 140) {
            slab.remove(keys[position]);
        }
        keys.retain(|key| slab.get(*key).is_some());
        let mut position = 0;
        let found = core::iter::from_fn(|| {
            let (key, next) = slab.next_key(position)?;
            position = next;
            Some(key)
        });
        assert_eq!(found.collect::<Vec<_>>(), keys);
    }
}
