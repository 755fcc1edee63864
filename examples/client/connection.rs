//! The run loop, which all tasks share.

use crate::options::ConnectOptions;
use anyhow::{Context as _, Result, anyhow, bail};
use bytes::{Buf as _, BytesMut};
use core::iter::from_fn;
use mqtt_sansio::Clock;
use mqtt_sansio::client::{Action, Client, ClientConfig};
use mqtt_sansio::codec::{
    Connect, ConnectProperties, Disconnect, Text, Version, Will, WillProperties,
};
use mqtt_sansio::session::{CloseCause, RequestError, Session};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{Cursor, ErrorKind};
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;
use std::{future, io, mem};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

/// The limit for opening the socket, and for each answer of the server until CONNACK.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// The limit for writing the last packets, and then for the server to close the connection.
pub(crate) const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);
/// The buffer size for one read from the socket or stdin.
pub(crate) const READ_SIZE: usize = 64 * 1024;
/// Bytes that can wait for the socket before the next message is published.
pub(crate) const OUTPUT_LIMIT: usize = 64 * 1024;
/// Messages that can wait for the server's Receive Maximum before the next one is read.
const QUEUE_LIMIT: usize = 1_000;

/// Work to do over the connection.
pub(crate) trait Task {
    /// Handles an action of the client: the server accepted, or a packet arrived.
    fn on_action(&mut self, action: Action<'_>, link: &mut Link) -> Result<()>;

    /// Does all work that needs no waiting. The loop calls it before each wait.
    fn proceed(&mut self, link: &mut Link) -> Result<()>;

    /// Whether the loop must not read from the socket for now.
    fn is_busy(&self, link: &Link) -> bool;

    /// Waits for events other than those of the socket. The loop can drop the call and repeat it
    /// at any time.
    async fn wait(&mut self) -> Result<()>;

    /// Handles a signal. The loop closes the connection afterwards.
    fn interrupt(&mut self);

    /// Completes the work that needs no connection, after the end of the connection.
    async fn finish(&mut self) -> Result<ExitCode>;
}

pub(crate) async fn run(options: &ConnectOptions, mut task: impl Task) -> Result<ExitCode> {
    let mut link = Link::new(options)?;
    let mut socket = open(options).await?;
    let driven = drive(&mut link, &mut task, &mut socket).await;
    // After an error of the task, the client is still connected. Without DISCONNECT the server
    // would publish the will.
    link.disconnect()?;
    if let Err(error) = farewell(&mut link, socket).await {
        log::debug!("closing: {error}");
    }
    // A second signal ends this, too.
    let finished = tokio::select! {
        finished = task.finish() => finished,
        _ = interrupted() => Ok(ExitCode::FAILURE),
    };
    driven.and(finished)
}

pub(crate) async fn open(options: &ConnectOptions) -> Result<TcpStream> {
    let (host, port) = (options.host.as_str(), options.port);
    let opened = timeout(CONNECT_TIMEOUT, TcpStream::connect((host, port))).await;
    let opened = opened.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()));
    let socket = opened.with_context(|| format!("cannot connect to {host} port {port}"))?;
    // The packets of one step are written at once, so Nagle's algorithm would only delay them.
    socket.set_nodelay(true)?;
    log::debug!("connected to {}", socket.peer_addr()?);
    Ok(socket)
}

/// The client with everything that its host provides: a clock and buffers for its output.
pub(crate) struct Link {
    pub(crate) client: Client,
    pub(crate) clock: Clock,
    /// Output of the client. It becomes `sending` when that is written.
    pub(crate) out: Vec<u8>,
    pub(crate) sending: Cursor<Vec<u8>>,
    /// The number of bytes written to the socket.
    pub(crate) sent: u64,
}

impl Link {
    /// Returns a client that has written its CONNECT.
    pub(crate) fn new(options: &ConnectOptions) -> Result<Self> {
        let config =
            ClientConfig::new().manual_acknowledgement(true).connect_timeout(CONNECT_TIMEOUT);
        let config = config.maximum_queued(QUEUE_LIMIT, OUTPUT_LIMIT * 16);
        // This program stores nothing between runs, but the server can have the session of an
        // earlier run.
        let session =
            if options.disable_clean_session { Session::established() } else { Session::new() };
        let mut link = Self {
            client: Client::with_session(config, session),
            clock: Clock::new(),
            out: Vec::new(),
            sending: Cursor::default(),
            sent: 0,
        };
        let id = options.id.clone().unwrap_or_else(generate_id);
        let connect = connect_packet(options, &id)?;
        log::debug!("sending {connect:?}");
        link.client
            .connect(&connect, link.clock.now(), &mut link.out)
            .context("cannot send CONNECT")?;
        Ok(link)
    }

    /// Whether all output of the client has been written.
    pub(crate) fn is_flushed(&self) -> bool {
        self.out.is_empty() && !self.sending.has_remaining()
    }

    /// Returns the bytes to write to the socket next.
    pub(crate) fn output(&mut self) -> &mut Cursor<Vec<u8>> {
        if !self.sending.has_remaining() {
            self.sending.set_position(0);
            self.sending.get_mut().clear();
            mem::swap(&mut self.out, self.sending.get_mut());
        }
        &mut self.sending
    }

    /// Returns the time at which [`Client::handle_timeout`] is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        Some(Instant::from_std(self.clock.to_std(self.client.poll_timeout()?)))
    }

    /// Ends the connection, unless it has ended.
    pub(crate) fn disconnect(&mut self) -> Result<()> {
        match self.client.disconnect(&Disconnect::default(), self.clock.now(), &mut self.out) {
            Ok(()) | Err(RequestError::NotConnected) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Returns a random client identifier of at most 23 characters, the limit of 3.1.
pub(crate) fn generate_id() -> String {
    // The seed of the hasher is the only source of randomness in `std`.
    format!("sansio-{:016x}", RandomState::new().hash_one(std::process::id()))
}

pub(crate) fn connect_packet<'a>(options: &'a ConnectOptions, id: &'a str) -> Result<Connect<'a>> {
    let version = options.protocol_version;
    let keep = options.disable_clean_session.then_some(u32::MAX);
    if options.session_expiry_interval.is_some() && version < Version::V5_0 {
        bail!("a session expiry interval needs MQTT 5.0 (-V 5)");
    }
    let session_expiry_interval =
        options.session_expiry_interval.or(keep).filter(|_| version == Version::V5_0);
    let will = options.will_topic.as_deref().map(|topic| Will {
        qos: options.will_qos,
        retain: options.will_retain,
        topic: topic.into(),
        payload: options.will_payload.as_bytes(),
        properties: WillProperties::default(),
    });
    Ok(Connect {
        clean_start: !options.disable_clean_session,
        keep_alive: options.keepalive,
        will,
        user_name: options.username.as_deref().map(Text::from),
        password: options.pw.as_deref().map(str::as_bytes),
        properties: ConnectProperties { session_expiry_interval, ..ConnectProperties::default() },
        ..Connect::new(version, id)
    })
}

/// Runs the connection to its end, and fails if the program did not request the end.
pub(crate) async fn drive(
    link: &mut Link,
    task: &mut impl Task,
    socket: &mut TcpStream,
) -> Result<()> {
    let (mut reader, mut writer) = socket.split();
    let mut received = BytesMut::new();
    let mut writable = true;
    let mut interrupted = pin!(interrupted());
    let mut is_interrupted = false;
    loop {
        if take_steps(link, task, &mut received)? {
            return Ok(());
        }
        task.proceed(link)?;
        if !link.client.wants_input() {
            // `proceed` disconnected; the next step reports it.
            continue;
        }
        received.reserve(READ_SIZE);
        let reads = !task.is_busy(link);
        if !reads {
            // An answer can be waiting in the socket, because this side does not read.
            link.client.handle_progress(link.clock.now());
        }
        let deadline = link.deadline();
        let output = link.output();
        let writes = writable && output.has_remaining();
        tokio::select! {
            // Reading comes first: after a long wait for stdout, an answer that came in time is
            // read before the deadline is checked.
            biased;
            result = reader.read_buf(&mut received), if reads => match result {
                // The requests that are not answered are reported before the end.
                Ok(0) => return ended(from_fn(|| link.client.connection_lost()).last()),
                Ok(_) => {}
                Err(error) => return Err(anyhow!(error).context("the connection is lost")),
            },
            result = writer.write_buf(output), if writes => match result {
                Ok(bytes) => {
                    link.sent += bytes as u64;
                    // A PINGREQ waits behind a large message.
                    link.client.handle_progress(link.clock.now());
                }
                Err(error) => {
                    // The server can have sent a DISCONNECT with the cause, so reading continues.
                    log::debug!("writing: {error}");
                    writable = false;
                }
            },
            result = task.wait() => result?,
            () = sleep_until_some(deadline) => {
                let now = link.clock.now();
                let last = from_fn(|| link.client.handle_timeout(now, &mut link.out)).last();
                if last.is_some() {
                    return ended(last);
                }
            }
            result = &mut interrupted, if !is_interrupted => {
                result?;
                is_interrupted = true;
                task.interrupt();
                link.disconnect()?;
            }
        }
    }
}

/// Gives received packets to the task. Returns true when the connection has ended as requested.
pub(crate) fn take_steps(
    link: &mut Link,
    task: &mut impl Task,
    received: &mut BytesMut,
) -> Result<bool> {
    let now = link.clock.now();
    let mut input = received.as_ref();
    while !task.is_busy(link) || !link.client.wants_input() {
        match link.client.handle_input(&mut input, now, &mut link.out) {
            None => break,
            Some(action @ Action::Closed(_)) => return ended(Some(action)).map(|()| true),
            Some(action) => task.on_action(action, link)?,
        }
    }
    let taken = received.len() - input.len();
    received.advance(taken);
    Ok(false)
}

/// Turns the last action into a result.
pub(crate) fn ended(action: Option<Action<'_>>) -> Result<()> {
    let Some(Action::Closed(cause)) = action else { return Ok(()) };
    match cause {
        CloseCause::Requested => Ok(()),
        CloseCause::Violation(error) => Err(anyhow::Error::new(error).context(cause.to_string())),
        _ => Err(anyhow!("{cause}")),
    }
}

/// Writes the remaining output, and closes the connection after the server does. If unread input
/// were left, the system would reset the connection, and the server might lose the last packets.
pub(crate) async fn farewell(link: &mut Link, mut socket: TcpStream) -> io::Result<()> {
    let close = async {
        while !link.is_flushed() {
            socket.write_buf(link.output()).await?;
        }
        socket.shutdown().await?;
        tokio::io::copy(&mut socket, &mut tokio::io::sink()).await.map(drop)
    };
    timeout(FAREWELL_TIMEOUT, close).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

/// Waits for SIGINT or SIGTERM.
pub(crate) async fn interrupted() -> io::Result<()> {
    #[cfg(unix)]
    {
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            result = tokio::signal::ctrl_c() => result,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}

pub(crate) async fn sleep_until_some(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => future::pending().await,
    }
}
