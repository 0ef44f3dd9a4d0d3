//! What an outer header takes from the inner one, and back (RFC 4301 §5.1.2).

use crate::wire::ip::ecn;

/// How outer and inner IP headers influence each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderRules {
    /// The outer DF bit.
    pub copy_df: DfRule,
    /// Whether congestion marks cross the tunnel (RFC 6040); otherwise the outer field is Not-ECT
    /// and ignored on arrival.
    pub copy_ecn: bool,
    /// Whether the DSCP crosses the tunnel.
    pub copy_dscp: CopyDscp,
}

/// Where an outer IPv4 header has its DF bit from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DfRule {
    /// From the inner packet. IPv6 is never fragmented on its way, so it counts as set.
    Copy,
    /// Never set.
    Clear,
    /// Always set.
    Set,
}

/// In which directions the DSCP is copied between inner and outer header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyDscp {
    /// In none: the outer DSCP is zero.
    No,
    /// From outer to inner header on arrival.
    In,
    /// From inner to outer header on departure.
    Out,
    /// In both.
    Yes,
}

impl Default for HeaderRules {
    /// What strongSwan does unless told otherwise.
    fn default() -> Self {
        Self {
            copy_df: DfRule::Copy,
            copy_ecn: true,
            copy_dscp: CopyDscp::Out,
        }
    }
}

impl HeaderRules {
    /// In transport mode there is one header: everything crosses.
    pub const ONE_HEADER: Self = Self {
        copy_df: DfRule::Copy,
        copy_ecn: true,
        copy_dscp: CopyDscp::Yes,
    };

    /// The outer TOS or traffic class for an inner one.
    #[must_use]
    pub fn outer_tos(&self, inner_tos: u8) -> u8 {
        let dscp = match self.copy_dscp {
            CopyDscp::Out | CopyDscp::Yes => inner_tos & DSCP,
            CopyDscp::No | CopyDscp::In => 0,
        };
        let ecn = if self.copy_ecn {
            ecn::encapsulate(inner_tos & ECN)
        } else {
            0
        };
        dscp | ecn
    }

    /// The outer DF bit for an inner one.
    #[must_use]
    pub fn outer_df(&self, inner_df: bool) -> bool {
        match self.copy_df {
            DfRule::Copy => inner_df,
            DfRule::Clear => false,
            DfRule::Set => true,
        }
    }

    /// The inner TOS or traffic class after a packet came out of the tunnel.
    ///
    /// # Errors
    /// The outer header reports congestion to an inner packet that cannot carry the mark.
    pub fn inner_tos(&self, inner_tos: u8, outer_tos: u8) -> Result<u8, ecn::IllegalEcn> {
        let dscp = match self.copy_dscp {
            CopyDscp::In | CopyDscp::Yes => outer_tos & DSCP,
            CopyDscp::No | CopyDscp::Out => inner_tos & DSCP,
        };
        let ecn = if self.copy_ecn {
            ecn::decapsulate(inner_tos & ECN, outer_tos & ECN)?
        } else {
            inner_tos & ECN
        };
        Ok(dscp | ecn)
    }
}

const DSCP: u8 = 0b1111_1100;
const ECN: u8 = 0b0000_0011;
