//! The flags.

use crate::listener::Endpoint;
use clap::{Parser, ValueEnum};
use mqtt_sansio::broker::{BrokerConfig, Overflow, Rates, SharedStrategy};
use mqtt_sansio::codec::{Expiry, Options, QoS};
use mqtt_sansio::server::ServerConfig;
use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};
use std::time::Duration;

/// An MQTT broker for clients of MQTT 3.1, 3.1.1 and 5.0.
#[derive(Parser, Debug)]
#[command(version, next_line_help = false, args_override_self = true)]
pub(crate) struct Arguments {
    /// Where to listen: `tcp://ADDR:PORT`; port 0 selects a free port. Can be repeated.
    #[arg(long, value_name = "URL", default_value = "tcp://127.0.0.1:1883")]
    pub(crate) listen: Vec<Endpoint>,
    /// Logs more; repeated, logs all. `RUST_LOG` takes precedence.
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,

    /// Connections that can be open.
    #[arg(long, value_name = "N", default_value_t = 10_000, help_heading = "Limits")]
    pub(crate) max_connections: usize,
    /// Seconds that a new connection has for its CONNECT.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, help_heading = "Limits")]
    pub(crate) connect_timeout: u64,
    /// Seconds in which a packet must arrive as a whole.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, help_heading = "Limits")]
    pub(crate) packet_timeout: u64,
    /// The largest CONNECT in bytes.
    #[arg(long, value_name = "BYTES", default_value = "131072", help_heading = "Limits")]
    max_connect_size: NonZeroU32,
    /// The largest other packet in bytes.
    #[arg(long, value_name = "BYTES", default_value = "33554432", help_heading = "Limits")]
    max_packet_size: NonZeroU32,
    /// Messages with QoS 1 and 2 that a client can have in flight.
    #[arg(long, value_name = "N", default_value = "1024", help_heading = "Limits")]
    receive_maximum: NonZeroU16,
    /// Messages with QoS 1 and 2 that can be in flight to a client.
    #[arg(long, value_name = "N", default_value = "256", help_heading = "Limits")]
    max_in_flight: NonZeroU16,
    /// Messages that can wait for a client.
    #[arg(long, value_name = "N", default_value_t = 1_000, help_heading = "Limits")]
    max_queued_messages: usize,
    /// Bytes of messages that can wait for a client.
    #[arg(long, value_name = "BYTES", default_value_t = 67_108_864, help_heading = "Limits")]
    max_queued_bytes: usize,
    /// What happens to a message for a client whose queue is full.
    #[arg(long, value_name = "POLICY", default_value = "drop-new", help_heading = "Limits")]
    overflow: OverflowArgument,
    /// SUBSCRIBE and UNSUBSCRIBE packets of a client that can wait for their answers.
    #[arg(long, value_name = "N", default_value = "8", help_heading = "Limits")]
    max_requests: NonZeroUsize,
    /// The longest keep alive in seconds that a client is granted [default: as requested].
    #[arg(long, value_name = "SECONDS", help_heading = "Limits")]
    max_keep_alive: Option<NonZeroU16>,
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
    max_qos: u8,
    /// The greatest topic alias that a client can use; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 16, help_heading = "Protocol")]
    topic_alias_maximum: u16,
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
    shared_strategy: Option<SharedStrategyArgument>,
    /// `$share/NAME/FILTER` is a shared subscription for clients before 5.0 as well.
    #[arg(long = "shared-before-5.0", help_heading = "Protocol")]
    shared_before_5_0: bool,
    /// Publish figures below `$SYS/broker/` every so many seconds; 0 for never.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, help_heading = "Protocol")]
    sys_interval: u64,
    /// A deviation from the standard that is accepted or refused, such as `dup-with-qos-0`;
    /// `deployed-devices` for all that devices are known to need. Can be repeated.
    #[arg(
        long,
        value_name = "OPTION",
        value_parser = parse_option,
        action = clap::ArgAction::Append,
        help_heading = "Protocol"
    )]
    option: Vec<Options>,
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

impl Arguments {
    /// Returns the configuration of the broker.
    pub(crate) fn broker_config(&self) -> BrokerConfig {
        let server = ServerConfig::new()
            .connect_timeout(Duration::from_secs(self.connect_timeout))
            .maximum_connect_size(self.max_connect_size.get())
            .maximum_packet_size(self.max_packet_size.get())
            .receive_maximum(self.receive_maximum.get())
            .maximum_in_flight(self.max_in_flight.get())
            .maximum_queued(self.max_queued_messages, self.max_queued_bytes)
            .maximum_requests(self.max_requests.get())
            .maximum_keep_alive(self.max_keep_alive)
            .maximum_session_expiry(Expiry::from_seconds(self.max_session_expiry))
            .maximum_qos(QoS::from_u8(self.max_qos).unwrap_or_default())
            .topic_alias_maximum(self.topic_alias_maximum)
            .automatic_topic_aliases(self.automatic_topic_aliases)
            .retain_available(!self.no_retain)
            .wildcard_subscription_available(!self.no_wildcard_subscriptions)
            .subscription_identifier_available(!self.no_subscription_identifiers)
            .shared_subscription_available(!self.no_shared_subscriptions)
            .options(self.option.iter().copied().collect());
        BrokerConfig::new(server)
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
            .sys_interval((self.sys_interval > 0).then(|| Duration::from_secs(self.sys_interval)))
    }

    /// Returns how fast each client can publish.
    pub(crate) const fn rates(&self) -> Rates {
        Rates { messages_per_second: self.max_message_rate, bytes_per_second: self.max_byte_rate }
    }
}
