//! Shared subscriptions whose members are at several nodes.
//!
//! The log has the [members](Member) of all groups, so at each position of the log all nodes know
//! the same ones. The node that appends a message adds its [choice](Choice) of a member for each
//! group. Two things can be wrong with it, because the log can have got other members meanwhile:
//!
//! - The client is no member at the position of the message, or it has left and come back, or
//!   another node has it, or there is no choice for a group. All nodes see that. Each appends the
//!   message again, for this group alone, under the same token, so that the log has it once more.
//! - The client is a member there, but its session has just ended, or has unsubscribed, and the log
//!   does not have that yet. The node that has ended the session appends the message again. If that
//!   node is lost, the one that claims the session does.
//!
//! Each other message is for the session that is chosen, as any message of one of its own
//! subscriptions is: a node that claims the session finds it in the log. A session that ends leaves
//! its messages, which its node appends again; the entry that ends the session has them, too.
//!
//! All nodes that have read a message whose choice does not count can be lost before they append it
//! again. So one node writes a settled position into the log, at most once a second: all messages
//! up to it that had to be appended again are in the log. A node that starts looks for others
//! behind the last such position. A message says which one it repeats, and up to which position the
//! node that chose had read, so the items of members between both show whether the choice counts.

use super::others::rank;
use super::{Node, Port, RETRY, Repair, State};
use crate::cluster::engine::{Append, Engine, Silent};
use crate::cluster::record::{Choice, Item, Logged, Member};
use mqtt_sansio::Instant;
use mqtt_sansio::broker::Broker;
use mqtt_sansio::codec::{Filter, TopicName, Version};
use mqtt_sansio::router::SubscriptionIndex;
use mqtt_sansio::session::Message;
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use tokio::time::{self, sleep};

/// The groups of all nodes.
#[derive(Debug, Default)]
pub(super) struct Shares {
    groups: FxHashMap<Rc<str>, Group>,
    index: SubscriptionIndex<Rc<str>, ()>,
    of_clients: FxHashMap<Rc<str>, BTreeSet<Rc<str>>>,
}

#[derive(Debug)]
struct Group {
    filter: Filter,
    members: BTreeMap<Rc<str>, Seat>,
    /// The members by whether they are connected, in one order at all nodes.
    away: Vec<Rc<str>>,
    connected: Vec<Rc<str>>,
    /// Counts the choices of this node.
    turn: usize,
}

/// A member, and the node of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seat {
    pub(super) node: u64,
    pub(super) is_connected: bool,
    /// The position of its last item in the log. A choice that is older does not count.
    pub(super) position: u64,
}

impl Shares {
    /// Changes a member as the log says. One that has left another node stays.
    pub(super) fn apply(&mut self, member: &Member, position: u64) {
        let Member { node, share, client, is_connected } = member;
        let Some(is_connected) = *is_connected else {
            return self.remove(*node, share, client);
        };
        if !self.groups.contains_key(share) {
            let Ok(filter) = Filter::new(&**share, Version::V5_0) else { return };
            self.index.insert(&filter, share.clone(), ());
            let (away, connected) = (Vec::new(), Vec::new());
            let group = Group { filter, members: BTreeMap::new(), away, connected, turn: 0 };
            self.groups.insert(share.clone(), group);
        }
        let Some(group) = self.groups.get_mut(share) else { return };
        let seat = Seat { node: *node, is_connected, position };
        let before = group.members.insert(client.clone(), seat);
        if before.is_none_or(|before| before.is_connected != is_connected) {
            group.sort();
        }
        self.of_clients.entry(client.clone()).or_default().insert(share.clone());
    }

    fn remove(&mut self, node: u64, share: &Rc<str>, client: &Rc<str>) {
        let Some(group) = self.groups.get_mut(share) else { return };
        if group.members.get(client).is_none_or(|seat| seat.node != node) {
            return;
        }
        group.members.remove(client);
        group.sort();
        if group.members.is_empty() {
            self.index.remove(&group.filter, share);
            self.groups.remove(share);
        }
        if let Some(shares) = self.of_clients.get_mut(client) {
            shares.remove(share);
            if shares.is_empty() {
                self.of_clients.remove(client);
            }
        }
    }

    pub(super) fn seat(&self, share: &str, client: &str) -> Option<Seat> {
        self.groups.get(share)?.members.get(client).copied()
    }

    /// Returns the groups of a client, with the node of its session.
    pub(super) fn of_client(&self, client: &str) -> Vec<(Rc<str>, Filter, u64)> {
        let shares = self.of_clients.get(client).into_iter().flatten();
        let group = |share: &Rc<str>| {
            let group = self.groups.get(share)?;
            Some((share.clone(), group.filter.clone(), group.members.get(client)?.node))
        };
        shares.filter_map(group).collect()
    }

    /// Whether the client is still the member that was chosen.
    pub(super) fn is_valid(&self, Choice { share, client, member, .. }: &Choice) -> bool {
        self.seat(share, client).is_some_and(|seat| seat.position == *member)
    }

    fn matching(&self, topic_name: &TopicName<'_>) -> Vec<Rc<str>> {
        let mut shares = Vec::new();
        if !self.groups.is_empty() {
            self.index.matches(topic_name, |share, ()| shares.push(share.clone()));
        }
        shares
    }

    /// Chooses a member of each group that a message is for. Members take turns; one that is away
    /// has its turn if none is connected, and the message waits for clients.
    pub(super) fn choose(&mut self, message: &Message, can_wait: bool) -> Vec<Choice> {
        let shares = self.matching(&message.topic_name());
        let choice = |share: Rc<str>| {
            let group = self.groups.get_mut(&share)?;
            group.turn = group.turn.wrapping_add(1);
            let (client, Seat { node, position, .. }) = group.pick(group.turn, can_wait, None)?;
            Some(Choice { share, client, member: position, node })
        };
        shares.into_iter().filter_map(choice).collect()
    }

    /// Chooses a member of one group, other than `not`. All nodes choose the same one.
    pub(super) fn choose_one(&self, share: &Rc<str>, turn: u64, not: &str) -> Option<Choice> {
        let turn = usize::try_from(turn).unwrap_or_default();
        let group = self.groups.get(share)?;
        let (client, Seat { node, position, .. }) = group.pick(turn, true, Some(not))?;
        Some(Choice { share: share.clone(), client, member: position, node })
    }

    /// Returns the groups for which a message must be appended again, because its choice does not
    /// count. `changes` are those of members between the position that the node that chose had read
    /// and the message.
    fn missed(&self, logged: &Logged, changes: &[(u64, Member)]) -> Vec<Rc<str>> {
        let Logged { message, share, known, choices, .. } = logged;
        let matching = |shares: &Self| match share {
            Some(share) => vec![share.clone()],
            None => shares.matching(&message.topic_name()),
        };
        if *known == 0 {
            return matching(self);
        }
        if changes.is_empty() {
            return Vec::new();
        }
        // The groups at the message, as far as they matter.
        let mut then = Self::default();
        for Choice { share, client, member, node } in choices {
            let (node, share, client) = (*node, share.clone(), client.clone());
            then.apply(&Member { node, share, client, is_connected: Some(true) }, *member);
        }
        changes.iter().for_each(|(position, member)| then.apply(member, *position));
        let is_chosen = |share: &Rc<str>| choices.iter().any(|choice| choice.share == *share);
        let mut missed = matching(&then);
        missed.retain(|share| !is_chosen(share) && then.groups.contains_key(share));
        let is_missed = |choice: &&Choice| !then.is_valid(choice);
        missed.extend(choices.iter().filter(is_missed).map(|choice| choice.share.clone()));
        missed
    }
}

impl Group {
    fn sort(&mut self) {
        let of = |is_connected: bool| {
            let members = self.members.iter();
            let members = members.filter(move |(_, seat)| seat.is_connected == is_connected);
            members.map(|(client, _)| client.clone()).collect()
        };
        (self.away, self.connected) = (of(false), of(true));
    }

    fn pick(&self, turn: usize, can_wait: bool, not: Option<&str>) -> Option<(Rc<str>, Seat)> {
        let away: &[Rc<str>] = if can_wait { &self.away } else { &[] };
        for members in [&self.connected[..], away] {
            let from = turn.checked_rem(members.len()).unwrap_or_default();
            let (before, after) = members.split_at_checked(from)?;
            let mut members = after.iter().chain(before);
            if let Some(client) = members.find(|client| not != Some(&***client)) {
                return Some((client.clone(), *self.members.get(client)?));
            }
        }
        None
    }
}

impl State {
    /// Takes a client, whose session a node has or had, out of a group.
    pub(super) fn leave(&mut self, node: u64, share: Rc<str>, client: Rc<str>) {
        self.leaving.insert((client.clone(), share.clone()), None);
        self.members.push(Member { node, share, client, is_connected: None });
    }
}

impl<E: Engine, P: Port> Node<E, P> {
    /// Notes a member as the log says.
    pub(crate) fn note_member(&self, broker: &Broker, member: &Member, position: u64) {
        let state = &mut *self.state.borrow_mut();
        let Member { node, share, client, .. } = member;
        state.shares.apply(member, position);
        if state.shares.seat(share, client).is_none() {
            state.leaving.remove(&(client.clone(), share.clone()));
        }
        if *node == self.instance {
            return;
        }
        // This node says again what is true if it has the session. If it had it only until now, it
        // finds that out: another node has its last entry.
        let filter = Filter::new(&**share, Version::V5_0).ok();
        let is_connected = filter.and_then(|filter| broker.member(client, &filter));
        let is_seated = state.shares.seat(share, client).is_some();
        if is_connected.is_some() {
            state.members.push(Member { node: self.instance, is_connected, ..member.clone() });
        } else if is_seated && state.owned.contains_key(client) {
            // The item was on its way while this node claimed the session.
            state.leave(*node, share.clone(), client.clone());
        } else {
            return;
        }
        self.must_verify.set(true);
        self.moved.notify_one();
    }

    /// Delivers a message of the log to members of shared subscriptions, or appends it again.
    pub(super) fn deliver_shared(
        &self,
        broker: &mut Broker,
        position: u64,
        logged: &Logged,
        now: Instant,
    ) {
        let state = &mut *self.state.borrow_mut();
        let since = Some(self.read_since.get());
        let Logged { message, expires_at, share, choices, .. } = logged;
        let shares = match share {
            Some(share) => vec![share.clone()],
            None => state.shares.matching(&message.topic_name()),
        };
        for share in shares {
            let Some(group) = state.shares.groups.get(&share) else { continue };
            let choice = choices.iter().find(|choice| choice.share == share);
            let choice = choice.filter(|choice| state.shares.is_valid(choice));
            let Some(Choice { client, .. }) = choice else {
                let at = (position, position);
                self.append_for(state, &share, at, logged, ["", ""], since);
                continue;
            };
            let (filter, at) = (&group.filter, Some(position));
            let is_taken = broker.deliver_to_member(client, filter, message, *expires_at, at, now);
            if is_taken {
                continue;
            }
            let (key, seat) = ((client.clone(), share.clone()), state.shares.seat(&share, client));
            let is_here = seat.is_some_and(|seat| seat.node == self.instance)
                && state.owned.contains_key(client);
            if is_here && !state.leaving.contains_key(&key) {
                // A session that is a member was replaced by one that is not.
                state.leave(self.instance, share.clone(), client.clone());
                self.moved.notify_one();
            }
            if state.leaving.contains_key(&key) {
                let at = (position, position);
                self.append_for(state, &share, at, logged, [client, client], since);
            }
        }
    }

    /// Appends a message of the log again, for one shared subscription, and for another member than
    /// `not`, if there is one. Does nothing if another node has the session of `client`. This node
    /// has read the log up to `known`. `since` is that of the [`Repair`].
    pub(super) fn append_for(
        &self,
        state: &mut State,
        share: &Rc<str>,
        (position, known): (u64, u64),
        logged: &Logged,
        [client, not]: [&str; 2],
        since: Option<time::Instant>,
    ) {
        let Some(choice) = state.shares.choose_one(share, position, not) else { return };
        let (of, choices) = (position, vec![choice]);
        let share_alone = Some(share.clone());
        let number = 0;
        let logged = Logged { share: share_alone, of, number, known, choices, ..logged.clone() };
        let token = format!("share-{position:x}-{:016x}", rank(share, position));
        let append = Append::new(&Item::Message(logged), Some(token));
        state.repairs.push(Repair { client: client.into(), append, since });
        self.moved.notify_one();
    }

    /// Appends messages again that other nodes had to append again, and did not, because all that
    /// had read them were lost: those behind the settled position, up to the one where this node
    /// has started.
    pub(crate) async fn settle(self: Rc<Self>, start: u64) {
        let settled = self.state.borrow().settled;
        while self.settle_between(settled, start).await.is_err() {
            sleep(RETRY).await;
        }
        self.is_settled.set(true);
    }

    async fn settle_between(&self, settled: u64, start: u64) -> Result<(), Silent> {
        let (mut members, mut messages) = (Vec::new(), Vec::new());
        for (position, item) in self.engine.items(settled, start, false).await? {
            match item {
                Item::Message(logged) => messages.push((position, logged)),
                Item::Member(member) => members.push((position, member)),
                Item::Settled(_) => {}
            }
        }
        let known = messages.iter().map(|(_, logged)| logged.known).filter(|known| *known > 0);
        // A message can be appended long after its members were chosen.
        let oldest = known.min().unwrap_or(settled);
        for (position, item) in self.engine.items(oldest, settled, true).await? {
            if let Item::Member(member) = item {
                members.push((position, member));
            }
        }
        members.sort_by_key(|(position, _)| *position);
        let repeated =
            messages.iter().filter_map(|(_, logged)| Some((logged.of, logged.share.clone()?)));
        let repeated: BTreeSet<_> = repeated.collect();
        self.port.with(|broker, _| {
            let (state, known) = (&mut *self.state.borrow_mut(), broker.position().unwrap_or(0));
            for (position, logged) in &messages {
                let first = members.partition_point(|(at, _)| *at <= logged.known);
                let behind = members.partition_point(|(at, _)| at < position);
                let changes = members.get(first..behind).unwrap_or_default();
                for share in state.shares.missed(logged, changes) {
                    let place = (*position, share);
                    if !repeated.contains(&place) {
                        let (position, share) = place;
                        let (at, since) = ((position, known), Some(self.started));
                        self.append_for(state, &share, at, logged, ["", ""], since);
                    }
                }
            }
        });
        Ok(())
    }

    /// Delivers messages that can be lost to the members here, for ever.
    pub(crate) async fn run_direct(self: Rc<Self>) {
        loop {
            self.direct_moved.notified().await;
            let all = std::mem::take(&mut self.state.borrow_mut().direct);
            self.port.with(|broker, now| {
                all.iter().for_each(|logged| self.deliver_choices(broker, logged, now));
            });
        }
    }

    /// Delivers a message that can be lost to the members here.
    pub(super) fn deliver_choices(&self, broker: &mut Broker, logged: &Logged, now: Instant) {
        let Logged { message, expires_at, choices, .. } = logged;
        for Choice { share, client, .. } in choices {
            if let Ok(filter) = Filter::new(&**share, Version::V5_0) {
                let _ = broker.deliver_to_member(client, &filter, message, *expires_at, None, now);
            }
        }
    }
}
