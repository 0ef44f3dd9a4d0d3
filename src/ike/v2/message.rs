//! One message as a step sees it: the datagram, and its payloads sorted by kind.

use std::net::SocketAddr;

use crate::ike::Path;
use crate::wire::Malformed;
use crate::wire::ikev2::{
    CertPayload, CertRequest, Configuration, Delete, KePayload, Nonce, Notify, NotifyType,
    PayloadWriter,
};
use crate::wire::isakmp::{Header, PayloadChain, PayloadType};
use crate::wire::proposal::{KeyExchangeId, ProtocolId, SaProposal};
use crate::wire::selector::TrafficSelector;

use super::error::ExchangeError;

/// A datagram whose header has been read.
#[derive(Clone, Copy, Debug)]
pub(in crate::ike) struct Datagram<'a> {
    pub(in crate::ike) path: Path,
    pub(in crate::ike) header: Header,
    /// The whole message.
    pub(in crate::ike) bytes: &'a [u8],
    /// The part behind the header.
    pub(in crate::ike) payloads: &'a [u8],
}

/// The payloads of one message. Those that may come only once are options, and a second one is an
/// error. Payloads we do not know or use are skipped, unless they are critical.
#[derive(Debug, Default)]
pub(in crate::ike) struct Payloads<'a> {
    pub(in crate::ike) sa: Option<&'a [u8]>,
    pub(in crate::ike) ke: Option<&'a [u8]>,
    pub(in crate::ike) nonce: Option<&'a [u8]>,
    pub(in crate::ike) id_i: Option<&'a [u8]>,
    pub(in crate::ike) id_r: Option<&'a [u8]>,
    pub(in crate::ike) auth: Option<&'a [u8]>,
    pub(in crate::ike) ts_i: Option<&'a [u8]>,
    pub(in crate::ike) ts_r: Option<&'a [u8]>,
    pub(in crate::ike) cp: Option<&'a [u8]>,
    pub(in crate::ike) notifies: Vec<Notify<'a>>,
    pub(in crate::ike) deletes: Vec<Delete<'a>>,
    pub(in crate::ike) certificates: Vec<CertPayload<'a>>,
    pub(in crate::ike) certificate_requests: Vec<CertRequest<'a>>,
}

impl<'a> Datagram<'a> {
    /// The payloads of a message that is not protected.
    pub(in crate::ike) fn clear_payloads(&self) -> Result<Payloads<'a>, ExchangeError> {
        Payloads::parse(self.header.next_payload, self.payloads)
    }

    pub(in crate::ike) fn remote(&self) -> SocketAddr {
        self.path.remote
    }
}

impl<'a> Payloads<'a> {
    pub(in crate::ike) fn parse(
        first: PayloadType,
        bytes: &'a [u8],
    ) -> Result<Self, ExchangeError> {
        let mut payloads = Self::default();
        for payload in PayloadChain::new(first, bytes) {
            let payload = payload?;
            let slot = match payload.kind {
                PayloadType::SA => &mut payloads.sa,
                PayloadType::KE => &mut payloads.ke,
                PayloadType::NONCE => &mut payloads.nonce,
                PayloadType::ID_I => &mut payloads.id_i,
                PayloadType::ID_R => &mut payloads.id_r,
                PayloadType::AUTH => &mut payloads.auth,
                PayloadType::TS_I => &mut payloads.ts_i,
                PayloadType::TS_R => &mut payloads.ts_r,
                PayloadType::CP => &mut payloads.cp,
                PayloadType::NOTIFY => {
                    payloads.notifies.push(Notify::parse(payload.body)?);
                    continue;
                }
                PayloadType::DELETE => {
                    payloads.deletes.push(Delete::parse(payload.body)?);
                    continue;
                }
                PayloadType::CERT => {
                    let certificate = CertPayload::parse(payload.body)?;
                    payloads.certificates.push(certificate);
                    continue;
                }
                PayloadType::CERTREQ => {
                    let request = CertRequest::parse(payload.body)?;
                    payloads.certificate_requests.push(request);
                    continue;
                }
                kind if payload.critical && !kind.is_known() => {
                    return Err(ExchangeError::UnsupportedCritical(kind.0));
                }
                _ => continue,
            };
            if slot.replace(payload.body).is_some() {
                return Err(Malformed::BadValue("second payload of a kind").into());
            }
        }
        Ok(payloads)
    }

    /// The sender has deleted the IKE SA.
    pub(in crate::ike) fn deletes_ike(&self) -> bool {
        let mut deletes = self.deletes.iter();
        deletes.any(|delete| delete.protocol == ProtocolId::Ike)
    }

    pub(in crate::ike) fn notify(&self, kind: NotifyType) -> Option<&Notify<'a>> {
        self.notifies.iter().find(|notify| notify.kind == kind)
    }

    /// The first notification that says that the request failed.
    pub(in crate::ike) fn error(&self) -> Option<&Notify<'a>> {
        self.notifies.iter().find(|notify| notify.kind.is_error())
    }

    pub(in crate::ike) fn proposals(&self) -> Result<Vec<(u8, SaProposal)>, ExchangeError> {
        Ok(SaProposal::parse_list(required(self.sa, "SA")?)?)
    }

    pub(in crate::ike) fn nonce(&self) -> Result<&'a [u8], ExchangeError> {
        Ok(Nonce::parse(required(self.nonce, "nonce")?)?.bytes())
    }

    pub(in crate::ike) fn key_exchange(&self) -> Result<KePayload<'a>, ExchangeError> {
        Ok(KePayload::parse(required(self.ke, "KE")?)?)
    }

    /// What is asked for or told besides, if it can be read (RFC 7296 §3.15).
    pub(in crate::ike) fn configuration(&self) -> Result<Option<Configuration>, ExchangeError> {
        Ok(self.cp.map(Configuration::parse).transpose()?)
    }

    pub(in crate::ike) fn ts_i(&self) -> Result<Vec<TrafficSelector>, ExchangeError> {
        Ok(TrafficSelector::parse_list(required(self.ts_i, "TSi")?)?)
    }

    pub(in crate::ike) fn ts_r(&self) -> Result<Vec<TrafficSelector>, ExchangeError> {
        Ok(TrafficSelector::parse_list(required(self.ts_r, "TSr")?)?)
    }
}

/// A payload without which the message makes no sense.
pub(in crate::ike) fn required<'a>(
    payload: Option<&'a [u8]>,
    name: &'static str,
) -> Result<&'a [u8], ExchangeError> {
    payload.ok_or(ExchangeError::Missing(name))
}

/// The group that an INVALID_KE_PAYLOAD asks for.
pub(in crate::ike) fn wanted_group(notify: &Notify<'_>) -> Option<KeyExchangeId> {
    let group = <[u8; 2]>::try_from(notify.data).ok()?;
    Some(KeyExchangeId(u16::from_be_bytes(group)))
}

/// The SPI and protocol that a REKEY_SA is about, if it is one ESP SA.
pub(in crate::ike) fn rekeyed_spi(notify: &Notify<'_>) -> Option<u32> {
    if notify.protocol != ProtocolId::Esp as u8 {
        return None;
    }
    let spi = <[u8; 4]>::try_from(notify.spi).ok()?;
    Some(u32::from_be_bytes(spi))
}

/// Adds a notification about no particular Child SA.
pub(in crate::ike) fn add_notify(payloads: &mut PayloadWriter, kind: NotifyType, data: &[u8]) {
    payloads.add_with(PayloadType::NOTIFY, |out| {
        Notify::new(kind, data).encode(out);
    });
}

/// Adds a KE payload.
pub(in crate::ike) fn add_ke(payloads: &mut PayloadWriter, group: KeyExchangeId, data: &[u8]) {
    payloads.add_with(PayloadType::KE, |out| {
        KePayload { group, data }.encode(out);
    });
}

/// Adds TSi and TSr.
pub(in crate::ike) fn add_selectors(
    payloads: &mut PayloadWriter,
    initiator: &[TrafficSelector],
    responder: &[TrafficSelector],
) {
    payloads.add_with(PayloadType::TS_I, |out| {
        TrafficSelector::encode_list(initiator, out);
    });
    payloads.add_with(PayloadType::TS_R, |out| {
        TrafficSelector::encode_list(responder, out);
    });
}

/// A name for a notification in logs.
pub(in crate::ike) fn notify_name(kind: NotifyType) -> String {
    let name = match kind {
        NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD => "UNSUPPORTED_CRITICAL_PAYLOAD",
        NotifyType::INVALID_SYNTAX => "INVALID_SYNTAX",
        NotifyType::INVALID_MAJOR_VERSION => "INVALID_MAJOR_VERSION",
        NotifyType::INVALID_IKE_SPI => "INVALID_IKE_SPI",
        NotifyType::NO_PROPOSAL_CHOSEN => "NO_PROPOSAL_CHOSEN",
        NotifyType::INVALID_KE_PAYLOAD => "INVALID_KE_PAYLOAD",
        NotifyType::AUTHENTICATION_FAILED => "AUTHENTICATION_FAILED",
        NotifyType::SINGLE_PAIR_REQUIRED => "SINGLE_PAIR_REQUIRED",
        NotifyType::NO_ADDITIONAL_SAS => "NO_ADDITIONAL_SAS",
        NotifyType::TS_UNACCEPTABLE => "TS_UNACCEPTABLE",
        NotifyType::TEMPORARY_FAILURE => "TEMPORARY_FAILURE",
        NotifyType::CHILD_SA_NOT_FOUND => "CHILD_SA_NOT_FOUND",
        _ => return kind.to_string(),
    };
    name.to_owned()
}
