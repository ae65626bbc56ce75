//! From a manifest to the bytes of its modules.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::{
    LinkedModule, Location, MAX_BYTES, MODULE_FORMS, Manifest, Modules, Settings, Source, is_module, own_memory,
    too_large,
};
use crate::error::{Error, Result};
use crate::guest::http::download;

/// The name that makes a module the main one.
const MAIN: &str = "main";

/// What a linked module cannot be called: the library offers its own functions under this name.
const RESERVED: &str = "extism:host/env";

impl<'a> Manifest<'a> {
    /// Brings the bytes of all modules in and checks their hashes. Reads files, the memory of this
    /// process, and servers.
    pub fn load(self) -> Result<(Modules<'a>, Settings)> {
        let main_index = main_index(&self.modules)?;
        check_link_names(&self.modules, main_index)?;

        let mut main = Cow::default();
        let mut linked = Vec::new();
        for (index, source) in self.modules.into_iter().enumerate() {
            let label = label(index, &source);
            let name = source.name.clone();
            let bytes = source.load().map_err(|e| e.context(label))?;
            match name {
                _ if index == main_index => main = bytes,
                // Unnamed ones count as main, of which there is one.
                name => linked.push(LinkedModule { name: name.unwrap_or_default(), bytes }),
            }
        }
        Ok((Modules { main, linked }, self.settings))
    }
}

/// Which module is the main one: the only one, else the one that is named `main` or has no name,
/// else the last. So it is in 1.41, which refuses a second candidate, too.
fn main_index(modules: &[Source]) -> Result<usize> {
    let last = modules.len().saturating_sub(1);
    if last == 0 {
        return Ok(0);
    }
    let is_main = |source: &Source| source.name.as_deref().is_none_or(|name| name == MAIN);
    let mut candidates = (0..).zip(modules).filter(|(_, source)| is_main(source));
    match (candidates.next(), candidates.next()) {
        (None, _) => Ok(last),
        (Some((index, _)), None) => Ok(index),
        (Some((first, _)), Some((second, _))) => Err(Error::new(format!(
            "wasm[{first}] and wasm[{second}] would both be the main module: \
             all but one need a `name` other than `{MAIN}`"
        ))),
    }
}

/// Imports name a module, so the names of linked modules must differ. That of the main module
/// is nobody's import.
fn check_link_names(modules: &[Source], main_index: usize) -> Result<()> {
    let mut seen = BTreeSet::new();
    for (index, source) in modules.iter().enumerate() {
        let Some(name) = source.name.as_deref().filter(|_| index != main_index) else {
            continue;
        };
        if name == RESERVED {
            return Err(Error::new(format!("wasm[{index}].name: {RESERVED:?} is the library's own module")));
        }
        if !seen.insert(name) {
            return Err(Error::new(format!("wasm[{index}].name: another module is named {name:?}, too")));
        }
    }
    Ok(())
}

/// What a message calls a module.
fn label(index: usize, source: &Source) -> String {
    let name = match &source.name {
        Some(name) => format!("{name:?}, "),
        None => String::new(),
    };
    let from = match &source.location {
        Location::Path(path) => format!("path {path:?}"),
        Location::Data(_) => "data".to_owned(),
        Location::Memory { address, length } => format!("{length} bytes at {address:#x}"),
        // Not the URL itself, which may hold a password; what a download says has the rest of it.
        Location::Url { .. } => "url".to_owned(),
    };
    format!("wasm[{index}] ({name}{from})")
}

impl<'a> Source<'a> {
    fn load(self) -> Result<Cow<'a, [u8]>> {
        let bytes = self.location.load()?;
        if let Some(expected) = self.hash {
            let found: [u8; 32] = Sha256::digest(&bytes).into();
            if found != expected {
                return Err(Error::new(format!(
                    "hash mismatch: the SHA-256 of its {} bytes is {}, the manifest expects {}",
                    bytes.len(),
                    hex(&found),
                    hex(&expected)
                )));
            }
        }
        if bytes.is_empty() {
            return Err(Error::new("the module is empty"));
        }
        if !is_module(&bytes) {
            return Err(Error::new(format!("the {} bytes are neither {MODULE_FORMS}", bytes.len())));
        }
        Ok(bytes)
    }
}

impl<'a> Location<'a> {
    fn load(self) -> Result<Cow<'a, [u8]>> {
        match self {
            Self::Path(path) => read_file(&path).map(Cow::Owned),
            Self::Data(bytes) => Ok(bytes),
            Self::Memory { length, .. } if length > MAX_BYTES => Err(too_large(length)),
            Self::Memory { address, length } => own_memory::copy(address, length)
                .map(Cow::Owned)
                .map_err(|e| Error::new(format!("cannot read the memory of this process: {e}"))),
            Self::Url { url, headers, method } => download(&url, method.as_deref(), &headers).map(Cow::Owned),
        }
    }
}

/// The content of a regular file. Anything else may never end, or never begin.
fn read_file(path: &Path) -> Result<Vec<u8>> {
    let cannot = |e: std::io::Error| Error::new(format!("cannot read the file: {e}"));
    // Without `O_NONBLOCK` a FIFO would keep us until somebody writes to it.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).map_err(cannot)?;
    let metadata = file.metadata().map_err(cannot)?;
    if !metadata.is_file() {
        let kind = metadata.file_type();
        let kind = match () {
            () if kind.is_dir() => "a directory",
            () if kind.is_fifo() => "a FIFO",
            () => "a device or socket",
        };
        return Err(Error::new(format!("it is {kind}, not a regular file")));
    }
    if metadata.len() > MAX_BYTES {
        return Err(too_large(metadata.len()));
    }
    // The size is a hint: the file may change, and in /proc it is 0.
    let mut bytes = Vec::new();
    let hint = usize::try_from(metadata.len()).unwrap_or_default();
    bytes.try_reserve_exact(hint).map_err(|e| cannot(e.into()))?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}
