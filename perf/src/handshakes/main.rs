//! How fast two gateways open tunnels to each other, Lockgate beside strongSwan, and what a tunnel takes of their
//! processors and memory. `perf/README.md` has the method.

mod program;
mod round;
mod table;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Result, bail};
use clap::Parser;

use crate::{program::Program, round::Round};

/// Many IKEv2 handshakes at once between two gateways, each with one Child SA.
#[derive(Debug, Parser)]
#[command(name = "perf/handshakes")]
struct Arguments {
    /// How many tunnels come up in a round.
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=60_000))]
    tunnels: u32,
    /// How often each program has its turn.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Only these, separated by commas.
    #[arg(long, value_delimiter = ',', value_enum, value_name = "LIST")]
    programs: Vec<Program>,
    #[arg(long, default_value = "target/release/lockgate", value_name = "FILE")]
    lockgate: PathBuf,
}

fn main() -> ExitCode {
    match command(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("perf/handshakes: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn command(arguments: &Arguments) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("needs root: it makes network namespaces and TUN devices");
    }
    lockgate::lab::prepare().map_err(anyhow::Error::new)?;
    let mut programs = arguments.programs.clone();
    if programs.is_empty() {
        programs = Program::ALL.to_vec();
    }
    let mut rounds: Vec<(Program, Vec<Round>)> = programs
        .into_iter()
        .map(|program| (program, Vec::new()))
        .collect();
    for number in 1..=arguments.rounds {
        for (program, rounds) in &mut rounds {
            let executable = program.executable(&arguments.lockgate);
            let round = Round::run(*program, &executable, arguments.tunnels)?;
            println!("round {number}: {:10} {round}", program.title());
            rounds.push(round);
        }
    }
    print!("{}", table::render(arguments.tunnels, &rounds));
    Ok(())
}
