//! Values that the cryptography has to refuse, at a running daemon (HOSTILE B12, B15): public values of every kind of
//! key exchange that are none, and bodies that are not whole blocks.

use lockgate::crypto::kdf::IkeKeys;
use lockgate::crypto::prf::Prf;
use lockgate::wire::ikev2::message_bytes;
use lockgate::wire::isakmp::{ExchangeType, Flags, Header, IkeSpi, PayloadType};
use lockgate::wire::keyword::parse_proposal;
use lockgate::wire::proposal::{
    AdditionalExchanges, CipherSuite, EncryptionId, IkeSuite, IntegrityId, KeyExchangeId, PrfId,
    ProtocolId,
};

use super::hostile::{discards, half_open, ike_spis};
use super::sender::Sender;
use super::session::{Opening, init_request, sa};
use crate::support::{
    eventually,
    lab::{Family, Gateway, Lab, Plan, Side},
    traffic::assert_reaches,
};

/// Nothing but this counter rises, by one.
#[track_caller]
fn is_counted(b: &Gateway, sender: &Sender, message: &[u8], (name, counter): (&str, &str)) {
    let mut expected = discards(b);
    let before = expected.clone();
    *expected.get_mut(counter).unwrap() += 1;
    sender.send(message);
    let after = eventually(&format!("{name} is counted"), || {
        let after = discards(b);
        (after != before).then_some(after)
    });
    assert_eq!(after, expected, "{name}");
}

/// Key exchange method and public values that are none of it.
fn public_values() -> Vec<(&'static str, u16, Vec<Vec<u8>>)> {
    let length = |around: usize| {
        [0, 1, around - 1, around + 1]
            .map(|len| vec![9; len])
            .to_vec()
    };
    let curve = |size: usize| {
        // The point (0, 0) and the point at infinity, off the curve, larger than the field, compressed or
        // with the prefix of an uncompressed point (RFC 5903 §8.1 has neither).
        let mut all = length(2 * size);
        all.extend([0, 9, 0xff].map(|byte| vec![byte; 2 * size]));
        all.push([&[2][..], &vec![9; size]].concat());
        all.push([&[4][..], &vec![9; 2 * size]].concat());
        all
    };
    let p = data_encoding::HEXLOWER
        .decode(MODP_2048.as_bytes())
        .unwrap();
    let last = |byte: u8| {
        let mut value = p.clone();
        *value.last_mut().unwrap() = byte;
        value
    };
    let mut one = vec![0; 256];
    one[255] = 1;
    let mut after = p.clone();
    after[248..].fill(0);
    after[247] += 1;
    let mut modp = length(256);
    modp.extend([
        vec![0; 256],
        one,
        last(0xfe),
        p.clone(),
        after,
        vec![0xff; 256],
    ]);
    let mut lattice = length(1184);
    // Coefficients of 4095, where q is 3329 (FIPS 203 §7.2).
    lattice.push(vec![0xff; 1184]);
    vec![
        ("ecp256", 19, curve(32)),
        ("ecp384", 20, curve(48)),
        ("ecp521", 21, curve(66)),
        ("ecp256bp", 28, curve(32)),
        ("modp2048", 14, modp),
        ("mlkem768", 36, lattice),
    ]
}

#[test]
fn public_values_of_every_kind_that_are_none_are_counted_and_not_answered() {
    let Some(lab) = Lab::new() else { return };
    let values = public_values();
    let methods: Vec<_> = values.iter().map(|(name, ..)| *name).collect();
    let plan = Plan {
        daemon: "dos_protection = false".to_owned(),
        proposal: format!("aes256gcm16-prfsha384-x25519-{}", methods.join("-")),
        ..Plan::default()
    };
    let [_a, b] = lab.tunnel(&plan);
    let spis = ike_spis(&b);
    let sender = Sender::new(&lab);
    for (method, group, values) in values {
        let proposal = format!("aes256gcm16-prfsha384-{method}");
        let proposal = parse_proposal(ProtocolId::Ike, &proposal).unwrap();
        for (place, value) in values.into_iter().enumerate() {
            let ke = [&group.to_be_bytes()[..], &[0, 0], &value].concat();
            let payloads = vec![
                (PayloadType::SA, sa(std::slice::from_ref(&proposal))),
                (PayloadType::KE, ke),
                (PayloadType::NONCE, vec![7; 32]),
            ];
            let message = init_request(IkeSpi([7; 8]), payloads);
            let name = format!("value {place} of {method}");
            is_counted(&b, &sender, &message, (&name, "bad-public-value"));
        }
    }
    assert_eq!(half_open(&b), "0");
    assert_eq!(ike_spis(&b), spis);
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
}

#[test]
fn a_body_that_is_not_whole_blocks_is_not_deciphered_although_its_check_value_is_right() {
    let Some(lab) = Lab::new() else { return };
    let plan = Plan {
        proposal: "aes256-sha256-x25519".to_owned(),
        ..Plan::default()
    };
    let [_a, b] = lab.tunnel(&plan);
    let sender = Sender::new(&lab);
    let opening = Opening::new(1, &plan.proposal, &[]);
    let answer = sender.ask(&opening.request);
    let (header, _) = Header::parse(&answer).unwrap();
    let suite = IkeSuite {
        cipher: CipherSuite {
            encryption: EncryptionId::AES_CBC,
            key_bits: 256,
            integrity: Some(IntegrityId::HMAC_SHA2_256_128),
        },
        prf: PrfId::HMAC_SHA2_256,
        key_exchange: KeyExchangeId::X25519,
        additional: AdditionalExchanges::NONE,
    };
    let (_, init, seed) = opening.exchanged(&answer, suite.prf);
    let (one, two) = (header.initiator_spi, header.responder_spi);
    let keys = IkeKeys::derive(&suite, &seed, &init.ni, &init.nr, one.0, two.0);
    let prf = Prf::new(suite.prf).unwrap();
    let header = Header {
        exchange: ExchangeType::IKE_AUTH,
        flags: Flags::new(true, false),
        message_id: 1,
        ..header
    };
    let message = |length: usize| {
        let body = vec![0x5a; 4 + 16 + length + 16];
        let mut message = message_bytes(header, (PayloadType::SK, body));
        let end = message.len() - 16;
        let size = u16::try_from(end + 16 - 28).unwrap();
        message[28..30].copy_from_slice(&[PayloadType::ID_I.0, 0]);
        message[30..32].copy_from_slice(&size.to_be_bytes());
        let check = prf.mac(keys.sk_ai.as_bytes(), &[&message[..end]]);
        message[end..].copy_from_slice(&check.as_bytes()[..16]);
        message
    };
    for length in [1, 15, 17, 31, 33, 100] {
        let name = format!("a body of {length} bytes");
        is_counted(&b, &sender, &message(length), (&name, "integrity-failed"));
    }
    is_counted(&b, &sender, &message(0), ("no body", "not-protected"));
    assert_eq!(half_open(&b), "1");
    assert_eq!(b.established().len(), 1);
}

/// The prime of RFC 3526 §3.
const MODP_2048: &str = "ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd1\
    29024e088a67cc74020bbea63b139b22514a08798e3404dd\
    ef9519b3cd3a431b302b0a6df25f14374fe1356d6d51c245\
    e485b576625e7ec6f44c42e9a637ed6b0bff5cb6f406b7ed\
    ee386bfb5a899fa5ae9f24117c4b1fe649286651ece45b3d\
    c2007cb8a163bf0598da48361c55d39a69163fa8fd24cf5f\
    83655d23dca3ad961c62f356208552bb9ed529077096966d\
    670c354e4abc9804f1746c08ca18217c32905e462e36ce3b\
    e39e772c180e86039b2783a2ec07a28fb5c55df06f4c52c9\
    de2bcbf6955817183995497cea956ae515d2261898fa0510\
    15728e5a8aacaa68ffffffffffffffff";
