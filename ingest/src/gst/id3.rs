//! ID3v2 tags before a sound (ID3 tag version 2.4.0, section 3). What they say is not kept.

/// Of a tag, and of the footer that repeats its header.
const HEADER_BYTES: usize = 10;
const FOOTER: u8 = 0x10;

/// What an input begins with.
enum Start {
    /// Too few bytes.
    More,
    /// A tag of this length with header and footer, in bytes.
    Tag(usize),
    /// No tag.
    Other,
}

fn start(head: &[u8]) -> Start {
    if !head.iter().zip(b"ID3").all(|(byte, wanted)| byte == wanted) {
        return Start::Other;
    }
    let Some(&[_, _, _, version, revision, flags, ref size @ ..]) = head.first_chunk::<HEADER_BYTES>() else {
        return Start::More;
    };
    if version == 0xff || revision == 0xff || size.iter().any(|byte| byte & 0x80 != 0) {
        return Start::Other;
    }
    let size = size.iter().fold(0, |size, byte| size << 7 | usize::from(*byte));
    let footer_bytes = if version >= 4 && flags & FOOTER != 0 { HEADER_BYTES } else { 0 };
    Start::Tag(HEADER_BYTES + size + footer_bytes)
}

/// Where what follows the tags begins, as far as `head` says: it may be behind its end. `at`: what it was before there
/// was more of the input, or 0.
pub(super) fn end(head: &[u8], mut at: usize) -> usize {
    while let Start::Tag(len) = start(head.get(at..).unwrap_or_default()) {
        at += len;
    }
    at
}

/// Takes the tags off an input.
#[derive(Default)]
pub(super) struct Untagged {
    /// Of a tag's header, or what follows the tags.
    head: Vec<u8>,
    /// Of the tag that goes on, in bytes.
    left: usize,
    /// The tags are over.
    begun: bool,
}

impl Untagged {
    /// What of the next bytes belongs to no tag. May be empty.
    pub(super) fn push(&mut self, input: Vec<u8>) -> Vec<u8> {
        if self.begun {
            return input;
        }
        self.head.extend(input);
        let mut at = 0;
        loop {
            let skipped = self.left.min(self.head.len() - at);
            at += skipped;
            self.left -= skipped;
            match start(&self.head[at..]) {
                Start::Tag(len) => self.left = len,
                start => {
                    self.begun = matches!(start, Start::Other);
                    self.head.drain(..at);
                    return if self.begun { std::mem::take(&mut self.head) } else { Vec::new() };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(version: u8, flags: u8, len: u16, body: usize) -> Vec<u8> {
        [&b"ID3"[..], &[version, 0, flags, 0, 0, (len >> 7) as u8, len as u8 & 0x7f], &vec![0xff; body]].concat()
    }

    #[test]
    fn tags_are_taken_off_however_the_input_is_cut() {
        let sound = [0xff, 0xf1, b'I', b'D', b'3', 4, 0, 0, 0, 0, 0, 0];
        for tags in [
            vec![],
            tag(3, 0, 0, 0),
            tag(4, 0, 300, 300),
            tag(4, FOOTER, 300, 310),
            // No footer in this version.
            tag(3, FOOTER, 5, 5),
            [tag(3, 0, 200, 200), tag(4, 0, 1, 1)].concat(),
        ] {
            let input = [&tags[..], &sound].concat();
            assert_eq!(end(&input, 0), tags.len());
            let ends = (0..=input.len()).scan(0, |at, len| {
                // What lies before is not looked at again.
                let head = [&vec![0; (*at).min(len)], &input[(*at).min(len)..len]].concat();
                *at = end(&head, *at);
                Some(*at)
            });
            assert_eq!(ends.last(), Some(tags.len()));
            for size in [1, 7, 100, input.len()] {
                let mut untagged = Untagged::default();
                let out: Vec<u8> = input.chunks(size).flat_map(|chunk| untagged.push(chunk.to_vec())).collect();
                assert_eq!(out, sound, "{size} of {tags:?}");
            }
        }
    }

    #[test]
    fn what_only_looks_like_a_tag_is_left() {
        for input in [&b"ID3\x04\0\0\0\0\x80\0x"[..], b"ID3\xff\0\0\0\0\0\0x", b"ID2"] {
            assert_eq!(Untagged::default().push(input.to_vec()), input);
            assert_eq!(end(input, 0), 0);
        }
        assert_eq!(end(b"ID3\x04\0\0\0\0\x01\0", 0), 10 + 128, "behind the end of what is there");
    }
}
