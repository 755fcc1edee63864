//! Slows down addresses from which wrong passwords come.

use mqtt_sansio_sn_gateway::network;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The wrong passwords that an address can send before it is slowed down.
const FREE: u32 = 5;
/// The time between two attempts of a slow address.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest time that an attempt waits. If others wait for longer already, it is refused.
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// The time after which the failures of an address are forgotten.
const MEMORY: Duration = Duration::from_secs(300);
/// The most addresses that are remembered.
const MOST: usize = 1024;

/// The addresses with recent failures.
#[derive(Debug, Default)]
pub(crate) struct Failures(HashMap<IpAddr, Recent>);

#[derive(Debug)]
struct Recent {
    count: u32,
    last: Instant,
    /// When the next attempt can be made.
    next: Instant,
}

impl Failures {
    /// Returns how long an attempt must wait, or `None` if it is refused at once.
    pub(crate) fn attempt(&mut self, address: IpAddr, now: Instant) -> Option<Duration> {
        let Some(recent) = self.0.get_mut(&network(address)) else { return Some(Duration::ZERO) };
        if recent.count < FREE || now - recent.last > MEMORY {
            return Some(Duration::ZERO);
        }
        let start = recent.next.max(now);
        let wait = start - now;
        if wait > LONGEST_WAIT {
            return None;
        }
        recent.next = start + PAUSE;
        Some(wait)
    }

    /// Counts a wrong password.
    pub(crate) fn record(&mut self, address: IpAddr, now: Instant) {
        let key = network(address);
        if self.0.len() >= MOST && !self.0.contains_key(&key) {
            self.0.retain(|_, recent| now - recent.last <= MEMORY);
            let oldest = self.0.iter().min_by_key(|(_, recent)| recent.last);
            if let Some(oldest) = oldest.filter(|_| self.0.len() >= MOST).map(|(key, _)| *key) {
                self.0.remove(&oldest);
            }
        }
        let new = Recent { count: 0, last: now, next: now };
        let recent = self.0.entry(key).or_insert(new);
        if now - recent.last > MEMORY {
            recent.count = 0;
        }
        recent.count = recent.count.saturating_add(1);
        recent.last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_failures_slow_down_one_address() {
        let mut failures = Failures::default();
        let (here, there) = (IpAddr::from([1, 2, 3, 4]), IpAddr::from([5, 6, 7, 8]));
        let now = Instant::now();
        for _ in 0..FREE {
            assert_eq!(failures.attempt(here, now), Some(Duration::ZERO));
            failures.record(here, now);
        }
        for second in 0..=15 {
            assert_eq!(failures.attempt(here, now), Some(Duration::from_secs(second)));
        }
        assert_eq!(failures.attempt(here, now), None);
        assert_eq!(failures.attempt(there, now), Some(Duration::ZERO));
        assert_eq!(failures.attempt(here, now + MEMORY * 2), Some(Duration::ZERO));
    }

    #[test]
    fn number_of_addresses_is_bounded() {
        let mut failures = Failures::default();
        for number in 0..5_000 {
            failures.record(IpAddr::from(u32::to_be_bytes(number)), Instant::now());
        }
        assert_eq!(failures.0.len(), MOST);
    }
}
