//! One connection, from its first byte to its last.

use crate::host::{Host, Link, State};
use mqtt_sansio::Instant;
use mqtt_sansio::broker::{Broker, ConnectionId};
use mqtt_sansio::codec::{Disconnect, ReasonCode};
use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{self, Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::yield_now;
use tokio::time::{Sleep, sleep, timeout};
use tracing::debug;
use zeroize::Zeroize as _;

/// The time for the broker to read what a client sent before it closed the transport.
const LAST_INPUT: Duration = Duration::from_secs(30);

/// The time for a client to take the last bytes.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

/// The bytes of input after which other threads have their turn. With 16 KiB, two threads took 0.7
/// to 0.9 µs for a message of 256 bytes that takes one thread 0.4.
const INPUT_OF_A_TURN: usize = 64 * 1024;

/// A stream of bytes both ways.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Transport for T {}

/// Serves a connection to its end.
pub(crate) fn serve<T: Transport>(
    host: Rc<Host>,
    link: Box<Link>,
    transport: T,
) -> impl Future<Output = ()> {
    let id = host.open(link);
    let mut connection = Connection {
        host,
        transport,
        id,
        is_connected: false,
        received: Vec::new(),
        output: Output::default(),
        reads: false,
        input_ended: false,
        unfinished_since: None,
        deadline: None,
        unturned: 0,
        others: None,
    };
    // Not an async function, because the future of one has room for its argument twice.
    async move {
        // A task has one waker for all its life.
        poll_fn(|context| {
            connection.host.set_waker(connection.id, context.waker());
            Poll::Ready(())
        })
        .await;
        poll_fn(|context| connection.poll_exchange(context)).await;
        // In a box, because idle connections need no room for it.
        let _ = Box::pin(timeout(LAST_OUTPUT, connection.finish())).await;
        let Connection { host, id, transport, .. } = connection;
        drop(transport);
        host.remove(id);
    }
}

/// A connection. Idle ones are many, so each field counts.
struct Connection<T> {
    host: Rc<Host>,
    transport: T,
    id: ConnectionId,
    /// Whether the client was accepted. Before that, input can hold a password.
    is_connected: bool,
    /// Input that the broker has not consumed. Most of the time it is empty and takes no memory.
    received: Vec<u8>,
    output: Output,
    /// Whether the broker wanted input at the last step.
    reads: bool,
    input_ended: bool,
    /// Since when the packet at hand has been incomplete.
    unfinished_since: Option<Instant>,
    /// When to look whether a packet is late, or, at the end of input, when to read no further.
    deadline: Option<Pin<Box<Sleep>>>,
    /// The bytes of input since other threads had written all, or had their turn.
    unturned: usize,
    /// Other threads have their turn: they write what was read here, before more is read.
    others: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

/// The next steps that a connection can take.
struct Next {
    is_closed: bool,
    wants_input: bool,
    /// The broker would read more of `received`, after others have had their turn.
    has_input: bool,
    /// The broker has more output than fits.
    has_output: bool,
    /// There is output to write.
    has_pending: bool,
    /// The output that is pending is older than what the broker has now.
    is_behind: bool,
}

impl<T: Transport> Connection<T> {
    /// Carries bytes both ways until the connection has ended. The task is woken when the transport
    /// or the broker can go on.
    fn poll_exchange(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(others) = &mut self.others {
            task::ready!(others.as_mut().poll(context));
            self.others = None;
        }
        // The broker can have woken the task.
        let mut is_due = true;
        loop {
            // Before the step, so that one step is enough for what has arrived.
            let count = self.poll_input(context);
            is_due = is_due || count.is_none_or(|count| count > 0);
            if !is_due && !self.poll_deadline(context) {
                return Poll::Pending;
            }
            let count = count.unwrap_or_default();
            if self.unturned + count >= INPUT_OF_A_TURN && self.host.others_behind().is_empty() {
                // They have written all that was read before.
                self.unturned = 0;
            }
            self.unturned += count;
            let next = self.step(count);
            self.reads = next.wants_input && !next.has_input;
            let all_is_read = self.received.is_empty() || self.reads;
            if next.is_closed || (self.input_ended && all_is_read) {
                return Poll::Ready(());
            }
            let is_turn = next.has_input || self.unturned >= INPUT_OF_A_TURN;
            is_due = false;
            if self.output.is_pending() {
                if let Poll::Ready(written) = self.poll_write(context) {
                    if let Err(error) = written {
                        // The client's last input can still be read.
                        debug!(connection = ?self.id, %error, "output failed");
                        self.output.fail();
                    }
                    is_due = next.is_behind || self.output.is_pending();
                }
            }
            if is_turn {
                self.unturned = 0;
                if let Some(mut others) = self.host.turn_of_others() {
                    if others.as_mut().poll(context).is_pending() {
                        self.others = Some(others);
                        return Poll::Pending;
                    }
                }
            }
            if next.has_input || next.has_output {
                // Others have their turn, also those whose input has just arrived.
                let _ = pin!(yield_now()).poll(context);
                return Poll::Pending;
            }
        }
    }

    /// Reads input into the host's buffer, if the broker wants some. Returns how much has arrived,
    /// or `None` at the end of input. The next step must follow at once, because all connections
    /// share the buffer.
    fn poll_input(&mut self, context: &mut Context<'_>) -> Option<usize> {
        if !self.reads || self.input_ended {
            return Some(0);
        }
        match self.poll_read(context) {
            Poll::Ready(Ok(count @ 1..)) => Some(count),
            Poll::Ready(_) => {
                self.input_ended = true;
                self.deadline = Some(Box::pin(sleep(LAST_INPUT)));
                None
            }
            Poll::Pending => Some(0),
        }
    }

    /// Gives the broker what was received, and fetches output. The first `count` bytes of the
    /// host's buffer have just arrived.
    fn step(&mut self, mut count: usize) -> Next {
        let (id, host) = (self.id, self.host.clone());
        let call = |state: &mut State, now| {
            let mut buffer = host.buffer.borrow_mut();
            let arrived = buffer.get_mut(..mem::take(&mut count)).unwrap_or_default();
            self.step_once(arrived, state, now)
        };
        // The host can have answered a question of the broker meanwhile.
        host.with_state_for(id, call, |broker, next| {
            broker.is_closed(id) == next.is_closed
                && broker.wants_input(id) == next.wants_input
                && (next.has_pending || next.has_output || !broker.wants_transmit(id))
        })
    }

    fn step_once(&mut self, arrived: &mut [u8], state: &mut State, now: Instant) -> Next {
        let Self { id, received, output, .. } = self;
        let id = *id;
        let State { broker, .. } = state;
        let before = received.len() + arrived.len();
        let has_input = feed(broker, id, received, arrived, self.is_connected, now);
        self.is_connected = self.is_connected || broker.client_identifier(id).is_some();
        if received.is_empty() || received.len() < before || !broker.wants_input(id) {
            self.unfinished_since = None;
        } else {
            let since = *self.unfinished_since.get_or_insert(now);
            if now - since >= state.packet_timeout(id) {
                let disconnect = Disconnect::new(ReasonCode::KEEP_ALIVE_TIMEOUT);
                state.broker.disconnect(id, &disconnect, now);
            }
        }
        let State { broker, .. } = state;
        let is_closed = broker.is_closed(id);
        let mut has_output = false;
        let is_behind = output.is_pending();
        if !is_behind || is_closed {
            has_output = output.fill(&self.host.spare, |bytes| broker.transmit(id, now, bytes));
        }
        let has_pending = output.is_pending();
        let wants_input = broker.wants_input(id);
        if !wants_input && !self.input_ended {
            // This side does not read, so the client is not silent.
            broker.handle_progress(id, now);
        }
        Next { is_closed, wants_input, has_input, has_output, has_pending, is_behind }
    }

    /// Whether the deadline has come.
    fn poll_deadline(&mut self, context: &mut Context<'_>) -> bool {
        if let (Some(since), None) = (self.unfinished_since, &self.deadline) {
            let timeout = self.host.shared.lock().packet_timeout(self.id);
            let left = timeout.saturating_sub(self.host.now() - since);
            // Kept until it comes, because the next packet can be unfinished as well.
            self.deadline = Some(Box::pin(sleep(left)));
        }
        let Some(deadline) = &mut self.deadline else { return false };
        let has_come = deadline.as_mut().poll(context).is_ready();
        if has_come {
            self.deadline = None;
            if self.input_ended {
                self.received.clear();
            }
        }
        has_come
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.output.poll_write(context, &self.host.spare, Pin::new(&mut self.transport))
    }

    /// Reads into a buffer that all connections share, so that an idle connection has none.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let buffer = &mut *self.host.buffer.borrow_mut();
        let mut buffer = ReadBuf::new(buffer);
        let read = Pin::new(&mut self.transport).poll_read(context, &mut buffer);
        read.map_ok(|()| buffer.filled().len())
    }

    /// Writes what is left. Then the client has a moment to read the last packet: its input is
    /// read, so that a reset does not lose that packet.
    async fn finish(&mut self) -> io::Result<()> {
        // Acknowledgements can wait for the store.
        self.host.all_synced().await;
        loop {
            while self.output.is_pending() {
                poll_fn(|context| self.poll_write(context)).await?;
            }
            let Self { host, id, output, .. } = self;
            let has_more = host.with_broker(|broker, now| {
                output.fill(&host.spare, |bytes| broker.transmit(*id, now, bytes))
            });
            if !has_more && !self.output.is_pending() {
                break;
            }
        }
        poll_fn(|context| Pin::new(&mut self.transport).poll_shutdown(context)).await?;
        while !self.input_ended && poll_fn(|context| self.poll_read(context)).await? > 0 {}
        Ok(())
    }
}

/// Gives the broker what was received before and what has arrived now, as far as it wants input,
/// and keeps the rest. Overwrites what can hold a password. Returns whether the broker would read
/// more after others have had their turn.
fn feed(
    broker: &mut Broker,
    id: ConnectionId,
    received: &mut Vec<u8>,
    arrived: &mut [u8],
    is_connected: bool,
    now: Instant,
) -> bool {
    if received.is_empty() {
        if arrived.is_empty() {
            return false;
        }
        let mut input = &*arrived;
        let has_more = broker.handle_input(id, &mut input, now);
        received.extend_from_slice(input);
        if !is_connected {
            arrived.zeroize();
        }
        return has_more;
    }
    received.extend_from_slice(arrived);
    let mut input = received.as_slice();
    let has_more = broker.handle_input(id, &mut input, now);
    let consumed = received.len() - input.len();
    if !is_connected {
        arrived.zeroize();
        received.get_mut(..consumed).unwrap_or_default().zeroize();
    }
    received.drain(..consumed);
    if received.is_empty() {
        *received = Vec::new();
    }
    has_more
}

/// Output that is written piece by piece. It has a buffer only while it has bytes: idle connections
/// take no memory for it.
#[derive(Default)]
struct Output {
    buffer: Option<Box<Buffer>>,
    /// A transport can hold back what it has taken.
    is_unflushed: bool,
    has_failed: bool,
}

/// The bytes of an output.
#[derive(Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    /// The bytes that are written already.
    start: usize,
}

/// A buffer for the next output of any connection.
pub(crate) type Spare = Cell<Option<Box<Buffer>>>;

/// The most bytes of a buffer that is kept for the next output.
const SPARE: usize = 128 * 1024;

impl Output {
    const fn is_pending(&self) -> bool {
        self.buffer.is_some() || self.is_unflushed
    }

    /// Adds output. Returns what `fetch` returns: whether there is more.
    fn fill(&mut self, spare: &Spare, fetch: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
        let mut buffer = self.buffer.take().or_else(|| spare.take()).unwrap_or_default();
        let has_more = fetch(&mut buffer.bytes);
        if self.has_failed || buffer.bytes.is_empty() {
            free(buffer, spare);
        } else {
            self.buffer = Some(buffer);
        }
        has_more
    }

    /// Writes some of the output.
    fn poll_write<T: Transport>(
        &mut self,
        context: &mut Context<'_>,
        spare: &Spare,
        mut transport: Pin<&mut T>,
    ) -> Poll<io::Result<()>> {
        if let Some(Buffer { bytes, start }) = self.buffer.as_deref_mut() {
            let unwritten = bytes.get(*start..).unwrap_or_default();
            let count = task::ready!(transport.as_mut().poll_write(context, unwritten))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *start += count;
            self.is_unflushed = true;
            if *start < bytes.len() {
                return Poll::Ready(Ok(()));
            }
            self.buffer.take().into_iter().for_each(|buffer| free(buffer, spare));
        }
        task::ready!(transport.poll_flush(context))?;
        self.is_unflushed = false;
        Poll::Ready(Ok(()))
    }

    /// Discards this output and all that follows.
    fn fail(&mut self) {
        *self = Self { has_failed: true, ..Self::default() };
    }
}

fn free(mut buffer: Box<Buffer>, spare: &Spare) {
    buffer.start = 0;
    buffer.bytes.clear();
    buffer.bytes.shrink_to(SPARE);
    spare.set(Some(buffer));
}
