//! `lockgate status`: tunnels, their traffic, and what was dropped.

mod workers;

use super::{
    SocketArgs,
    client::{Client, ClientError},
    output::{self, Failure},
};
use crate::wire::vici::{Message, Value};
use std::fmt::Write;

/// Arguments of `lockgate status`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lockgate status\n  lockgate status --json | jq '.sas[].child_sas'\n  watch lockgate status"
)]
pub struct Args {
    /// Print everything the daemon tells, as JSON
    #[arg(long)]
    pub json: bool,
    /// Where the daemon listens
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// Asks the daemon for its SAs, connections and counters, and prints them.
pub fn execute(args: &Args) -> Result<(), Failure> {
    let report = Report::fetch(&mut Client::connect(&args.socket.socket)?)?;
    output::print(&if args.json {
        report.json()
    } else {
        report.text()
    })
}

/// What the daemon tells about itself.
#[derive(Debug, Default)]
struct Report {
    version: Message,
    stats: Message,
    /// One section a message, named after the connection.
    sas: Vec<Message>,
    connections: Vec<Message>,
}

impl Report {
    fn fetch(client: &mut Client) -> Result<Self, ClientError> {
        Ok(Self {
            version: client.command("version", Message::new())?,
            stats: client.command("stats", Message::new())?,
            sas: collect(client, "list-sas", "list-sa")?,
            connections: collect(client, "list-conns", "list-conn")?,
        })
    }

    fn json(&self) -> String {
        let sas: Vec<serde_json::Value> = self.sas.iter().map(output::json).collect();
        let connections: Vec<serde_json::Value> =
            self.connections.iter().map(output::json).collect();
        let report = serde_json::json!({
            "version": output::json(&self.version),
            "stats": output::json(&self.stats),
            "sas": sas,
            "connections": connections,
        });
        format!("{report:#}\n")
    }

    fn text(&self) -> String {
        let mut text = self.headline();
        for (name, sa) in self.sas.iter().flat_map(sections) {
            ike_sa(&mut text, name, sa);
        }
        let up = |name| self.sas.iter().any(|sa| sa.get_section(name).is_some());
        let mut down = self
            .connections
            .iter()
            .flat_map(sections)
            .filter(|(name, _)| !up(name))
            .peekable();
        if down.peek().is_some() {
            text.push('\n');
        }
        for (name, connection) in down {
            let remote = connection
                .get_list("remote_addrs")
                .unwrap_or_default()
                .join(", ");
            line(&mut text, format_args!("{name}  DOWN  to {remote}"));
        }
        for (name, connection) in self.connections.iter().flat_map(sections) {
            last_failure(&mut text, name, connection);
        }
        workers::show(&mut text, &self.stats);
        if let Some(metrics) = self.stats.get_section("metrics")
            && let Some(error) = metrics.get("error")
        {
            let address = metrics.get("address").unwrap_or("?");
            line(
                &mut text,
                format_args!("\nmetrics not served on {address}: {error}"),
            );
        }
        counters(
            &mut text,
            "packets dropped",
            self.stats.get_section("drops"),
        );
        counters(
            &mut text,
            "messages discarded",
            self.stats.get_section("discards"),
        );
        text
    }

    fn headline(&self) -> String {
        let version = self.version.get("version").unwrap_or("?");
        let uptime = self
            .stats
            .get_section("uptime")
            .and_then(|uptime| uptime.get("running"));
        let sas = self.stats.get_section("ikesas");
        let count = |key| sas.and_then(|sas| sas.get(key)).unwrap_or("?");
        format!(
            "lockgate {version}, up {}; {} IKE SAs, {} half-open\n",
            uptime.unwrap_or("?"),
            count("total"),
            count("half-open")
        )
    }
}

fn collect(client: &mut Client, command: &str, event: &str) -> Result<Vec<Message>, ClientError> {
    let mut entries = Vec::new();
    let limit = Some(std::time::Duration::from_secs(10));
    client.stream::<ClientError>(command, Message::new(), event, limit, |entry| {
        entries.push(entry.clone());
        Ok(())
    })?;
    Ok(entries)
}

fn sections(message: &Message) -> impl Iterator<Item = (&str, &Message)> {
    message.iter().filter_map(|(name, value)| match value {
        Value::Section(section) => Some((name, section)),
        Value::Text(_) | Value::List(_) => None,
    })
}

/// ```text
/// site-b #1  ESTABLISHED 12m  initiator
///   192.0.2.1[gw-a.example] <-> 198.51.100.1[gw-b.example]
///   AES_GCM_16-256/PRF_HMAC_SHA2_384/CURVE_25519  rekey in 3h41m
/// ```
fn ike_sa(text: &mut String, name: &str, sa: &Message) {
    let role = if sa.get("initiator") == Some("yes") {
        "initiator"
    } else {
        "responder"
    };
    let state = sa.get("state").unwrap_or("?");
    let age = sa.get("established").map(age).unwrap_or_default();
    let id = sa.get("uniqueid").unwrap_or("?");
    text.push('\n');
    line(text, format_args!("{name} #{id}  {state} {age}  {role}"));
    line(
        text,
        format_args!("  {} <-> {}", peer(sa, "local"), peer(sa, "remote")),
    );
    let rekey = sa
        .get("rekey-time")
        .map(|time| format!("rekey in {}", age_text(time)));
    line(
        text,
        format_args!("  {}  {}", suite(sa), rekey.unwrap_or_default()),
    );
    for (_, child) in sa.get_section("child-sas").into_iter().flat_map(sections) {
        child_sa(text, child);
    }
}

/// ```text
///   lan #3  INSTALLED 12m  TUNNEL ESP in UDP  rekey in 45m
///     10.1.0.0/24 === 10.2.0.0/24
///     AES_GCM_16-256 ESN
///     in  c0a80001        1204 packets   1.5 MiB  last 2s ago
///     out c0a80002         980 packets 842.1 KiB  last 2s ago
/// ```
fn child_sa(text: &mut String, child: &Message) {
    let field = |key| child.get(key).unwrap_or("?");
    let udp = if child.get("encap") == Some("yes") {
        " in UDP"
    } else {
        ""
    };
    let rekey = child
        .get("rekey-time")
        .map(|time| format!("rekey in {}", age_text(time)));
    let (name, id, state) = (field("name"), field("uniqueid"), field("state"));
    let installed = child.get("install-time").map(age).unwrap_or_default();
    let how = format!("{} {}{udp}", field("mode"), field("protocol"));
    line(
        text,
        format_args!(
            "  {name} #{id}  {state} {installed}  {how}  {}",
            rekey.unwrap_or_default()
        ),
    );
    let selectors = |key| child.get_list(key).unwrap_or_default().join(" ");
    line(
        text,
        format_args!(
            "    {} === {}",
            selectors("local-ts"),
            selectors("remote-ts")
        ),
    );
    let esn = if child.get("esn") == Some("1") {
        "ESN"
    } else {
        ""
    };
    line(text, format_args!("    {} {esn}", suite(child)));
    for direction in ["in", "out"] {
        let field = |key: &str| child.get(&format!("{key}-{direction}"));
        let volume = field("bytes")
            .and_then(|bytes| bytes.parse().ok())
            .map(volume);
        let used = field("use").map(|time| format!("last {}", age(time)));
        line(
            text,
            format_args!(
                "    {direction:3} {:8} {:>12} packets {:>10}  {}",
                field("spi").unwrap_or("?"),
                field("packets").unwrap_or("0"),
                volume.unwrap_or_default(),
                used.unwrap_or_else(|| "never used".to_owned()),
            ),
        );
    }
}

/// `192.0.2.1[gw-a.example]`, with the port where it is not 500 or 4500.
fn peer(sa: &Message, side: &str) -> String {
    let field = |key: &str| sa.get(&format!("{side}-{key}"));
    let host = field("host").unwrap_or("?");
    let port = field("port").filter(|port| !matches!(*port, "500" | "4500"));
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    format!("{host}{port}[{}]", field("id").unwrap_or("?"))
}

/// `AES_CBC-128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/CURVE_25519/KE1_ML_KEM_768`
fn suite(sa: &Message) -> String {
    let encryption = sa.get("encr-alg").map(|name| match sa.get("encr-keysize") {
        Some(bits) => format!("{name}-{bits}"),
        None => name.to_owned(),
    });
    let others = ["integ-alg", "prf-alg", "dh-group"].map(|key| sa.get(key).map(str::to_owned));
    let additional = (1..=7).map(|number| {
        let name = sa.get(&format!("ake{number}"))?;
        Some(format!("KE{number}_{name}"))
    });
    let parts: Vec<String> = std::iter::once(encryption)
        .chain(others)
        .chain(additional)
        .flatten()
        .collect();
    parts.join("/")
}

/// Why a connection failed the last time, if it ever did.
fn last_failure(text: &mut String, name: &str, connection: &Message) {
    if let Some(why) = connection.get("last_failure") {
        let age = connection.get("last_failure_age").map(age_text);
        let age = age.unwrap_or_default();
        line(text, format_args!("{name}  failed {age} ago: {why}"));
    }
}

/// Counters that are not zero, largest first.
fn counters(text: &mut String, title: &str, section: Option<&Message>) {
    let entries = section.into_iter().flat_map(Message::iter);
    let counted = entries.filter_map(|(name, value)| match value {
        Value::Text(count) => Some((str::from_utf8(count).ok()?.parse::<u64>().ok()?, name)),
        Value::List(_) | Value::Section(_) => None,
    });
    let mut counted: Vec<(u64, &str)> = counted.filter(|(count, _)| *count > 0).collect();
    counted.sort_by(|a, b| b.cmp(a));
    let total: u64 = counted.iter().map(|(count, _)| count).sum();
    line(text, format_args!("\n{title}: {total}"));
    for (count, name) in counted {
        line(text, format_args!("  {count:>12}  {name}"));
    }
}

fn age(seconds: &str) -> String {
    format!("{} ago", age_text(seconds))
}

/// Seconds as "12s", "5m3s", "3h41m" or "2d4h".
fn age_text(seconds: &str) -> String {
    let Ok(seconds) = seconds.parse::<u64>() else {
        return seconds.to_owned();
    };
    let units = [(86_400, 'd'), (3600, 'h'), (60, 'm'), (1, 's')];
    let parts = units.iter().scan(seconds, |left, &(size, unit)| {
        let count = *left / size;
        *left %= size;
        Some((count, unit))
    });
    let shown: Vec<String> = parts
        .skip_while(|(count, _)| *count == 0)
        .take(2)
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect();
    if shown.is_empty() {
        "0s".to_owned()
    } else {
        shown.concat()
    }
}

fn volume(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let steps = units.iter().enumerate().rev();
    for (index, unit) in steps {
        let size = 1_u128 << (10 * (index + 1));
        let tenths = u128::from(bytes) * 10 / size;
        if tenths >= 10 {
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
}

/// Appends a line without the blanks that an absent last column leaves.
fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    let start = text.len();
    let _ = write!(text, "{arguments}");
    let end = text.trim_end().len().max(start);
    text.truncate(end);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_show_their_two_largest_units() {
        let shown = ["0", "59", "60", "61", "13260", "187200", "x"].map(age_text);
        assert_eq!(shown, ["0s", "59s", "1m", "1m1s", "3h41m", "2d4h", "x"]);
    }

    #[test]
    fn volumes_show_one_decimal_of_the_largest_unit() {
        let shown = [0, 1023, 1024, 1_572_864, u64::MAX].map(volume);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "15.9 EiB"]);
    }
}
