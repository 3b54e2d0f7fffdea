//! VP8: the frame tag (RFC 6386 section 9.1).

/// Whether a frame is a key frame. None if there is no frame.
#[must_use]
pub fn is_keyframe(frame: &[u8]) -> Option<bool> {
    frame.get(2)?;
    Some(frame[0] & 1 == 0)
}

/// Width and height in pixels, from a key frame.
#[must_use]
pub fn keyframe_size(frame: &[u8]) -> Option<(u32, u32)> {
    let &[tag, _, _, 0x9d, 0x01, 0x2a, w0, w1, h0, h1] = frame.get(..10)? else { return None };
    // The two high bits are scaling.
    let side = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
    (tag & 1 == 0).then(|| (side(w0, w1), side(h0, h1)))
}
