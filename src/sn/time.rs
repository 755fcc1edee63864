//! Timers of the specification: retries, and tolerances. [SN §7.2]

use crate::time::Instant;
use core::time::Duration;

/// T_retry and N_retry: when and how often a message that was not answered is sent again.
/// [SN §6.13]
///
/// ```
/// use core::time::Duration;
/// use mqtt_sansio::sn::Retry;
///
/// let retry = Retry { interval: Duration::from_secs(15), ..Retry::new() };
/// assert_eq!(retry.count, 4);
/// ```
#[expect(clippy::exhaustive_structs, reason = "the specification names these two")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// T_retry, recommended as 10 to 15 seconds.
    pub interval: Duration,
    /// N_retry, recommended as 3 to 5.
    pub count: u8,
}

impl Retry {
    /// Returns the default: 10 seconds, 4 times.
    #[must_use]
    pub const fn new() -> Self {
        Self { interval: Duration::from_secs(10), count: 4 }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns when a client that has been silent since `heard` is lost: after 1.1 times the duration
/// if that is longer than a minute, otherwise after 1.5 times. [SN §7.2]
pub(super) fn silence_deadline(heard: Instant, seconds: u16) -> Instant {
    let milliseconds = u64::from(seconds) * if seconds > 60 { 1_100 } else { 1_500 };
    heard + Duration::from_millis(milliseconds)
}
