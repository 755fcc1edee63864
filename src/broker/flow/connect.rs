//! A client connects: CONNECT, the host's answer, CONNACK.

use super::{close, exchange, publish, subscribe};
use crate::broker::Broker;
use crate::broker::action::{ConnectionId, SessionId};
use crate::broker::closed::CloseCause;
use crate::broker::connections::{Connection, Phase};
use crate::broker::grants::{Access, Grants, Verdict};
use crate::broker::keep;
use crate::broker::question::{
    Admission, AnswerError, Pending, Question, QuestionId, ack_properties,
};
use crate::broker::sessions::Presence;
use crate::broker::throttle::Throttle;
use crate::broker::timers::Timer;
use crate::broker::wills::StoredWill;
use crate::codec::{
    Auth, ConnackProperties, Connect, Disconnect, Filter, OwnedPacket, Packet, PacketType,
    ReasonCode, Role, Rules, Version,
};
use crate::session::{Acknowledgement, Session};
use crate::time::Instant;
use alloc::boxed::Box;

/// Keeps a CONNECT, and asks the host whether the client is accepted.
pub(super) fn ask(broker: &mut Broker, id: ConnectionId, connect: &Connect<'_>) {
    if let Some(packet) = keep(broker, (*connect).into(), connect.version) {
        broker.connections.enter(id, Phase::Connecting(Box::new(packet.clone())));
        broker.connections.ask(id, Pending::new(Question::Connect(packet)));
    }
}

/// Asks the host about the next step of an authentication.
pub(super) fn ask_again(broker: &mut Broker, id: ConnectionId, auth: &Auth<'_>) {
    if let Some(packet) = keep(broker, (*auth).into(), Version::V5_0) {
        broker.connections.ask(id, Pending::new(Question::Authenticate(packet)));
    }
}

fn keep(broker: &Broker, packet: Packet<'_>, version: Version) -> Option<OwnedPacket> {
    let options = broker.config.server.common.options;
    let rules = Rules::new(version).sent_by(Role::Client).with(options).forwarding();
    // It was decoded just now, by the rules by which it is encoded.
    OwnedPacket::new(&packet, rules).ok()
}

pub(crate) fn accept(
    broker: &mut Broker,
    question: QuestionId,
    admission: Admission<'_>,
    now: Instant,
) -> Result<(), AnswerError> {
    let connection = broker.connections.asked(question).ok_or(AnswerError::NotOpen)?;
    let Phase::Connecting(packet) = connection.phase() else {
        return Err(AnswerError::WrongKind);
    };
    let packet = packet.clone();
    connection.question = None;
    let id = question.connection();
    if let Packet::Connect(connect) = packet.decode() {
        match begin(broker, id, &connect, admission, now) {
            Ok(()) => {
                exchange::settle(broker, id, now);
                broker.connections.hint(id);
            }
            Err(reason_code) => {
                refuse_connect(broker, id, reason_code, ConnackProperties::default(), now);
            }
        }
    }
    Ok(())
}

/// Gives a connection its session, and writes CONNACK. On error nothing has changed.
fn begin(
    broker: &mut Broker,
    id: ConnectionId,
    connect: &Connect<'_>,
    admission: Admission<'_>,
    now: Instant,
) -> Result<(), ReasonCode> {
    let Admission { properties, grants, rates } = admission;
    // A host that does not know enhanced authentication must not let such a client in.
    // [5.0 MQTT-4.12.0-5] [5.0 MQTT-4.12.0-6]
    if connect.properties.authentication_method != properties.authentication_method {
        return Err(ReasonCode::BAD_AUTHENTICATION_METHOD);
    }
    let will = connect.will.map(|mut will| {
        let config = broker.connections.get(id).map(|one| one.server.config());
        config.unwrap_or(&broker.config.server).lower(&mut will.qos, &mut will.retain);
        StoredWill::new(&will)
    });
    let will = will.transpose();
    let will = will.map_err(|_| ReasonCode::PACKET_TOO_LARGE)?;
    // The host has seen the will, so it need not be asked again.
    let is_denied = |will: &StoredWill| {
        let topic_name = will.message.topic_name();
        publish::is_reserved(broker, &topic_name)
            || grants.check(Access::Publish, &topic_name) == Verdict::Denied
    };
    if will.as_ref().is_some_and(is_denied) {
        return Err(ReasonCode::NOT_AUTHORIZED);
    }
    let is_nameless = connect.client_identifier.is_empty();
    let assigned = is_nameless.then(|| broker.sessions.assign_identifier());
    let client_identifier =
        assigned.as_deref().unwrap_or_else(|| connect.client_identifier.to_str());
    let assigned_client_identifier = assigned.as_deref().map(Into::into);
    let properties = ConnackProperties { assigned_client_identifier, ..properties };
    // Before anything changes: perhaps the client has no room for a CONNACK.
    let connection = broker.connections.get(id).ok_or(ReasonCode::UNSPECIFIED_ERROR)?;
    let checked = connection.server.check_accept(false, properties);
    checked.map_err(|_| ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR)?;
    let (session_id, session) = match resume(broker, id, client_identifier, connect, now) {
        Some((session_id, session)) => (session_id, Some(session)),
        None if broker.sessions.len() >= broker.config.maximum_sessions => {
            return Err(ReasonCode::QUOTA_EXCEEDED);
        }
        None => (broker.sessions.insert(client_identifier, Presence::Connected(id)), None),
    };
    close::replace_grants(broker, session_id, grants);
    if let Some(will) = will {
        broker.wills.insert(session_id, will);
    }
    broker.stats.connected += 1;
    broker.connections.enter(id, Phase::Connected(session_id));
    broker.connections.lend_output(id);
    if let Some(connection) = broker.connections.get_mut(id) {
        connection.throttle = Throttle::new(rates, now).map(Box::new);
        // `check_accept` has proved that it can be written.
        let _ = connection.server.accept(session, properties, now, &mut connection.output);
    }
    keep::admit(broker, id, session_id);
    subscribe::note_members(broker, session_id, true);
    Ok(())
}

/// Takes the session that the client resumes, or ends the one that it does not resume.
/// [5.0 §3.1.2.4] [3.1.1 §3.1.2.4]
fn resume(
    broker: &mut Broker,
    id: ConnectionId,
    client_identifier: &str,
    connect: &Connect<'_>,
    now: Instant,
) -> Option<(SessionId, Session)> {
    let session_id = broker.sessions.find(client_identifier)?;
    // The host may be late: the session may have ended, and its will been published.
    // [5.0 MQTT-4.1.0-2]
    close::handle_due(broker, session_id, now);
    if let Presence::Connected(old) = broker.sessions.get(session_id)?.presence {
        // [5.0 MQTT-3.1.4-3] [3.1.1 MQTT-3.1.4-2]
        let disconnect = Disconnect::new(ReasonCode::SESSION_TAKEN_OVER);
        close::disconnect(broker, old, &disconnect, CloseCause::TakenOver, now);
    }
    if connect.clean_start {
        close::end_session(broker, session_id, now);
        return None;
    }
    // The take-over may have ended the session. The will of one that is resumed is not published.
    // [5.0 MQTT-3.1.3-9]
    let state = broker.sessions.get_mut(session_id)?;
    broker.timers.disarm(Timer::Session(session_id), state.expires_at());
    let before = core::mem::replace(&mut state.presence, Presence::Connected(id));
    close::take_will(broker, session_id);
    match before {
        Presence::Away { session, .. } => Some((session_id, *session)),
        Presence::Connected(_) => None,
    }
}

pub(crate) fn challenge(
    broker: &mut Broker,
    question: QuestionId,
    auth: &Auth<'_>,
    now: Instant,
) -> Result<(), AnswerError> {
    let connection = broker.connections.asked(question).ok_or(AnswerError::NotOpen)?;
    if !is_about_authentication(connection) {
        return Err(AnswerError::WrongKind);
    }
    let sent = connection.server.challenge(auth, now, &mut connection.output);
    sent.map_err(|_| AnswerError::Authentication)?;
    connection.question = None;
    exchange::settle(broker, question.connection(), now);
    broker.connections.hint(question.connection());
    Ok(())
}

fn is_about_authentication(connection: &Connection) -> bool {
    connection.question.as_ref().is_some_and(|question| {
        matches!(question.content, Question::Connect(_) | Question::Authenticate(_))
    })
}

/// Lets a client publish or subscribe as it asked. `filter` is allowed from now on without a
/// question.
pub(crate) fn allow(
    broker: &mut Broker,
    question: QuestionId,
    filter: Option<&Filter>,
    now: Instant,
) -> Result<(), AnswerError> {
    let connection = broker.connections.asked(question).ok_or(AnswerError::NotOpen)?;
    let access = match connection.question.as_ref().map(|question| &question.content) {
        Some(Question::Publish(_)) => Access::Publish,
        Some(Question::Subscribe(..)) => Access::Subscribe,
        _ => return Err(AnswerError::WrongKind),
    };
    let verdict_of = |grants: &Grants| match &connection.question.as_ref()?.content {
        Question::Publish(message) => Some(grants.check(access, &message.topic_name())),
        Question::Subscribe(filter, _) => Some(grants.check_subscribe(filter)),
        Question::Connect(_) | Question::Authenticate(_) => None,
    };
    let session = connection.session();
    let state = session.and_then(|session| broker.sessions.get_mut(session));
    // The grants may have been replaced while the question was open.
    if state.as_ref().and_then(|state| verdict_of(&state.grants)) == Some(Verdict::Denied) {
        answer(broker, question.connection(), Some(ReasonCode::NOT_AUTHORIZED.into()), now);
        return Ok(());
    }
    if let (Some(filter), Some(state)) = (filter, state) {
        state.grants = core::mem::take(&mut state.grants).allow(&[access], filter);
        session.into_iter().for_each(|session| keep::update(broker, session));
    }
    answer(broker, question.connection(), None, now);
    Ok(())
}

/// Refuses what a client asked for.
pub(crate) fn refuse(
    broker: &mut Broker,
    question: QuestionId,
    reason_code: ReasonCode,
    properties: ConnackProperties<'_>,
    now: Instant,
) -> Result<(), AnswerError> {
    let connection = broker.connections.asked(question).ok_or(AnswerError::NotOpen)?;
    let id = question.connection();
    if !is_about_authentication(connection) {
        // A code that the answer cannot carry would leave the client without one.
        let answer_type = match connection.question.as_ref().map(|question| &question.content) {
            Some(Question::Subscribe(..)) => PacketType::Suback,
            _ => PacketType::Puback,
        };
        let rules = Rules::new(Version::V5_0).sent_by(Role::Server);
        let is_refusal = reason_code.is_error() && rules.allows(reason_code, answer_type);
        let reason_code = if is_refusal { reason_code } else { ReasonCode::NOT_AUTHORIZED };
        let refusal = Acknowledgement { reason_code, properties: ack_properties(properties) };
        answer(broker, id, Some(refusal), now);
    } else if connection.session().is_some() {
        // [5.0 §4.12.1]
        connection.question = None;
        let cause = CloseCause::Ended(reason_code);
        close::disconnect(broker, id, &Disconnect::new(reason_code), cause, now);
    } else {
        refuse_connect(broker, id, reason_code, properties, now);
    }
    Ok(())
}

/// Continues what a client asked for.
fn answer(
    broker: &mut Broker,
    id: ConnectionId,
    refusal: Option<Acknowledgement<'_>>,
    now: Instant,
) {
    let Some(connection) = broker.connections.get_mut(id) else { return };
    let Some(question) = connection.question.take() else { return };
    let Pending { content, token, expires_at, .. } = *question;
    match content {
        Question::Publish(message) => {
            publish::answered(broker, id, message, expires_at, token, refusal, now);
        }
        Question::Subscribe(filter, options) => {
            let refusal = refusal.map(|refusal| refusal.reason_code);
            subscribe::answered(broker, id, filter, options, refusal, now);
        }
        Question::Connect(_) | Question::Authenticate(_) => {}
    }
}

/// Answers a question in place of the host, whose time is over.
pub(super) fn answer_late(broker: &mut Broker, id: ConnectionId, now: Instant) {
    answer(broker, id, Some(ReasonCode::NOT_AUTHORIZED.into()), now);
}

fn refuse_connect(
    broker: &mut Broker,
    id: ConnectionId,
    reason_code: ReasonCode,
    properties: ConnackProperties<'_>,
    now: Instant,
) {
    let Some(connection) = broker.connections.get_mut(id) else { return };
    connection.cause = Some(Box::new(CloseCause::Refused(reason_code)));
    // A client without room for a CONNACK gets none.
    let _ = connection.server.refuse(reason_code, properties, now, &mut connection.output);
    close::end_by_host(broker, id, now);
}
