#!/usr/bin/env python3
"""Writes esp_other_vectors.json: like make_esp_vectors.py, for the less common suites.

    python3 -m venv venv && venv/bin/pip install scapy==2.8.0 cryptography==48.0.0
    venv/bin/python tests/data/make_esp_other_vectors.py > tests/data/esp_other_vectors.json

scapy has no GCM with a short ICV, which is the start of the long one (RFC 4106 §6), no AES-XCBC
(written down here from RFC 3566 §4), and no implicit IV for CCM (RFC 8750 §4: the packet with an
explicit one, without it).
"""

import json
import random
import struct
import sys

import make_esp_vectors as common
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scapy.layers import ipsec
from scapy.layers.inet import UDP
from scapy.packet import Raw, raw

SIZES = (128, 192, 256)


class Xcbc:
    """AES-XCBC-MAC, in the shape of a MAC of the cryptography package."""

    def __init__(self, key, _digest, _backend):
        encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
        self.keys = [encryptor.update(bytes([n] * 16)) for n in (1, 2, 3)]
        self.data = b""

    def update(self, data):
        self.data += data

    def finalize(self):
        k1, k2, k3 = self.keys
        at = max(len(self.data) - 1, 0) // 16 * 16
        front, last = self.data[:at], self.data[at:]
        mask = k2 if len(last) == 16 else k3
        if len(last) < 16:
            last = (last + b"\x80").ljust(16, b"\0")
        last = bytes(a ^ b for a, b in zip(last, mask))
        encryptor = Cipher(algorithms.AES(k1), modes.CBC(bytes(16))).encryptor()
        return (encryptor.update(front + last) + encryptor.finalize())[-16:]


class NoDigest:
    pass


ipsec.AUTH_ALGOS["AES-XCBC-96"] = ipsec.AuthAlgo(
    "AES-XCBC-96", mac=Xcbc, digestmod=NoDigest, icv_size=12, key_size=(16,)
)


def suites():
    """Keyword, cipher, bytes of its key, bytes of its ICV, MAC, bytes of the MAC's key."""
    for bits in SIZES:
        for icv in (8, 12):
            yield f"aes{bits}gcm{icv}", "AES-GCM", bits // 8 + 4, icv, None, 0
        for icv in (8, 12, 16):
            yield f"aes{bits}ccm{icv}", "AES-CCM", bits // 8 + 3, icv, None, 0
        yield f"aes{bits}ccm8iiv", "AES-CCM", bits // 8 + 3, 8, None, 0
        yield f"aes{bits}gmac", "AES-NULL-GMAC", bits // 8 + 4, 16, None, 0
        yield f"aes{bits}ctr-sha256", "AES-CTR", bits // 8 + 4, 0, "SHA2-256-128", 32
    yield "aes128ctr-aescmac", "AES-CTR", 20, 0, "AES-CMAC-96", 16
    yield "3des-md5", "3DES", 24, 0, "HMAC-MD5-96", 16
    yield "3des-sha1", "3DES", 24, 0, "HMAC-SHA1-96", 20
    for keyword, cipher, length in (("aes128", "AES-CBC", 16), ("null", "NULL", 0)):
        yield f"{keyword}-md5", cipher, length, 0, "HMAC-MD5-96", 16
        yield f"{keyword}-aescmac", cipher, length, 0, "AES-CMAC-96", 16
        yield f"{keyword}-aesxcbc", cipher, length, 0, "AES-XCBC-96", 16


def iv_for(cipher, key, sequence):
    if cipher == "3DES":
        triple = ipsec.CRYPT_ALGOS["3DES"].cipher(key)
        encryptor = Cipher(triple, modes.ECB()).encryptor()
        return encryptor.update(struct.pack("!Q", sequence))
    return common.iv_for(cipher, key, sequence)


def seal(sa, keyword, iv, icv_len, sequence, next_header, payload):
    high, low = sequence >> 32, sequence & 0xFFFFFFFF
    esp = ipsec._ESPPlain(spi=sa.spi, seq=low, iv=iv)
    esp.data, esp.nh = payload, next_header
    esp = sa.crypt_algo.pad(esp)
    whole = 16 if sa.crypt_algo.name == "AES-GCM" else icv_len
    esp = sa.crypt_algo.encrypt(
        sa, esp, sa.crypt_key, whole, esn_en=sa.esn_en, esn=high
    )
    if whole > icv_len:
        esp.data = esp.data[: icv_len - whole]
    if keyword.endswith("iiv"):
        esp.data = esp.data[len(iv) :]
    return raw(sa.auth_algo.sign(esp, sa.auth_key, esn_en=sa.esn_en, esn=high))


def carried(outer, udp, esp):
    packet = outer.copy()
    if udp:
        packet = packet / UDP(sport=4500, dport=4500, chksum=0)
    packet.setfieldval("proto" if outer.version == 4 else "nh", 17 if udp else 50)
    return raw(packet / Raw(esp)).hex()


def vectors(rng):
    inners = common.inner_packets()
    for keyword, cipher, key_len, icv_len, mac, mac_len in suites():
        for sequence, esn in common.SEQUENCES:
            udp = rng.random() < 0.5
            outer = rng.choice((common.OUTER_V4, common.OUTER_V6))
            key, mac_key = rng.randbytes(key_len), rng.randbytes(mac_len)
            sa = ipsec.SecurityAssociation(
                ipsec.ESP,
                spi=rng.randrange(256, 1 << 32),
                crypt_algo=cipher,
                crypt_key=key or None,
                auth_algo=mac,
                auth_key=mac_key or None,
                esn_en=esn,
                esn=sequence >> 32,
            )
            inner = next(inners)
            iv = iv_for(cipher, key, sequence)
            vector = {
                "suite": keyword,
                "encryption_key": key.hex(),
                "integrity_key": mac_key.hex(),
                "spi": sa.spi,
                "sequence": f"{sequence:016x}",
                "esn": esn,
                "inner": raw(inner).hex(),
            }
            tunnel = 4 if inner.version == 4 else 41
            packets = [("plain", udp, tunnel, raw(inner))]
            if sequence == 1:
                packets.append(("tfc", False, tunnel, raw(inner) + bytes(37)))
                dummy = rng.randbytes(50)
                packets.append(("dummy", False, common.NO_NEXT_HEADER, dummy))
            for kind, udp, next_header, payload in packets:
                esp = seal(sa, keyword, iv, icv_len, sequence, next_header, payload)
                packet = carried(outer, udp, esp)
                yield vector | {"kind": kind, "udp": udp, "outer": packet}


if __name__ == "__main__":
    json.dump(
        list(vectors(random.Random(8221))),
        sys.stdout,
        indent=0,
        separators=(",", ":"),
    )
    print()
