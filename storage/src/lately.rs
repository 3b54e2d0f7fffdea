//! What was asked for lately, roughly, in little memory.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};
use std::sync::atomic::{AtomicU64, Ordering};

/// Of things that are asked for, some of the last so many are known again.
const COUNT: usize = 16 << 10;

/// Knows again what it was asked for lately. It may forget early, and all but never takes one thing for another.
pub(crate) struct Lately(Box<[AtomicU64]>);

impl Default for Lately {
    fn default() -> Self {
        Self((0..COUNT).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Lately {
    /// True if the same was asked for lately.
    pub(crate) fn again(&self, what: impl Hash) -> bool {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(what);
        self.0[hash as usize % COUNT].swap(hash, Ordering::Relaxed) == hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_lately_is_known_again_and_what_was_long_ago_is_not() {
        let lately = Lately::default();
        for what in 0..100_u64 {
            assert!(!lately.again(what) && lately.again(what) && lately.again(what));
        }
        let known = (0..100_u64).filter(|what| lately.again(*what)).count();
        assert!(known > 90, "{known} of 100");
        for other in 1000..1000 + 20 * COUNT as u64 {
            assert!(!lately.again(other));
        }
        assert!(!(0..100_u64).any(|what| lately.again(what)));
    }
}
