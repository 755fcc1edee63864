//! The messages of the gateway.

use super::state::{Pending, Request, Transition};
use super::{Action, Client, ClientState, Received};
use crate::codec::{Output, PacketIdentifier, QoS};
use crate::sn::v1_2::{
    Message, Puback, Publish, PublishQos, Regack, Register, ReturnCode, TopicId, TopicRef,
    WillTopic, encode,
};
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::vec::Vec;

impl Client {
    pub(super) fn on_disconnect(&mut self) -> Option<Action<'static>> {
        match self.state {
            ClientState::FallingAsleep => {
                self.state = ClientState::Asleep;
                self.transition = None;
                Some(Action::Asleep { is_confirmed: true })
            }
            // This is a copy of an older DISCONNECT.
            ClientState::Disconnected | ClientState::Connecting => None,
            ClientState::Active
            | ClientState::Asleep
            | ClientState::Awake
            | ClientState::Disconnecting => {
                self.end(ClientState::Disconnected);
                Some(Action::Disconnected)
            }
        }
    }

    /// Answers the Will dialogue. [SN §6.2]
    pub(super) fn on_connecting(
        &mut self,
        message: &Message<'_>,
        now: Instant,
        out: &mut impl Output,
    ) -> Option<Action<'static>> {
        let Some(Transition::Connect { clean_session }) =
            self.transition.as_ref().map(|it| it.kind)
        else {
            return None;
        };
        let will = self.config.will.as_ref();
        let answer = match message {
            Message::WillTopicReq => Message::WillTopic(will.map(|will| WillTopic {
                qos: will.qos,
                retain: will.retain,
                topic: (&*will.topic).into(),
            })),
            Message::WillMsgReq => Message::WillMsg(will.map_or(&[], |will| &*will.message)),
            Message::Connack(ReturnCode::Accepted) => {
                (self.state, self.transition) = (ClientState::Active, None);
                if let Some(pending) = self.request.as_mut().filter(|_| !clean_session) {
                    // [SN §6.6]
                    (pending.tries, pending.retry_at) = (0, now);
                }
                return Some(Action::Connected);
            }
            Message::Connack(code) => {
                self.end(ClientState::Disconnected);
                return Some(Action::Refused(*code));
            }
            _ => return None,
        };
        // The gateway is alive; if the answer is lost, it asks again.
        let _ = encode(&answer, out);
        self.last_sent = now;
        if let Some(pending) = &mut self.transition {
            (pending.tries, pending.retry_at) = (0, now + self.config.retry.interval);
        }
        None
    }

    pub(super) fn on_message<'d>(
        &mut self,
        message: Message<'d>,
        now: Instant,
        out: &mut impl Output,
    ) -> Option<Action<'d>> {
        // An awake client waits again after each message. [SN §6.14]
        if let Some(pending) = self.transition.as_mut().filter(|_| self.state == ClientState::Awake)
        {
            (pending.tries, pending.retry_at) = (0, now + self.config.retry.interval);
        }
        match message {
            Message::Publish(publish) => return self.on_publish(&publish, now, out),
            Message::Register(register) => self.on_register(&register, now, out),
            Message::Pubrel(id) => {
                self.remember(id, now);
                self.reply(&Message::Pubcomp(id), now, out);
            }
            Message::Pingreq(_) => _ = self.reply(&Message::Pingresp, now, out),
            Message::Pingresp => {
                self.transition.take_if(|pending| pending.kind == Transition::Ping);
                if self.state == ClientState::Awake {
                    self.state = ClientState::Asleep;
                    return Some(Action::Asleep { is_confirmed: true });
                }
            }
            Message::Puback(Puback { message_id: 0, topic_id, return_code }) => {
                if let (Some(id), ReturnCode::InvalidTopicId) = (topic_id, return_code) {
                    self.topics.retain(|(other, _)| *other != id);
                }
                return Some(Action::Rejected { topic_id, return_code });
            }
            message => return self.on_answer(&message, now, out),
        }
        None
    }

    /// Handles an answer to the open request.
    fn on_answer(
        &mut self,
        message: &Message<'_>,
        now: Instant,
        out: &mut impl Output,
    ) -> Option<Action<'static>> {
        if let Message::Pubrec(id) = message {
            // An exchange that is over is answered, too: the gateway has not received the first
            // PUBREL.
            let pubrel = self.reply(&Message::Pubrel(*id), now, out);
            let open = self.request.as_ref().map(|pending| &pending.kind);
            if open == Some(&Request::Publish(*id, QoS::ExactlyOnce)) {
                let retry = self.config.retry;
                self.request = Some(Pending::new(Request::Pubrel(*id), pubrel, retry, now));
            }
            return None;
        }
        let action = match (message, &self.request.as_ref()?.kind) {
            (Message::Regack(regack), Request::Register(id, name)) if regack.message_id == *id => {
                let name = name.clone();
                match (regack.return_code, regack.topic_id) {
                    (ReturnCode::Accepted, Some(topic_id)) => {
                        self.note_topic(topic_id, name);
                        Action::Registered(Ok(topic_id))
                    }
                    (ReturnCode::Accepted, None) => {
                        Action::Registered(Err(ReturnCode::NotSupported))
                    }
                    (code, _) => Action::Registered(Err(code)),
                }
            }
            (Message::Puback(puback), Request::Publish(id, qos))
                if puback.message_id == id.get()
                    // QoS 2 is answered with PUBREC.
                    && (*qos == QoS::AtLeastOnce || puback.return_code != ReturnCode::Accepted) =>
            {
                Action::Published(puback.return_code)
            }
            (Message::Pubcomp(id), Request::Pubrel(open)) if id == open => {
                Action::Published(ReturnCode::Accepted)
            }
            (Message::Suback(suback), Request::Subscribe(id, name)) if suback.message_id == *id => {
                let name = name.clone();
                let (qos, topic_id, return_code) =
                    (suback.qos, suback.topic_id, suback.return_code);
                if let (Some(topic_id), Some(name)) = (topic_id, name) {
                    self.note_topic(topic_id, name);
                }
                Action::Subscribed { qos, topic_id, return_code }
            }
            (Message::Unsuback(id), Request::Unsubscribe(open)) if id == open => {
                Action::Unsubscribed
            }
            (Message::WillTopicResp(code), Request::WillTopic)
            | (Message::WillMsgResp(code), Request::WillMessage) => Action::WillUpdated(*code),
            _ => return None,
        };
        self.request = None;
        Some(action)
    }

    /// Takes a message, and answers it. [SN §6.10]
    fn on_publish<'d>(
        &mut self,
        publish: &Publish<'d>,
        now: Instant,
        out: &mut impl Output,
    ) -> Option<Action<'d>> {
        let PublishQos::Level(qos) = publish.qos else { return None };
        let message_id = publish.message_id.map_or(0, PacketIdentifier::get);
        let answer = |return_code| {
            Message::Puback(Puback { topic_id: publish.topic.wire_id(), message_id, return_code })
        };
        if let TopicRef::Normal(id) = publish.topic {
            if self.topic_name(id).is_none() {
                self.reply(&answer(ReturnCode::InvalidTopicId), now, out);
                return None;
            }
        }
        let (topic, retain, data) = (publish.topic, publish.retain, publish.data);
        let action = Action::Message(Received { topic, qos, retain, data });
        match (qos, publish.message_id) {
            (QoS::ExactlyOnce, Some(id)) => {
                let is_repeat = self.received == Some(id)
                    || self.recent.contains(&id, self.config.duplicate_window, now);
                if !is_repeat {
                    if let Some(before) = self.received.replace(id) {
                        self.remember(before, now);
                        self.received = Some(id);
                    }
                }
                self.reply(&Message::Pubrec(id), now, out);
                (!is_repeat).then_some(action)
            }
            (QoS::AtLeastOnce, _) => {
                self.reply(&answer(ReturnCode::Accepted), now, out);
                Some(action)
            }
            _ => Some(action),
        }
    }

    fn on_register(&mut self, register: &Register<'_>, now: Instant, out: &mut impl Output) {
        let Register { topic_id, message_id, topic_name } = *register;
        let Some(id) = topic_id else { return };
        self.note_topic(id, topic_name.to_str().into());
        let regack = Regack { topic_id, message_id, return_code: ReturnCode::Accepted };
        self.reply(&Message::Regack(regack), now, out);
    }

    fn note_topic(&mut self, id: TopicId, name: Box<str>) {
        self.topics.retain(|(other, _)| *other != id);
        if self.topics.len() >= self.config.maximum_topics.max(1) {
            self.topics.pop_front();
        }
        self.topics.push_back((id, name));
    }

    /// Notes that a QoS 2 exchange is over.
    fn remember(&mut self, id: PacketIdentifier, now: Instant) {
        self.received.take_if(|received| *received == id);
        self.recent.add(id, now);
    }

    /// Writes an answer. If there is no room for it, the gateway sends its message again.
    fn reply(&mut self, message: &Message<'_>, now: Instant, out: &mut impl Output) -> Vec<u8> {
        self.write(message, now, out).unwrap_or_default()
    }
}
