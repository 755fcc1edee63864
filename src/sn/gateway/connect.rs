//! CONNECT, the Will dialogue, and changes of the Will. [SN §6.2 to §6.4]

use super::Event;
use super::device::{Device, Phase};
use super::output::Context;
use crate::codec::{Connect, Publish, QoS, Version, Will as MqttWill};
use crate::sn::v1_2::{self, Message, ReturnCode, WillTopic};
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem;

/// A client whose CONNECT is not answered.
#[derive(Debug)]
pub(super) struct Connecting {
    step: Step,
    hash: u64,
    clean_session: bool,
    /// Whether the client was active, so that it has lost its last connection.
    was_active: bool,
    tries: u8,
    retry_at: Option<Instant>,
}

/// The answer that the gateway waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    WillTopic,
    WillMessage,
    Server,
}

impl Connecting {
    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.retry_at
    }
}

/// The Will of a client, which the gateway keeps over connections. [SN §6.3]
#[derive(Default)]
pub(super) struct Will {
    topic: Option<(Box<str>, QoS, bool)>,
    message: Vec<u8>,
    /// Whether the Will at the server differs from this one.
    pub(super) is_changed: bool,
}

impl Will {
    fn set_topic(&mut self, topic: Option<&WillTopic<'_>>) {
        self.is_changed = true;
        self.topic = topic.map(|will| (will.topic.to_str().into(), will.qos, will.retain));
        if topic.is_none() {
            self.message = Vec::new();
        }
    }

    fn set_message(&mut self, message: &[u8]) {
        self.is_changed = true;
        self.message = message.to_vec();
    }

    fn for_connect(&self) -> Option<MqttWill<'_>> {
        let (topic, qos, retain) = self.topic.as_ref()?;
        Some(MqttWill { qos: *qos, retain: *retain, ..MqttWill::new(&**topic, &self.message) })
    }

    /// Returns the message that the gateway publishes itself.
    pub(super) fn publish(&self) -> Option<Publish<'_>> {
        self.for_connect().map(|will| will.to_publish())
    }
}

impl<P: Clone + Ord> Device<P> {
    /// Whether a CONNECT is a copy of the last one: the client sends it again because the answer is
    /// missing, or the network does.
    pub(super) fn is_repeat(&self, hash: u64, context: &Context<'_, P>) -> bool {
        if let Phase::Connecting(connecting) = &self.phase {
            return connecting.hash == hash;
        }
        // A client that sleeps returns with the same CONNECT.
        matches!(self.phase, Phase::Active)
            && self.connected.is_some_and(|(last, at)| {
                let is_recent = context.now - at < context.config.duplicate_window;
                last == hash && (self.is_fresh || is_recent)
            })
    }

    /// Sends the present step of the handshake again.
    pub(super) fn repeat_answer(&self, context: &mut Context<'_, P>) {
        let message = match &self.phase {
            Phase::Connecting(Connecting { step: Step::WillTopic, .. }) => Message::WillTopicReq,
            Phase::Connecting(Connecting { step: Step::WillMessage, .. }) => Message::WillMsgReq,
            Phase::Connecting(Connecting { step: Step::Server, .. }) => return,
            Phase::Active
            | Phase::Asleep
            | Phase::Awake { .. }
            | Phase::Lost { .. }
            | Phase::Disconnected => Message::Connack(ReturnCode::Accepted),
        };
        self.send(&message, context);
    }

    /// Handles a CONNECT that is not a copy. [SN §6.2] [SN §6.3]
    pub(super) fn on_connect(
        &mut self,
        connect: &v1_2::Connect<'_>,
        hash: u64,
        context: &mut Context<'_, P>,
    ) {
        let was_active = if let Phase::Connecting(connecting) = &self.phase {
            connecting.was_active
        } else {
            matches!(self.phase, Phase::Active)
        };
        self.keep_alive = connect.duration;
        self.connected = None;
        if connect.clean_session {
            let is_changed = self.will.is_changed || self.will.topic.is_some();
            self.will = Will { is_changed, ..Will::default() };
        }
        let step = if connect.will { Step::WillTopic } else { Step::Server };
        let clean_session = connect.clean_session;
        let connecting =
            Connecting { step, hash, clean_session, was_active, tries: 0, retry_at: None };
        self.set_phase(Phase::Connecting(connecting), context);
        self.begin_step(step, context);
    }

    fn begin_step(&mut self, next: Step, context: &mut Context<'_, P>) {
        let Phase::Connecting(Connecting { step, tries, retry_at, .. }) = &mut self.phase else {
            return;
        };
        (*step, *tries, *retry_at) = (next, 0, None);
        if next == Step::Server {
            return self.reach_server(context);
        }
        *retry_at = Some(context.now + context.config.retry.interval);
        self.repeat_answer(context);
    }

    /// Handles a WILLTOPIC. An empty one deletes the Will. [SN §6.3]
    pub(super) fn on_will_topic(
        &mut self,
        topic: Option<&WillTopic<'_>>,
        context: &mut Context<'_, P>,
    ) {
        if !matches!(self.phase, Phase::Connecting(Connecting { step: Step::WillTopic, .. })) {
            return;
        }
        self.will.set_topic(topic);
        let next = if topic.is_some() { Step::WillMessage } else { Step::Server };
        self.begin_step(next, context);
    }

    pub(super) fn on_will_message(&mut self, message: &[u8], context: &mut Context<'_, P>) {
        if matches!(self.phase, Phase::Connecting(Connecting { step: Step::WillMessage, .. })) {
            self.will.set_message(message);
            self.begin_step(Step::Server, context);
        }
    }

    /// Asks for the Will again, or forgets a client that does not answer.
    pub(super) fn retry_connecting(&mut self, context: &mut Context<'_, P>) {
        let Phase::Connecting(Connecting { tries, retry_at, .. }) = &mut self.phase else { return };
        if retry_at.is_none_or(|at| at > context.now) {
            return;
        }
        if *tries >= context.config.retry.count {
            self.end_uplink(true, context);
            return self.set_phase(Phase::Disconnected, context);
        }
        *tries += 1;
        *retry_at = Some(context.now + context.config.retry.interval);
        context.stats.resent += 1;
        self.repeat_answer(context);
    }

    /// Accepts the client if its connection to the server can be kept, or begins another one.
    ///
    /// A client that returns from sleep keeps its connection, and so its subscriptions. So does an
    /// active one, unless its session ends with its connection. [3.1.1 MQTT-3.1.2-6]
    fn reach_server(&mut self, context: &mut Context<'_, P>) {
        let Phase::Connecting(Connecting { clean_session, was_active, .. }) = self.phase else {
            return;
        };
        let is_over = clean_session || was_active && self.is_clean;
        if self.uplink.is_open() && self.uplink.client.is_connected() && !is_over {
            return self.accept(context);
        }
        if self.uplink.link().is_none() {
            return self.open_uplink(context);
        }
        if self.uplink.is_open() {
            // The Will of an active client is published, as when the connection of an MQTT client
            // is taken over. [SN §6.14]
            self.end_uplink(!was_active, context);
        }
        // The next connection begins when the host has closed this one, so that the server sees
        // them in their order.
    }

    /// Begins a connection to the server.
    pub(super) fn open_uplink(&mut self, context: &mut Context<'_, P>) {
        let Phase::Connecting(Connecting { step: Step::Server, clean_session, .. }) = self.phase
        else {
            return;
        };
        self.is_clean = clean_session;
        if clean_session {
            self.topics.clear();
            self.inbound = Default::default();
            self.outbound = Default::default();
        }
        let connect = Connect {
            clean_start: clean_session,
            keep_alive: context.config.server_keep_alive,
            will: self.will.for_connect(),
            user_name: context.config.user_name.as_deref().map(Into::into),
            password: context.config.password.as_deref(),
            ..Connect::new(Version::V3_1_1, &*self.client_id)
        };
        match self.uplink.connect(self.number, &connect, context.now) {
            Ok(link) => {
                self.will.is_changed = false;
                context.output.events.push_back(Event::Open(link));
            }
            Err(_) => {
                self.send(&Message::Connack(ReturnCode::NotSupported), context);
                self.set_phase(Phase::Disconnected, context);
            }
        }
    }

    /// Handles the CONNACK with which the server accepts the client.
    pub(super) fn on_connected(&mut self, session_present: bool, context: &mut Context<'_, P>) {
        if !session_present {
            self.outbound.forget_session();
        }
        if matches!(self.phase, Phase::Connecting(_)) {
            self.accept(context);
        }
    }

    fn accept(&mut self, context: &mut Context<'_, P>) {
        if let Phase::Connecting(Connecting { hash, .. }) =
            mem::replace(&mut self.phase, Phase::Disconnected)
        {
            self.connected = Some((hash, context.now));
        }
        (self.is_fresh, self.heard) = (true, context.now);
        // [SN §6.5]
        self.topics.forget_known();
        self.outbound.reconnected(context.now);
        self.set_phase(Phase::Active, context);
        self.send(&Message::Connack(ReturnCode::Accepted), context);
        self.pump(context);
    }

    /// Handles a WILLTOPICUPD. [SN §6.4]
    pub(super) fn on_will_topic_update(
        &mut self,
        topic: Option<&WillTopic<'_>>,
        context: &mut Context<'_, P>,
    ) {
        self.will.set_topic(topic);
        self.send(&Message::WillTopicResp(ReturnCode::Accepted), context);
    }

    /// Handles a WILLMSGUPD. [SN §6.4]
    pub(super) fn on_will_message_update(&mut self, message: &[u8], context: &mut Context<'_, P>) {
        self.will.set_message(message);
        self.send(&Message::WillMsgResp(ReturnCode::Accepted), context);
    }
}
