//! Values that come and go, found by a number.

use alloc::vec::Vec;

/// Values by keys. No key is given out twice.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

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
        Self { places: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn insert(&mut self, value: T) -> u64 {
        let position = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { generation: 0, value: None });
            // Memory ends before four thousand million places.
            u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX)
        });
        let mut generation = 0;
        if let Some(place) = self.places.get_mut(position as usize) {
            place.value = Some(value);
            generation = place.generation;
        }
        u64::from(generation) << 32 | u64::from(position)
    }

    pub(crate) fn get(&self, key: u64) -> Option<&T> {
        let place = self.places.get(position(key))?;
        place.value.as_ref().filter(|_| place.generation == generation(key))
    }

    pub(crate) fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        let place = self.places.get_mut(position(key))?;
        place.value.as_mut().filter(|_| place.generation == generation(key))
    }

    pub(crate) fn remove(&mut self, key: u64) -> Option<T> {
        let place = self.places.get_mut(position(key))?;
        let value = place.value.take_if(|_| place.generation == generation(key))?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(low_half(key));
        Some(value)
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }
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
}
