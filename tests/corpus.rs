//! The fuzz targets of `tests/fuzz`, run over their seed corpora and close neighbours of each seed.

#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::path::Path;
use std::{env, fs, panic};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

#[path = "fuzz/src/configuration.rs"]
mod configuration;
#[path = "fuzz/src/credentials.rs"]
mod credentials;
#[path = "fuzz/src/endpoint.rs"]
mod endpoint;
#[path = "fuzz/src/esp_udp_demux.rs"]
mod esp_udp_demux;
#[path = "fuzz/src/fragments.rs"]
mod fragments;
#[path = "fuzz/src/inner_ip.rs"]
mod inner_ip;
#[path = "fuzz/src/isakmp_v1.rs"]
mod isakmp_v1;
#[path = "fuzz/src/isakmp_v2.rs"]
mod isakmp_v2;
#[path = "fuzz/src/keyed.rs"]
mod keyed;
#[path = "fuzz/src/merge.rs"]
mod merge;
#[path = "offload/packets.rs"]
mod packets;
#[path = "offload/reference.rs"]
mod reference;
#[path = "fuzz/src/split.rs"]
mod split;
#[path = "fuzz/src/vici.rs"]
mod vici;

#[test]
fn ikev1_messages_cut_short_or_changed_in_one_byte_break_nothing() {
    messages_break_nothing("isakmp_v1", isakmp_v1::run);
}

#[test]
fn ikev2_messages_cut_short_or_changed_in_one_byte_break_nothing() {
    messages_break_nothing("isakmp_v2", isakmp_v2::run);
}

#[track_caller]
fn messages_break_nothing(target: &str, run: fn(&[u8])) {
    for seed in seeds(target) {
        neighbours(&seed, |message| {
            run(message);
            // Also with a length field that is right again, so that the payloads are reached.
            let mut message = message.to_vec();
            let length = u32::try_from(message.len()).expect("a seed is short");
            if let Some(field) = message.get_mut(24..28) {
                field.copy_from_slice(&length.to_be_bytes());
            }
            run(&message);
        });
    }
}

#[test]
fn keys_certificates_and_names_cut_short_or_changed_in_one_byte_break_nothing() {
    for seed in seeds("credentials") {
        neighbours(&seed, credentials::run);
    }
}

#[test]
fn datagrams_on_port_4500_cut_short_or_changed_in_one_byte_break_nothing() {
    for seed in seeds("esp_udp_demux") {
        neighbours(&seed, esp_udp_demux::run);
    }
}

#[test]
fn inner_packets_cut_short_or_changed_in_one_byte_break_nothing() {
    for seed in seeds("inner_ip") {
        neighbours(&seed, inner_ip::run);
    }
}

#[test]
fn super_packets_cut_short_or_changed_in_one_byte_break_nothing() {
    for seed in seeds("split") {
        neighbours(&seed, split::run);
    }
}

#[test]
fn packets_are_merged_so_that_they_split_into_what_came_and_stay_in_order() {
    for seed in seeds("merge") {
        merge::run(&seed);
    }
}

#[test]
fn vici_streams_cut_short_or_changed_in_one_byte_break_nothing() {
    for seed in seeds("vici") {
        neighbours(&seed, vici::run);
    }
}

#[test]
fn configurations_cut_short_or_changed_in_one_byte_break_nothing() {
    for seed in seeds("configuration") {
        neighbours(&seed, configuration::run);
    }
}

#[test]
fn endpoints_survive_every_scripted_fault_and_leave_nothing_behind() {
    let tickets: Vec<_> = seeds("endpoint")
        .iter()
        .map(|seed| endpoint::run(seed))
        .collect();
    let resumed: usize = tickets.iter().map(|(resumed, _)| resumed).sum();
    let refused: usize = tickets.iter().map(|(_, refused)| refused).sum();
    assert!(resumed >= 4 && refused >= 3, "{tickets:?}");
}

#[test]
fn peers_with_keys_that_say_anything_get_no_sa_without_a_proof_and_leave_nothing_behind() {
    let children: Vec<usize> = seeds("keyed").iter().map(|seed| keyed::run(seed)).collect();
    assert!(children.iter().sum::<usize>() > 23, "{children:?}");
}

/// Child SAs that came up or were replaced, some of them only if IKE_INTERMEDIATE and IKE_FOLLOWUP_KE did what
/// they are there for.
#[test]
fn peers_with_keys_get_through_additional_key_exchanges_before_and_after_they_authenticate() {
    for (name, expected) in [
        ("intermediate-before-auth", 1),
        ("intermediate-in-fragments", 1),
        ("followup-before-auth", 0),
        ("intermediate-never-done", 0),
        ("intermediate-with-a-changed-key", 0),
        ("followup-of-a-child", 2),
        ("followup-of-a-rekeyed-child", 2),
        ("followup-of-an-ike-rekey", 1),
        ("rekey-child-and-delete-the-old-one", 2),
        ("followup-without-a-question", 2),
    ] {
        assert_eq!(keyed::run(&seed("keyed", name)), expected, "{name}");
    }
}

/// From a fixed start; `LOCKGATE_SCRIPTS` says how many, for a longer search than the ordinary one.
#[test]
fn peers_with_keys_that_play_parts_of_scripts_at_random_break_nothing() {
    let seeds = seeds("keyed");
    let scripts =
        env::var("LOCKGATE_SCRIPTS").map_or(200, |count| count.parse().expect("a number"));
    for number in 0..scripts {
        let mut random = ChaCha8Rng::seed_from_u64(number);
        let mut below = |bound: usize| usize::try_from(random.next_u32()).unwrap_or(0) % bound;
        let mut script = Vec::new();
        for _ in 0..=below(5) {
            script.extend_from_slice(&seeds[below(seeds.len())]);
        }
        for _ in 0..below(8) {
            let at = below(script.len());
            script[at] = u8::try_from(below(256)).unwrap_or(0);
        }
        let played = panic::catch_unwind(|| keyed::run(&script));
        assert!(played.is_ok(), "script {number}: {script:02x?}");
    }
}

#[test]
fn fragments_and_moves_of_a_peer_with_keys_are_bounded_and_end_with_it() {
    for seed in seeds("fragments") {
        // Each run is a handshake, so not every neighbour has one.
        fragments::run(&seed);
        for at in (0..seed.len()).step_by(8) {
            let mut changed = seed.clone();
            changed[at] ^= 0x81;
            fragments::run(&changed);
            fragments::run(&seed[..at]);
        }
    }
}

fn seed(target: &str, name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds");
    fs::read(folder.join(target).join(name)).expect("a seed of this name")
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/seeds")
        .join(target);
    let entries = fs::read_dir(&folder).expect("every target has seeds");
    let seeds: Vec<_> = entries
        .map(|entry| {
            entry
                .and_then(|entry| fs::read(entry.path()))
                .expect("a seed can be read")
        })
        .collect();
    let mut seeds = seeds;
    seeds.sort();
    assert!(!seeds.is_empty(), "no seeds in {}", folder.display());
    seeds
}

/// The seed; the seed cut after each byte; the seed with each of its first bytes replaced by values
/// that formats like to treat specially.
fn neighbours(seed: &[u8], target: impl Fn(&[u8])) {
    target(seed);
    let near = seed.len().min(256);
    for at in 0..near {
        target(seed.get(..at).unwrap_or_default());
        let mut changed = seed.to_vec();
        let Some(original) = seed.get(at).copied() else {
            return;
        };
        for value in [
            0,
            1,
            0x7f,
            0x80,
            0xff,
            original ^ 1,
            original.wrapping_add(1),
        ] {
            if let Some(byte) = changed.get_mut(at) {
                *byte = value;
            }
            target(&changed);
        }
    }
}
