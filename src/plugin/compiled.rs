//! Compiled plug-ins: a manifest turned into a program, for any number of plug-ins.

use std::sync::Arc;
use std::time::Duration;

use super::manifest;
use crate::error::Result;
use crate::guest::http::Policy;
use crate::state::ConfigValues;
use crate::wasm::{Directory, Offer, Program, Request, Settings, SourceModule};

/// What plug-ins are made of. Nothing in it changes any more.
pub(crate) struct Compiled {
    pub(super) program: Arc<Program>,
    pub(super) config: ConfigValues,
    pub(super) timeout: Option<Duration>,
    pub(super) max_var_bytes: Option<u64>,
}

impl Compiled {
    /// Reads a module, WAT text or a manifest, brings its modules in, and compiles and links them.
    /// Runs no guest code.
    pub fn new(input: &[u8], offers: &[Offer], with_wasi: bool, fuel: Option<u64>) -> Result<Self> {
        let (modules, settings) = manifest::parse(input)?.load()?;
        let policy = Policy::new(settings.allowed_hosts.as_deref(), settings.memory.max_http_response_bytes)?;
        let directories = settings.allowed_paths.into_iter().map(|path| Directory {
            host: path.host,
            guest: path.guest,
            read_only: path.read_only,
        });
        let linked = modules.linked.into_iter().map(|module| SourceModule { name: module.name, bytes: module.bytes });
        let program = Program::new(Request {
            main: SourceModule { name: "main".to_owned(), bytes: modules.main },
            linked: linked.collect(),
            offers: offers.to_vec(),
            settings: Settings { policy: Arc::new(policy) },
            wasi: with_wasi.then(|| directories.collect()),
            fuel,
            max_pages: settings.memory.max_pages,
        })?;
        Ok(Self {
            program: Arc::new(program),
            config: settings.config.into_iter().map(|(key, value)| (key.into_bytes(), value.into())).collect(),
            timeout: settings.timeout,
            max_var_bytes: settings.memory.max_var_bytes,
        })
    }
}
