//! The value of one subscription.

use crate::codec::{SubscriptionIdentifier, SubscriptionOptions};

/// The options and the identifier that a session gave to one of its filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subscriber {
    pub(super) options: SubscriptionOptions,
    pub(super) identifier: Option<SubscriptionIdentifier>,
}
