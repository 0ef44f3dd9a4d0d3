//! NAT detection (RFC 7296 §2.23).

use std::net::{IpAddr, SocketAddr};

use crate::crypto::CryptoRng;
use crate::crypto::digest::sha1;
use crate::wire::ikev2::{Notify, NotifyType, PayloadWriter};
use crate::wire::isakmp::{IkeSpi, PayloadType};

use super::Path;
use super::status::NatStatus;

/// Adds the two notifications of an IKE_SA_INIT message. To force encapsulation, the source hash
/// is one that cannot match, so that the peer finds us behind a NAT.
pub(super) fn add_notifies(
    payloads: &mut PayloadWriter,
    spis: (IkeSpi, IkeSpi),
    path: Path,
    force: bool,
    rng: &mut dyn CryptoRng,
) {
    let mut source = hash(spis, path.local);
    if force {
        rng.fill_bytes(&mut source);
    }
    let destination = hash(spis, path.remote);
    for (kind, data) in [
        (NotifyType::NAT_DETECTION_SOURCE_IP, source),
        (NotifyType::NAT_DETECTION_DESTINATION_IP, destination),
    ] {
        payloads.add_with(PayloadType::NOTIFY, |out| {
            Notify::new(kind, &data).encode(out);
        });
    }
}

/// What the peer's notifications say; `None` if it does not do NAT traversal. A sender with several
/// addresses sends several source hashes, of which one has to match.
pub(super) fn detect(
    notifies: &[Notify<'_>],
    spis: (IkeSpi, IkeSpi),
    path: Path,
    force: bool,
) -> Option<NatStatus> {
    let of = |kind| notifies.iter().filter(move |notify| notify.kind == kind);
    let matches = |kind, addr| of(kind).any(|notify| notify.data == hash(spis, addr));
    of(NotifyType::NAT_DETECTION_SOURCE_IP).next()?;
    of(NotifyType::NAT_DETECTION_DESTINATION_IP).next()?;
    Some(NatStatus {
        local: !matches(NotifyType::NAT_DETECTION_DESTINATION_IP, path.local),
        remote: !matches(NotifyType::NAT_DETECTION_SOURCE_IP, path.remote),
        fake: force,
    })
}

fn hash((initiator, responder): (IkeSpi, IkeSpi), addr: SocketAddr) -> [u8; 20] {
    let port = addr.port().to_be_bytes();
    match addr.ip() {
        IpAddr::V4(ip) => sha1(&[&initiator.0, &responder.0, &ip.octets(), &port]),
        IpAddr::V6(ip) => sha1(&[&initiator.0, &responder.0, &ip.octets(), &port]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::isakmp::PayloadChain;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    fn exchange(sent: Path, seen: Path, force: bool) -> NatStatus {
        let spis = (IkeSpi([1; 8]), IkeSpi::ZERO);
        let mut payloads = PayloadWriter::new();
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        add_notifies(&mut payloads, spis, sent, force, &mut rng);
        let (first, bytes) = payloads.finish();
        let notifies: Vec<Notify<'_>> = PayloadChain::new(first, &bytes)
            .map(|payload| Notify::parse(payload.expect("a payload").body).expect("a notify"))
            .collect();
        detect(&notifies, spis, seen, false).expect("both notifies are there")
    }

    fn path(local: &str, remote: &str) -> Path {
        Path {
            local: local.parse().expect("an address"),
            remote: remote.parse().expect("an address"),
        }
    }

    #[test]
    fn only_a_translated_address_is_found() {
        let sent = path("192.0.2.1:500", "198.51.100.1:500");
        let direct = path("198.51.100.1:500", "192.0.2.1:500");
        assert!(!exchange(sent, direct, false).any());
        let mapped = path("198.51.100.1:500", "203.0.113.9:1024");
        let found = exchange(sent, mapped, false);
        assert!(found.remote && !found.local);
        let forwarded = path("10.0.0.1:500", "192.0.2.1:500");
        let found = exchange(sent, forwarded, false);
        assert!(found.local && !found.remote);
    }

    #[test]
    fn forced_encapsulation_looks_like_a_nat_in_front_of_us() {
        let sent = path("192.0.2.1:500", "198.51.100.1:500");
        let direct = path("198.51.100.1:500", "192.0.2.1:500");
        let found = exchange(sent, direct, true);
        assert!(found.remote && !found.local);
    }
}
