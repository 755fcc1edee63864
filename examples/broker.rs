//! A complete MQTT broker over TCP: `cargo run --release --example broker -- --listen
//! 127.0.0.1:1883`.
//!
//! The crate's [`Broker`] decides. This host owns the sockets, the clock and the buffers. It runs
//! on one thread: a task for each connection, one for the listener and one for the broker's timer.
//! The broker is never borrowed across an `await`.

use anyhow::Context as _;
use bytes::{Buf as _, BytesMut};
use clap::Parser;
use core::cell::RefCell;
use core::hash::BuildHasher as _;
use core::num::{NonZeroU16, NonZeroU32};
use core::time::Duration;
use log::{debug, info, warn};
use mqtt_sansio::broker::{Action, Admission, Broker, BrokerConfig, ConnectionId, Question};
use mqtt_sansio::codec::{
    ConnackProperties, Disconnect, Expiry, OwnedPacket, Packet, QoS, ReasonCode,
};
use mqtt_sansio::server::ServerConfig;
use mqtt_sansio::{Clock, Instant};
use std::collections::HashMap;
use std::hash::RandomState;
use std::rc::Rc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{sleep_until, timeout};

/// An MQTT broker for clients of MQTT 3.1, 3.1.1 and 5.0.
#[derive(Parser, Debug)]
#[command(version, next_line_help = false)]
struct Arguments {
    /// The address to listen on; port 0 selects a free port.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:1883")]
    listen: String,
    /// The largest packet in bytes that is accepted.
    #[arg(long, value_name = "BYTES", default_value = "33554432")]
    max_packet_size: NonZeroU32,
    /// Messages with QoS 1 and 2 that a client can have in flight.
    #[arg(long, value_name = "N", default_value = "1024")]
    receive_maximum: NonZeroU16,
    /// The longest keep alive in seconds that a client is granted [default: as requested].
    #[arg(long, value_name = "SECONDS")]
    max_keep_alive: Option<NonZeroU16>,
    /// The greatest topic alias that a client can use; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 16)]
    topic_alias_maximum: u16,
    /// The greatest QoS with which a client can publish.
    #[arg(
        long,
        value_name = "0..2",
        default_value_t = 2,
        value_parser = clap::value_parser!(u8).range(0..=2),
    )]
    max_qos: u8,
    /// The longest time in seconds that a session is kept for a client that is away [default: no
    /// limit].
    #[arg(long, value_name = "SECONDS", default_value_t = u32::MAX, hide_default_value = true)]
    max_session_expiry: u32,
    /// Keep no retained messages.
    #[arg(long)]
    no_retain: bool,
    /// Refuse topic filters with wildcards.
    #[arg(long)]
    no_wildcard_subscriptions: bool,
    /// Refuse subscription identifiers.
    #[arg(long)]
    no_subscription_identifiers: bool,
    /// Seconds that a new connection has for its CONNECT.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    connect_timeout: u64,
    /// Messages with QoS 1 and 2 that can be in flight to a client.
    #[arg(long, value_name = "N", default_value = "256")]
    max_in_flight: NonZeroU16,
    /// Messages that can wait for a client.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    max_queued_messages: usize,
    /// Bytes of messages that can wait for a client.
    #[arg(long, value_name = "BYTES", default_value_t = 67_108_864)]
    max_queued_bytes: usize,
    /// Connections that can be open.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    max_connections: usize,
    /// Accepts only clients with this name and password; can be repeated [default: accepts all].
    #[arg(long, value_name = "NAME:PASSWORD")]
    user: Vec<String>,
    /// Logs each connection; repeated, logs more. `RUST_LOG` takes precedence.
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

impl Arguments {
    fn config(&self) -> BrokerConfig {
        let server = ServerConfig::new()
            .maximum_packet_size(self.max_packet_size.get())
            .receive_maximum(self.receive_maximum.get())
            .maximum_keep_alive(self.max_keep_alive)
            .topic_alias_maximum(self.topic_alias_maximum)
            .maximum_qos(QoS::from_u8(self.max_qos).unwrap_or_default())
            .maximum_session_expiry(Expiry::from_seconds(self.max_session_expiry))
            .retain_available(!self.no_retain)
            .wildcard_subscription_available(!self.no_wildcard_subscriptions)
            .subscription_identifier_available(!self.no_subscription_identifiers)
            .connect_timeout(Duration::from_secs(self.connect_timeout))
            .maximum_in_flight(self.max_in_flight.get())
            .maximum_queued(self.max_queued_messages, self.max_queued_bytes);
        BrokerConfig::new(server)
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let level = match arguments.verbose {
        0 => "info",
        1 => "broker=debug,info",
        _ => "trace",
    };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level)).init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, run(arguments))
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let listener = TcpListener::bind(&arguments.listen)
        .await
        .with_context(|| format!("cannot listen on {}", arguments.listen))?;
    info!("listening on {}", listener.local_addr()?);
    let host = Rc::new(Host::new(&arguments));
    let timer = tokio::task::spawn_local(host.clone().run_timer());
    let mut connections = JoinSet::new();
    let stopped = stop_signal();
    tokio::pin!(stopped);
    loop {
        while connections.try_join_next().is_some() {}
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) if host.connections() < arguments.max_connections => {
                    debug!("{peer}: connection opened");
                    connections.spawn_local(host.clone().serve(stream, peer.to_string()));
                }
                Ok((_, peer)) => {
                    warn!("{peer}: refused, {} connections are open", host.connections());
                }
                Err(error) => {
                    // Most likely too many files are open. Some may be closed in a moment.
                    warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            () = &mut stopped => break,
        }
    }
    info!("shutting down, {} connections are open", host.connections());
    drop(listener);
    host.shut_down();
    let all_ended =
        timeout(Duration::from_secs(5), async { while connections.join_next().await.is_some() {} })
            .await;
    if all_ended.is_err() {
        warn!("{} connections did not end in time", connections.len());
    }
    timer.abort();
    Ok(())
}

/// Waits for SIGINT or SIGTERM.
async fn stop_signal() {
    #[cfg(unix)]
    if let Ok(mut terminate) =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
    {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        return;
    }
    let _ = tokio::signal::ctrl_c().await;
}

/// The broker, and how it wakes the tasks around it.
struct Host {
    broker: RefCell<Broker>,
    clock: Clock,
    /// Wakes the task of a connection, which then asks the broker what to do.
    wakers: RefCell<HashMap<ConnectionId, Rc<Notify>>>,
    /// The broker's next deadline has moved.
    timer_moved: Notify,
    users: Vec<(String, String)>,
}

impl Host {
    fn new(arguments: &Arguments) -> Self {
        let clock = Clock::new();
        // The keys of the hasher are the only randomness in `std`.
        let random = || u128::from(RandomState::new().hash_one(0));
        let broker = Broker::new(arguments.config(), random() << 64 | random(), clock.now());
        let users = arguments.user.iter().map(|user| user.split_once(':').unwrap_or((user, "")));
        Self {
            broker: RefCell::new(broker),
            clock,
            wakers: RefCell::default(),
            timer_moved: Notify::new(),
            users: users.map(|(name, password)| (name.to_owned(), password.to_owned())).collect(),
        }
    }

    /// Calls the broker, and obeys the actions that this causes.
    fn with_broker<T>(&self, call: impl FnOnce(&mut Broker, Instant) -> T) -> T {
        let now = self.clock.now();
        let broker = &mut *self.broker.borrow_mut();
        let before = broker.poll_timeout();
        let result = call(broker, now);
        while let Some(action) = broker.poll_action() {
            match action {
                Action::Ask(question, Question::Connect(connect)) => {
                    let answered = match self.authenticate(&connect) {
                        ReasonCode::SUCCESS => broker.accept(question, Admission::default(), now),
                        reason_code => {
                            broker.refuse(question, reason_code, ConnackProperties::default(), now)
                        }
                    };
                    if let Err(error) = answered {
                        warn!("cannot answer a CONNECT: {error}");
                    }
                }
                Action::Ready(connection) => self.wake(connection),
                Action::Closed(connection, closed) => {
                    info!("{closed}");
                    self.wake(connection);
                }
                other @ (Action::Ask(..) | _) => {
                    warn!("expected an action that this host knows, found {other:?}");
                }
            }
        }
        if broker.poll_timeout() != before {
            self.timer_moved.notify_one();
        }
        result
    }

    fn wake(&self, connection: ConnectionId) {
        if let Some(waker) = self.wakers.borrow().get(&connection) {
            waker.notify_one();
        }
    }

    fn connections(&self) -> usize {
        self.wakers.borrow().len()
    }

    fn authenticate(&self, connect: &OwnedPacket) -> ReasonCode {
        let Packet::Connect(connect) = connect.decode() else { return ReasonCode::PROTOCOL_ERROR };
        let name = connect.user_name.map_or("", |name| name.to_str());
        let password = connect.password.unwrap_or_default();
        let known =
            self.users.iter().any(|(user, secret)| user == name && secret.as_bytes() == password);
        info!("client {:?} connects with MQTT {}", connect.client_identifier, connect.version);
        if known || self.users.is_empty() {
            ReasonCode::SUCCESS
        } else {
            ReasonCode::BAD_USER_NAME_OR_PASSWORD
        }
    }

    async fn run_timer(self: Rc<Self>) {
        loop {
            // Work that was put off is due at once. The others have their turn before it.
            tokio::task::yield_now().await;
            let due = self.broker.borrow().poll_timeout();
            let deadline = self.clock.to_std(due.unwrap_or_default());
            tokio::select! {
                () = async { sleep_until(deadline.into()).await }, if due.is_some() => {
                    self.with_broker(|broker, now| broker.handle_timeout(now));
                }
                () = self.timer_moved.notified() => {}
            }
        }
    }

    /// Serves one connection to its end.
    async fn serve(self: Rc<Self>, mut stream: TcpStream, peer: String) {
        let _ = stream.set_nodelay(true);
        let id = self.with_broker(|broker, now| broker.open(now));
        let waker = Rc::new(Notify::new());
        self.wakers.borrow_mut().insert(id, waker.clone());
        match self.exchange(id, &waker, &mut stream).await {
            Ok(()) => debug!("{peer}: connection closed"),
            Err(error) => debug!("{peer}: connection lost: {error}"),
        }
        self.wakers.borrow_mut().remove(&id);
        if let Some(closed) = self.with_broker(|broker, now| broker.connection_lost(id, now)) {
            debug!("{peer}: {closed}");
        }
    }

    async fn exchange(
        &self,
        id: ConnectionId,
        waker: &Notify,
        stream: &mut TcpStream,
    ) -> std::io::Result<()> {
        let (mut reader, mut writer) = stream.split();
        let mut received = BytesMut::with_capacity(4096);
        let mut output = Output::default();
        loop {
            let (is_closed, wants_input) = self.with_broker(|broker, now| {
                if feed(broker, id, &mut received, now) {
                    waker.notify_one();
                }
                if output.is_empty() || broker.is_closed(id) {
                    // If there is more, the broker says so again once this is written.
                    let _ = broker.transmit(id, now, &mut output.bytes);
                }
                let wants_input = broker.wants_input(id);
                if !wants_input {
                    // This side does not read, so the client is not silent.
                    broker.handle_progress(id, now);
                }
                (broker.is_closed(id), wants_input)
            });
            if is_closed {
                break;
            }
            tokio::select! {
                read = reader.read_buf(&mut received), if wants_input => if read? == 0 {
                    return Ok(());
                },
                written = writer.write(output.unwritten()), if !output.is_empty() => {
                    output.written(written?);
                }
                () = waker.notified() => {}
            }
        }
        // The client has a moment to read the last packet. Its input is read, so that a reset does
        // not lose that packet.
        let _ = timeout(Duration::from_secs(2), async {
            writer.write_all(output.unwritten()).await?;
            writer.shutdown().await?;
            while reader.read_buf(&mut received).await? > 0 {
                received.clear();
            }
            std::io::Result::Ok(())
        })
        .await;
        Ok(())
    }

    fn shut_down(&self) {
        let disconnect = Disconnect::new(ReasonCode::SERVER_SHUTTING_DOWN);
        self.with_broker(|broker, now| {
            for id in self.wakers.borrow().keys() {
                broker.disconnect(*id, &disconnect, now);
            }
        });
    }
}

/// Gives the broker what was received, as far as it wants input. Returns whether it would read more
/// after others have had their turn.
fn feed(broker: &mut Broker, id: ConnectionId, received: &mut BytesMut, now: Instant) -> bool {
    let mut has_more = false;
    if !received.is_empty() {
        let mut input = &received[..];
        has_more = broker.handle_input(id, &mut input, now);
        let rest = input.len();
        received.advance(received.len() - rest);
        // Reads are as large as what has come of the packet at hand.
        received.reserve(rest.clamp(4096, 1024 * 1024));
    }
    has_more
}

/// Output that is written piece by piece.
#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    start: usize,
}

impl Output {
    fn unwritten(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    fn written(&mut self, count: usize) {
        self.start += count;
        if self.is_empty() {
            self.start = 0;
            self.bytes.clear();
            // One large message must not keep its memory until the connection ends.
            self.bytes.shrink_to(64 * 1024);
        }
    }
}
