//! Redirects that lead nowhere, cross other exchanges or come in the middle of something: what there was
//! stays until there is something better.

use std::collections::BTreeSet;

use lockgate::ike::{AddressPattern, AlertKind, Event, Input, Unique};
use lockgate::wire::ikev2::NotifyType;
use lockgate::wire::isakmp::ExchangeType;

use super::addresses::guest;
use super::config::Side;
use super::network::Sent;
use super::pair::{initiate, millis, rekey, rekey_ike, seconds};
use super::redirect::{
    ELSEWHERE, addr, assert_at, gateway, notifies, pair_with, redirect, redirected_in_auth,
    sending_away, up,
};

/// Where nobody answers.
const NOWHERE: &str = "203.0.113.9";

#[test]
fn a_redirect_that_crosses_a_rekey_leaves_nothing_behind() {
    for side in Side::BOTH {
        for rekey_first in [false, true] {
            for delay in (0..60).step_by(4) {
                let mut pair = pair_with(|_, _| {});
                up(&mut pair);
                let mut commands = [(Side::B, redirect(ELSEWHERE)), (side, rekey_ike())];
                if rekey_first {
                    commands.reverse();
                }
                let [(one, first), (two, second)] = commands;
                pair.command(one, first);
                pair.run_for(millis(delay));
                pair.command(two, second);
                pair.run_for(seconds(60));
                let place = pair.ike_sas(Side::A);
                assert_eq!(place.len(), 1, "{side:?} {rekey_first} {delay}");
                assert_at(&pair, ELSEWHERE);
                pair.assert_clean(1);
                pair.finish();
            }
        }
    }
}

#[test]
fn whom_a_redirect_leads_nowhere_is_served_by_the_gateway_that_it_came_from() {
    let mut pair = pair_with(|side, setup| {
        if side == Side::B {
            setup.connection.redirect = Some(gateway(NOWHERE));
        }
        setup.connection.keyingtries = 1;
    });
    let id = pair.command(Side::A, initiate("lan"));
    pair.run_for(seconds(60));
    assert!(matches!(pair.result(Side::A, id), Some(Ok(_))));
    assert_at(&pair, "192.0.2.2");
    let detours = pair.net.from(Side::A, 0);
    let detours = detours.iter().filter(|sent| {
        let first = notifies(sent)
            .iter()
            .any(|(kind, _)| *kind == NotifyType::REDIRECTED_FROM);
        sent.is(ExchangeType::IKE_SA_INIT, false) && first
    });
    let spis: BTreeSet<_> = detours.map(|sent| sent.header.initiator_spi.0).collect();
    assert_eq!(spis.len(), 1, "it was tried once");
    pair.assert_clean(1);
    pair.finish();
}

#[test]
fn an_established_peer_whom_a_redirect_leads_nowhere_comes_back() {
    let mut pair = pair_with(|_, setup| setup.connection.keyingtries = 1);
    up(&mut pair);
    pair.gapless = false;
    pair.command(Side::B, redirect(NOWHERE));
    pair.run_for(seconds(120));
    assert_at(&pair, "192.0.2.2");
    pair.assert_clean(1);
    pair.finish();
}

/// The tunnel that there is stays until there is one elsewhere.
#[test]
fn a_new_authentication_that_is_redirected_ends_nothing_here() {
    let mut pair = pair_with(|_, setup| setup.connection.unique = Unique::Replace);
    up(&mut pair);
    let before = pair.ike_sa(Side::B).id;
    pair.start_traffic(millis(3));
    let since = pair.net.sent();
    pair.command(Side::A, rekey(None, true));
    let mut changed = pair.setup(Side::B).clone();
    changed.connection.redirect = Some(gateway(NOWHERE));
    pair.run_for(millis(15));
    let now = pair.now;
    pair.host(Side::B).reload(now, changed.pad());
    pair.collect();
    pair.run_for(seconds(5));
    pair.stop_traffic();
    assert_eq!(pair.lost_packets, 0);
    let sas = pair.ike_sas(Side::B);
    assert!(sas.iter().any(|sa| sa.id == before), "{sas:?}");
    // Not in IKE_SA_INIT, but between the answer to IKE_AUTH and the way to nowhere.
    let trace = &pair.net.trace[since..];
    let place = |exchange, from| {
        let of = |sent: &Sent| sent.from == from && sent.header.exchange == exchange;
        trace.iter().position(of).expect("it was sent")
    };
    let answer = &trace[place(ExchangeType::IKE_SA_INIT, Side::B)];
    let mut told = notifies(answer).into_iter();
    assert!(told.all(|(kind, _)| kind != NotifyType::REDIRECT));
    let away = |sent: &Sent| sent.transmit.path.remote.ip() == addr(NOWHERE);
    let gone = trace.iter().position(away).expect("A follows");
    assert!(gone > place(ExchangeType::IKE_AUTH, Side::B));
}

/// A peer that forgets what it was told and says so to nobody has one IKE SA here, whatever the policy.
#[test]
fn ike_sas_that_are_there_to_send_a_peer_away_do_not_gather() {
    for unique in [Unique::No, Unique::Never, Unique::Replace, Unique::Keep] {
        let mut pair = pair_with(|side, setup| {
            let both = [Unique::Never, unique];
            setup.connection.unique = both[side.index()];
        });
        let plain = pair.setup(Side::B).clone();
        let mut sending = plain.clone();
        sending.connection.redirect = Some(gateway(NOWHERE));
        for turn in 1..=4 {
            pair.command(Side::A, initiate("lan"));
            pair.run_for(millis(15));
            let now = pair.now;
            pair.host(Side::B).reload(now, sending.pad());
            pair.run_for(millis(20));
            let told = |line: &&str| line.contains("redirecting the peer to");
            assert_eq!(pair.host(Side::B).logs().filter(told).count(), turn);
            pair.restart(Side::A);
            let now = pair.now;
            pair.host(Side::B).reload(now, plain.pad());
            pair.run_for(millis(100));
            assert_eq!(pair.ike_sas(Side::B).len(), 1, "{unique:?}");
        }
        pair.run_for(seconds(200));
        pair.assert_nothing_left();
    }
}

#[test]
fn a_peer_that_is_redirected_takes_no_address() {
    let mut pair = redirected_in_auth(|side, setup| guest(side, setup, 4));
    pair.run_for(millis(1));
    let before = pair.net.sent();
    while !pair
        .net
        .from(Side::B, before)
        .iter()
        .any(|sent| sent.is(ExchangeType::IKE_AUTH, true))
    {
        pair.run_for(millis(1));
    }
    let endpoint = &pair.host(Side::B).endpoint;
    assert_eq!(endpoint.leases("guests").count(), 0);
}

/// An address that was not told would be hashed as 0.0.0.0, and every path would seem translated.
#[test]
fn a_detour_starts_from_the_address_that_the_routing_table_has_for_it() {
    let mut pair = pair_with(|side, setup| {
        sending_away(side, setup);
        if side == Side::A {
            setup.connection.local_addrs = vec![AddressPattern::Any];
        }
    });
    let (now, local) = (pair.now, Side::A.addr());
    let remote = Side::B.addr();
    pair.host(Side::A)
        .handle(now, Input::SourceAddress { remote, local });
    pair.host(Side::A).route = Some(local);
    pair.command(Side::A, initiate("lan"));
    pair.run_for(seconds(1));
    pair.assert_tunnels(1);
    assert_at(&pair, ELSEWHERE);
    assert!(!pair.ike_sa(Side::A).nat.any());
    assert!(!pair.ike_sa(Side::B).nat.any());
    pair.finish();
}

/// The answer may take its time: whoever looks routes up has other things to do.
#[test]
fn a_detour_waits_until_the_address_that_it_starts_from_is_told() {
    let mut pair = pair_with(|side, setup| {
        sending_away(side, setup);
        if side == Side::A {
            setup.connection.local_addrs = vec![AddressPattern::Any];
        }
    });
    let (now, local) = (pair.now, Side::A.addr());
    let remote = Side::B.addr();
    pair.host(Side::A)
        .handle(now, Input::SourceAddress { remote, local });
    pair.command(Side::A, initiate("lan"));
    pair.run_for(millis(500));
    let requests = pair.net.from(Side::A, 0).len();
    assert_eq!(requests, 1, "nothing goes to the other gateway so far");
    let (now, remote) = (pair.now, ELSEWHERE.parse().unwrap());
    pair.host(Side::A)
        .handle(now, Input::SourceAddress { remote, local });
    pair.collect();
    pair.run_for(millis(100));
    pair.assert_tunnels(1);
    assert_at(&pair, ELSEWHERE);
    assert!(!pair.ike_sa(Side::A).nat.any());
    assert!(!pair.ike_sa(Side::B).nat.any());
    pair.finish();
}

/// Where no route leads to, nothing is sent.
#[test]
fn a_detour_without_a_route_is_given_up_for_the_configured_gateway() {
    let mut pair = pair_with(|side, setup| {
        match side {
            Side::A => setup.connection.local_addrs = vec![AddressPattern::Any],
            Side::B => setup.connection.redirect = Some(gateway(NOWHERE)),
        }
        setup.connection.keyingtries = 1;
    });
    let (now, local) = (pair.now, Side::A.addr());
    let remote = Side::B.addr();
    pair.host(Side::A)
        .handle(now, Input::SourceAddress { remote, local });
    let id = pair.command(Side::A, initiate("lan"));
    pair.run_for(seconds(10));
    assert!(matches!(pair.result(Side::A, id), Some(Ok(_))));
    assert_at(&pair, "192.0.2.2");
    let events = pair.host(Side::A).events.iter();
    let told = events.filter_map(|event| match event {
        Event::Alert(alert) => Some((alert.kind, &*alert.connections, &*alert.message)),
        _ => None,
    });
    let told: Vec<_> = told.collect();
    let line = format!("establishing IKE_SA failed: there is no route to {NOWHERE}");
    let names = ["site".to_owned()];
    assert_eq!(told, [(AlertKind::Unreachable, &names[..], &*line)]);
    let sent = pair.net.from(Side::A, 0);
    let nowhere = NOWHERE.parse::<std::net::IpAddr>().unwrap();
    let led_astray = sent
        .iter()
        .filter(|sent| sent.transmit.path.remote.ip() == nowhere);
    assert_eq!(led_astray.count(), 0);
    pair.assert_clean(1);
    pair.finish();
}
