//! Additional key exchanges (RFC 9370 §2.2.1).

use super::KeyExchangeId;

/// The methods of Additional Key Exchange 1 to 7 (transform types 6 to 12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AdditionalExchanges([KeyExchangeId; Self::COUNT]);

impl AdditionalExchanges {
    /// How many there can be.
    pub const COUNT: usize = 7;

    /// Not one.
    pub const NONE: Self = Self([KeyExchangeId::NONE; Self::COUNT]);

    /// Sets the method of the exchange with this number, 1 to 7; another number sets nothing.
    pub fn set(&mut self, number: u8, method: KeyExchangeId) {
        let place = usize::from(number).checked_sub(1);
        if let Some(slot) = place.and_then(|place| self.0.get_mut(place)) {
            *slot = method;
        }
    }

    /// Number and method of those that take place, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u8, KeyExchangeId)> {
        let numbered = (1u8..).zip(self.0);
        numbered.filter(|(_, method)| *method != KeyExchangeId::NONE)
    }

    /// None takes place.
    pub fn is_empty(&self) -> bool {
        *self == Self::NONE
    }
}
