//! An MQTT broker that people keep running: `cargo run --release --bin broker -- --help`.
//!
//! The library's [`Broker`](mqtt_sansio::broker::Broker) decides. This program owns the sockets,
//! the clock and the files. One thread runs the broker: a task for each listener, one for each
//! connection, and one for the broker's timer. Only passwords are checked on other threads.

mod config;
mod connection;
mod host;
mod listener;

use anyhow::Context as _;
use clap::Parser as _;
use config::Arguments;
use host::Host;
use listener::Listener;
use log::{info, warn};
use std::rc::Rc;
use std::time::Duration;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;

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
    let mut listeners = Vec::new();
    for endpoint in &arguments.listen {
        let listener = Listener::bind(endpoint).await;
        listeners.push(listener.with_context(|| format!("cannot listen on {endpoint}"))?);
    }
    let mut seed = [0; 16];
    getrandom::fill(&mut seed).context("the system has no randomness")?;
    let host = Rc::new(Host::new(&arguments, u128::from_ne_bytes(seed)));
    let mut tasks = vec![spawn_local(host.clone().run_timer())];
    for listener in listeners {
        info!("listening on {}", listener.endpoint());
        tasks.push(spawn_local(listener.run(host.clone())));
    }
    stop_signal().await;
    for task in tasks.drain(1..) {
        task.abort();
    }
    info!("shutting down, {} connections are open", host.connections());
    host.shut_down();
    if timeout(Duration::from_secs(5), host.all_ended()).await.is_err() {
        warn!("{} connections did not end in time", host.connections());
    }
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
