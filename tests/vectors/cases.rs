//! Reads the vector files of `tests/data`: `[name]`, then `key = hex` with continuation lines.

use std::convert::Infallible;

use data_encoding::HEXLOWER;
use lockgate::wire::proposal::{CipherSuite, EncryptionId, IntegrityId};
use rand_core::{TryCryptoRng, TryRng};

/// One named case of a vector file.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    fields: Vec<(String, String)>,
}

impl Case {
    /// The bytes of a field, which must exist.
    pub(crate) fn get(&self, key: &str) -> Vec<u8> {
        let (_, hex) = self
            .fields
            .iter()
            .find(|(name, _)| name == key)
            .unwrap_or_else(|| panic!("{} has no {key}", self.name));
        HEXLOWER
            .decode(hex.as_bytes())
            .unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// The bytes of a field that not every case has.
    pub(crate) fn find(&self, key: &str) -> Option<Vec<u8>> {
        let known = self.fields.iter().any(|(name, _)| name == key);
        known.then(|| self.get(key))
    }

    /// A field that holds one big-endian number.
    pub(crate) fn number(&self, key: &str) -> u64 {
        self.get(key)
            .iter()
            .fold(0, |number, &byte| number << 8 | u64::from(byte))
    }

    /// An IANA number.
    pub(crate) fn id(&self, key: &str) -> u16 {
        self.number(key)
            .try_into()
            .expect("IANA numbers have 16 bits")
    }

    /// The upper half of an extended sequence number, absent where the field is empty.
    pub(crate) fn esn_high(&self) -> Option<u32> {
        let bytes = self.get("esn_high");
        (!bytes.is_empty()).then(|| self.number("esn_high").try_into().expect("it has 32 bits"))
    }
}

/// All cases of a file, at least one.
pub(crate) fn cases(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            cases.push(Case {
                name: name.to_owned(),
                fields: Vec::new(),
            });
            continue;
        }
        let fields = &mut cases
            .last_mut()
            .expect("a case starts with its name")
            .fields;
        match line.split_once(" =") {
            Some((key, hex)) => fields.push((key.to_owned(), hex.trim().to_owned())),
            None => fields
                .last_mut()
                .expect("a field has a key")
                .1
                .push_str(line.trim()),
        }
    }
    assert!(!cases.is_empty());
    cases
}

/// A suite from its numbers; `key_len` is that of an AES key in bytes.
pub(crate) fn suite(encryption: u16, key_len: usize, integrity: Option<u16>) -> CipherSuite {
    let encryption = EncryptionId(encryption);
    let fixed = matches!(
        encryption,
        EncryptionId::CHACHA20_POLY1305 | EncryptionId::NULL
    );
    let key_bits = if fixed { 0 } else { key_len * 8 };
    CipherSuite {
        encryption,
        key_bits: key_bits.try_into().expect("no key is that long"),
        integrity: integrity.map(IntegrityId),
    }
}

/// Hands out prepared bytes as if they were random, and panics when they run out.
pub(crate) struct Prepared(pub(crate) Vec<u8>);

impl TryRng for Prepared {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        unreachable!("private values are drawn as bytes")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        unreachable!("private values are drawn as bytes")
    }

    fn try_fill_bytes(&mut self, output: &mut [u8]) -> Result<(), Infallible> {
        let rest = self.0.split_off(output.len());
        output.copy_from_slice(&self.0);
        self.0 = rest;
        Ok(())
    }
}

impl TryCryptoRng for Prepared {}
