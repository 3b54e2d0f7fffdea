//! Fuzz bodies, plain functions: the fuzzer's target calls them, and a test replays their corpus.

/// The head's times and the body of a PutMedia. The first byte chooses the rules, the second the length of the pieces that
/// the rest is read in.
///
/// # Panics
/// If a property breaks.
pub fn put_media(input: &[u8]) {
    crate::put_media::fuzz(input);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    fn seeds() -> Vec<Vec<u8>> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/put_media");
        let paths = std::fs::read_dir(folder).expect("a corpus").map(|seed| seed.expect("a seed").path());
        paths.map(|path| std::fs::read(path).expect("a readable seed")).collect()
    }

    #[test]
    fn the_corpus_holds() {
        let seeds = seeds();
        assert!(seeds.len() >= 3);
        for seed in seeds {
            (0..=seed.len()).for_each(|len| super::put_media(&seed[..len]));
        }
    }

    proptest! {
        #[test]
        fn changed_bodies_keep_the_rules(
            seed in 0..3_usize,
            rules: u8,
            changes in prop::collection::vec((2..2000_usize, any::<u8>()), 0..8),
        ) {
            let mut input = seeds()[seed].clone();
            input[0] = rules;
            for (at, byte) in changes {
                let len = input.len();
                input[at % len] = byte;
            }
            super::put_media(&input);
        }
    }
}
