//! A transparent gateway from MQTT-SN 1.2 over UDP to any MQTT broker.

use anyhow::Context as _;
use clap::Parser;
use mqtt_sansio::Clock;
use mqtt_sansio::sn::{Gateway, GatewayConfig};
use mqtt_sansio_sn_gateway::GatewayArguments;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use std::{fs, io};
use tokio::net::{TcpStream, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tracing::info;

/// The time to open a connection to the broker.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// A gateway from MQTT-SN 1.2 over UDP to an MQTT broker. Each client has a connection of its own.
#[derive(Parser, Debug)]
#[command(version)]
struct Arguments {
    /// The UDP address for MQTT-SN. MQTT-SN has no encryption and no passwords.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:1884")]
    listen: SocketAddr,
    /// The broker, which must accept MQTT 3.1.1.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:1883")]
    broker: String,
    /// The user name for the broker, the same for all clients.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// A file with the password for the broker.
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// Check the flags and the password file, and exit.
    #[arg(long)]
    check_config: bool,
    #[command(flatten)]
    gateway: GatewayArguments,
}

impl Arguments {
    fn config(&self) -> anyhow::Result<GatewayConfig> {
        let mut config = self.gateway.config();
        if let Some(user) = &self.user {
            let password = self.password_file.as_ref().map(fs::read_to_string).transpose();
            let password = password.context("--password-file")?;
            let password = password.as_deref().map(|text| text.trim_end_matches(['\r', '\n']));
            config = config.credentials(user, password.map(str::as_bytes));
        }
        Ok(config)
    }
}

fn main() -> ExitCode {
    let is_terminal = io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(is_terminal);
    log.with_target(false).init();
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn start() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let gateway = Gateway::new(arguments.config()?);
    if arguments.check_config {
        println!("the configuration is correct");
        return Ok(());
    }
    // Before the socket, so that a signal does not end a program that says that it listens.
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let stop = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let socket = UdpSocket::bind(arguments.listen).await;
    let socket = socket.with_context(|| format!("cannot listen on {}", arguments.listen))?;
    let broadcast = arguments.gateway.sn_broadcast;
    info!("listening on udp://{}", socket.local_addr()?);
    let clock = Clock::new();
    let open = || {
        let broker = arguments.broker.clone();
        async move {
            let opened = timeout(OPEN_TIMEOUT, TcpStream::connect(broker)).await;
            let stream = opened.map_err(|_| io::ErrorKind::TimedOut)??;
            stream.set_nodelay(true)?;
            Ok(stream)
        }
    };
    let run = mqtt_sansio_sn_gateway::run(socket, gateway, broadcast, || clock.now(), open, stop);
    run.await.context("UDP socket")
}
