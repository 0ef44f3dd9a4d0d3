//! Lockgate and strongSwan on the two gateways of a lab.

use lockgate::wire::vici::Message;

use crate::support::{
    eventually,
    lab::{Family, Gateway, Lab, Plan, Side},
    strongswan::{Programs, StrongSwan},
    tools::Tools,
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

/// The SPIs of IKE SAs and of Child SAs.
pub(crate) type Spis = (Vec<String>, Vec<String>);

/// Both daemons, running and configured. Fields drop in order: daemons before their lab.
pub(crate) struct Pair {
    pub(crate) lockgate: Gateway,
    pub(crate) strongswan: StrongSwan,
    pub(crate) lab: Lab,
    pub(crate) plan: Plan,
    tools: Tools,
}

impl Pair {
    /// Starts both; `None`, with the test skipped, where that is impossible.
    ///
    /// `connection` holds more lines for strongSwan's connection.
    pub(crate) fn new(plan: Plan, connection: &str) -> Option<Self> {
        Self::changed(plan, connection, |_, config| config)
    }

    /// The same with changes to each one's configuration.
    pub(crate) fn changed(
        plan: Plan,
        connection: &str,
        change: impl Fn(Initiator, String) -> String,
    ) -> Option<Self> {
        Self::prepared(plan, connection, |_| {}, change)
    }

    /// The same, after `prepare` has put into the lab what the configurations name.
    pub(crate) fn prepared(
        plan: Plan,
        connection: &str,
        prepare: impl FnOnce(&Lab),
        change: impl Fn(Initiator, String) -> String,
    ) -> Option<Self> {
        let programs = Programs::find(crate::DEBIAN)?;
        let tools = Tools::find()?;
        let lab = match plan.nat {
            Some(behind) => Lab::with_nat(behind)?,
            None => Lab::new()?,
        };
        prepare(&lab);
        let config = change(Initiator::StrongSwan, swanctl_conf(&plan, connection));
        let strongswan = StrongSwan::start(programs, &lab.gateway_b, lab.folder.path(), &config);
        let config = change(Initiator::Lockgate, plan.config(Side::A));
        let lockgate = lab.start(Side::A, &config);
        Some(Self {
            lockgate,
            strongswan,
            lab,
            plan,
            tools,
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

    /// What names the SAs in use at Lockgate's end.
    pub(crate) fn spis(&self) -> Spis {
        let all = |sas: Vec<Message>, key| {
            let spis = sas.iter().filter_map(|sa| sa.get(key));
            spis.map(str::to_owned).collect()
        };
        (
            all(self.lockgate.established(), "initiator-spi"),
            all(self.lockgate.child_sas(), "spi-in"),
        )
    }

    /// Ping and TCP both ways, with our own sockets and with iperf3.
    #[track_caller]
    pub(crate) fn carries_traffic(&self) {
        self.tools.assert_carried(&self.lab, &self.plan.inner);
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
    ppk-lab {{
        id = quantum.example
        secret = "0x00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
    }}
}}
"#,
        local = plan.address(Side::B, Side::B),
        remote = plan.address(Side::A, Side::B),
        proposal = plan.proposal,
        local_id = Side::B.identity(),
        remote_id = Side::A.identity(),
        local_ts = networks(Side::B),
        remote_ts = networks(Side::A),
        esp_proposal = plan.esp_proposal,
    )
}
