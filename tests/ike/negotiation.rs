//! What the two sides agree on, and how they refuse.

use lockgate::ike::{Discard, Identity, SelectorConfig};
use lockgate::wire::ikev2::NotifyType;
use lockgate::wire::isakmp::{ExchangeType, Flags, Header};
use lockgate::wire::keyword::ike_suite_text;

use super::actor::{join, notify};
use super::config::{Setup, Side, child, esp_proposals, ike_proposals, selectors};
use super::network::Fate;
use super::pair::{Pair, initiate, millis, rekey_child, rekey_ike, seconds};

#[test]
fn an_initiator_returns_a_cookie_before_the_responder_keeps_any_state() {
    let mut pair = Pair::with(|_, setup| setup.settings.cookie_threshold = 0);
    pair.command(Side::A, initiate("lan"));
    pair.run_for(millis(15));
    assert_eq!(pair.host(Side::B).endpoint.half_open(), 0);
    assert_eq!(pair.host(Side::B).discarded(Discard::CookieRequired), 1);
    pair.settle();
    assert_eq!(pair.net.sent(), 6);
    pair.assert_clean(1);
    pair.finish();
}

#[test]
fn the_group_that_the_responder_wants_is_used() {
    for (ours, theirs, chosen) in [
        ("x25519-ecp256", "ecp256", "ECP_256"),
        ("ecp256-x25519", "x25519", "CURVE_25519"),
        ("x25519-modp2048-ecp384", "modp2048-ecp521", "MODP_2048"),
    ] {
        for cookies in [false, true] {
            let mut pair = Pair::with(|side, setup| {
                let groups = if side == Side::A { ours } else { theirs };
                let proposal = format!("aes256gcm16-prfsha384-{groups}");
                setup.connection.proposals = ike_proposals(&[&proposal]);
                if cookies {
                    setup.settings.cookie_threshold = 0;
                }
            });
            pair.command(Side::A, initiate("lan"));
            pair.settle();
            assert!((6..=8).contains(&pair.net.sent()));
            for side in Side::BOTH {
                let suite = ike_suite_text(&pair.ike_sa(side).suite.unwrap());
                assert!(suite.ends_with(chosen), "{suite}");
            }
            // A rekey starts with the group that is known to be right.
            let before = pair.net.sent();
            pair.command(Side::A, rekey_ike());
            pair.settle();
            assert_eq!(pair.net.sent(), before + 4);
            pair.assert_clean(1);
            pair.finish();
        }
    }
}

#[test]
fn a_rekey_follows_the_peer_to_another_group() {
    for side in Side::BOTH {
        let mut pair = Pair::up_with(|one, setup| {
            let groups = if one == side {
                "x25519-ecp256"
            } else {
                "ecp256"
            };
            let proposal = format!("aes256gcm16-{groups}-esn");
            setup.children[0].esp_proposals = esp_proposals(&[&proposal]);
        });
        let before = pair.net.sent();
        pair.command(side, rekey_child());
        pair.settle();
        assert_eq!(
            pair.net.sent(),
            before + 6,
            "one refusal, one rekey, one delete"
        );
        pair.run_for(seconds(6));
        pair.assert_clean(1);
        pair.finish();
    }
}

#[test]
fn a_refusal_in_clear_is_believed_only_after_a_while() {
    let mut pair = Pair::with(|side, setup| {
        if side == Side::B {
            setup.connection.proposals = ike_proposals(&["aes128-sha256-ecp256"]);
        }
    });
    let id = pair.command(Side::A, initiate("lan"));
    pair.settle();
    assert_eq!(pair.result(Side::A, id), None, "it may be forged");
    pair.run_for(seconds(10));
    assert!(pair.failure(Side::A, id).contains("NO_PROPOSAL_CHOSEN"));
    let host = pair.host(Side::B);
    assert!(
        host.logged("aes256gcm16-prfsha384-x25519"),
        "what was offered"
    );
    assert!(host.logged("aes128-sha256"), "what is configured");
    pair.assert_nothing_left();
    pair.finish();
}

#[test]
fn a_forged_refusal_does_not_end_the_wait() {
    let forged = [
        NotifyType::NO_PROPOSAL_CHOSEN,
        NotifyType::AUTHENTICATION_FAILED,
        NotifyType::INVALID_SYNTAX,
        NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD,
        NotifyType::INVALID_MAJOR_VERSION,
    ];
    for kind in forged {
        let mut pair = Pair::new();
        let id = pair.command(Side::A, initiate("lan"));
        let bytes = answer_in_clear(&pair, kind, &[]);
        for _ in 0..50 {
            pair.inject(Side::A, &bytes);
        }
        pair.settle();
        assert!(matches!(pair.result(Side::A, id), Some(Ok(_))), "{kind}");
        assert_eq!(pair.host(Side::A).discarded(Discard::Unauthenticated), 50);
        pair.assert_clean(1);
        pair.finish();
    }
}

#[test]
fn an_answer_that_names_a_group_that_was_not_offered_is_ignored() {
    let mut pair = Pair::new();
    pair.command(Side::A, initiate("lan"));
    for group in [0u16, 1, 2, 14, 19, 31, 1025, 65_535] {
        let bytes = answer_in_clear(&pair, NotifyType::INVALID_KE_PAYLOAD, &group.to_be_bytes());
        pair.inject(Side::A, &bytes);
    }
    for odd in [&[][..], &[0], &[0, 31, 0]] {
        let bytes = answer_in_clear(&pair, NotifyType::INVALID_KE_PAYLOAD, odd);
        pair.inject(Side::A, &bytes);
    }
    assert_eq!(pair.net.sent(), 1);
    assert_eq!(pair.host(Side::A).all_discarded(), 11);
    pair.settle();
    pair.assert_clean(1);
    pair.finish();
}

#[test]
fn cookies_of_impossible_lengths_are_ignored() {
    let mut pair = Pair::new();
    pair.command(Side::A, initiate("lan"));
    for length in [0, 65, 1000] {
        let bytes = answer_in_clear(&pair, NotifyType::COOKIE, &vec![7; length]);
        pair.inject(Side::A, &bytes);
    }
    assert_eq!(pair.net.sent(), 1);
    pair.settle();
    pair.assert_clean(1);
    pair.finish();
}

#[test]
fn an_initiator_does_not_follow_wishes_in_clear_for_ever() {
    let mut pair = Pair::with(|_, setup| {
        let both = ike_proposals(&["aes256gcm16-prfsha384-x25519-ecp256"]);
        setup.connection.proposals = both;
    });
    pair.net.decide(|_| Fate::Drop);
    pair.command(Side::A, initiate("lan"));
    for round in 0..100u8 {
        let group = [0, if round % 2 == 0 { 19 } else { 31 }];
        for bytes in [
            answer_in_clear(&pair, NotifyType::INVALID_KE_PAYLOAD, &group),
            answer_in_clear(&pair, NotifyType::COOKIE, &[round; 8]),
        ] {
            pair.inject(Side::A, &bytes);
        }
    }
    assert!(pair.net.sent() <= 8, "{} requests", pair.net.sent());
    assert!(pair.host(Side::A).discarded(Discard::TooManyRestarts) > 100);
    pair.finish();
}

/// What somebody who has seen the last request of A could answer.
fn answer_in_clear(pair: &Pair, kind: NotifyType, data: &[u8]) -> Vec<u8> {
    let request = pair.net.from(Side::A, 0).pop().unwrap();
    assert!(request.is(ExchangeType::IKE_SA_INIT, false));
    let header = Header {
        flags: Flags::new(false, true),
        ..request.header
    };
    lockgate::wire::ikev2::message_bytes(header, join(&vec![notify(kind, data)]))
}

#[test]
fn a_child_without_a_common_proposal_is_refused_and_the_ike_sa_lives() {
    let mut pair = Pair::with(|side, setup| {
        if side == Side::B {
            setup.children[0].esp_proposals = esp_proposals(&["aes128-sha256"]);
        }
    });
    let id = pair.command(Side::A, initiate("lan"));
    pair.settle();
    let failure = pair.failure(Side::A, id);
    assert!(failure.contains("NO_PROPOSAL_CHOSEN"), "{failure}");
    assert!(pair.host(Side::B).logged("aes128-sha256"));
    pair.assert_clean(0);
    pair.finish();
}

#[test]
fn different_secrets_fail_on_both_sides_and_both_say_so() {
    for side in Side::BOTH {
        let mut pair = Pair::with(|one, setup| {
            if one == side {
                setup.secret = "something else";
            }
        });
        let id = pair.command(Side::A, initiate("lan"));
        pair.settle();
        let failure = pair.failure(Side::A, id);
        assert!(failure.contains("AUTHENTICATION_FAILED"), "{failure}");
        assert!(pair.host(Side::A).logged("AUTHENTICATION_FAILED"));
        assert!(
            pair.host(Side::B)
                .logged("could not prove it is gw-a.example")
        );
        pair.run_for(seconds(31));
        pair.assert_nothing_left();
        pair.finish();
    }
}

#[test]
fn an_identity_that_is_not_the_expected_one_is_refused() {
    let other: fn() -> Identity = || "somebody.example".parse().unwrap();
    let mut pair = Pair::with(|side, setup| {
        if side == Side::A {
            setup.connection.local.id = Some(other());
        }
    });
    let id = pair.command(Side::A, initiate("lan"));
    pair.settle();
    assert!(pair.failure(Side::A, id).contains("AUTHENTICATION_FAILED"));
    assert!(pair.host(Side::B).logged("somebody.example"));
    assert!(
        pair.host(Side::B).logged("gw-a.example"),
        "what would be accepted"
    );

    // The responder is not who the initiator wants, and does not say so: A asks for no one.
    let mut pair = Pair::with(|side, setup| match side {
        Side::A => setup.connection.remote.id = "*.partner.example".parse().unwrap(),
        Side::B => {}
    });
    let id = pair.command(Side::A, initiate("lan"));
    pair.run_for(seconds(40));
    assert!(pair.failure(Side::A, id).contains("gw-b.example"));
    for side in Side::BOTH {
        assert!(pair.children(side).is_empty(), "{side:?}");
        assert_eq!(pair.host(side).plane.counts(), (0, 0));
    }
    pair.finish();
}

/// What A has, what B has, and what comes out; each as local and remote, seen from A.
type Narrowing<'a> = ([&'a [&'a str]; 2], [&'a [&'a str]; 2], [&'a [&'a str]; 2]);

#[test]
fn selectors_are_narrowed_to_what_both_sides_have() {
    let cases: [Narrowing<'_>; 8] = [
        (
            [&["10.1.0.0/16"], &["10.2.0.0/16"]],
            [&["10.1.5.0/24"], &["10.2.6.0/24"]],
            [&["10.1.5.0/24"], &["10.2.6.0/24"]],
        ),
        (
            [&["10.1.5.0/24"], &["10.2.6.0/24"]],
            [&["10.1.0.0/16"], &["0.0.0.0/0"]],
            [&["10.1.5.0/24"], &["10.2.6.0/24"]],
        ),
        (
            [
                &["10.1.0.0/24", "fd00:1::/64"],
                &["10.2.0.0/24", "fd00:2::/64"],
            ],
            [
                &["10.1.0.0/24", "fd00:1::/64"],
                &["10.2.0.0/24", "fd00:2::/64"],
            ],
            [
                &["10.1.0.0/24", "fd00:1::/64"],
                &["10.2.0.0/24", "fd00:2::/64"],
            ],
        ),
        (
            [
                &["10.1.0.0/24", "fd00:1::/64"],
                &["10.2.0.0/24", "fd00:2::/64"],
            ],
            [&["fd00::/16"], &["fd00::/16"]],
            [&["fd00:1::/64"], &["fd00:2::/64"]],
        ),
        (
            [
                &["10.1.0.0/24", "10.1.2.0/24", "10.1.4.0/24"],
                &["10.2.0.0/24"],
            ],
            [
                &["10.1.2.0/24", "10.1.4.128/25", "10.1.9.0/24"],
                &["10.2.0.0/24"],
            ],
            [&["10.1.2.0/24", "10.1.4.128/25"], &["10.2.0.0/24"]],
        ),
        (
            [&["10.1.0.0/24[tcp]"], &["10.2.0.0/24[tcp/80-443]"]],
            [&["10.1.0.0/24"], &["10.2.0.0/24[tcp/443-8443]"]],
            [&["10.1.0.0/24[tcp]"], &["10.2.0.0/24[tcp/443]"]],
        ),
        (
            [&["10.1.0.1-10.1.0.100"], &["10.2.0.0/24"]],
            [&["10.1.0.50-10.1.0.200"], &["10.2.0.0/24"]],
            [&["10.1.0.50..10.1.0.100"], &["10.2.0.0/24"]],
        ),
        (
            [
                &["10.1.0.0/24[udp/53]", "10.1.0.0/24[tcp/53]"],
                &["10.2.0.0/24"],
            ],
            [&["10.1.0.0/24[/53]"], &["10.2.0.0/24"]],
            [
                &["10.1.0.0/24[udp/53]", "10.1.0.0/24[tcp/53]"],
                &["10.2.0.0/24"],
            ],
        ),
    ];
    for (ours, theirs, agreed) in cases {
        let proposal = "aes256gcm16-x25519-esn-noesn";
        let mut pair = Pair::up_with(|side, setup| {
            setup.children[0] = match side {
                Side::A => child("lan", 1, ours[0], ours[1], proposal),
                Side::B => child("lan", 1, theirs[1], theirs[0], proposal),
            };
        });
        for rekeyed in [false, true] {
            let (a, b) = (pair.child(Side::A), pair.child(Side::B));
            let text = |list: &[lockgate::wire::selector::TrafficSelector]| {
                list.iter().map(ToString::to_string).collect::<Vec<_>>()
            };
            assert_eq!(text(&a.local_ts), agreed[0], "rekeyed: {rekeyed}");
            assert_eq!(text(&a.remote_ts), agreed[1], "rekeyed: {rekeyed}");
            assert_eq!((a.local_ts, a.remote_ts), (b.remote_ts, b.local_ts));
            pair.command(Side::B, rekey_child());
            pair.settle();
        }
        pair.run_for(seconds(6));
        pair.assert_clean(1);
        pair.finish();
    }
}

#[test]
fn two_hundred_networks_on_each_side_are_narrowed_without_loss() {
    let networks = |side: Side| {
        let nets = (0..200).map(move |n| format!("10.{}.{n}.0/24", side.index() + 1));
        let nets: Vec<_> = nets.collect();
        selectors(&nets.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let mut pair = Pair::with(|side, setup| {
        setup.children[0].local_ts = networks(side);
        setup.children[0].remote_ts = networks(side.other());
    });
    pair.command(Side::A, initiate("lan"));
    pair.settle();
    for side in Side::BOTH {
        let child = pair.child(side);
        assert_eq!((child.local_ts.len(), child.remote_ts.len()), (200, 200));
    }
    pair.assert_clean(1);
    pair.finish();
}

#[test]
fn nothing_in_common_is_refused_and_the_ike_sa_lives() {
    let nothing: [[&[&str]; 2]; 4] = [
        [&["10.7.0.0/24"], &["10.1.0.0/24"]],
        [&["10.2.0.0/24"], &["10.7.0.0/24"]],
        [&["fd00:2::/64"], &["fd00:1::/64"]],
        [&["10.2.0.0/24[udp]"], &["10.1.0.0/24[tcp]"]],
    ];
    for theirs in nothing {
        let mut pair = Pair::with(|side, setup| {
            if side == Side::B {
                setup.children[0].local_ts = selectors(theirs[0]);
                setup.children[0].remote_ts = selectors(theirs[1]);
            } else {
                setup.children[0].local_ts = selectors(&["10.1.0.0/24[tcp]"]);
            }
        });
        let id = pair.command(Side::A, initiate("lan"));
        pair.settle();
        let failure = pair.failure(Side::A, id);
        assert!(failure.contains("TS_UNACCEPTABLE"), "{failure}");
        assert!(
            pair.host(Side::B).logged("=== 10.1.0.0/24[tcp];"),
            "what was asked for"
        );
        pair.assert_clean(0);
        pair.finish();
    }
}

#[test]
fn dynamic_selectors_are_the_gateways_addresses() {
    let dynamic = |setup: &mut Setup| {
        let any = SelectorConfig::Dynamic {
            protocol: 0,
            ports: (0, u16::MAX),
        };
        setup.children[0].local_ts = vec![any];
        setup.children[0].remote_ts = vec![any];
    };
    let mut pair = Pair::up_with(|_, setup| dynamic(setup));
    let child = pair.child(Side::A);
    assert_eq!(child.local_ts, ["192.0.2.1".parse().unwrap()]);
    assert_eq!(child.remote_ts, ["192.0.2.2".parse().unwrap()]);
    pair.assert_clean(1);
    pair.finish();
}
