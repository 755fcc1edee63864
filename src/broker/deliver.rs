//! One message on its way to the sessions: one copy each, in order with retained messages.

use super::Broker;
use super::action::{ConnectionId, SessionId};
use super::config::{Overflow, SharedStrategy};
use super::connections::Connection;
use super::grants::{Access, Verdict};
use super::journal::Journal;
use super::keep;
use super::sessions::{Presence, SessionState};
use super::stats;
use super::subscription::{Subscriber, Target};
use super::tasks::Task;
use crate::codec::{Filter, QoS, TopicName};
use crate::router::GroupId;
use crate::session::{Key, Message, Outgoing, QueueLimit, Session};
use crate::time::Instant;
use alloc::collections::VecDeque;

/// A session is given more retained messages while fewer messages than this wait for its client.
const RETAINED_AT_ONCE: usize = 16;

/// The copies of a message that take a step of their own. With fewer, messages to 100 subscribers
/// are read in smaller pieces than they arrive in, each of which costs each subscriber a write.
const COPIES_OF_A_STEP: usize = 4;

/// Queues one copy of a message for each session, whatever the number of its filters that match,
/// and one for each shared subscription. [5.0 MQTT-3.3.4-2] [3.1.1 MQTT-3.3.5-1]
pub(super) fn deliver_to_all(
    broker: &mut Broker,
    from: Option<SessionId>,
    matches: &mut [(Target, Subscriber)],
    message: &Message,
    expires_at: Option<Instant>,
    now: Instant,
) {
    matches.sort_unstable_by_key(|(target, _)| *target);
    broker.tasks.take(matches.len() / COPIES_OF_A_STEP);
    broker.connections.prepared.begin();
    let topic_name = message.topic_name();
    for same in matches.chunk_by(|(one, _), (other, _)| one == other) {
        match same.first() {
            Some((Target::Session(session), _)) => {
                let one = (message, &topic_name);
                // The publisher's own copy comes after the acknowledgement.
                let at_once = from != Some(*session);
                deliver_to_session(broker, *session, same, one, expires_at, at_once, now);
            }
            Some((Target::Group(group), _)) => {
                let outgoing = Outgoing { expires_at, ..Outgoing::new(None, message.clone()) };
                deliver_to_group(broker, *group, outgoing, now);
            }
            // The host forwards the message.
            Some((Target::Node(_), _)) | None => {}
        }
    }
}

/// Queues a copy of a message for a session. `same` are its subscriptions that match.
#[inline]
fn deliver_to_session(
    broker: &mut Broker,
    session: SessionId,
    same: &[(Target, Subscriber)],
    (message, topic_name): (&Message, &TopicName<'_>),
    expires_at: Option<Instant>,
    at_once: bool,
    now: Instant,
) {
    // A session that has ended receives nothing.
    let Some(state) = broker.sessions.get(session) else { return };
    if !may_receive(state, topic_name) {
        return;
    }
    let mut granted = QoS::AtMostOnce;
    let mut as_published = false;
    let mut is_plain = expires_at.is_none();
    for (_, Subscriber { options, identifier, .. }) in same {
        granted = granted.max(options.maximum_qos);
        as_published |= options.retain_as_published;
        is_plain &= identifier.is_none();
    }
    // [5.0 MQTT-3.8.4-8] [3.1.1 MQTT-3.8.4-6]
    let qos = message.qos().min(granted);
    // [5.0 MQTT-3.3.1-12] [5.0 MQTT-3.3.1-13] [3.1.1 MQTT-3.3.1-9]
    let retain = message.retain() && as_published;
    let is_due = broker.cursors.is_due(session);
    // A message with QoS 2 waits for its record.
    if at_once && is_plain && !is_due && (broker.journal.is_none() || qos < QoS::ExactlyOnce) {
        if let Presence::Connected(id) = state.presence {
            let (journal, number) = (&mut broker.journal, state.number);
            let key = |outgoing: &Outgoing| keep::enter_sent(journal, number, outgoing);
            if broker.connections.write_through(id, message, (qos, retain), key, now) {
                stats::count(&mut broker.stats.messages_queued, qos);
                return;
            }
        }
    }
    let copy = message.with(qos, retain);
    queue_copy(broker, session, same, (copy, topic_name), expires_at, now);
}

/// Queues a copy of a message that cannot be written at once.
#[inline(never)]
fn queue_copy(
    broker: &mut Broker,
    session: SessionId,
    same: &[(Target, Subscriber)],
    (message, topic_name): (Message, &TopicName<'_>),
    expires_at: Option<Instant>,
    now: Instant,
) {
    // [5.0 MQTT-3.3.4-3] [5.0 MQTT-3.3.4-4]
    let identifiers = same.iter().filter_map(|(_, subscriber)| subscriber.identifier);
    let subscription_identifiers = identifiers.collect();
    let outgoing = Outgoing { message, key: None, subscription_identifiers, expires_at };
    let is_due = broker.cursors.is_due(session);
    let is_next = !is_due || deliver_retained_before(broker, session, same, topic_name, now);
    if is_next {
        deliver_or_drop(broker, session, outgoing, now);
    } else {
        broker.stats.dropped.queue_full += 1;
        overflow(broker, session, now);
    }
}

/// Whether the grants of a session let it receive messages of a topic.
fn may_receive(state: &SessionState, topic_name: &TopicName<'_>) -> bool {
    state.grants.check(Access::Receive, topic_name) == Verdict::Allowed
}

/// Queues a message for a client. If its queue is full, something is dropped.
#[inline]
fn deliver_or_drop(broker: &mut Broker, session: SessionId, outgoing: Outgoing, now: Instant) {
    if let Err(outgoing) = deliver(broker, session, outgoing, None, now) {
        drop_one(broker, session, outgoing, now);
    }
}

/// Drops a message because the queue of its client is full, or another one in its place.
#[cold]
fn drop_one(broker: &mut Broker, session: SessionId, outgoing: Outgoing, now: Instant) {
    broker.stats.dropped.queue_full += 1;
    let connected = broker.sessions.get(session).and_then(|state| state.presence.connection());
    match broker.config.overflow {
        Overflow::DropNew => {}
        Overflow::DropOldestQos0 => {
            let (size, limit) = (outgoing.size(), broker.config.server.queue_limit());
            let Some(connection) = connected.and_then(|id| broker.connections.get_mut(id)) else {
                return;
            };
            let removed = connection.server.make_room(size, limit);
            if removed > 0 && deliver(broker, session, outgoing, None, now).is_ok() {
                broker.stats.dropped.queue_full += removed - 1;
            } else {
                broker.stats.dropped.queue_full += removed;
            }
        }
        Overflow::Disconnect => overflow(broker, session, now),
    }
}

/// Disconnects a client whose queue is full, if the configuration says so.
fn overflow(broker: &mut Broker, session: SessionId, now: Instant) {
    let connected = broker.sessions.get(session).and_then(|state| state.presence.connection());
    let Some(id) = connected.filter(|_| broker.config.overflow == Overflow::Disconnect) else {
        return;
    };
    let Some(connection) = broker.connections.get_mut(id) else { return };
    // Not now: its will may fill the queue of another client, whose will fills the next.
    if !core::mem::replace(&mut connection.is_overflown, true) {
        broker.tasks.push(Task::Overflow(id), now);
    }
}

/// Queues a message for a client, for its own or for a shared subscription. Returns it if there is
/// no room. [5.0 MQTT-4.5.0-1] [3.1.1 MQTT-3.1.2-5]
#[inline]
fn deliver(
    broker: &mut Broker,
    session: SessionId,
    mut outgoing: Outgoing,
    share: Option<(GroupId, &Filter)>,
    now: Instant,
) -> Result<(), Outgoing> {
    outgoing.key = share.and_then(|(group, _)| Key::new(group.as_u64()));
    if broker.journal.is_none() {
        return queue(broker, session, outgoing, now);
    }
    keep::enter(broker, session, &mut outgoing, share, now);
    let queued = queue(broker, session, outgoing, now);
    keep::take_outcomes(broker, session);
    queued.inspect_err(|outgoing| keep::leave(broker, outgoing.number()))
}

/// Queues a message for a client, connected or away.
#[inline]
fn queue(
    broker: &mut Broker,
    session: SessionId,
    outgoing: Outgoing,
    now: Instant,
) -> Result<(), Outgoing> {
    let Some(state) = broker.sessions.get_mut(session) else { return Ok(()) };
    let qos = outgoing.message.qos();
    match &mut state.presence {
        Presence::Connected(id) => broker.connections.deliver(*id, outgoing, now)?,
        Presence::Away { .. } if is_only_for_the_connected(&outgoing, now) => return Ok(()),
        Presence::Away { session, .. } => {
            // The outcome of a message of a shared subscription is of no interest.
            session.forget_outcomes();
            session.enqueue(outgoing, broker.config.server.queue_limit(), now)?;
        }
    }
    stats::count(&mut broker.stats.messages_queued, qos);
    Ok(())
}

/// Whether a message is sent at once or not at all. [5.0 §3.3.2.3.3]
pub(super) fn is_only_for_the_connected(outgoing: &Outgoing, now: Instant) -> bool {
    outgoing.message.qos() == QoS::AtMostOnce || outgoing.expires_at.is_some_and(|at| at <= now)
}

// ---- shared subscriptions ----

/// Queues a message for one member of a group: for one that is connected and has room, else for one
/// that is away. [5.0 §4.8.2]
#[inline(never)]
pub(super) fn deliver_to_group(
    broker: &mut Broker,
    group: GroupId,
    outgoing: Outgoing,
    now: Instant,
) {
    let members = broker.groups.members(group).len();
    // A member that cannot take the message costs less than one that can.
    broker.tasks.take(members / 4);
    let mut outgoing = Some(outgoing);
    for is_connected in [true, false] {
        let Some(message) = outgoing.take() else { return };
        // Messages with QoS 0 do not wait for a client that is away.
        if !is_connected && message.message.qos() == QoS::AtMostOnce {
            outgoing = Some(message);
            break;
        }
        let order = order(broker, group, &message.message);
        outgoing = try_members(broker, group, order, is_connected, message, now);
    }
    broker.stats.dropped.no_member += u64::from(outgoing.is_some());
}

/// Queues a message for a member of a group that the host has chosen. Returns whether the client is
/// a member.
pub(super) fn deliver_to_member(
    broker: &mut Broker,
    client_identifier: &str,
    filter: &Filter,
    message: &Message,
    expires_at: Option<Instant>,
    now: Instant,
) -> bool {
    let Some((session, group, subscriber)) = member(broker, client_identifier, filter) else {
        return false;
    };
    let Subscriber { options, identifier, .. } = subscriber;
    let may_receive =
        broker.sessions.get(session).is_some_and(|state| may_receive(state, &message.topic_name()));
    if !may_receive {
        broker.stats.dropped.no_member += 1;
        return true;
    }
    let qos = message.qos().min(options.maximum_qos);
    let message = message.with(qos, message.retain() && options.retain_as_published);
    let subscription_identifiers = identifier.into_iter().collect();
    let outgoing = Outgoing { message, key: None, subscription_identifiers, expires_at };
    if let Err(outgoing) = deliver(broker, session, outgoing, Some((group, filter)), now) {
        drop_one(broker, session, outgoing, now);
    }
    true
}

/// Returns the session of a member of a group, with its subscription. A client that is away and
/// receives nothing above QoS 0 is none. [5.0 MQTT-4.8.2-3]
pub(super) fn member(
    broker: &Broker,
    client_identifier: &str,
    filter: &Filter,
) -> Option<(SessionId, GroupId, Subscriber)> {
    let session = broker.sessions.find(client_identifier)?;
    let group = broker.groups.find(filter)?;
    let members = broker.groups.members(group);
    let index = members.binary_search_by_key(&session, |(member, _)| *member).ok()?;
    let (_, subscriber) = *members.get(index)?;
    let is_connected = broker.sessions.get(session)?.presence.connection().is_some();
    let can_receive = is_connected || subscriber.options.maximum_qos > QoS::AtMostOnce;
    can_receive.then_some((session, group, subscriber))
}

/// Returns the position of the member to try first, or `None` if their turns decide.
fn order(broker: &Broker, group: GroupId, message: &Message) -> Option<usize> {
    let members = broker.groups.members(group);
    match broker.config.shared_strategy {
        SharedStrategy::RoundRobin => None,
        SharedStrategy::LeastInFlight => {
            let load = |session: SessionId| {
                let id = broker.sessions.get(session)?.presence.connection()?;
                Some(broker.connections.get(id)?.server.session().unfinished())
            };
            let loads = members.iter().map(|(session, _)| load(*session).unwrap_or(usize::MAX));
            loads.enumerate().min_by_key(|(_, load)| *load).map(|(position, _)| position)
        }
        SharedStrategy::TopicHash => {
            let hash = broker.sessions.keyed_hash(message.topic_name().as_text().as_bytes());
            let count = u64::try_from(members.len()).ok()?;
            usize::try_from(hash.checked_rem(count)?).ok()
        }
    }
}

/// Queues a message for the first member that can take it. Returns the message if there is none.
fn try_members(
    broker: &mut Broker,
    group: GroupId,
    first: Option<usize>,
    is_connected: bool,
    outgoing: Outgoing,
    now: Instant,
) -> Option<Outgoing> {
    // Queuing a message changes no group.
    let mut groups = core::mem::take(&mut broker.groups);
    let filter = groups.filter(group).cloned();
    let share = filter.as_ref().map(|filter| (group, filter));
    let picked = groups.pick(group, first, |session, subscriber| {
        let Some(state) = broker.sessions.get(*session) else { return false };
        if state.presence.connection().is_some() != is_connected
            || !may_receive(state, &outgoing.message.topic_name())
        {
            return false;
        }
        let Subscriber { options, identifier, .. } = subscriber;
        let qos = outgoing.message.qos().min(options.maximum_qos);
        // A client that is away receives no messages with QoS 0.
        if !is_connected && qos == QoS::AtMostOnce {
            return false;
        }
        let retain = outgoing.message.retain() && options.retain_as_published;
        let copy = Outgoing {
            message: outgoing.message.with(qos, retain),
            subscription_identifiers: identifier.iter().copied().collect(),
            ..outgoing
        };
        deliver(broker, *session, copy, share, now).is_ok()
    });
    let is_delivered = picked.is_some();
    broker.groups = groups;
    (!is_delivered).then_some(outgoing)
}

/// Delivers messages of an ended session to other members of their groups, as far as the steps of
/// this call reach. [5.0 §4.8.2]
pub(super) fn hand_on(broker: &mut Broker, mut messages: VecDeque<Outgoing>, now: Instant) {
    while let Some(outgoing) = messages.pop_front() {
        let key = outgoing.number();
        let journal = broker.journal.as_deref();
        if let Some(group) = key.and_then(|key| Journal::group(journal, key)) {
            broker.tasks.take(1);
            deliver_to_group(broker, group, outgoing, now);
            keep::leave(broker, key);
        }
        if !broker.tasks.may_go_on() {
            broker.tasks.push(Task::HandOn(messages), now);
            return;
        }
    }
}

// ---- retained messages ----

/// Queues the retained message of a topic for a session that still awaits it, because a newer
/// message of the topic is about to be queued. Returns false if there is no room for it, and so
/// none for the newer message.
fn deliver_retained_before(
    broker: &mut Broker,
    session: SessionId,
    same: &[(Target, Subscriber)],
    topic_name: &TopicName<'_>,
    now: Instant,
) -> bool {
    let Some(state) = broker.sessions.get(session) else { return true };
    let (client, store) = (state.client_identifier(), &broker.retained);
    let due = broker.cursors.due_before(session, client, topic_name, same, store, now);
    let Some(size) = due.iter().map(Outgoing::size).max() else { return true };
    let queue = match &state.presence {
        Presence::Away { session, .. } => Some(&**session),
        Presence::Connected(id) => {
            broker.connections.get(*id).map(|connection| connection.server.session())
        }
    };
    // All of the copies or none.
    let others = due.len() - 1;
    let QueueLimit { messages, bytes } = broker.config.server.queue_limit();
    let limit = QueueLimit { messages, bytes: bytes.saturating_sub(others * size) };
    let has_room = |queue: &Session| {
        queue.has_room(size, limit) && (others == 0 || queue.queued() + others < messages)
    };
    if !queue.is_some_and(has_room) {
        return false;
    }
    // A client that is away is not given messages with QoS 0. They are still due.
    let is_away = matches!(state.presence, Presence::Away { .. });
    let mut delivered = false;
    for outgoing in due {
        let is_kept = !(is_away && outgoing.message.qos() == QoS::AtMostOnce);
        delivered |= deliver(broker, session, outgoing, None, now).is_ok() && is_kept;
    }
    if delivered {
        broker.cursors.note_sent_early(session, topic_name.clone());
    }
    true
}

/// Queues retained messages that the session of a connection awaits, while there is room and steps
/// are left. Returns whether there were any.
pub(super) fn deliver_retained(broker: &mut Broker, id: ConnectionId, now: Instant) -> bool {
    let limit = broker.config.server.queue_limit();
    let session = broker.connections.get(id).and_then(Connection::session);
    let Some(session) = session else { return false };
    let mut budget = broker.tasks.lend();
    let mut delivered = false;
    while let Some(state) = broker.sessions.get(session) {
        let Some(connection) = broker.connections.get_mut(id) else { break };
        if connection.server.session().queued() >= RETAINED_AT_ONCE {
            break;
        }
        let (client, store) = (state.client_identifier(), &broker.retained);
        let Some(outgoing) = broker.cursors.next(session, client, store, now, &mut budget) else {
            // A search that was not finished goes on later.
            if broker.cursors.is_due(session) && !connection.is_searching {
                connection.is_searching = true;
                broker.tasks.push(Task::Retained(id), now);
            }
            break;
        };
        let topic_name = outgoing.message.topic_name();
        if may_receive(state, &topic_name) {
            if !connection.server.session().has_room(outgoing.size(), limit) {
                break;
            }
            delivered |= queue_retained(broker, id, session, outgoing, now);
        }
        broker.cursors.pass(session);
    }
    broker.tasks.give_back(budget);
    delivered
}

/// Queues a retained message, without a hint: the caller is about to transmit it.
fn queue_retained(
    broker: &mut Broker,
    id: ConnectionId,
    session: SessionId,
    mut outgoing: Outgoing,
    now: Instant,
) -> bool {
    keep::enter(broker, session, &mut outgoing, None, now);
    let Some(connection) = broker.connections.get_mut(id) else { return false };
    connection.server.forget_outcomes();
    stats::count(&mut broker.stats.messages_queued, outgoing.message.qos());
    let queued = connection.server.deliver(outgoing, now);
    queued.inspect_err(|outgoing| keep::leave(broker, outgoing.number())).is_ok()
}
