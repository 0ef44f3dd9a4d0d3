//! A peer that owns the keys of its IKE SA, and what it puts inside SK and SKF payloads.
//!
//! The first byte of the script: bit 0: it authenticates first; bit 1: its update of addresses counts
//! (MOBIKE). Then steps of seven bytes and a text: flags (bit 0: a fragment, bit 1: a response,
//! bits 2 to 4: seconds to pass first, bits 5 and 6: exchange), message ID relative to the next one,
//! fragment number, total, type of the first payload, last byte of the source address, length of the
//! text. Whatever the script does, the endpoint stays bounded, and time ends what is left.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::Path as FilePath;
use std::time::{Duration, Instant};

use lockgate::config::Config;
use lockgate::crypto::kdf::{IkeKeys, psk_auth, skeyseed};
use lockgate::crypto::kex::KeyExchange;
use lockgate::crypto::prf::Prf;
use lockgate::crypto::{Associated, PacketKey, Secret};
use lockgate::ike::{Endpoint, Identity, Input, Output, Path, Settings};
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
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

pub(crate) fn run(script: &[u8]) {
    let Some((start, mut script)) = script.split_first() else {
        return;
    };
    let mut insider = Insider::new();
    if start & 1 != 0 {
        insider.authenticate(start & 2 != 0);
    }
    for _ in 0..MAX_STEPS {
        let Some((step, rest)) = script.split_first_chunk::<7>() else {
            break;
        };
        let text = rest.get(..usize::from(step[6])).unwrap_or(rest);
        script = rest.get(text.len()..).unwrap_or_default();
        insider.step(step, text);
        insider.check();
    }
    insider.end();
}

struct Insider {
    now: Instant,
    endpoint: Endpoint,
    spis: (IkeSpi, IkeSpi),
    outbound: PacketKey,
    proof: Vec<u8>,
    sealed: u64,
    next_id: u32,
}

impl Insider {
    /// IKE_SA_INIT is done.
    fn new() -> Self {
        let now = Instant::now();
        let config = Config::parse(CONFIGURATION, FilePath::new("fragments.toml"));
        let pad = config.expect("the target's own configuration is valid").pad;
        let settings = Settings::new(NonZeroU16::MIN);
        let rng = Box::new(ChaCha8Rng::seed_from_u64(1));
        let mut endpoint = Endpoint::new(settings, pad, rng, now);
        endpoint.handle(now, Input::Timer);

        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let exchange = KeyExchange::generate(KeyExchangeId::X25519, &mut rng);
        let exchange = exchange.expect("X25519 is there");
        let ni = [5; 32];
        let mut payloads = PayloadWriter::new();
        payloads.add_with(PayloadType::SA, |out| {
            SaProposal::encode_list(&[proposal(ProtocolId::Ike, IKE)], out);
        });
        payloads.add_with(PayloadType::KE, |out| {
            let (group, data) = (exchange.group(), exchange.public());
            KePayload { group, data }.encode(out);
        });
        payloads.add(PayloadType::NONCE, &ni);
        notify(&mut payloads, NotifyType::IKEV2_FRAGMENTATION_SUPPORTED);
        let request = Header {
            initiator_spi: IkeSpi([3; 8]),
            responder_spi: IkeSpi::ZERO,
            next_payload: PayloadType::NONE,
            version: Header::VERSION_2_0,
            exchange: ExchangeType::IKE_SA_INIT,
            flags: Flags::new(true, false),
            message_id: 0,
            length: 0,
        };
        let request = message_bytes(request, payloads.finish());
        let (path, bytes) = (path(1), request.as_slice());
        endpoint.handle(now, Input::Datagram { path, bytes });
        let response = sent(&mut endpoint).pop().expect("an answer");
        let (header, rest) = Header::parse(&response).expect("a message");
        let body = |kind| {
            let mut chain = PayloadChain::new(header.next_payload, rest).flatten();
            chain
                .find(|payload| payload.kind == kind)
                .expect("it is there")
                .body
        };
        let nr = body(PayloadType::NONCE);
        let peer = KePayload::parse(body(PayloadType::KE)).expect("a public value");
        let shared = exchange.finish(peer.data).expect("a shared secret");
        let spis = (header.initiator_spi, header.responder_spi);
        let prf = Prf::new(SUITE.prf).expect("it is there");
        let seed = skeyseed(prf, (&ni, nr), &shared);
        let keys = IkeKeys::derive(&SUITE, &seed, &ni, nr, spis.0.0, spis.1.0);
        let id = prf.mac(keys.sk_pi.as_bytes(), &[&identity()]);
        let secret = Secret::from(b"fuzz".to_vec());
        let proof = psk_auth(prf, &secret, &[&request, nr, id.as_bytes()]);
        let outbound = PacketKey::new(SUITE.cipher, keys.sk_ei.as_bytes(), &[]);
        Self {
            now,
            endpoint,
            spis,
            outbound: outbound.expect("the key fits"),
            proof: proof.as_bytes().to_vec(),
            sealed: 0,
            next_id: 1,
        }
    }

    fn authenticate(&mut self, mobike: bool) {
        let mut payloads = PayloadWriter::new();
        payloads.add(PayloadType::ID_I, &identity());
        payloads.add_with(PayloadType::AUTH, |out| {
            let (method, data) = (AuthMethod::SHARED_KEY_MIC, self.proof.as_slice());
            AuthPayload { method, data }.encode(out);
        });
        payloads.add_with(PayloadType::SA, |out| {
            let mut esp = proposal(ProtocolId::Esp, "aes256gcm16-esn-noesn");
            esp.spi = vec![0x10, 0, 0, 1];
            SaProposal::encode_list(&[esp], out);
        });
        for (kind, network) in [
            (PayloadType::TS_I, "10.1.0.0/24"),
            (PayloadType::TS_R, "10.2.0.0/24"),
        ] {
            let selector: TrafficSelector = network.parse().expect("a selector");
            payloads.add_with(kind, |out| TrafficSelector::encode_list(&[selector], out));
        }
        if mobike {
            notify(&mut payloads, NotifyType::MOBIKE_SUPPORTED);
        }
        let (first, text) = payloads.finish();
        let request = (ExchangeType::IKE_AUTH, false, 1);
        let bytes = self.seal(request, first, None, &text);
        self.send(path(1), &bytes);
        assert_eq!(self.endpoint.ike_sas().count(), 1, "the peer is authentic");
    }

    fn step(&mut self, step: &[u8; 7], text: &[u8]) {
        let [flags, id, number, total, first, source, _] = *step;
        self.pass(Duration::from_secs(u64::from(flags >> 2 & 7)));
        let exchange = match flags >> 5 & 3 {
            0 => ExchangeType::INFORMATIONAL,
            1 => ExchangeType::CREATE_CHILD_SA,
            2 => ExchangeType::IKE_AUTH,
            _ => ExchangeType::IKE_INTERMEDIATE,
        };
        let fragment = (flags & 1 != 0).then_some([0, number, 0, total]);
        let id = self.next_id.wrapping_add(u32::from(id)).wrapping_sub(128);
        let header = (exchange, flags & 2 != 0, id);
        let bytes = self.seal(header, PayloadType(first), fragment, text);
        self.send(path(source), &bytes);
    }

    fn send(&mut self, path: Path, bytes: &[u8]) {
        self.endpoint
            .handle(self.now, Input::Datagram { path, bytes });
        for sent in sent(&mut self.endpoint) {
            let (header, _) = Header::parse(&sent).expect("what is sent is well-formed");
            if header.flags.response() && header.message_id >= self.next_id {
                self.next_id = header.message_id + 1;
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..MAX_TIMERS {
            let due = self.endpoint.next_timeout().filter(|due| *due <= end);
            let Some(due) = due else { break };
            self.now = self.now.max(due);
            self.endpoint.handle(self.now, Input::Timer);
            let _ = sent(&mut self.endpoint);
        }
        self.now = end;
    }

    fn check(&self) {
        assert!(self.endpoint.half_open() <= 1);
        let sas: Vec<_> = self.endpoint.ike_sas().collect();
        assert!(sas.len() <= 1 + MAX_STEPS);
        for sa in sas {
            assert!(sa.children.len() <= 2 * 64);
        }
    }

    /// Time ends what has no peer.
    fn end(mut self) {
        self.pass(Duration::from_secs(24 * 3600));
        assert_eq!(self.endpoint.half_open(), 0);
        assert_eq!(self.endpoint.ike_sas().count(), 0);
        assert_eq!(self.endpoint.next_timeout(), None, "a timer is left");
    }

    fn seal(
        &mut self,
        (exchange, response, message_id): (ExchangeType, bool, u32),
        first: PayloadType,
        fragment: Option<[u8; 4]>,
        text: &[u8],
    ) -> Vec<u8> {
        let fragment = fragment.as_ref().map_or(&[][..], |fragment| &fragment[..]);
        let kind = if fragment.is_empty() {
            PayloadType::SK
        } else {
            PayloadType::SKF
        };
        let mut body = vec![0; 8];
        body.extend_from_slice(text);
        body.push(0);
        body.extend_from_slice(&[0; 16]);
        let length = 4 + fragment.len() + body.len();
        let header = Header {
            initiator_spi: self.spis.0,
            responder_spi: self.spis.1,
            next_payload: kind,
            version: Header::VERSION_2_0,
            exchange,
            flags: Flags::new(true, response),
            message_id,
            length: u32::try_from(Header::LEN + length).expect("it is short"),
        };
        let mut message = header.encode().to_vec();
        message.extend_from_slice(&[first.0, 0]);
        let length = u16::try_from(length).expect("it is short");
        message.extend_from_slice(&length.to_be_bytes());
        message.extend_from_slice(fragment);
        let associated = Associated {
            header: &message,
            esn_high: None,
        };
        self.sealed += 1;
        self.outbound
            .seal(self.sealed, associated, &mut body)
            .expect("the buffer fits");
        message.extend_from_slice(&body);
        message
    }
}

/// What the endpoint wants sent.
fn sent(endpoint: &mut Endpoint) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(output) = endpoint.poll() {
        if let Output::Transmit(transmit) = output {
            all.push(transmit.bytes);
        }
        assert!(all.len() <= MAX_OUTPUTS);
    }
    all
}

fn path(last: u8) -> Path {
    Path {
        local: SocketAddr::from(([192, 0, 2, 2], 500)),
        remote: SocketAddr::from(([192, 0, 2, last], 500)),
    }
}

fn proposal(protocol: ProtocolId, text: &str) -> SaProposal {
    parse_proposal(protocol, text).expect("a proposal")
}

fn identity() -> Vec<u8> {
    let identity: Identity = "gw-a.example".parse().expect("an identity");
    identity.to_payload_body()
}

fn notify(payloads: &mut PayloadWriter, kind: NotifyType) {
    payloads.add_with(PayloadType::NOTIFY, |out| {
        Notify::new(kind, &[]).encode(out);
    });
}

const MAX_STEPS: usize = 60;
const MAX_TIMERS: usize = 100_000;
const MAX_OUTPUTS: usize = 10_000;

const IKE: &str = "aes256gcm16-prfsha384-x25519";
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

const CONFIGURATION: &str = r#"
[connections.site]
local_addrs = ["192.0.2.2"]
remote_addrs = ["192.0.2.0/24"]
proposals = ["aes256gcm16-prfsha384-x25519"]
dpd_delay = "10s"
local = { auth = "psk", id = "gw-b.example" }
remote = { auth = "psk", id = "gw-a.example" }
children.lan = { local_ts = ["10.2.0.0/24"], remote_ts = ["10.1.0.0/24"], esp_proposals = ["aes256gcm16-x25519"] }
[secrets.ike]
secret = "fuzz"
"#;
