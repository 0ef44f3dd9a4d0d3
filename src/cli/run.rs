//! `lockgate run`: the daemon in the foreground.

use super::{FAILED, USAGE, check, output};
use crate::{
    config::Config,
    daemon::{self, logging::LogLevel},
};
use std::{path::PathBuf, process::ExitCode};

/// Arguments of `lockgate run`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lockgate run -c gw.toml\n  lockgate check gw.toml && lockgate run -c gw.toml\n\nLogs to standard error and stays in the foreground. SIGHUP reads the configuration again, SIGTERM\nand SIGINT close all tunnels and end the daemon. Needs CAP_NET_ADMIN, CAP_NET_BIND_SERVICE and, for\nESP without UDP encapsulation, CAP_NET_RAW; gives up all others."
)]
pub struct Args {
    /// Configuration file
    #[arg(
        short,
        long,
        value_name = "FILE",
        default_value = "/etc/lockgate/lockgate.toml"
    )]
    pub config: PathBuf,
}

/// Runs the daemon until a signal ends it.
pub fn execute(args: &Args) -> ExitCode {
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(error) => {
            output::note(&error.to_string());
            return ExitCode::from(USAGE);
        }
    };
    config.warnings.iter().for_each(check::warn);
    let log_level = LogLevel::start(config.daemon.log, config.daemon.log_format);
    match daemon::run(config, &args.config, log_level) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error.to_string());
            ExitCode::from(FAILED)
        }
    }
}
