//! One connection, from its first byte to its last.

use crate::host::{Host, Link};
use mqtt_sansio::Instant;
use mqtt_sansio::broker::{Broker, ConnectionId};
use mqtt_sansio::codec::{Disconnect, ReasonCode};
use std::cell::RefCell;
use std::future::{poll_fn, ready};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{sleep_until, timeout};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tracing::debug;
use zeroize::Zeroize as _;

/// The time for the broker to read what a client sent before it closed the transport.
const LAST_INPUT: Duration = Duration::from_secs(30);

/// The time for a client to take the last bytes.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

/// The other end of a transport.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// The name for the log.
    pub(crate) name: Rc<str>,
    /// The address, if the transport has one.
    pub(crate) address: Option<IpAddr>,
    /// The user name that its certificate proves.
    pub(crate) user: Option<Box<str>>,
    /// The certificate and its issuers, if the listener asks for one.
    pub(crate) certificates: Option<Box<[CertificateDer<'static>]>>,
}

/// Serves a connection to its end.
pub(crate) async fn serve<R, W>(host: Rc<Host>, link: Link, mut reader: R, mut writer: W)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let packet_timeout = link.settings().packet_timeout;
    let (id, waker) = host.open(link);
    let mut connection = Connection {
        host: &host,
        id,
        packet_timeout,
        is_connected: false,
        received: Vec::new(),
        output: Output::default(),
        unfinished_since: None,
    };
    let input_ended = connection.exchange(&waker, &mut reader, &mut writer).await;
    let _ = timeout(LAST_OUTPUT, connection.finish(input_ended, &mut reader, &mut writer)).await;
    host.remove(id);
}

struct Connection<'h> {
    host: &'h Rc<Host>,
    id: ConnectionId,
    packet_timeout: Duration,
    /// Whether the client was accepted. Before that, input can hold a password.
    is_connected: bool,
    /// Input that the broker has not consumed. Most of the time it is empty and takes no memory.
    received: Vec<u8>,
    output: Output,
    /// Since when the packet at hand has been incomplete.
    unfinished_since: Option<Instant>,
}

/// The next steps that a connection can take.
struct Next {
    is_closed: bool,
    wants_input: bool,
    /// The broker would read more of `received`, after others have had their turn.
    has_input: bool,
    /// The broker has more output than fits.
    has_output: bool,
}

impl Connection<'_> {
    /// Carries bytes both ways until the connection has ended. Returns whether the client has ended
    /// the input.
    async fn exchange<R, W>(&mut self, waker: &Notify, reader: &mut R, writer: &mut W) -> bool
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut count = 0;
        let mut last_input = None;
        loop {
            let next = self.step(count, last_input.is_none());
            count = 0;
            let all_is_read = self.received.is_empty() || (next.wants_input && !next.has_input);
            if next.is_closed || (last_input.is_some() && all_is_read) {
                break;
            }
            let has_more = next.has_input || next.has_output;
            if has_more {
                yield_now().await;
            }
            let reads = last_input.is_none() && next.wants_input && !next.has_input;
            tokio::select! {
                read = read(&self.host.buffer, reader), if reads => match read {
                    // Nothing runs between this line and the next step, so the buffer stays as it
                    // is.
                    Ok(length) if length > 0 => count = length,
                    _ => last_input = Some(tokio::time::Instant::now() + LAST_INPUT),
                },
                written = self.output.write(writer), if self.output.is_pending() => {
                    if let Err(error) = written {
                        // The client's last input can still be read.
                        debug!(connection = ?self.id, %error, "output failed");
                        self.output.fail();
                    }
                }
                () = waker.notified() => {}
                () = ready(()), if has_more => {}
                () = until(last_input), if last_input.is_some() => break,
            }
        }
        last_input.is_some()
    }

    /// Gives the broker what was received, and fetches output. The first `count` bytes of the
    /// host's buffer have just arrived.
    fn step(&mut self, count: usize, input_is_open: bool) -> Next {
        let Self { host, id, packet_timeout, is_connected, received, output, unfinished_since } =
            self;
        let id = *id;
        let mut buffer = host.buffer.borrow_mut();
        let arrived = buffer.get_mut(..count).unwrap_or_default();
        host.with_broker(|broker, now| {
            let before = received.len() + count;
            let has_input = feed(broker, id, received, arrived, *is_connected, now);
            *is_connected = *is_connected || broker.client_identifier(id).is_some();
            if received.is_empty() || received.len() < before || !broker.wants_input(id) {
                *unfinished_since = None;
            } else {
                let since = *unfinished_since.get_or_insert(now);
                if now - since > *packet_timeout {
                    let disconnect = Disconnect::new(ReasonCode::KEEP_ALIVE_TIMEOUT);
                    broker.disconnect(id, &disconnect, now);
                }
            }
            let is_closed = broker.is_closed(id);
            let mut has_output = false;
            if !output.is_pending() || is_closed {
                has_output = output.fill(|bytes| broker.transmit(id, now, bytes));
            }
            let wants_input = broker.wants_input(id);
            if !wants_input && input_is_open {
                // This side does not read, so the client is not silent.
                broker.handle_progress(id, now);
            }
            Next { is_closed, wants_input, has_input, has_output }
        })
    }

    /// Writes what is left. Then the client has a moment to read the last packet: its input is
    /// read, so that a reset does not lose that packet.
    async fn finish<R, W>(
        &mut self,
        input_ended: bool,
        reader: &mut R,
        writer: &mut W,
    ) -> io::Result<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            while self.output.is_pending() {
                self.output.write(writer).await?;
            }
            let (id, output) = (self.id, &mut self.output);
            let has_more = self
                .host
                .with_broker(|broker, now| output.fill(|bytes| broker.transmit(id, now, bytes)));
            if !has_more && !self.output.is_pending() {
                break;
            }
        }
        writer.shutdown().await?;
        let mut ignored = [0; 512];
        while !input_ended && reader.read(&mut ignored).await? > 0 {}
        Ok(())
    }
}

async fn until(deadline: Option<tokio::time::Instant>) {
    if let Some(deadline) = deadline {
        sleep_until(deadline).await;
    }
}

/// Reads into a buffer that all connections share, so that an idle connection has none.
async fn read<R: AsyncRead + Unpin>(
    buffer: &RefCell<Box<[u8]>>,
    reader: &mut R,
) -> io::Result<usize> {
    poll_fn(|context| {
        let buffer = &mut *buffer.borrow_mut();
        let mut buffer = ReadBuf::new(buffer);
        let read = Pin::new(&mut *reader).poll_read(context, &mut buffer);
        read.map_ok(|()| buffer.filled().len())
    })
    .await
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

/// Output that is written piece by piece.
#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    start: usize,
    /// A transport can hold back what it has taken.
    is_unflushed: bool,
    has_failed: bool,
}

impl Output {
    fn is_pending(&self) -> bool {
        self.start < self.bytes.len() || self.is_unflushed
    }

    /// Adds output. Returns what `fetch` returns: whether there is more.
    fn fill(&mut self, fetch: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
        let has_more = fetch(&mut self.bytes);
        if self.has_failed {
            self.bytes.clear();
        }
        has_more
    }

    /// Writes some of the output. If this future is dropped, the next one goes on where it was.
    async fn write<W: AsyncWrite + Unpin>(&mut self, writer: &mut W) -> io::Result<()> {
        if let Some(unwritten @ [_, ..]) = self.bytes.get(self.start..) {
            let count = writer.write(unwritten).await?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.start += count;
            self.is_unflushed = true;
        }
        if self.start == self.bytes.len() {
            self.start = 0;
            self.bytes.clear();
            // Neither a large message nor an idle connection keeps much memory.
            self.bytes.shrink_to(1024);
            writer.flush().await?;
            self.is_unflushed = false;
        }
        Ok(())
    }

    /// Discards this output and all that follows.
    fn fail(&mut self) {
        *self = Self { has_failed: true, ..Self::default() };
    }
}
