//! The store of work that is done a piece at a time, so that no call takes long.

use super::action::{ConnectionId, SessionId, SessionNumber};
use super::subscription::Subscriptions;
use crate::session::{Change, Outgoing};
use crate::time::Instant;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// The steps that one call may take, beyond those of the packet at hand. A step is a packet, a copy
/// of a message, a subscription or a retained message that is looked at: about a microsecond at
/// most.
const STEPS: usize = 1_000;

/// The steps of one turn of a task.
const TURN: usize = 200;

/// The tasks behind which new requests wait, so that they cannot grow faster than they are done.
const MANY: usize = 100;

/// Work that goes on at the next timer.
#[derive(Debug)]
pub(super) enum Task {
    /// The rest of a SUBSCRIBE or UNSUBSCRIBE.
    Request(ConnectionId),
    /// A search for the retained messages that a client awaits.
    Retained(ConnectionId),
    /// The end of a connection whose queue was full.
    Overflow(ConnectionId),
    /// A session has ended: its subscriptions are removed.
    Unsubscribe(SessionId, Option<SessionNumber>, Subscriptions),
    /// A stored session has ended: its exchanges are removed from the journal.
    Forget(SessionNumber, Vec<Change>),
    /// A session has ended: other members of its groups receive its messages. [5.0 §4.8.2]
    HandOn(VecDeque<Outgoing>),
}

/// The tasks, and what is left of the steps of this call.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    waiting: VecDeque<Task>,
    steps: usize,
    /// When the first of the tasks was put off.
    since: Option<Instant>,
}

impl Tasks {
    /// Begins a call of the host.
    pub(super) const fn begin(&mut self) {
        self.steps = STEPS;
    }

    /// Takes steps. The last piece of work may take more than there are left.
    pub(super) const fn take(&mut self, steps: usize) {
        self.steps = self.steps.saturating_sub(steps);
    }

    /// Whether steps are left.
    pub(super) const fn may_go_on(&self) -> bool {
        self.steps > 0
    }

    /// Takes out the steps of one turn at most. Unused ones are given back.
    pub(super) fn lend(&mut self) -> usize {
        let turn = self.steps.min(TURN);
        self.steps -= turn;
        turn
    }

    pub(super) const fn give_back(&mut self, steps: usize) {
        self.steps += steps;
    }

    /// Begins the turn of a task. Returns the steps that it cannot use.
    pub(super) fn begin_turn(&mut self) -> usize {
        let rest = self.steps.saturating_sub(TURN);
        self.steps -= rest;
        rest
    }

    /// Whether so much work waits that new requests wait behind it.
    pub(super) fn are_many(&self) -> bool {
        self.waiting.len() > MANY
    }

    /// Puts work off.
    pub(super) fn push(&mut self, task: Task, now: Instant) {
        self.waiting.push_back(task);
        self.since = self.since.or(Some(now));
    }

    /// Returns the messages that are on their way to other members of a group.
    pub(super) fn handed_on(&self) -> impl Iterator<Item = &Outgoing> {
        let messages = |task| {
            let task: &Task = task;
            if let Task::HandOn(messages) = task { Some(messages) } else { None }
        };
        self.waiting.iter().filter_map(messages).flatten()
    }

    pub(super) fn pop(&mut self) -> Option<Task> {
        let task = self.waiting.pop_front();
        if self.waiting.is_empty() {
            self.since = None;
        }
        task
    }

    /// Returns when the next task is due.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.since
    }
}
