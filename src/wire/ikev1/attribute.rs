//! Data attributes of transforms and transactions (RFC 2408 §3.3).

use crate::wire::Malformed;

/// One attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataAttribute<'a> {
    /// Its class or type, without the format bit.
    pub kind: u16,
    /// Its value; two bytes where it came in the short format.
    pub value: &'a [u8],
}

impl DataAttribute<'_> {
    /// The value as a big-endian number, if it has one to eight bytes.
    pub fn number(&self) -> Option<u64> {
        let fits = (1..=8).contains(&self.value.len());
        fits.then(|| {
            let bytes = self.value.iter();
            bytes.fold(0, |number, byte| number << 8 | u64::from(*byte))
        })
    }

    /// The same, of attributes that have 16 bits in either format.
    pub fn basic(&self) -> Option<u16> {
        self.number().and_then(|number| number.try_into().ok())
    }
}

/// Reads attributes up to the end of `bytes`; reports the first error and ends.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = Result<DataAttribute<'_>, Malformed>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let one = split(rest);
        rest = one.as_ref().map_or(&[], |(_, behind)| *behind);
        Some(one.map(|(attribute, _)| attribute))
    })
}

fn split(bytes: &[u8]) -> Result<(DataAttribute<'_>, &[u8]), Malformed> {
    let truncated = Malformed::Truncated("data attribute");
    let (head, rest) = bytes.split_first_chunk::<2>().ok_or(truncated)?;
    let head = u16::from_be_bytes(*head);
    let kind = head & !SHORT;
    let (value, rest) = if head & SHORT != 0 {
        rest.split_at_checked(2).ok_or(truncated)?
    } else {
        let (length, rest) = rest.split_first_chunk::<2>().ok_or(truncated)?;
        let length = usize::from(u16::from_be_bytes(*length));
        rest.split_at_checked(length).ok_or(truncated)?
    };
    Ok((DataAttribute { kind, value }, rest))
}

/// Appends an attribute of two bytes.
pub fn write_basic(kind: u16, value: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(&(kind | SHORT).to_be_bytes());
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends an attribute of any length; what is longer than 65 535 bytes is cut.
pub fn write_variable(kind: u16, value: &[u8], out: &mut Vec<u8>) {
    let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&(kind & !SHORT).to_be_bytes());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(value);
}

/// Appends a number, in two bytes where it fits.
pub fn write_number(kind: u16, value: u32, out: &mut Vec<u8>) {
    match u16::try_from(value) {
        Ok(value) => write_basic(kind, value, out),
        Err(_) => write_variable(kind, &value.to_be_bytes(), out),
    }
}

const SHORT: u16 = 0x8000;
