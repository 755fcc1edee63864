//! The index of subscriptions, and the retained messages. Both can be used without the broker.
//!
//! This layer knows topics and messages, and neither sessions nor connections.

mod index;
mod retained;

pub use index::SubscriptionIndex;
pub use retained::{Retained, RetainedStore};
