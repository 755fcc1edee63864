//! The floor: a forwarder that moves the same bytes as a broker with the same system calls, and
//! looks nothing up.

use crate::play::{Output, frame};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::collections::HashMap;
use std::io::{ErrorKind, Read as _};

struct Peer {
    stream: TcpStream,
    input: Vec<u8>,
    output: Output,
}

/// Forwards each PUBLISH to all subscribers, for ever.
pub fn run(port: u16) -> anyhow::Result<()> {
    let mut listener = TcpListener::bind(([127, 0, 0, 1], port).into())?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, Token(0), Interest::READABLE)?;
    let mut events = Events::with_capacity(256);
    let (mut peers, mut subscribers) = (HashMap::new(), Vec::new());
    let mut buffer = vec![0; 64 * 1024];
    let mut next = 1;
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == Token(0) {
                while let Ok((mut stream, _)) = listener.accept() {
                    stream.set_nodelay(true)?;
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut stream, Token(next), interest)?;
                    peers.insert(
                        next,
                        Peer { stream, input: Vec::new(), output: Output::default() },
                    );
                    next += 1;
                }
                continue;
            }
            let id = event.token().0;
            let (is_open, forwarded) = serve(&mut peers, id, &mut buffer, &mut subscribers);
            if !is_open || event.is_read_closed() {
                peers.remove(&id);
                subscribers.retain(|one| *one != id);
            }
            for subscriber in if forwarded.is_empty() { &[][..] } else { &subscribers[..] } {
                if let Some(peer) = peers.get_mut(subscriber) {
                    peer.output.bytes.extend_from_slice(&forwarded);
                    flush(peer);
                }
            }
        }
    }
}

/// Reads from a peer and answers it. Returns whether it is still open, and what must be forwarded.
fn serve(
    peers: &mut HashMap<usize, Peer>,
    id: usize,
    buffer: &mut [u8],
    subscribers: &mut Vec<usize>,
) -> (bool, Vec<u8>) {
    let mut forwarded = Vec::new();
    let Some(peer) = peers.get_mut(&id) else { return (false, forwarded) };
    let is_open = loop {
        match peer.stream.read(buffer) {
            Ok(0) => break false,
            Ok(count) => {
                peer.input.extend_from_slice(&buffer[..count]);
                if count < buffer.len() {
                    break true;
                }
            }
            Err(error) => break error.kind() == ErrorKind::WouldBlock,
        }
    };
    let mut start = 0;
    while let Some((first, body, length)) = frame(&peer.input[start..]) {
        let packet = &peer.input[start..start + length];
        start += length;
        match first >> 4 {
            1 => peer.output.bytes.extend([0x20, 2, 0, 0]),
            8 => {
                subscribers.push(id);
                peer.output.bytes.extend([0x90, 3, 0, 1, body[body.len() - 1]]);
            }
            3 => {
                forwarded.extend_from_slice(packet);
                match first >> 1 & 3 {
                    0 => {}
                    qos => peer.output.bytes.extend([0x30 + 0x10 * qos, 2, body[3], body[4]]),
                }
            }
            5 => peer.output.bytes.extend([0x62, 2, body[0], body[1]]),
            6 => peer.output.bytes.extend([0x70, 2, body[0], body[1]]),
            _ => {}
        }
    }
    peer.input.drain(..start);
    flush(peer);
    (is_open, forwarded)
}

fn flush(peer: &mut Peer) {
    // A peer that has gone is noticed when it is read from.
    let _ = peer.output.flush(&mut peer.stream);
}
