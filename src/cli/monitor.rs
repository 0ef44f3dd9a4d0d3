//! `lockgate monitor`: what happens to tunnels, as it happens.

use super::{
    SocketArgs,
    client::{Client, ClientError},
    output::{self, Failure},
};
use crate::wire::vici::{Message, Value};
use std::time::{SystemTime, UNIX_EPOCH};

/// Arguments of `lockgate monitor`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lockgate monitor\n  lockgate monitor --json --no-log > events.jsonl"
)]
pub struct Args {
    /// Print one JSON object a line, with all that the daemon tells
    #[arg(long)]
    pub json: bool,
    /// Leave the daemon's log out
    #[arg(long)]
    pub no_log: bool,
    /// Where the daemon listens
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// Prints events until the daemon or the reader goes away.
pub fn execute(args: &Args) -> Result<(), Failure> {
    let mut client = Client::connect(&args.socket.socket)?;
    // The log has a line for every alert.
    let is_wanted = |event: &&&str| match **event {
        "log" => !args.no_log,
        "alert" => args.no_log || args.json,
        _ => true,
    };
    for event in EVENTS.iter().filter(is_wanted) {
        match client.subscribe(event) {
            // An older daemon has fewer events.
            Ok(()) | Err(ClientError::Unknown(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    loop {
        let (name, message) = client.next_event()?;
        let time = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_secs());
        output::print(&if args.json {
            json(time, &name, &message)
        } else {
            text(time, &name, &message)
        })?;
    }
}

fn json(time: u64, name: &str, message: &Message) -> String {
    let event = serde_json::json!({ "time": time, "event": name, "data": output::json(message) });
    format!("{event}\n")
}

fn text(time: u64, name: &str, message: &Message) -> String {
    let (hours, minutes, seconds) = (time / 3600 % 24, time / 60 % 60, time % 60);
    let clock = format!("{hours:02}:{minutes:02}:{seconds:02}");
    if name == "log" {
        let field = |key| message.get(key).unwrap_or_default();
        let sa = message
            .get("ikesa-name")
            .map(|sa| format!("<{sa}> "))
            .unwrap_or_default();
        return format!("{clock} [{}] {sa}{}\n", field("group"), field("msg"));
    }
    if name == "alert" {
        let field = |key| message.get(key).unwrap_or_default();
        let connections = message.get_list("connections").unwrap_or_default();
        let (kind, text) = (field("type"), field("msg"));
        return format!("{clock} {kind}: {}: {text}\n", connections.join(", "));
    }
    let up = if message.get("up") == Some("yes") {
        "up"
    } else {
        "down"
    };
    let what = match name {
        "ike-updown" => format!("IKE SA {up}"),
        "child-updown" => format!("child {up}"),
        "ike-rekey" => "IKE SA rekeyed".to_owned(),
        "child-rekey" => "child rekeyed".to_owned(),
        other => other.to_owned(),
    };
    let of_child = name.starts_with("child-");
    let described = message.iter().filter_map(|(name, value)| match value {
        Value::Section(sa) => Some(describe(name, sa, of_child)),
        Value::Text(_) | Value::List(_) => None,
    });
    let described: Vec<String> = described.collect();
    format!("{clock} {what}: {}\n", described.join("; "))
}

/// `site-b #1 192.0.2.1 <-> 198.51.100.1`, and the children where they are what the event is about.
fn describe(name: &str, sa: &Message, of_child: bool) -> String {
    // A rekeyed SA comes as a pair of its old and its new self.
    let now = sa.get_section("new").unwrap_or(sa);
    let field = |key| now.get(key).unwrap_or("?");
    let ike = format!(
        "{name} #{} {} <-> {}",
        field("uniqueid"),
        field("local-host"),
        field("remote-host")
    );
    let children = sa.get_section("child-sas").filter(|_| of_child);
    let child = |(name, value): (&str, &Value)| {
        let Value::Section(child) = value else {
            return None;
        };
        let child = child.get_section("new").unwrap_or(child);
        let selectors = |key| child.get_list(key).unwrap_or_default().join(" ");
        let (local, remote) = (selectors("local-ts"), selectors("remote-ts"));
        let name = child.get("name").unwrap_or(name);
        Some(format!(
            "{name} #{} {local} === {remote} ",
            child.get("uniqueid").unwrap_or("?")
        ))
    };
    let children: String = children
        .into_iter()
        .flat_map(Message::iter)
        .filter_map(child)
        .collect();
    if children.is_empty() {
        ike
    } else {
        format!("{children}in {ike}")
    }
}

const EVENTS: [&str; 6] = [
    "alert",
    "ike-updown",
    "child-updown",
    "ike-rekey",
    "child-rekey",
    "log",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_comes_up_is_one_line_with_its_selectors() {
        let mut child = Message::new();
        child.set("name", "lan").set("uniqueid", 3);
        child
            .list("local-ts", ["10.1.0.0/24"])
            .list("remote-ts", ["10.2.0.0/24"]);
        let mut children = Message::new();
        children.section("lan-3", child);
        let mut sa = Message::new();
        sa.set("uniqueid", 1)
            .set("local-host", "192.0.2.1")
            .set("remote-host", "198.51.100.1");
        sa.section("child-sas", children);
        let mut event = Message::new();
        event.set("up", "yes").section("site-b", sa);
        assert_eq!(
            text(45_296, "child-updown", &event),
            "12:34:56 child up: lan #3 10.1.0.0/24 === 10.2.0.0/24 in site-b #1 192.0.2.1 <-> 198.51.100.1\n"
        );
    }

    #[test]
    fn a_rekeyed_sa_shows_its_new_number() {
        let numbered = |id: u32| {
            let mut sa = Message::new();
            sa.set("name", "lan").set("uniqueid", id);
            sa
        };
        let mut pair = Message::new();
        pair.section("old", numbered(3)).section("new", numbered(4));
        let mut event = Message::new();
        event.section("site-b", pair.clone());
        let shown = text(0, "ike-rekey", &event);
        assert_eq!(shown, "00:00:00 IKE SA rekeyed: site-b #4 ? <-> ?\n");

        let mut children = Message::new();
        children.section("lan", pair);
        let mut sa = numbered(1);
        sa.section("child-sas", children);
        let mut event = Message::new();
        event.section("site-b", sa);
        assert_eq!(
            text(0, "child-rekey", &event),
            "00:00:00 child rekeyed: lan #4  ===  in site-b #1 ? <-> ?\n"
        );
    }

    #[test]
    fn an_alert_shows_its_kind_and_the_connections_it_may_be_about() {
        let mut event = Message::new();
        event
            .set("type", "proposal-mismatch-ike")
            .list("connections", ["site-b", "site-c"])
            .set("msg", "no common encryption algorithm");
        assert_eq!(
            text(0, "alert", &event),
            "00:00:00 proposal-mismatch-ike: site-b, site-c: no common encryption algorithm\n"
        );
    }

    #[test]
    fn a_log_event_shows_group_and_connection() {
        let mut event = Message::new();
        event
            .set("group", "IKE")
            .set("ikesa-name", "site-b")
            .set("msg", "sending IKE_SA_INIT");
        assert_eq!(
            text(0, "log", &event),
            "00:00:00 [IKE] <site-b> sending IKE_SA_INIT\n"
        );
    }
}
