//! Host functions as closures.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CString, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;

use crate::api::{Handle, Val, api};

/// `ExtismValType`, as far as host functions have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
#[expect(missing_docs, reason = "they say what they are")]
pub enum Type {
    I32 = 0,
    I64 = 1,
    F32 = 2,
    F64 = 3,
}

/// What a host function does.
type Body = Box<dyn Fn(&Current, &[Val], &mut [Val]) + Send + Sync>;

/// A host function. Freed when it is dropped; plug-ins made with it keep what they need.
pub struct HostFunction {
    handle: Handle,
}

// SAFETY: handles may be used in any thread.
unsafe impl Send for HostFunction {}
// SAFETY: as above.
unsafe impl Sync for HostFunction {}

thread_local! {
    /// A panic of a host function, which must not leave it: the call that ran it goes on with it.
    static PANIC: RefCell<Option<Box<dyn Any + Send>>> = const { RefCell::new(None) };
}

impl HostFunction {
    /// A host function of this name and type in `extism:host/user`.
    pub fn new(
        name: &str,
        inputs: &[Type],
        outputs: &[Type],
        body: impl Fn(&Current, &[Val], &mut [Val]) + Send + Sync + 'static,
    ) -> Self {
        let name = CString::new(name).expect("a name without NUL");
        let body: Box<Body> = Box::new(Box::new(body));
        let numbers = |types: &[Type]| types.iter().map(|ty| *ty as u32).collect::<Vec<_>>();
        let (inputs, outputs) = (numbers(inputs), numbers(outputs));
        // SAFETY: pointers to what their counts say; the user data is what `run` and `finalise` take it for.
        let handle = unsafe {
            (api().function_new)(
                name.as_ptr(),
                inputs.as_ptr(),
                inputs.len() as u64,
                outputs.as_ptr(),
                outputs.len() as u64,
                run,
                Box::into_raw(body).cast(),
                Some(finalise),
            )
        };
        assert!(!handle.is_null(), "no function: {:?}", crate::last_error());
        Self { handle }
    }

    /// Moves the function to another module name.
    pub fn in_namespace(self, namespace: &str) -> Self {
        let namespace = CString::new(namespace).expect("a name without NUL");
        // SAFETY: a live handle and a NUL-terminated text.
        unsafe { (api().function_set_namespace)(self.handle, namespace.as_ptr()) };
        self
    }

    pub(crate) fn handle(&self) -> Handle {
        self.handle
    }
}

impl Drop for HostFunction {
    fn drop(&mut self) {
        // SAFETY: freed once.
        unsafe { (api().function_free)(self.handle) }
    }
}

/// # Safety
///
/// Called by the library as its header says, with the user data of [`HostFunction::new`].
unsafe extern "C" fn run(
    plugin: Handle,
    inputs: *const Val,
    n_inputs: u64,
    outputs: *mut Val,
    n_outputs: u64,
    data: *mut c_void,
) {
    let (n_inputs, n_outputs) = (n_inputs as usize, n_outputs as usize);
    // SAFETY: the header's promise: as many values as the counts say, and NULL where there are none.
    let inputs = if n_inputs == 0 { &[] } else { unsafe { slice::from_raw_parts(inputs, n_inputs) } };
    // SAFETY: as above.
    let outputs = if n_outputs == 0 { &mut [] } else { unsafe { slice::from_raw_parts_mut(outputs, n_outputs) } };
    // SAFETY: the user data of `new`, which lives until `finalise`.
    let body = unsafe { &*data.cast::<Body>() };
    let result = catch_unwind(AssertUnwindSafe(|| body(&Current { handle: plugin }, inputs, outputs)));
    if let Err(panic) = result {
        PANIC.set(Some(panic));
    }
}

/// # Safety
///
/// Called once, with the user data of [`HostFunction::new`].
unsafe extern "C" fn finalise(data: *mut c_void) {
    // SAFETY: made by `Box::into_raw` in `new`.
    drop(unsafe { Box::from_raw(data.cast::<Body>()) });
}

/// Goes on with the panic of a host function that ran in this thread, if there was one.
pub(crate) fn continue_panic() {
    if let Some(panic) = PANIC.take() {
        std::panic::resume_unwind(panic);
    }
}

/// `ExtismCurrentPlugin`: the plug-in that calls a host function.
pub struct Current {
    handle: Handle,
}

impl Current {
    /// The base of Extism memory.
    pub fn memory(&self) -> *mut u8 {
        // SAFETY: any handle may be passed.
        unsafe { (api().current_plugin_memory)(self.handle) }
    }

    /// A block of this length.
    pub fn alloc(&self, length: u64) -> u64 {
        // SAFETY: any handle may be passed.
        unsafe { (api().current_plugin_memory_alloc)(self.handle, length) }
    }

    /// The length of a block.
    pub fn length(&self, block: u64) -> u64 {
        // SAFETY: any handle may be passed.
        unsafe { (api().current_plugin_memory_length)(self.handle, block) }
    }

    /// Frees a block.
    pub fn free(&self, block: u64) {
        // SAFETY: any handle may be passed.
        unsafe { (api().current_plugin_memory_free)(self.handle, block) }
    }

    /// The bytes of a block.
    pub fn bytes(&self, block: u64) -> Vec<u8> {
        // SAFETY: a block's bytes lie at the base plus its handle, and are readable while the callback runs.
        unsafe { slice::from_raw_parts(self.memory().add(block as usize), self.length(block) as usize) }.to_vec()
    }

    /// A new block with these bytes.
    pub fn place(&self, bytes: &[u8]) -> u64 {
        let block = self.alloc(bytes.len() as u64);
        assert_ne!(block, 0, "a block of {} bytes", bytes.len());
        // SAFETY: the block was just made for this many bytes.
        unsafe { self.memory().add(block as usize).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        block
    }
}
