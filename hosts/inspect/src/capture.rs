//! Captures: pcap and pcapng files, and the TCP connections in them.

use crate::conversation::{Conversation, Side, Style, Verdict};
use anyhow::{Result, bail};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use jiff::Timestamp;
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use tracing::debug;

/// The room for a block of a capture.
const CAPACITY: usize = 1024 * 1024;
/// The bytes of a direction that wait for missing ones before those count as lost.
const MOST_WAITING: usize = 4 * 1024 * 1024;

/// Whether a file begins as a capture does.
pub(crate) fn is_capture(start: &[u8]) -> bool {
    let microseconds = 0xA1B2_C3D4_u32;
    let nanoseconds = 0xA1B2_3C4D_u32;
    let section = 0x0A0D_0D0A_u32;
    let known = [microseconds, nanoseconds, section];
    start.first_chunk().is_some_and(|magic| {
        known.contains(&u32::from_be_bytes(*magic)) || known.contains(&u32::from_le_bytes(*magic))
    })
}

/// Explains the MQTT connections of a capture.
pub(crate) fn inspect(
    input: impl Read + Send,
    port: u16,
    style: Style,
    out: &mut dyn Write,
) -> Result<Verdict> {
    let mut reader = match create_reader(CAPACITY, input) {
        Ok(reader) => reader,
        Err(error) => bail!("expected a capture: {error:?}"),
    };
    let mut flows = Flows { port, style, all: BTreeMap::new(), ended: Verdict::Empty };
    // For each interface: the kind of its packets, the offset of its times and their resolution.
    let mut interfaces: Vec<(Linktype, u64, u64)> = Vec::new();
    loop {
        match reader.next() {
            Ok((size, block)) => {
                match block {
                    PcapBlockOwned::LegacyHeader(header) => {
                        let per_second = if header.is_nanosecond_precision() { 1e9 } else { 1e6 };
                        interfaces = vec![(header.network, 0, per_second as u64)];
                    }
                    PcapBlockOwned::Legacy(packet) => {
                        if let Some((kind, _, per_second)) = interfaces.first().copied() {
                            let fraction = u64::from(packet.ts_usec) * (1_000_000_000 / per_second);
                            let time = time(packet.ts_sec.into(), fraction);
                            flows.packet(kind, packet.data, time, out)?;
                        }
                    }
                    PcapBlockOwned::NG(Block::SectionHeader(_)) => interfaces.clear(),
                    PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                        let offset = u64::try_from(interface.ts_offset()).unwrap_or(0);
                        let resolution = interface.ts_resolution().unwrap_or(1_000_000).max(1);
                        interfaces.push((interface.linktype, offset, resolution));
                    }
                    PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                        let interface = interfaces.get(packet.if_id as usize).copied();
                        if let Some((kind, offset, resolution)) = interface {
                            let seconds = packet.decode_ts_f64(offset, resolution);
                            let time = time(seconds as u64, (seconds.fract() * 1e9) as u64);
                            flows.packet(kind, packet.data, time, out)?;
                        }
                    }
                    PcapBlockOwned::NG(_) => {}
                }
                reader.consume(size);
            }
            Err(PcapError::Eof) => break,
            Err(PcapError::Incomplete(_)) => match reader.refill() {
                Ok(()) => {}
                Err(error) => bail!("the capture ends inside a block: {error:?}"),
            },
            Err(error) => bail!("the capture is damaged: {error:?}"),
        }
    }
    let mut verdict = flows.ended;
    for flow in flows.all.values_mut().flatten() {
        verdict = verdict.max(flow.conversation.end(out)?);
    }
    Ok(verdict)
}

fn time(seconds: u64, nanoseconds: u64) -> Option<Timestamp> {
    Timestamp::new(i64::try_from(seconds).ok()?, i32::try_from(nanoseconds).ok()?).ok()
}

/// The connections of a capture.
struct Flows {
    port: u16,
    style: Style,
    /// The connections by the lower and the higher address. With `None` it is not MQTT.
    all: BTreeMap<(SocketAddr, SocketAddr), Option<Flow>>,
    /// The verdict on the connections that have ended, because another one uses their ports.
    ended: Verdict,
}

struct Flow {
    client: SocketAddr,
    conversation: Conversation,
    /// The directions: from the client, and from the server.
    streams: [Stream; 2],
}

/// One direction of a TCP connection.
#[derive(Default)]
struct Stream {
    /// The sequence number of the next byte.
    next: Option<u32>,
    /// Segments that arrived before earlier ones, by their sequence numbers.
    waiting: BTreeMap<u32, Vec<u8>>,
}

impl Flows {
    fn packet(
        &mut self,
        kind: Linktype,
        data: &[u8],
        time: Option<Timestamp>,
        out: &mut dyn Write,
    ) -> Result<()> {
        let sliced = match kind {
            Linktype::ETHERNET => SlicedPacket::from_ethernet(data).ok(),
            Linktype::LINUX_SLL => SlicedPacket::from_linux_sll(data).ok(),
            Linktype::RAW | Linktype::IPV4 | Linktype::IPV6 => SlicedPacket::from_ip(data).ok(),
            // A family of 4 bytes, and a header of 20 bytes.
            Linktype::NULL | Linktype::LOOP => {
                data.get(4..).and_then(|data| SlicedPacket::from_ip(data).ok())
            }
            Linktype::LINUX_SLL2 => {
                data.get(20..).and_then(|data| SlicedPacket::from_ip(data).ok())
            }
            other => bail!("captures of the link type {other:?} are not supported"),
        };
        let Some(SlicedPacket { net, transport: Some(TransportSlice::Tcp(tcp)), .. }) = sliced
        else {
            return Ok(());
        };
        let (source, destination): (IpAddr, IpAddr) = match net {
            Some(NetSlice::Ipv4(ip)) => {
                (ip.header().source_addr().into(), ip.header().destination_addr().into())
            }
            Some(NetSlice::Ipv6(ip)) => {
                (ip.header().source_addr().into(), ip.header().destination_addr().into())
            }
            _ => return Ok(()),
        };
        let source = SocketAddr::new(source, tcp.source_port());
        let destination = SocketAddr::new(destination, tcp.destination_port());
        let (payload, number) = (tcp.payload(), tcp.sequence_number());
        let key = (source.min(destination), source.max(destination));
        if tcp.syn() && !tcp.ack() {
            // Another connection can have used the ports before.
            if let Some(Some(mut old)) = self.all.remove(&key) {
                self.ended = self.ended.max(old.conversation.end(out)?);
            }
        }
        let is_known = self.all.contains_key(&key);
        if !is_known && payload.is_empty() && !tcp.syn() {
            return Ok(());
        }
        let (port, style) = (self.port, self.style);
        let flow = self.all.entry(key).or_insert_with(|| {
            let is_from_server = match (source.port() == port, destination.port() == port) {
                (true, false) => true,
                (false, true) => false,
                _ => tcp.syn() && tcp.ack(),
            };
            let (client, server) =
                if is_from_server { (destination, source) } else { (source, destination) };
            let conversation = Conversation::new(Some(format!("{client} {server}")), style);
            Some(Flow { client, conversation, streams: Default::default() })
        });
        let is_mqtt_port = source.port() == port || destination.port() == port;
        let has_begun = flow.as_ref().is_some_and(|flow| flow.conversation.has_packets());
        if !is_mqtt_port && !has_begun && !payload.is_empty() && !is_connect(payload) {
            debug!("{source} to {destination} is not MQTT");
            *flow = None;
        }
        let Some(flow) = flow else { return Ok(()) };
        let side = if source == flow.client { Side::Client } else { Side::Server };
        flow.segment(side, number, tcp.syn(), payload, time, out)
    }
}

/// Whether the bytes begin as a CONNECT does.
fn is_connect(bytes: &[u8]) -> bool {
    bytes.first() == Some(&0x10) && bytes.windows(2).take(8).any(|name| name == b"MQ")
}

impl Flow {
    fn segment(
        &mut self,
        side: Side,
        number: u32,
        is_syn: bool,
        payload: &[u8],
        time: Option<Timestamp>,
        out: &mut dyn Write,
    ) -> Result<()> {
        let [client, server] = &mut self.streams;
        let stream = if side == Side::Client { client } else { server };
        if is_syn {
            *stream = Stream { next: Some(number.wrapping_add(1)), ..Stream::default() };
            return Ok(());
        }
        if payload.is_empty() {
            return Ok(());
        }
        let next = *stream.next.get_or_insert(number);
        // Distances are compared, because the numbers wrap.
        let ahead = number.wrapping_sub(next);
        if ahead != 0 && ahead < u32::MAX / 2 {
            stream.waiting.insert(number, payload.to_vec());
            let waiting: usize = stream.waiting.values().map(Vec::len).sum();
            if waiting > MOST_WAITING {
                stream.waiting.clear();
                return self.conversation.gap(side, time, out);
            }
            return Ok(());
        }
        // A segment that was sent again can have more bytes than before.
        let old = usize::try_from(next.wrapping_sub(number)).unwrap_or(usize::MAX);
        let Some(fresh) = payload.get(old..).filter(|fresh| !fresh.is_empty()) else {
            return Ok(());
        };
        let after = next.wrapping_add(u32::try_from(fresh.len()).unwrap_or(0));
        stream.next = Some(after);
        let waiting = stream.waiting.remove(&after);
        self.conversation.feed(side, fresh, time, out)?;
        match waiting {
            Some(segment) => self.segment(side, after, false, &segment, time, out),
            None => Ok(()),
        }
    }
}
