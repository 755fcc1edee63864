//! The store of deadlines, and the clock that never steps back.

use super::action::{ConnectionId, SessionId};
use crate::time::Instant;
use alloc::collections::BTreeSet;

/// The subject of a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Connection(ConnectionId),
    Session(SessionId),
    Will(SessionId),
    /// The figures are to be published.
    Sys,
}

/// Deadlines in their order.
#[derive(Debug, Default)]
pub(super) struct Timers {
    armed: BTreeSet<(Instant, Timer)>,
    latest: Instant,
}

impl Timers {
    /// Returns the time to go by. A clock that steps back stands still until it has caught up.
    pub(super) fn now(&mut self, now: Instant) -> Instant {
        self.latest = self.latest.max(now);
        self.latest
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.armed.first().map(|(at, _)| *at)
    }

    /// Takes the first timer that is due.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Timer> {
        self.next().filter(|at| *at <= now)?;
        self.armed.pop_first().map(|(_, timer)| timer)
    }

    pub(super) fn arm(&mut self, timer: Timer, at: Instant) {
        self.armed.insert((at, timer));
    }

    pub(super) fn disarm(&mut self, timer: Timer, at: Option<Instant>) {
        at.map(|at| self.armed.remove(&(at, timer)));
    }

    /// Arms a timer for `due`, unless it is armed for an earlier time, which `armed` knows.
    ///
    /// The owner looks again when the earlier time comes, so that not every packet moves the timer.
    pub(super) fn advance(&mut self, timer: Timer, armed: &mut Option<Instant>, due: Instant) {
        if armed.is_none_or(|at| due < at) {
            let old = armed.replace(due);
            self.disarm(timer, old);
            self.arm(timer, due);
        }
    }
}
