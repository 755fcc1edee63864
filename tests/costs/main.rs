//! Tests of costs: allocations, bytes held, time. They need their own process, because its
//! allocator counts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    reason = "tests may panic"
)]

mod allocations;
mod growth;
mod linear;
mod sizes;

#[global_allocator]
static ALLOCATOR: testkit::heap::Counting = testkit::heap::Counting;
