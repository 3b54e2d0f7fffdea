//! Fuzz bodies, plain functions: the fuzzer's targets call them, and a test replays their corpora.
