//! Checks the citations of the standards. Each names an existing statement, and each statement
//! about single packets is shown by a wire vector. The statements are listed in
//! `spec-vectors/statements.tsv`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use testkit::files;
use toml::Table;

/// Returns the statements as they are cited, such as `5.0 MQTT-3.3.1-4`, with their layer.
fn statements() -> BTreeMap<String, String> {
    let text = files::read("spec-vectors/statements.tsv");
    let rows = text.lines().skip(1).map(|line| line.split('\t').collect::<Vec<_>>());
    let statements: BTreeMap<_, _> =
        rows.map(|row| (format!("{} {}", row[0], row[1]), row[4].to_owned())).collect();
    assert_eq!(statements.len(), 251 + 141 + 11);
    statements
}

#[test]
fn citations_in_the_sources_name_statements() {
    let statements = statements();
    let sources = ["src", "tests", "testkit", "fuzz", "benches"]
        .map(|folder| files::with_extension(folder, "rs"));
    let (mut count, mut unknown) = (0, Vec::new());
    for path in sources.into_iter().flatten() {
        let text = fs::read_to_string(&path).unwrap();
        for version in ["3.1.1", "5.0"] {
            for (position, _) in text.match_indices(&format!("[{version} MQTT-")) {
                let citation = text[position + 1..].split(']').next().unwrap();
                // A range, `… MQTT-3.3.1-9 to -11`, is cited by its first statement.
                let citation = citation.split(" to ").next().unwrap();
                count += 1;
                if !statements.contains_key(citation) {
                    unknown.push(format!("{}: [{citation}]", path.display()));
                }
            }
        }
    }
    assert_eq!(unknown, [""; 0]);
    assert!(count > 200, "only {count} citations");
}

/// The last two columns in the table of errors cite the statements.
#[test]
fn errors_name_statements() {
    let statements = statements();
    let table = files::read("src/codec/error.rs");
    let rows =
        table.lines().filter_map(|line| line.trim().strip_suffix("\";")?.rsplit_once("\", \""));
    let mut count = 0;
    for (before, v3) in rows {
        let v5 = before.rsplit_once('"').unwrap().1;
        for (version, id) in [("5.0", v5), ("3.1.1", v3)] {
            for id in id.split(", ") {
                assert!(
                    id.starts_with('§') || statements.contains_key(&format!("{version} {id}")),
                    "{version} {id}"
                );
                count += 1;
            }
        }
    }
    assert!(count > 80, "only {count}");
}

#[test]
fn codec_statements_are_shown_by_vectors() {
    let statements = statements();
    let mut cited = BTreeSet::new();
    for path in files::with_extension("spec-vectors", "toml") {
        let file: Table = fs::read_to_string(&path).unwrap().parse().unwrap();
        for vector in file["vector"].as_array().unwrap() {
            let cites =
                vector["cites"].as_array().unwrap().iter().map(|cite| cite.as_str().unwrap());
            for cite in cites {
                let is_section = cite.split_once(" §").is_some();
                assert!(
                    is_section || statements.contains_key(cite),
                    "{} cites {cite}",
                    path.display()
                );
                cited.insert(cite.to_owned());
            }
        }
    }
    let missing: Vec<_> = statements
        .iter()
        .filter(|(id, layer)| *layer == "codec" && !cited.contains(*id))
        .map(|(id, _)| id)
        .collect();
    assert_eq!(missing, [""; 0]);
}
