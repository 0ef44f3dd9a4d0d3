//! The events that clients may register for.

/// An event of the VICI protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventName {
    /// Every log line.
    Log,
    /// Log lines for the client that started a command, while it runs.
    ControlLog,
    /// One IKE SA, as part of an answer.
    ListSa,
    /// One policy, as part of an answer.
    ListPolicy,
    /// One connection, as part of an answer.
    ListConn,
    /// An IKE SA came up or went down.
    IkeUpdown,
    /// An IKE SA was replaced.
    IkeRekey,
    /// A Child SA came up or went down.
    ChildUpdown,
    /// A Child SA was replaced.
    ChildRekey,
    /// A negotiation failed.
    Alert,
}

impl EventName {
    const ALL: [Self; 10] = [
        Self::Log,
        Self::ControlLog,
        Self::ListSa,
        Self::ListPolicy,
        Self::ListConn,
        Self::IkeUpdown,
        Self::IkeRekey,
        Self::ChildUpdown,
        Self::ChildRekey,
        Self::Alert,
    ];

    /// The event of a name, if there is one.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.name() == name)
    }

    /// Its name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::ControlLog => "control-log",
            Self::ListSa => "list-sa",
            Self::ListPolicy => "list-policy",
            Self::ListConn => "list-conn",
            Self::IkeUpdown => "ike-updown",
            Self::IkeRekey => "ike-rekey",
            Self::ChildUpdown => "child-updown",
            Self::ChildRekey => "child-rekey",
            Self::Alert => "alert",
        }
    }
}
