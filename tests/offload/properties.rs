//! Random super-packets and bursts, through the bodies of the fuzz targets.

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use super::packets::{ACK, CWR, ECE, FIN, PSH, Packet, Transport, URG, pattern};
use super::{merge_target, split_target};

#[test]
fn a_super_packet_of_any_shape_is_split_as_the_reference_splits_it() {
    let mut random = ChaCha20Rng::seed_from_u64(1);
    for _ in 0..400 {
        let mut below = |limit: u16| {
            u16::try_from(random.next_u32() % u32::from(limit)).expect("below the limit")
        };
        let ipv6 = below(2) == 1;
        let payload = usize::from(below(4000));
        let mut packet = match below(3) {
            0 => Packet::udp(ipv6, payload),
            _ => Packet::tcp(ipv6, 0_u32.wrapping_sub(below(5000).into()), payload),
        };
        packet.payload = pattern(payload);
        packet.extra = 8 * usize::from(below(3));
        packet.id = 0xffff - below(4);
        packet.dont_fragment = below(2) == 1;
        if below(3) > 0 && matches!(packet.transport, Transport::Tcp(_)) {
            packet.tcp_mut().flags =
                ACK | [0, PSH, FIN, CWR, ECE, URG, PSH | FIN | CWR][usize::from(below(7))];
            packet.tcp_mut().urgent = below(4000);
            packet.tcp_mut().options.truncate(4 * usize::from(below(4)));
        }
        let gso_size = [1, 7, 100, 536, 1448, 5000][usize::from(below(6))];
        let (mut header, bytes) = packet.build_super(gso_size);
        header.gso_type |= if below(4) == 0 { 0x80 } else { 0 };
        header.hdr_len = below(u16::MAX);
        split_target::run(&[&header.encode()[..], &bytes].concat());
    }
}

#[test]
fn a_burst_of_any_mixture_comes_out_whole_and_in_order() {
    let mut random = ChaCha20Rng::seed_from_u64(2);
    for round in 0..160 {
        // Few flows and few changes merge a lot; many of them disturb each other.
        let flows = [1, 2, 4, 24][round % 4];
        let calm = [255, 200, 100, 30][round / 4 % 4];
        let mut script = vec![0];
        for _ in 0..random.next_u32() % 100 {
            let [flow, length, change, value] = random.next_u32().to_le_bytes();
            let change = if change < calm {
                0
            } else {
                value.rotate_left(3) & 31
            };
            let length = if calm > 150 { length % 5 } else { length };
            script.extend([flow % flows, length, change, value]);
        }
        merge_target::run(&script);
    }
}

#[test]
fn kinds_that_may_not_be_merged_are_left_alone() {
    for kinds in 0..4 {
        let script: Vec<u8> = (0..60_u8).flat_map(|at| [at % 4, 0, 0, 0]).collect();
        merge_target::run(&[&[kinds], &script[..]].concat());
    }
}
