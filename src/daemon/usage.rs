//! When SAs were last used, from samples of their packet counters.

use std::{collections::HashMap, time::Instant};

use crate::{ike::IkeSaStatus, ipsec::ChildId};

/// When a Child SA was last seen to carry packets, as exact as the samples are close.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastUse {
    /// From the peer.
    pub inbound: Option<Instant>,
    /// To the peer.
    pub outbound: Option<Instant>,
}

#[derive(Debug, Default)]
struct Sample {
    used: LastUse,
    packets_in: u64,
    packets_out: u64,
}

/// The last use of every Child SA.
#[derive(Debug, Default)]
pub struct UsageTimes {
    samples: HashMap<ChildId, Sample>,
}

impl UsageTimes {
    /// Compares the counters with those of the sample before and forgets SAs that are gone.
    pub fn sample(&mut self, sas: impl Iterator<Item = IkeSaStatus>, now: Instant) {
        let mut samples = HashMap::with_capacity(self.samples.len());
        for child in sas.flat_map(|ike| ike.children) {
            let mut sample = self.samples.remove(&child.id).unwrap_or_default();
            let (packets_in, packets_out) = (child.usage_in.packets(), child.usage_out.packets());
            if packets_in != sample.packets_in {
                sample.used.inbound = Some(now);
            }
            if packets_out != sample.packets_out {
                sample.used.outbound = Some(now);
            }
            (sample.packets_in, sample.packets_out) = (packets_in, packets_out);
            samples.insert(child.id, sample);
        }
        self.samples = samples;
    }

    /// The last use of a Child SA.
    #[must_use]
    pub fn get(&self, child: ChildId) -> LastUse {
        self.samples
            .get(&child)
            .map_or_else(LastUse::default, |sample| sample.used)
    }
}
