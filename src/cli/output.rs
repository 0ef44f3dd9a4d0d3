//! What commands print, and how they end.

use super::{FAILED, client::ClientError};
use crate::wire::vici::{Message, Value};
use std::{
    io::{self, ErrorKind, Write},
    process::ExitCode,
};

/// Why a client command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The daemon could not be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The daemon said no.
    #[error("{0}")]
    Refused(String),
    /// The output could not be written.
    #[error("cannot write the output: {0}")]
    Output(io::Error),
}

/// Prints why a command failed, if it did. A reader that went away is no failure.
pub(super) fn finish(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Output(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&failure.to_string());
            ExitCode::from(FAILED)
        }
    }
}

/// Writes to standard output at once, so that a pipe sees each line when it happens.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(Failure::Output)
}

/// Writes a line to standard error.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Writes a message for the person at the terminal; there is nobody left to tell if that fails.
pub(super) fn complain(text: &str) {
    note(&format!("lockgate: {text}"));
}

/// The answer itself, or the daemon's reason where it says `success = no`.
pub(super) fn accepted(operation: &str, answer: Message) -> Result<Message, Failure> {
    if answer.get("success") == Some("no") {
        let reason = answer.get("errmsg").unwrap_or("the daemon gives no reason");
        let blank = if reason.contains('\n') { '\n' } else { ' ' };
        return Err(Failure::Refused(format!(
            "{operation} failed:{blank}{reason}"
        )));
    }
    Ok(answer)
}

/// A VICI message as JSON: what always is a number becomes one, everything else stays text.
pub(super) fn json(message: &Message) -> serde_json::Value {
    object(message, false)
}

fn object(message: &Message, counters: bool) -> serde_json::Value {
    let entry = |(key, value): (&str, &Value)| {
        let value = match value {
            Value::Text(text) => scalar(text, counters || NUMBERS.contains(&key)),
            Value::List(items) => items
                .iter()
                .map(|item| String::from_utf8_lossy(item))
                .collect(),
            Value::Section(section) => object(section, counters || COUNTERS.contains(&key)),
        };
        (key.to_owned(), value)
    };
    serde_json::Value::Object(message.iter().map(entry).collect())
}

fn scalar(text: &[u8], number: bool) -> serde_json::Value {
    let text = String::from_utf8_lossy(text);
    match text.parse::<u64>() {
        Ok(value) if number => value.into(),
        _ => text.into(),
    }
}

/// Keys whose values are decimal numbers.
const NUMBERS: [&str; 24] = [
    "uniqueid",
    "version",
    "reqid",
    "local-port",
    "remote-port",
    "encr-keysize",
    "integ-keysize",
    "established",
    "rekey-time",
    "reauth-time",
    "life-time",
    "install-time",
    "bytes-in",
    "bytes-out",
    "packets-in",
    "packets-out",
    "use-in",
    "use-out",
    "total",
    "half-open",
    "idle",
    "scheduled",
    "esn",
    "cpu",
];
/// Sections that hold nothing but decimal numbers.
const COUNTERS: [&str; 6] = [
    "drops",
    "discards",
    "dataplane",
    "residence",
    "active",
    "queues",
];
