//! What a client may ask for, as values that are right by construction.

use std::time::Duration;

use crate::{
    config,
    ike::{Command, IdentityPattern, Redirected},
    wire::vici::Message,
};

/// A command with its arguments.
#[derive(Clone, Debug)]
pub enum Request {
    /// Who we are.
    Version,
    /// Counters.
    Stats,
    /// Something for the IKE endpoint; the answer comes when it is done.
    Ike {
        /// Name of the command, for the answer.
        kind: IkeCommand,
        /// What the endpoint has to do.
        command: Command,
        /// How long the client waits.
        wait: Wait,
        /// Log lines up to this level are streamed to the client.
        log_level: i8,
    },
    /// The IKE SAs that fit.
    ListSas(SaFilter),
    /// The configured connections, or the one named.
    ListConns {
        /// Connection name.
        ike: Option<String>,
    },
    /// The policies of the kinds asked for.
    ListPolicies {
        /// Kinds; none asked for means all.
        kinds: PolicyKinds,
        /// Connection name.
        ike: Option<String>,
        /// Child name.
        child: Option<String>,
    },
    /// The names of the connections.
    GetConns,
    /// The pools, or the one named.
    GetPools {
        /// Pool name.
        name: Option<String>,
        /// Who has their addresses, too.
        leases: bool,
    },
    /// Read the configuration again.
    Reload,
}

/// The commands that the IKE endpoint carries out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IkeCommand {
    /// `initiate`
    Initiate,
    /// `terminate`
    Terminate,
    /// `rekey`
    Rekey,
    /// `redirect`
    Redirect,
}

/// How long the client of a command waits for its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Until it is done.
    Forever,
    /// No longer than this.
    AtMost(Duration),
    /// Not at all.
    No,
}

/// Which IKE SAs, and which Child SAs of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SaFilter {
    /// Connection name.
    pub ike: Option<String>,
    /// Id of an IKE SA.
    pub ike_id: Option<u64>,
    /// Child name.
    pub child: Option<String>,
    /// Id of a Child SA.
    pub child_id: Option<u64>,
}

/// Which kinds of policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyKinds {
    /// Those that protect.
    pub trap: bool,
    /// Those that bypass.
    pub pass: bool,
    /// Those that discard.
    pub drop: bool,
}

/// Why a request is not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such command.
    Unknown,
    /// An argument is not what it should be.
    Argument(String),
}

impl Request {
    /// Reads a request.
    pub fn parse(name: &str, message: &Message) -> Result<Self, Refusal> {
        Ok(match name {
            "version" => Self::Version,
            "stats" => Self::Stats,
            "initiate" => Self::initiate(message)?,
            "terminate" => Self::terminate(message)?,
            "rekey" => Self::rekey(message)?,
            "redirect" => Self::redirect(message)?,
            "list-sas" => Self::ListSas(SaFilter {
                ike: text(message, "ike"),
                ike_id: number(message, "ike-id")?,
                child: text(message, "child"),
                child_id: number(message, "child-id")?,
            }),
            "get-pools" => Self::GetPools {
                name: text(message, "name"),
                leases: flag(message, "leases")?,
            },
            "list-conns" => Self::ListConns {
                ike: text(message, "ike"),
            },
            "list-policies" => {
                let (trap, pass, drop) = (
                    flag(message, "trap")?,
                    flag(message, "pass")?,
                    flag(message, "drop")?,
                );
                let all = !(trap || pass || drop);
                Self::ListPolicies {
                    kinds: PolicyKinds {
                        trap: trap || all,
                        pass: pass || all,
                        drop: drop || all,
                    },
                    ike: text(message, "ike"),
                    child: text(message, "child"),
                }
            }
            "get-conns" => Self::GetConns,
            "reload-settings" => Self::Reload,
            _ => return Err(Refusal::Unknown),
        })
    }

    fn initiate(message: &Message) -> Result<Self, Refusal> {
        let (ike, child) = (text(message, "ike"), text(message, "child"));
        if ike.is_none() && child.is_none() {
            return Err(Refusal::Argument(
                "missing configuration name: set ike or child".to_owned(),
            ));
        }
        let command = Command::Initiate { ike, child };
        Self::ike(IkeCommand::Initiate, command, message)
    }

    fn terminate(message: &Message) -> Result<Self, Refusal> {
        let filter = Self::selector(message)?;
        let command = Command::Terminate {
            ike: filter.ike,
            child: filter.child,
            ike_id: filter.ike_id,
            child_id: filter.child_id,
            force: flag(message, "force")?,
        };
        Self::ike(IkeCommand::Terminate, command, message)
    }

    fn rekey(message: &Message) -> Result<Self, Refusal> {
        let filter = Self::selector(message)?;
        let command = Command::Rekey {
            ike: filter.ike,
            child: filter.child,
            ike_id: filter.ike_id,
            child_id: filter.child_id,
            reauth: flag(message, "reauth")?,
        };
        Self::ike(IkeCommand::Rekey, command, message)
    }

    fn redirect(message: &Message) -> Result<Self, Refusal> {
        let wrong = |key: &str, error: String| Refusal::Argument(format!("{key}: {error}"));
        let gateway = text(message, "gateway")
            .ok_or_else(|| Refusal::Argument("missing target gateway".to_owned()))?;
        let gateway = gateway.parse().map_err(|error| wrong("gateway", error))?;
        let peer_ip = text(message, "peer-ip").map(|ip| config::address_pattern(&ip));
        let peer_id = text(message, "peer-id").map(|id| id.parse::<IdentityPattern>());
        let whom = Redirected {
            ike: text(message, "ike"),
            ike_id: number(message, "ike-id")?,
            peer_ip: peer_ip
                .transpose()
                .map_err(|error| wrong("peer-ip", error))?,
            peer_id: peer_id
                .transpose()
                .map_err(|error| wrong("peer-id", error.to_string()))?,
        };
        if whom.is_everybody() {
            return Err(Refusal::Argument(
                "missing selector: set ike, ike-id, peer-ip or peer-id".to_owned(),
            ));
        }
        let command = Command::Redirect { whom, gateway };
        Self::ike(IkeCommand::Redirect, command, message)
    }

    fn ike(kind: IkeCommand, command: Command, message: &Message) -> Result<Self, Refusal> {
        let log_level: i64 = number(message, "loglevel")?.unwrap_or(1);
        let wait = match number::<i64>(message, "timeout")? {
            None | Some(0) => Wait::Forever,
            Some(limit) => u64::try_from(limit)
                .map_or(Wait::No, |limit| Wait::AtMost(Duration::from_millis(limit))),
        };
        Ok(Self::Ike {
            kind,
            command,
            wait,
            log_level: i8::try_from(log_level).unwrap_or(i8::MAX),
        })
    }

    /// Commands that end or change SAs have to say which.
    fn selector(message: &Message) -> Result<SaFilter, Refusal> {
        let filter = SaFilter {
            ike: text(message, "ike"),
            ike_id: number(message, "ike-id")?,
            child: text(message, "child"),
            child_id: number(message, "child-id")?,
        };
        if filter == SaFilter::default() {
            return Err(Refusal::Argument(
                "missing selector: set ike, ike-id, child or child-id".to_owned(),
            ));
        }
        Ok(filter)
    }
}

fn text(message: &Message, key: &str) -> Option<String> {
    message
        .get(key)
        .filter(|value| !value.is_empty())
        .map(str::to_owned)
}

/// A number in the spellings of strongSwan: decimal, or hexadecimal with 0x. 0 is a number.
fn number<T: TryFrom<i64>>(message: &Message, key: &str) -> Result<Option<T>, Refusal> {
    let Some(value) = text(message, key) else {
        return Ok(None);
    };
    let read = match value.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).ok(),
        None => value.parse().ok(),
    };
    match read.and_then(|number| T::try_from(number).ok()) {
        Some(number) => Ok(Some(number)),
        None => Err(Refusal::Argument(format!("{key}: not a number: {value:?}"))),
    }
}

fn flag(message: &Message, key: &str) -> Result<bool, Refusal> {
    match message.get(key) {
        None => Ok(false),
        Some("yes" | "true" | "enabled" | "1") => Ok(true),
        Some("no" | "false" | "disabled" | "0" | "") => Ok(false),
        Some(other) => Err(Refusal::Argument(format!(
            "{key}: not yes or no: {other:?}"
        ))),
    }
}
