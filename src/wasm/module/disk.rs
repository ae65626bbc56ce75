//! Compiled modules on disk, for all processes of one user.
//!
//! ```text
//!  a file, named by the id of the module
//! +-------------------------+---------------+--------+----------------------------------------+
//! | artifact of Wasmtime    | facts, u64    |  id    | length of facts u32, CRC-32 of all     |
//! | (ELF, mapped when used) | little-endian |  32 B  | before it u32, magic 8 B               |
//! +-------------------------+---------------+--------+----------------------------------------+
//! ```
//!
//! An artifact is native code. So the folder must belong to the user and be closed to writing by others, and so must
//! each file; the checksum is there for what half-written and damaged files do, not against an attacker with the
//! rights of the user. A file is written under another name and renamed when it is complete, never changed.
//!
//! Nothing here is an error of the caller: where the disk does not serve, modules are compiled.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use once_cell::sync::Lazy;
use serde::Deserialize;
use wasmtime::{Engine, Module};

use super::{Facts, Home, Id, Part};
use crate::error::{Error, Result};
use crate::file_limit::file_limit;
use crate::wasm::engine::{self, Registered};
use crate::wasm::rewrite::Places;

/// What all files together may have, unless the configuration says otherwise.
const MAX_BYTES: u64 = 512 << 20;

/// A module with less code than this is compiled faster than its file is written.
const WORTHWHILE: usize = 16 * 1024;

/// A file that is being written and has not become complete for so long was left behind.
const ABANDONED: Duration = Duration::from_secs(600);

/// How exactly it is known when a file was used last.
const USED: Duration = Duration::from_secs(60);

const MAGIC: [u8; 8] = *b"extism\x02\n";
const FOOTER: usize = size_of::<Id>() + 4 + 4 + MAGIC.len();
const EXTENSION: &str = "module";

/// Where files lie, and how much room there is.
struct Folder {
    path: PathBuf,
    max_bytes: u64,
}

static FOLDER: Lazy<Option<Folder>> = Lazy::new(|| match Folder::of_environment() {
    Ok(folder) => folder,
    Err(error) => {
        log::warn!(target: "extism", "compiled modules are not kept on disk: {error}");
        None
    }
});

fn folder() -> Option<&'static Folder> {
    let folder = Lazy::get(&FOLDER).unwrap_or_else(|| {
        // No fork comes in between.
        let _registration = engine::registration();
        Lazy::force(&FOLDER)
    });
    folder.as_ref()
}

/// The module of this id, if there is a good file for it.
pub(super) fn read(id: &Id, home: &Home) -> Option<Registered<Part>> {
    let folder = folder()?;
    let path = folder.file(id);
    let file = open(&path)?;
    let facts = match check(&file, id) {
        Ok(facts) => facts,
        Err(error) => return folder.give_up(&path, &error),
    };
    let metadata = file.metadata().ok()?;
    let load = |engine: &Engine| {
        let file = file.try_clone()?;
        // SAFETY: the file belongs to this user, and nobody else can write it; its checksum is right, so it is what
        // `write` wrote from an artifact, and files are not changed once they are complete.
        unsafe { Module::deserialize_open_file(engine, file) }
    };
    match home.load(facts, load) {
        Ok(part) => {
            note_use(&path, &metadata);
            Some(part)
        }
        Err(error) => folder.give_up(&path, &error),
    }
}

/// Keeps an artifact for the next time.
pub(super) fn write(id: &Id, artifact: &[u8], facts: &Facts) {
    if artifact.len() < WORTHWHILE {
        return;
    }
    let Some(folder) = folder() else {
        return;
    };
    if let Err(error) = folder.write(id, artifact, facts) {
        log::warn!(target: "extism", "a compiled module cannot be kept in {}: {error}", folder.path.display());
    }
}

impl Folder {
    /// As `EXTISM_CACHE_CONFIG` says: a file in the form of Wasmtime's cache configuration; if it is empty, nothing is
    /// kept.
    fn of_environment() -> Result<Option<Self>> {
        let settings = match std::env::var_os("EXTISM_CACHE_CONFIG") {
            None => Settings::default(),
            Some(path) if path.is_empty() => return Ok(None),
            Some(path) => Settings::read(Path::new(&path))
                .map_err(|error| error.context(format_args!("EXTISM_CACHE_CONFIG, {}", path.display())))?,
        };
        if settings.enabled == Some(false) {
            return Ok(None);
        }
        let max_bytes = match &settings.files_total_size_soft_limit {
            Some(text) => bytes(text).ok_or_else(|| {
                Error::new(format!("files-total-size-soft-limit: `{text}` is no size such as \"512Mi\" or \"1G\""))
            })?,
            None => MAX_BYTES,
        };
        let Some(path) = settings.directory.or_else(default_directory) else {
            return Ok(None);
        };
        if !path.is_absolute() {
            return Err(Error::new(format!("the directory `{}` must be an absolute path", path.display())));
        }
        // Others may keep things of theirs in the directory that was named.
        let path = path.join("libextism");
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(|error| cannot(&path, &error))?;
        let metadata = fs::symlink_metadata(&path).map_err(|error| cannot(&path, &error))?;
        if !metadata.is_dir() || !is_ours(&metadata) {
            return Err(Error::new(format!(
                "{} must be a directory of this user's that nobody else can write to",
                path.display()
            )));
        }
        Ok(Some(Self { path, max_bytes }))
    }

    fn file(&self, id: &Id) -> PathBuf {
        let name: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        self.path.join(name).with_extension(EXTENSION)
    }

    /// A file that cannot be used makes room for a better one.
    #[cold]
    fn give_up<T>(&self, path: &Path, error: &Error) -> Option<T> {
        log::warn!(target: "extism", "{} is compiled anew: {error}", path.display());
        let _ = fs::remove_file(path);
        None
    }

    fn write(&self, id: &Id, artifact: &[u8], facts: &Facts) -> io::Result<()> {
        static WRITTEN: AtomicU64 = AtomicU64::new(0);
        let facts = encode(facts);
        let size = (artifact.len() + facts.len() + FOOTER) as u64;
        if size > self.max_bytes || file_limit().is_some_and(|limit| size > limit) {
            return Ok(());
        }
        self.make_room(size);
        // Processes in containers may share both the folder and their number.
        let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
        let unique = format!("{}-{number}-{}", std::process::id(), uuid::Uuid::new_v4().simple());
        let partial = self.path.join(unique).with_extension("partial");
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(&partial)?;
        let mut checksum = crc32fast::Hasher::new();
        let mut footer = Vec::with_capacity(FOOTER);
        footer.extend_from_slice(id);
        footer.extend_from_slice(&u32::try_from(facts.len()).map_err(io::Error::other)?.to_le_bytes());
        for part in [artifact, &facts, &footer] {
            checksum.update(part);
        }
        footer.extend_from_slice(&checksum.finalize().to_le_bytes());
        footer.extend_from_slice(&MAGIC);
        let written = [artifact, &facts, &footer].into_iter().try_for_each(|part| file.write_all(part));
        let done = written.and_then(|()| fs::rename(&partial, self.file(id)));
        done.inspect_err(|_| drop(fs::remove_file(&partial)))
    }

    /// Removes what was used longest ago, until a file of this size fits in.
    fn make_room(&self, size: u64) {
        let Ok(entries) = fs::read_dir(&self.path) else {
            return;
        };
        let now = SystemTime::now();
        let mut files = Vec::new();
        for entry in entries.flatten() {
            let (path, Ok(metadata)) = (entry.path(), entry.metadata()) else {
                continue;
            };
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            match path.extension().and_then(|extension| extension.to_str()) {
                Some(EXTENSION) => files.push((used, metadata.len(), path)),
                Some("partial") if now.duration_since(used).is_ok_and(|age| age > ABANDONED) => {
                    let _ = fs::remove_file(path);
                }
                _ => {}
            }
        }
        files.sort_unstable();
        let mut total: u64 = files.iter().map(|(_, length, _)| length).sum();
        for (_, length, path) in files {
            if total.saturating_add(size) <= self.max_bytes {
                break;
            }
            let _ = fs::remove_file(path);
            total -= length;
        }
    }
}

fn cannot(path: &Path, error: &io::Error) -> Error {
    Error::new(format!("{}: {error}", path.display()))
}

/// Whether it is this user's, and nobody else can write to it.
fn is_ours(metadata: &Metadata) -> bool {
    // SAFETY: `geteuid` always succeeds.
    let user = unsafe { libc::geteuid() };
    metadata.uid() == user && metadata.mode() & 0o022 == 0
}

fn open(path: &Path) -> Option<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    let metadata = file.metadata().ok()?;
    (metadata.is_file() && is_ours(&metadata)).then_some(file)
}

/// Remembers that a file was used, now and then.
fn note_use(path: &Path, metadata: &Metadata) {
    let now = SystemTime::now();
    let recent = metadata.modified().is_ok_and(|used| now.duration_since(used).is_ok_and(|age| age < USED));
    if !recent && let Ok(file) = OpenOptions::new().append(true).custom_flags(libc::O_NOFOLLOW).open(path) {
        let _ = file.set_modified(now);
    }
}

/// Checks a whole file, and reads the facts in it.
fn check(file: &File, id: &Id) -> Result<Facts> {
    let map = Map::new(file).map_err(|error| Error::new(error.to_string()))?;
    parse(&map, id).ok_or_else(|| Error::new("the file is damaged"))
}

/// The facts of a file with this content, if all of it is as it was written.
fn parse(bytes: &[u8], id: &Id) -> Option<Facts> {
    let (content, footer) = bytes.split_at_checked(bytes.len().checked_sub(FOOTER)?)?;
    let (its_id, rest) = footer.split_first_chunk::<32>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (checksum, magic) = rest.split_first_chunk::<4>()?;
    let covered = bytes.get(..bytes.len() - MAGIC.len() - 4)?;
    let good = magic == MAGIC && its_id == id && crc32fast::hash(covered) == u32::from_le_bytes(*checksum);
    let facts = content.len().checked_sub(u32::from_le_bytes(*length) as usize)?;
    if good { decode(content.get(facts..)?) } else { None }
}

fn encode(facts: &Facts) -> Vec<u8> {
    let Facts { has_own_memory, reads_input, initial_bytes, initial_parts, fits_pool, places } = facts;
    let flags = u64::from(*has_own_memory) | u64::from(*reads_input) << 1 | u64::from(*fits_pool) << 2;
    let words = [flags, *initial_bytes, *initial_parts as u64].into_iter().chain(places.to_words());
    words.flat_map(u64::to_le_bytes).collect()
}

fn decode(bytes: &[u8]) -> Option<Facts> {
    let (words, []) = bytes.as_chunks::<8>() else {
        return None;
    };
    let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
    let flags = words.next()?;
    Some(Facts {
        has_own_memory: flags & 1 != 0,
        reads_input: flags & 2 != 0,
        fits_pool: flags & 4 != 0,
        initial_bytes: words.next()?,
        initial_parts: usize::try_from(words.next()?).ok()?,
        places: Places::from_words(words)?,
    })
}

/// The part of Wasmtime's cache configuration that means something here.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Settings {
    enabled: Option<bool>,
    directory: Option<PathBuf>,
    files_total_size_soft_limit: Option<String>,
}

impl Settings {
    fn read(path: &Path) -> Result<Self> {
        #[derive(Default, Deserialize)]
        struct Outer {
            #[serde(default)]
            cache: Settings,
        }
        // A FIFO that nobody writes to is not waited for.
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let text = opened.and_then(io::read_to_string).map_err(|error| Error::new(error.to_string()))?;
        let outer: Outer = toml::from_str(&text).map_err(|error| Error::new(error.message()))?;
        Ok(outer.cache)
    }
}

/// Bytes from a text such as `512Mi`, `1G` or `100000`.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "" => 1,
        "K" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// Where programs of this user keep what they can make again.
fn default_directory() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")))
}

/// A file, mapped for reading.
struct Map {
    address: *mut libc::c_void,
    length: usize,
}

impl Map {
    fn new(file: &File) -> io::Result<Self> {
        use std::os::fd::AsRawFd;
        let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        if length == 0 {
            return Err(io::Error::other("the file is empty"));
        }
        let flags = libc::MAP_PRIVATE | libc::MAP_POPULATE;
        // SAFETY: a new mapping, at an address of the system's choice.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, flags, file.as_raw_fd(), 0) };
        if address == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self { address, length }) }
    }
}

impl std::ops::Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping has this length and lives as long as `self`. Nobody changes or shortens the file: it is
        // ours, and was complete when it got its name.
        unsafe { std::slice::from_raw_parts(self.address.cast(), self.length) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and nothing refers to it any more.
        unsafe { libc::munmap(self.address, self.length) };
    }
}
