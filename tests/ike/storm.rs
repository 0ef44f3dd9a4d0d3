//! Every site of a large gateway comes back at once, with and without a flood (HOSTILE B18, B23).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lockgate::ike::{
    AddressPattern, Discard, Endpoint, Event, Input, Output, Pad, Path, SharedSecret, StartAction,
};

use super::actor::init_request;
use super::config::{Setup, Side, child};
use super::hostile::init_payloads;
use super::pair::{millis, seconds};
use super::random::Random;

/// What the gateway needs for a message, and how long one may wait for it.
const SERVICE: Duration = Duration::from_micros(500);
const PATIENCE: Duration = Duration::from_secs(1);

/// One gateway, its sites, and what is on its way. The gateway is the last party.
struct Storm {
    now: Instant,
    start: Instant,
    sites: usize,
    parties: Vec<Endpoint>,
    timers: BTreeSet<(Instant, usize)>,
    due: Vec<Option<Instant>>,
    flights: BTreeMap<(Instant, u64), (usize, Path, Vec<u8>)>,
    sent: u64,
    busy_until: Instant,
    up: BTreeSet<usize>,
}

fn address(site: usize) -> IpAddr {
    (0x0a40_0000 + u32::try_from(site).unwrap())
        .to_be_bytes()
        .into()
}

fn site_of(addr: IpAddr) -> Option<usize> {
    let IpAddr::V4(addr) = addr else { return None };
    usize::try_from(addr.to_bits().checked_sub(0x0a40_0000)?).ok()
}

fn network(site: usize) -> String {
    format!("172.{}.{}.0/24", 16 + site / 256, site % 256)
}

/// One side's view of one site.
fn setup(side: Side, site: usize) -> Setup {
    let mut setup = Setup::new(side);
    let (center, far) = ("10.2.0.0/24".to_owned(), network(site));
    let (local, remote) = match side {
        Side::A => (&far, &center),
        Side::B => (&center, &far),
    };
    let reqid = u32::try_from(site + 1).unwrap();
    let proposal = "aes256gcm16-noesn";
    setup.children = vec![child("lan", reqid, &[local], &[remote], proposal)];
    let name = format!("site-{site}.example");
    let connection = &mut setup.connection;
    connection.name = format!("site-{site}");
    connection.keyingtries = 0;
    let host = |addr: IpAddr| vec![AddressPattern::Net(addr.into())];
    match side {
        Side::A => {
            connection.local_addrs = host(address(site));
            connection.local.id = Some(name.parse().unwrap());
            setup.children[0].start_action = StartAction::Start;
        }
        Side::B => {
            connection.remote_addrs = host(address(site));
            connection.remote.id = name.parse().unwrap();
        }
    }
    setup
}

impl Storm {
    /// Nothing is connected; every site starts within ten milliseconds.
    fn new(sites: usize, change: impl Fn(Side, &mut Setup)) -> Self {
        let start = Instant::now();
        let mut views = Vec::new();
        let mut secrets: Vec<SharedSecret> = Vec::new();
        for site in 0..sites {
            let mut view = setup(Side::B, site);
            change(Side::B, &mut view);
            let pad = Arc::into_inner(view.pad()).unwrap();
            views.extend(pad.connections);
            secrets = pad.secrets;
        }
        let center = Pad {
            connections: views,
            secrets,
            ..Pad::default()
        };
        let mut parties: Vec<Endpoint> = (0..sites)
            .map(|site| {
                let mut setup = setup(Side::A, site);
                change(Side::A, &mut setup);
                let (random, _) = Random::new(site as u64);
                Endpoint::new(setup.settings.clone(), setup.pad(), Box::new(random), start)
            })
            .collect();
        let settings = Setup::new(Side::B).settings;
        let (random, _) = Random::new(1_000_000);
        parties.push(Endpoint::new(
            settings,
            Arc::new(center),
            Box::new(random),
            start,
        ));
        let mut storm = Self {
            now: start,
            start,
            sites,
            parties,
            timers: BTreeSet::new(),
            due: vec![None; sites + 1],
            flights: BTreeMap::new(),
            sent: 0,
            busy_until: start,
            up: BTreeSet::new(),
        };
        for party in 0..=sites {
            let wait = millis(10) * u32::try_from(party % sites).unwrap();
            let wait = wait / u32::try_from(sites).unwrap();
            storm.set_timer(party, Some(start + wait));
        }
        storm
    }

    /// Gives a party something and takes what it wants done.
    fn handle(&mut self, party: usize, input: Input<'_>) {
        let now = self.now;
        let endpoint = &mut self.parties[party];
        endpoint.handle(now, input);
        let mut sent = Vec::new();
        while let Some(output) = endpoint.poll() {
            match output {
                Output::Transmit(transmit) => sent.push(transmit),
                Output::Event(Event::ChildUp { .. }) if party < self.sites => {
                    self.up.insert(party);
                }
                _ => {}
            }
        }
        let due = endpoint.next_timeout();
        self.set_timer(party, due);
        for transmit in sent {
            let Path { local, remote } = transmit.path;
            let to = if party < self.sites {
                Some(self.sites)
            } else {
                site_of(remote.ip()).filter(|site| *site < self.sites)
            };
            let path = Path {
                local: remote,
                remote: local,
            };
            if let Some(to) = to {
                self.fly(to, path, transmit.bytes);
            }
        }
    }

    fn set_timer(&mut self, party: usize, due: Option<Instant>) {
        if let Some(at) = std::mem::replace(&mut self.due[party], due) {
            self.timers.remove(&(at, party));
        }
        self.timers.extend(due.map(|at| (at, party)));
    }

    fn fly(&mut self, to: usize, path: Path, bytes: Vec<u8>) {
        let mut at = self.now + millis(10);
        if to == self.sites {
            // The gateway takes one message after the other, and its socket holds only so many.
            let ready = self.busy_until.max(at);
            if ready - at > PATIENCE {
                return;
            }
            self.busy_until = ready + SERVICE;
            at = ready;
        }
        self.sent += 1;
        self.flights.insert((at, self.sent), (to, path, bytes));
    }

    /// Lets time pass, or until every site is up.
    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.up.len() < self.sites {
            let flight = self.flights.first_key_value().map(|((at, _), _)| *at);
            let timer = self.timers.first().map(|(at, _)| *at);
            let next = flight.into_iter().chain(timer).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            if flight == Some(next) {
                let (_, (to, path, bytes)) = self.flights.pop_first().unwrap();
                let bytes = &bytes;
                self.handle(to, Input::Datagram { path, bytes });
            } else {
                let (_, party) = *self.timers.first().unwrap();
                self.handle(party, Input::Timer);
            }
        }
    }

    fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    fn discarded(&self, reason: Discard) -> u64 {
        self.parties[self.sites].discards()[reason.index()]
    }
}

#[test]
fn two_thousand_sites_that_return_at_once_are_all_back_in_thirty_seconds() {
    let mut storm = Storm::new(2000, |_, _| {});
    storm.run_for(seconds(30));
    assert_eq!(storm.up.len(), 2000, "after {:?}", storm.elapsed());
    assert!(
        storm.discarded(Discard::CookieRequired) > 0,
        "there was load"
    );
    assert_eq!(storm.discarded(Discard::HalfOpenLimit), 0);
}

#[test]
fn sites_that_guess_the_wrong_group_are_all_back_in_thirty_seconds_too() {
    let mut storm = Storm::new(500, |side, setup| {
        let methods = match side {
            Side::A => "aes256gcm16-prfsha384-ecp256-x25519",
            Side::B => "aes256gcm16-prfsha384-x25519",
        };
        setup.connection.proposals = super::config::ike_proposals(&[methods]);
    });
    storm.run_for(seconds(30));
    assert_eq!(storm.up.len(), 500, "after {:?}", storm.elapsed());
}

/// The flood takes half of the gateway's time, in the names of strangers or of the sites.
#[test]
fn a_flood_keeps_no_site_out() {
    for in_the_name_of_sites in [false, true] {
        let mut storm = Storm::new(300, |_, _| {});
        let mut number = 0_u32;
        for _ in 0..120 {
            storm.run_for(millis(250));
            for _ in 0..250 {
                number += 1;
                let mut bytes = init_request(Default::default(), init_payloads(1));
                bytes[..8].copy_from_slice(&u64::from(number).to_be_bytes());
                let source: IpAddr = if in_the_name_of_sites {
                    address(usize::try_from(number).unwrap() % 50)
                } else {
                    (0xc633_6400 + number).to_be_bytes().into()
                };
                let path = Path {
                    local: SocketAddr::new(Side::B.addr(), 500),
                    remote: SocketAddr::new(source, 500),
                };
                storm.fly(300, path, bytes);
            }
            if storm.up.len() == 300 {
                break;
            }
        }
        assert_eq!(storm.up.len(), 300, "after {:?}", storm.elapsed());
        assert!(storm.elapsed() <= seconds(30));
    }
}
