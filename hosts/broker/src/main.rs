//! An MQTT broker that people keep running: `cargo run --release --bin broker -- --help`.
//!
//! The library's [`Broker`] decides. This program owns the sockets,
//! the clock and the files. The first thread has a task for each listener, and one for the broker's
//! timer. Each of `--threads` has a task for each of its connections, and all call the one broker.
//! Other threads only check passwords, do TLS handshakes, and write to the store.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic"))]

mod access;
mod acl;
mod bridge;
mod clock;
#[cfg(feature = "cluster")]
mod cluster;
mod config;
mod connection;
mod control;
mod ctl;
mod failures;
mod figures;
mod flags;
mod host;
mod journal;
mod limits;
mod lines;
mod listener;
mod lock;
mod metrics;
mod notify;
mod proxy;
mod settings;
mod sn;
mod store;
mod tls;
mod users;
mod websocket;

use anyhow::{Context as _, bail};
use clock::UnixClock;
use config::{Configuration, is_open};
use flags::{Arguments, Command, LogFormat, LogLevel};
use host::{Errand, Host, Shared};
use limits::{Places, REFUSABLE};
use listener::{Listener, remove_left_over};
use mqtt_sansio::broker::Broker;
use notify::notify;
use rustix::process::{Resource, getrlimit, setrlimit};
use settings::Settings;
use std::future::pending;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, available_parallelism};
use std::time::Duration;
use store::Store;
use tokio::net::TcpListener;
use tokio::runtime::{self, Handle};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;
use tracing::{Level, info, warn};

/// The open files of the program that are not connections, at most.
const OTHER_FILES: u64 = 64;

/// The open files with which a thread waits for its connections.
const FILES_OF_THREAD: u64 = 4;

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> anyhow::Result<()> {
    let configuration = Configuration::read()?;
    match &configuration.arguments.command {
        Some(Command::Ctl(arguments)) => return ctl::run(arguments),
        Some(Command::Store(arguments)) => return store::run(arguments),
        None => {}
    }
    start_log(&configuration.arguments);
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let helpers = runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        // They check passwords.
        .max_blocking_threads(available_parallelism().map_or(1, usize::from))
        .build()?;
    LocalSet::new().block_on(&runtime, run(&configuration, helpers.handle().clone()))
}

fn start_log(arguments: &Arguments) {
    let level = match arguments.log_level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    };
    let is_terminal = io::IsTerminal::is_terminal(&io::stderr());
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_ansi(is_terminal)
        .with_target(false);
    match arguments.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}

async fn run(configuration: &Configuration, helpers: Handle) -> anyhow::Result<()> {
    let Configuration { arguments, listeners, bridges } = configuration;
    check_listeners(configuration)?;
    let global = Arc::new(Settings::read(arguments)?);
    let mut settings = Vec::new();
    for (endpoint, own) in listeners {
        settings.push(match Rc::ptr_eq(own, arguments) {
            true => global.clone(),
            false => Settings::read(own).with_context(|| format!("listener {endpoint}"))?.into(),
        });
    }
    if arguments.check_config {
        println!("the configuration is correct");
        return Ok(());
    }
    // Before the listeners, so that a signal does not end a program that says that it listens.
    let (mut interrupt, mut terminate, mut hang_up) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
        signal(SignalKind::hangup())?,
    );
    raise_file_limit(arguments.listener.max_connections, arguments.threads);
    let limit = global.limit.clone();
    let others = settings.iter().filter(|own| !Arc::ptr_eq(own, &global)).cloned();
    let all_settings = others.chain([global.clone()]).collect();
    let mut seed = [0; 16];
    getrandom::fill(&mut seed).context("the system has no randomness")?;
    let (config, seed, clock) =
        (arguments.broker_config(), u128::from_ne_bytes(seed), UnixClock::new());
    let store = arguments.data_dir.as_deref().map(Store::open).transpose().context("--data-dir")?;
    let broker = match &store {
        Some(store) => store::restore(store, config, seed, clock.now()).context("--data-dir")?,
        None => Broker::new(config, seed, clock.now()),
    };
    let (threads, errands): (Vec<_>, Vec<_>) =
        (0..arguments.threads).map(|_| mpsc::unbounded_channel()).unzip();
    let places = Places::new(arguments.listener.max_connections, threads.len());
    let shared = Shared::new(broker, clock, all_settings, places, limit, helpers, threads);
    let shared = Arc::new(shared);
    let host = Rc::new(Host::new(shared.clone(), 0));
    for (number, errands) in (0..).zip(errands) {
        match number {
            0 => host.clone().start(errands),
            _ => start_thread(shared.clone(), number, errands).context("--threads")?,
        }
    }
    #[cfg(feature = "cluster")]
    if !arguments.cluster.cluster.is_empty() {
        // Without a majority of the servers, a node waits here.
        let node = tokio::select! {
            node = cluster::start(&host, arguments) => node.context("--cluster")?,
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
        };
        let _ = host.cluster.set(node);
    }
    // A client that comes before the broker can serve it is refused, and tries another node.
    let mut bound = Vec::new();
    for ((endpoint, _), settings) in listeners.iter().zip(settings) {
        let listener = Listener::bind(endpoint, settings).await;
        bound.push(listener.with_context(|| format!("cannot listen on {endpoint}"))?);
    }
    let sn_socket = match arguments.sn {
        Some(address) => Some(sn::bind(address).await?),
        None => None,
    };
    let metrics = match arguments.metrics {
        Some(address) => Some(TcpListener::bind(address).await.context("--metrics")?),
        None => None,
    };
    let control = match &arguments.control {
        Some(path) => {
            remove_left_over(path).await.context("--control")?;
            Some((control::bind(path).context("--control")?, Removed(path.clone())))
        }
        None => None,
    };
    spawn_local(host.clone().run_timer());
    spawn_local(host.clone().run_reports());
    if let Some(store) = store {
        spawn_local(host.clone().run_store(store));
    }
    if let Some(listener) = metrics {
        info!(address = %listener.local_addr()?, "serving figures");
        spawn_local(metrics::run(listener, host.clone()));
    }
    let _removed = control.map(|(listener, removed)| {
        spawn_local(control::run(listener, host.clone()));
        removed
    });
    let mut tasks = Vec::new();
    for listener in bound {
        info!("listening on {}", listener.endpoint());
        tasks.push(spawn_local(listener.run(shared.clone())));
    }
    if let Some(socket) = sn_socket {
        let gateway = arguments.gateway.clone();
        tasks.push(spawn_local(sn::run(host.clone(), socket, gateway, global)));
    }
    let link_settings = Arc::new(Settings::of_bridges(arguments)?);
    let bridges = bridges.iter().map(|bridge| {
        info!(bridge = bridge.name, address = bridge.address, "starting a bridge");
        let (stop, stopped) = oneshot::channel();
        let run = bridge::run(host.clone(), bridge.clone(), link_settings.clone(), stopped);
        (stop, spawn_local(run))
    });
    let (stops, bridges): (Vec<oneshot::Sender<()>>, Vec<_>) = bridges.unzip();
    notify("READY=1");
    let reloading = host.clone();
    spawn_local(async move {
        while hang_up.recv().await.is_some() {
            reloading.reload().await;
        }
    });
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    notify("STOPPING=1");
    for task in tasks {
        task.abort();
        // Its socket is closed now.
        let _ = task.await;
    }
    // Bridges first, so that they do not connect again.
    drop(stops);
    for bridge in bridges {
        let _ = bridge.await;
    }
    info!(connections = shared.places.open(), "shutting down");
    host.shut_down();
    if timeout(Duration::from_secs(5), shared.places.all_ended()).await.is_err() {
        warn!(connections = shared.places.open(), "some connections did not end in time");
    }
    #[cfg(feature = "cluster")]
    if let Some(node) = host.cluster.get() {
        if timeout(Duration::from_secs(20), node.leave()).await.is_err() {
            warn!("some sessions were not given up in time: other nodes claim them");
        }
    }
    if timeout(Duration::from_secs(5), host.all_synced()).await.is_err() {
        warn!("some records were not stored in time");
    }
    host.report_drops();
    Ok(())
}

/// Starts a thread that serves connections until the program ends.
fn start_thread(
    shared: Arc<Shared>,
    number: u16,
    errands: UnboundedReceiver<Errand>,
) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name(format!("connections-{number}")).spawn(move || {
        let host = Rc::new(Host::new(shared, number));
        LocalSet::new().block_on(&runtime, async {
            host.start(errands);
            pending::<()>().await;
        });
    })?;
    Ok(())
}

/// A file that is removed at the end.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Lets the program have as many open files as it needs, as far as the system allows.
fn raise_file_limit(connections: usize, threads: u16) {
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = u64::try_from(connections.saturating_add(REFUSABLE)).unwrap_or(u64::MAX);
    let others = OTHER_FILES + FILES_OF_THREAD * u64::from(threads);
    let wanted = wanted.saturating_add(others);
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(limit.maximum.unwrap_or(u64::MAX).min(wanted));
        let _ = setrlimit(Resource::Nofile, limit);
    }
    let current = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if current < wanted {
        let room = current.saturating_sub(others);
        warn!("the system's limit of open files leaves room for {room} connections");
    }
}

/// Refuses listeners that let each client on the network do everything, unless the flags say that
/// this is wanted.
fn check_listeners(configuration: &Configuration) -> anyhow::Result<()> {
    for (endpoint, arguments) in &configuration.listeners {
        if !is_open(endpoint, arguments) {
            continue;
        }
        if !endpoint.is_local()? {
            bail!(
                "--listen {endpoint} would accept each client on the network: give \
                 --password-file, or --allow-anonymous true if that is wanted"
            );
        }
        warn!("{endpoint} accepts each client of this machine, because there is no password file");
    }
    Ok(())
}
