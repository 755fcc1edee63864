//! Messages to a client: the buffer, and one open transaction. [SN §6.10] [SN §6.14]

use super::config::GatewayConfig;
use super::device::{Device, Phase};
use super::output::Context;
use super::uplink::Uplink;
use crate::codec::{PacketIdentifier, QoS, ReasonCode, Topic, UnsubscribeProperties};
use crate::session::{AckToken, Received};
use crate::sn::v1_2::{Message, Puback, Publish, Regack, Register, ReturnCode, TopicId};
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::collections::{BTreeSet, VecDeque};

/// The messages that are sent in a call. The next call sends more.
const BURST: usize = 16;

#[derive(Default)]
pub(super) struct Outbound {
    queue: VecDeque<Delivery>,
    bytes: usize,
    /// The message that the client has not answered.
    open: Option<Open>,
    /// When the next message can be sent, after the client has rejected one, or after a burst.
    resume_at: Option<Instant>,
    last_id: u16,
    /// The packet identifiers of messages that the client has, and that the server will send again
    /// because there was no connection to acknowledge them.
    settled: BTreeSet<PacketIdentifier>,
}

/// A message for the client. The first one of the queue can be in flight.
struct Delivery {
    topic: Topic,
    payload: Box<[u8]>,
    qos: QoS,
    retain: bool,
    /// The packet identifier at the server, with QoS 1 and 2, while the server has its session.
    identifier: Option<PacketIdentifier>,
    /// `None` if the connection has ended and the server has not sent the message again.
    token: Option<AckToken>,
    /// The message id, once the message was sent.
    message_id: Option<PacketIdentifier>,
    /// How often the client did not know the topic id.
    rejections: u8,
}

impl Delivery {
    fn size(&self) -> usize {
        self.topic.as_text().len() + self.payload.len()
    }

    /// Whether an answer belongs to the message. An answer can arrive late: the client has
    /// connected again, and the gateway registers the topic before it resends the message.
    fn is_answered_by(&self, message_id: u16) -> bool {
        self.message_id.is_some_and(|id| id.get() == message_id)
    }
}

#[derive(Clone, Copy)]
struct Open {
    message_id: PacketIdentifier,
    kind: Kind,
    tries: u8,
    retry_at: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Register(TopicId),
    Publish,
    Pubrel,
}

impl Outbound {
    /// Returns the number of buffered messages.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Returns the bytes of the topic names and payloads of buffered messages.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the buffer has no room for a message with QoS 1 or 2.
    pub(super) fn is_full(&self, config: &GatewayConfig) -> bool {
        let (messages, bytes) = config.maximum_buffered;
        self.queue.len() >= messages.max(1) || self.bytes >= bytes.max(1)
    }

    /// Whether there is room for a message with QoS 0.
    fn has_room(&self, size: usize, config: &GatewayConfig) -> bool {
        let (messages, bytes) = config.maximum_buffered;
        self.queue.len() < messages.div_ceil(2) && self.bytes + size <= bytes.div_ceil(2)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.open {
            Some(open) => Some(open.retry_at),
            None => self.resume_at,
        }
    }

    /// Makes the open transaction due, with all its tries.
    pub(super) fn resend_now(&mut self, now: Instant) {
        if let Some(open) = &mut self.open {
            (open.tries, open.retry_at) = (0, now);
        }
    }

    /// Notes that the client has connected again. It can have lost its topic ids, so a PUBLISH
    /// begins again with REGISTER.
    pub(super) fn reconnected(&mut self, now: Instant) {
        self.open = self.open.filter(|open| open.kind == Kind::Pubrel);
        self.resume_at = None;
        self.resend_now(now);
    }

    /// Notes that the connection to the server has ended. The server resends messages that are not
    /// acknowledged.
    pub(super) fn disconnected(&mut self) {
        self.queue.iter_mut().for_each(|delivery| delivery.token = None);
    }

    /// Notes that the server has no session, so that it sends nothing again.
    pub(super) fn forget_session(&mut self) {
        self.queue.iter_mut().for_each(|delivery| delivery.identifier = None);
        self.settled.clear();
    }

    fn next_id(&mut self) -> PacketIdentifier {
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        PacketIdentifier::new(self.last_id).unwrap_or(PacketIdentifier::FIRST)
    }

    fn open(&mut self, message_id: PacketIdentifier, kind: Kind, retry_at: Instant) {
        self.open = Some(Open { message_id, kind, tries: 0, retry_at });
    }

    /// Returns the kind of the open transaction, if it has that message id.
    fn opened(&self, message_id: u16) -> Option<Kind> {
        self.open.filter(|open| open.message_id.get() == message_id).map(|open| open.kind)
    }
}

impl<P: Clone + Ord> Device<P> {
    /// Puts a message of the server into the buffer.
    pub(super) fn on_message(&mut self, message: &Received<'_>, context: &mut Context<'_, P>) {
        let token = message.token;
        let client = &self.uplink.client;
        let identifier = token.and_then(|token| client.packet_identifier(token));
        if let Some(settled) = identifier {
            if self.outbound.settled.remove(&settled) && message.dup {
                return self.acknowledge(token, context);
            }
            let is_same = |delivery: &&mut Delivery| delivery.identifier == identifier;
            if let Some(delivery) = self.outbound.queue.iter_mut().find(is_same) {
                // A packet identifier is in use until its message is acknowledged, also over
                // connections of the session. [3.1.1 MQTT-4.4.0-1] [3.1.1 MQTT-3.3.1-1]
                if delivery.token.is_some() {
                    return self.acknowledge(token, context);
                }
                if message.dup {
                    delivery.token = token;
                    return;
                }
                delivery.identifier = None;
            }
        }
        let delivery = Delivery {
            topic: message.topic_name.clone().into_topic(),
            payload: message.payload.into(),
            qos: message.qos,
            retain: message.retain,
            identifier,
            token,
            message_id: None,
            rejections: 0,
        };
        let size = delivery.size();
        if message.qos == QoS::AtMostOnce && !self.outbound.has_room(size, context.config) {
            context.stats.dropped += 1;
            return;
        }
        self.outbound.bytes += size;
        self.outbound.queue.push_back(delivery);
        self.pump(context);
    }

    /// Sends the messages that can be sent now. After the last buffered message, a PINGRESP tells
    /// an awake client that it can sleep again. [SN §6.14]
    pub(super) fn pump(&mut self, context: &mut Context<'_, P>) {
        for sent in 0.. {
            let is_done = match self.phase {
                Phase::Active => false,
                Phase::Awake { remaining } => remaining == 0,
                Phase::Connecting(_) | Phase::Asleep | Phase::Lost { .. } | Phase::Disconnected => {
                    return;
                }
            };
            if self.outbound.open.is_some() {
                return;
            }
            let is_held = self.outbound.resume_at.is_some_and(|at| at > context.now);
            if is_done || is_held || self.outbound.queue.is_empty() {
                if matches!(self.phase, Phase::Awake { .. }) {
                    self.heard = context.now;
                    self.send(&Message::Pingresp, context);
                    self.set_phase(Phase::Asleep, context);
                }
                return;
            }
            self.outbound.resume_at = None;
            if sent == BURST {
                self.outbound.resume_at = Some(context.now);
                return;
            }
            self.send_first(context);
        }
    }

    /// Sends the first message of the queue, or the REGISTER that it needs.
    fn send_first(&mut self, context: &mut Context<'_, P>) {
        let Some(delivery) = self.outbound.queue.front() else { return };
        let name = delivery.topic.as_text();
        let retry_at = context.now + context.config.retry.interval;
        // A length of three octets begins at 256. [SN §5.2.1]
        let fits = |size: usize| size + 9 <= context.config.maximum_datagram.min(0xFFFF);
        let known = self.topics.reference(&delivery.topic, context.config);
        if !fits(delivery.payload.len()) || known.is_none() && !fits(name.len()) {
            // [SN §6.10]
            return self.drop_first(context);
        }
        let Some(topic) = known else {
            let Some(id) = self.topics.assign_own(&delivery.topic, context.config) else {
                return self.drop_first(context);
            };
            let message_id = self.outbound.next_id();
            self.outbound.open(message_id, Kind::Register(id), retry_at);
            return self.send_open(false, context);
        };
        if delivery.qos == QoS::AtMostOnce {
            let publish =
                Publish { retain: delivery.retain, ..Publish::new(topic, &delivery.payload) };
            self.send(&Message::Publish(publish), context);
            context.stats.delivered += 1;
            self.pop(context);
            return;
        }
        let is_resumed = delivery.message_id.is_some();
        let message_id = delivery.message_id.unwrap_or_else(|| {
            let id = self.outbound.last_id.checked_add(1).unwrap_or(1);
            PacketIdentifier::new(id).unwrap_or(PacketIdentifier::FIRST)
        });
        if !is_resumed {
            self.outbound.last_id = message_id.get();
        }
        if let Some(delivery) = self.outbound.queue.front_mut() {
            delivery.message_id = Some(message_id);
        }
        self.outbound.open(message_id, Kind::Publish, retry_at);
        self.send_open(is_resumed, context);
    }

    /// Sends the message of the open transaction.
    fn send_open(&self, dup: bool, context: &mut Context<'_, P>) {
        let Some(Open { message_id, kind, .. }) = self.outbound.open else { return };
        let delivery = self.outbound.queue.front();
        match (kind, delivery) {
            (Kind::Pubrel, _) => self.send(&Message::Pubrel(message_id), context),
            (Kind::Register(id), Some(delivery)) => {
                let register = Register {
                    topic_id: Some(id),
                    message_id: message_id.get(),
                    topic_name: delivery.topic.as_text(),
                };
                self.send(&Message::Register(register), context);
            }
            (Kind::Publish, Some(delivery)) => {
                let known = self.topics.reference(&delivery.topic, context.config);
                let Some(topic) = known else { return };
                let publish = Publish {
                    dup,
                    qos: delivery.qos.into(),
                    retain: delivery.retain,
                    topic,
                    message_id: Some(message_id),
                    data: &delivery.payload,
                };
                self.send(&Message::Publish(publish), context);
            }
            (Kind::Register(_) | Kind::Publish, None) => {}
        }
    }

    /// Removes the first message of the queue, and acknowledges it to the server.
    fn pop(&mut self, context: &mut Context<'_, P>) {
        let Some(delivery) = self.outbound.queue.pop_front() else { return };
        self.outbound.bytes -= delivery.size();
        if let Phase::Awake { remaining } = &mut self.phase {
            *remaining = remaining.saturating_sub(1);
        }
        match (delivery.token, delivery.identifier) {
            (None, Some(identifier)) => _ = self.outbound.settled.insert(identifier),
            (token, _) => self.acknowledge(token, context),
        }
    }

    fn acknowledge(&mut self, token: Option<AckToken>, context: &Context<'_, P>) {
        if let Some(token) = token {
            let Uplink { client, out, .. } = &mut self.uplink;
            // After the end of the connection the server sends the message again.
            let _ = client.acknowledge(token, ReasonCode::SUCCESS, context.now, out);
        }
    }

    /// Drops the first message of the queue, which the client cannot receive.
    fn drop_first(&mut self, context: &mut Context<'_, P>) {
        context.stats.dropped += 1;
        self.outbound.open = None;
        self.pop(context);
    }

    /// Waits before the next message, because the client has too many.
    fn hold(&mut self, context: &mut Context<'_, P>) {
        self.outbound.open = None;
        self.outbound.resume_at = Some(context.now + context.config.wait);
        self.pump(context);
    }

    // ---- answers of the client ----

    /// Handles a REGACK. A rejection is the end of a subscription to that topic. [SN §6.10]
    pub(super) fn on_regack(&mut self, regack: &Regack, context: &mut Context<'_, P>) {
        let Some(Kind::Register(id)) = self.outbound.opened(regack.message_id) else { return };
        self.outbound.open = None;
        match regack.return_code {
            ReturnCode::Accepted => self.topics.set_known(id, true),
            ReturnCode::Congestion => return self.hold(context),
            ReturnCode::InvalidTopicId | ReturnCode::NotSupported => {
                if let Some(delivery) = self.outbound.queue.front() {
                    let key = self.last_key + 1;
                    let filter = [delivery.topic.as_text()];
                    let Uplink { client, out, .. } = &mut self.uplink;
                    let properties = UnsubscribeProperties::default();
                    // If it cannot be sent, the next message is rejected, too.
                    let _ = client.unsubscribe(key, &filter, properties, context.now, out);
                    self.last_key = key;
                }
                self.drop_first(context);
            }
        }
        self.pump(context);
    }

    /// Handles a PUBACK, which also rejects messages with QoS 0 and 2. [SN §6.6] [SN §6.10]
    pub(super) fn on_puback(&mut self, puback: &Puback, context: &mut Context<'_, P>) {
        let message_id = puback.message_id;
        // A copy of a rejection must not reject the next try.
        let is_open = self.outbound.opened(message_id) == Some(Kind::Publish);
        let first = self.outbound.queue.front_mut().filter(|it| it.is_answered_by(message_id));
        match (puback.return_code, first) {
            (ReturnCode::Accepted, Some(first)) if first.qos == QoS::AtLeastOnce => {
                context.stats.delivered += 1;
                self.outbound.open = None;
                self.pop(context);
            }
            (ReturnCode::InvalidTopicId, first) => {
                let known = puback.topic_id.filter(|id| self.topics.name(*id).is_some());
                if let Some(id) = known.filter(|_| is_open || message_id == 0) {
                    self.topics.set_known(id, false);
                }
                let Some(first) = first.filter(|_| is_open) else { return };
                first.rejections += 1;
                if known.is_some() && first.rejections <= context.config.retry.count {
                    // The next try begins with REGISTER.
                    self.outbound.open = None;
                } else {
                    self.drop_first(context);
                }
            }
            (ReturnCode::Congestion, Some(_)) if is_open => return self.hold(context),
            (ReturnCode::NotSupported, Some(_)) if is_open => self.drop_first(context),
            (ReturnCode::Accepted | ReturnCode::Congestion | ReturnCode::NotSupported, _) => return,
        }
        self.pump(context);
    }

    /// Handles a PUBREC: the client has the message.
    pub(super) fn on_pubrec(&mut self, id: PacketIdentifier, context: &mut Context<'_, P>) {
        let first = self.outbound.queue.front();
        if first
            .is_some_and(|first| first.qos == QoS::ExactlyOnce && first.is_answered_by(id.get()))
        {
            context.stats.delivered += 1;
            self.pop(context);
            let retry_at = context.now + context.config.retry.interval;
            self.outbound.open(id, Kind::Pubrel, retry_at);
        }
        // An exchange that this gateway does not know is answered, too, so that the client can end
        // it.
        self.send(&Message::Pubrel(id), context);
    }

    pub(super) fn on_pubcomp(&mut self, id: PacketIdentifier, context: &mut Context<'_, P>) {
        if self.outbound.opened(id.get()) == Some(Kind::Pubrel) {
            self.outbound.open = None;
            self.pump(context);
        }
    }

    /// Sends the open message again, or sends more messages. A client that does not answer is
    /// lost; one that was awake is asleep again.
    pub(super) fn retry_outbound(&mut self, context: &mut Context<'_, P>) {
        let now = context.now;
        let Some(open) = &mut self.outbound.open else { return self.pump(context) };
        if open.retry_at > now {
            return;
        }
        if open.tries >= context.config.retry.count {
            open.tries = 0;
            if matches!(self.phase, Phase::Awake { .. }) {
                return self.set_phase(Phase::Asleep, context);
            }
            return self.lose(context);
        }
        open.tries += 1;
        open.retry_at = now + context.config.retry.interval;
        context.stats.resent += 1;
        self.send_open(true, context);
    }
}
