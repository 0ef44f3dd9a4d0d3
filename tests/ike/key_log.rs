//! Which keys come out, and when.

use std::collections::BTreeSet;

use lockgate::ike::KeyTable;

use super::config::{Side, esp_proposals, ike_proposals};
use super::pair::{Pair, rekey_child, rekey_ike, seconds};

/// The lines of one table that a side let out.
fn lines(pair: &mut Pair, side: Side, table: KeyTable) -> BTreeSet<String> {
    let lines = pair.host(side).keys.iter();
    let lines = lines.filter(|line| line.table == table);
    let text = lines.map(|line| String::from_utf8(line.line.as_bytes().to_vec()).unwrap());
    text.collect()
}

#[test]
fn no_key_comes_out_unless_that_is_switched_on() {
    let mut pair = Pair::up();
    for side in Side::BOTH {
        assert!(pair.host(side).keys.is_empty());
    }
    pair.finish();
}

#[test]
fn both_sides_write_down_the_same_keys_of_every_sa_they_make() {
    let mut pair = Pair::up_with(|_, setup| setup.settings.key_log = true);
    pair.command(Side::A, rekey_child());
    pair.run_for(seconds(6));
    pair.command(Side::B, rekey_ike());
    pair.run_for(seconds(6));
    // The new IKE SA's keys come out with the first message that they open.
    pair.command(Side::A, rekey_child());
    pair.run_for(seconds(6));
    for (table, count) in [(KeyTable::Ikev2Decryption, 2), (KeyTable::EspSa, 6)] {
        let ours = lines(&mut pair, Side::A, table);
        assert_eq!(ours.len(), count, "{ours:?}");
        assert_eq!(ours, lines(&mut pair, Side::B, table));
    }
    let debug = format!("{:?}", pair.host(Side::A).keys);
    assert!(!debug.contains("AES"), "a line is a secret: {debug}");
    pair.finish();
}

/// A name of another suite would have Wireshark show nonsense.
#[test]
fn suites_that_wireshark_has_no_name_for_are_left_out_with_one_word_each() {
    for (ike, esp) in [
        ("chacha20poly1305-prfsha256-x25519", "chacha20poly1305"),
        ("aes256-aescmac-prfsha256-x25519", "aes128gmac"),
        ("aes128-aesxcbc-prfsha256-x25519", "aes128ccm16"),
    ] {
        let mut pair = Pair::up_with(|_, setup| {
            setup.settings.key_log = true;
            setup.connection.proposals = ike_proposals(&[ike]);
            setup.children[0].esp_proposals = esp_proposals(&[esp]);
        });
        pair.command(Side::A, rekey_child());
        pair.run_for(seconds(6));
        pair.command(Side::A, rekey_ike());
        pair.run_for(seconds(6));
        for side in Side::BOTH {
            assert!(pair.host(side).keys.is_empty(), "{ike} {esp}");
            for table in KeyTable::ALL {
                let said = format!("no line in {}: ", table.file_name());
                let logs = pair.host(side).logs();
                let lines = logs.filter(|line| line.contains(&said)).count();
                assert_eq!(lines, 1, "{ike} {esp}");
            }
        }
        pair.finish();
    }
}
