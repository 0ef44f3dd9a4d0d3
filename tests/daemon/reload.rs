//! Reading the configuration again, by control socket and by signal.

use std::fs;

use lockgate::wire::vici::Message;
use rustix::process::Signal;

use crate::pki::{self, Kind};
use crate::support::{
    eventually,
    lab::{Family, Gateway, Lab, Plan, Side},
    traffic::assert_reaches,
};

/// A second connection beside that of the lab, to a peer that does not exist.
const SPARE: &str = r#"
[connections.spare]
remote_addrs = ["192.0.2.99"]
local = { auth = "psk", id = "gw-a.example" }
remote = { auth = "psk", id = "nobody.example" }

[connections.spare.children.far]
local_ts = ["10.1.0.0/24"]
remote_ts = ["10.99.0.0/24"]

[secrets.ike-spare]
id = ["nobody.example"]
secret = "another one"
"#;

fn rewrite(gateway: &Gateway, change: impl FnOnce(String) -> String) {
    let text = fs::read_to_string(gateway.file()).unwrap();
    fs::write(gateway.file(), change(text)).unwrap();
}

fn ids(sas: &[Message]) -> Vec<String> {
    let ids = sas.iter().map(|sa| sa.get("uniqueid").unwrap().to_owned());
    ids.collect()
}

fn connections(gateway: &Gateway) -> Vec<String> {
    let listed = gateway.list("list-conns", "list-conn").into_iter();
    listed.map(|(name, _)| name).collect()
}

#[test]
fn a_configuration_with_mistakes_changes_nothing_and_the_answer_names_file_and_line() {
    let Some(lab) = Lab::new() else { return };
    let [a, _b] = lab.tunnel(&Plan::default());
    let before = (ids(&a.established()), ids(&a.child_sas()));
    rewrite(&a, |text| {
        let text = text.replace("[connections.lab]", "[connections.renamed]");
        let text = text.replace("[connections.lab.children", "[connections.renamed.children");
        format!("{text}{SPARE}").replace("encap = true", "encup = true")
    });
    let answer = a.ask("reload-settings", &[]);
    assert_eq!(answer.get("success"), Some("no"));
    let reason = answer.get("errmsg").unwrap();
    let file = a.file().to_string_lossy();
    assert!(reason.starts_with(&format!("{file}:")), "{reason}");
    assert!(reason.contains("connections.renamed.encup"), "{reason}");
    assert_eq!((ids(&a.established()), ids(&a.child_sas())), before);
    assert_eq!(connections(&a), ["lab"]);

    a.process.signal(Signal::HUP);
    eventually("the signal is answered in the log", || {
        let tries = a.process.output().matches("nothing changed").count();
        (tries == 2).then_some(())
    });
    assert_eq!((ids(&a.established()), ids(&a.child_sas())), before);
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
}

#[test]
fn a_reload_leaves_the_sas_of_unchanged_connections_alone() {
    let Some(lab) = Lab::new() else { return };
    let [a, _b] = lab.tunnel(&Plan::default());
    let before = (ids(&a.established()), ids(&a.child_sas()));
    rewrite(&a, |text| format!("{text}{SPARE}"));
    a.process.signal(Signal::HUP);
    eventually("the new connection is known", || {
        (connections(&a) == ["lab", "spare"]).then_some(())
    });
    assert_eq!((ids(&a.established()), ids(&a.child_sas())), before);
    assert!(routes(&lab).contains("10.99.0.0/24"));

    rewrite(&a, |text| text.replace(SPARE, ""));
    a.command("reload-settings", &[]);
    assert_eq!(connections(&a), ["lab"]);
    assert_eq!((ids(&a.established()), ids(&a.child_sas())), before);
    assert!(!routes(&lab).contains("10.99.0.0/24"));
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V6));
}

#[test]
fn a_changed_connection_is_set_up_again_with_its_new_values() {
    let Some(lab) = Lab::new() else { return };
    let plan = Plan {
        child: "start_action = \"start\"".to_owned(),
        ..Plan::default()
    };
    let b = lab.start(Side::B, &Plan::default().config(Side::B));
    let a = lab.start(Side::A, &plan.config(Side::A));
    eventually("the tunnel is up", || {
        (a.child_sas().len() == 1).then_some(())
    });
    let before = ids(&a.established());
    for gateway in [&b, &a] {
        rewrite(gateway, |text| text.replace("prfsha384", "prfsha512"));
        gateway.command("reload-settings", &[]);
    }
    eventually("the tunnel is up with the new algorithm", || {
        let sas = a.established();
        let [sa] = &sas[..] else { return None };
        let renewed = sa.get("prf-alg") == Some("PRF_HMAC_SHA2_512");
        (renewed && ids(&sas) != before && a.child_sas().len() == 1).then_some(())
    });
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
}

#[test]
fn a_connection_that_is_gone_from_the_file_is_closed() {
    let Some(lab) = Lab::new() else { return };
    let [a, b] = lab.tunnel(&Plan::default());
    let socket = a.socket().to_string_lossy().into_owned();
    rewrite(&a, |_| {
        format!("[daemon]\nvici_socket = {socket:?}\nworkers = 1\npin = false\n{SPARE}")
    });
    a.command("reload-settings", &[]);
    for gateway in [&a, &b] {
        eventually("the tunnel is closed", || {
            gateway.ike_sas().is_empty().then_some(())
        });
    }
    assert_eq!(connections(&a), ["spare"]);
    assert!(!routes(&lab).contains("10.2.0.0/24"));
}

#[test]
fn settings_of_the_process_that_need_a_restart_are_named_and_left_as_they_are() {
    let Some(lab) = Lab::new() else { return };
    let a = lab.start(Side::A, &Plan::default().config(Side::A));
    rewrite(&a, |text| {
        text.replace("[daemon]", "[daemon]\ntun = \"other0\"\ntun_mtu = 1300")
    });
    let answer = a.command("reload-settings", &[]);
    let needed = answer.get_list("restart-needed");
    assert_eq!(needed, Some(vec!["tun", "tun_mtu"]));
    assert!(routes(&lab).contains("dev ipsec0"));
}

fn routes(lab: &Lab) -> String {
    let output = lab.gateway_a.run(|| {
        std::process::Command::new("ip")
            .args(["route", "show", "table", "4500"])
            .output()
    });
    String::from_utf8(output.unwrap().stdout).unwrap()
}

#[test]
fn renewed_certificates_and_authorities_leave_the_tunnel_up_until_an_authority_is_dropped() {
    let Some(lab) = Lab::new() else { return };
    let folder = lab.folder.path();
    let write = |name: &str, text: String| fs::write(folder.join(name), text).unwrap();
    let (old, new) = (pki::root(Kind::P256, "old"), pki::root(Kind::P256, "new"));
    let certify = |root: &pki::Identity| {
        let gateway = root.gateway(Kind::P256, "gw-a.example");
        write("a.pem", gateway.certificate.pem());
        write("a.key", gateway.key.serialize_pem());
    };
    certify(&old);
    write("roots.pem", old.certificate.pem());
    let secret = |id: &str| format!("auth = \"psk\", id = \"{id}\"");
    let certified = "id = \"gw-a.example\", certs = \"a.pem\"";
    let trusting = "id = \"gw-a.example\", cacerts = \"roots.pem\"";
    let config = |side| Plan::default().config(side);
    let b = config(Side::B).replace(&secret("gw-a.example"), trusting);
    let b = lab.start(Side::B, &b);
    let key = "[secrets.private-a]\nfile = \"a.key\"\n";
    let a = config(Side::A).replace(&secret("gw-a.example"), certified);
    let a = lab.start(Side::A, &format!("{a}{key}"));
    a.initiate("net");
    let before = (ids(&b.established()), ids(&b.child_sas()));

    let both = [old.certificate.pem(), new.certificate.pem()].concat();
    write("roots.pem", both);
    b.command("reload-settings", &[]);
    certify(&new);
    a.command("reload-settings", &[]);
    assert_eq!((ids(&b.established()), ids(&b.child_sas())), before);
    assert_eq!(a.child_sas().len(), 1);
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));

    write("roots.pem", new.certificate.pem());
    b.command("reload-settings", &[]);
    for gateway in [&a, &b] {
        eventually("the tunnel is closed", || {
            gateway.ike_sas().is_empty().then_some(())
        });
    }
    a.initiate("net");
    assert_reaches(&lab.host_a, &lab.host_b, Side::B.host(Family::V4));
}
