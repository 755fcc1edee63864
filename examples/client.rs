//! Publishes and subscribes from the command line, in the manner of `mosquitto_pub` and `mosquitto_sub`.
//!
//! ```text
//! client pub -t sensors/4 -m 21.5 -q 1
//! client sub -t 'sensors/#' -v
//! ```
//!
//! [`drive`] is the run loop: socket, timers, stdin or stdout and signals in one `select!`. A [`Task`] is what is done over the
//! connection, and [`Link`] is the client with the clock and the buffers that it wants of its host.

#![expect(clippy::std_instead_of_core, reason = "a program has `std`")]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a new kind of action or outcome is logged as any other that is not expected"
)]

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::{Buf as _, BytesMut};
use clap::{ArgAction, Args, Parser, Subcommand};
use mqtt_sansio::Clock;
use mqtt_sansio::client::{Action, Client, ClientConfig};
use mqtt_sansio::codec::{
    Connect, ConnectProperties, Disconnect, Publish, QoS, ReasonCode, Suback, SubscribeProperties, Subscription, Text,
    UnsubscribeProperties, Version, Will, WillProperties,
};
use mqtt_sansio::session::{AckToken, CloseCause, Outcome, PublishError, Published, Received, RequestError, Session};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{Cursor, ErrorKind, IsTerminal as _, Read as _};
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;
use std::{future, io, mem};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

/// How long to wait for the socket to open, and for each answer of the server until it has accepted.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the last packets may take to leave, and then the server to close the connection.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);
/// Room for one read from the socket or stdin.
const READ_SIZE: usize = 64 * 1024;
/// Output that may wait for the socket before the next message is published.
const OUTPUT_LIMIT: usize = 64 * 1024;
/// Output that may wait for stdout, or for a server that does not read its acknowledgements, before the socket is read again.
const PRINT_LIMIT: usize = 1024 * 1024;
/// Messages that may wait for the server's Receive Maximum before the next one is read.
const QUEUE_LIMIT: usize = 1_000;
/// As `mosquitto_sub` says that `-W` is over.
const EXIT_TIMED_OUT: u8 = 27;

#[derive(Parser)]
#[command(about = "Publishes and subscribes over MQTT 3.1, 3.1.1 and 5.0", disable_help_flag = true)]
struct Options {
    #[command(subcommand)]
    command: Command,
    /// Print help
    #[arg(long, global = true, action = ArgAction::HelpLong)]
    help: Option<bool>,
}

#[derive(Subcommand)]
enum Command {
    /// Publish messages
    Pub(PubOptions),
    /// Subscribe to topics and print the messages
    Sub(SubOptions),
}

#[derive(Args)]
struct ConnectOptions {
    /// The server
    #[arg(short, long, default_value = "localhost")]
    host: String,
    /// Its port
    #[arg(short, long, default_value_t = 1883)]
    port: u16,
    /// The client identifier; one is made up if there is none
    #[arg(short, long)]
    id: Option<String>,
    /// mqttv31, mqttv311 or mqttv5; or 31, 311, 5
    #[arg(short = 'V', long, default_value = "5", value_parser = parse_version)]
    protocol_version: Version,
    /// Seconds between packets to the server; 0 is off
    #[arg(short, long, default_value_t = 60)]
    keepalive: u16,
    /// QoS of the messages or subscriptions: 0, 1 or 2
    #[arg(short, long, default_value = "0", value_parser = parse_qos)]
    qos: QoS,
    /// User name
    #[arg(short, long)]
    username: Option<String>,
    /// Password
    #[arg(short = 'P', long)]
    pw: Option<String>,
    /// Keep the session when the connection ends, and go on with one that was kept
    #[arg(short = 'c', long, requires = "id")]
    disable_clean_session: bool,
    /// Seconds that the session outlives the connection, -1 for ever; 5.0 only
    #[arg(short = 'x', long, value_parser = parse_expiry, allow_hyphen_values = true)]
    session_expiry_interval: Option<u32>,
    /// Topic of the message that the server sends if this client dies
    #[arg(long)]
    will_topic: Option<String>,
    /// Its payload
    #[arg(long, requires = "will_topic", default_value = "", hide_default_value = true)]
    will_payload: String,
    /// Its QoS
    #[arg(long, requires = "will_topic", default_value = "0", value_parser = parse_qos)]
    will_qos: QoS,
    /// Whether it is retained
    #[arg(long, requires = "will_topic")]
    will_retain: bool,
    /// Log what happens; RUST_LOG says so more finely
    #[arg(short, long)]
    debug: bool,
}

#[derive(Args)]
struct PubOptions {
    #[command(flatten)]
    connect: ConnectOptions,
    /// The topic to publish to
    #[arg(short, long)]
    topic: String,
    #[command(flatten)]
    payload: PayloadOptions,
    /// Have the server keep the message for later subscribers
    #[arg(short, long)]
    retain: bool,
    /// Publish the message so many times
    #[arg(long, default_value_t = 1, conflicts_with = "stdin_line")]
    repeat: u64,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct PayloadOptions {
    /// The message
    #[arg(short, long, allow_hyphen_values = true)]
    message: Option<String>,
    /// A file that is the message
    #[arg(short, long)]
    file: Option<PathBuf>,
    /// Each line of stdin is a message, but for empty ones
    #[arg(short = 'l', long)]
    stdin_line: bool,
    /// All of stdin is the message
    #[arg(short, long)]
    stdin_file: bool,
    /// A message without payload
    #[arg(short, long)]
    null_message: bool,
}

#[derive(Args)]
struct SubOptions {
    #[command(flatten)]
    connect: ConnectOptions,
    /// A topic filter to subscribe to; can be repeated
    #[arg(short, long, required_unless_present = "unsubscribe")]
    topic: Vec<String>,
    /// A topic filter to unsubscribe from, after those of -t; can be repeated
    #[arg(short = 'U', long)]
    unsubscribe: Vec<String>,
    /// Exit after so many messages
    #[arg(short = 'C', value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Exit with code 27 after so many seconds
    #[arg(short = 'W')]
    seconds: Option<u32>,
    /// Print the topic before the payload
    #[arg(short, long)]
    verbose: bool,
    /// Do not print retained messages, which are stale
    #[arg(short = 'R')]
    no_retained: bool,
    /// Print only retained messages, and exit at the first other one
    #[arg(long, conflicts_with = "no_retained")]
    retained_only: bool,
    /// No newline after the payload
    #[arg(short = 'N')]
    no_newline: bool,
}

fn parse_version(text: &str) -> Result<Version, String> {
    match text.trim_start_matches("mqttv") {
        "31" => Ok(Version::V3_1),
        "311" => Ok(Version::V3_1_1),
        "5" => Ok(Version::V5_0),
        _ => Err("it is none of mqttv31, mqttv311, mqttv5".into()),
    }
}

fn parse_qos(text: &str) -> Result<QoS, String> {
    text.parse().ok().and_then(QoS::from_u8).ok_or_else(|| "it is none of 0, 1, 2".into())
}

fn parse_expiry(text: &str) -> Result<u32, String> {
    if matches!(text, "-1" | "∞") { Ok(u32::MAX) } else { text.parse().map_err(|error| format!("{error}")) }
}

fn main() -> ExitCode {
    let command = Options::parse().command;
    let (Command::Pub(PubOptions { connect, .. }) | Command::Sub(SubOptions { connect, .. })) = &command;
    let filter = if connect.debug { "debug" } else { "warn" };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(filter)).init();
    start(&command, connect).unwrap_or_else(|error| {
        eprintln!("Error: {error:#}");
        ExitCode::FAILURE
    })
}

fn start(command: &Command, connect: &ConnectOptions) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = match command {
        Command::Pub(options) => runtime.block_on(run(connect, Publisher::new(options)?)),
        Command::Sub(options) => runtime.block_on(run(connect, Subscriber::new(options))),
    };
    // A thread that is blocked in a read of stdin would have to be waited for.
    runtime.shutdown_background();
    result
}

/// What is done over the connection.
trait Task {
    /// The connection has been accepted, or something has come by it.
    fn on_action(&mut self, action: Action<'_>, link: &mut Link) -> Result<()>;

    /// Does what can be done without waiting; called before each wait.
    fn proceed(&mut self, link: &mut Link) -> Result<()>;

    /// Whether nothing more may be taken from the socket for now.
    fn is_busy(&self, link: &Link) -> bool;

    /// Waits for whatever the task waits for apart from the socket. It is dropped, and called again, at any time.
    async fn wait(&mut self) -> Result<()>;

    /// A signal asks for an end. The connection is closed after it.
    fn interrupt(&mut self);

    /// The connection has ended: completes what does not need it.
    async fn finish(&mut self) -> Result<ExitCode>;
}

async fn run(options: &ConnectOptions, mut task: impl Task) -> Result<ExitCode> {
    let mut link = Link::new(options)?;
    let mut socket = open(options).await?;
    let driven = drive(&mut link, &mut task, &mut socket).await;
    // On an error of the task it was not asked for yet; without it the server would publish the will.
    link.disconnect()?;
    if let Err(error) = farewell(&mut link, socket).await {
        log::debug!("closing: {error}");
    }
    // Another signal ends this too.
    let finished = tokio::select! {
        finished = task.finish() => finished,
        _ = interrupted() => Ok(ExitCode::FAILURE),
    };
    driven.and(finished)
}

async fn open(options: &ConnectOptions) -> Result<TcpStream> {
    let (host, port) = (options.host.as_str(), options.port);
    let opened = timeout(CONNECT_TIMEOUT, TcpStream::connect((host, port))).await;
    let opened = opened.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()));
    let socket = opened.with_context(|| format!("cannot connect to {host} port {port}"))?;
    // The packets of one step leave in one write, so there is nothing for Nagle's algorithm to gather.
    socket.set_nodelay(true)?;
    log::debug!("connected to {}", socket.peer_addr()?);
    Ok(socket)
}

/// The client, and what it wants of its host: a clock, and a place for its output.
struct Link {
    client: Client,
    clock: Clock,
    /// What the client writes. When `sending` is sent it takes its place.
    out: Vec<u8>,
    sending: Cursor<Vec<u8>>,
    /// Bytes that the socket has taken.
    sent: u64,
}

impl Link {
    /// A client that has written its CONNECT.
    fn new(options: &ConnectOptions) -> Result<Self> {
        let config = ClientConfig::new().manual_acknowledgement(true).connect_timeout(CONNECT_TIMEOUT);
        let config = config.maximum_queued(QUEUE_LIMIT, OUTPUT_LIMIT * 16);
        // Nothing is stored between runs, but the server may have kept the session of an earlier one.
        let session = if options.disable_clean_session { Session::established() } else { Session::new() };
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
        link.client.connect(&connect, link.clock.now(), &mut link.out).context("cannot send CONNECT")?;
        Ok(link)
    }

    /// Whether all that the client has written has left.
    fn is_flushed(&self) -> bool {
        self.out.is_empty() && !self.sending.has_remaining()
    }

    /// What is to be written to the socket next.
    fn output(&mut self) -> &mut Cursor<Vec<u8>> {
        if !self.sending.has_remaining() {
            self.sending.set_position(0);
            self.sending.get_mut().clear();
            mem::swap(&mut self.out, self.sending.get_mut());
        }
        &mut self.sending
    }

    /// When [`Client::handle_timeout`] is to be called.
    fn deadline(&self) -> Option<Instant> {
        Some(Instant::from_std(self.clock.to_std(self.client.poll_timeout()?)))
    }

    /// Ends the connection, unless it has ended.
    fn disconnect(&mut self) -> Result<()> {
        match self.client.disconnect(&Disconnect::default(), self.clock.now(), &mut self.out) {
            Ok(()) | Err(RequestError::NotConnected) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Any 1 to 23 characters, which 3.1 allows too.
fn generate_id() -> String {
    // The seed of the hasher is the one source of randomness in `std`.
    format!("sansio-{:016x}", RandomState::new().hash_one(std::process::id()))
}

fn connect_packet<'a>(options: &'a ConnectOptions, id: &'a str) -> Result<Connect<'a>> {
    let version = options.protocol_version;
    let keep = options.disable_clean_session.then_some(u32::MAX);
    if options.session_expiry_interval.is_some() && version < Version::V5_0 {
        bail!("a session expiry interval needs version 5.0");
    }
    let session_expiry_interval = options.session_expiry_interval.or(keep).filter(|_| version == Version::V5_0);
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

/// Runs the connection to its end, which is an error if it was not asked for.
async fn drive(link: &mut Link, task: &mut impl Task, socket: &mut TcpStream) -> Result<()> {
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
            // `proceed` has disconnected, and the next step says so.
            continue;
        }
        received.reserve(READ_SIZE);
        let reads = !task.is_busy(link);
        if !reads {
            // The server may have answered; it is this side that does not read.
            link.client.handle_progress(link.clock.now());
        }
        let deadline = link.deadline();
        let output = link.output();
        let writes = writable && output.has_remaining();
        tokio::select! {
            // After a long wait for stdout: an answer that came in time is read before time is up.
            biased;
            result = reader.read_buf(&mut received), if reads => match result {
                Ok(0) => return ended(link.client.connection_lost()),
                Ok(_) => {}
                Err(error) => return Err(anyhow!(error).context("the connection is lost")),
            },
            result = writer.write_buf(output), if writes => match result {
                Ok(bytes) => {
                    link.sent += bytes as u64;
                    // A PINGREQ behind a large message leaves after it.
                    link.client.handle_progress(link.clock.now());
                }
                Err(error) => {
                    // The server may have said why, so the input is read to its end.
                    log::debug!("writing: {error}");
                    writable = false;
                }
            },
            result = task.wait() => result?,
            () = sleep_until_some(deadline) => {
                if let Some(action) = link.client.handle_timeout(link.clock.now(), &mut link.out) {
                    return ended(Some(action));
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

/// Hands what has been received to the task; true when the connection has ended because it was asked to.
fn take_steps(link: &mut Link, task: &mut impl Task, received: &mut BytesMut) -> Result<bool> {
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

/// The last action, as a result.
fn ended(action: Option<Action<'_>>) -> Result<()> {
    let Some(Action::Closed(cause)) = action else { return Ok(()) };
    if cause == CloseCause::Requested { Ok(()) } else { Err(anyhow!("{cause}")) }
}

/// Sends the rest, and closes the connection once the server has: with input that nobody has read, the system would reset it,
/// and the server might never see our last packets.
async fn farewell(link: &mut Link, mut socket: TcpStream) -> io::Result<()> {
    let close = async {
        while !link.is_flushed() {
            socket.write_buf(link.output()).await?;
        }
        socket.shutdown().await?;
        tokio::io::copy(&mut socket, &mut tokio::io::sink()).await.map(drop)
    };
    timeout(FAREWELL_TIMEOUT, close).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

/// SIGINT or SIGTERM.
async fn interrupted() -> io::Result<()> {
    #[cfg(unix)]
    {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            result = tokio::signal::ctrl_c() => result,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}

async fn sleep_until_some(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => future::pending().await,
    }
}

// ---- pub ----

struct Publisher<'a> {
    options: &'a PubOptions,
    source: Source,
    /// The number of the last message, which is its key too.
    published: u64,
    in_flight: usize,
    failed: bool,
    progress: Progress,
}

impl<'a> Publisher<'a> {
    fn new(options: &'a PubOptions) -> Result<Self> {
        let (source, progress) = (Source::new(options)?, Progress::new());
        Ok(Self { options, source, published: 0, in_flight: 0, failed: false, progress })
    }

    /// Publishes as much as can be without more and more waiting in memory: QoS 0 is limited by what waits for the socket, the
    /// others by what waits for acknowledgements too.
    fn publish(&mut self, link: &mut Link) {
        let qos = self.options.connect.qos;
        while link.out.len() < OUTPUT_LIMIT {
            let Some(payload) = self.source.front() else { return };
            let publish = Publish { qos, retain: self.options.retain, ..Publish::new(&self.options.topic, payload) };
            let key = self.published + 1;
            match link.client.publish(key, &publish, link.clock.now(), &mut link.out) {
                Ok(()) => {
                    self.source.pop();
                    self.published = key;
                    self.in_flight += usize::from(qos > QoS::AtMostOnce);
                }
                // The next `Published` makes room.
                Err(PublishError::QueueFull) => return,
                Err(error) => {
                    // The next ones would meet with the same; those on their way are still waited for.
                    self.report(key, &error.to_string());
                    self.source = Source::Same { payload: Vec::new(), left: 0, total: 0 };
                }
            }
        }
    }

    fn on_published(&mut self, published: Published<'_>) {
        let Published { key, outcome, .. } = published;
        self.in_flight -= 1;
        match outcome {
            Outcome::Acknowledged { reason_code, properties } if reason_code.is_error() => {
                let reason = properties.reason_string.map(|reason| format!(" ({reason})")).unwrap_or_default();
                self.report(key, &format!("{reason_code}{reason}"));
            }
            Outcome::Acknowledged { reason_code, .. } => log::debug!("message {key} completed: {reason_code}"),
            Outcome::Expired => self.report(key, "it has expired"),
            Outcome::NotAllowed(_) => self.report(key, "the server does not take such messages"),
            other => self.report(key, &format!("{other:?}")),
        }
    }

    fn report(&mut self, key: u64, reason: &str) {
        self.failed = true;
        self.progress.clear();
        eprintln!("Error: message {key} was not published: {reason}");
    }
}

impl Task for Publisher<'_> {
    fn on_action(&mut self, action: Action<'_>, _: &mut Link) -> Result<()> {
        log::trace!("{action:?}");
        if let Action::Published(published) = action {
            self.on_published(published);
        }
        Ok(())
    }

    fn proceed(&mut self, link: &mut Link) -> Result<()> {
        if !link.client.is_connected() {
            return Ok(());
        }
        self.publish(link);
        self.progress.show(self.published - self.in_flight as u64, link.sent, self.source.total());
        if self.source.is_exhausted() && self.in_flight == 0 && link.is_flushed() {
            link.disconnect()?;
        }
        Ok(())
    }

    fn is_busy(&self, _: &Link) -> bool {
        false
    }

    async fn wait(&mut self) -> Result<()> {
        tokio::select! {
            result = self.source.read() => result.context("cannot read stdin"),
            () = sleep_until_some(self.progress.next) => Ok(()),
        }
    }

    fn interrupt(&mut self) {
        self.progress.clear();
        eprintln!("Error: interrupted");
        self.failed = true;
    }

    async fn finish(&mut self) -> Result<ExitCode> {
        self.progress.clear();
        Ok(if self.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

/// Where the payloads come from.
enum Source {
    Same {
        payload: Vec<u8>,
        left: u64,
        /// Bytes of all of them.
        total: u64,
    },
    Lines {
        stdin: tokio::io::Stdin,
        buffer: BytesMut,
        /// Where in the buffer the first line ends, or how much of it has been looked at.
        scanned: usize,
        ended: bool,
    },
}

impl Source {
    fn new(options: &PubOptions) -> Result<Self> {
        let PayloadOptions { message, file, stdin_line, stdin_file, null_message: _ } = &options.payload;
        if *stdin_line {
            return Ok(Self::Lines { stdin: tokio::io::stdin(), buffer: BytesMut::new(), scanned: 0, ended: false });
        }
        let mut payload = message.clone().unwrap_or_default().into_bytes();
        if let Some(file) = file {
            payload = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        } else if *stdin_file {
            io::stdin().read_to_end(&mut payload).context("cannot read stdin")?;
        }
        let total = options.repeat.saturating_mul(payload.len() as u64);
        Ok(Self::Same { payload, left: options.repeat, total })
    }

    /// The next payload, if there is one without waiting.
    fn front(&mut self) -> Option<&[u8]> {
        match self {
            Self::Same { payload, left, .. } => (*left > 0).then_some(payload),
            Self::Lines { buffer, scanned, ended, .. } => {
                while buffer.first() == Some(&b'\n') {
                    buffer.advance(1);
                }
                let rest = buffer.get(*scanned..)?;
                let newline = rest.iter().position(|&byte| byte == b'\n');
                *scanned += newline.unwrap_or(rest.len());
                let is_line = newline.is_some() || *ended && !buffer.is_empty();
                buffer.get(..*scanned).filter(|_| is_line)
            }
        }
    }

    /// Removes what [`front`](Self::front) gave.
    fn pop(&mut self) {
        match self {
            Self::Same { left, .. } => *left -= 1,
            Self::Lines { buffer, scanned, .. } => buffer.advance(mem::take(scanned)),
        }
    }

    fn is_exhausted(&mut self) -> bool {
        self.front().is_none() && !matches!(self, Self::Lines { ended: false, .. })
    }

    fn total(&self) -> Option<u64> {
        if let Self::Same { total, .. } = self { Some(*total) } else { None }
    }

    /// Reads on when the lines are used up; not before, so that stdin waits for the server.
    async fn read(&mut self) -> io::Result<()> {
        let is_empty = self.front().is_none();
        match self {
            Self::Lines { stdin, buffer, ended, .. } if is_empty && !*ended => {
                buffer.reserve(READ_SIZE);
                *ended = stdin.read_buf(buffer).await? == 0;
                Ok(())
            }
            Self::Lines { .. } | Self::Same { .. } => future::pending().await,
        }
    }
}

/// A line on a terminal, for what takes longer than a moment.
struct Progress {
    next: Option<Instant>,
    shown: bool,
}

impl Progress {
    const INTERVAL: Duration = Duration::from_millis(250);

    fn new() -> Self {
        Self { next: io::stderr().is_terminal().then(|| Instant::now() + 4 * Self::INTERVAL), shown: false }
    }

    fn show(&mut self, completed: u64, sent: u64, total: Option<u64>) {
        let now = Instant::now();
        if self.next.is_none_or(|next| now < next) {
            return;
        }
        self.next = Some(now + Self::INTERVAL);
        self.shown = true;
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let total = total.map(|total| format!(" of {:.1}", mebibytes(total))).unwrap_or_default();
        eprint!("\r{completed} messages completed, {:.1}{total} MiB sent\x1b[K", mebibytes(sent));
    }

    fn clear(&mut self) {
        if mem::take(&mut self.shown) {
            eprint!("\r\x1b[K");
        }
    }
}

// ---- sub ----

struct Subscriber<'a> {
    options: &'a SubOptions,
    stdout: tokio::io::Stdout,
    /// What is to be printed.
    printing: BytesMut,
    /// Whether something may not have reached stdout yet.
    is_dirty: bool,
    /// Messages that are acknowledged once they are printed.
    tokens: Vec<AckToken>,
    count: u64,
    expires_at: Option<Instant>,
    /// Nothing more is to be printed; the code is that of the program.
    exit: Option<u8>,
}

impl<'a> Subscriber<'a> {
    fn new(options: &'a SubOptions) -> Self {
        let (stdout, printing, tokens) = (tokio::io::stdout(), BytesMut::new(), Vec::new());
        Self { options, stdout, printing, is_dirty: false, tokens, count: 0, expires_at: None, exit: None }
    }

    fn subscribe(&mut self, link: &mut Link) -> Result<()> {
        let SubOptions { connect, topic, unsubscribe, seconds, .. } = self.options;
        self.expires_at = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds.into()));
        let now = link.clock.now();
        if !topic.is_empty() {
            let subscriptions: Vec<_> = topic.iter().map(|filter| Subscription::new(filter, connect.qos)).collect();
            let properties = SubscribeProperties::default();
            link.client.subscribe(0, &subscriptions, properties, now, &mut link.out).context("cannot subscribe")?;
        }
        if !unsubscribe.is_empty() {
            let filters: Vec<_> = unsubscribe.iter().map(|filter| filter.as_str().into()).collect();
            let properties = UnsubscribeProperties::default();
            link.client.unsubscribe(0, &filters, properties, now, &mut link.out).context("cannot unsubscribe")?;
        }
        Ok(())
    }

    fn on_subscribed(&self, suback: &Suback<'_>) -> Result<()> {
        let refused = report_refused("subscription to", &self.options.topic, suback);
        if refused == self.options.topic.len() { Err(anyhow!("all subscriptions were refused")) } else { Ok(()) }
    }

    fn on_message(&mut self, message: &Received<'_>) {
        if self.exit.is_some() {
            // Not acknowledged, so that a session that is kept brings it again.
            return;
        }
        if self.options.retained_only && !message.retain {
            self.exit = Some(0);
            return;
        }
        self.tokens.extend(message.token);
        if self.options.no_retained && message.retain {
            return;
        }
        self.print(message);
        self.count += 1;
        if Some(self.count) == self.options.count {
            self.exit = Some(0);
        }
    }

    fn print(&mut self, message: &Received<'_>) {
        if self.options.verbose {
            self.printing.extend_from_slice(message.topic_name.as_text().as_bytes());
            self.printing.extend_from_slice(b" ");
        }
        self.printing.extend_from_slice(message.payload);
        if !self.options.no_newline {
            self.printing.extend_from_slice(b"\n");
        }
        self.is_dirty = true;
    }

    /// Writes what is to be printed; goes on where it was when it is dropped and called again.
    async fn flush(&mut self) -> Result<()> {
        let result = async {
            while self.printing.has_remaining() {
                self.stdout.write_buf(&mut self.printing).await?;
            }
            self.stdout.flush().await
        };
        match result.await {
            // Whoever read has seen enough, as `head` does.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.printing.clear();
                self.tokens.clear();
                self.exit = Some(0);
            }
            result => result.context("cannot write to stdout")?,
        }
        self.is_dirty = false;
        Ok(())
    }
}

impl Task for Subscriber<'_> {
    fn on_action(&mut self, action: Action<'_>, link: &mut Link) -> Result<()> {
        match action {
            Action::Message(message) => {
                log::debug!("{} bytes to {} with {:?}", message.payload.len(), message.topic_name, message.qos);
                self.on_message(&message);
            }
            Action::Connected(connack) => {
                log::debug!("{connack:?}");
                self.subscribe(link)?;
            }
            Action::Subscribed(_, suback) => self.on_subscribed(&suback)?,
            Action::Unsubscribed(_, unsuback) => {
                report_refused("unsubscription from", &self.options.unsubscribe, &unsuback);
            }
            other => log::debug!("{other:?}"),
        }
        Ok(())
    }

    fn proceed(&mut self, link: &mut Link) -> Result<()> {
        if !self.is_dirty {
            for token in self.tokens.drain(..) {
                link.client.acknowledge(token, ReasonCode::SUCCESS, link.clock.now(), &mut link.out)?;
            }
        }
        match self.exit {
            Some(EXIT_TIMED_OUT) => link.disconnect(),
            Some(_) if !self.is_dirty => link.disconnect(),
            _ => Ok(()),
        }
    }

    fn is_busy(&self, link: &Link) -> bool {
        self.printing.len() >= PRINT_LIMIT || link.out.len() >= PRINT_LIMIT
    }

    async fn wait(&mut self) -> Result<()> {
        let expires_at = self.expires_at;
        tokio::select! {
            result = self.flush(), if self.is_dirty => result,
            () = sleep_until_some(expires_at), if self.exit.is_none() => {
                eprintln!("Timed out");
                self.exit = Some(EXIT_TIMED_OUT);
                Ok(())
            }
            else => future::pending().await,
        }
    }

    fn interrupt(&mut self) {
        self.exit = Some(0);
    }

    async fn finish(&mut self) -> Result<ExitCode> {
        // What came before the connection was lost is printed, however long that takes; not what came before a signal.
        let limit = if self.exit.is_some() { FAREWELL_TIMEOUT } else { Duration::MAX };
        timeout(limit, self.flush()).await.unwrap_or(Ok(()))?;
        Ok(ExitCode::from(self.exit.unwrap_or_default()))
    }
}

/// How many of the filters were refused.
fn report_refused(what: &str, filters: &[String], suback: &Suback<'_>) -> usize {
    let refused = filters.iter().zip(suback.reason_codes.iter()).filter(|(_, reason_code)| reason_code.is_error());
    refused.inspect(|(filter, reason_code)| eprintln!("Error: {what} {filter} is refused: {reason_code}")).count()
}
