//! Bodies of PutMedia, from bytes to fragments.

use bytes::Bytes;
use vidar_core::limits::TAG_COUNT_MAX;
use vidar_core::time::UnixMs;
use vidar_media::container::mkv;
use vidar_media::fragmenter::{Fragmenter, Options, Output};
use vidar_media::{Demux, Event};

use super::Limits;
use super::fragment::{Strictness, Watch};

/// What holds for every body.
///
/// # Panics
/// If it does not.
pub(super) fn body(input: &[u8]) {
    // A start is read from text.
    let _ = super::head::start_time(&String::from_utf8_lossy(input), "AWS-SDK-KVS");
    let Some((&[rules, piece_len], body)) = input.split_first_chunk() else { return };
    let bit = |bit: u8| rules >> bit & 1 == 1;
    let strict = Strictness {
        duration: bit(0),
        timecodes: bit(1),
        tracks: bit(2),
        frames: bit(3),
        sizes: bit(4),
        headers: bit(5),
        tags: bit(6),
    };
    let mut watch = Watch::new(strict, Limits::default(), UnixMs(0));
    let mut fragmenter = Fragmenter::new(Options { as_sent: true, ..Options::default() });
    let (mut demuxer, mut out) = (mkv::Demuxer::new(), Vec::new());
    for piece in body.chunks(usize::from(piece_len).max(1)) {
        let mut events = Vec::new();
        let read = demuxer.push(Bytes::copy_from_slice(piece), &mut events);
        let found = events.clone();
        let checked = watch.check(&mut events, false);
        let kept = events.iter().zip(&found).take_while(|(kept, found)| kept == found).count();
        assert!(kept == found.len() || checked.is_err() && events[kept..].iter().all(|e| *e == Event::EndOfFragment));
        for event in events {
            fragmenter.push(event, &mut out).expect("tracks were declared");
        }
        if checked.is_err() || read.is_err() {
            break;
        }
    }
    fragmenter.finish(false, &mut out);
    let mut open = false;
    for output in out {
        match output {
            Output::Open { .. } => assert!(!std::mem::replace(&mut open, true), "two are open"),
            Output::Cut(cut) if cut.part.is_none() => {
                assert!(std::mem::replace(&mut open, false), "none is open");
                let tags = cut.facts.tags.len();
                assert!(tags <= TAG_COUNT_MAX, "{tags} tags");
            }
            Output::Sample(_) => assert!(open, "a sample of no fragment"),
            _ => {}
        }
    }
}
