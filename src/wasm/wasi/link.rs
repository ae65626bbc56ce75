//! The functions of WASI, as a linker offers them.

use wasmtime::{Caller, Extern, Linker};

use super::Exit;
use super::call::Call;
use super::errno::{Failed, Result};
use crate::wasm::ctx::Ctx;

/// The module that guests import WASI from.
const MODULE: &str = "wasi_snapshot_preview1";

/// What a guest gets that has nothing to complain about.
const SUCCESS: u32 = 0;

/// Defines functions with these parameters, each of which is a method of [`Call`] of the same name.
macro_rules! define {
    ($linker:ident: $($name:ident($($parameter:ident: $ty:ty),*);)*) => {
        $($linker.func_wrap(MODULE, stringify!($name), |caller: Caller<'_, Ctx>, $($parameter: $ty),*| {
            enter(caller, |call| call.$name($($parameter),*))
        })?;)*
    };
}

/// Offers WASI in a linker.
///
/// # Errors
///
/// None is known; they are those of the linker.
#[rustfmt::skip] // the functions as a table
pub(in crate::wasm) fn add_to_linker(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    linker.func_wrap(MODULE, "proc_exit", |code: i32| -> wasmtime::Result<()> { Err(wasmtime::Error::new(Exit(code))) })?;
    define! { linker:
        args_get(pointers: u32, bytes: u32);
        args_sizes_get(count: u32, bytes: u32);
        environ_get(pointers: u32, bytes: u32);
        environ_sizes_get(count: u32, bytes: u32);
        clock_res_get(clock: u32, resolution: u32);
        clock_time_get(clock: u32, precision: u64, time: u32);
        fd_advise(fd: u32, offset: u64, length: u64, advice: u32);
        fd_allocate(fd: u32, offset: u64, length: u64);
        fd_close(fd: u32);
        fd_datasync(fd: u32);
        fd_fdstat_get(fd: u32, stat: u32);
        fd_fdstat_set_flags(fd: u32, flags: u32);
        fd_fdstat_set_rights(fd: u32, base: u64, inheriting: u64);
        fd_filestat_get(fd: u32, stat: u32);
        fd_filestat_set_size(fd: u32, size: u64);
        fd_filestat_set_times(fd: u32, atim: u64, mtim: u64, flags: u32);
        fd_pread(fd: u32, buffers: u32, count: u32, offset: u64, read: u32);
        fd_prestat_get(fd: u32, prestat: u32);
        fd_prestat_dir_name(fd: u32, at: u32, length: u32);
        fd_pwrite(fd: u32, buffers: u32, count: u32, offset: u64, written: u32);
        fd_read(fd: u32, buffers: u32, count: u32, read: u32);
        fd_readdir(fd: u32, buffer: u32, length: u32, cookie: u64, stored: u32);
        fd_renumber(from: u32, to: u32);
        fd_seek(fd: u32, offset: i64, whence: u32, position: u32);
        fd_sync(fd: u32);
        fd_tell(fd: u32, position: u32);
        fd_write(fd: u32, buffers: u32, count: u32, written: u32);
        path_create_directory(fd: u32, path: u32, length: u32);
        path_filestat_get(fd: u32, lookup: u32, path: u32, length: u32, stat: u32);
        path_filestat_set_times(fd: u32, lookup: u32, path: u32, length: u32, atim: u64, mtim: u64, flags: u32);
        path_link(fd: u32, lookup: u32, old: u32, old_length: u32, to: u32, new: u32, new_length: u32);
        path_open(fd: u32, lookup: u32, path: u32, length: u32, flags: u32, base: u64, inheriting: u64, descriptor_flags: u32, opened: u32);
        path_readlink(fd: u32, path: u32, length: u32, buffer: u32, buffer_length: u32, stored: u32);
        path_remove_directory(fd: u32, path: u32, length: u32);
        path_rename(fd: u32, old: u32, old_length: u32, to: u32, new: u32, new_length: u32);
        path_symlink(target: u32, target_length: u32, fd: u32, link: u32, length: u32);
        path_unlink_file(fd: u32, path: u32, length: u32);
        poll_oneoff(from: u32, to: u32, count: u32, stored: u32);
        proc_raise(signal: u32);
        random_get(at: u32, length: u32);
        sched_yield();
        sock_accept(fd: u32, flags: u32, accepted: u32);
        sock_recv(fd: u32, buffers: u32, count: u32, flags: u32, received: u32, received_flags: u32);
        sock_send(fd: u32, buffers: u32, count: u32, flags: u32, sent: u32);
        sock_shutdown(fd: u32, how: u32);
    }
    Ok(())
}

/// Runs a function of WASI on the memory of the module that called it.
fn enter(mut caller: Caller<'_, Ctx>, work: impl FnOnce(&mut Call<'_>) -> Result) -> wasmtime::Result<u32> {
    let Some(memory) = caller.get_export("memory").and_then(Extern::into_memory) else {
        return Err(wasmtime::Error::msg("WASI needs a module that exports its memory as `memory`"));
    };
    let (memory, ctx) = memory.data_and_store_mut(&mut caller);
    let Some(wasi) = &mut ctx.wasi else {
        return Err(wasmtime::Error::msg("WASI is off"));
    };
    match work(&mut Call { memory, wasi, interrupt: &ctx.state.interrupt }) {
        Ok(()) => Ok(SUCCESS),
        Err(Failed::With(errno)) => Ok(errno.number().into()),
        Err(Failed::Stopped(stopped)) => Err(wasmtime::Error::new(stopped)),
    }
}
