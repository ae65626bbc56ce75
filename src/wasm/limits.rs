//! What a plug-in may take of the machine: memories, tables and the GC heap, counted in bytes; and where its
//! descriptors are counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// One WebAssembly page.
pub(super) const PAGE: u64 = 64 * 1024;
/// No memory passes this: the address range that is reserved for each.
pub(super) const MEMORY_MAX: u64 = 4 << 30;
/// What an element of a table counts as.
pub(super) const TABLE_ELEMENT: u64 = 8;
/// What a plug-in without `max_pages` may have altogether.
const DEFAULT_BYTES: u64 = 8 << 30;

/// What one plug-in may still take. Shared by its store and the stores of its linked commands.
#[derive(Debug)]
pub(super) struct Budget {
    left: AtomicU64,
    denied: AtomicBool,
    /// Descriptors that its guests have open: see `wasi::descriptors`.
    pub descriptors: AtomicU32,
}

impl Budget {
    /// The bytes by which all memories together may grow, given what they have in the beginning;
    /// `None` if already that is too much.
    ///
    /// With `max_pages`, beginning and growth are bounded apart: tight manifests depend on it.
    pub fn bytes(max_pages: Option<u64>, initial: u64) -> Option<u64> {
        match max_pages {
            Some(pages) => Some(pages.saturating_mul(PAGE)).filter(|bytes| initial <= *bytes),
            None => DEFAULT_BYTES.checked_sub(initial),
        }
    }

    /// A budget of this many bytes.
    pub fn new(bytes: u64) -> Arc<Self> {
        Arc::new(Self { left: AtomicU64::new(bytes), denied: AtomicBool::new(false), descriptors: AtomicU32::new(0) })
    }

    /// Whether something was refused since the last [`Self::begin_call`].
    pub fn was_denied(&self) -> bool {
        self.denied.load(Ordering::Relaxed)
    }

    /// Forgets refusals of earlier calls.
    pub fn begin_call(&self) {
        self.denied.store(false, Ordering::Relaxed);
    }

    fn take(&self, bytes: u64) -> bool {
        let took = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok();
        if !took {
            self.deny();
        }
        took
    }

    fn deny(&self) {
        self.denied.store(true, Ordering::Relaxed);
    }

    fn give_back(&self, bytes: u64) {
        self.left.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// The limiter of one store. Dropping it gives back what the store took.
#[derive(Debug)]
pub(super) struct Limits {
    budget: Arc<Budget>,
    /// Bytes that this store took of the budget.
    taken: u64,
    /// How many memories and tables of the instance being made have yet to come to their initial size.
    /// Initial sizes were checked when the plug-in was created, and are not growth.
    initial: usize,
}

impl Limits {
    /// A limiter over this budget.
    pub fn new(budget: Arc<Budget>) -> Self {
        Self { budget, taken: 0, initial: 0 }
    }

    /// The budget that this limiter draws on.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// The next `count` memories and tables that come into being with a size other than 0 are initial.
    pub fn expect_initial(&mut self, count: usize) {
        self.initial = count;
    }

    /// Whether something may grow from `current` to `desired` bytes, of at most `maximum` that its type allows.
    fn growing(&mut self, current: u64, desired: u64, maximum: u64) -> bool {
        if desired > maximum {
            // The growth fails by the module's own declaration: nothing is taken, and no limit denied it.
            return false;
        }
        if desired > MEMORY_MAX {
            self.budget.deny();
            return false;
        }
        if current == 0 && desired > 0 && self.initial > 0 {
            self.initial -= 1;
            return true;
        }
        let bytes = desired.saturating_sub(current);
        let allowed = self.budget.take(bytes);
        if allowed {
            self.taken += bytes;
        }
        allowed
    }
}

// What is allowed here and then refused by the operating system stays taken until the store is dropped: the hook
// for failures is also called for growth that never came by here, so nothing can be given back there.
#[cfg(feature = "runtime")]
impl wasmtime::ResourceLimiter for Limits {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let maximum = maximum.map_or(u64::MAX, |bytes| bytes as u64);
        Ok(self.growing(current as u64, desired as u64, maximum))
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let bytes = |elements: usize| (elements as u64).saturating_mul(TABLE_ELEMENT);
        Ok(self.growing(bytes(current), bytes(desired), maximum.map_or(u64::MAX, bytes)))
    }

    fn instances(&self) -> usize {
        usize::MAX
    }

    fn tables(&self) -> usize {
        usize::MAX
    }

    fn memories(&self) -> usize {
        usize::MAX
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        self.budget.give_back(self.taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(bytes: u64) -> Limits {
        Limits::new(Budget::new(bytes))
    }

    #[test]
    fn growth_is_taken_and_given_back_with_the_store() {
        let budget = Budget::new(3 * PAGE);
        let mut first = Limits::new(Arc::clone(&budget));
        assert!(first.growing(PAGE, 3 * PAGE, u64::MAX));
        assert!(!Limits::new(Arc::clone(&budget)).growing(0, 2 * PAGE, u64::MAX));
        assert!(budget.was_denied());
        drop(first);
        assert!(Limits::new(budget).growing(0, 3 * PAGE, u64::MAX));
    }

    #[test]
    fn initial_sizes_are_not_growth() {
        let mut limits = limits(PAGE);
        limits.expect_initial(2);
        assert!(limits.growing(0, 0, u64::MAX));
        assert!(limits.growing(0, 10 * PAGE, u64::MAX));
        assert!(limits.growing(0, 20 * PAGE, u64::MAX));
        assert!(limits.growing(20 * PAGE, 21 * PAGE, u64::MAX));
        assert!(!limits.growing(21 * PAGE, 22 * PAGE, u64::MAX));
    }

    #[test]
    fn what_the_type_forbids_takes_nothing() {
        let mut limits = limits(PAGE);
        assert!(!limits.growing(PAGE, 3 * PAGE, 2 * PAGE));
        assert!(!limits.budget().was_denied());
        assert!(limits.growing(PAGE, 2 * PAGE, 2 * PAGE));
    }

    #[test]
    fn no_memory_passes_four_gib() {
        let mut limits = limits(u64::MAX);
        assert!(!limits.growing(MEMORY_MAX, MEMORY_MAX + PAGE, u64::MAX));
        assert!(limits.budget().was_denied());
    }
}
