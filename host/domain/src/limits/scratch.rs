//! Bounds of a scratch: the files that a run may have while it executes.

use super::{KIB, MIB};

/// The least scratch that can be asked for, in bytes.
pub const SCRATCH_BYTES_MIN: u64 = 64 * KIB;
/// The most. What of it is used counts as memory of the run, so the limit of that holds it too.
pub const SCRATCH_BYTES_MAX: u64 = 256 * MIB;
/// What a file's size is rounded up to, when it is counted. To keep blocks apart the host needs up to 2 % more.
pub const SCRATCH_BLOCK_BYTES: usize = 4 * 1024;
/// What a file or directory counts beside its size: more than the host needs for it with the longest name.
pub const SCRATCH_NODE_BYTES: usize = 1024;
/// Files and directories in a scratch, those that are removed and still open included.
pub const SCRATCH_FILES_MAX: usize = 10_000;
/// Bytes of the name of a file or directory.
pub const SCRATCH_NAME_BYTES_MAX: usize = 255;
/// Bytes of a path.
pub const SCRATCH_PATH_BYTES_MAX: usize = 4 * 1024;
/// Directories within each other.
pub const SCRATCH_DEPTH_MAX: usize = 64;
/// Bytes that one call reads or writes; a guest is told how many it were.
pub const SCRATCH_CALL_BYTES_MAX: usize = 1024 * 1024;
