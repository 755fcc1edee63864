//! Code that the tests, the fuzz targets and the benches share.
//!
//! - [`machine`] and [`pair`]: harnesses for one machine, and for a client and a server machine.
//! - [`watch`]: an independent account of what one end of a connection is allowed to do.
//! - [`properties`], [`machines`] and [`broker`]: the properties that the fuzz targets check, as
//!   functions of arbitrary data.
//! - [`server`]: a broker on a socket, for the examples of the guides.
//! - [`sn`]: the same for MQTT-SN.
//! - [`vectors`]: the bytes of `spec-vectors/`.
//! - [`wire`]: packets to and from bytes.
//! - [`files`], [`heap`], [`port`], [`random`]: the files of the repository, a count of
//!   allocations, ports for programs, a generator of numbers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    reason = "a panic is a finding"
)]

pub mod broker;
pub mod files;
pub mod heap;
pub mod machine;
pub mod machines;
pub mod nodes;
pub mod pair;
pub mod port;
pub mod properties;
pub mod random;
pub mod server;
pub mod simulation;
pub mod sn;
pub mod vectors;
pub mod watch;
pub mod wire;
