//! The way of the broker's records to the store.

use crate::host::Host;
use crate::store::{Change, Store};
use mqtt_sansio::broker::Broker;
use std::mem;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::{spawn_blocking, yield_now};
use tokio::time::{sleep, timeout};
use tracing::{error, info};

/// The time before the next attempt to store what could not be stored.
const PAUSE: Duration = Duration::from_secs(1);

/// The time between two looks at a batch that waits for acknowledgements: the least of a timer.
const TICK: Duration = Duration::from_millis(1);

/// The most times that a batch waits. Small ones wait less, because they save less.
const TICKS: usize = 24;

/// The records for which a batch waits one time more.
const RECORDS: usize = 32;

/// The most batches that do not wait after one that waited in vain.
const IMPATIENT: u32 = 64;

/// Whether records wait for the store, and who waits for them.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// The broker has records.
    moved: Notify,
    /// The batch that waits has nothing to wait for.
    settled: Notify,
    /// A batch has ended.
    synced: Notify,
    /// Whether a batch is on its way. Changes only while the broker is locked, so that no record is
    /// overlooked.
    is_open: AtomicBool,
    /// Whether that batch waits for acknowledgements by clients.
    is_waiting: AtomicBool,
    /// The number of batches that have ended.
    ended: AtomicU64,
}

impl Journal {
    /// Wakes the task that stores, if the broker has records and the task has none, or if the task
    /// waits for acknowledgements without need.
    pub(crate) fn look(&self, broker: &mut Broker) {
        if self.is_waiting.load(Ordering::Relaxed) {
            if broker.close_batch().is_none_or(|batch| batch.records == 0) {
                self.settled.notify_waiters();
            }
        } else if broker.wants_journal() && !self.is_open.load(Ordering::Relaxed) {
            self.moved.notify_one();
        }
    }

    /// Notes that a batch is on its way, or that it has ended.
    pub(crate) fn note_batch(&self, is_open: bool) {
        self.is_open.store(is_open, Ordering::Relaxed);
        if !is_open {
            self.ended.fetch_add(1, Ordering::Relaxed);
            self.synced.notify_waiters();
        }
    }
}

#[cfg(feature = "cluster")]
impl Journal {
    /// Waits until the broker has records.
    pub(crate) async fn moved(&self) {
        self.moved.notified().await;
    }
}

impl Host {
    /// Stores the records of the broker for ever. While a batch is synced, the next one gathers.
    pub(crate) async fn run_store(self: Rc<Self>, mut store: Store) {
        let journal = &self.shared.journal;
        // How many batches do not wait, and how many do not after the next one in vain.
        let (mut impatient, mut next) = (0, 1);
        loop {
            // Connections that can be served now have their turn: their records join the batch, and
            // what they acknowledge needs none.
            yield_now().await;
            if impatient > 0 {
                impatient -= 1;
            } else {
                match self.await_acknowledgements().await {
                    None => {}
                    Some(true) => next = 1,
                    Some(false) => {
                        impatient = next;
                        next = (2 * next).min(IMPATIENT);
                    }
                }
            }
            let mut changes: Vec<Change> = Vec::new();
            let (batch, has_more) = self.with_broker(|broker, _| {
                let batch = broker.poll_journal(|record| {
                    changes.push((record.key.to_vec(), record.value.map(<[u8]>::to_vec)));
                });
                journal.note_batch(batch.is_some());
                (batch, broker.wants_journal())
            });
            let Some(batch) = batch else {
                if !has_more {
                    journal.moved.notified().await;
                }
                continue;
            };
            self.shared.counters.lock().stored_records += changes.len() as u64;
            loop {
                let commit = move || {
                    let result = store.commit(&changes);
                    (store, changes, result)
                };
                let result;
                (store, changes, result) = match spawn_blocking(commit).await {
                    Ok(done) => done,
                    Err(error) => {
                        self.shared.counters.lock().store_fails = true;
                        return error!(%error, "the store has failed: nothing is acknowledged");
                    }
                };
                let Err(error) = result else { break };
                if !mem::replace(&mut self.shared.counters.lock().store_fails, true) {
                    let error = format!("{error:#}");
                    error!(error, "cannot store: until it is possible, nothing is acknowledged");
                }
                sleep(PAUSE).await;
            }
            if mem::take(&mut self.shared.counters.lock().store_fails) {
                info!("stored: messages are acknowledged again");
            }
            self.shared.counters.lock().stored_batches += 1;
            self.with_broker(|broker, _| {
                broker.durable(batch);
                journal.note_batch(false);
            });
        }
    }

    /// Lets clients acknowledge messages of the next batch, which then need not be stored. Returns
    /// whether that was of use, if the batch has waited.
    async fn await_acknowledgements(&self) -> Option<bool> {
        let Journal { settled, is_open, is_waiting, .. } = &self.shared.journal;
        let look = || {
            let broker = &mut self.shared.lock().broker;
            let batch = broker.close_batch().filter(|batch| batch.records > 0);
            is_waiting.store(batch.is_some(), Ordering::Relaxed);
            // A batch that is closed is on its way.
            is_open.fetch_or(batch.is_some(), Ordering::Relaxed);
            batch
        };
        let first = look()?;
        let mut left = first.records;
        let most = (first.records / RECORDS).clamp(1, TICKS);
        let enough = |ended: u64, tick| ended as usize * most >= first.records / 2 * tick;
        for tick in 1..=most {
            // Before the look, so that what another thread does in between is noticed.
            let settled = settled.notified();
            if look().is_some() {
                let _ = timeout(TICK, settled).await;
            }
            let batch = look();
            left = batch.map_or(0, |batch| batch.records);
            let ended = batch.map_or(0, |batch| batch.ended - first.ended);
            // At a lower pace, the clients do not reach this batch. Messages before it end first.
            if left == 0 || (tick > 1 && !enough(ended, tick)) {
                break;
            }
        }
        is_waiting.store(false, Ordering::Relaxed);
        Some(left <= first.records / 2)
    }

    /// Waits until the store has synced the records that there are.
    pub(crate) async fn all_synced(&self) {
        let Journal { synced, is_open, ended, .. } = &self.shared.journal;
        let ended = || ended.load(Ordering::Relaxed);
        // One batch can be on its way, without the latest records.
        let is_open = || is_open.load(Ordering::Relaxed);
        let target = ended() + 1 + u64::from(is_open());
        loop {
            // Before the look, so that a sync of another thread in between is noticed.
            let synced = synced.notified();
            let wants_journal = self.shared.lock().broker.wants_journal();
            if ended() >= target || !(is_open() || wants_journal) {
                return;
            }
            synced.await;
        }
    }
}
