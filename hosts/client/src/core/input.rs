//! Received packets: what each means for the session, and which streams a message is for.

use super::Core;
use super::requests::{Progress, Subscribed};
use crate::delivery;
use crate::driver::Status;
use crate::error::Ended;
use crate::messages::{Acknowledge, Message};
use crate::queue::Sender;
use crate::shared::Shared;
use bytes::{Buf as _, BytesMut};
use mqtt_sansio::client::Action;
use mqtt_sansio::codec::{
    self, Connack, OwnedPacket, QoS, ReasonCode, Role, Rules, Sequence, SubscriptionIdentifier,
    Text,
};
use mqtt_sansio::session::{Outcome, Published, Received};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tracing::debug;

impl Core {
    pub(super) fn take_steps(
        &mut self,
        received: &mut BytesMut,
        shared: &Arc<Shared>,
    ) -> Option<Ended> {
        let now = self.clock.now();
        let mut input = received.as_ref();
        let mut ended = None;
        // After a DISCONNECT of this side the machine takes no more input, only reports the end.
        while ended.is_none() && (self.takes_input() || !self.machine.wants_input()) {
            let Some(action) = self.machine.handle_input(&mut input, now, &mut self.out) else {
                break;
            };
            ended = self.on_action(action, shared);
        }
        let taken = received.len() - input.len();
        received.advance(taken);
        ended
    }

    fn takes_input(&self) -> bool {
        self.full.is_empty() && self.has_room()
    }

    pub(super) fn handle_timeout(&mut self, shared: &Arc<Shared>) -> Option<Ended> {
        loop {
            let action = self.machine.handle_timeout(self.clock.now(), &mut self.out)?;
            let ended = self.on_action(action, shared);
            if ended.is_some() {
                return ended;
            }
        }
    }

    pub(super) fn on_action(&mut self, action: Action<'_>, shared: &Arc<Shared>) -> Option<Ended> {
        match action {
            Action::Message(received) => self.on_message(&received, shared),
            Action::Published(published) => self.on_published(&published),
            Action::Connected(connack) => self.on_connected(&connack, shared),
            Action::Subscribed(key, suback) => self.on_subscribed(key, &suback),
            Action::Unsubscribed(key, unsuback) => self.on_unsubscribed(key, &unsuback),
            Action::RequestLost(key) => self.on_request_lost(key),
            Action::Authenticate(auth) => self.on_authenticate(&auth),
            Action::Closed(cause) => {
                self.reauthentication = None;
                return Some(Ended::of(&cause, self.version()));
            }
            _ => {}
        }
        None
    }

    fn on_connected(&mut self, connack: &Connack<'_>, shared: &Arc<Shared>) {
        let is_first = self.connection == 0;
        self.connection += 1;
        let is_other = self.server != self.session_server;
        if is_other && !is_first && !connack.session_present {
            self.shares_sessions = false;
        }
        self.session_server.clone_from(&self.server);
        if connack.session_present {
            shared.resumed.store(self.connection, Ordering::Release);
        }
        debug!("connected, {} session", if connack.session_present { "resumed" } else { "new" });
        if is_first || !connack.session_present {
            // Nothing reads a stream that was dropped, so it is not subscribed again.
            self.subscriptions.retain(|subscribed| !subscribed.sender.is_closed());
            for subscribed in &mut self.subscriptions {
                subscribed.progress = Progress::Due;
            }
        }
        if !connack.session_present {
            // The server has no subscription to end.
            for done in self.unsubscriptions.drain(..) {
                let _ = done.waiter.send(Ok(Vec::new()));
            }
        }
        let rules = Rules::new(self.version()).sent_by(Role::Server);
        if let Ok(packet) = OwnedPacket::new(&(*connack).into(), rules) {
            shared.status.send_replace(Status::Connected(packet));
        }
    }

    fn on_published(&mut self, published: &Published<'_>) {
        let (key, outcome) = (published.key, &published.outcome);
        if let Outcome::SessionLost(Some(message)) = outcome {
            // QoS 1 permits that the message arrives twice.
            let again = message.to_publish();
            if message.qos() == QoS::AtLeastOnce
                && self.machine.publish(key, &again, self.clock.now(), &mut self.out).is_ok()
            {
                return;
            }
        }
        if let Some(journal) = &mut self.journal {
            journal.records.outcome(key);
        }
        if let Some(sender) = self.deliveries.remove(&key) {
            let _ = sender.send(delivery::result(outcome));
        }
    }

    fn on_message(&mut self, received: &Received<'_>, shared: &Arc<Shared>) {
        let Ok(message) = codec::Message::new(&received.to_publish()) else {
            // The machine has checked the message.
            return debug!("a message cannot be kept");
        };
        let acknowledge = received.token.filter(|_| self.manual_acknowledgement).map(|token| {
            Box::new(Acknowledge { token, connection: self.connection, shared: shared.clone() })
        });
        let message = Message::new(message, received.dup, acknowledge);
        let identifiers = received.properties.subscription_identifiers;
        let identifiers = Some(identifiers).filter(|identifiers| !identifiers.is_empty());
        let topic = received.topic_name.as_text();
        let rest = self.deliver(topic, message, identifiers);
        // The subscription identifiers can be those of an earlier run of the program.
        let rest = rest.and_then(|message| self.deliver(topic, message, None));
        let Some(message) = rest else { return };
        if let Some(others) = self.others.as_ref().filter(|others| !others.is_closed()) {
            offer(others, message, &mut self.full);
            return;
        }
        debug!("no subscription takes {message:?}");
        if let Some(token) = received.token.filter(|_| self.manual_acknowledgement) {
            let (success, now) = (ReasonCode::SUCCESS, self.clock.now());
            let _ = self.machine.acknowledge(token, success, now, &mut self.out);
        }
    }

    /// Gives a message to each stream whose filters match. Returns the message if there is no such
    /// stream.
    fn deliver(
        &mut self,
        topic: Text<'_>,
        message: Message,
        identifiers: Option<Sequence<'_, SubscriptionIdentifier>>,
    ) -> Option<Message> {
        let Self { subscriptions, full, .. } = self;
        let takes = |subscribed: &&Subscribed| {
            !subscribed.sender.is_closed() && subscribed.takes(topic, identifiers)
        };
        let mut senders = subscriptions.iter().filter(takes).map(|subscribed| &subscribed.sender);
        let Some(first) = senders.next() else { return Some(message) };
        for sender in senders {
            offer(sender, message.clone(), full);
        }
        offer(first, message, full);
        None
    }
}

/// Gives a message to a stream, and notes whether it is full now.
fn offer(sender: &Sender, message: Message, full: &mut Vec<Sender>) {
    if sender.send(message) {
        full.push(sender.clone());
    }
}
