//! NAL units in their two framings, and what stands inside them.
//!
//! Byte stream (start codes): ISO/IEC 14496-10 Annex B, ISO/IEC 23008-2 Annex B. Length fields: ISO/IEC 14496-15
//! section 5.3.2.

use bytes::{BufMut, Bytes, BytesMut};

use super::CodecError;

/// Splits a byte stream at its start codes (3 or 4 bytes). Trailing zeros are no part of a NAL unit; empty ones are
/// left out, and so is what precedes the first start code. The units are slices of the input.
#[must_use]
pub fn split_annex_b(data: &Bytes) -> Vec<Bytes> {
    let mut nals = Vec::new();
    let mut next = find_start_code(data, 0);
    while let Some(code) = next {
        let start = code + 3;
        next = find_start_code(data, start);
        let nal = trim(&data[start..next.unwrap_or(data.len())]);
        if !nal.is_empty() {
            nals.push(data.slice(start..start + nal.len()));
        }
    }
    nals
}

/// True if the bytes begin as a byte stream does: zeros, then `00 00 01`.
#[must_use]
pub fn is_annex_b(data: &[u8]) -> bool {
    let zeros = data.iter().take_while(|byte| **byte == 0).count();
    zeros >= 2 && data.get(zeros) == Some(&1)
}

/// NAL units, each behind a length of 4 bytes.
#[must_use]
pub fn length_prefixed(nals: &[Bytes]) -> Bytes {
    let mut out = BytesMut::with_capacity(nals.iter().map(|nal| nal.len() + 4).sum());
    for nal in nals {
        out.put_u32(u32::try_from(nal.len()).unwrap_or(u32::MAX));
        out.extend_from_slice(nal);
    }
    out.freeze()
}

/// NAL units behind lengths of `length_size` bytes (1 to 4), each with the offset of its length field. After an error
/// the iterator ends. Empty units are given out too.
pub fn iter_length_prefixed(
    data: &[u8],
    length_size: u8,
) -> impl Iterator<Item = Result<(usize, &[u8]), CodecError>> + '_ {
    let length_size = usize::from(length_size).clamp(1, 4);
    let mut offset = 0;
    std::iter::from_fn(move || {
        let rest = data.get(offset..).filter(|rest| !rest.is_empty())?;
        let at = offset;
        let nal = rest.split_at_checked(length_size).and_then(|(field, rest)| {
            let len = field.iter().fold(0_usize, |len, byte| len << 8 | usize::from(*byte));
            rest.get(..len)
        });
        offset = nal.map_or(data.len(), |nal| at + length_size + nal.len());
        Some(nal.map(|nal| (at, nal)).ok_or_else(|| {
            CodecError::new(format!("NAL unit length at byte {at} reaches past the {} bytes of the sample", data.len()))
        }))
    })
}

/// The bytes without emulation prevention (`00 00 03` becomes `00 00`; ISO/IEC 14496-10 section 7.4.1).
#[must_use]
pub fn unescape(nal: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(nal.len());
    let mut zeros = 0;
    for byte in nal {
        if zeros >= 2 && *byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
        out.push(*byte);
    }
    out
}

/// Without trailing zeros: a NAL unit never ends in one, some senders pad.
pub(crate) fn trim(nal: &[u8]) -> &[u8] {
    let len = nal.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &nal[..len]
}

/// Where the next `00 00 01` stands, at or after `from`.
pub(crate) fn find_start_code(data: &[u8], from: usize) -> Option<usize> {
    let mut i = from;
    while let Some(third) = data.get(i + 2) {
        i += match third {
            0 => 1,
            1 if data[i] == 0 && data[i + 1] == 0 => return Some(i),
            _ => 3,
        };
    }
    None
}

/// The first bytes of a NAL unit's payload, enough for the fields at the start of a header.
pub(crate) fn payload_start(nal: &[u8], header_len: usize) -> Vec<u8> {
    let end = nal.len().min(header_len + 48);
    unescape(nal.get(header_len..end).unwrap_or_default())
}

/// The messages of an SEI NAL unit: type and payload (ISO/IEC 14496-10 section 7.3.2.3; H.265 is alike). `payload` is
/// unescaped.
pub(crate) fn sei_messages(mut payload: &[u8]) -> Vec<(u32, &[u8])> {
    let mut messages = Vec::new();
    while payload.len() > 2 {
        let mut field = || {
            let ones = payload.iter().take_while(|byte| **byte == 0xff).count();
            let last = *payload.get(ones)?;
            payload = &payload[ones + 1..];
            Some(ones * 255 + usize::from(last))
        };
        let (Some(kind), Some(len)) = (field(), field()) else { break };
        let Some((message, rest)) = payload.split_at_checked(len) else { break };
        messages.push((u32::try_from(kind).unwrap_or(u32::MAX), message));
        payload = rest;
    }
    messages
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn start_codes_of_both_lengths_and_padding() {
        let data = Bytes::from_static(&[9, 0, 0, 0, 1, 0x67, 1, 0, 0, 1, 0x68, 2, 0, 0, 0, 0, 1, 0, 0, 1, 0x65, 0, 0]);
        let nals = split_annex_b(&data);
        assert_eq!(nals, [&[0x67, 1][..], &[0x68, 2], &[0x65]]);
        assert!(!is_annex_b(&data));
        assert!(is_annex_b(&data[1..]));
        assert!(split_annex_b(&Bytes::from_static(&[0, 0])).is_empty());
        let prefixed = length_prefixed(&nals);
        let back: Vec<_> = iter_length_prefixed(&prefixed, 4).collect::<Result<_, _>>().unwrap();
        assert_eq!(back, [(0, &[0x67, 1][..]), (6, &[0x68, 2]), (12, &[0x65])]);
        assert!(iter_length_prefixed(&prefixed[..15], 4).last().unwrap().is_err());
        assert_eq!(iter_length_prefixed(&[3, 1], 1).count(), 1, "nothing follows an error");
    }

    #[test]
    fn emulation_prevention_is_removed() {
        assert_eq!(unescape(&[1, 0, 0, 3, 1, 0, 0, 3, 0, 0, 3]), [1, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(unescape(&[0, 3, 0, 0, 0, 3]), [0, 3, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn framings_round_trip(nals in prop::collection::vec(prop::collection::vec(2..255_u8, 1..20), 0..8), long: bool) {
            let nals: Vec<Bytes> = nals.into_iter().map(Bytes::from).collect();
            let code: &[u8] = if long { &[0, 0, 0, 1] } else { &[0, 0, 1] };
            let stream: Vec<u8> = nals.iter().flat_map(|nal| [code, nal].concat()).collect();
            prop_assert_eq!(&split_annex_b(&stream.into()), &nals);
            let prefixed = length_prefixed(&nals);
            let back: Vec<_> = iter_length_prefixed(&prefixed, 4).map(|nal| nal.unwrap().1.to_vec()).collect();
            prop_assert_eq!(back, nals);
        }

        #[test]
        fn no_input_panics(data: Vec<u8>, size in 0..9_u8) {
            let _ = split_annex_b(&data.clone().into());
            iter_length_prefixed(&data, size).for_each(drop);
            let _ = sei_messages(&unescape(&data));
        }
    }
}
