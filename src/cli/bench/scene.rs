//! Suites, sizes, SAs and packets.

use std::{net::SocketAddr, num::NonZeroU16, sync::Arc};

use crate::{
    crypto::packet::{PacketKey, encryption_key_len, integrity_key_len},
    dataplane::{Pipeline, WorkerCommand, detached_pipelines},
    ipsec::{
        Action, ChildId, Direction, EspEncap, EspPath, HeaderRules, InboundParams, InboundSa,
        Limits, Mode, OutboundParams, OutboundSa, Policy, PolicyId, Reqid, SaUpdate, SaUsage,
        Selectors, Spd, Spi, Template, WorkerId,
    },
    wire::{
        proposal::{CipherSuite, EncryptionId, IntegrityId},
        selector::TrafficSelector,
        vnet::VnetHeader,
    },
};

/// The suites by the names that the configuration uses.
pub(super) const SUITES: [(&str, CipherSuite); 8] = [
    ("aes128gcm16", suite(EncryptionId::AES_GCM_16, 128, None)),
    ("aes192gcm16", suite(EncryptionId::AES_GCM_16, 192, None)),
    ("aes256gcm16", suite(EncryptionId::AES_GCM_16, 256, None)),
    (
        "chacha20poly1305",
        suite(EncryptionId::CHACHA20_POLY1305, 0, None),
    ),
    ("aes128-sha256", suite(EncryptionId::AES_CBC, 128, SHA256)),
    ("aes256-sha256", suite(EncryptionId::AES_CBC, 256, SHA256)),
    ("aes256-sha512", suite(EncryptionId::AES_CBC, 256, SHA512)),
    ("null-sha256", suite(EncryptionId::NULL, 0, SHA256)),
];

const SHA256: Option<IntegrityId> = Some(IntegrityId::HMAC_SHA2_256_128);
const SHA512: Option<IntegrityId> = Some(IntegrityId::HMAC_SHA2_512_256);

const fn suite(
    encryption: EncryptionId,
    key_bits: u16,
    integrity: Option<IntegrityId>,
) -> CipherSuite {
    CipherSuite {
        encryption,
        key_bits,
        integrity,
    }
}

/// Lengths of inner packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// All of one length.
    Bytes(usize),
    /// [`IMIX_PARTS`], as CSIT mixes them.
    Imix,
}

/// What the mix is called.
pub(super) const IMIX: &str = "imix";
/// What is in it.
pub(super) const IMIX_PARTS: &str = "28 packets of 64, 16 of 570 and 4 of 1518 bytes";

impl Size {
    /// A burst of them.
    pub(super) fn lengths(self) -> Vec<usize> {
        match self {
            Self::Bytes(size) => vec![size; (BURST_BYTES / size.max(1)).clamp(8, 64)],
            Self::Imix => (0..48_usize)
                .map(|place| match place % 12 {
                    0 => 1518,
                    1 | 4 | 7 | 10 => 570,
                    _ => 64,
                })
                .collect(),
        }
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(size) => write!(f, "{size}"),
            Self::Imix => f.write_str(IMIX),
        }
    }
}

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case(IMIX) {
            return Ok(Self::Imix);
        }
        match text.parse() {
            Ok(size) if (SMALLEST..=LARGEST).contains(&size) => Ok(Self::Bytes(size)),
            _ => Err(format!("a size is `imix` or {SMALLEST} to {LARGEST} bytes")),
        }
    }
}

pub(super) fn key(suite: CipherSuite) -> PacketKey {
    let encryption = vec![0x5a; encryption_key_len(&suite)];
    let integrity = vec![0xa5; integrity_key_len(&suite)];
    PacketKey::new(suite, &encryption, &integrity).expect("keys of the suite's own lengths")
}

pub(super) fn outbound_sa(suite: CipherSuite) -> OutboundSa {
    OutboundSa::new(OutboundParams {
        spi: spi(),
        child: ChildId(1),
        reqid: REQID,
        owner: WorkerId(0),
        key: key(suite),
        esn: true,
        path: path(),
        selectors: selectors(),
        rules: HeaderRules::default(),
        limits: Limits::NONE,
        usage: Arc::new(SaUsage::default()),
        path_mtu: u16::MAX,
    })
}

pub(super) fn inbound_sa(suite: CipherSuite) -> InboundSa {
    InboundSa::new(InboundParams {
        spi: spi(),
        child: ChildId(1),
        reqid: REQID,
        owner: WorkerId(0),
        key: key(suite),
        esn: true,
        replay_window: 4096,
        path: path(),
        selectors: selectors(),
        rules: HeaderRules::default(),
        limits: Limits::NONE,
        usage: Arc::new(SaUsage::default()),
    })
}

/// The packet path of one worker with a tunnel to itself: what it seals it can open.
pub(super) fn pipeline(suite: CipherSuite) -> Pipeline {
    let policy = Policy {
        id: PolicyId(1),
        name: "bench".to_owned(),
        direction: Direction::Out,
        local: network(),
        remote: network(),
        action: Action::Protect(Template {
            reqid: REQID,
            mode: Mode::Tunnel,
            trap: false,
        }),
        priority: 1,
    };
    let spd = Arc::new(Spd::new(vec![policy]));
    let mut pipeline = detached_pipelines(NonZeroU16::MIN, &spd)
        .pop()
        .expect("one worker was asked for");
    for update in [
        SaUpdate::AddInbound(Box::new(inbound_sa(suite))),
        SaUpdate::SwitchOutbound(Box::new(outbound_sa(suite))),
    ] {
        pipeline.apply(WorkerCommand::Update(update));
    }
    pipeline
}

/// A UDP packet of this length between two hosts of the tunnel.
pub(super) fn plain_packet(length: usize) -> Vec<u8> {
    let mut packet = ip_header(length, 17);
    packet.resize(length, 0x42);
    let udp = u16::try_from(length - IPV4)
        .unwrap_or(u16::MAX)
        .to_be_bytes();
    put(
        &mut packet,
        IPV4,
        &[0x1f, 0x90, 0x1f, 0x91, udp[0], udp[1], 0, 0],
    );
    packet
}

/// What one read of a TUN gives for a bulk TCP transfer with segments of this length.
pub(super) fn super_packet(length: usize) -> (VnetHeader, Vec<u8>, Vec<usize>) {
    let payload = length.saturating_sub(HEADERS).max(1);
    let segments = ((usize::from(u16::MAX) - HEADERS) / payload).clamp(1, 64);
    let total = HEADERS + payload * segments;
    let mut packet = ip_header(total, 6);
    packet.resize(total, 0x42);
    // Ports, sequence and acknowledgement, data offset 5 with ACK, window, checksum, urgent pointer.
    let tcp = [
        0x1f, 0x90, 0x1f, 0x91, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0,
    ];
    put(&mut packet, IPV4, &tcp);
    let header = VnetHeader {
        flags: VnetHeader::NEEDS_CSUM,
        gso_type: if segments > 1 {
            VnetHeader::GSO_TCPV4
        } else {
            VnetHeader::GSO_NONE
        },
        hdr_len: 40,
        gso_size: u16::try_from(payload).unwrap_or(u16::MAX),
        csum_start: 20,
        csum_offset: 16,
    };
    (header, packet, vec![HEADERS + payload; segments])
}

fn ip_header(total: usize, protocol: u8) -> Vec<u8> {
    let [high, low] = u16::try_from(total).unwrap_or(u16::MAX).to_be_bytes();
    let mut header = vec![0x45, 0, high, low, 0, 1, 0x40, 0, 64, protocol, 0, 0];
    header.extend([10, 1, 0, 10, 10, 2, 0, 10]);
    header
}

fn put(packet: &mut [u8], at: usize, bytes: &[u8]) {
    for (to, from) in packet.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}

fn spi() -> Spi {
    Spi::new(0x1234_5678).expect("not a reserved one")
}

fn path() -> EspPath {
    let end = SocketAddr::from(([192, 0, 2, 1], 4500));
    EspPath {
        encap: EspEncap::Udp,
        local: end,
        remote: end,
    }
}

fn selectors() -> Arc<Selectors> {
    Arc::new(Selectors {
        local: vec![network()],
        remote: vec![network()],
    })
}

fn network() -> TrafficSelector {
    "10.0.0.0/8".parse().expect("a literal")
}

const REQID: Reqid = Reqid(1);
const IPV4: usize = 20;
/// IPv4 and TCP without options.
const HEADERS: usize = 40;
const SMALLEST: usize = 44;
const LARGEST: usize = 60_000;
/// What a burst holds, so that it stays in the second-level cache like a real one.
const BURST_BYTES: usize = 128 << 10;
