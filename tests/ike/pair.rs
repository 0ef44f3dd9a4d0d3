//! Two gateways on a virtual clock, with a network between them.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use lockgate::ike::{
    ChildState, ChildStatus, Command, CommandError, CommandId, CommandOutcome, Event, IkeSaStatus,
    IkeState, Input, Path,
};
use lockgate::ipsec::{EspEncap, Reqid, SaEvent};

use super::config::{Setup, Side};
use super::host::Host;
use super::network::{Cargo, Flight, Network};

/// Gateway A and gateway B.
pub(crate) struct Pair {
    pub(crate) now: Instant,
    pub(crate) start: Instant,
    pub(crate) net: Network,
    /// From now on, what a side sends on has to be what the other side receives on.
    pub(crate) gapless: bool,
    /// The same for these policies only, and packets on their way arrive too.
    pub(crate) gapless_for: Vec<Reqid>,
    /// SPIs that the policies of `gapless_for` send under.
    sealing: Vec<u32>,
    /// When they last did.
    sealed: HashMap<u32, Instant>,
    quiet: bool,
    /// Packets that found no SA, or the wrong one.
    pub(crate) lost_packets: usize,
    pub(crate) delivered_packets: usize,
    setups: [Setup; 2],
    hosts: [Host; 2],
    restarts: u64,
    traffic: Option<(Duration, Instant)>,
}

impl Pair {
    /// Two gateways that know each other and have not spoken yet.
    pub(crate) fn new() -> Self {
        Self::with(|_, _| {})
    }

    /// The same, with a changed configuration.
    pub(crate) fn with(change: impl Fn(Side, &mut Setup)) -> Self {
        Self::seeded(0, change)
    }

    /// The same, with other random numbers.
    pub(crate) fn seeded(seed: u64, change: impl Fn(Side, &mut Setup)) -> Self {
        let start = Instant::now();
        let setups = Side::BOTH.map(|side| {
            let mut setup = Setup::new(side);
            change(side, &mut setup);
            setup
        });
        let host = |side: Side| Host::new(&setups[side.index()], seed * 1000 + side as u64, start);
        let hosts = Side::BOTH.map(host);
        let mut pair = Self {
            now: start,
            start,
            net: Network::new(),
            gapless: false,
            gapless_for: Vec::new(),
            sealing: Vec::new(),
            sealed: HashMap::new(),
            quiet: false,
            lost_packets: 0,
            delivered_packets: 0,
            setups,
            hosts,
            restarts: 0,
            traffic: None,
        };
        pair.collect();
        pair
    }

    /// Two gateways with one tunnel, which A has set up.
    pub(crate) fn up() -> Self {
        Self::up_with(|_, _| {})
    }

    pub(crate) fn up_with(change: impl Fn(Side, &mut Setup)) -> Self {
        Self::up_seeded(0, change)
    }

    pub(crate) fn up_seeded(seed: u64, change: impl Fn(Side, &mut Setup)) -> Self {
        let mut pair = Self::seeded(seed, change);
        let id = pair.command(Side::A, initiate("lan"));
        pair.settle();
        assert!(matches!(pair.result(Side::A, id), Some(Ok(_))));
        pair.assert_tunnels(1);
        for host in &mut pair.hosts {
            host.plane.take_history();
        }
        pair.gapless = true;
        pair
    }

    pub(crate) fn host(&mut self, side: Side) -> &mut Host {
        &mut self.hosts[side.index()]
    }

    pub(crate) fn setup(&mut self, side: Side) -> &mut Setup {
        &mut self.setups[side.index()]
    }

    /// Says nothing about what happens, where many runs are made.
    pub(crate) fn set_quiet(&mut self, quiet: bool) {
        self.quiet = quiet;
        self.net.quiet = quiet;
    }

    /// Begins anew with what is to be looked at later.
    pub(crate) fn forget(&mut self) {
        self.net.trace.clear();
        self.sealed.clear();
        self.sealing.clear();
        for host in &mut self.hosts {
            host.events.clear();
            host.plane.take_history();
            host.plane.removed.clear();
            host.plane.added.clear();
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    pub(crate) fn command(&mut self, side: Side, command: Command) -> CommandId {
        let now = self.now;
        let id = self.host(side).command(now, command);
        self.collect();
        id
    }

    pub(crate) fn result(
        &self,
        side: Side,
        id: CommandId,
    ) -> Option<Result<CommandOutcome, CommandError>> {
        self.hosts[side.index()].result(id)
    }

    /// How a command failed.
    #[track_caller]
    pub(crate) fn failure(&self, side: Side, id: CommandId) -> String {
        match self.result(side, id) {
            Some(Err(error)) => error.to_string(),
            other => panic!("the command did not fail: {other:?}"),
        }
    }

    pub(crate) fn report(&mut self, side: Side, event: SaEvent) {
        let now = self.now;
        self.host(side).report(now, event);
        self.collect();
    }

    /// A gateway has these addresses from now on, and knows; it sends from the first one.
    pub(crate) fn move_to(&mut self, side: Side, own: &[IpAddr]) {
        self.net.settle_at(side, own);
        let now = self.now;
        let others = self.net.addresses[side.other().index()].clone();
        let host = self.host(side);
        let remotes = host.endpoint.remote_addresses().into_iter().chain(others);
        let sources: Vec<_> = remotes.map(|remote| (remote, own[0])).collect();
        let sources = &sources;
        host.handle(now, Input::Addresses { own, sources });
        self.collect();
    }

    /// A gateway loses all its state; its address and configuration stay.
    pub(crate) fn restart(&mut self, side: Side) {
        self.restarts += 1;
        let seed = 7_000_000 + self.restarts;
        self.gapless = false;
        let setup = &mut self.setups[side.index()];
        let restarted = Setup {
            time_of_day: setup.later(self.now - self.start),
            ..setup.clone()
        };
        let host = Host::new(&restarted, seed, self.now);
        *self.host(side) = host;
        self.collect();
    }

    /// Takes what both endpoints want done.
    pub(crate) fn collect(&mut self) {
        for side in Side::BOTH {
            let (now, host) = (self.elapsed(), &mut self.hosts[side.index()]);
            let seen = host.events.len();
            let sent = host.drain();
            for event in &host.events[seen..] {
                if !self.quiet {
                    println!("{now:?} {side:?} {}", line(event));
                }
            }
            for transmit in sent {
                self.net.send(side, transmit, self.now);
            }
            self.check_gap();
        }
    }

    fn check_gap(&mut self) {
        let now = self.now;
        let before = std::mem::take(&mut self.sealing).into_iter();
        self.sealed.extend(before.map(|spi| (spi, now)));
        for host in &mut self.hosts {
            for spi in host.plane.removed.drain(..) {
                let last = self.sealed.get(&spi).map(|last| now - *last);
                assert!(
                    last.is_none_or(|ago| ago > LONGEST_WAY),
                    "{spi:08x} was sent on {last:?} before its end"
                );
            }
        }
        if !self.gapless && self.gapless_for.is_empty() {
            return;
        }
        for side in Side::BOTH {
            for (reqid, worker) in self.host(side).plane.sealers() {
                if !self.gapless && !self.gapless_for.contains(&reqid) {
                    continue;
                }
                let own = self.host(side).plane.own(reqid, worker);
                let spi = own.map(|sa| sa.spi()).expect("it has this policy");
                if self.gapless_for.contains(&reqid) {
                    self.sealing.push(spi.get());
                }
                assert!(
                    self.host(side.other()).plane.receives(spi.get()),
                    "{side:?} sends on {spi}, which its peer does not have"
                );
            }
        }
    }

    /// Does what comes next; false if that would be after `end` or never.
    fn step(&mut self, end: Instant) -> bool {
        let timeouts = self
            .hosts
            .iter()
            .filter_map(|host| host.endpoint.next_timeout());
        let traffic = self.traffic.map(|(_, next)| next);
        let times = timeouts.chain(self.net.next_arrival()).chain(traffic);
        let Some(next) = times.min().filter(|next| *next <= end) else {
            return false;
        };
        self.now = self.now.max(next);
        let now = self.now;
        if let Some((interval, at)) = self.traffic
            && at <= now
        {
            self.traffic = Some((interval, at + interval));
            for side in Side::BOTH {
                self.send_packet(side);
            }
        }
        if let Some(flight) = self.net.arrive(now) {
            self.deliver(flight);
        } else {
            for side in Side::BOTH {
                let due = self.host(side).endpoint.next_timeout();
                if due.is_some_and(|due| due <= now) {
                    self.host(side).handle(now, Input::Timer);
                    self.collect();
                    let next = self.host(side).endpoint.next_timeout();
                    assert!(
                        next.is_none_or(|next| next > now),
                        "a timer does not move on"
                    );
                }
            }
        }
        true
    }

    fn deliver(&mut self, flight: Flight) {
        let (now, to) = (self.now, flight.to);
        let (local, remote) = (flight.local, flight.remote);
        match flight.cargo {
            Cargo::Ike(bytes) => {
                let path = Path { local, remote };
                let bytes = &bytes;
                self.host(to).handle(now, Input::Datagram { path, bytes });
            }
            Cargo::Esp(packet) => {
                let mut events = Vec::new();
                if self.host(to).plane.open(packet, remote, &mut events) {
                    self.delivered_packets += 1;
                } else {
                    self.lost_packets += 1;
                }
                for event in events {
                    self.host(to).report(now, event);
                }
            }
        }
        self.collect();
    }

    /// Lets time pass.
    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..MOST_STEPS {
            if !self.step(end) {
                self.now = end;
                return;
            }
        }
        panic!("no end of work in {time:?}");
    }

    /// Lets time pass until nobody has anything to do any more.
    pub(crate) fn run_to_rest(&mut self) {
        let end = self.now + seconds(300);
        for _ in 0..MOST_STEPS {
            if !self.step(end) {
                let timeouts = self.hosts.iter().map(|host| host.endpoint.next_timeout());
                let next: Vec<_> = timeouts.flatten().map(|at| at - self.now).collect();
                assert!(
                    next.is_empty(),
                    "no rest after {:?}: {next:?}",
                    seconds(300)
                );
                return;
            }
        }
        panic!("no end of work");
    }

    /// Lets time pass until nothing is on its way. What waits for a timer, waits.
    pub(crate) fn settle(&mut self) {
        for _ in 0..MOST_STEPS {
            let Some(next) = self.net.next_arrival() else {
                return;
            };
            self.step(next);
        }
        panic!("messages without end");
    }

    /// One packet of every child and every worker that has an SA for it.
    pub(crate) fn send_packet(&mut self, from: Side) {
        let arrival = self.now + self.net.latency;
        let now = self.now;
        for (reqid, worker) in self.host(from).plane.sealers() {
            let mut events = Vec::new();
            let packet = self.host(from).plane.seal((reqid, worker), &mut events);
            let own = self.host(from).plane.own(reqid, worker);
            let path = own.map(|sa| *sa.path());
            if let (Some(packet), Some(path)) = (packet, path) {
                let raw = |addr: SocketAddr| SocketAddr::new(addr.ip(), 4500);
                let ends = match path.encap {
                    EspEncap::Udp => (path.local, path.remote),
                    EspEncap::None => (raw(path.local), raw(path.remote)),
                };
                self.net.fly(from, ends, arrival, Cargo::Esp(packet));
            }
            for event in events {
                self.host(from).report(now, event);
            }
        }
        self.collect();
    }

    /// Both sides send a packet this often, from now on.
    pub(crate) fn start_traffic(&mut self, interval: Duration) {
        self.traffic = Some((interval, self.now));
    }

    /// Stops the traffic when IKE is quiet.
    pub(crate) fn settle_traffic(&mut self) {
        self.run_for(seconds(1));
        self.stop_traffic();
    }

    pub(crate) fn stop_traffic(&mut self) {
        self.traffic = None;
        self.settle();
    }

    /// An IKE message appears at a gateway, from its peer's address.
    pub(crate) fn inject(&mut self, to: Side, bytes: &[u8]) {
        let path = Path {
            local: SocketAddr::new(to.addr(), 500),
            remote: SocketAddr::new(to.other().addr(), 500),
        };
        self.inject_on(to, path, bytes);
    }

    pub(crate) fn inject_on(&mut self, to: Side, path: Path, bytes: &[u8]) {
        let now = self.now;
        self.host(to).handle(now, Input::Datagram { path, bytes });
        self.collect();
    }

    pub(crate) fn ike_sas(&self, side: Side) -> Vec<IkeSaStatus> {
        self.hosts[side.index()].ike_sas()
    }

    /// The only IKE SA of a side.
    #[track_caller]
    pub(crate) fn ike_sa(&self, side: Side) -> IkeSaStatus {
        let mut sas = self.ike_sas(side);
        assert_eq!(sas.len(), 1, "{side:?}: {sas:?}");
        sas.remove(0)
    }

    pub(crate) fn children(&self, side: Side) -> Vec<ChildStatus> {
        let sas = self.ike_sas(side).into_iter();
        sas.flat_map(|sa| sa.children).collect()
    }

    /// The only Child SA of a side.
    #[track_caller]
    pub(crate) fn child(&self, side: Side) -> ChildStatus {
        let mut children = self.children(side);
        assert_eq!(children.len(), 1, "{side:?}: {children:?}");
        children.remove(0)
    }

    /// One IKE SA with so many Child SAs, the same on both sides, at rest, and packets pass.
    #[track_caller]
    pub(crate) fn assert_tunnels(&mut self, children: usize) {
        let mut spis = Vec::new();
        for side in Side::BOTH {
            let sa = self.ike_sa(side);
            assert_eq!(sa.state, IkeState::Established, "{side:?}");
            assert!(
                sa.tasks_active.is_empty(),
                "{side:?}: {:?}",
                sa.tasks_active
            );
            let states: Vec<_> = sa.children.iter().map(|child| child.state).collect();
            assert_eq!(states, vec![ChildState::Installed; children], "{side:?}");
            assert_eq!(self.host(side).told(), (1, children), "{side:?}: told");
            assert_eq!(self.host(side).endpoint.half_open(), 0, "{side:?}");
            spis.push((sa.initiator_spi, sa.responder_spi));
        }
        assert_eq!(spis[0], spis[1], "two different IKE SAs");
        self.assert_packets_pass(children);
    }

    /// Every child of both sides carries a packet, on each worker that has an SA for it.
    #[track_caller]
    pub(crate) fn assert_packets_pass(&mut self, children: usize) {
        let (lost, delivered) = (self.lost_packets, self.delivered_packets);
        let mut packets = 0;
        for side in Side::BOTH {
            let sealers = self.host(side).plane.sealers().len();
            assert!(sealers >= children.min(1), "{side:?} sends nothing");
            packets += sealers;
            self.send_packet(side);
        }
        self.settle();
        assert_eq!(self.lost_packets, lost, "packets were lost");
        assert_eq!(self.delivered_packets, delivered + packets, "packets");
    }

    /// Asserts one IKE SA without a rest of replaced ones in the data planes.
    #[track_caller]
    pub(crate) fn assert_clean(&mut self, children: usize) {
        self.assert_tunnels(children);
        for side in Side::BOTH {
            let counts = self.host(side).plane.counts();
            assert_eq!(
                counts,
                (children, children),
                "{side:?}: SAs in the data plane"
            );
        }
    }

    /// Neither side has any SA.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&mut self) {
        for side in Side::BOTH {
            self.host(side).assert_empty(&format!("{side:?}"));
        }
    }

    /// Ends both sides in order, and looks for what they left behind.
    #[track_caller]
    pub(crate) fn finish(mut self) {
        self.net.heal();
        self.gapless = false;
        self.gapless_for.clear();
        self.sealing.clear();
        self.sealed.clear();
        self.traffic = None;
        let mut ids = Vec::new();
        for side in Side::BOTH {
            ids.push((side, self.command(side, Command::Shutdown)));
            self.settle();
        }
        self.run_for(Duration::from_secs(120));
        for (side, id) in ids {
            let result = self.result(side, id);
            assert!(
                matches!(result, Some(Ok(_))),
                "{side:?} shutdown: {result:?}"
            );
        }
        self.assert_nothing_left();
    }
}

pub(crate) fn initiate(child: &str) -> Command {
    Command::Initiate {
        ike: None,
        child: Some(child.to_owned()),
    }
}

pub(crate) fn rekey_child() -> Command {
    rekey(Some("lan"), false)
}

pub(crate) fn rekey_ike() -> Command {
    rekey(None, false)
}

pub(crate) fn rekey(child: Option<&str>, reauth: bool) -> Command {
    Command::Rekey {
        ike: Some("site".to_owned()),
        child: child.map(str::to_owned),
        ike_id: None,
        child_id: None,
        reauth,
    }
}

pub(crate) fn terminate_child() -> Command {
    terminate(Some("lan"), false)
}

pub(crate) fn terminate_ike() -> Command {
    terminate(None, false)
}

pub(crate) fn terminate(child: Option<&str>, force: bool) -> Command {
    Command::Terminate {
        ike: Some("site".to_owned()),
        child: child.map(str::to_owned),
        ike_id: None,
        child_id: None,
        force,
    }
}

/// An event for the reader of a failed test.
fn line(event: &Event) -> String {
    match event {
        Event::Log { message, .. } => message.clone(),
        Event::Alert(alert) => alert.message.clone(),
        Event::IkeUp { ike } => format!("IkeUp {}", ike.id),
        Event::IkeDown { ike, reason } => format!("IkeDown {}: {reason}", ike.id),
        Event::IkeRekeyed { old, new } => format!("IkeRekeyed {} to {}", old.id, new.id),
        Event::ChildUp { child, .. } => format!("ChildUp {}", child.id),
        Event::ChildDown { child, reason, .. } => format!("ChildDown {}: {reason}", child.id),
        Event::ChildRekeyed { old, new, .. } => format!("ChildRekeyed {} to {}", old.id, new.id),
        Event::CommandDone { id, result } => format!("{id:?}: {result:?}"),
    }
}

pub(crate) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const MOST_STEPS: usize = 200_000;
/// A packet is no longer on its way.
const LONGEST_WAY: Duration = millis(50);
