//! The keys and proofs of a resumed IKE SA, by the formulas of RFC 5723.

use aws_lc_rs::hmac;
use lockgate::crypto::Secret;
use lockgate::wire::ikev2::NotifyType;
use lockgate::wire::isakmp::{ExchangeType, Header, IkeSpi, PayloadType};
use rand_core::Rng;

use super::super::config::Side;
use super::super::pair::Pair;
use super::super::random::Random;
use super::{Actor, Init, Session, first_request, identity, notify, split};

impl Actor {
    /// Goes on from this IKE SA: IKE_SESSION_RESUME has been answered.
    pub(crate) fn resume(&self, pair: &mut Pair, seed: u64, ticket: &[u8]) -> Self {
        let (mut random, _) = Random::new(9_000 + seed);
        let mut spi = [0; 8];
        random.fill_bytes(&mut spi);
        let mut ni = vec![0; 32];
        random.fill_bytes(&mut ni);
        let payloads = vec![
            (PayloadType::NONCE, ni.clone()),
            notify(NotifyType::TICKET_OPAQUE, ticket),
        ];
        let request = first_request(ExchangeType::IKE_SESSION_RESUME, IkeSpi(spi), payloads);
        let before = pair.net.sent();
        pair.inject(Side::B, &request);
        let response = pair.net.trace[before].transmit.bytes.clone();
        let (header, rest) = Header::parse(&response).unwrap();
        assert_eq!(header.exchange, ExchangeType::IKE_SESSION_RESUME);
        let answer = split(header.next_payload, rest);
        let mut nonces = answer
            .iter()
            .filter(|(kind, _)| *kind == PayloadType::NONCE);
        let nr = nonces.next().unwrap().1.clone();
        // RFC 5723 §5.1: SKEYSEED = prf(SK_d (old), "Resumption" | Ni | Nr)
        let key = hmac::Key::new(hmac::HMAC_SHA384, self.keys.sk_d.as_bytes());
        let seed = hmac::sign(&key, &[&b"Resumption"[..], &ni, &nr].concat());
        let seed = Secret::from(seed.as_ref().to_vec());
        let init = Init {
            request,
            response,
            ni,
            nr,
            answer,
        };
        let mut actor = Self {
            session: Session::new(random, init, &seed),
            proof: Vec::new(),
            child_spi: self.child_spi + 0x100,
            seen: pair.net.sent(),
        };
        // RFC 5723 §4.3.3: AUTH = prf(SK_pi, message octets)
        let octets = actor.octets(&identity(Side::A));
        let key = hmac::Key::new(hmac::HMAC_SHA384, actor.keys.sk_pi.as_bytes());
        actor.proof = hmac::sign(&key, &octets).as_ref().to_vec();
        actor
    }

    /// What B proves itself with.
    pub(crate) fn proof_of_b(&self) -> Vec<u8> {
        let sk_pr = hmac::Key::new(hmac::HMAC_SHA384, self.keys.sk_pr.as_bytes());
        let id = hmac::sign(&sk_pr, &identity(Side::B));
        let octets = [&self.init.response, &self.init.ni, id.as_ref()].concat();
        hmac::sign(&sk_pr, &octets).as_ref().to_vec()
    }
}
