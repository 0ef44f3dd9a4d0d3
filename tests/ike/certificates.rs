//! X.509: chains, names, validity, constraints, and certificates that are none.

use std::sync::Arc;
use std::time::Duration;

use lockgate::crypto::signature::Hash;
use lockgate::crypto::x509::{Certificate, DistinguishedName, UnixTime};
use lockgate::ike::{
    Authority, Identity, KeyClass, LocalKey, LocalMethod, RemoteMethod, Revocation, SchemePolicy,
    SendCert, Trust,
};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
};

use crate::config::{NOW, Setup, Side};
use crate::pair::{Pair, initiate};
use crate::pki::{self, Kind};

/// A's certificate chain, and what B trusts; B proves itself with a secret.
pub(crate) struct Case {
    pub(crate) leaf: pki::Identity,
    /// Sent behind the leaf.
    pub(crate) chain: Vec<Arc<Certificate>>,
    pub(crate) authorities: Vec<Authority>,
    pub(crate) revocation: Revocation,
    pub(crate) trust: Trust,
    pub(crate) time: u64,
    /// A's identity.
    pub(crate) id: Option<String>,
    /// What B accepts.
    pub(crate) pattern: Option<String>,
}

impl Case {
    pub(crate) fn new(leaf: pki::Identity, chain: &[&pki::Identity], root: &pki::Identity) -> Self {
        Self {
            leaf,
            chain: chain.iter().map(|issuer| issuer.certificate()).collect(),
            authorities: vec![authority(root)],
            revocation: Revocation::Relaxed,
            trust: Trust::default(),
            time: NOW,
            id: None,
            pattern: None,
        }
    }

    pub(crate) fn pair(&self) -> Pair {
        Pair::with(|side, setup| self.set_up(side, setup))
    }

    pub(crate) fn set_up(&self, side: Side, setup: &mut Setup) {
        setup.time_of_day = UnixTime::since_unix_epoch(Duration::from_secs(self.time));
        if side == Side::A {
            let chain = [self.leaf.certificate()].into_iter();
            setup.connection.local.method = LocalMethod::Signature {
                keys: vec![LocalKey {
                    key: self.leaf.private_key(),
                    chain: chain.chain(self.chain.iter().cloned()).collect(),
                }],
                schemes: SchemePolicy::default(),
                send_cert: SendCert::IfAsked,
            };
            if let Some(id) = &self.id {
                setup.connection.local.id = Some(id.parse().unwrap());
            }
            return;
        }
        setup.authorities = self.authorities.clone();
        let anchors = self.authorities.iter();
        let anchors = anchors.map(|authority| Arc::clone(&authority.certificate));
        setup.connection.remote.method = RemoteMethod::Signature(Arc::new(Trust {
            authorities: anchors.collect(),
            revocation: self.revocation,
            send_certreq: true,
            ..self.trust.clone()
        }));
        if let Some(pattern) = &self.pattern {
            setup.connection.remote.id = pattern.parse().unwrap();
        }
    }

    #[track_caller]
    pub(crate) fn is_accepted(&self) -> Pair {
        let mut pair = self.pair();
        let id = pair.command(Side::A, initiate("lan"));
        pair.settle();
        let result = pair.result(Side::A, id);
        assert!(matches!(result, Some(Ok(_))), "{result:?}");
        pair.assert_tunnels(1);
        pair
    }

    /// B refuses with AUTHENTICATION_FAILED, keeps nothing and says why in its log.
    #[track_caller]
    pub(crate) fn is_refused(&self, why: &str) {
        let mut pair = self.pair();
        let id = pair.command(Side::A, initiate("lan"));
        pair.settle();
        assert!(pair.failure(Side::A, id).contains("AUTHENTICATION_FAILED"));
        let logs: Vec<_> = pair.host(Side::B).logs().map(str::to_owned).collect();
        assert!(logs.iter().any(|line| line.contains(why)), "{logs:#?}");
        pair.run_for(Duration::from_secs(60));
        pair.assert_nothing_left();
    }
}

pub(crate) fn authority(identity: &pki::Identity) -> Authority {
    Authority {
        name: "test".into(),
        certificate: identity.certificate(),
        crl_uris: Vec::new(),
        ocsp_uris: Vec::new(),
        crls: Vec::new(),
    }
}

fn changed(change: impl FnOnce(&mut CertificateParams)) -> Case {
    let root = pki::root(Kind::P256, "root");
    let mut params = pki::gateway_params("gw-a.example");
    change(&mut params);
    Case::new(root.sign(Kind::P256, params), &[], &root)
}

#[test]
fn a_chain_with_an_intermediate_authority_is_accepted_for_every_kind_of_key() {
    for kind in Kind::ALL {
        let root = pki::root(kind, "root");
        let middle = root.intermediate(kind, "middle");
        let case = Case::new(middle.gateway(kind, "gw-a.example"), &[&middle], &root);
        let mut pair = case.is_accepted();
        assert!(
            pair.host(Side::B)
                .logged("C=CH, O=Example, CN=gw-a.example"),
            "{kind:?}"
        );
    }
}

#[test]
fn a_chain_with_a_gap_or_to_another_root_is_refused() {
    let (root, other) = (pki::root(Kind::P256, "root"), pki::root(Kind::P256, "root"));
    let middle = root.intermediate(Kind::P256, "middle");
    let leaf = || middle.gateway(Kind::P256, "gw-a.example");
    Case::new(leaf(), &[], &root).is_refused("no path to a trusted authority");
    Case::new(leaf(), &[&middle], &other).is_refused("");
    let mut known = Case::new(leaf(), &[], &root);
    known.trust.send_certreq = true;
    known.authorities.push(authority(&middle));
    known.is_accepted();
}

#[test]
fn certificates_outside_their_dates_are_refused() {
    let root = || pki::root(Kind::P256, "root");
    let at = |time| {
        let root = root();
        let mut case = Case::new(root.gateway(Kind::P256, "gw-a.example"), &[], &root);
        case.time = time;
        case
    };
    at(NOW).is_accepted();
    at(0).is_refused(""); // the clock was never set
    at(1_700_000_000).is_refused("");
    at(2_400_000_000).is_refused("");
    let dated = |from, until| {
        changed(|params| {
            params.not_before = rcgen::date_time_ymd(from, 1, 1);
            params.not_after = rcgen::date_time_ymd(until, 1, 1);
        })
    };
    dated(2020, 2024).is_refused("expired");
    dated(2040, 2045).is_refused("not valid yet");
    dated(2000, 9999).is_accepted();
}

#[test]
fn an_authority_that_may_not_issue_further_authorities_is_held_to_it() {
    let root = pki::root(Kind::P256, "root");
    let narrow = root.sign(Kind::P256, pki::authority_params("narrow", Some(0)));
    let below = narrow.intermediate(Kind::P256, "below");
    let good = Case::new(
        narrow.gateway(Kind::P256, "gw-a.example"),
        &[&narrow],
        &root,
    );
    good.is_accepted();
    let chain = [&below, &narrow];
    Case::new(below.gateway(Kind::P256, "gw-a.example"), &chain, &root).is_refused("");
    // The same limit on the trusted authority itself.
    let anchored = [&below];
    Case::new(
        below.gateway(Kind::P256, "gw-a.example"),
        &anchored,
        &narrow,
    )
    .is_refused("longer than its authority allows");
}

#[test]
fn a_gateway_cannot_issue_certificates_and_an_authority_is_no_gateway() {
    let root = pki::root(Kind::P256, "root");
    let gateway = root.gateway(Kind::P256, "gw-x.example");
    let forged = gateway.gateway(Kind::P256, "gw-a.example");
    Case::new(forged, &[&gateway], &root).is_refused("");
    changed(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))
        .is_refused("the certificate of an authority");
}

#[test]
fn key_usage_and_extended_key_usage_have_to_allow_authentication() {
    changed(|params| params.key_usages = vec![KeyUsagePurpose::KeyEncipherment])
        .is_refused("keyUsage allows no signatures");
    changed(|params| params.key_usages = Vec::new()).is_accepted();
    let purposes = |purposes: &[ExtendedKeyUsagePurpose]| {
        changed(|params| params.extended_key_usages = purposes.to_vec())
    };
    purposes(&[ExtendedKeyUsagePurpose::CodeSigning]).is_refused("extendedKeyUsage is not for IKE");
    purposes(&[ExtendedKeyUsagePurpose::ServerAuth]).is_accepted();
    purposes(&[ExtendedKeyUsagePurpose::Any]).is_accepted();
    let ike = ExtendedKeyUsagePurpose::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 17]);
    purposes(&[ExtendedKeyUsagePurpose::CodeSigning, ike]).is_accepted();
}

#[test]
fn an_identity_is_only_believed_if_the_certificate_names_it() {
    let claims = |id: &str, pattern: &str, names: Vec<SanType>| {
        let mut case = changed(|params| params.subject_alt_names = names);
        (case.id, case.pattern) = (Some(id.to_owned()), Some(pattern.to_owned()));
        case
    };
    let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
    let mail = |name: &str| SanType::Rfc822Name(name.try_into().unwrap());
    let ip = |addr: &str| SanType::IpAddress(addr.parse().unwrap());
    claims("gw-a.example", "%any", vec![dns("GW-A.example")]).is_accepted();
    claims("gw-b.example", "%any", vec![dns("gw-a.example")]).is_refused("does not name it");
    claims("a@gw.example", "*@gw.example", vec![mail("a@gw.example")]).is_accepted();
    claims("a@gw.example", "%any", vec![dns("a.gw.example")]).is_refused("does not name it");
    claims("192.0.2.1", "192.0.2.1", vec![ip("192.0.2.1")]).is_accepted();
    claims("192.0.2.1", "%any", vec![ip("192.0.2.9")]).is_refused("does not name it");
    claims("2001:db8::1", "%any", vec![ip("2001:db8::1")]).is_accepted();
    claims("@#0102", "%any", vec![dns("gw-a.example")]).is_refused("does not name it");
    let subject = "CN=gw-a.example, C=CH, O=example";
    claims(subject, "%any", Vec::new()).is_accepted();
    claims(subject, "C=CH, O=*, CN=*", Vec::new()).is_accepted();
    claims("C=CH, O=Example, CN=other", "%any", Vec::new()).is_refused("does not name it");
    claims(subject, "C=DE, O=*, CN=*", Vec::new()).is_refused("no connection accepts");
}

#[test]
fn connections_are_told_apart_by_the_identity_and_the_closest_one_is_taken() {
    let patterns = [
        ("any", "%any"),
        ("domain", "*.example"),
        ("fields", "CN=*, O=Example, C=CH"),
        ("name", "C=CH, O=Example, CN=gw-a.example"),
    ];
    for (cn, id, expected) in [
        ("gw-a.example", None, "name"),
        ("gw-x.example", None, "fields"),
        ("gw-a.example", Some("gw-a.example"), "domain"),
        ("gw-a.other", Some("gw-a.other"), "any"),
    ] {
        let root = pki::root(Kind::P256, "root");
        let mut case = Case::new(root.gateway(Kind::P256, cn), &[], &root);
        case.id = Some(id.map_or_else(|| format!("C=CH, O=Example, CN={cn}"), str::to_owned));
        let mut pair = Pair::with(|side, setup| {
            case.set_up(side, setup);
            if side == Side::B {
                let mut named = patterns.map(|(name, pattern)| {
                    let mut connection = setup.connection.clone();
                    connection.name = name.into();
                    connection.remote.id = pattern.parse().unwrap();
                    connection
                });
                named.reverse();
                setup.more = named.to_vec();
                setup.connection.remote.id = "nobody.example".parse().unwrap();
            }
        });
        pair.command(Side::A, initiate("lan"));
        pair.settle();
        assert_eq!(pair.host(Side::B).ike_sas()[0].name, expected, "{cn}");
    }
}

#[test]
fn without_a_configured_identity_ours_is_the_subject_of_our_certificate() {
    let case = changed(|_| {});
    let mut pair = Pair::with(|side, setup| {
        case.set_up(side, setup);
        match side {
            Side::A => setup.connection.local.id = None,
            Side::B => setup.connection.remote.id = "C=CH, O=Example, CN=*".parse().unwrap(),
        }
    });
    let id = pair.command(Side::A, initiate("lan"));
    pair.settle();
    assert!(matches!(pair.result(Side::A, id), Some(Ok(_))));
    let name: DistinguishedName = "C=CH, O=Example, CN=gw-a.example".parse().unwrap();
    assert_eq!(pair.ike_sa(Side::B).remote_id, Some(Identity::Dn(name)));
}

#[test]
fn a_certificate_of_the_peer_may_be_trusted_by_itself() {
    let leaf = pki::root(Kind::P256, "self").gateway(Kind::P256, "gw-a.example");
    let mut case = Case::new(leaf, &[], &pki::root(Kind::P256, "root"));
    case.authorities.clear();
    case.is_refused("is not trusted");
    case.trust.certificates = vec![case.leaf.certificate()];
    case.is_accepted();
}

/// strongSwan applies the policies of `remote` to them as to others.
#[test]
fn a_certificate_that_is_trusted_by_itself_may_be_revoked_by_its_issuer() {
    let root = pki::root(Kind::P256, "root");
    let mut case = Case::new(root.gateway(Kind::P256, "gw-a.example"), &[], &root);
    case.trust.certificates = vec![case.leaf.certificate()];
    case.is_accepted();
    case.authorities[0].crls = vec![root.list(&[&case.leaf])];
    case.is_refused("was revoked");
    case.authorities[0].crls = vec![root.list(&[])];
    case.revocation = Revocation::Strict;
    case.is_accepted();
    case.authorities.clear();
    case.is_refused("is not known");
    case.revocation = Revocation::IfUri;
    case.is_accepted();
    let named = pki::with_crl_uri(pki::gateway_params("gw-a.example"), "http://crl.example");
    case.leaf = root.sign(Kind::P256, named);
    case.trust.certificates = vec![case.leaf.certificate()];
    case.is_refused("is not known");
    case.revocation = Revocation::Relaxed;
    case.is_accepted();
}

#[test]
fn a_certificate_that_is_trusted_by_itself_needs_the_policy_that_is_asked_for() {
    let mut case = changed(|params| add_policies(params, &[POLICY]));
    case.trust.certificates = vec![case.leaf.certificate()];
    case.trust.policies = vec!["1.3.6.1.4.1.99999.1".into()];
    case.is_accepted();
    case.trust.policies = vec!["1.3.6.1.4.1.99999.2".into()];
    case.is_refused("none of the policies");
}

/// A path from a key of one kind over an authority with a P-256 key.
fn over_p256(schemes: SchemePolicy) -> Case {
    let root = pki::root(Kind::P384, "root");
    let middle = root.intermediate(Kind::P256, "middle");
    let leaf = middle.gateway(Kind::P384, "gw-a.example");
    let mut case = Case::new(leaf, &[&middle], &root);
    case.trust.schemes = schemes;
    case
}

#[test]
fn a_least_strength_and_hashes_bind_the_authorities_too() {
    let strong = |least| SchemePolicy {
        keys: vec![(KeyClass::Ecdsa, least)],
        ..SchemePolicy::default()
    };
    over_p256(strong(256)).is_accepted();
    over_p256(strong(384)).is_refused("is weaker than");
    let hashes = |hashes: &[Hash]| SchemePolicy {
        hashes: hashes.to_vec(),
        ..SchemePolicy::default()
    };
    over_p256(hashes(&[Hash::Sha256, Hash::Sha384])).is_accepted();
    over_p256(hashes(&[Hash::Sha384])).is_refused("hash");
    let only_ike = |schemes| SchemePolicy {
        only_ike: true,
        ..schemes
    };
    over_p256(only_ike(strong(384))).is_accepted();
    over_p256(only_ike(hashes(&[Hash::Sha384]))).is_accepted();
}

#[test]
fn a_policy_counts_only_if_every_authority_may_issue_under_it() {
    let with = |policies: &[&[u8]]| {
        let root = pki::root(Kind::P256, "root");
        let mut params = pki::authority_params("middle", None);
        if !policies.is_empty() {
            add_policies(&mut params, policies);
        }
        let middle = root.sign(Kind::P256, params);
        let mut leaf = pki::gateway_params("gw-a.example");
        add_policies(&mut leaf, &[POLICY]);
        let mut case = Case::new(middle.sign(Kind::P256, leaf), &[&middle], &root);
        case.trust.policies = vec!["1.3.6.1.4.1.99999.1".into()];
        case
    };
    let other = &[0x2b, 6, 1, 4, 1, 0x86, 0x8d, 0x1f, 2];
    let any = &[0x55, 0x1d, 0x20, 0];
    with(&[other, POLICY]).is_accepted();
    with(&[any]).is_accepted();
    with(&[other]).is_refused("none of the policies");
    with(&[]).is_refused("none of the policies");
}

/// 1.3.6.1.4.1.99999.1
const POLICY: &[u8] = &[0x2b, 6, 1, 4, 1, 0x86, 0x8d, 0x1f, 1];

/// certificatePolicies (RFC 5280 §4.2.1.4).
fn add_policies(params: &mut CertificateParams, policies: &[&[u8]]) {
    let piece = |tag: u8, content: &[u8]| {
        let length = u8::try_from(content.len()).unwrap();
        [&[tag, length], content].concat()
    };
    let policies = policies.iter().map(|oid| piece(0x30, &piece(6, oid)));
    let value = piece(0x30, &policies.collect::<Vec<_>>().concat());
    let extension = rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 32], value);
    params.custom_extensions.push(extension);
}

/// Of several certificates of ours, the peer accepts only one that names who we say we are.
#[test]
fn the_key_that_signs_is_certified_for_the_identity_that_is_sent() {
    for signer in Side::BOTH {
        let root = pki::root(Kind::P256, "root");
        let named = |name: &str| {
            let identity = root.gateway(Kind::P256, name);
            LocalKey {
                key: identity.private_key(),
                chain: vec![identity.certificate()],
            }
        };
        let names = ["other.example", signer.identity(), "third.example"];
        let mut pair = Pair::with(|side, setup| {
            if side == signer {
                setup.connection.local.method = LocalMethod::Signature {
                    keys: names.map(named).to_vec(),
                    schemes: SchemePolicy::default(),
                    send_cert: SendCert::IfAsked,
                };
                return;
            }
            setup.authorities = vec![authority(&root)];
            setup.connection.remote.method = RemoteMethod::Signature(Arc::new(Trust {
                authorities: vec![root.certificate()],
                send_certreq: true,
                ..Trust::default()
            }));
        });
        let id = pair.command(Side::A, initiate("lan"));
        pair.settle();
        let result = pair.result(Side::A, id);
        assert!(matches!(result, Some(Ok(_))), "{signer:?}: {result:?}");
    }
}

#[test]
fn a_policy_that_is_asked_for_has_to_be_in_the_certificate() {
    let mut case = changed(|params| add_policies(params, &[POLICY]));
    case.trust.policies = vec!["1.3.6.1.4.1.99999.1".into()];
    case.is_accepted();
    case.trust.policies = vec!["1.3.6.1.4.1.99999.2".into()];
    case.is_refused("none of the policies");
}

#[test]
fn an_unknown_critical_extension_is_refused() {
    changed(|params| {
        let mut extension = rcgen::CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions.push(extension);
    })
    .is_refused("");
}
