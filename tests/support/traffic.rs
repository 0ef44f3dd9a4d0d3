//! Traffic whose verdict does not depend on how fast the machine is.

use std::{
    collections::{BTreeMap, HashSet},
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use lockgate::{io::netns::Namespace, lab::traffic::MARKER};

use super::{PATIENCE, eventually};

/// Whether one UDP datagram of `from` reaches `address` in `to` and its echo comes back, within
/// `patience`; it is repeated until then.
pub(crate) fn echo(from: &Namespace, to: &Namespace, address: IpAddr, patience: Duration) -> bool {
    let server = to.run(move || UdpSocket::bind((address, 0))).unwrap();
    let target = server.local_addr().unwrap();
    let client = from.run(move || UdpSocket::bind(any(address))).unwrap();
    for socket in [&server, &client] {
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
    }
    let deadline = Instant::now() + patience;
    let mut datagram = [0; 256];
    while Instant::now() < deadline {
        // Without a route or a tunnel sending may fail; that is an answer, too.
        let _ = client.send_to(MARKER, target);
        if let Ok((length, back)) = server.recv_from(&mut datagram) {
            let _ = server.send_to(&datagram[..length], back);
            if client.recv_from(&mut datagram).is_ok() {
                return true;
            }
        }
    }
    false
}

/// Whether a datagram of `from` arrives at `address` in `to`, whatever becomes of an answer.
pub(crate) fn arrives(
    from: &Namespace,
    to: &Namespace,
    address: IpAddr,
    patience: Duration,
) -> bool {
    let server = to.run(move || UdpSocket::bind((address, 0))).unwrap();
    let target = server.local_addr().unwrap();
    let client = from.run(move || UdpSocket::bind(any(address))).unwrap();
    let timeout = Some(Duration::from_millis(20));
    server.set_read_timeout(timeout).unwrap();
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        let _ = client.send_to(MARKER, target);
        if server.recv_from(&mut [0; 256]).is_ok() {
            return true;
        }
    }
    false
}

/// Asserts that datagrams of `from` reach `address` in `to` and come back.
#[track_caller]
pub(crate) fn assert_reaches(from: &Namespace, to: &Namespace, address: IpAddr) {
    assert!(
        echo(from, to, address, PATIENCE),
        "{} does not reach {address}",
        from.name()
    );
}

/// Asserts that nothing of `from` reaches `address` in `to`.
#[track_caller]
pub(crate) fn assert_does_not_reach(from: &Namespace, to: &Namespace, address: IpAddr) {
    let patience = Duration::from_millis(300);
    assert!(
        !echo(from, to, address, patience),
        "{} reaches {address}",
        from.name()
    );
}

/// Sends `bytes` bytes over TCP to `address` in `to` and checks that they arrive unchanged.
#[track_caller]
pub(crate) fn tcp(from: &Namespace, to: &Namespace, address: IpAddr, bytes: usize) {
    let listener = to.run(move || TcpListener::bind((address, 0))).unwrap();
    let target = listener.local_addr().unwrap();
    let receiver = to
        .thread(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut received = Vec::new();
            stream.read_to_end(&mut received).map(|_| received)
        })
        .unwrap();
    let text: Vec<u8> = MARKER.iter().copied().cycle().take(bytes).collect();
    let sent = text.clone();
    from.run(move || {
        let mut stream = TcpStream::connect_timeout(&target, PATIENCE).expect("TCP connects");
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&sent).expect("TCP sends");
    });
    let received = receiver.join().unwrap().unwrap().expect("TCP receives");
    assert!(
        received == text,
        "{} bytes sent, {} received",
        text.len(),
        received.len()
    );
}

/// Numbered datagrams, never more than a window of them on their way, each echoed: so neither
/// a slow machine nor a full queue can lose one. What is not echoed after a while makes room for more.
pub(crate) struct Stream {
    stop: Arc<AtomicBool>,
    echoed: Arc<AtomicU64>,
    sender: JoinHandle<std::io::Result<Outcome>>,
    sink: JoinHandle<std::io::Result<HashSet<u64>>>,
}

/// What became of a [`Stream`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) sent: u64,
    /// Never arrived at the sink.
    pub(crate) lost: u64,
    /// Arrived at the sink, but their echoes did not come back.
    pub(crate) echoes_lost: u64,
    /// Echoes beyond the first: somebody delivered twice.
    pub(crate) duplicates: u64,
}

impl Stream {
    /// Starts to send from `from` to `address` in `to`, once the hosts have found their neighbours:
    /// what waits for address resolution may be lost without any gateway's doing.
    pub(crate) fn start(from: &Namespace, to: &Namespace, address: IpAddr) -> Self {
        assert_reaches(from, to, address);
        let stop = Arc::new(AtomicBool::new(false));
        let echoed = Arc::new(AtomicU64::new(0));
        let server = to.run(move || UdpSocket::bind((address, 0))).unwrap();
        let target = server.local_addr().unwrap();
        let client = from.run(move || UdpSocket::bind(any(address))).unwrap();
        for socket in [&server, &client] {
            socket
                .set_read_timeout(Some(Duration::from_millis(10)))
                .unwrap();
        }
        let done = Arc::new(AtomicBool::new(false));
        let sink_done = Arc::clone(&done);
        let sink = to.thread(move || sink(&server, &sink_done)).unwrap();
        let (sender_stop, sender_echoed) = (Arc::clone(&stop), Arc::clone(&echoed));
        let sender = from
            .thread(move || {
                let outcome = send(&client, target, &sender_stop, &sender_echoed);
                done.store(true, Ordering::Relaxed);
                outcome
            })
            .unwrap();
        Self {
            stop,
            echoed,
            sender,
            sink,
        }
    }

    /// Echoes so far.
    pub(crate) fn echoed(&self) -> u64 {
        self.echoed.load(Ordering::Relaxed)
    }

    /// Waits until `count` more datagrams have made the round trip.
    #[track_caller]
    pub(crate) fn wait_for(&self, count: u64) {
        let goal = self.echoed() + count;
        eventually("the stream goes on", || {
            (self.echoed() >= goal).then_some(())
        });
    }

    /// Stops sending, waits for what is on its way, and counts.
    pub(crate) fn finish(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        let mut outcome = self.sender.join().unwrap().unwrap();
        let seen = self.sink.join().unwrap().unwrap();
        outcome.lost = outcome.sent - seen.len() as u64;
        outcome.echoes_lost -= outcome.lost;
        outcome
    }
}

fn send(socket: &UdpSocket, to: SocketAddr, stop: &AtomicBool, echoed: &AtomicU64) -> Outcome {
    let mut outcome = Outcome::default();
    let mut waiting = BTreeMap::new();
    let mut progress = Instant::now();
    let mut datagram = [0; 256];
    loop {
        let stopping = stop.load(Ordering::Relaxed);
        if stopping && (waiting.is_empty() || progress.elapsed() > GIVE_UP) {
            break;
        }
        let is_late = |since: &&Instant| since.elapsed() >= LATE;
        let late = waiting.values().take_while(is_late).count();
        while !stopping && waiting.len() - late < WINDOW {
            let text = [outcome.sent.to_be_bytes().as_slice(), MARKER].concat();
            match socket.send_to(&text, to) {
                Ok(_) => {
                    waiting.insert(outcome.sent, Instant::now());
                    outcome.sent += 1;
                }
                // For example a route that is being replaced: it counts when it stays so.
                Err(_) => break,
            }
        }
        match socket.recv_from(&mut datagram) {
            Ok(_) => {
                let number = u64::from_be_bytes(*datagram.first_chunk().unwrap());
                if waiting.remove(&number).is_some() {
                    echoed.fetch_add(1, Ordering::Relaxed);
                } else {
                    outcome.duplicates += 1;
                }
                progress = Instant::now();
            }
            Err(error) if is_timeout(&error) => {}
            Err(_) => {}
        }
    }
    outcome.echoes_lost = waiting.len() as u64;
    outcome
}

fn sink(socket: &UdpSocket, done: &AtomicBool) -> HashSet<u64> {
    let mut seen = HashSet::new();
    let mut datagram = [0; 256];
    while !done.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut datagram) {
            seen.insert(u64::from_be_bytes(*datagram.first_chunk().unwrap()));
            let _ = socket.send_to(&datagram[..length], from);
        }
    }
    seen
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn any(like: IpAddr) -> SocketAddr {
    let address = if like.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    address.parse().unwrap()
}

/// Datagrams on their way at any time: fewer than any queue on the path holds.
pub(crate) const WINDOW: usize = 32;
/// How long a datagram may take before another one may be on its way in its place.
const LATE: Duration = Duration::from_secs(1);
/// How long an echo may take before it counts as lost.
const GIVE_UP: Duration = Duration::from_secs(5);
