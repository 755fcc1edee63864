//! The key and the value of one subscription in the index.

use super::action::SessionId;
use crate::codec::{SubscriptionIdentifier, SubscriptionOptions};
use crate::router::GroupId;

/// The receiver of the messages that a filter matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    Session(SessionId),
    /// A group, which has the values of its members.
    Group(GroupId),
}

/// The options and the identifier that a session gave to one of its filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subscriber {
    pub(super) options: SubscriptionOptions,
    pub(super) identifier: Option<SubscriptionIdentifier>,
    /// The number of the subscription in its session. It stays when the options change.
    pub(super) number: u32,
}
