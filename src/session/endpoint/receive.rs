//! Receiving messages and acknowledgements.

#![expect(
    clippy::inline_always,
    reason = "measured: a PUBLISH without properties that is handled where it was read stays in \
              registers, which saves 60 of 600 instructions"
)]

use super::super::inbound::Exchange;
use super::super::slot::{Meaning, Slot};
use super::super::unacknowledged::{Turn, Waiting};
use super::super::{AckToken, AcknowledgeError, Acknowledgement, Change, ProtocolError, Received};
use super::send::REPLY_ROOM;
use super::{Endpoint, Step};
use crate::codec::{
    self, Ack, Output, OwnedPacket, Packet, PacketIdentifier, PacketType, Publish, PublishStart,
    QoS, ReasonCode, Rules, Suback, TopicName, Version,
};
use alloc::boxed::Box;

impl Endpoint {
    /// Handles a PUBLISH that has properties. It is moved once more than one without, which costs
    /// little beside them.
    #[inline(never)]
    pub(crate) fn on_publish_with_properties<'a>(
        &mut self,
        start: PublishStart<'a>,
        rules: Rules,
        step: &mut Step<'_, impl Output>,
    ) -> Result<Option<Received<'a>>, ProtocolError> {
        let publish = start.with_properties(rules)?;
        let Publish { qos, packet_identifier, ref properties, .. } = *publish.get();
        let topic_name = match (properties.topic_alias, publish.topic_name()) {
            (Some(alias), topic_name) => self.resolve_alias(alias, topic_name)?,
            (None, Some(topic_name)) => topic_name,
            (None, None) => return self.skip(packet_identifier, qos, step).map(|()| None),
        };
        let token = self.on_publish(publish.get(), step)?;
        Ok(token.map(|token| Received::of(publish.get(), topic_name, token)))
    }

    /// Handles a PUBLISH whose topic name is known. Returns the token that acknowledges it, if it
    /// needs one, or `None` if it is not for the host.
    #[inline(always)]
    pub(crate) fn on_publish(
        &mut self,
        publish: &Publish<'_>,
        step: &mut Step<'_, impl Output>,
    ) -> Result<Option<Option<AckToken>>, ProtocolError> {
        let Publish { qos, retain, packet_identifier, .. } = *publish;
        if qos > self.connection.own.maximum_qos {
            return Err(ProtocolError::QosNotSupported);
        }
        if retain && !self.connection.own.retain_available {
            return Err(ProtocolError::RetainNotSupported);
        }
        let Some(identifier) = packet_identifier else { return Ok(Some(None)) };
        if self.connection.requests.get(identifier).is_some() {
            return self.refuse_identifier(identifier, qos, step).map(|()| None);
        }
        Ok(self.accept_identifier(identifier, qos, step)?.map(Some))
    }

    /// Acknowledges a message without reporting it to the host, because its topic name is not
    /// UTF-8. `Options::UNREADABLE_TOPIC` accepted it.
    #[cold]
    #[inline(never)]
    pub(crate) fn skip(
        &mut self,
        packet_identifier: Option<PacketIdentifier>,
        qos: QoS,
        step: &mut Step<'_, impl Output>,
    ) -> Result<(), ProtocolError> {
        let Some(identifier) = packet_identifier else { return Ok(()) };
        if let Some(token) = self.accept_identifier(identifier, qos, step)? {
            let acknowledged = self.acknowledge(token, ReasonCode::SUCCESS.into(), step);
            debug_assert!(acknowledged.is_ok(), "the token is new");
        }
        Ok(())
    }

    /// Refuses a message because its identifier is in use for a request. [5.0 §3.4.2.1]
    /// [5.0 §3.5.2.1]
    #[cold]
    fn refuse_identifier(
        &mut self,
        identifier: PacketIdentifier,
        qos: QoS,
        step: &mut Step<'_, impl Output>,
    ) -> Result<(), ProtocolError> {
        if self.connection.version < Version::V5_0 {
            return Err(ProtocolError::PacketIdentifierInUse(PacketType::Publish));
        }
        self.count_received()?;
        let code = ReasonCode::PACKET_IDENTIFIER_IN_USE;
        self.connection.unacknowledged.push(identifier, qos, Turn::Refused, Some(code));
        self.send_acknowledgements(step.out)
    }

    /// Notes a QoS 1 or 2 message. Returns `None` if it is a repeat.
    #[inline(always)]
    fn accept_identifier(
        &mut self,
        identifier: PacketIdentifier,
        qos: QoS,
        step: &mut Step<'_, impl Output>,
    ) -> Result<Option<AckToken>, ProtocolError> {
        if qos == QoS::ExactlyOnce && self.is_repeat(identifier, step)? {
            return Ok(None);
        }
        self.count_received()?;
        if qos == QoS::ExactlyOnce {
            self.session.inbound.insert(identifier, Exchange::DuePubrec { accepted: false });
        }
        let connection = self.session.connections;
        let number = self.connection.unacknowledged.push(identifier, qos, Turn::First, None);
        Ok(Some(AckToken { connection, number }))
    }

    /// Whether a QoS 2 message is the same as one before.
    #[inline(never)]
    fn is_repeat(
        &mut self,
        identifier: PacketIdentifier,
        step: &mut Step<'_, impl Output>,
    ) -> Result<bool, ProtocolError> {
        match self.session.inbound.get_mut(&identifier) {
            // [5.0 MQTT-4.3.3-10] [3.1.1 MQTT-4.3.3-2]
            Some(Exchange::AwaitPubrel { again: again @ None, .. }) => {
                // Its PUBREC, too, is sent after those of earlier messages.
                // [5.0 MQTT-4.6.0-3] [3.1.1 MQTT-4.6.0-3]
                let verdict = Some(ReasonCode::SUCCESS);
                let waiting = &mut self.connection.unacknowledged;
                *again = Some(waiting.push(identifier, QoS::ExactlyOnce, Turn::Again, verdict));
                self.send_acknowledgements(step.out).map(|()| true)
            }
            Some(_) => Ok(true),
            None => Ok(false),
        }
    }

    /// Counts a message towards this side's Receive Maximum. [5.0 §3.3.4]
    #[inline]
    fn count_received(&mut self) -> Result<(), ProtocolError> {
        if self.connection.received >= self.connection.own.receive_maximum {
            return Err(ProtocolError::ReceiveMaximumExceeded);
        }
        self.connection.received += 1;
        Ok(())
    }

    /// Resolves a topic alias, or gives it a topic. [5.0 §3.3.4]
    fn resolve_alias<'a>(
        &mut self,
        alias: u16,
        topic_name: Option<TopicName<'a>>,
    ) -> Result<TopicName<'a>, ProtocolError> {
        if alias > self.connection.own.topic_alias_maximum {
            return Err(ProtocolError::TopicAliasInvalid(alias));
        }
        let Some(topic_name) = topic_name else {
            let topic = self.connection.aliases.as_ref().and_then(|tables| tables.peer.get(alias));
            return topic
                .cloned()
                .map(TopicName::from)
                .ok_or(ProtocolError::UnknownTopicAlias(alias));
        };
        let tables = self.connection.aliases.get_or_insert_default();
        tables.peer.set(alias, topic_name.clone().into_topic());
        Ok(topic_name)
    }

    // ---- acknowledging ----

    /// Acknowledges what the host was given before this step, unless the host does so itself.
    #[inline]
    pub(crate) fn settle(&mut self, step: &mut Step<'_, impl Output>) -> Result<(), ProtocolError> {
        if self.connection.unacknowledged.is_empty() {
            return Ok(());
        }
        if !self.config.manual_acknowledgement {
            self.connection.unacknowledged.accept_all();
        }
        self.send_acknowledgements(step.out)
    }

    /// Returns the packet identifier of a message of this connection that is not acknowledged.
    pub(crate) fn packet_identifier(&self, token: AckToken) -> Option<PacketIdentifier> {
        let is_current = token.connection == self.session.connections;
        let waiting = self.connection.unacknowledged.get(token.number).filter(|_| is_current)?;
        Some(waiting.packet_identifier)
    }

    /// Notes what the host decides about a message, and sends what is due.
    pub(crate) fn acknowledge(
        &mut self,
        token: AckToken,
        acknowledgement: Acknowledgement<'_>,
        step: &mut Step<'_, impl Output>,
    ) -> Result<(), AcknowledgeError> {
        if token.connection != self.session.connections || !self.is_open() {
            return Err(AcknowledgeError::Stale);
        }
        let Acknowledgement { reason_code, properties } = acknowledgement;
        let rules = Rules::new(Version::V5_0).sent_by(self.connection.role);
        if !rules.allows(reason_code, PacketType::Puback) {
            return Err(AcknowledgeError::ReasonCode(reason_code));
        }
        let is_5_0 = self.connection.version == Version::V5_0;
        let waiting = self.connection.unacknowledged.undecided(token);
        let waiting = waiting.ok_or(AcknowledgeError::AlreadyAcknowledged)?;
        let (identifier, qos) = (waiting.packet_identifier, waiting.qos);
        let packet = if properties.is_empty() || !is_5_0 {
            None
        } else {
            let ack = Ack { packet_identifier: identifier, reason_code, properties };
            let packet = match qos {
                QoS::AtMostOnce | QoS::AtLeastOnce => Packet::Puback(ack),
                QoS::ExactlyOnce => Packet::Pubrec(ack),
            };
            Some(OwnedPacket::new(&packet, rules)?)
        };
        // Before 5.0 a message cannot be refused. [3.1.1 MQTT-3.3.5-2]
        let verdict = if is_5_0 { reason_code } else { ReasonCode::SUCCESS };
        (waiting.verdict, waiting.packet) = (Some(verdict), packet.map(Box::new));
        if qos == QoS::ExactlyOnce && !verdict.is_error() {
            self.session.inbound.insert(identifier, Exchange::DuePubrec { accepted: true });
            self.session.note(Change::Accepted { packet_identifier: identifier });
        }
        // An acknowledgement that cannot be written ends the connection at the next step.
        let _ = self.send_acknowledgements(step.out);
        Ok(())
    }

    /// Sends the acknowledgements that are due, in the order of the messages.
    #[inline(never)]
    pub(crate) fn send_acknowledgements(
        &mut self,
        out: &mut impl Output,
    ) -> Result<(), ProtocolError> {
        while let Some((waiting, verdict)) = self.connection.unacknowledged.next() {
            if out.room() < REPLY_ROOM {
                return Ok(());
            }
            let Waiting { packet_identifier, qos, turn, ref packet, .. } = *waiting;
            if turn != Turn::Withdrawn {
                let is_written = packet
                    .as_ref()
                    .is_some_and(|packet| self.write_shortened(&packet.decode(), out).is_ok());
                if !is_written {
                    // If it cannot be written it stays, and the next step ends the connection.
                    self.write_ack(acknowledgement_of(qos), packet_identifier, verdict, out)?;
                }
            }
            self.connection.unacknowledged.pop();
            if qos == QoS::ExactlyOnce || turn != Turn::First {
                self.acknowledged(packet_identifier, qos, turn, verdict);
            } else {
                self.connection.received -= 1;
            }
        }
        Ok(())
    }

    /// Notes that an acknowledgement was sent.
    #[inline(never)]
    fn acknowledged(
        &mut self,
        identifier: PacketIdentifier,
        qos: QoS,
        turn: Turn,
        verdict: ReasonCode,
    ) {
        match (turn, qos) {
            (Turn::First, QoS::ExactlyOnce) if verdict.is_error() => {
                // [5.0 MQTT-4.3.3-9]
                self.session.inbound.remove(&identifier);
                self.connection.received -= 1;
            }
            (Turn::First, QoS::ExactlyOnce) => {
                let exchange = Exchange::AwaitPubrel { counted: true, again: None };
                let before = self.session.inbound.insert(identifier, exchange);
                if !before.is_some_and(Exchange::is_accepted) {
                    self.session.note(Change::Accepted { packet_identifier: identifier });
                }
            }
            (Turn::First | Turn::Refused, _) => self.connection.received -= 1,
            (Turn::Again, _) => {
                let exchange = self.session.inbound.get_mut(&identifier);
                if let Some(Exchange::AwaitPubrel { again, .. }) = exchange {
                    *again = None;
                }
            }
            (Turn::Withdrawn, _) => {}
        }
    }

    // ---- acknowledgements of the peer ----

    /// Handles PUBACK, PUBREC, PUBREL or PUBCOMP. Returns the key and the outcome of a message if
    /// they are known now.
    pub(crate) fn on_ack(
        &mut self,
        packet: PacketType,
        packet_identifier: PacketIdentifier,
        reason_code: ReasonCode,
        step: &mut Step<'_, impl Output>,
    ) -> Result<Option<(u64, ReasonCode)>, ProtocolError> {
        if packet == PacketType::Pubrel {
            return self.on_pubrel(packet_identifier, step).map(|()| None);
        }
        let mut write_pubrel = |endpoint: &Self, code| {
            endpoint.write_ack(PacketType::Pubrel, packet_identifier, code, step.out).map(|()| None)
        };
        let slot = self.session.outbound.slots.get_mut(packet_identifier);
        let meaning =
            slot.map_or(Meaning::Unknown, |slot| slot.answered(packet, reason_code.is_error()));
        let (key, counted) = match meaning {
            Meaning::Completes { key, counted } => (key, counted),
            Meaning::Releases { key, counted } => {
                self.session.outbound.release(packet_identifier, key, counted);
                self.session.note(Change::Released { packet_identifier, key });
                return write_pubrel(self, ReasonCode::SUCCESS);
            }
            Meaning::ReleasesAgain => return write_pubrel(self, ReasonCode::SUCCESS),
            // It can be part of a recovery, so the connection stays. [5.0 §4.3.3] [5.0 §3.6.2.1]
            Meaning::Unknown if packet == PacketType::Pubrec && !reason_code.is_error() => {
                return write_pubrel(self, ReasonCode::PACKET_IDENTIFIER_NOT_FOUND);
            }
            Meaning::Unknown => return Ok(None),
            Meaning::Mismatch => return Err(ProtocolError::WrongAcknowledgement(packet)),
        };
        self.session.outbound.free(packet_identifier);
        if packet != PacketType::Puback {
            self.session.note(Change::Ended { packet_identifier });
        }
        if counted {
            self.connection.sent -= 1;
        }
        // The PUBREL was resent to a peer that had completed the exchange: not an error during
        // recovery. [5.0 §3.7.2.1]
        let has_recovered = !counted
            && packet == PacketType::Pubcomp
            && reason_code == ReasonCode::PACKET_IDENTIFIER_NOT_FOUND;
        let reason_code = if has_recovered { ReasonCode::SUCCESS } else { reason_code };
        self.flush(step);
        Ok(key.map(|key| (key, reason_code)))
    }

    fn on_pubrel(
        &mut self,
        identifier: PacketIdentifier,
        step: &mut Step<'_, impl Output>,
    ) -> Result<(), ProtocolError> {
        let reason_code = match self.session.inbound.get(&identifier) {
            Some(Exchange::AwaitPubrel { counted, again }) => {
                self.connection.received -= u16::from(*counted);
                if let Some(number) = again {
                    self.connection.unacknowledged.withdraw(*number);
                }
                self.session.inbound.remove(&identifier);
                self.session.note(Change::Completed { packet_identifier: identifier });
                ReasonCode::SUCCESS
            }
            Some(Exchange::DuePubrec { .. }) => {
                return Err(ProtocolError::WrongAcknowledgement(PacketType::Pubrel));
            }
            None => ReasonCode::PACKET_IDENTIFIER_NOT_FOUND,
        };
        self.write_ack(PacketType::Pubcomp, identifier, reason_code, step.out)
    }

    /// Handles SUBACK or UNSUBACK. Returns the key of the request.
    pub(crate) fn on_suback(
        &mut self,
        packet: PacketType,
        suback: &Suback<'_>,
    ) -> Result<u64, ProtocolError> {
        self.check_problem_information(suback.properties.is_empty())?;
        let codes = suback.reason_codes.iter().count();
        let has_no_codes =
            packet == PacketType::Unsuback && self.connection.version < Version::V5_0;
        let key = match self.session.outbound.slots.get_mut(suback.packet_identifier) {
            Some(Slot::AwaitSuback { key, filters, request })
                if request.answer() == packet && (has_no_codes || codes == *filters) =>
            {
                *key
            }
            _ => return Err(ProtocolError::WrongAnswer(packet)),
        };
        self.session.outbound.free(suback.packet_identifier);
        Ok(key)
    }

    /// Checks that a packet has no reason string and no user properties if the client refused them.
    /// They are always allowed in PUBLISH, CONNACK and DISCONNECT. [5.0 §3.1.2.11.7]
    pub(crate) fn check_problem_information(&self, is_empty: bool) -> Result<(), ProtocolError> {
        if is_empty || self.connection.own.problem_information {
            Ok(())
        } else {
            Err(ProtocolError::ProblemInformation)
        }
    }

    /// Whether the peer has a message in flight with that identifier.
    pub(crate) fn is_in_use(&self, identifier: PacketIdentifier) -> bool {
        self.session.inbound.contains_key(&identifier)
            || self.connection.unacknowledged.contains(identifier)
    }

    #[inline]
    pub(super) fn write_ack(
        &self,
        packet: PacketType,
        identifier: PacketIdentifier,
        reason_code: ReasonCode,
        out: &mut impl Output,
    ) -> Result<(), ProtocolError> {
        let is_short =
            reason_code == ReasonCode::SUCCESS || self.connection.version < Version::V5_0;
        let bytes = codec::acknowledgement(packet, identifier);
        if is_short && self.connection.peer.maximum_packet_size as usize >= bytes.len() {
            return out.append_slice(&bytes).map_err(|_| ProtocolError::NoRoomForAnswer);
        }
        self.write_long_ack(packet, identifier, reason_code, out)
    }

    #[inline(never)]
    fn write_long_ack(
        &self,
        packet: PacketType,
        identifier: PacketIdentifier,
        reason_code: ReasonCode,
        out: &mut impl Output,
    ) -> Result<(), ProtocolError> {
        let is_5_0 = self.connection.version == Version::V5_0;
        let reason_code = if is_5_0 { reason_code } else { ReasonCode::SUCCESS };
        self.answer((packet, &Ack::new(identifier, reason_code)), out)
    }
}

/// Returns the type of the first acknowledgement of a message.
const fn acknowledgement_of(qos: QoS) -> PacketType {
    match qos {
        QoS::AtMostOnce | QoS::AtLeastOnce => PacketType::Puback,
        QoS::ExactlyOnce => PacketType::Pubrec,
    }
}
