//! Additional key exchanges of a peer that owns its keys: IKE_INTERMEDIATE (RFC 9242, RFC 9370 §2.2.2) before it
//! authenticates, and the proof of its identity that covers them.

use lockgate::crypto::Secret;
use lockgate::crypto::kdf::{IkeKeys, psk_auth, skeyseed_rekey};
use lockgate::crypto::kex::KeyExchange;
use lockgate::crypto::prf::Prf;
use lockgate::wire::ikev2::KePayload;
use lockgate::wire::isakmp::{Header, IkeSpi, PayloadType};

use super::SUITE;
use super::payloads::{body, split};

/// What the set-up of an IKE SA leaves for IKE_AUTH.
pub(super) struct SetUp {
    pub(super) request: Vec<u8>,
    pub(super) nonces: [Vec<u8>; 2],
    /// An additional key exchange was asked for and has not been done.
    pub(super) is_open: bool,
    /// The key exchange, and the request as IntAuth covers it.
    pending: Option<(KeyExchange, Vec<u8>)>,
    int_auth: [Vec<u8>; 2],
}

impl SetUp {
    pub(super) fn new(request: Vec<u8>, nonces: [Vec<u8>; 2], is_open: bool) -> Self {
        Self {
            request,
            nonces,
            is_open,
            pending: None,
            int_auth: [Vec::new(), Vec::new()],
        }
    }

    /// AUTH data of a request with this message ID.
    pub(super) fn proof(&self, keys: &IkeKeys, secret: &[u8], identity: &[u8], id: u32) -> Vec<u8> {
        let prf = Prf::new(SUITE.prf).expect("a known PRF");
        let identity = prf.mac(keys.sk_pi.as_bytes(), &[identity]);
        let mut covered = self.int_auth.concat();
        if !covered.is_empty() {
            covered.extend_from_slice(&id.to_be_bytes());
        }
        let octets = [
            &self.request,
            &self.nonces[1],
            identity.as_bytes(),
            &covered,
        ];
        let proof = psk_auth(prf, &Secret::from(secret.to_vec()), &octets);
        proof.as_bytes().to_vec()
    }

    pub(super) fn ask(
        &mut self,
        exchange: KeyExchange,
        header: Header,
        first: PayloadType,
        text: &[u8],
    ) {
        self.pending = Some((exchange, covered(&header.encode(), first, text)));
    }

    /// The keys after the answer, which `keys` protected.
    pub(super) fn finish(
        &mut self,
        keys: &IkeKeys,
        spis: (IkeSpi, IkeSpi),
        header: Header,
        (first, text): (PayloadType, &[u8]),
    ) -> Option<IkeKeys> {
        let (exchange, request) = self.pending.take()?;
        let answer = split(first, text);
        let public = KePayload::parse(body(&answer, PayloadType::KE)?).ok()?;
        let shared = exchange.finish(public.data).ok()?;
        let prf = Prf::new(SUITE.prf).expect("a known PRF");
        let [ni, nr] = &self.nonces;
        let seed = skeyseed_rekey(prf, &keys.sk_d, &[shared], ni, nr);
        let answer = covered(&header.encode(), first, text);
        let messages = [(&keys.sk_pi, request), (&keys.sk_pr, answer)];
        for (value, (key, message)) in self.int_auth.iter_mut().zip(messages) {
            let next = prf.mac(key.as_bytes(), &[value, &message]);
            *value = next.as_bytes().to_vec();
        }
        self.is_open = false;
        Some(IkeKeys::derive(&SUITE, &seed, ni, nr, spis.0.0, spis.1.0))
    }
}

/// A message of which SK is the only payload, as IntAuth covers it (RFC 9242 §3.3.2).
fn covered(header: &[u8], first: PayloadType, text: &[u8]) -> Vec<u8> {
    let len = (4 + text.len()) as u16;
    let mut message = [header, &[first.0, 0], &len.to_be_bytes(), text].concat();
    message[16] = PayloadType::SK.0;
    let total = message.len() as u32;
    message[24..28].copy_from_slice(&total.to_be_bytes());
    message
}
