//! The periodic work of a node.

use super::{CUT_OFF, LOST, Node, Owned, PAUSE, Peer, Port};
use crate::cluster::engine::{Engine, Head, Notice};
use std::rc::Rc;
use std::time::Duration;
use tokio::task::spawn_local;
use tokio::time::{self, sleep};
use tracing::{info, warn};

/// The time between two looks at the clock, and at what is due.
const TICK: Duration = Duration::from_millis(250);
/// The time between two signs of life.
pub(super) const BEAT: Duration = Duration::from_secs(1);
/// The time in which acknowledged messages get into an entry.
const LAZY: Duration = Duration::from_secs(2);
/// Entries that a tick makes due.
const DUE_AT_ONCE: usize = 500;

impl<E: Engine, P: Port> Node<E, P> {
    /// Gives signs of life, and does what is due, for ever.
    pub(crate) async fn run_clock(self: Rc<Self>) {
        let mut beat_at = time::Instant::now();
        let mut reconcile_at = beat_at + LOST + BEAT;
        let mut ask_at = beat_at;
        loop {
            let now = time::Instant::now();
            if now - self.last_tick.get() > PAUSE {
                warn!("this node stood still: it looks whether its sessions are still its own");
                self.must_verify.set(true);
                self.moved.notify_one();
                // The others were not heard meanwhile.
                for peer in self.state.borrow_mut().peers.values_mut() {
                    peer.seen = now;
                }
            }
            self.last_tick.set(now);
            if now >= beat_at {
                beat_at = now + BEAT;
                let (name, interest) = (self.name.clone(), self.interest.get());
                self.engine.tell(&Notice::Alive { name, interest });
                self.make_due(now);
                self.make_settled();
            }
            let silent = |peer: &&Peer| now - peer.seen > LOST;
            let lost: Vec<u64> = {
                let state = self.state.borrow();
                state.peers.iter().filter(|(_, peer)| silent(peer)).map(|(one, _)| *one).collect()
            };
            for instance in lost {
                self.lose(instance);
                self.must_reconcile.set(true);
            }
            if now >= reconcile_at || (self.must_reconcile.get() && self.started.elapsed() > LOST) {
                self.must_reconcile.set(false);
                reconcile_at = now + 30 * BEAT;
                spawn_local(self.clone().reconcile());
            }
            if now >= ask_at {
                ask_at = now + 2 * BEAT;
                spawn_local(self.clone().ask());
            }
            self.note_health(now);
            sleep(TICK).await;
        }
    }

    fn note_health(&self, now: time::Instant) {
        let waits_since = self.waits_since.get().unwrap_or(now);
        let is_cut_off = now - self.healthy_at.get().min(waits_since) > CUT_OFF;
        if self.is_cut_off.replace(is_cut_off) == is_cut_off {
            return;
        }
        if is_cut_off {
            warn!(
                "nothing can be stored: clients are disconnected, and refused until it is possible"
            );
            self.port.cut_off();
        } else {
            info!("messages can be stored: clients are accepted again");
            self.must_verify.set(true);
            self.moved.notify_one();
        }
    }

    /// Asks the engine for the bounds of the log, which shows whether it works, and writes new
    /// entries of sessions whose position is in the older part.
    async fn ask(self: Rc<Self>) {
        let asked = time::Instant::now();
        let Ok((first, last)) = self.engine.bounds().await else {
            return self.was_silent.set(true);
        };
        let (since, end) = self.end.take().unwrap_or((asked, last));
        if self.position() >= end {
            self.read_since.set(since);
        } else {
            self.end.set(Some((since, end)));
        }
        self.healthy_at.set(time::Instant::now());
        if self.was_silent.take() {
            // Other nodes have possibly asked for sessions in vain, and claimed them.
            self.must_verify.set(true);
            self.moved.notify_one();
        }
        let oldest = first + last.saturating_sub(first) / 4;
        let state = &mut *self.state.borrow_mut();
        let kept = state.owned.iter().filter(|(_, owned)| owned.number.is_some());
        let behind = kept.filter(|(_, owned)| owned.position < oldest && last > first + 1_000);
        state.due.extend(behind.take(DUE_AT_ONCE).map(|(client, _)| client.clone()));
        if !state.due.is_empty() {
            self.moved.notify_one();
        }
    }

    /// Makes entries due for changes that have waited.
    fn make_due(&self, now: time::Instant) {
        let state = &mut *self.state.borrow_mut();
        for _ in 0..DUE_AT_ONCE {
            let is_late = state.lazy.front().is_some_and(|(since, _)| now - *since > LAZY);
            let Some((_, client)) = is_late.then(|| state.lazy.pop_front()).flatten() else {
                break;
            };
            // Another entry can have had the changes.
            if state.owned.get(&client).is_some_and(|owned| !owned.dirty.is_empty()) {
                state.due.insert(client);
            }
        }
        if !state.due.is_empty() {
            self.moved.notify_one();
        }
    }

    /// Makes a settled position due, if this node is the one of all that writes them.
    fn make_settled(&self) {
        let state = &mut *self.state.borrow_mut();
        let is_first = state.peers.keys().all(|peer| self.instance < *peer);
        if is_first && self.is_settled.get() && state.last_message > state.settled {
            state.settles = true;
            self.moved.notify_one();
        }
    }

    /// Claims the sessions of lost nodes, so that their wills are published and they expire. Each
    /// is for the node that has the greatest hash with it.
    async fn reconcile(self: Rc<Self>) {
        let Ok(heads) = self.engine.heads().await else { return self.must_reconcile.set(true) };
        for Head { client, owner, has_ended, sequence } in heads {
            let is_claimed = |owned: &Owned| owner != self.instance && sequence > owned.sequence;
            if self.state.borrow().owned.get(&*client).is_some_and(is_claimed) {
                self.must_verify.set(true);
                self.moved.notify_one();
            }
            if has_ended || self.is_alive(owner) || !self.is_chosen(&client) {
                continue;
            }
            let client: Rc<str> = client.into();
            let lock = self.state.borrow_mut().claims.entry(client.clone()).or_default().clone();
            let _guard = lock.lock().await;
            if self.claim_alone(&client, None, true, &|| true).await.is_err() {
                return self.must_reconcile.set(true);
            }
        }
        let mut state = self.state.borrow_mut();
        state.claims.retain(|_, lock| Rc::strong_count(lock) > 1);
    }
}
