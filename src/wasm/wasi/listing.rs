//! `fd_readdir`: what is in a directory, in pieces as large as the guest's buffer.
//!
//! The place in a directory where a guest left off is kept, so that reading it from one end to the other takes a time
//! that grows with its size. A guest that goes back makes it begin anew; the deadline ends that, too.

use std::fmt;

use rustix::fs::{Dir, DirEntry, Mode, OFlags, fstat, openat};

use super::call::{Call, slice_mut};
use super::descriptors::{Descriptor, Permit};
use super::errno::{Errno, Failed, Result};
use super::stat::{filetype, identity};

/// Bytes of an entry in front of its name.
const HEAD: usize = 24;

/// A directory that is being read.
pub(super) struct Listing {
    entries: Dir,
    device: u64,
    /// How many entries were taken out, so the cookie of the next one.
    next: u64,
    /// The last one of them, which did not fit.
    held: Option<DirEntry>,
    _permit: Permit,
}

impl fmt::Debug for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listing").field("next", &self.next).finish_non_exhaustive()
    }
}

impl Listing {
    fn new(directory: &cap_std::fs::Dir, permit: Permit) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(directory, ".", flags, Mode::empty())?;
        let device = fstat(&opened)?.st_dev;
        Ok(Self { entries: Dir::new(opened)?, device, next: 0, held: None, _permit: permit })
    }

    /// Whether the entry of this cookie is the next one, or among those after it.
    fn is_before(&self, cookie: u64) -> bool {
        self.next - u64::from(self.held.is_some()) <= cookie
    }

    /// The next entry, if there is one; its cookie.
    fn next(&mut self) -> Result<Option<(u64, DirEntry)>> {
        if let Some(held) = self.held.take() {
            return Ok(Some((self.next - 1, held)));
        }
        let Some(entry) = self.entries.next().transpose()? else {
            return Ok(None);
        };
        self.next += 1;
        Ok(Some((self.next - 1, entry)))
    }
}

impl Call<'_> {
    pub fn fd_readdir(&mut self, fd: u32, buffer: u32, length: u32, cookie: u64, stored: u32) -> Result {
        self.bytes(stored, 4)?;
        self.bytes(buffer, length)?;
        let Descriptor::Directory(directory) = self.wasi.descriptors.get_mut(fd)? else {
            return Err(Errno::BADF.into());
        };
        let mut listing = match directory.listing.take() {
            Some(listing) if listing.is_before(cookie) => listing,
            // The one that there is goes first, and its descriptor.
            _ => Listing::new(&directory.dir, Permit::take(&self.wasi.budget)?)?,
        };
        let mut room = slice_mut(self.memory, buffer, length)?;
        let mut at_end = true;
        while let Some((place, entry)) = listing.next()? {
            self.interrupt.check()?;
            if place < cookie {
                continue;
            }
            if !write(&mut room, place + 1, listing.device, &entry)? {
                listing.held = Some(entry);
                at_end = false;
                break;
            }
        }
        let left = room.len() as u32;
        // At its end, it needs no descriptor any more.
        directory.listing = (!at_end).then_some(listing);
        Ok(self.put(stored, (length - left).to_le_bytes())?)
    }
}

/// Writes as much of an entry as there is room for; whether that is all of it.
fn write(room: &mut &mut [u8], next: u64, device: u64, entry: &DirEntry) -> Result<bool, Failed> {
    let name = entry.file_name().to_bytes();
    let length = u32::try_from(name.len()).map_err(|_| Errno::OVERFLOW)?;
    let mut head = [0; HEAD];
    let fields = [&next.to_le_bytes()[..], &identity(device, entry.ino()).to_le_bytes(), &length.to_le_bytes()];
    let kind = [filetype(entry.file_type())];
    for (place, byte) in head.iter_mut().zip(fields.into_iter().chain([&kind[..]]).flatten()) {
        *place = *byte;
    }
    Ok(append(room, &head) && append(room, name))
}

fn append(room: &mut &mut [u8], bytes: &[u8]) -> bool {
    let fits = bytes.len().min(room.len());
    let (here, rest) = std::mem::take(room).split_at_mut(fits);
    for (place, byte) in here.iter_mut().zip(bytes) {
        *place = *byte;
    }
    *room = rest;
    fits == bytes.len()
}
