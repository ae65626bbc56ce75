//! What the fuzz targets run (`fuzz/`): each function takes any bytes, and panics if something is wrong that no input
//! may bring about. The unit tests run them on the inputs that are kept in `fuzz/corpus`.

// As a part of the library they have no caller.
#![allow(missing_docs)]

mod http_request;
mod manifest;
mod memory;
mod rewrite;

pub use http_request::http_request;
pub use manifest::manifest;
pub use memory::memory;
pub use rewrite::{rewrite, rewrite_module};

/// Reads numbers from an input. At its end there are only zeros.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    fn word(&mut self) -> u64 {
        let mut bytes = [0; 8];
        let taken = self.take(8);
        bytes[..taken.len()].copy_from_slice(taken);
        u64::from_le_bytes(bytes)
    }

    /// A number below `bound`, which is at most 256.
    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Runs a target on every input that is kept for it.
    fn replay(name: &str, target: fn(&[u8])) {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let mut count = 0;
        for file in directory.read_dir().expect("inputs") {
            let path = file.expect("an entry").path();
            println!("{}", path.display());
            target(&std::fs::read(&path).expect("an input"));
            count += 1;
        }
        assert!(count > 0, "no inputs");
    }

    #[test]
    fn replay_memory() {
        replay("memory", super::memory);
    }

    #[test]
    fn replay_manifest() {
        replay("manifest", super::manifest);
    }

    #[test]
    fn replay_http_request() {
        replay("http_request", super::http_request);
    }

    #[test]
    fn replay_rewrite() {
        replay("rewrite", super::rewrite);
    }
}
