//! The lab's generators over a plain link: what they count is what the link did.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::{
    net::SocketAddr,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use ipnet::IpNet;
use lockgate::{
    io::netns::{Namespace, connect},
    lab::{
        A, B, Lab, LabOptions,
        traffic::{Bulk, Cores, Flow, OpenLoop, UdpLoad, udp_trial},
    },
};
use support::{may_build_a_lab, program};

/// Two hosts on one link.
struct Link {
    a: Namespace,
    b: Namespace,
}

impl Link {
    fn build() -> Option<Self> {
        may_build_a_lab().then(|| {
            let [a, b] = ["a", "b"].map(|name| Namespace::new(name).unwrap());
            connect((&a, "link"), (&b, "link"), 1500).unwrap();
            for (host, addresses) in [
                (&a, ["198.51.100.1/24", "2001:db8::1/64"]),
                (&b, ["198.51.100.2/24", "2001:db8::2/64"]),
            ] {
                for address in addresses {
                    let address: IpNet = address.parse().unwrap();
                    host.add_address("link", address).unwrap();
                }
            }
            Self { a, b }
        })
    }

    fn flow(&self) -> Flow<'_> {
        Flow {
            from: &self.a,
            to: &self.b,
            address: "198.51.100.2:7000".parse().unwrap(),
            cores: Cores {
                sender: Some(0),
                receiver: None,
            },
        }
    }

    /// Has b run a rule on every datagram that comes in for the generators.
    fn rule(&self, rule: &str) -> Option<()> {
        let nft = program("nft", "nftables")?;
        let mut command = Command::new(nft);
        command.arg(format!(
            "add table inet loss; \
             add chain inet loss in {{ type filter hook input priority 0; }}; \
             add rule inet loss in udp dport 7000 {rule}"
        ));
        let status = self.b.run(move || command.status()).unwrap();
        assert!(status.success(), "{rule}");
        Some(())
    }
}

const LOAD: UdpLoad = UdpLoad {
    payload: 200,
    rate: 4000.0,
    time: Duration::from_millis(500),
    train: 1,
};

fn running() -> Arc<AtomicBool> {
    Arc::new(AtomicBool::new(false))
}

#[test]
fn every_datagram_of_a_sound_link_arrives_once_and_in_order() {
    let Some(link) = Link::build() else { return };
    let flows = ["198.51.100.2:7000", "[2001:db8::2]:7000"].map(|address| Flow {
        address: address.parse().unwrap(),
        ..link.flow()
    });
    for flow in flows {
        for train in [1, 16] {
            let load = UdpLoad { train, ..LOAD };
            let trial = udp_trial(&flow, &load, &running()).unwrap();
            assert!(trial.sent > 0);
            assert_eq!(trial.lost(), 0, "{}, {train}", flow.address);
            assert_eq!((trial.duplicates, trial.reordered), (0, 0));
            assert_eq!(trial.delay.len(), trial.sent);
        }
    }
}

#[test]
fn loss_is_counted_to_the_datagram() {
    let Some(link) = Link::build() else { return };
    if link.rule("numgen inc mod 10 == 0 drop").is_none() {
        return;
    }
    let trial = udp_trial(&link.flow(), &LOAD, &running()).unwrap();
    let tenth = trial.sent / 10..=trial.sent.div_ceil(10);
    assert!(
        tenth.contains(&trial.lost()),
        "{} of {}",
        trial.lost(),
        trial.sent
    );
    assert_eq!((trial.duplicates, trial.reordered), (0, 0));
}

#[test]
fn a_receiver_that_does_not_exist_loses_everything_and_ends_nothing() {
    let Some(link) = Link::build() else { return };
    if link.rule("drop").is_none() {
        return;
    }
    let trial = udp_trial(&link.flow(), &LOAD, &running()).unwrap();
    assert!(trial.sent > 0);
    assert_eq!((trial.received, trial.lost()), (0, trial.sent));
}

#[test]
fn a_rate_beyond_the_sender_is_reported_as_such() {
    let Some(link) = Link::build() else { return };
    let load = UdpLoad {
        rate: 100e6,
        time: Duration::from_millis(100),
        ..LOAD
    };
    let trial = udp_trial(&link.flow(), &load, &running()).unwrap();
    assert!(trial.sender_limited);
    assert!(trial.sent_rate() < 100e6);
}

#[test]
fn an_interrupted_trial_ends_at_once_and_still_counts() {
    let Some(link) = Link::build() else { return };
    let stop = running();
    let ending = Arc::clone(&stop);
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        ending.store(true, Ordering::Relaxed);
    });
    let load = UdpLoad {
        time: Duration::from_secs(60),
        ..LOAD
    };
    let start = Instant::now();
    let trial = udp_trial(&link.flow(), &load, &stop).unwrap();
    assert!(start.elapsed() < Duration::from_secs(30));
    assert!(trial.sent < 240_000 && trial.lost() == 0, "{}", trial.sent);
}

/// The echo's answers to half of the probes are dropped on their way in.
#[test]
fn round_trips_on_a_schedule_count_what_is_not_answered() {
    let Some(link) = Link::build() else { return };
    let time = Duration::from_millis(500);
    let all = OpenLoop::start(&link.flow(), 1000.0, 64, time, &running()).unwrap();
    let all = all.finish().unwrap();
    assert_eq!((all.histogram.len(), all.lost), (500, 0));
    if link.rule("numgen inc mod 2 == 0 drop").is_none() {
        return;
    }
    let half = OpenLoop::start(&link.flow(), 1000.0, 64, time, &running()).unwrap();
    let half = half.finish().unwrap();
    assert_eq!(half.histogram.len() + half.lost, 500);
    assert_eq!(half.lost, 250);
}

#[test]
fn streams_are_counted_together_while_they_are_watched() {
    let Some(link) = Link::build() else { return };
    let stop = running();
    let long = Duration::from_secs(60);
    let bulk = Bulk::start_streams(&link.flow(), 4, long, &stop).unwrap();
    let own = [std::process::id()];
    let watched = Duration::from_millis(300);
    let window = bulk
        .watch(Duration::from_millis(200), watched, &own, &stop)
        .unwrap();
    stop.store(true, Ordering::Relaxed);
    let whole = bulk.finish().unwrap();
    let (seen, all) = (window.transfer.bytes, whole.bytes);
    assert!(0 < seen && seen < all, "{seen} of {all}");
    assert!(window.transfer.gigabits_per_second() > 0.0);
    assert!(window.usage.cpu_s > 0.0 && window.cpu_seconds_per_gigabit() > 0.0);
}

/// With plain routes in place of a tunnel, the hosts of the lab reach each other in both families.
#[test]
fn a_lab_carries_whatever_joins_its_networks() {
    if !may_build_a_lab() {
        return;
    }
    let options = LabOptions {
        inner_mtu: 1400,
        wire: true,
        ipv6: true,
        ..LabOptions::default()
    };
    let lab = Lab::build(&options).unwrap();
    for (gateway, far) in [(&lab.gateway_a, B), (&lab.gateway_b, A)] {
        gateway
            .add_route(far.network.into(), far.outer.into())
            .unwrap();
        gateway
            .add_route(far.network_v6.into(), far.outer_v6.into())
            .unwrap();
    }
    for address in [B.host.into(), B.host_v6.into()] {
        let flow = Flow {
            from: &lab.host_a,
            to: &lab.host_b,
            address: SocketAddr::new(address, 7000),
            cores: Cores::default(),
        };
        for train in [1, 40] {
            let load = UdpLoad {
                payload: 1300,
                train,
                ..LOAD
            };
            let trial = udp_trial(&flow, &load, &running()).unwrap();
            assert!(trial.sent > 0);
            assert_eq!(trial.lost(), 0, "{address}, {train}");
        }
    }
}
