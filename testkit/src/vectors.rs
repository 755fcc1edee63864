//! The wire vectors of `spec-vectors/`.

use crate::files;
use mqtt_sansio::codec::{Role, Version};
use std::fs;
use toml::Table;

/// The versions of the vectors, and their folders.
pub const FOLDERS: [(Version, &str); 3] =
    [(Version::V3_1, "v3.1"), (Version::V3_1_1, "v3.1.1"), (Version::V5_0, "v5.0")];

/// Returns the vectors of a folder of `spec-vectors/`, each with the name of its file.
pub fn tables(folder: &str) -> Vec<(String, Table)> {
    let mut tables = Vec::new();
    for path in files::with_extension(&format!("spec-vectors/{folder}"), "toml") {
        let text = fs::read_to_string(&path).unwrap();
        let file: Table =
            text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let name = path.file_stem().unwrap().to_str().unwrap();
        for vector in file["vector"].as_array().unwrap() {
            tables.push((name.to_owned(), vector.as_table().unwrap().clone()));
        }
    }
    tables
}

/// Returns the role that sends the packet of a vector, if only one does.
pub fn sender(vector: &Table) -> Option<Role> {
    match vector["from"].as_str() {
        Some("client") => Some(Role::Client),
        Some("server") => Some(Role::Server),
        _ => None,
    }
}

/// Returns the bytes of each vector of at most `largest` bytes, with the first byte that tells the
/// fuzz targets the version and the sender.
pub fn all(largest: usize) -> Vec<(u8, Vec<u8>)> {
    let mut all = Vec::new();
    for (version, (_, folder)) in (0..).zip(FOLDERS) {
        for (_, vector) in tables(folder) {
            let sender = match sender(&vector) {
                None => 0,
                Some(Role::Client) => 1,
                Some(Role::Server) => 2,
            };
            let text = vector["bytes"].as_str().unwrap();
            if runs(text).map(|(_, times)| times).sum::<usize>() <= largest {
                all.push((version + 3 * sender, hex(text)));
            }
        }
    }
    all
}

/// Returns the bytes of each vector of MQTT-SN of at most `largest` bytes.
pub fn sn(largest: usize) -> Vec<Vec<u8>> {
    let vectors = tables("sn-v1.2").into_iter();
    let all = vectors.map(|(_, vector)| hex(vector["bytes"].as_str().unwrap()));
    all.filter(|bytes| bytes.len() <= largest).collect()
}

/// Reads the notation of `spec-vectors/README.md`.
pub fn hex(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    runs(text).for_each(|(byte, times)| bytes.resize(bytes.len() + times, byte));
    bytes
}

/// Returns each byte, and how many times it is repeated.
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
