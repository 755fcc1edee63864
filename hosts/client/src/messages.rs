//! Streams of received messages.

use crate::RequestError;
use crate::core::RequestResult;
use crate::queue::Receiver;
use crate::shared::Shared;
use futures_core::Stream;
use mqtt_sansio::codec::{self, Publish, PublishProperties, QoS, ReasonCode};
use mqtt_sansio::session::{AckToken, AcknowledgeError, Acknowledgement};
use std::collections::VecDeque;
use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use tokio::sync::oneshot;
use tokio::task::consume_budget;

/// The messages of one subscription, also as a [`Stream`]. It ends when the client has ended, after
/// [`Client::unsubscribe`](crate::Client::unsubscribe), and when the server refuses to renew the
/// subscription after it has lost the session.
///
/// A full stream makes the client stop reading from its socket. Nothing else is received then, not
/// even the outcome of a publish. Read the stream in a task of its own, or give it a larger
/// [buffer](crate::Options::buffer). With manual acknowledgement, the Receive Maximum prevents this
/// for QoS 1 and 2.
///
/// Messages that arrive after the stream is dropped are acknowledged and discarded. To lose none of
/// a session that the server keeps, disconnect first.
#[derive(Debug)]
pub struct Messages {
    receiver: Receiver,
    /// The next messages, taken from the queue at once.
    batch: VecDeque<Message>,
    granted: Vec<ReasonCode>,
    /// The answer to SUBSCRIBE that has not arrived yet.
    answer: Option<oneshot::Receiver<RequestResult>>,
}

impl Messages {
    pub(crate) const fn new(
        receiver: Receiver,
        granted: Vec<ReasonCode>,
        answer: Option<oneshot::Receiver<RequestResult>>,
    ) -> Self {
        Self { receiver, batch: VecDeque::new(), granted, answer }
    }

    /// Waits for the next message. If the call is dropped, no message is lost.
    pub async fn recv(&mut self) -> Option<Message> {
        std::future::poll_fn(|context| self.poll_recv(context)).await
    }

    /// Returns the next message if it has already arrived.
    pub fn try_recv(&mut self) -> Option<Message> {
        loop {
            match self.batch.pop_front() {
                Some(message) if message.is_resent() => {}
                None if self.receiver.take(&mut self.batch) => {}
                next => return next,
            }
        }
    }

    /// Returns the answer of the server to each filter: a granted QoS or an error. Empty for a
    /// subscription of [`Options`](crate::Options), which is [answered](Self::answer) later.
    #[must_use]
    pub fn granted(&self) -> &[ReasonCode] {
        &self.granted
    }

    /// Waits for the first answer to a subscription of [`Options`](crate::Options). Only the future
    /// of the first call returns the answer, so it must not be dropped before it is complete.
    pub fn answer(
        &mut self,
    ) -> impl Future<Output = Result<Vec<ReasonCode>, RequestError>> + use<> {
        let answer = self.answer.take();
        async {
            let answer = answer.ok_or(RequestError::Closed)?;
            answer.await.map_err(|_| RequestError::Closed)?
        }
    }

    fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<Message>> {
        loop {
            match self.batch.pop_front() {
                Some(message) if message.is_resent() => {}
                Some(message) => return Poll::Ready(Some(message)),
                None => {
                    // A task that always finds messages must let the others run.
                    ready!(pin!(consume_budget()).poll(context));
                    if !ready!(self.receiver.poll_take(context, &mut self.batch)) {
                        return Poll::Ready(None);
                    }
                }
            }
        }
    }
}

impl Stream for Messages {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Message>> {
        self.poll_recv(context)
    }
}

/// A received message. Clones share its bytes.
#[derive(Clone)]
pub struct Message {
    message: codec::Message,
    dup: bool,
    /// Only if the client acknowledges manually. In a box, because a message is moved often.
    acknowledge: Option<Box<Acknowledge>>,
}

#[derive(Clone)]
pub(crate) struct Acknowledge {
    pub(crate) token: AckToken,
    /// The number of the connection that delivered the message.
    pub(crate) connection: u64,
    pub(crate) shared: Arc<Shared>,
}

impl Message {
    pub(crate) const fn new(
        message: codec::Message,
        dup: bool,
        acknowledge: Option<Box<Acknowledge>>,
    ) -> Self {
        Self { message, dup, acknowledge }
    }

    /// Returns the topic name.
    #[must_use]
    pub fn topic(&self) -> &str {
        self.message.to_publish().topic_name.to_str()
    }

    /// Returns the payload, which can be any bytes.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.message.payload()
    }

    /// Returns the QoS with which the server sent the message.
    #[must_use]
    pub const fn qos(&self) -> QoS {
        self.message.qos()
    }

    /// Whether the message was retained before this client subscribed, or, with Retain As
    /// Published, whether it was published with RETAIN.
    #[must_use]
    pub const fn retain(&self) -> bool {
        self.message.retain()
    }

    /// Whether the server has perhaps sent the message before: the DUP flag.
    #[must_use]
    pub const fn dup(&self) -> bool {
        self.dup
    }

    /// Returns the properties, which are decoded in each call.
    #[must_use]
    pub fn properties(&self) -> PublishProperties<'_> {
        self.message.to_publish().properties
    }

    /// Returns the message as a PUBLISH, to publish it elsewhere for instance.
    #[must_use]
    pub fn to_publish(&self) -> Publish<'_> {
        self.message.to_publish()
    }

    /// Acknowledges the message manually. In 5.0 an error code refuses it.
    ///
    /// Does nothing for QoS 0, and unless the client
    /// [acknowledges manually](crate::Options::manual_acknowledgement). Acknowledgements are sent
    /// in the order in which the messages arrived. [`Stale`](AcknowledgeError::Stale) means that
    /// the connection has ended, and that the server will send the message again.
    pub fn acknowledge<'a>(
        &self,
        acknowledgement: impl Into<Acknowledgement<'a>>,
    ) -> Result<(), AcknowledgeError> {
        let Some(own) = &self.acknowledge else { return Ok(()) };
        own.shared.acknowledge(own.token, acknowledgement.into())
    }

    /// Whether the server resends the message: it was not acknowledged, and its session was resumed
    /// by a later connection.
    fn is_resent(&self) -> bool {
        let own = self.acknowledge.as_ref();
        own.is_some_and(|own| own.connection < own.shared.resumed.load(Ordering::Acquire))
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message.fmt(f)
    }
}
