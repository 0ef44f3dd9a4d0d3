//! TCP bulk transfer.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{MARKER, gigabits_per_second, joined};
use crate::io::netns::Namespace;

/// How much one transfer moved and how long that took at the receiver.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// Bytes of TCP payload received.
    pub bytes: u64,
    /// From the first byte to the last.
    pub time: Duration,
}

impl Transfer {
    /// Payload bits per nanosecond.
    #[must_use]
    pub fn gigabits_per_second(&self) -> f64 {
        gigabits_per_second(self.bytes, self.time)
    }
}

/// A transfer in progress.
#[derive(Debug)]
pub struct Bulk {
    received: Arc<AtomicU64>,
    sender: JoinHandle<io::Result<io::Result<()>>>,
    receiver: JoinHandle<io::Result<io::Result<Transfer>>>,
}

impl Bulk {
    /// Sends from `from` to `address` in `to` for `time`, or until `stop`.
    pub fn start(
        from: &Namespace,
        to: &Namespace,
        address: SocketAddr,
        time: Duration,
        stop: &Arc<AtomicBool>,
    ) -> io::Result<Self> {
        let listener = to.run(move || TcpListener::bind(address))?;
        let received = Arc::new(AtomicU64::new(0));
        let (counter, stop) = (Arc::clone(&received), Arc::clone(stop));
        let receiver = to.thread(move || receive_all(&listener, &counter))?;
        let sender = from.thread(move || send_for(address, time, &stop))?;
        Ok(Self {
            received,
            sender,
            receiver,
        })
    }

    /// Bytes received so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Whether [`Self::finish`] would not wait.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.sender.is_finished() && self.receiver.is_finished()
    }

    /// Waits for both ends.
    pub fn finish(self) -> io::Result<Transfer> {
        joined(self.sender)??;
        joined(self.receiver)?
    }
}

fn send_for(address: SocketAddr, time: Duration, stop: &AtomicBool) -> io::Result<()> {
    let block = MARKER.repeat(BLOCK / MARKER.len());
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let start = Instant::now();
    while start.elapsed() < time && !stop.load(Ordering::Relaxed) {
        stream.write_all(&block)?;
    }
    Ok(())
}

fn receive_all(listener: &TcpListener, received: &AtomicU64) -> io::Result<Transfer> {
    let mut stream = accept(listener)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut block = vec![0; BLOCK];
    let mut bytes = stream.read(&mut block)? as u64;
    let start = Instant::now();
    loop {
        received.store(bytes, Ordering::Relaxed);
        match stream.read(&mut block)? {
            0 => {
                return Ok(Transfer {
                    bytes,
                    time: start.elapsed(),
                });
            }
            length => bytes += length as u64,
        }
    }
}

/// `accept` that gives up.
fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    listener.set_nonblocking(true)?;
    let start = Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock && start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error),
        }
    }
}

const BLOCK: usize = 256 << 10;
/// A stall this long ends the transfer with an error.
const PATIENCE: Duration = Duration::from_secs(5);
