//! IKEv1 messages, as strongSwan 5.9.8 sent them, and as no one should. Those that were encrypted are
//! kept with what was inside.

use lockgate::wire::Malformed;
use lockgate::wire::ikev1::attribute::{attributes, write_basic, write_number, write_variable};
use lockgate::wire::ikev1::vendor_id::{DPD, FRAGMENTATION, NAT_T, UNITY, VendorId, XAUTH};
use lockgate::wire::ikev1::{
    AttributeType, AttributesPayload, AuthenticationMethod, Delete, Encapsulation, Fragment,
    IdPayload, IdType, IsakmpTransform, Lifetime, Notification, NotifyType, OriginalAddress,
    Payloads, Protocol, QuickTransform, SaPayload, TransactionType, TransformPayload, payload_type,
    write_sa,
};
use lockgate::wire::isakmp::{ExchangeType, Flags, Header, IkeSpi, PayloadType};
use lockgate::wire::selector::TrafficSelector;

const AGGRESSIVE_1: &[u8] = include_bytes!("../fuzz/seeds/isakmp_v1/aggressive-1");
const AGGRESSIVE_2: &[u8] = include_bytes!("../fuzz/seeds/isakmp_v1/aggressive-2");
const DELETE_ESP_INNER: &[u8] = include_bytes!("../fuzz/seeds/isakmp_v1/delete-esp-inner");
const DELETE_ISAKMP_INNER: &[u8] = include_bytes!("../fuzz/seeds/isakmp_v1/delete-isakmp-inner");
const MAIN_1: &[u8] = include_bytes!("../fuzz/seeds/isakmp_v1/main-1");
const MAIN_2: &[u8] = include_bytes!("../fuzz/seeds/isakmp_v1/main-2");
const MAIN_3: &[u8] = include_bytes!("../fuzz/seeds/isakmp_v1/main-3");
const MAIN_5_INNER: &[u8] = include_bytes!("../fuzz/seeds/isakmp_v1/main-5-inner");
const MAIN_6_INNER: &[u8] = include_bytes!("../fuzz/seeds/isakmp_v1/main-6-inner");
const MODE_CONFIG_REPLY_INNER: &[u8] =
    include_bytes!("../fuzz/seeds/isakmp_v1/mode-config-reply-inner");
const MODE_CONFIG_REQUEST_INNER: &[u8] =
    include_bytes!("../fuzz/seeds/isakmp_v1/mode-config-request-inner");
const QUICK_1_INNER: &[u8] = include_bytes!("../fuzz/seeds/isakmp_v1/quick-1-inner");
const QUICK_3_INNER: &[u8] = include_bytes!("../fuzz/seeds/isakmp_v1/quick-3-inner");
const R_U_THERE_INNER: &[u8] = include_bytes!("../fuzz/seeds/isakmp_v1/r-u-there-inner");
const XAUTH_REPLY_INNER: &[u8] = include_bytes!("../fuzz/seeds/isakmp_v1/xauth-reply-inner");
const XAUTH_REQUEST_INNER: &[u8] = include_bytes!("../fuzz/seeds/isakmp_v1/xauth-request-inner");
const XAUTH_STATUS_INNER: &[u8] = include_bytes!("../fuzz/seeds/isakmp_v1/xauth-status-inner");

fn read(message: &[u8]) -> (Header, Payloads<'_>) {
    let (header, bytes) = Header::parse(message).unwrap();
    let encrypted = header.flags.0 & Flags::ENCRYPTION != 0;
    let payloads = if encrypted {
        Payloads::parse_padded(header.next_payload, bytes)
    } else {
        Payloads::parse(header.next_payload, bytes)
    };
    (header, payloads.unwrap())
}

fn kinds(message: &[u8]) -> Vec<u8> {
    read(message)
        .1
        .iter()
        .map(|payload| payload.kind.0)
        .collect()
}

#[test]
fn headers_and_chains_of_every_exchange_read_as_they_were_sent() {
    let (header, _) = read(MAIN_1);
    assert_eq!(header.version, Header::VERSION_1_0);
    assert_eq!(header.exchange, ExchangeType::IDENTITY_PROTECTION);
    assert!(header.responder_spi.is_zero() && header.flags.0 == 0);
    let (header, _) = read(QUICK_1_INNER);
    assert_eq!(header.exchange, ExchangeType::QUICK_MODE);
    assert_eq!(header.flags.0, Flags::ENCRYPTION);
    assert_ne!(header.message_id, 0);
    for (message, expected) in [
        (MAIN_1, vec![1, 13, 13, 13, 13, 13, 13]),
        (MAIN_2, vec![1, 13, 13, 13, 13, 13]),
        (MAIN_3, vec![4, 10, 20, 20]),
        (MAIN_5_INNER, vec![5, 8, 11]),
        (MAIN_6_INNER, vec![5, 8]),
        (QUICK_1_INNER, vec![8, 1, 10, 4, 5, 5]),
        (QUICK_3_INNER, vec![8]),
        (
            AGGRESSIVE_2,
            vec![1, 4, 10, 5, 13, 13, 13, 13, 13, 20, 20, 8],
        ),
        (XAUTH_REQUEST_INNER, vec![8, 14]),
        (R_U_THERE_INNER, vec![8, 11]),
        (DELETE_ISAKMP_INNER, vec![8, 12]),
    ] {
        assert_eq!(kinds(message), expected);
    }
}

#[test]
fn the_hash_covers_what_stands_behind_it_without_padding() {
    let message = QUICK_3_INNER;
    let (_, payloads) = read(message);
    let (hash, behind) = payloads.split_hash().unwrap();
    assert_eq!((hash.len(), behind.len()), (32, 0));
    let (_, payloads) = read(R_U_THERE_INNER);
    let (_, behind) = payloads.split_hash().unwrap();
    assert_eq!(behind.len(), 32);
    assert_eq!(read(MAIN_5_INNER).1.split_hash(), None);
}

#[test]
fn policies_of_phase_one_read_and_write_the_same() {
    let (_, payloads) = read(MAIN_1);
    let body = payloads.single(payload_type::SA).unwrap();
    let sa = SaPayload::parse(body).unwrap();
    let [proposal] = sa.proposals.as_slice() else {
        panic!("{sa:?}");
    };
    assert_eq!((proposal.number, proposal.protocol), (1, Protocol::ISAKMP));
    let read = |transform: &TransformPayload<'_>| IsakmpTransform::parse(transform.attributes);
    let transforms: Vec<_> = proposal.transforms.iter().map(read).collect();
    let policy = |key_bits, hash| IsakmpTransform {
        encryption: Some(7),
        key_bits: Some(key_bits),
        hash: Some(hash),
        authentication: Some(AuthenticationMethod::PRE_SHARED_KEY),
        group: Some(14),
        lifetime: Lifetime {
            seconds: Some(15840),
            kilobytes: None,
        },
        unknown: None,
    };
    assert_eq!(transforms, [Ok(policy(256, 4)), Ok(policy(128, 2))]);

    let mut written = Vec::new();
    write_sa(&sa.proposals, &mut written);
    assert_eq!(written, body);
    let mut attributes = Vec::new();
    policy(256, 4).write(&mut attributes);
    assert_eq!(IsakmpTransform::parse(&attributes), Ok(policy(256, 4)));
}

#[test]
fn proposals_of_quick_mode_read_and_write_the_same() {
    let (_, payloads) = read(QUICK_1_INNER);
    let body = payloads.single(payload_type::SA).unwrap();
    let sa = SaPayload::parse(body).unwrap();
    let [proposal] = sa.proposals.as_slice() else {
        panic!("{sa:?}");
    };
    assert_eq!(proposal.protocol, Protocol::ESP);
    assert_eq!(proposal.spi, [0x48, 0xdf, 0x92, 0xa9]);
    let [transform] = proposal.transforms.as_slice() else {
        panic!("{proposal:?}");
    };
    assert_eq!(transform.id, 12);
    let expected = QuickTransform {
        group: Some(14),
        encapsulation: Some(Encapsulation::UDP_TUNNEL),
        authentication: Some(5),
        key_bits: Some(128),
        esn: false,
        lifetime: Lifetime {
            seconds: Some(3960),
            kilobytes: None,
        },
        unknown: None,
    };
    assert_eq!(QuickTransform::parse(transform.attributes), Ok(expected));
    let mut written = Vec::new();
    write_sa(&sa.proposals, &mut written);
    assert_eq!(written, body);
}

#[test]
fn identities_and_traffic_read_and_write_the_same() {
    let (_, payloads) = read(MAIN_5_INNER);
    let id = IdPayload::parse(payloads.single(payload_type::ID).unwrap()).unwrap();
    assert_eq!((id.kind, id.protocol, id.port), (IdType::FQDN, 0, 0));
    assert_eq!(id.data, b"a.example");

    let (_, payloads) = read(QUICK_1_INNER);
    let ids: Vec<_> = payloads.of(payload_type::ID).collect();
    for (body, text) in ids.into_iter().zip(["10.1.0.0/24", "10.2.0.0/24"]) {
        let expected: TrafficSelector = text.parse().unwrap();
        let id = IdPayload::parse(body).unwrap();
        assert_eq!(id.kind, IdType::IPV4_ADDR_SUBNET);
        assert_eq!(id.selector(), Ok(expected));
        let mut written = Vec::new();
        IdPayload::write_selector(&expected, &mut written).unwrap();
        assert_eq!(written, body);
    }
}

#[test]
fn traffic_is_an_address_a_subnet_or_a_range_with_one_port_or_all() {
    for (text, kind) in [
        ("192.0.2.1/32", IdType::IPV4_ADDR),
        ("2001:db8::1/128", IdType::IPV6_ADDR),
        ("192.0.2.0/24[udp/53]", IdType::IPV4_ADDR_SUBNET),
        ("2001:db8::/32", IdType::IPV6_ADDR_SUBNET),
        ("0.0.0.0/0", IdType::IPV4_ADDR_SUBNET),
        ("192.0.2.1-192.0.2.9[tcp]", IdType::IPV4_ADDR_RANGE),
        ("2001:db8::1-2001:db8::9", IdType::IPV6_ADDR_RANGE),
    ] {
        let selector: TrafficSelector = text.parse().unwrap();
        let mut written = Vec::new();
        IdPayload::write_selector(&selector, &mut written).unwrap();
        let id = IdPayload::parse(&written).unwrap();
        assert_eq!((id.kind, id.selector()), (kind, Ok(selector)), "{text}");
    }
    let ports: TrafficSelector = "192.0.2.0/24[udp/53-54]".parse().unwrap();
    assert_eq!(IdPayload::write_selector(&ports, &mut Vec::new()), None);
    for (kind, data) in [
        (IdType::FQDN, &b"gw.example"[..]),
        (IdType::IPV4_ADDR, &[192, 0, 2]),
        (IdType::IPV4_ADDR, &[0; 16]),
        (IdType::IPV6_ADDR, &[192, 0, 2, 1]),
        (IdType::IPV4_ADDR_SUBNET, &[192, 0, 2, 1]),
        (IdType::IPV4_ADDR_SUBNET, &[192, 0, 2, 0, 255, 0, 255, 0]),
        (IdType::IPV4_ADDR_RANGE, &[192, 0, 2, 9, 192, 0, 2, 1]),
        (IdType::IPV6_ADDR_RANGE, &[0; 31]),
        (IdType(0), &[]),
        (IdType::KEY_ID, &[1, 2, 3, 4]),
    ] {
        let (protocol, port) = (0, 0);
        let id = IdPayload {
            kind,
            protocol,
            port,
            data,
        };
        assert!(id.selector().is_err(), "{id:?}");
    }
}

#[test]
fn vendor_ids_are_recognised_also_with_a_version_behind() {
    let (_, payloads) = read(AGGRESSIVE_1);
    let known: Vec<_> = payloads
        .of(payload_type::VENDOR_ID)
        .map(|body| VendorId::recognise(body).unwrap().name)
        .collect();
    for expected in [&XAUTH, &DPD, &UNITY, &FRAGMENTATION, &NAT_T] {
        assert!(known.contains(&expected.name), "{known:?}");
    }
    let with_capabilities = [FRAGMENTATION.bytes, &[0x80, 0, 0, 0]].concat();
    assert_eq!(
        VendorId::recognise(&with_capabilities),
        Some(&FRAGMENTATION)
    );
    assert_eq!(VendorId::recognise(&with_capabilities[..15]), None);
    assert_eq!(VendorId::recognise(&[NAT_T.bytes, &[0]].concat()), None);
    assert_eq!(VendorId::recognise(&[]), None);
}

#[test]
fn notifications_read_and_write_the_same() {
    let (header, payloads) = read(R_U_THERE_INNER);
    let body = payloads.single(payload_type::NOTIFICATION).unwrap();
    let notification = Notification::parse(body).unwrap();
    assert_eq!(notification.protocol, Protocol::ISAKMP);
    assert_eq!(notification.kind, NotifyType::R_U_THERE);
    let cookies = [header.initiator_spi.0, header.responder_spi.0].concat();
    assert_eq!(notification.spi, cookies);
    assert_eq!(notification.data.len(), 4);
    let mut written = Vec::new();
    notification.write(&mut written);
    assert_eq!(written, body);

    let (_, payloads) = read(MAIN_5_INNER);
    let body = payloads.single(payload_type::NOTIFICATION).unwrap();
    let initial = Notification::parse(body).unwrap();
    assert_eq!(initial.kind, NotifyType::INITIAL_CONTACT);
    assert!(!initial.kind.is_error() && NotifyType::NO_PROPOSAL_CHOSEN.is_error());
}

#[test]
fn deletes_read_and_write_the_same() {
    let (_, payloads) = read(DELETE_ESP_INNER);
    let body = payloads.single(payload_type::DELETE).unwrap();
    let delete = Delete::parse(body).unwrap();
    assert_eq!(delete.spis().collect::<Vec<_>>(), [0x48df_92a9]);
    assert_eq!(delete.cookies().count(), 0);
    let mut written = Vec::new();
    Delete::write_esp(&[0x48df_92a9], &mut written);
    assert_eq!(written, body);

    let (header, payloads) = read(DELETE_ISAKMP_INNER);
    let body = payloads.single(payload_type::DELETE).unwrap();
    let delete = Delete::parse(body).unwrap();
    let cookies = (header.initiator_spi, header.responder_spi);
    assert_eq!(delete.cookies().collect::<Vec<_>>(), [cookies]);
    assert_eq!(delete.spis().count(), 0);
    written.clear();
    Delete::write_isakmp(cookies, &mut written);
    assert_eq!(written, body);
}

#[test]
fn deletes_whose_count_or_length_lies_are_refused() {
    let mut isakmp = Vec::new();
    Delete::write_isakmp((IkeSpi([1; 8]), IkeSpi([2; 8])), &mut isakmp);
    let mut esp = Vec::new();
    Delete::write_esp(&[1, 2], &mut esp);
    for (good, at, value) in [
        (&isakmp, 5, 8),
        (&isakmp, 7, 2),
        (&isakmp, 4, 9),
        (&isakmp, 3, 2),
        (&esp, 5, 8),
        (&esp, 7, 3),
        (&esp, 7, 0),
        (&esp, 4, 4),
    ] {
        assert!(Delete::parse(good).is_ok());
        let mut bad = good.clone();
        bad[at] = value;
        assert!(Delete::parse(&bad).is_err(), "{at} {value}");
    }
    assert!(Delete::parse(&isakmp[..7]).is_err());
}

#[test]
fn transactions_read_and_write_the_same() {
    let body = |message: &'static [u8]| {
        let (_, payloads) = read(message);
        payloads.single(payload_type::ATTRIBUTES).unwrap()
    };
    let request = AttributesPayload::parse(body(XAUTH_REQUEST_INNER)).unwrap();
    assert_eq!(request.kind, TransactionType::REQUEST);
    let empty: &[u8] = &[];
    assert_eq!(
        request.attributes,
        [
            (AttributeType::XAUTH_USER_NAME, empty),
            (AttributeType::XAUTH_USER_PASSWORD, empty),
        ]
    );
    let reply = AttributesPayload::parse(body(XAUTH_REPLY_INNER)).unwrap();
    assert_eq!(
        reply.get(AttributeType::XAUTH_USER_NAME),
        Some(&b"alice"[..])
    );
    assert_eq!(
        reply.get(AttributeType::XAUTH_USER_PASSWORD),
        Some(&b"wonderland"[..])
    );
    let status = AttributesPayload::parse(body(XAUTH_STATUS_INNER)).unwrap();
    assert_eq!(status.kind, TransactionType::SET);
    assert_eq!(status.get(AttributeType::XAUTH_STATUS), Some(&[0, 1][..]));
    let config = AttributesPayload::parse(body(MODE_CONFIG_REPLY_INNER)).unwrap();
    assert_eq!(
        config.get(AttributeType::INTERNAL_IP4_ADDRESS),
        Some(&[10, 9, 0, 1][..])
    );
    assert_eq!(
        config.get(AttributeType::UNITY_BANNER),
        Some(&b"Welcome"[..])
    );
    for message in [
        XAUTH_REQUEST_INNER,
        XAUTH_REPLY_INNER,
        XAUTH_STATUS_INNER,
        MODE_CONFIG_REQUEST_INNER,
        MODE_CONFIG_REPLY_INNER,
    ] {
        let (_, payloads) = read(message);
        let body = payloads.single(payload_type::ATTRIBUTES).unwrap();
        let mut written = Vec::new();
        AttributesPayload::parse(body).unwrap().write(&mut written);
        assert_eq!(written, body);
    }
}

/// RFC 2409 appendix A: a life duration may come in either format; others are basic.
#[test]
fn attributes_read_in_both_formats() {
    let mut bytes = Vec::new();
    write_basic(1, 7, &mut bytes);
    write_basic(14, 256, &mut bytes);
    write_basic(11, 1, &mut bytes);
    write_number(12, 86_400, &mut bytes);
    write_basic(11, 2, &mut bytes);
    write_variable(12, &[0, 0, 0, 0, 0, 1, 0, 0], &mut bytes);
    let read = IsakmpTransform::parse(&bytes).unwrap();
    let lifetime = Lifetime {
        seconds: Some(86_400),
        kilobytes: Some(65_536),
    };
    assert_eq!((read.encryption, read.key_bits), (Some(7), Some(256)));
    assert_eq!((read.lifetime, read.unknown), (lifetime, None));
}

#[test]
fn what_is_twice_cut_or_not_known_is_refused_or_told() {
    let twice = |kind| {
        let mut bytes = Vec::new();
        write_basic(kind, 1, &mut bytes);
        write_variable(kind, &[0, 1], &mut bytes);
        bytes
    };
    for kind in [1, 2, 3, 4, 14] {
        assert!(IsakmpTransform::parse(&twice(kind)).is_err(), "{kind}");
    }
    for kind in [3, 4, 5, 6, 11] {
        assert!(QuickTransform::parse(&twice(kind)).is_err(), "{kind}");
    }
    let mut unknown = Vec::new();
    write_variable(6, &[0xff; 128], &mut unknown);
    assert_eq!(IsakmpTransform::parse(&unknown).unwrap().unknown, Some(6));
    let mut long = Vec::new();
    write_variable(1, &[0; 9], &mut long);
    assert_eq!(IsakmpTransform::parse(&long).unwrap().unknown, Some(1));
    let mut without_type = Vec::new();
    write_number(12, 3600, &mut without_type);
    assert!(IsakmpTransform::parse(&without_type).is_err());
    let mut other_esn = Vec::new();
    write_basic(11, 2, &mut other_esn);
    assert_eq!(QuickTransform::parse(&other_esn).unwrap().unknown, Some(11));
    for cut in [&[0x80][..], &[0x80, 1, 0], &[0, 1, 0, 2, 7], &[0, 1, 0]] {
        assert!(
            attributes(cut).any(|attribute| attribute.is_err()),
            "{cut:?}"
        );
    }
}

#[test]
fn sa_payloads_with_wrong_counts_lengths_or_domains_are_refused() {
    let (_, payloads) = read(MAIN_1);
    let good = payloads.single(payload_type::SA).unwrap();
    // DOI, situation, proposal's mark, its length, SPI size, number of transforms, a transform's mark.
    for (at, value) in [
        (3, 2),
        (7, 2),
        (8, 2),
        (8, 1),
        (11, 0),
        (11, 3),
        (11, 255),
        (14, 17),
        (14, 255),
        (15, 0),
        (15, 1),
        (15, 3),
        (15, 255),
        (16, 0),
        (16, 2),
        (19, 3),
    ] {
        let mut bad = good.to_vec();
        bad[at] = value;
        assert!(SaPayload::parse(&bad).is_err(), "{at} {value}");
    }
    for len in 0..good.len() {
        assert!(SaPayload::parse(&good[..len]).is_err(), "{len}");
    }
}

#[test]
fn chains_that_lie_about_their_length_are_refused() {
    let parse = |bytes: &[u8]| Payloads::parse(PayloadType(13), bytes).map(|_| ());
    assert_eq!(parse(&[0, 0, 0, 4]), Ok(()));
    for length in 0..4 {
        assert_eq!(
            parse(&[0, 0, 0, length]),
            Err(Malformed::BadLength("payload"))
        );
    }
    assert_eq!(parse(&[0, 0, 0, 5]), Err(Malformed::Truncated("payload")));
    assert_eq!(
        parse(&[13, 0, 0, 4]),
        Err(Malformed::Truncated("payload header"))
    );
    assert_eq!(
        parse(&[0, 0, 0, 4, 0]),
        Err(Malformed::BadLength("payload chain"))
    );
    assert!(Payloads::parse_padded(PayloadType(13), &[0, 0, 0, 4, 0]).is_ok());
    let mut many = [13, 0, 0, 4].repeat(Payloads::MAX - 1);
    many.extend([0, 0, 0, 4]);
    assert_eq!(parse(&many), Ok(()));
    many.splice(..0, [13, 0, 0, 4]);
    assert_eq!(parse(&many), Err(Malformed::BadLength("payload chain")));
}

#[test]
fn fragments_and_original_addresses_read_and_write_the_same() {
    let fragment = Fragment {
        id: 7,
        number: 2,
        last: true,
        data: b"rest",
    };
    let mut written = Vec::new();
    fragment.write(&mut written);
    assert_eq!(written, b"\x00\x07\x02\x01rest");
    assert_eq!(Fragment::parse(&written), Ok(fragment));
    assert!(Fragment::parse(&[0, 7, 0, 1]).is_err());
    assert!(Fragment::parse(&[0, 7, 1]).is_err());

    // RFC 3947 §5.2: the ID type, three zero bytes, the address.
    for (addr, bytes) in [
        ("192.0.2.1", &[1, 0, 0, 0, 192, 0, 2, 1][..]),
        (
            "2001:db8::1",
            &[
                5, 0, 0, 0, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
            ],
        ),
    ] {
        let original = OriginalAddress(addr.parse().unwrap());
        assert_eq!(OriginalAddress::parse(bytes), Ok(original));
        let mut written = Vec::new();
        original.write(&mut written);
        assert_eq!(written, bytes);
    }
    for bad in [
        &[1, 0, 0, 0, 192, 0, 2][..],
        &[5, 0, 0, 0, 1, 2, 3, 4],
        &[2, 0, 0, 0, 1, 2, 3, 4],
        &[1],
    ] {
        assert!(OriginalAddress::parse(bad).is_err(), "{bad:?}");
    }
}
