//! Bridges to other brokers. The library decides; this module has a transport for each side: a
//! socket, and a pipe in memory to a connection of the broker.

mod leg;
mod settings;

pub(crate) use settings::Settings;

use crate::connection::{Transport, serve};
use crate::host::{Host, Link};
use crate::limits::Address;
use crate::settings::Settings as LinkSettings;
use anyhow::Context as _;
use leg::{Leg, Pipe, Progress};
use mqtt_sansio::bridge::{Bridge, BridgeStats, Event, Side};
use mqtt_sansio::codec::Disconnect;
use std::cell::Cell;
use std::error::Error;
use std::mem;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::duplex;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::rustls::pki_types::ServerName;
use tracing::{info, warn};

/// The time to open a transport to the remote broker.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// The bytes of the pipe to the broker of this program.
const PIPE: usize = 64 * 1024;

/// The figures of a bridge.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) name: String,
    pub(crate) is_connected: Cell<bool>,
    /// Of the local side, and of the remote one.
    pub(crate) stats: Cell<[BridgeStats; 2]>,
}

/// Runs a bridge until `stop` is dropped. `link_settings` are those of its connection to the broker
/// of this program.
pub(crate) async fn run(
    host: Rc<Host>,
    settings: Rc<Settings>,
    link_settings: Arc<LinkSettings>,
    stop: oneshot::Receiver<()>,
) {
    let now = Instant::now();
    let name = settings.name.clone();
    let figures = Rc::new(Figures { name, is_connected: Cell::default(), stats: Cell::default() });
    host.bridges.borrow_mut().push(figures.clone());
    let mut task = Task {
        bridge: Bridge::new(settings.config.clone()),
        local: Leg::Waiting(now),
        remote: Leg::Waiting(now),
        backoff: settings.reconnect.0,
        host,
        settings,
        link_settings,
        figures,
    };
    task.run(stop).await;
}

struct Task {
    host: Rc<Host>,
    settings: Rc<Settings>,
    link_settings: Arc<LinkSettings>,
    bridge: Bridge,
    local: Leg,
    remote: Leg,
    /// The time before the next attempt to connect to the remote broker.
    backoff: Duration,
    figures: Rc<Figures>,
}

impl Task {
    async fn run(&mut self, mut stop: oneshot::Receiver<()>) {
        loop {
            self.exchange();
            self.figures.is_connected.set(self.bridge.is_connected(Side::Remote));
            self.figures.stats.set([Side::Local, Side::Remote].map(|side| self.bridge.stats(side)));
            let timer = async {
                match self.bridge.poll_timeout() {
                    Some(at) => sleep(at - self.host.now()).await,
                    None => std::future::pending().await,
                }
            };
            let wants_input = |side| self.bridge.wants_input(side);
            let (side, progress) = tokio::select! {
                progress = self.local.next(wants_input(Side::Local)) => (Side::Local, progress),
                progress = self.remote.next(wants_input(Side::Remote)) => (Side::Remote, progress),
                () = timer => continue,
                _ = &mut stop => break,
            };
            self.on_progress(side, progress);
        }
        for side in [Side::Local, Side::Remote] {
            let _ = self.bridge.disconnect(side, &Disconnect::default(), self.host.now());
            if let Leg::Open(mut pipe) = mem::replace(self.leg(side), Leg::Waiting(Instant::now()))
            {
                self.bridge.transmit(side, &mut pipe.output);
                pipe.finish().await;
            }
        }
    }

    fn on_progress(&mut self, side: Side, progress: Progress) {
        match progress {
            Progress::Moved => self.bridge.handle_progress(side, self.host.now()),
            Progress::Due => *self.leg(side) = Leg::Opening(self.open(side)),
            Progress::Opened(transport) => {
                let settings = self.settings.clone();
                let connect = settings.connect(side);
                *self.leg(side) = match self.bridge.connect(side, &connect, self.host.now()) {
                    Ok(()) => Leg::Open(Pipe::new(transport)),
                    Err(error) => self.failed(side, &error.into()),
                };
            }
            Progress::NotOpened(error) => *self.leg(side) = self.failed(side, &error),
            Progress::Lost(error) => {
                // The bridge knows only that the connection was lost, and the host why.
                let _ = self.bridge.connection_lost(side, self.host.now());
                *self.leg(side) = self.failed(side, &error.into());
            }
        }
    }

    /// Carries bytes between the transports and the bridge until nothing moves.
    fn exchange(&mut self) {
        while let Some(event) = self.bridge.handle_timeout(self.host.now()) {
            if let Event::Closed(side, cause) = event {
                self.close(side, &anyhow::anyhow!("{cause}"));
            }
        }
        while self.step(Side::Local) | self.step(Side::Remote) {}
    }

    /// Returns whether something has moved.
    fn step(&mut self, side: Side) -> bool {
        let Self { host, settings, bridge, local, remote, backoff, .. } = self;
        let Leg::Open(pipe) = (if side == Side::Local { local } else { remote }) else {
            return false;
        };
        let mut closed = None;
        let mut input = pipe.received.as_slice();
        while let Some(event) = bridge.handle_input(side, &mut input, host.now()) {
            match event {
                Event::Connected(Side::Remote, connack) => {
                    *backoff = settings.reconnect.0;
                    let (bridge, address) = (&*settings.name, &*settings.address);
                    info!(bridge, address, resumed = connack.session_present, "bridge connected");
                }
                Event::Refused { side, topic, reason_code } => {
                    let filter = settings.config.topics().get(topic);
                    let filter = filter.map(|topic| topic.filter(side).to_string());
                    let (bridge, reason) = (&*settings.name, reason_code.to_string());
                    warn!(bridge, %side, filter, reason, "bridge may not subscribe");
                }
                Event::Closed(_, cause) => {
                    let source = cause.source().map(|source| format!(": {source}"));
                    closed = Some(format!("{cause}{}", source.unwrap_or_default()));
                }
                _ => {}
            }
        }
        let consumed = pipe.received.len() - input.len();
        pipe.received.drain(..consumed);
        let has_output = pipe.output.is_empty() && bridge.wants_transmit(side);
        if has_output {
            bridge.transmit(side, &mut pipe.output);
        }
        let has_moved = has_output || consumed > 0;
        if let Some(cause) = closed {
            self.close(side, &anyhow::Error::msg(cause));
        }
        has_moved
    }

    /// Closes a transport whose connection has ended.
    fn close(&mut self, side: Side, cause: &anyhow::Error) {
        let next = self.failed(side, cause);
        if let Leg::Open(mut pipe) = mem::replace(self.leg(side), next) {
            self.bridge.transmit(side, &mut pipe.output);
            spawn_local(pipe.finish());
        }
    }

    /// Logs why there is no connection, and returns when there is to be one again.
    fn failed(&mut self, side: Side, cause: &anyhow::Error) -> Leg {
        let (minimum, maximum) = self.settings.reconnect;
        // The broker of this program is reached at once, if not when it has just failed.
        let mut wait = Duration::from_secs(1);
        if side == Side::Remote {
            wait = jittered(self.backoff);
            self.backoff = (self.backoff * 2).clamp(minimum, maximum);
        }
        warn!(
            bridge = &*self.settings.name,
            %side,
            address = &*self.settings.address,
            cause = format!("{cause:#}"),
            retry_in_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            "bridge is not connected"
        );
        Leg::Waiting(Instant::now() + wait)
    }

    /// Returns the attempt to open a transport.
    fn open(&self, side: Side) -> leg::Opening {
        match side {
            Side::Local => {
                let opened = self.open_local();
                Box::pin(async { opened })
            }
            Side::Remote => {
                let settings = self.settings.clone();
                let open = async move { open_remote(&settings).await };
                Box::pin(async { timeout(OPEN_TIMEOUT, open).await.context("not in time")? })
            }
        }
    }

    /// Opens a connection to the broker of this program.
    fn open_local(&self) -> anyhow::Result<Box<dyn Transport>> {
        let address = Address::Bridge(self.settings.name.as_str().into());
        let place = self.host.take_place(address).context("too many connections are open")?;
        let link = Link::new(place, None, self.link_settings.clone(), None);
        let (ours, theirs) = duplex(PIPE);
        spawn_local(serve(self.host.clone(), Box::new(link), theirs));
        Ok(Box::new(ours))
    }

    const fn leg(&mut self, side: Side) -> &mut Leg {
        match side {
            Side::Local => &mut self.local,
            Side::Remote => &mut self.remote,
        }
    }
}

async fn open_remote(settings: &Settings) -> anyhow::Result<Box<dyn Transport>> {
    let stream = TcpStream::connect((&*settings.host, settings.port)).await?;
    stream.set_nodelay(true)?;
    let Some(connector) = &settings.tls else { return Ok(Box::new(stream)) };
    let name = ServerName::try_from(settings.host.clone())?;
    Ok(Box::new(connector.connect(name, stream).await.context("TLS")?))
}

/// Returns a random time between half of `wait` and all of it, so that many bridges do not connect
/// to a broker at the same moment.
fn jittered(wait: Duration) -> Duration {
    let mut random = [0; 2];
    // Without randomness the time is the shortest.
    let _ = getrandom::fill(&mut random);
    wait / 2 + wait / 2 * u32::from(u16::from_ne_bytes(random)) / u32::from(u16::MAX)
}
