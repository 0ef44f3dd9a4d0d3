//! Messages outside any IKE SA: how they are answered, and what they hint at.

use crate::wire::ikev2::{NotifyType, PayloadWriter, message_bytes};
use crate::wire::isakmp::{ExchangeType, Flags, Header};

use super::crash_token;
use super::endpoint::Endpoint;
use super::v2::{Datagram, add_notify};

impl Endpoint {
    /// A message of a later version is told about ours, at most as long as it was (RFC 7296 §2.5).
    pub(super) fn refuse_version(&mut self, datagram: &Datagram<'_>) {
        let header = &datagram.header;
        if header.major_version() > 2 && !header.flags.response() {
            self.notify_stranger(datagram, NotifyType::INVALID_MAJOR_VERSION, &[]);
        }
    }

    /// Nobody has this SPI. The peer may have missed that we restarted (RFC 7296 §2.21.4), which our token
    /// proves to it (RFC 6290 §4.5).
    pub(super) fn refuse_spi(&mut self, datagram: &Datagram<'_>) {
        if self.take_hint(datagram) || datagram.header.flags.response() {
            return;
        }
        let token = self.lost_token(datagram);
        if token.is_some() || self.admission.allow_reply(self.cx.now) {
            let mut payloads = PayloadWriter::new();
            add_notify(&mut payloads, NotifyType::INVALID_IKE_SPI, &[]);
            if let Some(token) = &token {
                crash_token::add(token, &mut payloads);
            }
            self.reply_clear(datagram, payloads);
            let remote = datagram.remote();
            let line = format!("message from {remote} for an unknown IKE_SA");
            self.cx.warn("NET", None, line);
        }
    }

    /// A message in clear says that the peer has lost an SA. Anybody can say that, so it is no more
    /// than a reason to look whether the peer still lives (RFC 7296 §2.4).
    fn take_hint(&mut self, datagram: &Datagram<'_>) -> bool {
        let is_hint = |kind| matches!(kind, NotifyType::INVALID_SPI | NotifyType::INVALID_IKE_SPI);
        let hint = datagram.header.exchange == ExchangeType::INFORMATIONAL
            && datagram
                .clear_payloads()
                .is_ok_and(|payloads| payloads.notifies.iter().any(|notify| is_hint(notify.kind)));
        if hint && self.admission.allow_reply(self.cx.now) {
            let from = datagram.remote().ip();
            let peers = self
                .table
                .ids_where(|sa| sa.established().is_some() && sa.core.path.remote.ip() == from);
            for id in peers.into_iter().take(MOST_PROBES) {
                self.step(id, |sa, cx| {
                    sa.with_established(cx, |established, _, _| established.probe());
                });
            }
        }
        hint
    }

    pub(super) fn notify_stranger(
        &mut self,
        datagram: &Datagram<'_>,
        kind: NotifyType,
        data: &[u8],
    ) {
        if self.admission.allow_reply(self.cx.now) {
            let mut payloads = PayloadWriter::new();
            add_notify(&mut payloads, kind, data);
            self.reply_clear(datagram, payloads);
        }
    }

    /// Answers a message outside any IKE SA: SPIs and message ID are copied.
    pub(super) fn reply_clear(&mut self, datagram: &Datagram<'_>, payloads: PayloadWriter) {
        let request = &datagram.header;
        let header = Header {
            version: Header::VERSION_2_0,
            flags: Flags::new(!request.flags.initiator(), true),
            ..*request
        };
        let bytes = message_bytes(header, payloads.finish());
        self.cx.transmit(datagram.path, bytes);
    }
}

/// IKE SAs with one address that a hint may make us probe.
const MOST_PROBES: usize = 16;
