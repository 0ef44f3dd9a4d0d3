//! Debian's strongSwan with its ESP in user space (kernel-libipsec).

use std::process::Command;

use ::lockgate::lab::{A, Side};
use anyhow::Result;
use lockgate_perf::process::{eventually, run};
use lockgate_perf::strongswan::settings;

use crate::{
    program::Tools,
    tunnel::{INNER_MTU, Tunnel},
};

pub(crate) fn start(tunnel: &mut Tunnel, tools: &Tools) -> Result<()> {
    let sides = tunnel.sides().map(|(here, far, _)| (here, far));
    for (here, far) in sides {
        let settings = tunnel.write(here, "conf", &settings(&tunnel.file(here, "vici"), ""))?;
        let connections = tunnel.write(here, "swanctl.conf", &connections(here, far))?;
        let daemon = tools.executable(tunnel.program).unwrap_or_default();
        let mut command = Command::new(daemon);
        command.env("STRONGSWAN_CONF", settings);
        tunnel.spawn(here, command)?;
        let socket = tunnel.file(here, "vici");
        eventually("charon opens its socket", || socket.exists())?;
        let connections = connections.to_string_lossy();
        let load = ["--load-all", "--noprompt", "--file", &*connections];
        run(swanctl(tunnel, here, &load))?;
    }
    run(swanctl(tunnel, A, &["--initiate", "--child", "net"]))?;
    for (_, _, gateway) in tunnel.sides() {
        gateway.set_mtu("ipsec0", INNER_MTU)?;
    }
    Ok(())
}

fn swanctl(tunnel: &Tunnel, side: Side, arguments: &[&str]) -> Command {
    let mut command = Command::new("/usr/sbin/swanctl");
    command.env("STRONGSWAN_CONF", tunnel.file(side, "conf"));
    let socket = tunnel.file(side, "vici");
    let uri = format!("unix://{}", socket.display());
    command.args(arguments).args(["--uri", &uri]);
    command
}

fn connections(here: Side, far: Side) -> String {
    format!(
        r#"connections {{
    lab {{
        version = 2
        local_addrs = {local}
        remote_addrs = {remote}
        encap = yes
        mobike = no
        proposals = aes256gcm16-prfsha384-x25519
        local {{
            auth = psk
            id = {local_id}
        }}
        remote {{
            auth = psk
            id = {remote_id}
        }}
        children {{
            net {{
                local_ts = {local_ts}
                remote_ts = {remote_ts}
                esp_proposals = aes256gcm16
            }}
        }}
    }}
}}
secrets {{
    ike-lab {{
        id = {remote_id}
        secret = "a comparison, not a secret"
    }}
}}
"#,
        local = here.outer,
        remote = far.outer,
        local_id = here.identity,
        remote_id = far.identity,
        local_ts = here.network,
        remote_ts = far.network,
    )
}
