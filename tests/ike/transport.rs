//! Transport mode (RFC 7296 §1.3.1), also through NAT (§2.23.1).

use lockgate::ike::{AddressPattern, ChildMode, SelectorConfig};
use lockgate::ipsec::Mode;

use super::config::{Setup, Side, selectors};
use super::network::Nat;
use super::pair::{Pair, initiate, rekey_child, rekey_ike, seconds};

const DYNAMIC: SelectorConfig = SelectorConfig::Dynamic {
    protocol: 0,
    ports: (0, u16::MAX),
};

/// One child between the gateways themselves.
fn transport(setup: &mut Setup, mode: ChildMode) {
    let child = &mut setup.children[0];
    child.mode = mode;
    child.per_cpu_sas = false;
    (child.local_ts, child.remote_ts) = (vec![DYNAMIC], vec![DYNAMIC]);
}

fn modes(pair: &Pair) -> [Mode; 2] {
    Side::BOTH.map(|side| pair.child(side).mode)
}

#[test]
fn two_gateways_that_want_it_have_transport_mode_also_after_rekeys_from_each_side() {
    let mut pair = Pair::up_with(|_, setup| transport(setup, ChildMode::Transport));
    assert_eq!(modes(&pair), [Mode::Transport; 2]);
    for side in Side::BOTH {
        pair.command(side, rekey_child());
        pair.settle();
        pair.command(side, rekey_ike());
        pair.run_for(seconds(6));
        assert_eq!(modes(&pair), [Mode::Transport; 2]);
    }
    pair.assert_clean(1);
    pair.finish();
}

#[test]
fn where_one_side_does_not_want_it_there_is_tunnel_mode() {
    for unwilling in Side::BOTH {
        let mut pair = Pair::up_with(|side, setup| {
            let mode = if side == unwilling {
                ChildMode::Tunnel
            } else {
                ChildMode::Transport
            };
            transport(setup, mode);
        });
        assert_eq!(modes(&pair), [Mode::Tunnel; 2], "{unwilling:?}");
        pair.command(unwilling.other(), rekey_child());
        pair.run_for(seconds(6));
        assert_eq!(modes(&pair), [Mode::Tunnel; 2], "{unwilling:?}");
        pair.assert_clean(1);
        pair.finish();
    }
}

#[test]
fn networks_make_it_tunnel_mode() {
    let mut pair = Pair::up_with(|_, setup| {
        setup.children[0].mode = ChildMode::Transport;
        setup.children[0].per_cpu_sas = false;
    });
    assert_eq!(modes(&pair), [Mode::Tunnel; 2]);
    pair.assert_clean(1);
    pair.finish();
}

/// Each side's selectors name the addresses that it sees.
#[test]
fn behind_a_nat_each_side_has_the_addresses_that_it_knows() {
    let outside = [203, 0, 113, 9].into();
    let mut pair = Pair::with(|side, setup| {
        transport(setup, ChildMode::Transport);
        if side == Side::B {
            setup.connection.remote_addrs = vec![AddressPattern::Any];
        }
    });
    pair.net.nat = Some(Nat {
        outside,
        shift: 20_000,
    });
    pair.command(Side::A, initiate("lan"));
    pair.settle();
    let check = |pair: &Pair| {
        assert_eq!(modes(pair), [Mode::Transport; 2]);
        let (a, b) = (pair.child(Side::A), pair.child(Side::B));
        let hosts = [&a.local_ts, &a.remote_ts, &b.local_ts, &b.remote_ts];
        let hosts = hosts.map(|list| list[0].start());
        let [at_a, at_b] = [Side::A.addr(), Side::B.addr()];
        assert_eq!(hosts, [at_a, at_b, at_b, outside]);
    };
    check(&pair);
    for side in Side::BOTH {
        pair.command(side, rekey_child());
        pair.run_for(seconds(6));
        check(&pair);
    }
    pair.assert_clean(1);
    pair.finish();
}

#[test]
fn ports_narrow_a_transport_mode_sa() {
    let mut pair = Pair::up_with(|side, setup| {
        transport(setup, ChildMode::Transport);
        let (own, far) = (side.addr(), side.other().addr());
        let text = |address, server| match server {
            true => format!("{address}[tcp/179]"),
            false => format!("{address}[tcp]"),
        };
        let child = &mut setup.children[0];
        child.local_ts = selectors(&[&text(own, side == Side::B)]);
        child.remote_ts = selectors(&[&text(far, side == Side::A)]);
    });
    assert_eq!(modes(&pair), [Mode::Transport; 2]);
    assert_eq!(pair.child(Side::A).remote_ts[0].ports(), (179, 179));
    pair.assert_clean(1);
    pair.finish();
}
