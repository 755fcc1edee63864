//! A transparent gateway from MQTT-SN 1.2 over UDP to any MQTT broker.

use anyhow::Context as _;
use clap::Parser;
use mqtt_sansio::Clock;
use mqtt_sansio::sn::{Gateway, GatewayConfig, Retry};
use mqtt_sansio_sn_gateway::PredefinedTopic;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use std::{fs, io};
use tokio::net::{TcpStream, UdpSocket};
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
    /// The number of this gateway in its network.
    #[arg(long, value_name = "N", default_value_t = 1)]
    gateway_id: u8,
    /// A predefined topic: `7=room/4`. Can be repeated.
    #[arg(long, value_name = "ID=TOPIC")]
    topic: Vec<PredefinedTopic>,
    /// The address that broadcasts are sent to, such as `255.255.255.255:1884` or a multicast
    /// group. Without it, SEARCHGW is answered to the client that asked.
    #[arg(long, value_name = "ADDR:PORT")]
    broadcast: Option<SocketAddr>,
    /// Seconds between two ADVERTISE messages.
    #[arg(long, value_name = "SECONDS", requires = "broadcast")]
    advertise: Option<u16>,
    /// The user name for the broker, the same for all clients.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// A file with the password for the broker.
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// The client identifier of the connection for messages with QoS -1.
    #[arg(long, value_name = "ID", default_value = "mqtt-sn-gateway")]
    client_id: String,
    /// Discard messages with QoS -1.
    #[arg(long)]
    no_qos_minus_one: bool,
    /// Seconds until a message is sent again that a client has not answered.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    retry_interval: u64,
    /// How often it is sent again.
    #[arg(long, value_name = "N", default_value_t = 4)]
    retries: u8,
    /// Clients, with those that are disconnected.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    max_clients: usize,
    /// Messages that are buffered for a client.
    #[arg(long, value_name = "N", default_value_t = 100)]
    max_buffered_messages: usize,
    /// Bytes of messages that are buffered for a client.
    #[arg(long, value_name = "BYTES", default_value_t = 65_536)]
    max_buffered_bytes: usize,
    /// Bytes of the largest datagram to a client.
    #[arg(long, value_name = "BYTES", default_value_t = 1_400)]
    max_datagram: usize,
}

impl Arguments {
    fn config(&self) -> anyhow::Result<GatewayConfig> {
        let interval = Duration::from_secs(self.retry_interval.max(1));
        let mut config = GatewayConfig::new(self.gateway_id)
            .retry(Retry { interval, count: self.retries })
            .advertise(self.advertise.map(|seconds| Duration::from_secs(seconds.into())))
            .qos_minus_one((!self.no_qos_minus_one).then_some(&*self.client_id))
            .maximum_clients(self.max_clients)
            .maximum_buffered(self.max_buffered_messages, self.max_buffered_bytes)
            .maximum_datagram(self.max_datagram);
        config = PredefinedTopic::add_all(&self.topic, config);
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
    tracing_subscriber::fmt().with_writer(io::stderr).with_target(false).init();
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
    let socket = UdpSocket::bind(arguments.listen).await;
    let socket = socket.with_context(|| format!("cannot listen on {}", arguments.listen))?;
    socket.set_broadcast(arguments.broadcast.is_some())?;
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
    let run =
        mqtt_sansio_sn_gateway::run(socket, gateway, arguments.broadcast, || clock.now(), open);
    tokio::select! {
        error = run => Err(error).context("UDP socket"),
        signal = tokio::signal::ctrl_c() => Ok(signal?),
    }
}
