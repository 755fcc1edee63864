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
    /// Whether it is invalid only from its sender, whom this crate alone is told.
    needs_sender: bool,
}

/// Prints the table, a row for each codec. This crate comes first and knows the sender; no peer can
/// be told.
pub fn print(columns: &[Column]) {
    let versions = [(Version::V3_1_1, "v3.1.1"), (Version::V5_0, "v5.0")]
        .map(|(version, folder)| (version, read(folder, columns[0].codec(version, None))));
    println!(
        "| decoder | v4: refuses | without those that need the sender | accepts | v5: refuses | without those that need the sender | accepts | waits | panics |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for column in columns.iter().filter(|column| !column.only_encodes) {
        let mut cells = String::new();
        let mut unusual = [0, 0];
        for (version, vectors) in &versions {
            let Some(codec) = column.codec(*version, None) else {
                cells += " – | – | – |";
                continue;
            };
            let count = Count::of(codec, vectors);
            let (invalid, valid) = (count.invalid, count.valid);
            cells += &format!(
                " {} of {invalid} | {} of {} | {} of {valid} |",
                count.refused,
                count.refused - count.refused_by_sender,
                invalid - count.need_sender,
                count.accepted
            );
            unusual[0] += count.waits;
            unusual[1] += count.panics;
        }
        println!("| {} |{cells} {} | {} |", column.name, unusual[0], unusual[1]);
    }
}

#[derive(Default)]
struct Count {
    invalid: usize,
    refused: usize,
    need_sender: usize,
    refused_by_sender: usize,
    valid: usize,
    accepted: usize,
    waits: usize,
    panics: usize,
}

impl Count {
    fn of(codec: &dyn Measured, vectors: &[Vector]) -> Self {
        let mut count = Self::default();
        for Vector { bytes, sender, valid, needs_sender } in vectors {
            let verdict = codec.verdict(bytes, *sender);
            let one = |verdicts: &[Verdict]| usize::from(verdicts.contains(&verdict));
            if *valid {
                count.valid += 1;
                count.accepted += one(&[Verdict::Accepted]);
            } else {
                count.invalid += 1;
                count.refused += one(&[Verdict::Refused]);
                count.need_sender += usize::from(*needs_sender);
                count.refused_by_sender += usize::from(*needs_sender) * one(&[Verdict::Refused]);
            }
            count.waits += one(&[Verdict::Waits]);
            count.panics += one(&[Verdict::Panicked]);
        }
        count
    }
}

fn read(version: &str, ours: Option<&dyn Measured>) -> Vec<Vector> {
    let whole = tables(version).into_iter().filter(|entry| !entry.1.contains_key("incomplete"));
    whole
        .map(|(_, vector)| {
            let bytes = hex(vector["bytes"].as_str().expect("text"));
            let valid = !vector.contains_key("error");
            let accepted = ours.is_some_and(|us| us.verdict(&bytes, None) == Verdict::Accepted);
            Vector { needs_sender: !valid && accepted, bytes, sender: sender(&vector), valid }
        })
        .collect()
}
