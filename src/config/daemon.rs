//! The `[daemon]` table: this process, as opposed to the tunnels it keeps.

use super::{keys, read::Section, value};
use std::{
    net::SocketAddr,
    num::{NonZeroU16, NonZeroU32},
    path::PathBuf,
    time::Duration,
};
use tracing::level_filters::LevelFilter;

/// Settings of the process. Each field is the key of the same name in `[daemon]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonConfig {
    /// Name of the TUN device.
    pub tun: String,
    /// MTU of the TUN device: what the hosts behind it may try. What an SA carries is computed per SA.
    pub tun_mtu: u16,
    /// Worker threads; absent: one per usable core.
    pub workers: Option<NonZeroU16>,
    /// Whether each worker is pinned to a core; absent: where there are more than two cores.
    pub pin: Option<bool>,
    /// Whether the TUN may deliver TCP super-packets.
    pub tun_tso: bool,
    /// Whether the TUN may deliver UDP super-packets.
    pub tun_uso: bool,
    /// Whether opened packets are merged into super-packets for the TUN.
    pub tun_gro: bool,
    /// Whether datagrams to one peer leave as trains.
    pub udp_gso: bool,
    /// Whether datagrams of one peer are received as trains.
    pub udp_gro: bool,
    /// How long a worker looks for more packets before it sleeps; zero: not at all.
    pub spin: Duration,
    /// Packets that may wait in the TUN device for a worker.
    pub tun_queue_len: NonZeroU32,
    /// Bytes that may wait in each socket, in each direction.
    pub socket_buffer: u32,
    /// Where Prometheus may ask for metrics; absent: nowhere.
    pub metrics: Option<SocketAddr>,
    /// Path of the control socket.
    pub vici_socket: PathBuf,
    /// Permission bits of the control socket.
    pub vici_socket_mode: u32,
    /// UDP port of IKE without encapsulation.
    pub port: u16,
    /// UDP port of IKE and ESP with NAT traversal.
    pub port_nat_t: u16,
    /// What keeps protected traffic from leaving in clear beside the TUN.
    pub guard: Guard,
    /// Outer path MTU to reckon with; absent: learned from the route and from ICMP.
    pub path_mtu: Option<u16>,
    /// Largest IP datagram that carries a fragment of an IKE message.
    pub fragment_size: u16,
    /// Whether strangers and single addresses are kept from opening more than their share of IKE SAs.
    pub dos_protection: bool,
    /// Folder for keys in Wireshark's formats; absent: they are told to nobody.
    pub key_log: Option<PathBuf>,
    /// Folder for secrets that outlive the process.
    pub state_dir: PathBuf,
    /// Whether peers get a token by which we can prove that we have lost an IKE SA (RFC 6290).
    pub crash_detection: bool,
    /// What is logged.
    pub log: LevelFilter,
    /// How it is logged.
    pub log_format: LogFormat,
    /// Routing table for the routes into the tunnels.
    pub routing_table: u32,
    /// Mark on our own outer packets, which routes them past that table.
    pub fwmark: u32,
}

/// The bit of a packet's mark that the guard sets on IPv6 packets from the tunnel device.
pub const TUNNEL_MARK: u32 = 0x0200_0000;

/// How protected traffic is kept from leaving in clear (`guard`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Kernel XFRM policies with action block, mirrored from the SPD.
    Xfrm,
    /// Nothing beside our own SPD.
    Off,
}

/// Shape of log lines (`log_format`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for DaemonConfig {
    fn default() -> Self {
        Self {
            tun: "ipsec0".to_owned(),
            tun_mtu: 1500,
            workers: None,
            pin: None,
            tun_tso: true,
            tun_uso: true,
            tun_gro: true,
            udp_gso: true,
            udp_gro: true,
            spin: Duration::ZERO,
            tun_queue_len: TUN_QUEUE_LEN,
            socket_buffer: 4 << 20,
            metrics: None,
            vici_socket: PathBuf::from("/run/lockgate/lockgate.vici"),
            vici_socket_mode: 0o600,
            port: 500,
            port_nat_t: 4500,
            guard: Guard::Xfrm,
            path_mtu: None,
            fragment_size: 1280,
            dos_protection: true,
            key_log: None,
            state_dir: PathBuf::from("/var/lib/lockgate"),
            crash_detection: true,
            log: LevelFilter::INFO,
            log_format: LogFormat::Text,
            routing_table: 4500,
            fwmark: 0x4c47,
        }
    }
}

/// Reads `[daemon]`. Wrong keys are reported and leave their defaults behind.
pub(super) fn read(section: &Section<'_>) -> DaemonConfig {
    section.check_keys(&keys::DAEMON);
    let default = DaemonConfig::default();
    let port = |key, default| {
        section
            .read(key, |text| value::integer(text, 1..=u16::MAX))
            .unwrap_or(default)
    };
    let switch = |key, default| section.read(key, value::boolean).unwrap_or(default);
    let daemon = DaemonConfig {
        tun: section.read("tun", interface).unwrap_or(default.tun),
        tun_mtu: section.read("tun_mtu", mtu).unwrap_or(default.tun_mtu),
        workers: section.read("workers", workers),
        pin: section.read("pin", value::boolean),
        tun_tso: switch("tun_tso", default.tun_tso),
        tun_uso: switch("tun_uso", default.tun_uso),
        tun_gro: switch("tun_gro", default.tun_gro),
        udp_gso: switch("udp_gso", default.udp_gso),
        udp_gro: switch("udp_gro", default.udp_gro),
        spin: section.read("spin", spin).unwrap_or(default.spin),
        tun_queue_len: section
            .read("tun_queue_len", queue_len)
            .unwrap_or(default.tun_queue_len),
        socket_buffer: section
            .read("socket_buffer", socket_buffer)
            .unwrap_or(default.socket_buffer),
        metrics: section.read("metrics", listen),
        vici_socket: section
            .read("vici_socket", socket)
            .unwrap_or(default.vici_socket),
        vici_socket_mode: section
            .get("vici_socket_mode")
            .and_then(|entry| entry.parse_string(mode))
            .unwrap_or(default.vici_socket_mode),
        port: port("port", default.port),
        port_nat_t: port("port_nat_t", default.port_nat_t),
        guard: section
            .read("guard", |text| value::choice(text, &GUARD))
            .unwrap_or(default.guard),
        path_mtu: section.read("path_mtu", mtu),
        fragment_size: section
            .read("fragment_size", fragment_size)
            .unwrap_or(default.fragment_size),
        dos_protection: switch("dos_protection", default.dos_protection),
        key_log: section.read("key_log", folder),
        state_dir: section
            .read("state_dir", folder)
            .unwrap_or(default.state_dir),
        crash_detection: switch("crash_detection", default.crash_detection),
        log: section
            .read("log", |text| value::choice(text, &LOG))
            .unwrap_or(default.log),
        log_format: section
            .read("log_format", |text| value::choice(text, &LOG_FORMAT))
            .unwrap_or(default.log_format),
        routing_table: section
            .read("routing_table", table)
            .unwrap_or(default.routing_table),
        fwmark: section.read("fwmark", fwmark).unwrap_or(default.fwmark),
    };
    if daemon.port == daemon.port_nat_t {
        section.fail_at(
            "port_nat_t",
            format!("must differ from port, which is {}", daemon.port),
        );
    }
    warn_of_effects(section, &daemon);
    daemon
}

/// What is allowed and has consequences that its key does not tell.
fn warn_of_effects(section: &Section<'_>, daemon: &DaemonConfig) {
    if daemon.tun_mtu < IPV6_MTU {
        section.warn_at(
            "tun_mtu",
            format!("is too small for IPv6, which needs {IPV6_MTU}"),
        );
    }
    if daemon.tun_uso && !daemon.tun_tso && section.get("tun_uso").is_some() {
        section.warn_at("tun_uso", "has no effect without tun_tso");
    }
    if let Some(folder) = &daemon.key_log {
        section.warn_at(
            "key_log",
            format!(
                "keys are written to {}: whoever reads them reads the traffic of all tunnels",
                folder.display()
            ),
        );
    }
    let metrics = daemon.metrics.filter(|listen| !listen.ip().is_loopback());
    if let Some(listen) = metrics {
        section.warn_at(
            "metrics",
            format!(
                "{listen} is not a loopback address: whoever reaches it reads the names of all tunnels and \
                 their traffic, without a password and in clear"
            ),
        );
    }
}

fn folder(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() {
        return Ok(path);
    }
    Err(format!("{text:?} is not an absolute path"))
}

fn interface(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':' | '%');
    if (1..=15).contains(&text.len()) && text.chars().all(allowed) && !matches!(text, "." | "..") {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{text:?} is not a device name; allowed: 1 to 15 characters without blanks, / and :"
    ))
}

/// Every IPv4 host takes 576 bytes (RFC 791), and no peer has to take a message of more than 16 KiB.
fn fragment_size(text: &str) -> Result<u16, String> {
    value::integer(text, 576..=16384)
}

fn mtu(text: &str) -> Result<u16, String> {
    value::integer(text, 576..=u16::MAX)
}

fn workers(text: &str) -> Result<NonZeroU16, String> {
    value::integer(text, 1..=WORKERS_MAX)
        .map(|count| NonZeroU16::new(count).unwrap_or(NonZeroU16::MIN))
}

/// Below what `value::duration` can tell apart, so with units of its own.
fn spin(text: &str) -> Result<Duration, String> {
    let units = [("us", 1), ("ms", 1000)];
    let scaled = units.iter().find_map(|&(unit, factor)| {
        let number = text.strip_suffix(unit)?.trim_end();
        value::integer(number, 0..=SPIN_MAX_MICROS / factor)
            .ok()
            .map(|number| number * factor)
    });
    let none = (value::duration(text) == Ok(Duration::ZERO)).then_some(0);
    let micros = scaled.or(none).ok_or_else(|| {
        format!("{text:?} is not allowed; allowed: 0, or up to 1 ms as in \"50us\" or \"1ms\"")
    });
    micros.map(Duration::from_micros)
}

fn queue_len(text: &str) -> Result<NonZeroU32, String> {
    value::integer(text, 1..=QUEUE_LEN_MAX)
        .map(|packets| NonZeroU32::new(packets).unwrap_or(NonZeroU32::MIN))
}

fn socket_buffer(text: &str) -> Result<u32, String> {
    let bytes = u32::try_from(value::volume(text)?).ok();
    bytes
        .filter(|bytes| SOCKET_BUFFER.contains(bytes))
        .ok_or_else(|| format!("{text:?} is not allowed; allowed: \"64K\" to \"1G\""))
}

/// A port of the system's choice would be one that nobody knows.
fn listen(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse::<SocketAddr>().ok();
    address.filter(|address| address.port() != 0).ok_or_else(|| {
        format!(
            "{text:?} is not an address with a port; allowed: as in \"127.0.0.1:9750\" or \"[::1]:9750\""
        )
    })
}

fn socket(text: &str) -> Result<PathBuf, String> {
    if (1..=SOCKET_PATH_MAX).contains(&text.len()) && !text.contains('\0') {
        return Ok(PathBuf::from(text));
    }
    Err(format!(
        "is not a path for a socket; allowed: 1 to {SOCKET_PATH_MAX} bytes"
    ))
}

/// Octal as in chmod, within the bits that mean anything for a socket.
fn mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok();
    mode.filter(|mode| mode & !0o777 == 0 && mode & 0o600 == 0o600)
        .ok_or_else(|| {
            format!("{text:?} is not a mode; allowed: octal as for chmod, from \"600\" to \"777\"")
        })
}

/// The kernel's own tables are none of ours.
fn table(text: &str) -> Result<u32, String> {
    match value::integer(text, 1..=u32::MAX)? {
        table @ 253..=255 => Err(format!(
            "{table} is a table of the kernel; allowed: any other number"
        )),
        table => Ok(table),
    }
}

/// What comes from the tunnel device must not pass for our own outer packets.
fn fwmark(text: &str) -> Result<u32, String> {
    match value::integer(text, 1..=u32::MAX)? {
        mark if mark & TUNNEL_MARK != 0 => Err(format!(
            "bit {TUNNEL_MARK:#x} is for packets from the tunnel device; allowed: a mark without it"
        )),
        mark => Ok(mark),
    }
}

const GUARD: [(&str, Guard); 3] = [
    ("xfrm", Guard::Xfrm),
    ("off", Guard::Off),
    ("no", Guard::Off),
];
const LOG: [(&str, LevelFilter); 7] = [
    ("off", LevelFilter::OFF),
    ("error", LevelFilter::ERROR),
    ("warn", LevelFilter::WARN),
    ("info", LevelFilter::INFO),
    ("debug", LevelFilter::DEBUG),
    ("trace", LevelFilter::TRACE),
    ("no", LevelFilter::OFF),
];
const LOG_FORMAT: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];
const IPV6_MTU: u16 = 1280;
const WORKERS_MAX: u16 = 256;
const SPIN_MAX_MICROS: u64 = 1000;
/// One ring per worker holds a pointer per packet.
const QUEUE_LEN_MAX: u32 = 65_536;
/// What small packets at their highest rate fill in the 10 ms that a worker may have to wait for a core.
const TUN_QUEUE_LEN: NonZeroU32 = NonZeroU32::new(2000).expect("not zero");
/// Room for one train of 64 KiB, and what the kernel can count twice over in an `int`.
const SOCKET_BUFFER: std::ops::RangeInclusive<u32> = 64 << 10..=1 << 30;
/// `sun_path` of Linux, less its final NUL.
const SOCKET_PATH_MAX: usize = 107;
