#!/usr/bin/env python3
"""Writes esp_vectors.json: whole ESP packets as scapy's IPsec layer makes them.

    python3 -m venv venv && venv/bin/pip install scapy==2.8.0 cryptography
    venv/bin/python tests/data/make_esp_vectors.py > tests/data/esp_vectors.json

Each vector holds a suite in strongSwan's spelling, its keys (an AEAD's with the salt behind), the
64-bit sequence number, and the packet: `inner` as it enters the tunnel, `outer` as it travels. The
IVs are the ones that Lockgate chooses, so that the same packet can be compared byte by byte: the
sequence number for an AEAD, its encryption under the same key for CBC.
"""

import json
import random
import struct
import sys

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.ipsec import ESP, SecurityAssociation, _ESPPlain
from scapy.packet import Raw, raw

AEADS = [("AES-GCM", bits, 4, f"aes{bits}gcm16") for bits in (128, 192, 256)]
AEADS += [("CHACHA20-POLY1305", 256, 4, "chacha20poly1305")]
CIPHERS = [("AES-CBC", bits, 0, f"aes{bits}") for bits in (128, 192, 256)]
CIPHERS += [("NULL", 0, 0, "null")]
MACS = [
    ("HMAC-SHA1-96", 20, "sha1"),
    ("SHA2-256-128", 32, "sha256"),
    ("SHA2-384-192", 48, "sha384"),
    ("SHA2-512-256", 64, "sha512"),
]
SEQUENCES = [
    (1, False),
    (0xFFFFFFFF, False),
    (0x00000000FFFFFFFF, True),
    (0x0000000100000000, True),
    (0x89ABCDEF01234567, True),
]
NO_NEXT_HEADER = 59
OUTER_V4 = IP(src="192.0.2.1", dst="198.51.100.1", ttl=64, id=0)
OUTER_V6 = IPv6(src="2001:db8:1::1", dst="2001:db8:2::1", hlim=64)

rng = random.Random(4303)


def suites():
    for cipher, bits, salt, keyword in AEADS:
        yield keyword, cipher, None, bits // 8 + salt, 0
    for cipher, bits, _, keyword in CIPHERS:
        for mac, mac_len, mac_keyword in MACS:
            yield f"{keyword}-{mac_keyword}", cipher, mac, bits // 8, mac_len


def inner_packets():
    """Endless: all four kinds in turn, with every length modulo the cipher block."""
    length = 0
    while True:
        payload = Raw(rng.randbytes(length))
        v4 = IP(src="10.1.0.7", dst="10.2.0.9", id=length, flags="DF")
        v6 = IPv6(src="2001:db8:a::7", dst="2001:db8:b::9", fl=length)
        yield v4 / ICMP(id=7, seq=length) / payload
        yield v6 / UDP(sport=4000, dport=53) / payload
        yield v4 / TCP(sport=40000, dport=443, flags="PA", seq=length) / payload
        yield v6 / ICMPv6EchoRequest(id=7, seq=length) / payload
        length = (length + 7) % 128


def iv_for(cipher, key, sequence):
    if cipher == "NULL":
        return b""
    if cipher == "AES-CBC":
        encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
        return encryptor.update(struct.pack("!QQ", 0, sequence))
    return struct.pack("!Q", sequence)


def seal(sa, iv, sequence, next_header, payload):
    """What SecurityAssociation.encrypt does, for a payload that need not be one IP packet."""
    high, low = sequence >> 32, sequence & 0xFFFFFFFF
    esp = _ESPPlain(spi=sa.spi, seq=low, iv=iv)
    esp.data, esp.nh = payload, next_header
    esp = sa.crypt_algo.pad(esp)
    esp = sa.crypt_algo.encrypt(sa, esp, sa.crypt_key, None, esn_en=sa.esn_en, esn=high)
    return sa.auth_algo.sign(esp, sa.auth_key, esn_en=sa.esn_en, esn=high)


def vectors():
    inners = inner_packets()
    for keyword, cipher, mac, key_len, mac_len in suites():
        for sequence, esn in SEQUENCES:
            udp = rng.random() < 0.5
            outer = rng.choice((OUTER_V4, OUTER_V6))
            key, mac_key = rng.randbytes(key_len), rng.randbytes(mac_len)
            spi = rng.randrange(256, 1 << 32)
            sa = SecurityAssociation(
                ESP,
                spi=spi,
                seq_num=sequence & 0xFFFFFFFF,
                crypt_algo=cipher,
                crypt_key=key or None,
                auth_algo=mac,
                auth_key=mac_key or None,
                tunnel_header=outer,
                nat_t_header=UDP(sport=4500, dport=4500) if udp else None,
                esn_en=esn,
                esn=sequence >> 32,
            )
            inner = next(inners)
            iv = iv_for(cipher, key, sequence)
            vector = {
                "suite": keyword,
                "encryption_key": key.hex(),
                "integrity_key": mac_key.hex(),
                "spi": spi,
                "sequence": f"{sequence:016x}",
                "esn": esn,
                "inner": raw(inner).hex(),
            }
            sealed = sa.encrypt(inner.copy(), iv=iv)
            yield vector | {"kind": "plain", "udp": udp, "outer": raw(sealed).hex()}

            if sequence == 1:
                next_header = 4 if inner.version == 4 else 41
                tfc = seal(sa, iv, sequence, next_header, raw(inner) + bytes(37))
                yield vector | {"kind": "tfc", "udp": False, "outer": tunnel(outer, tfc)}
                dummy = seal(sa, iv, sequence, NO_NEXT_HEADER, rng.randbytes(50))
                yield vector | {"kind": "dummy", "udp": False, "outer": tunnel(outer, dummy)}


def tunnel(outer, esp):
    header = outer.copy()
    header.setfieldval("proto" if header.version == 4 else "nh", 50)
    return raw(header / Raw(raw(esp))).hex()


if __name__ == "__main__":
    json.dump(list(vectors()), sys.stdout, indent=0, separators=(",", ":"))
    print()
