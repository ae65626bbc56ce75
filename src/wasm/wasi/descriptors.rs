//! What a guest's descriptors stand for, and how many there may be.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cap_std::fs::Dir;
use rustix::process::{Resource, getrlimit};

use super::Preopen;
use super::errno::Errno;
use super::listing::Listing;
use crate::wasm::limits::Budget;

/// Descriptors that the guests of one plug-in may have open, beside those that they begin with.
const MAX_OF_PLUGIN: u32 = 256;

/// Those of all plug-ins in this process.
static OPEN: AtomicU32 = AtomicU32::new(0);

/// What a descriptor of the system costs a plug-in; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Permit(Arc<Budget>);

impl Permit {
    /// For one more descriptor: of this plug-in, and of all plug-ins, which leave half of what the process may have to
    /// the host.
    pub fn take(budget: &Arc<Budget>) -> Result<Self, Errno> {
        let most =
            getrlimit(Resource::Nofile).current.map_or(u32::MAX, |most| u32::try_from(most / 2).unwrap_or(u32::MAX));
        if !raise(&budget.descriptors, MAX_OF_PLUGIN) {
            return Err(Errno::MFILE);
        }
        if !raise(&OPEN, most) {
            budget.descriptors.fetch_sub(1, Ordering::Relaxed);
            return Err(Errno::NFILE);
        }
        Ok(Self(Arc::clone(budget)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
        self.0.descriptors.fetch_sub(1, Ordering::Relaxed);
    }
}

fn raise(count: &AtomicU32, most: u32) -> bool {
    let next = |count: u32| (count < most).then_some(count + 1);
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
}

/// What one descriptor stands for.
#[derive(Debug)]
pub(super) enum Descriptor {
    Input,
    Output(Output),
    File(OpenFile),
    Directory(OpenDirectory),
}

/// Where a guest's standard output or error goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    Nowhere,
    Stdout,
    Stderr,
}

/// A regular file.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub file: File,
    pub position: u64,
    /// What is written goes to the end.
    pub appends: bool,
    /// Kept for the guest, who may ask for it; regular files are always ready.
    pub nonblocking: bool,
    pub readable: bool,
    pub writable: bool,
    /// It lies in a directory in which nothing may be changed.
    pub read_only: bool,
    pub _permit: Permit,
}

/// A directory.
#[derive(Debug)]
pub(super) struct OpenDirectory {
    pub dir: Arc<Dir>,
    /// Nothing may be changed in it.
    pub read_only: bool,
    /// The name of one that the guest began with.
    pub preopened_as: Option<Arc<str>>,
    pub listing: Option<Listing>,
    /// The guest does not pay for those that it began with.
    pub _permit: Option<Permit>,
}

/// The descriptors of one store: a new one gets the lowest number that is free.
#[derive(Debug)]
pub(super) struct Descriptors(Vec<Option<Descriptor>>);

impl Descriptors {
    /// The standard streams, and the directories that the manifest allows.
    pub fn new(outputs: [Output; 2], preopens: &[Preopen]) -> Self {
        let streams = [Descriptor::Input, Descriptor::Output(outputs[0]), Descriptor::Output(outputs[1])];
        let directories = preopens.iter().map(|preopen| {
            Descriptor::Directory(OpenDirectory {
                dir: Arc::clone(&preopen.dir),
                read_only: preopen.read_only,
                preopened_as: Some(Arc::clone(&preopen.guest)),
                listing: None,
                _permit: None,
            })
        });
        Self(streams.into_iter().chain(directories).map(Some).collect())
    }

    fn slot(&mut self, number: u32) -> Result<&mut Option<Descriptor>, Errno> {
        let slot = usize::try_from(number).ok().and_then(|number| self.0.get_mut(number));
        slot.filter(|slot| slot.is_some()).ok_or(Errno::BADF)
    }

    pub fn get(&self, number: u32) -> Result<&Descriptor, Errno> {
        let slot = usize::try_from(number).ok().and_then(|number| self.0.get(number));
        slot.and_then(Option::as_ref).ok_or(Errno::BADF)
    }

    pub fn get_mut(&mut self, number: u32) -> Result<&mut Descriptor, Errno> {
        self.slot(number)?.as_mut().ok_or(Errno::BADF)
    }

    pub fn file(&mut self, number: u32) -> Result<&mut OpenFile, Errno> {
        match self.get_mut(number)? {
            Descriptor::File(file) => Ok(file),
            _ => Err(Errno::BADF),
        }
    }

    /// A file with a position; the standard streams have none.
    pub fn seekable(&mut self, number: u32) -> Result<&mut OpenFile, Errno> {
        match self.get_mut(number)? {
            Descriptor::File(file) => Ok(file),
            Descriptor::Input | Descriptor::Output(_) => Err(Errno::SPIPE),
            Descriptor::Directory(_) => Err(Errno::BADF),
        }
    }

    pub fn directory(&self, number: u32) -> Result<&OpenDirectory, Errno> {
        match self.get(number)? {
            Descriptor::Directory(directory) => Ok(directory),
            _ => Err(Errno::BADF),
        }
    }

    /// A directory in which things may be changed.
    pub fn writable_directory(&self, number: u32) -> Result<&Dir, Errno> {
        let directory = self.directory(number)?;
        if directory.read_only { Err(Errno::PERM) } else { Ok(&directory.dir) }
    }

    /// Gives it a number.
    pub fn add(&mut self, descriptor: Descriptor) -> Result<u32, Errno> {
        let free = self.0.iter().position(Option::is_none).unwrap_or(self.0.len());
        let number = u32::try_from(free).map_err(|_| Errno::NFILE)?;
        match self.0.get_mut(free) {
            Some(slot) => *slot = Some(descriptor),
            None => self.0.push(Some(descriptor)),
        }
        Ok(number)
    }

    pub fn close(&mut self, number: u32) -> Result<(), Errno> {
        *self.slot(number)? = None;
        Ok(())
    }

    /// Gives a descriptor another one's number, which is closed.
    pub fn renumber(&mut self, from: u32, to: u32) -> Result<(), Errno> {
        self.get(to)?;
        let moved = self.slot(from)?.take();
        // Into its own place, if both are the same.
        *self.slot_at(to)? = moved;
        Ok(())
    }

    fn slot_at(&mut self, number: u32) -> Result<&mut Option<Descriptor>, Errno> {
        usize::try_from(number).ok().and_then(|number| self.0.get_mut(number)).ok_or(Errno::BADF)
    }
}
