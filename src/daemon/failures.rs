//! The last failure of each connection, for whoever asks why it is down.

use std::{collections::HashMap, time::Instant};

use crate::ike::{Alert, Pad};

/// What failed last, by connection.
#[derive(Debug, Default)]
pub(super) struct Failures {
    last: HashMap<String, LastFailure>,
}

/// One failure.
#[derive(Clone, Debug)]
pub struct LastFailure {
    /// The alert that told of it.
    pub alert: Alert,
    /// When.
    pub at: Instant,
}

impl Failures {
    /// Takes the place of what failed before. An alert about several connections counts for each.
    pub(super) fn note(&mut self, alert: &Alert, now: Instant) {
        for name in &alert.connections {
            let failure = LastFailure {
                alert: alert.clone(),
                at: now,
            };
            self.last.insert(name.clone(), failure);
        }
    }

    /// Of a connection, if anything ever failed.
    pub(super) fn of(&self, connection: &str) -> Option<&LastFailure> {
        self.last.get(connection)
    }

    /// Forgets what is not configured any more.
    pub(super) fn keep(&mut self, pad: &Pad) {
        self.last.retain(|name, _| pad.connection(name).is_some());
    }
}
