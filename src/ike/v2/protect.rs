//! The SK and SKF payloads (RFC 7296 §3.14, RFC 5282, RFC 7383).

use std::time::Instant;

use zeroize::Zeroizing;

use crate::crypto::kdf::IkeKeys;
use crate::crypto::prf::Prf;
use crate::crypto::{Associated, PacketKey, Secret};
use crate::ike::context::Context;
use crate::ike::key_log;
use crate::ike::{Discard, Path};
use crate::wire::ikev2::{FragmentHeader, PayloadWriter};
use crate::wire::isakmp::{Header, PayloadChain, PayloadType, RawPayload};
use crate::wire::proposal::IkeSuite;

use super::error::ExchangeError;
use super::fragment::{FragmentRules, Outgoing, Reassembly};
use super::message::{Datagram, Payloads};

/// The keys of an IKE SA that outlive its authentication, and the fragments that they have opened.
#[derive(Debug)]
pub(in crate::ike) struct SaKeys {
    pub(in crate::ike) suite: IkeSuite,
    pub(in crate::ike) prf: Prf,
    pub(in crate::ike) sk_d: Secret,
    outbound: PacketKey,
    inbound: PacketKey,
    /// Never used twice under one key.
    nonce: u64,
    pub(super) fragment_rules: FragmentRules,
    pub(super) reassembly: Reassembly,
    /// Comes out with the first message that these keys have opened: what strangers send costs no line.
    log: Option<key_log::Entry>,
}

/// The keys that IKE_AUTH needs and nothing else does.
#[derive(Debug)]
pub(in crate::ike) struct AuthKeys {
    pub(in crate::ike) initiator: Secret,
    pub(in crate::ike) responder: Secret,
}

/// A message that passed its integrity check.
#[derive(Debug)]
pub(in crate::ike) struct Opened {
    first: PayloadType,
    text: Zeroizing<Vec<u8>>,
    /// Its fragment 1, if it came in fragments.
    fragment: Option<Box<[u8]>>,
}

impl SaKeys {
    /// Sorts the keys of an SA for one of its two sides.
    pub(in crate::ike) fn new(
        suite: IkeSuite,
        keys: IkeKeys,
        initiator: bool,
        fragment_rules: FragmentRules,
        log: Option<key_log::Entry>,
    ) -> (Self, AuthKeys) {
        let key = |encryption: &Secret, integrity: &Secret| {
            PacketKey::new(suite.cipher, encryption.as_bytes(), integrity.as_bytes())
                .expect("negotiation accepts only suites we have, and derivation fits the lengths")
        };
        let from_initiator = key(&keys.sk_ei, &keys.sk_ai);
        let from_responder = key(&keys.sk_er, &keys.sk_ar);
        let (outbound, inbound) = if initiator {
            (from_initiator, from_responder)
        } else {
            (from_responder, from_initiator)
        };
        let sa = Self {
            suite,
            prf: Prf::new(suite.prf).expect("negotiation accepts only PRFs we have"),
            sk_d: keys.sk_d,
            outbound,
            inbound,
            nonce: 0,
            fragment_rules,
            reassembly: Reassembly::default(),
            log,
        };
        let auth = AuthKeys {
            initiator: keys.sk_pi,
            responder: keys.sk_pr,
        };
        (sa, auth)
    }

    /// A message whose payloads are inside an SK payload, or inside SKF payloads if that is too long
    /// for the path and the peer takes fragments.
    pub(in crate::ike) fn seal(
        &mut self,
        header: Header,
        payloads: PayloadWriter,
        path: Path,
    ) -> Outgoing {
        let (first, text) = payloads.finish();
        let text = Zeroizing::new(text);
        let whole = Header::LEN + GENERIC_HEADER + self.overhead() + text.len();
        let longest = self.fragment_rules.longest(path);
        let Some(longest) = longest.filter(|longest| whole > *longest) else {
            return self.seal_one(header, first, None, &text).into();
        };
        let room = longest - Header::LEN - GENERIC_HEADER - FRAGMENT_HEADER - self.overhead();
        let chunks = text.chunks(room);
        let total = u16::try_from(chunks.len()).expect(FITS);
        let sealed = (1..).zip(chunks).map(|(number, chunk)| {
            let first = if number == 1 {
                first
            } else {
                PayloadType::NONE
            };
            let fragment = FragmentHeader { number, total };
            self.seal_one(header, first, Some(fragment), chunk)
        });
        Outgoing::new(sealed.collect())
    }

    /// The most that protection adds to the text.
    fn overhead(&self) -> usize {
        self.outbound.iv_len() + self.outbound.block_len() + self.outbound.icv_len()
    }

    fn seal_one(
        &mut self,
        mut header: Header,
        first: PayloadType,
        fragment: Option<FragmentHeader>,
        text: &[u8],
    ) -> Vec<u8> {
        let (iv, icv) = (self.outbound.iv_len(), self.outbound.icv_len());
        let padded = (text.len() + 1).next_multiple_of(self.outbound.block_len());
        let padding = padded - text.len() - 1;
        let fragment = fragment.map(|fragment| fragment.encode());
        let fragment = fragment.as_ref().map_or(&[][..], |fragment| &fragment[..]);
        let payload_len = GENERIC_HEADER + fragment.len() + iv + padded + icv;

        header.next_payload = if fragment.is_empty() {
            PayloadType::SK
        } else {
            PayloadType::SKF
        };
        header.length = u32::try_from(Header::LEN + payload_len).expect(FITS);
        let mut message = Vec::with_capacity(Header::LEN + payload_len);
        message.extend_from_slice(&header.encode());
        message.extend_from_slice(&[first.0, 0]);
        message.extend_from_slice(&u16::try_from(payload_len).expect(FITS).to_be_bytes());
        message.extend_from_slice(fragment);
        let covered = message.len();

        message.resize(message.len() + iv, 0);
        message.extend_from_slice(text);
        message.resize(message.len() + padding, 0);
        message.push(u8::try_from(padding).expect("padding is shorter than a block"));
        message.resize(message.len() + icv, 0);
        let (header, body) = message.split_at_mut(covered);
        let nonce = self.nonce;
        self.nonce += 1;
        let associated = Associated {
            header,
            esn_high: None,
        };
        self.outbound
            .seal(nonce, associated, body)
            .expect("the buffer holds IV, whole blocks and ICV");
        message
    }

    /// Checks and decrypts a message. `None`: it was discarded, which is counted, or it is a fragment
    /// and others are missing.
    pub(in crate::ike) fn open(
        &mut self,
        datagram: &Datagram<'_>,
        cx: &mut Context,
    ) -> Option<Opened> {
        match self.check(datagram, cx.now) {
            Ok(opened) => {
                cx.log_keys(self.log.take());
                opened
            }
            Err(discard) => {
                cx.discard(discard);
                None
            }
        }
    }

    fn check(&mut self, datagram: &Datagram<'_>, now: Instant) -> Result<Option<Opened>, Discard> {
        let payload = find_encrypted(datagram)?;
        if payload.kind == PayloadType::SK {
            let text = self.decrypt(datagram, payload.body)?;
            return Ok(Some(Opened {
                first: payload.next,
                text,
                fragment: None,
            }));
        }
        if !self.fragment_rules.is_negotiated() {
            return Err(Discard::NotProtected);
        }
        let (fragment, body) =
            FragmentHeader::parse(payload.body).map_err(|_| Discard::Malformed)?;
        self.reassembly.check(datagram, fragment, now)?;
        let text = self.decrypt(datagram, body)?;
        let piece = (payload.next, text);
        let complete = self.reassembly.add(datagram, fragment, piece, now)?;
        Ok(complete.map(|message| Opened {
            first: message.first,
            text: message.text,
            fragment: Some(message.datagram),
        }))
    }

    /// Whether this is fragment 1 of a message that the peer has sealed; nothing is kept of it.
    pub(super) fn is_first_fragment(&self, datagram: &Datagram<'_>) -> bool {
        let Ok(payload) = find_encrypted(datagram) else {
            return false;
        };
        let fragment = FragmentHeader::parse(payload.body);
        payload.kind == PayloadType::SKF
            && self.fragment_rules.is_negotiated()
            && fragment.is_ok_and(|(fragment, body)| {
                fragment.number == 1 && self.decrypt(datagram, body).is_ok()
            })
    }

    /// Opens what is at the end of a datagram. What stands before it is covered by the check but, as
    /// far as it is payloads, not used (RFC 5282 §5.1).
    fn decrypt(&self, datagram: &Datagram<'_>, body: &[u8]) -> Result<Zeroizing<Vec<u8>>, Discard> {
        let covered = datagram.bytes.len() - body.len();
        let header = datagram.bytes.get(..covered).ok_or(Discard::Malformed)?;
        if body.len() < self.inbound.iv_len() + 1 + self.inbound.icv_len() {
            return Err(Discard::NotProtected);
        }
        let mut body = Zeroizing::new(body.to_vec());
        let associated = Associated {
            header,
            esn_high: None,
        };
        let text = self
            .inbound
            .open(associated, &mut body)
            .map_err(|_| Discard::IntegrityFailed)?;
        let (padding, padded) = text.split_last().ok_or(Discard::NotProtected)?;
        let len = padded.len().checked_sub(usize::from(*padding));
        let iv = self.inbound.iv_len();
        body.truncate(iv + len.ok_or(Discard::Malformed)?);
        body.drain(..iv);
        Ok(body)
    }
}

impl Opened {
    /// The datagram that stands for the message it was taken from: its fragment 1, or `datagram`.
    pub(in crate::ike) fn stand_in<'a>(&'a self, datagram: &Datagram<'a>) -> Datagram<'a> {
        Datagram {
            bytes: self.fragment.as_deref().unwrap_or(datagram.bytes),
            ..*datagram
        }
    }

    /// What was inside: the type of the first payload, and all payloads.
    pub(super) fn inner(&self) -> (PayloadType, &[u8]) {
        (self.first, &self.text)
    }

    pub(in crate::ike) fn payloads(&self) -> Result<Payloads<'_>, ExchangeError> {
        Payloads::parse(self.first, &self.text)
    }
}

/// The payload that holds all others.
fn find_encrypted<'a>(datagram: &Datagram<'a>) -> Result<RawPayload<'a>, Discard> {
    let chain = PayloadChain::new(datagram.header.next_payload, datagram.payloads);
    for payload in chain {
        let payload = payload.map_err(|_| Discard::Malformed)?;
        if matches!(payload.kind, PayloadType::SK | PayloadType::SKF) {
            return Ok(payload);
        }
    }
    Err(Discard::NotProtected)
}

const GENERIC_HEADER: usize = 4;
const FRAGMENT_HEADER: usize = 4;
const FITS: &str = "our own messages are far below 64 KiB";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::kdf::skeyseed;
    use crate::ike::negotiate::ike_suite;
    use crate::wire::isakmp::{ExchangeType, Flags, IkeSpi};
    use crate::wire::keyword::parse_proposal;
    use crate::wire::proposal::ProtocolId;

    fn pair(text: &str) -> (SaKeys, SaKeys) {
        let proposal = parse_proposal(ProtocolId::Ike, text).expect("a proposal");
        let suite = ike_suite(&proposal).expect("a suite");
        let prf = Prf::new(suite.prf).expect("a PRF");
        let keys = || {
            let seed = skeyseed(prf, (&[1; 32], &[2; 32]), &Secret::from(vec![3; 32]));
            IkeKeys::derive(&suite, &seed, &[1; 32], &[2; 32], [4; 8], [5; 8])
        };
        (
            SaKeys::new(suite, keys(), true, FragmentRules::default(), None).0,
            SaKeys::new(suite, keys(), false, FragmentRules::default(), None).0,
        )
    }

    fn header() -> Header {
        Header {
            initiator_spi: IkeSpi([4; 8]),
            responder_spi: IkeSpi([5; 8]),
            next_payload: PayloadType::NONE,
            version: Header::VERSION_2_0,
            exchange: ExchangeType::INFORMATIONAL,
            flags: Flags::new(true, false),
            message_id: 2,
            length: 0,
        }
    }

    fn path() -> Path {
        let addr = "192.0.2.1:500".parse().expect("an address");
        Path {
            local: addr,
            remote: addr,
        }
    }

    fn open(keys: &mut SaKeys, bytes: &[u8]) -> Result<Opened, Discard> {
        let (header, payloads) = Header::parse(bytes).map_err(|_| Discard::Malformed)?;
        let datagram = Datagram {
            path: path(),
            header,
            bytes,
            payloads,
        };
        let opened = keys.check(&datagram, Instant::now())?;
        Ok(opened.expect("it is not a fragment"))
    }

    fn seal(keys: &mut SaKeys, payloads: PayloadWriter) -> Vec<u8> {
        let sealed = keys.seal(header(), payloads, path());
        let [datagram] = sealed.datagrams() else {
            panic!("{} datagrams", sealed.datagrams().len());
        };
        datagram.clone()
    }

    #[test]
    fn every_suite_opens_what_the_other_side_sealed_and_nothing_else() {
        for text in [
            "aes256gcm16-prfsha384-x25519",
            "chacha20poly1305-prfsha256-x25519",
            "aes128-sha1-modp2048",
            "aes256-sha512-ecp256",
        ] {
            let (mut initiator, mut responder) = pair(text);
            for len in [0, 1, 14, 15, 16, 17, 100] {
                let mut payloads = PayloadWriter::new();
                if len > 0 {
                    payloads.add(PayloadType::VENDOR_ID, &vec![7; len]);
                }
                let sealed = seal(&mut initiator, payloads);
                assert!(open(&mut responder, &sealed).is_ok(), "{text} {len}");
                assert_eq!(
                    open(&mut initiator, &sealed).err(),
                    Some(Discard::IntegrityFailed),
                    "a reflected message must not open"
                );
            }
            let mut payloads = PayloadWriter::new();
            payloads.add(PayloadType::VENDOR_ID, &[7; 9]);
            let sealed = seal(&mut initiator, payloads);
            for place in 0..sealed.len() {
                let mut damaged = sealed.clone();
                damaged[place] ^= 1;
                assert!(
                    open(&mut responder, &damaged).is_err(),
                    "{text} byte {place}"
                );
            }
        }
    }
}
