//! Publishes and subscribes from the command line, in the manner of `mosquitto_pub` and
//! `mosquitto_sub`.
//!
//! ```text
//! client pub -t sensors/4 -m 21.5 -q 1
//! client sub -t 'sensors/#' -v
//! ```
//!
//! [`connection`] is the run loop: socket, timers, stdin or stdout and signals in one `select!`. A
//! [`Task`](connection::Task) publishes or subscribes, and [`Link`](connection::Link) holds the
//! client with its clock and its buffers.

#![expect(clippy::std_instead_of_core, reason = "a program has `std`")]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a new kind of action or outcome is logged like any other unexpected one"
)]

mod connection;
mod options;
mod publish;
mod subscribe;

use crate::connection::run;
use crate::options::{Command, ConnectOptions, Options, PubOptions, SubOptions};
use crate::publish::Publisher;
use crate::subscribe::Subscriber;
use anyhow::Result;
use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let command = Options::parse().command;
    let (Command::Pub(PubOptions { connect, .. }) | Command::Sub(SubOptions { connect, .. })) =
        &command;
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
    // Dropping the runtime would wait for a thread that is blocked in a read of stdin.
    runtime.shutdown_background();
    result
}
