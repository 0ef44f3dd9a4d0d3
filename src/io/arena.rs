//! Memory for packets: mapped once, in huge pages where the system allows them, and paid for only
//! as far as packets have touched it.

use std::alloc::{Layout, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Zeroed bytes in a mapping of their own.
#[derive(Debug)]
pub(super) struct Arena {
    mapping: NonNull<u8>,
    mapped: usize,
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to this value alone, as the memory of a `Box<[u8]>` does.
unsafe impl Send for Arena {}
// SAFETY: a shared reference only gives shared access to plain bytes.
unsafe impl Sync for Arena {}

impl Arena {
    /// Maps `length` bytes. Like any allocation, it ends the process where there is no memory.
    pub(super) fn new(length: usize) -> Self {
        let page = if length < HUGE_PAGE {
            SMALL_PAGE
        } else {
            HUGE_PAGE
        };
        let Ok(layout) = Layout::from_size_align(length.max(1), page) else {
            handle_alloc_error(Layout::new::<u8>());
        };
        // The kernel aligns to small pages, so there is room to align to what is wanted.
        let mapped = layout.size() + page;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: an anonymous mapping at an address of the kernel's choice overlaps nothing.
        let mapping = unsafe { libc::mmap(std::ptr::null_mut(), mapped, access, flags, -1, 0) };
        let mapping: Option<NonNull<u8>> = NonNull::new(mapping.cast());
        let Some(mapping) = mapping.filter(|start| start.as_ptr().cast() != libc::MAP_FAILED)
        else {
            handle_alloc_error(layout);
        };
        let skipped = mapping.align_offset(page).min(page);
        // SAFETY: `skipped` is at most `page`, by which the mapping is longer than `length`.
        let start = unsafe { mapping.add(skipped) };
        if page == HUGE_PAGE {
            // SAFETY: the range lies in the mapping, and this advice changes no content.
            let _ = unsafe { libc::madvise(start.as_ptr().cast(), length, libc::MADV_HUGEPAGE) };
        }
        Self {
            mapping,
            mapped,
            start,
            length,
        }
    }
}

impl Deref for Arena {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `length` bytes from `start` are mapped, initialised to zero by the kernel, and live
        // as long as this value, which is borrowed shared.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl DerefMut for Arena {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for the shared slice, and this value is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: this is the whole mapping that `new` made, and no borrow of it can be left.
        let _ = unsafe { libc::munmap(self.mapping.as_ptr().cast(), self.mapped) };
    }
}

const SMALL_PAGE: usize = 4096;
const HUGE_PAGE: usize = 2 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arena_is_zeroed_whole_and_aligned() {
        for length in [1, 4096, 70_000, HUGE_PAGE, 2 * HUGE_PAGE + 17] {
            let mut arena = Arena::new(length);
            assert_eq!(arena.len(), length);
            assert!(arena.iter().all(|byte| *byte == 0));
            arena.fill(0xa5);
            let page = if length < HUGE_PAGE {
                SMALL_PAGE
            } else {
                HUGE_PAGE
            };
            assert_eq!(arena.as_ptr().addr() % page, 0, "{length}");
        }
    }

    #[test]
    fn an_arena_that_was_not_touched_takes_no_memory() {
        let resident = || {
            let status = std::fs::read_to_string("/proc/self/statm").expect("procfs");
            let pages = status.split(' ').nth(1).expect("resident");
            pages.parse::<usize>().expect("a number") * SMALL_PAGE
        };
        let before = resident();
        let arena = Arena::new(256 << 20);
        assert!(resident() < before + (128 << 20));
        drop(arena);
    }
}
