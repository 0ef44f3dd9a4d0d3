//! WireGuard in user space: four programs with one control protocol.

use std::{
    fmt::Write as _,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{self, Command},
    time::Duration,
};

use ::lockgate::lab::{A, Side};
use anyhow::{Context, Result, bail};
use lockgate_perf::process::eventually;

use super::route_into;
use crate::{
    program::{Program, Tools, first_existing},
    settings::DEVICE,
    tunnel::Tunnel,
};

pub(crate) fn start(tunnel: &mut Tunnel, tools: &Tools) -> Result<()> {
    let sides = tunnel.sides().map(|(here, far, _)| (here, far));
    for (here, far) in sides {
        let device = device(tunnel.program, here);
        // Left by a run that was killed and had our process id.
        let _ = std::fs::remove_file(&sockets(&device)[0]);
        tunnel.spawn(here, command(tunnel.program, tools, &device))?;
        eventually("the control socket exists", || {
            first_existing(&sockets(&device)).is_some()
        })?;
        configure(&device, here, far)?;
    }
    let [(a, ..), (b, ..)] = tunnel.sides();
    let devices = [a, b].map(|side| device(tunnel.program, side));
    let [a, b] = &devices;
    route_into(tunnel, [a, b])
}

fn command(program: Program, tools: &Tools, device: &str) -> Command {
    let mut command = Command::new(tools.executable(program).unwrap_or_default());
    match program {
        Program::Boringtun => {
            command.args(["--disable-drop-privileges", "--threads", "1", "-v", "error"]);
        }
        Program::Gotatun => {
            command.args(["--disable-drop-privileges", "-v", "error"]);
        }
        // By default it goes into the background, where nobody could end it.
        _ => {
            command.env("WG_PROCESS_FOREGROUND", "1");
            command.env("LOG_LEVEL", "error");
        }
    }
    command.args(["-f", device]);
    command
}

/// Control sockets are files, which all namespaces share, so the name has to be unique.
fn device(program: Program, side: Side) -> String {
    let letter = match program {
        Program::WireguardGo => 'w',
        Program::WireguardGo2022 => 'o',
        Program::Boringtun => 'b',
        _ => 'g',
    };
    let end = if side.name == A.name { 'a' } else { 'b' };
    format!("{DEVICE}{}{letter}{end}", process::id())
}

fn sockets(device: &str) -> [PathBuf; 1] {
    [PathBuf::from(format!("/var/run/wireguard/{device}.sock"))]
}

fn configure(device: &str, here: Side, far: Side) -> Result<()> {
    let [path] = sockets(device);
    let mut stream = UnixStream::connect(path).context("cannot reach the control socket")?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut text = String::from("set=1\n");
    let (private, public) = if here.name == A.name {
        (PRIVATE_A, PUBLIC_B)
    } else {
        (PRIVATE_B, PUBLIC_A)
    };
    writeln!(text, "private_key={private}")?;
    writeln!(text, "listen_port={PORT}")?;
    writeln!(text, "replace_peers=true")?;
    writeln!(text, "public_key={public}")?;
    writeln!(text, "endpoint={}:{PORT}", far.outer)?;
    writeln!(text, "allowed_ip={}", far.network)?;
    writeln!(text, "allowed_ip={}/32", super::transfer(far))?;
    text.push('\n');
    stream.write_all(text.as_bytes())?;
    let mut answer = [0; 256];
    let length = stream.read(&mut answer)?;
    let answer = String::from_utf8_lossy(answer.get(..length).unwrap_or_default());
    if !answer.contains("errno=0") {
        bail!("the configuration was refused: {answer}");
    }
    Ok(())
}

const PORT: u16 = 51820;
const PRIVATE_A: &str = "70076d0a7318a57d3c16c17251b26645df4c2f92ebc0992ac177fba51db92c6a";
const PUBLIC_A: &str = "f8a9535a2d2ff605e8e144d54f4ef5c62313a2055dbb21fddd3fd9c299eb015d";
const PRIVATE_B: &str = "58ab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e06b";
const PUBLIC_B: &str = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::is_control_socket;

    #[test]
    fn control_sockets_are_called_as_they_are_looked_for_after_a_kill() {
        for program in Program::ALL {
            let device = device(program, A);
            let end = device.strip_prefix(&format!("{DEVICE}{}", process::id()));
            let end = format!("{}.sock", end.expect("it begins so"));
            assert!(is_control_socket(&end), "{device}");
        }
    }
}
