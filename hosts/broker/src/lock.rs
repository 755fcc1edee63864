//! A lock that a panic does not close.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A value that several threads use. After a panic the others go on with it, as the other tasks of
/// one thread do.
#[derive(Debug, Default)]
pub(crate) struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
