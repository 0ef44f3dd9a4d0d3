//! An IKEv2 peer made by hand: it holds real keys, and says what a test wants it to say.

#[path = "actor/resume.rs"]
mod resume;

use lockgate::crypto::kdf::{IkeKeys, psk_auth, skeyseed};
use lockgate::crypto::kex::KeyExchange;
use lockgate::crypto::prf::Prf;
use lockgate::crypto::{Associated, PacketKey, Secret};
use lockgate::ike::{Identity, Path};
use lockgate::wire::ikev2::{
    AuthMethod, AuthPayload, KePayload, Notify, NotifyType, PayloadWriter, message_bytes,
};
use lockgate::wire::isakmp::{ExchangeType, Flags, Header, IkeSpi, PayloadChain, PayloadType};
use lockgate::wire::proposal::{
    AdditionalExchanges, CipherSuite, EncryptionId, IkeSuite, KeyExchangeId, PrfId, ProtocolId,
    SaProposal,
};
use lockgate::wire::selector::TrafficSelector;
use rand_core::Rng;

use super::config::{Side, esp_proposals, ike_proposals};
use super::network::Fate;
use super::pair::Pair;
use super::random::Random;

/// Payloads by kind, in order.
pub(crate) type Payloads = Vec<(PayloadType, Vec<u8>)>;

/// What was said in IKE_SA_INIT.
pub(crate) struct Init {
    pub(crate) request: Vec<u8>,
    pub(crate) response: Vec<u8>,
    pub(crate) ni: Vec<u8>,
    pub(crate) nr: Vec<u8>,
    pub(crate) answer: Payloads,
}

/// Stands in for gateway A, whose address and identity it uses, and speaks to gateway B.
pub(crate) struct Actor {
    random: Random,
    spis: (IkeSpi, IkeSpi),
    outbound: PacketKey,
    inbound: PacketKey,
    sealed: u64,
    pub(crate) init: Init,
    pub(crate) keys: IkeKeys,
    /// Message ID of the next request.
    pub(crate) next_id: u32,
    proof: Vec<u8>,
    /// The SPI under which B is to send.
    pub(crate) child_spi: u32,
    /// How much of the network's trace was looked at.
    seen: usize,
}

/// A message from B, decrypted.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) header: Header,
    pub(crate) payloads: Payloads,
}

impl Opened {
    pub(crate) fn body(&self, kind: PayloadType) -> Option<&[u8]> {
        let mut all = self.payloads.iter();
        all.find(|(known, _)| *known == kind)
            .map(|(_, body)| body.as_slice())
    }

    pub(crate) fn notifies(&self) -> Vec<NotifyType> {
        let notifies = self
            .payloads
            .iter()
            .filter(|(kind, _)| *kind == PayloadType::NOTIFY);
        notifies
            .map(|(_, body)| Notify::parse(body).unwrap().kind)
            .collect()
    }

    /// The first notification that is an error.
    pub(crate) fn error(&self) -> Option<NotifyType> {
        self.notifies().into_iter().find(|kind| kind.is_error())
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
        let (mut random, _) = Random::new(9_000 + seed);
        let mut spi = [0; 8];
        random.fill_bytes(&mut spi);
        let exchange = KeyExchange::generate(KeyExchangeId::X25519, &mut random).unwrap();
        let mut ni = vec![0; 32];
        random.fill_bytes(&mut ni);
        let mut payloads = vec![
            (PayloadType::SA, sa(&ike_proposals(&[offer]))),
            (PayloadType::KE, ke(&exchange)),
            (PayloadType::NONCE, ni.clone()),
            notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED, &[]),
        ];
        payloads.extend(notifies.iter().map(|kind| {
            let hashes: &[u8] = match *kind {
                NotifyType::SIGNATURE_HASH_ALGORITHMS => &[0, 2, 0, 3, 0, 4, 0, 5],
                _ => &[],
            };
            notify(*kind, hashes)
        }));
        let request = init_request(IkeSpi(spi), payloads);
        let before = pair.net.sent();
        pair.inject(Side::B, &request);
        let response = pair.net.trace[before].transmit.bytes.clone();
        let (header, rest) = Header::parse(&response).unwrap();
        let answer = split(header.next_payload, rest);
        let body = |kind| {
            let mut all = answer.iter();
            all.find(|(known, _)| *known == kind)
                .map(|(_, body)| body.clone())
                .unwrap()
        };
        let nr = body(PayloadType::NONCE);
        let peer = body(PayloadType::KE);
        let shared = exchange
            .finish(KePayload::parse(&peer).unwrap().data)
            .unwrap();

        let prf = Prf::new(SUITE.prf).unwrap();
        let seed = skeyseed(prf, (&ni, &nr), &shared);
        let (one, two) = (header.initiator_spi, header.responder_spi);
        let keys = IkeKeys::derive(&SUITE, &seed, &ni, &nr, one.0, two.0);
        let id = prf.mac(keys.sk_pi.as_bytes(), &[&identity(Side::A)]);
        let secret = Secret::from(pair.setup(Side::A).secret.as_bytes().to_vec());
        let proof = psk_auth(prf, &secret, &[&request, &nr, id.as_bytes()]);
        Self {
            random,
            spis: (one, two),
            outbound: packet_key(&keys.sk_ei),
            inbound: packet_key(&keys.sk_er),
            sealed: 0,
            init: Init {
                request,
                response,
                ni,
                nr,
                answer,
            },
            keys,
            next_id: 1,
            proof: proof.as_bytes().to_vec(),
            child_spi: 0x1000_0001,
            seen: pair.net.sent(),
        }
    }

    /// From now on, messages are protected with other keys.
    pub(crate) fn use_keys(&mut self, keys: IkeKeys) {
        (self.outbound, self.inbound) = (packet_key(&keys.sk_ei), packet_key(&keys.sk_er));
        self.keys = keys;
    }

    pub(crate) fn spis(&self) -> [[u8; 8]; 2] {
        [self.spis.0.0, self.spis.1.0]
    }

    pub(crate) fn key_exchange(&mut self, method: KeyExchangeId) -> KeyExchange {
        KeyExchange::generate(method, &mut self.random).unwrap()
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
                self.child_sa("aes256gcm16-esn-noesn", self.child_spi),
            ),
        ];
        payloads.extend(selectors(Side::A.network(), Side::B.network()));
        payloads
    }

    /// The proof of the identity of A.
    pub(crate) fn proof(&self) -> &[u8] {
        &self.proof
    }

    /// What a signature proves for an identity: the body of IDi.
    pub(crate) fn octets(&self, id: &[u8]) -> Vec<u8> {
        let prf = Prf::new(SUITE.prf).unwrap();
        let id = prf.mac(self.keys.sk_pi.as_bytes(), &[id]);
        [&self.init.request, &self.init.nr, id.as_bytes()].concat()
    }

    /// What a correct request for a new child holds.
    pub(crate) fn create_child(&mut self, local: &str, remote: &str) -> Payloads {
        self.child_spi += 1;
        let exchange = KeyExchange::generate(KeyExchangeId::X25519, &mut self.random).unwrap();
        let proposal = "aes256gcm16-x25519-esn-noesn";
        let mut payloads = vec![
            (PayloadType::SA, self.child_sa(proposal, self.child_spi)),
            (PayloadType::NONCE, self.nonce()),
            (PayloadType::KE, ke(&exchange)),
        ];
        payloads.extend(selectors(local, remote));
        payloads
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
        let exchange = KeyExchange::generate(KeyExchangeId::X25519, &mut self.random);
        vec![
            (PayloadType::SA, sa(&proposals)),
            (PayloadType::NONCE, self.nonce()),
            (PayloadType::KE, ke(&exchange.unwrap())),
        ]
    }

    pub(crate) fn nonce(&mut self) -> Vec<u8> {
        let mut nonce = vec![0; 32];
        self.random.fill_bytes(&mut nonce);
        nonce
    }

    fn child_sa(&self, text: &str, spi: u32) -> Vec<u8> {
        let mut proposals = esp_proposals(&[text]);
        proposals[0].spi = spi.to_be_bytes().to_vec();
        sa(&proposals)
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
            let ours = sent.header.initiator_spi == self.spis.0;
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

    pub(crate) fn seal(
        &mut self,
        exchange: ExchangeType,
        response: bool,
        message_id: u32,
        first: PayloadType,
        text: &[u8],
    ) -> Vec<u8> {
        let header = Header {
            initiator_spi: self.spis.0,
            responder_spi: self.spis.1,
            next_payload: PayloadType::SK,
            version: Header::VERSION_2_0,
            exchange,
            flags: Flags::new(true, response),
            message_id,
            length: 0,
        };
        let mut body = vec![0; 8];
        body.extend_from_slice(text);
        body.push(0); // the length of no padding
        body.extend_from_slice(&[0; 16]);
        let mut message = message_bytes(header, (PayloadType::SK, Vec::new()));
        message.extend_from_slice(&[first.0, 0]);
        let length = u16::try_from(body.len() + 4).unwrap();
        message.extend_from_slice(&length.to_be_bytes());
        let total = u32::try_from(message.len() + body.len()).unwrap();
        message[24..28].copy_from_slice(&total.to_be_bytes());
        let associated = Associated {
            header: &message,
            esn_high: None,
        };
        self.sealed += 1;
        self.outbound
            .seal(self.sealed, associated, &mut body)
            .unwrap();
        message.extend_from_slice(&body);
        message
    }

    /// One fragment of a request, whatever its numbers say.
    pub(crate) fn fragment(
        &mut self,
        exchange: ExchangeType,
        message_id: u32,
        first: PayloadType,
        (number, total): (u16, u16),
        text: &[u8],
    ) -> Vec<u8> {
        let mut message = self.seal(exchange, false, message_id, first, text);
        let length = u16::from_be_bytes([message[30], message[31]]) + 4;
        message[30..32].copy_from_slice(&length.to_be_bytes());
        message[16] = PayloadType::SKF.0;
        message.splice(32..32, [number.to_be_bytes(), total.to_be_bytes()].concat());
        let whole = u32::try_from(message.len()).unwrap();
        message[24..28].copy_from_slice(&whole.to_be_bytes());
        let mut body = vec![0; 8];
        body.extend_from_slice(text);
        body.push(0);
        body.extend_from_slice(&[0; 16]);
        let associated = Associated {
            header: &message[..36],
            esn_high: None,
        };
        self.sealed += 1;
        self.outbound
            .seal(self.sealed, associated, &mut body)
            .unwrap();
        message[36..].copy_from_slice(&body);
        message
    }

    fn open(&self, bytes: &[u8]) -> Opened {
        let (header, _) = Header::parse(bytes).unwrap();
        let mut body = bytes[32..].to_vec();
        let associated = Associated {
            header: &bytes[..32],
            esn_high: None,
        };
        let text = self.inbound.open(associated, &mut body).unwrap();
        let (padding, padded) = text.split_last().unwrap();
        let text = &padded[..padded.len() - usize::from(*padding)];
        Opened {
            header,
            payloads: split(PayloadType(bytes[28]), text),
        }
    }
}

fn packet_key(secret: &Secret) -> PacketKey {
    PacketKey::new(SUITE.cipher, secret.as_bytes(), &[]).unwrap()
}

/// An IKE_SA_INIT request in clear.
pub(crate) fn init_request(spi: IkeSpi, payloads: Payloads) -> Vec<u8> {
    first_request(ExchangeType::IKE_SA_INIT, spi, payloads)
}

/// A request in clear that opens an IKE SA.
pub(crate) fn first_request(exchange: ExchangeType, spi: IkeSpi, payloads: Payloads) -> Vec<u8> {
    let header = Header {
        initiator_spi: spi,
        responder_spi: IkeSpi::ZERO,
        next_payload: PayloadType::NONE,
        version: Header::VERSION_2_0,
        exchange,
        flags: Flags::new(true, false),
        message_id: 0,
        length: 0,
    };
    message_bytes(header, join(&payloads))
}

/// Payloads as the bytes of a chain.
pub(crate) fn join(payloads: &Payloads) -> (PayloadType, Vec<u8>) {
    let mut writer = PayloadWriter::new();
    for (kind, body) in payloads {
        writer.add(*kind, body);
    }
    writer.finish()
}

/// The payloads of a chain.
pub(crate) fn split(first: PayloadType, bytes: &[u8]) -> Payloads {
    let chain = PayloadChain::new(first, bytes).map(|payload| payload.unwrap());
    chain
        .map(|payload| (payload.kind, payload.body.to_vec()))
        .collect()
}

pub(crate) fn sa(proposals: &[SaProposal]) -> Vec<u8> {
    let mut body = Vec::new();
    SaProposal::encode_list(proposals, &mut body);
    body
}

pub(crate) fn ke(exchange: &KeyExchange) -> Vec<u8> {
    let mut body = Vec::new();
    KePayload {
        group: exchange.group(),
        data: exchange.public(),
    }
    .encode(&mut body);
    body
}

pub(crate) fn proof(method: AuthMethod, data: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    AuthPayload { method, data }.encode(&mut body);
    body
}

pub(crate) fn identity(side: Side) -> Vec<u8> {
    let identity: Identity = side.identity().parse().unwrap();
    identity.to_payload_body()
}

/// TSi and TSr.
pub(crate) fn selectors(initiator: &str, responder: &str) -> Payloads {
    let list = |text: &str| {
        let all: Vec<TrafficSelector> = text.split(' ').map(|ts| ts.parse().unwrap()).collect();
        let mut body = Vec::new();
        TrafficSelector::encode_list(&all, &mut body);
        body
    };
    vec![
        (PayloadType::TS_I, list(initiator)),
        (PayloadType::TS_R, list(responder)),
    ]
}

pub(crate) fn notify(kind: NotifyType, data: &[u8]) -> (PayloadType, Vec<u8>) {
    let mut body = Vec::new();
    Notify::new(kind, data).encode(&mut body);
    (PayloadType::NOTIFY, body)
}

pub(crate) fn rekey_notify(protocol: u8, spi: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    Notify {
        protocol,
        spi,
        kind: NotifyType::REKEY_SA,
        data: &[],
    }
    .encode(&mut body);
    body
}

/// A Delete payload as it is on the wire, whatever it says.
pub(crate) fn delete(
    protocol: u8,
    spi_size: u8,
    count: u16,
    spis: &[u8],
) -> (PayloadType, Vec<u8>) {
    let mut body = vec![protocol, spi_size];
    body.extend_from_slice(&count.to_be_bytes());
    body.extend_from_slice(spis);
    (PayloadType::DELETE, body)
}

pub(crate) fn delete_esp(spi: u32) -> (PayloadType, Vec<u8>) {
    delete(ProtocolId::Esp as u8, 4, 1, &spi.to_be_bytes())
}

pub(crate) const IKE: &str = "aes256gcm16-prfsha384-x25519";
const SUITE: IkeSuite = IkeSuite {
    cipher: CipherSuite {
        encryption: EncryptionId::AES_GCM_16,
        key_bits: 256,
        integrity: None,
    },
    prf: PrfId::HMAC_SHA2_384,
    key_exchange: KeyExchangeId::X25519,
    additional: AdditionalExchanges::NONE,
};
