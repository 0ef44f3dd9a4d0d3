//! A peer that owns its keys: it makes correct requests, and edits them before it seals them.

use std::net::SocketAddr;

use lockgate::crypto::kdf::{IkeKeys, skeyseed, skeyseed_rekey};
use lockgate::crypto::kex::KeyExchange;
use lockgate::crypto::prf::Prf;
use lockgate::crypto::{Associated, PacketKey, Secret};
use lockgate::ike::Path;
use lockgate::wire::ikev2::{AuthMethod, AuthPayload, KePayload, NotifyType, message_bytes};
use lockgate::wire::isakmp::{ExchangeType, Flags, Header, IkeSpi, PayloadType};
use lockgate::wire::proposal::{
    AdditionalExchanges, CipherSuite, EncryptionId, IkeSuite, KeyExchangeId, PrfId, SaProposal,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::Script;

#[path = "keyed_additional.rs"]
mod additional;
#[path = "keyed_edits.rs"]
mod edits;
#[path = "keyed_payloads.rs"]
mod payloads;

use additional::SetUp;
use edits::edited;
use payloads::{
    ESP_ADDITIONAL, ESP_TRANSFORMS, IKE_ADDITIONAL, IKE_TRANSFORMS, Payloads, body, delete,
    identity, ke, link, notify, notify_spi, offer, says, selectors, split,
};

pub(crate) struct Peer {
    /// From here to the endpoint, as the endpoint sees it.
    pub(crate) path: Path,
    identity: &'static str,
    secret: &'static [u8],
    random: ChaCha8Rng,
    /// IKE_SA_INIT, as long as it is unanswered.
    asked: Option<Asked>,
    sa: Option<Keyed>,
    child_spi: u32,
}

struct Asked {
    request: Vec<u8>,
    spi: IkeSpi,
    nonce: Vec<u8>,
    exchange: KeyExchange,
    /// With an additional one behind it.
    more: bool,
}

/// An IKE SA whose keys this peer has.
struct Keyed {
    spis: (IkeSpi, IkeSpi),
    initiator: bool,
    keys: IkeKeys,
    sealed: u64,
    /// Message ID of the next request.
    next_id: u32,
    /// Whence the proof of its identity comes.
    set_up: SetUp,
    /// What the last answer wants IKE_FOLLOWUP_KE to say.
    link: Vec<u8>,
    /// A rekey of the IKE SA that is unanswered.
    rekey: Option<Asked>,
    /// The last request of the endpoint.
    request: Option<Header>,
}

/// A message as it is sent, and whether it proves who the peer is.
pub(crate) struct Said {
    pub(crate) datagrams: Vec<Vec<u8>>,
    pub(crate) proves: Option<IkeSpi>,
}

impl Peer {
    /// Number 2 does not know the secret of the identity that it claims.
    pub(crate) fn new(number: u8) -> Self {
        let known = [
            ("one.example", b"secret one".as_slice()),
            ("two.example", b"secret two"),
            ("two.example", b"a guess"),
        ];
        let [one, two, three] = known;
        let (identity, secret) = [one, two]
            .get(usize::from(number))
            .copied()
            .unwrap_or(three);
        Self {
            path: Path {
                local: SocketAddr::from(([192, 0, 2, 1], 500)),
                remote: SocketAddr::from(([198, 51, 100, number + 1], 500)),
            },
            identity,
            secret,
            random: ChaCha8Rng::seed_from_u64(u64::from(number) + 7),
            asked: None,
            sa: None,
            child_spi: 0x1000_0000 * (u32::from(number) + 1),
        }
    }

    /// An IKE_SA_INIT request, edited; with `more` it has an additional key exchange.
    pub(crate) fn init(&mut self, more: bool, script: &mut Script<'_>) -> Said {
        let spi = IkeSpi(self.bytes());
        let exchange = self.exchange();
        let nonce = self.bytes::<32>().to_vec();
        let transforms: &[&[u8]] = if more {
            &IKE_ADDITIONAL
        } else {
            &IKE_TRANSFORMS
        };
        let mut payloads = vec![
            (PayloadType::SA, offer(1, &[], transforms)),
            (PayloadType::KE, ke(&exchange)),
            (PayloadType::NONCE, nonce.clone()),
            notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED, &[]),
        ];
        if more {
            payloads.push(notify(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED, &[]));
        }
        let header = Header {
            initiator_spi: spi,
            responder_spi: IkeSpi::ZERO,
            next_payload: PayloadType::NONE,
            version: Header::VERSION_2_0,
            exchange: ExchangeType::IKE_SA_INIT,
            flags: Flags::new(true, false),
            message_id: 0,
            length: 0,
        };
        let request = message_bytes(header, edited(payloads, script));
        self.asked = Some(Asked {
            request: request.clone(),
            spi,
            nonce,
            exchange,
            more,
        });
        Said {
            datagrams: vec![request],
            proves: None,
        }
    }

    /// A request on its IKE SA, edited.
    pub(crate) fn request(&mut self, script: &mut Script<'_>) -> Option<Said> {
        let kind = script.byte();
        let own = identity(self.identity);
        let sa = self.sa.as_ref()?;
        let proof = sa.set_up.proof(&sa.keys, self.secret, &own, sa.next_id);
        let old = self.child_spi;
        let more = kind >> 5 & 1 == 1;
        let (mut rekey, mut additional) = (None, None);
        let (exchange, payloads) = match kind % 8 {
            0 => (ExchangeType::IKE_AUTH, self.auth(&proof)),
            1 => {
                let (about, exchange, payloads) = self.additional()?;
                additional = Some(exchange);
                (about, payloads)
            }
            2 => (ExchangeType::CREATE_CHILD_SA, self.create_child(more)),
            3 => {
                let mut payloads = vec![notify_spi(NotifyType::REKEY_SA, old)];
                payloads.extend(self.create_child(more));
                (ExchangeType::CREATE_CHILD_SA, payloads)
            }
            4 => {
                let (asked, payloads) = self.rekey_ike(more);
                // What follows up an additional one has keys that this peer does not make.
                rekey = Some(asked).filter(|_| !more);
                (ExchangeType::CREATE_CHILD_SA, payloads)
            }
            // The one before is what a rekey has replaced.
            5 => {
                let spi = if more { old - 1 } else { old };
                (ExchangeType::INFORMATIONAL, vec![delete(3, spi)])
            }
            6 => (ExchangeType::INFORMATIONAL, vec![]),
            _ => {
                let payloads = vec![(PayloadType(script.byte()), script.bytes(40).to_vec())];
                (ExchangeType(script.byte()), payloads)
            }
        };
        let (first, text) = edited(payloads, script);
        let sa = self.sa.as_mut()?;
        sa.rekey = rekey;
        let pieces = kind >> 3 & 3;
        // Fragments of several messages may make one that nobody said.
        let proves =
            exchange == ExchangeType::IKE_AUTH && (pieces > 0 || says(first, &text, &own, &proof));
        let id = sa.next_id;
        // Now and then a message ID is used again or left out.
        sa.next_id = match kind >> 5 {
            6 => id,
            7 => id + 2,
            _ => id + 1,
        };
        let proves = proves.then_some(sa.spis.0);
        if let Some(additional) = additional.filter(|_| exchange == ExchangeType::IKE_INTERMEDIATE)
        {
            let header = sa.header((exchange, false, id), PayloadType::SK);
            sa.set_up.ask(additional, header, first, &text);
        }
        Some(Said {
            datagrams: sa.seal((exchange, false, id), (first, &text), pieces, script),
            proves,
        })
    }

    /// An answer to the last request of the endpoint, edited.
    pub(crate) fn answer(&mut self, script: &mut Script<'_>) -> Option<Said> {
        let request = self.sa.as_mut()?.request.take()?;
        let how = script.byte();
        let payloads = match (request.exchange, how % 4) {
            (ExchangeType::CREATE_CHILD_SA, 0) => self.create_child(how & 16 != 0),
            (ExchangeType::CREATE_CHILD_SA, 1) => self.rekey_ike(how & 16 != 0).1,
            (_, 2) => vec![delete(3, self.child_spi)],
            _ => vec![],
        };
        let (first, text) = edited(payloads, script);
        let sa = self.sa.as_mut()?;
        let about = (request.exchange, true, request.message_id);
        Some(Said {
            datagrams: sa.seal(about, (first, &text), how >> 2 & 3, script),
            proves: None,
        })
    }

    /// Takes a message of the endpoint.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        let Ok((header, rest)) = Header::parse(bytes) else {
            return;
        };
        if header.exchange == ExchangeType::IKE_SA_INIT {
            self.establish(&header, rest);
            return;
        }
        let Some(sa) = &mut self.sa else { return };
        if (header.initiator_spi, header.responder_spi) != sa.spis {
            return;
        }
        if !header.flags.response() {
            sa.request = Some(header);
            return;
        }
        let Some((first, text)) = sa.open(bytes) else {
            return;
        };
        if header.exchange == ExchangeType::IKE_INTERMEDIATE {
            let keys = sa.set_up.finish(&sa.keys, sa.spis, header, (first, &text));
            if let Some(keys) = keys {
                sa.keys = keys;
            }
            return;
        }
        if let Some(link) = link(&split(first, &text)) {
            sa.link = link;
        }
        if let Some(asked) = sa.rekey.take() {
            self.replace(asked, first, &text);
        }
    }

    fn establish(&mut self, header: &Header, rest: &[u8]) {
        let Some(asked) = self
            .asked
            .take_if(|asked| asked.spi == header.initiator_spi)
        else {
            return;
        };
        let answer = split(header.next_payload, rest);
        let (Some(theirs), Some(ke)) = (
            body(&answer, PayloadType::NONCE),
            body(&answer, PayloadType::KE),
        ) else {
            return;
        };
        let public = KePayload::parse(ke).expect("what the endpoint sends is well-formed");
        let Ok(shared) = asked.exchange.finish(public.data) else {
            return;
        };
        let prf = Prf::new(SUITE.prf).expect("a known PRF");
        let seed = skeyseed(prf, (&asked.nonce, theirs), &shared);
        let spis = (header.initiator_spi, header.responder_spi);
        let keys = IkeKeys::derive(&SUITE, &seed, &asked.nonce, theirs, spis.0.0, spis.1.0);
        let set_up = SetUp::new(asked.request, [asked.nonce, theirs.to_vec()], asked.more);
        self.sa = Some(Keyed {
            spis,
            initiator: true,
            keys,
            sealed: 0,
            next_id: 1,
            set_up,
            link: Vec::new(),
            rekey: None,
            request: None,
        });
    }

    /// The successor of its IKE SA, if the endpoint has agreed to one.
    fn replace(&mut self, asked: Asked, first: PayloadType, text: &[u8]) -> Option<()> {
        let answer = split(first, text);
        let proposals = SaProposal::parse_list(body(&answer, PayloadType::SA)?).ok()?;
        let spi: [u8; 8] = proposals.first()?.1.spi.as_slice().try_into().ok()?;
        let theirs = body(&answer, PayloadType::NONCE)?;
        let public = KePayload::parse(body(&answer, PayloadType::KE)?).ok()?;
        let shared = asked.exchange.finish(public.data).ok()?;
        let old = self.sa.take()?;
        let prf = Prf::new(SUITE.prf).expect("a known PRF");
        let seed = skeyseed_rekey(prf, &old.keys.sk_d, &[shared], &asked.nonce, theirs);
        let keys = IkeKeys::derive(&SUITE, &seed, &asked.nonce, theirs, asked.spi.0, spi);
        self.sa = Some(Keyed {
            spis: (asked.spi, IkeSpi(spi)),
            initiator: true,
            keys,
            sealed: 0,
            next_id: 0,
            set_up: old.set_up,
            link: Vec::new(),
            rekey: None,
            request: None,
        });
        Some(())
    }

    fn auth(&mut self, proof: &[u8]) -> Payloads {
        let mut auth = Vec::new();
        let method = AuthMethod::SHARED_KEY_MIC;
        AuthPayload {
            method,
            data: proof,
        }
        .encode(&mut auth);
        let spi = self.child_spi.to_be_bytes();
        let mut payloads = vec![
            (PayloadType::ID_I, identity(self.identity)),
            (PayloadType::AUTH, auth),
            (PayloadType::SA, offer(3, &spi, &ESP_TRANSFORMS)),
        ];
        payloads.extend(selectors());
        payloads
    }

    /// IKE_INTERMEDIATE where the set-up wants one, else IKE_FOLLOWUP_KE.
    fn additional(&mut self) -> Option<(ExchangeType, KeyExchange, Payloads)> {
        let exchange = KeyExchange::generate(KeyExchangeId::ECP256, &mut self.random);
        let exchange = exchange.expect("a known method");
        let sa = self.sa.as_ref()?;
        let mut payloads = vec![(PayloadType::KE, ke(&exchange))];
        if sa.set_up.is_open {
            return Some((ExchangeType::IKE_INTERMEDIATE, exchange, payloads));
        }
        payloads.push(notify(NotifyType::ADDITIONAL_KEY_EXCHANGE, &sa.link));
        Some((ExchangeType::IKE_FOLLOWUP_KE, exchange, payloads))
    }

    fn create_child(&mut self, more: bool) -> Payloads {
        self.child_spi += 1;
        let spi = self.child_spi.to_be_bytes();
        let transforms: &[&[u8]] = if more {
            &ESP_ADDITIONAL
        } else {
            &ESP_TRANSFORMS
        };
        let mut payloads = vec![
            (PayloadType::SA, offer(3, &spi, transforms)),
            (PayloadType::NONCE, self.bytes::<32>().to_vec()),
        ];
        if more {
            payloads.push((PayloadType::KE, ke(&self.exchange())));
        }
        payloads.extend(selectors());
        payloads
    }

    fn rekey_ike(&mut self, more: bool) -> (Asked, Payloads) {
        let asked = Asked {
            request: Vec::new(),
            spi: IkeSpi(self.bytes()),
            nonce: self.bytes::<32>().to_vec(),
            exchange: self.exchange(),
            more,
        };
        let transforms: &[&[u8]] = if more {
            &IKE_ADDITIONAL
        } else {
            &IKE_TRANSFORMS
        };
        let payloads = vec![
            (PayloadType::SA, offer(1, &asked.spi.0, transforms)),
            (PayloadType::NONCE, asked.nonce.clone()),
            (PayloadType::KE, ke(&asked.exchange)),
        ];
        (asked, payloads)
    }

    fn exchange(&mut self) -> KeyExchange {
        KeyExchange::generate(KeyExchangeId::X25519, &mut self.random).expect("a known method")
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.random.fill_bytes(&mut bytes);
        bytes
    }
}

/// A part of a message (RFC 7383 §2.5).
#[derive(Clone)]
struct Fragment<'a> {
    number: u16,
    total: u16,
    first: PayloadType,
    text: &'a [u8],
}

impl Keyed {
    /// A message as a whole, or as one fragment more than `pieces`, of which up to three are changed, moved,
    /// repeated or left out. About a message is to be said: its exchange, whether it is a response, its ID.
    fn seal(
        &mut self,
        about: (ExchangeType, bool, u32),
        (first, text): (PayloadType, &[u8]),
        pieces: u8,
        script: &mut Script<'_>,
    ) -> Vec<Vec<u8>> {
        if pieces == 0 {
            return vec![self.seal_datagram(about, first, &[], text)];
        }
        let total = u16::from(pieces) + 1;
        let mut parts = text.chunks(text.len().div_ceil(total.into()).max(1));
        let mut fragments: Vec<_> = (1..=total)
            .map(|number| Fragment {
                number,
                total,
                first: if number == 1 {
                    first
                } else {
                    PayloadType::NONE
                },
                text: parts.next().unwrap_or_default(),
            })
            .collect();
        for _ in 0..script.byte() % 4 {
            let (what, place, value) = (script.byte(), usize::from(script.byte()), script.byte());
            let place = place.checked_rem(fragments.len()).unwrap_or(0);
            let Some(fragment) = fragments.get_mut(place) else {
                break;
            };
            match what % 7 {
                0 => fragment.number = value.into(),
                1 => fragment.total = value.into(),
                2 => fragment.first = PayloadType(value),
                3 => fragments
                    .iter_mut()
                    .for_each(|one| one.total = value.into()),
                4 => fragments.rotate_left(place),
                5 => fragments.extend(fragments.get(place).cloned()),
                _ => drop(fragments.remove(place)),
            }
        }
        let sealed = fragments.iter().map(|fragment| {
            let numbers = [fragment.number, fragment.total].map(u16::to_be_bytes);
            self.seal_datagram(about, fragment.first, &numbers.concat(), fragment.text)
        });
        sealed.collect()
    }

    /// `numbers` are what an SKF payload has and an SK payload has not.
    fn seal_datagram(
        &mut self,
        (exchange, response, message_id): (ExchangeType, bool, u32),
        first: PayloadType,
        numbers: &[u8],
        text: &[u8],
    ) -> Vec<u8> {
        let kind = if numbers.is_empty() {
            PayloadType::SK
        } else {
            PayloadType::SKF
        };
        let header = self.header((exchange, response, message_id), kind);
        let mut body = [&[0; 8][..], text, &[0], &[0; 16]].concat();
        let mut message = message_bytes(header, (kind, Vec::new()));
        message.extend_from_slice(&[first.0, 0]);
        let length = u16::try_from(4 + numbers.len() + body.len()).expect("scripts are short");
        message.extend_from_slice(&length.to_be_bytes());
        message.extend_from_slice(numbers);
        let total = u32::try_from(message.len() + body.len()).expect("scripts are short");
        message[24..28].copy_from_slice(&total.to_be_bytes());
        self.sealed += 1;
        let associated = Associated {
            header: &message,
            esn_high: None,
        };
        key(&self.keys.sk_ei)
            .seal(self.sealed, associated, &mut body)
            .expect("the body has room for an IV and a tag");
        message.extend_from_slice(&body);
        message
    }

    fn header(
        &self,
        (exchange, response, message_id): (ExchangeType, bool, u32),
        next_payload: PayloadType,
    ) -> Header {
        Header {
            initiator_spi: self.spis.0,
            responder_spi: self.spis.1,
            next_payload,
            version: Header::VERSION_2_0,
            exchange,
            flags: Flags::new(self.initiator, response),
            message_id,
            length: 0,
        }
    }

    fn open(&self, bytes: &[u8]) -> Option<(PayloadType, Vec<u8>)> {
        let (header, body) = bytes.split_at_checked(32)?;
        let mut body = body.to_vec();
        let associated = Associated {
            header,
            esn_high: None,
        };
        let text = key(&self.keys.sk_er).open(associated, &mut body).ok()?;
        let (padding, padded) = text.split_last()?;
        let text = padded.get(..padded.len().checked_sub(usize::from(*padding))?)?;
        Some((PayloadType(header[28]), text.to_vec()))
    }
}

fn key(secret: &Secret) -> PacketKey {
    PacketKey::new(SUITE.cipher, secret.as_bytes(), &[]).expect("keys as long as the suite wants")
}

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
