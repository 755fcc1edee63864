//! The index of subscriptions, the groups that share one, and the retained messages. Each can be
//! used without the broker.
//!
//! This layer knows topics and messages. It does not know sessions or connections.

mod index;
mod levels;
mod place;
mod pool;
mod retained;
mod shared;
mod slab;
mod subscribers;
mod table;

pub use index::SubscriptionIndex;
pub use retained::{Retained, RetainedCursor, RetainedStore};
pub use shared::{Changed, GroupId, ShareGroups};

pub(crate) use levels::Key as HashKey;
pub(crate) use slab::Slab;
pub(crate) use table::Table;
