//! Reading: the log, and the messages of other nodes.

use super::{ANSWER, LOG, Nats, RETAINED, of_node, silent};
use crate::cluster::engine::{Engine as _, Silent};
use crate::cluster::node::{Node, Port};
use crate::cluster::record::{Item, Logged};
use crate::cluster::subject;
use anyhow::ensure;
use async_nats::jetstream::consumer::{Consumer, DeliverPolicy, pull::OrderedConfig};
use async_nats::{Subject, jetstream};
use futures_util::StreamExt as _;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};
use tracing::warn;

/// The time without messages after which the log is asked for its end.
const QUIET: Duration = Duration::from_secs(1);
/// Messages of the log that are delivered in one call of the broker.
const CHUNK: usize = 256;

impl Nats {
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

    /// Reads the retained messages and the members of shared subscriptions, and returns them in the
    /// order of the log, with the position up to which the log is read.
    pub(crate) async fn read_retained(&self) -> anyhow::Result<(Vec<(u64, Item)>, u64)> {
        let silent = |_: Silent| anyhow::anyhow!("NATS does not answer");
        let (_, last) = self.bounds().await.map_err(silent)?;
        let mut all = Vec::new();
        let config = OrderedConfig::default();
        self.read(RETAINED, config, |message| {
            let headers = message.headers.as_ref();
            let source = headers.and_then(|headers| headers.get("Nats-Stream-Source"));
            let mut parts = source.map_or("", |source| source.as_str()).split(' ');
            let position = parts.nth(1).and_then(|position| position.parse::<u64>().ok());
            if let (Some(position), Some(item)) = (position, Item::from_bytes(&message.payload)) {
                all.push((position, item));
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
    pub(super) async fn read(
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

    pub(super) async fn read_log(
        &self,
        after: u64,
        to: u64,
        subjects: Vec<String>,
    ) -> Result<Vec<(u64, Item)>, Silent> {
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
                all.extend(Item::from_bytes(&message.payload).map(|item| (position, item)));
            }
            position < to
        })
        .await?;
        Ok(all)
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
            match Item::from_bytes(&message.payload) {
                Some(item) => all.push((*position, item)),
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

/// Returns subjects of which none overlaps with another, which a consumer refuses.
pub(super) fn separate(filters: &[String]) -> Vec<String> {
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
