//! Someone on the outer link who reads everything and keeps what is in clear.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use lockgate::{
    cli::demo::wiretap::{Sighting, classify},
    io::{
        capture::{Capture, Frame},
        netns::Namespace,
    },
    wire::ip::IpPacket,
};

use super::lab::{Lab, OUTER};

/// Listens until it is finished.
pub(crate) struct Eavesdropper {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<std::io::Result<Overheard>>,
}

/// What was on the link.
#[derive(Debug, Default)]
pub(crate) struct Overheard {
    pub(crate) esp: u64,
    pub(crate) ike: u64,
    /// Whole frames.
    pub(crate) clear: Vec<Vec<u8>>,
    /// Largest IP packet of ESP.
    pub(crate) largest_esp: usize,
    pub(crate) unseen: u32,
    /// Frames of IKE and ESP after the first one in clear.
    pub(crate) protected_after_clear: u64,
}

impl Eavesdropper {
    /// Listens at gateway A's side of the outer link.
    pub(crate) fn on(lab: &Lab) -> Self {
        Self::at(&lab.gateway_a, OUTER, lab.outer_addresses())
    }

    pub(crate) fn at(namespace: &Namespace, link: &'static str, outer: Vec<IpAddr>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let capture = namespace.run(move || Capture::open(link, &[])).unwrap();
        let thread = namespace
            .thread(move || listen(capture, &outer, &stopped))
            .unwrap();
        Self { stop, thread }
    }

    pub(crate) fn finish(self) -> Overheard {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap().unwrap()
    }
}

fn listen(mut capture: Capture, outer: &[IpAddr], stop: &AtomicBool) -> Overheard {
    let mut overheard = Overheard::default();
    loop {
        match capture.next(Duration::from_millis(20)).unwrap() {
            Some(frame) => match classify(frame.bytes, outer) {
                Sighting::Ike | Sighting::Esp if !overheard.clear.is_empty() => {
                    overheard.protected_after_clear += 1;
                }
                Sighting::Esp => {
                    let (packets, largest) = packets(frame);
                    overheard.esp += packets;
                    overheard.largest_esp = overheard.largest_esp.max(largest);
                }
                Sighting::Ike => overheard.ike += 1,
                Sighting::Clear => overheard.clear.push(frame.bytes.to_vec()),
                Sighting::Housekeeping => {}
            },
            None if stop.load(Ordering::Relaxed) => break,
            None => {}
        }
    }
    overheard.unseen = capture.lost().unwrap();
    overheard
}

/// How many IP packets a frame stands for, and the length of the largest.
fn packets(frame: Frame<'_>) -> (u64, usize) {
    let packet = &frame.bytes[14..];
    let Some(segment) = frame.segment_size.map(usize::from) else {
        return (1, packet.len());
    };
    let headers = IpPacket::parse(packet).unwrap().upper_layer_offset() + 8;
    let payload = packet.len() - headers;
    let count = u64::try_from(payload.div_ceil(segment)).unwrap();
    (count, headers + segment.min(payload))
}

impl Overheard {
    /// Asserts that the link carried nothing in clear.
    #[track_caller]
    pub(crate) fn assert_nothing_in_clear(&self) {
        assert_eq!(self.unseen, 0, "the eavesdropper was too slow");
        let first = self.clear.first();
        assert!(
            first.is_none(),
            "{} frames in clear, first: {first:02x?}",
            self.clear.len()
        );
    }
}
