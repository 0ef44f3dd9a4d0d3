//! The SAs of one worker: who carries what, and what comes back.
#![allow(
    clippy::indexing_slicing,
    reason = "an index out of bounds fails the test"
)]

#[path = "esp/support.rs"]
#[allow(dead_code, reason = "shared with tests/esp.rs, which uses the rest")]
mod support;

use std::net::IpAddr;

use lockgate::ipsec::{
    ChildId, EspEncap, InboundParams, InboundSa, OutboundEntry, OutboundParams, OutboundSa, Reqid,
    Sad, Spi, WorkerId,
};
use lockgate::wire::ip::Flow;
use support::{gcm, inbound, key, outbound, path, selectors};

const REQID: Reqid = Reqid(1);
const HERE: &[&str] = &["10.1.0.0/24"];

fn spi(value: u32) -> Spi {
    Spi::new(value).expect("not reserved")
}

fn opener(number: u32) -> Box<InboundSa> {
    Box::new(InboundSa::new(InboundParams {
        spi: spi(number),
        ..inbound(key(gcm()))
    }))
}

fn sealer(child: u64, number: u32, remote: &str) -> Box<OutboundSa> {
    Box::new(OutboundSa::new(OutboundParams {
        child: ChildId(child),
        spi: spi(number),
        selectors: selectors(HERE, &[remote]),
        ..outbound(key(gcm()))
    }))
}

/// Makes a new SA the first choice.
#[track_caller]
fn switch(sad: &mut Sad, child: u64, number: u32, remote: &str) {
    assert!(
        sad.switch_outbound(sealer(child, number, remote)).is_none(),
        "it replaces nothing"
    );
}

fn flow(dst: &str) -> Flow {
    let [src, dst]: [IpAddr; 2] = ["10.1.0.1", dst].map(|text| text.parse().expect("an address"));
    Flow {
        src,
        dst,
        protocol: 17,
        ports: Some((1, 2)),
    }
}

/// The SPI of the SA that carries a packet to `dst`.
fn carrier(sad: &mut Sad, dst: &str) -> Option<u32> {
    match sad.outbound(REQID, &flow(dst)) {
        OutboundEntry::Owned(sa) => Some(sa.spi().get()),
        OutboundEntry::Elsewhere { .. } | OutboundEntry::None => None,
    }
}

/// The worker that carries a packet to `dst`, if it is not this one, and whether this one may ask
/// for an SA of its own.
fn elsewhere(sad: &mut Sad, dst: &str) -> Option<(u16, bool)> {
    match sad.outbound(REQID, &flow(dst)) {
        OutboundEntry::Elsewhere { owner, per_worker } => Some((owner.0, per_worker)),
        OutboundEntry::Owned(_) | OutboundEntry::None => None,
    }
}

#[test]
fn inbound_sas_are_found_by_spi_until_they_are_removed() {
    let mut sad = Sad::with_capacity(4);
    for number in [0x1000, 0x2000, 0x3000] {
        assert!(sad.add_inbound(opener(number)).is_none());
    }
    assert_eq!(
        sad.inbound_mut(0x2000).map(|sa| sa.spi()),
        Some(spi(0x2000))
    );
    for unknown in [0, 255, 0x1001, u32::MAX] {
        assert!(sad.inbound_mut(unknown).is_none());
    }
    let retired = sad.remove_inbound(spi(0x2000)).expect("it was there");
    assert_eq!(retired.spi(), spi(0x2000));
    assert!(sad.inbound_mut(0x2000).is_none());
    assert!(sad.remove_inbound(spi(0x2000)).is_none());
    assert!(sad.inbound_mut(0x1000).is_some() && sad.inbound_mut(0x3000).is_some());
}

#[test]
fn an_inbound_sa_that_is_overwritten_comes_back() {
    let mut sad = Sad::default();
    assert!(sad.add_inbound(opener(0x1000)).is_none());
    assert!(sad.add_inbound(opener(0x1000)).is_some());
}

#[test]
fn the_newest_outbound_sa_carries_and_the_older_one_takes_over_again() {
    let mut sad = Sad::default();
    assert_eq!(carrier(&mut sad, "10.2.0.1"), None);
    switch(&mut sad, 1, 0x1000, "10.2.0.0/24");
    switch(&mut sad, 2, 0x2000, "10.2.0.0/24");
    assert_eq!(carrier(&mut sad, "10.2.0.1"), Some(0x2000));

    let retired = sad
        .remove_outbound(ChildId(2), REQID)
        .expect("it was there");
    assert_eq!(retired.child(), ChildId(2));
    assert_eq!(carrier(&mut sad, "10.2.0.1"), Some(0x1000));
    assert!(sad.remove_outbound(ChildId(1), REQID).is_some());
    assert!(sad.remove_outbound(ChildId(1), REQID).is_none());
    assert_eq!(carrier(&mut sad, "10.2.0.1"), None);
}

#[test]
fn removing_the_older_outbound_sa_leaves_the_newer_in_charge() {
    let mut sad = Sad::default();
    switch(&mut sad, 1, 0x1000, "10.2.0.0/24");
    switch(&mut sad, 2, 0x2000, "10.2.0.0/24");
    assert!(sad.remove_outbound(ChildId(1), REQID).is_some());
    assert_eq!(carrier(&mut sad, "10.2.0.1"), Some(0x2000));
}

#[test]
fn an_sa_carries_only_what_was_negotiated_for_it() {
    let mut sad = Sad::default();
    switch(&mut sad, 1, 0x1000, "10.2.0.0/16");
    switch(&mut sad, 2, 0x2000, "10.2.0.0/24");
    assert_eq!(carrier(&mut sad, "10.2.0.1"), Some(0x2000));
    assert_eq!(
        carrier(&mut sad, "10.2.1.1"),
        Some(0x1000),
        "the narrower one does not fit"
    );
    assert_eq!(carrier(&mut sad, "10.3.0.1"), None);
    assert!(matches!(
        sad.outbound(Reqid(2), &flow("10.2.0.1")),
        OutboundEntry::None
    ));
}

#[test]
fn an_sa_of_another_worker_is_named_where_there_is_no_own_one() {
    let mut sad = Sad::default();
    let wide = selectors(HERE, &["10.2.0.0/16"]);
    let note = |sad: &mut Sad, child, owner, selectors, per_worker| {
        sad.note_elsewhere(
            ChildId(child),
            REQID,
            WorkerId(owner),
            selectors,
            per_worker,
        )
    };
    assert!(note(&mut sad, 2, 3, wide.clone(), false).is_none());
    assert_eq!(elsewhere(&mut sad, "10.2.0.1"), Some((3, false)));
    assert!(note(&mut sad, 4, 5, wide, true).is_none());
    assert_eq!(elsewhere(&mut sad, "10.2.0.1"), Some((5, true)), "newest");

    switch(&mut sad, 6, 0x6000, "10.2.0.0/24");
    assert_eq!(carrier(&mut sad, "10.2.0.1"), Some(0x6000));
    assert_eq!(
        elsewhere(&mut sad, "10.2.1.1"),
        Some((5, true)),
        "its own does not carry that"
    );
    assert!(
        sad.remove_outbound(ChildId(4), REQID).is_none(),
        "there is nothing to free"
    );
    assert_eq!(elsewhere(&mut sad, "10.2.1.1"), Some((3, false)));
}

/// The SA of a peer that lets every worker have one.
fn sibling(child: u64, number: u32) -> Box<OutboundSa> {
    let mut sa = sealer(child, number, "10.2.0.0/24");
    sa.set_per_worker(true);
    sa
}

#[test]
fn an_own_sa_is_preferred_to_newer_ones_of_other_workers_where_each_may_have_one() {
    let mut sad = Sad::default();
    let remote = selectors(HERE, &["10.2.0.0/24"]);
    for (child, number) in [(1, 0x1000), (2, 0x2000)] {
        assert!(sad.switch_outbound(sibling(child, number)).is_none());
    }
    for child in [3, 4] {
        let noted = sad.note_elsewhere(ChildId(child), REQID, WorkerId(3), remote.clone(), true);
        assert!(noted.is_none());
    }
    assert_eq!(carrier(&mut sad, "10.2.0.1"), Some(0x2000), "newest own");
    assert!(sad.remove_outbound(ChildId(2), REQID).is_some());
    assert_eq!(carrier(&mut sad, "10.2.0.1"), Some(0x1000));
    assert!(sad.remove_outbound(ChildId(1), REQID).is_some());
    assert_eq!(elsewhere(&mut sad, "10.2.0.1"), Some((3, true)));
}

#[test]
fn without_that_agreement_the_newest_sa_carries_whosever_it_is() {
    let remote = selectors(HERE, &["10.2.0.0/24"]);
    for (own, other) in [(false, false), (false, true), (true, false)] {
        let mut sad = Sad::default();
        let mut first = sealer(1, 0x1000, "10.2.0.0/24");
        first.set_per_worker(own);
        assert!(sad.switch_outbound(first).is_none());
        let noted = sad.note_elsewhere(ChildId(2), REQID, WorkerId(3), remote.clone(), other);
        assert!(noted.is_none());
        assert_eq!(elsewhere(&mut sad, "10.2.0.1"), Some((3, other)));
        assert!(sad.remove_outbound(ChildId(2), REQID).is_none());
        assert_eq!(carrier(&mut sad, "10.2.0.1"), Some(0x1000));
    }
}

#[test]
fn an_sa_that_moves_to_another_worker_comes_back() {
    let mut sad = Sad::default();
    switch(&mut sad, 4, 0x4000, "10.2.0.0/24");
    let remote = selectors(HERE, &["10.2.0.0/24"]);
    assert!(
        sad.note_elsewhere(ChildId(4), REQID, WorkerId(3), remote, false)
            .is_some()
    );
}

#[test]
fn switching_a_child_again_gives_the_replaced_half_back() {
    let mut sad = Sad::default();
    switch(&mut sad, 1, 0x1000, "10.2.0.0/24");
    let replaced = sad
        .switch_outbound(sealer(1, 0x2000, "10.2.0.0/24"))
        .expect("replaced");
    assert_eq!(replaced.spi(), spi(0x1000));
    assert_eq!(carrier(&mut sad, "10.2.0.1"), Some(0x2000));
}

#[test]
fn only_the_child_that_moved_is_sent_elsewhere() {
    let mut sad = Sad::default();
    for (child, number) in [(1, 0x1000), (2, 0x2000)] {
        switch(&mut sad, child, number, "10.2.0.0/24");
    }
    let moved = path(EspEncap::Udp, "203.0.113.7");
    assert!(sad.move_outbound(ChildId(1), REQID, moved, 1400));
    assert!(!sad.move_outbound(ChildId(9), REQID, moved, 1400));
    assert!(!sad.move_outbound(ChildId(1), Reqid(9), moved, 1400));
    for child in [2, 1] {
        let sa = sad.remove_outbound(ChildId(child), REQID).expect("there");
        assert_eq!(*sa.path() == moved, child == 1);
    }
}

#[test]
fn looking_up_never_allocates() {
    let mut sad = Sad::with_capacity(8);
    assert!(sad.add_inbound(opener(0x1000)).is_none());
    switch(&mut sad, 1, 0x1000, "10.2.0.0/24");
    let allocations = allocation_counter::measure(|| {
        assert!(sad.inbound_mut(0x1000).is_some());
        assert!(sad.inbound_mut(0x1001).is_none());
        assert_eq!(carrier(&mut sad, "10.2.0.1"), Some(0x1000));
        assert_eq!(carrier(&mut sad, "10.9.0.1"), None);
    });
    assert_eq!(allocations.count_total, 0);
}
