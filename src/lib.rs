//! MQTT 3.1, 3.1.1 and 5.0 without I/O: a codec, the two ends of a connection, and a broker, as
//! functions and state machines that any runtime and any transport can drive.
//!
//! ```
//! use mqtt_sansio::client::{Action, Client, ClientConfig};
//! use mqtt_sansio::codec::{Connect, Publish, QoS, Version};
//! use mqtt_sansio::Instant;
//!
//! let now = Instant::from_millis(0); // your clock
//! let mut client = Client::new(ClientConfig::new());
//! let mut out = Vec::new(); // to be written to your socket
//! client.connect(&Connect { keep_alive: 30, ..Connect::new(Version::V5_0, "sensor-4") }, now, &mut out)?;
//!
//! let mut input = &[0x20, 0x03, 0x00, 0x00, 0x00][..]; // read from your socket: CONNACK
//! while let Some(action) = client.handle_input(&mut input, now, &mut out) {
//!     match action {
//!         Action::Connected(_) => {
//!             let reading = Publish { qos: QoS::AtLeastOnce, ..Publish::new("room/4/temperature", b"21.5") };
//!             client.publish(1, &reading, now, &mut out)?; // ends with `Action::Published` under the key 1
//!         }
//!         Action::Closed(cause) => println!("closed: {}", cause.reason_code()),
//!         other => println!("{other:?}"),
//!     }
//! }
//! assert_eq!(client.poll_timeout(), Some(Instant::from_millis(30_000))); // when a PINGREQ is due
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is not here
//!
//! Sockets, TLS, WebSocket framing, async runtimes, threads, reconnect timers, configuration files.
//! The host owns them; the programs in `examples/` are complete hosts.
//!
//! # Layers
//!
//! ```text
//!  host    sockets, clocks, buffers, randomness, storage
//! ──────────────────────────────────────────────────────────────────────────────────────────
//!  broker    many sessions: who may in, who gets what, wills, sessions of clients that are away
//!  router    subscription index, retained messages                (usable without the broker)
//!  client    one connection's end, client rules   ┐ siblings;
//!  server    one connection's end, server rules   ┘ neither knows the other
//!  session   what survives a connection: messages on their way, packet identifiers
//!  codec     bytes to packets and back: pure functions, no state
//! ```
//!
//! Arrows only point down, and each layer is usable without those above it. A PUBLISH with QoS 1
//! through all of them:
//!
//! ```text
//!  read buffer ─► codec::frame ─► Publish<'_>, a view of the buffer
//!                                    │
//!  server (publisher) ◄──────────────┘ topic alias, Receive Maximum, repeats
//!      │ Action::Message
//!      ▼
//!  broker ─► router: which sessions ─► one Message, one allocation, shared
//!      │                                  │
//!      │ acknowledge                      ▼ queue of each session
//!      ▼                               server (subscriber) ─► PUBLISH ─► its `out`
//!  PUBACK ─► publisher's `out`
//! ```
//!
//! # The run loop
//!
//! Each machine takes one step at a time: bytes and a timestamp in, replies appended to the
//! caller's `out`, and at most one action, for what only the host can do. The host reads into its
//! buffer, steps until there is no action, drops what was consumed, writes `out`, and calls
//! `handle_timeout` at `poll_timeout`. [`Client`](client::Client), [`Server`](server::Server) and
//! [`Broker`](broker::Broker) open with the loop and its contract:
//!
//! - An incomplete packet stays with the host. Nothing of the input is kept.
//! - An action borrows the input and not the machine, so commands can be called while one is held.
//! - The end of a connection is an action, the last one, and never an error: what was written to
//!   `out` before it is written to the socket first.
//! - Errors are returned by commands alone. They say what the caller asked that cannot be; nothing
//!   was written, and the connection goes on.
//! - Time is an argument, in milliseconds from an epoch of the host's choice ([`Instant`]). Nothing
//!   ticks.
//! - A call can be dropped between any two steps; there is nothing to cancel.
//!
//! # Limits
//!
//! Whatever a peer can make grow has a limit, finite by default: the size of a packet (judged from
//! its header, before the rest is there; smaller before CONNECT), messages under way in both
//! directions, messages and bytes that wait, topic aliases, unanswered requests, time for CONNECT;
//! in the broker also sessions, subscriptions of a session and retained messages. Reaching one gets
//! the reason code that the standard has for it. Nothing is allocated because a peer announces it.
//!
//! # Panics
//!
//! No input, and no order of calls, makes this crate panic; a panic is a bug. `unsafe` code is
//! forbidden, and so are indexing and narrowing casts, by lints.
//!
//! # Conformance
//!
//! Each rule that a single packet can break is checked by the codec, in both directions, and named
//! by its error; the wire vectors in `spec-vectors/` show each of them. A citation as `[5.0
//! MQTT-3.3.1-4]` is a statement of that version of the standard.
//!
//! `spec-vectors/CONFORMANCE.md` lists all 392 statements of 3.1.1 and 5.0 with the tests that show
//! them, and the gaps. What devices in the field need to be let pass is an
//! [option](codec::Options), off by default.
//!
//! Known gaps:
//! - The broker has no shared subscriptions (CONNACK says so), no enhanced authentication (refused
//!   with 0x8C; the two machines have it), no authorisation of single messages, no durability, no
//!   `$SYS` topics.
//! - The lookup of retained messages for a filter with wildcards looks at all topics below its
//!   first levels.
//! - Encoding checks and measures what it writes, and so is slower than the encoders that do not;
//!   [`Prepared`](codec::Prepared) does that once for what is written often.
//!
//! # Features
//!
//! - `std` (default): `Clock`, which reads the clock of `std`. Without this feature the crate is
//!   `no_std` + `alloc`. The target needs atomics with compare-and-swap of pointer width: messages
//!   and topics are shared by reference count. Cortex-M3 has them, Cortex-M0 does not.
//! - `arbitrary`: `arbitrary::Arbitrary` for every packet, for fuzzing what is built on the crate.
//! - `serde`: `Serialize` and `Deserialize` for [`Session`](session::Session), in its [byte
//!   format](session::stored).
//!
//! The minimum supported Rust version is 1.85.

#![cfg_attr(not(test), no_std)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic"))]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

pub mod broker;
pub mod client;
pub mod codec;
pub mod router;
pub mod server;
pub mod session;
mod time;

#[cfg(feature = "std")]
pub use time::Clock;
pub use time::Instant;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
