//! Vendor ids: what a peer can do beyond RFC 2409, and what it is (RFC 2408 §3.16).

/// A vendor id that we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VendorId {
    /// For people.
    pub name: &'static str,
    /// The payload's body, or its beginning where a version follows.
    pub bytes: &'static [u8],
    /// Whether more bytes may follow.
    pub open: bool,
}

impl VendorId {
    /// The vendor id that a payload holds, if it is known.
    pub fn recognise(body: &[u8]) -> Option<&'static Self> {
        KNOWN.iter().find(|known| known.is(body))
    }

    /// Whether a payload holds this one.
    pub fn is(&self, body: &[u8]) -> bool {
        if self.open {
            body.starts_with(self.bytes)
        } else {
            body == self.bytes
        }
    }
}

/// RFC 3947 §3.1: MD5 of "RFC 3947".
pub const NAT_T: VendorId = whole(
    "NAT-T (RFC 3947)",
    b"\x4a\x13\x1c\x81\x07\x03\x58\x45\x5c\x57\x28\xf2\x0e\x95\x45\x2f",
);
/// MD5 of "draft-ietf-ipsec-nat-t-ike-03".
pub const NAT_T_DRAFT_03: VendorId = whole(
    "NAT-T (draft-ietf-ipsec-nat-t-ike-03)",
    b"\x7d\x94\x19\xa6\x53\x10\xca\x6f\x2c\x17\x9d\x92\x15\x52\x9d\x56",
);
/// MD5 of "draft-ietf-ipsec-nat-t-ike-02".
pub const NAT_T_DRAFT_02: VendorId = whole(
    "NAT-T (draft-ietf-ipsec-nat-t-ike-02)",
    b"\xcd\x60\x46\x43\x35\xdf\x21\xf8\x7c\xfd\xb2\xfc\x68\xb6\xa4\x48",
);
/// The same with a line feed, as some have hashed it.
pub const NAT_T_DRAFT_02_N: VendorId = whole(
    "NAT-T (draft-ietf-ipsec-nat-t-ike-02\\n)",
    b"\x90\xcb\x80\x91\x3e\xbb\x69\x6e\x08\x63\x81\xb5\xec\x42\x7b\x1f",
);
/// RFC 3706 §5.1, version 1.0.
pub const DPD: VendorId = whole(
    "DPD (RFC 3706)",
    b"\xaf\xca\xd7\x13\x68\xa1\xf1\xc9\x6b\x86\x96\xfc\x77\x57\x01\x00",
);
/// draft-ietf-ipsec-isakmp-xauth-06 §5.
pub const XAUTH: VendorId = whole("XAUTH", b"\x09\x00\x26\x89\xdf\xd6\xb7\x12");
/// Cisco's attributes of Mode Config.
pub const UNITY: VendorId = whole(
    "Cisco Unity",
    b"\x12\xf5\xf2\x8c\x45\x71\x68\xa9\x70\x2d\x9f\xe2\x74\xcc\x01\x00",
);
/// Fragments of messages. Capabilities may follow.
pub const FRAGMENTATION: VendorId = open(
    "FRAGMENTATION",
    b"\x40\x48\xb7\xd5\x6e\xbc\xe8\x85\x25\xe7\xde\x7f\x00\xd6\xc2\xd3",
);

const fn whole(name: &'static str, bytes: &'static [u8]) -> VendorId {
    VendorId {
        name,
        bytes,
        open: false,
    }
}

const fn open(name: &'static str, bytes: &'static [u8]) -> VendorId {
    VendorId {
        name,
        bytes,
        open: true,
    }
}

const KNOWN: [VendorId; 22] = [
    NAT_T,
    NAT_T_DRAFT_03,
    NAT_T_DRAFT_02,
    NAT_T_DRAFT_02_N,
    DPD,
    XAUTH,
    UNITY,
    FRAGMENTATION,
    whole(
        "NAT-T (draft-ietf-ipsec-nat-t-ike-00)",
        b"\x44\x85\x15\x2d\x18\xb6\xbb\xcd\x0b\xe8\xa8\x46\x95\x79\xdd\xcc",
    ),
    whole(
        "strongSwan",
        b"\x88\x2f\xe5\x6d\x6f\xd2\x0d\xbc\x22\x51\x61\x3b\x2e\xbe\x5b\xeb",
    ),
    open(
        "Cisco VPN Concentrator",
        b"\x1f\x07\xf7\x0e\xaa\x65\x14\xd3\xb0\xfa\x96\x54\x2a",
    ),
    whole(
        "Cisco VPN 3000 client",
        b"\xf6\xf7\xef\xc7\xf5\xae\xb8\xcb\x15\x8c\xb9\xd0\x94\xba\x69\xe7",
    ),
    open(
        "Windows",
        b"\x1e\x2b\x51\x69\x05\x99\x1c\x7d\x7c\x96\xfc\xbf\xb5\x87\xe4\x61",
    ),
    open(
        "Check Point FireWall-1",
        b"\xf4\xed\x19\xe0\xc1\x14\xeb\x51\x6f\xaa\xac\x0e\xe3\x7d\xaf\x28\x07\xb4\x38\x1f",
    ),
    open("SonicWALL", b"\x5b\x36\x2b\xc8\x20\xf6\x00"),
    whole("SonicWALL", b"\x40\x4b\xf4\x39\x52\x2c\xa3\xf6"),
    open("Nortel Contivity", b"BNES"),
    whole(
        "KAME racoon",
        b"\x70\x03\xcb\xc1\x09\x7d\xbe\x9c\x26\x00\xba\x69\x83\xbc\x8b\x35",
    ),
    whole("HeartBeat", b"HeartBeat_Notify"),
    open("OpenPGP", b"OpenPGP"),
    open(
        "Fortinet FortiGate",
        b"\x82\x99\x03\x17\x57\xa3\x60\x82\xc6\xa6\x21\xde",
    ),
    open("libreswan or Openswan", b"OE"),
];
