//! UDP at a given rate from one host to another, with an account of what arrived.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use super::{
    Flow, greet, joined,
    pace::Pace,
    stamp::{Stamp, Tally, now},
};
use crate::io::load::{BatchReceiver, BatchSender};

/// What one trial offers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UdpLoad {
    /// Bytes of UDP payload, at least [`Stamp::LEN`].
    pub payload: usize,
    /// Datagrams per second.
    pub rate: f64,
    /// How long.
    pub time: Duration,
    /// Datagrams that the sending host's stack gets in one piece (UDP_SEGMENT); 1 for none. The
    /// receiver then takes runs of them in one piece too (UDP_GRO), as QUIC programs do.
    pub train: usize,
}

/// What became of one trial.
#[derive(Clone, Debug)]
pub struct UdpTrial {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that arrived, each counted once.
    pub received: u64,
    /// Further copies that arrived.
    pub duplicates: u64,
    /// Datagrams that came after one sent later.
    pub reordered: u64,
    /// The most that were lost of those due within 100 ms.
    pub lost_together: u64,
    /// How long the sender took.
    pub time: Duration,
    /// One-way delay in nanoseconds from the intended time of sending.
    pub delay: Histogram<u64>,
    /// Whether the sender fell behind its schedule, so that the rate offered was not the rate sent.
    pub sender_limited: bool,
}

impl UdpTrial {
    /// Datagrams that did not arrive.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.received)
    }

    /// The share of datagrams that did not arrive, 0 to 1.
    #[must_use]
    pub fn loss(&self) -> f64 {
        self.lost() as f64 / self.sent.max(1) as f64
    }

    /// Datagrams received per second of sending.
    #[must_use]
    pub fn received_rate(&self) -> f64 {
        self.received as f64 / self.time.as_secs_f64().max(1e-9)
    }

    /// Datagrams sent per second.
    #[must_use]
    pub fn sent_rate(&self) -> f64 {
        self.sent as f64 / self.time.as_secs_f64().max(1e-9)
    }
}

/// Runs one trial to its end, or until `stop`.
pub fn udp_trial(flow: &Flow<'_>, load: &UdpLoad, stop: &Arc<AtomicBool>) -> io::Result<UdpTrial> {
    let load = UdpLoad {
        payload: load.payload.max(Stamp::LEN),
        ..*load
    };
    let (address, cores) = (flow.address, flow.cores);
    let trains = load.train > 1;
    let mut receiver = flow
        .to
        .run(move || BatchReceiver::bind(address, trains, LISTEN))?;
    let trial = TRIAL.fetch_add(1, Ordering::Relaxed);
    let trial = u32::try_from(trial % u64::from(u32::MAX)).unwrap_or_default();
    let mut tally = Tally::new(trial, expected(&load))?;
    let heard = Arc::new(AtomicBool::new(false));
    // What the sender sent, once it is done.
    let sent = Arc::new(AtomicU64::new(UNFINISHED));

    let (total, open) = (Arc::clone(&sent), Arc::clone(&heard));
    let listen = flow.to.thread(move || {
        cores.pin_receiver()?;
        collect(&mut receiver, &mut tally, &total, &open)?;
        Ok::<_, io::Error>(tally)
    })?;
    let stop = Arc::clone(stop);
    let send = flow.from.thread(move || {
        cores.pin_sender()?;
        let mut sender = BatchSender::connect(address, load.payload, load.train)?;
        greet(&heard, &stop, || match sender.send(1) {
            Err(error) if !passes(&error) => Err(error),
            _ => Ok(()),
        })?;
        emit(&mut sender, &load, trial, &stop)
    })?;
    let outcome = joined(send).and_then(|result| result);
    let (count, time) = outcome.as_ref().map_or((0, Duration::ZERO), |done| *done);
    sent.store(count, Ordering::Release);
    let tally = joined(listen)??;
    outcome?;
    Ok(UdpTrial {
        sent: count,
        received: tally.received,
        duplicates: tally.duplicates,
        reordered: tally.reordered,
        lost_together: tally.lost_together(count, super::whole(load.rate * HICCUP.as_secs_f64())),
        time,
        delay: tally.delay,
        sender_limited: fell_behind(&load, count, time),
    })
}

/// Whether `sent` datagrams in `time` are fewer, or later, than `load` asks for.
fn fell_behind(load: &UdpLoad, sent: u64, time: Duration) -> bool {
    time > load.time.mul_f64(1.0 + BEHIND) || (sent as f64) < expected(load) as f64 * (1.0 - BEHIND)
}

/// Sends on schedule; what is due goes out in as few calls as it takes. Returns how many went out
/// and how long that took.
fn emit(
    sender: &mut BatchSender,
    load: &UdpLoad,
    trial: u32,
    stop: &AtomicBool,
) -> io::Result<(u64, Duration)> {
    let expected = expected(load);
    let train = sender.train() as u64;
    let capacity = sender.capacity() as u64;
    let pace = Pace::start(load.rate)?;
    let start = Instant::now();
    let mut sent = 0_u64;
    while sent < expected && start.elapsed() < load.time.mul_f64(GRACE) {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let due = pace.due().min(expected) - sent;
        // Whole trains, but for the rest at the end.
        let due = if sent + due < expected {
            due - due % train
        } else {
            due
        };
        if due == 0 {
            pace.wait_for((sent + train - 1).min(expected - 1));
            continue;
        }
        let due = due.min(capacity);
        for (payload, sequence) in sender.payloads().zip(sent..sent + due) {
            let stamp = Stamp {
                trial,
                sequence,
                intended: pace.time_of(sequence),
            };
            stamp.write(payload);
        }
        sent += match sender.send(usize::try_from(due).unwrap_or(usize::MAX)) {
            Ok(taken) => taken as u64,
            Err(error) if passes(&error) => 0,
            Err(error) => return Err(error),
        };
    }
    // The last datagram has its share of time, too.
    Ok((sent, start.elapsed().max(pace.span(sent))))
}

/// Takes datagrams until all that were sent have arrived, or none comes any more.
fn collect(
    receiver: &mut BatchReceiver,
    tally: &mut Tally,
    sent: &AtomicU64,
    open: &AtomicBool,
) -> io::Result<()> {
    let mut last = Instant::now();
    loop {
        // One clock per call: a batch arrives when it is handed over.
        let mut at = None;
        let count = receiver.receive(|datagram| {
            let at = *at.get_or_insert_with(now);
            tally.enter(datagram, at);
        })?;
        if count > 0 {
            last = Instant::now();
            open.store(true, Ordering::Relaxed);
        }
        match sent.load(Ordering::Acquire) {
            UNFINISHED => {}
            all if tally.received >= all => return Ok(()),
            _ if last.elapsed() >= DRAIN => return Ok(()),
            _ => {}
        }
        if last.elapsed() >= PATIENCE {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the UDP sender does not end",
            ));
        }
    }
}

fn expected(load: &UdpLoad) -> u64 {
    super::whole(load.rate * load.time.as_secs_f64()).max(1)
}

/// Errors that a later attempt may not meet: the queue is full, or an ICMP error came in from an
/// earlier datagram.
fn passes(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock
            | io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    ) || error.raw_os_error() == Some(libc::ENOBUFS)
}

static TRIAL: AtomicU64 = AtomicU64::new(1);
const UNFINISHED: u64 = u64::MAX;
/// A scheduler of a shared machine rarely takes more at once.
const HICCUP: Duration = Duration::from_millis(100);
/// How long one call of the receiver waits.
const LISTEN: Duration = Duration::from_millis(20);
/// Silence after which nothing is on its way any more.
const DRAIN: Duration = Duration::from_millis(150);
/// Silence while the sender still runs that means that it is stuck.
const PATIENCE: Duration = Duration::from_secs(3700);
/// The sender may take this much longer than planned to send everything.
const GRACE: f64 = 1.05;
/// The share of its schedule that a sender may miss.
const BEHIND: f64 = 0.02;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_that_is_late_or_leaves_datagrams_out_fell_behind() {
        let load = UdpLoad {
            payload: 200,
            rate: 1000.0,
            time: Duration::from_secs(1),
            train: 1,
        };
        let behind = |sent, millis| fell_behind(&load, sent, Duration::from_millis(millis));
        assert!(!behind(1000, 1000));
        assert!(!behind(980, 1020));
        assert!(behind(979, 1000));
        assert!(behind(1000, 1021));
    }
}
