//! A static library without `std`, that uses the codec and both machines. It links only if nothing
//! below it needs `std`: there would be two panic handlers.

#![no_std]

extern crate alloc;

use alloc::vec::Vec;
use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicUsize, Ordering};
use mqtt_sansio::Instant;
use mqtt_sansio::client::{self, Client, ClientConfig};
use mqtt_sansio::codec::{ConnackProperties, Connect, Publish, QoS, Version};
use mqtt_sansio::server::{self, Server, ServerConfig};

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

/// Connects a client machine to a server machine and publishes a message with QoS 2. Gives the
/// number of messages that have arrived and ended: 11.
#[unsafe(no_mangle)]
pub extern "C" fn mqtt_exchange() -> u32 {
    let now = Instant::from_millis(0);
    let mut client = Client::new(ClientConfig::new());
    let mut server = Server::new(ServerConfig::new(), now);
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    if client.connect(&Connect::new(Version::V5_0, "c"), now, &mut to_server).is_err() {
        return 0;
    }
    let publish = Publish { qos: QoS::ExactlyOnce, ..Publish::new("t", b"hello") };
    if client.publish(1, &publish, now, &mut to_server).is_err() {
        return 0;
    }
    let mut count = 0;
    for _ in 0..8 {
        let sent = core::mem::take(&mut to_server);
        let mut input = sent.as_slice();
        while let Some(action) = server.handle_input(&mut input, now, &mut to_client) {
            match action {
                server::Action::Connect(_) => {
                    let _ =
                        server.accept(None, ConnackProperties::default(), now, &mut to_client);
                }
                server::Action::Message(message) => count += u32::from(message.payload == b"hello"),
                _ => {}
            }
        }
        let sent = core::mem::take(&mut to_client);
        let mut input = sent.as_slice();
        while let Some(action) = client.handle_input(&mut input, now, &mut to_server) {
            if let client::Action::Published(published) = action {
                count += 10 * u32::from(published.key == 1);
            }
        }
    }
    count
}
