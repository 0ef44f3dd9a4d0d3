//! An IKEv2 peer made by hand: it holds real keys, and says what a test wants it to say.

#[path = "actor/resume.rs"]
mod resume;

use std::ops::{Deref, DerefMut};

use lockgate::crypto::Secret;
use lockgate::ike::{Identity, Path};
use lockgate::wire::ikev2::{AuthMethod, NotifyType};
use lockgate::wire::isakmp::{ExchangeType, Header, PayloadType};
use lockgate::wire::proposal::KeyExchangeId;

use super::config::{Side, ike_proposals};
use super::network::Fate;
use super::pair::Pair;
use super::session::child_sa;
pub(crate) use super::session::{
    IKE, Init, Opened, Opening, Payloads, Session, delete, delete_esp, first_request, init_request,
    join, ke, notify, proof, rekey_notify, sa, selectors, split,
};

/// Stands in for gateway A, whose address and identity it uses, and speaks to gateway B.
pub(crate) struct Actor {
    session: Session,
    proof: Vec<u8>,
    /// The SPI under which B is to send.
    pub(crate) child_spi: u32,
    /// How much of the network's trace was looked at.
    seen: usize,
}

impl Deref for Actor {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl DerefMut for Actor {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.session
    }
}

impl Actor {
    /// IKE_SA_INIT has been answered.
    pub(crate) fn half_open(pair: &mut Pair, seed: u64) -> Self {
        Self::half_open_with(pair, seed, IKE, &[])
    }

    /// The same with another offer, and notifications besides. The first key exchange is X25519, cipher
    /// and PRF are those of [`SUITE`].
    pub(crate) fn half_open_with(
        pair: &mut Pair,
        seed: u64,
        offer: &str,
        notifies: &[NotifyType],
    ) -> Self {
        pair.net.decide(|_| Fate::Drop); // the real gateway A is not to hear the answers
        let opening = Opening::new(9_000 + seed, offer, notifies);
        let before = pair.net.sent();
        pair.inject(Side::B, &opening.request);
        let session = opening.answered(&pair.net.trace[before].transmit.bytes);
        let secret = Secret::from(pair.setup(Side::A).secret.as_bytes().to_vec());
        let proof = session.secret_proof(&secret, &identity(Side::A));
        Self {
            session,
            proof,
            child_spi: 0x1000_0001,
            seen: pair.net.sent(),
        }
    }

    /// The IKE SA is up, with a child.
    pub(crate) fn connect(pair: &mut Pair, seed: u64) -> Self {
        let mut actor = Self::half_open(pair, seed);
        let answer = actor.request(pair, ExchangeType::IKE_AUTH, &actor.auth());
        assert_eq!(answer.unwrap().error(), None);
        assert_eq!(pair.children(Side::B).len(), 1);
        actor
    }

    /// What a correct IKE_AUTH request holds.
    pub(crate) fn auth(&self) -> Payloads {
        let mut payloads = vec![
            (PayloadType::ID_I, identity(Side::A)),
            (PayloadType::ID_R, identity(Side::B)),
            (
                PayloadType::AUTH,
                proof(AuthMethod::SHARED_KEY_MIC, &self.proof),
            ),
            (
                PayloadType::SA,
                child_sa("aes256gcm16-esn-noesn", self.child_spi),
            ),
        ];
        payloads.extend(selectors(Side::A.network(), Side::B.network()));
        payloads
    }

    /// The proof of the identity of A.
    pub(crate) fn proof(&self) -> &[u8] {
        &self.proof
    }

    /// What a correct request for a new child holds.
    pub(crate) fn create_child(&mut self, local: &str, remote: &str) -> Payloads {
        self.child_spi += 1;
        let spi = self.child_spi;
        self.child_request(spi, local, remote)
    }

    /// What a correct request to replace the child with this SPI of ours holds.
    pub(crate) fn rekey_child(&mut self, old: u32) -> Payloads {
        let mut payloads = vec![(PayloadType::NOTIFY, rekey_notify(3, &old.to_be_bytes()))];
        payloads.extend(self.create_child(Side::A.network(), Side::B.network()));
        payloads
    }

    /// Replaces its child and deletes the old one, to which the peer agrees.
    pub(crate) fn replace_child(&mut self, pair: &mut Pair) {
        let old = self.child_spi;
        let payloads = self.rekey_child(old);
        let answer = self.request(pair, ExchangeType::CREATE_CHILD_SA, &payloads);
        assert_eq!(answer.unwrap().error(), None);
        let payloads = vec![delete_esp(old)];
        let answer = self.request(pair, ExchangeType::INFORMATIONAL, &payloads);
        assert!(answer.unwrap().body(PayloadType::DELETE).is_some());
    }

    /// What a correct request to replace the IKE SA holds.
    pub(crate) fn rekey_ike(&mut self) -> Payloads {
        let mut proposals = ike_proposals(&[IKE]);
        proposals[0].spi = self.nonce()[..8].to_vec();
        let exchange = self.key_exchange(KeyExchangeId::X25519);
        vec![
            (PayloadType::SA, sa(&proposals)),
            (PayloadType::NONCE, self.nonce()),
            (PayloadType::KE, ke(&exchange)),
        ]
    }

    /// Sends a request and takes the answer; `None` if there is none.
    pub(crate) fn request(
        &mut self,
        pair: &mut Pair,
        exchange: ExchangeType,
        payloads: &Payloads,
    ) -> Option<Opened> {
        let (first, text) = join(payloads);
        self.request_raw(pair, exchange, first, &text)
    }

    /// The same from another address, or to one.
    pub(crate) fn request_on(
        &mut self,
        pair: &mut Pair,
        path: Path,
        exchange: ExchangeType,
        payloads: &Payloads,
    ) -> Option<Opened> {
        let id = self.next_id;
        self.next_id += 1;
        let (first, text) = join(payloads);
        let bytes = self.seal(exchange, false, id, first, &text);
        self.seen = pair.net.sent();
        pair.inject_on(Side::B, path, &bytes);
        self.take(pair, |header| {
            header.flags.response() && header.message_id == id
        })
    }

    /// The same with payloads that may be malformed.
    pub(crate) fn request_raw(
        &mut self,
        pair: &mut Pair,
        exchange: ExchangeType,
        first: PayloadType,
        text: &[u8],
    ) -> Option<Opened> {
        let id = self.next_id;
        self.next_id += 1;
        let bytes = self.seal(exchange, false, id, first, text);
        self.send(pair, &bytes);
        self.take(pair, |header| {
            header.flags.response() && header.message_id == id
        })
    }

    pub(crate) fn send(&mut self, pair: &mut Pair, bytes: &[u8]) {
        self.seen = pair.net.sent();
        pair.inject(Side::B, bytes);
    }

    /// The first message from B that was not looked at and passes the test.
    fn take(&mut self, pair: &Pair, test: impl Fn(&Header) -> bool) -> Option<Opened> {
        let place = (self.seen..pair.net.sent()).find(|place| {
            let sent = &pair.net.trace[*place];
            let ours = sent.header.initiator_spi.0 == self.spis()[0];
            sent.from == Side::B && ours && test(&sent.header)
        })?;
        self.seen = place + 1;
        Some(self.open(&pair.net.trace[place].transmit.bytes))
    }

    /// A request of B.
    pub(crate) fn take_request(&mut self, pair: &Pair) -> Option<Opened> {
        self.take(pair, |header| !header.flags.response())
    }

    pub(crate) fn answer(&mut self, pair: &mut Pair, request: &Opened, payloads: &Payloads) {
        let (first, text) = join(payloads);
        let header = &request.header;
        let bytes = self.seal(header.exchange, true, header.message_id, first, &text);
        self.send(pair, &bytes);
    }
}

pub(crate) fn identity(side: Side) -> Vec<u8> {
    let identity: Identity = side.identity().parse().unwrap();
    identity.to_payload_body()
}
