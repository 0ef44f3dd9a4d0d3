//! Seal and open of one packet in place, per suite, size and provider.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lockgate::crypto::packet::{encryption_key_len, integrity_key_len};
use lockgate::crypto::{Associated, PacketKey, Provider};
use lockgate::wire::proposal::{CipherSuite, EncryptionId, IntegrityId};

const SIZES: [usize; 4] = [64, 576, 1400, 8192];
const HEADER: Associated<'_> = Associated {
    header: &[0x12, 0x34, 0x56, 0x78, 0, 0, 0, 1],
    esn_high: Some(0),
};

fn suites() -> Vec<(&'static str, CipherSuite)> {
    let aead = |encryption, key_bits| CipherSuite {
        encryption,
        key_bits,
        integrity: None,
    };
    let mac = |encryption, key_bits, integrity| CipherSuite {
        encryption,
        key_bits,
        integrity: Some(integrity),
    };
    vec![
        ("aes128gcm16", aead(EncryptionId::AES_GCM_16, 128)),
        ("aes192gcm16", aead(EncryptionId::AES_GCM_16, 192)),
        ("aes256gcm16", aead(EncryptionId::AES_GCM_16, 256)),
        ("chacha20poly1305", aead(EncryptionId::CHACHA20_POLY1305, 0)),
        (
            "aes128-sha1",
            mac(EncryptionId::AES_CBC, 128, IntegrityId::HMAC_SHA1_96),
        ),
        (
            "aes256-sha256",
            mac(EncryptionId::AES_CBC, 256, IntegrityId::HMAC_SHA2_256_128),
        ),
        (
            "aes256-sha384",
            mac(EncryptionId::AES_CBC, 256, IntegrityId::HMAC_SHA2_384_192),
        ),
        (
            "aes256-sha512",
            mac(EncryptionId::AES_CBC, 256, IntegrityId::HMAC_SHA2_512_256),
        ),
        (
            "null-sha256",
            mac(EncryptionId::NULL, 0, IntegrityId::HMAC_SHA2_256_128),
        ),
    ]
}

fn bench(criterion: &mut Criterion) {
    for (name, suite) in suites() {
        let encryption = vec![0x42; encryption_key_len(&suite)];
        let integrity = vec![0x17; integrity_key_len(&suite)];
        // Only the AEADs have a second provider.
        let providers: &[_] = match suite.integrity {
            None => &[("fast", Provider::Fast), ("portable", Provider::Portable)],
            Some(_) => &[("fast", Provider::Fast)],
        };
        for &(provider_name, provider) in providers {
            let key = PacketKey::with_provider(provider, suite, &encryption, &integrity)
                .expect("key lengths come from the suite");
            one_key(criterion, &format!("{name}/{provider_name}"), &key);
        }
    }
}

fn one_key(criterion: &mut Criterion, name: &str, key: &PacketKey) {
    let mut group = criterion.benchmark_group(name);
    for size in SIZES {
        let text = size.next_multiple_of(key.block_len());
        let mut buffer = vec![0x5a; key.iv_len() + text + key.icv_len()];
        group.throughput(Throughput::Bytes(size as u64));
        let mut nonce = 0;
        group.bench_function(BenchmarkId::new("seal", size), |bencher| {
            bencher.iter(|| {
                nonce += 1;
                key.seal(nonce, HEADER, black_box(&mut buffer))
                    .expect("the layout fits")
            });
        });
        group.bench_function(BenchmarkId::new("open", size), |bencher| {
            bencher.iter_batched_ref(
                || buffer.clone(),
                |packet| {
                    key.open(HEADER, black_box(packet))
                        .expect("it was sealed")
                        .len()
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
