//! The host of a [`Gateway`] of MQTT-SN on UDP and tokio.
//!
//! [`run`] carries datagrams between a socket and the gateway, and for each client bytes between
//! the gateway and a transport to the server. The caller opens the transports: over TCP for any
//! broker, or in memory for a broker of the same program.

#[cfg(feature = "flags")]
mod flags;
mod link;
mod topic;

#[cfg(feature = "flags")]
pub use flags::GatewayArguments;
pub use topic::PredefinedTopic;

use link::{Command, Progress};
use mqtt_sansio::Instant;
use mqtt_sansio::sn::{Destination, Event, Gateway, Link};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, info, warn};

/// The largest datagram of UDP.
const DATAGRAM: usize = 65_535;

/// The time to write the last bytes of a connection.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

/// A stream of bytes to the server.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Transport for T {}

/// Runs a gateway until `stop` is ready or the socket fails. When it stops, it ends its clients and
/// their connections to the server, for which it takes at most two seconds. Its limits per source
/// are limits per IP address, and per /64 network of IPv6.
///
/// `open` returns a future that opens a transport to the server. `now` returns the time. A
/// broadcast is sent to `broadcast`, if given; otherwise the answer to a SEARCHGW is sent to the
/// client that asked, and nothing is advertised.
pub async fn run<T: Transport, F>(
    socket: UdpSocket,
    gateway: Gateway<SocketAddr>,
    broadcast: Option<SocketAddr>,
    now: impl Fn() -> Instant,
    open: impl FnMut() -> F,
    stop: impl Future<Output = ()>,
) -> io::Result<()>
where
    F: Future<Output = io::Result<T>> + Send + 'static,
{
    // The tasks report at their own pace, so a slow gateway slows them down.
    let (progress, reports) = mpsc::channel(64);
    let links = HashMap::new();
    let tasks = JoinSet::new();
    let gateway = gateway.with_source(source);
    socket.set_broadcast(broadcast.is_some())?;
    Host { socket, gateway, broadcast, now, open, links, tasks, progress }.run(reports, stop).await
}

struct Host<N, O> {
    socket: UdpSocket,
    gateway: Gateway<SocketAddr>,
    broadcast: Option<SocketAddr>,
    now: N,
    open: O,
    links: HashMap<Link, Pipe>,
    /// They end with the host.
    tasks: JoinSet<()>,
    progress: mpsc::Sender<(Link, Progress)>,
}

/// A transport, which a task of its own reads and writes.
struct Pipe {
    commands: mpsc::UnboundedSender<Command>,
    /// Input that the gateway has not consumed.
    received: Vec<u8>,
    /// Whether the task writes what it was given.
    is_writing: bool,
    /// Whether the task waits until it can read again.
    is_paused: bool,
    /// Whether the gateway has ended the connection.
    is_closing: bool,
}

impl<T: Transport, F, N, O> Host<N, O>
where
    F: Future<Output = io::Result<T>> + Send + 'static,
    N: Fn() -> Instant,
    O: FnMut() -> F,
{
    async fn run(
        mut self,
        mut reports: mpsc::Receiver<(Link, Progress)>,
        stop: impl Future<Output = ()>,
    ) -> io::Result<()> {
        tokio::select! {
            error = self.serve(&mut reports) => return Err(error),
            () = stop => {}
        }
        self.gateway.shut_down((self.now)());
        let rest = async {
            self.exchange().await;
            while !self.links.is_empty() {
                let Some((link, progress)) = reports.recv().await else { return };
                self.on_progress(link, progress);
                self.exchange().await;
            }
        };
        if timeout(LAST_OUTPUT, rest).await.is_err() {
            warn!("a connection to the server did not end in time");
        }
        Ok(())
    }

    /// Serves clients until the socket fails.
    async fn serve(&mut self, reports: &mut mpsc::Receiver<(Link, Progress)>) -> io::Error {
        let mut datagram = vec![0; DATAGRAM];
        loop {
            self.exchange().await;
            while self.tasks.try_join_next().is_some() {}
            let timer = async {
                match self.gateway.poll_timeout() {
                    Some(at) => tokio::time::sleep(at - (self.now)()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                received = self.socket.recv_from(&mut datagram) => match received {
                    Ok((length, peer)) => {
                        let bytes = datagram.get(..length).unwrap_or_default();
                        self.gateway.handle_datagram(&peer, bytes, (self.now)());
                    }
                    // A datagram that an earlier one of ours has caused, such as "no such port".
                    Err(error) if is_of_peer(&error) => {}
                    Err(error) => return error,
                },
                Some((link, progress)) = reports.recv() => self.on_progress(link, progress),
                () = timer => self.gateway.handle_timeout((self.now)()),
            }
        }
    }

    /// Does what the last call of the gateway asks for.
    async fn exchange(&mut self) {
        while let Some(event) = self.gateway.poll_event() {
            match event {
                Event::Open(link) => self.open_link(link),
                Event::Close(link) => {
                    if let Some(pipe) = self.links.get_mut(&link) {
                        pipe.is_closing = true;
                    } else {
                        self.gateway.closed(link, (self.now)());
                    }
                }
                Event::Changed { client_id, state } => {
                    info!(client = &*client_id, ?state, "client has changed its state");
                }
                event => debug!(?event, "expected an event that this host knows"),
            }
        }
        self.carry();
        let mut datagram = Vec::new();
        while let Some(to) = self.gateway.poll_datagram(&mut datagram) {
            let to = match to {
                Destination::Peer(peer) => Some(peer),
                Destination::Broadcast { asked_by, .. } => self.broadcast.or(asked_by),
            };
            if let Some(to) = to {
                // A datagram that cannot be sent is a lost one.
                if let Err(error) = self.socket.send_to(&datagram, to).await {
                    debug!(%to, %error, "cannot send a datagram");
                }
            }
        }
    }

    fn open_link(&mut self, link: Link) {
        let (commands, receiver) = mpsc::unbounded_channel();
        let (is_writing, is_paused, is_closing) = (true, false, false);
        let received = Vec::new();
        self.links.insert(link, Pipe { commands, received, is_writing, is_paused, is_closing });
        let (opening, progress) = ((self.open)(), self.progress.clone());
        self.tasks.spawn(link::run(link, opening, receiver, progress));
    }

    /// Passes bytes between the pipes and the gateway.
    fn carry(&mut self) {
        let now = (self.now)();
        for (link, pipe) in &mut self.links {
            if pipe.is_paused && self.gateway.wants_input(*link) {
                let before = pipe.received.len();
                let mut input = &pipe.received[..];
                self.gateway.handle_input(*link, &mut input, now);
                let taken = before - input.len();
                pipe.received.drain(..taken);
                // If the gateway wants more, what is left is an incomplete packet.
                if self.gateway.wants_input(*link) {
                    pipe.is_paused = pipe.commands.send(Command::Read).is_err();
                }
            }
            if !pipe.is_writing && self.gateway.wants_transmit(*link) {
                let mut bytes = Vec::new();
                self.gateway.transmit(*link, &mut bytes);
                pipe.is_writing = pipe.commands.send(Command::Write(bytes)).is_ok();
            } else if !pipe.is_writing && pipe.is_closing {
                pipe.is_writing = pipe.commands.send(Command::Close).is_ok();
            }
        }
    }

    fn on_progress(&mut self, link: Link, progress: Progress) {
        let now = (self.now)();
        let Some(pipe) = self.links.get_mut(&link) else { return };
        match progress {
            Progress::Written => pipe.is_writing = false,
            Progress::Read(bytes) => {
                pipe.received.extend_from_slice(&bytes);
                pipe.is_paused = true;
            }
            Progress::Ended(result) => {
                if let Err(error) = result {
                    warn!(%error, "connection to the server has failed");
                }
                self.links.remove(&link);
                self.gateway.closed(link, now);
            }
        }
    }
}

/// Returns what is counted as one address: in IPv6 a /64 network, because one host has all of it.
#[must_use]
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

/// Returns the peer that stands for all peers of one source.
fn source(peer: &SocketAddr) -> SocketAddr {
    SocketAddr::new(network(peer.ip()), 0)
}

fn is_of_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::Interrupted
            | io::ErrorKind::WouldBlock
    )
}
