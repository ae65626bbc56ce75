//! `poll_oneoff`: how guests sleep, and wait for descriptors.
//!
//! wasmtime-wasi's own blocks the thread for as long as the guest likes. This one ends with the call: by its
//! deadline or by a cancel.
//!
//! Regular files and the standard streams are always ready, and there is nothing else that could be waited for.
//! So a poll with a descriptor returns at once, and only one with nothing but clocks sleeps.

use std::ops::Range;
use std::pin::pin;
use std::time::{Duration, Instant};

use wasmtime::{Caller, Extern, Linker, Memory};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p1::types::{Clockid, Filetype, Rights};
use wasmtime_wasi::p1::wasi_snapshot_preview1::WasiSnapshotPreview1;
use wasmtime_wasi::runtime::poll_noop;
use wiggle::GuestMemory;

use super::MODULE;
use crate::state::interrupt::Interrupt;

/// More at once are refused: they cost the host memory and time that no deadline interrupts.
const MAX_SUBSCRIPTIONS: u32 = 4096;

/// Numbers of errors, as WASI has them.
mod errno {
    pub const SUCCESS: u16 = 0;
    pub const BADF: u16 = 8;
    pub const FAULT: u16 = 21;
    pub const INVAL: u16 = 28;
    pub const NOMEM: u16 = 48;
}

/// What an event is about, and what a subscription waits for: the tag of both.
mod event_type {
    pub const CLOCK: u8 = 0;
    pub const FD_READ: u8 = 1;
    pub const FD_WRITE: u8 = 2;
}

/// Where the fields of a subscription lie.
mod subscription {
    pub const SIZE: usize = 48;
    pub const USERDATA: usize = 0;
    pub const TAG: usize = 8;
    pub const CLOCK_ID: usize = 16;
    pub const CLOCK_TIMEOUT: usize = 24;
    pub const CLOCK_FLAGS: usize = 40;
    pub const DESCRIPTOR: usize = 16;
    /// The flag of a clock whose timeout is a point in time.
    pub const ABSOLUTE: u16 = 1;
}

/// Where the fields of an event lie.
mod event {
    pub const SIZE: usize = 32;
    pub const USERDATA: usize = 0;
    pub const ERROR: usize = 8;
    pub const TYPE: usize = 10;
    pub const NBYTES: usize = 16;
}

/// Takes the place of wasmtime-wasi's `poll_oneoff` in a linker that allows shadowing.
pub(super) fn add_to_linker<T: Send + 'static>(
    linker: &mut Linker<T>,
    wasi: impl Fn(&mut T) -> &mut WasiP1Ctx + Copy + Send + Sync + 'static,
    interrupt: impl Fn(&T) -> &Interrupt + Copy + Send + Sync + 'static,
) -> wasmtime::Result<()> {
    let poll = move |mut caller: Caller<'_, T>, from: u32, to: u32, count: u32, stored: u32| {
        let Some(memory) = caller.get_export("memory").and_then(Extern::into_memory) else {
            return Err(wasmtime::Error::msg("WASI needs a module that exports its memory as `memory`"));
        };
        let places = match Places::new(from, to, count, stored, memory.data_size(&caller)) {
            Ok(places) => places,
            Err(errno) => return Ok(u32::from(errno)),
        };
        let Some(subscriptions) = read(memory.data(&caller), &places) else {
            return Ok(u32::from(errno::INVAL));
        };
        let states = judge(&subscriptions, wasi(caller.data_mut()));
        sleep(&states, interrupt(caller.data()))?;
        let written = write(&mut caller, memory, &places, &subscriptions, &states);
        Ok(u32::from(written.map_or(errno::FAULT, |()| errno::SUCCESS)))
    };
    linker.func_wrap(MODULE, "poll_oneoff", poll)?;
    Ok(())
}

/// The ranges of guest memory that the arguments stand for, all of them inside of it.
struct Places {
    subscriptions: Range<usize>,
    events: Range<usize>,
    stored: Range<usize>,
}

impl Places {
    fn new(from: u32, to: u32, count: u32, stored: u32, memory: usize) -> Result<Self, u16> {
        if count == 0 {
            return Err(errno::INVAL);
        }
        if count > MAX_SUBSCRIPTIONS {
            return Err(errno::NOMEM);
        }
        let range = |start: u32, count: u32, size: usize| {
            let (start, count) = (usize::try_from(start).ok()?, usize::try_from(count).ok()?);
            let end = start.checked_add(count.checked_mul(size)?)?;
            (end <= memory).then_some(start..end)
        };
        let places = || {
            Some(Self {
                subscriptions: range(from, count, subscription::SIZE)?,
                events: range(to, count, event::SIZE)?,
                stored: range(stored, 1, size_of::<u32>())?,
            })
        };
        places().ok_or(errno::FAULT)
    }
}

struct Subscription {
    userdata: [u8; 8],
    source: Source,
}

#[derive(Clone, Copy)]
enum Source {
    Clock { id: u32, timeout: u64, absolute: bool },
    Read(u32),
    Write(u32),
}

impl Source {
    fn event_type(self) -> u8 {
        match self {
            Self::Clock { .. } => event_type::CLOCK,
            Self::Read(_) => event_type::FD_READ,
            Self::Write(_) => event_type::FD_WRITE,
        }
    }
}

/// Takes all subscriptions out of guest memory; `None` if one has a tag or flag that does not exist.
fn read(memory: &[u8], places: &Places) -> Option<Vec<Subscription>> {
    let (subscriptions, _) = memory.get(places.subscriptions.clone())?.as_chunks::<{ subscription::SIZE }>();
    subscriptions.iter().map(parse).collect()
}

fn parse(bytes: &[u8; subscription::SIZE]) -> Option<Subscription> {
    let source = match bytes[subscription::TAG] {
        event_type::CLOCK => {
            let flags = u16::from_le_bytes(field(bytes, subscription::CLOCK_FLAGS)?);
            if flags & !subscription::ABSOLUTE != 0 {
                return None;
            }
            Source::Clock {
                id: u32::from_le_bytes(field(bytes, subscription::CLOCK_ID)?),
                timeout: u64::from_le_bytes(field(bytes, subscription::CLOCK_TIMEOUT)?),
                absolute: flags == subscription::ABSOLUTE,
            }
        }
        event_type::FD_READ => Source::Read(u32::from_le_bytes(field(bytes, subscription::DESCRIPTOR)?)),
        event_type::FD_WRITE => Source::Write(u32::from_le_bytes(field(bytes, subscription::DESCRIPTOR)?)),
        _ => return None,
    };
    Some(Subscription { userdata: field(bytes, subscription::USERDATA)?, source })
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// What became of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It has an event already: an error, or success.
    Now(u16),
    /// It will have one then.
    At(Instant),
    /// It lies too far in the future for this machine's clock.
    Never,
}

fn judge(subscriptions: &[Subscription], wasi: &mut WasiP1Ctx) -> Vec<State> {
    let now = Instant::now();
    subscriptions
        .iter()
        .map(|subscription| match subscription.source {
            Source::Clock { id, timeout, absolute } => match remaining(wasi, id, timeout, absolute) {
                Some(remaining) => now.checked_add(remaining).map_or(State::Never, State::At),
                None => State::Now(errno::INVAL),
            },
            Source::Read(descriptor) => State::Now(descriptor_state(wasi, descriptor, Rights::FD_READ)),
            Source::Write(descriptor) => State::Now(descriptor_state(wasi, descriptor, Rights::FD_WRITE)),
        })
        .collect()
}

/// The time until a clock's timeout; `None` for clocks that cannot be waited for.
fn remaining(wasi: &mut WasiP1Ctx, id: u32, timeout: u64, absolute: bool) -> Option<Duration> {
    let id = Clockid::try_from(id).ok()?;
    if !matches!(id, Clockid::Realtime | Clockid::Monotonic) {
        return None;
    }
    // The clocks as the guest sees them: its monotonic clock began with its context.
    let passed = if absolute { wasi.clock_time_get(&mut no_memory(), id, 0).ok()? } else { 0 };
    Some(Duration::from_nanos(timeout.saturating_sub(passed)))
}

/// Whether a descriptor is there, and may be used so.
fn descriptor_state(wasi: &mut WasiP1Ctx, descriptor: u32, right: Rights) -> u16 {
    let mut memory = no_memory();
    // Ready at the first poll, as files are handled on the calling thread.
    match poll_noop(pin!(wasi.fd_fdstat_get(&mut memory, descriptor.into()))) {
        Some(Ok(found)) if found.fs_filetype != Filetype::Directory && found.fs_rights_base.contains(right) => {
            errno::SUCCESS
        }
        _ => errno::BADF,
    }
}

/// For functions of wasmtime-wasi that take a memory and do not use it.
fn no_memory() -> GuestMemory<'static> {
    GuestMemory::Unshared(&mut [])
}

/// Waits until one of the subscriptions has an event.
fn sleep(states: &[State], interrupt: &Interrupt) -> wasmtime::Result<()> {
    if states.iter().any(|state| matches!(state, State::Now(_))) {
        return Ok(());
    }
    let first = states.iter().filter_map(|state| match state {
        State::At(at) => Some(*at),
        _ => None,
    });
    interrupt.sleep_until(first.min()).map_err(wasmtime::Error::new)
}

/// Writes the events that there are, and their number.
fn write<T>(
    caller: &mut Caller<'_, T>,
    memory: Memory,
    places: &Places,
    subscriptions: &[Subscription],
    states: &[State],
) -> Option<()> {
    let now = Instant::now();
    let memory = memory.data_mut(caller);
    let (events, _) = memory.get_mut(places.events.clone())?.as_chunks_mut::<{ event::SIZE }>();
    let mut events = events.iter_mut();
    let mut count = 0u32;
    for (subscription, state) in subscriptions.iter().zip(states) {
        let error = match state {
            State::Now(error) => *error,
            State::At(at) if *at <= now => errno::SUCCESS,
            State::At(_) | State::Never => continue,
        };
        *events.next()? = encode(subscription, error);
        count += 1;
    }
    memory.get_mut(places.stored.clone())?.copy_from_slice(&count.to_le_bytes());
    Some(())
}

fn encode(subscription: &Subscription, error: u16) -> [u8; event::SIZE] {
    let source = subscription.source;
    let mut bytes = [0; event::SIZE];
    put(&mut bytes, event::USERDATA, subscription.userdata);
    put(&mut bytes, event::ERROR, error.to_le_bytes());
    put(&mut bytes, event::TYPE, [source.event_type()]);
    if error == errno::SUCCESS && !matches!(source, Source::Clock { .. }) {
        // How many bytes is not known; a read or write finds out, and does not block.
        put(&mut bytes, event::NBYTES, 1u64.to_le_bytes());
    }
    bytes
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    if let Some(field) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *field = value;
    }
}
