//! A sealed file: bytes in chunks that are encrypted and authenticated one by one.
//!
//! ```text
//! offset  size  field            all integers big-endian
//!      0     4  magic            "VIDX"
//!      4     2  format_version   1
//!      6     1  chunk_log2       15: chunks of 32 KiB
//!      7     1  reserved         0
//!      8    32  salt             random
//!     40     …  chunks           32 KiB of plain bytes and a tag of 16 bytes each; the last one may be shorter
//! ```
//!
//! # Invariants
//! 1. Every file has a key of its own: HKDF-SHA256 of the index key, the salt and the file's name. A file that is
//!    renamed or moved into another partition does not open.
//! 2. The nonce of a chunk is its index and whether it is the last: chunks cannot change places, and a file cut at a
//!    chunk's end does not open (STREAM; Hoang, Reyhanitabar, Rogaway, Vizár 2015). The header is authenticated with
//!    every chunk.
//! 3. Files are written once and not synced: they are derived state, and what a power cut leaves behind is recognised.

use std::io::{self, Write};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf;
use ring::rand::{SecureRandom, SystemRandom};

const MAGIC: &[u8; 4] = b"VIDX";
const FORMAT_VERSION: u8 = 1;
const CHUNK_LOG2: u8 = 15;
const INFO: &[u8] = b"vidar index file v1\0";

/// Plain bytes of a chunk.
pub(crate) const CHUNK_LEN: usize = 1 << CHUNK_LOG2;
/// Bytes of the header.
pub(crate) const HEADER_LEN: usize = 40;
const TAG_LEN: usize = 16;
/// Bytes of a full chunk in the file.
pub(crate) const SEALED_CHUNK_LEN: usize = CHUNK_LEN + TAG_LEN;

/// Opens (and seals) the chunks of one file.
pub(crate) struct FileKey {
    key: LessSafeKey,
    header: [u8; HEADER_LEN],
}

impl std::fmt::Debug for FileKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FileKey(..)")
    }
}

impl FileKey {
    /// Of a file to be written.
    fn new(index_key: &[u8; 32], name: &str) -> io::Result<Self> {
        let mut header = [0; HEADER_LEN];
        header[..4].copy_from_slice(MAGIC);
        header[4..8].copy_from_slice(&[0, FORMAT_VERSION, CHUNK_LOG2, 0]);
        let random = SystemRandom::new().fill(&mut header[8..]);
        random.map_err(|_| io::Error::other("no random bytes from the system"))?;
        Self::of_header(index_key, name, header)
    }

    /// Of a file with this header.
    pub(crate) fn of_header(index_key: &[u8; 32], name: &str, header: [u8; HEADER_LEN]) -> io::Result<Self> {
        if header[..4] != *MAGIC || header[4..8] != [0, FORMAT_VERSION, CHUNK_LOG2, 0] {
            return Err(damaged(name, "not a sealed index file of version 1"));
        }
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, &header[8..]);
        let info = [INFO, name.as_bytes()];
        let secret = salt.extract(index_key);
        let key = secret.expand(&info, &AES_256_GCM).map(UnboundKey::from);
        let key = key.map_err(|_| io::Error::other("key derivation failed"))?;
        Ok(Self { key: LessSafeKey::new(key), header })
    }

    fn seal(&self, index: u64, last: bool, chunk: &mut Vec<u8>) -> io::Result<()> {
        let sealed = self.key.seal_in_place_append_tag(nonce(index, last), Aad::from(&self.header), chunk);
        sealed.map_err(|_| io::Error::other("sealing failed"))
    }

    /// Plain bytes of one chunk, in place.
    pub(crate) fn open<'a>(&self, index: u64, last: bool, sealed: &'a mut [u8]) -> Option<&'a [u8]> {
        let plain = self.key.open_in_place(nonce(index, last), Aad::from(&self.header), sealed);
        plain.ok().map(|plain| &*plain)
    }
}

fn nonce(index: u64, last: bool) -> Nonce {
    let mut nonce = [0; 12];
    nonce[3] = u8::from(last);
    nonce[4..].copy_from_slice(&index.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

pub(crate) fn damaged(name: &str, detail: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("index file {name}: {detail}"))
}

/// How a sealed file of a certain length is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) plain_len: u64,
    pub(crate) chunk_count: u64,
}

impl Layout {
    /// None: no sealed file is that long.
    pub(crate) fn of_file_len(file_len: u64) -> Option<Self> {
        let body = file_len.checked_sub(HEADER_LEN as u64)?;
        let chunk_count = body.div_ceil(SEALED_CHUNK_LEN as u64);
        let last = body.checked_sub(chunk_count.checked_sub(1)? * SEALED_CHUNK_LEN as u64)?;
        if last < TAG_LEN as u64 {
            return None;
        }
        Some(Self { plain_len: body - chunk_count * TAG_LEN as u64, chunk_count })
    }

    pub(crate) fn is_last(self, index: u64) -> bool {
        index + 1 == self.chunk_count
    }

    /// Bytes of a chunk in the file.
    pub(crate) fn sealed_len(self, index: u64) -> usize {
        let full = SEALED_CHUNK_LEN as u64;
        let rest = (self.plain_len + self.chunk_count * TAG_LEN as u64).saturating_sub(index * full);
        usize::try_from(rest.min(full)).unwrap_or(SEALED_CHUNK_LEN)
    }
}

/// Seals what is written to it. Without [`finish`](Self::finish) the file does not open.
pub(crate) struct Writer<W> {
    file: W,
    key: FileKey,
    chunk: Vec<u8>,
    index: u64,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(mut file: W, index_key: &[u8; 32], name: &str) -> io::Result<Self> {
        let key = FileKey::new(index_key, name)?;
        file.write_all(&key.header)?;
        Ok(Self { file, key, chunk: Vec::with_capacity(SEALED_CHUNK_LEN), index: 0 })
    }

    fn put_chunk(&mut self, last: bool) -> io::Result<()> {
        self.key.seal(self.index, last, &mut self.chunk)?;
        self.file.write_all(&self.chunk)?;
        self.chunk.clear();
        self.index += 1;
        Ok(())
    }

    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.put_chunk(true)?;
        self.file.flush()
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full chunk waits: it may be the last.
        if self.chunk.len() == CHUNK_LEN && !bytes.is_empty() {
            self.put_chunk(false)?;
        }
        let taken = bytes.len().min(CHUNK_LEN - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A whole file in memory.
pub(crate) fn seal_all(index_key: &[u8; 32], name: &str, plain: &[u8]) -> io::Result<Vec<u8>> {
    let mut sealed = Vec::with_capacity(HEADER_LEN + plain.len() + TAG_LEN * (plain.len() / CHUNK_LEN + 1));
    let mut writer = Writer::new(&mut sealed, index_key, name)?;
    writer.write_all(plain)?;
    writer.finish()?;
    Ok(sealed)
}

/// The plain bytes of a whole file.
///
/// # Errors
/// If any of it is not what was sealed under this key and name.
pub(crate) fn open_all(index_key: &[u8; 32], name: &str, sealed: &[u8]) -> io::Result<Vec<u8>> {
    let layout = Layout::of_file_len(sealed.len() as u64).ok_or_else(|| damaged(name, "truncated"))?;
    let (header, body) = sealed.split_first_chunk::<HEADER_LEN>().ok_or_else(|| damaged(name, "truncated"))?;
    let key = FileKey::of_header(index_key, name, *header)?;
    let mut plain = Vec::with_capacity(body.len());
    for (index, chunk) in (0..).zip(body.chunks(SEALED_CHUNK_LEN)) {
        let mut chunk = chunk.to_vec();
        let opened = key.open(index, layout.is_last(index), &mut chunk);
        plain.extend_from_slice(opened.ok_or_else(|| damaged(name, &format!("chunk {index} does not open")))?);
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];
    const LENGTHS: [usize; 7] = [0, 1, CHUNK_LEN - 1, CHUNK_LEN, CHUNK_LEN + 1, 2 * CHUNK_LEN, 3 * CHUNK_LEN + 5];

    fn plain(len: usize) -> Vec<u8> {
        (0..len).map(|index| (index % 251) as u8).collect()
    }

    #[test]
    fn what_is_sealed_opens_at_every_length() {
        for len in LENGTHS {
            let sealed = seal_all(&KEY, "a", &plain(len)).unwrap();
            let layout = Layout::of_file_len(sealed.len() as u64).unwrap();
            assert_eq!(layout.plain_len, len as u64);
            let lengths: usize = (0..layout.chunk_count).map(|index| layout.sealed_len(index)).sum();
            assert_eq!(HEADER_LEN + lengths, sealed.len());
            assert_eq!(open_all(&KEY, "a", &sealed).unwrap(), plain(len), "{len}");
        }
    }

    #[test]
    fn nothing_else_opens() {
        for len in LENGTHS {
            let sealed = seal_all(&KEY, "a", &plain(len)).unwrap();
            assert!(open_all(&KEY, "b", &sealed).is_err(), "another name");
            assert!(open_all(&[8; 32], "a", &sealed).is_err(), "another key");
            for position in (0..sealed.len()).step_by(997).chain(0..HEADER_LEN).chain([sealed.len() - 1]) {
                let mut flipped = sealed.clone();
                flipped[position] ^= 1;
                assert!(open_all(&KEY, "a", &flipped).is_err(), "bit flip at {position} of {len}");
            }
            for cut in (0..sealed.len()).step_by(997).chain([HEADER_LEN, HEADER_LEN + SEALED_CHUNK_LEN]) {
                if cut < sealed.len() {
                    assert!(open_all(&KEY, "a", &sealed[..cut]).is_err(), "cut at {cut} of {len}");
                }
            }
        }
    }

    #[test]
    fn chunks_do_not_change_places() {
        let sealed = seal_all(&KEY, "a", &plain(3 * CHUNK_LEN)).unwrap();
        let mut swapped = sealed[..HEADER_LEN].to_vec();
        for index in [1, 0, 2] {
            let at = HEADER_LEN + index * SEALED_CHUNK_LEN;
            swapped.extend_from_slice(&sealed[at..at + SEALED_CHUNK_LEN]);
        }
        assert!(open_all(&KEY, "a", &sealed).is_ok());
        assert!(open_all(&KEY, "a", &swapped).is_err());
    }

    #[test]
    fn no_plain_byte_is_seen_and_no_two_files_are_alike() {
        let secret = b"a stream with a name of its own".repeat(100);
        let [one, two] = [(); 2].map(|()| seal_all(&KEY, "a", &secret).unwrap());
        assert!(!one.windows(8).any(|window| window == &secret[..8]));
        assert_ne!(one[HEADER_LEN..], two[HEADER_LEN..]);
    }
}
