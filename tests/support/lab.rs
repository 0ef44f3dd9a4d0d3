//! Two hosts behind two gateways, and the daemons on the gateways.
//!
//! ```text
//! host-a ─── gateway-a ═══════[nat]══════ gateway-b ─── host-b
//! ```

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
};

use ipnet::IpNet;
use lockgate::{
    cli::client::{Client, ClientError},
    io::netns::{Namespace, connect},
    wire::vici::{Message, Value},
};
use tempfile::TempDir;

use super::{PATIENCE, eventually, may_build_a_lab, process::Process, program};

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const BOTH: [Self; 2] = [Self::V4, Self::V6];
}

/// Left or right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    A,
    B,
}

impl Side {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    pub(crate) fn identity(self) -> &'static str {
        match self {
            Self::A => "gw-a.example",
            Self::B => "gw-b.example",
        }
    }

    /// The gateway's address on the outer link, without NAT.
    pub(crate) fn outer(self, family: Family) -> IpAddr {
        self.pick(
            family,
            ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"],
        )
    }

    /// The gateway's address in its own network.
    pub(crate) fn inner(self, family: Family) -> IpAddr {
        self.pick(family, ["10.1.0.1", "10.2.0.1", "fd00:1::1", "fd00:2::1"])
    }

    pub(crate) fn host(self, family: Family) -> IpAddr {
        self.pick(
            family,
            ["10.1.0.10", "10.2.0.10", "fd00:1::10", "fd00:2::10"],
        )
    }

    /// The network behind the gateway.
    pub(crate) fn network(self, family: Family) -> IpNet {
        in_network(self.inner(family)).trunc()
    }

    fn pick(self, family: Family, [a4, b4, a6, b6]: [&str; 4]) -> IpAddr {
        let text = match (self, family) {
            (Self::A, Family::V4) => a4,
            (Self::B, Family::V4) => b4,
            (Self::A, Family::V6) => a6,
            (Self::B, Family::V6) => b6,
        };
        text.parse().unwrap()
    }
}

fn in_network(address: IpAddr) -> IpNet {
    IpNet::new(address, if address.is_ipv4() { 24 } else { 64 }).unwrap()
}

/// The gateways' link, as each of them calls it.
pub(crate) const OUTER: &str = "outer";
/// The link between a host and its gateway.
pub(crate) const INNER: &str = "inner";
/// The address of a gateway that is behind the NAT.
pub(crate) const BEHIND_NAT: &str = "172.16.0.1";
/// The NAT's address towards the other gateway.
pub(crate) const NAT_OUTSIDE: &str = "192.0.2.254";

/// The namespaces, cabled and addressed in both families. A folder for configurations and logs.
pub(crate) struct Lab {
    pub(crate) host_a: Namespace,
    pub(crate) gateway_a: Namespace,
    pub(crate) gateway_b: Namespace,
    pub(crate) host_b: Namespace,
    pub(crate) nat: Option<Namespace>,
    pub(crate) folder: TempDir,
}

impl Lab {
    /// A lab with a plain outer link; skips the test where none can be built.
    pub(crate) fn new() -> Option<Self> {
        Self::with_outer_mtu(1500)
    }

    /// A lab whose outer link takes packets of up to `mtu` bytes.
    pub(crate) fn with_outer_mtu(mtu: u32) -> Option<Self> {
        let lab = Self::bare()?;
        connect((&lab.gateway_a, OUTER), (&lab.gateway_b, OUTER), mtu).unwrap();
        for side in [Side::A, Side::B] {
            for family in Family::BOTH {
                let address = in_network(side.outer(family));
                lab.gateway(side).add_address(OUTER, address).unwrap();
            }
        }
        Some(lab)
    }

    /// A lab in which the gateway of this side is behind a masquerading router (IPv4 only).
    pub(crate) fn with_nat(behind: Side) -> Option<Self> {
        let nft = program("nft", "nftables")?;
        let mut lab = Self::bare()?;
        let nat = Namespace::new("nat").unwrap();
        let (inside, outside) = (lab.gateway(behind), lab.gateway(behind.other()));
        connect((inside, OUTER), (&nat, "private"), 1500).unwrap();
        connect((&nat, "public"), (outside, OUTER), 1500).unwrap();
        let far = behind.other().outer(Family::V4).to_string();
        for (namespace, link, address) in [
            (inside, OUTER, BEHIND_NAT),
            (&nat, "private", "172.16.0.254"),
            (&nat, "public", NAT_OUTSIDE),
            (outside, OUTER, &far),
        ] {
            let address = in_network(address.parse().unwrap());
            namespace.add_address(link, address).unwrap();
        }
        let router = "172.16.0.254".parse().unwrap();
        inside
            .add_route("192.0.2.0/24".parse().unwrap(), router)
            .unwrap();
        nat.sysctl("ipv4/ip_forward", "1").unwrap();
        let rules = "add table ip nat; \
                     add chain ip nat out { type nat hook postrouting priority 100; }; \
                     add rule ip nat out oifname public masquerade random";
        let mut command = Command::new(nft);
        command.arg(rules);
        assert!(nat.run(move || command.status()).unwrap().success());
        lab.nat = Some(nat);
        Some(lab)
    }

    /// From now on the NAT forgets a mapping that has been idle for this long.
    pub(crate) fn expire_mappings_after(&self, seconds: u32) {
        let nat = self.nat.as_ref().expect("a lab with NAT");
        for timeout in [
            "nf_conntrack_udp_timeout",
            "nf_conntrack_udp_timeout_stream",
        ] {
            nat.sysctl(&format!("netfilter/{timeout}"), &seconds.to_string())
                .unwrap();
        }
    }

    /// A lab whose gateway B has links but neither addresses nor a say: a guest will have both.
    pub(crate) fn for_guest() -> Option<Self> {
        let lab = Self::with_gateways(&[Side::A])?;
        connect((&lab.gateway_a, OUTER), (&lab.gateway_b, OUTER), 1500).unwrap();
        for family in Family::BOTH {
            let address = in_network(Side::A.outer(family));
            lab.gateway_a.add_address(OUTER, address).unwrap();
        }
        Some(lab)
    }

    /// Hosts and gateways without a link between the gateways.
    fn bare() -> Option<Self> {
        Self::with_gateways(&[Side::A, Side::B])
    }

    /// The same, but only these gateways have addresses.
    fn with_gateways(gateways: &[Side]) -> Option<Self> {
        if !may_build_a_lab() {
            return None;
        }
        let lab = Self {
            host_a: Namespace::new("host-a").unwrap(),
            gateway_a: Namespace::new("gateway-a").unwrap(),
            gateway_b: Namespace::new("gateway-b").unwrap(),
            host_b: Namespace::new("host-b").unwrap(),
            nat: None,
            folder: TempDir::new().unwrap(),
        };
        for side in [Side::A, Side::B] {
            let (gateway, host) = (lab.gateway(side), lab.host(side));
            for namespace in [gateway, host] {
                // strongSwan tells its peer of addresses that come to be usable later.
                namespace
                    .sysctl("ipv6/conf/default/dad_transmits", "0")
                    .unwrap();
            }
            let has_gateway = gateways.contains(&side);
            if has_gateway {
                gateway.sysctl("ipv4/ip_forward", "1").unwrap();
                gateway.sysctl("ipv6/conf/all/forwarding", "1").unwrap();
            } else {
                gateway.sysctl("ipv6/conf/all/disable_ipv6", "1").unwrap();
            }
            connect((gateway, INNER), (host, INNER), 1500).unwrap();
            for family in Family::BOTH {
                let inner = side.inner(family);
                if has_gateway {
                    gateway.add_address(INNER, in_network(inner)).unwrap();
                }
                host.add_address(INNER, in_network(side.host(family)))
                    .unwrap();
                let everywhere = if inner.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
                host.add_route(everywhere.parse().unwrap(), inner).unwrap();
            }
        }
        Some(lab)
    }

    pub(crate) fn gateway(&self, side: Side) -> &Namespace {
        match side {
            Side::A => &self.gateway_a,
            Side::B => &self.gateway_b,
        }
    }

    pub(crate) fn host(&self, side: Side) -> &Namespace {
        match side {
            Side::A => &self.host_a,
            Side::B => &self.host_b,
        }
    }

    /// Every address that the gateways and the NAT have on the outer links.
    pub(crate) fn outer_addresses(&self) -> Vec<IpAddr> {
        let sides = [Side::A, Side::B];
        let own = sides
            .into_iter()
            .flat_map(|side| Family::BOTH.map(|family| side.outer(family)));
        own.chain([BEHIND_NAT, NAT_OUTSIDE].map(|address| address.parse().unwrap()))
            .collect()
    }

    /// Starts `lockgate run` on one gateway and waits until it answers.
    pub(crate) fn start(&self, side: Side, config: &str) -> Gateway {
        let gateway = self.start_without_waiting(side, config);
        gateway.wait_until_ready();
        gateway
    }

    /// Starts `lockgate run` on one gateway.
    pub(crate) fn start_without_waiting(&self, side: Side, config: &str) -> Gateway {
        let name = format!("gateway-{side:?}").to_lowercase();
        let file = self.folder.path().join(format!("{name}.toml"));
        let socket = self.socket(side);
        let config = format!("{config}\n");
        fs::write(&file, config.replace("SOCKET", &socket.to_string_lossy())).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_lockgate"));
        command.arg("run").arg("--config").arg(&file);
        let process = Process::start(self.gateway(side), &name, command, self.folder.path());
        Gateway {
            process,
            socket,
            file,
        }
    }

    fn socket(&self, side: Side) -> PathBuf {
        self.folder.path().join(format!("{side:?}.vici"))
    }

    /// Starts both gateways with the same plan and brings the tunnel up from A.
    pub(crate) fn tunnel(&self, plan: &Plan) -> [Gateway; 2] {
        let b = self.start(Side::B, &plan.config(Side::B));
        let a = self.start(Side::A, &plan.config(Side::A));
        a.initiate("net");
        [a, b]
    }
}

/// Runs `ip` in a namespace.
#[track_caller]
pub(crate) fn ip(namespace: &Namespace, arguments: &str) {
    let mut command = Command::new("ip");
    command.args(arguments.split(' '));
    let status = namespace.run(move || command.status()).unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// What the two configurations of a lab have in common. The connection is `lab`, its child `net`.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) outer: Family,
    pub(crate) inner: Vec<Family>,
    /// This side is behind a NAT.
    pub(crate) nat: Option<Side>,
    /// This side may use any of its addresses.
    pub(crate) roams: Option<Side>,
    pub(crate) encap: bool,
    pub(crate) workers: u16,
    pub(crate) proposal: String,
    pub(crate) esp_proposal: String,
    /// More lines for `[daemon]`.
    pub(crate) daemon: String,
    /// More lines for `[connections.lab]`.
    pub(crate) connection: String,
    /// More lines for `[connections.lab.children.net]`.
    pub(crate) child: String,
    /// Whole tables to append.
    pub(crate) more: String,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            outer: Family::V4,
            inner: Family::BOTH.to_vec(),
            nat: None,
            roams: None,
            encap: true,
            workers: 1,
            proposal: "aes256gcm16-prfsha384-x25519".to_owned(),
            esp_proposal: "aes256gcm16-x25519".to_owned(),
            daemon: String::new(),
            connection: String::new(),
            child: String::new(),
            more: String::new(),
        }
    }
}

impl Plan {
    /// What the configuration of one side says about the outer address of a gateway.
    pub(crate) fn address(&self, of: Side, side: Side) -> String {
        let own = of == side;
        if own && self.roams == Some(of) || !own && self.nat == Some(of) {
            return "%any".to_owned();
        }
        match self.nat {
            Some(behind) if behind == of => BEHIND_NAT.to_owned(),
            _ => of.outer(self.outer).to_string(),
        }
    }

    /// The configuration of one side.
    pub(crate) fn config(&self, side: Side) -> String {
        let far = side.other();
        let networks = |side: Side| {
            let networks = self
                .inner
                .iter()
                .map(|family| format!("\"{}\"", side.network(*family)));
            networks.collect::<Vec<_>>().join(", ")
        };
        format!(
            r#"
[daemon]
vici_socket = "SOCKET"
state_dir = "SOCKET.state"
workers = {workers}
pin = false
log = "debug"
{daemon}

[connections.lab]
version = 2
local_addrs = ["{local}"]
remote_addrs = ["{remote}"]
encap = {encap}
proposals = ["{proposal}"]
local = {{ auth = "psk", id = "{local_id}" }}
remote = {{ auth = "psk", id = "{remote_id}" }}
{connection}

[connections.lab.children.net]
local_ts = [{local_ts}]
remote_ts = [{remote_ts}]
esp_proposals = ["{esp_proposal}"]
{child}

[secrets.ike-lab]
id = ["{remote_id}"]
secret = "correct horse battery staple"
{more}
"#,
            workers = self.workers,
            daemon = self.daemon,
            local = self.address(side, side),
            remote = self.address(far, side),
            encap = self.encap,
            proposal = self.proposal,
            local_id = side.identity(),
            remote_id = far.identity(),
            connection = self.connection,
            local_ts = networks(side),
            remote_ts = networks(far),
            esp_proposal = self.esp_proposal,
            child = self.child,
            more = self.more,
        )
    }
}

/// A running `lockgate run`.
pub(crate) struct Gateway {
    pub(crate) process: Process,
    socket: PathBuf,
    file: PathBuf,
}

impl Gateway {
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The configuration file.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    pub(crate) fn wait_until_ready(&self) {
        eventually("the daemon answers", || {
            Client::connect(&self.socket)
                .ok()?
                .command("version", Message::new())
                .ok()
        });
    }

    /// Runs a VICI command; the answer may say `success = no`.
    pub(crate) fn ask(&self, command: &str, arguments: &[(&str, &str)]) -> Message {
        let mut message = Message::new();
        for (key, value) in arguments {
            message.set(*key, value);
        }
        let mut client = Client::connect(&self.socket).unwrap();
        let stream =
            client
                .stream::<ClientError>(command, message, "control-log", Some(PATIENCE), |_| Ok(()));
        stream.unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// Runs a VICI command that has to succeed.
    #[track_caller]
    pub(crate) fn command(&self, command: &str, arguments: &[(&str, &str)]) -> Message {
        let answer = self.ask(command, arguments);
        assert_eq!(
            answer.get("success"),
            Some("yes"),
            "{command} {arguments:?}: {answer:?}"
        );
        answer
    }

    #[track_caller]
    pub(crate) fn initiate(&self, child: &str) {
        self.command("initiate", &[("child", child), ("timeout", "20000")]);
    }

    /// What a streaming command such as `list-sas` lists, one section an entry.
    pub(crate) fn list(&self, command: &str, event: &str) -> Vec<(String, Message)> {
        let mut entries = Vec::new();
        let mut client = Client::connect(&self.socket).unwrap();
        client
            .stream::<ClientError>(command, Message::new(), event, Some(PATIENCE), |message| {
                entries.extend(sections(message));
                Ok(())
            })
            .unwrap();
        entries
    }

    /// IKE SAs.
    pub(crate) fn ike_sas(&self) -> Vec<Message> {
        self.list("list-sas", "list-sa")
            .into_iter()
            .map(|(_, sa)| sa)
            .collect()
    }

    /// Established IKE SAs.
    pub(crate) fn established(&self) -> Vec<Message> {
        let mut sas = self.ike_sas();
        sas.retain(|sa| sa.get("state") == Some("ESTABLISHED"));
        sas
    }

    /// Installed Child SAs of all established IKE SAs.
    pub(crate) fn child_sas(&self) -> Vec<Message> {
        let children = self.established().into_iter().filter_map(|sa| {
            let children = sa.get_section("child-sas")?;
            Some(
                sections(children)
                    .into_iter()
                    .map(|(_, child)| child)
                    .collect::<Vec<_>>(),
            )
        });
        let mut children: Vec<Message> = children.flatten().collect();
        children.retain(|child| child.get("state") == Some("INSTALLED"));
        children
    }

    /// The counter of packets dropped for this reason.
    pub(crate) fn drops(&self, reason: &str) -> u64 {
        self.counter("drops", reason)
    }

    /// The counter of IKE messages discarded for this reason.
    pub(crate) fn discards(&self, reason: &str) -> u64 {
        self.counter("discards", reason)
    }

    fn counter(&self, kind: &str, reason: &str) -> u64 {
        let stats = self.ask("stats", &[]);
        let counters = stats.get_section(kind).expect("the daemon reports it");
        counters
            .get(reason)
            .map_or(0, |count| count.parse().unwrap())
    }
}

/// The sections of a message.
pub(crate) fn sections(message: &Message) -> Vec<(String, Message)> {
    let sections = message.iter().filter_map(|(name, value)| match value {
        Value::Section(section) => Some((name.to_owned(), section.clone())),
        _ => None,
    });
    sections.collect()
}
