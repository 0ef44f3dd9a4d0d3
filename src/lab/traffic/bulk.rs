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

use super::{Cores, Flow, MARKER, gigabits_per_second, joined};
use crate::{
    io::netns::Namespace,
    lab::meter::{Meter, Usage},
};

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

/// A transfer over one or more streams, in progress.
#[derive(Debug)]
pub struct Bulk {
    received: Arc<[AtomicU64]>,
    senders: Vec<JoinHandle<io::Result<io::Result<()>>>>,
    receivers: Vec<JoinHandle<io::Result<io::Result<Transfer>>>>,
}

/// What a transfer moved while it was watched.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// What arrived.
    pub transfer: Transfer,
    /// What it cost.
    pub usage: Usage,
}

impl Window {
    /// Processor seconds of the watched processes for each gigabit that arrived.
    #[must_use]
    pub fn cpu_seconds_per_gigabit(&self) -> f64 {
        self.usage.cpu_s / (self.transfer.bytes.max(1) as f64 * 8e-9)
    }
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
        let cores = Cores::default();
        let flow = Flow {
            from,
            to,
            address,
            cores,
        };
        Self::start_streams(&flow, 1, time, stop)
    }

    /// Sends over `streams` connections at once for `time`, or until `stop`. Each end of each has a
    /// thread of its own.
    pub fn start_streams(
        flow: &Flow<'_>,
        streams: usize,
        time: Duration,
        stop: &Arc<AtomicBool>,
    ) -> io::Result<Self> {
        let (address, cores) = (flow.address, flow.cores);
        let listener = flow.to.run(move || TcpListener::bind(address))?;
        let received: Arc<[AtomicU64]> = (0..streams).map(|_| AtomicU64::new(0)).collect();
        let mut bulk = Self {
            received: Arc::clone(&received),
            senders: Vec::new(),
            receivers: Vec::new(),
        };
        for stream in 0..streams {
            let (counters, listener) = (Arc::clone(&received), listener.try_clone()?);
            bulk.receivers.push(flow.to.thread(move || {
                cores.pin_receiver()?;
                let nowhere = AtomicU64::new(0);
                receive_all(&listener, counters.get(stream).unwrap_or(&nowhere))
            })?);
            let stop = Arc::clone(stop);
            bulk.senders.push(flow.from.thread(move || {
                cores.pin_sender()?;
                send_for(address, time, &stop)
            })?);
        }
        Ok(bulk)
    }

    /// Bytes received so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        let counters = self.received.iter();
        counters.map(|bytes| bytes.load(Ordering::Relaxed)).sum()
    }

    /// Whether [`Self::finish`] would not wait.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.senders.iter().all(JoinHandle::is_finished)
            && self.receivers.iter().all(JoinHandle::is_finished)
    }

    /// Lets `warm_up` pass from the first byte on, then watches the transfer for `time`, or until `stop`, together with
    /// what `processes` use meanwhile.
    pub fn watch(
        &self,
        warm_up: Duration,
        time: Duration,
        processes: &[u32],
        stop: &AtomicBool,
    ) -> io::Result<Window> {
        let begin = Instant::now();
        while self.received() == 0 && begin.elapsed() < PATIENCE {
            self.wait(Duration::from_millis(1), stop);
        }
        self.wait(warm_up, stop);
        let meter = Meter::start(processes)?;
        let (start, before) = (Instant::now(), self.received());
        self.wait(time, stop);
        let transfer = Transfer {
            bytes: self.received() - before,
            time: start.elapsed(),
        };
        let usage = meter.read()?;
        Ok(Window { transfer, usage })
    }

    /// Waits for all ends. The time is that of the stream that took longest.
    pub fn finish(self) -> io::Result<Transfer> {
        let mut whole = Transfer {
            bytes: 0,
            time: Duration::ZERO,
        };
        let sent: Vec<_> = self.senders.into_iter().map(joined).collect();
        let received: Vec<_> = self.receivers.into_iter().map(joined).collect();
        for sender in sent {
            sender??;
        }
        for receiver in received {
            let one = receiver??;
            whole.bytes += one.bytes;
            whole.time = whole.time.max(one.time);
        }
        Ok(whole)
    }

    fn wait(&self, time: Duration, stop: &AtomicBool) {
        let start = Instant::now();
        while start.elapsed() < time && !stop.load(Ordering::Relaxed) && !self.is_finished() {
            std::thread::sleep(TICK.min(time.saturating_sub(start.elapsed())));
        }
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

/// How often a watcher looks whether it is to stop.
const TICK: Duration = Duration::from_millis(50);
const BLOCK: usize = 256 << 10;
/// A stall this long ends the transfer with an error.
const PATIENCE: Duration = Duration::from_secs(5);
