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

/// Processor time of the whole machine so far, in ticks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ticks {
    total: u64,
    stolen: u64,
}

impl Ticks {
    pub(crate) fn now() -> Self {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = text.lines().next().unwrap_or_default();
        let fields = line.split_whitespace().skip(1);
        let ticks: Vec<u64> = fields.filter_map(|field| field.parse().ok()).collect();
        Self {
            // user nice system idle iowait irq softirq steal; guest time is in user time.
            total: ticks.iter().take(8).sum(),
            stolen: ticks.get(7).copied().unwrap_or(0),
        }
    }

    /// The share that was stolen since `earlier`.
    pub(crate) fn stolen_since(self, earlier: Self) -> f64 {
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

/// Sizes that new sockets get, which is a setting of the whole machine. Put back when dropped.
#[derive(Debug)]
pub(crate) struct SocketDefaults {
    before: Vec<(&'static str, String)>,
}

impl SocketDefaults {
    /// Gives sockets whose program does not ask for a size what the others ask for.
    pub(crate) fn set(bytes: usize) -> std::io::Result<Self> {
        let mut this = Self { before: Vec::new() };
        for path in [
            "/proc/sys/net/core/rmem_default",
            "/proc/sys/net/core/wmem_default",
        ] {
            this.before.push((path, fs::read_to_string(path)?));
            fs::write(path, bytes.to_string())?;
        }
        Ok(this)
    }
}

impl Drop for SocketDefaults {
    fn drop(&mut self) {
        for (path, value) in &self.before {
            // What cannot be put back can only be told.
            if let Err(error) = fs::write(path, value) {
                eprintln!("cannot restore {path} to {}: {error}", value.trim());
            }
        }
    }
}
