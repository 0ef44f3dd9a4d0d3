//! How much an SA may carry (RFC 4301 §4.4.2.1).

use super::SaUsage;

/// How much an SA may carry. Time is the control thread's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Inner bytes after which a rekey is asked for.
    pub soft_bytes: u64,
    /// Inner bytes after which nothing passes.
    pub hard_bytes: u64,
    /// Packets after which a rekey is asked for.
    pub soft_packets: u64,
    /// Packets after which nothing passes.
    pub hard_packets: u64,
}

impl Limits {
    /// No limit but that of the sequence numbers.
    pub const NONE: Self = Self {
        soft_bytes: u64::MAX,
        hard_bytes: u64::MAX,
        soft_packets: u64::MAX,
        hard_packets: u64::MAX,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::NONE
    }
}

/// What may pass before a limit has to be looked at again. Never more than the limits leave.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Allowance {
    packets: u32,
    bytes: u32,
}

impl Allowance {
    /// Whether a packet of this length passes without a look at the limits.
    #[inline]
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let packets = self.packets.checked_sub(1);
        let bytes = u32::try_from(bytes).ok();
        match (
            packets,
            bytes.and_then(|bytes| self.bytes.checked_sub(bytes)),
        ) {
            (Some(packets), Some(bytes)) => {
                *self = Self { packets, bytes };
                true
            }
            _ => false,
        }
    }

    /// Whether one more packet may come, however long it turns out to be.
    #[inline]
    pub(super) fn is_open(self) -> bool {
        self.packets != 0
    }
}

/// Watches the limits of one half of an SA.
#[derive(Debug)]
pub(super) struct Lifetime {
    limits: Limits,
    soft_reported: bool,
    hard_reached: bool,
    hard_reported: bool,
}

impl Lifetime {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            soft_reported: false,
            hard_reached: false,
            hard_reported: false,
        }
    }

    /// Whether one more packet of `bytes` may pass.
    pub(super) fn admits(&mut self, usage: &SaUsage, bytes: usize) -> bool {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let admitted = usage.packets() < self.limits.hard_packets
            && usage.bytes().saturating_add(bytes) <= self.limits.hard_bytes;
        self.hard_reached |= !admitted;
        admitted
    }

    /// True once, when a soft limit has been crossed or a rekey is due for another reason.
    pub(super) fn take_soft(&mut self, usage: &SaUsage, due: bool) -> bool {
        let crossed = !self.soft_reported
            && (due
                || usage.packets() >= self.limits.soft_packets
                || usage.bytes() >= self.limits.soft_bytes);
        self.soft_reported |= crossed;
        crossed
    }

    /// What passes without reaching a limit that has yet to be reported. `numbers` more packets
    /// have a sequence number that means nothing special.
    pub(super) fn allowance(&self, usage: &SaUsage, numbers: u64) -> Allowance {
        let limits = self.limits;
        let below_soft = |soft: u64| {
            if self.soft_reported {
                u64::MAX
            } else {
                soft.saturating_sub(1)
            }
        };
        let packets = limits.hard_packets.min(below_soft(limits.soft_packets));
        let bytes = limits.hard_bytes.min(below_soft(limits.soft_bytes));
        let left =
            |limit: u64, used: u64| u32::try_from(limit.saturating_sub(used)).unwrap_or(u32::MAX);
        match left(bytes, usage.bytes()) {
            0 => Allowance::default(),
            bytes => Allowance {
                packets: left(packets, usage.packets()).min(left(numbers, 0)),
                bytes,
            },
        }
    }

    /// Whether a soft limit is still to be reported.
    pub(super) fn awaits_soft(&self) -> bool {
        !self.soft_reported
    }

    /// Takes note that nothing passes any more.
    pub(super) fn reach_hard(&mut self) {
        self.hard_reached = true;
    }

    /// True once, when a hard limit has stopped a packet.
    pub(super) fn take_hard(&mut self) -> bool {
        let due = self.hard_reached && !self.hard_reported;
        self.hard_reported |= due;
        due
    }
}
