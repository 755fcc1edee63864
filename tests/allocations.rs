//! What reading packets allocates: nothing, whatever the packets are and whatever they announce.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::expect_used, dead_code, reason = "tests may panic")]

#[path = "../fuzz/vectors.rs"]
mod vectors;

use mqtt_sansio::Instant;
use mqtt_sansio::codec::{self, ConnackProperties, Connect, Version};
use mqtt_sansio::server::{Action, Server, ServerConfig};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::path::Path;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// One test, since allocations of other threads would be counted.
#[test]
fn reading_allocates_nothing() {
    let all = vectors::all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("spec-vectors"));
    let mut decoded = 0;
    let region = Region::new(ALLOCATOR);
    for (first, bytes) in &all {
        let version = [Version::V3_1, Version::V3_1_1, Version::V5_0][usize::from(first % 3)];
        let Ok(Some(frame)) = codec::frame(bytes, u32::MAX) else { continue };
        decoded += usize::from(codec::decode(frame, version).is_ok());
    }
    let change = region.change();
    assert_eq!((change.allocations, change.reallocations), (0, 0));
    assert!(decoded > 1_000, "{decoded}");

    // Five bytes that announce 256 MiB, to a server that would take them.
    let mut server = Server::new(ServerConfig::new().maximum_packet_size(u32::MAX), Instant::default());
    let mut out = Vec::with_capacity(1_024);
    let mut connect = Vec::new();
    codec::encode(&Connect::new(Version::V5_0, "c").into(), Version::V5_0, &mut connect).unwrap();
    let action = server.handle_input(&mut &connect[..], Instant::default(), &mut out);
    assert!(matches!(action, Some(Action::Connect(_))));
    server.accept(&mut None, ConnackProperties::default(), Instant::default(), &mut out).unwrap();
    let region = Region::new(ALLOCATOR);
    let mut announced = &[0x30, 0xFF, 0xFF, 0xFF, 0x7F][..];
    assert!(server.handle_input(&mut announced, Instant::default(), &mut out).is_none());
    assert_eq!(announced.len(), 5, "they stay with the host");
    let change = region.change();
    assert_eq!((change.allocations, change.reallocations), (0, 0));
}
