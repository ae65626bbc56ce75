//! Traps and forks.
//!
//! A trap of a guest is a signal. Its handler looks the code up in Wasmtime's list for the process, under a lock of
//! Wasmtime's that nobody else can take. A fork in this very moment would leave that lock taken in the child, which
//! then waits for ever where it loads its next module. So there is a gate before that handler: a thread passes it when
//! its guest traps, and is out again when the guest's frames are gone; a fork shuts it and waits until nobody is
//! inside, which takes microseconds.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use wasmtime::unix::StoreExt;
use wasmtime::{Module, Store};

use super::ctx::Ctx;
use super::slot::Patience;
use crate::thread;

/// How many threads are inside, and whether the gate is shut.
static GATE: AtomicU32 = AtomicU32::new(0);
const SHUT: u32 = 1 << 31;

/// Where the compiled code of some modules lies.
#[derive(Clone)]
pub(super) struct Code(Arc<[Range<usize>]>);

impl Code {
    /// The code of these modules.
    pub fn of<'a>(modules: impl Iterator<Item = &'a Module>) -> Self {
        Self(modules.map(Module::image_range).map(|range| range.start.addr()..range.end.addr()).collect())
    }

    fn contains(&self, address: usize) -> bool {
        self.0.iter().any(|range| range.contains(&address))
    }
}

/// Puts the gate before the handler of the traps of this store's guests, who run this code.
pub(super) fn guard(store: &mut Store<Ctx>, code: &Code) {
    let code = code.clone();
    let handler = move |_: libc::c_int, _: *const libc::siginfo_t, context: *const libc::c_void| {
        // SAFETY: the context is the third argument of a handler with SA_SIGINFO.
        if unsafe { interrupted_at(context) }.is_some_and(|address| code.contains(address)) {
            enter();
        }
        false
    };
    // SAFETY: what it does is allowed in the handler of a signal: it reads memory, changes atomics, and sleeps.
    unsafe { store.set_signal_handler(handler) };
}

/// Where the code was that a signal interrupted, if that is known for this processor.
///
/// # Safety
///
/// The context is what the system gave to the handler of a signal.
unsafe fn interrupted_at(context: *const libc::c_void) -> Option<usize> {
    let context = context.cast::<libc::ucontext_t>();
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    // SAFETY: the caller's promise.
    return Some(unsafe { (*context).uc_mcontext.gregs[libc::REG_RIP as usize] } as usize);
    #[cfg(all(target_os = "linux", target_arch = "aarch64"))]
    // SAFETY: the caller's promise.
    return Some(unsafe { (*context).uc_mcontext.pc } as usize);
    #[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
    {
        let _ = context;
        None
    }
}

fn enter() {
    // It has no destructor and was in use before the guest ran, so the handler of a signal may touch it.
    if thread::current(|thread| thread.trapping.replace(true)) {
        return;
    }
    let mut patience = Patience::default();
    while GATE
        .fetch_update(Ordering::Acquire, Ordering::Relaxed, |gate| (gate & SHUT == 0).then_some(gate + 1))
        .is_err()
    {
        patience.wait();
    }
}

/// While this lives a guest may trap; when it is dropped, the thread is outside again.
pub(super) struct Visit;

impl Drop for Visit {
    #[inline]
    fn drop(&mut self) {
        if thread::current(|thread| thread.trapping.replace(false)) {
            GATE.fetch_sub(1, Ordering::Release);
        }
    }
}

/// The gate, shut for a fork.
pub(crate) struct Held(());

/// Shuts the gate and waits until no thread is inside.
pub(crate) fn hold() -> Held {
    let mut patience = Patience::default();
    let mut inside = GATE.fetch_or(SHUT, Ordering::Acquire);
    while inside & !SHUT != 0 {
        patience.wait();
        inside = GATE.load(Ordering::Acquire);
    }
    Held(())
}

impl Drop for Held {
    fn drop(&mut self) {
        GATE.fetch_and(!SHUT, Ordering::Release);
    }
}
