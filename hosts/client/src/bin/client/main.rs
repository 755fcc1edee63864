//! Publishes, subscribes, requests and inspects from the command line, in the manner of
//! `mosquitto_pub`, `mosquitto_sub` and `mosquitto_rr`. `README.md` has examples.

mod dial;
mod format;
mod inspect;
mod options;
mod progress;
mod properties;
mod proxy;
mod publish;
mod request;
mod subscribe;
mod tls;

use crate::options::{Command, Options};
use anyhow::Result;
use clap::Parser as _;
use std::process::ExitCode;
use std::time::Duration;

/// The exit code of mosquitto's programs when the time of `-W` is over.
pub(crate) const TIMED_OUT: u8 = 27;

fn main() -> ExitCode {
    let command = Options::parse().command;
    let (filter, quiet) = match &command {
        Command::Pub(publish) => (publish.connect.log_filter(), publish.connect.quiet),
        Command::Sub(subscribe) => (subscribe.connect.log_filter(), subscribe.connect.quiet),
        Command::Rr(request) => (request.connect.log_filter(), request.connect.quiet),
        Command::Inspect(_) => ("warn", false),
    };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(filter)).init();
    run(command).unwrap_or_else(|error| {
        if !quiet {
            eprintln!("Error: {error:#}");
        }
        ExitCode::FAILURE
    })
}

fn run(command: Command) -> Result<ExitCode> {
    // The client works on threads of its own, so this one can block in a write to a slow reader.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let result = runtime.block_on(async {
        match command {
            Command::Pub(options) => publish::run(options).await,
            Command::Sub(options) => subscribe::run(options).await,
            Command::Rr(options) => request::run(options).await,
            Command::Inspect(options) => inspect::run(options).await,
        }
    });
    // A thread can be blocked in a read of stdin.
    runtime.shutdown_background();
    result
}

/// Waits for SIGINT or SIGTERM. A little later the program ends in any case, because a write of
/// its output can be blocked.
pub(crate) async fn interrupted() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        }
    }
    #[cfg(not(unix))]
    let _ = tokio::signal::ctrl_c().await;
    std::thread::spawn(|| {
        std::thread::sleep(Duration::from_secs(6));
        std::process::exit(1);
    });
}

/// Completes after that time, or never.
pub(crate) async fn elapsed(seconds: Option<u32>) {
    match seconds {
        Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds.into())).await,
        None => std::future::pending().await,
    }
}
