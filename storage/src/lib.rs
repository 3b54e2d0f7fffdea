//! The encrypted, append-only, durable fragment store.
