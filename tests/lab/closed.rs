//! Traffic that a policy protects never leaves in clear, whatever happens to the daemon.

use std::{net::IpAddr, time::Duration};

use lockgate::io::netns::Namespace;
use rustix::process::Signal;

use crate::support::{
    PATIENCE,
    eavesdropper::Eavesdropper,
    eventually,
    lab::{Family, Lab, OUTER, Plan, Side, ip},
    traffic::{Stream, arrives, assert_does_not_reach, assert_reaches, echo},
};

/// Routes that lead protected traffic out in clear if nothing stops it.
fn lab_with_tempting_routes() -> Option<Lab> {
    let lab = Lab::new()?;
    for side in [Side::A, Side::B] {
        for family in Family::BOTH {
            let (to, by) = (side.other().network(family), side.other().outer(family));
            lab.gateway(side).add_route(to, by).unwrap();
        }
    }
    Some(lab)
}

/// Without a daemon these routes do carry clear text: otherwise the tests below prove nothing.
#[test]
fn the_eavesdropper_hears_clear_text_when_no_daemon_has_run() {
    let Some(lab) = lab_with_tempting_routes() else {
        return;
    };
    let eavesdropper = Eavesdropper::on(&lab);
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V6));
    let overheard = eavesdropper.finish();
    assert!(overheard.clear.len() >= 4, "{}", overheard.clear.len());
}

#[test]
fn nothing_leaves_in_clear_before_a_tunnel_is_up_and_after_it_is_down() {
    let Some(lab) = lab_with_tempting_routes() else {
        return;
    };
    let plan = Plan::default();
    let a = lab.start(Side::A, &plan.config(Side::A));
    let eavesdropper = Eavesdropper::on(&lab);
    nothing_passes(&lab);
    let _b = lab.start(Side::B, &plan.config(Side::B));
    a.initiate("net");
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
    a.command("terminate", &[("ike", "lab")]);
    nothing_passes(&lab);
    eavesdropper.finish().assert_nothing_in_clear();
}

#[test]
fn nothing_leaves_in_clear_while_a_daemon_is_dead_and_while_it_starts_again() {
    let Some(lab) = lab_with_tempting_routes() else {
        return;
    };
    let plan = Plan::default();
    let [mut a, mut b] = lab.tunnel(&plan);
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
    let eavesdropper = Eavesdropper::on(&lab);
    a.process.kill();
    b.process.kill();
    nothing_passes(&lab);
    for _ in 0..3 {
        // Traffic knocks all the time while the daemon starts.
        let mut again = lab.start_without_waiting(Side::A, &plan.config(Side::A));
        nothing_passes(&lab);
        again.wait_until_ready();
        nothing_passes(&lab);
        again.process.kill();
        nothing_passes(&lab);
    }
    eavesdropper.finish().assert_nothing_in_clear();
}

#[test]
fn nothing_leaves_in_clear_while_a_child_comes_and_goes() {
    let Some(lab) = lab_with_tempting_routes() else {
        return;
    };
    let [a, _b] = lab.tunnel(&Plan::default());
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
    let eavesdropper = Eavesdropper::on(&lab);
    for _ in 0..5 {
        a.command("terminate", &[("child", "net")]);
        echo(
            &lab.host_a,
            &lab.host_b,
            Side::B.host(Family::V4),
            Duration::from_millis(100),
        );
        a.initiate("net");
        assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
    }
    eavesdropper.finish().assert_nothing_in_clear();
}

/// An orderly stop hands the machine back as it was found, but not before the tunnel's farewell:
/// until the last encrypted packet there is none in clear.
#[test]
fn nothing_leaves_in_clear_before_a_stopping_daemon_has_said_farewell() {
    let Some(lab) = lab_with_tempting_routes() else {
        return;
    };
    let [mut a, b] = lab.tunnel(&Plan::default());
    let stream = Stream::start(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
    stream.wait_for(200);
    let eavesdropper = Eavesdropper::on(&lab);
    stream.wait_for(200);
    assert!(a.process.terminate().success());
    eventually("the peer was told", || b.ike_sas().is_empty().then_some(()));
    stream.finish();
    let overheard = eavesdropper.finish();
    assert!(
        overheard.ike > 0 && overheard.esp > 0,
        "{} IKE",
        overheard.ike
    );
    assert_eq!(overheard.protected_after_clear, 0);
}

/// Gateway B runs no daemon, so its clear text is what an attacker could send.
#[test]
fn clear_text_from_outside_arrives_when_no_daemon_has_run() {
    let Some(lab) = lab_with_tempting_routes() else {
        return;
    };
    for (from, to, address) in knocks(&lab) {
        assert!(arrives(from, to, address, PATIENCE), "{address}");
    }
}

#[test]
fn clear_text_from_outside_is_let_in_neither_to_the_network_nor_to_the_gateway_itself() {
    let Some(lab) = lab_with_tempting_routes() else {
        return;
    };
    let plan = Plan::default();
    let mut b = lab.start(Side::B, &unguarded(&plan).config(Side::B));
    let a = lab.start(Side::A, &plan.config(Side::A));
    a.initiate("net");
    for (from, to, address) in knocks(&lab) {
        assert_reaches(from, to, address);
    }
    // Gateway A keeps its SAs, and those of gateway B are gone with everything else of it.
    b.process.kill();
    assert_nobody_is_let_in(&lab, &knocks(&lab));
    for family in Family::BOTH {
        assert_reaches(&lab.host_a, &lab.gateway_a, Side::A.inner(family));
        assert_reaches(&lab.gateway_a, &lab.gateway_a, Side::A.inner(family));
    }
    let _b = lab.start(Side::B, &unguarded(&plan).config(Side::B));
    a.command("terminate", &[("ike", "lab"), ("force", "yes")]);
    a.initiate("net");
    for (from, to, address) in knocks(&lab) {
        assert_reaches(from, to, address);
    }
}

/// Both selectors are the gateways' own addresses, which the kernel finds before any route of ours.
#[test]
fn clear_text_from_outside_is_not_let_in_beside_transport_mode() {
    for family in Family::BOTH {
        for encap in [true, false] {
            let Some(lab) = Lab::new() else { return };
            let plan = Plan {
                outer: family,
                encap,
                inner: Vec::new(),
                child: "mode = \"transport\"".to_owned(),
                ..Plan::default()
            };
            let mut b = lab.start(Side::B, &unguarded(&plan).config(Side::B));
            let a = lab.start(Side::A, &plan.config(Side::A));
            a.initiate("net");
            let knock = (&lab.gateway_b, &lab.gateway_a, Side::A.outer(family));
            assert_reaches(knock.0, knock.1, knock.2);
            b.process.kill();
            // Neighbours have to find each other while the guard is there.
            for gateway in [&lab.gateway_a, &lab.gateway_b] {
                ip(gateway, &format!("neigh flush dev {OUTER}"));
            }
            assert_nobody_is_let_in(&lab, &[knock]);
        }
    }
}

#[test]
fn clear_text_from_outside_is_not_let_in_while_a_daemon_is_dead_and_while_it_starts_again() {
    let Some(lab) = lab_with_tempting_routes() else {
        return;
    };
    let plan = Plan::default();
    let mut a = lab.start(Side::A, &plan.config(Side::A));
    for _ in 0..3 {
        assert_nobody_is_let_in(&lab, &knocks(&lab));
        a.process.kill();
        assert_nobody_is_let_in(&lab, &knocks(&lab));
        // The device that the successor makes has another index.
        a = lab.start_without_waiting(Side::A, &plan.config(Side::A));
        assert_nobody_is_let_in(&lab, &knocks(&lab));
        a.wait_until_ready();
    }
    let mut b = lab.start(Side::B, &plan.config(Side::B));
    a.initiate("net");
    for (from, to, address) in knocks(&lab) {
        assert_reaches(from, to, address);
    }
    for family in Family::BOTH {
        assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(family));
    }
    assert!(b.process.terminate().success());
    assert!(a.process.terminate().success());
    for (from, to, address) in knocks(&lab) {
        assert!(arrives(from, to, address, PATIENCE), "{address}");
    }
}

/// A switch of the system that opens the guard is not passed over in silence.
#[test]
fn switches_that_open_the_guard_are_warned_of() {
    let Some(lab) = lab_with_tempting_routes() else {
        return;
    };
    for switch in [
        "ipv4/conf/outer/disable_policy",
        "ipv6/conf/inner/disable_policy",
    ] {
        lab.gateway_a.sysctl(switch, "1").unwrap();
    }
    let a = lab.start(Side::A, &Plan::default().config(Side::A));
    let log = a.process.output();
    for switch in [
        "net.ipv4.conf.outer.disable_policy",
        "net.ipv6.conf.inner.disable_policy",
    ] {
        let told = log
            .lines()
            .any(|line| line.contains("WARN") && line.contains(switch));
        assert!(told, "{switch} in {log}");
    }
    lab.gateway_a
        .sysctl("ipv4/conf/outer/disable_xfrm", "1")
        .unwrap();
    a.process.signal(Signal::HUP);
    eventually("a reload warns", || {
        let log = a.process.output();
        log.contains("net.ipv4.conf.outer.disable_xfrm")
            .then_some(())
    });
}

/// From the far side to gateway A's network and to the gateway itself.
fn knocks(lab: &Lab) -> Vec<(&Namespace, &Namespace, IpAddr)> {
    let of = |family| {
        [
            (&lab.host_b, &lab.host_a, Side::A.host(family)),
            (&lab.host_b, &lab.gateway_a, Side::A.inner(family)),
        ]
    };
    Family::BOTH.into_iter().flat_map(of).collect()
}

/// Sends clear text, and makes sure that it was there to be let in.
#[track_caller]
fn assert_nobody_is_let_in(lab: &Lab, knocks: &[(&Namespace, &Namespace, IpAddr)]) {
    for &(from, to, address) in knocks {
        eventually("clear text is on the outer link", || {
            let eavesdropper = Eavesdropper::on(lab);
            let patience = Duration::from_millis(200);
            assert!(
                !arrives(from, to, address, patience),
                "{address} was reached"
            );
            (!eavesdropper.finish().clear.is_empty()).then_some(())
        });
    }
}

/// A gateway that leaves nothing behind when it is killed.
fn unguarded(plan: &Plan) -> Plan {
    Plan {
        daemon: "guard = \"off\"".to_owned(),
        ..plan.clone()
    }
}

fn nothing_passes(lab: &Lab) {
    for family in Family::BOTH {
        assert_does_not_reach(&lab.host_a, &lab.host_b, Side::B.host(family));
    }
}
