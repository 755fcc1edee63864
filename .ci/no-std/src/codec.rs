//! The codec alone: reads packets of any type and version, and writes them again.

use crate::BUFFER;
use mqtt_sansio::codec::{Fixed, Version, decode, encode, frame};

/// Reads the packet that the buffer starts with, and writes it to the end of the buffer. Returns
/// the number of bytes written.
#[unsafe(no_mangle)]
pub extern "C" fn call(version: u32, length: usize, _: u32) -> usize {
    let version = match version {
        3 => Version::V3_1,
        4 => Version::V3_1_1,
        _ => Version::V5_0,
    };
    BUFFER.with(|buffer| {
        let (input, out) = buffer.split_at_mut(2048);
        let mut out = Fixed::new(out);
        let Ok(Some(frame)) = frame(&input[..length.min(2048)], 2048) else { return 0 };
        let Ok(packet) = decode(frame, version) else { return 0 };
        match encode(&packet, version, &mut out) {
            Ok(()) => out.written().len(),
            Err(_) => 0,
        }
    })
}
