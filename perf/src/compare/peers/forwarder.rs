//! The ceiling: Lockgate's sockets, splitting and merging without policy and ESP, with and without its cipher
//! and its guard.

use std::process::Command;

use anyhow::Result;

use super::route_into;
use crate::{
    program::{Program, Tools},
    tunnel::{INNER_MTU, SOCKET_BUFFER, Tunnel},
};

pub(crate) fn start(tunnel: &mut Tunnel, tools: &Tools) -> Result<()> {
    let sides = tunnel.sides().map(|(here, far, _)| (here, far));
    for (here, far) in sides {
        let mut command = Command::new(&tools.forwarder);
        command.arg("--local").arg(here.outer.to_string());
        command.arg("--remote").arg(far.outer.to_string());
        command.arg("--mtu").arg(INNER_MTU.to_string());
        command.arg("--buffer").arg(SOCKET_BUFFER.to_string());
        match tunnel.program {
            Program::ForwarderEsp => drop(command.arg("--raw")),
            Program::ForwarderPlain => drop(command.arg("--no-offloads")),
            Program::ForwarderSealed => {
                command.args(["--cipher", "--guard"]);
                command.args([here.network.to_string(), far.network.to_string()]);
            }
            _ => {}
        }
        tunnel.spawn(here, command)?;
    }
    match tunnel.program {
        // It sets its routes itself.
        Program::ForwarderSealed => Ok(()),
        _ => route_into(tunnel, [DEVICE, DEVICE]),
    }
}

const DEVICE: &str = "forward0";
