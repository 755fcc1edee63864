//! The conformance ledger: each normative statement of 5.0 and 3.1.1 with the tests that show it,
//! or the reason why none does, and the same for reports from users of other libraries. Judgements
//! are in `tests/ledger.toml`; the wire vectors themselves say which statements they cite.
//! `UPDATE=1 cargo test --test it ledger` writes both to `spec-vectors/CONFORMANCE.md`.

use core::fmt::Write as _;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::LazyLock;
use testkit::files;
use toml::Table;

/// The numbers of statements and of reports that are not obeyed or not shown. Neither may grow.
const GAPS: [usize; 2] = [1, 2];

const VERSIONS: [&str; 3] = ["5.0", "3.1.1", "Sparkplug 3.0"];

const INTRODUCTION: &str = "\
# Conformance

The tests that show each normative statement of the standards, what Sparkplug 3.0 asks of a server,
and this crate's answer to problems that users of other libraries and brokers reported. A test is
named only if it would fail were the statement broken. Wire vectors that cite a statement about
single packets show it. A gap is a statement that this crate does not obey, or that no test shows;
tests next to it show a part of it.

`UPDATE=1 cargo test --test it ledger` writes this page from `statements.tsv`, `tests/ledger.toml`
and the vectors; it must not be edited. The statements themselves are in
[MQTT 5.0](https://docs.oasis-open.org/mqtt/mqtt/v5.0/os/mqtt-v5.0-os.html) and
[MQTT 3.1.1](https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/os/mqtt-v3.1.1-os.html), and in the
[Sparkplug specification](https://sparkplug.eclipse.org/specification/).
";

static LEDGER: LazyLock<Ledger> = LazyLock::new(Ledger::read);

struct Ledger {
    /// By the columns of `statements.tsv`: version, id, section, side, layer.
    statements: Vec<([String; 5], Entry)>,
    /// By the problem, and where it was seen.
    reports: Vec<(String, Vec<String>, Entry)>,
    /// The files of the vectors that cite a statement, such as `v5.0/publish`.
    cited: BTreeMap<String, BTreeSet<String>>,
    /// The paths of each test function and each vector, relative to `spec-vectors/`. Vectors have
    /// names such as `v5.0/publish/qos-3`.
    places: BTreeMap<String, Vec<String>>,
}

/// The entry of a statement or a report.
struct Entry {
    name: String,
    tests: Vec<String>,
    gap: Option<String>,
    not_ours: Option<String>,
}

fn text(table: &Table, key: &str) -> Option<String> {
    table.get(key).map(|value| value.as_str().unwrap().to_owned())
}

fn list(table: &Table, key: &str) -> Vec<String> {
    let values = table.get(key).into_iter().flat_map(|list| list.as_array().unwrap());
    values.map(|value| value.as_str().unwrap().to_owned()).collect()
}

impl Ledger {
    fn read() -> Self {
        let ledger: Table = files::read("tests/ledger.toml").parse().unwrap();
        let [shown, not_ours, gaps, reports] =
            ["shown", "not_ours", "gaps", "reports"].map(|name| ledger[name].as_table().unwrap());
        let statement = |line: &str| {
            let columns: [String; 5] =
                line.split('\t').map(str::to_owned).collect::<Vec<_>>().try_into().unwrap();
            let name = format!("{} {}", columns[0], columns[1]);
            let (tests, gap, not_ours) =
                (list(shown, &name), text(gaps, &name), text(not_ours, &name));
            (columns, Entry { name, tests, gap, not_ours })
        };
        let lines = files::read("spec-vectors/statements.tsv");
        let statements: Vec<_> = lines.lines().skip(1).map(statement).collect();
        assert_eq!(statements.len(), 251 + 141 + 11);
        for row in [shown, not_ours, gaps].into_iter().flat_map(Table::keys) {
            assert!(
                statements.iter().any(|(_, entry)| entry.name == *row),
                "there is no statement {row}"
            );
        }
        let report =
            |(name, report): (&String, &toml::Value)| {
                let report = report.as_table().unwrap();
                assert!(
                    report.keys().all(|key| ["problem", "seen", "tests", "gap", "not_ours"]
                        .contains(&key.as_str())),
                    "{name}"
                );
                let (tests, gap, not_ours) =
                    (list(report, "tests"), text(report, "gap"), text(report, "not_ours"));
                (
                    text(report, "problem").unwrap(),
                    list(report, "seen"),
                    Entry { name: name.clone(), tests, gap, not_ours },
                )
            };
        let reports = reports.iter().map(report).collect();
        let mut ledger =
            Self { statements, reports, cited: BTreeMap::new(), places: BTreeMap::new() };
        ledger.read_vectors();
        ledger.read_tests();
        ledger
    }

    fn read_vectors(&mut self) {
        for path in files::with_extension("spec-vectors", "toml") {
            let file =
                path.strip_prefix(files::root().join("spec-vectors")).unwrap().with_extension("");
            let file = file.to_str().unwrap().replace('\\', "/");
            let vectors: Table = fs::read_to_string(&path).unwrap().parse().unwrap();
            for vector in vectors["vector"].as_array().unwrap() {
                let vector = vector.as_table().unwrap();
                let name = format!("{file}/{}", text(vector, "name").unwrap());
                self.places.entry(name).or_default().push(format!("{file}.toml"));
                for cite in list(vector, "cites") {
                    self.cited.entry(cite).or_default().insert(file.clone());
                }
            }
        }
    }

    fn read_tests(&mut self) {
        let found = ["src", "tests", "hosts/broker/tests"]
            .map(|folder| files::with_extension(folder, "rs"));
        for path in found.into_iter().flatten() {
            let place =
                path.strip_prefix(files::root()).unwrap().to_str().unwrap().replace('\\', "/");
            for after in fs::read_to_string(&path).unwrap().split("#[test]\n").skip(1) {
                let (name, _) = after.split_once("fn ").unwrap().1.split_once('(').unwrap();
                self.places.entry(name.to_owned()).or_default().push(format!("../{place}"));
            }
        }
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.statements
            .iter()
            .map(|(_, entry)| entry)
            .chain(self.reports.iter().map(|(_, _, entry)| entry))
    }

    fn print(&self) -> String {
        let mut out = INTRODUCTION.to_owned();
        out += "\n| version | layer | statements | shown | not ours | gaps |\n|---|---|---|---|---|---|\n";
        for version in VERSIONS {
            for layer in ["codec", "session", "broker", "transport"] {
                let of_it = self
                    .statements
                    .iter()
                    .filter(|(columns, _)| columns[0] == version && columns[4] == layer);
                let (all, gaps) = (
                    of_it.clone().count(),
                    of_it.clone().filter(|(_, entry)| entry.gap.is_some()).count(),
                );
                if all == 0 {
                    continue;
                }
                let not_ours = of_it.filter(|(_, entry)| entry.not_ours.is_some()).count();
                let shown = all - gaps - not_ours;
                writeln!(out, "| {version} | {layer} | {all} | {shown} | {not_ours} | {gaps} |")
                    .unwrap();
            }
        }
        for version in VERSIONS {
            let protocol = if version.starts_with('S') { "" } else { "MQTT " };
            write!(out, "\n## {protocol}{version}\n\n| statement | section | who | layer | shown by |\n|---|---|---|---|---|\n")
                .unwrap();
            for (columns, entry) in
                self.statements.iter().filter(|(columns, _)| columns[0] == version)
            {
                let [_, id, section, side, layer] = columns;
                writeln!(out, "| {id} | {section} | {side} | {layer} | {} |", self.cell(entry))
                    .unwrap();
            }
        }
        out += "\n## Reports\n\n| problem | seen in | shown by |\n|---|---|---|\n";
        for (problem, seen, entry) in &self.reports {
            let link = |seen: &String| match seen.split_once('#') {
                Some((repository, number)) => {
                    format!("[{seen}](https://github.com/{repository}/issues/{number})")
                }
                None => seen.clone(),
            };
            let seen: Vec<_> = seen.iter().map(link).collect();
            writeln!(out, "| {problem} | {} | {} |", seen.join(", "), self.cell(entry)).unwrap();
        }
        out
    }

    /// Returns the last cell of a row.
    fn cell(&self, entry: &Entry) -> String {
        let reasons = [("**Gap**", &entry.gap), ("Not ours", &entry.not_ours)];
        let reasons = reasons
            .iter()
            .filter_map(|(label, reason)| Some(format!("{label}: {}.", reason.as_ref()?)));
        let tests = entry.tests.iter().map(|test| format!("[{test}]({})", self.places[test][0]));
        let link = |file: &String| format!("[{}]({file}.toml)", file.rsplit('/').next().unwrap());
        let vectors = self
            .cited
            .get(&entry.name)
            .map(|files| files.iter().map(link).collect::<Vec<_>>().join(", "));
        let vectors = vectors.map(|vectors| format!("vectors: {vectors}"));
        reasons.chain(tests).chain(vectors).collect::<Vec<_>>().join("<br>")
    }
}

#[test]
fn statements_and_reports_are_shown_or_explained() {
    let codec = LEDGER
        .statements
        .iter()
        .filter(|(columns, entry)| columns[4] == "codec" && LEDGER.cited.contains_key(&entry.name));
    let by_vectors: BTreeSet<_> = codec.map(|(_, entry)| &entry.name).collect();
    for entry in LEDGER.entries() {
        let is_shown = !entry.tests.is_empty() || by_vectors.contains(&entry.name);
        let is_answered = match (&entry.gap, &entry.not_ours) {
            (None, None) => is_shown,
            (None, Some(_)) => !is_shown,
            (Some(_), not_ours) => not_ours.is_none(),
        };
        assert!(is_answered, "{}", entry.name);
    }
}

#[test]
fn named_tests_and_vectors_exist_once() {
    for entry in LEDGER.entries() {
        for test in &entry.tests {
            let places = LEDGER.places.get(test).map_or(&[][..], Vec::as_slice);
            assert_eq!(places.len(), 1, "{} names {test}, which is in {places:?}", entry.name);
        }
    }
}

#[test]
fn number_of_gaps_equals_the_recorded_number() {
    let statements = LEDGER.statements.iter().filter(|(_, entry)| entry.gap.is_some());
    let reports = LEDGER.reports.iter().filter(|(_, _, entry)| entry.gap.is_some());
    assert_eq!([statements.count(), reports.count()], GAPS);
}

#[test]
fn conformance_document_equals_the_ledger() {
    let path = files::root().join("spec-vectors/CONFORMANCE.md");
    let printed = LEDGER.print();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, printed).unwrap();
    } else {
        let is_same = fs::read_to_string(path).is_ok_and(|old| old == printed);
        assert!(is_same, "CONFORMANCE.md is stale: UPDATE=1 cargo test --test it ledger");
    }
}
