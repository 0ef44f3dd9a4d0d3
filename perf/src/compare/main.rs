//! Runs Lockgate and other tunnels in turn and compares them. `perf/README.md` has the method.

mod machine;
mod measure;
mod page;
mod peers;
mod plan;
mod program;
mod results;
mod run;
mod settings;
mod table;
mod targets;
mod tunnel;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use clap::Parser;

use crate::{
    plan::{Job, Plan},
    program::{Program, Tools},
    results::Results,
    tunnel::Mode,
};

/// Lockgate beside other tunnels, in one interleaved run.
#[derive(Clone, Debug, Parser)]
#[command(name = "perf/compare")]
struct Arguments {
    /// How long the whole run may take.
    #[arg(long, default_value_t = 25.0, value_name = "N")]
    minutes: f64,
    /// How often what targets rest on is measured, and a third as often all else; by default as often as
    /// the time allows.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// One short round, to see whether everything works. Its figures mean little.
    #[arg(long)]
    quick: bool,
    /// Only these, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    programs: Vec<Program>,
    /// Only these measurements, separated by commas.
    #[arg(long, value_delimiter = ',', value_enum, value_name = "LIST")]
    jobs: Vec<Job>,
    /// Only `as-is` or only `wire`.
    #[arg(long, value_parser = mode)]
    mode: Option<Mode>,
    /// Where the results and the report page go.
    #[arg(long, default_value = "target/perf/results", value_name = "DIR")]
    out: PathBuf,
    /// The page and the tables of results that are there already; measures nothing.
    #[arg(long, value_name = "FILE")]
    render: Option<PathBuf>,
    /// With `--render`: the tables in Markdown.
    #[arg(long, requires = "render")]
    markdown: bool,
    /// Which programs are there and which are missing.
    #[arg(long)]
    list: bool,
    /// What is being measured, for the report.
    #[arg(long, default_value = "", hide = true)]
    revision: String,
    #[arg(long, default_value = "target/release/lockgate", value_name = "FILE")]
    lockgate: PathBuf,
    /// By default beside this program.
    #[arg(long, value_name = "FILE")]
    forwarder: Option<PathBuf>,
    /// What `perf/peers` filled.
    #[arg(long, default_value = "target/perf/peers", value_name = "DIR")]
    peers: PathBuf,
}

fn main() -> ExitCode {
    match command(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("perf/compare: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn command(arguments: &Arguments) -> Result<()> {
    if let Some(file) = &arguments.render {
        let results = Results::load(file)?;
        if arguments.markdown {
            print!("{}", table::markdown(&results));
            return Ok(());
        }
        print!("{}", table::render(&results));
        return write_page(&results, &file.with_extension("html"));
    }
    let tools = tools(arguments)?;
    if arguments.list {
        for program in Program::ALL {
            let there = if tools.has(program) {
                "have"
            } else {
                "missing"
            };
            println!("{there:8} {:18} {}", program.key(), program.title());
        }
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        bail!(
            "needs root: it makes network namespaces and TUN devices, and sets the size of socket buffers"
        );
    }
    lockgate::lab::prepare().map_err(anyhow::Error::new)?;
    for left in settings::clear_leftovers() {
        println!("left by a run that was killed, cleared: {left}");
    }
    let plan = plan(arguments, &tools)?;
    std::fs::create_dir_all(&arguments.out)
        .with_context(|| format!("cannot make {}", arguments.out.display()))?;
    let file = arguments.out.join("compare.json");
    let results = run::run(&plan, &tools, &arguments.revision, &file)?;
    print!("{}", table::render(&results));
    write_page(&results, &file.with_extension("html"))
}

fn tools(arguments: &Arguments) -> Result<Tools> {
    let forwarder = match &arguments.forwarder {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("forwarder"),
    };
    let tools = Tools {
        lockgate: arguments.lockgate.clone(),
        forwarder,
        peers: arguments.peers.clone(),
    };
    Ok(tools)
}

fn plan(arguments: &Arguments, tools: &Tools) -> Result<Plan> {
    let mut programs = arguments.programs.clone();
    if programs.is_empty() {
        programs = Program::ALL.to_vec();
        programs.retain(|program| *program != Program::ForwarderPlain);
    }
    let (there, missing): (Vec<_>, Vec<_>) = programs
        .into_iter()
        .partition(|program| tools.has(*program));
    for program in missing {
        eprintln!("left out, since it is not there: {}", program.title());
    }
    let jobs = if arguments.jobs.is_empty() {
        Job::ALL.to_vec()
    } else {
        arguments.jobs.clone()
    };
    let modes = match arguments.mode {
        Some(mode) => vec![mode],
        None => vec![Mode::AsIs, Mode::Wire],
    };
    if arguments.quick {
        return Plan::quick(there, &jobs, &modes);
    }
    Plan::new(arguments.minutes, arguments.rounds, there, &jobs, &modes)
}

fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "as-is" => Ok(Mode::AsIs),
        "wire" => Ok(Mode::Wire),
        _ => Err("there are `as-is` and `wire`".to_owned()),
    }
}

fn write_page(results: &Results, path: &std::path::Path) -> Result<()> {
    std::fs::write(path, page::render(results))
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("report: {}", path.display());
    Ok(())
}
