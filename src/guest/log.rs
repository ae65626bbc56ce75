//! What plug-ins log.

use log::Level;

use super::{Fail, Guest, block, memory::release};
use crate::logging;

fn write(guest: &mut dyn Guest, level: Level, handle: u64) -> Result<u64, Fail> {
    let (memory, state) = guest.parts();
    let text = block(memory, state, handle)?;
    if logging::enabled(level) {
        logging::plugin_log(level, &state.id, text);
    }
    release(state, handle);
    Ok(0)
}

pub(super) fn trace(guest: &mut dyn Guest, [text, _]: [u64; 2]) -> Result<u64, Fail> {
    write(guest, Level::Trace, text)
}

pub(super) fn debug(guest: &mut dyn Guest, [text, _]: [u64; 2]) -> Result<u64, Fail> {
    write(guest, Level::Debug, text)
}

pub(super) fn info(guest: &mut dyn Guest, [text, _]: [u64; 2]) -> Result<u64, Fail> {
    write(guest, Level::Info, text)
}

pub(super) fn warn(guest: &mut dyn Guest, [text, _]: [u64; 2]) -> Result<u64, Fail> {
    write(guest, Level::Warn, text)
}

pub(super) fn error(guest: &mut dyn Guest, [text, _]: [u64; 2]) -> Result<u64, Fail> {
    write(guest, Level::Error, text)
}

pub(super) fn level(_: &mut dyn Guest, _: [u64; 2]) -> Result<u64, Fail> {
    Ok(u64::from(logging::guest_level().cast_unsigned()))
}
