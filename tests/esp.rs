//! ESP packets: against other implementations, against hostile ones, and at the end of an SA's life.
#![allow(
    clippy::indexing_slicing,
    reason = "an index out of bounds fails the test"
)]

#[path = "esp/flows.rs"]
mod flows;
#[path = "esp/headers.rs"]
mod headers;
#[path = "esp/hostile.rs"]
mod hostile;
#[path = "esp/lifetime.rs"]
mod lifetime;
#[path = "esp/support.rs"]
mod support;
#[path = "esp/transport.rs"]
mod transport;
#[path = "esp/vectors.rs"]
mod vectors;
