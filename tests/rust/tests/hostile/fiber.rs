//! Fibers: pieces of code on stacks of their own, which the system does not know as the stack of any thread.

use std::cell::{Cell, UnsafeCell};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::thread;

const PAGE: usize = 4096;

type Work = Box<dyn FnOnce()>;

thread_local! {
    /// What the next fiber to begin is to do.
    static WORK: Cell<Option<Work>> = const { Cell::new(None) };
    /// The fiber that runs in this thread; NULL if none does.
    static CURRENT: Cell<*const Fiber> = const { Cell::new(ptr::null()) };
}

/// A fiber, and where it and the one who resumed it stand.
pub struct Fiber {
    own: UnsafeCell<MaybeUninit<libc::ucontext_t>>,
    outside: UnsafeCell<MaybeUninit<libc::ucontext_t>>,
    work: Cell<Option<Work>>,
    ended: Cell<Option<thread::Result<()>>>,
    low: *mut libc::c_void,
    size: usize,
}

extern "C" fn begin() {
    let work = WORK.take().expect("something to do");
    let ended = catch_unwind(AssertUnwindSafe(work));
    // SAFETY: the fiber that runs this; it is there until it has ended.
    let fiber = unsafe { &*CURRENT.get() };
    fiber.ended.set(Some(ended));
}

impl Fiber {
    /// A fiber that has not begun, on a stack of so many bytes with a guard page below it.
    pub fn new(size: usize, work: impl FnOnce() + 'static) -> Box<Self> {
        // SAFETY: a new mapping wherever the system likes; failure is checked for.
        let low = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size + PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        assert_ne!(low, libc::MAP_FAILED, "a mapping of {size} bytes");
        let fiber = Box::new(Self {
            own: UnsafeCell::new(MaybeUninit::uninit()),
            outside: UnsafeCell::new(MaybeUninit::uninit()),
            work: Cell::new(Some(Box::new(work))),
            ended: Cell::new(None),
            low,
            size,
        });
        // SAFETY: the lowest page of the mapping becomes the guard, the rest is the fiber's stack; it ends by going
        // on with `outside`, which `resume` fills before. The box keeps both contexts where they are.
        unsafe {
            assert_eq!(libc::mprotect(low, PAGE, libc::PROT_NONE), 0);
            let own = (*fiber.own.get()).as_mut_ptr();
            assert_eq!(libc::getcontext(own), 0);
            (*own).uc_stack.ss_sp = low.cast::<u8>().add(PAGE).cast();
            (*own).uc_stack.ss_size = size;
            (*own).uc_link = (*fiber.outside.get()).as_mut_ptr();
            libc::makecontext(own, begin, 0);
        }
        fiber
    }

    /// Runs it until it pauses or ends. Returns whether it has ended; goes on with its panic.
    pub fn resume(&self) -> bool {
        if let Some(work) = self.work.take() {
            WORK.set(Some(work));
        }
        let before = CURRENT.replace(self);
        // SAFETY: `own` is where the fiber begins or has paused, and it has not ended; this frame stays where it is.
        let swapped = unsafe { libc::swapcontext((*self.outside.get()).as_mut_ptr(), (*self.own.get()).as_ptr()) };
        assert_eq!(swapped, 0);
        CURRENT.set(before);
        match self.ended.take() {
            None => false,
            Some(Ok(())) => true,
            Some(Err(panic)) => resume_unwind(panic),
        }
    }

    /// Goes back to whoever resumed the fiber that this is called in.
    pub fn pause() {
        // SAFETY: the fiber that runs this, which `resume` waits for in `outside`.
        let swapped = unsafe {
            let fiber = &*CURRENT.get();
            libc::swapcontext((*fiber.own.get()).as_mut_ptr(), (*fiber.outside.get()).as_ptr())
        };
        assert_eq!(swapped, 0);
    }
}

impl Drop for Fiber {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`; nothing runs on it any more.
        unsafe { libc::munmap(self.low, self.size + PAGE) };
    }
}

/// Runs the work to its end on a fiber of its own, in the calling thread.
pub fn run(size: usize, work: impl FnOnce() + 'static) {
    assert!(Fiber::new(size, work).resume(), "it paused");
}
