//! A guest that does in WASI what the test says, one function at a time.

use extism_tests::{Ended, Plugin, Setup, json};

/// Each function of WASI behind an export, which takes its arguments from the input, 8 bytes each, and returns its
/// error number; and functions that read and write the guest's memory.
const BODY: &str = r#"
    (import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_symlink" (func $symlink (param i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 4)

    (func $wide (param $index i64) (result i64)
      (call $input_load_u64 (i64.mul (local.get $index) (i64.const 8))))
    (func $arg (param $index i64) (result i32) (i32.wrap_i64 (call $wide (local.get $index))))
    (func $0 (result i32) (call $arg (i64.const 0)))
    (func $1 (result i32) (call $arg (i64.const 1)))
    (func $2 (result i32) (call $arg (i64.const 2)))
    (func $3 (result i32) (call $arg (i64.const 3)))

    (func (export "get") (call $output (call $block (call $0) (call $1))))
    (func (export "put") (local $i i32) (local $n i32)
      (local.set $n (i32.sub (i32.wrap_i64 (call $input_length)) (i32.const 8)))
      (block $done (loop $next
        (br_if $done (i32.eq (local.get $i) (local.get $n)))
        (i32.store8 (i32.add (call $0) (local.get $i))
          (call $input_load_u8 (i64.extend_i32_u (i32.add (local.get $i) (i32.const 8)))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $next))))

    (func (export "poll") (result i32)
      (call $note (i64.const 0))
      (call $poll_oneoff (call $0) (call $1) (call $2) (call $3)))
    (func (export "args") (result i32) (call $args_sizes_get (call $0) (call $1)))
    (func (export "environ") (result i32) (call $environ_sizes_get (call $0) (call $1)))
    (func (export "prestat") (result i32) (call $prestat (call $0) (call $1)))
    (func (export "read") (result i32) (call $fd_read (call $0) (call $1) (call $2) (call $3)))
    (func (export "write") (result i32) (call $fd_write (call $0) (call $1) (call $2) (call $3)))
    (func (export "clock") (result i32) (call $clock (call $0) (call $wide (i64.const 1)) (call $2)))
    (func (export "random") (result i32) (call $random (call $0) (call $1)))
    (func (export "exit") (call $output (text 'before the end')) (call $proc_exit (call $0)))
    (func (export "open") (result i32)
      (call $path_open (i32.const 3) (i32.const 1) (call $0) (call $1) (call $2)
        (call $wide (i64.const 3)) (i64.const 0) (i32.const 0) (call $arg (i64.const 4))))
    (func (export "symlink") (result i32)
      (call $symlink (call $0) (call $1) (i32.const 3) (call $2) (call $3)))
    (func (export "unlink") (result i32) (call $path_unlink_file (i32.const 3) (call $0) (call $1)))"#;

/// Bytes of the guest's memory.
pub const MEMORY: u64 = 4 * extism_tests::PAGE;

const SUBSCRIPTIONS: u64 = 1024;
/// Where events are put.
pub const EVENTS: u64 = 2048;
const STORED: u64 = 512;
const OPENED: u64 = 256;
/// Where paths are put.
pub const PATH: u64 = 4096;

/// Error numbers of WASI.
pub const BADF: i32 = 8;
pub const FAULT: i32 = 21;
pub const INVAL: i32 = 28;
pub const NOENT: i32 = 44;
pub const NOMEM: i32 = 48;
pub const PERM: i32 = 63;

/// Clocks of WASI.
pub const REALTIME: u32 = 0;
pub const MONOTONIC: u32 = 1;
pub const MILLISECOND: u64 = 1_000_000;

/// Rights of WASI.
pub const READ: u64 = 1 << 1;
pub const WRITE: u64 = 1 << 6;

/// The (userdata, error, type) of each event, or the error number.
pub type Polled = Result<Vec<(u64, u16, u8)>, i32>;

/// A subscription of `poll_oneoff`.
pub type Subscription = [u8; 48];

/// A plug-in, and what the test has it do.
pub struct Guest {
    /// The plug-in.
    pub plugin: Plugin,
}

impl Guest {
    /// One without directories.
    pub fn new() -> Self {
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
        Setup::guest(BODY).wasi()
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
        assert_eq!(self.call("clock", &[clock.into(), 0, 0]), 0);
        u64::from_le_bytes(self.bytes(0))
    }

    /// Places subscriptions in memory, where `run_poll` expects them.
    #[track_caller]
    pub fn subscribe(&self, subscriptions: &[Subscription]) {
        self.put(SUBSCRIPTIONS, subscriptions.as_flattened());
    }

    /// Polls this many of the subscriptions. The plug-in notes something before.
    pub fn run_poll(&self, count: usize) -> Ended {
        self.run("poll", &[SUBSCRIPTIONS, EVENTS, count as u64, STORED])
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

    /// Opens a path below the guest's directory: the descriptor or the error number.
    #[track_caller]
    pub fn open(&self, path: &str, flags: u64, rights: u64) -> Result<u32, i32> {
        self.put(PATH, path.as_bytes());
        match self.call("open", &[PATH, path.len() as u64, flags, rights, OPENED]) {
            0 => Ok(self.u32(OPENED)),
            error => Err(error),
        }
    }

    /// Reads at most this many bytes from a descriptor.
    #[track_caller]
    pub fn read(&self, descriptor: u32, length: u32) -> String {
        self.put(0, [64u32.to_le_bytes(), length.to_le_bytes()].as_flattened());
        assert_eq!(self.call("read", &[descriptor.into(), 0, 1, 8]), 0);
        let read = self.u32(8).into();
        String::from_utf8(self.get(64, read)).expect("a text in UTF-8")
    }

    /// Writes a text to a descriptor; returns how many bytes it took.
    #[track_caller]
    pub fn write(&self, descriptor: u32, text: &str) -> u32 {
        self.put(0, [64u32.to_le_bytes(), (text.len() as u32).to_le_bytes()].as_flattened());
        self.put(64, text.as_bytes());
        assert_eq!(self.call("write", &[descriptor.into(), 0, 1, 8]), 0);
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
