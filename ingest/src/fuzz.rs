//! Fuzz bodies, plain functions: the fuzzer's targets call them, and a test replays their corpora.

use crate::rtsp::fuzz;

/// RTSP messages and interleaved data. The first byte is the length of the pieces that the rest is read in.
///
/// # Panics
/// If a property breaks.
pub fn rtsp_message(data: &[u8]) {
    fuzz::message(data);
}

/// SDP of a publisher.
///
/// # Panics
/// If a property breaks.
pub fn rtsp_sdp(data: &[u8]) {
    fuzz::sdp(data);
}

/// RTP packets of one track, from the wire to events.
///
/// # Panics
/// If a property breaks.
pub fn rtp_depacketize(data: &[u8]) {
    fuzz::depacketize(data);
}

/// RTCP compound packets.
///
/// # Panics
/// If a property breaks.
pub fn rtcp(data: &[u8]) {
    fuzz::rtcp(data);
}

/// Messages of a demuxing helper. The first byte is the length of the pieces that the rest is read in.
///
/// # Panics
/// If a property breaks.
#[cfg(feature = "gst")]
pub fn gst_message(data: &[u8]) {
    crate::gst::fuzz_message(data);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Target = (&'static str, fn(&[u8]));

    const TARGETS: &[Target] = &[
        ("rtsp_message", rtsp_message),
        ("rtsp_sdp", rtsp_sdp),
        ("rtp_depacketize", rtp_depacketize),
        ("rtcp", rtcp),
        #[cfg(feature = "gst")]
        ("gst_message", gst_message),
    ];

    fn seeds(name: &str) -> Vec<Vec<u8>> {
        let folder = format!("{}/../fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder}: {error}"));
        entries.map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect()
    }

    #[test]
    fn corpora_replay_and_every_truncation_of_them() {
        for (name, target) in TARGETS {
            let seeds = seeds(name);
            assert!(!seeds.is_empty(), "{name}");
            for seed in seeds {
                (0..=seed.len().min(2000)).for_each(|len| target(&seed[..len]));
                target(&seed);
            }
        }
    }

    proptest! {
        /// A few bytes of a seed changed.
        #[test]
        fn mutations_of_the_corpora(
            target in 0..TARGETS.len(),
            seed: prop::sample::Index,
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        ) {
            let (name, body) = TARGETS[target];
            let seeds = seeds(name);
            let mut data = seeds[seed.index(seeds.len())].clone();
            for (at, byte) in changes {
                let at = at.index(data.len());
                data[at] = byte;
            }
            body(&data);
        }
    }
}
