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

use super::others::rank;
use super::{Node, Port, State};
use crate::cluster::engine::{Append, Engine};
use crate::cluster::record::{Choice, Item, Logged, Member};
use mqtt_sansio::Instant;
use mqtt_sansio::broker::Broker;
use mqtt_sansio::codec::{Filter, TopicName, Version};
use mqtt_sansio::router::SubscriptionIndex;
use mqtt_sansio::session::Message;
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

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
    pub(super) fn is_valid(&self, Choice { share, client, member }: &Choice) -> bool {
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
            let (client, member) = group.pick(group.turn, can_wait, None)?;
            Some(Choice { share, client, member })
        };
        shares.into_iter().filter_map(choice).collect()
    }

    /// Chooses a member of one group, other than `not`. All nodes choose the same one.
    pub(super) fn choose_one(&self, share: &Rc<str>, turn: u64, not: &str) -> Option<Choice> {
        let turn = usize::try_from(turn).unwrap_or_default();
        let (client, member) = self.groups.get(share)?.pick(turn, true, Some(not))?;
        Some(Choice { share: share.clone(), client, member })
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

    fn pick(&self, turn: usize, can_wait: bool, not: Option<&str>) -> Option<(Rc<str>, u64)> {
        let away: &[Rc<str>] = if can_wait { &self.away } else { &[] };
        for members in [&self.connected[..], away] {
            let from = turn.checked_rem(members.len()).unwrap_or_default();
            let (before, after) = members.split_at_checked(from)?;
            let mut members = after.iter().chain(before);
            if let Some(client) = members.find(|client| not != Some(&***client)) {
                return Some((client.clone(), self.members.get(client)?.position));
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
        // finds that out.
        let filter = Filter::new(&**share, Version::V5_0).ok();
        let is_connected = filter.and_then(|filter| broker.member(client, &filter));
        if is_connected.is_some() {
            state.members.push(Member { node: self.instance, is_connected, ..member.clone() });
            self.must_verify.set(true);
            self.moved.notify_one();
        }
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
                self.append_for(state, &share, position, logged, ["", ""]);
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
                self.append_for(state, &share, position, logged, [client, client]);
            }
        }
    }

    /// Appends a message of the log again, for one shared subscription, and for another member than
    /// `not`, if there is one. Does nothing if another node has the session of `client`.
    pub(super) fn append_for(
        &self,
        state: &mut State,
        share: &Rc<str>,
        position: u64,
        logged: &Logged,
        [client, not]: [&str; 2],
    ) {
        let Some(choice) = state.shares.choose_one(share, position, not) else { return };
        let logged = Logged { share: Some(share.clone()), choices: vec![choice], ..logged.clone() };
        let token = format!("share-{position:x}-{:016x}", rank(share, position));
        state.repairs.push((client.into(), Append::new(&Item::Message(logged), Some(token))));
        self.moved.notify_one();
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
