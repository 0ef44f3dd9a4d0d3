//! An initiator made by hand at a running daemon: it has gateway A's address or another, and whatever keys
//! it makes.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use lockgate::wire::ikev2::NotifyType;
use lockgate::wire::isakmp::{ExchangeType, Header, PayloadType};

use super::session::{IKE, Opened, Opening, Payloads, Session, delete, join};
use crate::support::{
    PATIENCE,
    lab::{Family, Lab, Side},
};

/// Makes half-open IKE SAs with gateway B.
pub(crate) struct Sender {
    pub(crate) socket: UdpSocket,
    pub(crate) target: SocketAddr,
    /// How many there were.
    count: u64,
}

impl Sender {
    /// From gateway A's address.
    pub(crate) fn new(lab: &Lab) -> Self {
        Self::at(lab, Side::A.outer(Family::V4), 0)
    }

    /// From an address of gateway A, after `count` others.
    pub(crate) fn at(lab: &Lab, address: IpAddr, count: u64) -> Self {
        let socket = lab
            .gateway_a
            .run(move || UdpSocket::bind((address, 0)))
            .unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            socket,
            target: SocketAddr::new(Side::B.outer(Family::V4), 500),
            count,
        }
    }

    /// The request that opens the `number`th IKE SA.
    pub(crate) fn opening(number: u64) -> Opening {
        Opening::new(number, IKE, &[NotifyType::SIGNATURE_HASH_ALGORITHMS])
    }

    pub(crate) fn half_open(&mut self) -> Session {
        self.count += 1;
        let opening = Self::opening(self.count);
        let answer = self.ask(&opening.request);
        opening.answered(&answer)
    }

    pub(crate) fn send(&self, message: &[u8]) {
        self.socket.send_to(message, self.target).unwrap();
    }

    /// The answer to a request; what else comes is not looked at, nor what is in clear where the request is not.
    pub(crate) fn ask(&self, request: &[u8]) -> Vec<u8> {
        self.send(request);
        let (asked, _) = Header::parse(request).unwrap();
        loop {
            let mut answer = vec![0; 20_000];
            let len = self.socket.recv(&mut answer).unwrap();
            answer.truncate(len);
            let (header, _) = Header::parse(&answer).unwrap();
            let ours = header.initiator_spi == asked.initiator_spi;
            let clear = header.next_payload != asked.next_payload;
            let sealed = asked.next_payload == PayloadType::SK;
            if sealed && clear {
                continue;
            }
            if ours && header.flags.response() && header.message_id == asked.message_id {
                return answer;
            }
        }
    }

    /// The next request of B that comes.
    pub(crate) fn next_request(&self, session: &Session) -> Opened {
        loop {
            let mut request = vec![0; 20_000];
            let len = self.socket.recv(&mut request).unwrap();
            request.truncate(len);
            let (header, _) = Header::parse(&request).unwrap();
            if !header.flags.response() {
                return session.open(&request);
            }
        }
    }

    pub(crate) fn request(
        &self,
        session: &mut Session,
        exchange: ExchangeType,
        payloads: &Payloads,
    ) -> Opened {
        let (first, text) = join(payloads);
        let request = session.seal(exchange, false, session.next_id, first, &text);
        session.next_id += 1;
        session.open(&self.ask(&request))
    }

    /// Deletes the IKE SA.
    pub(crate) fn delete(&self, session: &mut Session) {
        let everything = vec![delete(1, 0, 0, &[])];
        self.request(session, ExchangeType::INFORMATIONAL, &everything);
    }

    /// Whether the IKE SA is there: an empty request is answered with nothing.
    pub(crate) fn is_alive(&self, session: &mut Session) -> bool {
        let answer = self.request(session, ExchangeType::INFORMATIONAL, &vec![]);
        answer.payloads.is_empty()
    }
}
