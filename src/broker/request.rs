//! A SUBSCRIBE or UNSUBSCRIBE on its way to its answer.

use crate::codec::{Filter, ReasonCode, SubscriptionIdentifier, SubscriptionOptions};
use crate::server::RequestToken;
use alloc::vec::{IntoIter, Vec};

/// A request whose filters are handled one by one.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) token: RequestToken,
    pub(super) kind: RequestKind,
    /// The filters that are not handled yet, or why they are refused.
    pub(super) rest: IntoIter<Result<(Filter, SubscriptionOptions), ReasonCode>>,
    /// The answers to those that are.
    pub(super) codes: Vec<ReasonCode>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestKind {
    Subscribe(Option<SubscriptionIdentifier>),
    Unsubscribe,
}
