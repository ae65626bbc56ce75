//! Plug-ins, compiled plug-ins, and how a call ended.

use std::ffi::{CString, c_char};
use std::ptr;
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value, json};

use crate::api::{Handle, api, text};
use crate::function::{HostFunction, Type, continue_panic};
use crate::guest::guest;

/// What `extism_last_error` says to this thread.
pub fn last_error() -> Option<String> {
    // SAFETY: a text of the library, valid until this thread's next call into it.
    unsafe { text((api().last_error)()) }
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// What `extism_plugin_call` returned.
    pub code: i32,
    /// What `extism_plugin_error` says.
    pub error: Option<String>,
    /// The output.
    pub output: Vec<u8>,
}

impl Ended {
    /// Return code and error of a call that failed.
    #[track_caller]
    pub fn failure(self) -> (i32, String) {
        let code = self.code;
        (code, self.error.unwrap_or_else(|| panic!("no error, and the code {code}")))
    }

    /// The code and the output of a call without an error.
    #[track_caller]
    pub fn success(self) -> (i32, Vec<u8>) {
        assert_eq!(self.error, None, "with the code {}", self.code);
        (self.code, self.output)
    }
}

/// The numbers that a guest noted.
type Notes = Arc<Mutex<Vec<i64>>>;

/// What a plug-in is to be made of. Every plug-in may import the host function `note (i64) -> ()`.
pub struct Setup {
    input: Vec<u8>,
    fields: Map<String, Value>,
    wasi: bool,
    fuel: Option<u64>,
    functions: Vec<HostFunction>,
}

impl Setup {
    /// A module, text or manifest, as it is.
    pub fn new(input: impl Into<Vec<u8>>) -> Self {
        Self { input: input.into(), fields: Map::new(), wasi: false, fuel: None, functions: Vec::new() }
    }

    /// A module around this body: see [`guest`].
    pub fn guest(body: &str) -> Self {
        Self::new(guest(body))
    }

    /// A manifest in JSON.
    pub fn manifest(json: Value) -> Self {
        Self::new(json.to_string())
    }

    /// A manifest that links modules, by name, with one whose name is `main`; all in WebAssembly text.
    pub fn linked(modules: &[(&str, &str)]) -> Self {
        let wasm: Vec<_> =
            modules.iter().map(|(name, wat)| json!({"name": name, "data": crate::base64(wat)})).collect();
        Self::new("").with("wasm", json!(wasm))
    }

    /// One more field of the manifest around the module.
    pub fn with(mut self, field: &str, value: Value) -> Self {
        self.fields.insert(field.to_owned(), value);
        self
    }

    /// With WASI.
    pub fn wasi(mut self) -> Self {
        self.wasi = true;
        self
    }

    /// With this much fuel for a call.
    pub fn fuel(mut self, fuel: u64) -> Self {
        self.fuel = Some(fuel);
        self
    }

    /// With one more host function.
    pub fn function(mut self, function: HostFunction) -> Self {
        self.functions.push(function);
        self
    }

    /// The plug-in.
    #[track_caller]
    pub fn plugin(self) -> Plugin {
        self.try_plugin().unwrap_or_else(|error| panic!("no plug-in: {error}"))
    }

    /// What stands against the plug-in.
    #[track_caller]
    pub fn refusal(self) -> String {
        match self.try_plugin() {
            Ok(_) => panic!("the plug-in was made"),
            Err(error) => error,
        }
    }

    /// The plug-in, or the message.
    pub fn try_plugin(self) -> Result<Plugin, String> {
        let fuel = self.fuel;
        let (handle, notes) = self.make(|wasm, size, functions, count, wasi, errmsg| {
            // SAFETY: `make` passes pointers to what their counts say.
            unsafe {
                match fuel {
                    None => (api().plugin_new)(wasm, size, functions, count, wasi, errmsg),
                    Some(fuel) => (api().plugin_new_with_fuel_limit)(wasm, size, functions, count, wasi, fuel, errmsg),
                }
            }
        })?;
        Ok(Plugin { handle, notes })
    }

    /// The compiled plug-in. All plug-ins made of it note in one list.
    #[track_caller]
    pub fn compile(self) -> Compiled {
        let fuel = self.fuel;
        let made = self.make(|wasm, size, functions, count, wasi, errmsg| {
            // SAFETY: `make` passes pointers to what their counts say.
            unsafe {
                match fuel {
                    None => (api().compiled_plugin_new)(wasm, size, functions, count, wasi, errmsg),
                    Some(fuel) => {
                        (api().compiled_plugin_new_with_fuel_limit)(wasm, size, functions, count, wasi, fuel, errmsg)
                    }
                }
            }
        });
        let (handle, notes) = made.unwrap_or_else(|error| panic!("no compiled plug-in: {error}"));
        Compiled { handle, notes }
    }

    fn make(
        self,
        create: impl FnOnce(*const u8, u64, *const Handle, u64, bool, *mut *mut c_char) -> Handle,
    ) -> Result<(Handle, Notes), String> {
        let notes = Notes::default();
        let list = Arc::clone(&notes);
        let note = HostFunction::new("note", &[Type::I64], &[], move |_, inputs, _| {
            list.lock().expect("the list of notes").push(inputs[0].bits.cast_signed());
        });
        let input = self.input();
        let functions: Vec<_> = std::iter::once(&note).chain(&self.functions).map(HostFunction::handle).collect();
        let mut errmsg = ptr::null_mut();
        let (size, count) = (input.len() as u64, functions.len() as u64);
        let handle = create(input.as_ptr(), size, functions.as_ptr(), count, self.wasi, &mut errmsg);
        // SAFETY: NULL, or a text of the library that is ours until it is freed below.
        let message = unsafe { text(errmsg) };
        // SAFETY: freed once.
        unsafe { (api().plugin_new_error_free)(errmsg) };
        match (handle.is_null(), message) {
            (false, None) => Ok((handle, notes)),
            (true, Some(message)) => Err(message),
            (is_null, message) => panic!("NULL: {is_null}, and the message is {message:?}"),
        }
    }

    /// What the library gets: the module, or a manifest in which it stands by its address.
    fn input(&self) -> Vec<u8> {
        if self.fields.is_empty() {
            return self.input.clone();
        }
        let mut manifest = self.fields.clone();
        let data = json!({"ptr": self.input.as_ptr() as usize, "len": self.input.len()});
        manifest.entry("wasm").or_insert(json!([{"data": data}]));
        Value::Object(manifest).to_string().into_bytes()
    }
}

/// A compiled plug-in.
pub struct Compiled {
    handle: Handle,
    notes: Notes,
}

// SAFETY: handles may be used in any thread.
unsafe impl Send for Compiled {}
// SAFETY: as above.
unsafe impl Sync for Compiled {}

impl Compiled {
    /// A plug-in of it.
    #[track_caller]
    pub fn plugin(&self) -> Plugin {
        // SAFETY: a live handle; no message is wanted.
        let handle = unsafe { (api().plugin_new_from_compiled)(self.handle, ptr::null_mut()) };
        assert!(!handle.is_null(), "no plug-in: {:?}", last_error());
        Plugin { handle, notes: Arc::clone(&self.notes) }
    }
}

impl Drop for Compiled {
    fn drop(&mut self) {
        // SAFETY: freed once.
        unsafe { (api().compiled_plugin_free)(self.handle) }
    }
}

/// A plug-in. Its methods may be called from any thread.
pub struct Plugin {
    handle: Handle,
    notes: Notes,
}

// SAFETY: handles may be used in any thread.
unsafe impl Send for Plugin {}
// SAFETY: as above.
unsafe impl Sync for Plugin {}

impl Plugin {
    /// A plug-in with nothing special: see [`guest`] for its body.
    #[track_caller]
    pub fn new(body: &str) -> Self {
        Setup::guest(body).plugin()
    }

    /// A call with input.
    pub fn call(&self, function: &str, input: impl AsRef<[u8]>) -> Ended {
        let function = CString::new(function).expect("a name without NUL");
        let input = input.as_ref();
        // SAFETY: a NUL-terminated name, and as many bytes of input as their count says.
        let code = unsafe { (api().plugin_call)(self.handle, function.as_ptr(), input.as_ptr(), input.len() as u64) };
        continue_panic();
        Ended { code, error: self.error(), output: self.output() }
    }

    /// A call without input.
    pub fn run(&self, function: &str) -> Ended {
        self.call(function, "")
    }

    /// The code of a call without input that has to end without an error.
    #[track_caller]
    pub fn code(&self, function: &str) -> i32 {
        self.run(function).success().0
    }

    /// The output of a call that has to succeed.
    #[track_caller]
    pub fn output_of(&self, function: &str, input: impl AsRef<[u8]>) -> Vec<u8> {
        let (code, output) = self.call(function, input).success();
        assert_eq!(code, 0, "of {function}");
        output
    }

    /// What the guest notes in a call that has to succeed.
    #[track_caller]
    pub fn notes(&self, function: &str, input: impl AsRef<[u8]>) -> Vec<i64> {
        self.take_notes();
        let (code, _) = self.call(function, input).success();
        assert_eq!(code, 0, "of {function}");
        self.take_notes()
    }

    /// What was noted since this was asked last.
    pub fn take_notes(&self) -> Vec<i64> {
        std::mem::take(&mut self.notes.lock().expect("the list of notes"))
    }

    /// `extism_plugin_error`.
    pub fn error(&self) -> Option<String> {
        // SAFETY: a text that stays until this thread asks again.
        unsafe { text((api().plugin_error)(self.handle)) }
    }

    /// The output of the last call.
    pub fn output(&self) -> Vec<u8> {
        // SAFETY: any handle may be passed.
        let (data, length) =
            unsafe { ((api().plugin_output_data)(self.handle), (api().plugin_output_length)(self.handle)) };
        assert!(!data.is_null(), "the output of a live plug-in is NULL");
        // SAFETY: the header's promise; no call of this plug-in runs now in these tests, or the length is 0.
        unsafe { std::slice::from_raw_parts(data, length as usize) }.to_vec()
    }

    /// `extism_plugin_reset`.
    pub fn reset(&self) -> bool {
        // SAFETY: any handle may be passed.
        unsafe { (api().plugin_reset)(self.handle) }
    }

    /// `extism_plugin_config`.
    pub fn configure(&self, json: &str) -> bool {
        // SAFETY: as many bytes as their count says.
        unsafe { (api().plugin_config)(self.handle, json.as_ptr(), json.len() as u64) }
    }

    /// `extism_plugin_cancel` on the plug-in's cancel handle.
    pub fn cancel(&self) -> bool {
        // SAFETY: any handle may be passed.
        unsafe { (api().plugin_cancel)((api().plugin_cancel_handle)(self.handle)) }
    }

    /// `extism_plugin_function_exists`.
    pub fn has(&self, function: &str) -> bool {
        let function = CString::new(function).expect("a name without NUL");
        // SAFETY: a NUL-terminated name.
        unsafe { (api().plugin_function_exists)(self.handle, function.as_ptr()) }
    }

    /// `extism_plugin_allow_http_response_headers`.
    pub fn allow_response_headers(&self) {
        // SAFETY: any handle may be passed.
        unsafe { (api().plugin_allow_http_response_headers)(self.handle) }
    }

    /// The plug-in's UUID as it stands in log lines.
    pub fn id(&self) -> String {
        // SAFETY: 16 bytes that stay until the plug-in is freed.
        let id = unsafe { *(api().plugin_id)(self.handle).cast::<[u8; 16]>() };
        let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        // SAFETY: freed once.
        unsafe { (api().plugin_free)(self.handle) }
    }
}
