//! Debian builds strongSwan 6.0 without ML-KEM, so that others stand in for it.

use crate::exchanges::{Exchanges, everywhere};

#[test]
fn set_up_and_rekeys_from_each_side_have_additional_key_exchanges() {
    everywhere(&Exchanges {
        ike: (
            "aes256gcm16-prfsha384-x25519-ke1_ecp384-ke2_modp2048",
            "CURVE_25519/KE1_ECP_384/KE2_MODP_2048",
        ),
        esp: (
            "aes256gcm16-x25519-ke1_ecp256-ke3_ecp521",
            "AES_GCM_16-256/CURVE_25519/KE1_ECP_256/KE3_ECP_521",
        ),
    });
}
