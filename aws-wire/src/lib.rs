//! The dialect of the compatible API: what clients of the reference service put on the wire, and expect there.
//!
//! [`sigv4`] checks who signed a request. Nothing here does I/O, reads a clock, or knows a stream.

#[doc(hidden)]
pub mod fuzz;
pub mod sigv4;
