//! How a node takes sessions over, and gives them up.

use super::clock::BEAT;
use super::{CUT_OFF, Node, Owned, Port, RETRY};
use crate::cluster::engine::{Append, Engine, Evicted, Notice, Refusal, Silent};
use crate::cluster::record::{self, Choice, Entry, Item, Logged, Member, Owed, State as Stored};
use mqtt_sansio::broker::Broker;
use mqtt_sansio::broker::journal::Record;
use mqtt_sansio::codec::{Filter, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use tokio::sync::oneshot;
use tokio::time::{self, sleep, timeout};
use tracing::{info, warn};

impl<E: Engine, P: Port> Node<E, P> {
    /// Takes the session of a client to this node, before the client is accepted. `will` is that of
    /// its CONNECT. Stops if the client does not wait any longer: it can be at another node.
    pub(crate) async fn claim(
        self: &Rc<Self>,
        client: &str,
        will: Option<Logged>,
        waits: impl Fn() -> bool,
    ) -> Result<(), Silent> {
        let client: Rc<str> = client.into();
        let lock = self.state.borrow_mut().claims.entry(client.clone()).or_default().clone();
        let result = {
            let _guard = lock.lock().await;
            let will = will.map(|will| self.owed_will(will));
            let start = time::Instant::now();
            loop {
                // The election of a leader takes a while.
                match self.claim_alone(&client, will.clone(), false, &waits).await {
                    Err(Silent) if start.elapsed() < CUT_OFF && !self.is_cut_off() && waits() => {
                        sleep(RETRY).await;
                    }
                    result => break result,
                }
            }
        };
        let mut state = self.state.borrow_mut();
        // This one, and the map's.
        if Rc::strong_count(&lock) == 2 {
            state.claims.remove(&client);
        }
        result
    }

    /// Notes a client whose identifier this node has chosen, and its will.
    pub(crate) fn note_assigned(&self, client: &str, will: Option<Logged>) {
        let client: Rc<str> = client.into();
        let will = will.map(|will| Logged { publisher: client.clone(), ..will });
        let will = will.map(|will| self.owed_will(will));
        let mut state = self.state.borrow_mut();
        if will.is_some() {
            state.due.insert(client.clone());
            self.moved.notify_one();
        }
        let owned = state.owned.entry(client).or_default();
        (owned.will, owned.is_fresh) = (will, true);
    }

    pub(super) async fn claim_alone(
        self: &Rc<Self>,
        client: &Rc<str>,
        will: Option<Owed>,
        is_adoption: bool,
        waits: &impl Fn() -> bool,
    ) -> Result<(), Silent> {
        {
            let state = &mut *self.state.borrow_mut();
            if let Some(owned) = state.owned.get_mut(client) {
                let has_will = will.is_some() || owned.will.is_some();
                if !is_adoption && has_will && owned.number.is_none() {
                    (owned.will, owned.is_fresh) = (will, true);
                    state.due.insert(client.clone());
                    self.moved.notify_one();
                }
                return Ok(());
            }
        }
        let mut asked = None;
        let (stored, sequence) = loop {
            let (mut stored, mut last) = (Stored::default(), 0);
            for (sequence, entry) in self.engine.entries(client).await? {
                stored.apply(entry);
                last = sequence;
            }
            let owner = stored.owner;
            if !waits() {
                return Err(Silent);
            }
            if is_adoption && self.is_alive(owner) {
                return Ok(());
            }
            let is_elsewhere = owner != 0 && owner != self.instance && !stored.has_ended;
            if is_elsewhere && !is_adoption && asked != Some(last) {
                asked = Some(last);
                if self.engine.evict(owner, client).await == Evicted::Silent {
                    let name = self.state.borrow().peers.get(&owner).map(|peer| peer.name.clone());
                    info!(client = &**client, node = name, "the node of the session is silent");
                }
                continue;
            }
            let is_over = !stored.is_kept() && stored.owed.is_empty() && stored.will.is_none();
            if is_adoption && (is_over || last == 0) {
                return Ok(());
            }
            let entry = Entry {
                owner: self.instance,
                stamp: self.stamp(),
                is_fresh: is_over,
                is_claim: true,
                // The log up to here does not have the will.
                position: self.position(),
                will: will.clone(),
                ..Entry::default()
            };
            match self.engine.append_entry(client, last, &entry).await {
                Ok(sequence) => break (stored, sequence),
                Err(Refusal::Stale) => {}
                Err(Refusal::Silent) => {
                    // It can have been appended all the same.
                    if let Some(sequence) =
                        own(&self.engine.entries(client).await?, &entry, self.instance)
                    {
                        break (stored, sequence);
                    }
                }
            }
        };
        let is_kept = stored.is_kept();
        let Stored { owed, will: old_will, .. } = &stored;
        // A session without records whose owner is lost: its connection has ended, too.
        let old_will = old_will.iter().filter(|_| !is_kept && stored.owner != 0);
        let owed_after = owed.iter().map(|owed| (owed, Some(stored.position)));
        let will_after = stored.is_will_claimed.then_some(stored.before_will);
        let old_will = old_will.map(|will| (will, will_after));
        for (Owed { token, message }, after) in owed_after.chain(old_will) {
            let Some(item) = Item::from_bytes(message) else { continue };
            let all = vec![Append::new(&item, Some(token.clone()))];
            // Another node can have appended it, so long ago that the engine has forgotten the
            // token.
            let all = match after {
                Some(after) => self.missing(after, &all).await?,
                None => all,
            };
            if !all.is_empty() {
                self.engine.append(&all, token).await?;
            }
        }
        let owned = Owned { sequence, will, is_fresh: true, ..Owned::default() };
        if is_kept {
            self.resume(client, stored, owned).await?;
        } else {
            self.pass_on_chosen(client, &stored).await?;
            let mut state = self.state.borrow_mut();
            if !owed.is_empty() || stored.will.is_some() {
                // The messages that were owed are appended.
                state.due.insert(client.clone());
            }
            state.owned.insert(client.clone(), owned);
            if is_adoption {
                state.gone.push(client.clone());
            }
        }
        self.state.borrow_mut().figures.adopted += u64::from(is_adoption);
        self.moved.notify_one();
        Ok(())
    }

    /// Gives the broker a session that is stored.
    async fn resume(&self, client: &Rc<str>, stored: Stored, owned: Owned) -> Result<(), Silent> {
        let Stored { mut records, position: mut from, owed, .. } = stored;
        // The messages of its queue.
        let of_queue = |(key, value): (&Vec<u8>, &Vec<u8>)| {
            (key.first() == Some(&b'q')).then(|| record::position_of(value)).flatten()
        };
        let positions: BTreeSet<u64> = records.iter().filter_map(of_queue).collect();
        let (mut messages, mut named) = (BTreeMap::new(), 0_u64);
        for position in positions {
            let known = self.state.borrow().in_window(position);
            let message = match known {
                Some(message) => Some(message),
                None => self.engine.message(position).await?,
            };
            match message {
                Some(message) => _ = messages.insert(position, message),
                None => named += 1,
            }
        }
        self.state.borrow_mut().figures.behind += named;
        drop_missing(&mut records, &messages);
        let mut filters: Vec<String> = records
            .keys()
            .filter(|key| key.first() == Some(&b'f'))
            .filter_map(|key| record::filter_of(key).map(ToOwned::to_owned))
            .collect();
        filters.extend(self.filters_of_groups(client, &owed));
        let is_session = |(key, value): (&Vec<u8>, &Vec<u8>)| {
            key.first() == Some(&b's') && record::is_connected(value)
        };
        let was_connected = records.iter().any(is_session);
        // This node must not deliver again what is in the records. The other one can have sent all
        // that the log had until now.
        let end = if was_connected { self.engine.bounds().await?.1 } else { from };
        while self.position() < end.max(from) {
            let _ = timeout(BEAT, self.log_moved.notified()).await;
        }
        let (mut missed, mut unnamed) = (Vec::new(), 0_u64);
        loop {
            let position = self.position();
            let first =
                self.state.borrow().window.front().map_or(position + 1, |(first, _)| *first);
            if from + 1 >= first || from >= position || filters.is_empty() {
                break;
            }
            let to = (first - 1).min(position);
            let (oldest, _) = self.engine.bounds().await?;
            // Of all topics.
            unnamed += oldest.saturating_sub(from + 1);
            missed.extend(self.engine.log(from, to, &filters).await?);
            from = to;
        }
        if named + unnamed > 0 {
            let text = "the log has dropped messages of the session, and others that it can lack";
            warn!(client = &**client, named, unnamed, text);
        }
        for (position, message) in &messages {
            records.insert(record::key_of_message(*position), message.message.to_bytes());
        }
        let window: Vec<_> = {
            let mut state = self.state.borrow_mut();
            state.owned.insert(client.clone(), owned);
            let behind = state.window.iter().filter(|(position, _)| *position > from);
            let behind = behind.cloned().collect();
            state.figures.resumed += 1;
            behind
        };
        let imported = self.port.with(|broker, now| {
            let records = records.iter().map(|(key, value)| Record { key, value: Some(value) });
            broker.import_session(records, now)?;
            self.leave_groups(broker, client);
            for (position, logged) in missed.iter().chain(&window) {
                let Logged { message, publisher, expires_at, share, choices, .. } = logged;
                if share.is_none() {
                    broker.catch_up(client, message, publisher, *expires_at, *position, now);
                }
                for choice in choices.iter().filter(|one| one.client == *client) {
                    let state = &mut *self.state.borrow_mut();
                    let Ok(filter) = Filter::new(&*choice.share, Version::V5_0) else { continue };
                    let (at, until) = (Some(*position), *expires_at);
                    let is_taken = state.shares.is_valid(choice)
                        && broker.deliver_to_member(client, &filter, message, until, at, now);
                    if !is_taken {
                        let is_member = broker.member(client, &filter).is_some();
                        let not = if is_member { "" } else { client };
                        let at = (*position, broker.position().unwrap_or(0));
                        self.append_for(state, &choice.share, at, logged, [client, not], None);
                    }
                }
            }
            if was_connected {
                broker.presume_sent(client, now);
            }
            Ok::<_, mqtt_sansio::broker::ImportError>(())
        });
        if let Err(error) = imported {
            warn!(client = &**client, %error, "the session cannot be resumed here");
            self.state.borrow_mut().owned.remove(client);
            return Err(Silent);
        }
        Ok(())
    }

    /// Returns the groups that the log has a client in.
    fn groups_of(&self, client: &str) -> Vec<(Rc<str>, Filter, u64)> {
        self.state.borrow().shares.of_client(client)
    }

    /// Returns the filters of the groups that a client is in, or has just left: the log can have
    /// that already, but not all messages again.
    fn filters_of_groups(&self, client: &str, owed: &[Owed]) -> Vec<String> {
        let left = owed.iter().filter_map(|owed| match Item::from_bytes(&owed.message)? {
            Item::Member(Member { share, .. }) => Filter::new(&*share, Version::V5_0).ok(),
            Item::Message(_) | Item::Settled(_) => None,
        });
        let groups = self.groups_of(client).into_iter().map(|(_, filter, _)| filter);
        groups.chain(left).map(|filter| plain(&filter)).collect()
    }

    /// Takes a client out of the groups that its session is in no longer, because the node that had
    /// the session was lost before the log had that.
    fn leave_groups(&self, broker: &Broker, client: &Rc<str>) {
        for (share, filter, node) in self.groups_of(client) {
            if broker.member(client, &filter).is_some() {
                continue;
            }
            self.state.borrow_mut().leave(node, share, client.clone());
            self.moved.notify_one();
        }
    }

    /// Appends messages behind a position again that were chosen for a client whose session has
    /// ended.
    async fn pass_on_chosen(&self, client: &Rc<str>, stored: &Stored) -> Result<(), Silent> {
        let from = stored.position;
        let filters = self.filters_of_groups(client, &stored.owed);
        if filters.is_empty() {
            return Ok(());
        }
        while self.position() < from {
            let _ = timeout(BEAT, self.log_moved.notified()).await;
        }
        let position = self.position();
        let first = self.state.borrow().window.front().map_or(position + 1, |(first, _)| *first);
        let mut missed = Vec::new();
        if from > 0 && from + 1 < first {
            missed = self.engine.log(from, (first - 1).min(position), &filters).await?;
        }
        let known = self.port.with(|broker, _| {
            self.leave_groups(broker, client);
            broker.position().unwrap_or(0)
        });
        let state = &mut *self.state.borrow_mut();
        if from > 0 {
            let window = state.window.iter().filter(|(position, _)| *position > from);
            missed.extend(window.cloned());
        }
        for (position, logged) in missed {
            for Choice { share, .. } in logged.choices.iter().filter(|one| one.client == *client) {
                let clients = [&**client, client];
                self.append_for(state, share, (position, known), &logged, clients, None);
            }
        }
        Ok(())
    }

    /// Gives a session to another node. The receiver resolves when it has been stored.
    pub(crate) fn give_up(&self, client: &str) -> oneshot::Receiver<()> {
        let (done, is_done) = oneshot::channel();
        self.state.borrow_mut().evictions.push((client.into(), Some(done)));
        self.moved.notify_one();
        is_done
    }

    /// Gives all sessions up, so that other nodes can have them.
    pub(crate) async fn leave(&self) {
        let clients: Vec<Rc<str>> = self.state.borrow().owned.keys().cloned().collect();
        let given: Vec<_> = clients.iter().map(|client| self.give_up(client)).collect();
        for one in given {
            let _ = one.await;
        }
        self.engine.tell(&Notice::Leaving);
    }
}

/// Returns the topics of a shared subscription as a filter.
fn plain(filter: &Filter) -> String {
    filter.as_topic_filter().filter().to_string()
}

/// Removes the records of a queue whose messages are missing.
fn drop_missing(records: &mut BTreeMap<Vec<u8>, Vec<u8>>, messages: &BTreeMap<u64, Logged>) {
    let is_missing = |value: &Vec<u8>| {
        record::position_of(value).is_none_or(|position| !messages.contains_key(&position))
    };
    let gone: BTreeSet<Vec<u8>> = records
        .iter()
        .filter(|(key, value)| key.first() == Some(&b'q') && is_missing(value))
        .filter_map(|(key, _)| key.get(9..).map(<[u8]>::to_vec))
        .collect();
    records.retain(|key, value| match key.first() {
        Some(b'q') => !key.get(9..).is_some_and(|position| gone.contains(position)),
        // A PUBLISH in flight names its place in the queue.
        Some(b'o') if value.first() == Some(&1) => {
            !value.get(1..).is_some_and(|position| gone.contains(position))
        }
        _ => true,
    });
}

/// Returns the sequence of an entry, if it is there and no other node has appended one behind it.
pub(super) fn own(entries: &[(u64, Entry)], entry: &Entry, instance: u64) -> Option<u64> {
    let is_own = |other: &Entry| (other.owner, other.stamp) == (entry.owner, entry.stamp);
    let index = entries.iter().position(|(_, other)| is_own(other) && other == entry)?;
    let (first, rest) = entries.get(index..)?.split_first()?;
    rest.iter().all(|(_, later)| later.owner == instance).then_some(first.0)
}
