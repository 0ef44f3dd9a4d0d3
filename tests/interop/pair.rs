//! Lockgate and strongSwan on the two gateways of a lab.

use std::{net::IpAddr, path::PathBuf, process::Command};

use lockgate::io::netns::Namespace;

use crate::support::{
    eventually,
    lab::{Family, Gateway, Lab, Plan, Side},
    program,
    strongswan::{Programs, StrongSwan},
    traffic::{assert_reaches, tcp},
};

/// Who sends IKE_SA_INIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Initiator {
    Lockgate,
    StrongSwan,
}

impl Initiator {
    pub(crate) const BOTH: [Self; 2] = [Self::Lockgate, Self::StrongSwan];
}

/// Both daemons, running and configured. Fields drop in order: daemons before their lab.
pub(crate) struct Pair {
    pub(crate) lockgate: Gateway,
    pub(crate) strongswan: StrongSwan,
    pub(crate) lab: Lab,
    plan: Plan,
    ping: PathBuf,
    iperf: PathBuf,
}

impl Pair {
    /// Starts both; `None`, with the test skipped, where that is impossible.
    ///
    /// `connection` holds more lines for strongSwan's connection.
    pub(crate) fn new(plan: Plan, connection: &str) -> Option<Self> {
        let programs = Programs::find()?;
        let ping = program("ping", "iputils-ping")?;
        let iperf = program("iperf3", "iperf3")?;
        let lab = Lab::new()?;
        let config = swanctl_conf(&plan, connection);
        let strongswan = StrongSwan::start(&programs, &lab.gateway_b, lab.folder.path(), &config);
        let lockgate = lab.start(Side::A, &plan.config(Side::A));
        Some(Self {
            lockgate,
            strongswan,
            lab,
            plan,
            ping,
            iperf,
        })
    }

    /// The same, with the tunnel up.
    pub(crate) fn connected(plan: Plan, connection: &str, initiator: Initiator) -> Option<Self> {
        let pair = Self::new(plan, connection)?;
        pair.initiate(initiator);
        Some(pair)
    }

    #[track_caller]
    pub(crate) fn initiate(&self, initiator: Initiator) {
        match initiator {
            Initiator::Lockgate => self.lockgate.initiate("net"),
            Initiator::StrongSwan => {
                self.strongswan
                    .swanctl_ok(&["--initiate", "--child", "net", "--timeout", "20"]);
            }
        }
        self.is_up();
    }

    /// Waits until both ends show exactly one IKE SA and one Child SA.
    #[track_caller]
    pub(crate) fn is_up(&self) {
        eventually("Lockgate shows one tunnel", || {
            let lockgate = &self.lockgate;
            (lockgate.ike_sas().len() == 1 && lockgate.child_sas().len() == 1).then_some(())
        });
        eventually("strongSwan shows one tunnel", || {
            let sas = self.strongswan.sas();
            let children = sas.matches("INSTALLED").count();
            (sas.matches("ESTABLISHED").count() == 1 && children == 1).then_some(())
        });
    }

    /// Waits until neither end shows an IKE SA.
    #[track_caller]
    pub(crate) fn is_down(&self) {
        eventually("Lockgate shows no tunnel", || {
            self.lockgate.ike_sas().is_empty().then_some(())
        });
        eventually("strongSwan shows no tunnel", || {
            self.strongswan.sas().trim().is_empty().then_some(())
        });
    }

    /// Ping and TCP both ways, with our own sockets and with iperf3.
    #[track_caller]
    pub(crate) fn carries_traffic(&self) {
        for family in &self.plan.inner {
            for (from, to, side) in [
                (&self.lab.host_a, &self.lab.host_b, Side::B),
                (&self.lab.host_b, &self.lab.host_a, Side::A),
            ] {
                let target = side.host(*family);
                assert_reaches(from, to, target);
                for _ in 0..3 {
                    self.ping(from, target);
                }
                tcp(from, to, target, 500_000);
                self.iperf(from, to, &target.to_string());
            }
        }
    }

    /// One echo request that has to be answered. After a first answer, ping waits for a further one
    /// no longer than two round trips, which a busy machine may miss; so each has its own ping.
    #[track_caller]
    fn ping(&self, from: &Namespace, target: IpAddr) {
        let mut ping = Command::new(&self.ping);
        ping.args(["-q", "-c1", "-W20"]).arg(target.to_string());
        let output = from.run(move || ping.output()).unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("1 received"), "{text}");
    }

    fn iperf(&self, from: &Namespace, to: &Namespace, target: &str) {
        let mut server = Command::new(&self.iperf);
        server.args(["--server", "--one-off", "--bind", target]);
        let folder = self.lab.folder.path();
        let mut server = crate::support::process::Process::start(to, "iperf3", server, folder);
        let ran = eventually("iperf3 has run", || {
            let mut client = Command::new(&self.iperf);
            client.args([
                "--client",
                target,
                "--bytes",
                "2M",
                "--connect-timeout",
                "5000",
            ]);
            let output = from.run(move || client.output()).unwrap();
            // The server may not listen yet.
            output.status.success().then_some(output)
        });
        assert!(ran.status.success());
        eventually("the iperf3 server ends", || {
            (!server.is_running()).then_some(())
        });
    }

    /// The line of `swanctl --list-sas` that shows the algorithms of the IKE SA, and of the child.
    pub(crate) fn strongswan_algorithms(&self) -> (String, String) {
        let sas = self.strongswan.sas();
        let find = |text: &str| sas.lines().find(|line| line.contains(text)).map(str::trim);
        let ike = find("PRF_").unwrap_or_default().to_owned();
        (ike, find("ESP:").unwrap_or_default().to_owned())
    }
}

fn swanctl_conf(plan: &Plan, connection: &str) -> String {
    let networks = |side: Side| {
        let networks = plan
            .inner
            .iter()
            .map(|family: &Family| side.network(*family).to_string());
        networks.collect::<Vec<_>>().join(",")
    };
    format!(
        r#"
connections {{
    lab {{
        version = 2
        local_addrs = {local}
        remote_addrs = {remote}
        proposals = {proposal}
        {connection}
        local {{
            auth = psk
            id = {local_id}
        }}
        remote {{
            auth = psk
            id = {remote_id}
        }}
        children {{
            net {{
                local_ts = {local_ts}
                remote_ts = {remote_ts}
                esp_proposals = {esp_proposal}
            }}
        }}
    }}
}}
secrets {{
    ike-lab {{
        id = {remote_id}
        secret = "correct horse battery staple"
    }}
}}
"#,
        local = Side::B.outer(plan.outer),
        remote = Side::A.outer(plan.outer),
        proposal = plan.proposal,
        local_id = Side::B.identity(),
        remote_id = Side::A.identity(),
        local_ts = networks(Side::B),
        remote_ts = networks(Side::A),
        esp_proposal = plan.esp_proposal,
    )
}
