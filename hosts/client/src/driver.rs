//! The task of a client: opens transports, moves bytes and waits, until the client is closed.

use crate::error::Ended;
use crate::queue::Sender;
use crate::redirection::{Redirection, ServerReference};
use crate::shared::{Link, Shared};
use crate::store::Store;
use crate::transport::Endpoint;
use mqtt_sansio::codec::{OwnedPacket, ReasonCode};
use std::fmt;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};
use tracing::{debug, info, warn};

/// The room for one read from the socket.
const READ_SIZE: usize = 64 * 1024;

/// The time for the last packets, and then for the server to close the connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that lasted this long is no reason to wait longer before the next attempt.
const STABLE: Duration = Duration::from_secs(10);

/// The state of a client.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub enum Status {
    /// The client opens a connection.
    Connecting,
    /// The server has accepted the connection with this CONNACK.
    Connected(OwnedPacket),
    /// The server has referred the client to another server, to which the client opens a
    /// connection.
    Redirected {
        /// The cause of the end of the last connection or attempt.
        cause: Ended,
        /// The server to which the client connects.
        server: ServerReference,
    },
    /// There is no connection, and the next attempt begins after a delay.
    Waiting {
        /// The cause of the end of the last connection or attempt.
        cause: Ended,
        /// The time from the end to the next attempt.
        delay: Duration,
    },
    /// The client has ended.
    Closed(Ended),
}

pub(crate) struct Driver {
    pub(crate) shared: Arc<Shared>,
    pub(crate) endpoint: Endpoint,
    pub(crate) store: Option<Store>,
    /// The first and the longest delay between attempts. With `None` there is only one attempt.
    pub(crate) backoff: Option<(Duration, Duration)>,
    pub(crate) connect_timeout: Duration,
    /// With `None`, Server References are not followed.
    pub(crate) redirection: Option<Redirection>,
}

impl Driver {
    pub(crate) async fn run(mut self) {
        let mut delay = Duration::ZERO;
        let ended = loop {
            let start = Instant::now();
            let cause = self.connection().await;
            if self.shared.is_closing() {
                break cause;
            }
            let is_stable = start.elapsed() > STABLE.max(delay);
            let last = self.endpoint.to_string();
            if let Some(server) = self.redirect(&cause, is_stable) {
                log_end(&cause, format_args!("{last}: {cause}; following to {}", self.endpoint));
                self.shared.status.send_replace(Status::Redirected { cause, server });
                continue;
            }
            let Some((first, longest)) = self.backoff else { break cause };
            delay = if is_stable { first } else { (delay * 2).clamp(first, longest) };
            // Clients that have lost the same server must not come back at the same moment.
            let delay = delay.mul_f64(0.5 + fastrand::f64() / 2.0);
            log_end(&cause, format_args!("{last}: {cause}; next attempt in {delay:.1?}"));
            self.shared.status.send_replace(Status::Waiting { cause: cause.clone(), delay });
            if !self.wait(delay).await {
                break Ended::Requested;
            }
            self.shared.status.send_replace(Status::Connecting);
        };
        if let Err(error) = self.save().await {
            tracing::error!("{error}");
        }
        self.shared.closed(ended);
    }

    /// Sets the server of the next attempt. Returns it if the last one has referred to it.
    fn redirect(&mut self, cause: &Ended, is_stable: bool) -> Option<ServerReference> {
        let was_accepted = matches!(*self.shared.status.borrow(), Status::Connected(_));
        let redirection = self.redirection.as_mut()?;
        redirection.next(&mut self.endpoint, cause, was_accepted, is_stable)
    }

    /// Waits before the next attempt. Returns false if the client was closed.
    async fn wait(&mut self, delay: Duration) -> bool {
        let mut over = pin!(sleep(delay));
        while !self.shared.is_closing() {
            if let Err(error) = self.save().await {
                // The records are stored with the next attempt.
                tracing::error!("{error}");
            }
            let shared = self.shared.clone();
            tokio::select! {
                () = &mut over => return true,
                () = shared.wake.notified() => {}
            }
        }
        false
    }

    /// Runs one connection to its end.
    async fn connection(&mut self) -> Ended {
        let transport = tokio::select! {
            opened = timeout(self.connect_timeout, self.endpoint.open()) => match opened {
                Ok(Ok(transport)) => transport,
                Ok(Err(error)) => return error.into(),
                Err(_) => {
                    let late = "server did not answer in time";
                    return io::Error::new(io::ErrorKind::TimedOut, late).into();
                }
            },
            () = closing(&self.shared, self.store.as_mut()) => return Ended::Requested,
        };
        if let Err(ended) = self.shared.connect(&self.endpoint.to_string()) {
            return ended;
        }
        let (mut reader, mut writer) = tokio::io::split(transport);
        let mut link = Link { reads: true, ..Link::default() };
        let ended = self.drive(&mut link, &mut reader, &mut writer).await;
        // This does nothing if the machine has reported the end.
        self.shared.connection_lost();
        let closed = timeout(CLOSE_TIMEOUT, close(&mut link, &mut reader, &mut writer)).await;
        debug!("closed: {closed:?}");
        ended
    }

    async fn drive(
        &mut self,
        link: &mut Link,
        reader: &mut (impl AsyncRead + Unpin),
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> Ended {
        let shared = self.shared.clone();
        let mut is_flushed = true;
        let mut is_writable = true;
        let mut timer = pin!(sleep_until(Instant::now()));
        loop {
            let ended = shared.step(link);
            if let Err(error) = self.save().await {
                // The output depends on records that are not stored.
                link.sending = io::Cursor::default();
                return error.into();
            }
            if let Some(ended) = ended {
                return ended;
            }
            arm(timer.as_mut(), link.deadline);
            let before = link.sending.position();
            let writes = is_writable && (bytes::Buf::has_remaining(&link.sending) || !is_flushed);
            tokio::select! {
                // Reading comes before the timer: an answer that came in time counts.
                biased;
                result = write(writer, &mut link.sending, &mut is_flushed), if writes => {
                    link.progressed = true;
                    if let Err(error) = result {
                        // A DISCONNECT of the server can still be read.
                        debug!("cannot write: {error}");
                        is_writable = false;
                    }
                }
                result = read(reader, &mut link.received), if link.reads => match result {
                    Ok(0) => {
                        let closed = "server closed the connection";
                        return io::Error::new(io::ErrorKind::UnexpectedEof, closed).into();
                    }
                    Ok(_) => {}
                    Err(error) => return error.into(),
                },
                () = room(&link.full), if link.full.is_some() => {}
                () = shared.wake.notified() => {}
                () = timer.as_mut(), if link.deadline.is_some() => {}
            }
            let written = link.sending.position() - before;
            if written > 0 {
                shared.written.fetch_add(written, Ordering::Relaxed);
            }
        }
    }

    async fn save(&mut self) -> io::Result<()> {
        save(&self.shared, self.store.as_mut()).await
    }
}

/// Ends the client also if a function of its user has panicked, or if the runtime was shut down:
/// otherwise its handles would wait for ever.
impl Drop for Driver {
    fn drop(&mut self) {
        let is_closed = matches!(*self.shared.status.borrow(), Status::Closed(_));
        if !is_closed {
            self.shared.closed(io::Error::other("the task of the client was stopped").into());
        }
    }
}

/// Stores the changes of the session. Output that depends on a change is not written before.
/// Logs why a connection has ended. A log that only has warnings has each reference to another
/// server, too.
fn log_end(cause: &Ended, text: fmt::Arguments<'_>) {
    match cause.reason_code() {
        Some(ReasonCode::USE_ANOTHER_SERVER | ReasonCode::SERVER_MOVED) => warn!("{text}"),
        _ => info!("{text}"),
    }
}

async fn save(shared: &Shared, store: Option<&mut Store>) -> io::Result<()> {
    let Some(store) = store else { return Ok(()) };
    if let Some((records, messages)) = shared.take_records() {
        store.save(records).await?;
        shared.stored.send_replace(messages);
    }
    Ok(())
}

/// Stores messages that are published, and completes when the client is closing.
async fn closing(shared: &Shared, mut store: Option<&mut Store>) {
    while !shared.is_closing() {
        if let Err(error) = save(shared, store.as_deref_mut()).await {
            // The records are stored with the next call.
            tracing::error!("{error}");
        }
        shared.wake.notified().await;
    }
}

/// Sets the timer, unless it fires before the deadline anyway: the machine then finds nothing due,
/// and the timer is set again. Otherwise each packet would set the timer.
fn arm(mut timer: Pin<&mut Sleep>, deadline: Option<Instant>) {
    if let Some(deadline) = deadline {
        if timer.is_elapsed() || deadline < timer.deadline() {
            timer.as_mut().reset(deadline);
        }
    }
}

async fn read(
    reader: &mut (impl AsyncRead + Unpin),
    received: &mut bytes::BytesMut,
) -> io::Result<usize> {
    received.reserve(READ_SIZE);
    reader.read_buf(received).await
}

/// Writes a part of the output, and flushes it after the last part. If the call is dropped, the
/// next one continues.
async fn write(
    writer: &mut (impl AsyncWrite + Unpin),
    sending: &mut io::Cursor<Vec<u8>>,
    is_flushed: &mut bool,
) -> io::Result<()> {
    if bytes::Buf::has_remaining(sending) {
        *is_flushed = false;
        writer.write_buf(sending).await?;
    }
    if !bytes::Buf::has_remaining(sending) {
        writer.flush().await?;
        *is_flushed = true;
    }
    Ok(())
}

/// Waits until the stream has room, if it is full.
async fn room(full: &Option<Sender>) {
    if let Some(sender) = full {
        sender.room().await;
    }
}

/// Writes the remaining output, and closes the connection after the server does. If unread input
/// were left, the system would reset the connection, and the server might lose the last packets.
async fn close(
    link: &mut Link,
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    writer.write_all_buf(&mut link.sending).await?;
    writer.shutdown().await?;
    tokio::io::copy(reader, &mut tokio::io::sink()).await.map(drop)
}
