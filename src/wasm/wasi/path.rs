//! What guests do with paths. All of them are looked up beneath a directory that the guest has, by `cap-std`: neither
//! `..`, nor an absolute path, nor a link leads out of it.
//!
//! Only regular files and directories are opened. Opening a FIFO waits for its other end, reading it and many a device
//! waits for ever, and no deadline would end that. What a path names is looked at first, so that devices are left
//! alone; and because it may be something else a moment later, it is opened in a way that never waits, and looked at
//! again.

use std::fs::File;
use std::sync::Arc;

use cap_fs_ext::{DirExt, FollowSymlinks, OpenOptionsFollowExt, OpenOptionsSyncExt};
use cap_std::fs::{Dir, Metadata, OpenOptions, OpenOptionsExt};
use rustix::fs::{FileType, futimens};

use super::call::Call;
use super::descriptors::{Descriptor, OpenDirectory, OpenFile, Permit};
use super::errno::{Errno, Result};
use super::io::{APPEND, NONBLOCK};
use super::stat::{Times, filestat, kind, record, rights};

/// The flag of functions that look a path up: a link at its end is followed.
const FOLLOW: u32 = 1;

/// Flags of `path_open`.
mod open {
    pub const CREATE: u32 = 1;
    pub const DIRECTORY: u32 = 2;
    pub const EXCLUSIVE: u32 = 4;
    pub const TRUNCATE: u32 = 8;
    pub const ALL: u32 = 0xf;
    /// Those of the descriptor that is made; the first two are offered.
    pub const DESCRIPTOR: u32 = 0x1f;
}

fn follows(flags: u32) -> Result<bool, Errno> {
    if flags & !FOLLOW == 0 { Ok(flags == FOLLOW) } else { Err(Errno::INVAL) }
}

/// Looks at what a path names, without opening it.
fn look(dir: &Dir, path: &std::path::Path, follows: bool) -> std::io::Result<Metadata> {
    if follows { dir.metadata(path) } else { dir.symlink_metadata(path) }
}

/// Whether it may be opened.
fn is_ordinary(metadata: &Metadata) -> bool {
    matches!(kind(metadata), FileType::RegularFile | FileType::Directory)
}

/// Opens what a path names, if that is a regular file or a directory. Never waits.
fn open_ordinary(dir: &Dir, path: &std::path::Path, follows: bool, options: &mut OpenOptions) -> Result<File> {
    // A link that is not to be followed is an error that opening gives.
    let special = look(dir, path, follows).is_ok_and(|found| !is_ordinary(&found) && kind(&found) != FileType::Symlink);
    if special {
        return Err(Errno::NOTSUP.into());
    }
    let follow = if follows { FollowSymlinks::Yes } else { FollowSymlinks::No };
    let file = dir.open_with(path, options.follow(follow).nonblock(true).custom_flags(libc::O_NOCTTY))?.into_std();
    if is_ordinary(&Metadata::from_file(&file)?) { Ok(file) } else { Err(Errno::NOTSUP.into()) }
}

impl Call<'_> {
    #[expect(clippy::too_many_arguments, reason = "as WASI has them")]
    pub fn path_open(
        &mut self,
        fd: u32,
        lookup: u32,
        path: u32,
        length: u32,
        flags: u32,
        rights_base: u64,
        _inheriting: u64,
        descriptor_flags: u32,
        opened: u32,
    ) -> Result {
        self.bytes(opened, 4)?;
        let follows = follows(lookup)?;
        let path = self.path(path, length)?;
        if flags & !open::ALL != 0 || descriptor_flags & !open::DESCRIPTOR != 0 {
            return Err(Errno::INVAL.into());
        }
        if descriptor_flags & !(APPEND | NONBLOCK) != 0 {
            return Err(Errno::NOTSUP.into());
        }
        let has = |flag| flags & flag != 0;
        let changes = has(open::CREATE) || has(open::TRUNCATE) || has(open::EXCLUSIVE);
        if has(open::DIRECTORY) && changes {
            return Err(Errno::INVAL.into());
        }
        let writable = rights_base & rights::FD_WRITE != 0 || has(open::CREATE) || has(open::TRUNCATE);
        let readable = rights_base & rights::FD_READ != 0 || rights_base & rights::FD_WRITE == 0;
        let directory = self.wasi.descriptors.directory(fd).map_err(|errno| match self.wasi.descriptors.get(fd) {
            Ok(Descriptor::File(_)) => Errno::NOTDIR,
            _ => errno,
        })?;
        let read_only = directory.read_only;
        if read_only && writable {
            return Err(Errno::PERM.into());
        }
        let permit = Permit::take(&self.wasi.budget)?;
        if has(open::DIRECTORY) && !kind(&look(&directory.dir, path, follows)?).is_dir() {
            return Err(Errno::NOTDIR.into());
        }
        let mut options = OpenOptions::new();
        options.read(readable).write(writable).truncate(has(open::TRUNCATE));
        options.create(has(open::CREATE)).create_new(has(open::CREATE) && has(open::EXCLUSIVE));
        let file = open_ordinary(&directory.dir, path, follows, &mut options)?;
        let is_directory = file.metadata()?.is_dir();
        if has(open::DIRECTORY) && !is_directory {
            return Err(Errno::NOTDIR.into());
        }
        let descriptor = if is_directory {
            let dir = Arc::new(Dir::from_std_file(file));
            let permit = Some(permit);
            Descriptor::Directory(OpenDirectory { dir, read_only, preopened_as: None, listing: None, _permit: permit })
        } else {
            Descriptor::File(OpenFile {
                file,
                position: 0,
                appends: descriptor_flags & APPEND != 0,
                nonblocking: descriptor_flags & NONBLOCK != 0,
                readable,
                writable,
                read_only,
                _permit: permit,
            })
        };
        let number = self.wasi.descriptors.add(descriptor)?;
        Ok(self.put(opened, number.to_le_bytes())?)
    }

    pub fn path_filestat_get(&mut self, fd: u32, lookup: u32, path: u32, length: u32, stat: u32) -> Result {
        let follows = follows(lookup)?;
        let directory = self.wasi.descriptors.directory(fd)?;
        let found = look(&directory.dir, self.path(path, length)?, follows)?;
        Ok(self.put::<64>(stat, record(filestat(&found)))?)
    }

    #[expect(clippy::too_many_arguments, reason = "as WASI has them")]
    pub fn path_filestat_set_times(
        &mut self,
        fd: u32,
        lookup: u32,
        path: u32,
        length: u32,
        atim: u64,
        mtim: u64,
        flags: u32,
    ) -> Result {
        let times = Times::new(atim, mtim, flags)?;
        let follows = follows(lookup)?;
        let dir = self.wasi.descriptors.writable_directory(fd)?;
        let path = self.path(path, length)?;
        if !follows {
            let [atim, mtim] = times.specs();
            return Ok(dir.set_symlink_times(path, atim, mtim)?);
        }
        let opened = match open_ordinary(dir, path, true, OpenOptions::new().read(true)) {
            // The right to set times does not depend on that to read.
            Err(error) if error == Errno::ACCES.into() => {
                open_ordinary(dir, path, true, OpenOptions::new().write(true))?
            }
            opened => opened?,
        };
        Ok(futimens(opened, &times.timestamps())?)
    }

    pub fn path_create_directory(&mut self, fd: u32, path: u32, length: u32) -> Result {
        let dir = self.wasi.descriptors.writable_directory(fd)?;
        Ok(dir.create_dir(self.path(path, length)?)?)
    }

    pub fn path_remove_directory(&mut self, fd: u32, path: u32, length: u32) -> Result {
        let dir = self.wasi.descriptors.writable_directory(fd)?;
        Ok(dir.remove_dir(self.path(path, length)?)?)
    }

    pub fn path_unlink_file(&mut self, fd: u32, path: u32, length: u32) -> Result {
        let dir = self.wasi.descriptors.writable_directory(fd)?;
        Ok(dir.remove_file(self.path(path, length)?)?)
    }

    pub fn path_rename(&mut self, fd: u32, old: u32, old_length: u32, to: u32, new: u32, new_length: u32) -> Result {
        let (from, to) = self.two_directories(fd, to)?;
        Ok(from.rename(self.path(old, old_length)?, to, self.path(new, new_length)?)?)
    }

    #[expect(clippy::too_many_arguments, reason = "as WASI has them")]
    pub fn path_link(
        &mut self,
        fd: u32,
        lookup: u32,
        old: u32,
        old_length: u32,
        to: u32,
        new: u32,
        new_length: u32,
    ) -> Result {
        if follows(lookup)? {
            return Err(Errno::INVAL.into());
        }
        let (from, to) = self.two_directories(fd, to)?;
        Ok(from.hard_link(self.path(old, old_length)?, to, self.path(new, new_length)?)?)
    }

    /// What lies where nothing may be changed is not moved from there either, and gets no other name under which it
    /// could be changed.
    fn two_directories(&self, from: u32, to: u32) -> Result<(&Dir, &Dir)> {
        Ok((self.wasi.descriptors.writable_directory(from)?, self.wasi.descriptors.writable_directory(to)?))
    }

    pub fn path_symlink(&mut self, target: u32, target_length: u32, fd: u32, link: u32, length: u32) -> Result {
        let dir = self.wasi.descriptors.writable_directory(fd)?;
        Ok(dir.symlink(self.path(target, target_length)?, self.path(link, length)?)?)
    }

    pub fn path_readlink(
        &mut self,
        fd: u32,
        path: u32,
        length: u32,
        buffer: u32,
        buffer_length: u32,
        stored: u32,
    ) -> Result {
        self.bytes(buffer, buffer_length)?;
        self.bytes(stored, 4)?;
        let directory = self.wasi.descriptors.directory(fd)?;
        let target = directory.dir.read_link_contents(self.path(path, length)?)?.into_os_string().into_encoded_bytes();
        let target = target.get(..buffer_length as usize).unwrap_or(&target);
        // No longer than the buffer.
        let count = target.len() as u32;
        self.bytes_mut(buffer, count)?.copy_from_slice(target);
        Ok(self.put(stored, count.to_le_bytes())?)
    }
}
