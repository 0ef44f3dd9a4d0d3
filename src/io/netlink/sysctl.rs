//! Kernel switches of network devices.

use std::{fs, io};

/// Exempts packets that leave or arrive by a device from XFRM policies.
///
/// Without this, policies that keep clear text off the physical interfaces would also stop it on
/// its way into the tunnel device. The kernel has the pair of switches for IPv4 only.
pub fn exempt_from_xfrm(device: &str) -> io::Result<()> {
    for switch in ["disable_xfrm", "disable_policy"] {
        fs::write(format!("/proc/sys/net/ipv4/conf/{device}/{switch}"), "1")?;
    }
    Ok(())
}

/// Keeps a device that is still down from getting an IPv6 link-local address when it comes up.
pub fn generate_no_addresses(device: &str) -> io::Result<()> {
    // IN6_ADDR_GEN_MODE_NONE
    fs::write(
        format!("/proc/sys/net/ipv6/conf/{device}/addr_gen_mode"),
        "1",
    )
}

/// Whether the switches of [`exempt_from_xfrm`] can be set at all.
#[must_use]
pub fn can_exempt_from_xfrm() -> bool {
    // Opening for writing changes nothing and fails as a write would.
    fs::OpenOptions::new()
        .write(true)
        .open("/proc/sys/net/ipv4/conf/default/disable_xfrm")
        .is_ok()
}

/// Switches that somebody else has set and that make XFRM policies void, as `sysctl` names them. For IPv4 those
/// of `device` and of `lo` are meant to be set, and `default` is for devices that are yet to come.
#[must_use]
pub fn void_xfrm(device: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (family, switches) in [
        ("ipv4", &["disable_xfrm", "disable_policy"][..]),
        ("ipv6", &["disable_policy"]),
    ] {
        // Without the folder there is no such family, and nothing that it could let through.
        let devices = fs::read_dir(format!("/proc/sys/net/{family}/conf"));
        for entry in devices.into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_exempt = family == "ipv4" && (name == device || name == "lo");
            if is_exempt || name == "default" {
                continue;
            }
            let is_set = |switch: &&&str| {
                let value = fs::read_to_string(entry.path().join(**switch));
                value.is_ok_and(|value| value.trim() != "0")
            };
            let set = switches.iter().filter(is_set);
            // In the name of a switch a slash stands for a dot.
            let name = name.replace('.', "/");
            found.extend(set.map(|switch| format!("net.{family}.conf.{name}.{switch}")));
        }
    }
    found.sort();
    found
}
