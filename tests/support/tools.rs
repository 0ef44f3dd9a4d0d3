//! Traffic through a lab, made by other people's programs as well as by our own sockets.

use std::{net::IpAddr, path::PathBuf, process::Command};

use lockgate::io::netns::Namespace;

use super::{
    eventually,
    lab::{Family, Lab, Side},
    process::Process,
    program,
    traffic::{assert_reaches, tcp},
};

/// The programs; `None`, with the test skipped, where one is missing.
pub(crate) struct Tools {
    ping: PathBuf,
    iperf: PathBuf,
}

impl Tools {
    pub(crate) fn find() -> Option<Self> {
        Some(Self {
            ping: program("ping", "iputils-ping")?,
            iperf: program("iperf3", "iperf3")?,
        })
    }

    /// Ping and TCP between the hosts both ways, with our own sockets and with iperf3.
    #[track_caller]
    pub(crate) fn assert_carried(&self, lab: &Lab, families: &[Family]) {
        for family in families {
            for (from, to, side) in [
                (&lab.host_a, &lab.host_b, Side::B),
                (&lab.host_b, &lab.host_a, Side::A),
            ] {
                let target = side.host(*family);
                assert_reaches(from, to, target);
                for _ in 0..3 {
                    self.ping(from, target);
                }
                tcp(from, to, target, 500_000);
                self.iperf(lab, from, to, &target.to_string());
            }
        }
    }

    /// An echo request that has to be answered, of three: other gateways may lose a packet when they
    /// rekey. After a first answer, ping waits for a further one no longer than two round trips, which a
    /// busy machine may miss; so each has its own ping.
    #[track_caller]
    fn ping(&self, from: &Namespace, target: IpAddr) {
        let mut text = String::new();
        for _ in 0..3 {
            let mut ping = Command::new(&self.ping);
            ping.args(["-q", "-c1", "-W10"]).arg(target.to_string());
            let output = from.run(move || ping.output()).unwrap();
            text = String::from_utf8_lossy(&output.stdout).into_owned();
            if text.contains("1 received") {
                return;
            }
        }
        panic!("{text}");
    }

    #[track_caller]
    fn iperf(&self, lab: &Lab, from: &Namespace, to: &Namespace, target: &str) {
        let mut server = Command::new(&self.iperf);
        server.args(["--server", "--one-off", "--bind", target]);
        let mut server = Process::start(to, "iperf3", server, lab.folder.path());
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
}
