//! The index of subscriptions, and the retained messages. Both can be used without the broker.
//!
//! This layer knows topics and messages. It does not know sessions or connections.

mod index;
mod retained;

pub use index::SubscriptionIndex;
pub use retained::{Retained, RetainedStore};
