#!/usr/bin/env python3
"""Writes esp_transport_vectors.json: ESP packets in transport mode as scapy's IPsec layer makes them.

    python3 -m venv venv && venv/bin/pip install scapy==2.8.0 cryptography
    venv/bin/python tests/data/make_esp_transport_vectors.py > tests/data/esp_transport_vectors.json

Each vector holds a suite in strongSwan's spelling, its keys (an AEAD's with the salt behind), the
packet as the sending host makes it (`inner`), the ESP packet without what carries it (`esp`), and the
packet as it is between the addresses that a NAT has made of them (`translated`), its checksum computed
anew by scapy. IVs are the ones that Lockgate chooses.
"""

import json
import random
import struct
import sys

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.ipsec import ESP, SecurityAssociation
from scapy.packet import Raw, raw

SUITES = [
    ("AES-GCM", None, 36, 0, "aes256gcm16"),
    ("CHACHA20-POLY1305", None, 36, 0, "chacha20poly1305"),
    ("AES-CBC", "SHA2-256-128", 16, 32, "aes128-sha256"),
    ("NULL", "HMAC-SHA1-96", 0, 20, "null-sha1"),
]
# Source, what a NAT or a translator of prefixes makes of it, destination; length of the IP header.
ENDS = {
    IP: ("172.16.0.1", "203.0.113.9", "192.0.2.2", 20),
    IPv6: ("fd00:7:7::1", "2001:db8:77::9", "2001:db8::2", 40),
}

rng = random.Random(3948)


def iv_for(cipher, key, sequence):
    if cipher == "NULL":
        return b""
    if cipher == "AES-CBC":
        encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
        return encryptor.update(struct.pack("!QQ", 0, sequence))
    return struct.pack("!Q", sequence)


def packet(version, source, destination, upper):
    # The packet that a NAT would make of it has another checksum, so scapy computes it for each source.
    if version == IP:
        return raw(IP(src=source, dst=destination, id=0, flags="DF", ttl=64) / upper)
    return raw(IPv6(src=source, dst=destination, hlim=64) / upper)


def vectors(version, echo, seldom):
    source, translated, destination, header_len = ENDS[version]
    uppers = [
        lambda data: TCP(sport=40000, dport=443, flags="PA", seq=7) / Raw(data),
        lambda data: UDP(sport=4000, dport=53) / Raw(data),
        lambda data: seldom / Raw(data),
        lambda data: echo(id=7, seq=3) / Raw(data),
    ]
    for cipher, mac, key_len, mac_len, keyword in SUITES:
        for sequence, length in enumerate((0, 1, 2, 3, 13, 64, 200), 1):
            for upper in uppers:
                key, mac_key, data = (rng.randbytes(n) for n in (key_len, mac_len, length))
                spi = rng.randrange(256, 1 << 32)
                sa = SecurityAssociation(
                    ESP,
                    spi=spi,
                    seq_num=sequence,
                    crypt_algo=cipher,
                    crypt_key=key or None,
                    auth_algo=mac,
                    auth_key=mac_key or None,
                )
                inner = packet(version, source, destination, upper(data))
                iv = iv_for(cipher, key, sequence)
                sealed = raw(sa.encrypt(version(inner), iv=iv))
                yield {
                    "suite": keyword,
                    "encryption_key": key.hex(),
                    "integrity_key": mac_key.hex(),
                    "spi": spi,
                    "sequence": sequence,
                    "inner": inner.hex(),
                    "esp": sealed[header_len:].hex(),
                    "translated": packet(version, translated, destination, upper(data)).hex(),
                }


v4 = vectors(IP, ICMP, UDP(sport=4000, dport=53, chksum=0))
v6 = vectors(IPv6, ICMPv6EchoRequest, UDP(sport=4000, dport=4500))
json.dump([*v4, *v6], sys.stdout, indent=0, separators=(",", ":"))
print()
