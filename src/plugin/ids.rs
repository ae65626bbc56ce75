//! The ids of plug-ins: random UUIDs (version 4), of which one question to the system makes several.

use uuid::{Builder, Uuid};

use crate::sync::{Mutex, MutexGuard};

/// So many bytes the system gives at once, whatever else happens.
const BYTES: usize = 256;

const ID: usize = size_of::<Uuid>();

static RANDOM: Mutex<Random> = Mutex::new(Random { bytes: [0; BYTES], left: 0 });

/// Random bytes, of which the first `left` were not used yet.
struct Random {
    bytes: [u8; BYTES],
    left: usize,
}

/// An id that no other plug-in has, in any process.
pub(super) fn fresh() -> Uuid {
    let mut random = RANDOM.lock();
    if random.left < ID {
        if getrandom::fill(&mut random.bytes).is_err() {
            drop(random);
            return Uuid::new_v4();
        }
        random.left = BYTES;
    }
    random.left -= ID;
    let id = random.bytes[random.left..].first_chunk().copied().unwrap_or_default();
    Builder::from_random_bytes(id).into_uuid()
}

/// The random bytes, held across a fork.
pub(crate) struct Held(MutexGuard<'static, Random>);

/// Keeps them as they are.
pub(crate) fn hold() -> Held {
    Held(RANDOM.lock())
}

impl Held {
    /// In the child of a fork, which must not use what its parent will use as well.
    pub fn forget_parent(&mut self) {
        self.0.left = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::thread;

    use super::fresh;

    #[test]
    fn no_two_are_the_same() {
        let some = || (0..1_000).map(|_| fresh()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| thread::spawn(some)).collect();
        let ids: HashSet<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect();
        assert_eq!(ids.len(), 4_000);
        assert!(ids.iter().all(|id| id.get_version_num() == 4));
    }
}
