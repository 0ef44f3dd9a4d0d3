//! Security Association payload: proposals and transforms (RFC 2408 §3.4 to §3.6, RFC 2407 §4.6.1).

use crate::wire::Malformed;
use crate::wire::substructure::{LAST, MORE_PROPOSALS, MORE_TRANSFORMS, Substructure};

/// What an SA protects with (RFC 2407 §4.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Protocol(pub u8);

#[allow(missing_docs, reason = "each constant is the IANA name")]
impl Protocol {
    pub const ISAKMP: Self = Self(1);
    pub const AH: Self = Self(2);
    pub const ESP: Self = Self(3);
    pub const IPCOMP: Self = Self(4);
}

/// An offer, or the choice from one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaPayload<'a> {
    /// In the sender's order. Those of one number are wanted together.
    pub proposals: Vec<ProposalPayload<'a>>,
}

/// One proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProposalPayload<'a> {
    /// Chosen by the initiator.
    pub number: u8,
    /// The protocol proposed.
    pub protocol: Protocol,
    /// The sender's SPI; phase 1 may leave it out, as the cookies stand for it.
    pub spi: &'a [u8],
    /// Alternatives, in the sender's order.
    pub transforms: Vec<TransformPayload<'a>>,
}

/// One transform, whose attributes [`super::IsakmpTransform`] or [`super::QuickTransform`] reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransformPayload<'a> {
    /// Chosen by the initiator.
    pub number: u8,
    /// KEY_IKE, or the algorithm of ESP.
    pub id: u8,
    /// Data attributes, unchecked.
    pub attributes: &'a [u8],
}

impl<'a> SaPayload<'a> {
    /// Reads the payload. Another DOI than that of IPsec, and other situations than
    /// SIT_IDENTITY_ONLY, are refused.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let (doi, rest) = body
            .split_first_chunk::<4>()
            .ok_or(Malformed::Truncated("SA payload"))?;
        let (situation, mut rest) = rest
            .split_first_chunk::<4>()
            .ok_or(Malformed::Truncated("SA payload"))?;
        if u32::from_be_bytes(*doi) != IPSEC_DOI {
            return Err(Malformed::BadValue("DOI"));
        }
        if u32::from_be_bytes(*situation) != SIT_IDENTITY_ONLY {
            return Err(Malformed::BadValue("situation"));
        }
        let mut proposals = Vec::new();
        loop {
            let piece = Substructure::split(rest, MORE_PROPOSALS, "proposal")?;
            if proposals.len() == MOST_PROPOSALS {
                return Err(Malformed::BadLength("SA payload"));
            }
            proposals.push(ProposalPayload::parse(piece.body)?);
            rest = piece.rest;
            if piece.last {
                break;
            }
        }
        if rest.is_empty() {
            Ok(Self { proposals })
        } else {
            Err(Malformed::BadLength("SA payload"))
        }
    }
}

impl<'a> ProposalPayload<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let (&[number, protocol, spi_len, count], rest) = body
            .split_first_chunk::<4>()
            .ok_or(Malformed::Truncated("proposal"))?;
        let (spi, mut rest) = rest
            .split_at_checked(usize::from(spi_len))
            .ok_or(Malformed::Truncated("proposal SPI"))?;
        let protocol = Protocol(protocol);
        let fits = match protocol {
            Protocol::ISAKMP => spi_len <= 16,
            Protocol::AH | Protocol::ESP => spi_len == 4,
            _ => true,
        };
        if !fits {
            return Err(Malformed::BadLength("proposal SPI"));
        }
        let mut transforms = Vec::new();
        for index in 1..=count {
            let piece = Substructure::split(rest, MORE_TRANSFORMS, "transform")?;
            if piece.last != (index == count) {
                return Err(Malformed::BadLength("proposal"));
            }
            transforms.push(TransformPayload::parse(piece.body)?);
            rest = piece.rest;
        }
        if !rest.is_empty() || transforms.is_empty() {
            return Err(Malformed::BadLength("proposal"));
        }
        Ok(Self {
            number,
            protocol,
            spi,
            transforms,
        })
    }
}

impl<'a> TransformPayload<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let (&[number, id, _, _], attributes) = body
            .split_first_chunk::<4>()
            .ok_or(Malformed::Truncated("transform"))?;
        Ok(Self {
            number,
            id,
            attributes,
        })
    }
}

/// Appends the body of an SA payload. The format counts proposals and transforms to 255; what is
/// beyond is left out.
pub fn write_sa(proposals: &[ProposalPayload<'_>], out: &mut Vec<u8>) {
    out.extend_from_slice(&IPSEC_DOI.to_be_bytes());
    out.extend_from_slice(&SIT_IDENTITY_ONLY.to_be_bytes());
    let proposals = up_to_255(proposals);
    for (index, proposal) in proposals.iter().enumerate() {
        let more = if index + 1 == proposals.len() {
            LAST
        } else {
            MORE_PROPOSALS
        };
        write_substructure(more, out, |out| write_proposal(proposal, out));
    }
}

fn write_proposal(proposal: &ProposalPayload<'_>, out: &mut Vec<u8>) {
    let (spi, transforms) = (up_to_255(proposal.spi), up_to_255(&proposal.transforms));
    let length = |len: usize| u8::try_from(len).unwrap_or(u8::MAX);
    out.extend_from_slice(&[proposal.number, proposal.protocol.0]);
    out.extend_from_slice(&[length(spi.len()), length(transforms.len())]);
    out.extend_from_slice(spi);
    for (index, transform) in transforms.iter().enumerate() {
        let more = if index + 1 == transforms.len() {
            LAST
        } else {
            MORE_TRANSFORMS
        };
        write_substructure(more, out, |out| {
            out.extend_from_slice(&[transform.number, transform.id, 0, 0]);
            out.extend_from_slice(transform.attributes);
        });
    }
}

fn write_substructure(more: u8, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[more, 0, 0, 0]);
    write(out);
    let length = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
    if let Some(field) = out.get_mut(start + 2..start + 4) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

fn up_to_255<T>(all: &[T]) -> &[T] {
    all.get(..usize::from(u8::MAX)).unwrap_or(all)
}

pub(super) const IPSEC_DOI: u32 = 1;
const SIT_IDENTITY_ONLY: u32 = 1;

/// As their numbers allow.
const MOST_PROPOSALS: usize = 255;
