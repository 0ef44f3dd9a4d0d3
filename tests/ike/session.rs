//! The keys of an IKE SA as its initiator holds them, and messages made with them that say whatever one likes.
#![allow(dead_code, reason = "each test program uses its own part")]

use lockgate::crypto::kdf::{IkeKeys, psk_auth, skeyseed};
use lockgate::crypto::kex::KeyExchange;
use lockgate::crypto::prf::Prf;
use lockgate::crypto::{Associated, PacketKey, Secret};
use lockgate::wire::ikev2::{
    AuthMethod, AuthPayload, KePayload, Notify, NotifyType, PayloadWriter, message_bytes,
};
use lockgate::wire::isakmp::{ExchangeType, Flags, Header, IkeSpi, PayloadChain, PayloadType};
use lockgate::wire::keyword::parse_proposal;
use lockgate::wire::proposal::{
    AdditionalExchanges, CipherSuite, EncryptionId, IkeSuite, KeyExchangeId, PrfId, ProtocolId,
    SaProposal,
};
use lockgate::wire::selector::TrafficSelector;
use rand_core::Rng;

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

/// An IKE_SA_INIT request that is not answered.
pub(crate) struct Opening {
    pub(crate) request: Vec<u8>,
    random: Random,
    exchange: KeyExchange,
    ni: Vec<u8>,
}

impl Opening {
    /// The first key exchange of the offer is X25519, cipher and PRF are those of [`SUITE`].
    pub(crate) fn new(seed: u64, offer: &str, notifies: &[NotifyType]) -> Self {
        let (mut random, _) = Random::new(seed);
        let mut spi = [0; 8];
        random.fill_bytes(&mut spi);
        let exchange = KeyExchange::generate(KeyExchangeId::X25519, &mut random).unwrap();
        let mut ni = vec![0; 32];
        random.fill_bytes(&mut ni);
        let offer = parse_proposal(ProtocolId::Ike, offer).unwrap();
        let mut payloads = vec![
            (PayloadType::SA, sa(&[offer])),
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
        Self {
            request: init_request(IkeSpi(spi), payloads),
            random,
            exchange,
            ni,
        }
    }

    pub(crate) fn answered(self, response: &[u8]) -> Session {
        let (random, init, seed) = self.exchanged(response, SUITE.prf);
        Session::new(random, init, &seed)
    }

    /// What was said, and SKEYSEED by this PRF.
    pub(crate) fn exchanged(self, response: &[u8], prf: PrfId) -> (Random, Init, Secret) {
        let (header, rest) = Header::parse(response).unwrap();
        let answer = split(header.next_payload, rest);
        let body = |kind| {
            let mut all = answer.iter();
            all.find(|(known, _)| *known == kind)
                .map(|(_, body)| body.clone())
                .unwrap()
        };
        let nr = body(PayloadType::NONCE);
        let peer = body(PayloadType::KE);
        let peer = KePayload::parse(&peer).unwrap().data;
        let shared = self.exchange.finish(peer).unwrap();
        let prf = Prf::new(prf).unwrap();
        let seed = skeyseed(prf, (&self.ni, &nr), &shared);
        let init = Init {
            request: self.request,
            response: response.to_vec(),
            ni: self.ni,
            nr,
            answer,
        };
        (self.random, init, seed)
    }
}

/// An IKE SA, or one that is half open, of its initiator.
pub(crate) struct Session {
    pub(crate) random: Random,
    spis: (IkeSpi, IkeSpi),
    outbound: PacketKey,
    inbound: PacketKey,
    sealed: u64,
    pub(crate) init: Init,
    pub(crate) keys: IkeKeys,
    /// Message ID of the next request.
    pub(crate) next_id: u32,
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

impl Session {
    /// With the keys from this SKEYSEED.
    pub(crate) fn new(random: Random, init: Init, seed: &Secret) -> Self {
        let (header, _) = Header::parse(&init.response).unwrap();
        let (one, two) = (header.initiator_spi, header.responder_spi);
        let keys = IkeKeys::derive(&SUITE, seed, &init.ni, &init.nr, one.0, two.0);
        Self {
            random,
            spis: (one, two),
            outbound: packet_key(&keys.sk_ei),
            inbound: packet_key(&keys.sk_er),
            sealed: 0,
            init,
            keys,
            next_id: 1,
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

    /// What a signature proves for an identity: the body of IDi.
    pub(crate) fn octets(&self, id: &[u8]) -> Vec<u8> {
        let prf = Prf::new(SUITE.prf).unwrap();
        let id = prf.mac(self.keys.sk_pi.as_bytes(), &[id]);
        [&self.init.request, &self.init.nr, id.as_bytes()].concat()
    }

    /// What a shared secret proves for an identity: the body of IDi.
    pub(crate) fn secret_proof(&self, secret: &Secret, id: &[u8]) -> Vec<u8> {
        let prf = Prf::new(SUITE.prf).unwrap();
        let id = prf.mac(self.keys.sk_pi.as_bytes(), &[id]);
        let octets = [&self.init.request[..], &self.init.nr, id.as_bytes()];
        psk_auth(prf, secret, &octets).as_bytes().to_vec()
    }

    pub(crate) fn nonce(&mut self) -> Vec<u8> {
        let mut nonce = vec![0; 32];
        self.random.fill_bytes(&mut nonce);
        nonce
    }

    /// What a correct request for a new child holds.
    pub(crate) fn child_request(&mut self, spi: u32, local: &str, remote: &str) -> Payloads {
        let exchange = self.key_exchange(KeyExchangeId::X25519);
        let proposal = "aes256gcm16-x25519-esn-noesn";
        let mut payloads = vec![
            (PayloadType::SA, child_sa(proposal, spi)),
            (PayloadType::NONCE, self.nonce()),
            (PayloadType::KE, ke(&exchange)),
        ];
        payloads.extend(selectors(local, remote));
        payloads
    }

    pub(crate) fn seal(
        &mut self,
        exchange: ExchangeType,
        response: bool,
        message_id: u32,
        first: PayloadType,
        text: &[u8],
    ) -> Vec<u8> {
        self.seal_padded(exchange, response, message_id, first, (text, 0))
    }

    /// The header of a message.
    pub(crate) fn header(&self, exchange: ExchangeType, response: bool, message_id: u32) -> Header {
        Header {
            initiator_spi: self.spis.0,
            responder_spi: self.spis.1,
            next_payload: PayloadType::SK,
            version: Header::VERSION_2_0,
            exchange,
            flags: Flags::new(true, response),
            message_id,
            length: 0,
        }
    }

    /// The same where the end of the text is called padding, of this length.
    pub(crate) fn seal_padded(
        &mut self,
        exchange: ExchangeType,
        response: bool,
        message_id: u32,
        first: PayloadType,
        text: (&[u8], u8),
    ) -> Vec<u8> {
        let header = self.header(exchange, response, message_id);
        self.seal_header(header, first, text)
    }

    /// The same under a header that may say anything.
    pub(crate) fn seal_header(
        &mut self,
        header: Header,
        first: PayloadType,
        text: (&[u8], u8),
    ) -> Vec<u8> {
        self.sealed += 1;
        seal_padded(&self.outbound, header, self.sealed, first, text)
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

    pub(crate) fn open(&self, bytes: &[u8]) -> Opened {
        let (header, _) = Header::parse(bytes).unwrap();
        let (first, text) = open_with(&self.inbound, bytes);
        Opened {
            header,
            payloads: split(first, &text),
        }
    }
}

/// A message with an SK payload, by the number'th nonce of a key.
pub(crate) fn seal_with(
    key: &PacketKey,
    header: Header,
    number: u64,
    first: PayloadType,
    text: &[u8],
) -> Vec<u8> {
    seal_padded(key, header, number, first, (text, 0))
}

/// The same where the end of the text is called padding, of this length.
fn seal_padded(
    key: &PacketKey,
    header: Header,
    number: u64,
    first: PayloadType,
    (text, padding): (&[u8], u8),
) -> Vec<u8> {
    let mut body = vec![0; 8];
    body.extend_from_slice(text);
    body.push(padding);
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
    key.seal(number, associated, &mut body).unwrap();
    message.extend_from_slice(&body);
    message
}

/// What is in an SK payload.
pub(crate) fn open_with(key: &PacketKey, bytes: &[u8]) -> (PayloadType, Vec<u8>) {
    let mut body = bytes[32..].to_vec();
    let associated = Associated {
        header: &bytes[..32],
        esn_high: None,
    };
    let text = key.open(associated, &mut body).unwrap();
    let (padding, padded) = text.split_last().unwrap();
    let text = padded[..padded.len() - usize::from(*padding)].to_vec();
    (PayloadType(bytes[28]), text)
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

/// A proposal for a Child SA whose sender receives under this SPI.
pub(crate) fn child_sa(text: &str, spi: u32) -> Vec<u8> {
    let mut proposal = parse_proposal(ProtocolId::Esp, text).unwrap();
    proposal.spi = spi.to_be_bytes().to_vec();
    sa(&[proposal])
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
pub(crate) const SUITE: IkeSuite = IkeSuite {
    cipher: CipherSuite {
        encryption: EncryptionId::AES_GCM_16,
        key_bits: 256,
        integrity: None,
    },
    prf: PrfId::HMAC_SHA2_384,
    key_exchange: KeyExchangeId::X25519,
    additional: AdditionalExchanges::NONE,
};
