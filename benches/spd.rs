//! Looking a flow up among 1, 100 and 10 000 policies.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ipnet::{IpNet, Ipv4Net};
use lockgate::ipsec::{Action, Direction, Mode, Policy, PolicyId, Reqid, Spd, Template};
use lockgate::wire::ip::Flow;
use lockgate::wire::selector::TrafficSelector;

/// The network of a site: one of 65 536 of 256 addresses in 10.0.0.0/8.
fn site(number: u32) -> TrafficSelector {
    let address = Ipv4Addr::from_bits(0x0a00_0000 | number << 8);
    TrafficSelector::net(IpNet::V4(
        Ipv4Net::new(address, 24).expect("a prefix length"),
    ))
}

fn policy(number: u32, local: TrafficSelector, remote: TrafficSelector, action: Action) -> Policy {
    Policy {
        id: PolicyId(number),
        name: String::new(),
        direction: Direction::Out,
        local,
        remote,
        action,
        priority: 100,
    }
}

fn sites(count: u32) -> Vec<Policy> {
    let protect = |number| {
        Action::Protect(Template {
            reqid: Reqid(number),
            mode: Mode::Tunnel,
            trap: false,
        })
    };
    (1..=count)
        .map(|number| policy(number, site(0), site(number), protect(number)))
        .collect()
}

fn flow(number: u32) -> Flow {
    let dst = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0001 | number << 8));
    Flow {
        src: IpAddr::from([10, 0, 0, 1]),
        dst,
        protocol: 6,
        ports: Some((40_000, 443)),
    }
}

fn spd(c: &mut Criterion) {
    let mut group = c.benchmark_group("spd");
    for count in [1, 100, 10_000] {
        let spd = Spd::new(sites(count));
        let mut number = 0;
        group.bench_function(BenchmarkId::new("hit", count), |bencher| {
            bencher.iter(|| {
                number = (number + 7919) % count;
                spd.outbound_action(black_box(&flow(number + 1))).is_some()
            });
        });
        group.bench_function(BenchmarkId::new("miss", count), |bencher| {
            bencher.iter(|| spd.outbound_action(black_box(&flow(60_000))).is_some());
        });
    }

    // As many prefix lengths as a real table has, and a discard for everything at the end.
    let mut mixed = sites(10_000);
    for (policy, bits) in mixed.iter_mut().zip((16..=32).cycle()) {
        let IpAddr::V4(address) = policy.remote.start() else {
            continue;
        };
        let net = Ipv4Net::new(address, bits)
            .expect("a prefix length")
            .trunc();
        policy.remote = TrafficSelector::net(IpNet::V4(net));
    }
    let any = TrafficSelector::any_v4();
    mixed.push(Policy {
        priority: u32::MAX,
        ..policy(0, any, any, Action::Discard)
    });
    let spd = Spd::new(mixed);
    let mut number = 0;
    group.bench_function("hit/10000 of 17 prefix lengths", |bencher| {
        bencher.iter(|| {
            number = (number + 7919) % 10_000;
            spd.outbound_action(black_box(&flow(number + 1))).is_some()
        });
    });
    group.finish();
}

criterion_group!(benches, spd);
criterion_main!(benches);
