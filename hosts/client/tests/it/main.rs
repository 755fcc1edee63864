//! The library and the program as their users run them, against mosquitto and against the broker
//! program of this repository. If mosquitto is not installed, its tests print SKIPPED and pass; in
//! CI they fail.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic")]

mod authentication;
mod cancellation;
mod connection;
mod inspect;
mod manual;
mod program;
mod readme;
mod redirection;
mod requests;
mod restarts;
mod simulation;
mod store;
mod support;
mod transports;
