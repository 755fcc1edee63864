//! The subscribers of one filter.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::mem;

/// Values by subscriber, in a form that depends on their number: most filters have one subscriber,
/// which needs no block of memory, and with a million of them no step moves all.
#[derive(Clone, Debug, Default)]
pub(super) enum Subscribers<K, V> {
    #[default]
    None,
    One((K, V)),
    /// In order.
    Few(Vec<(K, V)>),
    #[expect(clippy::box_collection, reason = "without the box, each filter would be larger")]
    Many(Box<BTreeMap<K, V>>),
}

/// The number of subscribers up to which a step can move all.
const FEW: usize = 64;

impl<K: Ord, V> Subscribers<K, V> {
    /// Adds or replaces the value of a subscriber. Returns the value that was replaced.
    pub(super) fn insert(&mut self, subscriber: K, value: V) -> Option<V> {
        match self {
            Self::None => *self = Self::One((subscriber, value)),
            Self::One((other, old)) if *other == subscriber => {
                return Some(mem::replace(old, value));
            }
            Self::One(_) => {
                let mut few = Vec::with_capacity(2);
                if let Self::One(one) = mem::take(self) {
                    few.push(one);
                }
                few.push((subscriber, value));
                few.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
                *self = Self::Few(few);
            }
            Self::Few(few) => match few.binary_search_by(|(other, _)| other.cmp(&subscriber)) {
                Ok(position) => {
                    let (_, old) = few.get_mut(position)?;
                    return Some(mem::replace(old, value));
                }
                Err(_) if few.len() >= FEW => {
                    let mut many: BTreeMap<K, V> = mem::take(few).into_iter().collect();
                    many.insert(subscriber, value);
                    *self = Self::Many(Box::new(many));
                }
                Err(position) => {
                    if few.len() == few.capacity() {
                        few.reserve_exact(few.len() / 2 + 1);
                    }
                    few.insert(position, (subscriber, value));
                }
            },
            Self::Many(many) => return many.insert(subscriber, value),
        }
        None
    }

    /// Removes a subscriber. Returns its value.
    pub(super) fn remove(&mut self, subscriber: &K) -> Option<V> {
        match self {
            Self::None => None,
            Self::One((other, _)) if other != subscriber => None,
            Self::One(_) => match mem::take(self) {
                Self::One((_, value)) => Some(value),
                Self::None | Self::Few(_) | Self::Many(_) => None,
            },
            Self::Few(few) => {
                let position = few.binary_search_by(|(other, _)| other.cmp(subscriber)).ok()?;
                let (_, value) = few.remove(position);
                if few.len() == 1 {
                    *self = few.pop().map_or(Self::None, Self::One);
                } else if few.len() < few.capacity() / 2 {
                    few.shrink_to_fit();
                }
                Some(value)
            }
            Self::Many(many) => {
                let value = many.remove(subscriber)?;
                if many.len() <= FEW / 2 {
                    *self = Self::Few(mem::take(&mut **many).into_iter().collect());
                }
                Some(value)
            }
        }
    }
}

impl<K, V> Subscribers<K, V> {
    pub(super) const fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let (one, many) = match self {
            Self::None => (Default::default(), None),
            Self::One(one) => (core::slice::from_ref(one), None),
            Self::Few(few) => (few.as_slice(), None),
            Self::Many(many) => (Default::default(), Some(many)),
        };
        one.iter().map(|(one, value)| (one, value)).chain(many.into_iter().flat_map(|many| &**many))
    }

    /// Returns the number of bytes in blocks of their own. The bytes of a tree are an estimate.
    pub(super) fn memory(&self) -> usize {
        match self {
            Self::None | Self::One(_) => 0,
            Self::Few(few) => few.capacity() * size_of::<(K, V)>(),
            // Nodes are two thirds full.
            Self::Many(many) => {
                size_of::<BTreeMap<K, V>>() + many.len() * size_of::<(K, V)>() * 3 / 2
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn subscribers_agree_with_a_map_in_each_form(
            operations in prop::collection::vec((0..100_u8, any::<u16>(), any::<bool>()), 0..600),
        ) {
            let (mut subscribers, mut model) = (Subscribers::default(), BTreeMap::new());
            // More is added in the first half, and more is removed in the second.
            let half = operations.len() / 2;
            for (number, (subscriber, value, is_rare)) in operations.into_iter().enumerate() {
                if (number < half) != (is_rare && subscriber % 3 == 0) {
                    let replaced = subscribers.insert(subscriber, value);
                    prop_assert_eq!(replaced, model.insert(subscriber, value));
                } else {
                    prop_assert_eq!(subscribers.remove(&subscriber), model.remove(&subscriber));
                }
                prop_assert!(subscribers.iter().eq(model.iter()));
                prop_assert_eq!(subscribers.is_empty(), model.is_empty());
            }
        }
    }
}
