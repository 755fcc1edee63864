//! The state that the handles, the streams and the driver of a client share. Each call takes the
//! lock of the [`Core`], and wakes the tasks that can continue because of it. Nothing here waits or
//! does I/O.

use crate::core::{Core, Parts, RequestResult};
use crate::delivery::Delivery;
use crate::driver::Status;
use crate::error::{Ended, PublishError, RequestError};
use crate::queue::Sender;
use crate::store::Records;
use bytes::BytesMut;
use mqtt_sansio::codec::{
    Disconnect, Publish, SubscribeProperties, Subscription, Text, UnsubscribeProperties,
};
use mqtt_sansio::session::{AckToken, AcknowledgeError, Acknowledgement};
use std::io::Cursor;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, oneshot, watch};

/// The state that the handles, the streams and the driver of a client share.
#[derive(Debug)]
pub(crate) struct Shared {
    core: Mutex<Core>,
    /// Wakes the driver, because there is output or the client is closing.
    pub(crate) wake: Notify,
    /// Wakes a publish that waits for room.
    pub(crate) room: Notify,
    /// Wakes the tasks that wait until everything is sent and answered.
    pub(crate) idle: Notify,
    pub(crate) status: watch::Sender<Status>,
    /// The number of messages that are stored.
    pub(crate) stored: watch::Sender<u64>,
    /// The bytes that the transports have accepted.
    pub(crate) written: AtomicU64,
    /// The number of the last connection that has resumed the session.
    pub(crate) resumed: AtomicU64,
}

/// The state that the driver carries from one [step](Shared::step) to the next.
#[derive(Debug, Default)]
pub(crate) struct Link {
    pub(crate) received: BytesMut,
    /// Bytes to write.
    pub(crate) sending: Cursor<Vec<u8>>,
    /// Whether a part of the output was written.
    pub(crate) progressed: bool,
    /// Whether the socket must be read.
    pub(crate) reads: bool,
    pub(crate) deadline: Option<tokio::time::Instant>,
    /// A stream that is full, which stops everything.
    pub(crate) full: Option<Sender>,
}

impl Shared {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            core: Mutex::new(Core::new(parts)),
            wake: Notify::new(),
            room: Notify::new(),
            idle: Notify::new(),
            status: watch::Sender::new(Status::Connecting),
            stored: watch::Sender::new(0),
            written: AtomicU64::new(0),
            resumed: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- for the handles ----

    /// Publishes a message. Returns the number of recorded messages with it, for a store.
    pub(crate) fn publish(&self, publish: &Publish<'_>) -> Result<(Delivery, u64), PublishError> {
        let mut core = self.lock();
        let had_output = core.has_output();
        let delivery = core.publish(publish)?;
        // If there was output before, the driver knows.
        if !had_output {
            self.wake.notify_one();
        }
        Ok((delivery, core.recorded()))
    }

    pub(crate) fn subscribe(
        &self,
        subscriptions: &[Subscription<'_>],
        properties: SubscribeProperties<'_>,
        sender: Sender,
    ) -> Result<oneshot::Receiver<RequestResult>, RequestError> {
        let answer = self.lock().subscribe(subscriptions, properties, sender)?;
        self.wake.notify_one();
        Ok(answer)
    }

    pub(crate) fn unsubscribe(
        &self,
        filters: &[Text<'_>],
        properties: UnsubscribeProperties<'_>,
    ) -> Result<oneshot::Receiver<RequestResult>, RequestError> {
        let answer = self.lock().unsubscribe(filters, properties)?;
        self.wake.notify_one();
        Ok(answer)
    }

    pub(crate) fn acknowledge(
        &self,
        token: AckToken,
        acknowledgement: Acknowledgement<'_>,
    ) -> Result<(), AcknowledgeError> {
        let acknowledged = self.lock().acknowledge(token, acknowledgement);
        self.wake.notify_one();
        acknowledged
    }

    pub(crate) fn reauthenticate(
        &self,
    ) -> Result<oneshot::Receiver<Result<(), RequestError>>, RequestError> {
        let answer = self.lock().reauthenticate()?;
        self.wake.notify_one();
        Ok(answer)
    }

    /// Starts to end the client, with a DISCONNECT if there is a connection.
    pub(crate) fn close(&self, disconnect: Option<&Disconnect<'_>>) {
        self.lock().close(disconnect);
        self.wake.notify_one();
    }

    /// Returns the state of the core for `Debug`.
    pub(crate) fn debug_core(&self) -> String {
        format!("{:?}", *self.lock())
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.lock().is_idle()
    }

    pub(crate) fn client_identifier(&self) -> String {
        self.lock().client_identifier()
    }

    // ---- for the driver ----

    pub(crate) fn is_closing(&self) -> bool {
        self.lock().is_closing()
    }

    /// Starts MQTT on a new transport to that server.
    pub(crate) fn connect(&self, server: &str) -> Result<(), Ended> {
        self.lock().connect(server)
    }

    /// Handles what was received and what is due, and takes the output. Returns the end of the
    /// connection.
    pub(crate) fn step(self: &Arc<Self>, link: &mut Link) -> Option<Ended> {
        let mut core = self.lock();
        let ended = core.step(link, self);
        if core.has_room() {
            self.room.notify_one();
        }
        if core.is_idle() {
            self.idle.notify_waiters();
        }
        ended
    }

    /// Ends the connection because the transport has failed.
    pub(crate) fn connection_lost(self: &Arc<Self>) {
        self.lock().connection_lost(self);
    }

    /// Returns what must be stored, and the number of messages that were recorded so far.
    pub(crate) fn take_records(&self) -> Option<(Records, u64)> {
        self.lock().take_records()
    }

    /// Ends the client, and wakes each task that waits for it.
    pub(crate) fn closed(&self, ended: Ended) {
        self.lock().closed();
        self.status.send_replace(Status::Closed(ended));
        self.room.notify_waiters();
        self.room.notify_one();
        self.idle.notify_waiters();
    }
}
