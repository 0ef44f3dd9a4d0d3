//! A whole IKEv2 handshake of two endpoints: IKE_SA_INIT and IKE_AUTH with a shared secret, one
//! Child SA, per key exchange method. Both sides' work is counted.

#[path = "../tests/ike/config.rs"]
#[allow(
    dead_code,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "shared with tests/ike.rs, which uses the rest"
)]
mod config;

use std::hint::black_box;
use std::time::Instant;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use lockgate::ike::{Command, CommandId, Endpoint, Input, Output, Path};
use lockgate::ipsec::SaUpdate;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use config::{Setup, Side, ike_proposals};

const GROUPS: [&str; 3] = ["x25519", "ecp256", "modp2048"];

fn endpoint(side: Side, group: &str, now: Instant) -> Endpoint {
    let mut setup = Setup::new(side);
    let proposal = format!("aes256gcm16-prfsha384-{group}");
    setup.connection.proposals = ike_proposals(&[&proposal]);
    let rng = ChaCha20Rng::seed_from_u64(side as u64);
    let (settings, pad) = (setup.settings.clone(), setup.pad());
    let mut endpoint = Endpoint::new(settings, pad, Box::new(rng), now);
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
            Output::Update(_)
            | Output::Keepalive(_)
            | Output::Event(_)
            | Output::KeyLog(_)
            | Output::Fetch(_) => {}
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
        let pair = || Side::BOTH.map(|side| endpoint(side, method, now));
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
