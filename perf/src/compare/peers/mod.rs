//! How each program is started. All get the same inner MTU and the same socket buffers.

pub(crate) mod forwarder;
pub(crate) mod lockgate;
pub(crate) mod openvpn;
pub(crate) mod strongswan;
pub(crate) mod wireguard;

use std::net::{IpAddr, Ipv4Addr};

use ::lockgate::lab::{A, OUTER_LINK, Side};
use anyhow::Result;
use ipnet::{IpNet, Ipv4Net};
use lockgate_perf::process::eventually;

use crate::tunnel::{INNER_MTU, Tunnel};

/// No program: the gateways route to each other.
pub(crate) fn direct(tunnel: &Tunnel) -> Result<()> {
    for (_, far, gateway) in tunnel.sides() {
        gateway.set_mtu(OUTER_LINK, INNER_MTU)?;
        gateway.add_route(IpNet::V4(far.network), IpAddr::V4(far.outer))?;
    }
    Ok(())
}

/// Brings up the TUN device that a program has made and routes the far network into it.
fn route_into(tunnel: &Tunnel, device: [&str; 2]) -> Result<()> {
    for ((here, far, gateway), device) in tunnel.sides().into_iter().zip(device) {
        eventually("the device exists", || gateway.up(device).is_ok())?;
        gateway.set_mtu(device, INNER_MTU)?;
        let own = IpNet::V4(Ipv4Net::new(transfer(here), 24)?);
        // Some programs give their device the address themselves.
        let _ = gateway.add_address(device, own);
        gateway.add_route(IpNet::V4(far.network), IpAddr::V4(transfer(far)))?;
    }
    Ok(())
}

/// A gateway's own address inside the tunnel.
fn transfer(side: Side) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, 0, if side.name == A.name { 1 } else { 2 })
}
