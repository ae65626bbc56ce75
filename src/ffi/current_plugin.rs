//! # Inside a host function
//!
//! These take the `ExtismCurrentPlugin*` that a host function receives, in any thread, until it
//! returns. Block handles are offsets: the bytes of a block begin at
//! `extism_current_plugin_memory(plugin) + handle`.

use std::ffi::c_void;

use super::guard::{FailValue, boundary};
use super::handles;
use super::types::{ExtismCurrentPlugin, ExtismMemoryHandle, ExtismSize};
use crate::error::{Error, Result};
use crate::guest::{self, Guest};
use crate::registry::{Kind, Misuse};
use crate::wasm::Host;

/// The base address of the plug-in's Extism memory.
///
/// Returns an address that stays the same while the host function runs, also when memory grows;
/// NULL if the handle is refused. Only the bytes of live blocks may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn extism_current_plugin_memory(plugin: *mut ExtismCurrentPlugin) -> *mut u8 {
    with_guest(plugin, |guest| Ok(guest.parts().0.as_mut_ptr()))
}

/// Allocates a block of `n` bytes in the plug-in's Extism memory.
///
/// Returns its handle; 0 if `n` is 0 or there is no room (`memory.max_pages`, 4 GiB), or the handle
/// `plugin` is refused. The block lives until it is freed, and at most until the plug-in's next
/// call; handles that are handed to the plug-in as arguments it usually frees itself. The content
/// of a new block is unspecified.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn extism_current_plugin_memory_alloc(
    plugin: *mut ExtismCurrentPlugin,
    n: ExtismSize,
) -> ExtismMemoryHandle {
    with_guest(plugin, |guest| {
        guest::alloc(guest, n).ok_or_else(|| {
            Error::new(format!("no room for a block of {n} bytes (see `memory.max_pages` in the manifest)"))
        })
    })
}

/// The length of a block in bytes; 0 if the handle is none of a live block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn extism_current_plugin_memory_length(
    plugin: *mut ExtismCurrentPlugin,
    n: ExtismMemoryHandle,
) -> ExtismSize {
    with_guest(plugin, |guest| Ok(guest.state().blocks.length(n).unwrap_or(0)))
}

/// Frees a block. 0, and what is not a live block, is fine: nothing happens.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn extism_current_plugin_memory_free(plugin: *mut ExtismCurrentPlugin, ptr: ExtismMemoryHandle) {
    with_guest(plugin, |guest| {
        guest::memory::release(guest.state(), ptr);
        Ok(())
    });
}

/// The `host_context` of the call that runs (`extism_plugin_call_with_host_context`); NULL if it
/// has none, or the handle is refused.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn extism_current_plugin_host_context(plugin: *mut ExtismCurrentPlugin) -> *mut c_void {
    boundary(|| with_host(plugin, |host, _| Ok(host.context())))
}

fn with_guest<T: FailValue>(plugin: *mut ExtismCurrentPlugin, work: impl FnOnce(&mut dyn Guest) -> Result<T>) -> T {
    boundary(|| with_host(plugin, |_, guest| work(guest)))
}

/// Works on the guest of the callback that the handle belongs to. Most often it is used in that callback itself.
#[inline]
fn with_host<T>(plugin: *mut ExtismCurrentPlugin, work: impl FnOnce(&Host, &mut dyn Guest) -> Result<T>) -> Result<T> {
    let mut work = Some(work);
    let mut once = |host: &Host, guest: &mut dyn Guest| work.take().map(|work| work(host, guest));
    let mut done = Host::with_guest_of_callback(handles::number(plugin), &mut once);
    if done.is_none() {
        done = handles::plugin_in_use(plugin, Kind::CurrentPlugin)?.host().with_guest(once);
    }
    done.flatten().unwrap_or_else(|| Err(outside(plugin)))
}

fn outside(plugin: *mut ExtismCurrentPlugin) -> Error {
    Misuse::of(handles::number(plugin), Kind::CurrentPlugin).into()
}
