//! A queue that most of its owners never use.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::collections::vec_deque::{IntoIter, Iter};

/// A queue that costs its owner a pointer until it is used. The exchange of messages has plain
/// queues, because each step would pay for the box.
#[expect(clippy::box_collection, reason = "an idle connection pays for each field")]
#[derive(Clone, Debug)]
pub(crate) struct RareQueue<T>(Option<Box<VecDeque<T>>>);

impl<T> Default for RareQueue<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> RareQueue<T> {
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.len())
    }

    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    #[inline]
    pub(crate) fn pop_front(&mut self) -> Option<T> {
        let queue = self.0.as_mut()?;
        let value = queue.pop_front();
        if queue.is_empty() {
            self.0 = None;
        }
        value
    }

    pub(crate) fn iter(&self) -> Iter<'_, T> {
        self.0.as_ref().map(|queue| queue.iter()).unwrap_or_default()
    }
}

impl<T> Extend<T> for RareQueue<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, values: I) {
        values.into_iter().for_each(|value| self.0.get_or_insert_default().push_back(value));
    }
}

impl<T> IntoIterator for RareQueue<T> {
    type Item = T;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        self.0.map(|queue| *queue).unwrap_or_default().into_iter()
    }
}
