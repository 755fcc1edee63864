//! The way of the broker's records to the store.

use crate::host::Host;
use crate::store::{Change, Store};
use mqtt_sansio::broker::Broker;
use std::cell::Cell;
use std::mem;
use std::rc::Rc;
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
    is_syncing: Cell<bool>,
}

impl Journal {
    /// Wakes the task that stores, if the broker has records and the task has none.
    pub(crate) fn look(&self, broker: &Broker) {
        if broker.wants_journal() && !self.is_syncing.get() {
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
        self.is_syncing.set(is_open);
        if !is_open {
            self.synced.notify_waiters();
        }
    }
}

impl Host {
    /// Stores the records of the broker for ever. While a batch is synced, the next one gathers.
    pub(crate) async fn run_store(self: Rc<Self>, mut store: Store) {
        let Journal { moved, synced, is_syncing } = &self.journal;
        loop {
            // Connections that can be served now have their turn: their records join the batch, and
            // what they acknowledge needs none.
            yield_now().await;
            let mut changes: Vec<Change> = Vec::new();
            let batch = self.with_broker(|broker, _| {
                broker.poll_journal(|record| {
                    changes.push((record.key.to_vec(), record.value.map(<[u8]>::to_vec)));
                })
            });
            let Some(batch) = batch else {
                is_syncing.set(false);
                synced.notify_waiters();
                moved.notified().await;
                continue;
            };
            is_syncing.set(true);
            self.counters.borrow_mut().stored_records += changes.len() as u64;
            loop {
                let commit = move || {
                    let result = store.commit(&changes);
                    (store, changes, result)
                };
                let result;
                (store, changes, result) = match spawn_blocking(commit).await {
                    Ok(done) => done,
                    Err(error) => {
                        self.counters.borrow_mut().store_fails = true;
                        return error!(%error, "the store has failed: nothing is acknowledged");
                    }
                };
                let Err(error) = result else { break };
                if !mem::replace(&mut self.counters.borrow_mut().store_fails, true) {
                    let error = format!("{error:#}");
                    error!(error, "cannot store: until it is possible, nothing is acknowledged");
                }
                sleep(PAUSE).await;
            }
            if mem::take(&mut self.counters.borrow_mut().store_fails) {
                info!("stored: messages are acknowledged again");
            }
            self.counters.borrow_mut().stored_batches += 1;
            self.with_broker(|broker, _| broker.durable(batch));
            synced.notify_waiters();
        }
    }

    /// Waits until the store has synced the records that there are.
    pub(crate) async fn all_synced(&self) {
        let Journal { synced, is_syncing, .. } = &self.journal;
        let batches = || self.counters.borrow().stored_batches;
        // One batch can be on its way, without the latest records.
        let target = batches() + 1 + u64::from(is_syncing.get());
        while batches() < target && (is_syncing.get() || self.broker().wants_journal()) {
            synced.notified().await;
        }
    }
}
