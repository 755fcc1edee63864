//! The durable state follows the stores: what the flows change is journaled here, and output waits
//! for it. Without a journal nothing here does anything.

use super::action::{ConnectionId, SessionId, SessionNumber};
use super::connections::Connections;
use super::deliver::is_only_for_the_connected;
use super::journal::{self, Journal, Left, StoredSession, StoredSubscription};
use super::sessions::{Presence, SessionState};
use super::subscription::Subscriber;
use super::tasks::Task;
use super::wills::StoredWill;
use super::{Broker, BrokerConfig};
use crate::codec::{Expiry, Filter, PacketIdentifier, QoS, TopicName};
use crate::router::{GroupId, Retained};
use crate::session::{Change, Key, Outgoing, Owed, OwedRef, Published, Session};
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::vec::Vec;

/// The journal of a broker that is durable.
pub(super) type OptionalJournal = Option<Box<Journal>>;

/// Keeps the session of a client that was accepted, if it outlives the connection.
pub(super) fn admit(broker: &mut Broker, id: ConnectionId, session: SessionId) {
    let Some(journal) = &mut broker.journal else { return };
    let Some(connection) = broker.connections.get_mut(id) else { return };
    let Some(state) = broker.sessions.get_mut(session) else { return };
    let is_new = state.number.is_none();
    if is_new && connection.server.session_expiry() == Expiry::AT_DISCONNECT {
        // The client must not find a session again that it was told is gone.
        return hold_output(&mut broker.journal);
    }
    if is_new {
        state.number = Some(journal.new_session());
        connection.server.record_changes();
    }
    put_session(broker, session, is_new);
}

/// Keeps the session of a member of a group that spans nodes, also if it ends with its connection.
/// If this node is lost, another one finds its messages for the other members.
pub(super) fn keep_member(broker: &mut Broker, session: SessionId) {
    let Broker { journal: Some(journal), sessions, connections, .. } = broker else { return };
    let Some(state) = sessions.get_mut(session).filter(|state| state.number.is_none()) else {
        return;
    };
    let number = journal.new_session();
    state.number = Some(number);
    if let Some(id) = state.presence.connection() {
        connections.get_mut(id).into_iter().for_each(|one| one.server.record_changes());
    }
    for (filter, subscriber) in state.subscriptions.iter() {
        let Subscriber { options, identifier, .. } = *subscriber;
        journal.put_subscription(number, filter, true, StoredSubscription { options, identifier });
    }
    put_session(broker, session, true);
}

/// Stores a session that has come with its state, except for its subscriptions and messages.
pub(super) fn insert(broker: &mut Broker, session: SessionId) {
    put_session(broker, session, true);
}

/// Stores the exchanges of a session that has come with its state.
pub(super) fn insert_exchanges(
    broker: &mut Broker,
    session: SessionId,
    owed: &[(PacketIdentifier, Owed)],
    accepted: &[PacketIdentifier],
) {
    let Broker { journal: Some(journal), sessions, .. } = broker else { return };
    let Some(number) = sessions.get(session).and_then(|state| state.number) else { return };
    let changes = owed.iter().filter_map(|(packet_identifier, owed)| {
        let packet_identifier = *packet_identifier;
        match owed {
            Owed::Publish(outgoing) if outgoing.message.qos() == QoS::AtLeastOnce => {
                outgoing
                    .number()
                    .into_iter()
                    .for_each(|key| journal.note_sent(key, packet_identifier));
                None
            }
            Owed::Publish(outgoing) => {
                Some(Change::Sent { packet_identifier, key: outgoing.number() })
            }
            Owed::Pubrel(key) => Some(Change::Released { packet_identifier, key: *key }),
            Owed::Nothing => Some(Change::Withheld { packet_identifier }),
        }
    });
    let accepted = accepted.iter();
    let accepted = accepted.map(|&packet_identifier| Change::Accepted { packet_identifier });
    let changes: Vec<_> = changes.chain(accepted).collect();
    changes.into_iter().for_each(|change| store(journal, number, change));
}

/// Stores which QoS 1 messages were sent to a client that is not connected any more.
pub(super) fn note_sent(broker: &mut Broker, id: SessionId) {
    let Broker { journal: Some(journal), sessions, .. } = broker else { return };
    let Some(Presence::Away { session, .. }) = sessions.get(id).map(|state| &state.presence) else {
        return;
    };
    for (identifier, owed) in session.owed() {
        if let OwedRef::Publish(Outgoing { message, key: Some(key), .. }) = owed {
            if message.qos() == QoS::AtLeastOnce {
                journal.note_sent(key.get(), identifier);
            }
        }
    }
}

/// Counts the messages of a session as sent that can have been sent to its client, which was
/// connected when the session was stored. [5.0 MQTT-3.3.1-1] [3.1.1 MQTT-3.3.1-1]
pub(super) fn presume_sent(broker: &mut Broker, id: SessionId, now: Instant) {
    let state = broker.sessions.get_mut(id).map(|state| &mut state.presence);
    if let Some(Presence::Away { session, .. }) = state {
        session.presume_sent(now);
    }
    note_sent(broker, id);
}

/// Stores the position up to which the log of the nodes is handled.
pub(super) fn advance(broker: &mut Broker, position: u64) {
    if let Some(journal) = &mut broker.journal {
        journal.put_position(position);
    }
}

/// Holds the output of this call back until all changes so far are durable.
pub(super) fn hold_output(journal: &mut OptionalJournal) {
    if let Some(journal) = journal {
        journal.hold_output();
    }
}

/// Whether too many records are not durable.
pub(super) fn is_full(journal: &OptionalJournal, config: &BrokerConfig) -> bool {
    journal.as_ref().is_some_and(|journal| journal.unsynced_bytes() > config.maximum_unsynced)
}

/// Stores what has changed of a session, except for its subscriptions and messages.
pub(super) fn update(broker: &mut Broker, session: SessionId) {
    if broker.journal.is_some() {
        put_session(broker, session, false);
    }
}

fn put_session(broker: &mut Broker, id: SessionId, is_new: bool) {
    let Some(state) = broker.sessions.get(id) else { return };
    let Some(number) = state.number else { return };
    let value = stored_session(broker, id, state).write();
    if let Some(journal) = &mut broker.journal {
        journal.put_session(number, is_new, value);
    }
}

/// Returns the record of a session.
pub(super) fn stored_session<'b>(
    broker: &'b Broker,
    id: SessionId,
    state: &'b SessionState,
) -> StoredSession<'b> {
    let left = match &state.presence {
        Presence::Away { expires_at, .. } => Left::Away(*expires_at),
        Presence::Connected(id) => {
            let connection = broker.connections.get(*id);
            Left::Connected(
                connection
                    .map_or(Expiry::AT_DISCONNECT, |connection| connection.server.session_expiry()),
            )
        }
    };
    let will = broker.wills.get(id).map(|will| {
        let StoredWill { delay, due, ref message, .. } = *will;
        journal::StoredWill { delay, due, message }
    });
    let (client_identifier, grants) = (&**state.client_identifier(), &state.grants);
    StoredSession { client_identifier, left, will, grants }
}

/// Ends what is stored of a session, except for its subscriptions, and for the messages that other
/// members of a group can receive.
pub(super) fn end_session(
    broker: &mut Broker,
    number: Option<SessionNumber>,
    session: &Session,
    now: Instant,
) {
    let Broker { journal: Some(journal), tasks, .. } = broker else { return };
    let Some(number) = number else { return };
    journal.delete_session(number);
    let mut exchanges = Vec::new();
    let leave = |journal: &mut Journal, outgoing: &Outgoing, can_be_handed_on: bool| {
        if let Some(key) = outgoing.number() {
            if !can_be_handed_on || Journal::group(Some(journal), key).is_none() {
                journal.leave(key);
            }
        }
    };
    for (identifier, owed) in session.owed() {
        match owed {
            // [5.0 MQTT-4.8.2-5]
            OwedRef::Publish(outgoing) if outgoing.message.qos() == QoS::AtLeastOnce => {
                leave(journal, outgoing, true);
            }
            OwedRef::Publish(outgoing) => {
                leave(journal, outgoing, false);
                exchanges.push(Change::Ended { packet_identifier: identifier });
            }
            OwedRef::Pubrel | OwedRef::Nothing => {
                exchanges.push(Change::Ended { packet_identifier: identifier });
            }
        }
    }
    session.waiting().for_each(|outgoing| leave(journal, outgoing, true));
    let accepted = session.accepted();
    exchanges.extend(accepted.map(|packet_identifier| Change::Completed { packet_identifier }));
    if !exchanges.is_empty() {
        tasks.push(Task::Forget(number, exchanges), now);
    }
}

/// Ends stored exchanges of a session that has ended, as far as the steps of this call reach.
pub(super) fn forget(
    broker: &mut Broker,
    number: SessionNumber,
    mut exchanges: Vec<Change>,
    now: Instant,
) {
    let Broker { journal: Some(journal), tasks, .. } = broker else { return };
    while let Some(change) = exchanges.pop() {
        store(journal, number, change);
        tasks.take(1);
        if !tasks.may_go_on() {
            return tasks.push(Task::Forget(number, exchanges), now);
        }
    }
}

/// Stores a subscription that was added or replaced.
pub(super) fn subscribe(
    broker: &mut Broker,
    session: SessionId,
    filter: &Filter,
    subscriber: Subscriber,
    is_new: bool,
) {
    let Some(journal) = &mut broker.journal else { return };
    let Some(number) = broker.sessions.get(session).and_then(|state| state.number) else { return };
    let Subscriber { options, identifier, .. } = subscriber;
    journal.put_subscription(number, filter, is_new, StoredSubscription { options, identifier });
}

/// Ends a stored subscription.
pub(super) fn unsubscribe(broker: &mut Broker, number: Option<SessionNumber>, filter: &Filter) {
    if let (Some(journal), Some(number)) = (&mut broker.journal, number) {
        journal.delete_subscription(number, filter);
    }
}

/// Stores the retained message of a topic, or that there is none any more.
pub(super) fn retain(
    journal: &mut OptionalJournal,
    topic_name: TopicName<'_>,
    retained: Option<&Retained>,
    old: Option<&Retained>,
) {
    let Some(journal) = journal else { return };
    if !is_stored(&topic_name) {
        return;
    }
    journal.retain(retained, topic_name.into_topic(), old.map(|old| &old.message));
}

/// Whether the retained message of a topic is stored. Figures are published again.
pub(super) fn is_stored(topic_name: &TopicName<'_>) -> bool {
    !topic_name.as_text().as_bytes().starts_with(b"$SYS/")
}

/// Stores a message that is about to be queued for a session, and gives it its key there.
pub(super) fn enter(
    broker: &mut Broker,
    session: SessionId,
    outgoing: &mut Outgoing,
    share: Option<(GroupId, &Filter)>,
    now: Instant,
) {
    let Broker { journal: Some(journal), sessions, connections, .. } = broker else { return };
    let Some(state) = sessions.get_mut(session) else { return };
    leave_ended(journal, state, connections);
    let Some(number) = state.number else { return };
    let is_connected = state.presence.connection().is_some();
    let is_queued = is_connected || !is_only_for_the_connected(outgoing, now);
    if is_queued && outgoing.message.qos() > QoS::AtMostOnce {
        outgoing.key = Key::new(journal.enter(number, outgoing, share, is_connected));
    }
}

/// Stores a message that was written at once to the client of a session. Returns its key there.
#[inline]
pub(super) fn enter_sent(
    journal: &mut OptionalJournal,
    session: Option<SessionNumber>,
    outgoing: &Outgoing,
) -> Option<Key> {
    Key::new(journal.as_mut()?.enter(session?, outgoing, None, true))
}

/// Returns the shared subscription for which a message was queued, by its key in the session. If
/// the last member has gone, only a stored message still has it.
pub(super) fn share(broker: &Broker, key: u64) -> Option<&Filter> {
    let stored = broker.journal.as_deref().and_then(|journal| journal.share(key));
    stored.or_else(|| broker.groups.filter(Journal::group(None, key)?))
}

/// Ends a message that has left its session.
pub(super) fn leave(broker: &mut Broker, key: Option<u64>) {
    if let (Some(journal), Some(key)) = (&mut broker.journal, key) {
        journal.leave(key);
    }
}

/// Ends the messages of a session whose outcomes are known and not reported.
pub(super) fn take_outcomes(broker: &mut Broker, session: SessionId) {
    let Broker { journal: Some(journal), sessions, connections, .. } = broker else { return };
    if let Some(state) = sessions.get_mut(session) {
        leave_ended(journal, state, connections);
    }
}

fn leave_ended(journal: &mut Journal, state: &mut SessionState, connections: &mut Connections) {
    match &mut state.presence {
        Presence::Away { session, .. } => leave_all(journal, || session.next_completed()),
        Presence::Connected(id) => {
            let Some(connection) = connections.get_mut(*id) else { return };
            leave_all(journal, || connection.server.next_completed());
        }
    }
}

fn leave_all(journal: &mut Journal, next: impl FnMut() -> Option<Published<'static>>) {
    core::iter::from_fn(next).for_each(|published| journal.leave(published.key));
}

/// Stores what a call has changed of the session of a connection, and holds its output back until
/// that is durable.
pub(super) fn settle(broker: &mut Broker, id: ConnectionId) {
    let Some(journal) = &mut broker.journal else { return };
    let Some(connection) = broker.connections.get_mut(id) else { return };
    leave_all(journal, || connection.server.next_completed());
    let session = connection.session().and_then(|session| broker.sessions.get(session));
    let number = session.and_then(|state| state.number);
    while let Some(change) = connection.server.next_change() {
        if let Some(number) = number {
            store(journal, number, change);
        }
    }
    if let Some(batch) = journal.gate() {
        if broker.connections.hold_output(id, batch) {
            journal.await_batch();
        }
    }
}

fn store(journal: &mut Journal, number: SessionNumber, change: Change) {
    match change {
        Change::Sent { packet_identifier, key } => journal.sent(number, packet_identifier, key),
        Change::Released { packet_identifier, key } => {
            journal.released(number, packet_identifier, key);
        }
        Change::Withheld { packet_identifier } => journal.withheld(number, packet_identifier),
        Change::Ended { packet_identifier } => journal.ended(number, packet_identifier),
        Change::Accepted { packet_identifier } => journal.accepted(number, packet_identifier),
        Change::Completed { packet_identifier } => journal.completed(number, packet_identifier),
    }
}
