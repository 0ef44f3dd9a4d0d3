//! Prometheus metrics over HTTP.
//!
//! ```text
//!                   ┌─ asked ──────────────────────────────┐
//!                   ▼                                      │
//! control thread: snapshot (copies, nothing rendered) ─► metrics thread: text, HTTP ─► clients
//! ```
//!
//! A client costs the control thread one snapshot at most, and none while the last text is fresh.

mod http;
mod ledger;
mod page;
mod server;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use crossbeam::queue::ArrayQueue;
use mio::{Poll, Waker};

pub(super) use ledger::Ledger;
pub(super) use page::Snapshot;

use server::Server;

/// Metrics for an address, as far as that is to be had: tunnels do not depend on it.
#[derive(Debug)]
pub(super) struct Metrics {
    address: SocketAddr,
    control: Arc<Waker>,
    service: io::Result<Service>,
}

impl Metrics {
    /// Takes the port, which may need privileges. Nobody is served before [`Self::start`].
    pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    /// Serves clients, or warns that it does not. A client that wants a snapshot wakes the control thread.
    pub(super) fn start(
        address: SocketAddr,
        listener: io::Result<TcpListener>,
        control: Arc<Waker>,
    ) -> Self {
        let service = listener.and_then(|listener| Service::start(listener, Arc::clone(&control)));
        if let Err(error) = &service {
            tracing::warn!(
                "daemon.metrics: cannot serve metrics on {address}, will try again: {error}"
            );
        }
        Self {
            address,
            control,
            service,
        }
    }

    /// Tries again if nobody is served.
    pub(super) fn retry(&mut self) {
        if !self.service.as_ref().is_ok_and(Service::is_running) {
            let listener = Self::bind(self.address);
            let control = Arc::clone(&self.control);
            self.service = listener.and_then(|listener| Service::start(listener, control));
            if self.service.is_ok() {
                tracing::info!("metrics are served on {}", self.address);
            }
        }
    }

    /// Whether a snapshot is wanted.
    pub(super) fn is_asked(&self) -> bool {
        self.service.as_ref().is_ok_and(Service::is_asked)
    }

    /// Hands over the snapshot that was asked for.
    pub(super) fn answer(&self, snapshot: Snapshot) {
        if let Ok(service) = &self.service {
            service.answer(snapshot);
        }
    }

    /// The address, and why nobody is served there.
    pub(super) fn status(&self) -> (SocketAddr, Option<&io::Error>) {
        (self.address, self.service.as_ref().err())
    }
}

/// The control thread's end. Dropping it ends the metrics thread.
#[derive(Debug)]
struct Service {
    desk: Arc<Desk>,
    thread: Option<JoinHandle<()>>,
}

/// What both threads share.
#[derive(Debug)]
struct Desk {
    /// The metrics thread waits for a snapshot.
    asked: AtomicBool,
    snapshot: ArrayQueue<Snapshot>,
    stop: AtomicBool,
    control: Arc<Waker>,
    server: Waker,
}

impl Service {
    /// Serves clients from a thread of its own, which wakes the control thread when it wants a snapshot.
    fn start(listener: TcpListener, control: Arc<Waker>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let desk = Arc::new(Desk {
            asked: AtomicBool::new(false),
            snapshot: ArrayQueue::new(1),
            stop: AtomicBool::new(false),
            control,
            server: Waker::new(poll.registry(), server::WAKE)?,
        });
        let server = Server::new(poll, listener, Arc::clone(&desk))?;
        let thread = thread::Builder::new()
            .name("metrics".to_owned())
            .spawn(move || server.run())?;
        Ok(Self {
            desk,
            thread: Some(thread),
        })
    }

    /// Whether the thread has not ended by itself.
    fn is_running(&self) -> bool {
        let thread = self.thread.as_ref();
        thread.is_some_and(|thread| !thread.is_finished())
    }

    fn is_asked(&self) -> bool {
        self.desk.asked.load(Ordering::Acquire)
    }

    fn answer(&self, snapshot: Snapshot) {
        self.desk.asked.store(false, Ordering::Release);
        self.desk.snapshot.force_push(snapshot);
        // A failed wake-up only means that the thread is awake or gone.
        let _ = self.desk.server.wake();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.desk.stop.store(true, Ordering::Release);
        // As above.
        let _ = self.desk.server.wake();
        if let Some(thread) = self.thread.take() {
            // A panic has been printed by then, and there is nothing to save.
            let _ = thread.join();
        }
    }
}

impl Desk {
    fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        // A failed wake-up only means that the thread is awake or gone.
        let _ = self.control.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::Token;

    #[test]
    fn a_thread_that_has_ended_is_replaced_by_another_one() {
        let poll = Poll::new().unwrap();
        let control = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let listener = Metrics::bind(([127, 0, 0, 1], 0).into());
        let address = listener.as_ref().unwrap().local_addr().unwrap();
        let mut metrics = Metrics::start(address, listener, control);
        let service = metrics.service.as_ref().unwrap();
        service.desk.stop.store(true, Ordering::Release);
        service.desk.server.wake().unwrap();
        while service.is_running() {
            thread::yield_now();
        }
        metrics.retry();
        assert!(metrics.service.unwrap().is_running());
    }
}
