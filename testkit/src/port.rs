//! Ports for programs that a test starts.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::net::TcpStream;

/// Returns the first of `count` ports of 127.0.0.1 in a row on which nothing listens. No other call
/// in this process returns one of them, and the system gives no port below 32,768 to a connection,
/// so that they stay free until a program listens there, also when it is started again.
///
/// The ports are found by connecting. To listen on one for a moment would not do: when another
/// thread starts a program meanwhile, the new process has a copy of the socket until it runs that
/// program. Clients would connect to the copy, and be cut off.
pub fn free_ports(count: u16) -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let firsts = core::iter::repeat_with(|| {
        let number = NEXT.fetch_add(count.into(), Relaxed) + std::process::id() % 10_000 * 16;
        10_000 + (number % 20_000) as u16
    });
    let is_free = |port| TcpStream::connect(("127.0.0.1", port)).is_err();
    firsts.take(20_000).find(|first| (*first..first + count).all(is_free)).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn ports_in_use_are_left_out() {
        let first = free_ports(1);
        let _listener = TcpListener::bind(("127.0.0.1", first + 1)).unwrap();
        let next = free_ports(2);
        assert!(next > first + 1, "{first} {next}");
        assert!(free_ports(1) >= next + 2);
    }
}
