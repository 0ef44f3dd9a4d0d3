//! IKE messages, as strongSwan 5.9.8 sent them, and as no one should.

use lockgate::wire::Malformed;
use lockgate::wire::ikev2::{
    AuthMethod, AuthPayload, Delete, FragmentHeader, IdPayload, IdType, KePayload, Nonce, Notify,
    NotifyType, PayloadWriter, message_bytes,
};
use lockgate::wire::isakmp::{
    ExchangeType, Flags, Header, IkeSpi, PayloadChain, PayloadType, RawPayload,
};
use lockgate::wire::proposal::{KeyExchangeId, ProtocolId, SaProposal};
use lockgate::wire::selector::TrafficSelector;

const INIT_REQUEST: &[u8] = include_bytes!("../fuzz/seeds/isakmp_v2/init-request");
const INIT_RESPONSE: &[u8] = include_bytes!("../fuzz/seeds/isakmp_v2/init-response");
const AUTH_REQUEST: &[u8] = include_bytes!("../fuzz/seeds/isakmp_v2/auth-request-inner");
const AUTH_SEALED: &[u8] = include_bytes!("../fuzz/seeds/isakmp_v2/auth-request-sealed");
const REKEY_CHILD: &[u8] = include_bytes!("../fuzz/seeds/isakmp_v2/rekey-child-request-inner");
const REKEY_IKE: &[u8] = include_bytes!("../fuzz/seeds/isakmp_v2/rekey-ike-request-inner");
const DELETE_CHILD: &[u8] = include_bytes!("../fuzz/seeds/isakmp_v2/delete-child-request-inner");
const DELETE_IKE: &[u8] = include_bytes!("../fuzz/seeds/isakmp_v2/delete-ike-request-inner");
const EMPTY: &[u8] = include_bytes!("../fuzz/seeds/isakmp_v2/delete-ike-response-inner");

pub(crate) fn payloads(message: &[u8]) -> (Header, Vec<RawPayload<'_>>) {
    let (header, payloads) = Header::parse(message).unwrap();
    let chain = PayloadChain::new(header.next_payload, payloads);
    (header, chain.collect::<Result<_, _>>().unwrap())
}

pub(crate) fn body(message: &[u8], kind: PayloadType) -> &[u8] {
    let (_, payloads) = payloads(message);
    payloads
        .iter()
        .find(|payload| payload.kind == kind)
        .unwrap()
        .body
}

fn notifies(message: &[u8]) -> Vec<Notify<'_>> {
    let (_, payloads) = payloads(message);
    let notifies = payloads
        .iter()
        .filter(|payload| payload.kind == PayloadType::NOTIFY);
    notifies
        .map(|payload| Notify::parse(payload.body).unwrap())
        .collect()
}

#[test]
fn the_header_of_a_request_reads_as_it_was_sent() {
    let (header, _) = Header::parse(INIT_REQUEST).unwrap();
    assert_eq!(header.initiator_spi.to_string(), "4d5c0a1dfdd3ed9c");
    assert!(header.responder_spi.is_zero());
    assert_eq!(header.exchange, ExchangeType::IKE_SA_INIT);
    assert_eq!(
        (header.version, header.major_version()),
        (Header::VERSION_2_0, 2)
    );
    assert!(header.flags.initiator() && !header.flags.response() && !header.flags.version_bit());
    assert_eq!((header.message_id, header.length), (0, 308));

    let (header, _) = Header::parse(INIT_RESPONSE).unwrap();
    assert_eq!(
        header.responder_spi,
        IkeSpi(*b"\x1c\x5d\xb8\xa4\x86\x7d\x78\x32")
    );
    assert!(!header.flags.initiator() && header.flags.response());
}

#[test]
fn payload_chains_list_what_strongswan_logged() {
    let kinds = |message| {
        let (_, payloads) = payloads(message);
        payloads
            .iter()
            .map(|payload| payload.kind.0)
            .collect::<Vec<_>>()
    };
    // [ SA KE No N N N N N ] and so on, from its log.
    assert_eq!(kinds(INIT_REQUEST), [33, 34, 40, 41, 41, 41, 41, 41]);
    assert_eq!(kinds(INIT_RESPONSE), [33, 34, 40, 41, 41, 41, 41, 41, 41]);
    assert_eq!(
        kinds(AUTH_REQUEST),
        [35, 41, 36, 39, 33, 44, 45, 41, 41, 41, 41, 41]
    );
    assert_eq!(kinds(REKEY_CHILD), [41, 33, 40, 34, 44, 45]);
    assert_eq!(kinds(REKEY_IKE), [33, 40, 34]);
    assert_eq!(kinds(DELETE_IKE), [42]);
    assert_eq!(kinds(EMPTY), [0u8; 0]);
}

#[test]
fn every_captured_message_is_rewritten_to_the_same_bytes() {
    for message in [
        INIT_REQUEST,
        INIT_RESPONSE,
        AUTH_REQUEST,
        REKEY_CHILD,
        REKEY_IKE,
        DELETE_CHILD,
        EMPTY,
    ] {
        let (header, payloads) = payloads(message);
        let mut writer = PayloadWriter::new();
        for payload in payloads {
            writer.add_with(payload.kind, |out| rewrite(&payload, out));
        }
        assert_eq!(message_bytes(header, writer.finish()), message);
    }
}

fn rewrite(payload: &RawPayload<'_>, out: &mut Vec<u8>) {
    match payload.kind {
        PayloadType::SA => {
            let list = SaProposal::parse_list(payload.body).unwrap();
            let list: Vec<_> = list.into_iter().map(|(_, proposal)| proposal).collect();
            SaProposal::encode_list(&list, out);
        }
        PayloadType::KE => KePayload::parse(payload.body).unwrap().encode(out),
        PayloadType::NONCE => out.extend_from_slice(Nonce::parse(payload.body).unwrap().bytes()),
        PayloadType::ID_I | PayloadType::ID_R => {
            IdPayload::parse(payload.body).unwrap().encode(out)
        }
        PayloadType::AUTH => AuthPayload::parse(payload.body).unwrap().encode(out),
        PayloadType::TS_I | PayloadType::TS_R => {
            let list = TrafficSelector::parse_list(payload.body).unwrap();
            TrafficSelector::encode_list(&list, out);
        }
        PayloadType::NOTIFY => Notify::parse(payload.body).unwrap().encode(out),
        PayloadType::DELETE => {
            let spis: Vec<_> = Delete::parse(payload.body).unwrap().spis().collect();
            Delete::encode_esp(&spis, out);
        }
        kind => panic!("no captured message has a payload {kind:?}"),
    }
}

#[test]
fn an_encrypted_message_gives_its_inner_type_and_the_sealed_bytes() {
    let (header, payloads) = payloads(AUTH_SEALED);
    assert_eq!(header.next_payload, PayloadType::SK);
    let [sealed] = payloads[..] else {
        panic!("one payload")
    };
    assert_eq!(
        (sealed.kind, sealed.next),
        (PayloadType::SK, PayloadType::ID_I)
    );
    // IV, the inner payloads, pad length, ICV.
    assert_eq!(
        sealed.body.len(),
        8 + (AUTH_REQUEST.len() - Header::LEN) + 1 + 16
    );
}

#[test]
fn payload_bodies_read_as_strongswan_was_configured() {
    let ke = KePayload::parse(body(INIT_REQUEST, PayloadType::KE)).unwrap();
    assert_eq!((ke.group, ke.data.len()), (KeyExchangeId::X25519, 32));
    let id = IdPayload::parse(body(AUTH_REQUEST, PayloadType::ID_I)).unwrap();
    assert_eq!(
        (id.kind, id.data),
        (IdType::FQDN, b"gw-a.example".as_slice())
    );
    let auth = AuthPayload::parse(body(AUTH_REQUEST, PayloadType::AUTH)).unwrap();
    assert_eq!(
        (auth.method, auth.data.len()),
        (AuthMethod::SHARED_KEY_MIC, 48)
    );
    assert_eq!(
        Nonce::parse(body(INIT_REQUEST, PayloadType::NONCE))
            .unwrap()
            .bytes()
            .len(),
        32
    );

    let kinds: Vec<_> = notifies(INIT_REQUEST)
        .iter()
        .map(|notify| notify.kind)
        .collect();
    let expected = [
        NotifyType::NAT_DETECTION_SOURCE_IP,
        NotifyType::NAT_DETECTION_DESTINATION_IP,
        NotifyType::IKEV2_FRAGMENTATION_SUPPORTED,
        NotifyType::SIGNATURE_HASH_ALGORITHMS,
        NotifyType::REDIRECT_SUPPORTED,
    ];
    assert_eq!(kinds, expected);
    let rekey = notifies(REKEY_CHILD)[0];
    assert_eq!(
        (rekey.kind, rekey.protocol),
        (NotifyType::REKEY_SA, ProtocolId::Esp as u8)
    );
    assert_eq!(rekey.spi, [0x46, 0xdf, 0x42, 0xc8]);
}

#[test]
fn deletes_name_an_ike_sa_without_spis_and_child_sas_by_spi() {
    let child = Delete::parse(body(DELETE_CHILD, PayloadType::DELETE)).unwrap();
    assert_eq!((child.protocol, child.spis().count()), (ProtocolId::Esp, 1));
    let ike = Delete::parse(body(DELETE_IKE, PayloadType::DELETE)).unwrap();
    assert_eq!((ike.protocol, ike.spis().count()), (ProtocolId::Ike, 0));
    let mut out = Vec::new();
    Delete::encode_ike(&mut out);
    assert_eq!(out, body(DELETE_IKE, PayloadType::DELETE));

    for wrong in [
        &[3, 4, 0, 2, 1, 2, 3, 4][..], // two SPIs announced, one there
        &[3, 4, 0, 0, 1, 2, 3, 4],     // none announced, one there
        &[3, 8, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8],
        &[1, 8, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8], // IKE with an SPI
        &[1, 0, 0, 1],
        &[4, 4, 0, 1, 1, 2, 3, 4],
        &[3, 4, 0],
    ] {
        assert!(Delete::parse(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_length_field_that_is_not_the_datagrams_length_is_refused() {
    for length in [0u32, 27, 28, 307, 309, u32::MAX] {
        let mut message = INIT_REQUEST.to_vec();
        message[24..28].copy_from_slice(&length.to_be_bytes());
        assert_eq!(
            Header::parse(&message).err(),
            Some(Malformed::BadLength("message"))
        );
    }
    for len in 0..Header::LEN {
        assert_eq!(
            Header::parse(&EMPTY[..len]).err(),
            Some(Malformed::Truncated("header"))
        );
    }
}

fn chain(first: u8, bytes: &[u8]) -> Result<usize, Malformed> {
    let mut count = 0;
    for payload in PayloadChain::new(PayloadType(first), bytes) {
        payload?;
        count += 1;
    }
    Ok(count)
}

#[test]
fn chains_end_at_the_first_payload_with_a_wrong_length() {
    for length in 0..4 {
        assert_eq!(
            chain(41, &[0, 0, 0, length, 9, 9]),
            Err(Malformed::BadLength("payload"))
        );
    }
    assert_eq!(
        chain(41, &[0, 0, 0, 7, 1, 2]),
        Err(Malformed::Truncated("payload"))
    );
    assert_eq!(
        chain(41, &[41, 0, 0, 4]),
        Err(Malformed::Truncated("payload header"))
    );
    assert_eq!(chain(41, &[]), Err(Malformed::Truncated("payload header")));
    let mut broken = PayloadChain::new(PayloadType(41), &[0, 0, 0, 1, 0, 0, 0, 4]);
    assert!(broken.next().is_some_and(|payload| payload.is_err()));
    assert_eq!(broken.next(), None);
}

#[test]
fn bytes_behind_the_last_payload_are_refused() {
    assert_eq!(
        chain(41, &[0, 0, 0, 4, 1]),
        Err(Malformed::BadLength("payload chain"))
    );
    assert_eq!(chain(0, &[1]), Err(Malformed::BadLength("payload chain")));
    assert_eq!(chain(0, &[]), Ok(0));
    // SK and SKF must be last, whatever they say comes next.
    assert_eq!(
        chain(46, &[35, 0, 0, 4, 0, 0, 0, 4]),
        Err(Malformed::BadLength("payload chain"))
    );
    assert_eq!(chain(53, &[35, 0, 0, 4]), Ok(1));
}

#[test]
fn a_chain_has_at_most_64_payloads() {
    assert_eq!(
        chain(99, &[[99, 0, 0, 4].repeat(63), vec![0, 0, 0, 4]].concat()),
        Ok(64)
    );
    assert_eq!(
        chain(99, &[[99, 0, 0, 4].repeat(64), vec![0, 0, 0, 4]].concat()),
        Err(Malformed::BadLength("payload chain"))
    );
}

#[test]
fn the_critical_bit_is_read_and_reserved_bits_are_not() {
    let bytes = [99, 0x80, 0, 4, 0, 0x7f, 0, 4];
    let chain = PayloadChain::new(PayloadType(98), &bytes).map(Result::unwrap);
    let critical: Vec<_> = chain
        .map(|payload| (payload.kind.is_known(), payload.critical))
        .collect();
    assert_eq!(critical, [(false, true), (false, false)]);
    assert!(PayloadType::SKF.is_known());
}

#[test]
fn nonces_have_16_to_256_bytes() {
    for (len, fine) in [
        (0, false),
        (15, false),
        (16, true),
        (256, true),
        (257, false),
    ] {
        assert_eq!(Nonce::parse(&vec![7; len]).is_ok(), fine, "{len} bytes");
    }
}

#[test]
fn bodies_without_their_fixed_fields_are_refused() {
    for len in 0..4 {
        let short = &[3, 0, 0, 1][..len];
        assert!(KePayload::parse(short).is_err());
        assert!(IdPayload::parse(short).is_err());
        assert!(AuthPayload::parse(short).is_err());
        assert!(Notify::parse(short).is_err());
        assert!(Delete::parse(short).is_err());
        assert!(FragmentHeader::parse(short).is_err());
    }
    assert_eq!(
        Notify::parse(&[3, 5, 0, 1, 9, 9, 9, 9]),
        Err(Malformed::Truncated("notify SPI"))
    );
}

#[test]
fn fragment_numbers_run_from_one_to_the_total() {
    let parse = |number: u16, total: u16| {
        let header = FragmentHeader { number, total }.encode();
        FragmentHeader::parse(&header).map(|(header, _)| (header.number, header.total))
    };
    assert_eq!(parse(1, 1), Ok((1, 1)));
    assert_eq!(parse(u16::MAX, u16::MAX), Ok((u16::MAX, u16::MAX)));
    for (number, total) in [(0, 1), (2, 1), (1, 0), (0, 0)] {
        assert_eq!(
            parse(number, total),
            Err(Malformed::BadValue("fragment number"))
        );
    }
}

#[test]
fn errors_and_statuses_are_told_apart_by_number() {
    assert!(NotifyType::CHILD_SA_NOT_FOUND.is_error() && NotifyType(16383).is_error());
    assert!(!NotifyType::INITIAL_CONTACT.is_error() && !NotifyType(40960).is_error());
    assert_eq!(NotifyType::COOKIE.to_string(), "COOKIE");
    assert_eq!(NotifyType(40961).to_string(), "NOTIFY_40961");
}

#[test]
fn a_body_beyond_the_format_is_cut_and_the_chain_stays_sound() {
    let mut writer = PayloadWriter::new();
    writer
        .add(PayloadType::NOTIFY, &vec![1; 70_000])
        .add(PayloadType::NONCE, &[2; 16]);
    let (first, bytes) = writer.finish();
    let lengths: Vec<_> = PayloadChain::new(first, &bytes)
        .map(|payload| payload.unwrap().body.len())
        .collect();
    assert_eq!(lengths, [65_531, 16]);
}

#[test]
fn flags_carry_role_and_direction() {
    assert_eq!(Flags::new(true, false), Flags(0x08));
    assert_eq!(Flags::new(false, true), Flags(0x20));
    assert!(Flags(0x10).version_bit());
}
