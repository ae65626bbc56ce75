//! Manifests as JSON and TOML text, and messages that say where in the text something is wrong.

use std::fmt::Write;

use serde_path_to_error::{Path, Segment};

use super::wire::Document;
use super::{MODULE_FORMS, Manifest};
use crate::error::{Error, Result};

/// The longest message of a parser, and the longest key in a path, that is passed on whole: either
/// may be the host's text at any length.
const MAX_MESSAGE: usize = 400;
const MAX_KEY: usize = 64;

/// Reads a manifest: JSON if it begins with `{`, else TOML.
pub(super) fn parse(input: &[u8]) -> Result<Manifest<'static>> {
    let text = decode(input)?;
    let (format, document) =
        if text.trim_ascii_start().starts_with('{') { ("JSON", json(text)?) } else { ("TOML", toml(text)?) };
    let manifest = Manifest::from(document);
    if manifest.modules.is_empty() {
        return Err(Error::new(format!(
            "manifest ({format}): `wasm` lists no module; a plug-in needs at least one, \
             such as {{\"wasm\": [{{\"path\": \"plugin.wasm\"}}]}}"
        )));
    }
    Ok(manifest)
}

/// The input as text, if it can be a manifest at all.
fn decode(input: &[u8]) -> Result<&str> {
    let wrong = match std::str::from_utf8(input) {
        Ok(text) => match text.find('\0') {
            None => return Ok(text),
            Some(at) if at + 1 == text.len() && at > 0 => {
                "its last byte is NUL (was the end of a C string counted?)".to_owned()
            }
            Some(at) => format!("byte {at} is NUL"),
        },
        Err(e) => format!("byte {} is not valid UTF-8", e.valid_up_to()),
    };
    let mut begin = String::new();
    for byte in input.iter().take(8) {
        // Writing to a string cannot fail.
        let _ = write!(begin, " {byte:02x}");
    }
    Err(Error::new(format!(
        "the input ({} bytes:{begin}{}) is neither {MODULE_FORMS}, nor a manifest in JSON or TOML: \
         {wrong}",
        input.len(),
        if input.len() > 8 { " ..." } else { "" },
    )))
}

fn json(text: &str) -> Result<Document> {
    let report = |error: &serde_json::Error, path: Option<&Path>| {
        let full = error.to_string();
        let (line, column) = (error.line(), error.column());
        let what = full.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&full);
        message("JSON", Some((line, column)), path, what)
    };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let document =
        serde_path_to_error::deserialize(&mut deserializer).map_err(|e| report(e.inner(), Some(e.path())))?;
    deserializer.end().map_err(|e| report(&e, None))?;
    Ok(document)
}

fn toml(text: &str) -> Result<Document> {
    let place = |error: &toml::de::Error| error.span().map(|span| position(text, span.start));
    let deserializer = toml::Deserializer::parse(text).map_err(|e| {
        // Whatever was recognised as nothing else ends here.
        Error::new(format!(
            "{} (taken for TOML: it is neither {MODULE_FORMS}, nor JSON (\"{{...\"))",
            message("TOML", place(&e), None, e.message())
        ))
    })?;
    serde_path_to_error::deserialize(deserializer).map_err(|e| {
        let inner = e.inner();
        message("TOML", place(inner), Some(e.path()), inner.message())
    })
}

/// Line and column of a byte, both from 1, the column in characters.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

fn message(format: &str, place: Option<(usize, usize)>, path: Option<&Path>, what: &str) -> Error {
    let mut out = format!("manifest ({format})");
    if let Some((line, column)) = place {
        // Writing to a string cannot fail.
        let _ = write!(out, ", line {line}, column {column}");
    }
    let path = path.map(spell).unwrap_or_default();
    if !path.is_empty() {
        let _ = write!(out, ", at {path}");
    }
    Error::new(printable(what)).context(out)
}

/// A path such as `wasm[0].hash` or `config["a b"]`.
fn spell(path: &Path) -> String {
    let mut out = String::new();
    for segment in path {
        let _ = match segment {
            Segment::Seq { index } => write!(out, "[{index}]"),
            Segment::Map { key } | Segment::Enum { variant: key } if is_plain(key) => {
                let dot = if out.is_empty() { "" } else { "." };
                write!(out, "{dot}{key}")
            }
            Segment::Map { key } | Segment::Enum { variant: key } => {
                write!(out, "[{:?}]", shorten(key, MAX_KEY))
            }
            Segment::Unknown => Ok(()),
        };
    }
    out
}

fn is_plain(key: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (1..=MAX_KEY).contains(&key.len()) && key.chars().all(plain)
}

/// The text on one line, of a bounded length, without control characters.
fn printable(text: &str) -> String {
    let mut out = String::new();
    for c in shorten(text, MAX_MESSAGE).chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// At most about `max` bytes of a text: its beginning and its end, where messages say what was
/// expected.
fn shorten(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let head = text.floor_char_boundary(max / 2);
    let tail = text.ceil_char_boundary(text.len() - max / 2);
    format!("{} ... {}", &text[..head], &text[tail..])
}
