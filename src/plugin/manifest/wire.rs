//! The manifest as it is written, in the fields that JSON and TOML share.
//!
//! Every field may be `null`, and so may every element of a list and every value of a map: it is
//! then absent. (1.41 knows null only in fields that have no default.) Checks that need one field
//! alone are made while it is read, so that the message has its path and position.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Unexpected, Visitor};

use super::{AllowedPath, Location, Manifest, MemoryOptions, Settings, Source};

/// The manifest's top level.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a manifest object")]
pub(super) struct Document {
    wasm: Option<Vec<Option<Source<'static>>>>,
    memory: Option<Memory>,
    config: Option<BTreeMap<String, Option<String>>>,
    allowed_hosts: Option<Vec<Option<String>>>,
    allowed_paths: Option<BTreeMap<String, Option<String>>>,
    timeout_ms: Option<Number>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, expecting = "an object of memory limits")]
struct Memory {
    max_pages: Option<Number>,
    max_http_response_bytes: Option<Number>,
    max_var_bytes: Option<Number>,
}

/// One entry of `wasm`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `path`, `data` or `url`")]
struct Entry {
    path: Option<String>,
    data: Option<Data>,
    url: Option<String>,
    headers: Option<BTreeMap<String, Option<String>>>,
    method: Option<String>,
    name: Option<String>,
    hash: Option<Hash>,
}

/// Bytes, or where they are in this process. Not an array of the two numbers, which 1.41 takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `ptr` and `len`")]
struct Pointer {
    ptr: Number,
    len: Number,
}

enum Data {
    Bytes(Vec<u8>),
    Pointer(Pointer),
}

struct Hash([u8; 32]);

struct Number(u64);

impl From<Document> for Manifest<'static> {
    fn from(document: Document) -> Self {
        let memory = document.memory.unwrap_or_default();
        Self {
            modules: document.wasm.into_iter().flatten().flatten().collect(),
            settings: Settings {
                memory: MemoryOptions {
                    max_pages: memory.max_pages.map(|n| n.0),
                    max_http_response_bytes: memory.max_http_response_bytes.map(|n| n.0),
                    max_var_bytes: memory.max_var_bytes.map(|n| n.0),
                },
                config: present(document.config).collect(),
                allowed_hosts: document.allowed_hosts.map(|hosts| hosts.into_iter().flatten().collect()),
                allowed_paths: present(document.allowed_paths)
                    .map(|(host, guest)| allowed_path(&host, guest))
                    .collect(),
                timeout: document.timeout_ms.map(|n| Duration::from_millis(n.0)),
            },
        }
    }
}

/// The entries of a map without those whose value is null.
fn present(map: Option<BTreeMap<String, Option<String>>>) -> impl Iterator<Item = (String, String)> {
    map.into_iter().flatten().filter_map(|(key, value)| Some((key, value?)))
}

fn allowed_path(host: &str, guest: String) -> AllowedPath {
    let (host, read_only) = match host.strip_prefix("ro:") {
        Some(rest) => (rest, true),
        None => (host, false),
    };
    AllowedPath { host: host.into(), guest, read_only }
}

impl<'de> Deserialize<'de> for Source<'static> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entry = Entry::deserialize(deserializer)?;
        if entry.url.is_none() && (entry.headers.is_some() || entry.method.is_some()) {
            return Err(D::Error::custom("`headers` and `method` belong to a `url`"));
        }
        let location = match (entry.path, entry.data, entry.url) {
            (Some(path), None, None) => Location::Path(path.into()),
            (None, Some(Data::Bytes(bytes)), None) => Location::Data(bytes.into()),
            (None, Some(Data::Pointer(Pointer { ptr, len })), None) => {
                Location::Memory { address: ptr.0, length: len.0 }
            }
            (None, None, Some(url)) => {
                Location::Url { url, headers: present(entry.headers).collect(), method: entry.method }
            }
            (path, data, url) => {
                return Err(one_of_three(path.is_some(), data.is_some(), url.is_some()));
            }
        };
        Ok(Self { name: entry.name, hash: entry.hash.map(|hash| hash.0), location })
    }
}

fn one_of_three<E: Error>(path: bool, data: bool, url: bool) -> E {
    let found: Vec<_> = [(path, "`path`"), (data, "`data`"), (url, "`url`")]
        .into_iter()
        .filter_map(|(present, name)| present.then_some(name))
        .collect();
    let found = if found.is_empty() { "none of them".to_owned() } else { found.join(" and ") };
    E::custom(format_args!("a module has exactly one of `path`, `data` and `url`; this one has {found}"))
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_u64(NumberVisitor)
    }
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from 0 to {}", u64::MAX)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Number, E> {
        Ok(Number(value))
    }

    // What TOML's numbers come as.
    fn visit_i64<E: Error>(self, value: i64) -> Result<Number, E> {
        u64::try_from(value).map(Number).map_err(|_| E::invalid_value(Unexpected::Signed(value), &self))
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // 1.41 finds a mismatch where the digits are upper-case.
        unhex(text.as_bytes())
            .map(Hash)
            .ok_or_else(|| D::Error::custom(format_args!("expected the 64 hex digits of a SHA-256, found {text:?}")))
    }
}

fn unhex(digits: &[u8]) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if digits.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        for &digit in pair {
            *byte = *byte << 4 | char::from(digit).to_digit(16)? as u8;
        }
    }
    Some(bytes)
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DataVisitor)
    }
}

struct DataVisitor;

impl<'de> Visitor<'de> for DataVisitor {
    type Value = Data;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("base64 text, or an object with `ptr` and `len`")
    }

    // The standard alphabet, padded, without white space: what 1.41 takes.
    fn visit_str<E: Error>(self, text: &str) -> Result<Data, E> {
        STANDARD
            .decode(text)
            .map(Data::Bytes)
            .map_err(|e| E::custom(format_args!("not base64 (standard alphabet, padded): {e}")))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Data, A::Error> {
        Pointer::deserialize(MapAccessDeserializer::new(map)).map(Data::Pointer)
    }
}
