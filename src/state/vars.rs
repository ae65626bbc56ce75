//! The variables of a plug-in: bytes under names, kept from call to call, bounded.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::memory::copied;

/// What all variables together may take if the manifest does not say otherwise.
const DEFAULT_MAX_BYTES: u64 = 1024 * 1024;

/// The variables of one plug-in. The bound counts the bytes of names and values; libextism 1.41 counts more.
#[derive(Debug)]
pub(crate) struct Vars {
    values: BTreeMap<Box<[u8]>, Box<[u8]>>,
    max_bytes: u64,
    bytes: u64,
}

impl Vars {
    /// No variables yet; `max_bytes` of names and values, 0 switches variables off.
    pub fn new(max_bytes: Option<u64>) -> Self {
        Self { values: BTreeMap::new(), max_bytes: max_bytes.unwrap_or(DEFAULT_MAX_BYTES), bytes: 0 }
    }

    /// The value under this name.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.values.get(name).map(|value| &**value)
    }

    /// Removes the variable, if there is one of this name.
    pub fn remove(&mut self, name: &[u8]) {
        if let Some(old) = self.values.remove(name) {
            self.bytes -= size(name, &old);
        }
    }

    /// Sets the variable to these bytes, in place of what it held.
    pub fn set(&mut self, name: &[u8], value: &[u8]) -> Result<(), Error> {
        if self.max_bytes == 0 {
            return Err(Error::new("Vars are disabled by this host"));
        }
        let old = self.values.get(name).map_or(0, |old| size(name, old));
        let bytes = self.bytes - old + size(name, value);
        if bytes > self.max_bytes {
            return Err(Error::new("Variable store is full"));
        }
        let (Some(name), Some(value)) = (copied(name), copied(value)) else {
            return Err(Error::new("the host has no memory for this variable"));
        };
        self.values.insert(name.into(), value.into());
        self.bytes = bytes;
        Ok(())
    }
}

fn size(name: &[u8], value: &[u8]) -> u64 {
    name.len() as u64 + value.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_replaces_and_removes() {
        let mut vars = Vars::new(None);
        vars.set(b"a", b"1").unwrap();
        vars.set(b"a", b"22").unwrap();
        assert_eq!(vars.get(b"a"), Some(&b"22"[..]));
        assert_eq!(vars.bytes, 3);
        vars.remove(b"a");
        vars.remove(b"a");
        assert_eq!(vars.get(b"a"), None);
        assert_eq!(vars.bytes, 0);
    }

    #[test]
    fn the_bound_counts_what_is_there_after_the_change() {
        let mut vars = Vars::new(Some(20));
        vars.set(b"name", &[1; 6]).unwrap();
        vars.set(b"other", &[2; 5]).unwrap();
        assert_eq!(vars.set(b"", b"x").unwrap_err().to_string(), "Variable store is full");
        vars.set(b"name", &[3; 6]).unwrap();
        assert!(vars.set(b"name", &[3; 7]).is_err());
        assert_eq!(vars.get(b"name"), Some(&[3; 6][..]), "a refused change changes nothing");
    }

    #[test]
    fn zero_switches_variables_off() {
        let mut vars = Vars::new(Some(0));
        assert!(vars.set(b"a", b"").is_err());
        assert_eq!(vars.get(b"a"), None);
    }

    #[test]
    fn empty_values_cannot_fill_the_host() {
        let mut vars = Vars::new(None);
        let full = (0..u64::from(u32::MAX)).find(|i| vars.set(format!("{i:01024}").as_bytes(), b"").is_err());
        assert_eq!(full, Some(1024));
    }
}
