//! `wasi:filesystem`: the scratch, for tasks that have one. In place of wasmtime-wasi's, which is about the host's files.
//!
//! Guests know handles by the types of wasmtime-wasi's bindings, of which only it can make values. A handle is an index
//! into the guest's table, though, and the table holds ours: [`given`] and [`ours`] are the two sides of that.

mod convert;
mod stream;

use crate::guest::Guest;
use crate::scratch::{Handle, How, Kind, Offset, Scratch, ScratchError};
use convert::{code, from_kind, from_stat, new_time};
use innkeeper_domain::limits::SCRATCH_CALL_BYTES_MAX;
use std::time::Duration;
use stream::{Reader, Writer};
use wasmtime::component::{HasSelf, Linker, Resource};
use wasmtime_wasi::p2::bindings::filesystem::types::*;
use wasmtime_wasi::p2::bindings::filesystem::{preopens, types};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, FsError, FsResult};

/// Puts it in the place of what is linked.
pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    types::add_to_linker::<_, HasSelf<_>>(linker, |guest: &mut Guest| guest)?;
    preopens::add_to_linker::<_, HasSelf<_>>(linker, |guest: &mut Guest| guest)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// The scratch of a guest whose task has one.
pub(crate) fn scratch(guest: &Guest) -> Option<Scratch> {
    let bytes = guest.invocation.spec.scratch?;
    Some(Scratch::new(bytes, guest.limiter.clone(), guest.now()))
}

/// An open file or directory, as the guest's table has it.
struct Open {
    handle: Handle,
    kind: Kind,
    /// Of a file: what it was opened for.
    read: bool,
    write: bool,
}

/// How far a directory has been listed. The entries aren't kept, for a guest can list many directories at once.
struct Listing {
    directory: Handle,
    last: Option<Box<str>>,
}

/// Our handle, as the guest gets it.
fn given<Ours: 'static, Theirs: 'static>(ours: Resource<Ours>) -> Resource<Theirs> {
    Resource::new_own(ours.rep())
}

/// The guest's handle, as the table has it.
fn ours<Theirs: 'static, Ours: 'static>(theirs: &Resource<Theirs>) -> Resource<Ours> {
    Resource::new_borrow(theirs.rep())
}

impl Guest {
    /// Since 1970.
    fn now(&self) -> Duration {
        Duration::try_from((self.clock)().as_duration()).unwrap_or_default()
    }

    fn opened(&self, descriptor: &Resource<Descriptor>) -> FsResult<&Open> {
        Ok(self.table.get(&ours::<_, Open>(descriptor))?)
    }

    fn directory(&self, descriptor: &Resource<Descriptor>) -> FsResult<&Handle> {
        let open = self.opened(descriptor)?;
        match open.kind {
            Kind::Directory => Ok(&open.handle),
            Kind::File => Err(ErrorCode::NotDirectory.into()),
        }
    }

    /// A file that was opened for it.
    fn file(&self, descriptor: &Resource<Descriptor>, access: Access) -> FsResult<&Handle> {
        let open = self.opened(descriptor)?;
        let granted = match access {
            Access::Read => open.read,
            Access::Write => open.write,
        };
        match open.kind {
            Kind::Directory => Err(ErrorCode::IsDirectory.into()),
            Kind::File if !granted => Err(ErrorCode::BadDescriptor.into()),
            Kind::File => Ok(&open.handle),
        }
    }

    fn write_from(
        &mut self,
        descriptor: &Resource<Descriptor>,
        from: Offset,
    ) -> FsResult<Resource<DynOutputStream>> {
        let file = self.file(descriptor, Access::Write)?.clone();
        let stream: DynOutputStream = Box::new(Writer::new(file, from, self.clock.clone()));
        Ok(self.table.push(stream)?)
    }
}

#[derive(Clone, Copy)]
enum Access {
    Read,
    Write,
}

impl From<ScratchError> for FsError {
    fn from(error: ScratchError) -> Self {
        code(error).into()
    }
}

impl preopens::Host for Guest {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Resource<Descriptor>, String)>> {
        let Some(scratch) = &self.scratch else { return Ok(Vec::new()) };
        let root = Open { handle: scratch.root(), kind: Kind::Directory, read: true, write: false };
        // Relative paths begin at the root as well.
        Ok(vec![(given(self.table.push(root)?), "/".into())])
    }
}

impl types::Host for Guest {
    fn convert_error_code(&mut self, error: FsError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn filesystem_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        Ok(self.table.get(&error)?.downcast_ref::<ScratchError>().copied().map(code))
    }
}

impl HostDirectoryEntryStream for Guest {
    async fn read_directory_entry(
        &mut self,
        stream: Resource<DirectoryEntryStream>,
    ) -> FsResult<Option<DirectoryEntry>> {
        let listing = self.table.get_mut(&ours::<_, Listing>(&stream))?;
        let last = listing.last.as_deref();
        let next = listing.directory.with(|tree, id| tree.entry_after(id, last))?;
        let entry = next
            .as_ref()
            .map(|(name, kind)| DirectoryEntry { type_: from_kind(*kind), name: name.to_string() });
        if let Some((name, _)) = next {
            listing.last = Some(name);
        }
        Ok(entry)
    }

    fn drop(&mut self, stream: Resource<DirectoryEntryStream>) -> wasmtime::Result<()> {
        self.table.delete(given::<_, Listing>(stream))?;
        Ok(())
    }
}

impl HostDescriptor for Guest {
    fn read_via_stream(
        &mut self,
        descriptor: Resource<Descriptor>,
        offset: Filesize,
    ) -> FsResult<Resource<DynInputStream>> {
        let file = self.file(&descriptor, Access::Read)?.clone();
        let stream: DynInputStream = Box::new(Reader::new(file, offset));
        Ok(self.table.push(stream)?)
    }

    fn write_via_stream(
        &mut self,
        descriptor: Resource<Descriptor>,
        offset: Filesize,
    ) -> FsResult<Resource<DynOutputStream>> {
        self.write_from(&descriptor, Offset::At(offset))
    }

    fn append_via_stream(&mut self, descriptor: Resource<Descriptor>) -> FsResult<Resource<DynOutputStream>> {
        self.write_from(&descriptor, Offset::End)
    }

    /// Nothing is to be done for it in memory.
    async fn advise(
        &mut self,
        descriptor: Resource<Descriptor>,
        _offset: Filesize,
        _length: Filesize,
        _advice: Advice,
    ) -> FsResult<()> {
        match self.opened(&descriptor)?.kind {
            Kind::File => Ok(()),
            Kind::Directory => Err(ErrorCode::BadDescriptor.into()),
        }
    }

    /// Nothing outlives the attempt.
    async fn sync_data(&mut self, descriptor: Resource<Descriptor>) -> FsResult<()> {
        self.opened(&descriptor).map(drop)
    }

    async fn get_flags(&mut self, descriptor: Resource<Descriptor>) -> FsResult<DescriptorFlags> {
        let open = self.opened(&descriptor)?;
        let mut flags = match open.kind {
            Kind::File => DescriptorFlags::empty(),
            Kind::Directory => DescriptorFlags::MUTATE_DIRECTORY,
        };
        if open.read {
            flags |= DescriptorFlags::READ;
        }
        if open.write {
            flags |= DescriptorFlags::WRITE;
        }
        Ok(flags)
    }

    async fn get_type(&mut self, descriptor: Resource<Descriptor>) -> FsResult<DescriptorType> {
        Ok(from_kind(self.opened(&descriptor)?.kind))
    }

    async fn set_size(&mut self, descriptor: Resource<Descriptor>, size: Filesize) -> FsResult<()> {
        let now = self.now();
        let file = self.file(&descriptor, Access::Write)?;
        Ok(file.with(|tree, id| tree.resize(id, size, now))?)
    }

    async fn set_times(
        &mut self,
        descriptor: Resource<Descriptor>,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FsResult<()> {
        let now = self.now();
        let (accessed, modified) = (new_time(accessed, now)?, new_time(modified, now)?);
        let open = self.opened(&descriptor)?;
        Ok(open.handle.with(|tree, id| tree.set_times(id, accessed, modified, now))?)
    }

    async fn read(
        &mut self,
        descriptor: Resource<Descriptor>,
        length: Filesize,
        offset: Filesize,
    ) -> FsResult<(Vec<u8>, bool)> {
        let file = self.file(&descriptor, Access::Read)?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let bytes = file.with(|tree, id| tree.read(id, offset, length))?;
        let at_end = bytes.is_empty() && length > 0;
        Ok((bytes, at_end))
    }

    async fn write(
        &mut self,
        descriptor: Resource<Descriptor>,
        bytes: Vec<u8>,
        offset: Filesize,
    ) -> FsResult<Filesize> {
        let now = self.now();
        let file = self.file(&descriptor, Access::Write)?;
        let bytes = &bytes[..bytes.len().min(SCRATCH_CALL_BYTES_MAX)];
        file.with(|tree, id| tree.write(id, Offset::At(offset), bytes, now))?;
        Ok(bytes.len() as u64)
    }

    async fn read_directory(
        &mut self,
        descriptor: Resource<Descriptor>,
    ) -> FsResult<Resource<DirectoryEntryStream>> {
        let directory = self.directory(&descriptor)?.clone();
        Ok(given(self.table.push(Listing { directory, last: None })?))
    }

    async fn sync(&mut self, descriptor: Resource<Descriptor>) -> FsResult<()> {
        self.opened(&descriptor).map(drop)
    }

    async fn create_directory_at(&mut self, base: Resource<Descriptor>, path: String) -> FsResult<()> {
        let now = self.now();
        Ok(self.directory(&base)?.with(|tree, id| tree.create_directory(id, &path, now))?)
    }

    async fn stat(&mut self, descriptor: Resource<Descriptor>) -> FsResult<DescriptorStat> {
        let stat = self.opened(&descriptor)?.handle.with(|tree, id| tree.stat(id))?;
        Ok(from_stat(stat))
    }

    async fn stat_at(
        &mut self,
        base: Resource<Descriptor>,
        _links: PathFlags,
        path: String,
    ) -> FsResult<DescriptorStat> {
        let base = self.directory(&base)?;
        let stat = base.with(|tree, id| tree.find(id, &path).and_then(|found| tree.stat(found)))?;
        Ok(from_stat(stat))
    }

    async fn set_times_at(
        &mut self,
        base: Resource<Descriptor>,
        _links: PathFlags,
        path: String,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FsResult<()> {
        let now = self.now();
        let (accessed, modified) = (new_time(accessed, now)?, new_time(modified, now)?);
        Ok(self.directory(&base)?.with(|tree, id| {
            let found = tree.find(id, &path)?;
            tree.set_times(found, accessed, modified, now)
        })?)
    }

    /// There are no links.
    async fn link_at(
        &mut self,
        _base: Resource<Descriptor>,
        _links: PathFlags,
        _path: String,
        _new_base: Resource<Descriptor>,
        _new_path: String,
    ) -> FsResult<()> {
        Err(ErrorCode::Unsupported.into())
    }

    async fn open_at(
        &mut self,
        base: Resource<Descriptor>,
        _links: PathFlags,
        path: String,
        how: OpenFlags,
        flags: DescriptorFlags,
    ) -> FsResult<Resource<Descriptor>> {
        let how = How {
            create: how.contains(OpenFlags::CREATE),
            exclusive: how.contains(OpenFlags::EXCLUSIVE),
            truncate: how.contains(OpenFlags::TRUNCATE),
            directory: how.contains(OpenFlags::DIRECTORY),
            write: flags.contains(DescriptorFlags::WRITE),
        };
        if how.directory && (how.create || how.exclusive || how.truncate) {
            return Err(ErrorCode::Invalid.into());
        }
        let (handle, kind) = self.directory(&base)?.open(&path, how, self.now())?;
        // What is opened for nothing can be read, as wasmtime has it.
        let read = flags.contains(DescriptorFlags::READ) || !how.write;
        Ok(given(self.table.push(Open { handle, kind, read, write: how.write })?))
    }

    /// What is there is no link; who looks for links on a path (`realpath`) goes on by that.
    async fn readlink_at(&mut self, base: Resource<Descriptor>, path: String) -> FsResult<String> {
        self.directory(&base)?.with(|tree, id| tree.find(id, &path))?;
        Err(ErrorCode::Invalid.into())
    }

    async fn remove_directory_at(&mut self, base: Resource<Descriptor>, path: String) -> FsResult<()> {
        let now = self.now();
        Ok(self.directory(&base)?.with(|tree, id| tree.remove_directory(id, &path, now))?)
    }

    async fn rename_at(
        &mut self,
        base: Resource<Descriptor>,
        path: String,
        new_base: Resource<Descriptor>,
        new_path: String,
    ) -> FsResult<()> {
        let now = self.now();
        let new_base = self.directory(&new_base)?.id();
        let base = self.directory(&base)?;
        Ok(base.with(|tree, id| tree.rename((id, &path), (new_base, &new_path), now))?)
    }

    async fn symlink_at(
        &mut self,
        _base: Resource<Descriptor>,
        _path: String,
        _new_path: String,
    ) -> FsResult<()> {
        Err(ErrorCode::Unsupported.into())
    }

    async fn unlink_file_at(&mut self, base: Resource<Descriptor>, path: String) -> FsResult<()> {
        let now = self.now();
        Ok(self.directory(&base)?.with(|tree, id| tree.remove_file(id, &path, now))?)
    }

    async fn is_same_object(
        &mut self,
        one: Resource<Descriptor>,
        other: Resource<Descriptor>,
    ) -> wasmtime::Result<bool> {
        let id = |descriptor| -> wasmtime::Result<_> {
            Ok(self.table.get(&ours::<_, Open>(descriptor))?.handle.id())
        };
        Ok(id(&one)? == id(&other)?)
    }

    /// What is stable and its own is its number.
    async fn metadata_hash(&mut self, descriptor: Resource<Descriptor>) -> FsResult<MetadataHashValue> {
        let id = self.opened(&descriptor)?.handle.id();
        Ok(MetadataHashValue { lower: id.0, upper: 0 })
    }

    async fn metadata_hash_at(
        &mut self,
        base: Resource<Descriptor>,
        _links: PathFlags,
        path: String,
    ) -> FsResult<MetadataHashValue> {
        let found = self.directory(&base)?.with(|tree, id| tree.find(id, &path))?;
        Ok(MetadataHashValue { lower: found.0, upper: 0 })
    }

    fn drop(&mut self, descriptor: Resource<Descriptor>) -> wasmtime::Result<()> {
        self.table.delete(given::<_, Open>(descriptor))?;
        Ok(())
    }
}
