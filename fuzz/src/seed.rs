//! Writes the wire vectors as seeds for the fuzz targets: `cargo run --manifest-path fuzz/Cargo.toml --bin seed`.

use std::path::Path;
use std::{fs, io};

#[path = "../vectors.rs"]
mod vectors;

fn main() -> io::Result<()> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR"));
    for target in ["decode", "roundtrip", "split", "encode", "topic"] {
        let folder = fuzz.join("corpus").join(target);
        fs::create_dir_all(&folder)?;
        for (index, (first, bytes)) in vectors::all(&fuzz.join("../spec-vectors")).into_iter().enumerate() {
            // The largest vectors would only slow the fuzzer down.
            if bytes.len() <= 4096 {
                fs::write(folder.join(format!("vector-{index}")), [&[first], &bytes[..]].concat())?;
            }
        }
    }
    Ok(())
}
