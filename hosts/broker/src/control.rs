//! The control socket: a request as a line of JSON, and its answer as lines of JSON.

use crate::host::{Host, State};
use anyhow::{Context as _, bail};
use clap::Subcommand;
use mqtt_sansio::Instant;
use mqtt_sansio::broker::ClientStats;
use mqtt_sansio::codec::{Disconnect, Publish, QoS, ReasonCode};
use rustix::fs::Mode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};
use tracing::warn;

/// The requests that are served at a time.
const AT_ONCE: usize = 4;
/// The time for a request and its answer.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The longest request in bytes.
const LONGEST: u64 = 1024 * 1024;

/// A request to a running broker.
#[derive(Clone, Debug, Deserialize, Serialize, Subcommand)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub(crate) enum Request {
    /// List the clients that have a session.
    List,
    /// Show a client.
    Show {
        /// The client identifier.
        client: String,
    },
    /// Disconnect a client. Its session stays.
    Disconnect {
        /// The client identifier.
        client: String,
    },
    /// End the session of a client, and its connection.
    End {
        /// The client identifier.
        client: String,
    },
    /// Publish a message.
    Publish {
        topic: String,
        message: String,
        /// The QoS of the message.
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
        #[serde(default)]
        qos: u8,
        /// Retain the message. An empty one removes the message that is retained.
        #[arg(long)]
        #[serde(default)]
        retain: bool,
    },
    /// Show the figures of the broker.
    Stats,
}

/// Opens the socket, with access only for the user of this program.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    // No other thread creates files yet.
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(before);
    listener
}

/// Serves requests for ever.
pub(crate) async fn run(listener: UnixListener, host: Rc<Host>) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    while let Ok(place) = places.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let host = host.clone();
                spawn_local(async move {
                    let _ = timeout(TIMEOUT, serve(stream, &host)).await;
                    drop(place);
                });
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection of the control socket");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(mut stream: UnixStream, host: &Rc<Host>) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut line = String::new();
    BufReader::new(reader.take(LONGEST)).read_line(&mut line).await?;
    let request = serde_json::from_str(&line).context("expected a request in JSON");
    let answer = request.and_then(|request| host.obey(request));
    let answer = answer.unwrap_or_else(|error| vec![json!({ "error": format!("{error:#}") })]);
    let lines: String = answer.iter().map(|value| format!("{value}\n")).collect();
    writer.write_all(lines.as_bytes()).await
}

impl Host {
    /// Does what a request asks for. Returns the lines of the answer.
    fn obey(self: &Rc<Self>, request: Request) -> anyhow::Result<Vec<Value>> {
        let unknown = |client: &str| format!("there is no client {client:?}");
        match request {
            Request::List => {
                let (state, now) = (self.shared.lock(), self.now());
                let mut clients: Vec<_> = state.broker.clients().collect();
                clients.sort_unstable_by_key(|client| client.client_identifier);
                Ok(clients.iter().map(|client| state.describe(client, now)).collect())
            }
            Request::Show { client } => {
                let (state, now) = (self.shared.lock(), self.now());
                let stats = state.broker.client(&client).with_context(|| unknown(&client))?;
                Ok(vec![state.describe(&stats, now)])
            }
            Request::Disconnect { client } => self.with_broker(|broker, now| {
                let stats = broker.client(&client).with_context(|| unknown(&client))?;
                let Some(id) = stats.connection else { bail!("{client:?} is not connected") };
                broker.disconnect(id, &Disconnect::new(ReasonCode::ADMINISTRATIVE_ACTION), now);
                Ok(vec![json!({ "disconnected": client })])
            }),
            Request::End { client } => self.with_broker(|broker, now| {
                let disconnect = Disconnect::new(ReasonCode::ADMINISTRATIVE_ACTION);
                match broker.end_session(&client, &disconnect, now) {
                    true => Ok(vec![json!({ "ended": client })]),
                    false => bail!(unknown(&client)),
                }
            }),
            Request::Publish { topic, message, qos, retain } => self.with_broker(|broker, now| {
                let qos = QoS::from_u8(qos).context("expected QoS 0, 1 or 2")?;
                let publish = Publish { qos, retain, ..Publish::new(&*topic, message.as_bytes()) };
                let reason_code = broker.publish(&publish, now)?;
                Ok(vec![json!({ "published": topic, "reason": reason_code.to_string() })])
            }),
            Request::Stats => {
                let lines = self.families().into_iter().flat_map(|family| {
                    family.samples.into_iter().map(move |(label, value)| {
                        let whole = (value.fract() == 0.0).then_some(value as u64);
                        let value = whole.map_or_else(|| json!(value), |whole| json!(whole));
                        json!({ "name": family.name, "label": label, "value": value })
                    })
                });
                Ok(lines.collect())
            }
        }
    }
}

impl State {
    fn describe(&self, client: &ClientStats<'_>, now: Instant) -> Value {
        let mut value = json!({
            "client": client.client_identifier,
            "connected": client.connection.is_some(),
            "subscriptions": client.subscriptions,
            "queued": client.queued,
            "queued_bytes": client.queued_bytes,
            "in_flight": client.in_flight,
        });
        let link = client.connection.and_then(|id| self.links.get(&id));
        let link = link.map(|link| link.describe(now));
        if let (Value::Object(value), Some(Value::Object(link))) = (&mut value, link) {
            value.extend(link);
        }
        value
    }
}
