//! The load: a TCP bulk transfer and a round-trip probe between two namespaces.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use crate::io::netns::Namespace;

/// What every payload consists of, so that a listener recognises it in clear.
pub const MARKER: &[u8] = b"lockgate clear text ";

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

/// Payload bits per nanosecond.
#[must_use]
pub fn gigabits_per_second(bytes: u64, time: Duration) -> f64 {
    // Precision beyond 2^53 bytes or nanoseconds is of no interest here.
    bytes as f64 * 8.0 / (time.as_nanos().max(1) as f64)
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

/// What a probe learned.
#[derive(Clone, Debug)]
pub struct RoundTrips {
    /// Nanoseconds of each answered probe.
    pub histogram: Histogram<u64>,
    /// Probes without an answer.
    pub lost: u64,
}

/// A probe in progress: one small UDP datagram at a time goes out and is echoed.
#[derive(Debug)]
pub struct Probe {
    stop: StopOnDrop,
    prober: JoinHandle<io::Result<io::Result<RoundTrips>>>,
    echo: JoinHandle<io::Result<io::Result<()>>>,
}

impl Probe {
    /// Probes from `from` to `address` in `to`, with `pause` between an answer and the next probe.
    pub fn start(
        from: &Namespace,
        to: &Namespace,
        address: SocketAddr,
        pause: Duration,
    ) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let server = to.run(move || UdpSocket::bind(address))?;
        let echo_stop = Arc::clone(&stop);
        let echo = to.thread(move || echo(&server, &echo_stop))?;
        let prober_stop = Arc::clone(&stop);
        let prober = from.thread(move || probe(address, pause, &prober_stop))?;
        Ok(Self {
            stop: StopOnDrop(stop),
            prober,
            echo,
        })
    }

    /// Ends the probe.
    pub fn finish(self) -> io::Result<RoundTrips> {
        drop(self.stop);
        joined(self.echo)??;
        joined(self.prober)?
    }
}

/// Tells threads to end when it goes away.
#[derive(Debug)]
pub(super) struct StopOnDrop(pub(super) Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn echo(socket: &UdpSocket, stop: &AtomicBool) -> io::Result<()> {
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut datagram = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        match socket.recv_from(&mut datagram) {
            Ok((length, from)) => {
                socket.send_to(datagram.get(..length).unwrap_or_default(), from)?;
            }
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn probe(address: SocketAddr, pause: Duration, stop: &AtomicBool) -> io::Result<RoundTrips> {
    let any = if address.is_ipv6() {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut result = RoundTrips {
        histogram: Histogram::new(3).map_err(io::Error::other)?,
        lost: 0,
    };
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let datagram = [number.to_be_bytes().as_slice(), MARKER, MARKER].concat();
        let sent = Instant::now();
        socket.send(&datagram)?;
        if answered(&socket, number)? {
            let nanoseconds = u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX);
            result
                .histogram
                .record(nanoseconds)
                .map_err(io::Error::other)?;
        } else {
            result.lost += 1;
        }
        number += 1;
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
    }
    Ok(result)
}

/// Waits for the echo of a probe, past late echoes of earlier ones.
fn answered(socket: &UdpSocket, number: u64) -> io::Result<bool> {
    let mut datagram = [0; 2048];
    loop {
        match socket.recv(&mut datagram) {
            Ok(_) if datagram.first_chunk() == Some(&number.to_be_bytes()) => return Ok(true),
            Ok(_) => {}
            Err(error) if is_timeout(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
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

const BLOCK: usize = 256 << 10;
/// A stall this long ends the transfer with an error.
const PATIENCE: Duration = Duration::from_secs(5);
