//! Matroska and WebM.
