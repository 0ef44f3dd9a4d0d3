//! Log lines to standard error, for people or as JSON.

use std::io;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Layer, Registry, layer::SubscriberExt, reload, util::SubscriberInitExt};

use crate::config::LogFormat;

/// The level of the log, which a reload may change.
#[derive(Clone, Debug)]
pub struct LogLevel(reload::Handle<LevelFilter, Registry>);

impl LogLevel {
    /// Starts logging for the whole process. Only the first call has an effect.
    #[must_use]
    pub fn start(level: LevelFilter, format: LogFormat) -> Self {
        let (filter, handle) = reload::Layer::new(level);
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(io::stderr)
            .with_target(false);
        let lines = match format {
            LogFormat::Text => lines.with_ansi(false).boxed(),
            LogFormat::Json => lines.json().flatten_event(true).boxed(),
        };
        // Tests that start several daemons in one process keep the first subscriber.
        let _ = tracing_subscriber::registry()
            .with(filter)
            .with(lines)
            .try_init();
        Self(handle)
    }

    pub(super) fn set(&self, level: LevelFilter) {
        // Fails only when the subscriber is gone, that is, when nobody reads.
        let _ = self.0.reload(level);
    }
}
