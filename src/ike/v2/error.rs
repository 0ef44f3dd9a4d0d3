//! Why a request of the peer is refused.

use crate::crypto::kex::AnswerError;
use crate::ike::alert::Subject;
use crate::ike::narrow::SelectorMismatch;
use crate::ike::negotiate::ProposalMismatch;
use crate::ike::{AlertKind, Discard, Identity};
use crate::wire::Malformed;
use crate::wire::ikev2::{Notify, NotifyType, PayloadWriter};
use crate::wire::isakmp::PayloadType;
use crate::wire::proposal::{KeyExchangeId, ProtocolId};

/// Why an exchange failed. Each cause has exactly one notify.
#[derive(Debug, thiserror::Error)]
pub(in crate::ike) enum ExchangeError {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the {0} payload is missing")]
    Missing(&'static str),
    #[error("payload type {0} is critical and unknown")]
    UnsupportedCritical(u8),
    #[error(transparent)]
    Proposals(#[from] ProposalMismatch),
    #[error("a {0} key exchange is wanted")]
    OtherGroup(KeyExchangeId),
    #[error("the public key exchange value is not valid")]
    InvalidPublic,
    #[error(transparent)]
    Selectors(#[from] SelectorMismatch),
    #[error("{0}")]
    Authentication(AuthenticationError),
    #[error("the first Child SA has to have an exchange of its own")]
    ChildlessOnly,
    #[error("too many Child SAs on this IKE SA")]
    TooManyChildren,
    #[error("too many Child SAs with the same selectors")]
    TooManyAdditional,
    #[error("no pool has an address for the peer")]
    NoAddress,
    #[error("the peer does not ask for an address, and its connection has pools")]
    AddressNotAsked,
    #[error("{0}")]
    Busy(&'static str),
    #[error("no Child SA has SPI {0:08x}")]
    NoSuchChild(u32),
    #[error("the key exchange follows none that we know")]
    NoSuchState,
}

/// Why a peer is not who it claims to be. It learns nothing but that it failed.
#[derive(Debug, thiserror::Error)]
pub(in crate::ike) enum AuthenticationError {
    #[error("no connection accepts {remote} as the peer of {local}; configured: {configured}")]
    NoConnection {
        remote: Identity,
        local: String,
        configured: String,
    },
    #[error("the peer is {found}, but {wanted} was expected")]
    OtherIdentity { found: Identity, wanted: String },
    #[error("no secret for {local} and {remote}")]
    NoSecret { local: Identity, remote: String },
    #[error("authentication method {0} is not the one that is configured")]
    Method(u8),
    #[error("the signature scheme is not one that is known")]
    Scheme,
    #[error("no key for {0} can sign in a way that the peer verifies")]
    NoScheme(Identity),
    #[error("the peer could not prove it is {claimed}: the signature is not valid")]
    BadSignature { claimed: Identity },
    #[error("{claimed} is not trusted: {reason}")]
    NotTrusted { claimed: Identity, reason: String },
    #[error("the peer could not prove it is {claimed}: the secrets differ")]
    Mismatch { claimed: Identity },
    #[error("{0} has an IKE SA already, and is to keep it")]
    NotUnique(Identity),
    #[error("the peer uses no post-quantum preshared key")]
    NoPpk,
    #[error("the peer uses another post-quantum preshared key")]
    OtherPpk,
    #[error("the IKE_SA cannot be resumed: {0}")]
    Resumption(&'static str),
}

impl From<AuthenticationError> for ExchangeError {
    fn from(error: AuthenticationError) -> Self {
        Self::Authentication(error)
    }
}

impl From<AnswerError> for ExchangeError {
    fn from(error: AnswerError) -> Self {
        match error {
            AnswerError::Unsupported(group) => Self::OtherGroup(group.0),
            AnswerError::Invalid(_) => Self::InvalidPublic,
        }
    }
}

impl ExchangeError {
    /// What the peer is told (RFC 7296 §3.10.1). No wildcard arm: a new cause must choose.
    pub(in crate::ike) fn notify(&self) -> NotifyType {
        match self {
            Self::Malformed(_) | Self::Missing(_) | Self::InvalidPublic => {
                NotifyType::INVALID_SYNTAX
            }
            Self::UnsupportedCritical(_) => NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD,
            Self::Proposals(_) | Self::ChildlessOnly => NotifyType::NO_PROPOSAL_CHOSEN,
            Self::OtherGroup(_) => NotifyType::INVALID_KE_PAYLOAD,
            Self::Selectors(_) => NotifyType::TS_UNACCEPTABLE,
            Self::Authentication(_) => NotifyType::AUTHENTICATION_FAILED,
            Self::TooManyChildren => NotifyType::NO_ADDITIONAL_SAS,
            Self::TooManyAdditional => NotifyType::TS_MAX_QUEUE,
            Self::NoAddress => NotifyType::INTERNAL_ADDRESS_FAILURE,
            Self::AddressNotAsked => NotifyType::FAILED_CP_REQUIRED,
            Self::Busy(_) => NotifyType::TEMPORARY_FAILURE,
            Self::NoSuchChild(_) => NotifyType::CHILD_SA_NOT_FOUND,
            Self::NoSuchState => NotifyType::STATE_NOT_FOUND,
        }
    }

    /// What a person is told. `of` is what the exchange was about.
    pub(in crate::ike) fn alert_kind(&self, of: Subject) -> AlertKind {
        match (self, of) {
            (
                Self::Malformed(_)
                | Self::Missing(_)
                | Self::UnsupportedCritical(_)
                | Self::InvalidPublic,
                _,
            ) => AlertKind::Malformed,
            (Self::Proposals(_) | Self::OtherGroup(_), Subject::Ike) => AlertKind::IkeProposal,
            (Self::Proposals(_) | Self::OtherGroup(_), Subject::Child) => AlertKind::ChildProposal,
            (Self::Selectors(_), _) => AlertKind::Selectors,
            (Self::Authentication(AuthenticationError::NotUnique(_)), _) => AlertKind::UniqueKept,
            (Self::Authentication(_), _) => AlertKind::PeerAuth,
            (
                Self::TooManyChildren
                | Self::TooManyAdditional
                | Self::NoAddress
                | Self::AddressNotAsked
                | Self::Busy(_)
                | Self::NoSuchChild(_)
                | Self::NoSuchState
                | Self::ChildlessOnly,
                _,
            ) => AlertKind::Child,
        }
    }

    /// What a request is counted as that is answered with this.
    pub(in crate::ike) fn discard(&self) -> Discard {
        match self.notify() {
            NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD => Discard::RefusedCritical,
            NotifyType::INVALID_SYNTAX => Discard::RefusedSyntax,
            NotifyType::NO_PROPOSAL_CHOSEN | NotifyType::INVALID_KE_PAYLOAD => {
                Discard::RefusedProposal
            }
            NotifyType::TS_UNACCEPTABLE => Discard::RefusedSelectors,
            NotifyType::AUTHENTICATION_FAILED => Discard::RefusedAuthentication,
            _ => Discard::RefusedRequest,
        }
    }

    /// A message that its sender built wrongly ends the IKE SA on both sides (RFC 7296 §2.21.3).
    pub(in crate::ike) fn is_fatal(&self) -> bool {
        self.notify() == NotifyType::INVALID_SYNTAX
    }

    /// Adds the notification with its data.
    pub(in crate::ike) fn encode(&self, payloads: &mut PayloadWriter) {
        let (mut protocol, mut spi, mut data) = (0, Vec::new(), Vec::new());
        match self {
            Self::UnsupportedCritical(kind) => data.push(*kind),
            Self::OtherGroup(group) => data.extend_from_slice(&group.0.to_be_bytes()),
            Self::NoSuchChild(child) => {
                protocol = ProtocolId::Esp as u8;
                spi.extend_from_slice(&child.to_be_bytes());
            }
            _ => {}
        }
        let notify = Notify {
            protocol,
            spi: &spi,
            kind: self.notify(),
            data: &data,
        };
        payloads.add_with(PayloadType::NOTIFY, |out| notify.encode(out));
    }
}
