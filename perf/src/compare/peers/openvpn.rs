//! OpenVPN, its data channel in user space, with certificates that know each other's fingerprint.

use std::{fs, process::Command};

use ::lockgate::lab::{A, Side};
use anyhow::{Context, Result};
use lockgate_perf::process::{eventually, run};

use super::{route_into, transfer};
use crate::{
    program::Tools,
    tunnel::{INNER_MTU, SOCKET_BUFFER, Tunnel},
};

pub(crate) fn start(tunnel: &mut Tunnel, tools: &Tools) -> Result<()> {
    let sides = tunnel.sides().map(|(here, far, _)| (here, far));
    for (here, _) in sides {
        make_certificate(tunnel, here)?;
    }
    for (here, far) in sides {
        let config = configuration(tunnel, here, far)?;
        let file = tunnel.write(here, "ovpn", &config)?;
        let mut command = Command::new(tools.executable(tunnel.program).unwrap_or_default());
        command.env("LD_LIBRARY_PATH", tools.libraries("openvpn"));
        command.arg("--config").arg(file);
        tunnel.spawn(here, command)?;
    }
    for (here, _) in sides {
        let log = tunnel.file(here, "log");
        eventually("OpenVPN has finished its start", || {
            fs::read_to_string(&log).is_ok_and(|log| log.contains("Sequence Completed"))
        })?;
    }
    route_into(tunnel, [DEVICE, DEVICE])
}

fn make_certificate(tunnel: &Tunnel, side: Side) -> Result<()> {
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-nodes", "-days", "30", "-newkey", "ec"]);
    command.args(["-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    command.args(["-subj", &format!("/CN={}", side.identity)]);
    command.arg("-keyout").arg(tunnel.file(side, "key"));
    command.arg("-out").arg(tunnel.file(side, "crt"));
    run(command).map(drop)
}

fn fingerprint(tunnel: &Tunnel, side: Side) -> Result<String> {
    let mut command = Command::new("openssl");
    command.args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]);
    command.arg(tunnel.file(side, "crt"));
    let text = run(command)?;
    let (_, print) = text
        .trim()
        .split_once('=')
        .context("openssl prints NAME=FINGERPRINT")?;
    Ok(print.to_owned())
}

fn configuration(tunnel: &Tunnel, here: Side, far: Side) -> Result<String> {
    let role = if here.name == A.name {
        "tls-client"
    } else {
        "tls-server\ndh none"
    };
    Ok(format!(
        "dev {DEVICE}\n\
         dev-type tun\n\
         mode p2p\n\
         proto udp4\n\
         local {local}\n\
         remote {remote}\n\
         port 1194\n\
         ifconfig {own} {other}\n\
         {role}\n\
         cert {certificate}\n\
         key {key}\n\
         peer-fingerprint {fingerprint}\n\
         data-ciphers AES-256-GCM\n\
         disable-dco\n\
         tun-mtu {INNER_MTU}\n\
         mssfix 0\n\
         sndbuf {SOCKET_BUFFER}\n\
         rcvbuf {SOCKET_BUFFER}\n\
         verb 3\n",
        local = here.outer,
        remote = far.outer,
        own = transfer(here),
        other = transfer(far),
        certificate = tunnel.file(here, "crt").display(),
        key = tunnel.file(here, "key").display(),
        fingerprint = fingerprint(tunnel, far)?,
    ))
}

const DEVICE: &str = "tun0";
