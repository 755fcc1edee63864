//! The transport of one side of a bridge: closed, being opened, or open.

use crate::connection::Transport;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead as _, AsyncWrite as _, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, sleep_until, timeout};

/// The time for the last bytes.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

pub(super) type Opening = Pin<Box<dyn Future<Output = anyhow::Result<Box<dyn Transport>>>>>;

/// The state of a transport.
pub(super) enum Leg {
    /// Closed, until an attempt to open it is due.
    Waiting(Instant),
    Opening(Opening),
    Open(Pipe),
}

/// An event of a transport.
pub(super) enum Progress {
    /// An attempt to open it is due.
    Due,
    Opened(Box<dyn Transport>),
    NotOpened(anyhow::Error),
    /// Bytes were read or written.
    Moved,
    Lost(io::Error),
}

impl Leg {
    /// Waits for progress. A call can be dropped at any time.
    pub(super) async fn next(&mut self, wants_input: bool) -> Progress {
        match self {
            Self::Waiting(until) => {
                sleep_until(*until).await;
                Progress::Due
            }
            Self::Opening(opening) => match opening.await {
                Ok(transport) => Progress::Opened(transport),
                Err(error) => Progress::NotOpened(error),
            },
            Self::Open(pipe) => {
                match poll_fn(|context| pipe.poll_exchange(context, wants_input)).await {
                    Ok(()) => Progress::Moved,
                    Err(error) => Progress::Lost(error),
                }
            }
        }
    }
}

/// An open transport with its buffers.
pub(super) struct Pipe {
    transport: Box<dyn Transport>,
    pub(super) received: Vec<u8>,
    pub(super) output: Vec<u8>,
    /// The bytes of the output that are written.
    written: usize,
    is_unflushed: bool,
}

impl Pipe {
    pub(super) fn new(transport: Box<dyn Transport>) -> Self {
        Self {
            transport,
            received: Vec::new(),
            output: Vec::new(),
            written: 0,
            is_unflushed: false,
        }
    }

    /// Reads and writes what can be read and written. Ready if that is something.
    fn poll_exchange(
        &mut self,
        context: &mut Context<'_>,
        wants_input: bool,
    ) -> Poll<io::Result<()>> {
        let (had_output, before) = (!self.output.is_empty(), self.written);
        let all_is_written = self.poll_write(context)?.is_ready();
        let mut has_moved = if all_is_written { had_output } else { self.written > before };
        if wants_input {
            let mut room = [0; 16 * 1024];
            let mut buffer = ReadBuf::new(&mut room);
            if Pin::new(&mut self.transport).poll_read(context, &mut buffer)?.is_ready() {
                if buffer.filled().is_empty() {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                self.received.extend_from_slice(buffer.filled());
                has_moved = true;
            }
        }
        if has_moved { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Writes some of the output. Ready if all is written.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest @ [_, ..]) = self.output.get(self.written..) {
            let count = ready!(Pin::new(&mut self.transport).poll_write(context, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
            self.is_unflushed = true;
        }
        self.output = Vec::new();
        self.written = 0;
        if self.is_unflushed {
            ready!(Pin::new(&mut self.transport).poll_flush(context))?;
            self.is_unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what is left, and closes the transport.
    pub(super) async fn finish(mut self) {
        let rest = async {
            poll_fn(|context| self.poll_write(context)).await?;
            self.transport.shutdown().await
        };
        let _ = timeout(LAST_OUTPUT, rest).await;
    }
}
