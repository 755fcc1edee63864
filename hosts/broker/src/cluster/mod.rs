//! Several brokers that share their clients over NATS JetStream: `--cluster`.
//!
//! [`node`] decides, [`engine`] says what it needs of an engine, [`nats`] is that engine, and
//! [`record`] and [`subject`] are what is stored there. `cluster.md` describes it for users.

mod engine;
mod nats;
mod node;
mod record;
#[cfg(test)]
mod simulation;
mod subject;

pub(crate) use nats::{ClusterArguments, can_have_session};
pub(crate) use node::Node;

use crate::flags::Arguments;
use crate::host::Host;
use anyhow::Context as _;
use mqtt_sansio::Instant;
use mqtt_sansio::broker::Broker;
use mqtt_sansio::codec::{Connect, Disconnect, Publish, PublishProperties, ReasonCode, Version};
use mqtt_sansio::session::Message;
use nats::{Nats, START};
use node::Port;
use record::Logged;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::spawn_local;
use tokio::time::sleep;
use tracing::{debug, info};

/// The node of the program.
pub(crate) type OwnNode = Node<Nats, Host>;

/// Connects to the engine, reads what is retained, and begins to run the node.
pub(crate) async fn start(host: &Rc<Host>, arguments: &Arguments) -> anyhow::Result<Rc<OwnNode>> {
    let Arguments { cluster: arguments, sys_interval, .. } = arguments;
    let mut instance = [0; 8];
    getrandom::fill(&mut instance).context("the system has no randomness")?;
    // 0 is no node.
    let instance = u64::from_ne_bytes(instance).max(1);
    let name = arguments
        .cluster_node
        .clone()
        .unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned());
    let nats = Nats::connect(arguments, &name, instance).await?;
    let mut attempts = 0;
    let (retained, position) = loop {
        match nats.read_retained().await {
            Ok(read) => break read,
            // The stream can have been created a moment ago, and have no leader yet.
            Err(error) if attempts < START => {
                debug!(error = format!("{error:#}"), attempts, "waiting for the log");
                attempts += 1;
                sleep(Duration::from_secs(1)).await;
            }
            Err(error) => return Err(error),
        }
    };
    let (is_sys, count) = (*sys_interval > 0, retained.len());
    let node = Rc::new(Node::new(nats, host.clone(), name.clone(), instance));
    node.start(&retained);
    host.with_broker(|broker, now| {
        let _ = broker.advance(position);
        if is_sys {
            let topic_name = "$SYS/broker/node";
            let publish = Publish { retain: true, ..Publish::new(topic_name, name.as_bytes()) };
            let _ = broker.publish_own(&publish, now);
        }
    });
    info!(node = name, position, retained = count, "joined the cluster");
    spawn_local(node.clone().settle(position));
    Nats::run(&node, position);
    spawn_local(node.clone().run_batches());
    spawn_local(node.clone().run_clock());
    spawn_local(node.clone().run_direct());
    Ok(node)
}

/// Returns the will of a client whose session ends with its connection. The record of another
/// session has its will.
pub(crate) fn will_of(connect: &Connect<'_>) -> Option<Logged> {
    let is_kept = match connect.version {
        Version::V5_0 => connect.properties.session_expiry_interval.is_some_and(|time| time > 0),
        _ => !connect.clean_start,
    };
    let will = connect.will.filter(|_| !is_kept)?;
    let properties = PublishProperties {
        payload_format_indicator: will.properties.payload_format_indicator,
        message_expiry_interval: will.properties.message_expiry_interval,
        content_type: will.properties.content_type,
        response_topic: will.properties.response_topic,
        correlation_data: will.properties.correlation_data,
        user_properties: will.properties.user_properties,
        ..PublishProperties::default()
    };
    let (qos, retain) = (will.qos, will.retain);
    let publish = Publish { qos, retain, properties, ..Publish::new(will.topic, will.payload) };
    let message = Message::new(&publish).ok()?;
    let publisher = connect.client_identifier.to_str().into();
    let (expires_at, share, choices) = (None, None, Vec::new());
    let (of, number, known) = (0, 0, 0);
    Some(Logged { message, publisher, expires_at, share, of, number, known, choices })
}

impl Port for Host {
    fn with<T>(self: &Rc<Self>, call: impl FnOnce(&mut Broker, Instant) -> T) -> T {
        self.with_broker(call)
    }

    async fn journal_moved(&self) {
        self.shared.journal.moved().await;
    }

    fn note_batch(&self, is_open: bool) {
        if !is_open {
            self.shared.counters.lock().stored_batches += 1;
        }
        self.shared.journal.note_batch(is_open);
    }

    fn cut_off(self: &Rc<Self>) {
        let disconnect = Disconnect::new(ReasonCode::SERVER_UNAVAILABLE);
        let ids: Vec<_> = self.shared.lock().links.keys().copied().collect();
        self.with_broker(|broker, now| {
            for id in &ids {
                broker.disconnect(*id, &disconnect, now);
            }
        });
        let host = self.clone();
        spawn_local(async move {
            sleep(Duration::from_secs(1)).await;
            // Acknowledgements that wait for the engine hold a DISCONNECT back.
            for id in ids {
                host.with_state(|state, now| {
                    let _ = state.broker.connection_lost(id, now);
                    host.wake(&state.links, id);
                });
            }
        });
    }
}
