//! Protocols in, fragments out.
