//! `initiate`, `terminate`, `rekey` and `reload`: one VICI command each.

use super::{
    SocketArgs,
    client::Client,
    output::{self, Failure},
};
use crate::wire::vici::Message;
use clap::ArgGroup;
use std::time::Duration;

/// Arguments of `lockgate initiate`.
#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("what").args(["ike", "child"]).required(true).multiple(true)))]
#[command(
    after_help = "Examples:\n  lockgate initiate --child lan\n  lockgate initiate --ike site-b --child lan --timeout 5\n  lockgate initiate --ike site-b                 the IKE SA alone, without children"
)]
pub struct InitiateArgs {
    /// Connection, as named in the configuration
    #[arg(long, value_name = "NAME")]
    pub ike: Option<String>,
    /// Child, as named in the configuration
    #[arg(long, value_name = "NAME")]
    pub child: Option<String>,
    /// Seconds to wait until it is up; 0 waits as long as the daemon tries
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub timeout: u32,
    /// Where the daemon listens
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// The SAs that a command is about: those that fit all that is given.
#[derive(Debug, clap::Args)]
#[group(id = "what", required = true, multiple = true)]
pub struct Selection {
    /// IKE SAs of this connection, or their children of the name given by --child
    #[arg(long, value_name = "NAME")]
    pub ike: Option<String>,
    /// Children of this name
    #[arg(long, value_name = "NAME")]
    pub child: Option<String>,
    /// The IKE SA with this number (`lockgate status` prints it after #)
    #[arg(long, value_name = "N")]
    pub ike_id: Option<u64>,
    /// The child with this number
    #[arg(long, value_name = "N")]
    pub child_id: Option<u64>,
}

/// Arguments of `lockgate terminate`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lockgate terminate --ike site-b\n  lockgate terminate --ike site-b --child lan\n  lockgate terminate --ike-id 7 --force          do not wait for the peer"
)]
pub struct TerminateArgs {
    /// Which SAs
    #[command(flatten)]
    pub what: Selection,
    /// Do not wait for the peer's answer
    #[arg(long)]
    pub force: bool,
    /// Seconds to wait until it is closed; 0 waits as long as the daemon takes
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub timeout: u32,
    /// Where the daemon listens
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// Arguments of `lockgate rekey`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lockgate rekey --child lan\n  lockgate rekey --ike site-b                    the IKE SA itself\n  lockgate rekey --ike site-b --reauth           a new IKE SA from scratch"
)]
pub struct RekeyArgs {
    /// Which SAs
    #[command(flatten)]
    pub what: Selection,
    /// Authenticate again instead of rekeying
    #[arg(long)]
    pub reauth: bool,
    /// Where the daemon listens
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// Arguments of `lockgate reload`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A file with mistakes changes nothing. `lockgate check FILE` shows them without a daemon."
)]
pub struct ReloadArgs {
    /// Where the daemon listens
    #[command(flatten)]
    pub socket: SocketArgs,
}

impl Selection {
    fn request(&self) -> Message {
        let mut request = Message::new();
        set(&mut request, "ike", self.ike.as_ref());
        set(&mut request, "child", self.child.as_ref());
        set(&mut request, "ike-id", self.ike_id);
        set(&mut request, "child-id", self.child_id);
        request
    }
}

/// Brings a connection or a child up.
pub fn initiate(args: &InitiateArgs) -> Result<(), Failure> {
    let mut request = Message::new();
    set(&mut request, "ike", args.ike.as_ref());
    set(&mut request, "child", args.child.as_ref());
    let what = selected(&[
        ("IKE SA", args.ike.as_deref()),
        ("child", args.child.as_deref()),
    ]);
    logged("initiate", request, args.timeout, &args.socket)?;
    output::print(&format!("{what} is up\n"))
}

/// Closes what matches.
pub fn terminate(args: &TerminateArgs) -> Result<(), Failure> {
    let mut request = args.what.request();
    if args.force {
        request.set("force", "yes");
    }
    let answer = logged("terminate", request, args.timeout, &args.socket)?;
    let count = |key| answer.get(key).unwrap_or("?");
    output::print(&format!(
        "terminated {} of {}\n",
        count("terminated"),
        count("matches")
    ))
}

/// Starts rekeying of what matches.
pub fn rekey(args: &RekeyArgs) -> Result<(), Failure> {
    let mut request = args.what.request();
    if args.reauth {
        request.set("reauth", "yes");
    }
    let answer = Client::connect(&args.socket.socket)?.command("rekey", request)?;
    let answer = output::accepted("rekey", answer)?;
    output::print(&format!(
        "rekeying {}\n",
        answer.get("matches").unwrap_or("?")
    ))
}

/// Has the daemon read its configuration again.
pub fn reload(args: &ReloadArgs) -> Result<(), Failure> {
    let answer =
        Client::connect(&args.socket.socket)?.command("reload-settings", Message::new())?;
    let answer = output::accepted("reload", answer)?;
    let keys = answer.get_list("restart-needed").unwrap_or_default();
    if keys.is_empty() {
        return output::print("configuration reloaded\n");
    }
    let keys = keys.join(", ");
    output::print(&format!(
        "configuration reloaded; needs a restart to take effect: {keys}\n"
    ))
}

/// Runs a command that takes a while, with its log on standard error.
fn logged(
    name: &str,
    mut request: Message,
    timeout: u32,
    socket: &SocketArgs,
) -> Result<Message, Failure> {
    request
        .set("timeout", u64::from(timeout) * 1000)
        .set("loglevel", 1);
    // The daemon keeps the time; we only notice when it does not.
    let limit = (timeout > 0).then(|| Duration::from_secs(u64::from(timeout)) + GRACE);
    let answer = Client::connect(&socket.socket)?.stream::<Failure>(
        name,
        request,
        "control-log",
        limit,
        |entry| {
            let field = |key| entry.get(key).unwrap_or_default();
            output::note(&format!("[{}] {}", field("group"), field("msg")));
            Ok(())
        },
    )?;
    output::accepted(name, answer)
}

fn set(request: &mut Message, key: &str, value: Option<impl ToString>) {
    if let Some(value) = value {
        request.set(key, value);
    }
}

/// "child lan of IKE SA site-b", as far as it was given.
fn selected(names: &[(&str, Option<&str>)]) -> String {
    let given: Vec<String> = names
        .iter()
        .rev()
        .filter_map(|(kind, name)| Some(format!("{kind} {}", (*name)?)))
        .collect();
    given.join(" of ")
}

const GRACE: Duration = Duration::from_secs(5);
