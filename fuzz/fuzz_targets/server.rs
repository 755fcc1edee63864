#![no_main]

#[path = "../machines/mod.rs"]
mod machines;

libfuzzer_sys::fuzz_target!(|data: &[u8]| machines::server(data, &mut machines::Tally::default()));
