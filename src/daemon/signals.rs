//! Signals as readiness of a descriptor.

use std::{
    io::{self, Read},
    os::{fd::OwnedFd, unix::net::UnixStream as StdStream},
};

use mio::{Interest, Registry, Token, net::UnixStream};
use signal_hook::{
    consts::signal::{SIGHUP, SIGINT, SIGTERM},
    low_level::{pipe, unregister},
};

/// The signals that the daemon listens to. While this value lives they do nothing by themselves.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: UnixStream,
    reload: UnixStream,
    registered: Vec<signal_hook::SigId>,
}

/// What signals ask for since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// SIGTERM and SIGINT, counted.
    pub(super) terminate: usize,
    /// SIGHUP.
    pub(super) reload: bool,
}

impl Signals {
    pub(super) fn install() -> io::Result<Self> {
        let (terminate, terminate_writer) = StdStream::pair()?;
        let (reload, reload_writer) = StdStream::pair()?;
        for stream in [&terminate, &reload] {
            stream.set_nonblocking(true)?;
        }
        let interrupt_writer = terminate_writer.try_clone()?;
        let mut signals = Self {
            terminate: UnixStream::from_std(terminate),
            reload: UnixStream::from_std(reload),
            registered: Vec::new(),
        };
        for (signal, writer) in [
            (SIGTERM, terminate_writer),
            (SIGINT, interrupt_writer),
            (SIGHUP, reload_writer),
        ] {
            let id = pipe::register_raw(signal, OwnedFd::from(writer))?;
            signals.registered.push(id);
        }
        Ok(signals)
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.terminate, token, Interest::READABLE)?;
        registry.register(&mut self.reload, token, Interest::READABLE)
    }

    pub(super) fn take(&mut self) -> Asked {
        Asked {
            terminate: drain(&mut self.terminate),
            reload: drain(&mut self.reload) > 0,
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.registered.drain(..) {
            unregister(id);
        }
    }
}

/// Reads one byte per signal.
fn drain(stream: &mut UnixStream) -> usize {
    let mut bytes = [0; 64];
    let mut count = 0;
    while let Ok(length @ 1..) = stream.read(&mut bytes) {
        count += length;
    }
    count
}
