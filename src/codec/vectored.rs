//! An output for vectored writes: large payloads stay where they are.

use super::error::EncodeError;
use super::output::Output;
use crate::sync::Arc;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bytes::Buf;
use core::fmt;

/// From this length on, a payload is handed on by reference. To count a reference, and to write one
/// slice more, costs about as much as copying that many bytes.
const SHARED_FROM: usize = 2_048;

/// The number of bytes sent from which on they are removed from memory.
const COMPACTED_FROM: usize = 4_096;

/// An [`Output`] that is a list of slices, for hosts with vectored writes.
///
/// The payloads of stored [messages](crate::session::Message) of 2 KiB and more are not copied: the
/// output refers to them, so all receivers of a message share it. All else is in one buffer. A host
/// writes from the front with [`Buf`], as `write_buf` of tokio does, or
/// [`slices`](Self::slices), and removes with [`advance`](Buf::advance) what was written.
///
/// ```
/// use bytes::Buf;
/// use mqtt_sansio::codec::{self, Output, Packet, Vectored, Version};
///
/// let mut out = Vectored::new();
/// codec::encode(&Packet::Pingreq, Version::V5_0, &mut out)?;
/// assert_eq!(out.slices().collect::<Vec<_>>(), [[0xC0, 0x00]]);
/// out.advance(1);
/// assert_eq!((out.len(), out.chunk()), (1, &[0x00][..]));
/// # Ok::<_, codec::EncodeError>(())
/// ```
#[derive(Clone, Default)]
pub struct Vectored {
    /// All bytes except the shared ones.
    copied: Vec<u8>,
    /// The number of bytes of `copied` that are removed.
    removed: usize,
    /// Each shared slice, and the number of bytes of `copied` before it, in order.
    shared: VecDeque<(usize, Shared)>,
    /// The length of all shared slices.
    shared_length: usize,
}

/// The rest of a message from a position on.
#[derive(Clone)]
struct Shared {
    bytes: Arc<[u8]>,
    from: usize,
}

impl Shared {
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.from..).unwrap_or_default()
    }
}

impl Vectored {
    /// Creates an empty output. It allocates with the first packet.
    #[must_use]
    pub const fn new() -> Self {
        Self { copied: Vec::new(), removed: 0, shared: VecDeque::new(), shared_length: 0 }
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes everything, and keeps the memory for the next packets.
    pub fn clear(&mut self) {
        self.copied.clear();
        self.shared.clear();
        (self.removed, self.shared_length) = (0, 0);
    }

    /// Returns the slices to write, in order. None is empty.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self.shared.iter().map(|(end, shared)| (*end, shared.rest()));
        let mut start = self.removed;
        ends.chain([(self.copied.len(), &[][..])])
            .flat_map(move |(end, shared)| {
                let copied = self.copied.get(start..end).unwrap_or_default();
                start = end;
                [copied, shared]
            })
            .filter(|slice| !slice.is_empty())
    }

    /// Removes the bytes that were sent before more are appended, so that an output which is never
    /// empty does not grow with them. Moves at most as many bytes as were sent.
    #[inline]
    fn compact(&mut self) {
        if self.removed >= COMPACTED_FROM && self.removed >= self.copied.len() / 2 {
            let removed = core::mem::take(&mut self.removed);
            self.copied.drain(..removed);
            self.shared.iter_mut().for_each(|(position, _)| *position -= removed);
        }
    }
}

impl Output for Vectored {
    fn len(&self) -> usize {
        self.copied.len() - self.removed + self.shared_length
    }

    fn room(&self) -> usize {
        usize::MAX
    }

    #[inline]
    fn append_slice(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.compact();
        self.copied.append_slice(bytes)
    }

    #[inline]
    fn append_shared(&mut self, bytes: &Arc<[u8]>, from: usize) -> Result<(), EncodeError> {
        let length = bytes.len().saturating_sub(from);
        if length < SHARED_FROM {
            return self.append_slice(bytes.get(from..).unwrap_or_default());
        }
        self.shared.push_back((self.copied.len(), Shared { bytes: bytes.clone(), from }));
        self.shared_length += length;
        Ok(())
    }

    #[inline]
    fn make_room(&mut self, size: usize, more: usize) -> Result<(), EncodeError> {
        self.compact();
        // The bytes that follow may be shared, so no room is reserved for them.
        self.copied.make_room(size, if more < SHARED_FROM { more } else { 0 })
    }

    #[inline]
    fn append_room(&mut self, size: usize, more: usize) -> Result<&mut [u8], EncodeError> {
        self.compact();
        self.copied.append_room(size, if more < SHARED_FROM { more } else { 0 })
    }
}

/// Reads from the front. To remove more than there is removes everything.
impl Buf for Vectored {
    fn remaining(&self) -> usize {
        self.len()
    }

    fn chunk(&self) -> &[u8] {
        self.slices().next().unwrap_or_default()
    }

    #[cfg(feature = "std")]
    fn chunks_vectored<'a>(&'a self, places: &mut [std::io::IoSlice<'a>]) -> usize {
        let both = places.iter_mut().zip(self.slices());
        both.map(|(place, slice)| *place = std::io::IoSlice::new(slice)).count()
    }

    fn advance(&mut self, mut count: usize) {
        loop {
            let end = self.shared.front().map_or(self.copied.len(), |(end, _)| *end);
            let copied = count.min(end - self.removed);
            self.removed += copied;
            count -= copied;
            let Some((_, shared)) = self.shared.front_mut() else { break };
            let length = count.min(shared.rest().len());
            shared.from += length;
            self.shared_length -= length;
            count -= length;
            if !shared.rest().is_empty() {
                break;
            }
            self.shared.pop_front();
        }
        if self.is_empty() {
            self.clear();
        }
    }
}

/// The sizes, without the bytes, which can contain secrets.
impl fmt::Debug for Vectored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vectored")
            .field("length", &self.len())
            .field("shared", &self.shared.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Message, PacketIdentifier, Publish, QoS, Version};
    use alloc::vec;

    #[test]
    fn slices_are_what_a_vec_would_hold() {
        // Lengths below, at and above the threshold, in an order that has each after each.
        let lengths = [1, SHARED_FROM, 3, SHARED_FROM - 1, 2, SHARED_FROM + 1, SHARED_FROM, 5_000];
        for step in [1, 7, SHARED_FROM, 3_001, usize::MAX] {
            let (mut out, mut expected) = (Vectored::new(), vec![]);
            for (byte, length) in (0..).zip(lengths.repeat(5)) {
                let bytes = Arc::from(vec![byte; length + 1]);
                out.append_shared(&bytes, 1).unwrap();
                out.append_room(2, length).unwrap().copy_from_slice(&[byte, 0]);
                out.append_slice(&[byte; 40]).unwrap();
                expected.extend_from_slice(&bytes[1..]);
                expected.extend_from_slice(&[byte, 0]);
                expected.extend_from_slice(&[byte; 40]);
                let slices: Vec<&[u8]> = out.slices().collect();
                assert!(slices.iter().all(|slice| !slice.is_empty()));
                assert_eq!(slices.concat(), expected);
                let count = step.min(expected.len());
                assert_eq!(out.chunk(), slices[0]);
                out.advance(step);
                expected.drain(..count);
                assert_eq!(out.len(), expected.len());
            }
            assert!(out.copied.len() < 3 * COMPACTED_FROM, "what was sent is removed");
            out.advance(usize::MAX);
            assert!(out.is_empty() && out.slices().next().is_none());
        }
    }

    #[test]
    fn large_payload_is_shared_with_its_message() {
        let payload = vec![b'x'; 3 * SHARED_FROM];
        for (version, qos) in [
            (Version::V3_1_1, QoS::AtMostOnce),
            (Version::V3_1_1, QoS::AtLeastOnce),
            (Version::V5_0, QoS::AtMostOnce),
            (Version::V5_0, QoS::AtLeastOnce),
        ] {
            let identifier = (qos > QoS::AtMostOnce).then_some(PacketIdentifier::FIRST);
            let publish = Publish { qos, ..Publish::new("a/b", &payload) };
            let message = Message::new(&publish).unwrap();
            let (mut out, mut whole) = (Vectored::new(), vec![]);
            let size = message.measure(version);
            message.write(size, version, false, identifier, &mut out).unwrap();
            message.write(size, version, false, identifier, &mut whole).unwrap();
            let shared = out.slices().last().unwrap();
            assert!(message.payload().as_ptr_range().end == shared.as_ptr_range().end);
            assert_eq!(out.slices().collect::<Vec<_>>().concat(), whole);
            let mut expected = vec![];
            let publish = Publish { packet_identifier: identifier, ..publish };
            crate::codec::encode(&publish.into(), version, &mut expected).unwrap();
            assert_eq!(whole, expected);
            assert_eq!(size.packet_size() as usize, whole.len());
        }
    }

    #[test]
    fn slices_stay_in_order_when_sent_bytes_are_removed() {
        let mut out = Vectored::new();
        out.append_slice(&[1; COMPACTED_FROM]).unwrap();
        out.advance(COMPACTED_FROM - 1);
        out.append_shared(&Arc::from(vec![2; SHARED_FROM]), 0).unwrap();
        out.append_slice(&[3; 2]).unwrap();
        out.append_slice(&[3; 2]).unwrap();
        out.advance(1);
        assert_eq!(out.copied.len(), COMPACTED_FROM + 4);
        // The next packet removes what was sent.
        out.append_slice(&[3; 1]).unwrap();
        assert_eq!((out.copied.len(), out.remaining()), (5, SHARED_FROM + 5));
        assert_eq!(out.slices().collect::<Vec<_>>(), [&[2; SHARED_FROM][..], &[3; 5]]);
        assert_eq!(out.room(), usize::MAX);
        out.clear();
        assert!(out.is_empty() && out.slices().next().is_none());
        // As long as more is left than was sent, nothing is moved.
        out.append_slice(&[4; 3 * COMPACTED_FROM]).unwrap();
        out.advance(COMPACTED_FROM);
        out.append_slice(&[4]).unwrap();
        assert_eq!(out.copied.len(), 3 * COMPACTED_FROM + 1);
    }

    #[test]
    fn room_is_reserved_for_the_bytes_that_are_copied() {
        for (more, is_reserved) in [(SHARED_FROM - 1, true), (SHARED_FROM, false)] {
            let (mut made, mut appended) = (Vectored::new(), Vectored::new());
            made.make_room(2, more).unwrap();
            appended.append_room(2, more).unwrap();
            for out in [made, appended] {
                assert_eq!(out.copied.capacity() >= 2 + more, is_reserved);
                assert!(out.copied.capacity() >= 2);
            }
        }
    }

    #[cfg(feature = "std")]
    #[test]
    fn vectored_write_gets_each_slice() {
        let mut out = Vectored::new();
        out.append_slice(b"ab").unwrap();
        out.append_shared(&Arc::from(vec![1; SHARED_FROM]), 0).unwrap();
        out.append_slice(b"c").unwrap();
        let mut places = [std::io::IoSlice::new(&[]); 4];
        assert_eq!(out.chunks_vectored(&mut places), 3);
        assert_eq!(places.map(|place| place.len()), [2, SHARED_FROM, 1, 0]);
        assert_eq!(out.chunks_vectored(&mut places[..1]), 1);
    }
}
