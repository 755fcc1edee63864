//! The store of the interests that other nodes must know, and of the messages for them.

use super::subscription::{Subscriber, Target};
use crate::codec::{Filter, Version};
use crate::session::Message;
use crate::sync::Arc;
use crate::time::Instant;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

/// The name of another broker that shares the clients with this one. The host chooses it.
#[expect(clippy::exhaustive_structs, reason = "a name has nothing else")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

/// A message of a client of this broker, or of its host, for the nodes.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The message.
    pub message: Message,
    /// The time after which it must not be delivered. [5.0 MQTT-3.3.2-5]
    pub expires_at: Option<Instant>,
    /// The client identifier of the publisher. Empty for the host.
    pub publisher: Arc<str>,
    /// The way to the nodes.
    pub route: Route,
}

/// The way of a message to the nodes.
#[expect(clippy::exhaustive_enums, reason = "there is no third way")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// The host appends the message to the log that all nodes read. Each of them, this one too,
    /// passes it to [`Broker::remote`](super::Broker::remote).
    Log,
    /// The message can be lost. This broker has delivered it to its own clients. These other nodes
    /// want it, in order, and pass it to [`Broker::remote`](super::Broker::remote).
    Direct(Vec<NodeId>),
    /// The host appends the message to the log for another member of this shared subscription. The
    /// session of its member, which `publisher` names, has ended.
    /// [`BrokerConfig::groups_span_nodes`](super::BrokerConfig::groups_span_nodes) is set.
    Share(Filter),
}

/// A change of a member of a shared subscription at this broker.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The client identifier of the member.
    pub client_identifier: Arc<str>,
    /// The filter, with its share name.
    pub filter: Filter,
    /// Whether the client is connected. `None` if it is no member any more.
    pub is_connected: Option<bool>,
}

/// A topic filter that has its first subscription at this broker, or has none any more.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interest {
    /// The filter, without the share name of a shared subscription.
    pub filter: Filter,
    /// Whether there is a subscription.
    pub is_wanted: bool,
}

/// The state of a broker that is one of several nodes.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    /// The subscriptions of each filter, and whether the host knows that there are any.
    filters: BTreeMap<Filter, (usize, bool)>,
    /// The filters whose interest can have changed since its last report to the host.
    changed: BTreeSet<Filter>,
    /// The changes of members that the host has not fetched.
    members: BTreeMap<(Arc<str>, Filter), Option<bool>>,
    /// Messages that wait for the host.
    forwards: VecDeque<Forward>,
    /// The bytes of these messages.
    bytes: usize,
    /// The position up to which the log is handled.
    position: u64,
}

impl Nodes {
    /// Notes a new subscription.
    pub(super) fn subscribed(&mut self, filter: &Filter) {
        let filter = without_share(filter);
        let (count, _) = self.filters.entry(filter.clone()).or_default();
        *count += 1;
        if *count == 1 {
            self.changed.insert(filter);
        }
    }

    /// Notes the end of a subscription.
    pub(super) fn unsubscribed(&mut self, filter: &Filter) {
        let filter = without_share(filter);
        let Some((count, _)) = self.filters.get_mut(&filter) else { return };
        *count -= 1;
        if *count == 0 {
            self.changed.insert(filter);
        }
    }

    /// Returns the next filter whose interest has changed.
    pub(super) fn next_interest(&mut self) -> Option<Interest> {
        while let Some(filter) = self.changed.pop_first() {
            let Some((count, is_told)) = self.filters.get_mut(&filter) else { continue };
            let is_wanted = *count > 0;
            let is_news = core::mem::replace(is_told, is_wanted) != is_wanted;
            if !is_wanted {
                self.filters.remove(&filter);
            }
            if is_news {
                return Some(Interest { filter, is_wanted });
            }
        }
        None
    }

    /// Returns the filters that have subscriptions.
    pub(super) fn wanted(&self) -> impl Iterator<Item = &Filter> {
        self.filters.iter().filter(|(_, (count, _))| *count > 0).map(|(filter, _)| filter)
    }

    /// Notes the state of a member of a shared subscription.
    pub(super) fn note_member(
        &mut self,
        client_identifier: &Arc<str>,
        filter: &Filter,
        is_connected: Option<bool>,
    ) {
        self.members.insert((client_identifier.clone(), filter.clone()), is_connected);
    }

    /// Forgets the changes of a client whose session another broker has.
    pub(super) fn forget_members(&mut self, client_identifier: &str) {
        self.members.retain(|(client, _), is_connected| {
            **client != *client_identifier || is_connected.is_none()
        });
    }

    pub(super) fn next_member(&mut self) -> Option<Member> {
        let ((client_identifier, filter), is_connected) = self.members.pop_first()?;
        Some(Member { client_identifier, filter, is_connected })
    }

    /// Queues a message for the host. Returns false if it was dropped: one that can be lost is, if
    /// the waiting ones have more than `maximum_bytes`.
    pub(super) fn push(&mut self, forward: Forward, maximum_bytes: usize) -> bool {
        let size = forward.message.size();
        if matches!(forward.route, Route::Direct(_)) && self.bytes + size > maximum_bytes {
            return false;
        }
        self.bytes += size;
        self.forwards.push_back(forward);
        true
    }

    /// Whether there is a message for the host, or an interest that can have changed.
    pub(super) fn has_news(&self) -> bool {
        !self.forwards.is_empty() || !self.changed.is_empty() || !self.members.is_empty()
    }

    pub(super) fn next_forward(&mut self) -> Option<Forward> {
        let forward = self.forwards.pop_front()?;
        self.bytes -= forward.message.size();
        Some(forward)
    }

    /// Moves the position in the log forward. Returns false if the log is handled up to there.
    pub(super) const fn advance(&mut self, position: u64) -> bool {
        let is_new = position > self.position;
        if is_new {
            self.position = position;
        }
        is_new
    }

    pub(super) const fn position(&self) -> u64 {
        self.position
    }
}

/// Returns the topics of a filter as a filter.
fn without_share(filter: &Filter) -> Filter {
    let plain = filter.as_topic_filter();
    match plain.share_name() {
        None => filter.clone(),
        // It was checked with its share name.
        Some(_) => Filter::new(plain.filter(), Version::V5_0).unwrap_or_else(|_| filter.clone()),
    }
}

/// Removes the nodes from the subscriptions that match a message, and returns them.
pub(super) fn take_nodes(matches: &mut Vec<(Target, Subscriber)>) -> Vec<NodeId> {
    let mut nodes = Vec::new();
    matches.retain(|(target, _)| {
        if let Target::Node(node) = target {
            nodes.push(*node);
        }
        !matches!(target, Target::Node(_))
    });
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

/// Removes the groups from the subscriptions that match a message. Returns whether there were any.
pub(super) fn take_groups(matches: &mut Vec<(Target, Subscriber)>) -> bool {
    let before = matches.len();
    matches.retain(|(target, _)| !matches!(target, Target::Group(_)));
    matches.len() < before
}
