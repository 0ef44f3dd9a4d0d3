//! strongSwan 6 with its plugin kernel-netlink.

use crate::support::lab::{Family, Side};
use crate::tunnel::{Peer, Sa, Tunnel};

fn peer(proposal: &'static str, esp_proposal: &'static str) -> Peer {
    let connections = CONNECTIONS
        .replace("IKE_PROPOSAL", proposal)
        .replace("ESP_PROPOSAL", esp_proposal);
    Peer {
        proposal,
        esp_proposal,
        files: vec![
            ("strongswan.conf", SETTINGS.to_owned()),
            ("swanctl.conf", connections),
        ],
        start: "export STRONGSWAN_CONF=$files/strongswan.conf; charon-systemd >/run/peer.log 2>&1 &",
        ready: "swanctl --load-all --noprompt --file $files/swanctl.conf",
        initiate: "swanctl --initiate --child net --timeout 20",
    }
}

/// In transport mode between the gateways themselves.
pub(crate) fn between_gateways(
    proposal: &'static str,
    esp_proposal: &'static str,
    outer: Family,
) -> Peer {
    let mut peer = peer(proposal, esp_proposal);
    for (_, text) in &mut peer.files {
        for side in [Side::A, Side::B] {
            let v4 = side.outer(Family::V4).to_string();
            *text = text.replace(&v4, &side.outer(outer).to_string());
        }
        *text = text
            .replace("local_ts = 10.2.0.0/24", "mode = transport")
            .replace("remote_ts = 10.1.0.0/24", "");
    }
    peer
}

pub(crate) const CHILD: &str = "swanctl --rekey --child net";
const IKE: &str = "swanctl --rekey --ike lab";

#[test]
fn lockgate_initiates_to_strongswan_and_the_kernel_opens_esp_in_udp() {
    let peer = peer("aes256gcm16-prfsha384-ecp256", "aes256gcm16-ecp256");
    let Some(tunnel) = Tunnel::new(&peer, true) else {
        return;
    };
    tunnel.lockgate.initiate("net");
    tunnel.assert_up();
    tunnel.both_rekey(CHILD, IKE);
}

#[test]
fn strongswan_initiates_and_the_kernel_seals_esp_without_udp() {
    let peer = peer("aes128-sha256-x25519", "aes256-sha512-x25519");
    let Some(tunnel) = Tunnel::new(&peer, false) else {
        return;
    };
    tunnel.guest.run(peer.initiate);
    tunnel.assert_up();
    tunnel.both_rekey(CHILD, IKE);
}

/// Traffic both ways, and again after a rekey by Lockgate, through SAs that `ip xfrm state` shows with these words.
#[track_caller]
fn agrees(esp_proposal: &'static str, shown: &[&str]) {
    let peer = peer("aes256gcm16-prfsha384-x25519", esp_proposal);
    let Some(tunnel) = Tunnel::new(&peer, false) else {
        return;
    };
    tunnel.guest.run(peer.initiate);
    tunnel.assert_up();
    tunnel.lockgate_rekeys(Sa::Child);
    tunnel.assert_up();
    let states = tunnel.guest.run("ip xfrm state");
    for word in shown {
        assert!(states.contains(word), "{esp_proposal}: {word}: {states}");
    }
}

#[test]
fn chacha20_poly1305_with_extended_sequence_numbers_agrees_with_the_kernel() {
    agrees(
        "chacha20poly1305-esn",
        &["rfc7539esp(chacha20,poly1305)", "esn"],
    );
}

#[test]
fn aes_gmac_agrees_with_the_kernel() {
    for suite in ["aes128gmac", "aes256gmac"] {
        agrees(suite, &["rfc4543(gcm(aes))"]);
    }
}

#[test]
fn aes_gmac_with_extended_sequence_numbers_agrees_with_the_kernel() {
    agrees("aes192gmac-esn", &["rfc4543(gcm(aes))", "esn"]);
}

#[test]
fn aes_with_extended_sequence_numbers_agrees_with_the_kernel() {
    agrees("aes256gcm16-esn", &["rfc4106(gcm(aes))", "esn"]);
    agrees("aes128-sha256-esn", &["cbc(aes)", "hmac(sha256)", "esn"]);
}

const SETTINGS: &str = r"
charon-systemd {
    load = random nonce aes sha1 sha2 hmac kdf gcm openssl curve25519 chapoly pem pubkey kernel-netlink socket-default vici updown
    filelog {
        stdout {
            default = 1
            ike = 2
            flush_line = yes
        }
    }
    retransmit_timeout = 1
    retransmit_tries = 3
}
swanctl {
    load = random openssl
}
";

const CONNECTIONS: &str = r#"
connections {
    lab {
        version = 2
        local_addrs = 192.0.2.2
        remote_addrs = 192.0.2.1
        proposals = IKE_PROPOSAL
        local {
            auth = psk
            id = gw-b.example
        }
        remote {
            auth = psk
            id = gw-a.example
        }
        children {
            net {
                local_ts = 10.2.0.0/24
                remote_ts = 10.1.0.0/24
                esp_proposals = ESP_PROPOSAL
            }
        }
    }
}
secrets {
    ike-lab {
        id = gw-a.example
        secret = "correct horse battery staple"
    }
}
"#;
