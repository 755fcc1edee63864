//! MQTT-SN 1.2: MQTT for devices on UDP and radio, which lose, repeat and reorder datagrams.
//!
//! - [`v1_2`] is the codec: datagrams to messages and back. MQTT-SN 2.0, a committee draft,
//!   gives other numbers to all messages, hence the version in the path.
//! - [`Client`] is the device's side, with sleep. It has one request at a time, and needs little
//!   memory.
//! - [`Gateway`] makes each device a client of an MQTT server.
//!
//! ```text
//!  Client ◄─ datagrams ─► Gateway: a client machine of 3.1.1 for each device ◄─ bytes ─► server
//! ```
//!
//! The gateway has no rule of an MQTT session of its own: each device drives a
//! [`client::Client`](crate::client::Client), whose bytes the host carries. Over TCP the server
//! can be any broker. A host of [`Broker`](crate::broker::Broker) passes the bytes to it in memory.
//! In the repository, `hosts/sn-gateway` does the first, and `broker --sn` the second.
//!
//! # Delivery
//!
//! A message with QoS 1 or 2 is acknowledged to its sender when the receiver has acknowledged it,
//! in both directions. `testkit/src/sn/simulation.rs` shows, over a network that loses, copies and
//! reorders datagrams, with devices that sleep and restart, that QoS 1 arrives at least once and
//! QoS 2 exactly once. Two things bound this:
//!
//! - A copy of a datagram must arrive within the duplicate window, 5 seconds by default, and at
//!   most 16 exchanges later. MQTT-SN cannot tell an older copy from a new message.
//! - A device that restarts without its memory can receive a message again.
//!
//! # Security
//!
//! MQTT-SN 1.2 has no encryption and no authentication. Use DTLS or a tunnel below it, and give the
//! gateway no more rights at the server than any of its devices can have.
//!
//! A citation such as `[SN §6.14]` is a section of the specification, Version 1.2 of November 14,
//! 2013.

pub mod client;
mod gateway;
mod hash;
mod recent;
mod time;
pub mod v1_2;

pub use client::Client;
pub use gateway::{Destination, Event, Gateway, GatewayConfig, GatewayStats, Link, State};
pub use time::Retry;
