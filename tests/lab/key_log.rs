//! Wireshark reads captures with the keys that Lockgate has written down.

use std::{process::Command, time::Duration};

use rustix::process::Signal;

use crate::support::{
    eventually,
    lab::{Family, Lab, Plan, Side},
    process::Process,
    program,
    traffic::assert_reaches,
};

/// Captures a tunnel's whole life, one rekey of each kind included, and returns what tshark shows of each frame:
/// its protocols, the exchange of IKE and the types of its payloads.
fn deciphered(plan: &Plan) -> Option<Vec<String>> {
    let tshark = program("tshark", "tshark")?;
    let lab = Lab::new()?;
    let folder = tempfile::tempdir().unwrap();
    let capture = folder.path().join("outer.pcap");
    let mut command = Command::new(&tshark);
    command.args(["-q", "-i", "outer", "-w"]).arg(&capture);
    let mut watcher = Process::start(lab.gateway(Side::A), "tshark", command, folder.path());
    eventually("tshark captures", || {
        watcher.output().contains("Capturing on").then_some(())
    });

    let mut plan = plan.clone();
    let _b = lab.start(Side::B, &plan.config(Side::B));
    plan.daemon = format!("key_log = \"{}\"", folder.path().display());
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
    std::thread::sleep(Duration::from_millis(300));
    watcher.signal(Signal::INT);
    eventually("the capture is written", || {
        (!watcher.is_running()).then_some(())
    });

    let mut command = Command::new(&tshark);
    command.env("WIRESHARK_CONFIG_DIR", folder.path());
    command.args(["-o", "esp.enable_encryption_decode:TRUE", "-r"]);
    command
        .arg(&capture)
        .args(["-T", "fields", "-E", "separator=|"]);
    for field in [
        "frame.protocols",
        "isakmp.exchangetype",
        "isakmp.typepayload",
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
    Some(text.lines().map(str::to_owned).collect())
}

#[test]
fn wireshark_deciphers_ike_and_esp_with_the_logged_keys() {
    for (ike, esp) in [
        ("aes256gcm16-prfsha384-x25519", "aes256gcm16-x25519"),
        ("aes128-sha256-x25519", "aes128-sha256-x25519"),
    ] {
        let plan = Plan {
            proposal: ike.to_owned(),
            esp_proposal: esp.to_owned(),
            ..Plan::default()
        };
        let Some(lines) = deciphered(&plan) else {
            return;
        };
        let shown = lines.join("\n");
        for (exchange, inside) in [
            ("35", "46,35,41,36,39,41,33"), // IKE_AUTH: identities, proof, a crash token, an offer
            ("36", "46,41,33"),             // CREATE_CHILD_SA: REKEY_SA and an offer
            ("36", "46,33"),                // the same for the IKE SA
            ("37", "46,42"),                // INFORMATIONAL: a DELETE
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
