//! A link between two namespaces, and what is sent over it.

use std::net::IpAddr;

use lockgate::io::burst::{Flows, Transmit, TransmitBurst};
use lockgate::io::netns::{Namespace, connect};

/// Two namespaces with a link of MTU 1400 between them.
pub(crate) fn pair() -> (Namespace, Namespace) {
    let here = Namespace::new("here").expect("a namespace");
    let there = Namespace::new("there").expect("a namespace");
    connect((&here, "wire"), (&there, "wire"), 1400).expect("a link");
    here.add_address("wire", "192.0.2.1/24".parse().expect("literal"))
        .expect("an address");
    there
        .add_address("wire", "192.0.2.2/24".parse().expect("literal"))
        .expect("an address");
    (here, there)
}

/// Adds a datagram to a burst that has room for it.
pub(crate) fn push(burst: &mut TransmitBurst, transmit: Transmit, bytes: &[u8]) {
    let pushed = burst.push::<()>(transmit, Flows::ANY, bytes.len(), |buffer| {
        buffer.copy_from_slice(bytes);
        Ok(())
    });
    pushed.expect("there is room");
}

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().expect("literal")
}
