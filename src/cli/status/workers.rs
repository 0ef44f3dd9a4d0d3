//! The part of `lockgate status` about the packet path: offloads, workers, residence times.

use super::{line, sections};
use crate::wire::vici::{Message, Value};

/// ```text
/// offloads: tun-tso tun-gro udp-gro; off: udp-gso; unavailable: tun-uso
///
/// worker   packets in  packets out  calls/packet  super in/out  trains in/out  in a train  handed off
///   0            1204          980          0.08        31/120         44/118    25.1/7.9           0
///
/// in the gateway       p50        p99        max    packets
///   in              8.2 us    31.0 us   120.4 us       1204
/// ```
pub(super) fn show(text: &mut String, stats: &Message) {
    if let Some(states) = stats.get_section("offloads") {
        offloads(text, states);
    }
    let mut workers = stats
        .get_section("dataplane")
        .into_iter()
        .flat_map(sections)
        .peekable();
    if workers.peek().is_some() {
        line(
            text,
            format_args!(
                "\nworker   packets in  packets out  calls/packet  super in/out  trains in/out  in a train  handed off"
            ),
        );
    }
    for (name, worker) in workers {
        one_worker(text, name, worker);
    }
    let mut directions = stats
        .get_section("residence")
        .into_iter()
        .flat_map(sections)
        .filter(|(_, times)| times.get("packets").is_some_and(|packets| packets != "0"))
        .peekable();
    if directions.peek().is_some() {
        line(
            text,
            format_args!("\nin the gateway       p50        p99        max      packets"),
        );
    }
    for (direction, times) in directions {
        let [p50, p99, max] = ["p50-ns", "p99-ns", "max-ns"].map(|key| time(times.get(key)));
        let packets = times.get("packets").unwrap_or("?");
        line(
            text,
            format_args!("  {direction:11} {p50:>10} {p99:>10} {max:>10} {packets:>12}"),
        );
    }
}

fn offloads(text: &mut String, states: &Message) {
    let in_state = |wanted: &str| {
        let named = states.iter().filter_map(|(name, value)| match value {
            Value::Text(state) if state == wanted.as_bytes() => Some(name),
            _ => None,
        });
        named.collect::<Vec<&str>>().join(" ")
    };
    let [active, off, unavailable] = ["active", "off", "unavailable"].map(in_state);
    let active = if active.is_empty() { "none" } else { &active };
    let rest = [("off", off), ("unavailable", unavailable)];
    let rest = rest.iter().filter(|(_, names)| !names.is_empty());
    let rest: String = rest
        .map(|(state, names)| format!("; {state}: {names}"))
        .collect();
    line(text, format_args!("\noffloads: {active}{rest}"));
}

fn one_worker(text: &mut String, name: &str, worker: &Message) {
    let number = name.strip_prefix("worker-").unwrap_or(name);
    let field = |key| worker.get(key).unwrap_or("?");
    let pair = |what: &str| {
        let [inbound, outbound] = ["in", "out"].map(|way| {
            let count = worker.get(&format!("{what}-{way}"));
            count.unwrap_or("?").to_owned()
        });
        format!("{inbound}/{outbound}")
    };
    line(
        text,
        format_args!(
            "  {number:4} {:>12} {:>12} {:>13} {:>13} {:>14} {:>11} {:>11}",
            field("packets-in"),
            field("packets-out"),
            calls_per_packet(worker),
            pair("super-packets"),
            pair("trains"),
            train_lengths(worker),
            field("handed-off"),
        ),
    );
}

fn calls_per_packet(worker: &Message) -> String {
    let count = |key| worker.get(key)?.parse::<u64>().ok();
    let packets = count("packets-in").zip(count("packets-out"));
    let packets = packets.and_then(|(inbound, outbound)| inbound.checked_add(outbound));
    match (count("system-calls"), packets) {
        (Some(calls), Some(packets @ 1..)) => {
            let hundredths = u128::from(calls) * 100 / u128::from(packets);
            format!("{}.{:02}", hundredths / 100, hundredths % 100)
        }
        _ => "-".to_owned(),
    }
}

/// Datagrams in a train on average, in and out.
fn train_lengths(worker: &Message) -> String {
    let length = |direction: &str| {
        let count = |key| {
            worker
                .get(&format!("{key}-{direction}"))?
                .parse::<u64>()
                .ok()
        };
        match (count("train-packets"), count("trains")) {
            (Some(packets), Some(trains @ 1..)) => {
                let tenths = u128::from(packets) * 10 / u128::from(trains);
                format!("{}.{}", tenths / 10, tenths % 10)
            }
            _ => "-".to_owned(),
        }
    };
    format!("{}/{}", length("in"), length("out"))
}

/// Nanoseconds with one decimal of the unit that fits.
fn time(nanos: Option<&str>) -> String {
    let Some(nanos) = nanos.and_then(|nanos| nanos.parse::<u64>().ok()) else {
        return "?".to_owned();
    };
    let units = [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")];
    let unit = units.iter().find(|(size, _)| nanos >= *size);
    unit.map_or_else(
        || format!("{nanos} ns"),
        |(size, unit)| format!("{}.{} {unit}", nanos / size, nanos % size * 10 / size),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_show_one_decimal_of_the_largest_unit() {
        let shown = ["0", "999", "1000", "31049", "2500000", "1000000000"].map(|t| time(Some(t)));
        assert_eq!(
            shown,
            ["0 ns", "999 ns", "1.0 us", "31.0 us", "2.5 ms", "1.0 s"]
        );
    }
}
