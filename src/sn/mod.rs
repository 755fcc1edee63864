//! MQTT-SN 1.2: MQTT for devices on UDP and radio, which lose, repeat and reorder datagrams.
//!
//! [`v1_2`] is the codec: datagrams to messages and back. MQTT-SN 2.0, a committee draft, gives
//! other numbers to all messages, hence the version in the path.
//!
//! A citation such as `[SN §6.14]` is a section of the specification, Version 1.2 of November 14,
//! 2013.

pub mod client;
mod gateway;
mod hash;
mod time;
pub mod v1_2;

pub use client::Client;
pub use gateway::{Destination, Event, Gateway, GatewayConfig, GatewayStats, Link, State};
pub use time::Retry;
