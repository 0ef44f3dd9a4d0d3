//! Kernel switches of one network device.

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
