//! The value syntax of swanctl.conf. Each parser takes trimmed text and says what is allowed.

use super::keys;
use crate::ike::AddressPattern;
use ipnet::IpNet;
use std::{net::IpAddr, ops::RangeInclusive, str::FromStr, time::Duration};

/// yes, true, enabled, 1 and their opposites.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" | "enabled" | "1" => Ok(true),
        "no" | "false" | "disabled" | "0" => Ok(false),
        _ => Err(format!(
            "{text:?} is not a boolean; allowed: true, false, \"yes\", \"no\""
        )),
    }
}

/// Seconds, or a number with s, m, h or d.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let units = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)];
    scaled(text, &units).map(Duration::from_secs).ok_or_else(|| {
        format!("{text:?} is not a duration; allowed: seconds, or a number with s, m, h or d, as in \"90s\" or \"4h\"")
    })
}

/// Bytes, or a number with K, M or G (1024, its square, its cube).
pub(super) fn volume(text: &str) -> Result<u64, String> {
    let units = [('k', 1 << 10), ('m', 1 << 20), ('g', 1 << 30)];
    scaled(text, &units).ok_or_else(|| {
        format!("{text:?} is not a number of bytes; allowed: bytes, or a number with K, M or G, as in \"500M\"")
    })
}

/// An integer inside `range`, decimal or 0x hexadecimal.
pub(super) fn integer<T>(text: &str, range: RangeInclusive<T>) -> Result<T, String>
where
    T: Copy + PartialOrd + TryFrom<u64> + std::fmt::Display,
{
    let number = digits(text).and_then(|number| T::try_from(number).ok());
    number
        .filter(|number| range.contains(number))
        .ok_or_else(|| {
            format!(
                "{text:?} is not allowed; allowed: {} to {}",
                range.start(),
                range.end()
            )
        })
}

/// One of a fixed set of words, matched without regard to case.
///
/// An alias is a later pair with the same value: only the first spelling is named to the user.
pub(super) fn choice<T: Copy + PartialEq>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    let compact = text.replace(' ', "");
    let found = words
        .iter()
        .find(|(word, _)| word.eq_ignore_ascii_case(&compact));
    found.map(|&(_, value)| value).ok_or_else(|| {
        let mut names: Vec<(&str, T)> = Vec::new();
        for &(word, value) in words {
            if names.iter().all(|&(_, known)| known != value) {
                names.push((word, value));
            }
        }
        let names: Vec<&str> = names.into_iter().map(|(word, _)| word).collect();
        format!("{text:?} is not allowed; {}", keys::allowed(text, &names))
    })
}

/// An address, a prefix, a range of addresses or %any.
///
/// # Errors
/// What is wrong and what is allowed.
pub fn address(text: &str) -> Result<AddressPattern, String> {
    if text.eq_ignore_ascii_case("%any") {
        return Ok(AddressPattern::Any);
    }
    if let Ok(addr) = IpAddr::from_str(text) {
        if addr.is_unspecified() {
            return Ok(AddressPattern::Any);
        }
        return Ok(AddressPattern::Net(IpNet::from(addr)));
    }
    if let Ok(net) = IpNet::from_str(text) {
        return Ok(AddressPattern::Net(net.trunc()));
    }
    if let Some(range) = address_range(text) {
        return Ok(range);
    }
    let looks_like_name =
        text.chars().any(|c| c.is_ascii_alphabetic()) && !text.contains([':', '%', '/']);
    Err(if looks_like_name {
        format!("{text:?} is a host name; names are not supported yet, give its addresses")
    } else {
        format!(
            "{text:?} is not an address; allowed: addresses, prefixes (192.0.2.0/24), ranges (192.0.2.1-192.0.2.9), %any"
        )
    })
}

fn address_range(text: &str) -> Option<AddressPattern> {
    let (start, end) = text.split_once('-')?;
    let (start, end): (IpAddr, IpAddr) = (start.trim().parse().ok()?, end.trim().parse().ok()?);
    (start.is_ipv4() == end.is_ipv4() && start <= end).then_some(AddressPattern::Range(start, end))
}

fn scaled(text: &str, units: &[(char, u64)]) -> Option<u64> {
    let unit = |last: char| {
        units
            .iter()
            .find(|(unit, _)| last.eq_ignore_ascii_case(unit))
    };
    match text.chars().next_back().and_then(unit) {
        Some(&(_, factor)) => {
            let number = text.get(..text.len() - 1)?;
            digits(number.trim_end())?.checked_mul(factor)
        }
        None => digits(text),
    }
}

fn digits(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(hex) => (hex, 16),
        None => (text, 10),
    };
    let plain = digits.starts_with(|c: char| c.is_ascii_hexdigit());
    plain
        .then(|| u64::from_str_radix(digits, radix).ok())
        .flatten()
}
