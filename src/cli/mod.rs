//! The command line: one file per subcommand.
//!
//! Every command is a function from its arguments to an exit code: 0 it worked, 1 the operation
//! failed, 2 the arguments or the configuration are wrong. All but `run`, `check`, `demo` and `bench` are
//! clients of the daemon's VICI socket.

pub mod bench;
pub mod check;
pub mod client;
pub mod control;
pub mod demo;
mod gateway;
pub mod monitor;
mod output;
pub mod run;
pub mod status;

use clap::{Parser, Subcommand};
use std::{path::PathBuf, process::ExitCode};

/// A userspace IPsec gateway: IKEv2 and ESP without kernel ESP.
#[derive(Debug, Parser)]
#[command(name = "lockgate", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway in the foreground
    Run(run::Args),
    /// Check a configuration file without starting anything
    Check(check::Args),
    /// Show tunnels, their traffic and what was dropped
    Status(status::Args),
    /// Bring up an IKE SA or one of its children and wait for it
    Initiate(control::InitiateArgs),
    /// Close IKE SAs or children
    Terminate(control::TerminateArgs),
    /// Give IKE SAs or children new keys
    Rekey(control::RekeyArgs),
    /// Have the daemon read its configuration file again
    Reload(control::ReloadArgs),
    /// Print what happens to tunnels as it happens
    Monitor(monitor::Args),
    /// Build two gateways on this machine and measure the tunnel between them
    Demo(demo::Args),
    /// Measure what a packet costs, stage by stage or end to end
    Bench(bench::Args),
}

/// Where the daemon listens.
#[derive(Clone, Debug, clap::Args)]
pub struct SocketArgs {
    /// Control socket of the daemon
    #[arg(long, value_name = "PATH", env = "LOCKGATE_SOCKET", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,
}

/// Parses the arguments of this process and runs the command they name.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(args) => run::execute(&args),
        Command::Check(args) => check::execute(&args),
        Command::Status(args) => output::finish(status::execute(&args)),
        Command::Initiate(args) => output::finish(control::initiate(&args)),
        Command::Terminate(args) => output::finish(control::terminate(&args)),
        Command::Rekey(args) => output::finish(control::rekey(&args)),
        Command::Reload(args) => output::finish(control::reload(&args)),
        Command::Monitor(args) => output::finish(monitor::execute(&args)),
        Command::Demo(args) => demo::execute(&args),
        Command::Bench(args) => bench::execute(&args),
    }
}

/// Exit code when the operation failed.
pub const FAILED: u8 = 1;
/// Exit code for wrong arguments or a wrong configuration.
pub const USAGE: u8 = 2;

const DEFAULT_SOCKET: &str = "/run/lockgate/lockgate.vici";

const EXAMPLES: &str = "\
Examples:
  lockgate demo                                 see a tunnel carry traffic on this machine
  lockgate check /etc/lockgate/lockgate.toml    find every mistake before the daemon does
  lockgate run -c /etc/lockgate/lockgate.toml   run the gateway
  lockgate status                               tunnels, traffic, drops
  lockgate initiate --child lan                 bring a tunnel up
  lockgate monitor                              watch tunnels come and go
  lockgate bench --report bench.html            what a packet costs on this machine

Exit codes: 0 fine, 1 the operation failed, 2 wrong arguments or configuration.";
