//! The clock of the broker.

use mqtt_sansio::{Clock, Instant};
use std::time::{self, Duration, SystemTime};

/// A clock whose epoch is that of Unix, so that the times of stored records hold after a restart.
/// It does not follow later changes of the system's clock.
pub(crate) struct UnixClock {
    clock: Clock,
    /// From the epoch to the start of `clock`.
    offset: Duration,
}

impl UnixClock {
    pub(crate) fn new() -> Self {
        let offset = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { clock: Clock::new(), offset }
    }

    pub(crate) fn now(&self) -> Instant {
        self.clock.now() + self.offset
    }

    /// Converts an instant for the timers of tokio.
    pub(crate) fn to_std(&self, instant: Instant) -> time::Instant {
        // The sum above rounds up to milliseconds, so the difference must not be early.
        self.clock.to_std(instant - self.offset + Duration::from_millis(1))
    }
}
