#![no_main]

use testkit::broker;

libfuzzer_sys::fuzz_target!(|data: &[u8]| broker::run(data, &mut broker::Tally::default()));
