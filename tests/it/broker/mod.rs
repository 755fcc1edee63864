//! The rules of the two standards for a broker, seen from its clients. Each test plays a scenario
//! with packets fed whole, byte by byte, and cut in two at each position. The rules of 3.1.1 stand
//! in where 3.1 is silent.
mod beginnings;
mod client_limits;
mod delivery;
mod durable;
mod expiry;
mod figures;
mod grants;
mod hosts;
mod nodes;
mod program;
mod retained;
mod server_limits;
mod sessions;
mod shared;
mod sn;
mod sparkplug;
mod subscriptions;
mod support;
mod wills;

use beginnings::connect_bytes;
use core::cell::{Cell, RefCell};
use core::num::NonZeroU16;
use core::time::Duration;
use delivery::ALL_PROPERTIES;
use delivery::all_properties;
use delivery::user_properties;
use mqtt_sansio::Instant;
use mqtt_sansio::broker::{Admission, AnswerError, Broker, BrokerConfig};
use mqtt_sansio::codec::{
    Auth, AuthProperties, ConnackProperties, Connect, ConnectProperties, Disconnect,
    DisconnectProperties, Packet, Publish, PublishProperties, ReasonCode, RetainHandling,
    SubscriptionOptions, UserProperty, Version, Will, WillProperties,
};
use mqtt_sansio::server::ServerConfig;
use std::collections::{BTreeMap, BTreeSet};
use support::{
    C, Net, at, clean, each, expiring, kept, message, number_of, play, play_on, play_with, qos,
    show,
};
use testkit::wire::{VERSIONS, encoded, identifier};
use wills::ENDINGS;
use wills::end;

use Version::{V3_1, V3_1_1, V5_0};

const NONE: [&str; 0] = [];

/// Connects a 5.0 client that supports a test.
fn helper(net: &mut Net, name: &str) -> C {
    net.join(clean(V5_0, name))
}

/// Connects a client that receives all topics without `$` at their own QoS, in a clean session.
fn watcher(net: &mut Net) -> C {
    let watcher = helper(net, "watcher");
    net.subscribe(watcher, "#", 2);
    watcher
}

fn only<'a>(all: &'a [String], kind: &str) -> Vec<&'a str> {
    all.iter().map(String::as_str).filter(|shown| shown.contains(kind)).collect()
}
