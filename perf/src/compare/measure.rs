//! The measurements, all with the traffic generators of the product's own lab.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool},
    thread::sleep,
    time::Duration,
};

use anyhow::{Result, bail};
use lockgate::lab::{
    B,
    traffic::{Bulk, Cores, Flow, OpenLoop, StopOnDrop, Sweep, UdpLoad, udp_trial},
};

use crate::{
    peers,
    plan::{Job, Step},
    results::{Metric, Reading},
    tunnel::Tunnel,
};

/// Makes one measurement, from host A to host B. `hint` is what an earlier round found.
pub(crate) fn measure(
    tunnel: &mut Tunnel,
    step: Step,
    hint: Option<f64>,
) -> Result<Vec<(Metric, Reading)>> {
    let time = step.time;
    let metric = step.job.metric();
    let reading = match step.job {
        Job::Tcp1 => return tcp_with_cost(tunnel, time),
        Job::Tcp4 => tcp(tunnel, time, 4)?.gigabits_per_second.into(),
        Job::UdpLarge => highest_rate(tunnel, time, LARGE, 1, hint)?,
        Job::UdpSmall => highest_rate(tunnel, time, SMALL, 1, hint)?,
        Job::UdpTrains => highest_rate(tunnel, time, LARGE, TRAIN, hint)?,
        Job::RttIdle => round_trip(tunnel, time, 0.5, MICROSECOND)?,
        Job::RttLoaded => beside_a_stream(tunnel, time)?,
    };
    Ok(vec![(metric, reading)])
}

/// What arrived, and what it cost the gateways.
struct Transfer {
    gigabits_per_second: f64,
    seconds_per_gigabit: f64,
}

fn tcp_with_cost(tunnel: &mut Tunnel, time: Duration) -> Result<Vec<(Metric, Reading)>> {
    let before = peers::lockgate::counters(tunnel);
    let transfer = tcp(tunnel, time, 1)?;
    let mut values = vec![(Metric::Tcp1, transfer.gigabits_per_second.into())];
    if !tunnel.processes.is_empty() {
        values.push((Metric::CpuPerGigabit, transfer.seconds_per_gigabit.into()));
    }
    if let (Some(before), Some(after)) = (before, peers::lockgate::counters(tunnel)) {
        let packets = after.packets.saturating_sub(before.packets).max(1);
        let calls = after.system_calls.saturating_sub(before.system_calls);
        let ratio = calls as f64 / packets as f64;
        values.push((Metric::CallsPerPacket, ratio.into()));
    }
    Ok(values)
}

/// Streams that have left slow start when the clock starts.
fn tcp(tunnel: &Tunnel, time: Duration, streams: usize) -> Result<Transfer> {
    let stop = StopOnDrop(Arc::new(AtomicBool::new(false)));
    let most = WARM_UP + time + Duration::from_secs(5);
    let bulk = Bulk::start_streams(&flow(tunnel, BULK_PORT), streams, most, &stop.0)?;
    let window = bulk.watch(WARM_UP, time, &tunnel.process_ids(), &stop.0)?;
    drop(stop);
    bulk.finish()?;
    if window.transfer.bytes == 0 {
        bail!("nothing arrived");
    }
    Ok(Transfer {
        gigabits_per_second: window.transfer.gigabits_per_second(),
        seconds_per_gigabit: window.cpu_seconds_per_gigabit(),
    })
}

/// Thousands of datagrams received per second at the highest rate that loses almost nothing.
fn highest_rate(
    tunnel: &Tunnel,
    time: Duration,
    payload: usize,
    train: usize,
    hint: Option<f64>,
) -> Result<Reading> {
    let flow = flow(tunnel, UDP_PORT);
    let stop = Arc::new(AtomicBool::new(false));
    let sweep = Sweep {
        first: hint.map_or(60_000.0, |kilo| kilo * 1e3),
        step: if hint.is_some() { 1.25 } else { 1.6 },
        precision: 1.05,
        trial: time
            .div_f64(TRIALS)
            .saturating_sub(AROUND_TRIAL)
            .max(SHORTEST_TRIAL),
        ..Sweep::default()
    };
    let found = sweep.search(|rate, time| {
        let load = UdpLoad {
            payload,
            rate,
            time,
            train,
        };
        udp_trial(&flow, &load, &stop)
    })?;
    if found.rate <= 0.0 {
        bail!("no rate without loss was found");
    }
    Ok(Reading {
        value: found.rate / 1e3,
        sender_limited: found.sender_limited,
        lost: 0,
    })
}

/// A quantile of the round trips, in units of so many nanoseconds. A lost probe is slower than all others.
fn round_trip(tunnel: &Tunnel, time: Duration, quantile: f64, unit: f64) -> Result<Reading> {
    let stop = Arc::new(AtomicBool::new(false));
    let flow = flow(tunnel, PROBE_PORT);
    let probe = OpenLoop::start(&flow, PROBES_PER_SECOND, PROBE_LEN, time, &stop)?;
    let trips = probe.finish()?;
    if trips.histogram.is_empty() {
        bail!("no probe was answered");
    }
    Ok(Reading {
        value: trips.quantile(quantile) as f64 / unit,
        sender_limited: false,
        lost: trips.lost,
    })
}

fn beside_a_stream(tunnel: &Tunnel, time: Duration) -> Result<Reading> {
    let stop = StopOnDrop(Arc::new(AtomicBool::new(false)));
    let most = WARM_UP + time + Duration::from_secs(5);
    let bulk = Bulk::start_streams(&flow(tunnel, BULK_PORT), 1, most, &stop.0)?;
    sleep(WARM_UP);
    let reading = round_trip(tunnel, time, 0.99, MILLISECOND);
    drop(stop);
    bulk.finish()?;
    reading
}

fn flow(tunnel: &Tunnel, port: u16) -> Flow<'_> {
    Flow {
        from: &tunnel.lab.host_a,
        to: &tunnel.lab.host_b,
        address: SocketAddr::from((B.host, port)),
        cores: Cores::default(),
    }
}

const BULK_PORT: u16 = 5201;
const PROBE_PORT: u16 = 5301;
const UDP_PORT: u16 = 5401;
/// With IPv4 and UDP headers 1400 bytes, which is the MTU.
const LARGE: usize = 1372;
const SMALL: usize = 200;
/// Datagrams that the sender hands over together.
const TRAIN: usize = 32;
/// About what a search takes, and what each trial takes beside its time: the path is found, the last
/// datagrams arrive.
const TRIALS: f64 = 16.0;
const AROUND_TRIAL: Duration = Duration::from_millis(120);
const SHORTEST_TRIAL: Duration = Duration::from_millis(50);
/// In nanoseconds.
const MICROSECOND: f64 = 1e3;
const MILLISECOND: f64 = 1e6;
const PROBES_PER_SECOND: f64 = 500.0;
const PROBE_LEN: usize = 64;
const WARM_UP: Duration = Duration::from_millis(500);
