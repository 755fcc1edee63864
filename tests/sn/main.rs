//! MQTT-SN 1.2: codec, gateway and client, through the public API.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    unreachable_pub,
    reason = "tests may panic"
)]

mod gateway;
mod simulation;
mod vectors;
