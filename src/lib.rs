#![cfg_attr(not(test), no_std)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic"))]

//! x
extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

pub mod broker;
pub mod client;
pub mod codec;
pub mod router;
pub mod server;
pub mod session;
mod time;

#[cfg(feature = "std")]
pub use time::Clock;
pub use time::Instant;
