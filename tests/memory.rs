//! What a tunnel costs: both halves with a window of 4096 packets, its policies and its place in the
//! databases. Alone in its process, since it measures the process.

#[path = "esp/many.rs"]
#[allow(dead_code, reason = "shared with benches/overhead.rs")]
mod many;

use lockgate::ipsec::{Direction, Sad, Spd};

const TUNNELS: u32 = 4000;
const LIMIT: usize = 8 * 1024;

#[test]
fn a_tunnel_takes_less_than_eight_kibibytes() {
    let mut sad = Sad::with_capacity(16);
    fill(&mut sad, 0..16); // whatever is allocated once is there from now on
    let before = resident_bytes();
    fill(&mut sad, 16..16 + TUNNELS);
    let directions = [Direction::Out, Direction::Forward];
    let policies = directions.map(|direction| many::policies(0..TUNNELS, direction));
    let spd = Spd::new(policies.into_iter().flatten().collect());
    let each = (resident_bytes() - before) / TUNNELS as usize;
    assert!(each > 1024, "{each} bytes: nothing was measured");
    assert!(each <= LIMIT, "{each} bytes");
    assert_eq!(spd.policies().len(), 2 * TUNNELS as usize);
}

fn fill(sad: &mut Sad, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let selectors = many::selectors(number);
        assert!(sad.add_inbound(many::inbound(number, &selectors)).is_none());
        let outbound = many::outbound(number, &selectors);
        assert!(sad.switch_outbound(outbound).is_none());
    }
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
