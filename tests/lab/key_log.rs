//! Wireshark reads captures with the keys that Lockgate has written down.

use std::{path::PathBuf, process::Command, time::Duration};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{
    eventually,
    lab::{Family, Lab, Plan, Side},
    process::Process,
    program,
    traffic::assert_reaches,
};

/// What is captured on the outer link, in a folder that is Wireshark's configuration too.
struct Capture {
    tshark: PathBuf,
    folder: TempDir,
    watcher: Process,
}

impl Capture {
    fn start(tshark: PathBuf, lab: &Lab) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(&tshark);
        let file = folder.path().join(FILE);
        command.args(["-q", "-i", "outer", "-w"]).arg(file);
        let watcher = Process::start(lab.gateway(Side::A), "tshark", command, folder.path());
        eventually("tshark captures", || {
            watcher.output().contains("Capturing on").then_some(())
        });
        Self {
            tshark,
            folder,
            watcher,
        }
    }

    /// The line of a configuration that has the keys logged here.
    fn key_log(&self) -> String {
        format!("key_log = \"{}\"", self.folder.path().display())
    }

    /// What tshark shows of each frame: its protocols, the exchange of IKE, the types of its payloads and
    /// notifications, and whether it is malformed.
    fn finish(mut self) -> Vec<String> {
        std::thread::sleep(Duration::from_millis(300));
        self.watcher.signal(Signal::INT);
        eventually("the capture is written", || {
            (!self.watcher.is_running()).then_some(())
        });
        let mut command = Command::new(&self.tshark);
        command.env("WIRESHARK_CONFIG_DIR", self.folder.path());
        command.args(["-o", "esp.enable_encryption_decode:TRUE", "-r"]);
        command.arg(self.folder.path().join(FILE));
        command.args(["-T", "fields", "-E", "separator=|"]);
        for field in [
            "frame.protocols",
            "isakmp.exchangetype",
            "isakmp.typepayload",
            "isakmp.notify.msgtype",
            "_ws.malformed",
        ] {
            command.args(["-e", field]);
        }
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        assert!(lines.iter().all(|line| line.ends_with('|')), "{text}");
        lines
    }
}

/// Captures a tunnel's whole life, one rekey of each kind included.
fn deciphered(plan: &Plan) -> Option<Vec<String>> {
    let tshark = program("tshark", "tshark")?;
    let lab = Lab::new()?;
    let capture = Capture::start(tshark, &lab);
    let mut plan = plan.clone();
    let _b = lab.start(Side::B, &plan.config(Side::B));
    plan.daemon = capture.key_log();
    let a = lab.start(Side::A, &plan.config(Side::A));
    a.initiate("net");
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
    for which in ["child", "ike"] {
        let name = if which == "child" { "net" } else { "lab" };
        a.command("rekey", &[(which, name)]);
        eventually("the rekey is over", || {
            let (ikes, children) = (a.established().len(), a.child_sas().len());
            (ikes == 1 && children == 1 && a.ike_sas().len() == 1).then_some(())
        });
        assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
    }
    a.command("terminate", &[("ike", "lab")]);
    Some(capture.finish())
}

#[test]
fn wireshark_deciphers_ike_and_esp_with_the_logged_keys() {
    for (ike, esp) in [
        ("aes256gcm16-prfsha384-x25519", "aes256gcm16-x25519"),
        ("aes128-sha256-x25519", "aes128-sha256-x25519"),
        ("aes256gcm12-prfsha384-x25519", "aes256gcm12-x25519"),
        ("aes128gcm8-prfsha256-x25519", "aes128gcm8-x25519"),
        ("aes256ctr-sha256-x25519", "aes256ctr-sha256-x25519"),
        ("aes128ccm8-prfsha256-x25519", "aes192gcm12-x25519"),
        ("aes192ccm12-prfsha256-x25519", "aes128ctr-sha512-x25519"),
        ("aes256ccm16-prfsha512-x25519", "null-sha256-x25519"),
    ] {
        let plan = Plan {
            proposal: ike.to_owned(),
            esp_proposal: esp.to_owned(),
            ..Plan::default()
        };
        let Some(lines) = deciphered(&plan) else {
            return;
        };
        let shown = format!("{ike} {esp}\n{}", lines.join("\n"));
        for (exchange, inside) in [
            // IKE_AUTH: identities, proof, a crash token, MESSAGE_ID_SYNC_SUPPORTED, an offer
            ("35", "46,35,41,36,39,41,41,33"),
            ("36", "46,41,33"), // CREATE_CHILD_SA: REKEY_SA and an offer
            ("36", "46,33"),    // the same for the IKE SA
            ("37", "46,42"),    // INFORMATIONAL: a DELETE
        ] {
            let wanted = format!("isakmp|{exchange}|{inside}");
            assert!(shown.contains(&wanted), "{wanted} in:\n{shown}");
        }
        let esp = |line: &&String| line.contains(":esp");
        let packets = lines.iter().filter(esp).count();
        let open = lines
            .iter()
            .filter(|line| line.contains(":esp:ip:udp:data"));
        assert_eq!(open.count(), packets, "{shown}");
        assert!(packets >= 6, "{shown}");
    }
}

/// RFC 5723: a ticket with IKE_AUTH, IKE_SESSION_RESUME that presents it, and an IKE_AUTH with the keys of that.
#[test]
fn wireshark_reads_how_a_session_is_resumed() {
    let Some(tshark) = program("tshark", "tshark") else {
        return;
    };
    let Some(lab) = Lab::new() else { return };
    let capture = Capture::start(tshark, &lab);
    let mut plan = Plan {
        connection: "resumption = true\ndpd_delay = \"1s\"\nkeyingtries = 0".to_owned(),
        ..Plan::default()
    };
    let mut b = lab.start(Side::B, &plan.config(Side::B));
    let restarted = plan.config(Side::B);
    plan.daemon = capture.key_log();
    plan.child = "dpd_action = \"restart\"".to_owned();
    let a = lab.start(Side::A, &plan.config(Side::A));
    a.initiate("net");
    b.process.kill();
    let b = lab.start(Side::B, &restarted);
    eventually("the tunnel is up again", || {
        (b.child_sas().len() == 1).then_some(())
    });
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
    let lines = capture.finish();
    let shown = lines.join("\n");
    let place = |exchange: &str, notify: &str| {
        let exchange = format!("isakmp|{exchange}|");
        let shows = |line: &String| {
            let mut fields = line.split('|').skip(3);
            line.contains(&exchange)
                && fields
                    .next()
                    .is_some_and(|all| all.split(',').any(|one| one == notify))
        };
        let found = lines.iter().position(shows);
        found.unwrap_or_else(|| panic!("{exchange}{notify} in:\n{shown}"))
    };
    let (asked, granted) = (place("35", "16410"), place("35", "16409"));
    let resumed = place("38", "16413");
    assert!(asked < granted && granted < resumed, "{shown}");
    // The request and its answer; either may have been sent again.
    let is_resume = |line: &&String| line.contains("isakmp|38|40,41");
    assert!(lines.iter().filter(is_resume).count() >= 2, "{shown}");
    // It proves itself by the keys of the session, without a certificate, and asks for the next ticket.
    let mut again = lines.iter().skip(resumed);
    let proof = again.find(|line| line.contains("isakmp|35|46,35,"));
    assert!(proof.is_some(), "{shown}");
}

const FILE: &str = "outer.pcap";
