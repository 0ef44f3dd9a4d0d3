//! Packets that are larger than the tunnel carries (RFC 4301 §8).

use crate::io::burst::Flows;
use crate::ipsec::{Mode, OutboundSa};

/// What is to be known of an inner packet while its bytes are being changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inner {
    /// Of the longest, if there are several.
    pub(super) len: usize,
    pub(super) tos: u8,
    pub(super) dont_fragment: bool,
    pub(super) ipv6: bool,
    pub(super) is_syn: bool,
    /// The flow it belongs to.
    pub(super) flows: Flows,
}

/// How a packet gets through a tunnel (RFC 4301 §8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    Whole { dont_fragment: bool },
    Fragments,
    TooBig { report: u16 },
}

pub(super) fn fit(inner: &Inner, mtu: u16, sa: &OutboundSa) -> Fit {
    let outer_df = sa.outer_df(inner.dont_fragment);
    if inner.len <= usize::from(mtu) {
        return Fit::Whole {
            dont_fragment: outer_df,
        };
    }
    let whole = Fit::Whole {
        dont_fragment: false,
    };
    if inner.dont_fragment {
        // What every IPv6 link must carry cannot be refused, and who clears DF has asked for
        // fragments of the outer packet instead of discovery.
        let must_pass = inner.ipv6 && inner.len <= usize::from(LEAST_MTU_V6);
        if must_pass || !outer_df {
            return whole;
        }
        let least = if inner.ipv6 { LEAST_MTU_V6 } else { 0 };
        return Fit::TooBig {
            report: mtu.max(least),
        };
    }
    // What is sealed there is whole, and the outer packet is fragmented (RFC 4303 §3.3.4).
    if sa.mode() == Mode::Transport {
        return whole;
    }
    // Later fragments show no ports, so selectors with ports would not let them in (RFC 4301 §7).
    let selectors = sa.selectors();
    let mut all = selectors.local.iter().chain(&selectors.remote);
    if all.any(|selector| !selector.any_port()) {
        return whole;
    }
    Fit::Fragments
}

/// What every IPv6 link must carry (RFC 8200 §5).
const LEAST_MTU_V6: u16 = 1280;
