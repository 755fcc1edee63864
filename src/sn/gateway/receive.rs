//! The requests of a client: REGISTER, SUBSCRIBE, UNSUBSCRIBE and PUBLISH. [SN §6.5 to §6.9]

use super::device::{Device, Phase};
use super::output::Context;
use super::uplink::Uplink;
use crate::codec::{
    PacketIdentifier, Publish as MqttPublish, QoS, ReasonCode, SubscribeProperties, Subscription,
    Text, Topic, UnsubscribeProperties,
};
use crate::sn::hash::Hash;
use crate::sn::recent::Recent;
use crate::sn::v1_2::{
    Message, Puback, Publish, PublishQos, Regack, Register, ReturnCode, Suback, Subscribe,
    SubscriptionTopic, TopicId, TopicRef, Unsubscribe,
};

#[derive(Default)]
pub(super) struct Inbound {
    /// The one message with QoS 1 or 2 that is not complete. [SN §6.6]
    exchange: Option<Exchange>,
    /// Complete messages: message id and hash.
    recent: Recent<(PacketIdentifier, u64)>,
    /// The one SUBSCRIBE or UNSUBSCRIBE that is not answered. [SN §6.9]
    pub(super) request: Option<Request>,
}

struct Exchange {
    message_id: PacketIdentifier,
    hash: u64,
    key: u64,
    qos: QoS,
    topic: TopicRef,
    /// Whether the server has the message, so that the client must send PUBREL.
    await_pubrel: bool,
}

pub(super) struct Request {
    key: u64,
    message_id: u16,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Subscribe { topic_id: Option<TopicId>, is_predefined: bool },
    Unsubscribe,
}

impl<P: Clone + Ord> Device<P> {
    /// Answers a REGISTER. [SN §6.5]
    pub(super) fn on_register(&mut self, register: &Register<'_>, context: &mut Context<'_, P>) {
        // The decoder has checked the name.
        let topic = Topic::new(register.topic_name).ok();
        let topic_id = topic.and_then(|topic| self.topics.assign(&topic, context.config));
        let return_code = match topic_id {
            Some(id) => {
                self.topics.set_known(id, true);
                ReturnCode::Accepted
            }
            None => ReturnCode::Congestion,
        };
        let regack = Regack { topic_id, message_id: register.message_id, return_code };
        self.send(&Message::Regack(regack), context);
    }

    // ---- SUBSCRIBE and UNSUBSCRIBE ----

    /// Passes a SUBSCRIBE on to the server, or rejects it. [SN §6.9]
    pub(super) fn on_subscribe(&mut self, subscribe: &Subscribe<'_>, context: &mut Context<'_, P>) {
        let Subscribe { qos, message_id, topic, .. } = *subscribe;
        // The client repeats a request that was lost because another one was not answered.
        if self.inbound.request.is_some() || !self.uplink.is_ready() {
            context.stats.ignored += 1;
            return;
        }
        let reject = |return_code| {
            Message::Suback(Suback {
                qos: QoS::AtMostOnce,
                topic_id: None,
                message_id,
                return_code,
            })
        };
        let is_predefined = matches!(topic, SubscriptionTopic::Predefined(_));
        let topic_id = match topic {
            SubscriptionTopic::Predefined(id) => Some(id),
            SubscriptionTopic::Short(_) => None,
            // A name without wildcards gets a topic id.
            SubscriptionTopic::Filter(filter) => match Topic::new(filter) {
                Err(_) => None,
                Ok(name) => match self.topics.assign(&name, context.config) {
                    None => return self.send(&reject(ReturnCode::Congestion), context),
                    id => id,
                },
            },
        };
        let Some(filter) = filter(&topic, context) else {
            return self.send(&reject(ReturnCode::InvalidTopicId), context);
        };
        let subscription = [Subscription::new(filter, qos)];
        let (key, now) = (self.last_key + 1, context.now);
        let Uplink { client, out, .. } = &mut self.uplink;
        let properties = SubscribeProperties::default();
        match client.subscribe(key, &subscription, properties, now, out) {
            Ok(()) => {
                self.last_key = key;
                let kind = Kind::Subscribe { topic_id, is_predefined };
                self.inbound.request = Some(Request { key, message_id, kind });
            }
            Err(_) => self.send(&reject(ReturnCode::NotSupported), context),
        }
    }

    /// Passes an UNSUBSCRIBE on to the server. [SN §6.9]
    pub(super) fn on_unsubscribe(
        &mut self,
        unsubscribe: &Unsubscribe<'_>,
        context: &mut Context<'_, P>,
    ) {
        let Unsubscribe { message_id, topic } = *unsubscribe;
        if self.inbound.request.is_some() || !self.uplink.is_ready() {
            context.stats.ignored += 1;
            return;
        }
        if let SubscriptionTopic::Predefined(id) = topic {
            self.topics.subscribe_predefined(id, false);
        }
        let (key, now) = (self.last_key + 1, context.now);
        let filter = filter(&topic, context);
        let Uplink { client, out, .. } = &mut self.uplink;
        let is_sent = filter.is_some_and(|filter| {
            let properties = UnsubscribeProperties::default();
            client.unsubscribe(key, &[filter], properties, now, out).is_ok()
        });
        if is_sent {
            self.last_key = key;
            self.inbound.request = Some(Request { key, message_id, kind: Kind::Unsubscribe });
        } else {
            // UNSUBACK has no return code, and there is no such subscription.
            self.send(&Message::Unsuback(message_id), context);
        }
    }

    /// Passes on the answer of the server.
    pub(super) fn on_answer(&mut self, key: u64, code: ReasonCode, context: &mut Context<'_, P>) {
        let Some(request) = self.inbound.request.take_if(|request| request.key == key) else {
            return;
        };
        let Request { message_id, kind, .. } = request;
        let Kind::Subscribe { topic_id, is_predefined } = kind else {
            return self.send(&Message::Unsuback(message_id), context);
        };
        let granted = if code.is_error() { None } else { QoS::from_u8(code.get()) };
        let return_code = granted.map_or(ReturnCode::NotSupported, |_| ReturnCode::Accepted);
        if let (Some(id), Some(_)) = (topic_id, granted) {
            if is_predefined {
                self.topics.subscribe_predefined(id, true);
            } else {
                self.topics.set_known(id, true);
            }
        }
        let qos = granted.unwrap_or_default();
        let topic_id = topic_id.filter(|_| granted.is_some());
        self.send(&Message::Suback(Suback { qos, topic_id, message_id, return_code }), context);
    }

    // ---- PUBLISH ----

    /// Passes a message on to the server. With QoS 1 and 2 the client is answered when the server
    /// has the message. [SN §6.6]
    pub(super) fn on_publish(&mut self, publish: &Publish<'_>, context: &mut Context<'_, P>) {
        let PublishQos::Level(qos) = publish.qos else { return };
        let answer = |return_code| {
            Message::Puback(Puback {
                topic_id: publish.topic.wire_id(),
                message_id: publish.message_id.map_or(0, PacketIdentifier::get),
                return_code,
            })
        };
        let hash = Hash::new().publish(publish).value();
        if let Some(message_id) = publish.message_id {
            if self.is_repeated(message_id, hash, context) {
                let is_two = qos == QoS::ExactlyOnce;
                let puback = answer(ReturnCode::Accepted);
                let again = if is_two { Message::Pubrec(message_id) } else { puback };
                return self.send(&again, context);
            }
            let exchange = self.inbound.exchange.as_ref();
            // The client repeats it when the other one has ended.
            let is_busy = |other: &Exchange| {
                !other.await_pubrel && (other.message_id != message_id || other.hash == hash)
            };
            if exchange.is_some_and(is_busy) {
                context.stats.ignored += 1;
                return;
            }
        }
        let name = match publish.topic {
            TopicRef::Normal(id) => self.topics.name(id),
            TopicRef::Predefined(id) => context.config.predefined.get(&id),
            TopicRef::Short(_) => None,
        };
        let name = match (name, publish.topic.short_name()) {
            (Some(name), _) => name.as_text(),
            (None, Some(name)) => name.into(),
            (None, None) => return self.send(&answer(ReturnCode::InvalidTopicId), context),
        };
        if !self.uplink.is_ready() {
            context.stats.ignored += 1;
            return;
        }
        let message =
            MqttPublish { qos, retain: publish.retain, ..MqttPublish::new(name, publish.data) };
        let key = self.last_key + 1;
        let Uplink { client, out, .. } = &mut self.uplink;
        if client.publish(key, &message, context.now, out).is_err() {
            return self.send(&answer(ReturnCode::NotSupported), context);
        }
        self.last_key = key;
        context.stats.published += 1;
        if let Some(message_id) = publish.message_id {
            let topic = publish.topic;
            let exchange = Exchange { message_id, hash, key, qos, topic, await_pubrel: false };
            if let Some(other) = self.inbound.exchange.replace(exchange) {
                self.inbound.recent.add((other.message_id, other.hash), context.now);
            }
        }
    }

    /// Whether the server already has a message with QoS 1 or 2.
    fn is_repeated(
        &self,
        message_id: PacketIdentifier,
        hash: u64,
        context: &Context<'_, P>,
    ) -> bool {
        let is_open = self.inbound.exchange.as_ref().is_some_and(|exchange| {
            exchange.await_pubrel && exchange.message_id == message_id && exchange.hash == hash
        });
        let window = context.config.duplicate_window;
        is_open || self.inbound.recent.contains(&(message_id, hash), window, context.now)
    }

    /// Passes on the answer of the server; `None` means that it is unknown whether the server has
    /// the message, so that the client must repeat it.
    pub(super) fn on_published(
        &mut self,
        key: u64,
        code: Option<ReasonCode>,
        context: &mut Context<'_, P>,
    ) {
        let Some(mut exchange) = self.inbound.exchange.take_if(|exchange| exchange.key == key)
        else {
            return;
        };
        let Some(code) = code else { return };
        let Exchange { message_id, hash, topic, .. } = exchange;
        let puback = |return_code| {
            let (topic_id, message_id) = (topic.wire_id(), message_id.get());
            Message::Puback(Puback { topic_id, message_id, return_code })
        };
        let message = match exchange.qos {
            _ if code.is_error() => puback(ReturnCode::NotSupported),
            QoS::ExactlyOnce => {
                exchange.await_pubrel = true;
                self.inbound.exchange = Some(exchange);
                Message::Pubrec(message_id)
            }
            QoS::AtLeastOnce | QoS::AtMostOnce => {
                self.inbound.recent.add((message_id, hash), context.now);
                puback(ReturnCode::Accepted)
            }
        };
        if self.is_connected() {
            self.send(&message, context);
        }
    }

    /// Answers a PUBREL, also one of an exchange that has ended.
    pub(super) fn on_pubrel(&mut self, id: PacketIdentifier, context: &mut Context<'_, P>) {
        let of_id = |exchange: &&Exchange| exchange.message_id == id;
        if let Some(exchange) = self.inbound.exchange.as_ref().filter(of_id) {
            if !exchange.await_pubrel {
                return;
            }
            let hash = exchange.hash;
            self.inbound.exchange = None;
            self.inbound.recent.add((id, hash), context.now);
        }
        self.send(&Message::Pubcomp(id), context);
    }

    // ---- all messages ----

    /// Handles a message of the client. Returns whether the gateway must answer that the client is
    /// not connected.
    pub(super) fn on_client_message(
        &mut self,
        message: &Message<'_>,
        context: &mut Context<'_, P>,
    ) -> bool {
        match (message, &self.phase) {
            (Message::Disconnect(duration), _) => {
                self.heard = context.now;
                self.on_disconnect(duration.unwrap_or(0), context);
                return false;
            }
            (Message::WillTopic(topic), Phase::Connecting(_)) => {
                self.on_will_topic(topic.as_ref(), context);
                return false;
            }
            (Message::WillMsg(message), Phase::Connecting(_)) => {
                self.on_will_message(message, context);
                return false;
            }
            (_, Phase::Connecting(_)) => {
                context.stats.ignored += 1;
                return false;
            }
            (_, Phase::Lost { .. } | Phase::Disconnected) => return true,
            (_, Phase::Active | Phase::Asleep | Phase::Awake { .. }) => {}
        }
        (self.heard, self.is_fresh) = (context.now, false);
        match message {
            Message::Register(register) => self.on_register(register, context),
            Message::Regack(regack) => self.on_regack(regack, context),
            Message::Publish(publish) => self.on_publish(publish, context),
            Message::Puback(puback) => self.on_puback(puback, context),
            Message::Pubrec(id) => self.on_pubrec(*id, context),
            Message::Pubrel(id) => self.on_pubrel(*id, context),
            Message::Pubcomp(id) => self.on_pubcomp(*id, context),
            Message::Subscribe(subscribe) => self.on_subscribe(subscribe, context),
            Message::Unsubscribe(unsubscribe) => self.on_unsubscribe(unsubscribe, context),
            Message::Pingreq(_) => self.on_ping(context),
            Message::WillTopicUpd(topic) => self.on_will_topic_update(topic.as_ref(), context),
            Message::WillMsgUpd(message) => self.on_will_message_update(message, context),
            // Answers to questions that are over, and messages that only a gateway sends.
            Message::Pingresp
            | Message::WillTopic(_)
            | Message::WillMsg(_)
            | Message::Advertise(_)
            | Message::SearchGw(_)
            | Message::GwInfo(_)
            | Message::Connect(_)
            | Message::Connack(_)
            | Message::WillTopicReq
            | Message::WillMsgReq
            | Message::Suback(_)
            | Message::Unsuback(_)
            | Message::Disconnect(_)
            | Message::WillTopicResp(_)
            | Message::WillMsgResp(_) => context.stats.ignored += 1,
        }
        false
    }
}

/// Returns the filter of a subscription, or `None` if a predefined topic is not known.
fn filter<'t, P>(
    topic: &'t SubscriptionTopic<'_>,
    context: &'t Context<'_, P>,
) -> Option<Text<'t>> {
    match topic {
        SubscriptionTopic::Filter(filter) => Some(*filter),
        SubscriptionTopic::Predefined(id) => context.config.predefined.get(id).map(Topic::as_text),
        // The decoder has checked that it is UTF-8.
        SubscriptionTopic::Short(octets) => core::str::from_utf8(octets).ok().map(Text::from),
    }
}
