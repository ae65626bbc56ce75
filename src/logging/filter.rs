//! Which log lines are wanted: a level, or a list such as `extism=trace,cranelift=debug`.

use log::LevelFilter;

use crate::error::{Error, Result};

/// What a level without a target speaks of.
const OURS: &str = "extism";

/// The first words of the targets that exist in this library. A word that stands alone in a filter must begin
/// like one of them, or be a path: `inof` is a slip of the pen, not a target.
const SOURCES: [&str; 7] = [OURS, "wasmtime", "wasmparser", "cranelift", "regalloc2", "rustls", "ureq"];

/// Targets (by how they begin) and the most verbose level that is wanted of each.
#[derive(Debug)]
pub(super) struct Filter(Vec<(String, LevelFilter)>);

impl Filter {
    /// `None` and the empty text mean `error`. A level alone is that of this library and its plug-ins; in a list
    /// a level without a target is that of everything that the list doesn't name.
    pub fn parse(text: Option<&str>) -> Result<Self> {
        let text = text.unwrap_or_default().trim();
        if let Some(level) = level(text) {
            return Ok(Self(vec![(OURS.to_owned(), level)]));
        }
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        let directives = items.map(directive).collect::<Result<Vec<_>>>()?;
        if directives.is_empty() {
            return Ok(Self(vec![(OURS.to_owned(), LevelFilter::Error)]));
        }
        Ok(Self(directives))
    }

    /// The most verbose level that is wanted of a target: what the longest matching entry says, of several the last.
    pub fn level_of(&self, target: &str) -> LevelFilter {
        let matching = self.0.iter().filter(|(start, _)| target.starts_with(start.as_str()));
        matching.max_by_key(|(start, _)| start.len()).map_or(LevelFilter::Off, |(_, level)| *level)
    }

    /// The most verbose level that is wanted of anything.
    pub fn most_verbose(&self) -> LevelFilter {
        self.0.iter().map(|(_, level)| *level).max().unwrap_or(LevelFilter::Off)
    }
}

fn directive(item: &str) -> Result<(String, LevelFilter)> {
    let (target, wanted) = match item.split_once('=') {
        Some((target, name)) => (target.trim(), level(name.trim()).ok_or_else(|| unknown(item, name.trim()))?),
        None => match level(item) {
            Some(level) => return Ok((String::new(), level)),
            None if is_known(item) => (item, LevelFilter::Trace),
            None => return Err(unknown(item, item)),
        },
    };
    let is_path = |c: char| c.is_alphanumeric() || matches!(c, ':' | '_' | '-' | '.');
    if target.is_empty() || !target.chars().all(is_path) {
        return Err(Error::new(format!("log filter `{item}`: a target is a path such as `extism::pdk`")));
    }
    Ok((target.to_owned(), wanted))
}

fn is_known(word: &str) -> bool {
    word.contains("::") || SOURCES.iter().any(|source| word.starts_with(source))
}

/// A level by its name in either case, or by its number: 0 is off, 5 is trace.
fn level(name: &str) -> Option<LevelFilter> {
    match name.as_bytes() {
        [digit @ b'0'..=b'5'] => LevelFilter::iter().nth(usize::from(digit - b'0')),
        _ => name.parse().ok(),
    }
}

fn unknown(item: &str, name: &str) -> Error {
    Error::new(format!(
        "log filter `{item}`: `{name}` is not a level; use off, error, warn, info, debug or trace, \
         or a list such as extism=trace,cranelift=debug"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, target: &str) -> LevelFilter {
        Filter::parse(Some(text)).unwrap().level_of(target)
    }

    #[test]
    fn a_level_alone_is_ours() {
        for text in ["trace", "TRACE", "Trace", " trace ", "5"] {
            assert_eq!(of(text, "extism::pdk"), LevelFilter::Trace, "{text}");
            assert_eq!(of(text, "wasmtime::runtime"), LevelFilter::Off, "{text}");
        }
        assert_eq!(of("off", "extism::pdk"), LevelFilter::Off);
        assert_eq!(of("0", "extism"), LevelFilter::Off);
    }

    #[test]
    fn nothing_means_error() {
        for text in [None, Some(""), Some(" "), Some(",")] {
            assert_eq!(Filter::parse(text).unwrap().level_of("extism"), LevelFilter::Error);
        }
    }

    #[test]
    fn lists() {
        let text = "extism=warn,extism::pdk=trace, cranelift=debug";
        assert_eq!(of(text, "extism"), LevelFilter::Warn);
        assert_eq!(of(text, "extism::pdk"), LevelFilter::Trace);
        assert_eq!(of(text, "cranelift_codegen"), LevelFilter::Debug);
        assert_eq!(of(text, "wasmtime"), LevelFilter::Off);
        assert_eq!(of("wasmtime=trace,info", "extism::pdk"), LevelFilter::Info);
        assert_eq!(of("wasmtime=trace,info", "anything"), LevelFilter::Info);
        assert_eq!(of("extism::p=trace", "extism::pdk"), LevelFilter::Trace);
        assert_eq!(of("extism::pdk", "extism::pdk"), LevelFilter::Trace);
        assert_eq!(of("extism=info,extism=warn", "extism"), LevelFilter::Warn);
        assert_eq!(of("other=info", "extism"), LevelFilter::Off);
        assert_eq!(Filter::parse(Some(text)).unwrap().most_verbose(), LevelFilter::Trace);
    }

    #[test]
    fn slips_are_errors_that_say_so() {
        for text in ["bogus", "inof", "none", "6", "extism=bogus", "extism=", "=", "=info", "a,b", "extism[span]=info"]
        {
            let error = Filter::parse(Some(text)).unwrap_err().to_string();
            assert!(error.starts_with("log filter `"), "{text}: {error}");
        }
        let error = Filter::parse(Some("extism=bogus")).unwrap_err().to_string();
        assert!(error.contains("`bogus` is not a level; use off, error, warn"), "{error}");
    }
}
