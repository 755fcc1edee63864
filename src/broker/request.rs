//! A SUBSCRIBE or UNSUBSCRIBE on its way to its answer.

use crate::codec::{ReasonCode, SubscriptionIdentifier, SubscriptionOptions, Text};
use crate::server::RequestToken;
use alloc::vec::Vec;

/// A request whose filters are handled one by one.
///
/// The filters are copied as bytes. They become values only when their turn comes, so that a packet
/// with many of them takes no longer than one with few.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) token: RequestToken,
    pub(super) kind: RequestKind,
    /// The answers to the filters that are handled.
    pub(super) codes: Vec<ReasonCode>,
    /// For each filter its length in two bytes, its options, and its text.
    bytes: Vec<u8>,
    /// The offset of the next filter.
    position: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestKind {
    Subscribe(Option<SubscriptionIdentifier>),
    Unsubscribe,
}

impl Request {
    pub(super) fn new<'p>(
        token: RequestToken,
        kind: RequestKind,
        filters: impl Iterator<Item = (Text<'p>, SubscriptionOptions)>,
    ) -> Self {
        let mut bytes = Vec::new();
        for (filter, options) in filters {
            let text = filter.as_bytes();
            // It was decoded from a field with a length of two bytes.
            let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
            bytes.extend(length.to_be_bytes());
            bytes.push(options.into());
            bytes.extend(text);
        }
        Self { token, kind, codes: Vec::new(), bytes, position: 0 }
    }

    /// Returns the next filter and its options, and goes on to the one after it.
    pub(super) fn next(&mut self) -> Option<(&str, SubscriptionOptions)> {
        let (head, rest) = self.bytes.get(self.position..)?.split_first_chunk::<3>()?;
        let [high, low, options] = *head;
        let text = rest.get(..u16::from_be_bytes([high, low]).into())?;
        self.position += head.len() + text.len();
        // Both were decoded from a packet, and so are valid.
        let options = SubscriptionOptions::try_from(options).unwrap_or_default();
        Some((core::str::from_utf8(text).unwrap_or_default(), options))
    }

    pub(super) fn is_done(&self) -> bool {
        self.position == self.bytes.len()
    }
}
