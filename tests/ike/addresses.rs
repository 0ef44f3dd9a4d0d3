//! Virtual addresses (RFC 7296 §2.19).

use std::net::IpAddr;
use std::sync::Arc;

use lockgate::ike::{AddressPattern, Pool, SelectorConfig};
use lockgate::ipsec::Direction;

use super::config::{Setup, Side, selectors};
use super::pair::{Pair, initiate, rekey, rekey_child, rekey_ike, seconds, terminate_ike};

const DYNAMIC: SelectorConfig = SelectorConfig::Dynamic {
    protocol: 0,
    ports: (0, u16::MAX),
};

fn pool(last: u8) -> Pool {
    Pool {
        name: "guests".to_owned(),
        first: [10, 3, 0, 1].into(),
        last: [10, 3, 0, last].into(),
        dns: vec![[10, 2, 0, 53].into()],
        subnets: vec!["10.2.0.0/24".parse().unwrap()],
    }
}

/// A wants an address, B has a pool of so many.
pub(crate) fn guest(side: Side, setup: &mut Setup, addresses: u8) {
    let child = &mut setup.children[0];
    match side {
        Side::A => {
            setup.connection.vips = vec![[0, 0, 0, 0].into()];
            child.local_ts = vec![DYNAMIC];
        }
        Side::B => {
            setup.connection.remote_addrs = vec![AddressPattern::Any];
            setup.connection.pools = vec![Arc::new(pool(addresses))];
            child.remote_ts = vec![DYNAMIC];
        }
    }
}

fn ip(last: u8) -> IpAddr {
    [10, 3, 0, last].into()
}

/// Who has which address of B's pool, and by how many IKE SAs.
fn leases(pair: &mut Pair) -> Vec<(IpAddr, usize)> {
    let endpoint = &pair.host(Side::B).endpoint;
    let leases = endpoint.leases("guests");
    leases
        .map(|lease| (lease.address, lease.holders.len()))
        .collect()
}

fn virtual_ips(pair: &mut Pair) -> Vec<IpAddr> {
    pair.host(Side::A).endpoint.virtual_ips().collect()
}

/// The local sides of A's outbound policies.
fn policies(pair: &mut Pair) -> Vec<String> {
    let spd = pair.host(Side::A).endpoint.policies();
    let outbound = spd.policies().iter();
    let outbound = outbound.filter(|policy| policy.direction == Direction::Out);
    outbound.map(|policy| policy.local.to_string()).collect()
}

#[test]
fn a_guest_gets_an_address_which_all_its_traffic_has_and_gives_it_back_at_the_end() {
    let mut pair = Pair::up_with(|side, setup| guest(side, setup, 9));
    let (a, b) = (pair.ike_sa(Side::A), pair.ike_sa(Side::B));
    assert_eq!((a.local_vips, b.remote_vips), (vec![ip(1)], vec![ip(1)]));
    assert_eq!(a.dns, [IpAddr::from([10, 2, 0, 53])]);
    assert_eq!(a.subnets, ["10.2.0.0/24".parse().unwrap()]);
    let logged = pair
        .host(Side::A)
        .logged("the peer says it protects 10.2.0.0/24");
    assert!(logged);
    let (a, b) = (pair.child(Side::A), pair.child(Side::B));
    for selectors in [&a.local_ts, &b.remote_ts] {
        assert_eq!(selectors[0].to_string(), "10.3.0.1/32");
    }
    assert_eq!(virtual_ips(&mut pair), [ip(1)]);
    assert_eq!(policies(&mut pair), ["10.3.0.1/32"]);
    for side in Side::BOTH {
        pair.command(side, rekey_child());
        pair.run_for(seconds(6));
        pair.command(side, rekey_ike());
        pair.run_for(seconds(6));
        assert_eq!(pair.child(Side::B).remote_ts[0].to_string(), "10.3.0.1/32");
        assert_eq!(leases(&mut pair), [(ip(1), 1)]);
    }
    pair.assert_clean(1);
    pair.gapless = false;
    pair.command(Side::A, terminate_ike());
    pair.run_for(seconds(6));
    assert_eq!(leases(&mut pair), [(ip(1), 0)]);
    assert_eq!(virtual_ips(&mut pair), [] as [IpAddr; 0]);
    assert_eq!(policies(&mut pair), ["0.0.0.0/0"]);
    pair.finish();
}

#[test]
fn networks_that_the_peer_says_it_protects_change_no_selector() {
    let mut pair = Pair::up_with(|side, setup| {
        guest(side, setup, 9);
        if side == Side::B {
            let others = Pool {
                subnets: vec!["172.16.0.0/12".parse().unwrap()],
                ..pool(9)
            };
            setup.connection.pools = vec![Arc::new(others)];
        }
    });
    let told = &pair.ike_sa(Side::A).subnets;
    assert_eq!(*told, ["172.16.0.0/12".parse().unwrap()]);
    let child = pair.child(Side::A);
    assert_eq!(child.remote_ts[0].to_string(), "10.2.0.0/24");
    pair.assert_clean(1);
    pair.finish();
}

/// The addresses of both families that A has at first.
const BOTH: [&str; 2] = ["10.3.0.1", "fd03::1"];

/// A wants an address of each family, B has a pool of each; the child carries both.
fn guest_of_both_families(side: Side, setup: &mut Setup) {
    guest(side, setup, 9);
    let network = selectors(&["10.2.0.0/24", "fd02::/64"]);
    match side {
        Side::A => {
            setup.connection.vips.push(IpAddr::from([0_u16; 8]));
            setup.children[0].remote_ts = network;
        }
        Side::B => {
            setup.connection.pools.push(Arc::new(Pool {
                name: "guests6".to_owned(),
                first: "fd03::1".parse().unwrap(),
                last: "fd03::9".parse().unwrap(),
                dns: vec!["fd02::53".parse().unwrap()],
                subnets: vec!["fd02::/64".parse().unwrap()],
            }));
            setup.children[0].local_ts = network;
        }
    }
}

fn addresses(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn a_guest_gets_an_address_of_each_family_that_it_wants() {
    let mut pair = Pair::up_with(guest_of_both_families);
    let given = addresses(&BOTH);
    for step in ["at first", "rekeyed", "authenticated anew"] {
        let (a, b) = (pair.ike_sa(Side::A), pair.ike_sa(Side::B));
        assert_eq!((&a.local_vips, &b.remote_vips), (&given, &given), "{step}");
        assert_eq!(a.dns, addresses(&["10.2.0.53", "fd02::53"]), "{step}");
        let subnets = ["10.2.0.0/24", "fd02::/64"].map(|net| net.parse().unwrap());
        assert_eq!(a.subnets, subnets, "{step}");
        let (a, b) = (pair.child(Side::A), pair.child(Side::B));
        for selectors in [&a.local_ts, &b.remote_ts] {
            let selectors: Vec<_> = selectors.iter().map(ToString::to_string).collect();
            assert_eq!(selectors, ["10.3.0.1/32", "fd03::1/128"], "{step}");
        }
        match step {
            "at first" => {
                pair.command(Side::A, rekey_ike());
                pair.run_for(seconds(6));
            }
            _ => {
                pair.gapless = false;
                pair.command(Side::A, rekey(None, true));
                pair.run_for(seconds(10));
            }
        }
    }
    pair.command(Side::A, terminate_ike());
    pair.run_for(seconds(6));
    for pool in ["guests", "guests6"] {
        let endpoint = &pair.host(Side::B).endpoint;
        let held = endpoint.leases(pool).map(|lease| lease.holders.len());
        assert_eq!(held.collect::<Vec<_>>(), [0], "{pool}");
    }
    pair.finish();
}

#[test]
fn a_guest_gets_the_address_that_there_is_of_the_families_that_it_wants() {
    let mut pair = Pair::up_with(|side, setup| {
        guest_of_both_families(side, setup);
        if side == Side::B {
            setup.connection.pools.remove(0);
        }
    });
    let a = pair.ike_sa(Side::A);
    assert_eq!(a.local_vips, addresses(&["fd03::1"]));
    assert_eq!(a.dns, addresses(&["fd02::53"]));
    let child = pair.child(Side::A);
    assert_eq!(child.local_ts[0].to_string(), "fd03::1/128");
    assert_eq!(child.local_ts.len(), 1);
    pair.assert_clean(1);
    pair.finish();
}

#[test]
fn a_new_authentication_keeps_the_address() {
    let mut pair = Pair::up_with(|side, setup| guest(side, setup, 9));
    pair.gapless = false;
    pair.command(Side::A, rekey(None, true));
    pair.run_for(seconds(10));
    assert_eq!(pair.ike_sa(Side::A).local_vips, [ip(1)]);
    assert_eq!(leases(&mut pair), [(ip(1), 1)]);
    assert_eq!(virtual_ips(&mut pair), [ip(1)]);
    pair.assert_clean(1);
    pair.finish();
}

#[test]
fn a_guest_for_whom_there_is_no_address_hears_so_and_the_ike_sa_stays() {
    let mut pair = Pair::with(|side, setup| {
        guest(side, setup, 1);
        if side == Side::A {
            setup.connection.vips = vec![IpAddr::from([0_u16; 8])];
        }
    });
    let id = pair.command(Side::A, initiate("lan"));
    pair.settle();
    let failure = pair.failure(Side::A, id);
    assert!(failure.contains("INTERNAL_ADDRESS_FAILURE"), "{failure}");
    assert_eq!(pair.ike_sa(Side::B).children.len(), 0);
    assert_eq!(leases(&mut pair), []);
    pair.finish();
}

#[test]
fn who_does_not_ask_for_an_address_of_a_pool_hears_that_it_should() {
    let mut pair = Pair::with(|side, setup| {
        guest(side, setup, 9);
        if side == Side::A {
            setup.connection.vips.clear();
            setup.children[0].local_ts = selectors(&["10.3.0.7"]);
        }
    });
    let id = pair.command(Side::A, initiate("lan"));
    pair.settle();
    let failure = pair.failure(Side::A, id);
    assert!(failure.contains("FAILED_CP_REQUIRED"), "{failure}");
    pair.finish();
}

#[test]
fn a_peer_without_pools_gives_no_address_and_there_is_no_child() {
    let mut pair = Pair::with(|side, setup| {
        guest(side, setup, 9);
        if side == Side::B {
            setup.connection.pools.clear();
        }
    });
    let id = pair.command(Side::A, initiate("lan"));
    pair.settle();
    let failure = pair.failure(Side::A, id);
    assert!(failure.contains("no virtual IP"), "{failure}");
    pair.run_for(seconds(6));
    assert_eq!(pair.ike_sa(Side::A).children.len(), 0);
    assert_eq!(pair.ike_sa(Side::B).children.len(), 0);
    pair.finish();
}

#[test]
fn a_peer_that_dies_leaves_its_address_for_its_return() {
    let mut pair = Pair::up_with(|side, setup| {
        guest(side, setup, 9);
        if side == Side::B {
            setup.connection.dpd_delay = seconds(10);
        }
    });
    pair.gapless = false;
    pair.restart(Side::A);
    pair.run_for(seconds(200));
    assert_eq!(leases(&mut pair), [(ip(1), 0)]);
    pair.command(Side::A, initiate("lan"));
    pair.run_for(seconds(6));
    assert_eq!(leases(&mut pair), [(ip(1), 1)]);
    pair.finish();
}
