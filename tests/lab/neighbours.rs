//! A peer that authenticates as itself and wants what is another's, at a running daemon (HOSTILE B25, B27, B28,
//! B30): each try raises its own counter, and the other peer's tunnel is not touched.

use lockgate::crypto::Secret;
use lockgate::ike::{Discard, Identity};
use lockgate::wire::ikev2::NotifyType;
use lockgate::wire::isakmp::{ExchangeType, PayloadType};
use lockgate::wire::vici::Message;

use super::breaches::{self, Names};
use super::hostile::{discards, half_open, ike_spis};
use super::sender::Sender;
use super::session::{Payloads, Session, delete_esp, notify, rekey_notify};
use crate::support::{
    eventually,
    lab::{Family, Gateway, Lab, Plan, Side, ip, sections},
    traffic::assert_reaches,
};

/// The other peer's address and network.
const X: &str = "192.0.2.3";
const NETWORK: &str = "10.3.0.0/24";

/// B has a connection with X besides the one with A.
fn plan() -> Plan {
    let more = format!(
        r#"
[connections.x]
version = 2
local_addrs = ["192.0.2.2"]
remote_addrs = ["{X}"]
proposals = ["aes256gcm16-prfsha384-x25519"]
local = {{ auth = "psk", id = "gw-b.example" }}
remote = {{ auth = "psk", id = "gw-x.example" }}

[connections.x.children.x]
local_ts = ["10.2.0.0/24"]
remote_ts = ["{NETWORK}"]
esp_proposals = ["aes256gcm16-x25519"]

[secrets.ike-x]
id = ["gw-x.example"]
secret = "another secret"
"#
    );
    Plan {
        daemon: "dos_protection = false".to_owned(),
        more,
        ..Plan::default()
    }
}

fn names(id: &str, secret: &str) -> Names {
    let body = |id: &str| {
        let identity: Identity = id.parse().unwrap();
        identity.to_payload_body()
    };
    Names {
        secret: Secret::from(secret.as_bytes().to_vec()),
        ids: [body(id), body("gw-b.example")],
        networks: [NETWORK, "10.2.0.0/24"],
    }
}

/// A tunnel between A and B, and X beside it.
struct Neighbours {
    lab: Lab,
    b: Gateway,
    _a: Gateway,
    /// In the place of A, and in that of X.
    senders: [Sender; 2],
}

impl Neighbours {
    fn new() -> Option<Self> {
        let lab = Lab::new()?;
        ip(&lab.gateway_a, &format!("address add {X}/24 dev outer"));
        let [a, b] = lab.tunnel(&plan());
        let x = Sender::at(&lab, X.parse().unwrap(), 1000);
        let senders = [Sender::new(&lab), x];
        Some(Self {
            lab,
            b,
            _a: a,
            senders,
        })
    }

    /// X, up with a child of its own.
    fn up(&mut self, more: &[(PayloadType, Vec<u8>)]) -> Session {
        let x = &mut self.senders[1];
        let mut session = x.half_open();
        let mut payloads = breaches::auth(&mut session, &names("gw-x.example", "another secret"));
        payloads.extend_from_slice(more);
        let answer = x.request(&mut session, ExchangeType::IKE_AUTH, &payloads);
        assert_eq!(answer.error(), None);
        assert_eq!(self.b.established().len(), 2);
        session
    }

    /// What X asks is refused with this, and counted.
    #[track_caller]
    fn is_refused(
        &self,
        session: &mut Session,
        exchange: ExchangeType,
        payloads: &Payloads,
        (error, counter): (NotifyType, Discard),
    ) {
        let mut expected = discards(&self.b);
        *expected.get_mut(counter.name()).unwrap() += 1;
        let answer = self.senders[1].request(session, exchange, payloads);
        assert_eq!((answer.notifies(), answer.payloads.len()), (vec![error], 1));
        assert_eq!(discards(&self.b), expected);
    }
}

/// The only IKE SA that B has with this peer.
fn with(b: &Gateway, id: &str) -> Message {
    let mut sas = b.established();
    sas.retain(|sa| sa.get("remote-id") == Some(id));
    assert_eq!(sas.len(), 1, "{sas:?}");
    sas.remove(0)
}

/// What is A's at B: where it is, and the SPIs of its child.
fn of_a(b: &Gateway) -> [String; 4] {
    let sa = with(b, "gw-a.example");
    let children = sections(sa.get_section("child-sas").unwrap());
    let [(_, child)] = &children[..] else {
        panic!("not one child of A: {children:?}")
    };
    let text = |section: &Message, key| section.get(key).unwrap().to_owned();
    [
        text(&sa, "remote-host"),
        text(&sa, "remote-port"),
        text(child, "spi-in"),
        text(child, "spi-out"),
    ]
}

#[test]
fn who_claims_to_be_another_peer_without_its_secret_takes_nothing_from_it() {
    let Some(mut neighbours) = Neighbours::new() else {
        return;
    };
    let before = (ike_spis(&neighbours.b), of_a(&neighbours.b));
    let contact = notify(NotifyType::INITIAL_CONTACT, &[]);
    for (place, id) in [
        (1, "gw-a.example"),
        (0, "gw-a.example"),
        (0, "gw-x.example"),
        (1, "gw-b.example"),
    ] {
        let mut expected = discards(&neighbours.b);
        *expected.get_mut("refused-authentication").unwrap() += 1;
        let sender = &mut neighbours.senders[place];
        let mut session = sender.half_open();
        let mut payloads = breaches::auth(&mut session, &names(id, "another secret"));
        payloads.insert(2, contact.clone());
        let answer = sender.request(&mut session, ExchangeType::IKE_AUTH, &payloads);
        assert_eq!(answer.notifies(), [NotifyType::AUTHENTICATION_FAILED]);
        assert_eq!(discards(&neighbours.b), expected, "{place} {id}");
        assert_eq!(neighbours.b.established().len(), 1);
    }
    assert_eq!((ike_spis(&neighbours.b), of_a(&neighbours.b)), before);
    // INITIAL_CONTACT of a peer that has proven itself is about its own IKE SAs.
    let before = of_a(&neighbours.b);
    neighbours.up(&[]);
    neighbours.up_again(&contact);
    assert_eq!(of_a(&neighbours.b), before);
    let Lab { host_a, host_b, .. } = &neighbours.lab;
    assert_reaches(host_a, host_b, Side::B.host(Family::V4));
}

impl Neighbours {
    /// X again, whose first IKE SA ends.
    fn up_again(&mut self, contact: &(PayloadType, Vec<u8>)) {
        let x = &mut self.senders[1];
        let mut session = x.half_open();
        let mut payloads = breaches::auth(&mut session, &names("gw-x.example", "another secret"));
        payloads.push(contact.clone());
        let answer = x.request(&mut session, ExchangeType::IKE_AUTH, &payloads);
        assert_eq!(answer.error(), None);
        eventually("the first IKE SA of X is gone", || {
            (self.b.established().len() == 2).then_some(())
        });
    }
}

#[test]
fn a_peer_can_neither_ask_for_nor_delete_nor_replace_what_is_of_another() {
    let Some(mut neighbours) = Neighbours::new() else {
        return;
    };
    let before = of_a(&neighbours.b);
    let spis = [&before[2], &before[3]].map(|spi| u32::from_str_radix(spi, 16).unwrap());
    let mut session = neighbours.up(&[]);
    let (create, informational) = (ExchangeType::CREATE_CHILD_SA, ExchangeType::INFORMATIONAL);
    let selected = (NotifyType::TS_UNACCEPTABLE, Discard::RefusedSelectors);
    for network in ["10.1.0.0/24", "10.1.0.10/32"] {
        let payloads = session.child_request(0x1000_0002, network, "10.2.0.0/24");
        neighbours.is_refused(&mut session, create, &payloads, selected);
    }
    for spi in spis {
        let sender = &neighbours.senders[1];
        let counted = discards(&neighbours.b);
        let everything = vec![delete_esp(spi)];
        let answer = sender.request(&mut session, informational, &everything);
        assert_eq!(answer.payloads, []);
        assert_eq!(discards(&neighbours.b), counted);

        let mut payloads = session.child_request(0x1000_0003, NETWORK, "10.2.0.0/24");
        let rekey = rekey_notify(3, &spi.to_be_bytes());
        payloads.insert(0, (PayloadType::NOTIFY, rekey));
        let not_found = (NotifyType::CHILD_SA_NOT_FOUND, Discard::RefusedRequest);
        neighbours.is_refused(&mut session, create, &payloads, not_found);
    }
    assert_eq!(of_a(&neighbours.b), before);

    // Its own child it may replace, once at a time.
    let rekey = |session: &mut Session, spi: u32| {
        let mut payloads = session.child_request(spi, NETWORK, "10.2.0.0/24");
        let old = rekey_notify(3, &0x1000_0001_u32.to_be_bytes());
        payloads.insert(0, (PayloadType::NOTIFY, old));
        payloads
    };
    let payloads = rekey(&mut session, 0x1000_0004);
    let answer = neighbours.senders[1].request(&mut session, create, &payloads);
    assert_eq!(answer.error(), None);
    for number in 5..8 {
        let payloads = rekey(&mut session, 0x1000_0000 + number);
        let busy = (NotifyType::TEMPORARY_FAILURE, Discard::RefusedRequest);
        neighbours.is_refused(&mut session, create, &payloads, busy);
    }
    neighbours.senders[1].delete(&mut session);
    eventually("X is gone", || {
        (neighbours.b.established().len() == 1).then_some(())
    });
    assert_eq!(of_a(&neighbours.b), before);
    let Lab { host_a, host_b, .. } = &neighbours.lab;
    assert_reaches(host_a, host_b, Side::B.host(Family::V4));
}

/// MOBIKE: a peer may say that it is where another one is, but nothing of the other's goes to it.
#[test]
fn a_peer_that_moves_to_the_address_of_another_harms_only_itself() {
    let Some(mut neighbours) = Neighbours::new() else {
        return;
    };
    let before = of_a(&neighbours.b);
    let mobike = notify(NotifyType::MOBIKE_SUPPORTED, &[]);
    let a = notify(NotifyType::ADDITIONAL_IP4_ADDRESS, &[192, 0, 2, 1]);
    let mut session = neighbours.up(&[mobike, a.clone()]);
    let counted = discards(&neighbours.b);
    let update = notify(NotifyType::UPDATE_SA_ADDRESSES, &[]);
    let payloads = vec![update, a];
    let [in_place_of_a, x] = &neighbours.senders;
    for sender in [x, in_place_of_a] {
        let answer = sender.request(&mut session, ExchangeType::INFORMATIONAL, &payloads);
        assert_eq!(answer.error(), None);
        assert_eq!(of_a(&neighbours.b), before);
        let Lab { host_a, host_b, .. } = &neighbours.lab;
        assert_reaches(host_a, host_b, Side::B.host(Family::V4));
        assert_reaches(host_b, host_a, Side::A.host(Family::V4));
    }
    // Whether it is there has to be shown first (RFC 4555 §3.7).
    let asked = in_place_of_a.next_request(&session);
    assert_eq!(asked.notifies(), [NotifyType::COOKIE2]);
    assert!(x.is_alive(&mut session));
    assert_eq!(discards(&neighbours.b), counted);
    assert_eq!(half_open(&neighbours.b), "0");
    assert_eq!(of_a(&neighbours.b), before);
}
