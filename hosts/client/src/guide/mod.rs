//! The guide: one page for each common task of a client.
//!
//! Each page begins with the shortest program, and then gives the reasons. Every program on these
//! pages is compiled and run by the tests, against a broker in the same process.
//!
//! | I want | page |
//! |---|---|
//! | to publish and to receive | [my first client](first_client) |
//! | to survive lost connections | [reconnect and resubscribe](reconnect) |
//! | to lose nothing when my program is restarted | [exactly once](exactly_once) |
//! | to keep memory bounded | [back-pressure and limits](back_pressure) |
//! | encryption, or a port that firewalls let through | [TLS and WebSocket](tls_and_websocket) |
//! | to port a program | [coming from rumqttc](from_rumqttc), [coming from paho](from_paho) |
//! | one small thing | [cookbook] |
//!
//! The library `mqtt-sansio`, on which this crate is built, has a guide of its own: brokers,
//! clients without tokio or without an operating system, security, versions, testing and fuzzing.
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
    first_client reconnect exactly_once back_pressure tls_and_websocket from_rumqttc from_paho
    cookbook
}
