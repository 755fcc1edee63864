//! How a node takes sessions over, and gives them up.

use super::clock::BEAT;
use super::{CUT_OFF, Node, Owned, Port, RETRY};
use crate::cluster::engine::{Append, Engine, Evicted, Notice, Refusal, Silent};
use crate::cluster::record::{self, Entry, Logged, Owed, State as Stored};
use mqtt_sansio::broker::journal::Record;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use tokio::sync::oneshot;
use tokio::time::{self, sleep, timeout};
use tracing::{info, warn};

impl<E: Engine, P: Port> Node<E, P> {
    /// Takes the session of a client to this node, before the client is accepted. `will` is that of
    /// its CONNECT.
    pub(crate) async fn claim(
        self: &Rc<Self>,
        client: &str,
        will: Option<Logged>,
    ) -> Result<(), Silent> {
        let client: Rc<str> = client.into();
        let lock = self.state.borrow_mut().claims.entry(client.clone()).or_default().clone();
        let result = {
            let _guard = lock.lock().await;
            let will = will.map(|will| Owed { token: self.token(), message: will.to_bytes() });
            let start = time::Instant::now();
            loop {
                // The election of a leader takes a while.
                match self.claim_alone(&client, will.clone(), false).await {
                    Err(Silent) if start.elapsed() < CUT_OFF && !self.is_cut_off() => {
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
        let will = will.map(|will| Owed { token: self.token(), message: will.to_bytes() });
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
                will: will.clone(),
                ..Entry::default()
            };
            match self.engine.append_entry(client, last, &entry).await {
                Ok(sequence) => break (stored, sequence),
                Err(Refusal::Stale) => {}
                Err(Refusal::Silent) => {
                    // It can have been appended all the same.
                    if let Some(sequence) = own(&self.engine.entries(client).await?, &entry) {
                        break (stored, sequence);
                    }
                }
            }
        };
        let is_kept = stored.is_kept();
        let Stored { owed, will: old_will, .. } = &stored;
        // A session without records whose owner is lost: its connection has ended, too.
        let old_will = old_will.iter().filter(|_| !is_kept && stored.owner != 0);
        for Owed { token, message } in owed.iter().chain(old_will) {
            let Some(logged) = Logged::from_bytes(message) else { continue };
            let append = Append {
                topic_name: logged.message.topic_name().to_str().into(),
                is_retained: logged.message.retain(),
                message: message.clone().into(),
                token: Some(token.clone()),
            };
            self.engine.append(&[append], token).await?;
        }
        let owned = Owned { sequence, will, is_fresh: true, ..Owned::default() };
        if is_kept {
            self.resume(client, stored, owned).await?;
        } else {
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
        let Stored { mut records, position: mut from, .. } = stored;
        // The messages of its queue.
        let of_queue = |(key, value): (&Vec<u8>, &Vec<u8>)| {
            (key.first() == Some(&b'q')).then(|| record::position_of(value)).flatten()
        };
        let positions: BTreeSet<u64> = records.iter().filter_map(of_queue).collect();
        let mut messages = BTreeMap::new();
        for position in positions {
            let known = self.state.borrow().in_window(position);
            let message = match known {
                Some(message) => Some(message),
                None => self.engine.message(position).await?,
            };
            match message {
                Some(message) => _ = messages.insert(position, message),
                None => self.state.borrow_mut().figures.behind += 1,
            }
        }
        drop_missing(&mut records, &messages);
        let filters: Vec<String> = records
            .keys()
            .filter(|key| key.first() == Some(&b'f') && key.get(9) == Some(&0))
            .filter_map(|key| record::filter_of(key).map(ToOwned::to_owned))
            .collect();
        // This node must not deliver again what is in the records.
        while self.position() < from {
            let _ = timeout(BEAT, self.log_moved.notified()).await;
        }
        let mut missed = Vec::new();
        loop {
            let position = self.position();
            let first =
                self.state.borrow().window.front().map_or(position + 1, |(first, _)| *first);
            if from + 1 >= first || from >= position || filters.is_empty() {
                break;
            }
            let to = (first - 1).min(position);
            missed.extend(self.engine.log(from, to, &filters).await?);
            from = to;
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
            for (position, logged) in missed.iter().chain(&window) {
                let Logged { message, publisher, expires_at } = logged;
                broker.catch_up(client, message, publisher, *expires_at, *position, now);
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

/// Returns the sequence of an entry, if it is the last one.
pub(super) fn own(entries: &[(u64, Entry)], entry: &Entry) -> Option<u64> {
    let (sequence, last) = entries.last()?;
    let is_own = (last.owner, last.stamp) == (entry.owner, entry.stamp) && last == entry;
    is_own.then_some(*sequence)
}
