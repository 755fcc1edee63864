//! Allocations: none when packets are read, whatever they announce, and at most one, of the exact
//! size, when a packet is written.

use mqtt_sansio::Instant;
use mqtt_sansio::codec::{self, ConnackProperties, Connect, Publish, Rules, Version};
use mqtt_sansio::server::{Action, Server, ServerConfig};
use mqtt_sansio::session::Message;
use testkit::heap::Region;

#[test]
fn reading_allocates_nothing_and_writing_at_most_once() {
    let all = testkit::vectors::all(200_000);
    let mut decoded = 0;
    let mut out = Vec::with_capacity(1 << 18);
    let region = Region::new();
    for (first, bytes) in &all {
        let version = [Version::V3_1, Version::V3_1_1, Version::V5_0][usize::from(first % 3)];
        let Ok(Some(frame)) = codec::frame(bytes, u32::MAX) else { continue };
        if let Ok(packet) = codec::decode(frame, version) {
            decoded += 1;
            // Writing to an output with room allocates nothing either.
            out.clear();
            let rules = Rules::new(version).forwarding();
            codec::encode(&packet, rules, &mut out).unwrap();
        }
    }
    let change = region.change();
    assert_eq!((change.allocations, change.reallocations), (0, 0));
    assert!(decoded > 1_000, "{decoded}");

    for payload in [0, 10, 50, 57, 58, 59, 200, 100_000] {
        let payload = vec![b'x'; payload];
        let publish = Publish::new("topic", &payload);
        let size = payload.len()
            + 9
            + usize::from(payload.len() > 120)
            + usize::from(payload.len() > 16_000);
        let mut full = vec![0; 200];
        let region = Region::new();
        let mut out = Vec::new();
        codec::encode(&publish.into(), Version::V3_1_1, &mut out).unwrap();
        let change = region.change();
        assert_eq!((change.allocations, change.reallocations), (1, 0));
        assert_eq!(out.len(), size);
        assert_eq!(out.capacity(), size.max(8));

        full.truncate(200 - size.min(200));
        let region = Region::new();
        codec::encode(&publish.into(), Version::V3_1_1, &mut full).unwrap();
        let change = region.change();
        assert_eq!(
            (change.allocations, change.reallocations),
            (0, usize::from(size > 200)),
            "it fits"
        );

        let region = Region::new();
        let message = Message::new(&publish).unwrap();
        let change = region.change();
        // With the length of the topic name, that of the properties, and two reference counts, in
        // whole words.
        let size = (message.size() + 3).next_multiple_of(8) + 16;
        assert_eq!((change.allocations, change.bytes_allocated), (1, size));
    }

    // Five bytes that announce 256 MiB, to a server that would accept them.
    let mut server =
        Server::new(ServerConfig::new().maximum_packet_size(u32::MAX), Instant::default());
    let mut out = Vec::with_capacity(1_024);
    let mut connect = Vec::new();
    codec::encode(&Connect::new(Version::V5_0, "c").into(), Version::V5_0, &mut connect).unwrap();
    let action = server.handle_input(&mut &connect[..], Instant::default(), &mut out);
    assert!(matches!(action, Some(Action::Connect(_))));
    server.accept(None, ConnackProperties::default(), Instant::default(), &mut out).unwrap();
    let region = Region::new();
    let mut announced = &[0x30, 0xFF, 0xFF, 0xFF, 0x7F][..];
    assert!(server.handle_input(&mut announced, Instant::default(), &mut out).is_none());
    assert_eq!(announced.len(), 5, "the bytes stay with the host");
    let change = region.change();
    assert_eq!((change.allocations, change.reallocations), (0, 0));
}
