//! A library without `std`. As a static library with the feature `exchange` it shows that nothing
//! below it needs `std`: it would not link, because of two panic handlers. With `codec`, `client`
//! or none of them it is the program whose size `.ci/sizes` measures. `client.mjs` drives `client`
//! as WebAssembly.

#![no_std]

extern crate alloc;

#[cfg(feature = "client")]
mod client;
#[cfg(feature = "codec")]
mod codec;
#[cfg(feature = "exchange")]
mod exchange;
#[cfg(feature = "sn-client")]
mod sn_client;
#[cfg(feature = "sn-codec")]
mod sn_codec;

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Gives out memory and takes none back: enough for one exchange.
struct Bump {
    memory: UnsafeCell<[u8; SIZE]>,
    used: AtomicUsize,
}

const SIZE: usize = 1 << 20;

// SAFETY: each byte is given out once.
unsafe impl Sync for Bump {}

// SAFETY: the blocks are apart, aligned, and as long as was asked for.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let base = self.memory.get() as usize;
        let mut start = 0;
        let given = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            start = (base + used).next_multiple_of(layout.align()) - base;
            start.checked_add(layout.size()).filter(|end| *end <= SIZE)
        });
        if given.is_err() {
            core::ptr::null_mut()
        } else {
            self.memory.get().cast::<u8>().wrapping_add(start)
        }
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static ALLOCATOR: Bump = Bump { memory: UnsafeCell::new([0; SIZE]), used: AtomicUsize::new(0) };

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// A value that only one thread uses.
pub struct Single<T>(UnsafeCell<T>);

// SAFETY: the programs of this crate have one thread.
unsafe impl<T> Sync for Single<T> {}

impl<T> Single<T> {
    pub const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// Calls `f` with the value. `f` must not call it again.
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: there is one thread, and each `f` here is a leaf.
        f(unsafe { &mut *self.0.get() })
    }
}

/// The bytes that the caller passes and receives.
pub static BUFFER: Single<[u8; 4096]> = Single::new([0; 4096]);

/// Returns where the bytes are.
#[unsafe(no_mangle)]
pub extern "C" fn buffer() -> *mut u8 {
    BUFFER.with(|buffer| buffer.as_mut_ptr())
}

/// The entry of a program that does nothing, the floor of the others.
#[cfg(not(any(
    feature = "client",
    feature = "sn-codec",
    feature = "sn-client",
    feature = "codec",
    feature = "exchange"
)))]
#[unsafe(no_mangle)]
pub extern "C" fn call(_: u32, length: usize, _: u32) -> usize {
    let memory = alloc::vec::Vec::<u8>::with_capacity(length);
    memory.as_ptr() as usize
}
