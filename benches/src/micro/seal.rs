//! Sealing media as the store does: AES-256-GCM by `ring`, in chunks of 64 KiB, each copied once behind the last and
//! sealed in place, its tag behind it (`docs/formats/record.md`). Beside it the same with `aes-gcm`.

use aes_gcm::aead::{AeadInOut, KeyInit};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::measure::{Report, Work};

const CHUNK_BYTES: usize = 64 << 10;
const TAG_BYTES: usize = 16;
const KEY: [u8; 32] = [7; 32];
const AAD: [u8; 128] = [9; 128];

pub(super) fn rows(report: &mut Report) {
    for (name, len) in [("seal 64 KiB", 64 << 10), ("seal 1 MiB", 1 << 20)] {
        let plain: Vec<u8> = (0..len).map(|i: usize| (i * 7) as u8).collect();
        let (fast, reference) = (fast(), reference());
        // One sealed buffer each: not the allocator is measured.
        let mut sealed = (Vec::with_capacity(2 * len), Vec::with_capacity(2 * len));
        report.row(
            name,
            Work::Bytes(len),
            || seal(&plain, &mut sealed.0, &fast),
            "the same with aes-gcm",
            || seal(&plain, &mut sealed.1, &reference),
        );
    }
}

/// Seals a chunk in place under the nonce of its index.
type SealChunk = dyn Fn([u8; 12], &mut [u8]) -> [u8; TAG_BYTES];

fn fast() -> Box<SealChunk> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &KEY).expect("a key of 32 bytes"));
    Box::new(move |nonce, chunk| {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(&AAD), chunk).expect("less than 64 GiB");
        tag.as_ref().try_into().expect("a tag of 16 bytes")
    })
}

fn reference() -> Box<SealChunk> {
    let key = aes_gcm::Aes256Gcm::new((&KEY).into());
    Box::new(move |nonce, chunk| {
        key.encrypt_inout_detached((&nonce).into(), &AAD, chunk.into()).expect("less than 64 GiB").into()
    })
}

/// Returns the last byte, so that nothing of it is left out.
fn seal(plain: &[u8], out: &mut Vec<u8>, seal_chunk: &SealChunk) -> Option<u8> {
    out.clear();
    for (index, chunk) in plain.chunks(CHUNK_BYTES).enumerate() {
        let start = out.len();
        out.extend_from_slice(chunk);
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&(index as u64).to_be_bytes());
        let tag = seal_chunk(nonce, &mut out[start..]);
        out.extend_from_slice(&tag);
    }
    out.last().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_seal_to_the_same_bytes() {
        let plain = vec![3; CHUNK_BYTES + 1];
        let mut sealed = (Vec::new(), Vec::new());
        seal(&plain, &mut sealed.0, &fast());
        seal(&plain, &mut sealed.1, &reference());
        assert_eq!(sealed.0.len(), plain.len() + 2 * TAG_BYTES);
        assert!(sealed.0 == sealed.1);
    }
}
