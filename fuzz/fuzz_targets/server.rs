#![no_main]

use testkit::machines;

libfuzzer_sys::fuzz_target!(|data: &[u8]| machines::server(data, &mut machines::Tally::default()));
