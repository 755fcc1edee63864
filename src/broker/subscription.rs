//! Subscriptions: as the index has them, and as a session has them.

use super::action::SessionId;
use super::config::Limit;
use super::nodes::NodeId;
use crate::codec::{Filter, QoS, RetainHandling, SubscriptionIdentifier, SubscriptionOptions};
use crate::router::GroupId;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

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
    by_filter: ByFilter,
    /// The bytes of all filters. A session is refused more than this can count.
    bytes: u32,
    /// Numbers the subscriptions.
    last: u32,
}

/// Subscriptions in the order of their filters. Most sessions have few: a map takes room for eleven
/// with the first.
#[derive(Debug)]
enum ByFilter {
    Few(Vec<(Filter, Subscriber)>),
    #[expect(clippy::box_collection, reason = "so that a session with none is no larger")]
    Many(Box<BTreeMap<Filter, Subscriber>>),
}

/// The most subscriptions that are not in a map.
const FEW: usize = 8;

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
        let bytes = self.bytes.checked_add(size(filter));
        let fits_bytes = bytes.is_some_and(|bytes| bytes as usize <= limit.bytes);
        (self.len() < limit.items && fits_bytes) || self.by_filter.contains(filter)
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
        self.bytes = self.bytes.saturating_add(size(filter));
        self.by_filter.insert(filter.clone(), subscriber);
        (subscriber, true)
    }

    pub(super) fn remove(&mut self, filter: &Filter) -> Option<Subscriber> {
        let subscriber = self.by_filter.remove(filter)?;
        self.bytes = self.bytes.saturating_sub(size(filter));
        Some(subscriber)
    }

    pub(super) fn len(&self) -> usize {
        match &self.by_filter {
            ByFilter::Few(few) => few.len(),
            ByFilter::Many(many) => many.len(),
        }
    }

    /// Takes any subscription out.
    pub(super) fn pop(&mut self) -> Option<Filter> {
        let (filter, _) = match &mut self.by_filter {
            ByFilter::Few(few) => few.pop(),
            ByFilter::Many(many) => many.pop_first(),
        }?;
        self.bytes = self.bytes.saturating_sub(size(&filter));
        Some(filter)
    }

    /// Returns the filters with a share name. The texts of others do not begin with `$share/`, or
    /// are of a client before 5.0.
    pub(super) fn shared(&self) -> impl Iterator<Item = &Filter> {
        let is_shared = |filter: &&Filter| filter.as_topic_filter().share_name().is_some();
        self.iter().map(|(filter, _)| filter).filter(is_shared)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Filter, &Subscriber)> {
        let (few, many) = match &self.by_filter {
            ByFilter::Few(few) => (few.as_slice(), None),
            ByFilter::Many(many) => (&[][..], Some(&**many)),
        };
        few.iter()
            .map(|(filter, subscriber)| (filter, subscriber))
            .chain(many.into_iter().flatten())
    }
}

impl Default for ByFilter {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl ByFilter {
    fn contains(&self, filter: &Filter) -> bool {
        match self {
            Self::Few(few) => find(few, filter).is_ok(),
            Self::Many(many) => many.contains_key(filter),
        }
    }

    fn get_mut(&mut self, filter: &Filter) -> Option<&mut Subscriber> {
        match self {
            Self::Few(few) => {
                let position = find(few, filter).ok()?;
                few.get_mut(position).map(|(_, subscriber)| subscriber)
            }
            Self::Many(many) => many.get_mut(filter),
        }
    }

    fn insert(&mut self, filter: Filter, subscriber: Subscriber) {
        match self {
            Self::Few(few) if few.len() < FEW => {
                if let Err(position) = find(few, &filter) {
                    few.reserve_exact(1);
                    few.insert(position, (filter, subscriber));
                }
            }
            Self::Few(few) => {
                let mut many: BTreeMap<_, _> = few.drain(..).collect();
                many.insert(filter, subscriber);
                *self = Self::Many(Box::new(many));
            }
            Self::Many(many) => _ = many.insert(filter, subscriber),
        }
    }

    fn remove(&mut self, filter: &Filter) -> Option<Subscriber> {
        match self {
            Self::Few(few) => {
                let position = find(few, filter).ok()?;
                Some(few.remove(position).1)
            }
            Self::Many(many) => many.remove(filter),
        }
    }
}

/// Returns the position of a filter, or the one at which it belongs.
fn find(few: &[(Filter, Subscriber)], filter: &Filter) -> Result<usize, usize> {
    few.binary_search_by(|(other, _)| other.cmp(filter))
}

fn size(filter: &Filter) -> u32 {
    u32::try_from(filter.as_topic_filter().as_text().as_bytes().len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Version;
    use alloc::format;

    #[test]
    fn few_and_many_subscriptions_are_kept_alike() {
        let filters: Vec<_> = (0..3 * FEW)
            .map(|number| Filter::new(&format!("a/{}", number * 7 % 24), Version::V5_0).unwrap())
            .collect();
        for count in 0..=filters.len() {
            let filters = &filters[..count];
            let mut subscriptions = Subscriptions::default();
            for (number, filter) in (1..).zip(filters) {
                let options = SubscriptionOptions::default();
                let (subscriber, is_new) = subscriptions.insert(filter, options, None);
                assert_eq!((subscriber.number, is_new), (number, true));
            }
            for (number, filter) in (1..).zip(filters) {
                let options = SubscriptionOptions { no_local: true, ..Default::default() };
                let (subscriber, is_new) = subscriptions.insert(filter, options, None);
                assert_eq!((subscriber.number, is_new), (number, false));
                let no_room = Limit { items: count, bytes: usize::MAX };
                assert!(subscriptions.has_room(filter, no_room));
            }
            assert_eq!(subscriptions.len(), count);
            assert!(subscriptions.iter().is_sorted_by(|(one, _), (other, _)| one < other));
            assert!(subscriptions.iter().all(|(_, subscriber)| subscriber.options.no_local));
            for (number, filter) in (1..).zip(filters).step_by(2) {
                assert_eq!(subscriptions.remove(filter).unwrap().number, number);
                assert_eq!(subscriptions.remove(filter), None);
            }
            let mut left = Vec::new();
            while let Some(filter) = subscriptions.pop() {
                left.push(filter);
            }
            left.sort();
            let mut expected: Vec<_> = filters.iter().skip(1).step_by(2).cloned().collect();
            expected.sort();
            assert_eq!((left, subscriptions.bytes), (expected, 0));
        }
    }
}
