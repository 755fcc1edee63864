//! The way of the broker's records to the store.

use crate::host::Host;
use crate::store::{Change, Store};
use mqtt_sansio::broker::Broker;
use std::mem;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::{spawn_blocking, yield_now};
use tokio::time::sleep;
use tracing::{error, info};

/// The time before the next attempt to store what could not be stored.
const PAUSE: Duration = Duration::from_secs(1);

/// Whether records wait for the store, and who waits for them.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// The broker has records.
    moved: Notify,
    /// The store has synced records, or has none to sync.
    synced: Notify,
    /// Changes only while the broker is locked, so that no record is overlooked.
    is_syncing: AtomicBool,
}

impl Journal {
    /// Wakes the task that stores, if the broker has records and the task has none.
    pub(crate) fn look(&self, broker: &Broker) {
        if broker.wants_journal() && !self.is_syncing.load(Ordering::Relaxed) {
            self.moved.notify_one();
        }
    }
}

#[cfg(feature = "cluster")]
impl Journal {
    /// Waits until the broker has records.
    pub(crate) async fn moved(&self) {
        self.moved.notified().await;
    }

    /// Notes that a batch is on its way, or that it is stored.
    pub(crate) fn note_batch(&self, is_open: bool) {
        self.is_syncing.store(is_open, Ordering::Relaxed);
        if !is_open {
            self.synced.notify_waiters();
        }
    }
}

impl Host {
    /// Stores the records of the broker for ever. While a batch is synced, the next one gathers.
    pub(crate) async fn run_store(self: Rc<Self>, mut store: Store) {
        let Journal { moved, synced, is_syncing } = &self.shared.journal;
        loop {
            // Connections that can be served now have their turn: their records join the batch, and
            // what they acknowledge needs none.
            yield_now().await;
            let mut changes: Vec<Change> = Vec::new();
            let batch = self.with_broker(|broker, _| {
                let batch = broker.poll_journal(|record| {
                    changes.push((record.key.to_vec(), record.value.map(<[u8]>::to_vec)));
                });
                is_syncing.store(batch.is_some(), Ordering::Relaxed);
                batch
            });
            let Some(batch) = batch else {
                synced.notify_waiters();
                moved.notified().await;
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
            self.with_broker(|broker, _| broker.durable(batch));
            synced.notify_waiters();
        }
    }

    /// Waits until the store has synced the records that there are.
    pub(crate) async fn all_synced(&self) {
        let Journal { synced, is_syncing, .. } = &self.shared.journal;
        let batches = || self.shared.counters.lock().stored_batches;
        // One batch can be on its way, without the latest records.
        let is_syncing = || is_syncing.load(Ordering::Relaxed);
        let target = batches() + 1 + u64::from(is_syncing());
        loop {
            // Before the look, so that a sync of another thread in between is noticed.
            let synced = synced.notified();
            let wants_journal = self.shared.lock().broker.wants_journal();
            if batches() >= target || !(is_syncing() || wants_journal) {
                return;
            }
            synced.await;
        }
    }
}
