//! Why a message was ignored.

/// A message that was ignored, or a request that was answered with an error. Each reason has a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Discard {
    /// Header or payload chain does not parse, or a length contradicts the datagram.
    Malformed,
    /// More than 16 KiB.
    TooLong,
    /// Not IKE version 2.
    WrongVersion,
    /// An exchange type we do not know, or not in this state.
    UnknownExchange,
    /// SPIs, flags or message ID are impossible for this exchange.
    BadHeader,
    /// No IKE SA has this SPI.
    UnknownIkeSpi,
    /// A response that answers no request of ours.
    UnexpectedResponse,
    /// A request outside the window, or with a message ID that was used for another request.
    OutsideWindow,
    /// The SK payload is missing, doubled or too short.
    NotProtected,
    /// The integrity check failed.
    IntegrityFailed,
    /// A fragment that is there already, or of a cut of the message that a finer one has replaced.
    StaleFragment,
    /// A fragment that would be more than we keep, or of a message of more than 64.
    FragmentLimit,
    /// A repeated request; the answer was sent again.
    Retransmission,
    /// A repeated request whose answer is not known any more, or not ready.
    StaleRequest,
    /// An unauthenticated error or notification that may be forged.
    Unauthenticated,
    /// An answer that names a key exchange method or a proposal that was not offered.
    NotOffered,
    /// IKE_SA_INIT was answered with a wish we have followed too often.
    TooManyRestarts,
    /// An initiator that has to return a cookie first; it was sent one.
    CookieRequired,
    /// A cookie that we did not send, or too long ago.
    BadCookie,
    /// A crash detection token that is not the peer's.
    BadCrashToken,
    /// A ticket that is not one of ours, or one of the peer's that is none.
    BadTicket,
    /// A ticket of ours that has expired, was used, or is for what has changed since.
    StaleTicket,
    /// A synchronization of message IDs that is repeated, too low, too high, malformed or not alone.
    BadMessageIdSync,
    /// A redirect that is not allowed or leads nowhere.
    BadRedirect,
    /// Too many half-open IKE SAs from this address.
    HalfOpenLimit,
    /// An initiator that no connection is configured for; it was told so if the rate allowed.
    NoConnection,
    /// A required payload is missing, doubled or unusable before authentication.
    BadPayload,
    /// A public value that is not valid for its method.
    BadPublicValue,
    /// A critical payload that we do not know; the answer names it.
    RefusedCritical,
    /// A request of a peer with keys that lacks a payload or cannot be read; the answer says so.
    RefusedSyntax,
    /// A proposal or key exchange method that is not ours; the answer says so.
    RefusedProposal,
    /// Traffic selectors that no child of the connection allows; the answer says so.
    RefusedSelectors,
    /// A peer that did not prove who it is; the answer says only that.
    RefusedAuthentication,
    /// Another request that was answered with an error: busy, not there, too many, no address.
    RefusedRequest,
    /// The peer or the wish is limited in rate.
    RateLimited,
    /// The endpoint is shutting down.
    ShuttingDown,
}

impl Discard {
    /// Every reason, in counter order.
    pub const ALL: [Self; 36] = [
        Self::Malformed,
        Self::TooLong,
        Self::WrongVersion,
        Self::UnknownExchange,
        Self::BadHeader,
        Self::UnknownIkeSpi,
        Self::UnexpectedResponse,
        Self::OutsideWindow,
        Self::NotProtected,
        Self::IntegrityFailed,
        Self::StaleFragment,
        Self::FragmentLimit,
        Self::Retransmission,
        Self::StaleRequest,
        Self::Unauthenticated,
        Self::NotOffered,
        Self::TooManyRestarts,
        Self::CookieRequired,
        Self::BadCookie,
        Self::BadCrashToken,
        Self::BadTicket,
        Self::StaleTicket,
        Self::BadMessageIdSync,
        Self::BadRedirect,
        Self::HalfOpenLimit,
        Self::NoConnection,
        Self::BadPayload,
        Self::BadPublicValue,
        Self::RefusedCritical,
        Self::RefusedSyntax,
        Self::RefusedProposal,
        Self::RefusedSelectors,
        Self::RefusedAuthentication,
        Self::RefusedRequest,
        Self::RateLimited,
        Self::ShuttingDown,
    ];

    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Place in [`Discard::ALL`] and among the counters.
    pub fn index(self) -> usize {
        self as usize
    }

    /// Kebab-case name for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLong => "too-long",
            Self::WrongVersion => "wrong-version",
            Self::UnknownExchange => "unknown-exchange",
            Self::BadHeader => "bad-header",
            Self::UnknownIkeSpi => "unknown-ike-spi",
            Self::UnexpectedResponse => "unexpected-response",
            Self::OutsideWindow => "outside-window",
            Self::NotProtected => "not-protected",
            Self::IntegrityFailed => "integrity-failed",
            Self::StaleFragment => "stale-fragment",
            Self::FragmentLimit => "fragment-limit",
            Self::Retransmission => "retransmission",
            Self::StaleRequest => "stale-request",
            Self::Unauthenticated => "unauthenticated",
            Self::NotOffered => "not-offered",
            Self::TooManyRestarts => "too-many-restarts",
            Self::CookieRequired => "cookie-required",
            Self::BadCookie => "bad-cookie",
            Self::BadCrashToken => "bad-crash-token",
            Self::BadTicket => "bad-ticket",
            Self::StaleTicket => "stale-ticket",
            Self::BadMessageIdSync => "bad-message-id-sync",
            Self::BadRedirect => "bad-redirect",
            Self::HalfOpenLimit => "half-open-limit",
            Self::NoConnection => "no-connection",
            Self::BadPayload => "bad-payload",
            Self::BadPublicValue => "bad-public-value",
            Self::RefusedCritical => "refused-critical",
            Self::RefusedSyntax => "refused-syntax",
            Self::RefusedProposal => "refused-proposal",
            Self::RefusedSelectors => "refused-selectors",
            Self::RefusedAuthentication => "refused-authentication",
            Self::RefusedRequest => "refused-request",
            Self::RateLimited => "rate-limited",
            Self::ShuttingDown => "shutting-down",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter_and_name() {
        for (place, reason) in Discard::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), place);
            let same = Discard::ALL.iter().filter(|r| r.name() == reason.name());
            assert_eq!(same.count(), 1);
        }
    }
}
