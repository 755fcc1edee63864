//! The same program with both libraries: it publishes ten readings with QoS 1, counts the ones that
//! the server acknowledges and the ones that come back to its subscription, and survives a lost
//! connection and a server that has forgotten the subscription.

pub mod ours;
pub mod rumqttc;

pub const SOURCES: [&str; 2] = [include_str!("ours.rs"), include_str!("rumqttc.rs")];
