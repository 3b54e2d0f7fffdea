//! What the process asks of its allocator.

/// Blocks from this size on are memory of their own, which goes back to the system when they are freed.
const OWN_BLOCK_BYTES: i32 = 512 << 10;
/// Free memory at an end of a heap that is kept.
const KEPT_BYTES: i32 = 2 << 20;

/// Keeps large blocks out of the heaps. Left alone, glibc raises the size from which a block has memory of its own
/// to that of the largest block which was ever freed, up to 32 MiB: elements of some MiB that grow then leave holes in
/// the heaps, and the process holds up to twice what ingest may (`server/tests/limits.rs`).
#[allow(unsafe_code)]
pub(crate) fn give_large_blocks_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets two numbers of the allocator, before other threads are there; a refusal changes nothing.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_BLOCK_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
    }
}
