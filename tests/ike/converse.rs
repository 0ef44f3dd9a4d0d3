//! Two endpoints that hand each other their messages, and nobody between them.

use std::time::Instant;

use lockgate::ike::{Command, CommandId, Endpoint, Input, Output, Path};
use lockgate::ipsec::SaUpdate;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::config::{Setup, Side, ike_proposals};

/// An endpoint with this IKE proposal and a shared secret.
pub(crate) fn endpoint(side: Side, proposal: &str, now: Instant) -> Endpoint {
    let mut setup = Setup::new(side);
    setup.connection.proposals = ike_proposals(&[proposal]);
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
            | Output::Fetch(_)
            | Output::Route(_) => {}
        }
    }
    (sent, installed)
}

/// Carries out `command` at the first end. Returns how many Child SAs came up, and after how many
/// messages both were silent.
pub(crate) fn converse(
    [initiator, responder]: &mut [Endpoint; 2],
    now: Instant,
    command: Command,
) -> (u32, u32) {
    let id = CommandId(1);
    initiator.handle(now, Input::Command { id, command });
    let (mut up, mut turn) = (0, 0);
    loop {
        let (from, to) = if turn % 2 == 0 {
            (&mut *initiator, &mut *responder)
        } else {
            (&mut *responder, &mut *initiator)
        };
        let (sent, installed) = drain(from);
        up += u32::from(installed);
        let Some((path, bytes)) = sent else {
            return (up, turn);
        };
        let bytes = &bytes;
        to.handle(now, Input::Datagram { path, bytes });
        turn += 1;
    }
}
