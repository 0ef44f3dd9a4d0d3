//! What a measurement ran on.

use std::{fs, thread};

use rustix::system::uname;
use serde::Serialize;

/// The machine, as a report names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Whether a hypervisor is below.
    pub virtual_machine: bool,
    /// The kernel's release.
    pub kernel: String,
    /// Memory, MiB.
    pub memory_mib: u64,
}

impl Machine {
    /// This machine; what it does not tell is empty.
    #[must_use]
    pub fn this() -> Self {
        let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kibibytes = field(&memory, "MemTotal").and_then(|text| {
            let number = text.split_whitespace().next()?;
            number.parse::<u64>().ok()
        });
        let flags = field(&processor, "flags").unwrap_or_default();
        Self {
            processor: field(&processor, "model name")
                .unwrap_or_default()
                .to_owned(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            virtual_machine: flags.split_whitespace().any(|flag| flag == "hypervisor"),
            kernel: uname().release().to_string_lossy().into_owned(),
            memory_mib: kibibytes.unwrap_or_default() / 1024,
        }
    }
}

/// The value of the first line `name : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::{Machine, field};

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "model\t\t: 143\nmodel name\t: Some Processor @ 2 GHz\n";
        assert_eq!(field(text, "model name"), Some("Some Processor @ 2 GHz"));
        assert_eq!(field(text, "name"), None);
        assert!(Machine::this().cores > 0);
    }
}
