//! HTTP out: clips, HLS, pictures, listings and search.
