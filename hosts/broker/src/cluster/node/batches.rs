//! Batches: the node appends them before the broker acknowledges.
//!
//! The changes of the broker are batches of its journal. For each batch the node
//!
//! 1. appends an entry to each session that has changed, and that must not be lost;
//! 2. appends the messages that clients have published to the log;
//! 3. reports the batch as durable, so that acknowledgements leave.
//!
//! The first step fails if another node has claimed a session: it ends here, with its connection,
//! and what it has published is not appended. Queued messages and acknowledged ones need no entry
//! at once, because the log and the position of the last entry show them again. They are added to
//! the next entry, or after [`LAZY`](super::clock).

use super::claims::own;
use super::{Node, Owned, PAUSE, Port, RETRY, Repair, State};
use crate::cluster::engine::{Append, Engine, Head, Refusal, Silent};
use crate::cluster::record::{self, Entry, Item, Logged, Member, Owed};
use mqtt_sansio::broker::journal::{Batch, Record};
use mqtt_sansio::broker::{Forward, Route};
use mqtt_sansio::codec::{Disconnect, QoS, ReasonCode};
use rustc_hash::{FxHashMap, FxHashSet};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::rc::Rc;
use tokio::sync::oneshot;
use tokio::task::{spawn_local, yield_now};
use tokio::time::{self, sleep};
use tracing::warn;

/// The entries of a session after which all of its records are written again.
const ENTRIES: u32 = 64;
/// Messages and bytes of an append to the log.
const APPEND: (usize, usize) = (500, 512 * 1024);

/// Records of a session, and their new values.
type Changes = Vec<(Vec<u8>, Option<Vec<u8>>)>;
/// A client whose session another node will have: whether it has one, and the records.
type Evicted = (Rc<str>, bool, Changes);

impl<E: Engine, P: Port> Node<E, P> {
    /// Stores for ever what the broker changes.
    pub(crate) async fn run_batches(self: Rc<Self>) {
        loop {
            // Connections that can be served now have their turn: their records join the batch.
            yield_now().await;
            if self.must_verify.take() {
                self.verify().await;
            }
            let Some(work) = self.collect() else {
                tokio::select! {
                    () = self.port.journal_moved() => {}
                    () = self.moved.notified() => {}
                }
                continue;
            };
            self.port.note_batch(true);
            self.waits_since.set(Some(time::Instant::now()));
            self.store(work).await;
            self.waits_since.set(None);
            self.port.note_batch(false);
        }
    }

    async fn store(self: &Rc<Self>, work: Work) {
        let Work { batch, entries, log, replies, since, position } = work;
        let appends = entries.into_iter().map(|pending| {
            let node = self.clone();
            spawn_local(async move {
                let Pending { client, expected, entry } = pending;
                let appended = node.append_entry(&client, expected, &entry).await;
                (client, entry.position, appended)
            })
        });
        let appends: Vec<_> = appends.collect();
        let mut lost = FxHashSet::default();
        for append in appends {
            let Ok((client, position, appended)) = append.await else { continue };
            match appended {
                Some(sequence) => {
                    let mut state = self.state.borrow_mut();
                    state.figures.entries += 1;
                    // This node can have given the session up meanwhile, and claimed it again.
                    let owned = state.owned.get_mut(&client);
                    if let Some(owned) = owned.filter(|owned| owned.sequence < sequence) {
                        (owned.sequence, owned.position) = (sequence, position);
                    }
                }
                None => _ = lost.insert(client),
            }
        }
        self.fence(&lost);
        let log: Vec<_> = log.into_iter().filter(|(client, _)| !lost.contains(client)).collect();
        let log = log.into_iter().map(|(_, append)| append).collect();
        self.append_all(log, since, position).await;
        if self.last_tick.get().elapsed() > PAUSE || self.must_verify.take() {
            self.verify().await;
        }
        self.healthy_at.set(time::Instant::now());
        if let Some(batch) = batch {
            self.port.with(|broker, _| broker.durable(batch));
        }
        for reply in replies {
            let _ = reply.send(());
        }
    }

    /// Takes what the next batch needs. `None` if there is nothing to do.
    fn collect(&self) -> Option<Work> {
        let (mut work, mut changes) = (Work::default(), Vec::new());
        let now = time::Instant::now();
        let (mut evicted, mut forwards) = (Vec::new(), Vec::new());
        let (mut gone, mut position, mut members) = (Vec::new(), 0, Vec::new());
        self.port.with(|broker, broker_now| {
            let evictions = mem::take(&mut self.state.borrow_mut().evictions);
            let disconnect = Disconnect::new(ReasonCode::SESSION_TAKEN_OVER);
            for (client, reply) in evictions {
                work.replies.extend(reply);
                if !self.state.borrow().owned.contains_key(&client) {
                    continue;
                }
                let mut records = Vec::new();
                let put = |Record { key, value }: Record<'_>| {
                    records.push((key.to_vec(), value.map(<[u8]>::to_vec)));
                };
                let has_session = broker.evict(&client, None, &disconnect, broker_now, put);
                evicted.push((client, has_session, records));
            }
            work.batch = broker.poll_journal(|Record { key, value }| {
                changes.push((key.to_vec(), value.map(<[u8]>::to_vec)));
            });
            position = broker.position().unwrap_or(0);
            self.pump(broker);
            let mut state = self.state.borrow_mut();
            gone = mem::take(&mut state.gone);
            for member in mem::take(&mut state.members) {
                if member.is_connected.is_none() && broker.client(&member.client).is_none() {
                    gone.push(member.client.clone());
                }
                members.push(member);
            }
            for forward in mem::take(&mut state.forwards) {
                let client = broker.client(&forward.publisher);
                let is_connected = client.as_ref().is_some_and(|one| one.connection.is_some());
                if client.is_none() {
                    gone.push(forward.publisher.as_ref().into());
                }
                forwards.push((forward, is_connected));
            }
            gone.retain(|client| broker.client(client).is_none());
        });
        // Before the messages, which depend on the session's being kept.
        let mut ended = note_changes(&mut self.state.borrow_mut(), changes);
        if !ended.is_empty() {
            // The client of a session that has ended can have another one, which has no records.
            let replaced: Vec<_> = self.port.with(|broker, _| {
                ended.extract_if(.., |client| broker.client(client).is_some()).collect()
            });
            let state = &mut *self.state.borrow_mut();
            for client in replaced {
                state.owned.get_mut(&client).into_iter().for_each(|owned| owned.is_fresh = true);
                state.due.insert(client);
            }
        }
        let mut owed = FxHashMap::default();
        self.take_members(members, &evicted, &mut work, &mut owed);
        self.take_forwards(forwards, position, &evicted, &mut work, &mut owed);
        let repairs = mem::take(&mut self.state.borrow_mut().repairs);
        work.since = repairs.iter().map(|repair| repair.since).fold(Some(now), Ord::min);
        for Repair { client, append: Append { token, bytes, .. }, .. } in &repairs {
            // The position of the client's entry can be behind the message.
            let owes = token.clone().filter(|_| !client.is_empty());
            let owes = owes.map(|token| Owed { token, message: bytes.to_vec() });
            owes.into_iter().for_each(|one| owed.entry(client.clone()).or_default().push(one));
        }
        work.log.extend(repairs.into_iter().map(|Repair { client, append, .. }| (client, append)));
        let state = &mut *self.state.borrow_mut();
        if mem::take(&mut state.settles) {
            // Behind all that this node appends again up to this position.
            work.log.push(("".into(), Append::new(&Item::Settled(position), None)));
        }
        let new_entry =
            || Entry { owner: self.instance, stamp: self.stamp(), position, ..Entry::default() };
        for (client, has_session, records) in evicted {
            let Some(Owned { sequence, number, .. }) = state.owned.remove(&client) else {
                continue;
            };
            number.iter().for_each(|number| _ = state.by_number.remove(number));
            state.figures.evicted += 1;
            let owed = owed_by(&client, &mut owed, &state.leaving);
            let entry = Entry {
                owner: 0,
                is_fresh: true,
                has_ended: !has_session,
                records,
                owed,
                ..new_entry()
            };
            work.entries.push(Pending { client, expected: sequence, entry });
        }
        let gone = gone.into_iter().chain(ended).collect::<BTreeSet<_>>();
        for client in gone {
            let is_over = state.owned.get(&client).is_some_and(|owned| owned.number.is_none());
            if !is_over {
                continue;
            }
            let Some(Owned { sequence, .. }) = state.owned.remove(&client) else { continue };
            let owed = owed_by(&client, &mut owed, &state.leaving);
            // A client whose identifier is from this node has no entry.
            if sequence > 0 || !owed.is_empty() {
                let entry = Entry { is_fresh: true, has_ended: true, owed, ..new_entry() };
                work.entries.push(Pending { client, expected: sequence, entry });
            }
        }
        let mut due = mem::take(&mut state.due);
        due.extend(owed.keys().cloned());
        for client in due {
            let Some(owned) = state.owned.get_mut(&client) else { continue };
            let owed = owed_by(&client, &mut owed, &state.leaving);
            let entry = owned.entry(Entry { owed, ..new_entry() });
            let expected = owned.sequence;
            work.entries.push(Pending { client, expected, entry });
        }
        work.position = position;
        let Work { batch, entries, log, replies, .. } = &work;
        let is_empty =
            batch.is_none() && entries.is_empty() && log.is_empty() && replies.is_empty();
        (!is_empty).then_some(work)
    }

    /// Takes the changes of members for the log. The entry of a session that leaves a group says
    /// so, too: the node that claims the session looks for messages that were chosen for it.
    fn take_members(
        &self,
        members: Vec<Member>,
        evicted: &[Evicted],
        work: &mut Work,
        owed: &mut FxHashMap<Rc<str>, Vec<Owed>>,
    ) {
        let state = &mut *self.state.borrow_mut();
        for member in members {
            let (client, share) = (member.client.clone(), member.share.clone());
            let is_evicted = || evicted.iter().any(|(evicted, ..)| *evicted == client);
            if !state.owned.contains_key(&client) && !is_evicted() {
                continue;
            }
            let token = member.is_connected.is_none().then(|| self.token());
            let append = Append::new(&Item::Member(member), token.clone());
            if let Some(token) = token {
                let owes = Owed { token, message: append.bytes.to_vec() };
                if let Some(leaving) = state.leaving.get_mut(&(client.clone(), share)) {
                    *leaving = Some(owes.clone());
                }
                owed.entry(client.clone()).or_default().push(owes);
            }
            work.log.push((client, append));
        }
    }

    /// Takes the messages for the log. `owed` gets those that an entry of their publisher must
    /// have, because that entry also says that they are accepted.
    fn take_forwards(
        &self,
        forwards: Vec<(Forward, bool)>,
        known: u64,
        evicted: &[Evicted],
        work: &mut Work,
        owed: &mut FxHashMap<Rc<str>, Vec<Owed>>,
    ) {
        let state = &mut *self.state.borrow_mut();
        for (forward, is_connected) in forwards {
            let Forward { message, expires_at, publisher, route, .. } = forward;
            let publisher: Rc<str> = publisher.as_ref().into();
            let owned = state.owned.get(&publisher);
            let is_evicted = || evicted.iter().any(|(client, ..)| *client == publisher);
            if !publisher.is_empty() && owned.is_none() && !is_evicted() {
                // Another node has claimed the session, and publishes its will.
                continue;
            }
            let is_kept = owned.is_some_and(|owned| owned.number.is_some());
            let is_twice_written = !publisher.is_empty()
                && (!is_connected
                    || (is_kept && message.qos() == QoS::ExactlyOnce)
                    || matches!(route, Route::Share(_)));
            let token = is_twice_written.then(|| self.token());
            let (share, choices) = match route {
                Route::Share(filter) => {
                    let share: Rc<str> = filter.to_string().into();
                    let stamp = self.stamp();
                    let choice = state.shares.choose_one(&share, stamp, &publisher);
                    (Some(share), choice.into_iter().collect())
                }
                _ => (None, state.shares.choose(&message, true)),
            };
            let (client, publisher) = (publisher.clone(), publisher);
            let (of, number) = (0, self.stamp());
            let logged =
                Logged { message, publisher, expires_at, share, of, number, known, choices };
            let append = Append::new(&Item::Message(logged), token.clone());
            if let Some(token) = token {
                let message = append.bytes.to_vec();
                owed.entry(client.clone()).or_default().push(Owed { token, message });
            }
            state.figures.appended += 1;
            work.log.push((client, append));
        }
    }

    /// Appends messages to the log, however long that takes. `since` and `after` are those of
    /// [`Work`].
    async fn append_all(&self, all: Vec<Append>, since: Option<time::Instant>, after: u64) {
        let mut rest = &all[..];
        while !rest.is_empty() {
            let (mut count, mut bytes) = (0, 0);
            for append in rest.iter().take(APPEND.0) {
                bytes += append.bytes.len();
                if count > 0 && bytes > APPEND.1 {
                    break;
                }
                count += 1;
            }
            let (part, others) = rest.split_at(count);
            let (mut part, token) = (Cow::Borrowed(part), self.token());
            while self.try_append(&mut part, &token, since, after).await.is_err() {
                sleep(RETRY).await;
            }
            let now = time::Instant::now();
            self.healthy_at.set(now);
            self.waits_since.set(Some(now));
            rest = others;
        }
    }

    /// Appends messages to the log. If an attempt that has possibly succeeded can be so old that
    /// the engine does not remember its tokens, for instance because this node stood still, looks
    /// for them in the log first.
    async fn try_append(
        &self,
        all: &mut Cow<'_, [Append]>,
        token: &str,
        since: Option<time::Instant>,
        after: u64,
    ) -> Result<(), Silent> {
        if since.is_none_or(|since| since.elapsed() > E::WINDOW / 4) {
            *all = Cow::Owned(self.missing(after, all).await?);
        }
        match all.is_empty() {
            true => Ok(()),
            false => self.engine.append(all, token).await,
        }
    }

    /// Returns the items that the log does not have behind a position.
    pub(super) async fn missing(&self, after: u64, all: &[Append]) -> Result<Vec<Append>, Silent> {
        let appended = self.engine.appended(after, all).await?;
        let missing = all.iter().zip(appended).filter(|(_, is_there)| !is_there);
        Ok(missing.map(|(append, _)| append.clone()).collect())
    }

    /// Appends an entry, however long that takes. Returns `None` if another node has appended one.
    async fn append_entry(&self, client: &str, expected: u64, entry: &Entry) -> Option<u64> {
        loop {
            match self.engine.append_entry(client, expected, entry).await {
                Ok(sequence) => return Some(sequence),
                Err(Refusal::Stale) => {
                    // The answer to an earlier attempt can be lost. If there is no other entry,
                    // that attempt is still on its way to a majority of the servers.
                    if let Ok(entries) = self.engine.entries(client).await {
                        let last = entries.last().map_or(0, |(sequence, _)| *sequence);
                        if last != expected {
                            return own(&entries, entry, self.instance);
                        }
                    }
                }
                Err(Refusal::Silent) => {}
            }
            sleep(RETRY).await;
        }
    }

    /// Ends sessions here that another node has. Costs a look at all that waits, however many
    /// sessions they are.
    fn fence(&self, clients: &FxHashSet<Rc<str>>) {
        if clients.is_empty() {
            return;
        }
        // A connection that has ended can have output that depends on entries, even if this node no
        // longer has its session.
        self.port.with(|broker, _| {
            broker.drop_held_output_of_ended(|client| clients.contains(client));
        });
        self.forget(clients);
        let disconnect = Disconnect::new(ReasonCode::SESSION_TAKEN_OVER);
        for client in clients {
            {
                let mut state = self.state.borrow_mut();
                let Some(owned) = state.owned.remove(client) else { continue };
                owned.number.iter().for_each(|number| _ = state.by_number.remove(number));
                state.figures.fenced += 1;
            }
            warn!(client = &**client, "another node has claimed the session: it ends here");
            self.port.with(|broker, now| {
                // Its output that waits depends on an entry that was not appended.
                let connection = broker.client(client).and_then(|client| client.connection);
                connection.into_iter().for_each(|id| broker.drop_held_output(id));
                let _ = broker.evict(client, None, &disconnect, now, |_| ());
            });
        }
        self.forget(clients);
    }

    /// Forgets what clients have published. They publish again at the other node, which publishes
    /// their wills, too, and finds their messages of shared subscriptions. A session that comes
    /// back here must not have them again.
    fn forget(&self, clients: &FxHashSet<Rc<str>>) {
        let state = &mut *self.state.borrow_mut();
        state.forwards.retain(|forward| !clients.contains(&*forward.publisher));
        state.members.retain(|member| !clients.contains(&member.client));
        state.leaving.retain(|(leaving, _), _| !clients.contains(leaving));
        state.repairs.retain(|repair| !clients.contains(&repair.client));
    }

    /// Ends the sessions that other nodes have claimed while this one stood still.
    async fn verify(&self) {
        let heads = loop {
            match self.engine.heads().await {
                Ok(heads) => break heads,
                Err(Silent) => sleep(RETRY).await,
            }
        };
        let lost = {
            let state = self.state.borrow();
            let is_lost = |Head { client, sequence, owner, .. }: &Head| {
                let owned = state.owned.get(&**client);
                owned.is_some_and(|owned| *owner != self.instance && *sequence > owned.sequence)
            };
            heads.into_iter().filter(is_lost).map(|head| head.client.into()).collect()
        };
        self.fence(&lost);
    }
}

/// Returns what the next entry of a client owes. Until the log has been read up to where the client
/// leaves a group, each entry says that it leaves.
fn owed_by(
    client: &Rc<str>,
    owed: &mut FxHashMap<Rc<str>, Vec<Owed>>,
    leaving: &BTreeMap<(Rc<str>, Rc<str>), Option<Owed>>,
) -> Vec<Owed> {
    let mut all = owed.remove(client).unwrap_or_default();
    let of_client = leaving.range((client.clone(), "".into())..);
    for (_, owes) in of_client.take_while(|((other, _), _)| other == client) {
        if let Some(owes) = owes.as_ref().filter(|owes| !all.contains(owes)) {
            all.push(owes.clone());
        }
    }
    all
}

/// An entry on its way.
struct Pending {
    client: Rc<str>,
    expected: u64,
    entry: Entry,
}

/// The appends of a batch.
#[derive(Default)]
struct Work {
    batch: Option<Batch>,
    entries: Vec<Pending>,
    log: Vec<(Rc<str>, Append)>,
    replies: Vec<oneshot::Sender<()>>,
    /// The time before which none of the messages was appended, if that is known.
    since: Option<time::Instant>,
    /// The position behind which they are, except for those that repeat an earlier message.
    position: u64,
}

impl Owned {
    /// Adds the records that the entries lack to an entry.
    fn entry(&mut self, entry: Entry) -> Entry {
        self.entries += 1;
        let is_fresh = mem::take(&mut self.is_fresh) || self.entries > ENTRIES;
        let dirty = mem::take(&mut self.dirty);
        let will = self.will.clone().filter(|_| self.number.is_none());
        let records = if is_fresh {
            self.entries = 0;
            self.records.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect()
        } else {
            dirty.into_iter().map(|key| (key.clone(), self.records.get(&key).cloned())).collect()
        };
        Entry { is_fresh, records, will, ..entry }
    }
}

/// Notes the changes of a batch. Returns the clients whose session has ended.
fn note_changes(state: &mut State, changes: Changes) -> Vec<Rc<str>> {
    // New sessions first: one can replace another of the same client.
    for (key, value) in &changes {
        let (Some((b's', number)), Some(value)) = (record::session_of(key), value) else {
            continue;
        };
        let Some(client) = record::client_of(value) else { continue };
        if state.by_number.contains_key(&number) {
            continue;
        }
        let client: Rc<str> = client.into();
        let Some(owned) = state.owned.get_mut(&client) else { continue };
        if let Some(old) = owned.number.replace(number) {
            state.by_number.remove(&old);
        }
        owned.is_fresh = true;
        owned.records.clear();
        owned.dirty.clear();
        state.by_number.insert(number, client);
    }
    let (mut ended, now) = (Vec::new(), time::Instant::now());
    for (key, value) in changes {
        let Some((kind, number)) = record::session_of(&key) else { continue };
        let Some(client) = state.by_number.get(&number).cloned() else { continue };
        let Some(owned) = state.owned.get_mut(&client) else { continue };
        if kind == b's' && value.is_none() {
            (owned.number, owned.records) = (None, BTreeMap::new());
            state.by_number.remove(&number);
            ended.push(client);
            continue;
        }
        // The log shows queued messages again, and PUBREL repeats the end of an exchange.
        let can_wait = kind == b'q' || (kind == b'o' && value.is_none());
        if !can_wait {
            state.due.insert(client);
        } else if owned.dirty.is_empty() {
            state.lazy.push_back((now, client));
        }
        owned.dirty.insert(key.clone());
        match value {
            Some(value) => _ = owned.records.insert(key, value),
            None => _ = owned.records.remove(&key),
        }
    }
    ended
}
