//! The properties of the fuzz targets, over the wire vectors, mutations of them, and inputs that once failed.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::expect_used, reason = "tests may panic")]

#[path = "../fuzz/properties.rs"]
mod properties;
#[path = "../fuzz/vectors.rs"]
mod vectors;

use std::fs;
use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Each vector as it is, and with a byte changed, removed or doubled at several places.
fn inputs() -> impl Iterator<Item = Vec<u8>> {
    let all = vectors::all(&root().join("spec-vectors"));
    assert!(all.len() > 3_000);
    all.into_iter().filter(|(_, bytes)| bytes.len() <= 2_048).flat_map(|(first, bytes)| {
        let data = [&[first], &bytes[..]].concat();
        let step = data.len().div_ceil(12);
        let mutated = (0..data.len()).step_by(step).flat_map({
            let data = data.clone();
            move |at| {
                let [mut changed, mut removed, mut doubled] = [data.clone(), data.clone(), data.clone()];
                changed[at] ^= 1 << (at % 8);
                removed.remove(at);
                doubled.insert(at, data[at]);
                [changed, removed, doubled]
            }
        });
        mutated.chain([data])
    })
}

fn run(target: &str, property: fn(&[u8])) {
    inputs().for_each(|data| property(&data));
    // Files that the fuzzer has found, kept by their target.
    let Ok(found) = fs::read_dir(root().join("fuzz/regressions").join(target)) else { return };
    found.for_each(|entry| property(&fs::read(entry.unwrap().path()).unwrap()));
}

#[test]
fn decode() {
    run("decode", properties::decode);
}

#[test]
fn roundtrip() {
    run("roundtrip", properties::roundtrip);
}

#[test]
fn split() {
    run("split", properties::split);
}

#[test]
fn encode() {
    run("encode", properties::encode);
}

#[test]
fn topic() {
    run("topic", properties::topic);
}
