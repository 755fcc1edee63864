//! Exchanges that are over, of which the network can still have copies.

use crate::time::Instant;
use alloc::collections::VecDeque;
use core::time::Duration;

/// The most exchanges that are remembered.
const MAXIMUM: usize = 16;

/// The keys of the last exchanges, and when they ended.
#[derive(Debug)]
pub(super) struct Recent<K>(VecDeque<(K, Instant)>);

impl<K> Default for Recent<K> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<K: PartialEq> Recent<K> {
    pub(super) fn add(&mut self, key: K, now: Instant) {
        if self.0.len() >= MAXIMUM {
            self.0.pop_front();
        }
        self.0.push_back((key, now));
    }

    /// Whether an exchange has ended within the window.
    pub(super) fn contains(&self, key: &K, window: Duration, now: Instant) -> bool {
        self.0.iter().any(|(other, at)| other == key && now - *at < window)
    }
}
