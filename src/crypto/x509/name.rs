//! Distinguished names: reading, writing and comparing them.

use std::fmt;
use std::str::FromStr;

use der::asn1::{Any, ObjectIdentifier};
use der::oid::db::DB;
use der::{Decode, Encode, Tag, Tagged};
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::name::{RdnSequence, RelativeDistinguishedName};

/// A name of X.500. Two are equal if they have the same attributes, in whatever order, with values
/// that differ at most in case, white space and string type (RFC 5280 §7.1).
#[derive(Clone)]
pub struct DistinguishedName {
    der: Box<[u8]>,
    /// As in the name, for people.
    attributes: Vec<Attribute>,
    /// Sorted and folded, for comparison.
    folded: Vec<(ObjectIdentifier, String)>,
}

#[derive(Clone)]
struct Attribute {
    oid: ObjectIdentifier,
    value: String,
}

/// A name whose fields may be `*`, which stands for any value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnPattern(DistinguishedName);

/// Text that is not a distinguished name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a distinguished name, which is written as in C=CH, O=Example, CN=gw")]
pub struct DnSyntax;

impl DistinguishedName {
    /// Reads the DER of a Name.
    pub fn from_der(der: &[u8]) -> Option<Self> {
        let name = RdnSequence::from_der(der).ok()?;
        Self::new(&name, der)
    }

    fn new(name: &RdnSequence, der: &[u8]) -> Option<Self> {
        let attributes: Vec<_> = name
            .iter()
            .flat_map(RelativeDistinguishedName::iter)
            .map(Attribute::new)
            .collect();
        if attributes.len() > MOST_ATTRIBUTES {
            return None;
        }
        let mut folded: Vec<_> = attributes
            .iter()
            .map(|attribute| (attribute.oid, fold(&attribute.value)))
            .collect();
        folded.sort();
        Some(Self {
            der: der.into(),
            attributes,
            folded,
        })
    }

    /// The name as DER, byte for byte as it was read.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Whether it has no attribute at all.
    pub fn is_empty(&self) -> bool {
        self.attributes.is_empty()
    }

    /// Whether a field is `*`.
    pub fn has_wildcard(&self) -> bool {
        self.folded.iter().any(|(_, value)| value == "*")
    }
}

impl DnPattern {
    /// A name that may have wildcards.
    pub fn new(name: DistinguishedName) -> Self {
        Self(name)
    }

    /// The pattern as a name.
    pub fn name(&self) -> &DistinguishedName {
        &self.0
    }

    /// How many fields a name shares with the pattern, plus one; 0 if it does not fit. Every field
    /// of one must have its own field in the other.
    pub fn rank(&self, name: &DistinguishedName) -> usize {
        if self.0.folded.len() != name.folded.len() {
            return 0;
        }
        let is_wild = |(_, value): &&(ObjectIdentifier, String)| value == "*";
        let (wild, exact): (Vec<_>, Vec<_>) = self.0.folded.iter().partition(is_wild);
        let mut left: Vec<_> = name.folded.iter().collect();
        for field in &exact {
            let Some(place) = left.iter().position(|other| other == field) else {
                return 0;
            };
            left.swap_remove(place);
        }
        for (oid, _) in wild {
            let Some(place) = left.iter().position(|(other, _)| other == oid) else {
                return 0;
            };
            left.swap_remove(place);
        }
        1 + exact.len()
    }
}

impl Attribute {
    fn new(attribute: &AttributeTypeAndValue) -> Self {
        Self {
            oid: attribute.oid,
            value: text(&attribute.value),
        }
    }
}

/// The value as text; what is no string is shown as its bytes.
fn text(value: &Any) -> String {
    let bytes = value.value();
    let decoded = match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString => {
            String::from_utf8(bytes.to_vec()).ok()
        }
        Tag::TeletexString => Some(bytes.iter().copied().map(char::from).collect()),
        Tag::BmpString => {
            let (pairs, _) = bytes.as_chunks::<2>();
            let units: Vec<u16> = pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect();
            String::from_utf16(&units).ok()
        }
        _ => None,
    };
    decoded.unwrap_or_else(|| format!("#{}", data_encoding::HEXLOWER.encode(bytes)))
}

/// Case and white space do not count.
fn fold(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().collect();
    words.join(" ").to_lowercase()
}

impl PartialEq for DistinguishedName {
    fn eq(&self, other: &Self) -> bool {
        self.folded == other.folded
    }
}

impl Eq for DistinguishedName {}

impl std::hash::Hash for DistinguishedName {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.folded.hash(state);
    }
}

impl PartialOrd for DistinguishedName {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for DistinguishedName {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.folded.cmp(&other.folded)
    }
}

/// As strongSwan prints it: `C=CH, O=Example, CN=gw`, in the order of the name.
impl fmt::Display for DistinguishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, attribute) in self.attributes.iter().enumerate() {
            if place > 0 {
                f.write_str(", ")?;
            }
            match short_name(attribute.oid) {
                Some(name) => write!(f, "{name}=")?,
                None => write!(f, "{}=", attribute.oid)?,
            }
            for character in attribute.value.chars().take(MOST_SHOWN) {
                match character {
                    ',' | '\\' | '+' => write!(f, "\\{character}")?,
                    _ if character.is_control() => write!(f, "\\x{:02x}", u32::from(character))?,
                    _ => write!(f, "{character}")?,
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for DistinguishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

fn short_name(oid: ObjectIdentifier) -> Option<&'static str> {
    if oid == EMAIL {
        return Some("E");
    }
    let known = [
        "CN", "C", "O", "OU", "L", "ST", "DC", "UID", "STREET", "SN", "GN",
    ];
    known.into_iter().find(|name| oid_of(name) == Some(oid))
}

fn oid_of(name: &str) -> Option<ObjectIdentifier> {
    let alias = match name.to_ascii_uppercase().as_str() {
        "E" | "EMAIL" | "EMAILADDRESS" => return Some(EMAIL),
        "S" => "ST".to_owned(),
        "G" => "GN".to_owned(),
        other => other.to_owned(),
    };
    DB.by_name(&alias).or_else(|| DB.by_name(name)).copied()
}

/// RFC 4514's fields in the order of the name, separated by commas, or each led by a slash.
impl FromStr for DistinguishedName {
    type Err = DnSyntax;

    fn from_str(text: &str) -> Result<Self, DnSyntax> {
        let (text, separator) = match text.strip_prefix('/') {
            Some(rest) => (rest, '/'),
            None => (text, ','),
        };
        let mut name = RdnSequence::default();
        for field in split(text, separator) {
            let (key, value) = field.trim().split_once('=').ok_or(DnSyntax)?;
            let key = key.trim();
            let oid = match oid_of(key) {
                Some(oid) => oid,
                None => ObjectIdentifier::new(key).map_err(|_| DnSyntax)?,
            };
            let value = value.trim();
            // A country code with a wildcard is no PrintableString, but never leaves this process.
            let field = if value == "*" {
                let value = Any::new(Tag::Utf8String, value.as_bytes()).map_err(|_| DnSyntax)?;
                let mut set = der::asn1::SetOfVec::new();
                set.insert(AttributeTypeAndValue { oid, value })
                    .map_err(|_| DnSyntax)?;
                RelativeDistinguishedName::from(set)
            } else {
                let field = format!("{oid}={value}");
                field.parse().map_err(|_| DnSyntax)?
            };
            name.push(field);
        }
        let der = name.to_der().map_err(|_| DnSyntax)?;
        let name = Self::new(&name, &der).ok_or(DnSyntax)?;
        if name.is_empty() {
            return Err(DnSyntax);
        }
        Ok(name)
    }
}

/// Splits at separators that no backslash stands before.
fn split(text: &str, separator: char) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, character) in text.char_indices() {
        if character == separator && !escaped {
            parts.extend(text.get(start..at));
            start = at + separator.len_utf8();
        }
        escaped = character == '\\' && !escaped;
    }
    parts.extend(text.get(start..));
    parts
}

const EMAIL: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.1");
/// More would make comparisons slow, and no name of use has them.
const MOST_ATTRIBUTES: usize = 64;
const MOST_SHOWN: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DistinguishedName {
        text.parse().expect("a name")
    }

    #[test]
    fn a_name_is_read_and_shown_in_its_own_order() {
        let gw = name("C=CH, O=Example\\, Inc, CN=gw");
        assert_eq!(gw.to_string(), "C=CH, O=Example\\, Inc, CN=gw");
        assert_eq!(
            name("/C=CH/O=Example, Inc/CN=gw".replace(", ", "\\, ").as_str()),
            gw
        );
        assert_eq!(
            name("E=a@b.example, CN=x").to_string(),
            "E=a@b.example, CN=x"
        );
        assert_eq!(DistinguishedName::from_der(gw.der()), Some(gw));
    }

    #[test]
    fn order_case_and_white_space_do_not_tell_names_apart() {
        assert_eq!(name("CN=Gate  One, C=ch"), name("C=CH, CN=gate one"));
        assert_ne!(name("CN=a, C=CH"), name("CN=b, C=CH"));
        assert_ne!(name("CN=a, CN=a"), name("CN=a"));
        assert_ne!(name("CN=a, OU=b"), name("CN=b, OU=a"));
    }

    #[test]
    fn a_wildcard_stands_for_one_field_of_its_kind_and_ranks_below_a_value() {
        let pattern = |text| DnPattern::new(name(text));
        let gw = name("C=CH, O=Example, OU=a, OU=b, CN=gw");
        assert!(pattern("CN=*, C=CH, OU=*, OU=b, O=Example").rank(&gw) > 0);
        assert_eq!(pattern("CN=*, C=CH, OU=*, OU=c, O=Example").rank(&gw), 0);
        assert_eq!(pattern("CN=*").rank(&gw), 0);
        assert_eq!(pattern("C=*, O=*, OU=*, CN=*, L=*").rank(&gw), 0);
        let (loose, tight) = ("C=*, O=*, OU=*, OU=*, CN=*", "C=*, O=*, OU=*, OU=*, CN=gw");
        assert!(pattern(tight).rank(&gw) > pattern(loose).rank(&gw));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["", "gw", "CN", "NOSUCHFIELD=x", "CN=a,,O=b", ","] {
            assert!(text.parse::<DistinguishedName>().is_err(), "{text}");
        }
        assert_eq!(DistinguishedName::from_der(&[0x30, 0x80, 0, 0]), None);
        assert_eq!(DistinguishedName::from_der(&[0x30, 5, 1]), None);
    }

    #[test]
    fn control_characters_of_a_name_do_not_reach_a_log() {
        let shown = name("CN=a\\0a\\1b[31m").to_string();
        assert_eq!(shown, "CN=a\\x0a\\x1b[31m");
    }
}
