//! Keys in files that Wireshark reads, if `key_log` is set.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::ike::{KeyLogLine, KeyTable};

/// The open tables.
#[derive(Debug)]
pub(super) struct KeyLog {
    tables: [(KeyTable, File); 2],
    /// A write has failed, and that was told.
    has_failed: bool,
}

impl KeyLog {
    /// Opens the tables in a folder, for their owner only. What is there stays.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let open = |table: KeyTable| {
            let mut options = OpenOptions::new();
            options.append(true).create(true).mode(0o600);
            options.custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
            Ok::<_, io::Error>((table, options.open(folder.join(table.file_name()))?))
        };
        let [ike, esp] = KeyTable::ALL;
        Ok(Self {
            tables: [open(ike)?, open(esp)?],
            has_failed: false,
        })
    }

    /// Adds a line. A full disk costs the line and nothing else.
    pub(super) fn write(&mut self, line: &KeyLogLine) {
        for (table, file) in &mut self.tables {
            if *table == line.table
                && let Err(error) = file.write_all(line.line.as_bytes())
                && !std::mem::replace(&mut self.has_failed, true)
            {
                tracing::warn!(table = table.file_name(), %error, "a key was not logged");
            }
        }
    }
}
