//! Codecs: parameter sets, what a track is and what a sample is. A file each.
