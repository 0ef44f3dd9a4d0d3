//! ML-KEM (FIPS 203): as an additional key exchange (RFC 9370) beside X25519, and as the only one.

use crate::exchanges::{Exchanges, everywhere};

#[test]
fn set_up_and_rekeys_from_each_side_have_mlkem_beside_x25519() {
    everywhere(&Exchanges {
        ike: (
            "aes256gcm16-prfsha384-x25519-ke1_mlkem768",
            "CURVE_25519/KE1_ML_KEM_768",
        ),
        esp: (
            "aes256gcm16-x25519-ke1_mlkem768",
            "AES_GCM_16-256/CURVE_25519/KE1_ML_KEM_768",
        ),
    });
}

#[test]
fn its_smaller_and_its_larger_parameters_are_the_same_at_both_ends() {
    everywhere(&Exchanges {
        ike: (
            "aes256gcm16-prfsha384-ecp384-ke1_mlkem512-ke2_mlkem1024",
            "ECP_384/KE1_ML_KEM_512/KE2_ML_KEM_1024",
        ),
        esp: ("aes256gcm16-mlkem512", "AES_GCM_16-256/ML_KEM_512"),
    });
}
