//! libreswan 5.2, whose ESP is the kernel's.

use crate::tunnel::{Peer, Tunnel};

/// `ike` and `esp` are libreswan's words for the same proposals.
fn peer((proposal, ike): (&'static str, &str), (esp_proposal, esp): (&'static str, &str)) -> Peer {
    let connection = CONNECTION.replace("IKE_PROPOSAL", ike);
    Peer {
        proposal,
        esp_proposal,
        files: vec![
            ("ipsec.conf", connection.replace("ESP_PROPOSAL", esp)),
            ("ipsec.secrets", SECRETS.to_owned()),
        ],
        start: "cp $files/ipsec.* /etc; mkdir -p /run/pluto; : >/etc/hosts; : >/etc/resolv.conf; \
                certutil -N -d sql:/var/lib/ipsec/nss --empty-password && \
                { /usr/libexec/ipsec/pluto --config /etc/ipsec.conf --nofork >/run/peer.log 2>&1 & }",
        ready: "ipsec add lab",
        initiate: "ipsec up lab",
    }
}

/// Asked about an SA that has just been replaced, libreswan has been seen to forget to answer: then its log says
/// what it did. A line of shell, which the second one builds on.
const CHILD: &str = "rekeyed() { for try in 1 2 3; do \
    timeout 8 ipsec whack --rekey-$1 --name lab && echo \"rekey of $1: try $try\" && return; \
    tail -n 60 /run/pluto.log; done; return 1; }; rekeyed child";
const IKE: &str = "rekeyed ike";

#[test]
fn lockgate_initiates_to_libreswan() {
    let peer = peer(
        ("aes256gcm16-prfsha384-ecp256", "aes_gcm256-sha2_384;dh19"),
        ("aes256gcm16-ecp256", "aes_gcm256;dh19"),
    );
    let Some(tunnel) = Tunnel::new(&peer, true) else {
        return;
    };
    tunnel.lockgate.initiate("net");
    tunnel.assert_up();
    tunnel.both_rekey(CHILD, IKE);
}

#[test]
fn libreswan_initiates() {
    let peer = peer(
        ("aes256-sha256-modp2048", "aes256-sha2_256;dh14"),
        ("aes256-sha256-modp2048", "aes256-sha2_256;dh14"),
    );
    let Some(tunnel) = Tunnel::new(&peer, false) else {
        return;
    };
    tunnel.guest.run(peer.initiate);
    tunnel.assert_up();
    tunnel.both_rekey(CHILD, IKE);
}

const CONNECTION: &str = "
config setup
    logfile=/run/pluto.log
    nssdir=/var/lib/ipsec/nss
conn lab
    keyexchange=ikev2
    left=192.0.2.2
    leftid=@gw-b.example
    leftsubnet=10.2.0.0/24
    right=192.0.2.1
    rightid=@gw-a.example
    rightsubnet=10.1.0.0/24
    authby=secret
    ike=IKE_PROPOSAL
    esp=ESP_PROPOSAL
    pfs=yes
";

const SECRETS: &str = r#"@gw-b.example @gw-a.example : PSK "correct horse battery staple"
"#;
