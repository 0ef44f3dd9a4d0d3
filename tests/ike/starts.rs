//! A gateway with many tunnels comes up.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lockgate::ike::{Command, CommandId, Endpoint, Input, Output, Pad, Path, StartAction};
use lockgate::ipsec::SaUpdate;
use lockgate::wire::isakmp::Header;

use super::config::{Setup, Side};
use super::pair::millis;
use super::random::Random;

/// More than protected responders hold half-open for one address.
const TUNNELS: usize = 1200;
/// As many are opened side by side.
const AT_ONCE: usize = 256;

/// One end of all the tunnels, of which `starting` opens them by itself.
fn end(side: Side, starting: Option<Side>, now: Instant) -> Endpoint {
    let mut all = Pad::default();
    let mut settings = Setup::new(side).settings.without_dos_protection();
    settings.retransmit.jitter_percent = 0;
    for tunnel in 0..TUNNELS {
        let mut setup = Setup::new(side);
        setup.connection.name = format!("tunnel-{tunnel}");
        setup.connection.keyingtries = 0;
        let name = |side: Side| format!("{tunnel}.{}", side.identity());
        setup.connection.local.id = Some(name(side).parse().unwrap());
        setup.connection.remote.id = name(side.other()).parse().unwrap();
        if starting == Some(side) {
            setup.children[0].start_action = StartAction::Start;
        }
        let pad = Arc::into_inner(setup.pad()).unwrap();
        all.connections.extend(pad.connections);
        all.secrets = pad.secrets;
    }
    let (random, _) = Random::new(side as u64);
    let mut endpoint = Endpoint::new(settings, Arc::new(all), Box::new(random), now);
    endpoint.handle(now, Input::Timer);
    endpoint
}

/// What an end has sent, with the path that the other end sees, and the Child SAs it has installed.
fn drain(endpoint: &mut Endpoint) -> (Vec<(Path, Vec<u8>)>, usize) {
    let (mut sent, mut installed) = (Vec::new(), 0);
    while let Some(output) = endpoint.poll() {
        match output {
            Output::Transmit(transmit) => {
                let path = Path {
                    local: transmit.path.remote,
                    remote: transmit.path.local,
                };
                sent.push((path, transmit.bytes));
            }
            Output::Update(SaUpdate::SwitchOutbound(_)) => installed += 1,
            _ => {}
        }
    }
    (sent, installed)
}

fn spis(sent: &[(Path, Vec<u8>)]) -> BTreeSet<[u8; 8]> {
    let headers = sent
        .iter()
        .map(|(_, bytes)| Header::parse(bytes).unwrap().0);
    headers.map(|header| header.initiator_spi.0).collect()
}

#[test]
fn many_tunnels_begin_a_few_at_a_time_and_all_come_up_without_a_repetition() {
    let now = Instant::now();
    let mut ends = Side::BOTH.map(|side| end(side, Some(Side::A), now));
    let mut up = [0; 2];
    let mut flights = VecDeque::new();
    loop {
        for (from, end) in ends.iter_mut().enumerate() {
            let (sent, installed) = drain(end);
            up[from] += installed;
            flights.extend(sent.into_iter().map(|message| (1 - from, message)));
        }
        assert!(flights.len() <= AT_ONCE, "{} on their way", flights.len());
        if let Some((to, (path, bytes))) = flights.pop_front() {
            let bytes = &bytes;
            ends[to].handle(now, Input::Datagram { path, bytes });
        } else if ends[0].next_timeout().is_some_and(|at| at <= now) {
            ends[0].handle(now, Input::Timer);
        } else {
            break;
        }
    }
    assert_eq!(up, [TUNNELS; 2]);
}

#[test]
fn silent_peers_hold_up_the_others_for_one_retransmission() {
    let start = Instant::now();
    let mut end = end(Side::A, Some(Side::A), start);
    let (sent, _) = drain(&mut end);
    let mut begun = spis(&sent);
    assert_eq!((sent.len(), begun.len()), (AT_ONCE, AT_ONCE));

    let mut rounds = Vec::new();
    let mut now = start;
    while begun.len() < TUNNELS {
        now = end.next_timeout().expect("there is more to begin").max(now);
        end.handle(now, Input::Timer);
        begun.extend(spis(&drain(&mut end).0));
        rounds.push((now - start, begun.len()));
    }
    let full = |at: u64| {
        let until = rounds.iter().filter(|(time, _)| *time <= millis(at));
        until.map(|(_, begun)| *begun).max()
    };
    assert_eq!(full(499), None);
    assert_eq!(
        [full(500), full(1000)],
        [Some(2 * AT_ONCE), Some(3 * AT_ONCE)]
    );
    let all: (Duration, usize) = (millis(2000), TUNNELS);
    assert_eq!(rounds.last(), Some(&all));
}

#[test]
fn without_protection_no_handshake_of_a_burst_gives_way_to_another() {
    let now = Instant::now();
    let [mut a, mut b] = Side::BOTH.map(|side| end(side, None, now));
    for tunnel in 0..TUNNELS {
        let command = Command::Initiate {
            ike: Some(format!("tunnel-{tunnel}")),
            child: None,
        };
        let id = CommandId(tunnel as u64);
        a.handle(now, Input::Command { id, command });
    }
    for (path, bytes) in drain(&mut a).0 {
        let bytes = &bytes;
        b.handle(now, Input::Datagram { path, bytes });
    }
    assert_eq!(b.half_open(), TUNNELS);
}
