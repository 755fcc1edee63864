//! Checks a codec in a case, and times it only after that.

use crate::cases::{Case, Sample, Task, Values};
use crate::codec::{Buffer, Codec, Output, Refused, Seen};
use mqtt_sansio::codec::{self, Packet, Role};
use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::ops::AddAssign;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Counts allocations. Only one thread allocates, so a load and a store suffice; they cost less
/// than the allocation.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);
static HELD: AtomicU64 = AtomicU64::new(0);

/// Counts what is held from now on, in the blocks of glibc: with a header of 8 bytes, and in steps
/// of 16.
fn hold(before: usize, after: usize) {
    let block = |size: usize| if size == 0 { 0 } else { ((size as u64 + 23) & !15).max(32) };
    let held = HELD.load(Ordering::Relaxed).wrapping_add(block(after)).wrapping_sub(block(before));
    HELD.store(held, Ordering::Relaxed);
}

/// Returns the bytes that are allocated and not freed, with what the allocator adds.
pub fn bytes_held() -> u64 {
    HELD.load(Ordering::Relaxed)
}

fn count(size: usize) {
    ALLOCATIONS.store(ALLOCATIONS.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    BYTES.store(BYTES.load(Ordering::Relaxed) + size as u64, Ordering::Relaxed);
}

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        hold(0, layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        hold(0, layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        hold(layout.size(), size);
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        hold(layout.size(), 0);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The cost of some packets or messages.
#[derive(Clone, Copy, Default)]
pub struct Cost {
    pub packets: u64,
    pub time: Duration,
    pub allocations: u64,
    pub bytes: u64,
}

impl Cost {
    pub fn nanoseconds(self) -> f64 {
        self.time.as_nanos() as f64 / self.packets as f64
    }

    pub fn allocated(self) -> f64 {
        self.allocations as f64 / self.packets as f64
    }

    pub fn bytes(self) -> f64 {
        self.bytes as f64 / self.packets as f64
    }

    pub fn thousands_a_second(self) -> f64 {
        1e6 / self.nanoseconds()
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.time += other.time;
        self.allocations += other.allocations;
        self.bytes += other.bytes;
    }
}

/// Measures the cost of reading the clock twice.
static CLOCK: LazyLock<Duration> =
    LazyLock::new(|| (0..10_000).map(|_| Instant::now().elapsed()).min().unwrap_or_default());

/// Times a function that returns the number of its packets.
pub fn timed(run: impl FnOnce() -> u64) -> Cost {
    let clock = *CLOCK;
    let (allocations, bytes) = (ALLOCATIONS.load(Ordering::Relaxed), BYTES.load(Ordering::Relaxed));
    let start = Instant::now();
    let packets = run();
    let time = start.elapsed().saturating_sub(clock);
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - allocations;
    Cost { packets, time, allocations, bytes: BYTES.load(Ordering::Relaxed) - bytes }
}

/// Processes at least this many packets, and returns their cost.
pub type Bench = Box<dyn FnMut(u64) -> Cost>;

/// The verdict of a decoder on one complete packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Accepted,
    Refused,
    /// The decoder reports missing bytes, although the packet is complete.
    Waits,
    Panicked,
}

/// The reason why most codecs are not timed in the cases of [`Task::Make`].
pub const NOT_MADE: &str = "is not asked to make packets";

/// A [`Codec`] of any type.
pub trait Measured {
    /// Returns the bench of the codec in a case, or the reason why it must not be timed.
    fn bench(&self, case: &'static Case) -> Result<Bench, String>;

    fn verdict(&self, bytes: &[u8], sender: Option<Role>) -> Verdict;
}

impl<C: Codec + 'static, F: Fn() -> C> Measured for F {
    fn bench(&self, case: &'static Case) -> Result<Bench, String> {
        let sample = &case.sample;
        if let Some((name, reason)) = C::LEFT_OUT
            && sample.name.starts_with(name)
        {
            return Err(reason.into());
        }
        let check = || match case.task {
            Task::Decode(_) => check_decode(self, sample),
            Task::Encode => check_encode(self(), sample, false),
            Task::HandOn => check_encode(self(), sample, true),
            Task::Make => check_make(self(), sample),
        };
        catch_unwind(AssertUnwindSafe(check)).unwrap_or_else(|_| Err("panics".into()))?;
        let mut codec = self();
        Ok(match case.task {
            Task::Decode(_) if sample.packets.len() > 1 => Box::new(bench_stream(codec, sample)),
            Task::Decode(_) => Box::new(bench_decode(codec, sample)),
            Task::Encode => Box::new(bench_encode(outgoing(&mut codec, sample), codec, C::encode)),
            Task::HandOn => Box::new(bench_encode(outgoing(&mut codec, sample), codec, C::hand_on)),
            Task::Make => {
                let values = values(sample)?;
                Box::new(bench_encode(move || values, codec, C::make))
            }
        })
    }

    fn verdict(&self, bytes: &[u8], sender: Option<Role>) -> Verdict {
        let verdict = catch_unwind(AssertUnwindSafe(|| {
            let mut codec = self();
            if let Some(role) = sender {
                codec.sent_by(role);
            }
            match codec.decode(&mut C::Buffer::of(bytes), |_| ()) {
                Ok(Some(())) => Verdict::Accepted,
                Ok(None) => Verdict::Waits,
                Err(Refused) => Verdict::Refused,
            }
        }));
        verdict.unwrap_or(Verdict::Panicked)
    }
}

/// The chunks in which a stream arrives.
const CHUNK: usize = 4096;

/// Checks that the codec decodes the packets, in chunks, to the expected values.
fn check_decode<C: Codec>(make: impl Fn() -> C, sample: &Sample) -> Result<(), String> {
    // Another instance encodes: the one that decodes can have read half a packet.
    let (mut decoder, mut encoder) = (make(), make());
    let mut buffer = C::Buffer::of(&[]);
    let mut packets = sample.packets.iter();
    for chunk in sample.bytes.chunks(CHUNK) {
        buffer.receive(chunk);
        loop {
            let checked = decoder.decode(&mut buffer, |packet| {
                let expected = packets.next().ok_or("finds more packets than there are")?;
                check_packet(&mut encoder, packet, sample, expected)
                    .map_err(|wrong| format!("{}: {wrong}", name(expected)))
            });
            match checked {
                Ok(Some(checked)) => checked?,
                Ok(None) => break,
                Err(Refused) => return Err(format!("refuses {}", next(&mut packets))),
            }
        }
    }
    if packets.len() > 0 {
        Err(format!("waits for more of {}", next(&mut packets)))
    } else {
        Ok(())
    }
}

fn next<'p>(packets: &mut impl Iterator<Item = &'p Packet<'static>>) -> String {
    packets.next().map_or_else(|| "nothing".into(), name)
}

fn name(packet: &Packet<'_>) -> String {
    format!("{:?}", packet.packet_type()).to_uppercase()
}

/// Compares the fields that the codec shows, and the bytes when the codec encodes the packet again.
fn check_packet<C: Codec>(
    encoder: &mut C,
    packet: &C::Packet<'_>,
    sample: &Sample,
    expected: &Packet<'_>,
) -> Result<(), String> {
    let (seen, right) = (C::seen(packet), Seen::of(expected));
    if seen != right {
        return Err(format!("decodes to {seen:?}"));
    }
    let mut out = C::Output::warm();
    let encoded = encoder.encode(C::outgoing(packet), &mut out).or_else(|_| {
        out.clear();
        encoder.hand_on(C::outgoing(packet), &mut out).map(drop)
    });
    match encoded {
        Ok(()) => becomes(&out.contents(), sample, expected),
        Err(Refused) if seen.is_some() => Ok(()),
        Err(Refused) => Err("does not encode it again".into()),
    }
}

/// Checks with the decoder of this crate that encoded bytes are the packet.
fn becomes(bytes: &[u8], sample: &Sample, expected: &Packet<'_>) -> Result<(), String> {
    let wrong = |what: &dyn std::fmt::Debug| Err(format!("encodes to {what:?}"));
    match codec::frame(bytes, u32::MAX) {
        Ok(Some(frame)) if frame.as_bytes().len() == bytes.len() => {
            match codec::decode(frame, sample.version) {
                Ok(packet) if packet == *expected => Ok(()),
                other => wrong(&other),
            }
        }
        other => wrong(&other),
    }
}

/// Returns the packets of a sender: made from the values if the codec needs that, and otherwise
/// decoded from the bytes.
fn held<C: Codec>(codec: &mut C, sample: &'static Sample) -> Result<C::Packet<'static>, String> {
    if let Some(packet) = C::from_values(&sample.packets[0]) {
        return Ok(packet);
    }
    let buffer = Box::leak(Box::new(C::Buffer::of(&sample.bytes)));
    codec.decode(buffer, Clone::clone).ok().flatten().ok_or_else(|| "does not decode it".into())
}

fn check_encode<C: Codec>(
    mut codec: C,
    sample: &'static Sample,
    hand_on: bool,
) -> Result<(), String> {
    let packet = held(&mut codec, sample)?;
    let mut out = C::Output::warm();
    let encode = if hand_on { C::hand_on } else { C::encode };
    encode(&mut codec, C::outgoing(&packet), &mut out).map_err(|_| "does not encode it")?;
    let mut bytes = out.contents();
    if let (true, Packet::Publish(publish)) = (hand_on && C::PAYLOAD_APART, &sample.packets[0]) {
        bytes.extend_from_slice(publish.payload);
    }
    becomes(&bytes, sample, &sample.packets[0])
}

fn values(sample: &Sample) -> Result<Values, String> {
    sample.values.ok_or_else(|| "has no values".into())
}

fn check_make<C: Codec>(mut codec: C, sample: &Sample) -> Result<(), String> {
    let mut out = C::Output::warm();
    codec.make(values(sample)?, &mut out).map_err(|_| NOT_MADE)?;
    becomes(&out.contents(), sample, &sample.packets[0])
}

/// Decodes the whole buffer. Not inlined, so that `callgrind --toggle-collect` can find it.
#[inline(never)]
fn decode_all<C: Codec>(codec: &mut C, buffer: &mut C::Buffer) -> u64 {
    let mut packets = 0;
    while let Ok(Some(_)) = codec.decode(buffer, |packet| _ = black_box(packet)) {
        packets += 1;
    }
    packets
}

/// Encodes all packets, one after another into the same output.
#[inline(never)]
fn encode_all<C: Codec, P>(
    codec: &mut C,
    packets: Vec<P>,
    out: &mut C::Output,
    encode: &impl Fn(&mut C, P, &mut C::Output) -> Result<(), Refused>,
) -> u64 {
    let mut encoded = 0;
    for packet in packets {
        out.clear();
        encoded += u64::from(encode(codec, packet, out).is_ok());
        black_box(&*out);
    }
    encoded
}

/// The bytes in the buffer at once: many packets between two readings of the clock, but less than
/// the second-level cache.
const FILL: usize = 128 * 1024;

/// Times decoding alone, without filling and freeing the buffer.
fn bench_decode<C: Codec>(mut codec: C, sample: &'static Sample) -> impl FnMut(u64) -> Cost {
    let copies = (FILL / sample.bytes.len()).clamp(1, 4096);
    let bytes = sample.bytes.repeat(copies);
    move |at_least| {
        let mut cost = Cost::default();
        while cost.packets < at_least {
            let mut buffer = C::Buffer::of(&bytes);
            cost += timed(|| decode_all(&mut codec, black_box(&mut buffer)));
        }
        assert_eq!(cost.packets % copies as u64, 0, "it was right when it was checked");
        cost
    }
}

/// Times decoding and filling the buffer in chunks: the design of a codec decides how many bytes
/// must be moved.
fn bench_stream<C: Codec>(mut codec: C, sample: &'static Sample) -> impl FnMut(u64) -> Cost {
    move |at_least| {
        let mut cost = Cost::default();
        while cost.packets < at_least {
            let mut buffer = C::Buffer::of(&[]);
            cost += timed(|| {
                let receive = |chunk| {
                    buffer.receive(chunk);
                    decode_all(&mut codec, &mut buffer)
                };
                sample.bytes.chunks(CHUNK).map(receive).sum()
            });
        }
        assert_eq!(
            cost.packets % sample.packets.len() as u64,
            0,
            "it was right when it was checked"
        );
        cost
    }
}

/// Returns the argument of `encode`.
fn outgoing<C: Codec + 'static>(
    codec: &mut C,
    sample: &'static Sample,
) -> impl Fn() -> C::Outgoing<'static> + use<C> {
    let packet: &'static C::Packet<'static> =
        Box::leak(Box::new(held(codec, sample).expect("checked")));
    move || C::outgoing(packet)
}

/// Times encoding, without `packet`, which clones for codecs that consume the packet.
fn bench_encode<C: Codec, P>(
    packet: impl Fn() -> P,
    mut codec: C,
    encode: impl Fn(&mut C, P, &mut C::Output) -> Result<(), Refused>,
) -> impl FnMut(u64) -> Cost {
    const AT_ONCE: usize = 256;
    let mut out = C::Output::warm();
    move |at_least| {
        let mut cost = Cost::default();
        while cost.packets < at_least {
            let packets = (0..AT_ONCE).map(|_| packet()).collect();
            cost += timed(|| encode_all(&mut codec, black_box(packets), &mut out, &encode));
        }
        assert_eq!(cost.packets % AT_ONCE as u64, 0, "it was right when it was checked");
        cost
    }
}
