//! Which messages are for whom: an index of subscriptions, and the retained messages. Usable
//! without the broker, by those who have an architecture of their own.
//!
//! It knows topics and messages, and neither sessions nor connections.

mod index;
mod retained;

pub use index::SubscriptionIndex;
pub use retained::{Retained, RetainedStore};
