//! OpenIKED 7.4, whose ESP is the kernel's. It has no command for a rekey; SAs that end soon make it do so.

use crate::tunnel::{Peer, Sa, Tunnel};

/// `how` is whether it waits or initiates, `lifetimes` its words for how long SAs live.
fn peer(how: &str, lifetimes: &str) -> Peer {
    // To initiate it waits for its command.
    let start = if how == "active" { "set passive" } else { "" };
    let policy = POLICY.replace("HOW", how).replace("LIFETIMES", lifetimes);
    Peer {
        proposal: "aes256gcm16-prfsha384-ecp256",
        // AEAD is not for it on Linux, and SHA-256 would have its tag cut too short (PF_KEY).
        esp_proposal: "aes256-sha512-ecp256",
        files: vec![(
            "iked.conf",
            format!("{}\n{}\n", start, policy.replace('\n', " ")),
        )],
        start: "cp $files/iked.conf /etc && chmod 600 /etc/iked.conf && cd /etc/iked && \
                openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out private/local.key && \
                openssl pkey -in private/local.key -pubout -out local.pub && \
                { iked -dv >/run/peer.log 2>&1 & }",
        // It is deaf while the kernel, asked by PF_KEY what it can do, looks for a module for every cipher.
        ready: "grep -q '^ikev2 \"lab\"' /run/peer.log && ! pgrep modprobe && sleep 1 && ! pgrep modprobe",
        initiate: "ikectl active",
    }
}

#[test]
fn lockgate_initiates_to_openiked() {
    let Some(tunnel) = Tunnel::new(&peer("passive", ""), true) else {
        return;
    };
    tunnel.lockgate.initiate("net");
    tunnel.assert_up();
    for of in [Sa::Child, Sa::Ike] {
        tunnel.lockgate_rekeys(of);
        tunnel.assert_up();
    }
}

#[test]
fn openiked_initiates() {
    let peer = peer("active", "");
    let Some(tunnel) = Tunnel::new(&peer, false) else {
        return;
    };
    tunnel.guest.run(peer.initiate);
    tunnel.assert_up();
    tunnel.lockgate_rekeys(Sa::Child);
    tunnel.assert_up();
    // As the first initiator it ignores the DELETE of an IKE SA that it has agreed to replace, so the old
    // one stays until Lockgate has asked often enough.
    tunnel.lockgate_rekeys(Sa::Ike);
    assert_eq!(tunnel.lockgate.established().len(), 1);
    tunnel.assert_carried();
}

#[test]
fn openiked_rekeys_what_ends_soon() {
    let lifetimes = "ikelifetime 10 lifetime 6";
    let Some(tunnel) = Tunnel::new(&peer("passive", lifetimes), true) else {
        return;
    };
    tunnel.lockgate.initiate("net");
    for of in [Sa::Child, Sa::Ike, Sa::Child] {
        tunnel.rekeyed(of, |_| {});
    }
    tunnel.assert_up();
}

const POLICY: &str = r#"ikev2 "lab" HOW esp
from 10.2.0.0/24 to 10.1.0.0/24
local 192.0.2.2 peer 192.0.2.1
ikesa enc aes-256-gcm prf hmac-sha2-384 group ecp256
childsa enc aes-256 auth hmac-sha2-512 group ecp256
srcid gw-b.example dstid gw-a.example
LIFETIMES
psk "correct horse battery staple""#;
