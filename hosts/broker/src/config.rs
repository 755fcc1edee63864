//! The configuration: the flags of the command line and of the configuration file, which has the
//! same names.

use crate::bridge;
use crate::flags::{Arguments, ListenerArguments, MAX_PACKET_OF_NODE};
use crate::listener::Endpoint;
use anyhow::{Context as _, anyhow, bail, ensure};
use clap::{Arg, Args as _, Command, CommandFactory as _, Parser as _};
use std::ffi::OsString;
use std::rc::Rc;
use std::{env, fs};
use toml::{Table, Value};

/// The listener of a configuration that names none.
const DEFAULT_LISTENER: &str = "tcp://127.0.0.1:1883";

/// The flags, and the listeners with theirs.
#[derive(Debug)]
pub(crate) struct Configuration {
    pub(crate) arguments: Rc<Arguments>,
    /// A listener without settings of its own shares those of the program.
    pub(crate) listeners: Vec<(Endpoint, Rc<Arguments>)>,
    pub(crate) bridges: Vec<Rc<bridge::Settings>>,
}

impl Configuration {
    /// Reads the command line and the configuration file that it names. Ends the program if a flag
    /// is wrong, or asks for help.
    pub(crate) fn read() -> anyhow::Result<Self> {
        let command_line: Vec<OsString> = env::args_os().collect();
        let first = Arguments::try_parse_from(&command_line).unwrap_or_else(|error| error.exit());
        let Some(path) = &first.config else { return Self::new(first, Vec::new()) };
        let file = fs::read_to_string(path).map_err(anyhow::Error::from);
        let read = move || Self::from_file(&file?, command_line);
        read().with_context(|| path.display().to_string())
    }

    fn from_file(text: &str, command_line: Vec<OsString>) -> anyhow::Result<Self> {
        let mut table: Table = text.parse()?;
        let tables = take_tables(&mut table, "listener")?;
        let bridges = take_tables(&mut table, "bridge")?;
        let program = command_line.iter().take(1).cloned();
        let mut flags: Vec<OsString> =
            program.chain(to_flags(table, &Arguments::command())?).collect();
        // Without the command line, so that an error is known to be in the file.
        parse(&flags)?;
        flags.extend(command_line.into_iter().skip(1));
        let arguments = Arguments::try_parse_from(&flags).unwrap_or_else(|error| error.exit());
        let mut listeners = Vec::new();
        for (number, table) in (1..).zip(tables) {
            let listener = read_listener(table, &flags);
            listeners.push(listener.with_context(|| format!("listener {number}"))?);
        }
        let mut configuration = Self::new(arguments, listeners)?;
        for (number, table) in (1..).zip(bridges) {
            let bridge = bridge::Settings::read(table);
            let bridge = bridge.with_context(|| format!("bridge {number}"))?;
            let is_same = |other: &Rc<bridge::Settings>| other.name == bridge.name;
            ensure!(
                !configuration.bridges.iter().any(is_same),
                "bridge {number}: the name {:?} is given twice",
                bridge.name
            );
            configuration.bridges.push(bridge.into());
        }
        Ok(configuration)
    }

    fn new(arguments: Arguments, own: Vec<(Endpoint, Arguments)>) -> anyhow::Result<Self> {
        let arguments = Rc::new(arguments);
        let shared = arguments.listen.iter().cloned();
        let mut listeners: Vec<_> = shared.map(|endpoint| (endpoint, arguments.clone())).collect();
        listeners.extend(own.into_iter().map(|(endpoint, own)| (endpoint, Rc::new(own))));
        if listeners.is_empty() {
            let endpoint = DEFAULT_LISTENER.parse().map_err(anyhow::Error::msg)?;
            listeners.push((endpoint, arguments.clone()));
        }
        let configuration = Self { arguments, listeners, bridges: Vec::new() };
        configuration.check()?;
        Ok(configuration)
    }

    /// Refuses flags that contradict each other, as far as the declarations do not.
    fn check(&self) -> anyhow::Result<()> {
        for (index, (endpoint, arguments)) in self.listeners.iter().enumerate() {
            let ListenerArguments { cert, allow_anonymous, password_file, client_ca, .. } =
                &arguments.listener;
            if endpoint.has_tls() {
                ensure!(cert.is_some(), "--listen {endpoint} needs --cert and --key");
            }
            ensure!(
                *allow_anonymous != Some(false) || password_file.is_some() || client_ca.is_some(),
                "--allow-anonymous false needs --password-file, or no client could connect"
            );
            ensure!(
                !arguments.is_node() || arguments.max_packet_size() <= MAX_PACKET_OF_NODE,
                "--max-packet-size can be {MAX_PACKET_OF_NODE} at most with --cluster"
            );
            let mut before = self.listeners.iter().take(index);
            let is_fixed = !endpoint.to_string().ends_with(":0");
            ensure!(
                !is_fixed || !before.any(|(other, _)| other == endpoint),
                "--listen {endpoint} is given twice"
            );
        }
        let has_tls = self.listeners.iter().any(|(endpoint, _)| endpoint.has_tls());
        let has_certificate = self.arguments.listener.cert.is_some();
        ensure!(has_tls || !has_certificate, "--cert needs a --listen with tls or wss");
        ensure!(
            !self.arguments.is_node() || self.arguments.threads == 1,
            "--threads can only be 1 with --cluster"
        );
        self.check_sn()
    }

    /// Refuses MQTT-SN where the other flags ask for passwords, which it does not have.
    fn check_sn(&self) -> anyhow::Result<()> {
        let Arguments { sn, gateway, listener, .. } = &*self.arguments;
        let Some(address) = sn else {
            let default = parse(&["broker".into()])?.gateway;
            ensure!(*gateway == default, "flags that begin with --sn- need --sn");
            return Ok(());
        };
        let ListenerArguments { allow_anonymous, password_file, .. } = listener;
        ensure!(
            allow_anonymous.unwrap_or(address.ip().is_loopback()),
            "--sn {address} has no passwords: give --allow-anonymous true if that is wanted"
        );
        ensure!(
            allow_anonymous.is_some() || password_file.is_none(),
            "--sn has no passwords: give --allow-anonymous true, and limit it by --acl-file"
        );
        Ok(())
    }
}

/// Whether each client that reaches the listener can do everything, although no flag says so.
pub(crate) fn is_open(endpoint: &Endpoint, arguments: &Arguments) -> bool {
    let ListenerArguments { allow_anonymous, password_file, client_ca, .. } = &arguments.listener;
    let has_certificate = endpoint.has_tls() && client_ca.is_some();
    allow_anonymous.is_none() && password_file.is_none() && !has_certificate
}

/// Removes the tables of an array.
fn take_tables(table: &mut Table, name: &str) -> anyhow::Result<Vec<Value>> {
    match table.remove(name) {
        None => Ok(Vec::new()),
        Some(Value::Array(tables)) => Ok(tables),
        Some(_) => bail!("expected [[{name}]], found {name}"),
    }
}

/// Reads a `[[listener]]`. The other settings are those of `flags`.
fn read_listener(table: Value, flags: &[OsString]) -> anyhow::Result<(Endpoint, Arguments)> {
    let Value::Table(mut table) = table else { bail!("expected a table") };
    let endpoint = table.remove("listen").context("expected listen = \"tcp://ADDR:PORT\"")?;
    let endpoint = endpoint.as_str().context("listen: expected a string")?;
    let endpoint = endpoint.parse().map_err(|error| anyhow!("listen: {error}"))?;
    let known = ListenerArguments::augment_args(Command::new("listener"));
    let own = to_flags(table, &known)?;
    Ok((endpoint, parse(&[flags, &own].concat())?))
}

/// Converts settings to flags of `known`.
fn to_flags(table: Table, known: &Command) -> anyhow::Result<Vec<OsString>> {
    let mut flags = Vec::new();
    for (name, value) in table {
        let is_known = |argument: &&Arg| argument.get_long() == Some(&name);
        let argument = known.get_arguments().find(is_known);
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
                Value::Boolean(true) if !takes_value => flags.push(flag.clone().into()),
                Value::Boolean(false) if !takes_value => {}
                Value::String(value) if takes_value => flags.push(format!("{flag}={value}").into()),
                Value::Integer(_) | Value::Boolean(_) if takes_value => {
                    flags.push(format!("{flag}={value}").into());
                }
                value => bail!("{name}: expected another kind of value, found {value}"),
            }
        }
    }
    Ok(flags)
}

/// Parses flags of the file. An error says what is wrong, without advice about the command line.
fn parse(flags: &[OsString]) -> anyhow::Result<Arguments> {
    Arguments::try_parse_from(flags).map_err(|error| {
        let text = error.to_string();
        let text = text.trim_start_matches("error: ");
        anyhow!(text.split("\n\n").next().unwrap_or_default().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Configuration> {
        Configuration::from_file(text, vec!["broker".into()])
    }

    #[test]
    fn settings_become_flags() {
        let text = "max-qos = 1\nno-retain = true\nallow-anonymous = true\n\
                    no-shared-subscriptions = false\nlisten = [\"tcp://a:1\", \"ws://a:2\"]";
        let mut flags = to_flags(text.parse().unwrap(), &Arguments::command()).unwrap();
        flags.sort();
        assert_eq!(
            flags.join(" ".as_ref()),
            "--allow-anonymous=true --listen=tcp://a:1 --listen=ws://a:2 --max-qos=1 --no-retain"
        );
    }

    #[test]
    fn listener_has_its_own_settings_and_those_of_the_program() {
        let text = "listen = \"tcp://a:1\"\nmax-qos = 1\nmax-packet-size = 1000\n\
                    [[listener]]\nlisten = \"tcp://a:2\"\nmax-qos = 0\n\
                    [[listener]]\nlisten = \"tcp://a:3\"\nallow-anonymous = true\n";
        let configuration = read(text).unwrap();
        let settings: Vec<_> = (configuration.listeners.iter())
            .map(|(endpoint, arguments)| {
                let ListenerArguments { max_qos, allow_anonymous, .. } = &arguments.listener;
                (endpoint.to_string(), *max_qos, arguments.max_packet_size(), *allow_anonymous)
            })
            .collect();
        let expected =
            [("tcp://a:1", 1, None), ("tcp://a:2", 0, None), ("tcp://a:3", 1, Some(true))];
        assert_eq!(settings, expected.map(|(url, qos, all)| (url.to_owned(), qos, 1000, all)));
    }

    #[test]
    fn wrong_setting_is_refused_with_its_name() {
        for (text, expected) in [
            ("max-qo = 1", "there is no setting \"max-qo\""),
            ("config = \"a\"", "there is no setting \"config\""),
            ("no-retain = 1", "no-retain: expected another kind of value, found 1"),
            ("[max-qos]", "max-qos: expected another kind of value"),
            ("[listener]", "expected [[listener]], found listener"),
            ("[[listener]]", "listener 1: expected listen = "),
            ("[[listener]]\nlisten = \"a\"", "listener 1: listen: expected tcp://ADDR:PORT"),
            ("[bridge]", "expected [[bridge]], found bridge"),
            ("[[bridge]]\nname = \"a\"", "bridge 1: missing field `address`"),
            (
                "[[bridge]]\nname = \"a\"\naddress = \"mqtt://a\"\ntopics = [\"a/b#\"]",
                "bridge 1: a: topic \"a/b#\": local prefix and the pattern are no topic filter",
            ),
            (
                "[[bridge]]\nname = \"a\"\naddress = \"mqtt://a\"\ntopics = [\"t\"]\n\
                 [[bridge]]\nname = \"a\"\naddress = \"mqtt://a\"\ntopics = [\"t\"]",
                "bridge 2: the name \"a\" is given twice",
            ),
            (
                "[[listener]]\nlisten = \"tcp://a:1\"\nsparkplug = true",
                "listener 1: there is no setting \"sparkplug\"",
            ),
        ] {
            let error = format!("{:#}", read(text).unwrap_err());
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let parse =
            |flags: &str| Arguments::try_parse_from(["broker"].into_iter().chain(flags.split(' ')));
        for (flags, expected) in [
            ("--listen tls://a:1", "--listen tls://a:1 needs --cert and --key"),
            ("--cert a --key b", "--cert needs a --listen with tls or wss"),
            ("--allow-anonymous false", "--allow-anonymous false needs --password-file"),
            ("--listen tcp://a:1 --listen a:1", "--listen tcp://a:1 is given twice"),
            ("--sn 0.0.0.0:1", "--sn 0.0.0.0:1 has no passwords: give --allow-anonymous true"),
            ("--sn 127.0.0.1:1 --password-file a", "--sn has no passwords: give"),
            ("--sn-max-clients 7", "flags that begin with --sn- need --sn"),
        ] {
            let error = Configuration::new(parse(flags).unwrap(), Vec::new()).unwrap_err();
            assert!(error.to_string().starts_with(expected), "{error}");
        }
        #[cfg(feature = "cluster")]
        {
            let flags = parse("--cluster nats://a --max-packet-size 1048577").unwrap();
            let error = Configuration::new(flags, Vec::new()).unwrap_err().to_string();
            assert_eq!(error, "--max-packet-size can be 1048576 at most with --cluster");
            let flags = parse("--cluster nats://a --max-packet-size 1048576").unwrap();
            assert!(Configuration::new(flags, Vec::new()).is_ok());
            assert!(parse("--cluster nats://a --shared-strategy topic-hash").is_err());
            let flags = parse("--cluster nats://a --threads 2").unwrap();
            let error = Configuration::new(flags, Vec::new()).unwrap_err().to_string();
            assert_eq!(error, "--threads can only be 1 with --cluster");
        }
        for flags in ["--no-shared-subscriptions --shared-strategy topic-hash", "--cert a"] {
            assert!(parse(flags).is_err());
        }
    }

    /// A setter of the library that the program does not call has no flag.
    #[test]
    fn each_limit_of_the_library_has_its_flag() {
        let calls = include_str!("flags.rs");
        for source in [
            include_str!("../../../src/broker/config.rs"),
            include_str!("../../../src/server/config.rs"),
            include_str!("../../../src/session/config.rs"),
        ] {
            for setter in source.split("pub const fn ").skip(1) {
                let (name, parameters) = setter.split_once('(').unwrap();
                let is_setter =
                    parameters.starts_with("self, ") || parameters.starts_with("mut self, ");
                // The broker acknowledges messages itself, and is not one of several nodes.
                let fixed = ["manual_acknowledgement", "is_node", "maximum_forwarded"];
                let is_fixed = fixed.contains(&name);
                let is_called = calls.contains(&format!(".{name}(")) || is_fixed;
                assert!(is_called || !is_setter, "{name} has no flag");
            }
        }
    }
}
