//! Name constraints (RFC 5280 §4.2.1.10), of the authority that is trusted and of one below it.

use rcgen::{
    CertificateParams, CidrSubnet, CustomExtension, DistinguishedName, DnType, GeneralSubtree,
    NameConstraints, SanType,
};

use crate::certificates::Case;
use crate::pki::{self, Kind};

/// Where the names of a certificate have to be, or must not be.
#[derive(Clone)]
enum Constraint {
    Permitted(GeneralSubtree),
    Excluded(GeneralSubtree),
    /// Hosts of URIs, as DER: `[0]` for permitted ones, `[1]` for excluded ones.
    Uri(u8),
}

use Constraint::{Excluded, Permitted, Uri};

impl Constraint {
    fn add(self, params: &mut CertificateParams) {
        let (permitted, excluded) = match self {
            Permitted(tree) => (vec![tree], Vec::new()),
            Excluded(tree) => (Vec::new(), vec![tree]),
            Uri(tag) => {
                let mut der = *b"\x30\x0e\xa0\x0c\x30\x0a\x86\x08.example";
                der[2] |= tag;
                let oid = [2, 5, 29, 30];
                let mut extension = CustomExtension::from_oid_content(&oid, der.to_vec());
                extension.set_criticality(true);
                params.custom_extensions.push(extension);
                return;
            }
        };
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: permitted,
            excluded_subtrees: excluded,
        });
    }
}

/// A certificate with these alternative names: one directly below the authority with the
/// constraint, which is trusted, and one with two more authorities between them.
fn cases(constraint: &Constraint, names: &[SanType]) -> [Case; 2] {
    let mut params = pki::authority_params("constrained", None);
    constraint.clone().add(&mut params);
    let mut gateway = pki::gateway_params("gw-a.example");
    gateway.subject_alt_names = names.to_vec();

    let mut anchor = pki::root(Kind::P256, "constrained");
    anchor.certificate = params.self_signed(&anchor.key).unwrap();
    let direct = Case::new(anchor.sign(Kind::P256, gateway.clone()), &[], &anchor);
    let root = pki::root(Kind::P256, "root");
    let middle = root.sign(Kind::P256, params);
    let last = middle.intermediate(Kind::P256, "last");
    let distant = Case::new(last.sign(Kind::P256, gateway), &[&last, &middle], &root);
    [direct, distant].map(|case| Case {
        id: Some("C=CH, O=Example, CN=gw-a.example".to_owned()),
        pattern: Some("%any".to_owned()),
        ..case
    })
}

#[track_caller]
fn accepted(constraint: &Constraint, names: &[SanType]) {
    for case in cases(constraint, names) {
        case.is_accepted();
    }
}

#[track_caller]
fn refused(constraint: &Constraint, names: &[SanType]) {
    for case in cases(constraint, names) {
        case.is_refused("the name constraints of an authority do not allow it");
    }
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn ip(address: &str) -> SanType {
    SanType::IpAddress(address.parse().unwrap())
}

fn mail(address: &str) -> SanType {
    SanType::Rfc822Name(address.try_into().unwrap())
}

fn uri(uri: &str) -> SanType {
    SanType::URI(uri.try_into().unwrap())
}

#[test]
fn domain_names_have_to_be_where_authorities_allow_them() {
    let tree = |name: &str| GeneralSubtree::DnsName(name.to_owned());
    let name = &[dns("gw-a.example")];
    accepted(&Permitted(tree("example")), name);
    accepted(&Permitted(tree("GW-A.example")), name);
    refused(&Permitted(tree("elsewhere")), name);
    refused(&Permitted(tree("a.example")), name);
    refused(&Excluded(tree("example")), name);
    accepted(&Excluded(tree("elsewhere")), name);
    let two = &[dns("gw-a.example"), dns("gw-a.elsewhere")];
    refused(&Permitted(tree("example")), two);
    refused(&Excluded(tree("elsewhere")), two);
    // Names of other types are not bound, and a certificate need not have one of this.
    accepted(&Permitted(tree("elsewhere")), &[ip("192.0.2.1")]);
    accepted(&Permitted(tree("elsewhere")), &[]);
}

/// Otherwise a certificate without a name that is bound would get around the constraint.
#[test]
fn the_common_name_stands_for_no_domain_name() {
    let elsewhere = Permitted(GeneralSubtree::DnsName("elsewhere".to_owned()));
    for mut case in cases(&elsewhere, &[]) {
        case.id = Some("gw-a.example".to_owned());
        case.is_refused("does not name it");
    }
}

#[test]
fn addresses_have_to_be_where_authorities_allow_them() {
    let v4 = || GeneralSubtree::IpAddress(CidrSubnet::V4([192, 0, 2, 0], [255, 255, 255, 0]));
    let prefix = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mask = [255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let v6 = || GeneralSubtree::IpAddress(CidrSubnet::V6(prefix, mask));
    for (tree, inside, outside) in [
        (v4(), "192.0.2.1", "192.0.3.1"),
        (v6(), "2001:db8::1", "2001:db9::1"),
    ] {
        accepted(&Permitted(tree.clone()), &[ip(inside)]);
        refused(&Permitted(tree.clone()), &[ip(outside)]);
        refused(&Permitted(tree.clone()), &[ip(inside), ip(outside)]);
        refused(&Excluded(tree.clone()), &[ip(inside)]);
        accepted(&Excluded(tree), &[ip(outside)]);
    }
    refused(&Permitted(v4()), &[ip("2001:db8::1")]);
    accepted(&Permitted(v4()), &[dns("gw-a.example")]);
}

/// Nobody looks at what they say, so whatever they bind is refused.
#[test]
fn constraints_on_mail_addresses_and_uris_refuse_every_name_of_that_type() {
    let tree = || GeneralSubtree::Rfc822Name("gw.example".to_owned());
    for constraint in [Permitted(tree()), Excluded(tree())] {
        refused(&constraint, &[mail("a@gw.example")]);
        refused(&constraint, &[mail("a@elsewhere")]);
        accepted(&constraint, &[dns("gw-a.example")]);
    }
    for constraint in [Uri(0), Uri(1)] {
        refused(&constraint, &[uri("http://gw.example/")]);
        refused(&constraint, &[uri("http://elsewhere/")]);
        accepted(&constraint, &[dns("gw-a.example")]);
    }
}

/// Every certificate has a subject, so that nothing is accepted below such an authority.
#[test]
fn constraints_on_distinguished_names_refuse_every_certificate() {
    for country in ["CH", "DE"] {
        let mut name = DistinguishedName::new();
        name.push(DnType::CountryName, country);
        let tree = GeneralSubtree::DirectoryName(name);
        refused(&Permitted(tree.clone()), &[]);
        refused(&Excluded(tree), &[]);
    }
}
