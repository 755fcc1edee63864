//! All tests of the public API, except for those that measure costs (`tests/costs/`).
//!
//! `cargo test --test it limits` runs one module. Harnesses and helpers are in `testkit/`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    unreachable_pub,
    reason = "tests may panic"
)]

mod aliases;
mod authentication;
mod bridge;
mod broker;
mod citations;
mod connections;
mod contract;
mod corpus;
mod encode;
mod exchanges;
mod identifiers;
mod imports;
mod ledger;
mod limits;
mod model;
mod must_use;
mod options;
mod secrets;
mod sequences;
mod serialized;
mod session;
mod stored;
mod table;
mod time;
mod values;
mod vectors;
