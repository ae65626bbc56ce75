//! What guests see of the machine beside files: clocks and random numbers, no arguments, no environment, no sockets.

use std::time::{Duration, SystemTime};

use rustix::rand::{GetRandomFlags, getrandom};
use rustix::time::{ClockId, clock_getres};

use super::call::{Buffer, Call};
use super::descriptors::Descriptor;
use super::errno::{Errno, Result};
use super::stat::record;

/// The clocks of WASI.
pub(super) mod clock {
    pub const REALTIME: u32 = 0;
    pub const MONOTONIC: u32 = 1;
    /// Those of the process and the thread, which the host's are not for a guest.
    pub const PROCESS: u32 = 2;
    pub const THREAD: u32 = 3;
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl super::Wasi {
    /// What a clock says, in nanoseconds. The monotonic one began with the store.
    pub(super) fn now(&self, clock: u32) -> Result<u64, Errno> {
        match clock {
            clock::REALTIME => {
                let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                Ok(since.map_or(0, nanoseconds))
            }
            clock::MONOTONIC => Ok(nanoseconds(self.started.elapsed())),
            clock::PROCESS | clock::THREAD => Err(Errno::BADF),
            _ => Err(Errno::INVAL),
        }
    }
}

impl Call<'_> {
    pub fn args_get(&mut self, _pointers: u32, _bytes: u32) -> Result {
        Ok(())
    }

    pub fn args_sizes_get(&mut self, count: u32, bytes: u32) -> Result {
        self.put(count, [0; 4])?;
        Ok(self.put(bytes, [0; 4])?)
    }

    pub fn environ_get(&mut self, _pointers: u32, _bytes: u32) -> Result {
        Ok(())
    }

    pub fn environ_sizes_get(&mut self, count: u32, bytes: u32) -> Result {
        self.args_sizes_get(count, bytes)
    }

    pub fn clock_res_get(&mut self, clock: u32, resolution: u32) -> Result {
        self.wasi.now(clock)?;
        let id = if clock == clock::REALTIME { ClockId::Realtime } else { ClockId::Monotonic };
        let found = clock_getres(id);
        let word = found.tv_sec.cast_unsigned() * 1_000_000_000 + found.tv_nsec.cast_unsigned();
        Ok(self.put(resolution, word.to_le_bytes())?)
    }

    pub fn clock_time_get(&mut self, clock: u32, _precision: u64, time: u32) -> Result {
        let now = self.wasi.now(clock)?;
        Ok(self.put(time, now.to_le_bytes())?)
    }

    /// The system's own generator: one in this process would draw the same numbers after a fork, in both processes.
    pub fn random_get(&mut self, at: u32, length: u32) -> Result {
        self.bytes(at, length)?;
        for piece in (Buffer { at, length }).chunks() {
            self.interrupt.check()?;
            let mut rest = self.bytes_mut(piece.at, piece.length)?;
            while !rest.is_empty() {
                match getrandom(&mut *rest, GetRandomFlags::empty()) {
                    Ok(count) => rest = rest.get_mut(count..).unwrap_or_default(),
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// A guest has one thread, and nobody whom it could let go first.
    pub fn sched_yield(&mut self) -> Result {
        Ok(())
    }

    pub fn proc_raise(&mut self, _signal: u32) -> Result {
        Err(Errno::NOTSUP.into())
    }

    pub fn fd_prestat_get(&mut self, fd: u32, prestat: u32) -> Result {
        let name = self.wasi.descriptors.directory(fd)?.preopened_as.as_ref().ok_or(Errno::BADF)?;
        // The tag of a directory, which is 0, and the length of its name.
        let word = (name.len() as u64) << 32;
        Ok(self.put::<8>(prestat, record([word]))?)
    }

    pub fn fd_prestat_dir_name(&mut self, fd: u32, at: u32, length: u32) -> Result {
        let directory = self.wasi.descriptors.directory(fd).map_err(|errno| match self.wasi.descriptors.get(fd) {
            Ok(_) => Errno::NOTDIR,
            Err(_) => errno,
        })?;
        let name = directory.preopened_as.clone().ok_or(Errno::NOTDIR)?;
        let count = u32::try_from(name.len()).map_err(|_| Errno::OVERFLOW)?;
        if count > length {
            return Err(Errno::NAMETOOLONG.into());
        }
        self.bytes_mut(at, count)?.copy_from_slice(name.as_bytes());
        Ok(())
    }

    pub fn sock_accept(&mut self, fd: u32, _flags: u32, _accepted: u32) -> Result {
        self.no_socket(fd)
    }

    pub fn sock_recv(&mut self, fd: u32, _: u32, _: u32, _: u32, _: u32, _: u32) -> Result {
        self.no_socket(fd)
    }

    pub fn sock_send(&mut self, fd: u32, _: u32, _: u32, _: u32, _: u32) -> Result {
        self.no_socket(fd)
    }

    pub fn sock_shutdown(&mut self, fd: u32, _how: u32) -> Result {
        self.no_socket(fd)
    }

    fn no_socket(&self, fd: u32) -> Result {
        let _: &Descriptor = self.wasi.descriptors.get(fd)?;
        Err(Errno::NOTSOCK.into())
    }
}
