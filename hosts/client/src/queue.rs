//! The queue between the driver and a stream of messages: a deque under a lock. With the bounded
//! channel of tokio, each message takes 216 instructions more to receive, of 1,728.

use crate::Message;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// The end of the client. The stream ends with the last clone.
#[derive(Clone, Debug)]
pub(crate) struct Sender(Arc<Sending>);

#[derive(Debug)]
struct Sending(Arc<Queue>);

/// The end of the stream.
#[derive(Debug)]
pub(crate) struct Receiver(Arc<Queue>);

#[derive(Debug)]
struct Queue {
    /// The most messages with which the client still reads from its socket.
    capacity: usize,
    /// Whether the stream was dropped.
    is_closed: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<Message>,
    /// Whether the client has dropped its end.
    is_ended: bool,
    /// Wakes the task that reads the stream.
    stream: Option<Waker>,
    /// Wakes the driver, which waits for room.
    driver: Option<Waker>,
}

/// Creates the queue of a stream that can hold that many messages.
pub(crate) fn queue(capacity: usize) -> (Sender, Receiver) {
    let (is_closed, state) = (AtomicBool::new(false), Mutex::default());
    let queue = Arc::new(Queue { capacity, is_closed, state });
    (Sender(Arc::new(Sending(queue.clone()))), Receiver(queue))
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the most messages that the stream takes at once: a part of the capacity, so that a
    /// stream holds little more than its capacity.
    fn batch(&self) -> usize {
        (self.capacity / 8).clamp(1, 64)
    }

    /// Whether there is room for a batch, or the stream was dropped. So the driver is not woken for
    /// each message that leaves a full queue.
    fn has_room(&self, state: &State) -> bool {
        state.messages.len() + self.batch() <= self.capacity
            || self.is_closed.load(Ordering::Acquire)
    }
}

impl Sender {
    /// Appends a message. Returns whether there are now more than the stream can hold.
    pub(crate) fn send(&self, message: Message) -> bool {
        let queue = &self.0.0;
        let mut state = queue.lock();
        if queue.is_closed.load(Ordering::Acquire) {
            return false;
        }
        state.messages.push_back(message);
        let is_exceeded = state.messages.len() > queue.capacity;
        if let Some(stream) = state.stream.take() {
            drop(state);
            stream.wake();
        }
        is_exceeded
    }

    /// Whether the stream was dropped.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.0.is_closed.load(Ordering::Acquire)
    }

    /// Whether there is room for a batch, or the stream was dropped.
    pub(crate) fn has_room(&self) -> bool {
        self.0.0.has_room(&self.0.0.lock())
    }

    /// Waits until there is room. A dropped call changes nothing.
    pub(crate) async fn room(&self) {
        std::future::poll_fn(|context| {
            let mut state = self.0.0.lock();
            if self.0.0.has_room(&state) {
                return Poll::Ready(());
            }
            state.driver = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_ended = true;
        let stream = state.stream.take();
        drop(state);
        if let Some(stream) = stream {
            stream.wake();
        }
    }
}

impl Receiver {
    /// Appends the next messages to the batch. Returns whether there were any.
    pub(crate) fn take(&self, batch: &mut VecDeque<Message>) -> bool {
        self.take_from(self.0.lock(), batch)
    }

    /// Waits for messages and appends them to the batch. Returns false at the end of the stream.
    pub(crate) fn poll_take(
        &self,
        context: &mut Context<'_>,
        batch: &mut VecDeque<Message>,
    ) -> Poll<bool> {
        let mut state = self.0.lock();
        if state.messages.is_empty() && !state.is_ended {
            state.stream = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(self.take_from(state, batch))
    }

    fn take_from(&self, mut state: MutexGuard<'_, State>, batch: &mut VecDeque<Message>) -> bool {
        let count = state.messages.len().min(self.0.batch());
        batch.extend(state.messages.drain(..count));
        if self.0.has_room(&state) {
            if let Some(driver) = state.driver.take() {
                drop(state);
                driver.wake();
            }
        }
        count > 0
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.0.is_closed.store(true, Ordering::Release);
        let mut state = self.0.lock();
        // The lock is released before the messages are dropped and the driver is woken.
        let (messages, driver) = (std::mem::take(&mut state.messages), state.driver.take());
        drop(state);
        drop(messages);
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use super::*;
    use crate::Messages;
    use mqtt_sansio::codec::{self, Publish};
    use std::sync::atomic::AtomicU32;
    use std::time::Duration;

    fn message(number: u32) -> Message {
        let payload = number.to_be_bytes();
        Message::new(codec::Message::new(&Publish::new("a", &payload)).unwrap(), false, None)
    }

    fn stream(receiver: Receiver) -> Messages {
        Messages::new(receiver, Vec::new(), None)
    }

    #[tokio::test]
    async fn stream_ends_after_last_message_of_last_sender() {
        let (sender, receiver) = queue(100);
        let mut messages = stream(receiver);
        let other = sender.clone();
        (0..50).for_each(|number| assert!(!sender.send(message(number))));
        drop(sender);
        for number in 0..50_u32 {
            assert_eq!(messages.recv().await.unwrap().payload(), number.to_be_bytes());
        }
        assert!(messages.try_recv().is_none());
        let waiting = tokio::spawn(async move { messages.recv().await.is_none() });
        tokio::task::yield_now().await;
        drop(other);
        assert!(waiting.await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn full_queue_has_room_when_a_batch_was_taken() {
        let (sender, receiver) = queue(80);
        (0..80).for_each(|number| assert!(!sender.send(message(number))));
        assert!(sender.send(message(80)) && !sender.has_room());
        let mut messages = stream(receiver);
        let room = tokio::spawn(async move { sender.room().await });
        tokio::task::yield_now().await;
        // The first call takes ten messages, which is one less than a batch and the excess.
        for _ in 0..10 {
            messages.recv().await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!room.is_finished());
        messages.recv().await.unwrap();
        room.await.unwrap();
    }

    #[tokio::test]
    async fn dropped_stream_has_room_and_discards_messages() {
        let (sender, receiver) = queue(1);
        assert!(!sender.send(message(0)) && sender.send(message(1)));
        let waiting = sender.clone();
        let room = tokio::spawn(async move { waiting.room().await });
        tokio::task::yield_now().await;
        drop(receiver);
        room.await.unwrap();
        assert!(sender.is_closed() && sender.has_room());
        assert!(!sender.send(message(2)) && !sender.send(message(3)));
    }

    #[tokio::test]
    async fn stream_that_has_many_messages_lets_other_tasks_run() {
        let (sender, receiver) = queue(20_000);
        (0..20_000).for_each(|number| assert!(!sender.send(message(number))));
        let turns = Arc::new(AtomicU32::new(0));
        let counter = turns.clone();
        tokio::spawn(async move {
            loop {
                counter.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        let mut messages = stream(receiver);
        for _ in 0..20_000 {
            messages.recv().await.unwrap();
        }
        assert!(turns.load(Ordering::Relaxed) > 0);
    }
}
