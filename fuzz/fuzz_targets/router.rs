#![no_main]

use testkit::properties;

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::router(data));
