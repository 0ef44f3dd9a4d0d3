//! Traffic that a policy protects never leaves in clear, whatever happens to the daemon.

use std::time::Duration;

use crate::support::{
    eavesdropper::Eavesdropper,
    eventually,
    lab::{Family, Lab, Plan, Side},
    traffic::{Stream, assert_does_not_reach, assert_reaches, echo},
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

/// Clear text inside a protected selector is not accepted from the outer link either.
#[test]
fn clear_text_from_outside_is_not_let_in() {
    let Some(lab) = lab_with_tempting_routes() else {
        return;
    };
    let plan = Plan::default();
    let _a = lab.start(Side::A, &plan.config(Side::A));
    // Gateway B runs no daemon, so its host's packets arrive at gateway A in clear.
    for family in Family::BOTH {
        assert_does_not_reach(&lab.host_b, &lab.host_a, Side::A.host(family));
    }
}

fn nothing_passes(lab: &Lab) {
    for family in Family::BOTH {
        assert_does_not_reach(&lab.host_a, &lab.host_b, Side::B.host(family));
    }
}
