//! The guide: one page for each common task.
//!
//! Each page begins with the shortest program, and then gives the reasons. Every program on these
//! pages is compiled and run by the tests.
//!
//! | I want | page |
//! |---|---|
//! | to connect, subscribe and publish with my own loop | [my first client](first_client) |
//! | a broker in my program | [my first broker](first_broker) |
//! | to survive lost connections and restarts | [sessions] |
//! | to keep memory bounded | [back-pressure and limits](limits) |
//! | TLS or WebSocket | [transports] |
//! | a device without an operating system | [without an OS](no_std) |
//! | to serve clients that I do not know | [security and denial of service](security) |
//! | to talk to old and new peers | [3.1.1 and 5.0 side by side](versions) |
//! | to port a program | [coming from mqtt-protocol-core](from_mqtt_protocol_core) |
//! | to test or fuzz my own client, broker or decoder | [testing and fuzzing](testing) |
//! | one small thing | [cookbook] |
//!
//! The package `mqtt-sansio-client` is a ready client on tokio. Its own `guide` has a first client,
//! reconnecting, exactly-once delivery over restarts, back-pressure, TLS and WebSocket, and pages
//! for users of rumqttc and paho.
//!
//! This module exists in the documentation only. It adds no code to a program.

macro_rules! pages {
    ($($name:ident)*) => {
        $(
            #[doc = include_str!(concat!(stringify!($name), ".md"))]
            pub mod $name {}
        )*
    };
}

pages! {
    first_client first_broker sessions limits transports no_std security versions
    from_mqtt_protocol_core testing cookbook
}
