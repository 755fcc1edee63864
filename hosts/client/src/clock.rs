//! The time of a client.

use mqtt_sansio::Instant;
use std::time::Duration;

/// The clock of the machine: that of tokio, which a test can pause.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(tokio::time::Instant);

impl Clock {
    /// Creates a clock whose epoch is now.
    pub(crate) fn new() -> Self {
        Self(tokio::time::Instant::now())
    }

    /// Returns the present moment, in whole milliseconds.
    pub(crate) fn now(&self) -> Instant {
        Instant::from_millis(u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Converts an instant to that of a timer, at most 30 years after the epoch.
    pub(crate) fn timer(&self, instant: Instant) -> tokio::time::Instant {
        let far = Duration::from_secs(30 * 365 * 24 * 60 * 60);
        self.0 + Duration::from_millis(instant.as_millis()).min(far)
    }
}
