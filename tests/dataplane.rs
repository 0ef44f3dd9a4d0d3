//! The data plane: two gateways' packet paths back to back, then with threads, TUN and sockets.
#![allow(
    clippy::indexing_slicing,
    reason = "an index out of bounds fails the test, as it should"
)]

#[path = "dataplane/acquires.rs"]
mod acquires;
#[path = "dataplane/flow.rs"]
mod flow;
#[path = "dataplane/gateway.rs"]
mod gateway;
#[path = "dataplane/handed_over.rs"]
mod handed_over;
#[path = "dataplane/hostile.rs"]
mod hostile;
#[path = "dataplane/mix.rs"]
mod mix;
#[path = "dataplane/offload.rs"]
mod offload;
#[path = "dataplane/offloads.rs"]
mod offloads;
#[path = "dataplane/packets.rs"]
mod packets;
#[path = "dataplane/path_mtu.rs"]
mod path_mtu;
#[path = "dataplane/settling.rs"]
mod settling;
#[path = "dataplane/sites.rs"]
mod sites;
#[path = "dataplane/sockets.rs"]
mod sockets;
#[path = "dataplane/supers.rs"]
mod supers;
mod support;
#[path = "dataplane/threads.rs"]
mod threads;
#[path = "dataplane/trains.rs"]
mod trains;
#[path = "dataplane/transport.rs"]
mod transport;
#[path = "dataplane/waiting.rs"]
mod waiting;
#[path = "dataplane/workers.rs"]
mod workers;
