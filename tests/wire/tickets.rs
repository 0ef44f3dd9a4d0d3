//! The notifications of session resumption, byte by byte (RFC 5723 §7).

use lockgate::wire::Malformed;
use lockgate::wire::ikev2::{Notify, NotifyType, TicketGrant};
use lockgate::wire::isakmp::{ExchangeType, Header};

/// RFC 5723 §7.1: protocol and SPI size are 0, then the type, a lifetime in seconds, and the ticket.
const LT_OPAQUE: [u8; 12] = [0, 0, 0x40, 0x19, 0, 1, 0x51, 0x80, 0xde, 0xad, 0xbe, 0xef];
/// RFC 5723 §7.2: a ticket alone.
const OPAQUE: [u8; 8] = [0, 0, 0x40, 0x1d, 0xde, 0xad, 0xbe, 0xef];

#[test]
fn a_ticket_for_a_day_is_read_and_written_as_the_figure_has_it() {
    let notify = Notify::parse(&LT_OPAQUE).unwrap();
    assert_eq!(notify.kind, NotifyType::TICKET_LT_OPAQUE);
    assert_eq!((notify.protocol, notify.spi), (0, &[][..]));
    let grant = TicketGrant::parse(notify.data).unwrap();
    assert_eq!(grant.lifetime, 86_400);
    assert_eq!(grant.ticket, [0xde, 0xad, 0xbe, 0xef]);
    let mut written = Vec::new();
    Notify::new(NotifyType::TICKET_LT_OPAQUE, &grant.encode()).encode(&mut written);
    assert_eq!(written, LT_OPAQUE);
}

#[test]
fn a_ticket_that_is_presented_has_no_lifetime() {
    let notify = Notify::parse(&OPAQUE).unwrap();
    assert_eq!(notify.kind, NotifyType::TICKET_OPAQUE);
    assert_eq!(notify.data, [0xde, 0xad, 0xbe, 0xef]);
    let mut written = Vec::new();
    Notify::new(NotifyType::TICKET_OPAQUE, notify.data).encode(&mut written);
    assert_eq!(written, OPAQUE);
}

/// RFC 5723 §7: the numbers 16409 to 16413.
#[test]
fn a_wish_for_a_ticket_and_what_refuses_or_promises_one_are_empty() {
    for (kind, bytes) in [
        (NotifyType::TICKET_REQUEST, [0, 0, 0x40, 0x1a]),
        (NotifyType::TICKET_ACK, [0, 0, 0x40, 0x1b]),
        (NotifyType::TICKET_NACK, [0, 0, 0x40, 0x1c]),
    ] {
        let mut written = Vec::new();
        Notify::new(kind, &[]).encode(&mut written);
        assert_eq!(written, bytes);
        let read = Notify::parse(&bytes).unwrap();
        assert_eq!((read.kind, read.data), (kind, &[][..]));
        assert!(!read.kind.is_error());
    }
}

#[test]
fn a_grant_without_a_ticket_or_without_a_whole_lifetime_is_none() {
    for length in 0..=4 {
        let cut = &LT_OPAQUE[4..4 + length];
        assert_eq!(TicketGrant::parse(cut), Err(Malformed::Truncated("ticket")));
    }
    for lifetime in [0, 1, u32::MAX] {
        let data = [&lifetime.to_be_bytes()[..], &[9]].concat();
        let grant = TicketGrant::parse(&data).unwrap();
        assert_eq!((grant.lifetime, grant.ticket), (lifetime, &[9][..]));
        assert_eq!(grant.encode(), data);
    }
}

/// RFC 5723 §8: IKE_SESSION_RESUME is the exchange 38.
#[test]
fn a_resumption_begins_with_the_header_of_exchange_38() {
    let mut bytes = [0; 28];
    bytes[..8].fill(7);
    (bytes[16], bytes[17], bytes[18], bytes[19]) = (40, 0x20, 38, 0x08);
    bytes[27] = 28;
    let (header, _) = Header::parse(&bytes).unwrap();
    assert_eq!(header.exchange, ExchangeType::IKE_SESSION_RESUME);
    assert!(header.responder_spi.is_zero() && header.flags.initiator());
}
