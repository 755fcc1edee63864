//! Subscriptions: as the index has them, and as a session has them.

use super::action::SessionId;
use super::config::Limit;
use super::nodes::NodeId;
use crate::codec::{Filter, QoS, RetainHandling, SubscriptionIdentifier, SubscriptionOptions};
use crate::router::GroupId;
use alloc::collections::BTreeMap;

/// The receiver of the messages that a filter matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    Session(SessionId),
    /// A group, which has the values of its members.
    Group(GroupId),
    /// Another broker, which delivers the message to its own clients.
    Node(NodeId),
}

/// The options and the identifier that a session gave to one of its filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subscriber {
    pub(super) options: SubscriptionOptions,
    pub(super) identifier: Option<SubscriptionIdentifier>,
    /// The number of the subscription in its session. It stays when the options change.
    pub(super) number: u32,
}

/// The subscriptions of a session.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    by_filter: BTreeMap<Filter, Subscriber>,
    bytes: usize,
    /// Numbers the subscriptions.
    last: u32,
}

impl Subscriber {
    /// The value of another node, which has no options.
    pub(super) const NODE: Self = Self {
        options: SubscriptionOptions {
            maximum_qos: QoS::ExactlyOnce,
            no_local: false,
            retain_as_published: true,
            retain_handling: RetainHandling::DoNotSend,
        },
        identifier: None,
        number: 0,
    };
}

impl Subscriptions {
    /// Whether a filter can be added within a limit. A filter that is there already can.
    pub(super) fn has_room(&self, filter: &Filter, limit: Limit) -> bool {
        let fits = self.by_filter.len() < limit.items
            && self.bytes.saturating_add(size(filter)) <= limit.bytes;
        fits || self.by_filter.contains_key(filter)
    }

    /// Adds a subscription, or replaces its options. Returns it, and whether it is new.
    pub(super) fn insert(
        &mut self,
        filter: &Filter,
        options: SubscriptionOptions,
        identifier: Option<SubscriptionIdentifier>,
    ) -> (Subscriber, bool) {
        if let Some(old) = self.by_filter.get_mut(filter) {
            *old = Subscriber { options, identifier, ..*old };
            return (*old, false);
        }
        self.last = self.last.wrapping_add(1);
        let subscriber = Subscriber { options, identifier, number: self.last };
        self.bytes += size(filter);
        self.by_filter.insert(filter.clone(), subscriber);
        (subscriber, true)
    }

    pub(super) fn remove(&mut self, filter: &Filter) -> Option<Subscriber> {
        let subscriber = self.by_filter.remove(filter)?;
        self.bytes -= size(filter);
        Some(subscriber)
    }

    pub(super) fn len(&self) -> usize {
        self.by_filter.len()
    }

    /// Takes any subscription out.
    pub(super) fn pop(&mut self) -> Option<Filter> {
        let (filter, _) = self.by_filter.pop_first()?;
        self.bytes -= size(&filter);
        Some(filter)
    }

    /// Returns the filters with a share name. The texts of others do not begin with `$share/`, or
    /// are of a client before 5.0.
    pub(super) fn shared(&self) -> impl Iterator<Item = &Filter> {
        let is_shared = |filter: &&Filter| filter.as_topic_filter().share_name().is_some();
        self.by_filter.keys().filter(is_shared)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Filter, &Subscriber)> {
        self.by_filter.iter()
    }
}

fn size(filter: &Filter) -> usize {
    filter.as_topic_filter().as_text().as_bytes().len()
}
