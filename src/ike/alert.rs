//! What fails in a negotiation, for whoever has to find out why.

use std::net::IpAddr;

use super::{IkeSaStatus, Pad};
use crate::wire::ikev2::NotifyType;

/// A failure that a person should know of. Its text names both sides of what was compared.
#[derive(Clone, Debug)]
pub struct Alert {
    /// What failed.
    pub kind: AlertKind,
    /// The connection it happened to, or the best few that the addresses fit while it is open which one is meant.
    pub connections: Vec<String>,
    /// The child, where only one is concerned.
    pub child: Option<String>,
    /// The IKE SA, if there is one.
    pub ike: Option<Box<IkeSaStatus>>,
    /// One line. Text that a peer supplied is escaped.
    pub message: String,
}

impl Alert {
    /// The best connections for a pair of addresses, and not all: a stranger's mistake must not cost work for
    /// each of thousands of connections that are for any address.
    pub(super) fn candidates(pad: &Pad, local: IpAddr, remote: IpAddr) -> Vec<String> {
        let connections = pad.by_addresses(local, remote).into_iter();
        let connections = connections.take(MOST_CANDIDATES);
        connections
            .map(|connection| connection.name.clone())
            .collect()
    }
}

/// What an exchange is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// The IKE SA.
    Ike,
    /// A Child SA.
    Child,
}

/// Kinds of failures, with the names that control clients know from strongSwan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AlertKind {
    /// No connection is for the peer's address.
    PeerAddress,
    /// No proposal for the IKE SA is acceptable to both.
    IkeProposal,
    /// No proposal for the Child SA is acceptable to both.
    ChildProposal,
    /// The traffic selectors have nothing in common.
    Selectors,
    /// The peer does not believe us, or we have nothing to prove ourselves with.
    LocalAuth,
    /// We do not believe the peer.
    PeerAuth,
    /// The first request was never answered.
    Unreachable,
    /// A later request was not answered.
    Silence,
    /// The peer began and did not authenticate in time.
    HalfOpen,
    /// A message that passed its integrity check is malformed.
    Malformed,
    /// The peer has an IKE SA already, and that one is kept.
    UniqueKept,
    /// A Child SA failed otherwise; its IKE SA stays.
    Child,
    /// An IKE SA failed otherwise.
    Ike,
}

impl AlertKind {
    /// What a refusal of the peer is about.
    pub(super) fn of_refusal(notify: NotifyType, subject: Subject) -> Self {
        match (notify, subject) {
            (NotifyType::NO_PROPOSAL_CHOSEN, Subject::Ike) => Self::IkeProposal,
            (NotifyType::NO_PROPOSAL_CHOSEN, Subject::Child) => Self::ChildProposal,
            (NotifyType::AUTHENTICATION_FAILED, _) => Self::LocalAuth,
            (NotifyType::TS_UNACCEPTABLE, _) => Self::Selectors,
            (NotifyType::INVALID_SYNTAX, _) => Self::Malformed,
            (_, Subject::Ike) => Self::Ike,
            (_, Subject::Child) => Self::Child,
        }
    }

    /// Its name for control clients.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PeerAddress => "peer-addr-failed",
            Self::IkeProposal => "proposal-mismatch-ike",
            Self::ChildProposal => "proposal-mismatch-child",
            Self::Selectors => "ts-mismatch",
            Self::LocalAuth => "local-auth-failed",
            Self::PeerAuth => "peer-auth-failed",
            Self::Unreachable => "peer-init-unreachable",
            Self::Silence => "retransmit-send-timeout",
            Self::HalfOpen => "half-open-timeout",
            Self::Malformed => "parse-error-body",
            Self::UniqueKept => "unique-keep",
            Self::Child => "keep-on-child-sa-failure",
            Self::Ike => "authorization-failed",
        }
    }
}

const MOST_CANDIDATES: usize = 8;
