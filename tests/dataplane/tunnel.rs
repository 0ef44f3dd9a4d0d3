//! A tunnel between two gateways: its policies, and its SAs generation by generation.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use lockgate::crypto::packet::{PacketKey, encryption_key_len};
use lockgate::ipsec::{
    Action, ChildId, Direction, EspEncap, EspPath, HeaderRules, InboundParams, InboundSa, Limits,
    Mode, OutboundParams, OutboundSa, Policy, PolicyId, Reqid, SaUpdate, SaUsage, Selectors, Spd,
    Spi, Template, TransportEnds, WorkerId,
};
use lockgate::wire::proposal::{CipherSuite, EncryptionId};
use lockgate::wire::selector::TrafficSelector;

use super::Gateway;

pub(crate) const REQID: Reqid = Reqid(7);
pub(crate) const CHILD: ChildId = ChildId(70);
pub(crate) const PORT: u16 = 4500;

/// What a tunnel between two gateways looks like.
#[derive(Clone)]
pub(crate) struct Tunnel {
    pub(crate) inner_v6: bool,
    pub(crate) outer_v6: bool,
    pub(crate) encap: EspEncap,
    pub(crate) rules: HeaderRules,
    pub(crate) limits: Limits,
    pub(crate) path_mtu: u16,
    pub(crate) replay_window: u32,
    pub(crate) workers: u16,
    /// The worker that owns both halves, on both sides.
    pub(crate) owner: u16,
    /// Networks of both sites where the inner packets are IPv6.
    pub(crate) sites_v6: [&'static str; 2],
    /// Whether every worker may have an SA of its own.
    pub(crate) per_worker: bool,
    /// Whether packets without an SA wait for one.
    pub(crate) trap: bool,
    /// Narrows both selectors.
    pub(crate) protocol_and_port: Option<(u8, u16)>,
    /// Between the gateways themselves, which are the sites.
    pub(crate) transport: bool,
}

impl Default for Tunnel {
    fn default() -> Self {
        Self {
            inner_v6: false,
            outer_v6: false,
            encap: EspEncap::Udp,
            rules: HeaderRules::default(),
            limits: Limits::NONE,
            path_mtu: 1500,
            replay_window: 64,
            workers: 1,
            owner: 0,
            sites_v6: ["2001:db8:a::/48", "2001:db8:b::/48"],
            per_worker: false,
            trap: false,
            protocol_and_port: None,
            transport: false,
        }
    }
}

impl Tunnel {
    /// Two gateways with this tunnel between them.
    pub(crate) fn build(&self) -> (Gateway, Gateway) {
        let (mut a, mut b) = self.without_sas();
        self.connect(&mut a, &mut b, 0);
        (a, b)
    }

    /// Two gateways with policies only.
    pub(crate) fn without_sas(&self) -> (Gateway, Gateway) {
        let [spd_a, spd_b] = self.policies();
        (
            Gateway::new(self.workers, spd_a),
            Gateway::new(self.workers, spd_b),
        )
    }

    /// The SPDs of both gateways.
    pub(crate) fn policies(&self) -> [Spd; 2] {
        let [site_a, site_b] = self.sites();
        let action = Action::Protect(Template {
            reqid: REQID,
            mode: Mode::Tunnel,
            trap: self.trap,
        });
        [(site_a, site_b), (site_b, site_a)]
            .map(|(local, remote)| Spd::new(vec![policy(local, remote, action, 100)]))
    }

    /// Gives both gateways the SAs of a `generation`, as a rekey does.
    pub(crate) fn connect(&self, a: &mut Gateway, b: &mut Gateway, generation: u32) {
        let [for_a, for_b] = self.updates(generation);
        for_a.into_iter().for_each(|update| a.update(update));
        for_b.into_iter().for_each(|update| b.update(update));
    }

    /// What both control threads send to their workers when the SAs of a `generation` are made.
    pub(crate) fn updates(&self, generation: u32) -> [[SaUpdate; 2]; 2] {
        let [site_a, site_b] = self.sites();
        let [outer_a, outer_b] = self.outer();
        let a_to_b = self.spi(0x1000 + generation);
        let b_to_a = self.spi(0x2000 + generation);
        let child = ChildId(CHILD.0 + u64::from(generation));
        [
            (b_to_a, a_to_b, outer_a, outer_b, site_a, site_b),
            (a_to_b, b_to_a, outer_b, outer_a, site_b, site_a),
        ]
        .map(|(inbound, outbound, local, remote, here, there)| {
            let path = EspPath {
                encap: self.encap,
                local,
                remote,
            };
            let selectors = Arc::new(Selectors {
                local: vec![here],
                remote: vec![there],
            });
            let mut outbound = self.outbound(outbound, child, path, Arc::clone(&selectors));
            let mut inbound = self.inbound(inbound, child, path, selectors);
            if self.transport {
                let ends = [remote.ip(), local.ip()];
                inbound.set_transport(TransportEnds::new(ends, ends).expect("one family"));
                outbound.set_transport();
            }
            [
                SaUpdate::AddInbound(Box::new(inbound)),
                SaUpdate::SwitchOutbound(Box::new(outbound)),
            ]
        })
    }

    /// The SPI that the first gateway chose for a generation.
    pub(crate) fn inbound_spi_of_a(&self, generation: u32) -> Spi {
        self.spi(0x2000 + generation)
    }

    fn inbound(
        &self,
        spi: Spi,
        child: ChildId,
        path: EspPath,
        selectors: Arc<Selectors>,
    ) -> InboundSa {
        InboundSa::new(InboundParams {
            spi,
            child,
            reqid: REQID,
            owner: WorkerId(self.owner),
            key: key(spi),
            esn: true,
            replay_window: self.replay_window,
            path,
            selectors,
            rules: self.rules,
            limits: self.limits,
            usage: Arc::new(SaUsage::default()),
        })
    }

    fn outbound(
        &self,
        spi: Spi,
        child: ChildId,
        path: EspPath,
        selectors: Arc<Selectors>,
    ) -> OutboundSa {
        let mut sa = OutboundSa::new(OutboundParams {
            spi,
            child,
            reqid: REQID,
            owner: WorkerId(self.owner),
            key: key(spi),
            esn: true,
            path,
            selectors,
            rules: self.rules,
            limits: self.limits,
            usage: Arc::new(SaUsage::default()),
            path_mtu: self.path_mtu,
        });
        sa.set_per_worker(self.per_worker);
        sa
    }

    /// An SPI that is the owner's.
    fn spi(&self, base: u32) -> Spi {
        let workers = u32::from(self.workers);
        Spi::new(base * workers + u32::from(self.owner)).expect("not reserved")
    }

    fn sites(&self) -> [TrafficSelector; 2] {
        let nets = if self.inner_v6 {
            self.sites_v6
        } else {
            ["10.1.0.0/16", "10.2.0.0/16"]
        };
        nets.map(|net| {
            let selector = TrafficSelector::net(net.parse().expect("literal"));
            match self.protocol_and_port {
                Some((protocol, port)) => selector
                    .with_ports(protocol, port..=port)
                    .expect("a single port"),
                None => selector,
            }
        })
    }

    fn outer(&self) -> [SocketAddr; 2] {
        let addresses = if self.outer_v6 {
            ["2001:db8:1::a", "2001:db8:2::b"]
        } else {
            ["192.0.2.1", "198.51.100.1"]
        };
        let port = if self.encap == EspEncap::Udp { PORT } else { 0 };
        addresses.map(|text| SocketAddr::new(text.parse().expect("literal"), port))
    }

    /// Host number `n` at the first site.
    pub(crate) fn host_a(&self, n: u16, port: u16) -> SocketAddr {
        host(
            if self.inner_v6 {
                "2001:db8:a::1:0"
            } else {
                "10.1.1.0"
            },
            n,
            port,
        )
    }

    /// Host number `n` at the second site.
    pub(crate) fn host_b(&self, n: u16, port: u16) -> SocketAddr {
        host(
            if self.inner_v6 {
                "2001:db8:b::1:0"
            } else {
                "10.2.1.0"
            },
            n,
            port,
        )
    }
}

/// Protects what goes from `local` to `remote`.
pub(crate) fn spd(local: TrafficSelector, remote: TrafficSelector) -> Spd {
    Spd::new(vec![policy(local, remote, protect(), 100)])
}

pub(crate) fn protect() -> Action {
    Action::Protect(Template {
        reqid: REQID,
        mode: Mode::Tunnel,
        trap: false,
    })
}

pub(crate) fn policy(
    local: TrafficSelector,
    remote: TrafficSelector,
    action: Action,
    priority: u32,
) -> Policy {
    Policy {
        id: PolicyId(priority),
        name: "test".to_owned(),
        direction: Direction::Out,
        local,
        remote,
        action,
        priority,
    }
}

/// A key of its own for each SPI, the same at both ends.
fn key(spi: Spi) -> PacketKey {
    let suite = CipherSuite {
        encryption: EncryptionId::AES_GCM_16,
        key_bits: 256,
        integrity: None,
    };
    let mut bytes = vec![0x42; encryption_key_len(&suite)];
    bytes[..4].copy_from_slice(&spi.to_be_bytes());
    PacketKey::new(suite, &bytes, &[]).expect("a key of the right length")
}

fn host(net: &str, n: u16, port: u16) -> SocketAddr {
    let address = match net.parse().expect("literal") {
        IpAddr::V4(net) => IpAddr::from((u32::from(net) + u32::from(n)).to_be_bytes()),
        IpAddr::V6(net) => IpAddr::from((u128::from(net) + u128::from(n)).to_be_bytes()),
    };
    SocketAddr::new(address, port)
}
