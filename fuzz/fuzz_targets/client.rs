#![no_main]

use testkit::machines;

libfuzzer_sys::fuzz_target!(|data: &[u8]| machines::client(data, &mut machines::Tally::default()));
