#![no_main]

#[path = "../src/isakmp_v1.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::run(data));
