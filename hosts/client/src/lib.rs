//! An MQTT client on tokio, for 3.1, 3.1.1 and 5.0.
//!
//! ```no_run
//! use mqtt_sansio_client::Client;
//! use mqtt_sansio_client::codec::{Publish, QoS};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect("mqtt://localhost").await?;
//! let mut messages = client.subscribe("room/+", QoS::AtLeastOnce).await?;
//! client.publish(Publish::new("room/4", b"21.5")).await?;
//! let message = messages.recv().await.ok_or("the client was closed")?;
//! println!("{} {}", message.topic(), String::from_utf8_lossy(message.payload()));
//! # Ok(())
//! # }
//! ```
//!
//! The protocol is implemented by [`mqtt_sansio::client`], a state machine without I/O. This crate
//! adds sockets, timers and one task for each client, which ends with the last [`Client`].
//!
//! - **It reconnects**, with growing and random delays ([`Options::backoff`]). The session is
//!   resumed if the server still has it. If not, the client subscribes again, and publishes what
//!   was in flight with QoS 1 again.
//! - **Each publish has an outcome**, the [`Delivery`], which survives reconnects. Waiting for it
//!   is optional.
//! - **Everything is bounded.** [`Client::publish`] waits while the queue is full, online and
//!   offline. A [`Messages`] stream that is not read makes the client stop reading its socket.
//! - **Packets are those of [`codec`]**: each property of each packet can be sent and received.
//!   [`Options::with`] takes a whole [`Connect`](codec::Connect), with a will, for instance.
//! - **A file keeps the session** ([`Options::store`]), so that QoS 2 is exactly once over restarts
//!   of the program.
//! - TCP, TLS, WebSocket and Unix sockets are chosen by the URL, see [`Options::new`]. Any other
//!   transport is a function, see [`Options::transport`].
//!
//! The [guide] has a page for each common task, pages for users of rumqttc and paho, and a
//! cookbook.
//!
//! # Cancel safety
//!
//! Each future of this crate, except for one, can be dropped at any time, in `select!` for
//! instance. Tests drop them after each number of polls.
//!
//! | future | if it is dropped |
//! |---|---|
//! | [`Client::publish`] | the message was not queued; with a [store](Options::store), it can be |
//! | [`Delivery`] | the message is still sent |
//! | [`Messages::recv`] | no message is lost |
//! | [`Client::subscribe`] | the server can have the subscription, whose messages are discarded |
//! | [`Client::unsubscribe`] | the streams end, and the request is sent |
//! | [`Client::requester`] | as with [`Client::subscribe`] |
//! | [`Client::reauthenticate`] | the exchange continues |
//! | [`Messages::answer`] | the answer is lost; this future must be kept |
//! | [`Client::flush`], [`Client::closed`] | nothing changes |
//! | [`Client::disconnect`] | the connection ends in the background |
//! | [`Requester::request`] | a response that still arrives is discarded |
//!
//! # Log
//!
//! The crate has events of `tracing`: `info` for each connection that ends, `debug` for its steps.
//! In a program without a subscriber of `tracing` they are records of `log`.
//!
//! # Features
//!
//! `tls` and `websocket`, both on by default, add these transports.

mod client;
mod clock;
mod core;
mod delivery;
mod driver;
mod error;
#[cfg(any(doc, doctest))]
pub mod guide;
mod messages;
mod options;
mod queue;
mod redirection;
mod request;
mod shared;
mod store;
mod transport;
#[cfg(feature = "websocket")]
mod websocket;

pub use client::Client;
pub use delivery::{Answer, Delivery};
pub use driver::Status;
pub use error::{DeliveryError, Ended, PublishError, RequestError, StartError, UrlError};
pub use messages::{Message, Messages};
pub use options::Options;
pub use redirection::ServerReference;
pub use request::Requester;
pub use transport::Transport;

pub use mqtt_sansio::client::ClientConfig;
pub use mqtt_sansio::codec;
#[cfg(feature = "tls")]
pub use tokio_rustls::rustls;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
