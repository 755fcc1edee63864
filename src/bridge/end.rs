//! One end of a bridge: the client of a broker, and the messages of that broker that wait for the
//! acknowledgement of the other one.

use crate::client::{Client, ClientConfig};
use crate::codec::{DecodeError, EncodeError, PacketIdentifier, Publish, QoS, ReasonCode, Version};
use crate::session::{AckToken, PublishError, QueueLimit, Session};
use crate::time::Instant;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// The output at which the bridge reads no more from the other side.
const HIGH_WATER: usize = 64 * 1024;

/// The counters of a side.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BridgeStats {
    /// Messages that came from the broker of this side.
    pub received: u64,
    /// Messages that were published to the broker of this side.
    pub sent: u64,
    /// Messages for the broker of this side that were dropped: with QoS 0, because there was no
    /// connection or too many waited; or because that broker does not accept such a message.
    pub dropped: u64,
    /// Messages that came from the broker of this side, and that no topic covers.
    pub unroutable: u64,
    /// QoS 1 and 2 messages of this side that the other broker has not acknowledged.
    pub unfinished: usize,
}

pub(super) struct End {
    pub(super) client: Client,
    pub(super) version: Version,
    pub(super) out: Vec<u8>,
    pub(super) stats: BridgeStats,
    pub(super) subscriptions: Subscriptions,
    /// Whether the broker has refused a CONNECT that was marked as that of a bridge.
    pub(super) refuses_mark: bool,
    limit: QueueLimit,
    receive_maximum: usize,
    /// The messages of this side that are in flight on the other one, by their packet identifiers
    /// here.
    exchanges: BTreeMap<PacketIdentifier, Exchange>,
    last_key: u64,
}

/// Whether the broker has the subscriptions of the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Subscriptions {
    /// The number of requests that are not answered.
    pub(super) pending: usize,
    pub(super) refused: bool,
    /// The number of requests on this connection whose packet identifier was in use.
    pub(super) collisions: u16,
    /// Whether all were answered, and none refused, in this session.
    pub(super) complete: bool,
}

/// A QoS 1 or 2 message of this side that is not acknowledged here: the other broker has not
/// acknowledged it, or the connection of this side ended first.
struct Exchange {
    key: u64,
    /// `None` after the connection has ended, until the broker resends the message.
    token: Option<AckToken>,
    outcome: Option<ReasonCode>,
}

impl End {
    pub(super) fn new(client: ClientConfig, limit: QueueLimit, receive_maximum: u16) -> Self {
        Self {
            // After a restart the broker can have a session that this program does not know.
            client: Client::with_session(client, Session::established()),
            version: Version::V5_0,
            out: Vec::new(),
            stats: BridgeStats::default(),
            subscriptions: Subscriptions::default(),
            refuses_mark: false,
            limit,
            receive_maximum: receive_maximum.into(),
            exchanges: BTreeMap::new(),
            last_key: 0,
        }
    }

    /// Whether this side must not be read from, so that nothing grows without bound.
    ///
    /// While only the other side is slow, this one waits for it. Two brokers that read nothing
    /// while they cannot write would wait for each other for ever if the bridge read from neither.
    /// So it reads from both, up to the limit at which it drops messages with QoS 0.
    pub(super) fn is_paused(&self, other: &Self) -> bool {
        let is_behind = other.out.len() >= HIGH_WATER && self.out.len() < HIGH_WATER;
        // The Receive Maximum keeps a 5.0 broker below this, except after it has lost a session.
        let has_too_many = self.stats.unfinished >= 2 * self.receive_maximum;
        self.client.is_connected()
            && (is_behind || has_too_many || self.out.len() >= self.limit.bytes)
    }

    /// Publishes a message to the broker as far as it is allowed there. Returns the QoS at which it
    /// was published, or `None` if it was dropped.
    pub(super) fn publish(&mut self, key: u64, publish: &Publish<'_>, now: Instant) -> Option<QoS> {
        let mut publish = *publish;
        if self.client.is_connected() {
            publish = publish.for_version(self.version);
        }
        loop {
            if publish.qos == QoS::AtMostOnce && !self.has_room() {
                self.stats.dropped += 1;
                return None;
            }
            match self.client.publish(key, &publish, now, &mut self.out) {
                Ok(()) => {
                    self.stats.sent += 1;
                    return Some(publish.qos);
                }
                Err(PublishError::QosNotSupported { maximum }) if maximum < publish.qos => {
                    publish.qos = maximum;
                }
                Err(PublishError::RetainNotSupported) if publish.retain => publish.retain = false,
                // A server forwards the indicator even if it is wrong. A client must not send it.
                // [5.0 MQTT-3.3.2-4] [5.0 §3.3.2.3.2]
                Err(PublishError::Encode(EncodeError::Forbidden(
                    DecodeError::InvalidPayloadFormat,
                ))) if publish.properties.payload_format_indicator.is_some() => {
                    publish.properties.payload_format_indicator = None;
                }
                Err(_) => {
                    self.stats.dropped += 1;
                    return None;
                }
            }
        }
    }

    /// Whether a message with QoS 0 can be published now.
    fn has_room(&self) -> bool {
        let session = self.client.session();
        self.client.is_connected()
            && session.queued() < self.limit.messages
            && session.queued_bytes().saturating_add(self.out.len()) < self.limit.bytes
    }

    /// Returns the key under which a message of this side is published on the other one. It
    /// contains the packet identifier.
    pub(super) fn next_key(&mut self, identifier: Option<PacketIdentifier>) -> u64 {
        self.last_key += 1;
        self.last_key << 16 | u64::from(identifier.map_or(0, PacketIdentifier::get))
    }

    /// Notes that a message of this side was published on the other one.
    pub(super) fn begin(&mut self, key: u64, identifier: PacketIdentifier, token: AckToken) {
        self.stats.unfinished += 1;
        self.exchanges.insert(identifier, Exchange { key, token: Some(token), outcome: None });
    }

    /// Returns whether a message that the broker sends is one that this side has already passed on.
    /// The token then acknowledges it.
    ///
    /// A packet identifier stays in use until its message is acknowledged, also over connections of
    /// the session, and resent messages have DUP. [5.0 MQTT-4.4.0-1] [5.0 MQTT-3.3.1-1]
    pub(super) fn is_repeat(
        &mut self,
        identifier: PacketIdentifier,
        token: AckToken,
        dup: bool,
        now: Instant,
    ) -> bool {
        let Some(exchange) = self.exchanges.get_mut(&identifier) else { return false };
        if exchange.token.is_some() {
            // A repeat within the connection. Its acknowledgement is sent after the first one's.
            self.acknowledge(token, ReasonCode::SUCCESS, now);
            return true;
        }
        if dup {
            exchange.token = Some(token);
            self.settle(identifier, now);
        }
        dup
    }

    /// Notes the outcome of a message of this side on the other one.
    pub(super) fn finish(&mut self, key: u64, outcome: ReasonCode, now: Instant) {
        self.stats.unfinished = self.stats.unfinished.saturating_sub(1);
        let [.., high, low] = key.to_be_bytes();
        let identifier = PacketIdentifier::new(u16::from_be_bytes([high, low]));
        let Some(identifier) = identifier else { return };
        // The broker can have lost the session meanwhile.
        if let Some(exchange) = self.exchanges.get_mut(&identifier) {
            if exchange.key == key {
                exchange.outcome = Some(outcome);
                self.settle(identifier, now);
            }
        }
    }

    /// Acknowledges a message if its outcome is known and there is a connection.
    fn settle(&mut self, identifier: PacketIdentifier, now: Instant) {
        let exchange = self.exchanges.get(&identifier);
        let Some(Exchange { token: Some(token), outcome: Some(outcome), .. }) = exchange else {
            return;
        };
        let (token, outcome) = (*token, *outcome);
        if self.acknowledge(token, outcome, now) {
            self.exchanges.remove(&identifier);
        }
    }

    /// Acknowledges a message. Returns false if the connection has ended.
    pub(super) fn acknowledge(&mut self, token: AckToken, code: ReasonCode, now: Instant) -> bool {
        // A PUBCOMP can have a code that a PUBACK cannot have.
        [code, ReasonCode::SUCCESS]
            .into_iter()
            .any(|code| self.client.acknowledge(token, code, now, &mut self.out).is_ok())
    }

    /// Notes that the connection has ended. The broker will resend what is not acknowledged.
    pub(super) fn disconnected(&mut self) {
        self.exchanges.values_mut().for_each(|exchange| exchange.token = None);
        (self.subscriptions.pending, self.subscriptions.collisions) = (0, 0);
    }

    /// Notes that the broker has no session, so that it resends nothing.
    pub(super) fn forget_session(&mut self) {
        self.exchanges.clear();
        self.subscriptions = Subscriptions::default();
    }
}
