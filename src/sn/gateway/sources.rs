//! The sources of datagrams: limits for connecting clients, all of them and those of one source.

use super::config::GatewayConfig;
use crate::time::Instant;
use alloc::collections::BTreeMap;
use core::num::NonZeroU32;
use core::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// The sources of all clients, and of clients that began to connect in the last second.
pub(super) struct Sources<P> {
    /// Returns the peer that stands for the source of a peer.
    pub(super) source: fn(&P) -> P,
    by_peer: BTreeMap<P, Counts>,
    all: Counts,
    swept: Instant,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    clients: usize,
    connecting: usize,
    /// The attempts to connect since `second`.
    attempts: u32,
    second: Instant,
}

impl Counts {
    fn attempts(&self, now: Instant) -> u32 {
        if now - self.second < SECOND { self.attempts } else { 0 }
    }

    fn is_within(&self, connecting: usize, rate: Option<NonZeroU32>, now: Instant) -> bool {
        self.connecting < connecting && rate.is_none_or(|rate| self.attempts(now) < rate.get())
    }

    fn add_attempt(&mut self, now: Instant) {
        self.attempts = self.attempts(now).saturating_add(1);
        if self.attempts == 1 {
            self.second = now;
        }
    }
}

impl<P: Clone + Ord> Sources<P> {
    pub(super) fn new() -> Self {
        let (by_peer, all, swept) = Default::default();
        Self { source: P::clone, by_peer, all, swept }
    }

    /// Whether a client of that peer can begin to connect. Counts the attempt if so. `is_new` says
    /// that the client comes from another address than before.
    pub(super) fn accept(
        &mut self,
        peer: &P,
        is_new: bool,
        config: &GatewayConfig,
        now: Instant,
    ) -> bool {
        let source = (self.source)(peer);
        let known = self.by_peer.get(&source).copied();
        let counts = known.unwrap_or_default();
        let is_accepted = (known.is_some() || self.has_room(config, now))
            && self.all.is_within(config.maximum_connecting, config.maximum_connect_rate, now)
            && counts.is_within(
                config.maximum_connecting_per_source,
                config.maximum_connect_rate_per_source,
                now,
            )
            && (!is_new || counts.clients < config.maximum_per_source);
        if is_accepted {
            self.all.add_attempt(now);
            self.by_peer.entry(source).or_default().add_attempt(now);
        }
        is_accepted
    }

    /// Whether another source can be counted. Forgets those that are idle, at most once a second.
    fn has_room(&mut self, config: &GatewayConfig, now: Instant) -> bool {
        // At most half of the sources have clients. From the others, clients began to connect
        // within the last second.
        let maximum = config.maximum_clients.saturating_mul(2).max(1);
        if self.by_peer.len() >= maximum && now - self.swept >= SECOND {
            self.swept = now;
            self.by_peer.retain(|_, counts| counts.clients > 0 || counts.attempts(now) > 0);
        }
        self.by_peer.len() < maximum
    }

    /// Counts a client that has come to the address of a peer, or has left it.
    pub(super) fn count_client(&mut self, peer: &P, is_connecting: bool, has_come: bool) {
        let counts = self.by_peer.entry((self.source)(peer)).or_default();
        step(&mut counts.clients, has_come);
        if is_connecting {
            step(&mut counts.connecting, has_come);
        }
    }

    /// Counts a client that begins to connect, or no longer does. It has no peer if another client
    /// has connected from its address.
    pub(super) fn count_connecting(&mut self, peer: Option<&P>, is_connecting: bool) {
        step(&mut self.all.connecting, is_connecting);
        if let Some(peer) = peer {
            let counts = self.by_peer.entry((self.source)(peer)).or_default();
            step(&mut counts.connecting, is_connecting);
        }
    }
}

fn step(count: &mut usize, is_up: bool) {
    *count = if is_up { *count + 1 } else { count.saturating_sub(1) };
}
