//! Values that are found by a number, in blocks that never move.

use alloc::vec::Vec;

/// The number that no value has.
pub(super) const NONE: u32 = u32::MAX;

/// Values by numbers. A number is free again after its value was removed.
///
/// A pool grows by a block and gives back each block that is empty, so no step copies all values.
#[derive(Clone, Debug)]
pub(super) struct Pool<T> {
    blocks: Vec<Vec<T>>,
    /// The places in use, by block.
    used: Vec<Places>,
    /// The blocks that have a free place. The last one is filled first.
    open: Vec<u32>,
    length: usize,
}

/// Small, because the last value of a block pays for giving all of it back.
const BITS: u32 = 8;
const BLOCK: usize = 1 << BITS;

impl<T> Default for Pool<T> {
    fn default() -> Self {
        let (blocks, used, open) = (Vec::new(), Vec::new(), Vec::new());
        Self { blocks, used, open, length: 0 }
    }
}

impl<T: Default> Pool<T> {
    /// Returns the number of values.
    #[cfg(test)]
    pub(super) const fn len(&self) -> usize {
        self.length
    }

    /// Returns the number of bytes that the pool holds, without what its values hold elsewhere.
    pub(super) fn memory(&self) -> usize {
        let values: usize = self.blocks.iter().map(Vec::capacity).sum();
        values * size_of::<T>()
            + self.blocks.capacity() * size_of::<Vec<T>>()
            + self.used.capacity() * size_of::<Places>()
            + self.open.capacity() * size_of::<u32>()
    }

    pub(super) fn get(&self, number: u32) -> Option<&T> {
        let (block, place) = position(number);
        self.blocks.get(block)?.get(place)
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        let (block, place) = position(number);
        self.blocks.get_mut(block)?.get_mut(place)
    }

    /// Adds a value. Returns its number, or [`NONE`] if each number is in use.
    pub(super) fn insert(&mut self, value: T) -> u32 {
        if self.open.is_empty() {
            let block = u32::try_from(self.blocks.len()).unwrap_or(NONE);
            // The last block is not used: it has the number `NONE`.
            if block >= NONE >> BITS {
                return NONE;
            }
            self.open.push(block);
            self.blocks.push(Vec::new());
            self.used.push(Places::default());
        }
        let Some(&number) = self.open.last() else { return NONE };
        let block = number as usize;
        let (Some(values), Some(used)) = (self.blocks.get_mut(block), self.used.get_mut(block))
        else {
            return NONE;
        };
        let place = used.take();
        if used.count as usize == BLOCK {
            self.open.pop();
        }
        match values.get_mut(place as usize) {
            Some(free) => *free = value,
            None => values.push(value),
        }
        self.length += 1;
        (number << BITS) | place
    }

    /// Removes a value.
    pub(super) fn remove(&mut self, number: u32) -> Option<T> {
        let (block, place) = position(number);
        let (values, used) = (self.blocks.get_mut(block)?, self.used.get_mut(block)?);
        let value = core::mem::take(values.get_mut(place)?);
        if used.count as usize == BLOCK {
            self.open.push(number >> BITS);
        }
        used.free(place);
        if used.count == 0 {
            *values = Vec::new();
        }
        self.length -= 1;
        if self.length == 0 {
            *self = Self::default();
        }
        Some(value)
    }

    /// Returns the values with their numbers, in the order of the numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let blocks = (0..).zip(self.blocks.iter().zip(&self.used));
        blocks.flat_map(|(block, (values, used))| {
            let places = (0..).zip(values).filter(|(place, _)| used.contains(*place));
            places.map(move |(place, value)| ((block << BITS) | place, value))
        })
    }
}

/// Returns the block of a number, and the place there.
const fn position(number: u32) -> (usize, usize) {
    ((number >> BITS) as usize, number as usize & (BLOCK - 1))
}

/// The places of a block that are in use.
#[derive(Clone, Debug, Default)]
struct Places {
    count: u32,
    words: [u64; BLOCK / 64],
}

impl Places {
    /// Takes the first free place of a block that is not full.
    fn take(&mut self) -> u32 {
        for (start, word) in (0..).step_by(64).zip(&mut self.words) {
            if *word != u64::MAX {
                let bit = word.trailing_ones();
                *word |= 1 << bit;
                self.count += 1;
                return start + bit;
            }
        }
        0
    }

    fn free(&mut self, place: usize) {
        if let Some(word) = self.words.get_mut(place / 64) {
            *word &= !(1 << (place % 64));
            self.count -= 1;
        }
    }

    fn contains(&self, place: u32) -> bool {
        self.words.get(place as usize / 64).is_some_and(|word| (word >> (place % 64)) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pool_uses_free_numbers_again() {
        let mut pool = Pool::default();
        for number in 0..3_000_u32 {
            assert_eq!(pool.insert(number), number);
        }
        assert_eq!((pool.remove(5), pool.remove(2_500)), (Some(5), Some(2_500)));
        let mut again = [pool.insert(1), pool.insert(2)];
        again.sort_unstable();
        assert_eq!(again, [5, 2_500]);
        assert_eq!(pool.insert(3), 3_000);
        assert_eq!(pool.iter().count(), pool.len());
    }

    #[test]
    fn pool_gives_back_empty_blocks() {
        let mut pool = Pool::default();
        for number in 0..4 * 256_u32 {
            pool.insert(number);
        }
        let full = pool.memory();
        for number in (0..4 * 256).filter(|number| number % 512 != 0) {
            assert_eq!(pool.remove(number), Some(number));
        }
        assert!(pool.iter().eq([(0, &0), (512, &512)]));
        assert!(pool.memory() < full * 6 / 10, "{} of {full}", pool.memory());
        pool.remove(0);
        pool.remove(512);
        assert_eq!((pool.len(), pool.memory()), (0, 0));
    }
}
