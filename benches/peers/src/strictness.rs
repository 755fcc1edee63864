//! Counts the invalid wire vectors that a decoder refuses, and the valid ones that it accepts.

use crate::measure::{Measured, Verdict};
use crate::peers::Column;
use mqtt_sansio::codec::{Role, Version};
use testkit::vectors::{hex, sender, tables};

/// One vector with a complete packet, valid or invalid.
struct Vector {
    bytes: Vec<u8>,
    sender: Option<Role>,
    valid: bool,
}

/// Prints the table, a row for each codec. This crate comes first and knows the sender; no peer can
/// be told.
pub fn print(columns: &[Column]) {
    let versions = [(Version::V3_1_1, "v3.1.1"), (Version::V5_0, "v5.0")]
        .map(|(version, folder)| (version, read(folder)));
    println!("| decoder | v4: refuses | accepts | v5: refuses | accepts | waits | panics |");
    println!("|---|---|---|---|---|---|---|");
    for column in columns.iter().filter(|column| !column.only_encodes) {
        let mut cells = String::new();
        let mut unusual = [0, 0];
        for (version, vectors) in &versions {
            let Some(codec) = column.codec(*version, None) else {
                cells += " – | – |";
                continue;
            };
            let count = Count::of(codec, vectors);
            let (invalid, valid) = (count.invalid, count.valid);
            cells += &format!(" {} of {invalid} | {} of {valid} |", count.refused, count.accepted);
            unusual[0] += count.waits;
            unusual[1] += count.panics;
        }
        println!("| {} |{cells} {} | {} |", column.name, unusual[0], unusual[1]);
    }
    println!();
    for (version, vectors) in &versions {
        let number = columns[0].codec(*version, None).map_or(0, |ours| needs_sender(ours, vectors));
        println!(
            "{version}: {number} of the invalid ones would be valid from the other side; \
             only this crate knows the sender."
        );
    }
}

/// Returns the number of invalid vectors that would be valid from the other side.
fn needs_sender(ours: &dyn Measured, vectors: &[Vector]) -> usize {
    vectors
        .iter()
        .filter(|vector| !vector.valid && ours.verdict(&vector.bytes, None) == Verdict::Accepted)
        .count()
}

#[derive(Default)]
struct Count {
    invalid: usize,
    refused: usize,
    valid: usize,
    accepted: usize,
    waits: usize,
    panics: usize,
}

impl Count {
    fn of(codec: &dyn Measured, vectors: &[Vector]) -> Self {
        let mut count = Self::default();
        for Vector { bytes, sender, valid } in vectors {
            let verdict = codec.verdict(bytes, *sender);
            let one = |verdicts: &[Verdict]| usize::from(verdicts.contains(&verdict));
            if *valid {
                count.valid += 1;
                count.accepted += one(&[Verdict::Accepted]);
            } else {
                count.invalid += 1;
                count.refused += one(&[Verdict::Refused]);
            }
            count.waits += one(&[Verdict::Waits]);
            count.panics += one(&[Verdict::Panicked]);
        }
        count
    }
}

fn read(version: &str) -> Vec<Vector> {
    let whole = tables(version).into_iter().filter(|entry| !entry.1.contains_key("incomplete"));
    whole
        .map(|(_, vector)| Vector {
            bytes: hex(vector["bytes"].as_str().expect("text")),
            sender: sender(&vector),
            valid: !vector.contains_key("error"),
        })
        .collect()
}
