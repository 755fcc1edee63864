//! The flags.

#[cfg(feature = "cluster")]
use crate::cluster::ClusterArguments;
use crate::ctl;
use crate::listener::Endpoint;
use crate::store;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use mqtt_sansio::broker::{BrokerConfig, Overflow, Rates, SharedStrategy};
use mqtt_sansio::codec::{Expiry, Options, QoS};
use mqtt_sansio::server::ServerConfig;
use mqtt_sansio_sn_gateway::GatewayArguments;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

/// The largest packet in bytes that the broker accepts by default.
const MAX_PACKET: u32 = 32 * 1024 * 1024;

/// The largest that a node accepts: many of them must fit into an entry of a session.
pub(crate) const MAX_PACKET_OF_NODE: u32 = 1024 * 1024;

/// An MQTT broker for clients of MQTT 3.1, 3.1.1 and 5.0.
#[derive(Parser, Debug)]
#[command(
    version,
    next_line_help = false,
    args_override_self = true,
    args_conflicts_with_subcommands = true
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// An address to listen on: `tcp://ADDR:PORT`, `tls://`, `ws://`, `wss://` or `unix:PATH`. Port
    /// 0 selects a free port. `?proxy` at the end expects the PROXY protocol of a balancer. Can be
    /// repeated [default: tcp://127.0.0.1:1883].
    #[arg(long, value_name = "URL", action = ArgAction::Append)]
    pub(crate) listen: Vec<Endpoint>,
    /// A UDP address for clients of MQTT-SN 1.2, which has no encryption and no passwords. It needs
    /// `--allow-anonymous true` if there is a password file, or if the network reaches it.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) sn: Option<SocketAddr>,
    /// A TOML file with flags: `max-qos = 1`, `no-retain = true`, `listen = ["tcp://[::]:1883"]`.
    /// Flags of the command line take precedence; listeners and options of both count.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Check the flags and all files, and exit.
    #[arg(long)]
    pub(crate) check_config: bool,

    #[command(flatten)]
    pub(crate) listener: ListenerArguments,
    #[command(flatten)]
    pub(crate) gateway: GatewayArguments,
    #[cfg(feature = "cluster")]
    #[command(flatten)]
    pub(crate) cluster: ClusterArguments,

    /// Threads that serve connections, each its share of them.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=64),
        help_heading = "Operation"
    )]
    pub(crate) threads: u16,
    /// Keep sessions and retained messages in this directory. Without it they end with the program.
    #[arg(long, value_name = "DIR", help_heading = "Operation")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Serve figures for Prometheus at `http://ADDR:PORT/metrics`, and `/healthz`.
    #[arg(long, value_name = "ADDR:PORT", help_heading = "Operation")]
    pub(crate) metrics: Option<SocketAddr>,
    /// A socket for `broker ctl`, which only the user of the broker can open.
    #[arg(long, value_name = "PATH", help_heading = "Operation")]
    pub(crate) control: Option<PathBuf>,
    /// The least important events that are logged.
    #[arg(long, value_name = "LEVEL", default_value = "info", help_heading = "Operation")]
    pub(crate) log_level: LogLevel,
    /// The format of the log.
    #[arg(long, value_name = "FORMAT", default_value = "text", help_heading = "Operation")]
    pub(crate) log_format: LogFormat,

    /// Bytes of records that are not on disk yet; while there are more, nothing is read.
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = 16_777_216,
        requires = "data_dir",
        help_heading = "Limits"
    )]
    max_unsynced_bytes: usize,
    /// Seconds until the broker answers a client in place of this program.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, help_heading = "Limits")]
    answer_timeout: u64,
    /// Messages that can wait for a client.
    #[arg(long, value_name = "N", default_value_t = 1_000, help_heading = "Limits")]
    max_queued_messages: usize,
    /// Bytes of messages that can wait for a client.
    #[arg(long, value_name = "BYTES", default_value_t = 67_108_864, help_heading = "Limits")]
    max_queued_bytes: usize,
    /// The treatment of a message for a client whose queue is full.
    #[arg(long, value_name = "POLICY", default_value = "drop-new", help_heading = "Limits")]
    overflow: OverflowArgument,
    /// SUBSCRIBE and UNSUBSCRIBE packets of a client that can wait for their answers.
    #[arg(long, value_name = "N", default_value = "8", help_heading = "Limits")]
    max_requests: NonZeroUsize,
    /// The longest time in seconds that a session is kept for a client that is away [default: no
    /// limit].
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = u32::MAX,
        hide_default_value = true,
        help_heading = "Limits"
    )]
    max_session_expiry: u32,
    /// Sessions, with those of clients that are away.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, help_heading = "Limits")]
    max_sessions: usize,
    /// Subscriptions of a client.
    #[arg(long, value_name = "N", default_value_t = 10_000, help_heading = "Limits")]
    max_subscriptions: usize,
    /// Bytes of all topic filters of a client.
    #[arg(long, value_name = "BYTES", default_value_t = 1_048_576, help_heading = "Limits")]
    max_subscription_bytes: usize,
    /// Levels of a topic filter.
    #[arg(long, value_name = "N", default_value_t = 128, help_heading = "Limits")]
    max_topic_levels: usize,
    /// Members of a shared subscription.
    #[arg(long, value_name = "N", default_value_t = 1_000, help_heading = "Limits")]
    max_group_members: usize,
    /// Retained messages.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, help_heading = "Limits")]
    max_retained_messages: usize,
    /// Bytes of retained messages.
    #[arg(long, value_name = "BYTES", default_value_t = 1_073_741_824, help_heading = "Limits")]
    max_retained_bytes: usize,

    /// Topics that the broker gives an alias, for clients that allow it.
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Protocol")]
    automatic_topic_aliases: u16,
    /// Keep no retained messages.
    #[arg(long, help_heading = "Protocol")]
    no_retain: bool,
    /// Refuse topic filters with wildcards.
    #[arg(long, help_heading = "Protocol")]
    no_wildcard_subscriptions: bool,
    /// Refuse subscription identifiers.
    #[arg(long, help_heading = "Protocol")]
    no_subscription_identifiers: bool,
    /// Refuse shared subscriptions.
    #[arg(
        long,
        conflicts_with_all = ["shared_strategy", "shared_before_5_0"],
        help_heading = "Protocol"
    )]
    no_shared_subscriptions: bool,
    /// The member of a shared subscription that receives a message [default: round-robin].
    #[arg(long, value_name = "STRATEGY", help_heading = "Protocol")]
    // The members of all nodes take turns.
    #[cfg_attr(feature = "cluster", arg(conflicts_with = "cluster"))]
    shared_strategy: Option<SharedStrategyArgument>,
    /// `$share/NAME/FILTER` is a shared subscription for clients before 5.0 as well.
    #[arg(long = "shared-before-5.0", help_heading = "Protocol")]
    shared_before_5_0: bool,
    /// Let clients before 5.0 exceed `--max-qos` and `--no-retain`, which they cannot know: the QoS
    /// is lowered, and RETAIN ignored.
    #[arg(long = "lower-before-5.0", help_heading = "Protocol")]
    lower_before_5_0: bool,
    /// Be a Sparkplug Aware MQTT Server: retain birth messages below `$sparkplug/certificates/`.
    #[arg(long, help_heading = "Protocol")]
    sparkplug: bool,
    /// Publish figures below `$SYS/broker/` at this interval; 0 for never.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, help_heading = "Protocol")]
    pub(crate) sys_interval: u64,
    /// A deviation from the standard that is accepted or refused, such as `dup-with-qos-0`;
    /// `deployed-devices` for all that devices are known to need. Can be repeated.
    #[arg(
        long,
        value_name = "OPTION",
        value_parser = parse_option,
        action = ArgAction::Append,
        help_heading = "Protocol"
    )]
    option: Vec<Options>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Ask a running broker, or tell it to do something.
    Ctl(ctl::Arguments),
    /// Check, export or import the store of a broker that is not running.
    Store(store::Arguments),
}

/// The settings that a `[[listener]]` of the configuration file can have of its own.
#[derive(Args, Debug)]
pub(crate) struct ListenerArguments {
    /// Users with the hashes of their passwords, in mosquitto's format: `mosquitto_passwd` writes
    /// it. Read again at SIGHUP.
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    pub(crate) password_file: Option<PathBuf>,
    /// Rights of users and clients, in mosquitto's format. Read again at SIGHUP.
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    pub(crate) acl_file: Option<PathBuf>,
    /// Whether clients without a user name can connect [default: only if there is no password
    /// file].
    #[arg(long, value_name = "true|false", help_heading = "Security")]
    pub(crate) allow_anonymous: Option<bool>,
    /// The certificate chain of the server, in PEM. Read again at SIGHUP.
    #[arg(long, value_name = "FILE", requires = "key", help_heading = "Security")]
    pub(crate) cert: Option<PathBuf>,
    /// The private key of the server, in PEM. Read again at SIGHUP.
    #[arg(long, value_name = "FILE", requires = "cert", help_heading = "Security")]
    pub(crate) key: Option<PathBuf>,
    /// Clients of TLS listeners must have a certificate from this authority. Read again at SIGHUP.
    #[arg(long, value_name = "FILE", requires = "cert", help_heading = "Security")]
    pub(crate) client_ca: Option<PathBuf>,
    /// Certificates that the authority has revoked, in PEM. Read again at SIGHUP.
    #[arg(long, value_name = "FILE", requires = "client_ca", help_heading = "Security")]
    pub(crate) client_crl: Option<PathBuf>,
    /// The common name of a client's certificate is its user name, and no password is asked for.
    #[arg(
        long,
        requires = "client_ca",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_name = "true|false",
        help_heading = "Security"
    )]
    pub(crate) certificate_user: Option<bool>,

    /// Connections that can be open.
    #[arg(long, value_name = "N", default_value_t = 10_000, help_heading = "Limits")]
    pub(crate) max_connections: usize,
    /// Connections that can be open from one address [default: no limit].
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub(crate) max_connections_per_address: Option<NonZeroUsize>,
    /// Connections that can come in each second, and as many at once after a quiet second [default:
    /// no limit].
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub(crate) max_connection_rate: Option<NonZeroU32>,
    /// Connections that can come from one address in each second [default: no limit].
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub(crate) max_connection_rate_per_address: Option<NonZeroU32>,
    /// Seconds that a new connection has for its CONNECT.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, help_heading = "Limits")]
    pub(crate) connect_timeout: u64,
    /// Seconds in which a packet must arrive as a whole.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, help_heading = "Limits")]
    pub(crate) packet_timeout: u64,
    /// The largest CONNECT, SUBSCRIBE or UNSUBSCRIBE in bytes.
    #[arg(long, value_name = "BYTES", default_value = "131072", help_heading = "Limits")]
    max_request_size: NonZeroU32,
    /// The largest other packet in bytes [default: 33554432; 1048576 with --cluster].
    #[arg(long, value_name = "BYTES", help_heading = "Limits")]
    max_packet_size: Option<NonZeroU32>,
    /// Messages with QoS 1 and 2 that a client can have in flight.
    #[arg(long, value_name = "N", default_value = "1024", help_heading = "Limits")]
    receive_maximum: NonZeroU16,
    /// Messages with QoS 1 and 2 that can be in flight to a client.
    #[arg(long, value_name = "N", default_value = "256", help_heading = "Limits")]
    max_in_flight: NonZeroU16,
    /// The longest keep alive in seconds that a client is granted [default: as requested].
    #[arg(long, value_name = "SECONDS", help_heading = "Limits")]
    max_keep_alive: Option<NonZeroU16>,
    /// Messages that a client can publish in each second; then it is slowed down [default: no
    /// limit].
    #[arg(long, value_name = "N", help_heading = "Limits")]
    max_message_rate: Option<NonZeroU32>,
    /// Bytes that a client can publish in each second; then it is slowed down [default: no limit].
    #[arg(long, value_name = "BYTES", help_heading = "Limits")]
    max_byte_rate: Option<NonZeroU32>,

    /// The greatest QoS with which a client can publish.
    #[arg(
        long,
        value_name = "0..2",
        default_value_t = 2,
        value_parser = clap::value_parser!(u8).range(0..=2),
        help_heading = "Protocol"
    )]
    pub(crate) max_qos: u8,
    /// The greatest topic alias that a client can use; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 16, help_heading = "Protocol")]
    topic_alias_maximum: u16,
}

/// The level of the log, as a flag.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// The format of the log, as a flag.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    /// A line of text for each event.
    Text,
    /// A line with a JSON object for each event.
    Json,
}

/// [`Overflow`] as a flag.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum OverflowArgument {
    /// The new message is dropped.
    DropNew,
    /// Waiting messages with QoS 0 are dropped, the oldest first.
    DropOldestQos0,
    /// The client is disconnected.
    Disconnect,
}

/// [`SharedStrategy`] as a flag.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum SharedStrategyArgument {
    /// The members take turns.
    RoundRobin,
    /// The member with the fewest messages that wait or are in flight.
    LeastInFlight,
    /// The same member for each message of a topic.
    TopicHash,
}

impl Arguments {
    /// Whether the broker shares its clients with others.
    #[cfg(feature = "cluster")]
    pub(crate) const fn is_node(&self) -> bool {
        !self.cluster.cluster.is_empty()
    }

    #[cfg(not(feature = "cluster"))]
    pub(crate) const fn is_node(&self) -> bool {
        false
    }

    pub(crate) fn max_packet_size(&self) -> u32 {
        let default = if self.is_node() { MAX_PACKET_OF_NODE } else { MAX_PACKET };
        self.listener.max_packet_size.map_or(default, NonZeroU32::get)
    }

    /// Returns the configuration of the broker.
    pub(crate) fn broker_config(&self) -> BrokerConfig {
        BrokerConfig::new(self.server_config())
            .durable(self.data_dir.is_some())
            .is_node(self.is_node())
            .groups_span_nodes(self.is_node())
            .maximum_unsynced(self.max_unsynced_bytes)
            .maximum_sessions(self.max_sessions)
            .maximum_subscriptions(self.max_subscriptions, self.max_subscription_bytes)
            .maximum_levels(self.max_topic_levels)
            .maximum_group_members(self.max_group_members)
            .maximum_retained(self.max_retained_messages, self.max_retained_bytes)
            .overflow(match self.overflow {
                OverflowArgument::DropNew => Overflow::DropNew,
                OverflowArgument::DropOldestQos0 => Overflow::DropOldestQos0,
                OverflowArgument::Disconnect => Overflow::Disconnect,
            })
            .shared_strategy(match self.shared_strategy {
                None | Some(SharedStrategyArgument::RoundRobin) => SharedStrategy::RoundRobin,
                Some(SharedStrategyArgument::LeastInFlight) => SharedStrategy::LeastInFlight,
                Some(SharedStrategyArgument::TopicHash) => SharedStrategy::TopicHash,
            })
            .shared_before_5_0(self.shared_before_5_0)
            .sparkplug_aware(self.sparkplug)
            .sys_interval((self.sys_interval > 0).then(|| Duration::from_secs(self.sys_interval)))
    }

    /// Returns the configuration of the connections of a listener.
    pub(crate) fn server_config(&self) -> ServerConfig {
        ServerConfig::new()
            .answer_timeout(Duration::from_secs(self.answer_timeout))
            .connect_timeout(Duration::from_secs(self.listener.connect_timeout))
            .maximum_request_size(self.listener.max_request_size.get())
            .maximum_packet_size(self.max_packet_size())
            .receive_maximum(self.listener.receive_maximum.get())
            .maximum_in_flight(self.listener.max_in_flight.get())
            .maximum_queued(self.max_queued_messages, self.max_queued_bytes)
            .maximum_requests(self.max_requests.get())
            .maximum_keep_alive(self.listener.max_keep_alive)
            .maximum_session_expiry(Expiry::from_seconds(self.max_session_expiry))
            .maximum_qos(QoS::from_u8(self.listener.max_qos).unwrap_or_default())
            .topic_alias_maximum(self.listener.topic_alias_maximum)
            .automatic_topic_aliases(self.automatic_topic_aliases)
            .retain_available(!self.no_retain)
            .lower_before_5_0(self.lower_before_5_0)
            .wildcard_subscription_available(!self.no_wildcard_subscriptions)
            .subscription_identifier_available(!self.no_subscription_identifiers)
            .shared_subscription_available(!self.no_shared_subscriptions)
            .options(self.option.iter().copied().collect())
    }

    /// Returns how fast each client can publish.
    pub(crate) const fn rates(&self) -> Rates {
        Rates {
            messages_per_second: self.listener.max_message_rate,
            bytes_per_second: self.listener.max_byte_rate,
        }
    }
}

fn parse_option(text: &str) -> Result<Options, String> {
    let wanted = text.to_uppercase().replace('-', "_");
    let named = |option: &Options| option.to_string() == wanted;
    match Options::ALL.iter().find(|option| named(option)) {
        Some(option) => Ok(*option),
        None if wanted == "DEPLOYED_DEVICES" => Ok(Options::DEPLOYED_DEVICES),
        None => {
            let name = |option: &Options| option.to_string().to_lowercase().replace('_', "-");
            let names: Vec<_> = Options::ALL.iter().map(name).collect();
            Err(format!("expected deployed-devices, {}", names.join(", ")))
        }
    }
}
