//! Lockgate as shipped: one worker per core, every offload.

use std::process::Command;

use ::lockgate::{
    cli::client::Client,
    lab::{A, Side},
    wire::vici::{Message, Value},
};
use anyhow::{Context, Result, bail};
use lockgate_perf::process::eventually;

use crate::{
    program::{Program, Tools},
    tunnel::{INNER_MTU, Tunnel},
};

pub(crate) fn start(tunnel: &mut Tunnel, tools: &Tools) -> Result<()> {
    // B listens before A calls.
    for (here, far) in sides_from_b(tunnel) {
        let config = configuration(tunnel, here, far);
        let file = tunnel.write(here, "toml", &config)?;
        let mut command = Command::new(&tools.lockgate);
        command.arg("run").arg("--config").arg(file);
        tunnel.spawn(here, command)?;
        let socket = tunnel.file(here, "vici");
        eventually("the daemon answers", || Client::connect(&socket).is_ok())?;
    }
    let mut client = Client::connect(&tunnel.file(A, "vici"))?;
    let mut arguments = Message::new();
    arguments.set("child", "net");
    arguments.set("timeout", "10000");
    let answer = client
        .command("initiate", arguments)
        .context("cannot initiate")?;
    if answer.get("success") != Some("yes") {
        bail!("initiate: {}", answer.get("errmsg").unwrap_or("refused"));
    }
    Ok(())
}

/// What both gateways have counted since their start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    /// Inner packets, in either direction.
    pub(crate) packets: u64,
    /// System calls that workers made.
    pub(crate) system_calls: u64,
}

/// The counters of a tunnel; `None` of other programs.
pub(crate) fn counters(tunnel: &Tunnel) -> Option<Counters> {
    let mut sum = Counters::default();
    for (here, _, _) in tunnel.sides() {
        let mut client = Client::connect(&tunnel.file(here, "vici")).ok()?;
        let stats = client.command("stats", Message::new()).ok()?;
        let of = |key| total(&stats, key);
        sum.packets += of("packets-in") + of("packets-out");
        sum.system_calls += of("system-calls");
    }
    (sum.system_calls > 0).then_some(sum)
}

/// The sum of all values of this name, however deep.
fn total(message: &Message, key: &str) -> u64 {
    let entries = message.iter().map(|(name, value)| match value {
        Value::Section(section) => total(section, key),
        Value::Text(text) if name == key => {
            let text = std::str::from_utf8(text).unwrap_or_default();
            text.parse().unwrap_or(0)
        }
        _ => 0,
    });
    entries.sum()
}

fn sides_from_b(tunnel: &Tunnel) -> [(Side, Side); 2] {
    let [(a, ..), (b, ..)] = tunnel.sides();
    [(b, a), (a, b)]
}

fn configuration(tunnel: &Tunnel, here: Side, far: Side) -> String {
    let (encap, esp) = match tunnel.program {
        Program::LockgateChacha => (true, "chacha20poly1305-x25519-esn"),
        Program::LockgateEsp => (false, "aes256gcm16-x25519-esn"),
        _ => (true, "aes256gcm16-x25519-esn"),
    };
    format!(
        r#"[daemon]
vici_socket = "{socket}"
crash_detection = false
tun_mtu = {INNER_MTU}

[connections.lab]
version = 2
local_addrs = ["{local}"]
remote_addrs = ["{remote}"]
encap = {encap}
proposals = ["aes256gcm16-prfsha384-x25519"]
local = {{ auth = "psk", id = "{local_id}" }}
remote = {{ auth = "psk", id = "{remote_id}" }}

[connections.lab.children.net]
local_ts = ["{local_ts}"]
remote_ts = ["{remote_ts}"]
esp_proposals = ["{esp}"]

[secrets.ike-lab]
id = ["{remote_id}"]
secret = "a comparison, not a secret"
"#,
        socket = tunnel.file(here, "vici").display(),
        local = here.outer,
        remote = far.outer,
        local_id = here.identity,
        remote_id = far.identity,
        local_ts = here.network,
        remote_ts = far.network,
    )
}
