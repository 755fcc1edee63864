//! Writes seeds for the fuzz targets: the wire vectors for the codec, and series of operations for
//! the others. `cargo run --manifest-path fuzz/Cargo.toml --bin seed` runs it.

use std::path::Path;
use std::{fs, io};
use testkit::{machines, vectors};

fn main() -> io::Result<()> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR"));
    for target in ["decode", "roundtrip", "split", "encode", "topic"] {
        let folder = fuzz.join("corpus").join(target);
        fs::create_dir_all(&folder)?;
        // Larger vectors would only slow the fuzzer down.
        for (index, (first, bytes)) in
            vectors::all(4096).into_iter().enumerate()
        {
            fs::write(folder.join(format!("vector-{index}")), [&[first], &bytes[..]].concat())?;
        }
    }
    let folder = fuzz.join("corpus/sn");
    fs::create_dir_all(&folder)?;
    for (index, bytes) in vectors::sn(4096).into_iter().enumerate() {
        fs::write(folder.join(format!("vector-{index}")), bytes)?;
    }
    for target in ["client", "server", "router"] {
        let folder = fuzz.join("corpus").join(target);
        fs::create_dir_all(&folder)?;
        for (index, bytes) in machines::seeds().into_iter().enumerate() {
            fs::write(folder.join(format!("operations-{index}")), bytes)?;
        }
    }
    Ok(())
}
