//! `poll_oneoff`: how guests sleep, and wait for descriptors.
//!
//! A sleep ends with the call: by its deadline or by a cancel. Regular files and the standard streams are always
//! ready, and there is nothing else that could be waited for. So a poll with a descriptor returns at once, and only one
//! with nothing but clocks sleeps.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::Wasi;
use super::call::Call;
use super::descriptors::Descriptor;
use super::errno::{Errno, Result};
use super::system::clock;
use crate::state::interrupt::{Interrupt, Stopped};

/// More at once are refused: they cost the host memory and time that no deadline interrupts.
const MAX_SUBSCRIPTIONS: u32 = 4096;

/// What stands for success in an event.
const SUCCESS: u16 = 0;

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

impl Call<'_> {
    pub fn poll_oneoff(&mut self, from: u32, to: u32, count: u32, stored: u32) -> Result {
        let places = Places::new(from, to, count, stored, self.memory.len())?;
        let subscriptions = read(self.memory, &places).ok_or(Errno::INVAL)?;
        let states = judge(&subscriptions, self.wasi);
        sleep(&states, self.interrupt)?;
        Ok(write(self.memory, &places, &subscriptions, &states).ok_or(Errno::FAULT)?)
    }
}

/// The ranges of guest memory that the arguments stand for, all of them inside of it.
struct Places {
    subscriptions: Range<usize>,
    events: Range<usize>,
    stored: Range<usize>,
}

impl Places {
    fn new(from: u32, to: u32, count: u32, stored: u32, memory: usize) -> Result<Self, Errno> {
        if count == 0 {
            return Err(Errno::INVAL);
        }
        if count > MAX_SUBSCRIPTIONS {
            return Err(Errno::NOMEM);
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
        places().ok_or(Errno::FAULT)
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

fn judge(subscriptions: &[Subscription], wasi: &Wasi) -> Vec<State> {
    let now = Instant::now();
    subscriptions
        .iter()
        .map(|subscription| match subscription.source {
            Source::Clock { id, timeout, absolute } => match remaining(wasi, id, timeout, absolute) {
                Some(remaining) => now.checked_add(remaining).map_or(State::Never, State::At),
                None => State::Now(Errno::INVAL.number()),
            },
            Source::Read(descriptor) => State::Now(readiness(wasi, descriptor, false)),
            Source::Write(descriptor) => State::Now(readiness(wasi, descriptor, true)),
        })
        .collect()
}

/// The time until a clock's timeout; `None` for clocks that cannot be waited for.
fn remaining(wasi: &Wasi, id: u32, timeout: u64, absolute: bool) -> Option<Duration> {
    if !matches!(id, clock::REALTIME | clock::MONOTONIC) {
        return None;
    }
    let passed = if absolute { wasi.now(id).ok()? } else { 0 };
    Some(Duration::from_nanos(timeout.saturating_sub(passed)))
}

/// Whether a descriptor is there, and may be used so: then it is ready.
fn readiness(wasi: &Wasi, descriptor: u32, to_write: bool) -> u16 {
    let is_ready = match wasi.descriptors.get(descriptor) {
        Ok(Descriptor::Input) => !to_write,
        Ok(Descriptor::Output(_)) => to_write,
        Ok(Descriptor::File(file)) => {
            if to_write {
                file.writable
            } else {
                file.readable
            }
        }
        Ok(Descriptor::Directory(_)) | Err(_) => false,
    };
    if is_ready { SUCCESS } else { Errno::BADF.number() }
}

/// Waits until one of the subscriptions has an event.
fn sleep(states: &[State], interrupt: &Interrupt) -> Result<(), Stopped> {
    if states.iter().any(|state| matches!(state, State::Now(_))) {
        return Ok(());
    }
    let first = states.iter().filter_map(|state| match state {
        State::At(at) => Some(*at),
        _ => None,
    });
    interrupt.sleep_until(first.min())
}

/// Writes the events that there are, and their number.
fn write(memory: &mut [u8], places: &Places, subscriptions: &[Subscription], states: &[State]) -> Option<()> {
    let now = Instant::now();
    let (events, _) = memory.get_mut(places.events.clone())?.as_chunks_mut::<{ event::SIZE }>();
    let mut events = events.iter_mut();
    let mut count = 0u32;
    for (subscription, state) in subscriptions.iter().zip(states) {
        let error = match state {
            State::Now(error) => *error,
            State::At(at) if *at <= now => SUCCESS,
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
    if error == SUCCESS && !matches!(source, Source::Clock { .. }) {
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
