//! NATS JetStream as the engine of the nodes.
//!
//! | stream | subjects | |
//! |---|---|---|
//! | `MQTT_LOG` | `mqtt.log.TOPIC`, `mqtt.retained.TOPIC` | the log, limited by age and bytes |
//! | `MQTT_RETAINED` | from `mqtt.retained.>` of the log | the last retained message of each topic, and the state of each member of a shared subscription |
//! | `MQTT_SESSIONS` | `mqtt.session.CLIENT` | the entries of sessions |
//!
//! Beside them nodes talk over `mqtt.node.INSTANCE` and `mqtt.all`, which can lose messages.

mod reading;
mod servers;

pub(crate) use servers::ClusterArguments;
pub(super) use servers::START;

use super::engine::{Append, Engine, Evicted, Head, Notice, Place, Refusal, Silent};
use super::record::{Entry, Item, Logged, Mark};
use super::subject;
use async_nats::header::{HeaderMap, NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_ID};
use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::{DeliverPolicy, pull::OrderedConfig};
use async_nats::{Client, Request, RequestErrorKind};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reading::separate;
use serde_json::{Value, json};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::{debug, warn};

const LOG: &str = "MQTT_LOG";
const RETAINED: &str = "MQTT_RETAINED";
const SESSIONS: &str = "MQTT_SESSIONS";

/// The time in which the engine must answer. The election of a leader can take longer, and then the
/// request is repeated.
const ANSWER: Duration = Duration::from_secs(3);
/// The time in which another node must answer.
const OTHER_NODE: Duration = Duration::from_secs(2);
/// The time that the end of a session is kept, so that nodes notice it.
const TOMBSTONE: &str = "1h";
/// The time for which the log remembers the identifiers of messages.
const WINDOW: Duration = Duration::from_secs(600);
/// Messages of a subject that are asked for one by one, before all others are read together.
const FEW: usize = 16;
/// Bytes that can wait for NATS and need no acknowledgement.
const OUTBOX: usize = 32 * 1024 * 1024;

/// The servers of NATS.
pub(crate) struct Nats {
    client: Client,
    context: Context,
    instance: u64,
    /// Messages that need no acknowledgement.
    outbox: mpsc::UnboundedSender<(String, Vec<u8>)>,
    /// The bytes that wait there.
    waiting: Rc<Cell<usize>>,
    /// The time that the log keeps messages, as NATS writes it, if it is limited.
    log_time: Option<String>,
}

impl Engine for Nats {
    const WINDOW: Duration = WINDOW;

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
            self.limit(append, &mut headers);
            headers
        };
        for (index, append) in rest.iter().enumerate() {
            let payload = append.bytes.to_vec().into();
            let sent = self.client.publish_with_headers(
                subject_of(append),
                headers(index, append),
                payload,
            );
            sent.await.map_err(silent)?;
        }
        let mut headers = headers(rest.len(), last);
        headers.insert("Nats-Batch-Commit", "1");
        let request = Request::new().headers(headers).payload(last.bytes.to_vec().into());
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

    async fn appended(&self, after: u64, all: &[Append]) -> Result<Vec<bool>, Silent> {
        let mut subjects = BTreeMap::<String, (u64, BTreeSet<Mark>)>::new();
        for append in all {
            let Some(mark) = &append.mark else { continue };
            let after = if let Mark::Repeat { of, .. } = mark { *of } else { after };
            let (from, marks) =
                subjects.entry(subject_of(append)).or_insert((after, BTreeSet::new()));
            *from = after.min(*from);
            marks.insert(mark.clone());
        }
        let mut found = BTreeSet::new();
        for (subject, (from, mut marks)) in subjects {
            self.find(subject, from, &mut marks, &mut found).await?;
        }
        Ok(all
            .iter()
            .map(|one| one.mark.as_ref().is_some_and(|mark| found.contains(mark)))
            .collect())
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
        while let Some((sequence, data)) = self.next(SESSIONS, &subject, next).await? {
            let Some(entry) = Entry::from_bytes(&data) else {
                warn!(client, sequence, "the entry of the session is of another version");
                return Err(Silent);
            };
            all.push((sequence, entry));
            next = sequence + 1;
        }
        Ok(all)
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
        let all = self.read_log(after, to, separate(filters)).await?;
        let messages = all.into_iter().filter_map(|(position, item)| match item {
            Item::Message(logged) => Some((position, logged)),
            Item::Member(_) | Item::Settled(_) => None,
        });
        Ok(messages.collect())
    }

    async fn items(
        &self,
        after: u64,
        to: u64,
        are_members: bool,
    ) -> Result<Vec<(u64, Item)>, Silent> {
        let members = format!("mqtt.retained.{}.>", subject::MEMBER);
        self.read_log(after, to, if are_members { vec![members] } else { Vec::new() }).await
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

impl Nats {
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

    /// Returns the next message of a subject. The leader of the stream answers, so that none is
    /// missing that another node has appended.
    async fn next(
        &self,
        stream: &str,
        subject: &str,
        from: u64,
    ) -> Result<Option<(u64, Vec<u8>)>, Silent> {
        let content = json!({ "seq": from, "next_by_subj": subject });
        let answer = self.api(format!("STREAM.MSG.GET.{stream}"), content).await?;
        if number(&answer, "/error/code") == Some(404) {
            return Ok(None);
        }
        check(&answer)?;
        let sequence = number(&answer, "/message/seq").ok_or(Silent)?;
        Ok(Some((sequence, data(&answer).ok_or(Silent)?)))
    }

    /// Moves the marks of the messages that the log has for a subject, behind a position, to
    /// `found`.
    async fn find(
        &self,
        subject: String,
        after: u64,
        marks: &mut BTreeSet<Mark>,
        found: &mut BTreeSet<Mark>,
    ) -> Result<(), Silent> {
        let mut note = |item: Option<Item>| {
            if let Some(Item::Message(logged)) = item {
                found.extend(marks.take(&logged.mark()));
            }
            marks.is_empty()
        };
        let (mut next, mut count) = (after + 1, 0);
        while let Some((position, data)) = self.next(LOG, &subject, next).await? {
            if note(Item::from_bytes(&data)) {
                break;
            }
            (next, count) = (position + 1, count + 1);
            if count == FEW {
                let (_, last) = self.bounds().await?;
                for (position, item) in self.read_log(position, last, vec![subject.clone()]).await?
                {
                    if note(Some(item)) {
                        return Ok(());
                    }
                    next = position + 1;
                }
            }
        }
        Ok(())
    }

    /// Limits the time that the copy of the end of something is kept, which no newer item replaces.
    fn limit(&self, append: &Append, headers: &mut HeaderMap) {
        if let Some(time) = self.log_time.as_deref().filter(|_| append.is_end) {
            headers.insert("Nats-TTL", time);
        }
    }

    /// Appends one message. Returns whether it was there already.
    async fn append_one(&self, append: &Append, token: &str) -> Result<bool, Silent> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, append.token.as_deref().unwrap_or(token));
        self.limit(append, &mut headers);
        let request = Request::new().headers(headers).payload(append.bytes.to_vec().into());
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
    match &append.place {
        Place::Topic(topic_name) => format!("mqtt.log.{}", subject::of_topic(topic_name)),
        Place::Retained(topic_name) => format!("mqtt.retained.{}", subject::of_topic(topic_name)),
        Place::Member { share, client } => {
            format!("mqtt.retained.{}", subject::of_member(share, client))
        }
        Place::Settled => format!("mqtt.retained.{}", subject::SETTLED),
    }
}
