//! `[pools.<name>]`: addresses to give to peers.

use super::{
    connection::check_name,
    keys,
    read::{Entry, Section},
};
use crate::ike::Pool;
use ipnet::IpNet;
use std::{net::IpAddr, sync::Arc};

/// Reads every pool of `[pools]`.
pub(super) fn read_all(section: &Section<'_>) -> Vec<Arc<Pool>> {
    let read = |(name, entry): (String, Entry<'_>)| read(name, &entry.section()?);
    section
        .entries()
        .into_iter()
        .filter_map(read)
        .map(Arc::new)
        .collect()
}

fn read(name: String, section: &Section<'_>) -> Option<Pool> {
    section.check_keys(&keys::POOL);
    check_name(&name, section);
    if section.get("addrs").is_none() {
        section.fail_at("addrs", "missing; needed: a prefix or a range of addresses");
    }
    let (first, last) = section.read("addrs", addresses)?;
    let subnets = section.read_list("subnet", |text| {
        let net = text.parse::<IpNet>();
        net.map(|net| net.trunc())
            .map_err(|_| format!("{text:?} is not a prefix, as 10.1.0.0/16 is"))
    });
    let dns = section.read_list("dns", |text| {
        let address = text.parse::<IpAddr>();
        address.map_err(|_| format!("{text:?} is not an address"))
    });
    Some(Pool {
        name,
        first,
        last,
        dns: dns.unwrap_or_default(),
        subnets: subnets.unwrap_or_default(),
    })
}

/// First and last one of a prefix, without its network and broadcast address, or of a range.
fn addresses(text: &str) -> Result<(IpAddr, IpAddr), String> {
    let wrong =
        || format!("{text:?} is neither a prefix (10.3.0.0/24) nor a range (10.3.0.10-10.3.0.99)");
    if let Some((first, last)) = text.split_once('-') {
        let parse = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| wrong());
        let (first, last) = (parse(first)?, parse(last)?);
        return if first.is_ipv4() == last.is_ipv4() && first <= last {
            Ok((first, last))
        } else {
            Err(wrong())
        };
    }
    match text.parse::<IpNet>() {
        Ok(IpNet::V4(net)) if net.prefix_len() <= 30 => {
            let hosts = (net.network().to_bits() + 1, net.broadcast().to_bits() - 1);
            Ok((hosts.0.to_be_bytes().into(), hosts.1.to_be_bytes().into()))
        }
        // The all-zero address of an IPv6 prefix is its routers' (RFC 4291 §2.6.1).
        Ok(IpNet::V6(net)) if net.prefix_len() <= 126 => {
            let first = net.network().to_bits() + 1;
            Ok((first.to_be_bytes().into(), net.broadcast().into()))
        }
        Ok(net) => Ok((net.network(), net.broadcast())),
        Err(_) => Err(wrong()),
    }
}
