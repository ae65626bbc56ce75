//! Zeroing what was given out: the one thing that this module does to the memory itself.

/// The bytes at the beginning of a memory that are erased by writing zeros, and so stay resident.
///
/// A page that goes back to the operating system costs a page fault when it is used again, ten to
/// twenty times what filling it costs. So the part that calls commonly use is filled, and bounds
/// what an idle plug-in holds. What only a large call used goes back.
const FILLED: usize = 1 << 20;

/// Makes the first `high_water` bytes zero, or all if there are fewer.
///
/// The first MiB is filled. Beyond it whole pages go back to the operating system, where it can
/// take them, and read as zeros from then on.
///
/// # Safety
///
/// The pages that lie within `bytes` must be a private anonymous mapping: wasm memory that no data
/// segment of the module initialises, or an anonymous `mmap`. Pages with a file behind them, or a
/// copy-on-write image, would return to the content of that instead of zeros.
pub unsafe fn erase(bytes: &mut [u8], high_water: u64) {
    let used = usize::try_from(high_water).map_or(bytes.len(), |high| high.min(bytes.len()));
    let (filled, rest) = bytes[..used].split_at_mut(used.min(FILLED));
    filled.fill(0);
    if !rest.is_empty() {
        // SAFETY: a part of `bytes`, for which the caller promises the same.
        unsafe { give_back(rest) };
    }
}

/// A memory that has grown to this much is used in large steps.
const MUCH: usize = 8 << 20;

/// Tells the operating system that much of a memory will be used, if that is so: huge pages are had and given back
/// several times faster than small ones.
pub fn expect_much(bytes: &mut [u8]) {
    #[cfg(target_os = "linux")]
    if bytes.len() >= MUCH {
        // SAFETY: an advice about a mapping, which changes no byte of it; it may be refused.
        unsafe { libc::madvise(bytes.as_mut_ptr().cast(), bytes.len(), libc::MADV_HUGEPAGE) };
    }
}

/// Makes the bytes zero, whole pages by giving them back.
///
/// # Safety
///
/// As for [`erase`].
#[cfg(target_os = "linux")]
#[cold]
unsafe fn give_back(bytes: &mut [u8]) {
    // SAFETY: `sysconf` has no preconditions.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(0);
    if page == 0 {
        return bytes.fill(0);
    }
    let to_page = bytes.as_ptr().addr().wrapping_neg() % page;
    let (edge, rest) = bytes.split_at_mut(to_page.min(bytes.len()));
    edge.fill(0);
    let (pages, edge) = rest.split_at_mut(rest.len() / page * page);
    edge.fill(0);
    if pages.is_empty() {
        return;
    }
    // SAFETY: exclusively borrowed whole pages of a private anonymous mapping (the caller promises
    // it): for such pages the call does nothing but make their bytes zero, or fails and changes
    // nothing that matters here.
    let failed = unsafe { libc::madvise(pages.as_mut_ptr().cast(), pages.len(), libc::MADV_DONTNEED) };
    if failed != 0 {
        // Pages locked into memory, for instance.
        pages.fill(0);
    }
}

/// Makes the bytes zero.
///
/// # Safety
///
/// None; it is unsafe because its counterpart on Linux is.
#[cfg(not(target_os = "linux"))]
unsafe fn give_back(bytes: &mut [u8]) {
    bytes.fill(0);
}

#[cfg(all(test, unix))]
mod tests {
    use super::{FILLED, erase};

    /// A private anonymous mapping full of ones.
    struct Mapping(*mut u8, usize);

    impl Mapping {
        fn new(length: usize) -> Self {
            let (rights, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANON);
            // SAFETY: a new mapping at an address that the system chooses touches no memory in use.
            let base = unsafe { libc::mmap(std::ptr::null_mut(), length, rights, flags, -1, 0) };
            assert_ne!(base, libc::MAP_FAILED);
            let mut mapping = Self(base.cast(), length);
            mapping.bytes().fill(1);
            mapping
        }

        fn bytes(&mut self) -> &mut [u8] {
            // SAFETY: mapped by `new` until `drop`, initialised by the system, and borrowed through
            // `self` only.
            unsafe { std::slice::from_raw_parts_mut(self.0, self.1) }
        }

        /// Erases within a part of the mapping.
        fn erase(&mut self, part: std::ops::RangeFrom<usize>, high_water: u64) {
            // SAFETY: the mapping is private and anonymous.
            unsafe { erase(&mut self.bytes()[part], high_water) };
        }

        #[cfg(target_os = "linux")]
        fn resident_pages(&self) -> usize {
            let mut pages = vec![0u8; self.1.div_ceil(4096)];
            // SAFETY: the range is mapped, and there is a byte in `pages` for each of its pages.
            let failed = unsafe { libc::mincore(self.0.cast(), self.1, pages.as_mut_ptr()) };
            assert_eq!(failed, 0);
            pages.iter().filter(|&&page| page & 1 == 1).count()
        }
    }

    impl Drop for Mapping {
        fn drop(&mut self) {
            // SAFETY: the mapping of `new`, to which no borrow is left.
            unsafe { libc::munmap(self.0.cast(), self.1) };
        }
    }

    #[test]
    fn zeros_up_to_the_mark_and_not_a_byte_further() {
        let size = FILLED + 5 * 65536;
        let around = |n: usize| [n - 1, n, n + 1];
        let marks = [vec![0, 1, 4095, 4096, 4097], around(FILLED).into(), around(FILLED + 65536).into()];
        for start in [0, 1, 4095, 4096, 5000] {
            let length = size - start;
            let mut ends = marks.concat();
            ends.extend([FILLED + 4096 + 17, length - 4097, length - 1, length]);
            for end in ends {
                let mut mapping = Mapping::new(size);
                mapping.erase(start.., end as u64);
                let bytes = mapping.bytes();
                assert!(bytes[..start].iter().all(|&byte| byte == 1), "before {start}");
                assert!(bytes[start..start + end].iter().all(|&byte| byte == 0), "{start}, {end}");
                assert!(bytes[start + end..].iter().all(|&byte| byte == 1), "{start}, behind {end}");
            }
        }
    }

    #[test]
    fn a_mark_past_the_end_means_all() {
        for size in [4096, FILLED, FILLED + 2 * 65536] {
            for mark in [size as u64 + 1, u64::MAX] {
                let mut mapping = Mapping::new(size);
                mapping.erase(0.., mark);
                assert!(mapping.bytes().iter().all(|&byte| byte == 0));
            }
        }
        let mut mapping = Mapping::new(4096);
        mapping.erase(4096.., 1);
        assert!(mapping.bytes().iter().all(|&byte| byte == 1));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn large_memory_goes_back_and_can_be_used_again() {
        let size = 16 << 20;
        let mut mapping = Mapping::new(size);
        for _ in 0..3 {
            mapping.bytes().fill(2);
            let before = mapping.resident_pages();
            mapping.bytes()[..5000].fill(0);
            mapping.erase(5000.., size as u64);
            // Huge pages may keep a little more than the part that is filled.
            assert!(mapping.resident_pages() <= before / 4, "{} of {before}", mapping.resident_pages());
            assert!(mapping.bytes().iter().all(|&byte| byte == 0));
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn pages_that_cannot_go_back_are_filled() {
        let size = FILLED + 16 * 4096;
        let mut mapping = Mapping::new(size);
        // SAFETY: a range of a mapping of ours. (It may be refused, by a limit: then nothing is
        // tested here.)
        unsafe { libc::mlock(mapping.0.cast(), size) };
        mapping.erase(0.., size as u64);
        assert!(mapping.bytes().iter().all(|&byte| byte == 0));
    }
}
