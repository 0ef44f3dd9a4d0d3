//! The textual encoding of keys, certificates and revocation lists (RFC 7468).

use zeroize::Zeroizing;

/// One encapsulated object: what it is called, and its DER.
pub struct Object {
    /// The label behind BEGIN, as in `CERTIFICATE`.
    pub label: String,
    /// What the base64 holds.
    pub der: Zeroizing<Vec<u8>>,
}

/// Text that has the boundaries of PEM and is not PEM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not valid PEM")]
pub struct InvalidPem;

/// The objects of a text, in its order; `None` for bytes that hold no boundary, and so may be DER.
///
/// Text between objects is skipped. Lines of any length are taken.
pub fn objects(bytes: &[u8]) -> Option<Result<Vec<Object>, InvalidPem>> {
    let text = std::str::from_utf8(bytes).ok()?;
    text.contains(BEGIN).then(|| read_all(text))
}

fn read_all(text: &str) -> Result<Vec<Object>, InvalidPem> {
    let mut objects = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(BEGIN) {
        let from = rest.get(start..).ok_or(InvalidPem)?;
        let end = from.find(END).ok_or(InvalidPem)?;
        let tail = from.get(end..).ok_or(InvalidPem)?;
        let line = tail.find('\n').unwrap_or(tail.len());
        let (object, after) = from.split_at_checked(end + line).ok_or(InvalidPem)?;
        objects.push(read(object)?);
        rest = after;
    }
    Ok(objects)
}

fn read(text: &str) -> Result<Object, InvalidPem> {
    let width = text.lines().nth(1).map_or(0, |line| line.trim_end().len());
    let mut decoder = if width == 0 {
        return Err(InvalidPem);
    } else {
        der::pem::Decoder::new_wrapped(text.as_bytes(), width).map_err(|_| InvalidPem)?
    };
    let label = decoder.type_label().to_owned();
    let mut der = Zeroizing::new(Vec::new());
    decoder.decode_to_end(&mut der).map_err(|_| InvalidPem)?;
    Ok(Object { label, der })
}

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
