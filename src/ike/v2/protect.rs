//! The SK payload (RFC 7296 §3.14, RFC 5282).

use zeroize::Zeroizing;

use crate::crypto::kdf::IkeKeys;
use crate::crypto::prf::Prf;
use crate::crypto::{Associated, PacketKey, Secret};
use crate::ike::Discard;
use crate::wire::ikev2::PayloadWriter;
use crate::wire::isakmp::{Header, PayloadChain, PayloadType, RawPayload};
use crate::wire::proposal::IkeSuite;

use super::error::ExchangeError;
use super::message::{Datagram, Payloads};

/// The keys of an IKE SA that outlive its authentication.
#[derive(Debug)]
pub(in crate::ike) struct SaKeys {
    pub(in crate::ike) suite: IkeSuite,
    pub(in crate::ike) prf: Prf,
    pub(in crate::ike) sk_d: Secret,
    outbound: PacketKey,
    inbound: PacketKey,
    /// Never used twice under one key.
    nonce: u64,
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
}

impl SaKeys {
    /// Sorts the keys of an SA for one of its two sides.
    pub(in crate::ike) fn new(suite: IkeSuite, keys: IkeKeys, initiator: bool) -> (Self, AuthKeys) {
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
        };
        let auth = AuthKeys {
            initiator: keys.sk_pi,
            responder: keys.sk_pr,
        };
        (sa, auth)
    }

    /// A whole message whose payloads are inside an SK payload.
    pub(in crate::ike) fn seal(&mut self, mut header: Header, payloads: PayloadWriter) -> Vec<u8> {
        let (first, text) = payloads.finish();
        let (iv, icv) = (self.outbound.iv_len(), self.outbound.icv_len());
        let padded = (text.len() + 1).next_multiple_of(self.outbound.block_len());
        let padding = padded - text.len() - 1;
        let payload_len = GENERIC_HEADER + iv + padded + icv;

        header.next_payload = PayloadType::SK;
        header.length = u32::try_from(Header::LEN + payload_len).expect(FITS);
        let mut message = Vec::with_capacity(Header::LEN + payload_len);
        message.extend_from_slice(&header.encode());
        message.extend_from_slice(&[first.0, 0]);
        message.extend_from_slice(&u16::try_from(payload_len).expect(FITS).to_be_bytes());
        let associated = message.clone();

        message.resize(message.len() + iv, 0);
        message.extend_from_slice(&text);
        message.resize(message.len() + padding, 0);
        message.push(u8::try_from(padding).expect("padding is shorter than a block"));
        message.resize(message.len() + icv, 0);
        let body = message
            .get_mut(associated.len()..)
            .expect("the body follows");
        let nonce = self.nonce;
        self.nonce += 1;
        let associated = Associated {
            header: &associated,
            esn_high: None,
        };
        self.outbound
            .seal(nonce, associated, body)
            .expect("the buffer holds IV, whole blocks and ICV");
        message
    }

    /// Checks and decrypts a message. What stands before the SK payload is covered by the check but
    /// not used (RFC 5282 §5.1).
    pub(in crate::ike) fn open(&self, datagram: &Datagram<'_>) -> Result<Opened, Discard> {
        let sk = find_sk(datagram)?;
        let covered = datagram.bytes.len() - sk.body.len();
        let header = datagram.bytes.get(..covered).ok_or(Discard::Malformed)?;
        if sk.body.len() < self.inbound.iv_len() + 1 + self.inbound.icv_len() {
            return Err(Discard::NotProtected);
        }
        let mut body = Zeroizing::new(sk.body.to_vec());
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
        let text = len.and_then(|len| padded.get(..len));
        Ok(Opened {
            first: sk.next,
            text: Zeroizing::new(text.ok_or(Discard::Malformed)?.to_vec()),
        })
    }
}

impl Opened {
    pub(in crate::ike) fn payloads(&self) -> Result<Payloads<'_>, ExchangeError> {
        Payloads::parse(self.first, &self.text)
    }
}

fn find_sk<'a>(datagram: &Datagram<'a>) -> Result<RawPayload<'a>, Discard> {
    let chain = PayloadChain::new(datagram.header.next_payload, datagram.payloads);
    for payload in chain {
        let payload = payload.map_err(|_| Discard::Malformed)?;
        if payload.kind == PayloadType::SK {
            return Ok(payload);
        }
    }
    Err(Discard::NotProtected)
}

const GENERIC_HEADER: usize = 4;
const FITS: &str = "our own messages are far below 64 KiB";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::kdf::skeyseed;
    use crate::ike::Path;
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
            SaKeys::new(suite, keys(), true).0,
            SaKeys::new(suite, keys(), false).0,
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

    fn open(keys: &SaKeys, bytes: &[u8]) -> Result<Opened, Discard> {
        let (header, payloads) = Header::parse(bytes).map_err(|_| Discard::Malformed)?;
        let addr = "192.0.2.1:500".parse().expect("an address");
        keys.open(&Datagram {
            path: Path {
                local: addr,
                remote: addr,
            },
            header,
            bytes,
            payloads,
        })
    }

    #[test]
    fn every_suite_opens_what_the_other_side_sealed_and_nothing_else() {
        for text in [
            "aes256gcm16-prfsha384-x25519",
            "chacha20poly1305-prfsha256-x25519",
            "aes128-sha1-modp2048",
            "aes256-sha512-ecp256",
        ] {
            let (mut initiator, responder) = pair(text);
            for len in [0, 1, 14, 15, 16, 17, 100] {
                let mut payloads = PayloadWriter::new();
                if len > 0 {
                    payloads.add(PayloadType::VENDOR_ID, &vec![7; len]);
                }
                let sealed = initiator.seal(header(), payloads);
                assert!(open(&responder, &sealed).is_ok(), "{text} {len}");
                assert_eq!(
                    open(&initiator, &sealed).err(),
                    Some(Discard::IntegrityFailed),
                    "a reflected message must not open"
                );
            }
            let mut payloads = PayloadWriter::new();
            payloads.add(PayloadType::VENDOR_ID, &[7; 9]);
            let sealed = initiator.seal(header(), payloads);
            for place in 0..sealed.len() {
                let mut damaged = sealed.clone();
                damaged[place] ^= 1;
                assert!(open(&responder, &damaged).is_err(), "{text} byte {place}");
            }
        }
    }
}
