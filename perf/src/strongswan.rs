//! strongSwan as both comparisons run it.

use std::path::Path;

/// What strongswan.conf says, with `more` lines for the daemon.
///
/// Without the plugins `aes` and `gcm`: they would come before OpenSSL's AES-GCM, which is the
/// fastest that strongSwan has.
pub fn settings(socket: &Path, more: &str) -> String {
    format!(
        r#"charon-systemd {{
    load = random nonce openssl kdf curve25519 pem pubkey kernel-libipsec kernel-netlink socket-default vici updown
{more}    plugins {{
        vici {{
            socket = unix://{socket}
        }}
    }}
    filelog {{
        stdout {{
            default = 0
            flush_line = yes
        }}
    }}
}}
swanctl {{
    load = random openssl
}}
"#,
        socket = socket.display(),
    )
}
