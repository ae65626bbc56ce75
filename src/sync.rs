//! The locks of this library.
//!
//! They are those of the standard library, which on Linux are single words that the kernel knows nothing about as
//! long as nobody waits: a thread may take one before a fork, and release it after the fork in the parent and in the
//! child, where the threads that waited for it are gone (see `ffi::fork`). Locks with queues of their own in the
//! memory of the process cannot do that.
//!
//! A panic while a lock is held does not poison it: what a lock protects here is changed in one step, or is given up
//! with the plug-in.

use std::any::Any;
use std::sync::{self, Arc, PoisonError};
use std::time::Instant;

pub(crate) use std::sync::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

/// A mutex without poisoning.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(sync::Mutex<T>);

impl<T> Mutex<T> {
    pub const fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }

    #[inline]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reader-writer lock without poisoning.
#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(sync::RwLock<T>);

impl<T> RwLock<T> {
    pub const fn new(value: T) -> Self {
        Self(sync::RwLock::new(value))
    }

    #[inline]
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A condition variable for [`Mutex`].
#[derive(Debug, Default)]
pub(crate) struct Condvar(sync::Condvar);

impl Condvar {
    pub const fn new() -> Self {
        Self(sync::Condvar::new())
    }

    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    pub fn notify_all(&self) {
        self.0.notify_all();
    }

    /// Waits for a notification; may wake up without one.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a notification until then, or for ever if it is `None`; may wake up without one.
    pub fn wait_until<'a, T>(&self, guard: MutexGuard<'a, T>, until: Option<Instant>) -> MutexGuard<'a, T> {
        let Some(until) = until else {
            return self.wait(guard);
        };
        let left = until.saturating_duration_since(Instant::now());
        self.0.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0
    }
}

/// A lock that was taken inside of a shared object, and keeps it alive.
pub(crate) struct HeldIn<T: 'static> {
    // The guard goes first.
    _guard: MutexGuard<'static, T>,
    _owner: Arc<dyn Any + Send + Sync>,
}

impl<T> HeldIn<T> {
    /// Takes the lock that `find` finds in the object.
    pub fn new<O: Any + Send + Sync>(owner: &Arc<O>, find: impl FnOnce(&O) -> &Mutex<T>) -> Self {
        let guard = find(owner).lock();
        // SAFETY: only the lifetime is changed. The lock is part of what `owner` keeps (a longer-lived one would do as
        // well), which stays where it is until the fields are dropped: the guard before the owner.
        let guard = unsafe { std::mem::transmute::<MutexGuard<'_, T>, MutexGuard<'static, T>>(guard) };
        Self { _guard: guard, _owner: Arc::<O>::clone(owner) }
    }
}
