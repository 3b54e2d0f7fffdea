//! Cuts events into fragments at sync samples.
