//! MQTT 3.1, 3.1.1 and 5.0 without I/O: a codec, the two ends of a connection, and a broker core,
//! as functions and state machines that any runtime and any transport can drive.
//!
//! ```
//! use mqtt_sansio::Instant;
//! use mqtt_sansio::client::{Action, Client, ClientConfig};
//! use mqtt_sansio::codec::{Connect, Publish, QoS, Version};
//!
//! let now = Instant::from_millis(0); // from your clock
//! let mut client = Client::new(ClientConfig::new());
//! let mut out = Vec::new(); // to be written to your socket
//! let connect = Connect { keep_alive: 30, ..Connect::new(Version::V5_0, "sensor-4") };
//! client.connect(&connect, now, &mut out)?;
//!
//! let mut input = &[0x20, 0x03, 0x00, 0x00, 0x00][..]; // read from your socket: a CONNACK
//! while let Some(action) = client.handle_input(&mut input, now, &mut out) {
//!     match action {
//!         Action::Connected(_) => {
//!             let payload = b"21.5";
//!             let reading = Publish { qos: QoS::AtLeastOnce, ..Publish::new("room/4", payload) };
//!             client.publish(1, &reading, now, &mut out)?; // `Action::Published` will follow
//!         }
//!         Action::Closed(cause) => println!("closed: {cause}"),
//!         other => println!("{other:?}"),
//!     }
//! }
//! assert_eq!(client.poll_timeout(), Some(Instant::from_millis(30_000))); // when a PINGREQ is due
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! The [guide] has a page for each common task: a first client, a first broker, restarts, limits,
//! security, testing, and a cookbook.
//!
//! # Not included
//!
//! Sockets, TLS, WebSocket framing, async runtimes, threads, reconnect timers and configuration
//! files belong to the host. `hosts/broker` and `hosts/client` are complete hosts.
//!
//! # Layers
//!
//! ```text
//!  host      sockets, clocks, buffers, randomness, storage
//! ──────────────────────────────────────────────────────────────────────────────────────────
//!  bridge    messages of one broker become messages of another: a client of both
//!  sn        MQTT-SN: codec, device, and a gateway to clients      (with the feature `sn`)
//!  broker    many sessions: which client gets which message, wills, absent clients
//!  router    subscription index, retained messages                (usable without the broker)
//!  client    one connection's end, client rules   ┐ siblings;
//!  server    one connection's end, server rules   ┘ neither knows the other
//!  session   messages in flight, packet identifiers; the exchange that both ends share
//!  codec     bytes to packets and back: pure functions, no state
//! ```
//!
//! A module imports only from layers below it, and each layer is usable without those above it.
//! This is the way of a QoS 1 PUBLISH through a broker:
//!
//! ```text
//!  read buffer ─► codec::frame ─► Publish<'_>, a view of the buffer
//!                                    │
//!  server (publisher) ◄──────────────┘ topic alias, limits, Receive Maximum
//!      │ Action::Message
//!      ▼
//!  broker ─► router: which sessions receive it
//!      │
//!      ├─ one Message, shared ─► session (subscriber): queue ─► server ─► PUBLISH ─► transmit
//!      │
//!      └─ acknowledge ─► server (publisher) ─► PUBACK ─► transmit
//! ```
//!
//! # The run loop
//!
//! A machine takes **one step** at a time and returns **at most one action**. Bytes and a timestamp
//! go in. Replies are appended to the caller's `out`. An action is something that only the host can
//! do or needs to know. The host reads into its buffer, steps until there is no action, drops the
//! consumed bytes, writes `out`, and calls `handle_timeout` at `poll_timeout`. The documentation of
//! [`Client`](client::Client) and [`Server`](server::Server) begins with this loop. A
//! [`Broker`](broker::Broker) runs many servers, so its loop differs: it consumes all packets of
//! the input, and all output leaves through `transmit`. The contract of a machine:
//!
//! - An incomplete packet stays with the host. The machine keeps no input.
//! - An action borrows the input, not the machine, so commands can be called while one is held.
//! - The end of a connection is the last action, and never an error: `out` still holds packets that
//!   the host must write first.
//! - Only commands return errors. Then nothing was written and the connection is unaffected, unless
//!   the documentation of the error says otherwise.
//! - Time is an argument: milliseconds from an epoch that the host chooses ([`Instant`]). A clock
//!   that steps back is treated as standing still.
//! - A host can stop between any two steps; there is nothing to cancel.
//!
//! # Limits
//!
//! Everything that a peer can make grow has a finite default limit:
//!
//! - the size of a packet, judged from its header before the rest arrives, and smaller before
//!   CONNECT is accepted;
//! - messages in flight in both directions, and messages and bytes that wait;
//! - topic aliases, and requests that the host has not answered;
//! - the time for CONNECT, and the time that the host has to answer one;
//! - in the broker: sessions, subscriptions of a session, retained messages.
//!
//! Exceeding a limit is answered with the reason code of the standard. Memory is never allocated
//! because a peer announces a size.
//!
//! # Panics
//!
//! No input and no order of calls makes this crate panic. A panic is a bug. `unsafe` code is
//! forbidden; lints forbid indexing and narrowing casts.
//!
//! # Conformance
//!
//! The codec checks each rule that a single packet can break, in both directions, and its error
//! names the rule. The wire vectors in `spec-vectors/` show each rule. A citation such as
//! `[5.0 MQTT-3.3.1-4]` is a statement of that version of the standard.
//!
//! `spec-vectors/CONFORMANCE.md` lists the 392 statements of 3.1.1 and 5.0 with the tests that show
//! them, and the gaps. Deviations that deployed devices rely on can be tolerated through
//! [`Options`](codec::Options). All are off by default.
//!
//! Known gaps:
//! - A shared subscription has a group of its own at each [node](broker#other-nodes), unless the
//!   [host chooses](broker::BrokerConfig::groups_span_nodes) the members.
//! - A PUBLISH is matched and handed to all its subscribers in one call, however many they are.
//! - Encoding checks a string that is given as a `&str` each time. A [`Text`](codec::Text) that was
//!   checked when it was made, or decoded, is only copied.
//!
//! # Features
//!
//! - `std` (default): `Clock`, which reads the clock of `std`. Without this feature the crate is
//!   `no_std` + `alloc`. Messages and topics are shared by reference count. A target without
//!   compare-and-swap, such as Cortex-M0, counts with `portable-atomic`: the program enables one of
//!   its features, such as `critical-section`.
//! - `arbitrary`: `arbitrary::Arbitrary` for every packet, and `codec::Malformed`, for fuzzing
//!   programs built on the crate and other decoders.
//! - `serde`: `Serialize` for [`Packet`](codec::Packet), as a map for logs without secrets;
//!   `Serialize` and `Deserialize` for small values, for [`OwnedPacket`](codec::OwnedPacket) with
//!   its rules, and for [`Session`](session::Session) and [`Message`](session::Message) in their
//!   [byte format](session::stored).
//! - `sn`: MQTT-SN 1.2, for devices on UDP and radio.
//!
//! The minimum supported Rust version is 1.85.

#![cfg_attr(not(test), no_std)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic"))]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

pub mod bridge;
pub mod broker;
pub mod client;
pub mod codec;
#[cfg(any(doc, doctest))]
pub mod guide;
pub mod router;
pub mod server;
pub mod session;
#[cfg(feature = "sn")]
pub mod sn;
mod sync;
mod time;

#[cfg(feature = "std")]
pub use time::Clock;
pub use time::Instant;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
