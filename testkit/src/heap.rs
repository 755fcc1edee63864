//! Counts the heap use of the current thread, so that tests can run in parallel.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use std::alloc::System;

/// The allocator of `std`, with a count for each thread. A test binary that uses [`Region`] must
/// declare it as its `#[global_allocator]`.
pub struct Counting;

/// The difference between two counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change {
    pub allocations: usize,
    pub reallocations: usize,
    pub bytes_allocated: usize,
    /// The bytes that are allocated and not freed; negative if more was freed.
    pub bytes_held: isize,
    /// The same as glibc's allocator rounds it up: each block has 8 bytes before it, is a multiple
    /// of 16 bytes, and has at least 32.
    pub bytes_of_blocks: isize,
}

thread_local! {
    static COUNT: Cell<Change> = const {
        Cell::new(Change {
            allocations: 0,
            reallocations: 0,
            bytes_allocated: 0,
            bytes_held: 0,
            bytes_of_blocks: 0,
        })
    };
}

const fn block(size: usize) -> isize {
    match size {
        0 => 0,
        1..=24 => 32,
        _ => ((size + 8).div_ceil(16) * 16) as isize,
    }
}

/// Counts a change from `before` bytes to `after` bytes.
fn count(before: usize, after: usize) {
    let mut count = COUNT.get();
    count.allocations += usize::from(before == 0);
    count.reallocations += usize::from(before > 0 && after > 0);
    count.bytes_allocated += after.saturating_sub(before);
    count.bytes_held += after as isize - before as isize;
    count.bytes_of_blocks += block(after) - block(before);
    COUNT.set(count);
}

// SAFETY: each method passes its arguments to `System`, which fulfils the contract. The count is a
// thread-local `Cell` without a destructor: to update it neither allocates nor panics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(0, layout.size());
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(0, layout.size());
        // SAFETY: the caller's contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(layout.size(), new_size);
        // SAFETY: the caller's contract.
        unsafe { System.realloc(pointer, layout, new_size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(layout.size(), 0);
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// A part of a test, from the creation of the region on.
#[derive(Debug)]
pub struct Region(Change);

impl Region {
    /// Begins a region.
    ///
    /// # Panics
    ///
    /// When [`Counting`] is not the global allocator.
    #[expect(clippy::new_without_default, reason = "the time of the call matters")]
    pub fn new() -> Self {
        let before = COUNT.get().allocations;
        drop(core::hint::black_box(Box::new(0_u8)));
        assert_ne!(COUNT.get().allocations, before, "`Counting` must be the global allocator");
        Self(COUNT.get())
    }

    /// Returns what this thread has allocated and freed since the region began.
    pub fn change(&self) -> Change {
        let (before, now) = (self.0, COUNT.get());
        Change {
            allocations: now.allocations - before.allocations,
            reallocations: now.reallocations - before.reallocations,
            bytes_allocated: now.bytes_allocated - before.bytes_allocated,
            bytes_held: now.bytes_held - before.bytes_held,
            bytes_of_blocks: now.bytes_of_blocks - before.bytes_of_blocks,
        }
    }
}
