//! Two hosts and two gateways on this machine, and traffic between the hosts.
//!
//! ```text
//! host-a ───────── gateway-a ═══════════════ gateway-b ───────── host-b
//! 10.1.0.10     10.1.0.1  192.0.2.1    192.0.2.2  10.2.0.1     10.2.0.10
//! ```
//!
//! The lab is four network namespaces with their links and addresses; which program joins the two
//! networks, and how it is started in `gateway_a` and `gateway_b`, is the caller's affair.
//! [`traffic`] has the generators, [`meter`] counts the processor time that programs take, and
//! [`report`] shows what came of it.

pub mod machine;
pub mod meter;
pub mod report;
pub mod traffic;

use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rustix::thread::{CapabilitySet, capabilities};

use crate::io::netns::{Namespace, become_root_in_user_namespace, connect};

/// The four namespaces, cabled and addressed, without any tunnel.
#[derive(Debug)]
pub struct Lab {
    /// Behind gateway A.
    pub host_a: Namespace,
    /// The left gateway.
    pub gateway_a: Namespace,
    /// The right gateway.
    pub gateway_b: Namespace,
    /// Behind gateway B.
    pub host_b: Namespace,
}

/// What one side of the lab is made of.
#[derive(Clone, Copy, Debug)]
pub struct Side {
    /// What its gateway is called.
    pub name: &'static str,
    /// The IKE identity of its gateway.
    pub identity: &'static str,
    /// Its gateway on the link between the gateways.
    pub outer: Ipv4Addr,
    /// Its gateway on the link to the host.
    pub inner: Ipv4Addr,
    /// Its host.
    pub host: Ipv4Addr,
    /// The network behind its gateway.
    pub network: Ipv4Net,
    /// As `outer`, in a lab with IPv6.
    pub outer_v6: Ipv6Addr,
    /// As `inner`, in a lab with IPv6.
    pub inner_v6: Ipv6Addr,
    /// As `host`, in a lab with IPv6.
    pub host_v6: Ipv6Addr,
    /// As `network`, in a lab with IPv6.
    pub network_v6: Ipv6Net,
}

/// The left side.
pub const A: Side = Side {
    name: "gateway-a",
    identity: "gw-a.example",
    outer: Ipv4Addr::new(192, 0, 2, 1),
    inner: Ipv4Addr::new(10, 1, 0, 1),
    host: Ipv4Addr::new(10, 1, 0, 10),
    network: Ipv4Net::new_assert(Ipv4Addr::new(10, 1, 0, 0), 24),
    outer_v6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
    inner_v6: Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1),
    host_v6: Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10),
    network_v6: Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0), 64),
};

/// The right side.
pub const B: Side = Side {
    name: "gateway-b",
    identity: "gw-b.example",
    outer: Ipv4Addr::new(192, 0, 2, 2),
    inner: Ipv4Addr::new(10, 2, 0, 1),
    host: Ipv4Addr::new(10, 2, 0, 10),
    network: Ipv4Net::new_assert(Ipv4Addr::new(10, 2, 0, 0), 24),
    outer_v6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2),
    inner_v6: Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1),
    host_v6: Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x10),
    network_v6: Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0), 64),
};

/// The link between the gateways, as each of them calls it.
pub const OUTER_LINK: &str = "outer";
/// The link between a gateway and its host, as both call it.
pub const INNER_LINK: &str = "inner";

/// Why no lab can be built here.
#[derive(Debug, thiserror::Error)]
pub enum Unprepared {
    /// The system refuses network namespaces.
    #[error(
        "cannot create network namespaces: {0}\n\
         Run it as root. Without root it needs user namespaces: sysctl kernel.unprivileged_userns_clone=1 \
         (Debian) or kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu). \
         In a container it needs the capability SYS_ADMIN."
    )]
    Namespaces(#[source] io::Error),
    /// There is no TUN driver, or no access to it.
    #[error(
        "cannot open /dev/net/tun: {0}\n\
         Load the module with `modprobe tun`, give the container --device /dev/net/tun, \
         or let this user open it (mode 0666 is the usual one)."
    )]
    Tun(#[source] io::Error),
    /// This process may not even ask.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Sees to it that this process may create namespaces and TUN devices, or tells what is missing.
/// Has to be called while the process has one thread. Returns how another process enters one of
/// the namespaces: a command that lacks `--net=PATH`.
pub fn prepare() -> Result<String, Unprepared> {
    let needed = CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN;
    let own = capabilities(None).map_err(io::Error::from)?.effective;
    let enter = if own.contains(needed) {
        let sudo = std::env::var_os("SUDO_USER").map_or("", |_| "sudo ");
        format!("{sudo}nsenter")
    } else {
        // A root without these, as in a container, may still have user namespaces.
        become_root_in_user_namespace().map_err(Unprepared::Namespaces)?;
        let user = format!("--user=/proc/{}/ns/user", std::process::id());
        format!("nsenter {user} --preserve-credentials")
    };
    drop(Namespace::new("probe").map_err(Unprepared::Namespaces)?);
    File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .map_err(Unprepared::Tun)?;
    Ok(enter)
}

/// What the links of a [`Lab`] are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabOptions {
    /// MTU of the link between the gateways.
    pub outer_mtu: u32,
    /// MTU of the links between gateway and host; what the hosts' TCP sees of the tunnel.
    pub inner_mtu: u32,
    /// Whether the outer link takes datagrams one by one, as a wire does. A pair of virtual links
    /// otherwise hands a train of UDP datagrams (UDP_SEGMENT) over in one piece.
    pub wire: bool,
    /// Whether everything has IPv6 addresses too.
    pub ipv6: bool,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self {
            outer_mtu: 1500,
            inner_mtu: 1500,
            wire: false,
            ipv6: false,
        }
    }
}

impl Lab {
    /// Builds it. Both gateways forward, and have no route to the other side's network.
    pub fn build(options: &LabOptions) -> io::Result<Self> {
        let lab = Self {
            host_a: Namespace::new("host-a")?,
            gateway_a: Namespace::new("gateway-a")?,
            gateway_b: Namespace::new("gateway-b")?,
            host_b: Namespace::new("host-b")?,
        };
        if options.ipv6 {
            for namespace in lab.namespaces() {
                // A gateway asks for neighbours with its link-local address, which has to be usable.
                namespace.sysctl("ipv6/conf/default/dad_transmits", "0")?;
            }
        }
        connect(
            (&lab.gateway_a, OUTER_LINK),
            (&lab.gateway_b, OUTER_LINK),
            options.outer_mtu,
        )?;
        for (gateway, host, side) in [
            (&lab.gateway_a, &lab.host_a, A),
            (&lab.gateway_b, &lab.host_b, B),
        ] {
            connect((gateway, INNER_LINK), (host, INNER_LINK), options.inner_mtu)?;
            gateway.sysctl("ipv4/ip_forward", "1")?;
            gateway.add_address(OUTER_LINK, in_24(side.outer))?;
            gateway.add_address(INNER_LINK, in_24(side.inner))?;
            host.add_address(INNER_LINK, in_24(side.host))?;
            host.add_route(IpNet::default(), IpAddr::V4(side.inner))?;
            if options.ipv6 {
                gateway.sysctl("ipv6/conf/all/forwarding", "1")?;
                gateway.add_address(OUTER_LINK, in_64(side.outer_v6))?;
                gateway.add_address(INNER_LINK, in_64(side.inner_v6))?;
                host.add_address(INNER_LINK, in_64(side.host_v6))?;
                let everywhere = IpNet::V6(Ipv6Net::default());
                host.add_route(everywhere, IpAddr::V6(side.inner_v6))?;
            }
            if options.wire {
                gateway.set_feature(OUTER_LINK, "tx-udp-segmentation", false)?;
            }
        }
        Ok(lab)
    }

    /// All four, from left to right.
    pub fn namespaces(&self) -> [&Namespace; 4] {
        [&self.host_a, &self.gateway_a, &self.gateway_b, &self.host_b]
    }
}

fn in_64(address: Ipv6Addr) -> IpNet {
    IpNet::new(IpAddr::V6(address), 64).expect("64 is a prefix length of IPv6")
}

fn in_24(address: Ipv4Addr) -> IpNet {
    IpNet::new(IpAddr::V4(address), 24).expect("24 is a prefix length of IPv4")
}
