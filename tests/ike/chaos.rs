//! Random commands on both sides, over a network that loses, repeats and reorders.

use std::collections::BTreeSet;

use lockgate::ike::IkeSaStatus;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use super::config::Side;
use super::network::Fate;
use super::pair::{
    Pair, initiate, millis, rekey_child, rekey_ike, seconds, terminate_child, terminate_ike,
};

/// Two gateways with so many tries that no exchange fails by loss alone.
fn bad_network(seed: u64, loss_percent: u32, dpd_delay: u64) -> Pair {
    let mut pair = Pair::seeded(seed, |_, setup| {
        setup.connection.dpd_delay = seconds(dpd_delay);
        setup.settings.retransmit.tries = 12;
        setup.settings.retransmit.longest = seconds(2);
    });
    let mut random = ChaCha20Rng::seed_from_u64(seed);
    pair.net.decide(move |_| {
        let late = millis(u64::from(random.next_u32() % 400));
        if chance(&mut random, loss_percent) {
            Fate::Drop
        } else if chance(&mut random, 10) {
            Fate::Twice(late)
        } else {
            Fate::Late(late)
        }
    });
    pair
}

fn chance(random: &mut ChaCha20Rng, percent: u32) -> bool {
    random.next_u32() % 100 < percent
}

fn any_side(random: &mut ChaCha20Rng) -> Side {
    Side::BOTH[usize::from(chance(random, 50))]
}

fn pause(pair: &mut Pair, random: &mut ChaCha20Rng) {
    pair.run_for(millis(u64::from(random.next_u32() % 2500)));
}

/// Both sides have the same SAs, and their data planes only those.
#[track_caller]
pub(crate) fn assert_mirrored(pair: &mut Pair, sas: &[Vec<IkeSaStatus>; 2]) {
    let spis = sas.each_ref().map(|sas| {
        let spis = sas.iter().map(|sa| (sa.initiator_spi, sa.responder_spi));
        spis.collect::<BTreeSet<_>>()
    });
    assert_eq!(spis[0], spis[1]);
    let [of_a, of_b] = Side::BOTH.map(|side| {
        let children = || sas[side.index()].iter().flat_map(|sa| &sa.children);
        let inbound: BTreeSet<u32> = children().map(|child| child.spi_in.get()).collect();
        let outbound: BTreeSet<u32> = children().map(|child| child.spi_out.get()).collect();
        let expected = [inbound, outbound];
        assert_eq!(pair.host(side).plane.spis(), expected, "{side:?}");
        expected
    });
    let [inbound_b, outbound_b] = of_b;
    assert_eq!(of_a, [outbound_b, inbound_b]);
}

fn assert_same(pair: &mut Pair) {
    let sas = Side::BOTH.map(|side| pair.ike_sas(side));
    assert_mirrored(pair, &sas);
}

#[test]
fn rekeys_from_both_sides_on_a_bad_network_never_leave_a_moment_without_a_pair() {
    for seed in 0..100 {
        let mut pair = bad_network(seed, 15, 0);
        let mut random = ChaCha20Rng::seed_from_u64(seed + 1);
        pair.command(Side::A, initiate("lan"));
        pair.run_for(seconds(60));
        pair.gapless = true; // the responder of the first one is ready before its initiator
        for _ in 0..12 {
            let side = any_side(&mut random);
            let rekey = if chance(&mut random, 65) {
                rekey_child()
            } else {
                rekey_ike()
            };
            pair.command(side, rekey);
            pause(&mut pair, &mut random);
        }
        pair.run_for(seconds(200));
        pair.net.heal();
        println!("seed {seed}");
        assert_same(&mut pair);
        pair.assert_clean(1);
        pair.finish();
    }
}

#[test]
fn any_commands_on_a_bad_network_end_with_the_same_sas_on_both_sides() {
    for seed in 1000..1100 {
        let mut pair = bad_network(seed, 20, 20);
        let mut random = ChaCha20Rng::seed_from_u64(seed + 1);
        for _ in 0..25 {
            let side = any_side(&mut random);
            let command = match random.next_u32() % 8 {
                0..=2 => initiate("lan"),
                3 => rekey_ike(),
                4 | 5 => rekey_child(),
                6 => terminate_child(),
                _ => terminate_ike(),
            };
            pair.command(side, command);
            pause(&mut pair, &mut random);
        }
        pair.net.heal();
        pair.run_for(seconds(300));
        println!("seed {seed}");
        assert_same(&mut pair);
        pair.finish();
    }
}
