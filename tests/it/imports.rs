//! The borders between modules, as far as their `use` lines show them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use testkit::files;

/// Directories whose modules import each other in no cycle. Each `mod.rs` is a face that imports
/// all others, so no module imports from it.
const WITHOUT_CYCLES: [&str; 2] = ["codec", "router"];

/// Modules of a directory that do not import each other.
const STRANGERS: [(&str, &[&str]); 1] =
    [("broker", &["connections", "journal", "retained", "sessions", "tasks", "timers", "wills"])];

/// A module of a directory, and the others of the same directory that it can import.
type Room = (&'static str, &'static [&'static str]);

/// The rooms of a session, each with the other rooms that it can import. The state of a session
/// knows nothing of connections, and an endpoint knows neither handshakes nor the loop.
const ROOMS: [(&str, &[Room]); 2] = [
    (
        "session",
        &[
            ("identifiers", &[]),
            ("inbound", &[]),
            ("limits", &[]),
            ("queue", &[]),
            ("slot", &[]),
            ("unacknowledged", &[]),
            ("outbound", &["identifiers", "queue", "slot"]),
            ("change", &["inbound", "outbound", "slot"]),
            ("stored", &["inbound", "outbound", "slot"]),
            ("handshake", &[]),
            ("endpoint", &["error", "inbound", "slot", "unacknowledged"]),
            ("driver", &["endpoint"]),
        ],
    ),
    (
        "session/endpoint",
        &[("alias", &[]), ("connection", &["alias"]), ("send", &[]), ("receive", &["send"])],
    ),
];

/// The layers, each with the layers below it that it can import.
const LAYERS: [(&str, &[&str]); 8] = [
    ("codec", &["sync"]),
    ("session", &["codec", "sync", "time"]),
    ("client", &["codec", "session", "sync", "time"]),
    ("server", &["codec", "session", "sync", "time"]),
    ("router", &["codec", "session", "sync", "time"]),
    ("broker", &["codec", "session", "server", "router", "sync", "time"]),
    ("bridge", &["codec", "session", "client", "sync", "time"]),
    ("sn", &["codec", "session", "client", "sync", "time"]),
];

/// Adds what the files of a module import from other modules of `root`.
fn read(root: &str, module: &str, path: &Path, imports: &mut BTreeSet<String>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            let name = entry.as_ref().unwrap().file_name().into_string().unwrap();
            let inner = format!("{module}::{}", name.trim_end_matches(".rs"));
            read(root, inner.trim_end_matches("::mod"), &entry.unwrap().path(), imports);
        }
        return;
    }
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]").next().unwrap();
    for mut import in code.lines().filter_map(|line| line.trim_start().strip_prefix("use ")) {
        let mut from = module;
        while let Some(rest) = import.strip_prefix("super::") {
            (import, from) = (rest, from.rsplit_once("::").unwrap_or_default().0);
        }
        let absolute = if from == module {
            import.strip_prefix("crate::").unwrap_or_default().to_owned()
        } else {
            format!("{from}::{import}")
        };
        if let Some(name) = absolute.strip_prefix(&format!("{root}::")) {
            imports.insert(name.split([':', ';', ' ']).next().unwrap().to_owned());
        }
    }
}

/// Returns the modules of a directory, each with those of the same directory that it imports.
fn imports(root: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut modules = BTreeMap::new();
    for entry in fs::read_dir(Path::new("src").join(root)).unwrap() {
        let name = entry.as_ref().unwrap().file_name().into_string().unwrap();
        let name = name.trim_end_matches(".rs");
        if name != "mod" {
            let mut imports = BTreeSet::new();
            read(root, &format!("{root}::{name}"), &entry.unwrap().path(), &mut imports);
            imports.remove(name);
            modules.insert(name.to_owned(), imports);
        }
    }
    modules
}

#[test]
fn module_imports_form_no_cycle() {
    for root in WITHOUT_CYCLES {
        let mut modules = imports(root);
        for (module, imports) in &modules {
            let unknown: Vec<_> = imports.iter().filter(|i| !modules.contains_key(*i)).collect();
            assert!(unknown.is_empty(), "{root}/{module} imports {unknown:?} from the face");
        }
        // Removes the modules that import none of the others, until only cycles are left.
        loop {
            let left: BTreeSet<_> = modules.keys().cloned().collect();
            modules.retain(|_, imports| !imports.is_disjoint(&left));
            if modules.len() == left.len() {
                break;
            }
        }
        assert!(modules.is_empty(), "{root} has cycles, or modules above them: {modules:#?}");
    }
}

#[test]
fn strangers_do_not_import_each_other() {
    for (root, strangers) in STRANGERS {
        let modules = imports(root);
        for (stranger, other) in
            strangers.iter().flat_map(|a| strangers.iter().map(move |b| (a, b)))
        {
            assert!(!modules[*stranger].contains(*other), "{root}/{stranger} imports {other}");
        }
    }
}

#[test]
fn rooms_import_only_the_rooms_named() {
    for (root, rooms) in ROOMS {
        let modules = imports(root);
        for (room, allowed) in rooms {
            let others = modules[*room].iter().filter(|import| modules.contains_key(*import));
            let unknown: Vec<_> = others.filter(|other| !allowed.contains(&&***other)).collect();
            assert!(unknown.is_empty(), "{root}/{room} imports {unknown:?}");
        }
    }
}

#[test]
fn layers_import_only_from_below() {
    for (layer, below) in LAYERS {
        for path in files::with_extension(&format!("src/{layer}"), "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            // Also in the middle of a line: a path can be written out.
            for (position, _) in code.match_indices("crate::") {
                let line = code[..position].rsplit('\n').next().unwrap();
                let path_after = &code[position + "crate::".len()..];
                let name = path_after.split(|c: char| !c.is_alphanumeric() && c != '_').next();
                let name = name.unwrap();
                let is_doc = line.trim_start().starts_with("//");
                let allowed = is_doc || name == layer || below.contains(&name);
                assert!(allowed, "{} imports {name}", path.display());
            }
        }
    }
}
