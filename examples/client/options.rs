//! The command line.

use anyhow::Result;
use clap::{ArgAction, Args, Parser, Subcommand};
use mqtt_sansio::codec::{QoS, Version};
use std::path::PathBuf;

#[derive(Parser)]
#[command(
    about = "Publishes and subscribes over MQTT 3.1, 3.1.1 and 5.0",
    disable_help_flag = true
)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Print help
    #[arg(long, global = true, action = ArgAction::HelpLong)]
    pub(crate) help: Option<bool>,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Publish messages
    Pub(PubOptions),
    /// Subscribe to topics and print the messages
    Sub(SubOptions),
}

#[derive(Args)]
pub(crate) struct ConnectOptions {
    /// Name or address of the server
    #[arg(short, long, default_value = "localhost")]
    pub(crate) host: String,
    /// Port of the server
    #[arg(short, long, default_value_t = 1883)]
    pub(crate) port: u16,
    /// Client identifier; a random one if it is not given
    #[arg(short, long)]
    pub(crate) id: Option<String>,
    /// MQTT version: mqttv31, mqttv311 or mqttv5; or 31, 311, 5
    #[arg(short = 'V', long, default_value = "5", value_parser = parse_version)]
    pub(crate) protocol_version: Version,
    /// Keep Alive in seconds: the longest time between packets to the server; 0 turns it off
    #[arg(short, long, default_value_t = 60)]
    pub(crate) keepalive: u16,
    /// QoS of the messages or subscriptions: 0, 1 or 2
    #[arg(short, long, default_value = "0", value_parser = parse_qos)]
    pub(crate) qos: QoS,
    /// User name
    #[arg(short, long)]
    pub(crate) username: Option<String>,
    /// Password
    #[arg(short = 'P', long)]
    pub(crate) pw: Option<String>,
    /// Keep the session when the connection ends, and resume one that the server has
    #[arg(short = 'c', long, requires = "id")]
    pub(crate) disable_clean_session: bool,
    /// Seconds that the server keeps the session after the connection, -1 for ever; 5.0 only
    #[arg(short = 'x', long, value_parser = parse_expiry, allow_hyphen_values = true)]
    pub(crate) session_expiry_interval: Option<u32>,
    /// Topic of the will, which the server publishes if this client vanishes
    #[arg(long)]
    pub(crate) will_topic: Option<String>,
    /// Payload of the will
    #[arg(long, requires = "will_topic", default_value = "", hide_default_value = true)]
    pub(crate) will_payload: String,
    /// QoS of the will: 0, 1 or 2
    #[arg(long, requires = "will_topic", default_value = "0", value_parser = parse_qos)]
    pub(crate) will_qos: QoS,
    /// Retain the will
    #[arg(long, requires = "will_topic")]
    pub(crate) will_retain: bool,
    /// Log each step; RUST_LOG selects levels and modules
    #[arg(short, long)]
    pub(crate) debug: bool,
}

#[derive(Args)]
pub(crate) struct PubOptions {
    #[command(flatten)]
    pub(crate) connect: ConnectOptions,
    /// Topic to publish to
    #[arg(short, long)]
    pub(crate) topic: String,
    #[command(flatten)]
    pub(crate) payload: PayloadOptions,
    /// Retain the message: the server keeps it for later subscribers
    #[arg(short, long)]
    pub(crate) retain: bool,
    /// Publish the message this many times
    #[arg(long, default_value_t = 1, conflicts_with = "stdin_line")]
    pub(crate) repeat: u64,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct PayloadOptions {
    /// Send this text as the message
    #[arg(short, long, allow_hyphen_values = true)]
    pub(crate) message: Option<String>,
    /// Send the contents of a file as the message
    #[arg(short, long)]
    pub(crate) file: Option<PathBuf>,
    /// Send each line of stdin as a message, except for empty lines
    #[arg(short = 'l', long)]
    pub(crate) stdin_line: bool,
    /// Send all of stdin as the message
    #[arg(short, long)]
    pub(crate) stdin_file: bool,
    /// Send a message without payload
    #[arg(short, long)]
    pub(crate) null_message: bool,
}

#[derive(Args)]
pub(crate) struct SubOptions {
    #[command(flatten)]
    pub(crate) connect: ConnectOptions,
    /// Topic filter to subscribe to; can be repeated
    #[arg(short, long, required_unless_present = "unsubscribe")]
    pub(crate) topic: Vec<String>,
    /// Topic filter to unsubscribe from, after subscribing; can be repeated
    #[arg(short = 'U', long)]
    pub(crate) unsubscribe: Vec<String>,
    /// Exit after this many messages
    #[arg(short = 'C', value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Exit with code 27 after this many seconds
    #[arg(short = 'W')]
    pub(crate) seconds: Option<u32>,
    /// Print the topic before the payload
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Do not print retained messages, which can be stale
    #[arg(short = 'R')]
    pub(crate) no_retained: bool,
    /// Print only retained messages, and exit at the first other message
    #[arg(long, conflicts_with = "no_retained")]
    pub(crate) retained_only: bool,
    /// Do not print a newline after the payload
    #[arg(short = 'N')]
    pub(crate) no_newline: bool,
}

pub(crate) fn parse_version(text: &str) -> Result<Version, String> {
    match text.trim_start_matches("mqttv") {
        "31" => Ok(Version::V3_1),
        "311" => Ok(Version::V3_1_1),
        "5" => Ok(Version::V5_0),
        _ => Err("expected mqttv31, mqttv311 or mqttv5".into()),
    }
}

pub(crate) fn parse_qos(text: &str) -> Result<QoS, String> {
    text.parse().ok().and_then(QoS::from_u8).ok_or_else(|| "expected 0, 1 or 2".into())
}

pub(crate) fn parse_expiry(text: &str) -> Result<u32, String> {
    if matches!(text, "-1" | "∞") {
        Ok(u32::MAX)
    } else {
        text.parse().map_err(|_| "expected 0 to 4294967295, or -1 for ever".into())
    }
}
