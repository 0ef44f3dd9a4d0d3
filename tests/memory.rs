//! What a tunnel costs: both halves with a window of 4096 packets, its policies and its place in the
//! databases. Alone in its process, since it measures the process.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use lockgate::crypto::packet::{PacketKey, encryption_key_len};
use lockgate::ipsec::{
    Action, ChildId, Direction, EspEncap, EspPath, HeaderRules, InboundParams, InboundSa, Limits,
    Mode, OutboundParams, OutboundSa, Policy, PolicyId, Reqid, SaUsage, Sad, Selectors, Spd, Spi,
    Template, WorkerId,
};
use lockgate::wire::proposal::{CipherSuite, EncryptionId};
use lockgate::wire::selector::TrafficSelector;

const TUNNELS: u32 = 4000;
const LIMIT: usize = 8 * 1024;

#[test]
fn a_tunnel_takes_less_than_eight_kibibytes() {
    let mut sad = Sad::with_capacity(16);
    fill(&mut sad, 0..16); // whatever is allocated once is there from now on
    let before = resident_bytes();
    fill(&mut sad, 16..16 + TUNNELS);
    let spd = Spd::new((0..TUNNELS).flat_map(policies).collect());
    let each = (resident_bytes() - before) / TUNNELS as usize;
    assert!(each > 1024, "{each} bytes: nothing was measured");
    assert!(each <= LIMIT, "{each} bytes");
    assert_eq!(spd.policies().len(), 2 * TUNNELS as usize);
}

fn fill(sad: &mut Sad, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let selectors = Arc::new(Selectors {
            local: vec![net("172.16.0.0/12")],
            remote: vec![site(number)],
        });
        let spi = Spi::new(0x1000 + number).expect("not reserved");
        let (child, reqid, owner) = (ChildId(number.into()), Reqid(number + 1), WorkerId(0));
        let (rules, limits) = (HeaderRules::default(), Limits::NONE);
        let inbound = InboundSa::new(InboundParams {
            spi,
            child,
            reqid,
            owner,
            key: key(),
            esn: true,
            replay_window: 4096,
            path: path(),
            selectors: Arc::clone(&selectors),
            rules,
            limits,
            usage: Arc::default(),
        });
        let outbound = OutboundSa::new(OutboundParams {
            spi,
            child,
            reqid,
            owner,
            key: key(),
            esn: true,
            path: path(),
            selectors,
            rules,
            limits,
            usage: Arc::<SaUsage>::default(),
            path_mtu: 1500,
        });
        assert!(sad.add_inbound(Box::new(inbound)).is_none());
        assert!(sad.switch_outbound(Box::new(outbound)).is_none());
    }
}

fn policies(number: u32) -> [Policy; 2] {
    [Direction::Out, Direction::Forward].map(|direction| Policy {
        id: PolicyId(number),
        name: format!("site-{number}"),
        direction,
        local: net("172.16.0.0/12"),
        remote: site(number),
        action: Action::Protect(Template {
            reqid: Reqid(number + 1),
            mode: Mode::Tunnel,
        }),
        priority: 100,
    })
}

fn key() -> PacketKey {
    let suite = CipherSuite {
        encryption: EncryptionId::AES_GCM_16,
        key_bits: 256,
        integrity: None,
    };
    PacketKey::new(suite, &vec![0x5a; encryption_key_len(&suite)], &[]).expect("a good key")
}

fn path() -> EspPath {
    let end = SocketAddr::new(IpAddr::from([192, 0, 2, 1]), 4500);
    EspPath {
        encap: EspEncap::Udp,
        local: end,
        remote: end,
    }
}

fn site(number: u32) -> TrafficSelector {
    net(&format!("10.{}.{}.0/24", number / 256, number % 256))
}

fn net(text: &str) -> TrafficSelector {
    text.parse().expect("a selector")
}

/// The process's resident set (proc(5)).
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("a mounted /proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kilobytes
        .and_then(|text| text.parse::<usize>().ok())
        .expect("a number")
        * 1024
}
