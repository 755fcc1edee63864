#![no_main]

use testkit::sn;

libfuzzer_sys::fuzz_target!(|data: &[u8]| sn::codec(data));
