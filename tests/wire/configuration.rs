//! Configuration payloads: as strongSwan 5.9.8 sends them, and as no one should.

use std::net::IpAddr;

use data_encoding::HEXLOWER;
use lockgate::wire::Malformed;
use lockgate::wire::ikev2::{Attribute, Configuration, ConfigurationType, Family};

fn hex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.replace(' ', "").as_bytes()).unwrap()
}

fn parse(text: &str) -> Result<Configuration, Malformed> {
    Configuration::parse(&hex(text))
}

/// RFC 7296 §2.19: CP(CFG_REQUEST) = INTERNAL_ADDRESS(), and its answer.
#[test]
fn a_request_and_its_reply_read_and_write_the_same() {
    let request = "01000000 0001 0000 0003 0000";
    let reply = "02000000 0001 0004 c00002ca 0003 0004 0a010035 000d 0008 c0000200 ffffff00";
    let ipv6 = "02000000 0008 0011 20010db8000000000000000000000005 80 000f 0011 20010db8000000000000000000000000 20";
    let address = |text: &str| Some(text.parse::<IpAddr>().unwrap());
    let net = |text: &str| Some(text.parse().unwrap());
    for (text, kind, attributes) in [
        (
            request,
            ConfigurationType::REQUEST,
            vec![
                Attribute::Address(Family::V4, None),
                Attribute::Dns(Family::V4, None),
            ],
        ),
        (
            reply,
            ConfigurationType::REPLY,
            vec![
                Attribute::Address(Family::V4, address("192.0.2.202")),
                Attribute::Dns(Family::V4, address("10.1.0.53")),
                Attribute::Subnet(Family::V4, net("192.0.2.0/24")),
            ],
        ),
        (
            ipv6,
            ConfigurationType::REPLY,
            vec![
                Attribute::Address(Family::V6, address("2001:db8::5")),
                Attribute::Subnet(Family::V6, net("2001:db8::/32")),
            ],
        ),
    ] {
        let expected = Configuration { kind, attributes };
        assert_eq!(parse(text), Ok(expected.clone()));
        let mut written = Vec::new();
        expected.encode(&mut written);
        assert_eq!(written, hex(text));
    }
}

#[test]
fn what_is_not_known_is_skipped_and_zero_asks_for_any() {
    let read = parse("01000000 8007 0002 6162 0001 0004 00000000 7fff 0000").unwrap();
    assert_eq!(read.attributes, [Attribute::Address(Family::V4, None)]);
}

#[test]
fn wrong_lengths_masks_and_ends_are_refused() {
    for text in [
        "010000",
        "01000000 0001",
        "01000000 0001 ffff",
        "01000000 0001 0005 0102030405",
        "01000000 0008 0012 000102030405060708090a0b0c0d0e0f1011",
        "01000000 0008 0004 01020304",
        "01000000 000a 0011 0001020304050607080910111213141516",
        "01000000 000d 0008 c0000200 ff00ff00",
        "01000000 000f 0011 20010db8000000000000000000000000 81",
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
}

#[test]
fn a_thousand_attributes_are_not_all_looked_at() {
    let mut body = hex("01000000");
    for _ in 0..1000 {
        body.extend(hex("0003 0004 0a010035"));
    }
    let read = Configuration::parse(&body).unwrap();
    assert_eq!(read.attributes.len(), Configuration::MAX_ATTRIBUTES);
}
