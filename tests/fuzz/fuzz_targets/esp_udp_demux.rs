#![no_main]

#[path = "../src/esp_udp_demux.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::run(data));
