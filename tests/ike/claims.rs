//! What claims to be gateway A and is not (HOSTILE B24 to B26), to be sent inside IKE_AUTH by someone who has
//! the keys of the half-open IKE SA, and the genuine claims that each of them is one fault away from.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::sync::Arc;

use lockgate::crypto::signature::{Hash, Scheme};
use lockgate::crypto::{PrivateKey, Secret};
use lockgate::ike::Identity;
use lockgate::wire::ikev2::AuthMethod;
use lockgate::wire::isakmp::PayloadType;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    KeyUsagePurpose, NameConstraints, SerialNumber,
};

use super::pki::{self, Kind};
use super::session::{Payloads, Session, child_sa, proof, selectors};

/// A proof that is made when the keys are known.
type Make = Box<dyn Fn(&Session) -> (AuthMethod, Vec<u8>)>;

/// What an IKE_AUTH request says of its sender.
pub(crate) struct Claim {
    pub(crate) name: String,
    /// The body of IDi.
    pub(crate) id: Vec<u8>,
    /// Their encodings, and what they hold.
    pub(crate) certificates: Vec<(u8, Vec<u8>)>,
    make: Make,
}

impl Claim {
    fn new(name: &str, certificates: Vec<(u8, Vec<u8>)>, make: Make) -> Self {
        let name = name.to_owned();
        Self {
            name,
            id: fqdn(A),
            certificates,
            make,
        }
    }

    pub(crate) fn called(self, name: &str) -> Self {
        let name = name.to_owned();
        Self { name, ..self }
    }

    /// The request, for a child between the networks of the gateways.
    pub(crate) fn payloads(&self, session: &Session) -> Payloads {
        let (method, data) = (self.make)(session);
        let mut payloads = vec![(PayloadType::ID_I, self.id.clone())];
        let certificates = self.certificates.iter();
        payloads.extend(certificates.map(|(encoding, data)| {
            let body = [&[*encoding], &data[..]].concat();
            (PayloadType::CERT, body)
        }));
        payloads.extend([
            (PayloadType::ID_R, fqdn("gw-b.example")),
            (PayloadType::AUTH, proof(method, &data)),
            (
                PayloadType::SA,
                child_sa("aes256gcm16-esn-noesn", 0x1000_0001),
            ),
        ]);
        payloads.extend(selectors("10.1.0.0/24", "10.2.0.0/24"));
        payloads
    }
}

/// The body of an ID payload with a domain name.
pub(crate) fn fqdn(name: &str) -> Vec<u8> {
    name.parse::<Identity>().unwrap().to_payload_body()
}

/// A claim that holds: the certificate, and a signature by its key.
pub(crate) fn genuine(leaf: &pki::Identity, scheme: Scheme) -> Claim {
    let name = format!("genuine with {scheme:?}");
    Claim::new(&name, der(leaf), signature(leaf, scheme))
}

/// Certificates behind the one that holds.
pub(crate) fn with_certificates(leaf: &pki::Identity, name: &str, more: Vec<Vec<u8>>) -> Claim {
    let mut claim = genuine(leaf, ECDSA).called(name);
    claim
        .certificates
        .extend(more.into_iter().map(|data| (X509, data)));
    claim
}

/// An ID payload of this type, signed for with the leaf's key.
pub(crate) fn identified(leaf: &pki::Identity, kind: u8, body: &[u8]) -> Claim {
    let id = [&[kind, 0, 0, 0], body].concat();
    let (key, octets) = (leaf.private_key(), id.clone());
    let make = move |session: &Session| {
        let signature = key.sign(ECDSA, &session.octets(&octets)).unwrap();
        (SIGNATURE, data(&algorithm(ECDSA), &signature))
    };
    let shown = &body[..body.len().min(40)];
    let name = format!("identity of type {kind}: {}", shown.escape_ascii());
    let claim = Claim::new(&name, der(leaf), Box::new(make));
    Claim { id, ..claim }
}

/// Identities that a certificate for `gw-a.example` does not name, of this subject.
pub(crate) fn identities(leaf: &pki::Identity) -> Vec<Claim> {
    let dn = leaf.certificate().subject().der().to_vec();
    let bodies: Vec<(u8, Vec<u8>)> = vec![
        (2, b"gw-a.example\0".to_vec()),
        (2, b"gw-a.example\0.evil".to_vec()),
        (2, b"\x1b[2Jgw-a.example\n".to_vec()),
        (2, b"*.example".to_vec()),
        (2, b"".to_vec()),
        (2, vec![b'a'; 8000]),
        (3, b"root@gw-a.example".to_vec()),
        (1, vec![192, 0, 2]),
        (1, vec![192, 0, 2, 1]),
        (1, vec![192, 0, 2, 1, 5]),
        (5, vec![0; 3]),
        (5, vec![0; 15]),
        (5, vec![0; 17]),
        (9, dn[..dn.len() - 1].to_vec()),
        (9, [&dn[..], &[0]].concat()),
        (9, vec![0x30, 0x82]),
        (11, b"gw-a.example".to_vec()),
    ];
    let named = bodies
        .iter()
        .map(|(kind, body)| identified(leaf, *kind, body));
    let types = (0..=255).map(|kind| identified(leaf, kind, b"x"));
    named.chain(types).collect()
}

/// ID payloads too short for their type.
pub(crate) fn stunted(leaf: &pki::Identity) -> Vec<Claim> {
    let bodies: [&[u8]; 4] = [&[], &[2], &[2, 0], &[2, 0, 0]];
    let claims = bodies.map(|id| Claim {
        name: format!("an ID payload of {} bytes", id.len()),
        id: id.to_vec(),
        ..genuine(leaf, ECDSA)
    });
    claims.into()
}

/// Signatures for a key of P-256 that are not exactly right.
pub(crate) fn ecdsa(leaf: &pki::Identity) -> Vec<Claim> {
    // r = s = 0 and r = s = n.
    let order = "FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551";
    let order = data_encoding::HEXUPPER.decode(order.as_bytes()).unwrap();
    let integer = [&[2, 33, 0], &order[..]].concat();
    let out_of_range = [&[0x30, 70], &integer[..], &integer].concat();
    let zero = vec![0x30, 6, 2, 1, 0, 2, 1, 0];
    let good = algorithm(ECDSA);
    let fixed = |name: &str, data: Vec<u8>| {
        let make = move |_: &Session| (SIGNATURE, data.clone());
        Claim::new(name, der(leaf), Box::new(make))
    };
    let under = |name: &str, algorithm: Vec<u8>| altered(leaf, name, ECDSA, algorithm, |_| ());
    let changed =
        |name: &str, change: fn(&mut Vec<u8>)| altered(leaf, name, ECDSA, algorithm(ECDSA), change);
    let method = |name: &str, method, scheme| {
        let key = leaf.private_key();
        let make = move |session: &Session| (method, sign(&key, session, scheme));
        Claim::new(name, der(leaf), Box::new(make))
    };
    let over = |name: &str, octets: fn(&Session) -> Vec<u8>| {
        let key = leaf.private_key();
        let make = move |session: &Session| {
            let signature = key.sign(ECDSA, &octets(session)).unwrap();
            (SIGNATURE, data(&algorithm(ECDSA), &signature))
        };
        Claim::new(name, der(leaf), Box::new(make))
    };
    let secret = |session: &Session| {
        let secret = Secret::from(b"correct horse battery staple".to_vec());
        let proof = session.secret_proof(&secret, &fqdn(A));
        (AuthMethod::SHARED_KEY_MIC, proof)
    };
    vec![
        fixed("nothing", vec![]),
        fixed("an algorithm past the end", vec![255, 0x30]),
        fixed("all zero", data(&good, &[0; 72])),
        fixed("r and s of zero", data(&good, &zero)),
        fixed("r and s of the order", data(&good, &out_of_range)),
        under("no algorithm", vec![]),
        under("an algorithm cut short", good[..good.len() - 1].to_vec()),
        under("bytes behind the algorithm", [&good[..], &[0]].concat()),
        under(
            "another hash than signed",
            algorithm(Scheme::Ecdsa(Hash::Sha384)),
        ),
        under("SHA-1", algorithm(Scheme::Ecdsa(Hash::Sha1))),
        under(
            "an algorithm of other keys",
            algorithm(Scheme::RsaPkcs1(Hash::Sha256)),
        ),
        changed("a byte behind", |signature| signature.push(0)),
        changed("a byte less", |signature| signature.truncate(60)),
        changed("a bit changed", |signature| {
            *signature.last_mut().unwrap() ^= 1;
        }),
        altered(leaf, "r and s raw", Scheme::EcdsaFixed, good, |_| ()),
        method("DER where raw belongs", AuthMethod::ECDSA_256, ECDSA),
        method(
            "the method of another curve",
            AuthMethod::ECDSA_384,
            Scheme::EcdsaFixed,
        ),
        method("the method of RSA", AuthMethod::RSA_SIGNATURE, ECDSA),
        method("the method 0", AuthMethod(0), ECDSA),
        method("a method that is not assigned", AuthMethod(200), ECDSA),
        method("a signature as a MAC", AuthMethod::SHARED_KEY_MIC, ECDSA),
        Claim::new("a secret", der(leaf), Box::new(secret)),
        over("an identity of someone else", |session| {
            session.octets(&fqdn("gw-b.example"))
        }),
        over("its own nonce", |session| {
            [&session.init.request[..], &session.init.ni].concat()
        }),
        over("what the responder signs", |session| {
            [&session.init.response[..], &session.init.ni].concat()
        }),
    ]
}

/// RSASSA-PSS with parameters that nobody uses, and signatures of other lengths.
pub(crate) fn rsa(leaf: &pki::Identity) -> Vec<Claim> {
    let scheme = Scheme::RsaPss(Hash::Sha256);
    let pss = algorithm(scheme);
    let change = |from: &[u8], to: &[u8], last: bool| {
        let mut places = pss.windows(from.len());
        let place = if last {
            places.rposition(|w| w == from)
        } else {
            places.position(|w| w == from)
        };
        let mut id = pss.clone();
        id[place.unwrap()..][..to.len()].copy_from_slice(to);
        id
    };
    // SHA-256 is 2.16.840.1.101.3.4.2.1; the salt's length is the last INTEGER.
    let sha256 = [0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
    let sha384 = [0x86, 0x48, 1, 0x65, 3, 4, 2, 2];
    let no_parameters = vec![0x30, 11, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 1, 10];
    let odd = [
        ("another hash for the mask", change(&sha256, &sha384, true)),
        (
            "another hash for the message",
            change(&sha256, &sha384, false),
        ),
        ("a salt of 20 bytes", change(&[2, 1, 32], &[2, 1, 20], true)),
        (
            "a salt of 127 bytes",
            change(&[2, 1, 32], &[2, 1, 127], true),
        ),
        ("PSS without parameters", no_parameters),
    ];
    let odd = odd.map(|(name, id)| altered(leaf, name, scheme, id, |_| ()));
    let lengths = [0, 1, 128, 255, 257].map(|length| {
        let name = format!("a signature of {length} bytes");
        altered(leaf, &name, scheme, pss.clone(), move |signature| {
            signature.resize(length, 0);
        })
    });
    odd.into_iter().chain(lengths).collect()
}

/// A signature of Ed25519 whose second half is not reduced (RFC 8032 §5.1.7).
pub(crate) fn ed25519(leaf: &pki::Identity) -> Claim {
    // The order of the group, little-endian (RFC 8032 §5.1).
    let order = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";
    let order = data_encoding::HEXLOWER.decode(order.as_bytes()).unwrap();
    let scheme = Scheme::Ed25519;
    altered(leaf, "S + L", scheme, algorithm(scheme), move |signature| {
        let mut carry = 0;
        for (byte, add) in signature[32..].iter_mut().zip(&order) {
            let sum = u16::from(*byte) + u16::from(*add) + u16::from(carry);
            [carry, *byte] = sum.to_be_bytes();
        }
    })
}

/// What is no certificate of A, in whatever encoding; the signature is that of the leaf.
pub(crate) fn encodings(leaf: &pki::Identity) -> Vec<Claim> {
    let good = leaf.certificate.der().to_vec();
    let nested = (0..64_u8).fold(vec![], |inner, _| {
        let length = u8::try_from(inner.len()).unwrap();
        let outer = [&[0x30, length][..], &inner].concat();
        outer.into_iter().take(120).collect()
    });
    let mut indefinite = good.clone();
    indefinite[1] = 0x80;
    let mut longer = vec![0x30, 0x88, 0x80, 0, 0, 0, 0, 0, 0, 0];
    longer.extend(&good[4..]);
    let mut wrapped = vec![0x30, 0x80, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 7, 2];
    wrapped.extend(&good);
    let url = |url: &[u8]| [&[7; 20][..], url].concat();
    let key = leaf.private_key().public().spki().to_vec();
    let odd = [
        ("nothing", X509, vec![]),
        ("64 nested sequences", X509, nested),
        ("an indefinite length", X509, indefinite),
        ("a length of 2^63", X509, longer),
        ("cut short", X509, good[..good.len() - 1].to_vec()),
        ("a byte behind", X509, [&good[..], &[0]].concat()),
        ("15 KiB of nothing", X509, vec![0; 15 * 1024]),
        ("PKCS#7", 1, wrapped),
        (
            "a hash and a URL of this machine",
            12,
            url(b"http://127.0.0.1/gw.der"),
        ),
        (
            "a hash and the URL of a file",
            12,
            url(b"file:///etc/passwd"),
        ),
        ("a list that is none", 7, good.clone()),
        ("an OCSP response that is none", 14, good.clone()),
        ("a raw key that is not known", 15, key),
    ];
    let odd = odd.map(|(name, encoding, data)| (name.to_owned(), encoding, data));
    let others = (0..=255).filter(|encoding| *encoding != X509);
    let others = others.map(|encoding| (format!("encoding {encoding}"), encoding, good.clone()));
    let all = odd.into_iter().chain(others);
    let claims = all.map(|(name, encoding, data)| {
        let sent = vec![(encoding, data)];
        Claim::new(&name, sent, signature(leaf, ECDSA))
    });
    claims.collect()
}

/// Certificates by this authority that nobody should take for those of a gateway.
pub(crate) fn certificates(root: &pki::Identity) -> Vec<Claim> {
    let usage =
        |value: &[u8]| rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 37], value.to_vec());
    let ike = [0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 17];
    let mut unknown = rcgen::CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
    unknown.set_criticality(true);
    let malformed = usage(&[5, 0]);
    let twice = [usage(&ike), usage(&ike)];
    type Change<'a> = &'a dyn Fn(&mut CertificateParams);
    let changes: [(&str, Change<'_>); 11] = [
        ("no name", &|params| params.subject_alt_names.clear()),
        ("a name of another kind", &|params| {
            let address = "192.0.2.1".parse().unwrap();
            params.subject_alt_names = vec![rcgen::SanType::IpAddress(address)];
        }),
        ("an authority as gateway", &|params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }),
        ("expired", &|params| {
            params.not_after = rcgen::date_time_ymd(2025, 2, 1);
        }),
        ("not valid yet", &|params| {
            params.not_before = rcgen::date_time_ymd(2045, 1, 1);
        }),
        ("valid never", &|params| {
            params.not_before = rcgen::date_time_ymd(2045, 1, 1);
            params.not_after = rcgen::date_time_ymd(2025, 1, 1);
        }),
        ("a key for encryption", &|params| {
            params.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
        }),
        ("a key for signing code", &|params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        }),
        ("an unknown critical extension", &|params| {
            params.custom_extensions.push(unknown.clone());
        }),
        ("a malformed extension", &|params| {
            params.custom_extensions.push(malformed.clone());
        }),
        ("an extension that is there twice", &|params| {
            params.custom_extensions.extend(twice.clone());
        }),
    ];
    let changed = changes.into_iter().map(|(name, change)| {
        let mut params = pki::gateway_params(A);
        change(&mut params);
        let leaf = root.sign(Kind::P256, params);
        genuine(&leaf, ECDSA).called(name)
    });
    changed.chain(paths(root)).chain(rsa_keys(root)).collect()
}

/// Paths to this authority that are none, and one that leads in a circle.
fn paths(root: &pki::Identity) -> Vec<Claim> {
    let below = |name: &str, issuers: &[&pki::Identity]| {
        let leaf = issuers[0].gateway(Kind::P256, A);
        let chain = issuers.iter().map(|one| one.certificate.der().to_vec());
        with_certificates(&leaf, name, chain.collect())
    };
    let narrow = root.sign(Kind::P256, pki::authority_params("narrow", Some(0)));
    let too_deep = narrow.intermediate(Kind::P256, "deep");
    let mut params = pki::authority_params("constrained", None);
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("elsewhere".to_owned())],
        excluded_subtrees: Vec::new(),
    });
    let constrained = root.sign(Kind::P256, params);
    let gateway = root.gateway(Kind::P256, "gw-x.example");
    let namesake = pki::root(Kind::P256, "root");
    let (one, two) = (pki::root(Kind::P256, "one"), pki::root(Kind::P256, "two"));
    let crossed =
        |issuer: &pki::Identity, subject: &pki::Identity| issuer.certify(subject).der().to_vec();
    let circle = (0..3).flat_map(|_| [crossed(&two, &one), crossed(&one, &two)]);
    let many = (0..40).map(|place| {
        let other = pki::root(Kind::Ed25519, &format!("root {place}"));
        other.certificate.der().to_vec()
    });
    let stranger = one.gateway(Kind::P256, A);
    vec![
        below("deeper than its authority allows", &[&too_deep, &narrow]),
        below("a name outside the constraints", &[&constrained]),
        below("issued by a gateway", &[&gateway]),
        below("a root with the name of ours", &[&namesake]),
        with_certificates(&stranger, "a circle", circle.collect()),
        with_certificates(
            &stranger,
            "40 authorities without an end of theirs",
            many.collect(),
        ),
    ]
}

/// Public keys of RSA that are none.
fn rsa_keys(root: &pki::Identity) -> Vec<Claim> {
    let modulus = |length: usize, last: u8| {
        let mut n = vec![0xc3; length];
        n[length - 1] = last;
        n
    };
    let keys = [
        ("e = 0", modulus(256, 0xc3), vec![0]),
        ("e = 1", modulus(256, 0xc3), vec![1]),
        ("e = 65536", modulus(256, 0xc3), vec![1, 0, 0]),
        ("e larger than n", modulus(256, 0xc3), vec![0x7f; 300]),
        ("an even n", modulus(256, 0xc2), vec![1, 0, 1]),
        ("n of 64 bits", modulus(8, 0xc3), vec![1, 0, 1]),
        ("n of nothing", vec![0], vec![1, 0, 1]),
        ("n of 12 KiB", modulus(12 * 1024, 0xc3), vec![1, 0, 1]),
    ];
    let claims = keys.into_iter().map(|(name, n, e)| {
        let certificate = root.certify_rsa(pki::gateway_params(A), &n, &e);
        let sent = vec![(X509, certificate.der().to_vec())];
        let algorithm = algorithm(Scheme::RsaPkcs1(Hash::Sha256));
        let length = n.len().min(600);
        let make = move |_: &Session| (SIGNATURE, data(&algorithm, &vec![1; length]));
        Claim::new(&format!("a key with {name}"), sent, Box::new(make))
    });
    claims.collect()
}

/// Certificates that are odd and hold all the same.
pub(crate) fn unusual(root: &pki::Identity) -> Vec<Claim> {
    type Change = fn(&mut CertificateParams);
    let changes: [(&str, Change); 3] = [
        ("without keyUsage", |params| params.key_usages.clear()),
        ("valid until the year 9999", |params| {
            params.not_after = rcgen::date_time_ymd(9999, 12, 31);
        }),
        ("a serial number of 20 bytes", |params| {
            params.serial_number = Some(SerialNumber::from_slice(&[0x7f; 20]));
        }),
    ];
    let claims = changes.map(|(name, change)| {
        let mut params = pki::gateway_params(A);
        change(&mut params);
        genuine(&root.sign(Kind::P256, params), ECDSA).called(name)
    });
    claims.into()
}

fn der(leaf: &pki::Identity) -> Vec<(u8, Vec<u8>)> {
    vec![(X509, leaf.certificate.der().to_vec())]
}

fn algorithm(scheme: Scheme) -> Vec<u8> {
    scheme.to_algorithm_identifier().unwrap()
}

/// A signature over what A has to sign.
fn sign(key: &Arc<PrivateKey>, session: &Session, scheme: Scheme) -> Vec<u8> {
    key.sign(scheme, &session.octets(&fqdn(A))).unwrap()
}

fn signature(leaf: &pki::Identity, scheme: Scheme) -> Make {
    let key = leaf.private_key();
    Box::new(move |session| {
        let signature = sign(&key, session, scheme);
        (SIGNATURE, data(&algorithm(scheme), &signature))
    })
}

/// A signature that is right, changed, under this algorithm.
fn altered(
    leaf: &pki::Identity,
    name: &str,
    scheme: Scheme,
    algorithm: Vec<u8>,
    change: impl Fn(&mut Vec<u8>) + 'static,
) -> Claim {
    let key = leaf.private_key();
    let make = move |session: &Session| {
        let mut signature = sign(&key, session, scheme);
        change(&mut signature);
        (SIGNATURE, data(&algorithm, &signature))
    };
    Claim::new(name, der(leaf), Box::new(make))
}

/// Authentication Data of a Digital Signature (RFC 7427 §3).
fn data(algorithm: &[u8], signature: &[u8]) -> Vec<u8> {
    let length = u8::try_from(algorithm.len()).unwrap();
    [&[length], algorithm, signature].concat()
}

pub(crate) const A: &str = "gw-a.example";
pub(crate) const ECDSA: Scheme = Scheme::Ecdsa(Hash::Sha256);
const SIGNATURE: AuthMethod = AuthMethod::DIGITAL_SIGNATURE;
const X509: u8 = 4;
