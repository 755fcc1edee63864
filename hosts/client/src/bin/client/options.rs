//! The command line.

use crate::dial;
use crate::properties::Properties;
use crate::tls;
use anyhow::{Context as _, Result, bail, ensure};
use clap::{ArgAction, Args, Parser, Subcommand};
use mqtt_sansio_client::codec::{Connect, Disconnect, QoS, Text, Version, Will};
use mqtt_sansio_client::{Client, ClientConfig};
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

/// The most Server References that are followed in a row.
const MOST_REDIRECTIONS: u8 = 5;

#[derive(Parser)]
#[command(
    name = "client",
    about = "Publishes, subscribes, requests and inspects over MQTT 3.1, 3.1.1 and 5.0",
    disable_help_flag = true,
    disable_help_subcommand = true
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
    /// Publish a request and print the response
    Rr(RrOptions),
    /// Explain the packets of a capture, of bytes, or of live connections
    Inspect(InspectOptions),
}

#[derive(Args)]
pub(crate) struct ConnectOptions {
    /// All in one: mqtt(s)://USER:PASSWORD@HOST:PORT/TOPIC, of which only HOST is needed; or
    /// ws(s)://HOST/PATH, or unix:PATH
    #[arg(short = 'L', long, conflicts_with_all = ["host", "unix"])]
    url: Option<String>,
    /// Name or address of the server [default: localhost]
    #[arg(short, long)]
    host: Option<String>,
    /// Port of the server [default: 1883; 8883 with TLS; 80 or 443 with --ws]
    #[arg(short, long)]
    port: Option<u16>,
    /// Path of the server's Unix socket
    #[arg(long, conflicts_with = "host", value_name = "PATH")]
    unix: Option<PathBuf>,
    /// Connect over WebSocket
    #[arg(long)]
    ws: bool,
    /// Client identifier; a random one if it is not given
    #[arg(short, long)]
    id: Option<String>,
    /// Client identifier: this prefix and the number of the process
    #[arg(short = 'I', long, conflicts_with = "id", value_name = "PREFIX")]
    id_prefix: Option<String>,
    /// MQTT version: mqttv31, mqttv311 or mqttv5; or 31, 311, 5
    #[arg(short = 'V', long, default_value = "5", value_parser = parse_version)]
    #[arg(value_name = "VERSION")]
    pub(crate) protocol_version: Version,
    /// Keep Alive in seconds: the longest time between packets to the server; 0 turns it off
    #[arg(short, long, default_value_t = 60, value_name = "SECONDS")]
    keepalive: u16,
    /// QoS of the messages or subscriptions: 0, 1 or 2
    #[arg(short, long, default_value = "0", value_parser = parse_qos)]
    pub(crate) qos: QoS,
    /// User name
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// Password
    #[arg(short = 'P', long, value_name = "PASSWORD")]
    pw: Option<String>,
    /// Keep the session when the connection ends, and resume one that the server has
    #[arg(short = 'c', long, requires = "id")]
    disable_clean_session: bool,
    /// Seconds that the server keeps the session after the connection, -1 for ever; 5.0 only
    #[arg(short = 'x', long, value_parser = parse_expiry, allow_hyphen_values = true)]
    #[arg(value_name = "SECONDS")]
    session_expiry_interval: Option<u32>,
    /// File that keeps the session from one run to the next
    #[arg(long, value_name = "FILE", requires = "disable_clean_session")]
    store: Option<PathBuf>,
    /// Property of a packet, 5.0 only: PACKET PROPERTY VALUE, or PACKET user-property NAME VALUE;
    /// can be repeated
    #[arg(short = 'D', long, num_args = 3..=4, value_names = ["PACKET", "PROPERTY", "VALUE"])]
    property: Vec<String>,
    /// Topic of the will, which the server publishes if this client vanishes
    #[arg(long, value_name = "TOPIC")]
    will_topic: Option<String>,
    /// Payload of the will
    #[arg(long, requires = "will_topic", default_value = "", hide_default_value = true)]
    #[arg(value_name = "PAYLOAD")]
    will_payload: String,
    /// QoS of the will: 0, 1 or 2
    #[arg(long, requires = "will_topic", default_value = "0", value_parser = parse_qos)]
    #[arg(value_name = "QOS")]
    will_qos: QoS,
    /// Retain the will
    #[arg(long, requires = "will_topic")]
    will_retain: bool,
    /// File with the authorities to trust; connects with TLS
    #[arg(long, value_name = "FILE")]
    pub(crate) cafile: Option<PathBuf>,
    /// File with the certificate of this client; connects with TLS
    #[arg(long, requires = "key", value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,
    /// File with the key of this client
    #[arg(long, requires = "cert", value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Directory with files of authorities to trust; connects with TLS
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) capath: Option<PathBuf>,
    /// The only TLS version: tlsv1.2 or tlsv1.3
    #[arg(long, value_parser = ["tlsv1.2", "tlsv1.3"], value_name = "VERSION")]
    pub(crate) tls_version: Option<String>,
    /// Not supported: rustls has no external pre-shared keys
    #[arg(long, requires = "psk_identity", hide = true)]
    psk: Option<String>,
    /// Not supported, like --psk
    #[arg(long, requires = "psk", hide = true)]
    psk_identity: Option<String>,
    /// Local address to connect from
    #[arg(short = 'A', conflicts_with_all = ["unix", "proxy"], value_name = "ADDRESS")]
    pub(crate) bind: Option<IpAddr>,
    /// SOCKS5 proxy, such as socks5h://USER:PASSWORD@HOST:PORT. It also resolves the server's name
    #[arg(long, conflicts_with = "unix", value_name = "URL")]
    pub(crate) proxy: Option<String>,
    /// Follow a 5.0 server to another one at this host or below this domain (Server Reference); can
    /// be repeated
    #[arg(long, value_name = "HOST")]
    follow_server_reference: Vec<String>,
    /// Most messages of QoS 1 and 2 in flight
    #[arg(short = 'M', value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    maximum_in_flight: Option<u16>,
    /// Do not check the name in the server's certificate
    #[arg(long)]
    pub(crate) insecure: bool,
    /// Trust the authorities of the system; connects with TLS
    #[arg(long)]
    pub(crate) tls_use_os_certs: bool,
    /// Protocol to negotiate with ALPN
    #[arg(long, value_name = "PROTOCOL")]
    pub(crate) tls_alpn: Option<String>,
    /// Print nothing on stderr, except for errors of the command line
    #[arg(long)]
    pub(crate) quiet: bool,
    /// Log each step; RUST_LOG selects levels and modules
    #[arg(short, long)]
    debug: bool,
}

#[derive(Args)]
pub(crate) struct PubOptions {
    #[command(flatten)]
    pub(crate) connect: ConnectOptions,
    /// Topic to publish to
    #[arg(short, long, required_unless_present = "url")]
    pub(crate) topic: Option<String>,
    #[command(flatten)]
    pub(crate) payload: PayloadOptions,
    /// Retain the message: the server keeps it for later subscribers
    #[arg(short, long)]
    pub(crate) retain: bool,
    /// Publish the message this many times
    #[arg(long, default_value_t = 1, conflicts_with = "stdin_line")]
    pub(crate) repeat: u64,
    /// Seconds between the repetitions
    #[arg(long, default_value_t = 0.0)]
    pub(crate) repeat_delay: f64,
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
pub(crate) struct PrintOptions {
    /// Exit after this many messages
    #[arg(short = 'C', value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Exit with code 27 after this many seconds
    #[arg(short = 'W')]
    pub(crate) seconds: Option<u32>,
    /// Print the topic before the payload
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Format of the output: %t topic, %p payload, %x payload as hex, %j JSON, …; see the README
    #[arg(short = 'F', value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Spread the JSON of -F over several lines
    #[arg(long)]
    pub(crate) pretty: bool,
    /// Do not print a newline after the payload
    #[arg(short = 'N')]
    pub(crate) no_newline: bool,
    /// Do not print retained messages, which can be stale
    #[arg(short = 'R')]
    pub(crate) no_retained: bool,
}

#[derive(Args)]
pub(crate) struct SubOptions {
    #[command(flatten)]
    pub(crate) connect: ConnectOptions,
    #[command(flatten)]
    pub(crate) print: PrintOptions,
    /// Topic filter to subscribe to; can be repeated
    #[arg(short, long, required_unless_present_any = ["unsubscribe", "url"])]
    pub(crate) topic: Vec<String>,
    /// Topic filter of messages that are not printed; can be repeated
    #[arg(short = 'T', long)]
    pub(crate) filter_out: Vec<String>,
    /// Topic filter to unsubscribe from, after subscribing; can be repeated
    #[arg(short = 'U', long)]
    pub(crate) unsubscribe: Vec<String>,
    /// Exit when the server has answered the subscription
    #[arg(short = 'E')]
    pub(crate) exit_after_suback: bool,
    /// Print only retained messages, and exit at the first other message
    #[arg(long, conflicts_with = "no_retained")]
    pub(crate) retained_only: bool,
    /// Remove the retained messages that arrive from the server
    #[arg(long)]
    pub(crate) remove_retained: bool,
}

#[derive(Args)]
pub(crate) struct RrOptions {
    #[command(flatten)]
    pub(crate) connect: ConnectOptions,
    #[command(flatten)]
    pub(crate) print: PrintOptions,
    /// Topic to publish the request to
    #[arg(short, long, required_unless_present = "url")]
    pub(crate) topic: Option<String>,
    /// Topic on which the response arrives
    #[arg(short = 'e', long, value_name = "TOPIC")]
    pub(crate) response_topic: String,
    #[command(flatten)]
    pub(crate) payload: PayloadOptions,
}

#[derive(Args)]
pub(crate) struct InspectOptions {
    /// A capture (pcap, pcapng), a file of MQTT bytes, or - for stdin
    #[arg(required_unless_present_any = ["hex", "proxy"])]
    pub(crate) file: Option<PathBuf>,
    /// Explain the bytes that these hex digits stand for
    #[arg(long, num_args = 1.., conflicts_with = "file")]
    pub(crate) hex: Vec<String>,
    /// Accept connections at an address, and forward them to another
    #[arg(long, num_args = 2, value_names = ["LISTEN", "UPSTREAM"])]
    #[arg(conflicts_with_all = ["file", "hex"])]
    pub(crate) proxy: Vec<String>,
    /// MQTT version of bytes without a CONNECT: 31, 311 or 5
    #[arg(short = 'V', long, default_value = "5", value_parser = parse_version)]
    pub(crate) protocol_version: Version,
    /// Port of the MQTT servers in a capture; other connections count if they begin with a CONNECT
    #[arg(long, default_value_t = 1883)]
    pub(crate) port: u16,
    /// Print each packet as a line of JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Use colours: auto, always or never
    #[arg(long, default_value = "auto", value_parser = ["auto", "always", "never"])]
    pub(crate) color: String,
}

impl ConnectOptions {
    pub(crate) const fn log_filter(&self) -> &'static str {
        match (self.debug, self.quiet) {
            (true, _) => "debug",
            (false, false) => "warn",
            (false, true) => "off",
        }
    }

    /// Prints a line on stderr, unless `--quiet` is given.
    pub(crate) fn report(&self, line: &str) {
        if !self.quiet {
            eprintln!("{line}");
        }
    }

    /// Whether a terminal shows the progress of a long command.
    pub(crate) const fn shows_progress(&self) -> bool {
        !self.quiet && !self.debug
    }

    pub(crate) fn properties(&self) -> Result<Properties> {
        let is_allowed = self.property.is_empty() || self.protocol_version == Version::V5_0;
        ensure!(is_allowed, "-D needs MQTT 5.0 (-V 5)");
        Properties::parse(&self.property)
    }

    /// Returns the properties, all of which are of packets that the command sends.
    pub(crate) fn properties_of(&self, packets: &[&str]) -> Result<Properties> {
        let properties = self.properties()?;
        properties.only(packets)?;
        Ok(properties)
    }

    /// Returns the URL of the server, and the topic in the URL of the user.
    fn server(&self) -> Result<(String, Option<String>)> {
        if let Some(url) = &self.url {
            let Some((scheme, rest)) = url.split_once("://") else {
                return Ok((url.clone(), None));
            };
            // The path of a WebSocket URL is not a topic.
            let topic = rest.split_once('/').filter(|_| !scheme.starts_with("ws"));
            return Ok(match topic {
                Some((server, topic)) => (
                    format!("{scheme}://{server}"),
                    Some(topic.to_owned()).filter(|topic| !topic.is_empty()),
                ),
                None => (url.clone(), None),
            });
        }
        if let Some(path) = &self.unix {
            return Ok((format!("unix:{}", path.display()), None));
        }
        let has_tls = self.cafile.is_some()
            || self.capath.is_some()
            || self.cert.is_some()
            || self.tls_use_os_certs;
        let scheme = match (has_tls, self.ws) {
            (false, false) => "mqtt",
            (true, false) => "mqtts",
            (false, true) => "ws",
            (true, true) => "wss",
        };
        let host = self.host.as_deref().unwrap_or("localhost");
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let bare = bare.unwrap_or(host);
        let is_name = !bare.contains(':');
        ensure!(
            is_name || bare.parse::<Ipv6Addr>().is_ok(),
            "expected a name or an address after -h, and the port after -p, got {host:?}"
        );
        let host = if is_name { bare.to_owned() } else { format!("[{bare}]") };
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        Ok((format!("{scheme}://{host}{port}"), None))
    }

    /// Returns the topic of the flag, or else of the URL.
    pub(crate) fn topic(&self, flag: Option<&String>) -> Result<String> {
        let (_, topic) = self.server()?;
        flag.cloned().or(topic).context("expected a topic: -t, or -L with one")
    }

    /// Returns the topics of the flags, or else that of the URL.
    pub(crate) fn topics(&self, flags: &[String]) -> Result<Vec<String>> {
        let (_, topic) = self.server()?;
        Ok(flags.iter().cloned().chain(topic).collect())
    }

    /// Returns the options of the library.
    pub(crate) fn options(&self, config: ClientConfig) -> Result<mqtt_sansio_client::Options> {
        ensure!(
            self.psk.is_none(),
            "expected a certificate (--cafile, --cert): pre-shared keys are not supported, because \
             rustls has none"
        );
        let (url, _) = self.server()?;
        let properties = self.properties()?;
        let version = self.protocol_version;
        let user = properties.user("connect");
        let mut connect_properties = properties.connect(&user)?;
        if version == Version::V5_0 {
            let keep = self.disable_clean_session.then_some(u32::MAX);
            let expiry = &mut connect_properties.session_expiry_interval;
            // Even if the session is not kept, a reconnect resumes the messages in flight.
            *expiry = self.session_expiry_interval.or(*expiry).or(keep).or(Some(60));
        } else if self.session_expiry_interval.is_some() {
            bail!("a session expiry interval needs MQTT 5.0 (-V 5)");
        }
        let has_will = self.will_topic.is_some();
        ensure!(has_will || !properties.names("will"), "expected --will-topic for -D will");
        let will_user = properties.user("will");
        let will_properties = properties.will(&will_user)?;
        let will = self.will_topic.as_deref().map(|topic| Will {
            qos: self.will_qos,
            retain: self.will_retain,
            topic: topic.into(),
            payload: self.will_payload.as_bytes(),
            properties: will_properties,
        });
        let random = match &self.id_prefix {
            Some(prefix) => format!("{prefix}{}", std::process::id()),
            None => format!("sansio-{:016x}", fastrand::u64(..)),
        };
        let identifier = self.id.as_deref().unwrap_or(&random);
        let connect = Connect {
            clean_start: !self.disable_clean_session,
            keep_alive: self.keepalive,
            will,
            user_name: self.username.as_deref().map(Text::from),
            password: self.pw.as_deref().map(str::as_bytes),
            properties: connect_properties,
            ..Connect::new(version, identifier)
        };
        let mut options =
            mqtt_sansio_client::Options::new(&url)?.with(&connect).context("cannot use CONNECT")?;
        if url.starts_with("mqtts:") || url.starts_with("wss:") {
            options = options.tls(tls::config(self)?);
        }
        options = dial::set(options, self)?;
        if let Some(store) = &self.store {
            options = options.store(store);
        }
        if !self.follow_server_reference.is_empty() {
            let hosts = self.follow_server_reference.clone();
            options = options.follow_server_reference(MOST_REDIRECTIONS, move |server| {
                hosts.iter().any(|host| is_at_or_below(&server.host, host))
            });
        }
        Ok(options.config(match self.maximum_in_flight {
            Some(most) => config.maximum_in_flight(most),
            None => config,
        }))
    }

    /// Ends the client, with the properties of `-D disconnect`.
    pub(crate) async fn disconnect(&self, client: &Client) -> Result<()> {
        let properties = self.properties()?;
        let user = properties.user("disconnect");
        match properties.disconnect(&user)? {
            Some(properties) => {
                let disconnect = Disconnect { properties, ..Disconnect::default() };
                client.disconnect_with(&disconnect).await
            }
            None => client.disconnect().await,
        };
        Ok(())
    }
}

/// Whether a host is the domain, or is below it.
fn is_at_or_below(host: &str, domain: &str) -> bool {
    let (host, domain) = (host.to_ascii_lowercase(), domain.to_ascii_lowercase());
    let is_address = host.parse::<IpAddr>().is_ok();
    host.strip_suffix(&domain)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.') && !is_address)
}

fn parse_version(text: &str) -> Result<Version, String> {
    match text.trim_start_matches("mqttv") {
        "31" | "3.1" => Ok(Version::V3_1),
        "311" | "3.1.1" => Ok(Version::V3_1_1),
        "5" | "5.0" => Ok(Version::V5_0),
        _ => Err("expected mqttv31, mqttv311 or mqttv5, or 31, 311 or 5".into()),
    }
}

fn parse_qos(text: &str) -> Result<QoS, String> {
    text.parse().ok().and_then(QoS::from_u8).ok_or_else(|| "expected 0, 1 or 2".into())
}

fn parse_expiry(text: &str) -> Result<u32, String> {
    if matches!(text, "-1" | "∞") {
        Ok(u32::MAX)
    } else {
        text.parse().map_err(|_| "expected 0 to 4294967295, or -1 for ever".into())
    }
}
