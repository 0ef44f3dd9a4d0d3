//! The medians of all rounds.

use std::fmt::Write as _;

use crate::{program::Program, round::Round};

/// A table in Markdown: a program a line, and what the first one is times each other one.
pub(crate) fn render(tunnels: u32, rounds: &[(Program, Vec<Round>)]) -> String {
    let mut text = format!(
        "\n{tunnels} tunnels at once, medians\n\n\
         | | handshakes/s | s | initiator: ms, KiB each | responder: ms, KiB each |\n|---|---|---|---|---|\n"
    );
    let rate = |rounds: &[Round]| median(rounds, |round| round.rate);
    for (program, rounds) in rounds {
        let of = |field: fn(&Round) -> f64| median(rounds, field);
        let _ = writeln!(
            text,
            "| {} | {:.0} | {:.2} | {:.3}, {:.1} | {:.3}, {:.1} |",
            program.title(),
            rate(rounds),
            of(|round| round.wall_s),
            of(|round| round.initiator_ms),
            of(|round| round.initiator_kib),
            of(|round| round.responder_ms),
            of(|round| round.responder_kib),
        );
    }
    if let [(first, ours), others @ ..] = rounds {
        for (program, theirs) in others {
            let ratio = rate(ours) / rate(theirs);
            let _ = writeln!(
                text,
                "\n{} / {}: x {ratio:.2}",
                first.title(),
                program.title()
            );
        }
    }
    text
}

fn median(rounds: &[Round], field: impl Fn(&Round) -> f64) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(field).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::render;
    use crate::{program::Program, round::Round};

    fn round(rate: f64) -> Round {
        Round {
            wall_s: 1000.0 / rate,
            rate,
            initiator_ms: 0.25,
            responder_ms: 0.125,
            initiator_kib: 8.0,
            responder_kib: 9.0,
            stolen: 0.0,
        }
    }

    #[test]
    fn medians_stand_beside_each_other_and_the_first_is_held_against_the_others() {
        let ours = [100.0, 4000.0, 3000.0].map(round).to_vec();
        let theirs = [1500.0, 1500.0, 9000.0].map(round).to_vec();
        let table = render(
            1000,
            &[(Program::Lockgate, ours), (Program::StrongSwan, theirs)],
        );
        assert!(
            table.contains("| Lockgate | 3000 | 0.33 | 0.250, 8.0 | 0.125, 9.0 |"),
            "{table}"
        );
        assert!(table.contains("Lockgate / strongSwan: x 2.00"), "{table}");
    }
}
