//! Time as the machines see it: instants that the host passes in. No clock is read here.

use core::fmt;
use core::num::NonZero;
use core::ops::{Add, Sub};
use core::time::Duration;

/// A point in time: milliseconds since an epoch that the host chooses, such as its start.
///
/// Only differences matter, so any clock that does not step back will do. A machine treats a clock
/// that does step back as standing still. All arithmetic saturates at zero and at 2⁶⁴ − 2
/// milliseconds.
///
/// ```
/// use core::time::Duration;
/// use mqtt_sansio::Instant;
///
/// let start = Instant::from_millis(5_000);
/// assert_eq!(start + Duration::from_secs(2), Instant::from_millis(7_000));
/// assert_eq!(start - Duration::from_secs(2), Instant::from_millis(3_000));
/// assert_eq!(start - Duration::from_secs(9), Instant::from_millis(0));
/// assert_eq!(Instant::from_millis(7_000) - start, Duration::from_secs(2));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(
    /// One more than the milliseconds, so that an `Option<Instant>` takes eight bytes.
    NonZero<u64>,
);

impl Instant {
    /// Returns the instant that is the given milliseconds after the epoch. Saturates.
    #[must_use]
    #[inline]
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(NonZero::<u64>::MIN.saturating_add(milliseconds))
    }

    /// Returns the milliseconds since the epoch.
    #[must_use]
    #[inline]
    pub const fn as_millis(self) -> u64 {
        self.0.get() - 1
    }

    /// Returns the instant that is the given seconds later. The intervals of the standard are in
    /// seconds. Saturates.
    #[must_use]
    pub const fn plus_seconds(self, seconds: u32) -> Self {
        Self(self.0.saturating_add(seconds as u64 * 1_000))
    }
}

/// The epoch.
impl Default for Instant {
    fn default() -> Self {
        Self::from_millis(0)
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Instant").field(&self.as_millis()).finish()
    }
}

/// Saturates. A fraction of a millisecond counts as a whole one, so that no deadline comes early.
impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let milliseconds = duration.as_nanos().div_ceil(1_000_000);
        Self(self.0.saturating_add(u64::try_from(milliseconds).unwrap_or(u64::MAX)))
    }
}

/// Saturates. A fraction of a millisecond counts as a whole one.
impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        let milliseconds = duration.as_nanos().div_ceil(1_000_000);
        let milliseconds = u64::try_from(milliseconds).unwrap_or(u64::MAX);
        Self::from_millis(self.as_millis().saturating_sub(milliseconds))
    }
}

/// Returns zero if `earlier` is later.
impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.get().saturating_sub(earlier.0.get()))
    }
}

/// A clock that reads `std::time::Instant`, with its creation as the epoch.
#[cfg(feature = "std")]
#[derive(Clone, Copy, Debug)]
pub struct Clock(std::time::Instant);

#[cfg(feature = "std")]
impl Clock {
    /// Creates a clock whose epoch is now.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "two clocks are not equal, so there is no default one"
    )]
    pub fn new() -> Self {
        Self(std::time::Instant::now())
    }

    /// Returns the present moment, in whole milliseconds.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::from_millis(u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Converts an instant to that of `std`, for the timers of a runtime. An instant that `std`
    /// cannot represent becomes one that is 30 years after the epoch.
    #[must_use]
    pub fn to_std(&self, instant: Instant) -> std::time::Instant {
        let far = Duration::from_secs(30 * 365 * 24 * 60 * 60);
        self.0
            .checked_add(Duration::from_millis(instant.as_millis()))
            .unwrap_or_else(|| self.0 + far)
    }
}
