//! FNV-1a, to recognise a datagram that the network or the peer sends again.

use super::v1_2::{Connect, Publish, TopicRef};

#[derive(Clone, Copy)]
pub(super) struct Hash(u64);

impl Hash {
    pub(super) const fn new() -> Self {
        Self(0xCBF2_9CE4_8422_2325)
    }

    pub(super) const fn value(self) -> u64 {
        self.0
    }

    fn bytes(self, bytes: &[u8]) -> Self {
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
        Self(bytes.iter().fold(self.0, step))
    }

    pub(super) fn connect(self, connect: &Connect<'_>) -> Self {
        let Connect { will, clean_session, duration, client_id } = connect;
        self.bytes(&[u8::from(*will), u8::from(*clean_session)])
            .bytes(&duration.to_be_bytes())
            .bytes(client_id.as_bytes())
    }

    /// Adds a PUBLISH without DUP and the message id.
    pub(super) fn publish(self, publish: &Publish<'_>) -> Self {
        let (kind, octets) = match publish.topic {
            TopicRef::Normal(id) => (0, id.get().to_be_bytes()),
            TopicRef::Predefined(id) => (1, id.get().to_be_bytes()),
            TopicRef::Short(octets) => (2, octets),
        };
        let is_two = publish.qos == crate::codec::QoS::ExactlyOnce.into();
        self.bytes(&[kind, u8::from(publish.retain), u8::from(is_two)])
            .bytes(&octets)
            .bytes(publish.data)
    }
}
