//! Lockgate on one gateway, a guest with somebody else's daemon on the other.

use crate::support::{
    eventually,
    guest::Guest,
    lab::{Family, Gateway, Lab, Plan, Side},
    tools::Tools,
};

/// A daemon in a guest: how it is told what to do. Every command is a line of shell.
pub(crate) struct Peer {
    /// How Lockgate calls what the peer is configured to use.
    pub(crate) proposal: &'static str,
    pub(crate) esp_proposal: &'static str,
    /// Files and what they hold.
    pub(crate) files: Vec<(&'static str, String)>,
    /// Starts the daemon, with the folder of the files in `$files`.
    pub(crate) start: &'static str,
    /// Succeeds once the daemon answers and has its configuration.
    pub(crate) ready: &'static str,
    pub(crate) initiate: &'static str,
}

/// Both ends, running and configured. Fields drop in order: daemons before their lab.
pub(crate) struct Tunnel {
    pub(crate) lockgate: Gateway,
    pub(crate) guest: Guest,
    pub(crate) lab: Lab,
    tools: Tools,
}

/// What a rekey replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sa {
    Ike,
    Child,
}

impl Tunnel {
    /// Starts both; `None`, with the test skipped, where that is impossible.
    ///
    /// `encap` is whether Lockgate insists on UDP around ESP.
    pub(crate) fn new(peer: &Peer, encap: bool) -> Option<Self> {
        Self::with(peer, (Family::V4, encap), vec![Family::V4], "")
    }

    /// The same in transport mode between the gateways themselves.
    pub(crate) fn transport(peer: &Peer, outer: Family, encap: bool) -> Option<Self> {
        Self::with(peer, (outer, encap), Vec::new(), "mode = \"transport\"")
    }

    fn with(
        peer: &Peer,
        (outer, encap): (Family, bool),
        inner: Vec<Family>,
        child: &str,
    ) -> Option<Self> {
        let tools = Tools::find()?;
        let lab = Lab::for_guest()?;
        let guest = Guest::boot(&lab)?;
        for (address, link) in [
            (Side::B.outer(Family::V4), "vec0"),
            (Side::B.inner(Family::V4), "vec1"),
        ] {
            guest.run(&format!("ip address add {address}/24 dev {link}"));
        }
        let address = Side::B.outer(Family::V6);
        guest.run(&format!("ip address add {address}/64 dev vec0 nodad"));
        let (far, gateway) = (Side::A.network(Family::V4), Side::A.outer(Family::V4));
        guest.run(&format!("ip route add {far} via {gateway}"));
        for (name, text) in &peer.files {
            guest.file(name, text);
        }
        guest.run(&format!("files={}", lab.folder.path().display()));
        guest.run(peer.start);
        eventually("the peer is ready", || {
            (guest.attempt(peer.ready).0 == 0).then_some(())
        });
        let plan = Plan {
            outer,
            inner,
            child: child.to_owned(),
            proposal: peer.proposal.to_owned(),
            esp_proposal: peer.esp_proposal.to_owned(),
            encap,
            ..Plan::default()
        };
        let lockgate = lab.start(Side::A, &plan.config(Side::A));
        Some(Self {
            lockgate,
            guest,
            lab,
            tools,
        })
    }

    /// Waits until each end has one pair of SAs, and sends traffic through them.
    #[track_caller]
    pub(crate) fn assert_up(&self) {
        eventually("Lockgate shows one tunnel", || {
            let lockgate = &self.lockgate;
            (lockgate.ike_sas().len() == 1 && lockgate.child_sas().len() == 1).then_some(())
        });
        eventually("the guest's kernel has one pair of SAs", || {
            let states = self.guest.run("ip xfrm state");
            (states.matches("proto esp").count() == 2).then_some(())
        });
        self.assert_carried();
    }

    #[track_caller]
    pub(crate) fn assert_carried(&self) {
        self.tools.assert_carried(&self.lab, &[Family::V4]);
        for reason in ["integrity-failed", "bad-padding", "selector-mismatch"] {
            assert_eq!(self.lockgate.drops(reason), 0, "{reason}");
        }
    }

    /// The SPI that tells a key from the one before it.
    pub(crate) fn keys(&self, of: Sa) -> String {
        let (sas, key) = match of {
            Sa::Ike => (self.lockgate.established(), "initiator-spi"),
            Sa::Child => (self.lockgate.child_sas(), "spi-in"),
        };
        let sa = sas.first();
        let spi = sa.and_then(|sa| sa.get(key));
        spi.unwrap_or_default().to_owned()
    }

    /// Runs `rekey` and waits until there are new keys.
    #[track_caller]
    pub(crate) fn rekeyed(&self, of: Sa, rekey: impl FnOnce(&Self)) {
        let before = self.keys(of);
        rekey(self);
        eventually("there are new keys", || {
            let after = self.keys(of);
            (after != before && !after.is_empty()).then_some(())
        });
    }

    #[track_caller]
    pub(crate) fn lockgate_rekeys(&self, of: Sa) {
        let argument = match of {
            Sa::Ike => ("ike", "lab"),
            Sa::Child => ("child", "net"),
        };
        self.rekeyed(of, |tunnel| {
            tunnel.lockgate.command("rekey", &[argument]);
        });
    }

    /// Lockgate's rekeys of both SAs, then the peer's by these commands, with traffic after each.
    #[track_caller]
    pub(crate) fn both_rekey(&self, child: &str, ike: &str) {
        for (of, line) in [(Sa::Child, child), (Sa::Ike, ike)] {
            self.lockgate_rekeys(of);
            self.assert_up();
            self.rekeyed(of, |tunnel| {
                println!("{}", tunnel.guest.run(line));
            });
            self.assert_up();
        }
    }
}
