//! Publishers and subscribers on one thread, with packets of MQTT 3.1.1 byte by byte.

use anyhow::{Context as _, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::fmt;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::time::{Duration, Instant};

/// The number of publishers and subscribers, and their messages.
#[derive(Clone, Copy)]
pub struct Cell {
    pub publishers: usize,
    pub subscribers: usize,
    pub qos: u8,
    pub size: usize,
    /// Whether the subscribers have gone, and only their sessions are there.
    pub is_away: bool,
}

impl Cell {
    pub fn all() -> Vec<Self> {
        let mut cells = Vec::new();
        for (publishers, subscribers) in [(1, 1), (1, 100), (100, 1)] {
            for qos in 0..=2 {
                for size in [16, 256, 4096] {
                    let is_away = false;
                    cells.push(Self { publishers, subscribers, qos, size, is_away });
                }
            }
        }
        cells
    }

    /// Returns how many messages are on their way at a time.
    const fn window(&self) -> usize {
        match (self.publishers, self.subscribers) {
            (1, 1) => 100,
            (1, _) => 20,
            (publishers, _) => 8 * publishers,
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { publishers, subscribers, qos, size, is_away } = self;
        let away = if *is_away { " away" } else { "" };
        write!(f, "{publishers}→{subscribers}{away} QoS {qos} {size} B")
    }
}

/// How fast messages are published.
#[derive(Clone, Copy)]
pub enum Pace {
    /// While fewer than the window are on their way.
    Window,
    /// At a fixed number in each second.
    Rate(u32),
}

/// The messages that were received, or acknowledged if the subscribers are away.
#[derive(Default)]
pub struct Played {
    /// After the warm-up.
    pub delivered: usize,
    pub delivered_in_all: usize,
    pub latencies: Vec<Duration>,
}

struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    output: Output,
    in_flight: usize,
    next_identifier: u16,
}

impl Client {
    fn connect(port: u16, name: &str, flags: u8) -> anyhow::Result<std::net::TcpStream> {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let body = [b"\0\x04MQTT\x04", &[flags, 0, 0, 0, name.len() as u8][..], name.as_bytes()];
        let body = body.concat();
        stream.write_all(&[&[0x10, body.len() as u8], &body[..]].concat())?;
        let mut connack = [0; 4];
        stream.read_exact(&mut connack).context("CONNACK")?;
        ensure!(connack[3] == 0, "refused: {connack:?}");
        Ok(stream)
    }

    fn new(stream: std::net::TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let stream = TcpStream::from_std(stream);
        let (input, output) = (Vec::new(), Output::default());
        Ok(Self { stream, input, output, in_flight: 0, next_identifier: 1 })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush(&mut self.stream)
    }

    fn publish(&mut self, cell: &Cell, now: Duration) {
        let length = 3 + 2 * usize::from(cell.qos > 0) + cell.size;
        self.output.bytes.push(0x30 | cell.qos << 1);
        match (length % 128, length / 128) {
            (low, 0) => self.output.bytes.push(low as u8),
            (low, high) => self.output.bytes.extend([low as u8 | 0x80, high as u8]),
        }
        self.output.bytes.extend([0, 1, b't']);
        if cell.qos > 0 {
            self.output.bytes.extend(self.next_identifier.to_be_bytes());
            self.next_identifier = self.next_identifier % 60_000 + 1;
        }
        self.output.bytes.extend((now.as_nanos() as u64).to_be_bytes());
        let length = self.output.bytes.len() + cell.size - 8;
        self.output.bytes.resize(length, b'x');
        self.in_flight += 1;
    }

    /// Calls `on_publish` with the payload of each message, and answers it.
    fn receive(
        &mut self,
        buffer: &mut [u8],
        mut on_publish: impl FnMut(&[u8]),
    ) -> anyhow::Result<()> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => anyhow::bail!("the server has closed the connection"),
                Ok(count) => self.input.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        let mut start = 0;
        while let Some((first, body, length)) = frame(&self.input[start..]) {
            start += length;
            match first >> 4 {
                3 => {
                    let qos = first >> 1 & 3;
                    let topic = 2 + usize::from(body[1]);
                    on_publish(&body[topic + 2 * usize::from(qos > 0)..]);
                    if qos > 0 {
                        let kind = if qos == 1 { 0x40 } else { 0x50 };
                        self.output.bytes.extend([kind, 2, body[topic], body[topic + 1]]);
                    }
                }
                4 | 7 => self.in_flight -= 1,
                5 => self.output.bytes.extend([0x62, 2, body[0], body[1]]),
                6 => self.output.bytes.extend([0x70, 2, body[0], body[1]]),
                _ => {}
            }
        }
        self.input.drain(..start);
        self.flush()?;
        Ok(())
    }
}

/// Bytes that are written as far as a socket takes them.
#[derive(Default)]
pub struct Output {
    pub bytes: Vec<u8>,
    /// The bytes that are written already.
    start: usize,
}

impl Output {
    pub fn flush(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        while self.start < self.bytes.len() {
            match stream.write(&self.bytes[self.start..]) {
                Ok(count) => self.start += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        // Not after each write, because moving the rest takes time.
        if self.start == self.bytes.len() || self.start > 1 << 20 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        Ok(())
    }
}

/// Returns the first byte, the body and the length of a packet, if it is complete.
pub fn frame(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (first, low) = (*bytes.first()?, *bytes.get(1)?);
    let (length, header) = match low {
        0..128 => (usize::from(low), 2),
        _ => (usize::from(low & 0x7F) | usize::from(*bytes.get(2)?) << 7, 3),
    };
    Some((first, bytes.get(header..header + length)?, header + length))
}

/// Plays a cell against the server on a port. Calls `sample` after the warm-up and at the end.
pub fn play<S>(
    port: u16,
    cell: &Cell,
    pace: Pace,
    is_stored: bool,
    time: Duration,
    sample: impl Fn() -> anyhow::Result<S>,
) -> anyhow::Result<(Played, S, S)> {
    let mut poll = Poll::new()?;
    let mut clients = Vec::new();
    for number in 0..cell.subscribers {
        let flags = if is_stored { 0 } else { 2 };
        let mut stream = Client::connect(port, &format!("subscriber-{number}"), flags)?;
        stream.write_all(&[0x82, 6, 0, 1, 0, 1, b't', cell.qos])?;
        stream.read_exact(&mut [0; 5]).context("SUBACK")?;
        if !cell.is_away {
            clients.push(Client::new(stream)?);
        }
    }
    let first_publisher = clients.len();
    for number in 0..cell.publishers {
        clients.push(Client::new(Client::connect(port, &format!("publisher-{number}"), 2)?)?);
    }
    for (number, client) in clients.iter_mut().enumerate() {
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut client.stream, Token(number), interest)?;
    }
    let start = Instant::now();
    let warm = time / 3;
    let mut before = None;
    let (mut published, mut turn) = (0, 0);
    let mut played = Played::default();
    let mut events = Events::with_capacity(256);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let now = start.elapsed();
        if now >= warm && before.is_none() {
            before = Some(sample()?);
        }
        // A slow pace has its last messages delivered.
        if now >= warm + time {
            break;
        }
        let wanted = match pace {
            Pace::Window => (played.delivered_in_all / cell.subscribers + cell.window())
                .saturating_sub(published),
            Pace::Rate(rate) => {
                ((now.as_secs_f64() * f64::from(rate)) as usize).saturating_sub(published)
            }
        };
        for _ in 0..wanted {
            let publisher = first_publisher + turn % cell.publishers;
            turn += 1;
            if cell.qos > 0 && clients[publisher].in_flight >= 100 {
                continue;
            }
            clients[publisher].publish(cell, now);
            published += 1;
        }
        for client in &mut clients[first_publisher..] {
            client.flush()?;
        }
        let timeout = match pace {
            Pace::Window => Duration::from_millis(100),
            Pace::Rate(rate) => {
                let next = Duration::from_secs_f64((published + 1) as f64 / f64::from(rate));
                next.saturating_sub(start.elapsed())
            }
        };
        poll.poll(&mut events, Some(timeout))?;
        for event in &events {
            clients[event.token().0].receive(&mut buffer, |payload| {
                played.delivered_in_all += 1;
                if before.is_some() {
                    played.delivered += 1;
                    if let (Pace::Rate(_), Some(sent)) = (pace, payload.first_chunk()) {
                        let sent = Duration::from_nanos(u64::from_be_bytes(*sent));
                        played.latencies.push(start.elapsed().saturating_sub(sent));
                    }
                }
            })?;
        }
        if cell.is_away {
            let in_flight: usize = clients.iter().map(|client| client.in_flight).sum();
            let acknowledged = (published - in_flight) * cell.subscribers;
            if before.is_some() {
                played.delivered += acknowledged - played.delivered_in_all;
            }
            played.delivered_in_all = acknowledged;
        }
    }
    let after = sample()?;
    let before = before.context("the time was too short")?;
    // With clean sessions, or the next cell would find their messages.
    drop(clients);
    if is_stored {
        for number in 0..cell.subscribers {
            drop(Client::connect(port, &format!("subscriber-{number}"), 2)?);
        }
    }
    Ok((played, before, after))
}
