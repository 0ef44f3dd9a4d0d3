#![no_main]

#[path = "../../offload/packets.rs"]
mod packets;
#[path = "../../offload/reference.rs"]
mod reference;
#[path = "../src/merge.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::run(data));
