//! The functions of WASI on a memory of the test's own. What guests see of them is in `tests/rust/tests/wasi` and
//! `tests/rust/tests/hostile/files.rs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::call::{Buffer, Call, MAX_BUFFERS};
use super::errno::{Errno, Failed, Result};
use super::*;
use crate::state::interrupt::{Interrupt, Stopped};

/// A guest with one directory.
struct Guest {
    memory: Vec<u8>,
    wasi: Wasi,
    interrupt: Interrupt,
    path: PathBuf,
}

/// Where paths are put.
const PATH: u32 = 256;

impl Guest {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("extism-wasi-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        let directory = Directory { host: path.clone(), guest: "/data".to_owned(), read_only: false };
        let preopens = [Preopen::new(&directory).unwrap()];
        let wasi = Wasi::new(&preopens, false, Budget::new(0));
        Self { memory: vec![0; 65_536], wasi, interrupt: Interrupt::new(), path }
    }

    fn call(&mut self) -> Call<'_> {
        Call { memory: &mut self.memory, wasi: &mut self.wasi, interrupt: &self.interrupt }
    }

    fn put(&mut self, at: u32, bytes: &[u8]) {
        self.memory[at as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    fn u32(&self, at: u32) -> u32 {
        u32::from_le_bytes(*self.memory[at as usize..].first_chunk().unwrap())
    }

    fn open(&mut self, path: &str, flags: u32) -> Result<u32> {
        self.put(PATH, path.as_bytes());
        let rights = super::stat::rights::FD_READ | super::stat::rights::FD_WRITE;
        self.call().path_open(3, 1, PATH, path.len() as u32, flags, rights, 0, 0, 0)?;
        Ok(self.u32(0))
    }

    fn open_descriptors(&self) -> u32 {
        self.wasi.budget.descriptors.load(Ordering::Relaxed)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn failed<T>(errno: Errno) -> Result<T> {
    Err(Failed::With(errno))
}

#[test]
fn buffers_are_as_many_as_the_system_takes() {
    let mut guest = Guest::new("buffers");
    let one = [8u32.to_le_bytes(), 2u32.to_le_bytes()].concat();
    guest.put(0, &one.repeat(2000));
    let buffers = guest.call().buffers(0, 2000).unwrap();
    assert_eq!(buffers, vec![Buffer { at: 8, length: 2 }; MAX_BUFFERS as usize]);
    // Empty ones are left out.
    guest.put(0, &[0; 16]);
    assert_eq!(guest.call().buffers(0, 3).unwrap(), [Buffer { at: 8, length: 2 }]);
    assert_eq!(guest.call().buffers(0, u32::MAX), Err(Errno::FAULT));
    assert_eq!(guest.call().buffers(65_529, 1), Err(Errno::FAULT));
}

#[test]
fn lengths_together_have_32_bits() {
    let mut guest = Guest::new("lengths");
    // No page of it is touched, so it takes no memory.
    guest.memory = vec![0; 3 << 30];
    let large = [0u32.to_le_bytes(), (3u32 << 30).to_le_bytes()].concat();
    guest.put(64, &large.repeat(2));
    assert_eq!(guest.call().buffers(64, 2).unwrap().len(), 1);
}

#[test]
fn pieces_cover_a_buffer() {
    let pieces =
        |at, length| (Buffer { at, length }).chunks().map(|piece| (piece.at, piece.length)).collect::<Vec<_>>();
    assert_eq!(pieces(7, 0), []);
    assert_eq!(pieces(7, 5), [(7, 5)]);
    assert_eq!(pieces(7, (1 << 20) + 1), [(7, 1 << 20), (7 + (1 << 20), 1)]);
    assert_eq!(pieces(0, u32::MAX).last(), Some(&(4095 << 20, (1 << 20) - 1)));
}

#[test]
fn descriptors_have_the_lowest_number_and_are_given_back() {
    let mut guest = Guest::new("numbers");
    let numbers: Vec<_> = (0..4).map(|n| guest.open(&format!("f{n}"), 1).unwrap()).collect();
    assert_eq!(numbers, [4, 5, 6, 7]);
    assert_eq!(guest.open_descriptors(), 4);
    guest.call().fd_close(5).unwrap();
    assert_eq!(guest.call().fd_close(5), failed(Errno::BADF));
    assert_eq!(guest.open("f1", 0).unwrap(), 5);
    guest.call().fd_renumber(7, 4).unwrap();
    assert_eq!((guest.open_descriptors(), guest.call().fd_close(7)), (3, failed(Errno::BADF)));
    guest.call().fd_renumber(4, 4).unwrap();
    assert_eq!(guest.open_descriptors(), 3);
    for (from, to) in [(4, 99), (99, 4), (99, 99)] {
        assert_eq!(guest.call().fd_renumber(from, to), failed(Errno::BADF));
    }
    // One whose opening fails costs nothing.
    assert_eq!(guest.open("none", 0), failed(Errno::NOENT));
    assert_eq!(guest.open_descriptors(), 3);
    let budget = Arc::clone(&guest.wasi.budget);
    drop(guest);
    assert_eq!(budget.descriptors.load(Ordering::Relaxed), 0);
}

#[test]
fn a_directory_that_is_read_holds_a_descriptor_until_its_end() {
    let mut guest = Guest::new("listing");
    (0..20).for_each(|n| fs::write(guest.path.join(format!("file-{n}")), "").unwrap());
    let mut read = |length, cookie| {
        guest.call().fd_readdir(3, PATH, length, cookie, 0).unwrap();
        (guest.u32(0), guest.open_descriptors())
    };
    assert_eq!(read(100, 0), (100, 1));
    assert_eq!(read(100, 3), (100, 1), "it goes on");
    assert_eq!(read(100, 0), (100, 1), "from the beginning");
    let (bytes, open) = read(60_000, 0);
    assert!(bytes > 22 * 24 && open == 0, "{bytes}");
}

#[test]
fn whoever_is_stopped_gets_no_further() {
    let mut guest = Guest::new("stopped");
    fs::write(guest.path.join("file"), "text").unwrap();
    let file = guest.open("file", 0).unwrap();
    guest.put(8, &[64u32.to_le_bytes(), 4u32.to_le_bytes()].concat());
    guest.interrupt.begin(Some(Instant::now()));
    let stopped = Err(Failed::Stopped(Stopped::Timeout));
    assert_eq!(guest.call().fd_read(file, 8, 1, 16), stopped);
    assert_eq!(guest.call().fd_write(file, 8, 1, 16), stopped);
    assert_eq!(guest.call().random_get(0, 8), stopped);
    assert_eq!(guest.call().fd_readdir(3, PATH, 100, 0, 0), stopped);
    guest.interrupt.end();
    assert_eq!(guest.call().fd_read(file, 8, 1, 16), Ok(()));
    assert_eq!(guest.u32(16), 4);
}

#[test]
fn errors_of_the_system() {
    let errno = |number| Errno::from(std::io::Error::from_raw_os_error(number));
    assert_eq!(errno(libc::ENOENT), Errno::NOENT);
    assert_eq!(errno(libc::EXDEV), Errno::XDEV);
    assert_eq!(errno(9999), Errno::IO);
    assert_eq!(Errno::from(std::io::Error::from(std::io::ErrorKind::PermissionDenied)), Errno::PERM);
    assert_eq!(Errno::from(std::io::Error::other("x")), Errno::IO);
}

#[test]
fn a_directory_that_is_none() {
    let directory = |host: &Path| Directory { host: host.to_owned(), guest: String::new(), read_only: false };
    for host in [Path::new("/nonexistent/x"), Path::new("/dev/null"), Path::new("")] {
        let error = Preopen::new(&directory(host)).unwrap_err().to_string();
        let begin = format!("allowed_paths: cannot open the directory `{}`: ", host.display());
        assert!(error.starts_with(&begin), "{error}");
    }
}
