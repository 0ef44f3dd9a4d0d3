//! One datagram on port 4500.

#![allow(clippy::indexing_slicing, reason = "a panic is how a target reports")]

use lockgate::wire::esp::{Demux, EspHeader, NON_ESP_MARKER, demux_udp_encap};
use lockgate::wire::isakmp::{Header, PayloadChain};

pub(crate) fn run(datagram: &[u8]) {
    match demux_udp_encap(datagram) {
        Ok(Demux::Esp) => {
            if let Ok(header) = EspHeader::parse(datagram) {
                assert_ne!(header.spi, 0);
                assert_eq!(header.encode(), datagram[..EspHeader::LEN]);
            }
        }
        Ok(Demux::Ike) => {
            let message = datagram
                .strip_prefix(&NON_ESP_MARKER)
                .expect("IKE has the marker");
            if let Ok((header, payloads)) = Header::parse(message) {
                let chain = PayloadChain::new(header.next_payload, payloads);
                assert!(chain.count() <= PayloadChain::MAX + 1);
            }
        }
        Ok(Demux::Keepalive) => assert_eq!(datagram, [0xff]),
        Err(_) => assert!(datagram.len() < 4),
    }
}
