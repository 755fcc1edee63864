//! A line between a broker and the servers of NATS, which can be cut: bytes stop, as between parts
//! of a network, and nothing is closed.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{sleep, spawn};
use std::time::Duration;

pub(crate) struct Line {
    pub(crate) port: u16,
    is_cut: Arc<AtomicBool>,
}

impl Line {
    /// Opens a line to a port, which lasts as long as the test program.
    pub(crate) fn open(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let is_cut = Arc::new(AtomicBool::new(false));
        let shared = is_cut.clone();
        spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                wait(&shared);
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                // Otherwise the system waits up to 40 ms before it passes a short packet on.
                let _ = stream.set_nodelay(true).and(server.set_nodelay(true));
                let (back, forth) = (stream.try_clone().unwrap(), server.try_clone().unwrap());
                let (one, other) = (shared.clone(), shared.clone());
                spawn(move || carry(stream, forth, &one));
                spawn(move || carry(server, back, &other));
            }
        });
        Self { port, is_cut }
    }

    pub(crate) fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::Relaxed);
    }
}

/// Waits until the line is whole.
fn wait(is_cut: &AtomicBool) {
    while is_cut.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(5));
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, is_cut: &AtomicBool) {
    let mut buffer = [0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        wait(is_cut);
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
    let _ = from.shutdown(std::net::Shutdown::Both);
}
