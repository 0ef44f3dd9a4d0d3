//! How often workers ask for SAs.

use std::time::Duration;

use lockgate::ipsec::{Action, Mode, Reqid, SaEvent, Spd, Template, WorkerId};
use lockgate::wire::selector::TrafficSelector;

use crate::gateway::{Gateway, REQID, Tunnel, policy, spd};
use crate::packets::udp;

/// Who asks for which reqid, oldest first; `None` where nobody has an SA.
fn asks(gateway: &Gateway) -> Vec<(Reqid, Option<WorkerId>)> {
    let events = gateway.events().into_iter();
    let asks = events.filter_map(|event| match event {
        SaEvent::Acquire { reqid, worker, .. } => Some((reqid, worker)),
        _ => None,
    });
    asks.collect()
}

fn net(text: &str) -> TrafficSelector {
    TrafficSelector::net(text.parse().expect("literal"))
}

#[test]
fn a_worker_that_wants_an_sa_of_its_own_asks_at_once_where_there_is_none() {
    let narrow = Tunnel {
        workers: 2,
        owner: 1,
        per_worker: true,
        protocol_and_port: Some((17, 53)),
        ..Tunnel::default()
    };
    let wide = || spd(net("10.1.0.0/16"), net("10.2.0.0/16"));
    let (mut a, mut b) = (Gateway::new(2, wide()), Gateway::new(2, wide()));
    narrow.connect(&mut a, &mut b, 0);
    let packet = |port| udp(narrow.host_a(1, port), narrow.host_b(1, port), &[1], true);
    a.send_at(0, &packet(53));
    a.send_at(0, &packet(80));
    let own = Some(WorkerId(0));
    assert_eq!(asks(&a), [(REQID, own), (REQID, None)]);
}

#[test]
fn what_the_control_thread_does_not_come_to_is_not_asked_and_made_good_once_it_does() {
    let policies = (0..3000_u32).map(|number| {
        let template = Template {
            reqid: Reqid(number),
            mode: Mode::Tunnel,
            trap: false,
        };
        let remote = net(&format!("10.{}.{}.0/24", 100 + number / 256, number % 256));
        policy(net("10.1.0.0/16"), remote, Action::Protect(template), 100)
    });
    let mut a = Gateway::new(1, Spd::new(policies.collect()));
    let source = Tunnel::default().host_a(1, 1);
    let packet = |number: u32| {
        let to = format!("10.{}.{}.1:9", 100 + number / 256, number % 256);
        udp(source, to.parse().expect("literal"), &[1], true)
    };
    for number in 0..3000 {
        a.send(&packet(number));
    }
    // The ring and as many again; then the control thread wakes up.
    let first = asks(&a);
    a.pipelines[0].finish();
    let waited = asks(&a);
    assert_eq!((first.len(), waited.len()), (1024, 1024));
    a.send(&packet(2999));
    assert_eq!(asks(&a), [(Reqid(2999), None)]);
    a.send(&packet(0));
    assert_eq!(asks(&a), [], "that was asked a moment ago");
}

#[test]
fn a_peer_that_wants_no_more_child_sas_is_asked_more_and_more_seldom() {
    let tunnel = Tunnel {
        workers: 2,
        owner: 1,
        per_worker: true,
        ..Tunnel::default()
    };
    let (mut a, _) = tunnel.build();
    let packet = udp(tunnel.host_a(1, 1), tunnel.host_b(1, 2), &[1], true);
    for _ in 0..3600 {
        a.send_at(0, &packet);
        a.take_over(1);
        a.now += Duration::from_secs(1);
    }
    let asked = asks(&a).len();
    assert!((30..70).contains(&asked), "{asked}");
}
