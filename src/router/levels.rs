//! The names of levels, each stored once, and the keyed hash.

use super::pool::{NONE, Pool};
use super::table::Table;
use alloc::boxed::Box;
use core::fmt;

/// The names of the levels of all filters.
#[derive(Clone, Debug, Default)]
pub(super) struct Levels {
    levels: Pool<Level>,
    by_name: Table,
    /// The bytes of names that have a block of their own.
    long: usize,
}

#[derive(Clone, Debug, Default)]
struct Level {
    name: Name,
    /// The number of nodes with this level.
    uses: u32,
}

impl Levels {
    /// Returns the number of bytes that the names hold.
    pub(super) fn memory(&self) -> usize {
        self.levels.memory() + self.by_name.memory() + self.long
    }

    /// Returns the number of a level.
    #[inline]
    fn find(&self, name: &[u8], hash: u64) -> Option<u32> {
        self.by_name.find(shorten(hash), |level| self.name(level) == Some(name))
    }

    /// Returns the number of a level for one more node, and adds the level if it is new.
    pub(super) fn add(&mut self, name: &[u8], hash: u64) -> u32 {
        if let Some(number) = self.find(name, hash) {
            if let Some(level) = self.levels.get_mut(number) {
                level.uses += 1;
            }
            return number;
        }
        let name = Name::new(name);
        self.long += name.block();
        let number = self.levels.insert(Level { name, uses: 1 });
        if number != NONE {
            self.by_name.insert(shorten(hash), number);
        }
        number
    }

    /// Forgets one use of a level, and the level after the last one.
    pub(super) fn release(&mut self, number: u32, hash: u64) {
        let Some(level) = self.levels.get_mut(number) else { return };
        level.uses -= 1;
        if level.uses == 0 {
            self.by_name.remove(shorten(hash), number);
            self.long -= level.name.block();
            self.levels.remove(number);
        }
    }

    #[inline]
    pub(super) fn name(&self, number: u32) -> Option<&[u8]> {
        self.levels.get(number).map(|level| level.name.as_bytes())
    }
}

/// Bytes that are stored in place if they are few.
#[derive(Clone, Debug)]
enum Name {
    Short { length: u8, bytes: [u8; SHORT] },
    Long(Box<[u8]>),
}

/// As many bytes as fit beside the tag in the size of the other variant.
const SHORT: usize = 22;

impl Default for Name {
    fn default() -> Self {
        Self::Short { length: 0, bytes: [0; SHORT] }
    }
}

impl Name {
    fn new(name: &[u8]) -> Self {
        let mut bytes = [0; SHORT];
        match (bytes.get_mut(..name.len()), u8::try_from(name.len())) {
            (Some(place), Ok(length)) => {
                place.copy_from_slice(name);
                Self::Short { length, bytes }
            }
            _ => Self::Long(name.into()),
        }
    }

    #[inline]
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short { length, bytes } => bytes.get(..usize::from(*length)).unwrap_or(&[]),
            Self::Long(bytes) => bytes,
        }
    }

    /// Returns the number of bytes that are not in place.
    const fn block(&self) -> usize {
        match self {
            Self::Short { .. } => 0,
            Self::Long(bytes) => bytes.len(),
        }
    }
}

/// The key of the hashes of one index, or of the sessions of a broker.
///
/// The hashes are those of wyhash in a short form: words that were mixed with the key are
/// multiplied, and the halves of the product are combined. Clients that do not know the key cannot
/// compute names that collide. The function is not a cryptographic one: it does not protect a key
/// whose hashes can be observed.
#[derive(Clone, Copy)]
pub(crate) struct Key {
    words: [u64; 3],
    /// The bits of a hash that are left.
    #[cfg(test)]
    mask: u64,
}

/// Does not show the key.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").finish_non_exhaustive()
    }
}

impl Key {
    #[expect(clippy::cast_possible_truncation, reason = "takes the halves")]
    pub(crate) fn new(seed: u128) -> Self {
        let (low, high) = (seed as u64, (seed >> 64) as u64);
        // The numbers of SplitMix64 after one half, mixed with the other: each bit of the seed
        // changes about half of the bits of each word.
        let words = [1_u64, 2, 3].map(|number| {
            let state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(low);
            mix(mix(state) ^ high)
        });
        Self {
            words,
            #[cfg(test)]
            mask: u64::MAX,
        }
    }

    /// Returns a key whose hashes collide more often.
    #[cfg(test)]
    pub(super) const fn with_mask(mask: u64) -> Self {
        Self { words: [1, 2, 3], mask }
    }

    /// Returns the hash of a name.
    #[inline]
    pub(super) fn name(self, name: &[u8]) -> u64 {
        let [first, second, third] = self.words;
        let mut state = first;
        let mut rest = name;
        while rest.len() > 16 {
            let Some((chunk, after)) = rest.split_first_chunk() else { break };
            let [low, high] = words(chunk);
            state = multiply(low ^ second, high ^ state);
            rest = after;
        }
        // The last 16 bytes, which can overlap those before them. A shorter name is two words that
        // overlap, or one of three bytes.
        let [low, high] = if let Some(last) = name.last_chunk() {
            words(last)
        } else if let (Some(start), Some(end)) = (name.first_chunk(), name.last_chunk()) {
            [u64::from_le_bytes(*start), u64::from_le_bytes(*end)]
        } else if let (Some(start), Some(end)) = (name.first_chunk(), name.last_chunk()) {
            [u32::from_le_bytes(*start).into(), u32::from_le_bytes(*end).into()]
        } else if let [start, .., end] | [start @ end] = name {
            let middle = name.get(name.len() / 2).unwrap_or(start);
            [u32::from_le_bytes([*start, *middle, *end, 0]).into(), 0]
        } else {
            [0, 0]
        };
        let state = multiply(low ^ second, high ^ state);
        self.left(multiply(state ^ third, name.len() as u64 ^ second))
    }

    /// Returns the hash of a name for a [`Table`].
    #[inline]
    pub(crate) fn short(self, name: &[u8]) -> u32 {
        shorten(self.name(name))
    }

    /// Returns the hash of a child by its parent and the hash of its name.
    #[inline]
    pub(super) fn child(self, parent: u32, name: u64) -> u32 {
        let [first, second, _] = self.words;
        shorten(self.left(multiply(name ^ second, u64::from(parent) ^ first)))
    }

    #[cfg(not(test))]
    const fn left(self, hash: u64) -> u64 {
        hash
    }

    #[cfg(test)]
    const fn left(self, hash: u64) -> u64 {
        hash & self.mask
    }
}

fn words(bytes: &[u8; 16]) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, rest @ ..] = *bytes;
    [u64::from_le_bytes([a, b, c, d, e, f, g, h]), u64::from_le_bytes(rest)]
}

const fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

/// Multiplies, and combines the halves of the product.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "takes the halves")]
const fn multiply(one: u64, other: u64) -> u64 {
    let product = one as u128 * other as u128;
    product as u64 ^ (product >> 64) as u64
}

#[expect(clippy::cast_possible_truncation, reason = "takes the lower half")]
const fn shorten(hash: u64) -> u32 {
    hash as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use alloc::string::String;
    use alloc::vec::Vec;

    #[test]
    fn hash_depends_on_each_byte_the_length_and_the_seed() {
        let mut seen = BTreeSet::new();
        for seed in [1, 2, 1 << 64] {
            let key = Key::new(seed);
            for length in 0..70 {
                let name: Vec<u8> = (0..length).collect();
                assert!(seen.insert(key.name(&name)));
                for position in 0..name.len() {
                    let mut other = name.clone();
                    other[position] ^= 0x80;
                    assert!(seen.insert(key.name(&other)), "{length} {position}");
                }
            }
        }
    }

    #[test]
    fn levels_keep_a_name_until_its_last_use_is_released() {
        for key in [Key::new(1), Key::with_mask(1)] {
            let (mut levels, empty) = (Levels::default(), Levels::default().memory());
            let names: Vec<String> = (0..100).map(|length| "x".repeat(length)).collect();
            for _ in 0..2 {
                for (number, name) in (0..).zip(&names) {
                    let name = name.as_bytes();
                    assert_eq!(levels.add(name, key.name(name)), number);
                    assert_eq!(levels.name(number), Some(name));
                }
            }
            for use_of_all in 1..=2 {
                for (number, name) in (0..).zip(&names) {
                    levels.release(number, key.name(name.as_bytes()));
                    let is_known = levels.find(name.as_bytes(), key.name(name.as_bytes()));
                    assert_eq!(is_known.is_some(), use_of_all == 1);
                }
            }
            assert_eq!(levels.long, 0);
            assert!(levels.memory() < empty + 200, "{}", levels.memory());
        }
    }
}
