//! The codec of MQTT-SN alone: reads messages of any type, and writes them again.

use crate::BUFFER;
use mqtt_sansio::codec::Fixed;
use mqtt_sansio::sn::v1_2::{decode, encode};

/// Reads the message that the buffer starts with, and writes it to the end of the buffer. Returns
/// the number of bytes written.
#[unsafe(no_mangle)]
pub extern "C" fn call(_: u32, length: usize, _: u32) -> usize {
    BUFFER.with(|buffer| {
        let (input, out) = buffer.split_at_mut(2048);
        let mut out = Fixed::new(out);
        let Ok(message) = decode(&input[..length.min(2048)]) else { return 0 };
        match encode(&message, &mut out) {
            Ok(()) => out.written().len(),
            Err(_) => 0,
        }
    })
}
