//! The IKE SAs, found by id, SPI, name or deadline.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::wire::isakmp::IkeSpi;

use super::v2::IkeSa;

/// Every IKE SA. Those that changed are put back, which keeps the indexes right.
#[derive(Default)]
pub(super) struct Table {
    sas: BTreeMap<u64, IkeSa>,
    by_spi: HashMap<IkeSpi, u64>,
    by_init: HashMap<(SocketAddr, IkeSpi), u64>,
    by_name: HashMap<String, Vec<u64>>,
    deadlines: BTreeSet<(Instant, u64)>,
    entries: HashMap<u64, Entry>,
    half_open: BTreeSet<u64>,
    half_open_by_addr: HashMap<IpAddr, BTreeSet<u64>>,
    /// Half-open SAs that hold fragments.
    holding: BTreeSet<u64>,
    /// Bytes of fragments that all half-open SAs hold.
    held: usize,
}

/// What the indexes know about an SA, to take it out again.
struct Entry {
    deadline: Option<Instant>,
    place: Place,
}

/// Under what an SA is found, other than its deadline: most steps leave it as it is.
struct Place {
    name: String,
    spi: IkeSpi,
    init: Option<(SocketAddr, IkeSpi)>,
    is_half_open: bool,
    held: usize,
}

impl Place {
    fn of(sa: &IkeSa) -> Self {
        Self {
            name: sa.core.name().to_owned(),
            spi: sa.core.local_spi(),
            init: Self::init_of(sa),
            is_half_open: sa.is_half_open(),
            held: sa.held_half_open(),
        }
    }

    fn is_that_of(&self, sa: &IkeSa) -> bool {
        let Self {
            name,
            spi,
            init,
            is_half_open,
            held,
        } = self;
        *name == sa.core.name()
            && *spi == sa.core.local_spi()
            && *init == Self::init_of(sa)
            && *is_half_open == sa.is_half_open()
            && *held == sa.held_half_open()
    }

    fn init_of(sa: &IkeSa) -> Option<(SocketAddr, IkeSpi)> {
        let from = sa.core.init_from?;
        Some((from, sa.core.initiator_spi))
    }
}

impl Table {
    pub(super) fn get(&self, id: u64) -> Option<&IkeSa> {
        self.sas.get(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &IkeSa> {
        self.sas.values()
    }

    /// Takes an SA out to change it.
    pub(super) fn take(&mut self, id: u64) -> Option<IkeSa> {
        self.sas.remove(&id)
    }

    /// Puts an SA in, or back; one that is gone is forgotten.
    pub(super) fn put(&mut self, sa: IkeSa) {
        let id = sa.core.id;
        if sa.is_gone() {
            self.unindex(id);
            return;
        }
        let deadline = sa.deadline();
        match self.entries.get_mut(&id) {
            Some(entry) if entry.place.is_that_of(&sa) => {
                let before = std::mem::replace(&mut entry.deadline, deadline);
                if before != deadline {
                    self.deadlines.extend(deadline.map(|at| (at, id)));
                    before.map(|at| self.deadlines.remove(&(at, id)));
                }
            }
            _ => {
                self.unindex(id);
                self.index(&sa, deadline);
            }
        }
        self.sas.insert(id, sa);
    }

    fn index(&mut self, sa: &IkeSa, deadline: Option<Instant>) {
        let id = sa.core.id;
        let place = Place::of(sa);
        self.held += place.held;
        if place.held > 0 {
            self.holding.insert(id);
        }
        self.by_spi.insert(place.spi, id);
        if let Some(init) = place.init {
            self.by_init.insert(init, id);
            if place.is_half_open {
                self.half_open.insert(id);
                let from = self.half_open_by_addr.entry(init.0.ip());
                from.or_default().insert(id);
            }
        }
        if !place.name.is_empty() {
            self.by_name.entry(place.name.clone()).or_default().push(id);
        }
        self.deadlines.extend(deadline.map(|at| (at, id)));
        self.entries.insert(id, Entry { deadline, place });
    }

    fn unindex(&mut self, id: u64) {
        let Some(Entry { deadline, place }) = self.entries.remove(&id) else {
            return;
        };
        if let Some(at) = deadline {
            self.deadlines.remove(&(at, id));
        }
        self.held -= place.held;
        self.holding.remove(&id);
        if self.by_spi.get(&place.spi) == Some(&id) {
            self.by_spi.remove(&place.spi);
        }
        if let Some(ids) = self.by_name.get_mut(&place.name) {
            ids.retain(|known| *known != id);
            if ids.is_empty() {
                self.by_name.remove(&place.name);
            }
        }
        if let Some(init) = place.init {
            if self.by_init.get(&init) == Some(&id) {
                self.by_init.remove(&init);
            }
            self.half_open.remove(&id);
            if let Some(ids) = self.half_open_by_addr.get_mut(&init.0.ip()) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.half_open_by_addr.remove(&init.0.ip());
                }
            }
        }
    }

    /// The SA that a protected message, or an answer to IKE_SA_INIT, names by our SPI.
    pub(super) fn by_spi(&self, spi: IkeSpi) -> Option<&IkeSa> {
        self.sas.get(self.by_spi.get(&spi)?)
    }

    /// The SA that has both of these SPIs, the initiator's and the responder's.
    pub(super) fn by_spis(&self, spis: (IkeSpi, IkeSpi)) -> Option<&IkeSa> {
        let known = [spis.0, spis.1].into_iter();
        let mut known = known.filter_map(|spi| self.by_spi(spi));
        known.find(|sa| sa.core.spis() == spis)
    }

    pub(super) fn len(&self) -> usize {
        self.sas.len()
    }

    /// The SA that this initiator's IKE_SA_INIT has made.
    pub(super) fn by_init(&self, remote: SocketAddr, spi: IkeSpi) -> Option<&IkeSa> {
        self.sas.get(self.by_init.get(&(remote, spi))?)
    }

    /// The newest SA of this connection that passes the test.
    pub(super) fn find_by_name(&self, name: &str, test: impl Fn(&IkeSa) -> bool) -> Option<u64> {
        let ids = self.by_name.get(name)?.iter().rev();
        let mut sas = ids.filter_map(|id| self.sas.get(id));
        sas.find(|sa| test(sa)).map(|sa| sa.core.id)
    }

    pub(super) fn ids_where(&self, test: impl Fn(&IkeSa) -> bool) -> Vec<u64> {
        let selected = self.sas.values().filter(|sa| test(sa));
        selected.map(|sa| sa.core.id).collect()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// An SA whose deadline has passed.
    pub(super) fn due(&self, now: Instant) -> Option<u64> {
        let (at, id) = self.deadlines.first()?;
        (*at <= now).then_some(*id)
    }

    pub(super) fn half_open(&self) -> usize {
        self.half_open.len()
    }

    pub(super) fn half_open_from(&self, addr: IpAddr) -> usize {
        self.half_open_by_addr.get(&addr).map_or(0, BTreeSet::len)
    }

    /// The oldest half-open SA, or the oldest one from an address.
    pub(super) fn oldest_half_open(&self, from: Option<IpAddr>) -> Option<u64> {
        match from {
            Some(addr) => self.half_open_by_addr.get(&addr)?.first().copied(),
            None => self.half_open.first().copied(),
        }
    }

    /// The half-open SA that should give up its fragments, if all of them hold too much: the oldest.
    pub(super) fn holding_too_much(&self) -> Option<u64> {
        let oldest = self.holding.first().copied();
        oldest.filter(|_| self.held > MOST_HELD)
    }

    /// Forgets an SA that nobody misses.
    pub(super) fn evict(&mut self, id: u64) {
        self.unindex(id);
        self.sas.remove(&id);
    }
}

/// Bytes of fragments that peers may have us keep before they are authenticated.
const MOST_HELD: usize = 4 * 1024 * 1024;
