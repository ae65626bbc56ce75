//! What a store holds, and how the guest functions reach it.

use std::ffi::c_void;
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

use uuid::Uuid;
use wasmtime::{AsContext, AsContextMut, Caller, Extern, Global, Memory, Store, Val};

use super::limits::{Budget, Limits, PAGE};
use super::slot::Slot;
use super::wasi::Wasi;
use super::{rewrite, stack};
use crate::guest::{Guest, http};
use crate::memory;
use crate::state::interrupt::Interrupt;
use crate::state::{Span, State};
use crate::sync::Mutex;
use crate::thread;

/// What a compiled plug-in decided for all plug-ins made of it.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Which hosts may be reached.
    pub policy: Arc<http::Policy>,
}

/// What stays the same over the life of one plug-in, and can be reached from any thread.
pub(crate) struct Host {
    /// The handle that callbacks are given.
    pub current: u64,
    context: AtomicPtr<c_void>,
    slot: Slot<Caller<'static, Ctx>>,
}

impl Host {
    /// Of the plug-in whose callbacks are given this handle.
    pub fn new(current: u64) -> Self {
        Self { current, context: AtomicPtr::new(ptr::null_mut()), slot: Slot::new() }
    }

    /// The pointer that the host gave with the running call.
    pub fn context(&self) -> *mut c_void {
        self.context.load(Ordering::Relaxed)
    }

    /// Sets the host's pointer for the call that begins.
    pub fn set_context(&self, context: *mut c_void) {
        self.context.store(context, Ordering::Relaxed);
    }

    /// Runs a callback on this thread, which finds its way back by [`Self::with_guest_of_callback`].
    fn inside(&self, callback: impl FnOnce()) {
        /// Remembers the callback around this one.
        struct Outer((u64, *const ()));

        impl Drop for Outer {
            #[inline]
            fn drop(&mut self) {
                thread::current(|thread| thread.callback.set(self.0));
            }
        }

        let this = (self.current, ptr::from_ref(self).cast());
        let _outer = Outer(thread::current(|thread| thread.callback.replace(this)));
        callback();
    }

    /// Works on the guest of the innermost callback that runs on this thread, if it is the one of this handle.
    #[inline]
    pub fn with_guest_of_callback<R>(current: u64, work: impl FnOnce(&Self, &mut dyn Guest) -> R) -> Option<R> {
        let (handle, host) = thread::current(|thread| thread.callback.get());
        if handle != current || host.is_null() {
            return None;
        }
        // SAFETY: it was put there by `inside`, which is on this thread's stack, borrows it and takes it back before it
        // returns.
        let host = unsafe { &*host.cast::<Self>() };
        // SAFETY: this thread runs the callback, and no foreign code runs in here that could come back.
        unsafe { host.slot.with_own(|caller| work(host, &mut Access::new(caller))) }
    }

    /// No callback runs any more: the guest was lost in a fork, with the thread that it ran on.
    pub fn abandon(&self) {
        self.slot.abandon();
    }

    /// Works on the guest whose callback runs, on whatever thread; `None` outside of callbacks.
    pub fn with_guest<R>(&self, work: impl FnOnce(&Self, &mut dyn Guest) -> R) -> Option<R> {
        self.slot.with_other(|caller| work(self, &mut Access::new(caller)))
    }

    /// The lock that a fork takes.
    pub fn lock(&self) -> &Mutex<()> {
        self.slot.lock()
    }
}

/// The data of a store.
pub(super) struct Ctx {
    pub state: Box<State>,
    pub host: Arc<Host>,
    pub settings: Arc<Settings>,
    pub limits: Limits,
    /// Extism memory; unknown only while the start function of a module that defines it runs.
    pub memory: Option<ExtismMemory>,
    /// Where the guest's own instructions find the input, if it has any that read it.
    pub input: Option<InputGlobals>,
    pub wasi: Option<Wasi>,
    /// In the store of a linked command: the caller, on whose Extism memory the command works.
    pub outer: Option<Outer>,
}

impl Ctx {
    /// For a store in which no guest ever runs.
    pub fn scratch(settings: &Arc<Settings>) -> Self {
        let state = State::new(Uuid::nil(), Arc::new(Interrupt::new()), Arc::default(), Some(0));
        Self {
            state: Box::new(state),
            host: Arc::new(Host::new(0)),
            settings: Arc::clone(settings),
            limits: Limits::new(Budget::new(0)),
            memory: None,
            input: None,
            wasi: None,
            outer: None,
        }
    }
}

/// The Extism memory of one instance, and where its bytes are.
///
/// Nobody but [`Access`] makes it larger: no module can name it.
#[derive(Clone, Copy)]
pub(super) struct ExtismMemory {
    memory: Memory,
    base: NonNull<u8>,
    size: usize,
}

// SAFETY: the pointer is used only by who has the store to itself (`bytes`), on whatever thread.
unsafe impl Send for ExtismMemory {}
// SAFETY: as above.
unsafe impl Sync for ExtismMemory {}

impl ExtismMemory {
    /// Takes in a memory of this store.
    pub fn new(memory: Memory, store: impl AsContext) -> Self {
        let bytes = memory.data(&store);
        Self { memory, base: NonNull::from(bytes).cast(), size: bytes.len() }
    }

    /// All of it.
    ///
    /// # Safety
    ///
    /// The store that it belongs to lives for `'a`, no guest runs in it meanwhile, and the caller has it to itself.
    #[inline]
    pub unsafe fn bytes<'a>(self) -> &'a mut [u8] {
        // SAFETY: the base of a memory does not move in our engines (`memory_may_move(false)`), and it never shrinks;
        // the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.size) }
    }

    #[cold]
    fn grow(mut self, to: u64, store: &mut impl AsContextMut<Data = Ctx>) -> bool {
        let missing = to.div_ceil(PAGE).saturating_sub(self.size as u64 / PAGE);
        let grown = missing == 0 || self.memory.grow(&mut *store, missing).is_ok();
        self.size = self.memory.data_size(&*store);
        // SAFETY: nothing is done to the bytes.
        memory::expect_much(unsafe { self.bytes() });
        store.as_context_mut().data_mut().memory = Some(self);
        grown
    }
}

/// The globals of a rewritten module that tell where the input is, and what they say.
#[derive(Clone, Copy)]
pub(super) struct InputGlobals {
    offset: Global,
    length: Global,
    words: Global,
    told: Span,
}

impl InputGlobals {
    /// Those that an instance exports. All are zero in a new one.
    pub fn find(mut export: impl FnMut(&str) -> Option<Global>) -> Option<Self> {
        Some(Self {
            offset: export(rewrite::INPUT_OFFSET)?,
            length: export(rewrite::INPUT_LENGTH)?,
            words: export(rewrite::INPUT_WORDS)?,
            told: Span::default(),
        })
    }

    #[cold]
    fn tell(self, input: Span, store: &mut impl AsContextMut<Data = Ctx>) {
        // At how many offsets do eight bytes of the input begin?
        let words = input.length.saturating_sub(size_of::<u64>() as u64 - 1);
        for (global, value) in [(self.offset, input.offset), (self.length, input.length), (self.words, words)] {
            // It is one of our own: mutable, and of this type.
            let told = global.set(&mut *store, Val::I64(value.cast_signed()));
            debug_assert!(told.is_ok());
        }
        store.as_context_mut().data_mut().input = Some(Self { told: input, ..self });
    }
}

/// A caller whose stack frame waits for the linked command that points to it.
#[derive(Clone, Copy)]
pub(super) struct Outer(NonNull<Caller<'static, Ctx>>);

// SAFETY: the pointer is used only by the thread that runs the command, or by one that it lends its slot to while it
// waits (see `Slot`); `Caller<Ctx>` itself is `Send`.
unsafe impl Send for Outer {}
// SAFETY: as above; a shared `Outer` gives no access without `&mut` to the store that holds it.
unsafe impl Sync for Outer {}

impl Outer {
    /// Of the caller of a command; the one behind it, if that is a command too.
    ///
    /// # Safety
    ///
    /// The value, and every copy of it, is gone before the borrow of `caller` ends, and `caller` is not used
    /// meanwhile but through it.
    pub unsafe fn of(caller: &mut Caller<'_, Ctx>) -> Self {
        match caller.data().outer {
            Some(outer) => outer,
            None => Self(NonNull::from(caller).cast()),
        }
    }

    /// Works with the caller, from within a host function of the command that it waits for.
    pub fn with<R>(self, work: impl FnOnce(&mut Caller<'static, Ctx>) -> R) -> R {
        // SAFETY: the caller's frame lies below ours on the stack and waits for the command; as in `Access::new`.
        work(unsafe { &mut *self.0.as_ptr() })
    }
}

/// The one way to a plug-in's Extism memory and state: from a caller while a guest runs, from the store when none does.
///
/// What happens to the input through it, the guest's instructions see when it is dropped.
pub(super) struct Access<C: Holder> {
    context: C,
}

impl<'a> Access<&'a mut Caller<'static, Ctx>> {
    /// Of the plug-in that this caller belongs to.
    #[inline]
    pub fn new(caller: &'a mut Caller<'_, Ctx>) -> Self {
        let pointer = match caller.data().outer {
            Some(Outer(outer)) => outer,
            None => NonNull::from(caller).cast::<Caller<'static, Ctx>>(),
        };
        // SAFETY: without `outer` it is the reference that we were given, for its own lifetime `'a`; the longer one
        // inside of `Caller` never leaves this type. With `outer`, it is a caller whose frame waits below us on the
        // stack (`Outer::of`), and which only the innermost command's host functions reach, one at a time.
        let context = unsafe { &mut *pointer.as_ptr() };
        if context.data().memory.is_none() {
            find_memory_of_start_function(context);
        }
        Self { context }
    }

    /// Byte 0 is zero whenever a callback starts: some SDKs read text from the memory's base up to the first NUL.
    #[inline]
    pub fn begin_callback(&mut self) {
        if let Some(byte) = self.parts().0.first_mut() {
            *byte = 0;
        }
    }

    /// Runs a callback of the user, which gets the handle of this plug-in.
    #[inline(always)] // as `Slot::lend`
    pub fn lend(&mut self, callback: impl FnOnce(u64)) {
        let host: *const Host = Arc::as_ptr(&self.context.data().host);
        // SAFETY: the store holds this `Arc` for as long as it lives, and it lives through the call that we are in.
        let host = unsafe { &*host };
        host.slot.lend(self.context, || {
            if stack::is_elsewhere() {
                stack::on_calling_thread(|| host.inside(|| callback(host.current)));
            } else {
                host.inside(|| callback(host.current));
            }
        });
    }
}

/// A start function runs before the instance is ours; its own caller knows the memory.
#[cold]
fn find_memory_of_start_function(caller: &mut Caller<'_, Ctx>) {
    let memory = caller.get_export(rewrite::MEMORY).and_then(Extern::into_memory);
    let memory = memory.map(|memory| ExtismMemory::new(memory, &*caller));
    let input = InputGlobals::find(|name| caller.get_export(name).and_then(Extern::into_global));
    let ctx = caller.data_mut();
    (ctx.memory, ctx.input) = (memory, input);
}

impl<'a> Access<&'a mut Store<Ctx>> {
    /// Of a plug-in whose guest does not run.
    pub fn idle(store: &'a mut Store<Ctx>) -> Self {
        Self { context: store }
    }
}

/// What leads to the data of a store.
pub(super) trait Holder: AsContextMut<Data = Ctx> {
    fn ctx(&mut self) -> &mut Ctx;
}

impl Holder for &mut Caller<'static, Ctx> {
    fn ctx(&mut self) -> &mut Ctx {
        self.data_mut()
    }
}

impl Holder for &mut Store<Ctx> {
    fn ctx(&mut self) -> &mut Ctx {
        self.data_mut()
    }
}

impl<C: Holder> Drop for Access<C> {
    #[inline]
    fn drop(&mut self) {
        let ctx = self.context.ctx();
        // By reference: this is at the end of every guest function, and what is looked at is a part of it.
        if let Some(globals) = &ctx.input
            && globals.told != ctx.state.input
        {
            let (globals, input) = (*globals, ctx.state.input);
            globals.tell(input, &mut self.context);
        }
    }
}

impl<C: Holder> Guest for Access<C> {
    #[inline]
    fn parts(&mut self) -> (&mut [u8], &mut State) {
        let ctx = self.context.ctx();
        let bytes = match ctx.memory {
            // SAFETY: we have the store to ourselves for as long as `self` is borrowed, and the guest waits for us or
            // does not run. Its data, where `state` lies, is not in the memory of a guest.
            Some(memory) => unsafe { memory.bytes() },
            None => &mut [],
        };
        (bytes, &mut ctx.state)
    }

    #[inline]
    fn state(&mut self) -> &mut State {
        &mut self.context.ctx().state
    }

    #[inline]
    fn size(&mut self) -> u64 {
        self.context.ctx().memory.map_or(0, |memory| memory.size as u64)
    }

    fn grow(&mut self, to: u64) -> bool {
        self.context.ctx().memory.is_some_and(|memory| memory.grow(to, &mut self.context))
    }

    fn erase(&mut self, bytes: Range<u64>) {
        let (memory, _) = self.parts();
        let Some(part) = usize::try_from(bytes.start).ok().and_then(|start| memory.get_mut(start..)) else {
            return;
        };
        // SAFETY: Extism memory is a wasm memory without data segments, mapped private and anonymous by wasmtime.
        unsafe { memory::erase(part, bytes.end - bytes.start) }
    }

    fn policy(&mut self) -> Arc<http::Policy> {
        Arc::clone(&self.context.ctx().settings.policy)
    }
}
