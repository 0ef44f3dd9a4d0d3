//! The load: TCP bulk transfers and a round-trip probe between two namespaces.

mod bulk;
mod probe;

use std::{
    io::{self, ErrorKind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

pub use bulk::{Bulk, Transfer};
pub use probe::{Probe, RoundTrips};

/// What every payload consists of, so that a listener recognises it in clear.
pub const MARKER: &[u8] = b"lockgate clear text ";

/// Payload bits per nanosecond.
#[must_use]
pub fn gigabits_per_second(bytes: u64, time: Duration) -> f64 {
    // Precision beyond 2^53 bytes or nanoseconds is of no interest here.
    bytes as f64 * 8.0 / (time.as_nanos().max(1) as f64)
}

/// Tells threads to end when it goes away.
#[derive(Debug)]
pub struct StopOnDrop(pub Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

fn joined<T>(thread: JoinHandle<io::Result<T>>) -> io::Result<T> {
    thread
        .join()
        .map_err(|_| io::Error::other("a traffic thread panicked"))?
}
