//! Sequences of calls of the C ABI, read from bytes: for the fuzz targets, and for the inputs that are kept of them.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::api::{Handle, Val, api};
use crate::{base64, guest, json};

/// What every host function here is called.
const HOST: &CStr = c"h";
/// Calls of the host out of a callback, out of a callback, ...
const MAX_DEPTH: usize = 3;

/// Any bytes as a module, binary or text, that is created, called and freed.
///
/// # Panics
///
/// If the library does what it must never do.
pub fn module(data: &[u8]) {
    let manifest = json!({
        "wasm": [{"data": base64(data)}],
        "memory": {"max_pages": 100},
        "timeout_ms": 10,
    });
    let text = manifest.to_string();
    let mut types = [1];
    // SAFETY: texts with NUL, arrays of the lengths that are told, a place for a message.
    unsafe {
        let function = (api().function_new)(
            HOST.as_ptr(),
            types.as_ptr(),
            1,
            types.as_mut_ptr(),
            1,
            give_back,
            ptr::null_mut(),
            None,
        );
        let mut message = ptr::null_mut();
        let plugin = (api().plugin_new)(text.as_ptr(), text.len() as u64, &function, 1, true, &mut message);
        (api().function_free)(function);
        if plugin.is_null() {
            assert!(!message.is_null());
            assert!(!CStr::from_ptr(message).is_empty() && CStr::from_ptr(message).count_bytes() < 64 * 1024);
            return (api().plugin_new_error_free)(message);
        }
        for _ in 0..2 {
            for name in [c"run", c"f", c"_start", c""] {
                (api().plugin_function_exists)(plugin, name.as_ptr());
                let code = (api().plugin_call)(plugin, name.as_ptr(), data.as_ptr(), data.len().min(100) as u64);
                look_at_result(plugin, code);
            }
        }
        (api().plugin_free)(plugin);
    }
}

unsafe extern "C" fn give_back(current: Handle, inputs: *const Val, _: u64, outputs: *mut Val, _: u64, _: *mut c_void) {
    // SAFETY: the function has one parameter and one result, and this is its call.
    unsafe {
        let handle = (*inputs).bits;
        let length = (api().current_plugin_memory_length)(current, handle);
        let memory = (api().current_plugin_memory)(current);
        assert!(!memory.is_null());
        if length > 0 {
            let block = memory.add(handle as usize);
            block.write(!block.read());
            let last = block.add(length as usize - 1);
            last.write(!last.read());
        }
        (*outputs).bits = (api().current_plugin_memory_alloc)(current, handle % 1000);
    }
}

/// Reads everything that a call has left behind.
fn look_at_result(plugin: Handle, code: i32) {
    // SAFETY: the result of the last call, which stays until the next.
    unsafe {
        let (data, length) = ((api().plugin_output_data)(plugin), (api().plugin_output_length)(plugin));
        assert!(length == 0 || !data.is_null());
        let mut sum = 0u8;
        for index in 0..length.min(1 << 20) as usize {
            sum = sum.wrapping_add(data.add(index).read());
        }
        if length > 0 {
            sum = sum.wrapping_add(data.add(length as usize - 1).read());
        }
        std::hint::black_box(sum);
        let error = (api().plugin_error)(plugin);
        if code != 0 && error.is_null() {
            // A code that the guest returned.
            assert_ne!(code, -1);
        }
        if !error.is_null() {
            std::hint::black_box(CStr::from_ptr(error).count_bytes());
        }
    }
}

thread_local! {
    static HOSTS: RefCell<Option<Run>> = const { RefCell::new(None) };
    /// Compiled once: compiling takes most of the time that a short sequence takes.
    static SHARED: Vec<Handle> = (0..SOURCES).map(shared).collect();
}

/// One of the sources, compiled, with a host function that is never finalised.
fn shared(number: usize) -> Handle {
    let text = source(number);
    // SAFETY: pointers to what their lengths say.
    unsafe {
        let function =
            (api().function_new)(HOST.as_ptr(), [1].as_ptr(), 1, [1].as_ptr(), 1, callback, ptr::null_mut(), None);
        let message = ptr::null_mut();
        let compiled = (api().compiled_plugin_new)(text.as_ptr(), text.len() as u64, &function, 1, true, message);
        (api().function_free)(function);
        assert!(!compiled.is_null());
        compiled
    }
}

static FINALISED: AtomicUsize = AtomicUsize::new(0);

/// A host that does one thing after the other: what, on which handles and with which sizes, the bytes say.
struct Run {
    data: Vec<u8>,
    position: usize,
    /// Handles of all kinds, also those that were freed.
    handles: Vec<Handle>,
    messages: Vec<*mut c_char>,
    functions: usize,
    depth: usize,
}

/// Any bytes as a sequence of calls: create, call, free, misuse, over several handles of all kinds, also out of
/// callbacks.
///
/// # Panics
///
/// If the library does what it must never do.
pub fn host_abi(data: &[u8]) {
    FINALISED.store(0, Ordering::SeqCst);
    HOSTS.set(Some(Run {
        data: data.to_vec(),
        position: 0,
        handles: SHARED.with(|shared| [&[ptr::null_mut()], &shared[..]].concat()),
        messages: vec![ptr::null_mut()],
        functions: 0,
        depth: 0,
    }));
    while !with(|run| run.is_over()) {
        step(None);
    }
    // Everything is freed in the end, much of it a second time.
    let (mut handles, messages, functions) = with(|run| (run.handles.clone(), run.messages.clone(), run.functions));
    SHARED.with(|shared| handles.retain(|handle| !shared.contains(handle)));
    // SAFETY: any handle and any message may be passed.
    unsafe {
        handles.iter().for_each(|handle| (api().plugin_free)(*handle));
        handles.iter().for_each(|handle| (api().compiled_plugin_free)(*handle));
        handles.iter().for_each(|handle| (api().function_free)(*handle));
        messages.iter().for_each(|message| (api().plugin_new_error_free)(*message));
    }
    assert_eq!(FINALISED.load(Ordering::SeqCst), functions, "each finaliser runs once");
}

fn with<R>(work: impl FnOnce(&mut Run) -> R) -> R {
    HOSTS.with_borrow_mut(|run| work(run.as_mut().expect("a run")))
}

impl Run {
    fn is_over(&self) -> bool {
        self.position >= self.data.len()
    }

    fn byte(&mut self) -> usize {
        let byte = self.data.get(self.position).copied().unwrap_or(0);
        self.position += 1;
        usize::from(byte)
    }

    fn number(&mut self) -> u64 {
        match self.byte() % 4 {
            0 => [0, 1, 15, 16, u64::MAX, 1 << 63, 1 << 32, 65_536][self.byte() % 8],
            1 => (0..8).fold(0, |number, _| number << 8 | self.byte() as u64),
            _ => self.byte() as u64,
        }
    }

    /// Some bytes of the input, still there while a call lasts.
    fn bytes(&mut self) -> Vec<u8> {
        let count = self.byte() % 64;
        (0..count).map(|_| self.byte() as u8).collect()
    }

    /// A handle of any kind, or what never was one.
    fn handle(&mut self) -> Handle {
        match self.byte() {
            0 => ptr::without_provenance_mut(self.number() as usize),
            1 => self.recent().wrapping_byte_add(1),
            chosen => self.handles[chosen % self.handles.len()],
        }
    }

    /// The handle that was given out most recently, mostly.
    fn recent(&mut self) -> Handle {
        match self.byte() % 4 {
            0 => self.handle(),
            back => self.handles[self.handles.len().saturating_sub(back)],
        }
    }

    /// A message that was given out, maybe freed since.
    fn message(&mut self) -> *mut c_char {
        let chosen = self.byte();
        self.messages[chosen % self.messages.len()]
    }

    fn keep(&mut self, handle: Handle) {
        if self.handles.len() < 64 {
            self.handles.push(handle);
        } else {
            let place = self.position % 64;
            // What is not kept would not be freed in the end.
            let other = std::mem::replace(&mut self.handles[place], handle);
            self.handles.push(other);
        }
    }

    fn name(&mut self) -> CString {
        let names = ["run", "echo", "loop", "trap", "host", "grow", "no such function", "", "\u{1}"];
        match self.byte() % 12 {
            index @ 0..9 => CString::new(names[index]).expect("no NUL"),
            _ => CString::new(self.bytes().into_iter().filter(|byte| *byte != 0).collect::<Vec<_>>()).expect("no NUL"),
        }
    }
}

/// How many there are.
const SOURCES: usize = 6;

/// What plug-ins are made of.
fn source(number: usize) -> String {
    let functions = r#"
        (import "extism:host/user" "h" (func $h (param i64) (result i64)))
        (func (export "run") (result i32) (call $output_set (call $input_offset) (call $input_length)) (i32.const 0))
        (func (export "echo") (result i32)
          (call $output (call $h (call $input_offset))) (i32.const 3))
        (func (export "loop") (loop $l (br $l)))
        (func (export "trap") (call $error_set (text 'bad')) unreachable)
        (func (export "host") (drop (call $h (call $h (call $alloc (i64.const 40))))))
        (func (export "grow") (drop (memory.grow (i32.const 200))) (loop $l (drop (call $alloc (i64.const 65536))) (br $l)))"#;
    let with = |wasm: serde_json::Value| json!({"wasm": wasm, "memory": {"max_pages": 8}, "timeout_ms": 3}).to_string();
    match number % SOURCES {
        0 => with(json!([{"data": base64(guest(functions))}])),
        1 => guest(functions).replace("(loop $l (br $l))", ""),
        2 => with(json!([
            {"name": "lib", "data": base64(guest(functions))},
            {"name": "main", "data": base64(guest(
                r#"(import "lib" "host" (func $host)) (import "lib" "trap" (func $trap))
                   (func (export "run") (call $host)) (func (export "trap") (call $trap))"#))},
        ])),
        3 => with(
            json!([{"data": base64(guest(&format!("{functions} (func $s (drop (call $h (i64.const 1)))) (start $s)")))}]),
        ),
        4 => with(
            json!([{"data": base64(guest(&format!(r#"{functions} (func (export "_start") (drop (call $h (i64.const 1))))"#)))}]),
        ),
        _ => "(module (func (export \"run\") (result i64) (i64.const 1)))".to_owned(),
    }
}

unsafe extern "C" fn callback(current: Handle, inputs: *const Val, n: u64, outputs: *mut Val, m: u64, _: *mut c_void) {
    let go_on = with(|run| {
        run.depth += 1;
        run.keep(current);
        run.depth <= MAX_DEPTH
    });
    if go_on {
        for _ in 0..with(|run| run.byte() % 4) {
            step(Some(current));
        }
    }
    // SAFETY: so many inputs and outputs.
    unsafe {
        let first = if n > 0 { (*inputs).bits } else { 0 };
        for index in 0..m as usize {
            let output = outputs.add(index);
            (*output).kind = with(|run| run.byte()) as u32;
            (*output).bits = if index == 0 { first } else { with(Run::number) };
        }
    }
    with(|run| run.depth -= 1);
}

unsafe extern "C" fn finalise(_: *mut c_void) {
    FINALISED.fetch_add(1, Ordering::SeqCst);
}

/// Does one thing. `current` is the handle of the callback that does it.
fn step(current: Option<Handle>) {
    let operation = with(|run| run.byte() % 24);
    // SAFETY: handles and numbers may be any; what pointers point to is there, of the length that is told.
    unsafe {
        match operation {
            0..=3 => create(operation),
            4..=8 => {
                let (plugin, name, input) = with(|run| (run.recent(), run.name(), run.bytes()));
                let context = ptr::without_provenance_mut(5);
                let code = match operation {
                    4 => (api().plugin_call_with_host_context)(
                        plugin,
                        name.as_ptr(),
                        input.as_ptr(),
                        input.len() as u64,
                        context,
                    ),
                    5 if input.len() % 2 == 0 => (api().plugin_call)(plugin, ptr::null(), ptr::null(), 0),
                    _ => (api().plugin_call)(plugin, name.as_ptr(), input.as_ptr(), input.len() as u64),
                };
                if current.is_none() {
                    look_at_result(plugin, 0);
                }
                std::hint::black_box(code);
            }
            9 => function(),
            10 => {
                let (function, name) = with(|run| (run.recent(), run.name()));
                (api().function_set_namespace)(function, name.as_ptr());
            }
            11 => drop((api().plugin_reset)(with(Run::recent))),
            12 => {
                let (plugin, text) = with(|run| (run.recent(), run.bytes()));
                (api().plugin_config)(plugin, text.as_ptr(), text.len() as u64);
                (api().plugin_config)(plugin, br#"{"a": "b", "c": null}"#.as_ptr(), 21);
            }
            13 => {
                let (plugin, name) = with(|run| (run.recent(), run.name()));
                (api().plugin_function_exists)(plugin, name.as_ptr());
                (api().plugin_allow_http_response_headers)(plugin);
                let id = (api().plugin_id)(plugin);
                if !id.is_null() {
                    std::hint::black_box(std::slice::from_raw_parts(id, 16));
                }
            }
            14 => {
                let handle = (api().plugin_cancel_handle)(with(Run::recent));
                with(|run| run.keep(handle));
            }
            15 => drop((api().plugin_cancel)(with(Run::recent))),
            16 => (api().plugin_free)(with(Run::handle)),
            17 => {
                let handle = with(Run::handle);
                if !SHARED.with(|shared| shared.contains(&handle)) {
                    (api().compiled_plugin_free)(handle);
                }
            }
            18 => (api().function_free)(with(Run::handle)),
            19 => (api().plugin_new_error_free)(with(Run::message)),
            20 => drop(CStr::from_ptr((api().version)())),
            _ => in_callback(current),
        }
        let error = (api().last_error)();
        if !error.is_null() {
            assert!(!CStr::from_ptr(error).is_empty());
        }
    }
}

/// The functions for callbacks, on the handle of this one or on any.
fn in_callback(current: Option<Handle>) {
    let (other, number) = with(|run| (run.handle(), run.number()));
    let handle = current.filter(|_| !number.is_multiple_of(5)).unwrap_or(other);
    // SAFETY: as for `step`; memory is written inside of blocks only.
    unsafe {
        (api().current_plugin_host_context)(handle);
        let block = (api().current_plugin_memory_alloc)(handle, number % 100_000);
        let length = (api().current_plugin_memory_length)(handle, block);
        let memory = (api().current_plugin_memory)(handle);
        if Some(handle) == current && block != 0 && !memory.is_null() {
            assert_eq!(length, number % 100_000);
            memory.add(block as usize).write_bytes(0x5a, length as usize);
        }
        if number.is_multiple_of(2) {
            (api().current_plugin_memory_free)(handle, block);
            (api().current_plugin_memory_free)(handle, number);
        }
    }
}

fn create(operation: usize) {
    let (text, functions, count, wasi, other) = with(|run| {
        let text = source(run.byte());
        let functions: Vec<Handle> = (0..3).map(|_| run.recent()).collect();
        (text, functions, run.byte() as u64 % 4, run.byte(), run.recent())
    });
    let operation = if wasi % 16 < 14 { 2 } else { operation };
    let other = match wasi % 4 {
        0 => other,
        _ => SHARED.with(|shared| shared[wasi / 4 % shared.len()]),
    };
    let mut message = ptr::null_mut();
    // SAFETY: as for `step`.
    let handle = unsafe {
        let (bytes, length) = (text.as_ptr(), text.len() as u64);
        match operation {
            0 => (api().plugin_new)(bytes, length, functions.as_ptr(), count, wasi % 2 == 1, &mut message),
            1 => (api().compiled_plugin_new)(bytes, length, functions.as_ptr(), count, wasi % 2 == 1, &mut message),
            2 => (api().plugin_new_from_compiled)(other, &mut message),
            _ => (api().plugin_new_with_fuel_limit)(
                bytes,
                length,
                functions.as_ptr(),
                count,
                wasi % 2 == 1,
                wasi as u64 * 100,
                &mut message,
            ),
        }
    };
    assert_eq!(handle.is_null(), !message.is_null());
    with(|run| {
        run.keep(handle);
        run.messages.push(message);
    });
}

fn function() {
    let (name, types, inputs, outputs) = with(|run| {
        let name = if run.byte() % 4 == 0 { run.name() } else { HOST.to_owned() };
        let types: Vec<u32> = (0..4).map(|_| if run.byte() % 8 == 0 { run.byte() as u32 } else { 1 }).collect();
        let mut count = || if run.byte() % 4 == 0 { run.byte() as u64 % 5 } else { 1 };
        (name, types, count(), count())
    });
    // SAFETY: as for `step`.
    let handle = unsafe {
        (api().function_new)(
            name.as_ptr(),
            types.as_ptr(),
            inputs,
            types.as_ptr(),
            outputs,
            callback,
            ptr::without_provenance_mut(1),
            Some(finalise),
        )
    };
    with(|run| {
        run.functions += usize::from(!handle.is_null());
        run.keep(handle);
    });
}
