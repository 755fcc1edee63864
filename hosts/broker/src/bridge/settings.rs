//! A `[[bridge]]` of the configuration file.

use crate::tls::connector;
use anyhow::{Context as _, bail, ensure};
use mqtt_sansio::bridge::{BridgeConfig, BridgeTopic, Side};
use mqtt_sansio::codec::{self, Connect, ConnectProperties, Version};
use serde::Deserialize;
use std::fmt;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;
use tokio_rustls::TlsConnector;
use toml::Value;

/// The settings of a bridge, checked, with its files read.
pub(crate) struct Settings {
    pub(crate) name: String,
    /// The address as it was given, for the log.
    pub(crate) address: String,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: Option<TlsConnector>,
    pub(super) config: BridgeConfig,
    /// The time before the first attempt to connect again, and the longest.
    pub(super) reconnect: (Duration, Duration),
    version: Version,
    client_id: String,
    local_client_id: String,
    username: Option<String>,
    password: Option<String>,
    keep_alive: u16,
    clean_start: bool,
}

/// Does not show the password.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, address, .. } = self;
        f.debug_struct("Settings")
            .field("name", name)
            .field("address", address)
            .finish_non_exhaustive()
    }
}

/// The names of the settings.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Table {
    name: String,
    address: String,
    topics: Vec<String>,
    #[serde(default = "newest")]
    version: String,
    client_id: Option<String>,
    local_client_id: Option<String>,
    username: Option<String>,
    password: Option<String>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    #[serde(default = "minute")]
    keep_alive: u16,
    #[serde(default)]
    clean_start: bool,
    receive_maximum: Option<NonZeroU16>,
    #[serde(default = "yes")]
    try_private: bool,
    #[serde(default = "second")]
    reconnect_min: NonZeroU16,
    #[serde(default = "minute_at_least_one")]
    reconnect_max: NonZeroU16,
}

fn newest() -> String {
    "5.0".to_owned()
}

const fn minute() -> u16 {
    60
}

const fn yes() -> bool {
    true
}

const fn second() -> NonZeroU16 {
    NonZeroU16::MIN
}

const fn minute_at_least_one() -> NonZeroU16 {
    NonZeroU16::MIN.saturating_add(59)
}

impl Settings {
    /// Checks a table, and reads the files that it names.
    pub(crate) fn read(table: Value) -> anyhow::Result<Self> {
        let table: Table = table.try_into()?;
        let name = table.name.clone();
        // It is a part of client identifiers and a label of figures.
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        ensure!(
            !name.is_empty() && name.chars().all(is_plain),
            "name: expected letters, digits, `-`, `_` and `.`, found {name:?}"
        );
        Self::check(table).with_context(|| name)
    }

    fn check(table: Table) -> anyhow::Result<Self> {
        let (has_tls, host, port) = parse_address(&table.address)?;
        let tls = match (has_tls, table.ca, table.cert, table.key) {
            (true, Some(ca), Some(cert), Some(key)) => Some(connector(&ca, Some((&cert, &key)))?),
            (true, Some(ca), None, None) => Some(connector(&ca, None)?),
            (true, Some(_), _, _) => bail!("cert and key: expected both or none"),
            (true, None, _, _) => bail!("mqtts:// needs ca, the file of the authority"),
            (false, None, None, None) => None,
            (false, ..) => bail!("ca, cert and key need an address with mqtts://"),
        };
        let version = match &*table.version {
            "5.0" => Version::V5_0,
            "3.1.1" => Version::V3_1_1,
            "3.1" => Version::V3_1,
            other => bail!("version: expected 5.0, 3.1.1 or 3.1, found {other}"),
        };
        let mut topics = Vec::new();
        for line in &table.topics {
            topics.push(line.parse::<BridgeTopic>().with_context(|| format!("topic {line:?}"))?);
        }
        let config = BridgeConfig::new(topics).context("topics")?;
        let receive_maximum = table.receive_maximum.map_or(100, NonZeroU16::get);
        ensure!(
            table.reconnect_min <= table.reconnect_max,
            "reconnect-min is greater than reconnect-max"
        );
        let seconds = |seconds: NonZeroU16| Duration::from_secs(seconds.get().into());
        let client_id = table.client_id.unwrap_or(table.name.clone());
        let settings = Self {
            local_client_id: table.local_client_id.unwrap_or_else(|| format!("local.{client_id}")),
            client_id,
            name: table.name,
            address: table.address,
            host,
            port,
            tls,
            config: config.receive_maximum(receive_maximum).marks_itself(table.try_private),
            reconnect: (seconds(table.reconnect_min), seconds(table.reconnect_max)),
            version,
            username: table.username,
            password: table.password,
            keep_alive: table.keep_alive,
            clean_start: table.clean_start,
        };
        for side in [Side::Local, Side::Remote] {
            let connect = settings.connect(side);
            codec::encode(&connect.into(), connect.version, &mut Vec::new())
                .map_err(anyhow::Error::from)
                .with_context(|| format!("CONNECT of the {side} side"))?;
        }
        Ok(settings)
    }

    /// Returns the CONNECT of a side.
    pub(super) fn connect(&self, side: Side) -> Connect<'_> {
        let clean_start = self.clean_start;
        match side {
            Side::Local => Connect {
                clean_start,
                properties: self.properties(Version::V5_0),
                ..Connect::new(Version::V5_0, &*self.local_client_id)
            },
            Side::Remote => Connect {
                clean_start,
                keep_alive: self.keep_alive,
                user_name: self.username.as_deref().map(Into::into),
                password: self.password.as_deref().map(str::as_bytes),
                properties: self.properties(self.version),
                ..Connect::new(self.version, &*self.client_id)
            },
        }
    }

    /// Returns the properties of a CONNECT. With Clean Start, the session ends with the connection.
    fn properties(&self, version: Version) -> ConnectProperties<'static> {
        let ends = self.clean_start && version == Version::V5_0;
        ConnectProperties {
            session_expiry_interval: ends.then_some(0),
            ..ConnectProperties::default()
        }
    }
}

/// Returns whether there is TLS, the host, and the port.
fn parse_address(address: &str) -> anyhow::Result<(bool, String, u16)> {
    let (has_tls, rest) = match address.split_once("://") {
        Some(("mqtt", rest)) => (false, rest),
        Some(("mqtts", rest)) => (true, rest),
        _ => bail!("address: expected mqtt://HOST:PORT or mqtts://HOST:PORT, found {address:?}"),
    };
    let default = if has_tls { 8883 } else { 1883 };
    // The port follows the last colon, except within the brackets of an IPv6 address.
    let (host, port) = match rest.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
        Some((host, port)) => (host, port.parse().context("address: port")?),
        None => (rest, default),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    ensure!(!host.is_empty(), "address: expected a host, found {address:?}");
    Ok((has_tls, host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_scheme_and_default_ports() {
        for (address, expected) in [
            ("mqtt://a", (false, "a", 1883)),
            ("mqtts://a.b", (true, "a.b", 8883)),
            ("mqtt://[::1]", (false, "::1", 1883)),
            ("mqtts://[::1]:1", (true, "::1", 1)),
        ] {
            let (has_tls, host, port) = parse_address(address).unwrap();
            assert_eq!((has_tls, &*host, port), expected);
        }
        for address in
            ["a:1883", "http://a", "mqtt://", "mqtt://:1", "mqtt://a:b", "mqtt://a:99999"]
        {
            assert!(parse_address(address).is_err(), "{address}");
        }
    }

    #[test]
    fn wrong_bridge_is_refused_with_its_name_and_reason() {
        let start = "name = \"up\"\naddress = \"mqtt://a\"\ntopics = [\"a/# out 1\"]\n";
        let read = |text: &str| Settings::read(Value::Table(text.parse().unwrap()));
        let settings = read(start).unwrap();
        assert_eq!(settings.connect(Side::Remote).client_identifier, "up");
        assert_eq!(settings.connect(Side::Local).client_identifier, "local.up");
        for (text, expected) in [
            ("adress = 1", "unknown field `adress`"),
            ("version = \"4\"", "up: version: expected 5.0, 3.1.1 or 3.1, found 4"),
            ("ca = \"a\"", "up: ca, cert and key need an address with mqtts://"),
            ("version = \"3.1.1\"\npassword = \"p\"", "up: CONNECT of the remote side: "),
            ("reconnect-min = 61", "up: reconnect-min is greater"),
            ("reconnect-min = 0", "invalid value"),
        ] {
            let error = format!("{:#}", read(&format!("{start}{text}")).unwrap_err());
            assert!(error.starts_with(expected), "{text}: {error}");
        }
        for (from, to, expected) in [
            ("mqtt://a", "mqtts://a", "up: mqtts:// needs ca"),
            ("a/# out 1", "a/# down", "up: topic \"a/# down\": expected `in`, `out` or `both`"),
            ("\"a/# out 1\"", "", "up: topics: expected at least one topic"),
            ("\"up\"", "\"a b\"", "name: expected letters"),
        ] {
            let error = format!("{:#}", read(&start.replace(from, to)).unwrap_err());
            assert!(error.starts_with(expected), "{to}: {error}");
        }
    }
}
