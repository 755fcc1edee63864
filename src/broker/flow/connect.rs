//! A client connects: CONNECT, the host's answer, CONNACK.

use super::{close, exchange};
use crate::broker::Broker;
use crate::broker::action::{ConnectionId, SessionId};
use crate::broker::connections::{Connection, Phase};
use crate::broker::sessions::Presence;
use crate::broker::timers::Timer;
use crate::broker::wills::StoredWill;
use crate::codec::{
    ConnackProperties, Connect, Disconnect, OwnedPacket, Packet, ReasonCode, Role, Rules,
};
use crate::session::Session;
use crate::time::Instant;

/// Keeps a CONNECT, and asks the host whether the client is accepted.
pub(super) fn ask(broker: &mut Broker, id: ConnectionId, connect: &Connect<'_>) {
    let options = broker.config.server.common.options;
    let rules = Rules::new(connect.version).sent_by(Role::Client).with(options).forwarding();
    // It was decoded just now, by the rules by which it is encoded.
    if let Ok(packet) = OwnedPacket::new(&(*connect).into(), rules) {
        broker.connections.enter(id, Phase::Asked(packet));
    }
}

pub(crate) fn accept(
    broker: &mut Broker,
    id: ConnectionId,
    properties: ConnackProperties<'_>,
    now: Instant,
) {
    let phase = broker.connections.get(id).map(Connection::phase);
    let Some(Phase::Asked(packet)) = phase else { return };
    let packet = packet.clone();
    let Packet::Connect(connect) = packet.decode() else { return };
    match begin(broker, id, &connect, properties, now) {
        Ok(()) => exchange::settle(broker, id, now),
        Err(reason_code) => refuse(broker, id, reason_code, ConnackProperties::default(), now),
    }
}

/// Gives a connection its session, and writes CONNACK. On error nothing has changed.
fn begin(
    broker: &mut Broker,
    id: ConnectionId,
    connect: &Connect<'_>,
    properties: ConnackProperties<'_>,
    now: Instant,
) -> Result<(), ReasonCode> {
    if connect.properties.authentication_method.is_some() {
        return Err(ReasonCode::BAD_AUTHENTICATION_METHOD);
    }
    let will = connect.will.map(|will| StoredWill::new(&will)).transpose();
    let will = will.map_err(|_| ReasonCode::PACKET_TOO_LARGE)?;
    let is_nameless = connect.client_identifier.is_empty();
    let assigned = is_nameless.then(|| broker.sessions.assign_identifier());
    let client_identifier =
        assigned.as_deref().map_or(connect.client_identifier.as_bytes(), str::as_bytes);
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
        None => (broker.sessions.insert(client_identifier, id), None),
    };
    if let Some(will) = will {
        broker.wills.insert(session_id, will);
    }
    broker.connections.enter(id, Phase::Connected(session_id));
    if let Some(connection) = broker.connections.get_mut(id) {
        // `check_accept` has proved that it can be written.
        let _ = connection.server.accept(session, properties, now, &mut connection.output);
    }
    Ok(())
}

/// Takes the session that the client resumes, or ends the one that it does not resume.
/// [5.0 §3.1.2.4] [3.1.1 §3.1.2.4]
fn resume(
    broker: &mut Broker,
    id: ConnectionId,
    client_identifier: &[u8],
    connect: &Connect<'_>,
    now: Instant,
) -> Option<(SessionId, Session)> {
    let session_id = broker.sessions.find(client_identifier)?;
    // The host may be late: the session may have ended, and its will been published.
    // [5.0 MQTT-4.1.0-2]
    close::handle_due(broker, session_id, now);
    if let Presence::Connected(old) = broker.sessions.get(session_id)?.presence {
        // [5.0 MQTT-3.1.4-3] [3.1.1 MQTT-3.1.4-2]
        close::disconnect(broker, old, &Disconnect::new(ReasonCode::SESSION_TAKEN_OVER), now);
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

pub(crate) fn refuse(
    broker: &mut Broker,
    id: ConnectionId,
    reason_code: ReasonCode,
    properties: ConnackProperties<'_>,
    now: Instant,
) {
    let Some(connection) = broker.connections.get_mut(id) else { return };
    if matches!(connection.phase(), Phase::Asked(_)) {
        // A client without room for a CONNACK gets none.
        let _ = connection.server.refuse(reason_code, properties, now, &mut connection.output);
        close::end_by_host(broker, id, now);
    }
}
