//! A whole IKEv2 handshake of two endpoints beside the key exchange in it, interleaved in one process:
//! IKE_SA_INIT and IKE_AUTH with a shared secret, one Child SA. Both sides' work is counted.
//!
//! Each round runs every row ten times; a row's figure is the median of its rounds, so that a disturbance
//! meets all rows alike and ratios hold on a busy machine. The endpoints live on from round to round;
//! taking the SAs down again is not counted. `cargo bench --bench handshake -- ROUNDS ROW`, 100 unless told
//! otherwise, and of all rows unless a part of a name says which.

#[path = "../tests/ike/config.rs"]
#[allow(
    dead_code,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "shared with tests/ike.rs, which uses the rest"
)]
mod config;
#[path = "../tests/ike/converse.rs"]
mod converse;

use std::hint::black_box;
use std::time::{Duration, Instant};

use lockgate::crypto::kex::{self, KeyExchange};
use lockgate::ike::{Command, Endpoint};
use lockgate::wire::proposal::KeyExchangeId;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use config::Side;
use converse::{converse, endpoint};

const ROWS: [(&str, KeyExchangeId); 5] = [
    ("aes256gcm16-prfsha384-x25519", KeyExchangeId::X25519),
    ("aes128gcm16-prfsha256-x25519", KeyExchangeId::X25519),
    ("aes256gcm16-prfsha384-ecp256", KeyExchangeId::ECP256),
    ("aes256gcm16-prfsha384-ecp384", KeyExchangeId::ECP384),
    ("aes256gcm16-prfsha384-modp2048", KeyExchangeId::MODP2048),
];

fn main() {
    let arguments = || std::env::args().skip(1);
    let rounds = arguments().find_map(|argument| argument.parse().ok());
    let rounds: usize = rounds.unwrap_or(100);
    let names: Vec<String> = arguments()
        .filter(|argument| argument.parse::<usize>().is_err() && !argument.starts_with("--"))
        .collect();
    let is_asked = |row: &&(&str, KeyExchangeId)| {
        names.is_empty() || names.iter().any(|name| row.0.contains(name))
    };
    let rows = ROWS.iter().filter(is_asked);
    let mut rows: Vec<Row> = rows
        .map(|(proposal, group)| Row::new(proposal, *group))
        .collect();
    for _ in 0..rounds {
        for row in &mut rows {
            (0..REPEATED).for_each(|_| row.turn());
        }
    }
    println!("microseconds of both ends together, medians of {rounds} rounds of {REPEATED}");
    for row in &mut rows {
        let [exchange, handshake] =
            [&mut row.exchanges, &mut row.handshakes].map(|times| median(times));
        let (name, ratio) = (row.proposal, handshake / exchange);
        println!(
            "  {name:32} key exchange {exchange:7.1}   handshake {handshake:7.1}  x {ratio:.2}"
        );
    }
}

/// Two endpoints that agree on one proposal, and what their handshakes and its key exchange took.
struct Row {
    proposal: &'static str,
    group: KeyExchangeId,
    rng: ChaCha20Rng,
    ends: [Endpoint; 2],
    exchanges: Vec<f64>,
    handshakes: Vec<f64>,
}

impl Row {
    fn new(proposal: &'static str, group: KeyExchangeId) -> Self {
        let now = Instant::now();
        Self {
            proposal,
            group,
            rng: ChaCha20Rng::seed_from_u64(2),
            ends: Side::BOTH.map(|side| endpoint(side, proposal, now)),
            exchanges: Vec::new(),
            handshakes: Vec::new(),
        }
    }

    fn turn(&mut self) {
        let time = timed(|| exchange(self.group, &mut self.rng));
        self.exchanges.push(time);
        // A moment for which admission has long forgotten the turn before.
        let now = Instant::now() + PAUSE * u32::try_from(self.exchanges.len()).expect("few turns");
        let child = Some("lan".into());
        let up = Command::Initiate { ike: None, child };
        let time = timed(|| assert_eq!(converse(&mut self.ends, now, up), (2, 4), "{UP}"));
        self.handshakes.push(time);
        let down = Command::Terminate {
            ike: Some(CONNECTION.into()),
            child: None,
            ike_id: None,
            child_id: None,
            force: false,
        };
        assert_eq!(converse(&mut self.ends, now, down), (0, 2));
    }
}

/// One key exchange: two private values, two public ones, the secret twice.
fn exchange(group: KeyExchangeId, rng: &mut ChaCha20Rng) {
    let ours = KeyExchange::generate(group, rng).expect("a group of ours");
    let answer = kex::answer(group, ours.public(), rng).expect("a good public value");
    black_box(ours.finish(&answer.public).expect("a good public value"));
}

/// Microseconds that something takes.
fn timed(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64() * 1e6
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

/// As in a storm of handshakes: caches know the way.
const REPEATED: usize = 10;
const CONNECTION: &str = "site";
const PAUSE: Duration = Duration::from_secs(1);
const UP: &str = "one Child SA on both sides, four messages";
