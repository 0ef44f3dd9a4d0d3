//! Round trips on a schedule: a probe goes out when it is due, whatever became of those before.
//!
//! A closed loop waits for an answer before it asks again, so it asks seldom while the path is slow
//! and sees little of it. Here each round trip counts from the time its probe was due.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{
    Flow, RoundTrips, StopOnDrop, greet, is_timeout, joined,
    pace::Pace,
    probe::{GIVEN_UP, echo},
    stamp::{Stamp, Tally, now},
    whole,
};

/// Round trips in progress.
#[derive(Debug)]
pub struct OpenLoop {
    /// Ends the echo, after the last answer.
    stop: StopOnDrop,
    echo: JoinHandle<io::Result<io::Result<()>>>,
    sender: JoinHandle<io::Result<io::Result<u64>>>,
    listener: JoinHandle<io::Result<io::Result<Tally>>>,
    sent: Arc<AtomicU64>,
}

impl OpenLoop {
    /// Sends `rate` datagrams per second with `payload` bytes each, which the other host sends back,
    /// for `time` or until `stop`.
    pub fn start(
        flow: &Flow<'_>,
        rate: f64,
        payload: usize,
        time: Duration,
        stop: &Arc<AtomicBool>,
    ) -> io::Result<Self> {
        let (address, cores) = (flow.address, flow.cores);
        let done = Arc::new(AtomicBool::new(false));
        let server = flow.to.run(move || UdpSocket::bind(address))?;
        let socket = flow.from.run(move || connected(address))?;
        let ear = socket.try_clone()?;
        let sent = Arc::new(AtomicU64::new(UNFINISHED));
        let tally = Tally::new(0, whole(rate * time.as_secs_f64()) + 1)?;

        let echo_stop = Arc::clone(&done);
        let echo = flow.to.thread(move || {
            cores.pin_receiver()?;
            echo(&server, &echo_stop)
        })?;
        let heard = Arc::new(AtomicBool::new(false));
        let (total, open) = (Arc::clone(&sent), Arc::clone(&heard));
        let listener = flow
            .from
            .thread(move || listen(&ear, tally, &total, &open))?;
        let sender_stop = Arc::clone(stop);
        let sender = flow.from.thread(move || {
            cores.pin_sender()?;
            greet(&heard, &sender_stop, || {
                // As long as nobody listens there is nobody to hear it.
                let _ = socket.send(b"greeting");
                Ok(())
            })?;
            send(&socket, rate, payload.max(Stamp::LEN), time, &sender_stop)
        })?;
        Ok(Self {
            stop: StopOnDrop(done),
            echo,
            sender,
            listener,
            sent,
        })
    }

    /// Whether the time is over.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.sender.is_finished()
    }

    /// Waits for its end and for late answers, and returns what came of it.
    pub fn finish(self) -> io::Result<RoundTrips> {
        let sent = joined(self.sender).and_then(|sent| sent);
        self.sent
            .store(*sent.as_ref().unwrap_or(&0), Ordering::Release);
        let tally = joined(self.listener);
        drop(self.stop);
        joined(self.echo)??;
        let (sent, tally) = (sent?, tally??);
        Ok(RoundTrips {
            lost: sent.saturating_sub(tally.received),
            histogram: tally.delay,
        })
    }
}

fn connected(address: SocketAddr) -> io::Result<UdpSocket> {
    let any = if address.is_ipv6() {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    Ok(socket)
}

fn send(
    socket: &UdpSocket,
    rate: f64,
    payload: usize,
    time: Duration,
    stop: &AtomicBool,
) -> io::Result<u64> {
    let mut datagram = vec![0x5a; payload];
    let pace = Pace::start(rate)?;
    let count = whole(rate * time.as_secs_f64());
    for sequence in 0..count {
        pace.wait_exactly_for(sequence);
        if stop.load(Ordering::Relaxed) {
            return Ok(sequence);
        }
        let stamp = Stamp {
            trial: 0,
            sequence,
            intended: pace.time_of(sequence),
        };
        stamp.write(&mut datagram);
        // What cannot be sent is lost, like what does not arrive.
        let _ = socket.send(&datagram);
    }
    Ok(count)
}

fn listen(
    socket: &UdpSocket,
    mut tally: Tally,
    sent: &AtomicU64,
    heard: &AtomicBool,
) -> io::Result<Tally> {
    socket.set_read_timeout(Some(LISTEN))?;
    let mut datagram = vec![0; 64 << 10];
    let mut last = Instant::now();
    loop {
        match socket.recv(&mut datagram) {
            Ok(length) => {
                tally.enter(datagram.get(..length).unwrap_or_default(), now());
                last = Instant::now();
                heard.store(true, Ordering::Relaxed);
            }
            Err(error) if is_timeout(&error) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error),
        }
        match sent.load(Ordering::Acquire) {
            UNFINISHED => {}
            all if tally.received >= all || last.elapsed() >= GIVEN_UP => return Ok(tally),
            _ => {}
        }
    }
}

const UNFINISHED: u64 = u64::MAX;
const LISTEN: Duration = Duration::from_millis(20);
