//! A guest that does in WASI what the test says, one function at a time.

use std::fmt::Write;

use serde_json::json;

use crate::plugin::{Ended, Plugin, Setup};

/// All functions of `wasi_snapshot_preview1` that return; `i` and `I` are the parameters of 32 and 64 bits.
pub const WASI_FUNCTIONS: [(&str, &str); 45] = [
    ("args_get", "ii"),
    ("args_sizes_get", "ii"),
    ("environ_get", "ii"),
    ("environ_sizes_get", "ii"),
    ("clock_res_get", "ii"),
    ("clock_time_get", "iIi"),
    ("fd_advise", "iIIi"),
    ("fd_allocate", "iII"),
    ("fd_close", "i"),
    ("fd_datasync", "i"),
    ("fd_fdstat_get", "ii"),
    ("fd_fdstat_set_flags", "ii"),
    ("fd_fdstat_set_rights", "iII"),
    ("fd_filestat_get", "ii"),
    ("fd_filestat_set_size", "iI"),
    ("fd_filestat_set_times", "iIIi"),
    ("fd_pread", "iiiIi"),
    ("fd_prestat_get", "ii"),
    ("fd_prestat_dir_name", "iii"),
    ("fd_pwrite", "iiiIi"),
    ("fd_read", "iiii"),
    ("fd_readdir", "iiiIi"),
    ("fd_renumber", "ii"),
    ("fd_seek", "iIii"),
    ("fd_sync", "i"),
    ("fd_tell", "ii"),
    ("fd_write", "iiii"),
    ("path_create_directory", "iii"),
    ("path_filestat_get", "iiiii"),
    ("path_filestat_set_times", "iiiiIIi"),
    ("path_link", "iiiiiii"),
    ("path_open", "iiiiiIIii"),
    ("path_readlink", "iiiiii"),
    ("path_remove_directory", "iii"),
    ("path_rename", "iiiiii"),
    ("path_symlink", "iiiii"),
    ("path_unlink_file", "iii"),
    ("poll_oneoff", "iiii"),
    ("proc_raise", "i"),
    ("random_get", "ii"),
    ("sched_yield", ""),
    ("sock_accept", "iii"),
    ("sock_recv", "iiiiii"),
    ("sock_send", "iiiii"),
    ("sock_shutdown", "ii"),
];

/// Functions that read and write the guest's memory, take arguments from the input (8 bytes each), and those of WASI
/// that are more than a call.
const BODY: &str = r#"
    (memory (export "memory") 4)
    (func $wide (param $index i64) (result i64)
      (call $input_load_u64 (i64.mul (local.get $index) (i64.const 8))))
    (func $arg (param $index i64) (result i32) (i32.wrap_i64 (call $wide (local.get $index))))
    (func $0 (result i32) (call $arg (i64.const 0)))
    (func $1 (result i32) (call $arg (i64.const 1)))

    (func (export "get") (call $output (call $block (call $0) (call $1))))
    (func (export "put") (local $i i32) (local $n i32)
      (local.set $n (i32.sub (i32.wrap_i64 (call $input_length)) (i32.const 8)))
      (block $done (loop $next
        (br_if $done (i32.eq (local.get $i) (local.get $n)))
        (i32.store8 (i32.add (call $0) (local.get $i))
          (call $input_load_u8 (i64.extend_i32_u (i32.add (local.get $i) (i32.const 8)))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $next))))
    (func (export "grow") (result i32) (i32.eq (memory.grow (call $0)) (i32.const -1)))

    (func (export "sleep") (result i32)
      (call $note (i64.const 0))
      (call $wasi_poll_oneoff (call $0) (call $1) (call $arg (i64.const 2)) (call $arg (i64.const 3))))
    (func (export "exit") (call $output (text 'before the end')) (call $proc_exit (call $0)))"#;

/// Each function of WASI behind an export of its name, which takes its arguments from the input and returns its error
/// number.
fn body() -> String {
    let mut imports = String::new();
    let mut exports = String::new();
    for (name, parameters) in WASI_FUNCTIONS {
        let types: String = parameters.chars().map(|c| if c == 'I' { "i64 " } else { "i32 " }).collect();
        let argument = |(index, c)| format!("(call ${} (i64.const {index}))", if c == 'I' { "wide" } else { "arg" });
        let arguments: String = parameters.chars().enumerate().map(argument).collect();
        let ty = format!("(param {types}) (result i32)");
        writeln!(imports, r#"(import "wasi_snapshot_preview1" "{name}" (func $wasi_{name} {ty}))"#).expect("a string");
        writeln!(exports, r#"(func (export "{name}") (result i32) (call $wasi_{name} {arguments}))"#)
            .expect("a string");
    }
    imports + BODY + &exports
}

/// Bytes of the guest's memory.
pub const MEMORY: u64 = 4 * crate::PAGE;

const SUBSCRIPTIONS: u64 = 1024;
/// Where events are put.
pub const EVENTS: u64 = 2048;
const STORED: u64 = 512;
const OPENED: u64 = 256;
/// Where paths are put.
pub const PATH: u64 = 4096;

/// An error number of WASI: permission denied by the file system.
pub const ACCES: i32 = 2;
/// No such descriptor, or not one of this kind.
pub const BADF: i32 = 8;
/// It exists.
pub const EXIST: i32 = 20;
/// A pointer outside of memory.
pub const FAULT: i32 = 21;
/// Larger than a file may be.
pub const FBIG: i32 = 22;
/// An argument that makes no sense.
pub const INVAL: i32 = 28;
/// A directory where a file is wanted.
pub const ISDIR: i32 = 31;
/// Too many symbolic links.
pub const LOOP: i32 = 32;
/// Too many descriptors of this plug-in.
pub const MFILE: i32 = 33;
/// A path that is too long.
pub const NAMETOOLONG: i32 = 37;
/// Too many descriptors in the process.
pub const NFILE: i32 = 41;
/// No such file.
pub const NOENT: i32 = 44;
/// Not enough memory.
pub const NOMEM: i32 = 48;
/// Not a directory.
pub const NOTDIR: i32 = 54;
/// A directory with something in it.
pub const NOTEMPTY: i32 = 55;
/// No socket.
pub const NOTSOCK: i32 = 57;
/// Not offered.
pub const NOTSUP: i32 = 58;
/// Not permitted.
pub const PERM: i32 = 63;

/// The clock that tells the time of day.
pub const REALTIME: u32 = 0;
/// The clock that only goes forward.
pub const MONOTONIC: u32 = 1;
/// In the unit of clocks.
pub const MILLISECOND: u64 = 1_000_000;

/// The right to read.
pub const READ: u64 = 1 << 1;
/// The right to write.
pub const WRITE: u64 = 1 << 6;

/// The flag of `path_open` that makes a file which is not there.
pub const CREATE: u64 = 1;
/// The flag of `path_open` for directories alone.
pub const DIRECTORY: u64 = 2;
/// The flag of `path_open` for files that are not there yet.
pub const EXCLUSIVE: u64 = 4;
/// The flag of `path_open` that empties a file.
pub const TRUNCATE: u64 = 8;

/// The (userdata, error, type) of each event, or the error number.
pub type Polled = Result<Vec<(u64, u16, u8)>, i32>;

/// A subscription of `poll_oneoff`.
pub type Subscription = [u8; 48];

/// A plug-in, and what the test has it do.
pub struct WasiGuest {
    /// The plug-in.
    pub plugin: Plugin,
}

impl WasiGuest {
    /// One without directories.
    pub fn plain() -> Self {
        Self::of(Self::setup())
    }

    /// One that has this directory, which may begin with `ro:`, as `/data`.
    pub fn with_directory(host: &str) -> Self {
        Self::of(Self::setup().with("allowed_paths", json!({host: "/data"})))
    }

    /// One whose calls may take this long.
    pub fn with_timeout(milliseconds: u64) -> Self {
        Self::of(Self::setup().with("timeout_ms", json!(milliseconds)))
    }

    /// What guests are made of.
    pub fn setup() -> Setup {
        Setup::guest(&body()).wasi()
    }

    fn of(setup: Setup) -> Self {
        Self { plugin: setup.plugin() }
    }

    /// Runs an export with these arguments.
    pub fn run(&self, name: &str, arguments: &[u64]) -> Ended {
        self.plugin.call(name, arguments.iter().flat_map(|argument| argument.to_le_bytes()).collect::<Vec<_>>())
    }

    /// The error number that a function of WASI returns.
    #[track_caller]
    pub fn call(&self, name: &str, arguments: &[u64]) -> i32 {
        self.run(name, arguments).success().0
    }

    /// Calls `proc_exit`, with an output set before.
    pub fn exit(&self, code: i32) -> Ended {
        self.run("exit", &[code.cast_unsigned().into()])
    }

    /// Writes to the guest's memory.
    #[track_caller]
    pub fn put(&self, at: u64, bytes: &[u8]) {
        self.plugin.output_of("put", [&at.to_le_bytes(), bytes].concat());
    }

    /// Reads the guest's memory.
    #[track_caller]
    pub fn get(&self, at: u64, length: u64) -> Vec<u8> {
        self.run("get", &[at, length]).success().1
    }

    /// As `get`, for a length known beforehand.
    #[track_caller]
    pub fn bytes<const N: usize>(&self, at: u64) -> [u8; N] {
        self.get(at, N as u64).try_into().expect("as many bytes as asked for")
    }

    /// A number in the guest's memory.
    #[track_caller]
    pub fn u32(&self, at: u64) -> u32 {
        u32::from_le_bytes(self.bytes(at))
    }

    /// What a clock says.
    #[track_caller]
    pub fn now(&self, clock: u32) -> u64 {
        assert_eq!(self.call("clock_time_get", &[clock.into(), 0, 0]), 0);
        u64::from_le_bytes(self.bytes(0))
    }

    /// Places subscriptions in memory, where `run_poll` expects them.
    #[track_caller]
    pub fn subscribe(&self, subscriptions: &[Subscription]) {
        self.put(SUBSCRIPTIONS, subscriptions.as_flattened());
    }

    /// Polls this many of the subscriptions. The plug-in notes something before.
    pub fn run_poll(&self, count: usize) -> Ended {
        self.run("sleep", &[SUBSCRIPTIONS, EVENTS, count as u64, STORED])
    }

    /// Polls, which has to return to the guest.
    #[track_caller]
    pub fn poll(&self, subscriptions: &[Subscription]) -> Polled {
        self.subscribe(subscriptions);
        let (error, _) = self.run_poll(subscriptions.len()).success();
        if error != 0 {
            return Err(error);
        }
        let events = self.get(EVENTS, 32 * u64::from(self.u32(STORED)));
        let (events, _) = events.as_chunks::<32>();
        let word = |event: &[u8; 32]| u64::from_le_bytes(*event.first_chunk().expect("8 of 32"));
        Ok(events.iter().map(|event| (word(event), u16::from_le_bytes([event[8], event[9]]), event[10])).collect())
    }

    /// Calls a function of paths on a path below the guest's directory.
    #[track_caller]
    pub fn at(&self, function: &str, path: &str) -> i32 {
        self.put(PATH, path.as_bytes());
        self.call(function, &[3, PATH, path.len() as u64])
    }

    /// Makes a symbolic link.
    #[track_caller]
    pub fn symlink(&self, target: &str, link: &str) -> i32 {
        self.put(PATH, format!("{target}{link}").as_bytes());
        self.call("path_symlink", &[PATH, target.len() as u64, 3, PATH + target.len() as u64, link.len() as u64])
    }

    /// What a symbolic link says, or the error number.
    #[track_caller]
    pub fn readlink(&self, link: &str) -> Result<String, i32> {
        self.put(PATH, link.as_bytes());
        match self.call("path_readlink", &[3, PATH, link.len() as u64, 0, 256, OPENED]) {
            0 => Ok(String::from_utf8(self.get(0, self.u32(OPENED).into())).expect("a text in UTF-8")),
            error => Err(error),
        }
    }

    /// Renames, or makes a hard link (`path_link`), from one directory to another.
    #[track_caller]
    pub fn transfer(&self, function: &str, (from, old): (u32, &str), (to, new): (u32, &str)) -> i32 {
        self.put(PATH, format!("{old}{new}").as_bytes());
        let (new_at, old_length, new_length) = (PATH + old.len() as u64, old.len() as u64, new.len() as u64);
        let [from, to] = [from, to].map(u64::from);
        match function {
            "path_link" => self.call(function, &[from, 0, PATH, old_length, to, new_at, new_length]),
            _ => self.call(function, &[from, PATH, old_length, to, new_at, new_length]),
        }
    }

    /// Sets the times of a path to this many nanoseconds, with these flags of `path_filestat_get`.
    #[track_caller]
    pub fn set_times(&self, path: &str, flags: u64, time: u64) -> i32 {
        self.put(PATH, path.as_bytes());
        self.call("path_filestat_set_times", &[3, flags, PATH, path.len() as u64, time, time, 1 | 4])
    }

    /// The type and the size of what a path names, or the error number.
    #[track_caller]
    pub fn stat(&self, path: &str, flags: u64) -> Result<(u8, u64), i32> {
        self.put(PATH, path.as_bytes());
        match self.call("path_filestat_get", &[3, flags, PATH, path.len() as u64, 0]) {
            0 => Ok((self.bytes::<1>(16)[0], u64::from_le_bytes(self.bytes(32)))),
            error => Err(error),
        }
    }

    /// Names and types in a directory, read with a buffer of this size at a time.
    #[track_caller]
    pub fn list(&self, directory: u32, buffer: u64) -> Vec<(String, u8)> {
        let (mut found, mut cookie) = (Vec::new(), 0u64);
        loop {
            assert_eq!(self.call("fd_readdir", &[directory.into(), PATH, buffer, cookie, OPENED]), 0);
            let bytes = self.get(PATH, self.u32(OPENED).into());
            let mut rest = &bytes[..];
            while let Some((entry, after)) = rest.split_first_chunk::<24>() {
                let length = u32::from_le_bytes(*entry[16..].first_chunk().expect("4 of 8")) as usize;
                let Some((name, after)) = after.split_at_checked(length) else { break };
                found.push((String::from_utf8_lossy(name).into_owned(), entry[20]));
                cookie = u64::from_le_bytes(*entry.first_chunk().expect("8 of 24"));
                rest = after;
            }
            if (bytes.len() as u64) < buffer {
                return found;
            }
        }
    }

    /// Opens a path below the guest's directory: the descriptor or the error number.
    #[track_caller]
    pub fn open(&self, path: &str, flags: u64, rights: u64) -> Result<u32, i32> {
        self.put(PATH, path.as_bytes());
        match self.call("path_open", &[3, 1, PATH, path.len() as u64, flags, rights, rights, 0, OPENED]) {
            0 => Ok(self.u32(OPENED)),
            error => Err(error),
        }
    }

    /// Reads at most this many bytes from a descriptor.
    #[track_caller]
    pub fn read(&self, descriptor: u32, length: u32) -> String {
        self.put(0, [64u32.to_le_bytes(), length.to_le_bytes()].as_flattened());
        assert_eq!(self.call("fd_read", &[descriptor.into(), 0, 1, 8]), 0);
        let read = self.u32(8).into();
        String::from_utf8(self.get(64, read)).expect("a text in UTF-8")
    }

    /// Writes a text to a descriptor; returns how many bytes it took.
    #[track_caller]
    pub fn write(&self, descriptor: u32, text: &str) -> u32 {
        self.put(0, [64u32.to_le_bytes(), (text.len() as u32).to_le_bytes()].as_flattened());
        self.put(64, text.as_bytes());
        assert_eq!(self.call("fd_write", &[descriptor.into(), 0, 1, 8]), 0);
        self.u32(8)
    }
}

/// Waits for a clock; the flag 1 says that the timeout is a point in time.
pub fn clock(userdata: u64, id: u32, timeout: u64, flags: u16) -> Subscription {
    let mut bytes = [0; 48];
    bytes[..8].copy_from_slice(&userdata.to_le_bytes());
    bytes[16..20].copy_from_slice(&id.to_le_bytes());
    bytes[24..32].copy_from_slice(&timeout.to_le_bytes());
    bytes[40..42].copy_from_slice(&flags.to_le_bytes());
    bytes
}

/// Waits for a descriptor: to be read with the tag 1, to be written with the tag 2.
pub fn descriptor(userdata: u64, tag: u8, descriptor: u32) -> Subscription {
    let mut bytes = [0; 48];
    bytes[..8].copy_from_slice(&userdata.to_le_bytes());
    bytes[8] = tag;
    bytes[16..20].copy_from_slice(&descriptor.to_le_bytes());
    bytes
}
