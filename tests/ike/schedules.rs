//! Two concurrent exchanges in every order that a bad network can bring: each of their messages is
//! delivered, dropped, repeated, or delayed by up to three slots, where a slot is the time of one
//! message on its way.
//!
//! A schedule says what both gateways want and what happens to each message, in the order of sending.
//! [`Explorer`] runs all schedules with up to [`Explorer::faults`] faults among the first
//! [`MESSAGES`] messages, depth first: what is never sent is not varied. The pair of gateways at
//! rest, which one schedule leaves behind, is where the next one begins, so that few handshakes are
//! needed. `LOCKGATE_SCHEDULES=wide` allows one fault more. The tests together ask for no fewer than
//! 10⁵ schedules, and for 10⁶ wide ones.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use lockgate::ipsec::Reqid;
use lockgate::wire::ikev2::{NotifyType, message_bytes};
use lockgate::wire::isakmp::{ExchangeType, Flags, Header, IkeSpi, PayloadType};

use super::actor::{join, notify};
use super::chaos::assert_mirrored;
use super::config::{Setup, Side, esp_proposals};
use super::network::Fate;
use super::pair::{
    Pair, initiate, millis, rekey_child, rekey_ike, seconds, terminate, terminate_child,
    terminate_ike,
};

/// What a side may want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    RekeyChild,
    RekeyIke,
    DeleteChild,
    DeleteIke,
    NewChild,
    Liveness,
}

const WISHES: [Wish; 6] = [
    Wish::RekeyChild,
    Wish::RekeyIke,
    Wish::DeleteChild,
    Wish::DeleteIke,
    Wish::NewChild,
    Wish::Liveness,
];

/// What happens to a message, by its number in a [`Schedule`].
const FATES: [Fate; 7] = [
    Fate::Deliver,
    Fate::Drop,
    Fate::Twice(millis(11)),
    Fate::Twice(millis(31)),
    Fate::Late(millis(11)),
    Fate::Late(millis(21)),
    Fate::Late(millis(31)),
];

/// When the second of two wishes comes: before, between or after the messages of the first.
const LATER: [Duration; 3] = [millis(0), millis(5), millis(15)];

/// How many messages of two exchanges, and of what follows them, meet a fate.
const MESSAGES: usize = 10;

/// Everything that decides about a run.
#[derive(Clone, Debug)]
struct Schedule {
    wishes: [(Side, Wish); 2],
    /// How long after the first one the second is wanted.
    later: Duration,
    /// Whose exchange has the lowest nonce.
    loser: Side,
    /// Who is the original initiator of the IKE SA.
    initiator: Side,
    fates: Vec<usize>,
}

impl Schedule {
    fn wants(&self, wish: Wish) -> bool {
        self.wishes.iter().any(|(_, wanted)| *wanted == wish)
    }

    /// The next one with no more than `faults` faults, after a run in which `sent` messages were sent;
    /// `None` when there is none.
    fn advance(&mut self, sent: usize, faults: usize) -> Option<()> {
        self.fates.resize(sent.min(MESSAGES), 0);
        while let Some(last) = self.fates.pop() {
            let before = self.fates.iter().filter(|fate| **fate != 0).count();
            if before < faults && last + 1 < FATES.len() {
                self.fates.push(last + 1);
                return Some(());
            }
        }
        None
    }
}

/// Runs schedules one after another on the same pair.
struct Explorer {
    pair: Pair,
    /// What the last run has left behind.
    rest: Rest,
    runs: usize,
    faults: usize,
}

impl Explorer {
    fn new() -> Self {
        let wide = std::env::var("LOCKGATE_SCHEDULES").is_ok_and(|width| width == "wide");
        Self {
            pair: quiet_pair(),
            rest: Rest::default(),
            runs: 0,
            faults: if wide { WIDE } else { WIDE - 1 },
        }
    }

    fn explore(&mut self, wishes: [(Side, Wish); 2]) {
        let collide = wishes[0].0 != wishes[1].0 && wishes[0].1 == wishes[1].1;
        let losers = if collide {
            &Side::BOTH[..]
        } else {
            &Side::BOTH[..1]
        };
        for (loser, later) in losers
            .iter()
            .flat_map(|loser| LATER.map(|later| (loser, later)))
        {
            let mut schedule = Schedule {
                wishes,
                later,
                loser: *loser,
                initiator: Side::A,
                fates: Vec::new(),
            };
            loop {
                let sent = self.run(&mut schedule);
                if schedule.advance(sent, self.faults).is_none() {
                    break;
                }
            }
        }
    }

    fn run(&mut self, schedule: &mut Schedule) -> usize {
        self.runs += 1;
        if self.runs.is_multiple_of(RUNS_PER_PAIR) {
            std::mem::replace(&mut self.pair, quiet_pair()).finish();
            self.rest = Rest::default();
        }
        let pair = &mut self.pair;
        set_up(pair, Side::A, self.rest);
        schedule.initiator = match (self.rest.ikes, self.rest.a_initiated) {
            (1.., false) => Side::B,
            _ => Side::A,
        };
        let result = catch_unwind(AssertUnwindSafe(|| run(pair, schedule)));
        let (sent, rest) = result.unwrap_or_else(|panic| {
            println!("run {}: {schedule:?}", self.runs);
            let mut pair = quiet_pair();
            pair.set_quiet(false);
            set_up(&mut pair, schedule.initiator, Rest::default());
            run(&mut pair, schedule);
            println!("it is only seen after the runs before");
            resume_unwind(panic)
        });
        self.rest = rest;
        sent
    }
}

fn quiet_pair() -> Pair {
    let change = |side, setup: &mut Setup| {
        setup.add_second_child(side);
        for child in &mut setup.children {
            child.esp_proposals = esp_proposals(&["aes128gcm16"]);
            child.replay_window = 64;
        }
        setup.settings.retransmit.jitter_percent = 0;
        setup.settings.liveness.jitter_percent = 0;
    };
    let mut pair = Pair::with(change);
    pair.set_quiet(true);
    pair
}

/// One IKE SA with the first child and without the second one, from what there is.
fn set_up(pair: &mut Pair, first: Side, rest: Rest) {
    pair.forget();
    pair.net.heal();
    pair.gapless_for = vec![];
    if rest.lans == 0 {
        pair.command(first, initiate("lan"));
        pair.run_to_rest();
    }
    if rest.labs > 0 {
        pair.command(first, terminate(Some("lab"), false));
        pair.run_to_rest();
    }
}

/// Runs a schedule to its end and looks at what it leaves; also how many messages were sent.
fn run(pair: &mut Pair, schedule: &Schedule) -> (usize, Rest) {
    pair.forget();
    pair.run_for(seconds(10));
    let harmless = !schedule.wants(Wish::DeleteChild) && !schedule.wants(Wish::DeleteIke);
    if harmless {
        pair.gapless_for = vec![Reqid(1)];
    }
    let fates = schedule.fates.clone();
    pair.net
        .decide(move |sent| FATES[fates.get(sent.number).copied().unwrap_or(0)]);
    for side in Side::BOTH {
        let byte = if side == schedule.loser { 1 } else { 200 };
        pair.host(side).nonces.set(Some(byte));
    }
    let [(first, one), (second, other)] = schedule.wishes;
    want(pair, first, one);
    pair.run_for(schedule.later);
    want(pair, second, other);
    for side in Side::BOTH {
        pair.host(side).nonces.set(Some(200));
    }
    pair.run_to_rest();
    for side in Side::BOTH {
        pair.host(side).nonces.set(None);
    }
    let sent = pair.net.sent();
    assert!(sent < 60, "{sent} messages");
    (sent, check_end(pair, schedule))
}

fn want(pair: &mut Pair, side: Side, wish: Wish) {
    let command = match wish {
        Wish::RekeyChild => rekey_child(),
        Wish::RekeyIke => rekey_ike(),
        Wish::DeleteChild => terminate_child(),
        Wish::DeleteIke => terminate_ike(),
        Wish::NewChild => initiate("lab"),
        Wish::Liveness => return pair.inject(side, &lost_sa()),
    };
    pair.command(side, command);
}

/// A claim in clear that an SA is lost, which makes its receiver ask.
fn lost_sa() -> Vec<u8> {
    let header = Header {
        initiator_spi: IkeSpi([9; 8]),
        responder_spi: IkeSpi([8; 8]),
        next_payload: PayloadType::NONE,
        version: Header::VERSION_2_0,
        exchange: ExchangeType::INFORMATIONAL,
        flags: Flags::new(true, true),
        message_id: 0,
        length: 0,
    };
    message_bytes(
        header,
        join(&vec![notify(NotifyType::INVALID_IKE_SPI, &[])]),
    )
}

/// Both sides have the same SAs, exactly those that were wanted, and the data planes nothing else.
fn check_end(pair: &mut Pair, schedule: &Schedule) -> Rest {
    let sas = Side::BOTH.map(|side| pair.ike_sas(side));
    assert_mirrored(pair, &sas);
    let mut rest = Rest::default();
    for (side, sas) in Side::BOTH.into_iter().zip(&sas) {
        let children = || sas.iter().flat_map(|sa| &sa.children);
        let count = |name: &str| children().filter(|child| child.name == name).count();
        rest = Rest {
            ikes: sas.len(),
            lans: count("lan"),
            labs: count("lab"),
            a_initiated: sas.iter().any(|sa| sa.initiator == (side == Side::A)),
        };
        rest.check(schedule);
        let told = pair.host(side).told();
        assert_eq!(told, (rest.ikes, rest.lans + rest.labs), "{side:?}: told");
    }
    if rest.ikes > 0 {
        pair.assert_packets_pass(0);
    }
    rest
}

/// What a side has at rest.
#[derive(Clone, Copy, Debug, Default)]
struct Rest {
    ikes: usize,
    lans: usize,
    labs: usize,
    a_initiated: bool,
}

impl Rest {
    fn check(&self, schedule: &Schedule) {
        let [(first, one), (second, other)] = schedule.wishes;
        let new = schedule.wants(Wish::NewChild);
        if schedule.wants(Wish::DeleteIke) {
            // A new child that is wanted, and loses its IKE SA, gets another one.
            assert!(self.ikes <= usize::from(new), "{self:?}");
            assert_eq!(self.lans, 0, "{self:?}");
            assert!(self.labs <= self.ikes, "{self:?}");
        } else {
            assert_eq!(self.ikes, 1, "{self:?}");
            let lans = usize::from(!schedule.wants(Wish::DeleteChild));
            assert_eq!(self.lans, lans, "{self:?}");
            let both = one == Wish::NewChild && other == Wish::NewChild && first != second;
            let most = usize::from(new) + usize::from(both);
            assert!((usize::from(new)..=most).contains(&self.labs), "{self:?}");
        }
    }
}

/// Everything that one side may want of the same pair while this is under way, in no fewer schedules
/// than these: in an ordinary run, in a wide one.
fn explore_with(left: Wish, fewest: [usize; 2]) {
    let mut explorer = Explorer::new();
    for right in WISHES {
        let before = explorer.runs;
        for other in Side::BOTH {
            explorer.explore([(Side::A, left), (other, right)]);
        }
        println!("{left:?} and {right:?}: {}", explorer.runs - before);
    }
    let fewest = fewest[usize::from(explorer.faults == WIDE)];
    assert!(explorer.runs >= fewest, "only {} schedules", explorer.runs);
    explorer.pair.finish();
}

#[test]
fn a_child_rekey_meets_every_other_exchange_in_every_schedule() {
    explore_with(Wish::RekeyChild, [25_000, 300_000]);
}

#[test]
fn an_ike_rekey_meets_every_other_exchange_in_every_schedule() {
    explore_with(Wish::RekeyIke, [30_000, 400_000]);
}

#[test]
fn a_child_delete_meets_every_other_exchange_in_every_schedule() {
    explore_with(Wish::DeleteChild, [11_000, 110_000]);
}

#[test]
fn an_ike_delete_meets_every_other_exchange_in_every_schedule() {
    explore_with(Wish::DeleteIke, [10_000, 110_000]);
}

#[test]
fn a_new_child_meets_every_other_exchange_in_every_schedule() {
    explore_with(Wish::NewChild, [16_000, 180_000]);
}

#[test]
fn a_liveness_check_meets_every_other_exchange_in_every_schedule() {
    explore_with(Wish::Liveness, [13_500, 130_000]);
}

/// A pair remembers what it has seen, so it does not live for ever.
const RUNS_PER_PAIR: usize = 300;
/// Faults in a wide run.
const WIDE: usize = 3;
