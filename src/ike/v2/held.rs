//! A message that was opened and waits for what its check needs.

use std::time::Instant;

use crate::ike::Path;
use crate::ike::revocation::Waiter;
use crate::wire::isakmp::Header;

use super::Core;
use super::message::Datagram;
use super::protect::Opened;

/// An IKE_AUTH message, kept while revocation information is on its way.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) opened: Opened,
    /// When waiting ends, whatever is known by then.
    pub(super) until: Instant,
    header: Header,
    path: Path,
    bytes: Vec<u8>,
}

impl Held {
    pub(super) fn new(opened: Opened, datagram: &Datagram<'_>, until: Instant) -> Self {
        let bytes = opened.stand_in(datagram).bytes.to_vec();
        Self {
            opened,
            until,
            header: datagram.header,
            path: datagram.path,
            bytes,
        }
    }

    /// Who waits, for revocation information.
    pub(super) fn waiter(&self, core: &Core) -> Waiter {
        Waiter {
            ike: core.id,
            until: self.until,
        }
    }

    /// The message as it arrived.
    pub(super) fn datagram(&self) -> Datagram<'_> {
        Datagram {
            path: self.path,
            header: self.header,
            bytes: &self.bytes,
            payloads: self.bytes.get(Header::LEN..).unwrap_or_default(),
        }
    }
}
