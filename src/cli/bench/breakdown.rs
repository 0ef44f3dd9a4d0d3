//! Where the gateways' processor time goes while TCP runs through the lab.

use serde::Serialize;

use super::{
    lab::{INNER_MTU, LabFigures, Tcp},
    measure::{repeat, repeat_both},
    page::streams,
    scene::{SUITES, Size},
    stages,
};
use crate::lab::report::{Block, Section, StackChart};

/// What the stages of the packet path cost in this process, for a full packet of the lab in both
/// directions, ns.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct InProcess {
    /// The cipher alone.
    cipher_ns: f64,
    /// What ESP adds to it.
    esp_ns: f64,
    /// Splitting with checksums, checking them and merging.
    offload_ns: f64,
    /// What else the packet path does: policy, SA, selectors, queue.
    rest_ns: f64,
}

impl InProcess {
    /// Takes `seconds` for each stage.
    pub(super) fn measure(seconds: f64) -> Self {
        let named = SUITES.into_iter().find(|(name, _)| *name == SUITE);
        let Some((_, suite)) = named else {
            return Self::default();
        };
        let length = usize::try_from(INNER_MTU).unwrap_or_default();
        let size = Size::Bytes(length);
        let mut aead = stages::Aead::new(suite, size);
        let mut esp = stages::Esp::new(suite, size);
        let mut path = stages::Path::new(suite, size);
        let seal = repeat_both(seconds, || aead.seal(), || esp.seal());
        let open = repeat_both(seconds, || aead.open(), || esp.open());
        let offload = stages::split_and_merge(length, seconds);
        let outbound = repeat(seconds, || path.outbound());
        let inbound = repeat(seconds, || path.inbound());
        let [[seal, esp_seal], [open, esp_open], offload, whole] =
            [seal, open, offload, [outbound, inbound]]
                .map(|both| both.map(|cost| cost.ns_per_packet));
        let cipher_ns = seal + open;
        let esp_ns = (esp_seal + esp_open - cipher_ns).max(0.0);
        let offload_ns: f64 = offload.iter().sum();
        let known = cipher_ns + esp_ns + offload_ns;
        Self {
            cipher_ns,
            esp_ns,
            offload_ns,
            rest_ns: (whole.iter().sum::<f64>() - known).max(0.0),
        }
    }

    /// The processor time of both gateways for a full packet, ns, by [`PARTS`]: these stages, what the gateways
    /// took beyond them, and the kernel's part.
    pub(super) fn beside(&self, tcp: &Tcp) -> [f64; 6] {
        let packets = 1e9 / (PAYLOAD * 8.0);
        let whole = tcp.cpu_s_per_gbit * 1e9 / packets;
        let kernel = whole * tcp.kernel_share;
        let stages = [self.cipher_ns, self.esp_ns, self.offload_ns, self.rest_ns];
        let rest = whole - kernel - stages.iter().sum::<f64>();
        let [cipher, esp, offload, path] = stages;
        [cipher, esp, offload, path, rest.max(0.0), kernel]
    }
}

/// The stages of the packets of bulk TCP.
pub(super) fn section(all: &LabFigures) -> Section {
    let rows = all.tcp.iter().map(|tcp| {
        let label = format!("TCP, {}", streams(tcp.streams));
        (label, all.in_process.beside(tcp).to_vec())
    });
    Section {
        title: "Where the processor time goes".to_owned(),
        text: format!(
            "Of both gateways together, for each packet of {INNER_MTU} bytes. The kernel's part and the whole were \
             measured in the lab, the stages by themselves in one process with {SUITE}; the rest in user space is what \
             the gateways took beyond these: acknowledgements, cold caches, small bursts."
        ),
        blocks: vec![Block::Stack(StackChart {
            title: "Stages of bulk TCP".to_owned(),
            unit: "ns a packet".to_owned(),
            parts: PARTS.map(str::to_owned).to_vec(),
            rows: rows.collect(),
        })],
    }
}

/// What [`InProcess::beside`] tells apart.
pub(super) const PARTS: [&str; 6] = [
    "cipher",
    "ESP around it",
    "split, merge, checksums",
    "policy, SA, queue",
    "rest in user space",
    "kernel",
];
/// What two Lockgates agree on by default.
const SUITE: &str = "aes256gcm16";
/// Bytes in a full packet: IPv4 and TCP with a timestamp (RFC 7323 §3.2) take 52.
const PAYLOAD: f64 = 1348.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_packet_add_up_to_what_the_gateways_took() {
        let stages = InProcess {
            cipher_ns: 600.0,
            esp_ns: 50.0,
            offload_ns: 300.0,
            rest_ns: 100.0,
        };
        let tcp = |cpu_s_per_gbit| Tcp {
            streams: 1,
            gbit_per_s: 1.0,
            cpu_s_per_gbit,
            kernel_share: 0.5,
            system_calls_per_packet: 0.0,
            stolen_s: 0.0,
        };
        // 0.25 s for 92 730 packets.
        let parts = stages.beside(&tcp(0.25));
        assert!(
            (parts.iter().sum::<f64>() - 2696.0).abs() < 0.1,
            "{parts:?}"
        );
        assert!(
            (parts[5] - 1348.0).abs() < 0.1 && parts[4] > 290.0,
            "{parts:?}"
        );
        // Less in user space than the stages take by themselves: nothing is left over.
        assert!(stages.beside(&tcp(0.1))[4].abs() < f64::EPSILON);
    }
}
