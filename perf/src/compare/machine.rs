//! What it ran on, and what disturbed it.

use std::fs;

use serde::{Deserialize, Serialize};

/// The machine, as far as a reader of the numbers has to know it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
    /// The hypervisor's name, if there is one.
    pub(crate) virtual_machine: bool,
}

impl Machine {
    pub(crate) fn this() -> Self {
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = processors.lines().find(|line| line.starts_with(name));
            let value = line.and_then(|line| line.split_once(':'));
            value.map_or(String::new(), |(_, value)| value.trim().to_owned())
        };
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kilobytes = memory.split_whitespace().nth(1);
        Self {
            processor: field("model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: kilobytes
                .and_then(|text| text.parse::<u64>().ok())
                .unwrap_or(0)
                >> 10,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .split('-')
                .next()
                .unwrap_or_default()
                .to_owned(),
            virtual_machine: field("flags").split(' ').any(|flag| flag == "hypervisor"),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.virtual_machine {
            "virtual machine"
        } else {
            "machine"
        };
        write!(
            f,
            "{kind} with {} cores of {}, {} GiB, Linux {}",
            self.cores,
            self.processor,
            (self.memory_mib + 512) >> 10,
            self.kernel
        )
    }
}

/// What disturbed a measurement.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Disturbance {
    /// Share of the machine's processor time that went to others than this virtual machine meanwhile.
    pub(crate) stolen: f64,
    /// The one-minute load average before; the measurement before has its part in it.
    #[serde(default)]
    pub(crate) load: f64,
}

impl Disturbance {
    /// Whether a figure is to be looked at with suspicion.
    pub(crate) fn is_heavy(self) -> bool {
        self.stolen > HEAVY
    }
}

/// Watches for what disturbs a measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch {
    before: Ticks,
    load: f64,
}

impl Watch {
    pub(crate) fn start() -> Self {
        Self {
            before: Ticks::now(),
            load: load(),
        }
    }

    pub(crate) fn read(self) -> Disturbance {
        Disturbance {
            stolen: Ticks::now().stolen_since(self.before),
            load: self.load,
        }
    }
}

/// Processor time of the whole machine so far, in ticks.
#[derive(Clone, Copy, Debug, Default)]
struct Ticks {
    total: u64,
    stolen: u64,
}

impl Ticks {
    fn now() -> Self {
        Self::of(&fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    /// Of the first line of proc_stat(5): user nice system idle iowait irq softirq steal; guest time is in
    /// user time.
    fn of(stat: &str) -> Self {
        let line = stat.lines().next().unwrap_or_default();
        let fields = line.split_whitespace().skip(1);
        let ticks: Vec<u64> = fields.filter_map(|field| field.parse().ok()).collect();
        Self {
            total: ticks.iter().take(8).sum(),
            stolen: ticks.get(7).copied().unwrap_or(0),
        }
    }

    /// The share that was stolen since `earlier`.
    fn stolen_since(self, earlier: Self) -> f64 {
        let total = self.total.saturating_sub(earlier.total).max(1);
        self.stolen.saturating_sub(earlier.stolen) as f64 / total as f64
    }
}

/// The one-minute load average.
pub(crate) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split_whitespace().next();
    first.and_then(|text| text.parse().ok()).unwrap_or(0.0)
}

/// A share of stolen time that is worth a mark.
pub(crate) const HEAVY: f64 = 0.03;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stolen_time_is_a_share_of_all_time() {
        let before = Ticks::of("cpu  100 0 100 700 0 0 50 50 0 0\ncpu0 1 2 3\n");
        let after = Ticks::of("cpu  150 0 120 750 0 0 50 60 9 9\n");
        let share = after.stolen_since(before);
        assert!((share - 10.0 / 130.0).abs() < 1e-9, "{share}");
        assert!(before.stolen_since(before).abs() < 1e-9);
    }
}
