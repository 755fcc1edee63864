//! The bytes of the wire vectors.

use std::fs;
use std::path::Path;
use toml::Table;

/// The bytes of each vector of up to so many, with the byte before them by which the targets know
/// the version and the sender.
pub fn all(folder: &Path, largest: usize) -> Vec<(u8, Vec<u8>)> {
    let mut all = Vec::new();
    for (version, name) in [(0, "v3.1"), (1, "v3.1.1"), (2, "v5.0")] {
        for entry in fs::read_dir(folder.join(name)).expect("the vectors are there") {
            let text = fs::read_to_string(entry.expect("a file").path()).expect("text");
            let file: Table = text.parse().expect("TOML");
            for vector in file["vector"].as_array().expect("a list") {
                let sender = match vector["from"].as_str() {
                    Some("client") => 1,
                    Some("server") => 2,
                    _ => 0,
                };
                let text = vector["bytes"].as_str().expect("text");
                if runs(text).map(|(_, times)| times).sum::<usize>() <= largest {
                    all.push((version + 3 * sender, hex(text)));
                }
            }
        }
    }
    all
}

/// Reads the notation of `spec-vectors/README.md`.
pub fn hex(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    runs(text).for_each(|(byte, times)| bytes.resize(bytes.len() + times, byte));
    bytes
}

/// Each byte, and how many times it stands there.
fn runs(text: &str) -> impl Iterator<Item = (u8, usize)> + '_ {
    text.lines().flat_map(|line| {
        let mut digits = line.split('#').next().unwrap_or_default().trim_start();
        core::iter::from_fn(move || {
            if digits.is_empty() {
                return None;
            }
            let (pair, mut rest) = digits.split_at(2);
            let byte = u8::from_str_radix(pair, 16).expect("two hex digits");
            let mut times = 1;
            if let Some(count) = rest.strip_prefix('*') {
                let end = count.find(|c: char| !c.is_ascii_digit()).unwrap_or(count.len());
                times = count[..end].parse().expect("a number");
                rest = &count[end..];
            }
            digits = rest.trim_start();
            Some((byte, times))
        })
    })
}
