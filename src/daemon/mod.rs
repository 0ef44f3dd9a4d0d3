//! The control thread: IKE endpoint, timers, VICI server, routes, guard and signals.
//!
//! ```text
//! UDP 500, 4500 ─┐                                    ┌─► UDP 500, 4500
//! control socket ┤                                    ├─► workers (SA updates, policies)
//! signals        ├─► control: one turn of the loop ───┼─► guard and routes (policies)
//! workers' events┤        around ike::Endpoint        ├─► control clients (answers, events)
//! timers         ┘                                    └─► log
//! ```

mod addresses;
mod commands;
mod control;
pub mod failures;
pub mod guard;
mod key_log;
pub mod logging;
mod metrics;
mod reach;
mod report;
mod revocation;
pub mod routes;
mod signals;
mod sockets;
mod start;
mod state;
mod stats;
pub mod usage;
pub mod vici;

use std::path::Path;

pub use sockets::PortError;
pub use start::DaemonError;

use crate::config::Config;
use logging::LogLevel;
use sd_notify::NotifyState;

/// Runs the daemon until a signal ends it. `file` is read again on a reload.
pub fn run(config: Config, file: &Path, log_level: LogLevel) -> Result<(), DaemonError> {
    let control = start::start(config, file, log_level)?;
    control.log_offloads();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "ready");
    // Without a service manager there is nobody to notify.
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    control.run()
}
