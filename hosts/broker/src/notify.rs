//! Tells systemd how the program is. See `sd_notify(3)`.

use std::env;
use std::io;
use std::os::unix::net::UnixDatagram;
use tracing::warn;

/// Sends a message, such as `READY=1`, if systemd waits for it.
pub(crate) fn notify(message: &str) {
    let Some(path) = env::var("NOTIFY_SOCKET").ok().filter(|path| !path.is_empty()) else { return };
    if let Err(error) = send(&path, message) {
        warn!(%error, "cannot tell systemd {message}");
    }
}

fn send(path: &str, message: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    #[cfg(target_os = "linux")]
    if let Some(name) = path.strip_prefix('@') {
        use std::os::linux::net::SocketAddrExt as _;
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
        socket.send_to_addr(message.as_bytes(), &address)?;
        return Ok(());
    }
    socket.send_to(message.as_bytes(), path)?;
    Ok(())
}
