//! The load: TCP in bulk, UDP at a rate and in search of the highest one, round trips.
//!
//! Each generator is a thread inside its host's namespace, and takes what there is of a core. What
//! comes out is counted where it arrives.

mod bulk;
mod open_loop;
mod pace;
mod probe;
mod stamp;
mod sweep;
mod udp;

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::io::netns::Namespace;

pub use bulk::{Bulk, Transfer, Window};
pub use open_loop::OpenLoop;
pub use probe::{Probe, RoundTrips};
pub use stamp::{Stamp, Tally};
pub use sweep::{Found, Sweep};
pub use udp::{UdpLoad, UdpTrial, udp_trial};

/// Where traffic goes from and to.
#[derive(Clone, Copy, Debug)]
pub struct Flow<'a> {
    /// The host that sends.
    pub from: &'a Namespace,
    /// The host that receives.
    pub to: &'a Namespace,
    /// The receiver's address and port.
    pub address: SocketAddr,
    /// The cores of both.
    pub cores: Cores,
}

/// Cores that the generators keep to; none leaves that to the scheduler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cores {
    /// The core of what sends.
    pub sender: Option<usize>,
    /// The core of what receives.
    pub receiver: Option<usize>,
}

impl Cores {
    fn pin_sender(self) -> io::Result<()> {
        pin(self.sender)
    }

    fn pin_receiver(self) -> io::Result<()> {
        pin(self.receiver)
    }
}

/// Has the path found and opened, links, addresses and tunnels, before anything counts: `send` sends
/// something now and then until it is `heard`, or the path has had its time.
fn greet(
    heard: &AtomicBool,
    stop: &AtomicBool,
    mut send: impl FnMut() -> io::Result<()>,
) -> io::Result<()> {
    let start = Instant::now();
    while !heard.load(Ordering::Relaxed)
        && !stop.load(Ordering::Relaxed)
        && start.elapsed() < GREETING
    {
        send()?;
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Ties the calling thread to a core.
fn pin(core: Option<usize>) -> io::Result<()> {
    let Some(core) = core else { return Ok(()) };
    if core >= CpuSet::MAX_CPU {
        return Err(ErrorKind::InvalidInput.into());
    }
    let mut cores = CpuSet::new();
    cores.set(core);
    Ok(sched_setaffinity(None, &cores)?)
}

/// What every payload consists of, so that a listener recognises it in clear.
pub const MARKER: &[u8] = b"lockgate clear text ";

/// Payload bits per nanosecond.
#[must_use]
pub fn gigabits_per_second(bytes: u64, time: Duration) -> f64 {
    // Precision beyond 2^53 bytes or nanoseconds is of no interest here.
    bytes as f64 * 8.0 / (time.as_nanos().max(1) as f64)
}

/// The whole part of a count that is not negative.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float is cut to the range of the integer"
)]
fn whole(count: f64) -> u64 {
    count as u64
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

/// A fresh link may take a second, and a tunnel a little more.
const GREETING: Duration = Duration::from_secs(3);
