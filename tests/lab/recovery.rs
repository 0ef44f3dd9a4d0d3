//! A gateway that dies without a word, and comes back or does not.

use crate::support::{
    PATIENCE, eventually,
    lab::{Family, Gateway, Lab, Plan, Side},
    traffic::{assert_reaches, echo},
};

#[test]
fn a_killed_initiator_comes_back_and_replaces_its_tunnel() {
    comes_back(Side::A);
}

#[test]
fn a_killed_responder_comes_back_and_replaces_its_tunnel() {
    comes_back(Side::B);
}

/// The one that was killed initiates when it starts again. Its INITIAL_CONTACT (RFC 7296 §2.4) ends
/// what the survivor still holds.
fn comes_back(victim: Side) {
    let Some(lab) = Lab::new() else { return };
    let plan = Plan::default();
    let [mut a, mut b] = lab.tunnel(&plan);
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
    let (killed, survivor) = if victim == Side::A {
        (&mut a, &b)
    } else {
        (&mut b, &a)
    };

    killed.process.kill();
    let eager = Plan {
        child: "start_action = \"start\"".to_owned(),
        ..plan
    };
    let _again = lab.start(victim, &eager.config(victim));
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
    assert_reaches(&lab.host_b, &lab.host_a, Side::A.host(Family::V6));
    eventually("the survivor has forgotten the dead SA", || {
        (survivor.ike_sas().len() == 1).then_some(())
    });
}

/// The one that was killed waits when it starts again; the survivor finds out by itself, by liveness
/// checks, and brings the tunnel up again.
#[test]
fn a_survivor_notices_the_death_of_its_peer_and_restarts_the_tunnel() {
    let Some(lab) = Lab::new() else { return };
    let plan = Plan::default();
    let watchful = Plan {
        connection: "dpd_delay = \"1s\"\nkeyingtries = 0".to_owned(),
        child: "dpd_action = \"restart\"".to_owned(),
        ..plan.clone()
    };
    let [a, _b] = responder_is_killed(&lab, &plan, &watchful);
    eventually("one IKE SA is left", || {
        (a.ike_sas().len() == 1).then_some(())
    });
}

/// B is killed and started again, and A brings the tunnel up.
fn responder_is_killed(lab: &Lab, plan: &Plan, restarting: &Plan) -> [Gateway; 2] {
    let mut b = lab.start(Side::B, &plan.config(Side::B));
    let a = lab.start(Side::A, &restarting.config(Side::A));
    a.initiate("net");
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));

    b.process.kill();
    let b = lab.start(Side::B, &plan.config(Side::B));
    eventually("the tunnel is up again", || {
        (b.child_sas().len() == 1).then_some(())
    });
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
    [a, b]
}

/// The keys of tickets outlive the responder, so its peer goes on from the IKE SA that was lost (RFC 5723).
#[test]
fn a_killed_responder_is_resumed_with_when_it_is_back() {
    let Some(lab) = Lab::new() else { return };
    let plan = Plan {
        connection: "resumption = true\ndpd_delay = \"1s\"\nkeyingtries = 0".to_owned(),
        ..Plan::default()
    };
    let restarting = Plan {
        child: "dpd_action = \"restart\"".to_owned(),
        ..plan.clone()
    };
    let [_a, b] = responder_is_killed(&lab, &plan, &restarting);
    let said = b.process.output();
    assert!(
        said.contains("authenticated with the keys of its last IKE_SA"),
        "{said}"
    );
}

#[test]
fn a_peer_that_stays_dead_is_forgotten() {
    let Some(lab) = Lab::new() else { return };
    let plan = Plan {
        connection: "dpd_delay = \"1s\"".to_owned(),
        ..Plan::default()
    };
    let [a, mut b] = lab.tunnel(&plan);
    b.process.kill();
    eventually("the dead peer's SA is gone", || {
        a.ike_sas().is_empty().then_some(())
    });
}

#[test]
fn an_orderly_stop_tells_the_peer_and_leaves_nothing_behind() {
    let Some(lab) = Lab::new() else { return };
    let [mut a, b] = lab.tunnel(&Plan::default());
    assert!(a.process.terminate().success(), "{}", a.process.output());
    eventually("the peer was told", || b.ike_sas().is_empty().then_some(()));
    assert!(!a.socket().exists(), "the control socket is still there");
    let left = lab.gateway_a.run(|| {
        let routes = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        routes.contains("ipsec0")
    });
    assert!(!left, "the TUN device is still there");
}

/// Whatever a killed daemon left behind does not stop the next one.
#[test]
fn a_daemon_starts_on_a_dirty_machine() {
    let Some(lab) = Lab::new() else { return };
    let plan = Plan::default();
    let [mut a, _b] = lab.tunnel(&plan);
    for _ in 0..3 {
        a.process.kill();
        a = lab.start(Side::A, &plan.config(Side::A));
        a.initiate("net");
        assert!(echo(
            &lab.host_a,
            &lab.host_b,
            Side::B.host(Family::V4),
            PATIENCE
        ));
    }
}
