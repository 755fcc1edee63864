//! The handle of a client.

use crate::driver::Status;
use crate::error::{Ended, PublishError, RequestError, StartError};
use crate::messages::Messages;
use crate::queue::queue;
use crate::shared::Shared;
use crate::{Delivery, Options, Requester};
use mqtt_sansio::codec::{
    Disconnect, Publish, QoS, ReasonCode, SubscribeProperties, Subscription, Text,
    UnsubscribeProperties,
};
use mqtt_sansio::session;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::watch;

/// A client: a connection to a server, which is opened again whenever it is lost.
///
/// Clones are handles of the same client. When the last one is dropped, the client disconnects.
#[derive(Clone, Debug)]
pub struct Client(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    /// How many messages a stream can hold.
    buffer: usize,
    has_store: bool,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close(None);
    }
}

impl Client {
    pub(crate) fn new(shared: Arc<Shared>, buffer: usize, has_store: bool) -> Self {
        Self(Arc::new(Handle { shared, buffer, has_store }))
    }

    /// Connects to the server of a [URL](Options::new), with the options' defaults.
    pub async fn connect(url: &str) -> Result<Self, StartError> {
        Options::new(url)?.connect().await
    }

    /// Publishes a message. Waits while the queue is full, and returns when the message is in it,
    /// or sent; with a [store](Options::store), when it is stored. The [`Delivery`] is the outcome.
    ///
    /// ```no_run
    /// use mqtt_sansio_client::codec::{Publish, QoS};
    /// # async fn example(client: mqtt_sansio_client::Client)
    /// # -> Result<(), Box<dyn std::error::Error>> {
    /// let reading = Publish { qos: QoS::AtLeastOnce, ..Publish::new("room/4", b"21.5") };
    /// let delivery = client.publish(reading).await?; // It is queued.
    /// let answer = delivery.await?; // The server has it.
    /// println!("{answer}");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Messages are sent in the order of the calls. Without a connection they wait for the next
    /// one, also with QoS 0. A queued message that a 5.0 server does not allow then ends with
    /// [`NotAllowed`](crate::DeliveryError::NotAllowed).
    ///
    /// If the call is dropped, the message was not queued; with a store, it can be.
    pub async fn publish(&self, publish: Publish<'_>) -> Result<Delivery, PublishError> {
        let shared = &self.0.shared;
        loop {
            let room = shared.room.notified();
            match shared.publish(&publish) {
                Ok((delivery, number)) => {
                    // There can be room for the next waiting call, too.
                    shared.room.notify_one();
                    if self.0.has_store {
                        let mut stored = shared.stored.subscribe();
                        // This fails only if the client has ended.
                        let _ = stored.wait_for(|stored| *stored >= number).await;
                    }
                    return Ok(delivery);
                }
                Err(PublishError::Refused(session::PublishError::QueueFull)) => room.await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Publishes a message if the queue has room now. Does not wait for a store.
    pub fn try_publish(&self, publish: Publish<'_>) -> Result<Delivery, PublishError> {
        self.0.shared.publish(&publish).map(|(delivery, _)| delivery)
    }

    /// Subscribes to a filter, and waits for the answer of the server. Without a connection, it
    /// first waits for one.
    ///
    /// If the call is dropped, the server can have the subscription. The client discards its
    /// messages, and does not renew it.
    pub async fn subscribe(&self, filter: &str, qos: QoS) -> Result<Messages, RequestError> {
        let subscription = Subscription::new(filter, qos);
        self.subscribe_with(&[subscription], SubscribeProperties::default()).await
    }

    /// Subscribes to several filters with all options and properties. The stream has the messages
    /// of all filters that the server has [granted](Messages::granted). If the server grants none,
    /// the call fails.
    ///
    /// The client adds a Subscription Identifier if there is none and the server supports them, so
    /// that each stream has each message once, even if filters overlap.
    pub async fn subscribe_with(
        &self,
        subscriptions: &[Subscription<'_>],
        properties: SubscribeProperties<'_>,
    ) -> Result<Messages, RequestError> {
        let (sender, receiver) = queue(self.0.buffer);
        let answer = self.0.shared.subscribe(subscriptions, properties, sender)?;
        let granted = answer.await.map_err(|_| RequestError::Closed)??;
        Ok(Messages::new(receiver, granted, None))
    }

    /// Unsubscribes from filters, and waits for the answer of the server. A stream without any
    /// other filter ends after the messages that it already holds.
    ///
    /// Returns the reason code for each filter. There are none before 5.0, or if the server has
    /// lost the session.
    ///
    /// If the call is dropped after its first poll, the streams end all the same, and UNSUBSCRIBE
    /// is sent.
    pub async fn unsubscribe(&self, filters: &[&str]) -> Result<Vec<ReasonCode>, RequestError> {
        let filters: Vec<_> = filters.iter().map(|filter| Text::from(*filter)).collect();
        self.unsubscribe_with(&filters, UnsubscribeProperties::default()).await
    }

    /// Unsubscribes with properties.
    pub async fn unsubscribe_with(
        &self,
        filters: &[Text<'_>],
        properties: UnsubscribeProperties<'_>,
    ) -> Result<Vec<ReasonCode>, RequestError> {
        let answer = self.0.shared.unsubscribe(filters, properties)?;
        answer.await.map_err(|_| RequestError::Closed)?
    }

    /// Returns a helper for requests with responses, which subscribes to the response topic. See
    /// [`Requester`].
    pub async fn requester(&self, response_topic: &str) -> Result<Requester, RequestError> {
        Requester::new(self.clone(), response_topic).await
    }

    /// Authenticates again on the same connection, with the
    /// [authenticator](Options::authenticator). [5.0 §4.12.1]
    ///
    /// If the call is dropped, the exchange continues.
    pub async fn reauthenticate(&self) -> Result<(), RequestError> {
        let answer = self.0.shared.reauthenticate()?;
        answer.await.map_err(|_| RequestError::Closed)?
    }

    /// Waits until each message that was published is sent, and acknowledged if its QoS is 1 or 2;
    /// or until the client is closed.
    pub async fn flush(&self) {
        let shared = &self.0.shared;
        loop {
            let idle = shared.idle.notified();
            let is_closed = matches!(*shared.status.borrow(), Status::Closed(_));
            if is_closed || shared.is_idle() {
                return;
            }
            idle.await;
        }
    }

    /// Ends the client with a DISCONNECT, and waits for the end. [Flush](Self::flush) first if
    /// messages must still be delivered. Messages in flight remain in the
    /// [store](Options::store), if there is one.
    ///
    /// If CONNECT had Clean Start, the session of the server ends, too.
    ///
    /// If the call is dropped after its first poll, the client ends in the background.
    pub async fn disconnect(&self) -> Ended {
        self.0.shared.close(None);
        self.closed().await
    }

    /// Ends the client with this DISCONNECT, and waits for the end.
    pub async fn disconnect_with(&self, disconnect: &Disconnect<'_>) -> Ended {
        self.0.shared.close(Some(disconnect));
        self.closed().await
    }

    /// Waits until the client has ended, and returns the cause.
    pub async fn closed(&self) -> Ended {
        let mut status = self.status();
        let closed = status.wait_for(|status| matches!(status, Status::Closed(_))).await;
        match closed.as_deref() {
            Ok(Status::Closed(ended)) => ended.clone(),
            _ => Ended::Requested,
        }
    }

    /// Returns a receiver of the present status and of its changes.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.0.shared.status.subscribe()
    }

    /// Returns the bytes of MQTT packets that were written to connections so far, to show the
    /// progress of a large message.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.0.shared.written.load(Ordering::Relaxed)
    }

    /// Returns the client identifier of CONNECT, or the one that the server has assigned. Before
    /// that, it is empty.
    #[must_use]
    pub fn client_identifier(&self) -> String {
        self.0.shared.client_identifier()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("status", &self.shared.status.borrow())
            .field("core", &format_args!("{}", self.shared.debug_core()))
            .finish()
    }
}
