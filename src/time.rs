//! The clock of the machines: instants that the host passes in. No clock is read here.

use core::ops::{Add, Sub};
use core::time::Duration;

/// A point in time: milliseconds since an epoch that the host chose, such as its start.
///
/// Only differences matter, so any clock that never goes back will do. 64 bits do not wrap.
///
/// ```
/// use core::time::Duration;
/// use mqtt_sansio::Instant;
///
/// let start = Instant::from_millis(5_000);
/// assert_eq!(start + Duration::from_secs(2), Instant::from_millis(7_000));
/// assert_eq!(Instant::from_millis(7_000) - start, Duration::from_secs(2));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The instant that many milliseconds after the epoch.
    #[must_use]
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(milliseconds)
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// This much later, in whole seconds: the unit of the standard's intervals.
    pub(crate) const fn plus_seconds(self, seconds: u32) -> Self {
        Self(self.0.saturating_add(seconds as u64 * 1_000))
    }
}

/// Saturates at the far end; fractions of a millisecond count as a whole one, so that no deadline
/// comes early.
impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let milliseconds = duration.as_nanos().div_ceil(1_000_000);
        Self(self.0.saturating_add(u64::try_from(milliseconds).unwrap_or(u64::MAX)))
    }
}

/// Zero when `earlier` is later.
impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Reads the host's clock for [`Instant`], with the moment of its creation as the epoch.
#[cfg(feature = "std")]
#[derive(Clone, Copy, Debug)]
pub struct Clock(std::time::Instant);

#[cfg(feature = "std")]
impl Clock {
    /// A clock whose epoch is now.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "two clocks are not equal, so there is no default one"
    )]
    pub fn new() -> Self {
        Self(std::time::Instant::now())
    }

    /// The present moment, in whole milliseconds.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant(u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// The moment in terms of `std`, for a runtime's timers.
    #[must_use]
    pub fn to_std(&self, instant: Instant) -> std::time::Instant {
        self.0 + Duration::from_millis(instant.0)
    }
}
