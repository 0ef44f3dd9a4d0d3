//! What the kernel and the daemons counted, and whether it adds up.

use std::{collections::BTreeMap, io, time::Duration};

use serde::Serialize;

use super::Failure;
use crate::{
    cli::client::{Client, ClientError},
    io::netns::Namespace,
    ipsec::DropReason,
    lab::OUTER_LINK,
    wire::vici::{Message, Value},
};

/// One Child SA as one daemon counted it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct SaCounters {
    pub(super) spi_in: String,
    pub(super) spi_out: String,
    pub(super) packets_in: u64,
    pub(super) packets_out: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
}

/// What one gateway tells.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Snapshot {
    pub(super) ike_suite: String,
    pub(super) esp_suite: String,
    /// The Child SAs of the tunnel, one per worker that has asked for one.
    pub(super) children: Vec<SaCounters>,
    /// Packets by reason for which they were dropped; reasons without any are left out.
    pub(super) drops: BTreeMap<String, u64>,
    /// Datagrams that the kernel dropped between the daemons: full socket buffers, full outer link.
    pub(super) lost_outside: u64,
    /// Packets that the kernel dropped before they were sealed or after they were opened: full
    /// queues of the TUN and of the link to the host.
    pub(super) lost_inside: u64,
}

impl Snapshot {
    /// Asks the daemon behind `control`, which runs in `namespace`.
    pub(super) fn fetch(control: &mut Client, namespace: &Namespace) -> Result<Self, Failure> {
        let mut sas = Vec::new();
        let limit = Some(Duration::from_secs(10));
        control.stream::<ClientError>("list-sas", Message::new(), "list-sa", limit, |entry| {
            sas.push(entry.clone());
            Ok(())
        })?;
        let sa = sas
            .iter()
            .find_map(|sa| sa.get_section("demo"))
            .ok_or(Failure::NoTunnel)?;
        let children = sa
            .get_section("child-sas")
            .map(sections)
            .unwrap_or_default();
        let first = children.first().ok_or(Failure::NoTunnel)?;
        let stats = control.command("stats", Message::new())?;
        let (lost_outside, lost_inside) = namespace.run(lost_in_kernel)?;
        Ok(Self {
            ike_suite: suite(sa),
            esp_suite: suite(first),
            children: children.into_iter().map(SaCounters::read).collect(),
            drops: stats.get_section("drops").map(drops).unwrap_or_default(),
            lost_outside,
            lost_inside,
        })
    }
}

impl SaCounters {
    fn read(child: &Message) -> Self {
        let text = |key| child.get(key).unwrap_or_default().to_owned();
        let number = |key| {
            child
                .get(key)
                .and_then(|value| value.parse().ok())
                .unwrap_or_default()
        };
        Self {
            spi_in: text("spi-in"),
            spi_out: text("spi-out"),
            packets_in: number("packets-in"),
            packets_out: number("packets-out"),
            bytes_in: number("bytes-in"),
            bytes_out: number("bytes-out"),
        }
    }
}

/// Checks one direction: every packet that `from` sealed was opened by `to`, or its loss was
/// counted by somebody; and nobody opened what was not sealed. Says what is wrong.
pub(super) fn add_up(from: &Snapshot, to: &Snapshot) -> Result<(), String> {
    if from.children.len() != to.children.len() {
        let (here, there) = (from.children.len(), to.children.len());
        return Err(format!("{here} SAs at one end, {there} at the other"));
    }
    let mut missing = 0;
    for sealed in &from.children {
        let spi = &sealed.spi_out;
        let opened = to.children.iter().find(|opened| opened.spi_in == *spi);
        let opened = opened.ok_or_else(|| format!("SA {spi} is unknown at the other end"))?;
        missing += missing_in_one(sealed, opened)?;
    }
    let counted = |side: &Snapshot, reasons: &[DropReason]| -> u64 {
        let counts = reasons
            .iter()
            .filter_map(|reason| side.drops.get(reason.name()));
        counts.sum()
    };
    let at_ends = counted(from, &AFTER_SEALING) + counted(to, &BEFORE_OPENED);
    let explained = at_ends + from.lost_outside + to.lost_outside;
    if missing > explained {
        return Err(format!(
            "{missing} packets are missing, {explained} losses were counted"
        ));
    }
    Ok(())
}

/// How many of the packets that one SA sealed were not opened.
fn missing_in_one(sealed: &SaCounters, opened: &SaCounters) -> Result<u64, String> {
    let spi = &sealed.spi_out;
    let (out, into) = (sealed.packets_out, opened.packets_in);
    let Some(missing) = out.checked_sub(into) else {
        return Err(format!("SA {spi}: {into} packets opened, {out} sealed"));
    };
    let (sealed_bytes, opened_bytes) = (sealed.bytes_out, opened.bytes_in);
    if missing == 0 && sealed_bytes != opened_bytes {
        return Err(format!(
            "SA {spi}: {opened_bytes} bytes opened, {sealed_bytes} sealed"
        ));
    }
    Ok(missing)
}

fn suite(sa: &Message) -> String {
    let sized = |algorithm: &str, size: &str| {
        let name = sa.get(algorithm)?;
        Some(
            sa.get(size)
                .map_or_else(|| name.to_owned(), |bits| format!("{name}_{bits}")),
        )
    };
    let integrity = sized("integ-alg", "integ-keysize");
    let others = ["prf-alg", "dh-group"]
        .into_iter()
        .filter_map(|key| sa.get(key));
    let additional = (1..=7).filter_map(|number| {
        let name = sa.get(&format!("ake{number}"))?;
        Some(format!("KE{number}_{name}"))
    });
    let mut parts: Vec<String> = sized("encr-alg", "encr-keysize").into_iter().collect();
    parts.extend(integrity);
    parts.extend(others.map(str::to_owned));
    parts.extend(additional);
    if sa.get("esn") == Some("1") {
        parts.push("ESN".to_owned());
    }
    parts.join("/")
}

fn sections(message: &Message) -> Vec<&Message> {
    let sections = message.iter().filter_map(|(_, value)| match value {
        Value::Section(section) => Some(section),
        Value::Text(_) | Value::List(_) => None,
    });
    sections.collect()
}

fn drops(section: &Message) -> BTreeMap<String, u64> {
    let parsed = section.iter().filter_map(|(reason, _)| {
        let count = section.get(reason)?.parse().ok()?;
        (count > 0).then(|| (reason.to_owned(), count))
    });
    parsed.collect()
}

/// What the calling thread's namespace lost outside the tunnel, and inside.
fn lost_in_kernel() -> io::Result<(u64, u64)> {
    let sockets = std::fs::read_to_string("/proc/thread-self/net/snmp")?;
    let links = std::fs::read_to_string("/proc/thread-self/net/dev")?;
    let outside = socket_losses(&sockets) + link_losses(&links, |link| link == OUTER_LINK);
    Ok((outside, link_losses(&links, |link| link != OUTER_LINK)))
}

/// `RcvbufErrors` and `SndbufErrors` of the two lines that begin with `Udp:`.
fn socket_losses(snmp: &str) -> u64 {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Udp:"));
    let (names, values) = (
        lines.next().unwrap_or_default(),
        lines.next().unwrap_or_default(),
    );
    let pairs = names.split_whitespace().zip(values.split_whitespace());
    pairs
        .filter(|(name, _)| ["RcvbufErrors", "SndbufErrors"].contains(name))
        .filter_map(|(_, value)| value.parse::<u64>().ok())
        .sum()
}

/// Columns `drop` of both directions over the links chosen.
fn link_losses(dev: &str, chosen: impl Fn(&str) -> bool) -> u64 {
    const RECEIVE_DROP: usize = 3;
    const TRANSMIT_DROP: usize = 11;
    let rows = dev.lines().filter_map(|line| line.split_once(':'));
    rows.filter(|(link, _)| chosen(link.trim()))
        .flat_map(|(_, row)| {
            let columns: Vec<u64> = row
                .split_whitespace()
                .filter_map(|n| n.parse().ok())
                .collect();
            [RECEIVE_DROP, TRANSMIT_DROP].map(|at| columns.get(at).copied().unwrap_or_default())
        })
        .sum()
}

/// Why a packet that an SA has counted as sealed may not have left.
const AFTER_SEALING: [DropReason; 3] = [
    DropReason::TransmitQueueFull,
    DropReason::SendFailed,
    DropReason::HandOffFull,
];

/// Why a packet that arrived may not have been counted as opened.
const BEFORE_OPENED: [DropReason; 9] = [
    DropReason::HandOffFull,
    DropReason::OuterMalformed,
    DropReason::UnknownSpi,
    DropReason::EspMalformed,
    DropReason::IllegalSequence,
    DropReason::Replayed,
    DropReason::TooOld,
    DropReason::IntegrityFailed,
    DropReason::LifetimeExpired,
];

#[cfg(test)]
mod tests {
    use super::{SaCounters, Snapshot, add_up, link_losses, socket_losses};

    fn snapshot(packets_in: u64, packets_out: u64) -> Snapshot {
        let child = SaCounters {
            spi_in: "c0ffee01".to_owned(),
            spi_out: "c0ffee01".to_owned(),
            packets_in,
            packets_out,
            bytes_in: packets_in * 100,
            bytes_out: packets_out * 100,
        };
        Snapshot {
            children: vec![child],
            ..Snapshot::default()
        }
    }

    #[test]
    fn each_sa_of_the_tunnel_is_held_against_its_other_half() {
        let (mut sender, mut receiver) = (snapshot(0, 7), snapshot(7, 0));
        let second = |packets_in, packets_out| SaCounters {
            spi_in: "c0ffee02".to_owned(),
            spi_out: "c0ffee02".to_owned(),
            packets_in,
            packets_out,
            ..SaCounters::default()
        };
        sender.children.push(second(0, 3));
        assert!(add_up(&sender, &receiver).is_err());
        receiver.children.insert(0, second(3, 0));
        assert_eq!(add_up(&sender, &receiver), Ok(()));
        receiver.children[0].packets_in = 2;
        assert!(add_up(&sender, &receiver).is_err());
        receiver.lost_outside = 1;
        assert_eq!(add_up(&sender, &receiver), Ok(()));
    }

    #[test]
    fn a_missing_packet_has_to_be_explained_by_a_counter() {
        assert_eq!(add_up(&snapshot(0, 7), &snapshot(7, 0)), Ok(()));
        let mut receiver = snapshot(5, 0);
        assert!(add_up(&snapshot(0, 7), &receiver).is_err());
        receiver.drops.insert("replayed".to_owned(), 1);
        assert!(add_up(&snapshot(0, 7), &receiver).is_err());
        receiver.lost_inside = 1;
        receiver.drops.insert("no-policy".to_owned(), 1);
        assert!(add_up(&snapshot(0, 7), &receiver).is_err());
        receiver.lost_outside = 1;
        assert_eq!(add_up(&snapshot(0, 7), &receiver), Ok(()));
    }

    #[test]
    fn packets_nobody_sealed_and_bytes_that_differ_do_not_add_up() {
        assert!(add_up(&snapshot(0, 7), &snapshot(8, 0)).is_err());
        let mut receiver = snapshot(7, 0);
        receiver.children[0].bytes_in += 1;
        assert!(add_up(&snapshot(0, 7), &receiver).is_err());
        receiver.children[0].spi_in = "c0ffee02".to_owned();
        assert!(add_up(&snapshot(0, 7), &receiver).is_err());
    }

    /// Lines of a Linux 6.18 machine.
    #[test]
    fn losses_are_read_from_the_columns_the_kernel_names() {
        let snmp = "Tcp: RtoAlgorithm RtoMin\nTcp: 1 200\n\
            Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors\n\
            Udp: 1201 3 5 1187 4 1 0\n\
            UdpLite: InDatagrams RcvbufErrors\nUdpLite: 9 9\n";
        assert_eq!(socket_losses(snmp), 5);
        let dev = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
            lo:       0       0    0    1    0     0          0         0        0       0    0    0    0     0       0          0\n \
            outer: 4455661   39020    0    2    0     0          0         0  4455661   39020    0    6    0     0       0          0\n";
        assert_eq!(link_losses(dev, |link| link == "outer"), 8);
        assert_eq!(link_losses(dev, |link| link != "outer"), 1);
    }
}
