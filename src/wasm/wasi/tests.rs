use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use wasmtime::{Engine, Instance, Memory, Module, Store};
use wasmtime_wasi::I32Exit;

use super::*;
use crate::state::interrupt::Stopped;

mod files;

/// Each function of WASI behind an export of the same name, and a memory of one page.
const MODULE_TEXT: &str = r#"(module
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "args_sizes_get" (func $args (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (import "wasi_snapshot_preview1" "path_open"
        (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_symlink" (func $symlink (param i32 i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_unlink_file" (func $unlink (param i32 i32 i32) (result i32)))
    (memory (export "memory") 4)
    (func (export "poll") (param i32 i32 i32 i32) (result i32)
        (call $poll (local.get 0) (local.get 1) (local.get 2) (local.get 3)))
    (func (export "args") (param i32 i32) (result i32) (call $args (local.get 0) (local.get 1)))
    (func (export "environ") (param i32 i32) (result i32) (call $environ (local.get 0) (local.get 1)))
    (func (export "prestat") (param i32 i32) (result i32) (call $prestat (local.get 0) (local.get 1)))
    (func (export "read") (param i32 i32 i32 i32) (result i32)
        (call $read (local.get 0) (local.get 1) (local.get 2) (local.get 3)))
    (func (export "write") (param i32 i32 i32 i32) (result i32)
        (call $write (local.get 0) (local.get 1) (local.get 2) (local.get 3)))
    (func (export "clock") (param i32 i64 i32) (result i32)
        (call $clock (local.get 0) (local.get 1) (local.get 2)))
    (func (export "random") (param i32 i32) (result i32) (call $random (local.get 0) (local.get 1)))
    (func (export "exit") (param i32) (call $exit (local.get 0)))
    (func (export "open") (param i32 i32 i32 i64 i32) (result i32)
        (call $open (i32.const 3) (i32.const 1) (local.get 0) (local.get 1) (local.get 2)
            (local.get 3) (i64.const 0) (i32.const 0) (local.get 4)))
    (func (export "symlink") (param i32 i32 i32 i32) (result i32)
        (call $symlink (local.get 0) (local.get 1) (i32.const 3) (local.get 2) (local.get 3)))
    (func (export "unlink") (param i32 i32) (result i32)
        (call $unlink (i32.const 3) (local.get 0) (local.get 1))))"#;

const PAGES: u32 = 4 * 65_536;
const SUBSCRIPTIONS: u32 = 1024;
const EVENTS: u32 = 2048;
const COUNT: u32 = 512;
const PATH: u32 = 4096;

const BADF: u32 = 8;
const FAULT: u32 = 21;
const INVAL: u32 = 28;
const NOENT: u32 = 44;
const NOMEM: u32 = 48;

const REALTIME: u32 = 0;
const MONOTONIC: u32 = 1;
const MILLISECOND: u64 = 1_000_000;

/// The (userdata, error, type) of each event, or the number of an error.
type Polled = Result<Vec<(u64, u16, u8)>, u32>;

struct Data {
    wasi: WasiP1Ctx,
    interrupt: Arc<Interrupt>,
}

struct Guest {
    store: Store<Data>,
    instance: Instance,
    memory: Memory,
}

impl Guest {
    fn new(directories: &[Directory]) -> Self {
        Self::of(MODULE_TEXT, directories)
    }

    fn of(text: &str, directories: &[Directory]) -> Self {
        enter();
        let engine = Engine::default();
        let mut linker = Linker::new(&engine);
        add_to_linker(&mut linker, |data: &mut Data| &mut data.wasi, |data| &*data.interrupt).expect("linker");
        let wasi = context(directories, false).expect("context");
        let mut store = Store::new(&engine, Data { wasi, interrupt: Arc::new(Interrupt::new()) });
        let module = Module::new(&engine, text).expect("module");
        let instance = linker.instantiate(&mut store, &module).expect("instance");
        let memory = instance.get_memory(&mut store, "memory").expect("memory");
        Self { store, instance, memory }
    }

    fn call<P: wasmtime::WasmParams>(&mut self, name: &str, params: P) -> wasmtime::Result<u32> {
        self.instance.get_typed_func::<P, u32>(&mut self.store, name).expect(name).call(&mut self.store, params)
    }

    fn put(&mut self, at: u32, bytes: &[u8]) {
        self.memory.write(&mut self.store, at as usize, bytes).expect("in memory");
    }

    fn bytes<const N: usize>(&self, at: u32) -> [u8; N] {
        let at = at as usize;
        self.memory.data(&self.store)[at..at + N].try_into().expect("size")
    }

    fn u32(&self, at: u32) -> u32 {
        u32::from_le_bytes(self.bytes(at))
    }

    fn now(&mut self, clock: u32) -> u64 {
        assert_eq!(self.call("clock", (clock, 0u64, 0u32)).unwrap(), 0);
        u64::from_le_bytes(self.bytes(0))
    }

    fn poll(&mut self, subscriptions: &[[u8; 48]]) -> wasmtime::Result<Polled> {
        self.put(SUBSCRIPTIONS, subscriptions.as_flattened());
        let count = subscriptions.len() as u32;
        let errno = self.call("poll", (SUBSCRIPTIONS, EVENTS, count, COUNT))?;
        if errno != 0 {
            return Ok(Err(errno));
        }
        let events = (0..self.u32(COUNT)).map(|index| {
            let at = EVENTS + 32 * index;
            (u64::from_le_bytes(self.bytes(at)), u16::from_le_bytes(self.bytes(at + 8)), self.bytes::<1>(at + 10)[0])
        });
        Ok(Ok(events.collect()))
    }

    fn open(&mut self, path: &str, flags: u32, rights: u64) -> u32 {
        self.put(PATH, path.as_bytes());
        self.call("open", (PATH, path.len() as u32, flags, rights, 256u32)).unwrap()
    }
}

fn clock(userdata: u64, id: u32, timeout: u64, flags: u16) -> [u8; 48] {
    let mut bytes = [0; 48];
    bytes[..8].copy_from_slice(&userdata.to_le_bytes());
    bytes[16..20].copy_from_slice(&id.to_le_bytes());
    bytes[24..32].copy_from_slice(&timeout.to_le_bytes());
    bytes[40..42].copy_from_slice(&flags.to_le_bytes());
    bytes
}

fn descriptor(userdata: u64, tag: u8, descriptor: u32) -> [u8; 48] {
    let mut bytes = [0; 48];
    bytes[..8].copy_from_slice(&userdata.to_le_bytes());
    bytes[8] = tag;
    bytes[16..20].copy_from_slice(&descriptor.to_le_bytes());
    bytes
}

fn took(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

#[test]
fn relative_clocks() {
    let mut guest = Guest::new(&[]);
    for id in [REALTIME, MONOTONIC] {
        let elapsed = took(|| {
            let events = guest.poll(&[clock(7, id, 20 * MILLISECOND, 0)]).unwrap();
            assert_eq!(events, Ok(vec![(7, 0, 0)]));
        });
        assert!(elapsed >= Duration::from_millis(20), "{elapsed:?}");
    }
    assert_eq!(guest.poll(&[clock(7, MONOTONIC, 0, 0)]).unwrap(), Ok(vec![(7, 0, 0)]));
}

#[test]
fn absolute_clocks() {
    let mut guest = Guest::new(&[]);
    for id in [REALTIME, MONOTONIC] {
        let until = guest.now(id) + 20 * MILLISECOND;
        assert_eq!(guest.poll(&[clock(7, id, until, 1)]).unwrap(), Ok(vec![(7, 0, 0)]));
        assert!(guest.now(id) >= until);
        let elapsed = took(|| {
            assert_eq!(guest.poll(&[clock(8, id, until, 1)]).unwrap(), Ok(vec![(8, 0, 0)]));
        });
        assert!(elapsed < Duration::from_secs(2), "{elapsed:?}");
    }
}

#[test]
fn several_subscriptions() {
    let mut guest = Guest::new(&[]);
    let (soon, late) = (clock(1, MONOTONIC, 5 * MILLISECOND, 0), clock(2, MONOTONIC, 60_000 * MILLISECOND, 0));
    assert_eq!(guest.poll(&[late, soon]).unwrap(), Ok(vec![(1, 0, 0)]));
    assert_eq!(guest.poll(&[clock(1, REALTIME, 0, 0), clock(2, MONOTONIC, 0, 0)]).unwrap().unwrap().len(), 2);
    // Streams are ready; the clock is not waited for.
    assert_eq!(guest.poll(&[late, descriptor(3, 1, 0), descriptor(4, 2, 1)]).unwrap(), Ok(vec![(3, 0, 1), (4, 0, 2)]));
    assert_eq!(guest.bytes::<8>(EVENTS + 16), 1u64.to_le_bytes());
}

#[test]
fn descriptors() {
    let host = scratch("descriptors");
    fs::write(host.join("file"), "text").unwrap();
    let mut guest = Guest::new(&[Directory { host: host.clone(), guest: "/".into(), read_only: false }]);
    assert_eq!(guest.open("file", 0, 2), 0);
    let file = guest.u32(256);
    assert_eq!(guest.poll(&[descriptor(1, 1, file)]).unwrap(), Ok(vec![(1, 0, 1)]));
    // Unknown, a directory, reading standard output, writing standard input, writing a file open for reading.
    let unknown = [
        descriptor(1, 1, 99),
        descriptor(2, 1, 3),
        descriptor(3, 1, 1),
        descriptor(4, 2, 0),
        descriptor(5, 2, file),
        descriptor(6, 1, u32::MAX),
        clock(7, MONOTONIC, 60_000 * MILLISECOND, 0),
    ];
    let events = guest.poll(&unknown).unwrap().unwrap();
    assert_eq!(events.len(), 6);
    for (index, (userdata, error, _)) in events.into_iter().enumerate() {
        assert_eq!((userdata, u32::from(error)), (index as u64 + 1, BADF));
    }
    fs::remove_dir_all(host).unwrap();
}

#[test]
fn what_does_not_exist() {
    let mut guest = Guest::new(&[]);
    for id in [2, 3, 4, u32::MAX] {
        assert_eq!(guest.poll(&[clock(1, id, 0, 0)]).unwrap(), Ok(vec![(1, INVAL as u16, 0)]));
    }
    assert_eq!(guest.poll(&[clock(1, MONOTONIC, 0, 2)]).unwrap(), Err(INVAL));
    assert_eq!(guest.poll(&[descriptor(1, 3, 0)]).unwrap(), Err(INVAL));
    assert_eq!(guest.poll(&[clock(1, MONOTONIC, 0, 0), descriptor(1, 255, 0)]).unwrap(), Err(INVAL));
}

#[test]
fn numbers_of_subscriptions() {
    let mut guest = Guest::new(&[]);
    assert_eq!(guest.poll(&[]).unwrap(), Err(INVAL));
    for count in [4097, 1 << 20, u32::MAX] {
        assert_eq!(guest.call("poll", (0u32, 0u32, count, 0u32)).unwrap(), NOMEM);
    }
    let all = vec![clock(1, MONOTONIC, 0, 0); 4096];
    guest.put(0, all.as_flattened());
    // The events overlap the subscriptions.
    assert_eq!(guest.call("poll", (0u32, 16u32, 4096u32, PAGES - 4)).unwrap(), 0);
    assert_eq!(guest.u32(PAGES - 4), 4096);
}

#[test]
fn pointers_out_of_bounds() {
    let mut guest = Guest::new(&[]);
    for bad in [PAGES - 31, PAGES, u32::MAX - 40, u32::MAX] {
        assert_eq!(guest.call("poll", (bad, 0u32, 1u32, 0u32)).unwrap(), FAULT, "{bad}");
        assert_eq!(guest.call("poll", (0u32, bad, 1u32, 0u32)).unwrap(), FAULT, "{bad}");
    }
    for bad in [PAGES - 3, PAGES, u32::MAX] {
        assert_eq!(guest.call("poll", (0u32, 64u32, 1u32, bad)).unwrap(), FAULT, "{bad}");
    }
    // The very end of memory, and no alignment.
    guest.put(PAGES - 48, &clock(1, MONOTONIC, 0, 0));
    assert_eq!(guest.call("poll", (PAGES - 48, PAGES - 32, 1u32, 1u32)).unwrap(), 0);
    guest.put(1, &clock(1, MONOTONIC, 0, 0));
    assert_eq!(guest.call("poll", (1u32, 101u32, 1u32, PAGES - 4)).unwrap(), 0);
}

#[test]
fn a_module_without_memory_gets_an_error() {
    let text = r#"(module
        (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
        (func (export "poll") (result i32)
            (call $poll (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0)))
        (memory 1) (memory (export "memory64") i64 1) (export "memory" (func 0)))"#;
    let engine = Engine::default();
    let mut linker = Linker::new(&engine);
    add_to_linker(&mut linker, |data: &mut Data| &mut data.wasi, |data| &*data.interrupt).unwrap();
    let data = Data { wasi: context(&[], false).unwrap(), interrupt: Arc::new(Interrupt::new()) };
    let mut store = Store::new(&engine, data);
    let instance = linker.instantiate(&mut store, &Module::new(&engine, text).unwrap()).unwrap();
    let poll = instance.get_typed_func::<(), u32>(&mut store, "poll").unwrap();
    assert!(format!("{:?}", poll.call(&mut store, ()).unwrap_err()).contains("exports its memory as `memory`"));
}

#[test]
fn the_deadline_ends_a_sleep() {
    for timeout in [60_000 * MILLISECOND, u64::MAX] {
        let mut guest = Guest::new(&[]);
        guest.store.data().interrupt.begin(Some(Instant::now() + Duration::from_millis(30)));
        let elapsed = took(|| {
            let error = guest.poll(&[clock(1, MONOTONIC, timeout, 0)]).unwrap_err();
            assert_eq!(error.downcast_ref::<Stopped>(), Some(&Stopped::Timeout));
        });
        assert!((Duration::from_millis(30)..Duration::from_secs(5)).contains(&elapsed), "{elapsed:?}");
    }
}

#[test]
fn a_cancel_ends_a_sleep() {
    let mut guest = Guest::new(&[]);
    let interrupt = Arc::clone(&guest.store.data().interrupt);
    interrupt.begin(None);
    let canceller = thread::spawn(move || {
        thread::sleep(Duration::from_millis(30));
        assert!(interrupt.cancel());
    });
    let sleeps = [clock(1, MONOTONIC, 60_000 * MILLISECOND, 0), clock(2, REALTIME, u64::MAX, 0)];
    let error = guest.poll(&sleeps).unwrap_err();
    assert_eq!(error.downcast_ref::<Stopped>(), Some(&Stopped::Cancelled));
    canceller.join().unwrap();
}

#[test]
fn guests_see_no_arguments_and_no_environment() {
    let mut guest = Guest::new(&[]);
    for function in ["args", "environ"] {
        guest.put(0, &[0xff; 8]);
        assert_eq!(guest.call(function, (0u32, 4u32)).unwrap(), 0);
        assert_eq!(guest.bytes::<8>(0), [0; 8]);
    }
    assert_eq!(guest.call("prestat", (3u32, 0u32)).unwrap(), BADF);
}

#[test]
fn standard_streams_swallow_and_end() {
    let mut guest = Guest::new(&[]);
    guest.put(0, &[64, 0, 0, 0, 10, 0, 0, 0]);
    assert_eq!(guest.call("read", (0u32, 0u32, 1u32, 8u32)).unwrap(), 0);
    assert_eq!(guest.u32(8), 0);
    for stream in [1u32, 2] {
        assert_eq!(guest.call("write", (stream, 0u32, 1u32, 8u32)).unwrap(), 0);
        assert_eq!(guest.u32(8), 10);
    }
}

#[test]
fn random_numbers() {
    let mut guest = Guest::new(&[]);
    assert_eq!(guest.call("random", (0u32, 32u32)).unwrap(), 0);
    let first = guest.bytes::<32>(0);
    assert_eq!(guest.call("random", (0u32, 32u32)).unwrap(), 0);
    assert!(first != [0; 32] && first != guest.bytes::<32>(0));
}

#[test]
fn exit_codes() {
    for code in [0, 7, 125] {
        let mut guest = Guest::new(&[]);
        let exit = guest.instance.get_typed_func::<u32, ()>(&mut guest.store, "exit").unwrap();
        let error = exit.call(&mut guest.store, code).unwrap_err();
        assert_eq!(error.downcast_ref::<I32Exit>().unwrap().0, code as i32);
    }
}

/// An empty directory of its own for each test.
fn scratch(name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("libextism-wasi-{name}-{}-{number}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

#[test]
fn no_threads_are_started() {
    let host = scratch("threads");
    let mut guest = Guest::new(&[Directory { host: host.clone(), guest: "/".into(), read_only: false }]);
    assert_eq!(guest.open("missing", 0, 2), NOENT);
    assert_eq!(guest.poll(&[clock(1, MONOTONIC, MILLISECOND, 0)]).unwrap().unwrap().len(), 1);
    if let Ok(threads) = fs::read_dir("/proc/self/task") {
        for thread in threads {
            let name = fs::read_to_string(thread.unwrap().path().join("comm")).unwrap_or_default();
            assert!(!name.contains("tokio"), "{name}");
        }
    }
    fs::remove_dir_all(host).unwrap();
}
