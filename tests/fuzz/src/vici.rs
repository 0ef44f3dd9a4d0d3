//! A stream of bytes on the control socket.

#![allow(clippy::indexing_slicing, reason = "a panic is how a target reports")]

use lockgate::wire::vici::{FrameReader, Packet};

pub(crate) fn run(stream: &[u8]) {
    let mut whole = FrameReader::new();
    whole.push(stream);
    let frames = drain(&mut whole);

    let mut split = FrameReader::new();
    let mut again = Vec::new();
    for bytes in stream.chunks(7) {
        split.push(bytes);
        again.extend(drain(&mut split));
    }
    assert_eq!(frames, again);

    for frame in frames {
        let Ok(packet) = Packet::parse(&frame) else {
            continue;
        };
        let segment = packet.encode();
        assert_eq!(segment[4..], frame);
    }
}

fn drain(reader: &mut FrameReader) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| reader.next_frame().ok().flatten()).collect()
}
