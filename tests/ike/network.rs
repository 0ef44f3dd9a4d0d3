//! The path between the gateways: late, lossy, repeating, and perhaps translating addresses.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use lockgate::ike::Transmit;
use lockgate::wire::isakmp::{ExchangeType, Header};

use super::config::Side;

/// Datagrams on their way, and what happens to them.
pub(crate) struct Network {
    flights: Vec<Flight>,
    number: usize,
    pub(crate) latency: Duration,
    faults: Box<dyn FnMut(&Sent) -> Fate>,
    pub(crate) nat: Option<Nat>,
    pub(crate) quiet: bool,
    /// Where the gateways are.
    pub(crate) addresses: [Vec<IpAddr>; 2],
    /// Where they have been.
    past: [Vec<IpAddr>; 2],
    /// Every IKE message that was sent, lost ones too.
    pub(crate) trace: Vec<Sent>,
}

/// An IKE message as it left.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    /// Counts from zero.
    pub(crate) number: usize,
    pub(crate) from: Side,
    pub(crate) header: Header,
    pub(crate) at: Instant,
    pub(crate) transmit: Transmit,
}

impl Sent {
    pub(crate) fn is(&self, exchange: ExchangeType, response: bool) -> bool {
        self.header.exchange == exchange && self.header.flags.response() == response
    }
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Header {
            exchange,
            flags,
            message_id,
            initiator_spi,
            ..
        } = &self.header;
        let kind = if flags.response() {
            "answer"
        } else {
            "request"
        };
        let number = self.number;
        write!(
            f,
            "{number} {exchange} {kind} {message_id} of {initiator_spi}"
        )
    }
}

/// What the network does to one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Deliver,
    Drop,
    /// Delivers it, and a copy of it this much later.
    Twice(Duration),
    /// Delivers it this much later.
    Late(Duration),
}

/// Something on its way.
pub(crate) struct Flight {
    pub(crate) at: Instant,
    number: usize,
    pub(crate) to: Side,
    /// Source and destination as the receiver sees them.
    pub(crate) remote: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) cargo: Cargo,
}

#[derive(Clone)]
pub(crate) enum Cargo {
    Ike(Vec<u8>),
    Esp(Vec<u8>),
}

/// A NAT in front of gateway A.
#[derive(Clone, Debug)]
pub(crate) struct Nat {
    pub(crate) outside: IpAddr,
    /// Added to the port of a packet that leaves.
    pub(crate) shift: u16,
}

impl Network {
    pub(crate) fn new() -> Self {
        Self {
            flights: Vec::new(),
            number: 0,
            latency: Duration::from_millis(10),
            faults: Box::new(|_| Fate::Deliver),
            nat: None,
            quiet: false,
            addresses: Side::BOTH.map(|side| vec![side.addr()]),
            past: Side::BOTH.map(|side| vec![side.addr()]),
            trace: Vec::new(),
        }
    }

    /// Decides about every message from now on.
    pub(crate) fn decide(&mut self, faults: impl FnMut(&Sent) -> Fate + 'static) {
        self.faults = Box::new(faults);
    }

    /// One message, by its number, meets this fate.
    pub(crate) fn spoil(&mut self, number: usize, fate: Fate) {
        self.decide(move |sent| {
            if sent.number == number {
                fate
            } else {
                Fate::Deliver
            }
        });
    }

    pub(crate) fn heal(&mut self) {
        self.decide(|_| Fate::Deliver);
    }

    /// How many IKE messages were sent.
    pub(crate) fn sent(&self) -> usize {
        self.trace.len()
    }

    /// Messages of one side since the trace had `since` entries.
    pub(crate) fn from(&self, side: Side, since: usize) -> Vec<&Sent> {
        let sent = self.trace[since..].iter();
        sent.filter(|sent| sent.from == side).collect()
    }

    pub(crate) fn send(&mut self, from: Side, transmit: Transmit, now: Instant) {
        let (header, _) = Header::parse(&transmit.bytes).expect("what is sent is well-formed");
        let is_nat_t = transmit.path.local.port() == 4500;
        assert_eq!(transmit.marker, is_nat_t, "marker on {:?}", transmit.path);
        let sent = Sent {
            number: self.trace.len(),
            from,
            header,
            at: now,
            transmit,
        };
        self.trace.push(sent.clone());
        let latency = self.latency;
        let fate = (self.faults)(&sent);
        if !self.quiet {
            println!("    {from:?} sends {sent}: {fate:?}");
        }
        let delays = match fate {
            Fate::Deliver => vec![latency],
            Fate::Drop => vec![],
            Fate::Twice(later) => vec![latency, latency + later],
            Fate::Late(later) => vec![latency + later],
        };
        for delay in delays {
            let cargo = Cargo::Ike(sent.transmit.bytes.clone());
            let path = sent.transmit.path;
            self.fly(from, (path.local, path.remote), now + delay, cargo);
        }
    }

    /// A gateway has these addresses from now on.
    pub(crate) fn settle_at(&mut self, side: Side, own: &[IpAddr]) {
        self.past[side.index()].extend(own);
        self.addresses[side.index()] = own.to_vec();
    }

    /// Sends without asking the faults.
    pub(crate) fn fly(
        &mut self,
        from: Side,
        (source, destination): (SocketAddr, SocketAddr),
        at: Instant,
        cargo: Cargo,
    ) {
        let Some((remote, local)) = self.translate(from, source, destination) else {
            return;
        };
        self.number += 1;
        self.flights.push(Flight {
            at,
            number: self.number,
            to: from.other(),
            remote,
            local,
            cargo,
        });
    }

    /// Source and destination as they arrive; `None` if nobody is there.
    fn translate(
        &self,
        from: Side,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> Option<(SocketAddr, SocketAddr)> {
        let [own, other] = [from, from.other()].map(|side| &self.addresses[side.index()]);
        let past = &self.past[from.index()];
        assert!(past.contains(&source.ip()), "sent from a foreign address");
        if !own.contains(&source.ip()) {
            return None;
        }
        let Some(nat) = &self.nat else {
            return other
                .contains(&destination.ip())
                .then_some((source, destination));
        };
        match from {
            Side::A => {
                let port = source.port() + nat.shift;
                let source = SocketAddr::new(nat.outside, port);
                (destination.ip() == Side::B.addr()).then_some((source, destination))
            }
            Side::B => {
                let port = destination.port().checked_sub(nat.shift)?;
                let inside = SocketAddr::new(Side::A.addr(), port);
                let mapped = matches!(port, 500 | 4500);
                (destination.ip() == nat.outside && mapped).then_some((source, inside))
            }
        }
    }

    pub(crate) fn next_arrival(&self) -> Option<Instant> {
        self.flights.iter().map(|flight| flight.at).min()
    }

    /// The first that has arrived by `now`.
    pub(crate) fn arrive(&mut self, now: Instant) -> Option<Flight> {
        let places = (0..self.flights.len()).filter(|place| self.flights[*place].at <= now);
        let first = places.min_by_key(|place| {
            let flight = &self.flights[*place];
            (flight.at, flight.number)
        })?;
        Some(self.flights.remove(first))
    }
}
