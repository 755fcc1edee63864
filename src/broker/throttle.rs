//! How fast a client may publish.

use crate::time::Instant;
use core::num::NonZeroU32;
use core::time::Duration;

/// How much a client may publish in each second. The default is no limit.
///
/// The broker reads no further input of a client that exceeds its rates, until their average is
/// kept again. So nothing is lost, and the client is slowed down by its transport. A client that
/// was slow before can send the amount of one second at once.
#[expect(clippy::exhaustive_structs, reason = "all fields are the host's to choose")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// The most messages in each second.
    pub messages_per_second: Option<NonZeroU32>,
    /// The most bytes of PUBLISH packets in each second.
    pub bytes_per_second: Option<NonZeroU32>,
}

/// The remaining amounts of a client's rates.
#[derive(Debug)]
pub(super) struct Throttle {
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
    /// The client must wait until then.
    pub(super) paused_until: Option<Instant>,
}

impl Throttle {
    pub(super) fn new(rates: Rates, now: Instant) -> Option<Self> {
        let Rates { messages_per_second: messages, bytes_per_second: bytes } = rates;
        let bucket = |rate| Bucket { rate, level: u64::from(rate.get()) * SCALE, at: now };
        (messages.is_some() || bytes.is_some()).then(|| Self {
            messages: messages.map(bucket),
            bytes: bytes.map(bucket),
            paused_until: None,
        })
    }

    /// Counts a message. If it exceeds a rate, the client is paused.
    pub(super) fn count(&mut self, size: usize, now: Instant) {
        let messages = self.messages.as_mut().and_then(|bucket| bucket.take(1, now));
        let size = u64::try_from(size).unwrap_or(u64::MAX);
        let bytes = self.bytes.as_mut().and_then(|bucket| bucket.take(size, now));
        self.paused_until = self.paused_until.max(messages).max(bytes);
    }
}

/// The amount of one second, which is refilled all the time. [`take`](Self::take) can overdraw it.
#[derive(Debug)]
struct Bucket {
    rate: NonZeroU32,
    /// The amount that is left, in thousandths. Negative amounts are waited for at once, so there
    /// are none.
    level: u64,
    at: Instant,
}

/// A rate of one in each second refills so much in each millisecond.
const SCALE: u64 = 1_000;

impl Bucket {
    /// Takes an amount. Returns when the client may go on, if there is not so much left.
    fn take(&mut self, amount: u64, now: Instant) -> Option<Instant> {
        let rate = u64::from(self.rate.get());
        let milliseconds = now.as_millis().saturating_sub(self.at.as_millis());
        let refilled = self.level.saturating_add(milliseconds.saturating_mul(rate));
        let level = refilled.min(rate * SCALE);
        self.at = self.at.max(now);
        match level.checked_sub(amount.saturating_mul(SCALE)) {
            Some(left) => {
                self.level = left;
                None
            }
            None => {
                let missing = amount.saturating_mul(SCALE) - level;
                self.level = 0;
                // Until then the missing amount is refilled, and used up.
                self.at = now + Duration::from_millis(missing.div_ceil(rate));
                Some(self.at)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn average_rate_is_kept_after_a_burst() {
        let at = Instant::from_millis;
        let rates = Rates { messages_per_second: NonZeroU32::new(10), ..Rates::default() };
        let mut throttle = Throttle::new(rates, at(0)).unwrap();
        let mut now = 0;
        for sent in 1..=1_000 {
            throttle.count(100, at(now));
            now = throttle.paused_until.map_or(now, |until| until.as_millis().max(now));
            assert!(sent <= 10 + 10 * now / 1_000, "{sent} messages until {now} ms");
        }
        assert!((98_000..=100_000).contains(&now), "990 messages at 10 a second take {now} ms");
    }

    #[test]
    fn large_message_is_sent_and_waited_for() {
        let rates = Rates { bytes_per_second: NonZeroU32::new(1_000), ..Rates::default() };
        let mut throttle = Throttle::new(rates, Instant::from_millis(0)).unwrap();
        throttle.count(5_000, Instant::from_millis(0));
        assert_eq!(throttle.paused_until, Some(Instant::from_millis(4_000)));
        assert!(Throttle::new(Rates::default(), Instant::from_millis(0)).is_none());
    }
}
