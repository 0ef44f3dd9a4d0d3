//! The ceiling: Lockgate's sockets, splitting and merging without policy, ESP or cipher.

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
            _ => {}
        }
        tunnel.spawn(here, command)?;
    }
    route_into(tunnel, [DEVICE, DEVICE])
}

const DEVICE: &str = "forward0";
