//! The data of TICKET_LT_OPAQUE (RFC 5723 §7.1).

use crate::wire::Malformed;

/// A ticket as its maker gives it away.
///
/// ```text
/// lifetime (4) | ticket
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TicketGrant<'a> {
    /// Seconds until the ticket expires.
    pub lifetime: u32,
    /// To be given back as it is, in TICKET_OPAQUE.
    pub ticket: &'a [u8],
}

impl<'a> TicketGrant<'a> {
    /// Reads the notification data. A ticket has at least one byte.
    pub fn parse(data: &'a [u8]) -> Result<Self, Malformed> {
        let (lifetime, ticket) = data
            .split_first_chunk::<4>()
            .filter(|(_, ticket)| !ticket.is_empty())
            .ok_or(Malformed::Truncated("ticket"))?;
        Ok(Self {
            lifetime: u32::from_be_bytes(*lifetime),
            ticket,
        })
    }

    /// The notification data.
    pub fn encode(&self) -> Vec<u8> {
        [&self.lifetime.to_be_bytes(), self.ticket].concat()
    }
}
