//! NATS JetStream as the engine of the nodes.
//!
//! | stream | subjects | |
//! |---|---|---|
//! | `MQTT_LOG` | `mqtt.log.TOPIC`, `mqtt.retained.TOPIC` | the log, limited by age and bytes |
//! | `MQTT_RETAINED` | from `mqtt.retained.>` of the log | the last retained message of each topic |
//! | `MQTT_SESSIONS` | `mqtt.session.CLIENT` | the entries of sessions |
//!
//! Beside them nodes talk over `mqtt.node.INSTANCE` and `mqtt.all`, which can lose messages.

use super::engine::{Append, Engine, Evicted, Head, Notice, Refusal, Silent};
use super::node::{Node, Port};
use super::record::{Entry, Logged};
use super::subject;
use anyhow::{Context as _, bail, ensure};
use async_nats::header::{HeaderMap, NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_ID};
use async_nats::jetstream::consumer::{Consumer, DeliverPolicy, pull::OrderedConfig};
use async_nats::jetstream::stream::{Config, DiscardPolicy, Source, StorageType};
use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectOptions, Request, RequestErrorKind, ServerAddr, Subject};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

const LOG: &str = "MQTT_LOG";
const RETAINED: &str = "MQTT_RETAINED";
const SESSIONS: &str = "MQTT_SESSIONS";

/// The time in which the engine must answer. The election of a leader can take longer, and then the
/// request is repeated.
const ANSWER: Duration = Duration::from_secs(3);
/// The time in which another node must answer.
const OTHER_NODE: Duration = Duration::from_secs(2);
/// Attempts to create a stream.
const START: u32 = 20;
/// The time that the end of a session is kept, so that nodes notice it.
const TOMBSTONE: &str = "1h";
/// The smallest `max_payload` of the servers. An entry has all records of a session.
const PAYLOAD: usize = 8 * 1024 * 1024;
/// The time without messages after which the log is asked for its end.
const QUIET: Duration = Duration::from_secs(1);
/// Bytes that can wait for NATS and need no acknowledgement.
const OUTBOX: usize = 32 * 1024 * 1024;
/// Messages of the log that are delivered in one call of the broker.
const CHUNK: usize = 256;

/// How to reach the servers, and how they store.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct ClusterArguments {
    /// Share the clients with other brokers over these servers of NATS: `nats://USER:PASSWORD@HOST`
    /// or `tls://HOST:PORT`. Can be repeated. `cluster.md` says how to set them.
    #[arg(long, value_name = "URL", conflicts_with = "data_dir", help_heading = "Cluster")]
    pub(crate) cluster: Vec<ServerAddr>,
    /// The name of this node in logs and figures [default: the name of the host].
    #[arg(long, value_name = "NAME", requires = "cluster", help_heading = "Cluster")]
    pub(crate) cluster_node: Option<String>,
    /// A file with credentials for NATS, as `nsc` writes it.
    #[arg(long, value_name = "FILE", requires = "cluster", help_heading = "Cluster")]
    cluster_credentials: Option<PathBuf>,
    /// The authority of the servers' certificates, in PEM.
    #[arg(long, value_name = "FILE", requires = "cluster", help_heading = "Cluster")]
    cluster_ca: Option<PathBuf>,
    /// The servers that have each message. With fewer than 3, an acknowledged message can be lost.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 3,
        value_parser = clap::value_parser!(u8).range(1..=5),
        requires = "cluster",
        help_heading = "Cluster"
    )]
    cluster_replicas: u8,
    /// Hours that the log keeps messages for clients that are away.
    #[arg(
        long,
        value_name = "HOURS",
        default_value_t = 168,
        requires = "cluster",
        help_heading = "Cluster"
    )]
    cluster_log_hours: u64,
    /// Bytes that the log can have; then the oldest messages are removed.
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = 10_737_418_240,
        requires = "cluster",
        help_heading = "Cluster"
    )]
    cluster_log_bytes: i64,
}

/// The servers of NATS.
pub(crate) struct Nats {
    client: Client,
    context: Context,
    instance: u64,
    /// Messages that need no acknowledgement.
    outbox: mpsc::UnboundedSender<(String, Vec<u8>)>,
    /// The bytes that wait there.
    waiting: Rc<Cell<usize>>,
}

/// Returns the subject of a node.
fn of_node(instance: u64) -> String {
    format!("mqtt.node.{instance:016x}")
}

fn of_session(client: &str) -> String {
    format!("mqtt.session.{}", subject::token(client))
}

/// Whether a session can have a subject.
pub(crate) fn can_have_session(client: &str) -> bool {
    subject::token(client).len() <= subject::LONGEST
}

impl Nats {
    /// Connects, and checks the servers and the streams. Creates streams that are missing.
    pub(crate) async fn connect(
        arguments: &ClusterArguments,
        name: &str,
        instance: u64,
    ) -> anyhow::Result<Self> {
        let mut options = ConnectOptions::new()
            .name(format!("mqtt {name}"))
            .ping_interval(Duration::from_secs(2))
            .connection_timeout(Duration::from_secs(2))
            .reconnect_delay_callback(|attempts| {
                Duration::from_millis(100 * u64::try_from(attempts.min(10)).unwrap_or(10))
            })
            .subscription_capacity(1 << 20)
            .no_echo();
        if let Some(path) = &arguments.cluster_credentials {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            options = options.credentials(&text)?;
        }
        if let Some(path) = &arguments.cluster_ca {
            options = options.add_root_certificates(path.clone());
        }
        let client = async_nats::connect_with_options(&arguments.cluster[..], options).await;
        let client = client.context("cannot connect to NATS")?;
        let context = jetstream::new(client.clone());
        let (outbox, mut rest) = mpsc::unbounded_channel::<(String, Vec<u8>)>();
        let (sender, waiting) = (client.clone(), Rc::new(Cell::new(0_usize)));
        let left = waiting.clone();
        spawn_local(async move {
            while let Some((subject, payload)) = rest.recv().await {
                left.set(left.get() - payload.len());
                if let Err(error) = sender.publish(subject, payload.into()).await {
                    debug!(%error, "a message for other nodes is lost");
                }
            }
        });
        let nats = Self { client, context, instance, outbox, waiting };
        nats.check(arguments).await?;
        Ok(nats)
    }

    /// Checks what the guarantees need.
    async fn check(&self, arguments: &ClusterArguments) -> anyhow::Result<()> {
        let server = self.client.server_info();
        let is_new = self.client.is_server_compatible(2, 12, 0);
        ensure!(is_new, "expected NATS 2.12 or later, found {}", server.version);
        ensure!(
            server.max_payload >= PAYLOAD,
            "expected `max_payload: 8MB` in the configuration of NATS, found {}",
            server.max_payload
        );
        let replicas = usize::from(arguments.cluster_replicas);
        if replicas < 3 {
            warn!(replicas, "fewer than 3 replicas: acknowledged messages can be lost");
        }
        let common = |name: &str| Config {
            name: name.into(),
            num_replicas: replicas,
            storage: StorageType::File,
            allow_direct: true,
            ..Config::default()
        };
        let log = Config {
            subjects: vec!["mqtt.log.>".into(), "mqtt.retained.>".into()],
            max_age: Duration::from_secs(arguments.cluster_log_hours * 3_600),
            max_bytes: arguments.cluster_log_bytes,
            discard: DiscardPolicy::Old,
            allow_atomic_publish: true,
            duplicate_window: Duration::from_secs(600)
                .min(Duration::from_secs(arguments.cluster_log_hours * 3_600)),
            ..common(LOG)
        };
        let source = Source {
            name: LOG.into(),
            filter_subject: Some("mqtt.retained.>".into()),
            ..Source::default()
        };
        let retained =
            Config { max_messages_per_subject: 1, sources: Some(vec![source]), ..common(RETAINED) };
        let sessions = Config {
            subjects: vec!["mqtt.session.>".into()],
            allow_rollup: true,
            allow_message_ttl: true,
            ..common(SESSIONS)
        };
        for wanted in [log, retained, sessions] {
            let name = wanted.name.clone();
            let mut attempts = 0;
            let stream = loop {
                match self.context.get_or_create_stream(wanted.clone()).await {
                    Ok(stream) => break stream,
                    // The servers elect a leader, or another node creates the stream.
                    Err(error) if attempts < START => {
                        debug!(%error, "waiting for the streams");
                        attempts += 1;
                        sleep(Duration::from_secs(1)).await;
                    }
                    Err(error) => {
                        return Err(error).with_context(|| format!("cannot create stream {name}"));
                    }
                }
            };
            let found = &stream.cached_info().config;
            if found.num_replicas != wanted.num_replicas {
                bail!(
                    "expected {} replicas of stream {name}, found {}: use --cluster-replicas, or \
                     change the stream with `nats stream edit`",
                    wanted.num_replicas,
                    found.num_replicas
                );
            }
            let has_features = found.storage == StorageType::File
                && (!wanted.allow_atomic_publish || found.allow_atomic_publish)
                && (!wanted.allow_rollup || found.allow_rollup)
                && (!wanted.allow_message_ttl || found.allow_message_ttl);
            ensure!(has_features, "stream {name} was not created by this program: remove it");
            let are_limits_equal =
                (found.max_age, found.max_bytes) == (wanted.max_age, wanted.max_bytes);
            if name == LOG && !are_limits_equal {
                warn!(
                    stream = name,
                    seconds = found.max_age.as_secs(),
                    bytes = found.max_bytes,
                    "the limits of the stream differ from the flags, and stay as they are"
                );
            }
        }
        warn!(
            "NATS does not say how it syncs: without `sync_interval: always` at each server, \
             acknowledged messages can be lost when servers lose their power together"
        );
        Ok(())
    }

    /// Reads the retained messages, and returns them in the order of the log, with the position up
    /// to which the log is read.
    pub(crate) async fn read_retained(&self) -> anyhow::Result<(Vec<(u64, Logged)>, u64)> {
        let silent = |_: Silent| anyhow::anyhow!("NATS does not answer");
        let (_, last) = self.bounds().await.map_err(silent)?;
        let mut all = Vec::new();
        let config = OrderedConfig::default();
        self.read(RETAINED, config, |message| {
            let headers = message.headers.as_ref();
            let source = headers.and_then(|headers| headers.get("Nats-Stream-Source"));
            let mut parts = source.map_or("", |source| source.as_str()).split(' ');
            let position = parts.nth(1).and_then(|position| position.parse::<u64>().ok());
            if let (Some(position), Some(logged)) = (position, Logged::from_bytes(&message.payload))
            {
                all.push((position, logged));
            }
            true
        })
        .await
        .map_err(silent)?;
        all.sort_by_key(|(position, _)| *position);
        // The copy can be behind the log.
        let copied = all.last().map_or(0, |(position, _)| *position);
        let rest = self.read_log(copied, last, vec!["mqtt.retained.>".into()]);
        all.extend(rest.await.map_err(silent)?);
        all.retain(|(position, _)| *position <= last);
        Ok((all, last))
    }

    /// Reads a stream from one position on, as far as it goes now, or until `each` returns false.
    async fn read(
        &self,
        stream: &str,
        config: OrderedConfig,
        mut each: impl FnMut(&jetstream::Message) -> bool,
    ) -> Result<(), Silent> {
        let created = self.context.create_consumer_on_stream(config, stream);
        let mut consumer: Consumer<OrderedConfig> =
            timeout(2 * ANSWER, created).await.map_err(silent)?.map_err(silent)?;
        let mut pending = consumer.info().await.map_err(silent)?.num_pending;
        let mut messages = consumer.messages().await.map_err(silent)?;
        while pending > 0 {
            let message = timeout(2 * ANSWER, messages.next()).await.map_err(silent)?;
            let message = message.ok_or(Silent)?.map_err(silent)?;
            pending = message.info().map_err(silent)?.pending;
            if !each(&message) {
                break;
            }
        }
        Ok(())
    }

    async fn read_log(
        &self,
        after: u64,
        to: u64,
        subjects: Vec<String>,
    ) -> Result<Vec<(u64, Logged)>, Silent> {
        if after >= to {
            return Ok(Vec::new());
        }
        let deliver_policy = DeliverPolicy::ByStartSequence { start_sequence: after + 1 };
        let config =
            OrderedConfig { deliver_policy, filter_subjects: subjects, ..OrderedConfig::default() };
        let mut all = Vec::new();
        self.read(LOG, config, |message| {
            let position = message.info().map_or(u64::MAX, |info| info.stream_sequence);
            if position <= to {
                all.extend(Logged::from_bytes(&message.payload).map(|logged| (position, logged)));
            }
            position < to
        })
        .await?;
        Ok(all)
    }

    /// Asks JetStream, and returns its answer.
    async fn ask(&self, subject: String, request: Request) -> Result<Value, Silent> {
        let request = request.timeout(Some(ANSWER));
        match self.client.send_request(subject.clone(), request).await {
            Ok(message) => serde_json::from_slice(&message.payload).map_err(silent),
            Err(error) => {
                debug!(subject, %error, "NATS does not answer");
                Err(Silent)
            }
        }
    }

    async fn api(&self, call: String, content: Value) -> Result<Value, Silent> {
        let request = Request::new().payload(content.to_string().into());
        self.ask(format!("$JS.API.{call}"), request).await
    }

    /// Appends one message. Returns whether it was there already.
    async fn append_one(&self, append: &Append, token: &str) -> Result<bool, Silent> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, append.token.as_deref().unwrap_or(token));
        let request = Request::new().headers(headers).payload(append.message.to_vec().into());
        let answer = self.ask(subject_of(append), request).await?;
        check(&answer)?;
        Ok(answer.pointer("/duplicate").and_then(Value::as_bool).unwrap_or(false))
    }

    /// Sends what needs no acknowledgement, unless too much waits.
    fn put(&self, subject: String, payload: Vec<u8>) -> bool {
        let bytes = self.waiting.get() + payload.len();
        if bytes > OUTBOX {
            return false;
        }
        self.waiting.set(bytes);
        self.outbox.send((subject, payload)).is_ok()
    }

    /// Delivers the log, and what other nodes send, for ever.
    pub(crate) fn run<P: Port>(node: &Rc<Node<Self, P>>, mut position: u64) {
        let log = node.clone();
        spawn_local(async move {
            loop {
                if let Err(error) = follow(&log, &mut position).await {
                    warn!(error = format!("{error:#}"), "cannot read the log: trying again");
                }
                sleep(Duration::from_millis(200)).await;
            }
        });
        let direct = node.clone();
        spawn_local(async move {
            loop {
                let own = of_node(direct.engine.instance);
                if let Ok(mut messages) = direct.engine.client.subscribe(own).await {
                    while let Some(message) = messages.next().await {
                        receive(&direct, &message);
                    }
                }
                sleep(Duration::from_millis(200)).await;
            }
        });
        let notices = node.clone();
        spawn_local(async move {
            loop {
                if let Ok(mut messages) = notices.engine.client.subscribe("mqtt.all").await {
                    while let Some(message) = messages.next().await {
                        let Some((from, rest)) = message.payload.split_first_chunk() else {
                            continue;
                        };
                        if let Ok(notice) = serde_json::from_slice(rest) {
                            notices.notice(u64::from_be_bytes(*from), notice);
                        }
                    }
                }
                sleep(Duration::from_millis(200)).await;
            }
        });
    }
}

/// Delivers the log until it cannot be read.
async fn follow<P: Port>(node: &Node<Nats, P>, position: &mut u64) -> anyhow::Result<()> {
    let deliver_policy = DeliverPolicy::ByStartSequence { start_sequence: *position + 1 };
    let config = OrderedConfig { deliver_policy, ..OrderedConfig::default() };
    let created = node.engine.context.create_consumer_on_stream(config, LOG);
    let consumer: Consumer<OrderedConfig> = timeout(2 * ANSWER, created).await??;
    let mut messages = consumer.messages().await?.ready_chunks(CHUNK);
    loop {
        let chunk = match timeout(QUIET, messages.next()).await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return Ok(()),
            Err(_) => {
                // The server of the consumer is possibly lost, which shows after half a minute.
                let bounds = node.engine.bounds().await;
                let last = bounds.map_or(0, |(_, last)| last);
                ensure!(last <= *position, "the log has {last} messages, and {position} were read");
                continue;
            }
        };
        let mut all = Vec::with_capacity(chunk.len());
        let mut result = Ok(());
        for message in chunk {
            let message = match message {
                Ok(message) => message,
                Err(error) => {
                    result = Err(error.into());
                    break;
                }
            };
            let Ok(info) = message.info() else { continue };
            *position = info.stream_sequence;
            match Logged::from_bytes(&message.payload) {
                Some(logged) => all.push((*position, logged)),
                None => {
                    let subject = message.subject.as_str();
                    warn!(position, subject, "the log has a message of another program");
                }
            }
        }
        node.deliver(all);
        result.map_err(|error: anyhow::Error| error)?;
    }
}

/// Handles a message of another node for this one.
fn receive<P: Port>(node: &Rc<Node<Nats, P>>, message: &async_nats::Message) {
    match message.payload.split_first() {
        Some((b'M', rest)) => {
            if let Some(logged) = Logged::from_bytes(rest) {
                node.receive(&logged);
            }
        }
        Some((b'E', rest)) => {
            let (Ok(client), Some(reply)) = (std::str::from_utf8(rest), message.reply.clone())
            else {
                return;
            };
            let (given, sender) = (node.give_up(client), node.engine.client.clone());
            spawn_local(async move {
                if given.await.is_ok() {
                    let _ = sender
                        .publish(reply, Subject::from_static("done").to_string().into())
                        .await;
                }
            });
        }
        _ => {}
    }
}

fn silent<T>(_: T) -> Silent {
    Silent
}

/// Fails if JetStream has refused what it was asked for.
fn check(answer: &Value) -> Result<(), Silent> {
    match answer.get("error") {
        None => Ok(()),
        Some(error) => {
            debug!(%error, "NATS refuses");
            Err(Silent)
        }
    }
}

fn number(answer: &Value, path: &str) -> Option<u64> {
    answer.pointer(path).and_then(Value::as_u64)
}

/// Returns the content of the message in an answer.
fn data(answer: &Value) -> Option<Vec<u8>> {
    STANDARD.decode(answer.pointer("/message/data").map_or(Some(""), Value::as_str)?).ok()
}

fn code(answer: &Value) -> Option<u64> {
    number(answer, "/error/err_code")
}

fn subject_of(append: &Append) -> String {
    let kind = if append.is_retained { "retained" } else { "log" };
    format!("mqtt.{kind}.{}", subject::of_topic(&append.topic_name))
}

/// Returns subjects of which none overlaps with another, which a consumer refuses.
fn separate(filters: &[String]) -> Vec<String> {
    let mut subjects: Vec<String> =
        filters.iter().flat_map(|filter| subject::of_filter(filter)).collect();
    subjects.sort();
    subjects.dedup();
    let overlap = |one: &str, other: &str| {
        let (mut one, mut other) = (one.split('.'), other.split('.'));
        loop {
            match (one.next(), other.next()) {
                (Some(">"), Some(_)) | (Some(_), Some(">")) | (None, None) => return true,
                (Some(a), Some(b)) if a == "*" || b == "*" || a == b => {}
                _ => return false,
            }
        }
    };
    let is_one_of_two = |(index, one): (usize, &String)| {
        subjects.iter().skip(index + 1).any(|other| overlap(one, other))
    };
    if subjects.len() > 100 || subjects.iter().enumerate().any(is_one_of_two) {
        return vec!["mqtt.log.>".into(), "mqtt.retained.>".into()];
    }
    let of = |kind: &str| subjects.iter().map(|one| format!("mqtt.{kind}.{one}")).collect();
    let all: [Vec<String>; 2] = [of("log"), of("retained")];
    all.concat()
}

impl Engine for Nats {
    async fn append(&self, all: &[Append], token: &str) -> Result<(), Silent> {
        // The message that shows whether all of them are there.
        let marked = all.iter().position(|append| append.token.is_none());
        if let [one] = all {
            return self.append_one(one, token).await.map(|_| ());
        }
        let Some((last, rest)) = all.split_last() else { return Ok(()) };
        let batch = format!(
            "{token}-{:x}",
            self.client.statistics().out_messages.load(std::sync::atomic::Ordering::Relaxed)
        );
        let headers = |index: usize, append: &Append| {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Batch-Id", batch.as_str());
            headers.insert("Nats-Batch-Sequence", (index + 1).to_string());
            let own = append.token.as_deref();
            let id = own.or_else(|| (Some(index) == marked).then_some(token));
            id.into_iter().for_each(|id| headers.insert(NATS_MESSAGE_ID, id));
            headers
        };
        for (index, append) in rest.iter().enumerate() {
            let payload = append.message.to_vec().into();
            let sent = self.client.publish_with_headers(
                subject_of(append),
                headers(index, append),
                payload,
            );
            sent.await.map_err(silent)?;
        }
        let mut headers = headers(rest.len(), last);
        headers.insert("Nats-Batch-Commit", "1");
        let request = Request::new().headers(headers).payload(last.message.to_vec().into());
        let answer = self.ask(subject_of(last), request).await?;
        if code(&answer) != Some(10_201) {
            return check(&answer);
        }
        // Some of them are there: all, or those that another node has appended in place of this
        // one.
        if let Some(index) = marked {
            let Some(append) = all.get(index) else { return Ok(()) };
            if self.append_one(append, token).await? {
                return Ok(());
            }
        }
        for (index, append) in all.iter().enumerate() {
            if Some(index) != marked {
                self.append_one(append, &format!("{token}.{index}")).await?;
            }
        }
        Ok(())
    }

    async fn append_entry(
        &self,
        client: &str,
        expected: u64,
        entry: &Entry,
    ) -> Result<u64, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string());
        let is_over = entry.has_ended && entry.owed.is_empty();
        headers.insert("Mqtt-Owner", format!("{:016x}", entry.owner));
        headers.insert("Mqtt-Ended", if is_over { "1" } else { "0" });
        if entry.is_fresh {
            headers.insert("Nats-Rollup", "sub");
        }
        if is_over {
            headers.insert("Nats-TTL", TOMBSTONE);
        }
        let request = Request::new().headers(headers).payload(entry.to_bytes().into());
        let answer = self.ask(of_session(client), request).await.map_err(|_| Refusal::Silent)?;
        if matches!(code(&answer), Some(10_071 | 10_164)) {
            return Err(Refusal::Stale);
        }
        check(&answer).map_err(|_| Refusal::Silent)?;
        number(&answer, "/seq").ok_or(Refusal::Silent)
    }

    async fn entries(&self, client: &str) -> Result<Vec<(u64, Entry)>, Silent> {
        let (subject, mut next, mut all) = (of_session(client), 1, Vec::new());
        loop {
            // The leader answers, so that no entry is missing that another node has appended.
            let content = json!({ "seq": next, "next_by_subj": subject });
            let answer = self.api(format!("STREAM.MSG.GET.{SESSIONS}"), content).await?;
            if number(&answer, "/error/code") == Some(404) {
                return Ok(all);
            }
            check(&answer)?;
            let sequence = number(&answer, "/message/seq").ok_or(Silent)?;
            let Some(entry) = data(&answer).and_then(|data| Entry::from_bytes(&data)) else {
                warn!(client, sequence, "the entry of the session is of another version");
                return Err(Silent);
            };
            all.push((sequence, entry));
            next = sequence + 1;
        }
    }

    async fn heads(&self) -> Result<Vec<Head>, Silent> {
        let config = OrderedConfig {
            deliver_policy: DeliverPolicy::LastPerSubject,
            filter_subject: "mqtt.session.>".into(),
            headers_only: true,
            ..OrderedConfig::default()
        };
        let mut heads = Vec::new();
        self.read(SESSIONS, config, |message| {
            let header = |name: &str| {
                message.headers.as_ref().and_then(|all| all.get(name)).map(|value| value.as_str())
            };
            let client = message.subject.strip_prefix("mqtt.session.").and_then(subject::text);
            let owner = header("Mqtt-Owner").and_then(|owner| u64::from_str_radix(owner, 16).ok());
            let sequence = message.info().map(|info| info.stream_sequence);
            if let (Some(client), Some(owner), Ok(sequence)) = (client, owner, sequence) {
                let has_ended = header("Mqtt-Ended") == Some("1");
                heads.push(Head { client, sequence, owner, has_ended });
            }
            true
        })
        .await?;
        Ok(heads)
    }

    async fn log(
        &self,
        after: u64,
        to: u64,
        filters: &[String],
    ) -> Result<Vec<(u64, Logged)>, Silent> {
        self.read_log(after, to, separate(filters)).await
    }

    async fn message(&self, position: u64) -> Result<Option<Logged>, Silent> {
        let content = json!({ "seq": position });
        let answer = self.api(format!("STREAM.MSG.GET.{LOG}"), content).await?;
        if number(&answer, "/error/code") == Some(404) {
            return Ok(None);
        }
        check(&answer)?;
        Ok(data(&answer).and_then(|data| Logged::from_bytes(&data)))
    }

    async fn bounds(&self) -> Result<(u64, u64), Silent> {
        let answer = self.api(format!("STREAM.INFO.{LOG}"), json!({})).await?;
        check(&answer)?;
        let bound = |path: &str| number(&answer, path).ok_or(Silent);
        Ok((bound("/state/first_seq")?, bound("/state/last_seq")?))
    }

    async fn evict(&self, node: u64, client: &str) -> Evicted {
        let payload = [b"E", client.as_bytes()].concat();
        let request = Request::new().payload(payload.into()).timeout(Some(OTHER_NODE));
        match self.client.send_request(of_node(node), request).await {
            Ok(_) => Evicted::Done,
            Err(error) => {
                if error.kind() != RequestErrorKind::NoResponders {
                    debug!(client, %error, "another node does not give the session up");
                }
                Evicted::Silent
            }
        }
    }

    fn send(&self, node: u64, message: Vec<u8>) -> bool {
        self.put(of_node(node), [b"M", &message[..]].concat())
    }

    fn tell(&self, notice: &Notice) {
        if let Ok(text) = serde_json::to_vec(notice) {
            let from = self.instance.to_be_bytes();
            // One that is lost shows at the next sign of life.
            let _ = self.put("mqtt.all".into(), [&from[..], &text].concat());
        }
    }
}
