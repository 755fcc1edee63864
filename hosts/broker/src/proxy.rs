//! The PROXY protocol, versions 1 and 2: a balancer in front of the broker says who its client is.
//!
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>

use anyhow::{Context as _, bail, ensure};
use std::net::{IpAddr, SocketAddr};
use tokio::io::{AsyncRead, AsyncReadExt as _};

const SIGNATURE_2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest header of version 1, with its end.
const LONGEST_1: usize = 107;
/// The longest rest of a header of version 2 that is accepted.
const LONGEST_2: usize = 2048;

/// Reads the header. Returns the address of the client, unless the balancer speaks for itself.
pub(crate) async fn read<R: AsyncRead + Unpin>(
    reader: &mut R,
) -> anyhow::Result<Option<SocketAddr>> {
    // Each header is longer.
    let mut start = [0; 12];
    reader.read_exact(&mut start).await?;
    if &start == SIGNATURE_2 {
        return read_2(reader).await;
    }
    ensure!(start.starts_with(b"PROXY "), "expected a header of the PROXY protocol");
    let mut line = start.to_vec();
    while !line.ends_with(b"\r\n") {
        ensure!(line.len() < LONGEST_1, "expected the end of a header of the PROXY protocol");
        line.push(reader.read_u8().await?);
    }
    parse_1(std::str::from_utf8(&line)?.trim_end())
}

/// Parses `PROXY TCP4 SOURCE DESTINATION SOURCE-PORT DESTINATION-PORT`.
fn parse_1(line: &str) -> anyhow::Result<Option<SocketAddr>> {
    let fields: Vec<_> = line.split(' ').collect();
    match fields.as_slice() {
        ["PROXY", "UNKNOWN", ..] => Ok(None),
        ["PROXY", "TCP4" | "TCP6", source, _, port, _] => {
            let address: IpAddr = source.parse().context("source address")?;
            Ok(Some((address, port.parse().context("source port")?).into()))
        }
        _ => bail!("expected PROXY TCP4, TCP6 or UNKNOWN"),
    }
}

async fn read_2<R: AsyncRead + Unpin>(reader: &mut R) -> anyhow::Result<Option<SocketAddr>> {
    let (command, family) = (reader.read_u8().await?, reader.read_u8().await?);
    let length = usize::from(reader.read_u16().await?);
    ensure!(length <= LONGEST_2, "expected at most {LONGEST_2} bytes, found {length}");
    let mut rest = vec![0; length];
    reader.read_exact(&mut rest).await?;
    let mut rest = rest.as_slice();
    match (command, family) {
        // LOCAL, or a client without an address.
        (0x20, _) | (0x21, 0x00) => Ok(None),
        (0x21, 0x11) => {
            let (source, _) = (rest.read_u32().await?, rest.read_u32().await?);
            Ok(Some((IpAddr::V4(source.into()), rest.read_u16().await?).into()))
        }
        (0x21, 0x21) => {
            let (source, _) = (rest.read_u128().await?, rest.read_u128().await?);
            Ok(Some((IpAddr::V6(source.into()), rest.read_u16().await?).into()))
        }
        _ => bail!("expected a TCP client, found command {command:#x} of family {family:#x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the address as text, or the error, and the number of bytes that are left.
    fn parse(mut bytes: &[u8]) -> (String, usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let address = runtime.block_on(read(&mut bytes));
        let text = match address {
            Ok(Some(address)) => address.to_string(),
            Ok(None) => String::new(),
            Err(error) => format!("{error:#}"),
        };
        (text, bytes.len())
    }

    #[test]
    fn header_gives_the_address_and_nothing_beyond_it_is_read() {
        let ipv6 = [&[0x21, 0x21, 0, 36][..], &[0; 15], &[1], &[0; 16], &[0, 9, 0, 1]].concat();
        let ipv4 = [&[0x21, 0x11, 0, 14][..], &[1, 2, 3, 4, 0, 0, 0, 0, 0, 9, 0, 1, 7, 7]].concat();
        for (header, expected) in [
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 9 1\r\n".to_vec(), "1.2.3.4:9"),
            (b"PROXY TCP6 ::1 ::2 9 1\r\n".to_vec(), "[::1]:9"),
            (b"PROXY UNKNOWN\r\n".to_vec(), ""),
            ([&SIGNATURE_2[..], &ipv6].concat(), "[::1]:9"),
            ([&SIGNATURE_2[..], &ipv4].concat(), "1.2.3.4:9"),
            ([&SIGNATURE_2[..], &[0x20, 0, 0, 0]].concat(), ""),
        ] {
            assert_eq!(parse(&[&header[..], b"\x10"].concat()), (expected.to_owned(), 1));
        }
        for header in [
            &b"\x10\x0D\0\x04MQTT\x04\x02\0\0\0\x01a"[..],
            b"PROXY TCP4 1.2.3 5.6.7.8 9 1\r\n",
            &[&b"PROXY "[..], &[b'a'; 200]].concat(),
            &[&SIGNATURE_2[..], &[0x31, 0, 0, 0]].concat(),
            &[&SIGNATURE_2[..], &[0x21, 0x11, 0, 2, 0, 0]].concat(),
        ] {
            assert!(parse(header).0.len() > 9, "{header:?}");
        }
    }
}
