//! Any bytes as what a host passes to create a plug-in.

use crate::plugin::manifest::{Location, parse};

/// Reads a manifest. What comes out of it keeps the promises of its type, and messages are bounded. Nothing is
/// loaded: files, servers and addresses are the host's own.
pub fn manifest(data: &[u8]) {
    match parse(data) {
        Ok(manifest) => {
            assert!(!manifest.modules.is_empty());
            let inline = manifest.modules.iter().all(|source| matches!(source.location, Location::Data(_)));
            if inline && let Ok((modules, _)) = manifest.load() {
                let names: std::collections::BTreeSet<_> = modules.linked.iter().map(|module| &module.name).collect();
                assert_eq!(names.len(), modules.linked.len());
                assert!(!names.contains(&"extism:host/env".to_owned()));
            }
        }
        Err(error) => {
            let text = error.to_string();
            assert!(!text.is_empty() && text.len() < 4096, "a message of {} bytes", text.len());
        }
    }
}
