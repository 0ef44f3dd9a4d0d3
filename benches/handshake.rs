//! A whole IKEv2 handshake of two endpoints: IKE_SA_INIT and IKE_AUTH with a shared secret, one
//! Child SA, per key exchange method. Both sides' work is counted.

use std::hint::black_box;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use lockgate::crypto::Secret;
use lockgate::ike::{
    AddressPattern, ChildConfig, ChildMode, CloseAction, Command, CommandId, Connection, DpdAction,
    Endpoint, IdentityPattern, Input, LocalAuth, Output, Pad, Path, RemoteAuth, SelectorConfig,
    Settings, SharedSecret, StartAction, Unique,
};
use lockgate::ipsec::{HeaderRules, Reqid, SaUpdate};
use lockgate::wire::keyword::parse_proposal;
use lockgate::wire::proposal::ProtocolId;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

const GROUPS: [&str; 3] = ["x25519", "ecp256", "modp2048"];

#[derive(Clone, Copy)]
enum Role {
    Initiator,
    Responder,
}

impl Role {
    fn addr(self) -> IpAddr {
        match self {
            Self::Initiator => [192, 0, 2, 1].into(),
            Self::Responder => [192, 0, 2, 2].into(),
        }
    }

    fn network(self) -> &'static str {
        match self {
            Self::Initiator => "10.1.0.0/24",
            Self::Responder => "10.2.0.0/24",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Initiator => Self::Responder,
            Self::Responder => Self::Initiator,
        }
    }
}

fn pad(role: Role, group: &str) -> Arc<Pad> {
    let host = |role: Role| vec![AddressPattern::Net(role.addr().into())];
    let net = |role: Role| {
        let selector = role.network().parse().expect("a selector");
        vec![SelectorConfig::Fixed(selector)]
    };
    let ike = format!("aes256gcm16-prfsha384-{group}");
    let child = ChildConfig {
        name: "lan".into(),
        reqid: Reqid(1),
        local_ts: net(role),
        remote_ts: net(role.other()),
        esp_proposals: vec![
            parse_proposal(ProtocolId::Esp, "aes256gcm16-esn").expect("a proposal"),
        ],
        mode: ChildMode::Tunnel,
        start_action: StartAction::None,
        close_action: CloseAction::None,
        dpd_action: DpdAction::Clear,
        rekey_time: Duration::from_secs(3600),
        life_time: Duration::from_secs(3960),
        rand_time: Duration::from_secs(360),
        rekey_bytes: 0,
        life_bytes: 0,
        rand_bytes: 0,
        rekey_packets: 0,
        life_packets: 0,
        rand_packets: 0,
        replay_window: 4096,
        rules: HeaderRules::default(),
        per_cpu_sas: true,
        priority: None,
    };
    let connection = Connection {
        name: "site".into(),
        local_addrs: host(role),
        remote_addrs: host(role.other()),
        local_port: 500,
        remote_port: 500,
        proposals: vec![parse_proposal(ProtocolId::Ike, &ike).expect("a proposal")],
        local: LocalAuth { id: None },
        remote: RemoteAuth {
            id: IdentityPattern::Any,
        },
        encap: false,
        dpd_delay: Duration::from_secs(30),
        rekey_time: Duration::from_secs(14_400),
        over_time: Duration::from_secs(1440),
        rand_time: Duration::from_secs(1440),
        reauth_time: Duration::ZERO,
        keyingtries: 1,
        unique: Unique::No,
        children: vec![Arc::new(child)],
    };
    Arc::new(Pad {
        connections: vec![Arc::new(connection)],
        secrets: vec![SharedSecret {
            name: "ike".into(),
            ids: Vec::new(),
            secret: Secret::from(b"correct horse battery staple".to_vec()),
        }],
    })
}

fn endpoint(role: Role, group: &str, now: Instant) -> Endpoint {
    let settings = Settings::new(NonZeroU16::MIN);
    let rng = ChaCha20Rng::seed_from_u64(role as u64);
    let mut endpoint = Endpoint::new(settings, pad(role, group), Box::new(rng), now);
    endpoint.handle(now, Input::Timer);
    endpoint
}

/// Takes what an endpoint sends to the other one, and whether it has installed a Child SA.
fn drain(endpoint: &mut Endpoint) -> (Option<(Path, Vec<u8>)>, bool) {
    let (mut sent, mut installed) = (None, false);
    while let Some(output) = endpoint.poll() {
        match output {
            Output::Transmit(transmit) => {
                let path = Path {
                    local: transmit.path.remote,
                    remote: transmit.path.local,
                };
                sent = Some((path, transmit.bytes));
            }
            Output::Update(SaUpdate::SwitchOutbound(_)) => installed = true,
            Output::Update(_) | Output::Keepalive(_) | Output::Event(_) => {}
        }
    }
    (sent, installed)
}

fn handshake(initiator: &mut Endpoint, responder: &mut Endpoint, now: Instant) {
    let command = Command::Initiate {
        ike: None,
        child: Some("lan".into()),
    };
    let id = CommandId(1);
    initiator.handle(now, Input::Command { id, command });
    let mut up = 0;
    let mut turn = 0;
    loop {
        let (from, to) = if turn % 2 == 0 {
            (&mut *initiator, &mut *responder)
        } else {
            (&mut *responder, &mut *initiator)
        };
        let (sent, installed) = drain(from);
        up += u32::from(installed);
        let Some((path, bytes)) = sent else {
            break;
        };
        let bytes = &bytes;
        to.handle(now, Input::Datagram { path, bytes });
        turn += 1;
    }
    assert_eq!(
        (up, turn),
        (2, 4),
        "one Child SA on both sides, four messages"
    );
}

fn handshakes(c: &mut Criterion) {
    let mut group = c.benchmark_group("handshake");
    for method in GROUPS {
        let now = Instant::now();
        let pair = || [Role::Initiator, Role::Responder].map(|role| endpoint(role, method, now));
        group.bench_function(method, |bencher| {
            bencher.iter_batched_ref(
                pair,
                |[initiator, responder]| handshake(black_box(initiator), responder, now),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, handshakes);
criterion_main!(benches);
