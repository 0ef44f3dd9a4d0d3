//! What replay protection costs a packet: check and accept.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lockgate::ipsec::ReplayWindow;

const BURST: u32 = 1024;

fn receive(window: &mut ReplayWindow, numbers: impl Iterator<Item = u32>) -> u32 {
    numbers.fold(0, |accepted, low| {
        let fresh = window.check(low).and_then(|fresh| window.accept(fresh));
        accepted + u32::from(fresh.is_ok())
    })
}

fn replay(c: &mut Criterion) {
    let mut group = c.benchmark_group("replay");
    group.throughput(Throughput::Elements(u64::from(BURST)));
    for size in [64, 4096, 8192] {
        for (name, esn) in [("short", false), ("extended", true)] {
            group.bench_function(format!("in-order/{name}/{size}"), |bencher| {
                let mut window = ReplayWindow::new(size, esn);
                let mut start = 1_u32;
                bencher.iter(|| {
                    if start > u32::MAX - BURST {
                        (window, start) = (ReplayWindow::new(size, esn), 1);
                    }
                    let numbers = start..start + BURST;
                    start += BURST;
                    receive(&mut window, numbers)
                });
            });
        }
    }
    // Groups of 16 arrive backwards: still inside every window.
    group.bench_function("reordered/extended/4096", |bencher| {
        let mut window = ReplayWindow::new(4096, true);
        let mut start = 16_u32;
        bencher.iter(|| {
            if start > u32::MAX - BURST {
                (window, start) = (ReplayWindow::new(4096, true), 16);
            }
            let numbers = (start..start + BURST).map(|number| number ^ 15);
            start += BURST;
            receive(&mut window, numbers)
        });
    });
    // Everything is a duplicate: refused before the cipher would run.
    group.bench_function("replayed/extended/4096", |bencher| {
        let mut window = ReplayWindow::new(4096, true);
        receive(&mut window, 1..=BURST);
        bencher.iter(|| receive(&mut window, 1..=BURST));
    });
    group.finish();
}

criterion_group!(benches, replay);
criterion_main!(benches);
