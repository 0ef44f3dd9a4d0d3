#!/usr/bin/env python3
"""Writes esp_iiv_vectors.json: ESP packets with an implicit IV (RFC 8750).

    python3 -m venv venv && venv/bin/pip install cryptography==48.0.0
    venv/bin/python tests/data/make_esp_iiv_vectors.py > tests/data/esp_iiv_vectors.json

RFC 8750 has no examples, and no tool that makes packets knows its transforms. The layout is written
down here from RFC 4303 §2, RFC 4106 §4 and §5, RFC 7634 §2 and RFC 8750 §4; the ciphers are OpenSSL's
by way of the `cryptography` package. The fields are those of make_esp_vectors.py.
"""

import json
import random
import struct
import sys

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

SUITES = [(f"aes{bits}gcm16iiv", AESGCM, bits // 8) for bits in (128, 192, 256)]
SUITES += [("chacha20poly1305iiv", ChaCha20Poly1305, 32)]
SEQUENCES = [
    (1, False),
    (0xFFFFFFFF, False),
    (0x00000000FFFFFFFF, True),
    (0x0000000100000000, True),
    (0x89ABCDEF01234567, True),
]
ESP, UDP = 50, 17
IN_IPV4, IN_IPV6, DUMMY = 4, 41, 59

rng = random.Random(8750)


def checksum(header):
    total = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(src, dst, protocol, body):
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0x4000, 64, protocol, 0)
    header += bytes(src) + bytes(dst)
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + body


def ipv6(src, dst, protocol, body):
    return struct.pack("!IHBB", 0x60000000, len(body), protocol, 64) + src + dst + body


def address(site, host):
    return bytes.fromhex(f"20010db8{site:08x}") + host.to_bytes(8, "big")


def inner_packet(version, length):
    body = struct.pack("!HHHH", 4000, 53, 8 + length, 0) + rng.randbytes(length)
    if version == 4:
        return ipv4((10, 1, 0, 7), (10, 2, 0, 9), UDP, body)
    return ipv6(address(0x000A0000, 7), address(0x000B0000, 9), UDP, body)


def seal(cipher, key, salt, spi, sequence, esn, next_header, payload):
    padding = bytes(range(1, 1 + -(len(payload) + 2) % 4))
    text = payload + padding + bytes([len(padding), next_header])
    header = struct.pack("!II", spi, sequence & 0xFFFFFFFF)
    aad = struct.pack("!IQ", spi, sequence) if esn else header
    return header + cipher(key).encrypt(salt + struct.pack("!Q", sequence), text, aad)


def vectors():
    for keyword, cipher, key_len in SUITES:
        for number, (sequence, esn) in enumerate(SEQUENCES):
            key, salt = rng.randbytes(key_len), rng.randbytes(4)
            spi = rng.randrange(256, 1 << 32)
            version = (4, 6)[number % 2]
            next_header = (IN_IPV4, IN_IPV6)[number % 2]
            inner = inner_packet(version, rng.randrange(0, 100))
            kinds = {"plain": (next_header, inner)}
            if sequence == 1:
                kinds["tfc"] = (next_header, inner + bytes(37))
                kinds["dummy"] = (DUMMY, rng.randbytes(50))
            for kind, (next_header, payload) in kinds.items():
                packet = seal(cipher, key, salt, spi, sequence, esn, next_header, payload)
                yield {
                    "suite": keyword,
                    "encryption_key": (key + salt).hex(),
                    "integrity_key": "",
                    "spi": spi,
                    "sequence": f"{sequence:016x}",
                    "esn": esn,
                    "inner": inner.hex(),
                    "kind": kind,
                    "udp": False,
                    "outer": ipv4((192, 0, 2, 1), (198, 51, 100, 1), ESP, packet).hex(),
                }


json.dump(list(vectors()), sys.stdout, indent=0, separators=(",", ":"))
print()
