//! What a measurement costs: processor time of programs, and what the machine lost to others.

use std::{
    fs, io,
    time::{Duration, Instant},
};

use serde::Serialize;

/// Runs from [`Self::start`] until read.
#[derive(Clone, Debug)]
pub struct Meter {
    processes: Vec<u32>,
    begin: Instant,
    used: Times,
    stolen: Duration,
}

/// What went by while a [`Meter`] ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Usage {
    /// Time on the wall, s.
    pub wall_s: f64,
    /// Processor time of the processes, all threads, user and system, s.
    pub cpu_s: f64,
    /// The system's part of it: in system calls and what the kernel does meanwhile, s.
    pub kernel_s: f64,
    /// Processor time that the hypervisor gave to others, over all cores, s.
    pub stolen_s: f64,
}

impl Meter {
    /// Starts to count what `processes` use.
    pub fn start(processes: &[u32]) -> io::Result<Self> {
        Ok(Self {
            used: times(processes)?,
            stolen: stolen()?,
            processes: processes.to_vec(),
            begin: Instant::now(),
        })
    }

    /// What was used since the start.
    pub fn read(&self) -> io::Result<Usage> {
        let used = times(&self.processes)?;
        let user = used.user.saturating_sub(self.used.user);
        let system = used.system.saturating_sub(self.used.system);
        Ok(Usage {
            wall_s: self.begin.elapsed().as_secs_f64(),
            cpu_s: (user + system).as_secs_f64(),
            kernel_s: system.as_secs_f64(),
            stolen_s: stolen()?.saturating_sub(self.stolen).as_secs_f64(),
        })
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Times {
    user: Duration,
    system: Duration,
}

/// Processor time of all threads of some processes, from their start.
fn times(processes: &[u32]) -> io::Result<Times> {
    let mut sum = Times::default();
    for process in processes {
        let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, "/proc/PID/stat");
        let (user, system) = process_ticks(&text).ok_or_else(malformed)?;
        sum.user += ticks(user);
        sum.system += ticks(system);
    }
    Ok(sum)
}

/// utime and stime of proc_pid_stat(5). The name before them may contain anything.
fn process_ticks(stat: &str) -> Option<(u64, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some((next()?, next()?))
}

fn stolen() -> io::Result<Duration> {
    let text = fs::read_to_string("/proc/stat")?;
    Ok(ticks(stolen_ticks(&text).unwrap_or_default()))
}

/// The column "steal" of the line of all cores, proc_stat(5).
fn stolen_ticks(stat: &str) -> Option<u64> {
    let all = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    all.split_whitespace().nth(7)?.parse().ok()
}

/// The kernel reports times in units of USER_HZ, a hundredth of a second.
fn ticks(count: u64) -> Duration {
    Duration::from_millis(count.saturating_mul(10))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of a Linux 6.18 machine.
    #[test]
    fn times_are_read_past_a_name_that_looks_like_fields() {
        let stat = "4711 (a) R 1 (b) S 1 4711 4711 0 -1 4194304 112 0 0 0 250 150 9 9 20 0 3 0 88";
        assert_eq!(process_ticks(stat), Some((250, 150)));
        let stat = "cpu  10 20 30 40 50 60 70 80 90 100\ncpu0 1 2 3 4 5 6 7 8 9 10\n";
        assert_eq!(stolen_ticks(stat), Some(80));
        assert_eq!(process_ticks("4711 (cat) R 1"), None);
    }

    #[test]
    fn a_process_that_is_gone_is_an_error_and_an_own_one_is_not() {
        assert!(times(&[u32::MAX]).is_err());
        let meter = Meter::start(&[std::process::id()]).expect("an own process is there");
        let usage = meter.read().expect("an own process is there");
        assert!(usage.cpu_s >= usage.kernel_s && usage.wall_s > 0.0);
    }
}
