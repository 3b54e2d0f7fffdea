//! Timeline and search over fragments: derived state, rebuildable from the log.
