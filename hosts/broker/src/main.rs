//! An MQTT broker that people keep running: `cargo run --release --bin broker -- --help`.
//!
//! The library's [`Broker`](mqtt_sansio::broker::Broker) decides. This program owns the sockets,
//! the clock and the files. One thread runs the broker: a task for each listener, one for each
//! connection, and one for the broker's timer. Only passwords are checked on other
//! threads.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic"))]

mod access;
mod acl;
mod config;
mod connection;
mod failures;
mod host;
mod lines;
mod listener;
mod notify;
mod proxy;
mod tls;
mod users;
mod websocket;

use access::Access;
use anyhow::{Context as _, bail};
use config::Arguments;
use host::Host;
use listener::Listener;
use log::{info, warn};
use notify::notify;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::process::ExitCode;
use std::rc::Rc;
use std::thread::available_parallelism;
use std::time::Duration;
use tls::Certificates;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;

/// The open files of the program that are not connections, at most.
const OTHER_FILES: u64 = 32;

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
    let arguments = Arguments::read()?;
    let level = match arguments.verbose {
        0 => "info",
        1 => "broker=debug,info",
        _ => "trace",
    };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level)).init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // They check passwords.
        .max_blocking_threads(available_parallelism().map_or(1, Into::into))
        .build()?;
    LocalSet::new().block_on(&runtime, run(arguments))
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    check_listeners(&arguments)?;
    let access = Access::read(&arguments)?;
    let certificates = Certificates::read(&arguments)?;
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
    raise_file_limit(arguments.max_connections);
    let listeners = bind(&arguments).await?;
    let mut seed = [0; 16];
    getrandom::fill(&mut seed).context("the system has no randomness")?;
    let host = Host::new(&arguments, access, certificates, u128::from_ne_bytes(seed));
    let host = Rc::new(host);
    let _timer = spawn_local(host.clone().run_timer());
    let mut tasks = Vec::new();
    for listener in listeners {
        info!("listening on {}", listener.endpoint());
        tasks.push(spawn_local(listener.run(host.clone())));
    }
    notify("READY=1");
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = hang_up.recv() => host.reload(),
        }
    }
    notify("STOPPING=1");
    for task in tasks {
        task.abort();
        // Its socket is closed now.
        let _ = task.await;
    }
    info!("shutting down, {} connections are open", host.connections());
    host.shut_down();
    if timeout(Duration::from_secs(5), host.all_ended()).await.is_err() {
        warn!("{} connections did not end in time", host.connections());
    }
    Ok(())
}

/// Lets the program have as many open files as it needs, as far as the system allows.
fn raise_file_limit(connections: usize) {
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(OTHER_FILES);
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(limit.maximum.unwrap_or(u64::MAX).min(wanted));
        let _ = setrlimit(Resource::Nofile, limit);
    }
    let current = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if current < wanted {
        let room = current.saturating_sub(OTHER_FILES);
        warn!("the system's limit of open files leaves room for {room} connections");
    }
}

/// Opens all listeners.
async fn bind(arguments: &Arguments) -> anyhow::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    for endpoint in &arguments.listen {
        let listener = Listener::bind(endpoint).await;
        listeners.push(listener.with_context(|| format!("cannot listen on {endpoint}"))?);
    }
    Ok(listeners)
}

/// Refuses listeners that let each client on the network do everything, unless the flags say that
/// this is wanted.
fn check_listeners(arguments: &Arguments) -> anyhow::Result<()> {
    for endpoint in arguments.listen.iter().filter(|endpoint| arguments.is_open(endpoint)) {
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
