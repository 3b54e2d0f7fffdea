//! Directories and files that do most things as another one does: a layer passes on all that it does not say itself.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::{DirLock, DiskSpace, SegmentHandle, SegmentIo, WriteMode};

/// A trait whose methods pass on what they are asked, and which makes of every type that has it a `$seam`. As that one has no
/// defaults, what is not listed here does not compile.
macro_rules! layer {
    ($(#[$about:meta])* $layer:ident over $seam:ident { $(fn $name:ident($($arg:ident: $type:ty),*) -> $answer:ty;)* }) => {
        $(#[$about])*
        pub trait $layer: Send + Sync {
            /// What it stands on.
            fn inner(&self) -> &dyn $seam;
            $(
                #[allow(missing_docs)] // see the seam
                fn $name(&self $(, $arg: $type)*) -> $answer {
                    self.inner().$name($($arg),*)
                }
            )*
        }

        impl<T: $layer> $seam for T {
            $(
                fn $name(&self $(, $arg: $type)*) -> $answer {
                    $layer::$name(self $(, $arg)*)
                }
            )*
        }
    };
}

layer! {
    /// A directory that stands on another one.
    IoLayer over SegmentIo {
        fn lock() -> io::Result<DirLock>;
        fn write_mode() -> WriteMode;
        fn list() -> io::Result<Vec<String>>;
        fn create(name: &str, len: u64) -> io::Result<Arc<dyn SegmentHandle>>;
        fn open(name: &str) -> io::Result<Arc<dyn SegmentHandle>>;
        fn unlink(name: &str) -> io::Result<()>;
        fn path(name: &str) -> Option<PathBuf>;
        fn sync_dir() -> io::Result<()>;
        fn read_small(name: &str) -> io::Result<Option<Vec<u8>>>;
        fn replace_small(name: &str, bytes: &[u8]) -> io::Result<()>;
        fn append_small(name: &str, bytes: &[u8]) -> io::Result<()>;
        fn space() -> io::Result<DiskSpace>;
        fn reserve(len: u64) -> io::Result<()>;
    }
}

layer! {
    /// A file that stands on another one.
    HandleLayer over SegmentHandle {
        fn len() -> io::Result<u64>;
        fn write_at(offset: u64, bytes: &[u8]) -> io::Result<()>;
        fn write_blocks(offset: u64, bytes: &[u8]) -> io::Result<()>;
        fn sync_data() -> io::Result<()>;
        fn read_at(offset: u64, buffer: &mut [u8]) -> io::Result<()>;
        fn forget(offset: u64, len: u64) -> ();
        fn read_cached(offset: u64, buffer: &mut [u8]) -> bool;
        fn read_direct(offset: u64, buffer: &mut [u8]) -> bool;
        fn punch(offset: u64, len: u64) -> io::Result<()>;
        fn truncate(len: u64) -> io::Result<()>;
    }
}
