//! Sending messages and requests.

use super::super::error::WriteError;
use super::super::slot::{Request, Slot};
use super::super::{Change, Key, Message, Outcome, Outgoing, Prepared, PublishError, RequestError};
use super::{Endpoint, Step};
use crate::codec::{
    Body, EncodeError, Output, PacketIdentifier, PacketType, Publish, PublishProperties, QoS,
    ReasonCode, Role, Text, Topic, Version,
};
use crate::time::Instant;

/// A server stops writing when the output holds this many bytes, until the host asks again: it has
/// many clients, and some are slow. A client writes all that the Receive Maximum allows.
const HIGH_WATER: usize = 64 * 1024;

/// The room that a step needs before it consumes a packet or resends a PUBREL: at least that of an
/// acknowledgement and a DISCONNECT without properties.
pub(crate) const REPLY_ROOM: usize = 16;

/// The shortest topic name for which an alias saves bytes. An alias takes three, and can lengthen
/// the Property Length by one.
const LEAST_ALIASED: usize = 5;

impl Endpoint {
    /// Sends a message of the application, or queues it while it cannot be sent.
    pub(crate) fn publish(
        &mut self,
        key: u64,
        publish: &Publish<'_>,
        step: &mut Step<'_, impl Output>,
    ) -> Result<(), PublishError> {
        if publish.dup || publish.packet_identifier.is_some() {
            return Err(PublishError::NotNew);
        }
        if !self.is_open() {
            return self.queue_for_next_connection(key, publish, step.now);
        }
        self.check_allowed(publish.qos, publish.retain)?;
        publish.check_payload_format(self.application_rules(self.connection.version))?;
        let resolved;
        let full = match publish.properties.topic_alias {
            None => publish,
            Some(alias) => {
                resolved = self.resolve(publish, alias)?;
                &resolved
            }
        };
        let is_acknowledged = publish.qos > QoS::AtMostOnce;
        if !is_acknowledged && !self.session.outbound.waits() {
            self.write_publish(publish, None, step.out)?;
            self.set_alias(publish);
            return Ok(());
        }
        let identifier = if is_acknowledged && self.can_send_at_once() {
            self.session.outbound.slots.allocate()
        } else {
            None
        };
        let Some(identifier) = identifier else {
            // Whether a message can be encoded does not depend on its identifier.
            let any = Some(PacketIdentifier::FIRST).filter(|_| is_acknowledged);
            self.check_size((full, any))?;
            let outgoing = expiring(key, full, Message::new(full)?, step.now);
            self.queue(outgoing, step.now)?;
            // The topic was not sent, so the alias does not stand for what the caller means.
            let alias = publish.properties.topic_alias;
            let alias = alias.filter(|_| !publish.topic_name.is_empty());
            if let (Some(alias), Some(tables)) = (alias, &mut self.connection.aliases) {
                tables.own.clear(alias);
            }
            return Ok(());
        };
        // Writing checks the packet, but not its size when it is resent without its alias. A
        // payload that cannot fit need not be copied first.
        let is_huge = full.payload.len() > self.connection.peer.maximum_packet_size as usize;
        if publish.properties.topic_alias.is_some() || is_huge {
            self.check_size((full, Some(identifier)))?;
        }
        let outgoing = expiring(key, full, Message::new(full)?, step.now);
        // A message without properties is the same in all versions.
        if publish.properties.is_empty() && self.is_sent_unchanged() {
            self.write_message(&outgoing.message, Some(identifier), false, step.out)?;
        } else {
            self.write_publish(publish, Some(identifier), step.out)?;
            self.set_alias(publish);
        }
        self.connection.sent += 1;
        self.insert_sent(identifier, outgoing);
        Ok(())
    }

    /// Queues a message that the next connection sends, and judges by its limits and version.
    #[cold]
    fn queue_for_next_connection(
        &mut self,
        key: u64,
        publish: &Publish<'_>,
        now: Instant,
    ) -> Result<(), PublishError> {
        if publish.properties.topic_alias.is_some() && publish.topic_name.is_empty() {
            return Err(PublishError::UnknownTopicAlias);
        }
        // An alias has no meaning on another connection.
        let properties = PublishProperties { topic_alias: None, ..publish.properties };
        let full = Publish { properties, ..*publish };
        let any = Some(PacketIdentifier::FIRST).filter(|_| publish.qos > QoS::AtMostOnce);
        (&full, any).measure(self.application_rules(Version::V5_0))?;
        self.queue(expiring(key, &full, Message::new(&full)?, now), now)
    }

    fn queue(&mut self, outgoing: Outgoing, now: Instant) -> Result<(), PublishError> {
        let queued = self.session.enqueue(outgoing, self.config.queue, now);
        queued.map_err(|_| PublishError::QueueFull)
    }

    /// Writes a message at once with that QoS and RETAIN flag, unless it must wait or change
    /// otherwise. Returns whether it was written. `key` returns the key of a QoS 1 or 2 message
    /// that was.
    #[inline]
    pub(crate) fn write_through(
        &mut self,
        message: &Message,
        (qos, retain): (QoS, bool),
        prepared: &mut Prepared,
        key: impl FnOnce(&Outgoing) -> Option<Key>,
        step: &mut Step<'_, impl Output>,
    ) -> bool {
        let is_acknowledged = qos > QoS::AtMostOnce;
        if !self.is_open()
            || self.session.outbound.waits()
            || !self.is_sent_unchanged()
            || (is_acknowledged && !self.has_quota())
            // A message that is not allowed is reported where it leaves the queue.
            || self.check_allowed(qos, retain).is_err()
        {
            return false;
        }
        let identifier =
            if is_acknowledged { self.session.outbound.slots.allocate() } else { None };
        let version = self.connection.version;
        let is_written = match prepared.packet(message, version, (qos, retain), identifier) {
            Some(packet) => {
                let maximum = self.connection.peer.maximum_packet_size as usize;
                packet.len() <= maximum && step.out.append_slice(packet).is_ok()
            }
            None => {
                let message = message.with(qos, retain);
                self.write_message(&message, identifier, false, step.out).is_ok()
            }
        };
        if !is_written {
            return false;
        }
        if let Some(identifier) = identifier {
            self.connection.sent += 1;
            let mut outgoing = Outgoing::new(None, message.with(qos, retain));
            outgoing.key = key(&outgoing);
            self.insert_sent(identifier, outgoing);
        }
        true
    }

    /// Queues a message, if there is room.
    #[inline]
    pub(crate) fn enqueue(&mut self, mut outgoing: Outgoing, now: Instant) -> Result<(), Outgoing> {
        // A host that flushes and takes no steps must not make the list of outcomes grow.
        if self.session.completed.len() >= self.config.queue.messages.max(1) {
            return Err(outgoing);
        }
        // A message with an expiry interval of 0 is sent if it need not wait.
        // [5.0 MQTT-3.3.2-5]
        if outgoing.expires_at.is_some_and(|at| at <= now)
            && !self.session.outbound.waits()
            && (outgoing.message.qos() == QoS::AtMostOnce || self.can_send_at_once())
            && outgoing.message.message_expiry_interval() == Some(0)
        {
            outgoing.expires_at = None;
        }
        self.session.enqueue(outgoing, self.config.queue, now)
    }

    /// Sends what waits, as far as the Receive Maximum and the room in the output go: first what
    /// must be resent. Returns whether something possibly still waits.
    #[inline]
    pub(crate) fn flush(&mut self, step: &mut Step<'_, impl Output>) -> bool {
        let waits = self.is_open() && self.session.outbound.waits();
        if waits {
            self.flush_waiting(step);
        }
        waits
    }

    #[inline(never)]
    fn flush_waiting(&mut self, step: &mut Step<'_, impl Output>) {
        while self.has_room(step.out) {
            let is_resuming = self.session.outbound.is_resuming();
            let has_sent = match is_resuming.then(|| self.resend_next(step)).flatten() {
                Some(has_sent) => has_sent,
                None if self.can_send_front() => self.send_front(step),
                None => false,
            };
            if !has_sent || !self.session.outbound.waits() {
                return;
            }
        }
    }

    /// Resends the next packet that is due. Returns whether that was possible now, or `None` if
    /// none is due.
    #[inline(never)]
    fn resend_next(&mut self, step: &mut Step<'_, impl Output>) -> Option<bool> {
        if let Some(identifier) = self.session.outbound.next_due_pubrel() {
            self.session.outbound.resent_pubrel(identifier);
            // A peer whose Maximum Packet Size is below four bytes does not receive the PUBREL.
            let _ = self.write_ack(PacketType::Pubrel, identifier, ReasonCode::SUCCESS, step.out);
            return Some(true);
        }
        let identifier = self.session.outbound.next_due_publish()?;
        Some(self.connection.may_send() && self.resend(identifier, step))
    }

    fn has_room(&self, out: &impl Output) -> bool {
        out.room() >= REPLY_ROOM && (self.connection.role == Role::Client || out.len() < HIGH_WATER)
    }

    /// Whether [`flush`](Self::flush) would send something, given room.
    pub(crate) fn can_flush(&self) -> bool {
        let outbound = &self.session.outbound;
        self.is_open()
            && match (outbound.is_resuming_pubrel(), outbound.is_resuming_publish()) {
                (true, _) => true,
                (false, true) => self.connection.may_send(),
                (false, false) => self.can_send_front(),
            }
    }

    /// Whether the first message of the queue can be sent now.
    fn can_send_front(&self) -> bool {
        self.session
            .outbound
            .queue
            .front()
            .is_some_and(|front| front.message.qos() == QoS::AtMostOnce || self.has_quota())
    }

    /// Whether a new QoS 1 or 2 message can be sent now, before any other.
    fn can_send_at_once(&self) -> bool {
        !self.session.outbound.waits() && self.has_quota()
    }

    /// Whether the Receive Maximum and the packet identifiers allow a new QoS 1 or 2 message.
    /// [5.0 MQTT-4.9.0-2] [5.0 MQTT-3.3.4-7] [5.0 MQTT-3.3.4-9]
    fn has_quota(&self) -> bool {
        self.connection.may_send() && self.session.outbound.slots.has_free()
    }

    /// Resends a message. Returns false if the output has no room for it.
    fn resend(&mut self, identifier: PacketIdentifier, step: &mut Step<'_, impl Output>) -> bool {
        let slot = self.session.outbound.slots.get_mut(identifier);
        let Some(slot @ Slot::DuePublish(_)) = slot else { return false };
        let Slot::DuePublish(outgoing) = core::mem::replace(slot, Slot::Withheld) else {
            return false;
        };
        let written = self.write_outgoing(&outgoing, Some(identifier), true, step);
        let next = match written {
            Ok(()) => {
                self.connection.sent += 1;
                Slot::AwaitAck(outgoing)
            }
            Err(PublishError::Encode(EncodeError::NoRoom(_))) => Slot::DuePublish(outgoing),
            Err(_) => {
                let is_withheld = outgoing.message.qos() == QoS::ExactlyOnce;
                self.not_allowed(outgoing);
                // [5.0 MQTT-2.2.1-3]
                if is_withheld {
                    self.session.note(Change::Withheld { packet_identifier: identifier });
                } else {
                    self.session.outbound.free(identifier);
                }
                return true;
            }
        };
        if let Some(slot) = self.session.outbound.slots.get_mut(identifier) {
            *slot = next;
        }
        written.is_ok()
    }

    /// Sends the first message of the queue, or reports why it is not sent. Returns false if the
    /// output has no room for it.
    #[inline]
    fn send_front(&mut self, step: &mut Step<'_, impl Output>) -> bool {
        let Some(outgoing) = self.session.outbound.queue.pop() else { return false };
        if outgoing.expires_at.is_some_and(|at| at <= step.now) {
            self.session.completed.extend(outgoing.ended(Outcome::Expired));
            return true;
        }
        let is_acknowledged = outgoing.message.qos() > QoS::AtMostOnce;
        let identifier =
            if is_acknowledged { self.session.outbound.slots.allocate() } else { None };
        match (self.write_outgoing(&outgoing, identifier, false, step), identifier) {
            (Ok(()), Some(identifier)) => {
                self.connection.sent += 1;
                self.insert_sent(identifier, outgoing);
            }
            (Ok(()), None) => {}
            (Err(PublishError::Encode(EncodeError::NoRoom(_))), _) => {
                self.session.outbound.queue.push_front(outgoing);
                return false;
            }
            (Err(_), _) => self.not_allowed(outgoing),
        }
        true
    }

    /// Notes a message that was sent for the first time.
    #[inline]
    fn insert_sent(&mut self, packet_identifier: PacketIdentifier, outgoing: Outgoing) {
        if outgoing.message.qos() == QoS::ExactlyOnce {
            self.session.note(Change::Sent { packet_identifier, key: outgoing.number() });
        }
        self.session.outbound.slots.insert(packet_identifier, Slot::AwaitAck(outgoing));
    }

    fn not_allowed(&mut self, outgoing: Outgoing) {
        let message = outgoing.message.clone();
        self.session.completed.extend(outgoing.ended(Outcome::NotAllowed(message)));
    }

    #[inline]
    fn write_outgoing(
        &mut self,
        outgoing: &Outgoing,
        packet_identifier: Option<PacketIdentifier>,
        dup: bool,
        step: &mut Step<'_, impl Output>,
    ) -> Result<(), PublishError> {
        let Outgoing { message, subscription_identifiers, expires_at, .. } = outgoing;
        let is_unchanged = self.connection.version < Version::V5_0
            || (expires_at.is_none() && subscription_identifiers.is_empty());
        if is_unchanged && self.is_sent_unchanged() {
            self.write_message(message, packet_identifier, dup, step.out)
        } else {
            self.write_changed(outgoing, packet_identifier, dup, step)
        }
    }

    /// Whether the bytes of a message are written as they are: no option asks for another check,
    /// and no alias takes the place of its topic name.
    fn is_sent_unchanged(&self) -> bool {
        !self.config.options.check_content() && self.automatic_aliases() == 0
    }

    /// Copies the bytes of a message, which were checked, to the output.
    #[inline]
    fn write_message(
        &self,
        message: &Message,
        packet_identifier: Option<PacketIdentifier>,
        dup: bool,
        out: &mut impl Output,
    ) -> Result<(), PublishError> {
        self.check_allowed(message.qos(), message.retain())?;
        let version = self.connection.version;
        let maximum = self.connection.peer.maximum_packet_size;
        let measured = message.measure(version);
        let size = measured.packet_size();
        if size > maximum {
            return Err(WriteError::TooLarge { size, maximum }.into());
        }
        Ok(message.write(measured, version, dup, packet_identifier, out)?)
    }

    /// Writes a message with properties of the receiver's own, or checks it again.
    #[inline(never)]
    fn write_changed(
        &mut self,
        outgoing: &Outgoing,
        packet_identifier: Option<PacketIdentifier>,
        dup: bool,
        step: &mut Step<'_, impl Output>,
    ) -> Result<(), PublishError> {
        self.check_allowed(outgoing.message.qos(), outgoing.message.retain())?;
        let mut publish = outgoing.message.to_publish();
        publish.dup = dup;
        let properties = &mut publish.properties;
        if self.connection.version < Version::V5_0 {
            *properties = PublishProperties::default();
        } else {
            if let Some(at) = outgoing.expires_at {
                // The time that is left, in whole seconds; none for a resent message that has
                // expired. [5.0 MQTT-3.3.2-6]
                let left = (at - step.now).as_millis().div_ceil(1_000);
                properties.message_expiry_interval = Some(u32::try_from(left).unwrap_or(u32::MAX));
            }
            properties.subscription_identifiers = (&*outgoing.subscription_identifiers).into();
        }
        Ok(self.write_publish(&publish, packet_identifier, step.out)?)
    }

    /// Returns how many aliases the machine can set.
    fn automatic_aliases(&self) -> u16 {
        self.config.automatic_topic_aliases.min(self.connection.peer.topic_alias_maximum)
    }

    /// Writes a message, with an alias where the configuration allows one and it saves bytes.
    /// [5.0 §3.3.2.3.4]
    fn write_publish(
        &mut self,
        publish: &Publish<'_>,
        packet_identifier: Option<PacketIdentifier>,
        out: &mut impl Output,
    ) -> Result<(), WriteError> {
        let maximum = self.automatic_aliases();
        if maximum == 0
            || publish.topic_name.as_bytes().len() < LEAST_ALIASED
            || publish.properties.topic_alias.is_some()
        {
            return self.write((publish, packet_identifier), out);
        }
        self.write_aliased(publish, packet_identifier, maximum, out)
    }

    #[inline(never)]
    fn write_aliased(
        &mut self,
        publish: &Publish<'_>,
        packet_identifier: Option<PacketIdentifier>,
        maximum: u16,
        out: &mut impl Output,
    ) -> Result<(), WriteError> {
        let with_alias = |alias, topic_name| {
            let properties = PublishProperties { topic_alias: Some(alias), ..publish.properties };
            Publish { topic_name, properties, ..*publish }
        };
        let aliases = &self.connection.aliases.get_or_insert_default().automatic;
        if let Some(alias) = aliases.get(publish.topic_name) {
            // It is resent with its topic name, and must fit then too.
            if packet_identifier.is_some() {
                self.check_size((publish, packet_identifier))?;
            }
            let aliased = with_alias(alias, Text::default());
            return self.write((&aliased, packet_identifier), out);
        }
        if let Some(alias) = aliases.next(maximum) {
            // A message that would be too large with its new alias is sent without.
            let aliased = with_alias(alias, publish.topic_name);
            if self.write((&aliased, packet_identifier), out).is_ok() {
                if let Ok(topic) = Topic::new(publish.topic_name) {
                    let tables = self.connection.aliases.get_or_insert_default();
                    tables.automatic.insert(topic, alias);
                }
                return Ok(());
            }
        }
        self.write((publish, packet_identifier), out)
    }

    fn check_allowed(&self, qos: QoS, retain: bool) -> Result<(), PublishError> {
        let peer = &self.connection.peer;
        if qos > peer.maximum_qos {
            return Err(PublishError::QosNotSupported { maximum: peer.maximum_qos });
        }
        if retain && !peer.retain_available {
            return Err(PublishError::RetainNotSupported);
        }
        Ok(())
    }

    /// Returns the message with the topic name of its alias, and without the alias.
    fn resolve<'p>(
        &'p self,
        publish: &Publish<'p>,
        alias: u16,
    ) -> Result<Publish<'p>, PublishError> {
        let is_automatic = self.config.automatic_topic_aliases > 0;
        let maximum = if is_automatic { 0 } else { self.connection.peer.topic_alias_maximum };
        if alias == 0 || alias > maximum {
            return Err(PublishError::TopicAliasInvalid { maximum });
        }
        let properties = PublishProperties { topic_alias: None, ..publish.properties };
        let topic_name = if publish.topic_name.is_empty() {
            let tables = self.connection.aliases.as_ref();
            let topic = tables.and_then(|tables| tables.own.get(alias));
            topic.ok_or(PublishError::UnknownTopicAlias)?.as_text()
        } else {
            publish.topic_name
        };
        Ok(Publish { topic_name, properties, ..*publish })
    }

    /// Notes the alias to which a message, now sent, has given its topic.
    fn set_alias(&mut self, publish: &Publish<'_>) {
        let Some(alias) = publish.properties.topic_alias else { return };
        if let Ok(topic) = Topic::new(publish.topic_name) {
            self.connection.aliases.get_or_insert_default().own.set(alias, topic);
        }
    }

    // ---- requests ----

    /// Returns the identifier for a SUBSCRIBE or UNSUBSCRIBE.
    pub(crate) fn allocate(&self) -> Result<PacketIdentifier, RequestError> {
        if !self.is_open() {
            return Err(RequestError::NotConnected);
        }
        self.session.outbound.slots.allocate().ok_or(RequestError::NoPacketIdentifier)
    }

    /// Notes a SUBSCRIBE or UNSUBSCRIBE that was written.
    pub(crate) fn insert_request(
        &mut self,
        identifier: PacketIdentifier,
        key: u64,
        filters: usize,
        request: Request,
    ) {
        self.session.outbound.slots.insert(identifier, Slot::AwaitSuback { key, filters, request });
    }
}

/// Makes an outgoing message of the application, with the time of its expiry.
#[inline]
fn expiring(key: u64, publish: &Publish<'_>, message: Message, now: Instant) -> Outgoing {
    let interval = publish.properties.message_expiry_interval;
    Outgoing {
        expires_at: interval.map(|seconds| now.plus_seconds(seconds)),
        ..Outgoing::new(Some(key), message)
    }
}
