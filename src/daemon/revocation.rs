//! Fetches revocation lists and OCSP responses over HTTP, on threads of its own, which begin with the
//! first wish.
//!
//! The control thread hands over a wish and goes on; a woken turn finds the outcome. What is
//! fetched is bounded in number, length and time.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crossbeam::channel::{Receiver, Sender, bounded};
use mio::Waker;
use ureq::{
    Agent,
    config::Config,
    http::{StatusCode, Uri},
    unversioned::{
        resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver},
        transport::{DefaultConnector, NextTimeout},
    },
};

use crate::{
    crypto::x509::{Crl, ocsp},
    ike::{Fetch, FetchId, Fetched},
    io::netlink::{self, routing::Routing},
};

type Outcome = (FetchId, Result<Fetched, String>);

/// The control thread's end.
#[derive(Debug)]
pub(super) struct Fetcher {
    wishes: Sender<Fetch>,
    outcomes: Receiver<Outcome>,
    /// What the threads work with, until they do.
    to_start: Option<Worker>,
}

/// The other end, on a thread.
#[derive(Clone, Debug)]
struct Worker {
    wished: Receiver<Fetch>,
    found: Sender<Outcome>,
    waker: Arc<Waker>,
}

impl Fetcher {
    /// Each outcome wakes the control thread. The threads end with this value.
    pub(super) fn new(waker: Arc<Waker>) -> Self {
        let (wishes, wished) = bounded::<Fetch>(QUEUE);
        let (found, outcomes) = bounded::<Outcome>(QUEUE);
        let to_start = Worker {
            wished,
            found,
            waker,
        };
        Self {
            wishes,
            outcomes,
            to_start: Some(to_start),
        }
    }

    /// Takes a wish, and gives back the outcome of one for which there is no room.
    pub(super) fn ask(&mut self, fetch: Fetch) -> Option<Outcome> {
        if let Err(error) = self.start() {
            return Some((fetch.id, Err(format!("cannot start a thread: {error}"))));
        }
        let refused = self.wishes.try_send(fetch).err()?;
        Some((
            refused.into_inner().id,
            Err("too much is being fetched".to_owned()),
        ))
    }

    /// Starts the threads, if none runs.
    fn start(&mut self) -> io::Result<()> {
        let Some(worker) = &self.to_start else {
            return Ok(());
        };
        let started = (0..THREADS).map(|_| {
            let worker = worker.clone();
            let named = thread::Builder::new().name("revocation".to_owned());
            named.spawn(move || worker.run()).map(drop)
        });
        let started: Vec<_> = started.collect();
        // With fewer threads it takes longer.
        let any = started.into_iter().reduce(Result::or);
        any.transpose()?;
        self.to_start = None;
        Ok(())
    }

    /// The outcome of a wish.
    pub(super) fn poll(&self) -> Option<Outcome> {
        self.outcomes.try_recv().ok()
    }
}

impl Worker {
    fn run(self) {
        let agents = Agents::new();
        for wish in self.wished {
            if wish.deadline <= Instant::now() {
                continue;
            }
            let outcome = (wish.id, agents.fetch(&wish));
            if self.found.send(outcome).is_err() {
                return;
            }
            let _ = self.waker.wake();
        }
    }
}

/// HTTP without redirects and proxies.
struct Agents {
    /// To any address.
    any: Agent,
    /// To those that a certificate may send us to.
    public: Agent,
}

impl Agents {
    fn new() -> Self {
        let config = || {
            Agent::config_builder()
                .timeout_connect(Some(CONNECT))
                .max_redirects(0)
                .proxy(None)
                .user_agent("lockgate")
                .build()
        };
        let connector = DefaultConnector::default;
        Self {
            any: Agent::with_parts(config(), connector(), DefaultResolver::default()),
            public: Agent::with_parts(config(), connector(), PublicResolver::default()),
        }
    }

    fn fetch(&self, wish: &Fetch) -> Result<Fetched, String> {
        let bytes = self.exchange(wish).map_err(|error| {
            let reason: String = error
                .to_string()
                .chars()
                .filter(|c| !c.is_control())
                .take(200)
                .collect();
            format!("{}: {reason}", wish.uri)
        })?;
        if wish.question.is_some() {
            return Ok(Fetched::Answer(bytes));
        }
        let list = Crl::load(&bytes).map_err(|error| format!("{}: {error}", wish.uri))?;
        Ok(Fetched::List(Arc::new(list)))
    }

    /// Asks, and reads what comes back as 200 (OK). Anything else, such as the page of a redirect, is
    /// not what was asked for.
    fn exchange(&self, wish: &Fetch) -> Result<Vec<u8>, ureq::Error> {
        let agent = if wish.configured {
            &self.any
        } else {
            &self.public
        };
        let left = Some(wish.deadline.saturating_duration_since(Instant::now()));
        let (mut response, limit) = match &wish.question {
            None => {
                let request = agent.get(&wish.uri).config().timeout_global(left).build();
                (request.call()?, Crl::MOST_BYTES)
            }
            Some(question) => {
                let request = agent.post(&wish.uri).config().timeout_global(left).build();
                let request = request.content_type("application/ocsp-request");
                (request.send(&question[..])?, ocsp::MOST_BYTES)
            }
        };
        if response.status() != StatusCode::OK {
            return Err(ureq::Error::StatusCode(response.status().as_u16()));
        }
        let body = response.body_mut().with_config().limit(most(limit));
        body.read_to_vec()
    }
}

fn most(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Finds no address of this machine or this link: whoever issues certificates must not reach what
/// only local programs should, such as a cloud's metadata service.
#[derive(Debug, Default)]
struct PublicResolver(DefaultResolver);

impl Resolver for PublicResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.0.resolve(uri, config, timeout)?;
        let mut allowed = self.empty();
        for address in &*found {
            if may_be_asked(*address) && !is_ours(address.ip()) {
                allowed.push(*address);
            }
        }
        if allowed.is_empty() {
            return Err(ureq::Error::HostNotFound);
        }
        Ok(allowed)
    }
}

/// Whether packets to this address stay on this machine, as far as that can be found out: it is one of
/// ours, or in a prefix of which all are.
fn is_ours(ip: IpAddr) -> bool {
    let listed = Routing::open().and_then(|mut routing| routing.addresses());
    listed.is_ok_and(|own| own.contains(&ip))
        || netlink::source_address(ip, 0).is_ok_and(|source| source == ip)
}

/// Whether a certificate may name this address.
fn may_be_asked(address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    let local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast() || ip.octets().starts_with(&[0]),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(local || ip.is_loopback() || ip.is_unspecified() || ip.is_multicast())
}

const THREADS: usize = 4;
const QUEUE: usize = 64;
const CONNECT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests;
