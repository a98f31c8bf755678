//! Bounds of uploads and components, and of compiling them.

use super::MIB;
use std::time::Duration;

/// The largest module or component that can be uploaded, in bytes. Python's and JavaScript's engines
/// make components of 12 to 18 MB.
pub const COMPONENT_BYTES_MAX: u64 = 64 * MIB;
/// Imports of a component.
pub const COMPONENT_IMPORTS_MAX: usize = 256;
/// Bytes of the name of one that the host has.
pub const IMPORT_NAME_BYTES_MAX: usize = 128;
/// The largest chunk of an upload, in bytes.
pub const UPLOAD_CHUNK_BYTES_MAX: usize = 1024 * 1024;
/// Uploads that may be under way at one time, each with its bytes in memory.
pub const UPLOADS_MAX: usize = 8;
/// Of these, uploads of one tenant.
pub const UPLOADS_PER_TENANT_MAX: usize = 2;
/// Components that are read at one time to see whether they are whole, each with its bytes in memory, because somebody
/// uploads them again. Of these one is a tenant's; others wait.
pub const COMPONENTS_READ_MAX: usize = 2;
/// How long an upload may go without its next chunk, before it is ended.
pub const UPLOAD_CHUNK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a compilation may take before the upload is refused.
pub const COMPILE_TIME_MAX: Duration = Duration::from_secs(300);
/// Time that a processor may work for a compilation. Python's and JavaScript's engines take 5 to 20 s.
pub const COMPILE_CPU_MAX: Duration = Duration::from_secs(120);
/// Address space of the process that compiles, in bytes, its own code included.
pub const COMPILE_MEMORY_MAX: u64 = 2048 * MIB;
/// Bytes of the stack that it has for it.
pub const COMPILE_STACK_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of what it makes of a component: machine code, and images of memories.
pub const ARTIFACT_BYTES_MAX: u64 = 512 * MIB;
/// Of these, bytes that any component may have, and bytes that it may have more for each of its own: several times what
/// toolchains' components have.
pub const ARTIFACT_BYTES_FREE: u64 = 16 * MIB;
pub const ARTIFACT_BYTES_PER_BYTE: u64 = 64;
/// Bytes of a memory's image, most of which may be zeros between its data. A larger one is only made if its data are more
/// than half of it.
pub const SPARSE_IMAGE_BYTES_MAX: u64 = MIB;
/// Bytes of the words that a request or an upload is refused with. They are sent as a header, escaped, which may make them
/// three times as long; clients take headers of 16 KiB.
pub const REFUSAL_BYTES_MAX: usize = 4 * 1024;
/// Bytes of all that is kept on a host's disk of what it makes of components; what is unused for longest makes room.
pub const ARTIFACTS_BYTES_MAX: u64 = 8 * 1024 * MIB;
/// Compilations of uploads at one time, and as many of components that runs wait for; others wait.
pub const COMPILATIONS_MAX: usize = 1;
/// Compiled components that are read and checked at one time, and as many that are shared; others wait.
pub const ARTIFACTS_READ_MAX: usize = 2;
/// Components kept ready to run in memory.
pub const COMPONENTS_READY_MAX: usize = 1_000;
/// Bytes of their machine code and their memories' images, beside those of components that are just running.
pub const COMPONENTS_READY_BYTES_MAX: u64 = 2048 * MIB;
