//! Which traffic is protected, passed or discarded (RFC 4301 §4.4.1).

mod index;

use super::sa::{FlowEnd, endpoints};
use super::{PolicyId, Reqid};
use crate::wire::ip::Flow;
use crate::wire::selector::TrafficSelector;
use index::{Candidate, Index};

/// Which packets a policy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From the protected side towards the peer.
    Out,
    /// From the peer to the gateway itself.
    In,
    /// From the peer through the gateway.
    Forward,
}

/// What is done with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// It travels inside an SA that fits the template.
    Protect(Template),
    /// It travels in clear.
    Bypass,
    /// It goes nowhere.
    Discard,
}

/// The SAs that may serve a policy: those with its reqid, the newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Template {
    /// What the SAs carry in common with the policy.
    pub reqid: Reqid,
    /// What they wrap.
    pub mode: Mode,
    /// A packet without an SA asks for one, and waits for it.
    pub trap: bool,
}

/// What an SA wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// A whole IP packet.
    Tunnel,
    /// What an IP packet between the gateways themselves carries.
    Transport,
}

/// One line of the SPD. `local` is our side, `remote` the peer's, in every direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its own number.
    pub id: PolicyId,
    /// What users call it.
    pub name: String,
    /// Which packets it is for.
    pub direction: Direction,
    /// Addresses, protocol and ports on our side.
    pub local: TrafficSelector,
    /// Addresses, protocol and ports on the peer's side.
    pub remote: TrafficSelector,
    /// What is done with the packets.
    pub action: Action,
    /// Lower comes first.
    pub priority: u32,
}

impl Policy {
    fn covers(&self, ends: &Ends) -> bool {
        ends.local.matches(&self.local) && ends.remote.matches(&self.remote)
    }
}

/// A flow as a policy sees it.
struct Ends {
    local: FlowEnd,
    remote: FlowEnd,
}

/// All policies. Never changed, but replaced as a whole.
///
/// Order of evaluation: priority, then the order in which the policies were given. The first that
/// covers a packet decides.
#[derive(Debug, Default)]
pub struct Spd {
    /// In order of evaluation.
    policies: Vec<Policy>,
    outbound: Index,
    inbound: Index,
    forward: Index,
}

impl Spd {
    /// Sorts and indexes the policies.
    #[must_use]
    pub fn new(mut policies: Vec<Policy>) -> Self {
        policies.sort_by_key(|policy| policy.priority); // stable
        let index = |direction| Index::new(&policies, direction);
        let (outbound, inbound) = (index(Direction::Out), index(Direction::In));
        let forward = index(Direction::Forward);
        Self {
            policies,
            outbound,
            inbound,
            forward,
        }
    }

    /// The policy that decides about a packet from the protected side.
    #[must_use]
    pub fn outbound(&self, flow: &Flow) -> Option<&Policy> {
        self.first_outbound(flow)?.policy(&self.policies)
    }

    /// What is done with a packet from the protected side: the action of [`Self::outbound`], without
    /// a look at the policy.
    #[must_use]
    #[inline]
    pub fn outbound_action(&self, flow: &Flow) -> Option<Action> {
        self.first_outbound(flow).map(|candidate| candidate.action)
    }

    #[inline]
    fn first_outbound(&self, flow: &Flow) -> Option<Candidate> {
        let [local, remote] = endpoints(flow);
        self.outbound.first(&self.policies, &Ends { local, remote })
    }

    /// The policy that decides about a packet for the gateway itself.
    #[must_use]
    pub fn inbound(&self, flow: &Flow) -> Option<&Policy> {
        self.first_of_peer(&self.inbound, flow)
    }

    /// The policy that decides about a packet for the protected side.
    #[must_use]
    pub fn forward(&self, flow: &Flow) -> Option<&Policy> {
        self.first_of_peer(&self.forward, flow)
    }

    fn first_of_peer(&self, index: &Index, flow: &Flow) -> Option<&Policy> {
        let [remote, local] = endpoints(flow);
        let candidate = index.first(&self.policies, &Ends { local, remote })?;
        candidate.policy(&self.policies)
    }

    /// All policies, in order of evaluation.
    #[must_use]
    pub fn policies(&self) -> &[Policy] {
        &self.policies
    }
}
