//! One end of a connection, as far as both roles are the same: the machines put a role, a handshake
//! and keep alive around it.

use super::inbound::{ConnectionNumber, Exchange, Turn, Unacknowledged};
use super::outbound::{Meaning, Slot};
use super::{
    AckToken, AcknowledgeError, Conduct, Message, Outcome, Outgoing, ProtocolError, PublishError,
    Published, Received, Session,
};
use crate::codec::{
    Ack, ConnackProperties, ConnectProperties, Encode, Frame, Packet, PacketIdentifier, PacketType,
    Publish, PublishProperties, QoS, ReasonCode, Role, Rules, Size, Suback, Text, Topic, TopicName,
    Version,
};
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// What one side takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) receive_maximum: u16,
    pub(crate) maximum_packet_size: u32,
    pub(crate) topic_alias_maximum: u16,
    pub(crate) maximum_qos: QoS,
    pub(crate) retain_available: bool,
}

impl Limits {
    /// What a CONNECT has said.
    pub(crate) fn asked(properties: &ConnectProperties<'_>) -> Self {
        Self {
            receive_maximum: properties.receive_maximum.unwrap_or(u16::MAX),
            maximum_packet_size: properties.maximum_packet_size.unwrap_or(u32::MAX),
            topic_alias_maximum: properties.topic_alias_maximum.unwrap_or(0),
            ..Self::default()
        }
    }

    /// What a CONNACK has said.
    pub(crate) fn stated(properties: &ConnackProperties<'_>) -> Self {
        Self {
            receive_maximum: properties.receive_maximum.unwrap_or(u16::MAX),
            maximum_packet_size: properties.maximum_packet_size.unwrap_or(u32::MAX),
            topic_alias_maximum: properties.topic_alias_maximum.unwrap_or(0),
            maximum_qos: properties.maximum_qos.unwrap_or(QoS::ExactlyOnce),
            retain_available: properties.retain_available.unwrap_or(true),
        }
    }
}

/// What a side takes that says nothing.
impl Default for Limits {
    fn default() -> Self {
        Self::stated(&ConnackProperties::default())
    }
}

/// What lasts as long as a connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) version: Version,
    /// What this side takes.
    pub(crate) own: Limits,
    /// What the peer takes.
    pub(crate) peer: Limits,
    /// Messages sent on this connection that take part of the peer's Receive Maximum. [5.0 §4.9]
    sent: u16,
    /// Messages received on it that take part of ours.
    received: u16,
    unacknowledged: Unacknowledged,
    /// The topics of the peer's aliases, from alias 1 on. [5.0 MQTT-3.3.2-7]
    peer_aliases: Vec<Option<Topic>>,
    own_aliases: Vec<Option<Topic>>,
    /// The topics that were given an alias without anybody asking for it.
    automatic_aliases: BTreeMap<Box<[u8]>, u16>,
}

impl Connection {
    pub(crate) fn new(version: Version, own: Limits, peer: Limits) -> Self {
        Self {
            version,
            own,
            peer,
            sent: 0,
            received: 0,
            unacknowledged: Unacknowledged::default(),
            peer_aliases: Vec::new(),
            own_aliases: Vec::new(),
            automatic_aliases: BTreeMap::new(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Endpoint {
    role: Role,
    pub(crate) session: Session,
    pub(crate) connection: Connection,
    /// Whether messages may flow.
    open: bool,
    /// So that a token of another connection is known.
    number: ConnectionNumber,
    conduct: Conduct,
}

/// From a server, output beyond this waits until the host has room and asks again: its clients are
/// many, and some are slow. A client writes all that the quota allows.
const HIGH_WATER: usize = 64 * 1024;

/// An alias takes three bytes, and may make the Property Length a byte longer.
const LEAST_ALIASED: usize = 5;

impl Endpoint {
    pub(crate) fn new(role: Role, session: Session, conduct: Conduct) -> Self {
        let connection = Connection::new(Version::V5_0, Limits::default(), Limits::default());
        Self {
            role,
            session,
            connection,
            open: false,
            number: ConnectionNumber::default(),
            conduct,
        }
    }

    /// By which the peer's packets are read.
    pub(crate) fn peer_rules(&self) -> Rules {
        let peer = if self.role == Role::Client { Role::Server } else { Role::Client };
        Rules::new(self.connection.version).sent_by(peer).with(self.conduct.options)
    }

    /// By which packets are written.
    pub(crate) fn rules(&self) -> Rules {
        self.publishing_rules().forwarding()
    }

    /// By which a message of the application is checked.
    fn publishing_rules(&self) -> Rules {
        Rules::new(self.connection.version).sent_by(self.role).with(self.conduct.options)
    }

    pub(crate) const fn is_open(&self) -> bool {
        self.open
    }

    /// Whether a step without input would do nothing.
    #[inline]
    pub(crate) fn is_quiet(&self) -> bool {
        let Session { outbound, completed, .. } = &self.session;
        self.connection.unacknowledged.is_empty() && !outbound.waits() && completed.is_empty()
    }

    /// A connection has been accepted: messages may flow, those of the session first.
    pub(crate) fn open(&mut self, now: Instant, out: &mut Vec<u8>) {
        self.open = true;
        self.number = ConnectionNumber::new();
        self.resume(now, out);
        self.flush(now, out);
    }

    /// The connection has ended.
    pub(crate) fn close(&mut self) {
        self.open = false;
        let unacknowledged = core::mem::take(&mut self.connection.unacknowledged);
        if !self.conduct.manual_acknowledgement {
            // The host was given them; another PUBLISH would be the same message.
            for identifier in unacknowledged.twice() {
                self.session.inbound.insert(identifier, Exchange::TAKEN);
            }
        }
        self.session.disconnected();
    }

    /// Whether the peer could have state of this session.
    pub(crate) const fn is_established(&self) -> bool {
        self.session.established
    }

    /// Whether the peer can have state of the session from now on. Where it cannot, what was in
    /// flight is told of at the next connection.
    pub(crate) const fn set_established(&mut self, established: bool) {
        self.session.established = established;
    }

    /// The peer has no state of the session: both directions forget. [5.0 MQTT-3.2.2-5]
    pub(crate) fn session_lost(&mut self) {
        self.session.inbound.clear();
        let lost = self.session.outbound.forget();
        self.session.completed.extend(
            lost.map(|(key, message)| Published { key, outcome: Outcome::SessionLost(message) }),
        );
    }

    /// Ends of messages that no packet has brought, one at a time.
    pub(crate) fn next_completed(&mut self) -> Option<Published<'static>> {
        self.session.next_completed()
    }

    /// Encodes a packet, unless it is larger than the peer takes.
    pub(crate) fn write(
        &self,
        packet: &impl Encode,
        out: &mut Vec<u8>,
    ) -> Result<(), PublishError> {
        if self.connection.peer.maximum_packet_size == u32::MAX {
            return Ok(packet.encode(self.rules(), out)?);
        }
        let measured = self.check_size(packet)?;
        Ok(packet.write(&measured, self.rules(), out)?)
    }

    /// Writes a packet, or, where the peer takes none so large, the same without what is for people
    /// to read.
    pub(crate) fn write_shortened(
        &self,
        packet: Packet<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), PublishError> {
        match self.write(&packet, out) {
            Err(PublishError::TooLarge { .. }) => self.write(&packet.without_diagnostics(), out),
            written => written,
        }
    }

    /// Whether the packet can be encoded, and is not too large for the peer.
    fn check_size(&self, packet: &impl Encode) -> Result<Size, PublishError> {
        let measured = packet.measure(self.rules())?;
        let (size, maximum) = (measured.packet_size(), self.connection.peer.maximum_packet_size);
        if size > maximum { Err(PublishError::TooLarge { size, maximum }) } else { Ok(measured) }
    }

    /// Encodes a packet that the peer must be sent.
    pub(crate) fn answer(
        &self,
        packet: &impl Encode,
        out: &mut Vec<u8>,
    ) -> Result<(), ProtocolError> {
        self.write(packet, out).map_err(|_| ProtocolError::NoRoomForAnswer)
    }

    // ---- sending ----

    pub(crate) fn publish(
        &mut self,
        key: u64,
        publish: &Publish<'_>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<(), PublishError> {
        if publish.dup || publish.packet_identifier.is_some() {
            return Err(PublishError::NotNew);
        }
        self.check_allowed(publish.qos, publish.retain)?;
        publish.check_payload_format(self.publishing_rules())?;
        let waits = !self.open
            || self.session.outbound.queued() > 0
            || publish.qos > QoS::AtMostOnce && !self.has_quota();
        let packet_identifier = match publish.qos {
            QoS::AtMostOnce => None,
            // Whether a message that waits can be encoded does not depend on the identifier.
            QoS::AtLeastOnce | QoS::ExactlyOnce if waits => Some(PacketIdentifier::FIRST),
            QoS::AtLeastOnce | QoS::ExactlyOnce => self.session.outbound.next(),
        };
        let resolved;
        let full = match publish.properties.topic_alias {
            None => publish,
            Some(alias) => {
                resolved = self.resolve(publish, alias)?;
                &resolved
            }
        };
        if !waits && publish.qos == QoS::AtMostOnce {
            self.write_publish(publish, None, out)?;
            self.set_alias(publish);
            return Ok(());
        }
        let expires_at =
            publish.properties.message_expiry_interval.map(|seconds| now.plus_seconds(seconds));
        // What is written at once is checked by that, but for its size where it is sent again,
        // without its alias. A payload that cannot fit need not be copied first.
        let is_huge = full.payload.len() > self.connection.peer.maximum_packet_size as usize;
        if waits || publish.properties.topic_alias.is_some() || is_huge {
            self.check_size(&(full, packet_identifier))?;
        }
        let message = if waits { Message::new(full)? } else { Message::copy(full)? };
        let outgoing = Outgoing { expires_at, ..Outgoing::new(Some(key), message) };
        if waits {
            self.enqueue(outgoing, now).map_err(|_| PublishError::QueueFull)?;
            self.forget_alias(publish);
            return Ok(());
        }
        self.write_publish(publish, packet_identifier, out)?;
        self.set_alias(publish);
        self.connection.sent += 1;
        self.session.outbound.insert(Slot::AwaitAck(outgoing));
        Ok(())
    }

    /// Lets a message wait, if there is room.
    pub(crate) fn enqueue(&mut self, outgoing: Outgoing, now: Instant) -> Result<(), Outgoing> {
        self.session.enqueue(outgoing, self.conduct.queue, now)
    }

    /// Sends what waits, as far as the quota and the room in `out` go: first what must be sent
    /// again.
    #[inline]
    pub(crate) fn flush(&mut self, now: Instant, out: &mut Vec<u8>) {
        if self.session.outbound.waits() {
            self.flush_waiting(now, out);
        }
    }

    fn flush_waiting(&mut self, now: Instant, out: &mut Vec<u8>) {
        while self.open && self.has_room(out) {
            let may_send = self.may_send();
            if let Some(identifier) = self.session.outbound.next_due() {
                if !may_send {
                    return;
                }
                if let Some(Slot::DuePublish(outgoing)) = self.session.outbound.get_mut(identifier)
                {
                    let outgoing = outgoing.clone();
                    self.send_again(identifier, outgoing, now, out);
                }
                continue;
            }
            let Some(front) = self.session.outbound.queue_front() else { return };
            if front.message.qos() > QoS::AtMostOnce && !self.has_quota() {
                return;
            }
            if let Some(outgoing) = self.session.outbound.dequeue() {
                self.send(outgoing, now, out);
            }
        }
    }

    fn has_room(&self, out: &[u8]) -> bool {
        self.role == Role::Client || out.len() < HIGH_WATER
    }

    /// Whether something waits that could be sent.
    pub(crate) fn can_flush(&self) -> bool {
        if !self.open {
            return false;
        }
        if self.session.outbound.has_due() {
            return self.may_send();
        }
        let front = self.session.outbound.queue_front();
        front.is_some_and(|front| front.message.qos() == QoS::AtMostOnce || self.has_quota())
    }

    /// PUBLISH and PUBREL packets of the session in their order; where the quota ends, the PUBREL
    /// packets go on alone. [5.0 MQTT-4.4.0-1] [5.0 MQTT-4.6.0-1] [3.1.1 MQTT-4.4.0-1] [3.1.1
    /// MQTT-4.6.0-1]
    fn resume(&mut self, now: Instant, out: &mut Vec<u8>) {
        for identifier in self.session.outbound.resume() {
            let held_back = !self.may_send() || !self.has_room(out);
            match self.session.outbound.get_mut(identifier) {
                Some(slot @ Slot::DuePubrel { .. }) => {
                    if let Slot::DuePubrel { key, received } = *slot {
                        *slot = Slot::AwaitPubcomp { key, received, counted: false };
                    }
                    // If the peer takes not even four bytes it will never learn.
                    let _ =
                        self.write_ack(PacketType::Pubrel, identifier, ReasonCode::SUCCESS, out);
                }
                Some(Slot::DuePublish(_)) if held_back => self.session.outbound.wait(identifier),
                Some(Slot::DuePublish(outgoing)) => {
                    let outgoing = outgoing.clone();
                    self.send_again(identifier, outgoing, now, out);
                }
                _ => {}
            }
        }
    }

    fn send_again(
        &mut self,
        identifier: PacketIdentifier,
        outgoing: Outgoing,
        now: Instant,
        out: &mut Vec<u8>,
    ) {
        let allowed = self.check_allowed(outgoing.message.qos(), outgoing.message.retain());
        if allowed
            .and_then(|()| self.write_outgoing(&outgoing, Some(identifier), true, now, out))
            .is_err()
        {
            match self.session.outbound.get_mut(identifier) {
                // [5.0 MQTT-2.2.1-3]
                Some(slot) if outgoing.message.qos() == QoS::ExactlyOnce => *slot = Slot::Barred,
                _ => self.session.outbound.free(identifier),
            }
            return self.not_allowed(&outgoing);
        }
        self.connection.sent += 1;
        if let Some(slot) = self.session.outbound.get_mut(identifier) {
            *slot = Slot::AwaitAck(outgoing);
        }
    }

    fn send(&mut self, outgoing: Outgoing, now: Instant, out: &mut Vec<u8>) {
        // A message with an interval of 0 can be sent at once, and only then. [5.0 §3.3.2.3.3]
        let is_momentary =
            || outgoing.message.to_publish().properties.message_expiry_interval == Some(0);
        if outgoing.expires_at.is_some_and(|at| at < now || at == now && !is_momentary()) {
            return self.session.completed.extend(outgoing.ended(Outcome::Expired));
        }
        if self.check_allowed(outgoing.message.qos(), outgoing.message.retain()).is_err() {
            return self.not_allowed(&outgoing);
        }
        let exchange = outgoing.message.qos() > QoS::AtMostOnce;
        let identifier = if exchange { self.session.outbound.next() } else { None };
        if self.write_outgoing(&outgoing, identifier, false, now, out).is_err() {
            return self.not_allowed(&outgoing);
        }
        if exchange {
            self.connection.sent += 1;
            self.session.outbound.insert(Slot::AwaitAck(outgoing));
        }
    }

    fn not_allowed(&mut self, outgoing: &Outgoing) {
        self.session
            .completed
            .extend(outgoing.ended(Outcome::NotAllowed(outgoing.message.clone())));
    }

    fn write_outgoing(
        &mut self,
        outgoing: &Outgoing,
        packet_identifier: Option<PacketIdentifier>,
        dup: bool,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<(), PublishError> {
        let publish = outgoing.message.to_publish();
        // What is left of it, in whole seconds; a message that is sent again may have none left.
        // [5.0 MQTT-3.3.2-6]
        let left = outgoing
            .expires_at
            .map(|at| u32::try_from((at - now).as_millis().div_ceil(1_000)).unwrap_or(u32::MAX));
        let properties = PublishProperties {
            message_expiry_interval: left.or(publish.properties.message_expiry_interval),
            subscription_identifiers: outgoing.subscription_identifiers.as_slice().into(),
            ..publish.properties
        };
        let publish = Publish { dup, properties, ..publish };
        self.write_publish(&publish.for_version(self.connection.version), packet_identifier, out)
    }

    /// Writes a message, by an alias where the configuration allows it and it saves something. The
    /// first topics get the aliases, and keep them: to give one to another topic costs more than it
    /// saves where there are many. [5.0 §3.3.2.3.4]
    fn write_publish(
        &mut self,
        publish: &Publish<'_>,
        packet_identifier: Option<PacketIdentifier>,
        out: &mut Vec<u8>,
    ) -> Result<(), PublishError> {
        let maximum =
            self.conduct.automatic_topic_aliases.min(self.connection.peer.topic_alias_maximum);
        let topic_name = publish.topic_name.as_bytes();
        if maximum == 0
            || topic_name.len() < LEAST_ALIASED
            || publish.properties.topic_alias.is_some()
        {
            return self.write(&(publish, packet_identifier), out);
        }
        let by_alias = |alias, topic_name| {
            let properties = PublishProperties { topic_alias: Some(alias), ..publish.properties };
            Publish { topic_name, properties, ..*publish }
        };
        if let Some(alias) = self.connection.automatic_aliases.get(topic_name) {
            // Sent again it has its topic name, and must fit all the same.
            if packet_identifier.is_some() {
                self.check_size(&(publish, packet_identifier))?;
            }
            return self.write(&(&by_alias(*alias, Text::default()), packet_identifier), out);
        }
        let next = u16::try_from(self.connection.automatic_aliases.len())
            .unwrap_or(u16::MAX)
            .saturating_add(1);
        // A message that would be too large with its new alias goes without.
        let aliased = by_alias(next, publish.topic_name);
        if next <= maximum && self.write(&(&aliased, packet_identifier), out).is_ok() {
            self.connection.automatic_aliases.insert(topic_name.into(), next);
            return Ok(());
        }
        self.write(&(publish, packet_identifier), out)
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

    /// Whether the Receive Maximum of the peer allows one more message with QoS 1 or 2. [5.0 §4.9]
    fn may_send(&self) -> bool {
        self.connection.sent < self.connection.peer.receive_maximum
    }

    /// Whether a new message with QoS 1 or 2 can be sent now. [5.0 MQTT-4.9.0-2] [5.0 MQTT-3.3.4-7]
    /// [5.0 MQTT-3.3.4-9]
    fn has_quota(&self) -> bool {
        self.may_send() && self.session.outbound.has_identifier()
    }

    /// The message with the topic that its alias stands for, and without the alias.
    fn resolve<'p>(
        &'p self,
        publish: &Publish<'p>,
        alias: u16,
    ) -> Result<Publish<'p>, PublishError> {
        let automatic = self.conduct.automatic_topic_aliases > 0;
        let maximum = if automatic { 0 } else { self.connection.peer.topic_alias_maximum };
        if alias == 0 || alias > maximum {
            return Err(PublishError::TopicAliasInvalid { maximum });
        }
        let properties = PublishProperties { topic_alias: None, ..publish.properties };
        if !publish.topic_name.is_empty() {
            return Ok(Publish { properties, ..*publish });
        }
        let topic =
            self.connection.own_aliases.get(usize::from(alias) - 1).and_then(Option::as_ref);
        let topic = topic.filter(|_| self.open).ok_or(PublishError::UnknownTopicAlias)?;
        let topic_name = topic.as_text();
        Ok(Publish { topic_name, properties, ..*publish })
    }

    /// Notes the alias that a message, now sent, has given its topic.
    fn set_alias(&mut self, publish: &Publish<'_>) {
        if let Some(alias) = publish.properties.topic_alias {
            if let Ok(name) = TopicName::new(publish.topic_name) {
                set_alias(&mut self.connection.own_aliases, alias, name.into_topic());
            }
        }
    }

    /// A message that would have given an alias its topic waits, and will go without it: the alias
    /// stands for nothing the caller means.
    fn forget_alias(&mut self, publish: &Publish<'_>) {
        let index =
            publish.properties.topic_alias.map(|alias| usize::from(alias).saturating_sub(1));
        if let Some(entry) = index.and_then(|index| self.connection.own_aliases.get_mut(index)) {
            *entry = None;
        }
    }

    pub(crate) fn insert_subscribe(&mut self, key: u64, filters: usize, unsubscribe: bool) {
        self.session.outbound.insert(Slot::AwaitSuback { key, filters, unsubscribe });
    }

    pub(crate) fn next_identifier(&mut self) -> Option<PacketIdentifier> {
        self.session.outbound.next()
    }

    // ---- receiving ----

    /// A PUBLISH, given away unless it needs nobody's attention, as a QoS 2 message that came
    /// before. `is_requested` says whether the peer waits for the answer to a request with an
    /// identifier.
    #[inline]
    pub(crate) fn on_publish<'a, A>(
        &mut self,
        frame: Frame<'a>,
        is_requested: impl FnOnce(PacketIdentifier) -> bool,
        out: &mut Vec<u8>,
        action: &mut Option<A>,
        message: impl FnOnce(Received<'a>) -> A,
    ) -> Result<(), ProtocolError> {
        let Publish { topic_name, payload, qos, retain, dup, mut properties, packet_identifier } =
            frame.publish(self.peer_rules(), core::convert::identity)?;
        let topic_name = match properties.topic_alias.take() {
            Some(alias) => self.topic_name(alias, topic_name)?,
            None if topic_name.is_empty() => return self.skip(packet_identifier, qos, out),
            None => TopicName::from_decoded(topic_name),
        };
        if qos > self.connection.own.maximum_qos {
            return Err(ProtocolError::QosNotSupported);
        }
        if retain && !self.connection.own.retain_available {
            return Err(ProtocolError::RetainNotSupported);
        }
        let token = match packet_identifier {
            None => None,
            Some(identifier) if is_requested(identifier) => {
                return self.refuse_identifier(identifier, qos, out);
            }
            Some(identifier) => match self.take_in(identifier, qos, out)? {
                None => return Ok(()),
                token => token,
            },
        };
        *action =
            Some(message(Received { topic_name, payload, qos, retain, dup, properties, token }));
        Ok(())
    }

    /// Acknowledges a message without reporting it to the host, because its topic name is not
    /// UTF-8. `Options::UNREADABLE_TOPIC` accepted it.
    #[cold]
    fn skip(
        &mut self,
        packet_identifier: Option<PacketIdentifier>,
        qos: QoS,
        out: &mut Vec<u8>,
    ) -> Result<(), ProtocolError> {
        let Some(identifier) = packet_identifier else { return Ok(()) };
        if let Some(token) = self.take_in(identifier, qos, out)? {
            let acknowledged = self.acknowledge(token, ReasonCode::SUCCESS);
            debug_assert!(acknowledged.is_ok(), "the token is new");
            self.send_acknowledgements(out)?;
        }
        Ok(())
    }

    /// A message with an identifier that is in use. [5.0 §3.4.2.1] [5.0 §3.5.2.1]
    #[cold]
    fn refuse_identifier(
        &mut self,
        identifier: PacketIdentifier,
        qos: QoS,
        out: &mut Vec<u8>,
    ) -> Result<(), ProtocolError> {
        if self.connection.version < Version::V5_0 {
            return Err(ProtocolError::PacketIdentifierInUse(PacketType::Publish));
        }
        self.connection.unacknowledged.push_refused(
            identifier,
            qos,
            ReasonCode::PACKET_IDENTIFIER_IN_USE,
        );
        self.send_acknowledgements(out)
    }

    /// Notes a message with QoS 1 or 2; `None` if it came before.
    fn take_in(
        &mut self,
        identifier: PacketIdentifier,
        qos: QoS,
        out: &mut Vec<u8>,
    ) -> Result<Option<AckToken>, ProtocolError> {
        if qos == QoS::ExactlyOnce {
            match self.session.inbound.get_mut(&identifier) {
                // [5.0 MQTT-4.3.3-10] [3.1.1 MQTT-4.3.3-2]
                Some(Exchange::AwaitPubrel { again: again @ None, .. }) => {
                    // Its PUBREC, too, leaves after those of earlier messages. [5.0 MQTT-4.6.0-3]
                    // [3.1.1 MQTT-4.6.0-3]
                    *again = Some(self.connection.unacknowledged.push_again(identifier));
                    return self.send_acknowledgements(out).map(|()| None);
                }
                Some(_) => return Ok(None),
                None => {}
            }
        }
        if self.connection.received >= self.connection.own.receive_maximum {
            return Err(ProtocolError::ReceiveMaximumExceeded);
        }
        self.connection.received += 1;
        if qos == QoS::ExactlyOnce {
            self.session.inbound.insert(identifier, Exchange::DuePubrec { taken: false });
        }
        Ok(Some(self.connection.unacknowledged.push(identifier, qos, self.number)))
    }

    /// Resolves an alias, or notes it. [5.0 §3.3.4]
    fn topic_name<'a>(
        &mut self,
        alias: u16,
        topic_name: Text<'a>,
    ) -> Result<TopicName<'a>, ProtocolError> {
        if alias > self.connection.own.topic_alias_maximum {
            return Err(ProtocolError::TopicAliasInvalid(alias));
        }
        let aliases = &mut self.connection.peer_aliases;
        if !topic_name.is_empty() {
            let name = TopicName::from_decoded(topic_name);
            set_alias(aliases, alias, name.clone().into_topic());
            return Ok(name);
        }
        let name = usize::from(alias).checked_sub(1).and_then(|index| aliases.get(index)?.clone());
        name.map(TopicName::from).ok_or(ProtocolError::UnknownTopicAlias(alias))
    }

    /// The host has taken the next step: what it does not acknowledge by hand is acknowledged.
    #[inline]
    pub(crate) fn settle(&mut self, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        if self.connection.unacknowledged.is_empty() {
            return Ok(());
        }
        if !self.conduct.manual_acknowledgement {
            self.connection.unacknowledged.accept_all();
        }
        self.send_acknowledgements(out)
    }

    pub(crate) fn acknowledge(
        &mut self,
        token: AckToken,
        reason_code: ReasonCode,
    ) -> Result<(), AcknowledgeError> {
        if token.connection != self.number || !self.open {
            return Err(AcknowledgeError::Stale);
        }
        let rules = Rules::new(Version::V5_0).sent_by(self.role);
        if !rules.allows(reason_code, PacketType::Puback) {
            return Err(AcknowledgeError::ReasonCode(reason_code));
        }
        // Before 5.0 there is no refusing. [3.1.1 MQTT-3.3.5-2]
        let verdict = if self.connection.version == Version::V5_0 {
            reason_code
        } else {
            ReasonCode::SUCCESS
        };
        let waiting = self
            .connection
            .unacknowledged
            .decide(token, verdict)
            .ok_or(AcknowledgeError::AlreadyAcknowledged)?;
        if waiting.qos == QoS::ExactlyOnce && !verdict.is_error() {
            self.session
                .inbound
                .insert(waiting.packet_identifier, Exchange::DuePubrec { taken: true });
        }
        Ok(())
    }

    pub(crate) fn send_acknowledgements(&mut self, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        while let Some((waiting, verdict)) = self.connection.unacknowledged.next() {
            let identifier = waiting.packet_identifier;
            let packet = if waiting.qos == QoS::ExactlyOnce {
                PacketType::Pubrec
            } else {
                PacketType::Puback
            };
            // Where it has no room it stays, and the next step ends the connection for it.
            if waiting.turn != Turn::Void {
                self.write_ack(packet, identifier, verdict, out)?;
            }
            self.connection.unacknowledged.pop();
            match (waiting.turn, packet) {
                (Turn::First, PacketType::Pubrec) if verdict.is_error() => {
                    // [5.0 MQTT-4.3.3-9]
                    self.session.inbound.remove(&identifier);
                    self.connection.received -= 1;
                }
                (Turn::First, PacketType::Pubrec) => {
                    self.session
                        .inbound
                        .insert(identifier, Exchange::AwaitPubrel { counted: true, again: None });
                }
                (Turn::First, _) => self.connection.received -= 1,
                (Turn::Again, _) => {
                    if let Some(Exchange::AwaitPubrel { again, .. }) =
                        self.session.inbound.get_mut(&identifier)
                    {
                        *again = None;
                    }
                }
                (Turn::Refused | Turn::Void, _) => {}
            }
        }
        Ok(())
    }

    /// PUBACK, PUBREC, PUBREL or PUBCOMP; the end of a message if it is one.
    pub(crate) fn on_ack<'a>(
        &mut self,
        packet: PacketType,
        ack: Ack<'a>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<Option<Published<'a>>, ProtocolError> {
        let Ack { packet_identifier, reason_code, properties } = ack;
        if packet == PacketType::Pubrel {
            return self.on_pubrel(packet_identifier, out).map(|()| None);
        }
        let slot = self.session.outbound.get_mut(packet_identifier);
        let (key, counted) = match slot
            .map_or(Meaning::Unknown, |slot| slot.answered(packet, reason_code.is_error()))
        {
            Meaning::Ends { key, counted } => (key, counted),
            Meaning::Releases { key, counted } => {
                self.session.outbound.release(packet_identifier, key, counted);
                return self
                    .write_ack(PacketType::Pubrel, packet_identifier, ReasonCode::SUCCESS, out)
                    .map(|()| None);
            }
            Meaning::ReleasesAgain => {
                return self
                    .write_ack(PacketType::Pubrel, packet_identifier, ReasonCode::SUCCESS, out)
                    .map(|()| None);
            }
            // No end of the connection, since it may come of a recovery. [5.0 §4.3.3] [5.0
            // §3.6.2.1]
            Meaning::Unknown if packet == PacketType::Pubrec && !reason_code.is_error() => {
                let code = ReasonCode::PACKET_IDENTIFIER_NOT_FOUND;
                return self
                    .write_ack(PacketType::Pubrel, packet_identifier, code, out)
                    .map(|()| None);
            }
            Meaning::Unknown => return Ok(None),
            Meaning::Wrong => return Err(ProtocolError::WrongAcknowledgement(packet)),
        };
        self.session.outbound.free(packet_identifier);
        if counted {
            self.connection.sent -= 1;
        }
        // PUBREL was sent again, to a peer that had it and forgot: no error during recovery. [5.0
        // §3.7.2.1]
        let recovered = !counted
            && packet == PacketType::Pubcomp
            && reason_code == ReasonCode::PACKET_IDENTIFIER_NOT_FOUND;
        let reason_code = if recovered { ReasonCode::SUCCESS } else { reason_code };
        self.flush(now, out);
        Ok(key.map(|key| Published {
            key,
            outcome: Outcome::Acknowledged { reason_code, properties },
        }))
    }

    fn on_pubrel(
        &mut self,
        identifier: PacketIdentifier,
        out: &mut Vec<u8>,
    ) -> Result<(), ProtocolError> {
        let reason_code = match self.session.inbound.get(&identifier) {
            Some(Exchange::AwaitPubrel { counted, again }) => {
                self.connection.received -= u16::from(*counted);
                if let Some(number) = again {
                    self.connection.unacknowledged.withdraw(*number);
                }
                self.session.inbound.remove(&identifier);
                ReasonCode::SUCCESS
            }
            Some(Exchange::DuePubrec { .. }) => {
                return Err(ProtocolError::WrongAcknowledgement(PacketType::Pubrel));
            }
            None => ReasonCode::PACKET_IDENTIFIER_NOT_FOUND,
        };
        self.write_ack(PacketType::Pubcomp, identifier, reason_code, out)
    }

    /// SUBACK or UNSUBACK: the key of what it answers.
    pub(crate) fn on_suback(
        &mut self,
        packet: PacketType,
        suback: &Suback<'_>,
    ) -> Result<u64, ProtocolError> {
        let codes = suback.reason_codes.iter().count();
        let no_codes = packet == PacketType::Unsuback && self.connection.version < Version::V5_0;
        let expected = match self.session.outbound.get_mut(suback.packet_identifier) {
            Some(Slot::AwaitSuback { key, filters, unsubscribe })
                if *unsubscribe == (packet == PacketType::Unsuback) =>
            {
                Some(*key).filter(|_| no_codes || codes == *filters)
            }
            _ => None,
        };
        let key = expected.ok_or(ProtocolError::WrongAnswer(packet))?;
        self.session.outbound.free(suback.packet_identifier);
        Ok(key)
    }

    /// Whether the peer has a message under way with that identifier.
    pub(crate) fn is_in_use(&self, identifier: PacketIdentifier) -> bool {
        self.session.inbound.contains_key(&identifier)
            || self.connection.unacknowledged.contains(identifier)
    }

    fn write_ack(
        &self,
        packet: PacketType,
        identifier: PacketIdentifier,
        reason_code: ReasonCode,
        out: &mut Vec<u8>,
    ) -> Result<(), ProtocolError> {
        let reason_code = if self.connection.version == Version::V5_0 {
            reason_code
        } else {
            ReasonCode::SUCCESS
        };
        self.answer(&(packet, &Ack::new(identifier, reason_code)), out)
    }
}

fn set_alias(aliases: &mut Vec<Option<Topic>>, alias: u16, topic: Topic) {
    let index = usize::from(alias).saturating_sub(1);
    if aliases.len() <= index {
        aliases.resize(index + 1, None);
    }
    if let Some(entry) = aliases.get_mut(index) {
        *entry = Some(topic);
    }
}
