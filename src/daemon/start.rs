//! From a configuration to a running control thread.
//!
//! ```text
//! guard ─► sockets ─► TUN ─► privileges dropped ─► workers ─► routes ─► control socket ─► READY
//! ```
//!
//! The guard comes first, so protected traffic has no moment in clear. Privileges go before the
//! workers start, because threads inherit them. A failure takes away what was set up; a guard that
//! an earlier process left behind stays, as if the start had not been tried.

use std::{
    collections::HashMap,
    io,
    num::NonZeroU16,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use getrandom::SysRng;
use mio::{Poll, Registry, Waker};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::{
    addresses::Addresses,
    commands::Commands,
    control::{ADDRESSES, Control, DATAPLANE, Phase, SIGNALS, SOCKETS, VICI},
    failures::Failures,
    guard::{self, Guard, GuardError, Mirrored},
    key_log::KeyLog,
    logging::LogLevel,
    metrics::{Ledger, Metrics},
    report::RateLimit,
    revocation::Fetcher,
    routes::{Present, Routes, Settings as RouteSettings},
    signals::Signals,
    sockets::{self, PortError, Sockets},
    state::State,
    usage::UsageTimes,
    vici::{BindError, Server},
};
use crate::{
    config::{self, Config, DaemonConfig},
    dataplane::{Dataplane, DataplaneConfig, Handle, WorkerPorts},
    ike::{Endpoint, Settings},
    io::{
        offload::probe,
        process,
        raw::RawSocket,
        tun::{Tun, TunQueue},
        udp::{SocketOptions, UdpSocket},
    },
    ipsec::Spd,
};

/// Why the daemon did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Not enough privileges.
    #[error(
        "the daemon needs CAP_NET_ADMIN (run it as root, or give the service AmbientCapabilities=CAP_NET_ADMIN \
         CAP_NET_BIND_SERVICE CAP_NET_RAW)"
    )]
    Privileges,
    /// Two daemons would take each other's routes away.
    #[error(
        "another lockgate runs in this network namespace: routing table {table} leads to its tunnel device"
    )]
    AlreadyRunning {
        /// The table.
        table: u32,
    },
    /// Protected traffic could leave in clear.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// A UDP port is not available.
    #[error(transparent)]
    Port(#[from] PortError),
    /// There is no tunnel device.
    #[error("cannot create the tunnel device {name}: {}", tun_hint(error))]
    Tun {
        /// Its name.
        name: String,
        /// The cause.
        #[source]
        error: io::Error,
    },
    /// Somebody has deleted the tunnel device.
    #[error(
        "the tunnel device {name} was deleted by somebody else; protected traffic stays blocked until the next start"
    )]
    DeviceGone {
        /// Its name.
        name: String,
    },
    /// Another process has the control socket.
    #[error(transparent)]
    Vici(#[from] BindError),
    /// The system refused something else.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The cause.
        #[source]
        error: io::Error,
    },
}

fn tun_hint(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EBUSY) => "another process uses it; choose another name with daemon.tun".into(),
        Some(libc::EINVAL) => {
            "a device of that name exists and is of another kind; choose another name with daemon.tun".into()
        }
        Some(libc::ENOENT) => "there is no /dev/net/tun; load the module tun, or pass the device in".into(),
        Some(libc::EPERM | libc::EACCES) => {
            format!("{error}; the daemon needs CAP_NET_ADMIN and access to /dev/net/tun")
        }
        _ => error.to_string(),
    }
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> DaemonError {
    move |error| DaemonError::System { what, error }
}

/// Sets everything up. On an error nothing is left behind.
pub(super) fn start(
    config: Config,
    file: &Path,
    log_level: LogLevel,
) -> Result<Control, DaemonError> {
    // Before anything else: a signal from here on is an orderly stop.
    let signals = Signals::install().map_err(failed("cannot listen to signals"))?;
    if !process::may_administer_network().map_err(failed("cannot read own privileges"))? {
        return Err(DaemonError::Privileges);
    }
    let spd = Arc::new(config.pad.policies());
    let mut kernel = Kernel::secure(&config.daemon, &spd)?;
    match build(config, file, log_level, signals, &spd, &mut kernel) {
        Ok(parts) => Ok(parts.finish(kernel)),
        Err(error) => {
            kernel.undo();
            Err(error)
        }
    }
}

/// What outlives the process: routes, rules and the guard.
struct Kernel {
    guard: Option<Guard>,
    routes: Routes,
    /// Somebody before us has left a guard that must not go before traffic is protected again.
    inherited: bool,
}

impl Kernel {
    /// Installs what keeps traffic from leaving in clear from now on.
    fn secure(config: &DaemonConfig, spd: &Spd) -> Result<Self, DaemonError> {
        let guarded = config.guard == config::Guard::Xfrm;
        let settings = RouteSettings {
            device: config.tun.clone(),
            index: None,
            table: config.routing_table,
            mark: config.fwmark,
            guard: guarded,
            mirrored: Mirrored::default(),
        };
        let mut routes = Routes::open(settings).map_err(failed("cannot open rtnetlink"))?;
        let present = patiently(
            || match routes.present() {
                Ok(Present::InUse) => Err(DaemonError::AlreadyRunning {
                    table: config.routing_table,
                }),
                other => other.map_err(failed("cannot read the routes")),
            },
            |error| matches!(error, DaemonError::AlreadyRunning { .. }),
        )?;
        let guard = if guarded {
            let guard = Guard::install(spd, &config.tun)?;
            guard.warn_of_switches();
            routes.set_mirrored(guard.mirrored());
            Some(guard)
        } else {
            guard::clear_stale();
            None
        };
        let mut kernel = Self {
            guard,
            routes,
            inherited: present == Present::Stale,
        };
        if let Err(error) = kernel.routes.update(spd) {
            kernel.undo();
            return Err(failed("cannot set routes and rules")(error));
        }
        Ok(kernel)
    }

    fn undo(mut self) {
        if self.inherited {
            return;
        }
        // The error that led here is the one to report.
        let _ = self.routes.remove();
        let _ = self.guard.map(Guard::remove);
    }
}

/// What ends with the process by itself.
struct Parts {
    poll: Poll,
    config: Config,
    file: std::path::PathBuf,
    log_level: LogLevel,
    signals: Signals,
    addresses: Addresses,
    sockets: Sockets,
    device: Tun,
    dataplane: Handle,
    vici: Server,
    metrics: Option<Metrics>,
    fetcher: Fetcher,
    workers: NonZeroU16,
    rng: ChaCha20Rng,
    key_log: Option<KeyLog>,
    state: State,
}

fn poll_signals(signals: &mut Signals) -> Result<(Poll, Arc<Waker>), DaemonError> {
    let poll = Poll::new().map_err(failed("cannot poll"))?;
    let waker = Waker::new(poll.registry(), DATAPLANE).map_err(failed("cannot poll"))?;
    signals
        .register(poll.registry(), SIGNALS)
        .map_err(failed("cannot poll signals"))?;
    Ok((poll, Arc::new(waker)))
}

fn watch_addresses(registry: &Registry) -> Result<Addresses, DaemonError> {
    Addresses::open(Instant::now())
        .and_then(|addresses| {
            addresses.register(registry, ADDRESSES)?;
            Ok(addresses)
        })
        .map_err(failed("cannot listen to changes of addresses"))
}

/// What packets come and go through.
struct Network {
    sockets: Sockets,
    device: Tun,
    /// One for each worker.
    ports: Vec<WorkerPorts>,
}

impl Network {
    fn open(
        daemon: &DaemonConfig,
        workers: NonZeroU16,
        registry: &Registry,
    ) -> Result<Self, DaemonError> {
        let wanted = probe::probe(sockets::wanted_offloads(daemon));
        let options = sockets::options(daemon, wanted);
        let bind = || Sockets::bind(daemon, &options, workers);
        let (sockets, udp) = patiently(bind, PortError::is_in_use)?;
        sockets
            .register(registry, SOCKETS)
            .map_err(failed("cannot poll sockets"))?;
        let raw = raw_sockets(&options, workers);
        let tun = |error| DaemonError::Tun {
            name: daemon.tun.clone(),
            error,
        };
        let create = || Tun::create(&daemon.tun, workers.get(), daemon.tun_mtu, wanted);
        let is_busy = |error: &io::Error| error.raw_os_error() == Some(libc::EBUSY);
        let (device, queues) = patiently(create, is_busy).map_err(tun)?;
        let length = daemon.tun_queue_len.get();
        device.set_queue_length(length).map_err(tun)?;
        Ok(Self {
            sockets,
            device,
            ports: ports(queues, udp, raw),
        })
    }
}

fn build(
    config: Config,
    file: &Path,
    log_level: LogLevel,
    mut signals: Signals,
    spd: &Arc<Spd>,
    kernel: &mut Kernel,
) -> Result<Parts, DaemonError> {
    let daemon = &config.daemon;
    let workers = daemon.workers.unwrap_or_else(usable_cores);
    let rng = ChaCha20Rng::try_from_rng(&mut SysRng);
    let rng = rng.map_err(|error| {
        failed("cannot get random numbers")(io::Error::other(error.to_string()))
    })?;
    let (poll, waker) = poll_signals(&mut signals)?;
    let addresses = watch_addresses(poll.registry())?;
    let Network {
        sockets,
        device,
        ports,
    } = Network::open(daemon, workers, poll.registry())?;
    if let Some(guard) = &mut kernel.guard {
        guard.exempt(device.name(), device.index())?;
    }
    let key_log = daemon.key_log.as_deref().map(KeyLog::open).transpose();
    let key_log = key_log.map_err(failed("cannot open the key log"))?;
    let state = State::load(daemon);
    let vici = Server::bind(
        &daemon.vici_socket,
        daemon.vici_socket_mode,
        poll.registry(),
        VICI,
    )?;

    let listener = daemon
        .metrics
        .map(|address| (address, Metrics::bind(address)));
    let locked = process::protect_memory().map_err(failed("cannot protect the memory"))?;
    tracing::debug!(locked, "memory protected");
    process::drop_capabilities().map_err(failed("cannot drop privileges"))?;
    let dataplane = Dataplane::start(DataplaneConfig {
        workers: ports,
        policies: Arc::clone(spd),
        pin: daemon.pin.unwrap_or_else(has_cores_to_spare),
        control: Arc::clone(&waker),
        offloads: device.offloads(),
        spin: daemon.spin,
    })
    .map_err(failed("cannot start the workers"))?;
    let fetcher = Fetcher::new(Arc::clone(&waker));
    let metrics = listener.map(|(address, listener)| Metrics::start(address, listener, waker));
    kernel.routes.set_device(device.index());
    kernel
        .routes
        .update(spd)
        .map_err(failed("cannot set the routes"))?;
    Ok(Parts {
        poll,
        file: file.to_owned(),
        log_level,
        signals,
        addresses,
        sockets,
        device,
        dataplane,
        vici,
        metrics,
        fetcher,
        workers,
        rng,
        config,
        key_log,
        state,
    })
}

impl Parts {
    /// Nothing can fail any more.
    fn finish(self, kernel: Kernel) -> Control {
        let now = Instant::now();
        let defaults = Settings::new(self.workers);
        let settings = Settings {
            port: self.config.daemon.port,
            port_nat_t: self.config.daemon.port_nat_t,
            path_mtu: self.config.daemon.path_mtu.unwrap_or(DEFAULT_PATH_MTU),
            key_log: self.key_log.is_some(),
            fragment_size: self.config.daemon.fragment_size,
            crash_secret: self.state.crash_secret.clone(),
            ..if self.config.daemon.dos_protection {
                defaults
            } else {
                defaults.without_dos_protection()
            }
        };
        let pad = self.config.pad.clone();
        let endpoint = Endpoint::new(settings, pad, Box::new(self.rng), now);
        let mut control = Control {
            poll: self.poll,
            config: self.config,
            config_file: self.file,
            log_level: self.log_level,
            endpoint,
            device: self.device,
            dataplane: self.dataplane,
            sockets: self.sockets,
            vici: self.vici,
            signals: self.signals,
            addresses: self.addresses,
            routes: kernel.routes,
            guard: kernel.guard,
            commands: Commands::default(),
            usage: UsageTimes::default(),
            ledger: Ledger::default(),
            failures: Failures::default(),
            key_log: self.key_log,
            state: self.state,
            metrics: self.metrics,
            fetcher: self.fetcher,
            log_limit: RateLimit::default(),
            started: (now, SystemTime::now()),
            sources: HashMap::new(),
            next_source: 0,
            has_events: false,
            is_behind: false,
            next_housekeeping: now,
            phase: Phase::Running,
            is_device_gone: false,
        };
        control.tell_source_addresses(now);
        control.tell_addresses(now);
        control.tell_time(now);
        control.tell_ticket_keys(now);
        control
    }
}

/// Tries again for a moment while something is in use: a process that was killed may still be on its
/// way out when its successor starts.
fn patiently<T, E>(
    mut attempt: impl FnMut() -> Result<T, E>,
    is_in_use: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let deadline = Instant::now() + PREDECESSOR;
    loop {
        match attempt() {
            Err(error) if is_in_use(&error) && Instant::now() < deadline => {
                thread::sleep(PREDECESSOR / 50);
            }
            result => return result,
        }
    }
}

/// Raw ESP is for peers without encapsulation; a daemon that may not have it does without.
fn raw_sockets(options: &SocketOptions, workers: NonZeroU16) -> Vec<Vec<RawSocket>> {
    let open = |worker, ipv6| match RawSocket::open(ipv6, worker, workers, options) {
        Ok(socket) => socket,
        Err(error) => {
            if worker == 0 {
                tracing::warn!(%error, ipv6, "no raw ESP, only UDP encapsulation (needs CAP_NET_RAW)");
            }
            None
        }
    };
    (0..workers.get())
        .map(|worker| {
            [false, true]
                .into_iter()
                .filter_map(|ipv6| open(worker, ipv6))
                .collect()
        })
        .collect()
}

fn ports(
    queues: Vec<TunQueue>,
    udp: Vec<Vec<UdpSocket>>,
    raw: Vec<Vec<RawSocket>>,
) -> Vec<WorkerPorts> {
    let sockets = udp.into_iter().zip(raw);
    let ports = queues.into_iter().zip(sockets);
    ports
        .map(|(tun, (udp, raw))| WorkerPorts { tun, udp, raw })
        .collect()
}

/// Whether workers that stay on their cores do not stand in the way of everything else that needs a core:
/// on one or two, the kernel's work for each packet, the hosts' or the peer's, waits behind them.
fn has_cores_to_spare() -> bool {
    usable_cores().get() > 2
}

fn usable_cores() -> NonZeroU16 {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    u16::try_from(cores.min(MOST_WORKERS))
        .ok()
        .and_then(NonZeroU16::new)
        .unwrap_or(NonZeroU16::MIN)
}

/// How long a killed predecessor may take to be gone.
const PREDECESSOR: Duration = Duration::from_secs(1);
const DEFAULT_PATH_MTU: u16 = 1500;
const MOST_WORKERS: usize = 64;
