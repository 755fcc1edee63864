//! MQTT-SN: the property of its fuzz target, a gateway with a broker, and a simulation of both.

pub mod simulation;
mod site;

pub use site::{Peer, Site};

use arbitrary::{Arbitrary, Unstructured};
use mqtt_sansio::sn::v1_2::{Encapsulated, Message, decode, encode};

/// Checks the codec: a datagram that decodes encodes to bytes that decode equal and are not longer,
/// an error has a text and a section, and an arbitrary message is refused or decodes equal.
pub fn codec(data: &[u8]) {
    match decode(data) {
        Ok(message) => {
            let mut bytes = Vec::new();
            encode(&message, &mut bytes).expect("a decoded message encodes");
            assert!(bytes.len() <= data.len());
            assert_eq!(decode(&bytes), Ok(message));
        }
        Err(error) => {
            assert!(error.citation().starts_with('§') && !error.to_string().is_empty());
        }
    }
    if let Ok(encapsulated) = Encapsulated::decode(data) {
        let mut bytes = Vec::new();
        encapsulated.encode(&mut bytes).expect("a decoded header encodes");
        assert_eq!(bytes, data);
    }
    let mut u = Unstructured::new(data);
    let Ok(message) = Message::arbitrary(&mut u) else { return };
    let mut bytes = vec![0xAA];
    match encode(&message, &mut bytes) {
        Ok(()) => assert_eq!(decode(&bytes[1..]), Ok(message)),
        Err(_) => assert_eq!(bytes, [0xAA]),
    }
}
