//! The data of IKEV2_MESSAGE_ID_SYNC (RFC 6311 §6.3).

use crate::wire::Malformed;

/// Which message IDs the sender goes on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageIdSync {
    /// Chosen by who asks, and returned in the answer.
    pub nonce: [u8; 4],
    /// EXPECTED_SEND_REQ_MESSAGE_ID: of the sender's next request.
    pub send: u32,
    /// EXPECTED_RECV_REQ_MESSAGE_ID: of the next request that the sender takes.
    pub receive: u32,
}

impl MessageIdSync {
    /// Reads the data of the notification.
    pub fn parse(data: &[u8]) -> Result<Self, Malformed> {
        let data: &[u8; 12] = data
            .try_into()
            .map_err(|_| Malformed::BadLength("IKEV2_MESSAGE_ID_SYNC"))?;
        let &[n0, n1, n2, n3, s0, s1, s2, s3, r0, r1, r2, r3] = data;
        Ok(Self {
            nonce: [n0, n1, n2, n3],
            send: u32::from_be_bytes([s0, s1, s2, s3]),
            receive: u32::from_be_bytes([r0, r1, r2, r3]),
        })
    }

    /// The data of the notification.
    pub fn encode(&self) -> [u8; 12] {
        let [n0, n1, n2, n3] = self.nonce;
        let [s0, s1, s2, s3] = self.send.to_be_bytes();
        let [r0, r1, r2, r3] = self.receive.to_be_bytes();
        [n0, n1, n2, n3, s0, s1, s2, s3, r0, r1, r2, r3]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ikev2::{Notify, NotifyType};

    /// The figure of RFC 6311 §6.3 behind the generic header: Protocol ID and SPI size 0, type 16422.
    const BODY: [u8; 16] = [
        0, 0, 0x40, 0x26, 0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 4, 0, 0, 1, 5,
    ];
    const SYNC: MessageIdSync = MessageIdSync {
        nonce: [0xde, 0xad, 0xbe, 0xef],
        send: 4,
        receive: 0x105,
    };

    #[test]
    fn nonce_send_and_receive_stand_in_the_order_of_the_rfc() {
        let notify = Notify::parse(&BODY).unwrap();
        assert_eq!(notify.kind, NotifyType::IKEV2_MESSAGE_ID_SYNC);
        assert_eq!(MessageIdSync::parse(notify.data), Ok(SYNC));
        let mut body = Vec::new();
        Notify::new(NotifyType::IKEV2_MESSAGE_ID_SYNC, &SYNC.encode()).encode(&mut body);
        assert_eq!(body, BODY);
    }

    /// RFC 6311 §6.1.
    #[test]
    fn support_is_announced_without_data() {
        let mut body = Vec::new();
        let kind = NotifyType::IKEV2_MESSAGE_ID_SYNC_SUPPORTED;
        Notify::new(kind, &[]).encode(&mut body);
        assert_eq!(body, [0, 0, 0x40, 0x24]);
    }

    #[test]
    fn data_of_another_length_is_malformed() {
        for length in (0..12).chain([13, 16, 20]) {
            assert!(MessageIdSync::parse(&vec![0; length]).is_err(), "{length}");
        }
    }
}
