//! The flags, and the configuration file, which has the same names.

use crate::listener::Endpoint;
use anyhow::{Context as _, anyhow, bail, ensure};
use clap::{Arg, ArgAction, CommandFactory as _, Parser, ValueEnum};
use mqtt_sansio::broker::{BrokerConfig, Overflow, Rates, SharedStrategy};
use mqtt_sansio::codec::{Expiry, Options, QoS};
use mqtt_sansio::server::ServerConfig;
use std::ffi::OsString;
use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;
use std::{env, fs};
use toml::Value;

/// An MQTT broker for clients of MQTT 3.1, 3.1.1 and 5.0.
#[derive(Parser, Debug)]
#[command(version, next_line_help = false, args_override_self = true)]
pub(crate) struct Arguments {
    /// An address to listen on: `tcp://ADDR:PORT`, `tls://`, `ws://`, `wss://` or `unix:PATH`. Port
    /// 0 selects a free port. `?proxy` at the end expects the PROXY protocol of a balancer. Can be
    /// repeated.
    #[arg(
        long,
        value_name = "URL",
        default_value = "tcp://127.0.0.1:1883",
        action = ArgAction::Append
    )]
    pub(crate) listen: Vec<Endpoint>,
    /// A TOML file with flags: `max-qos = 1`, `no-retain = true`, `listen = ["tcp://[::]:1883"]`.
    /// Flags of the command line take precedence; listeners and options of both count.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Check the flags and all files, and exit.
    #[arg(long)]
    pub(crate) check_config: bool,
    /// Log more; repeated, log all. `RUST_LOG` takes precedence.
    #[arg(short, long, action = ArgAction::Count)]
    pub(crate) verbose: u8,

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
    #[arg(long, requires = "client_ca", help_heading = "Security")]
    pub(crate) certificate_user: bool,

    /// Connections that can be open.
    #[arg(long, value_name = "N", default_value_t = 10_000, help_heading = "Limits")]
    pub(crate) max_connections: usize,
    /// Connections that can be open from one address [default: no limit].
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub(crate) max_connections_per_address: Option<NonZeroUsize>,
    /// Seconds that a new connection has for its CONNECT.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, help_heading = "Limits")]
    pub(crate) connect_timeout: u64,
    /// Seconds in which a packet must arrive as a whole.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, help_heading = "Limits")]
    pub(crate) packet_timeout: u64,
    /// The largest CONNECT, SUBSCRIBE or UNSUBSCRIBE in bytes.
    #[arg(long, value_name = "BYTES", default_value = "131072", help_heading = "Limits")]
    max_request_size: NonZeroU32,
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
    /// The treatment of a message for a client whose queue is full.
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
    /// Let clients before 5.0 exceed `--max-qos` and `--no-retain`, which they cannot know: the QoS
    /// is lowered, and RETAIN ignored.
    #[arg(long = "lower-before-5.0", help_heading = "Protocol")]
    lower_before_5_0: bool,
    /// Be a Sparkplug Aware MQTT Server: retain birth messages below `$sparkplug/certificates/`.
    #[arg(long, help_heading = "Protocol")]
    sparkplug: bool,
    /// Publish figures below `$SYS/broker/` at this interval; 0 for never.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, help_heading = "Protocol")]
    sys_interval: u64,
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

/// Converts a configuration file to flags.
fn flags(text: &str) -> anyhow::Result<impl Iterator<Item = String>> {
    let command = Arguments::command();
    let mut flags = Vec::new();
    for (name, value) in text.parse::<toml::Table>()? {
        let is_known = |argument: &Arg| argument.get_long() == Some(&name);
        let argument = command.get_arguments().find(|argument| is_known(argument));
        let argument = argument.filter(|_| !["config", "check-config"].contains(&&*name));
        let argument = argument.with_context(|| format!("there is no setting {name:?}"))?;
        let flag = format!("--{name}");
        let takes_value = argument.get_action().takes_values();
        let values = match value {
            Value::Array(values) => values,
            value => vec![value],
        };
        for value in values {
            match value {
                Value::Boolean(true) if !takes_value => flags.push(flag.clone()),
                Value::Boolean(false) if !takes_value => {}
                Value::Integer(count @ 0..=9)
                    if matches!(argument.get_action(), ArgAction::Count) =>
                {
                    flags.extend((0..count).map(|_| flag.clone()));
                }
                Value::String(value) if takes_value => flags.push(format!("{flag}={value}")),
                Value::Integer(_) | Value::Boolean(_) if takes_value => {
                    flags.push(format!("{flag}={value}"));
                }
                value => bail!("{name}: expected another kind of value, found {value}"),
            }
        }
    }
    Ok(flags.into_iter())
}

/// Returns what is wrong, without advice about the command line.
fn first_lines(error: &clap::Error) -> String {
    let text = error.to_string();
    let text = text.trim_start_matches("error: ");
    text.split("\n\n").next().unwrap_or_default().to_owned()
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
    /// Reads the command line and the configuration file that it names. Ends the program if a flag
    /// is wrong, or asks for help.
    pub(crate) fn read() -> anyhow::Result<Self> {
        let command_line: Vec<OsString> = env::args_os().collect();
        let first = Self::try_parse_from(&command_line).unwrap_or_else(|error| error.exit());
        let Some(path) = &first.config else { return first.checked() };
        let read = || {
            let mut all: Vec<OsString> = command_line.iter().take(1).cloned().collect();
            all.extend(flags(&fs::read_to_string(path)?)?.map(OsString::from));
            // Without the command line, so that an error is known to be in the file.
            Self::try_parse_from(&all).map_err(|error| anyhow!(first_lines(&error)))?;
            anyhow::Ok(all)
        };
        let mut all = read().with_context(|| path.display().to_string())?;
        all.extend(command_line.into_iter().skip(1));
        Self::try_parse_from(&all).unwrap_or_else(|error| error.exit()).checked()
    }

    /// Refuses flags that contradict each other, as far as the declarations do not.
    fn checked(self) -> anyhow::Result<Self> {
        let tls = self.listen.iter().find(|endpoint| endpoint.has_tls());
        if let (Some(endpoint), None) = (tls, &self.cert) {
            bail!("--listen {endpoint} needs --cert and --key");
        }
        ensure!(tls.is_some() || self.cert.is_none(), "--cert needs a --listen with tls or wss");
        ensure!(
            self.allow_anonymous != Some(false) || self.password_file.is_some(),
            "--allow-anonymous false needs --password-file, or no client could connect"
        );
        for (index, endpoint) in self.listen.iter().enumerate() {
            let before = self.listen.iter().take(index);
            let is_fixed = !endpoint.to_string().ends_with(":0");
            ensure!(
                !is_fixed || !before.clone().any(|other| other == endpoint),
                "--listen {endpoint} is given twice"
            );
        }
        Ok(self)
    }

    /// Whether each client that reaches the listener can do everything, although no flag says so.
    pub(crate) fn is_open(&self, endpoint: &Endpoint) -> bool {
        let has_certificate = endpoint.has_tls() && self.client_ca.is_some();
        self.allow_anonymous.is_none() && self.password_file.is_none() && !has_certificate
    }

    /// Returns the configuration of the broker.
    pub(crate) fn broker_config(&self) -> BrokerConfig {
        let server = ServerConfig::new()
            .connect_timeout(Duration::from_secs(self.connect_timeout))
            .maximum_request_size(self.max_request_size.get())
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
            .lower_before_5_0(self.lower_before_5_0)
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
            .sparkplug_aware(self.sparkplug)
            .sys_interval((self.sys_interval > 0).then(|| Duration::from_secs(self.sys_interval)))
    }

    /// Returns how fast each client can publish.
    pub(crate) const fn rates(&self) -> Rates {
        Rates { messages_per_second: self.max_message_rate, bytes_per_second: self.max_byte_rate }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_file_becomes_flags() {
        let text = "max-qos = 1\nno-retain = true\nverbose = 2\nallow-anonymous = true\n\
                    no-shared-subscriptions = false\nlisten = [\"tcp://a:1\", \"ws://a:2\"]";
        let mut flags: Vec<_> = flags(text).unwrap().collect();
        flags.sort();
        assert_eq!(
            flags.join(" "),
            "--allow-anonymous=true --listen=tcp://a:1 --listen=ws://a:2 --max-qos=1 --no-retain \
             --verbose --verbose"
        );
    }

    #[test]
    fn wrong_setting_is_refused_with_its_name() {
        for (text, expected) in [
            ("max-qo = 1", "there is no setting \"max-qo\""),
            ("config = \"a\"", "there is no setting \"config\""),
            ("no-retain = 1", "no-retain: expected another kind of value, found 1"),
            ("[max-qos]", "max-qos: expected another kind of value"),
        ] {
            let error = flags(text).map(drop).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        for (flags, expected) in [
            ("--listen tls://a:1", "--listen tls://a:1 needs --cert and --key"),
            ("--cert a --key b", "--cert needs a --listen with tls or wss"),
            ("--allow-anonymous false", "--allow-anonymous false needs --password-file"),
            ("--listen tcp://a:1 --listen a:1", "--listen tcp://a:1 is given twice"),
        ] {
            let flags = ["broker"].into_iter().chain(flags.split(' '));
            let error = Arguments::try_parse_from(flags).unwrap().checked().unwrap_err();
            assert!(error.to_string().starts_with(expected), "{error}");
        }
        for flags in ["--no-shared-subscriptions --shared-strategy topic-hash", "--cert a"] {
            let flags = ["broker"].into_iter().chain(flags.split(' '));
            assert!(Arguments::try_parse_from(flags).is_err());
        }
    }
}
