//! Round trips, one at a time: as fast as the path answers.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use super::{MARKER, StopOnDrop, is_timeout, joined};
use crate::io::netns::Namespace;

/// What probing learned.
#[derive(Clone, Debug)]
pub struct RoundTrips {
    /// Nanoseconds of each answered probe.
    pub histogram: Histogram<u64>,
    /// Probes without an answer.
    pub lost: u64,
}

impl RoundTrips {
    /// What this share of the probes, 0 to 1, took at most, in nanoseconds. One without an answer counts as
    /// slower than every other one, and as at least the time that it was waited for; 0 of no probes.
    #[must_use]
    pub fn quantile(&self, share: f64) -> u64 {
        if self.lost == 0 {
            return self.histogram.value_at_quantile(share);
        }
        let answered = self.histogram.len();
        let share = share * (answered + self.lost) as f64 / answered as f64;
        if share <= 1.0 {
            return self.histogram.value_at_quantile(share);
        }
        let waited = u64::try_from(GIVEN_UP.as_nanos()).unwrap_or(u64::MAX);
        self.histogram.max().max(waited)
    }
}

/// A probe in progress: one small UDP datagram at a time goes out and is echoed.
#[derive(Debug)]
pub struct Probe {
    stop: StopOnDrop,
    prober: JoinHandle<io::Result<io::Result<RoundTrips>>>,
    /// Ends the echo, after the last probe: one that finds nobody is refused.
    echo_stop: StopOnDrop,
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
        let [stop, echo_stop] = [false; 2].map(|end| StopOnDrop(Arc::new(AtomicBool::new(end))));
        let server = to.run(move || UdpSocket::bind(address))?;
        let end = Arc::clone(&echo_stop.0);
        let echo = to.thread(move || echo(&server, &end))?;
        let end = Arc::clone(&stop.0);
        let prober = from.thread(move || probe(address, pause, &end))?;
        Ok(Self {
            stop,
            prober,
            echo_stop,
            echo,
        })
    }

    /// Ends the probe.
    pub fn finish(self) -> io::Result<RoundTrips> {
        drop(self.stop);
        let trips = joined(self.prober);
        drop(self.echo_stop);
        joined(self.echo)??;
        trips?
    }
}

pub(super) fn echo(socket: &UdpSocket, stop: &AtomicBool) -> io::Result<()> {
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
    socket.set_read_timeout(Some(GIVEN_UP))?;
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

/// An answer that takes longer is lost.
pub(super) const GIVEN_UP: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_probe_is_slower_than_every_answered_one() {
        let mut trips = RoundTrips {
            histogram: Histogram::new(3).expect("three digits"),
            lost: 0,
        };
        assert_eq!(trips.quantile(0.5), 0);
        for time in 1..=98_u64 {
            trips.histogram.record(time).expect("it resizes");
        }
        assert_eq!([0.5, 1.0].map(|share| trips.quantile(share)), [49, 98]);
        trips.lost = 2;
        let times = [0.5, 0.98, 0.99, 1.0].map(|share| trips.quantile(share));
        assert_eq!(times, [50, 98, 500_000_000, 500_000_000]);
        trips.histogram.reset();
        assert_eq!(trips.quantile(0.0), 500_000_000);
    }
}
