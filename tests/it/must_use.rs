//! Results that a host must not drop: an action, an outcome, or that there is more to write.

use std::fs;
use testkit::files;

/// Directories in which each public method that changes its receiver and returns an `Option` or a
/// `bool` has `#[must_use]`.
const ROOMS: [&str; 5] = ["src/bridge", "src/broker", "src/client", "src/server", "src/session"];

/// Returns the public methods in a source whose result can be dropped without a warning.
fn droppable(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]").next().unwrap();
    let mut found = Vec::new();
    for (position, _) in code.match_indices("pub fn ") {
        let signature = code[position..].split('{').next().unwrap();
        let Some((arguments, result)) = signature.split_once("->") else { continue };
        let result = result.trim();
        let attributes = code[..position].rsplit("\n\n").next().unwrap();
        if arguments.contains("&mut self")
            && (result.starts_with("Option<") || result == "bool")
            && !attributes.contains("#[must_use")
        {
            found.push(format!("{}-> {result}", arguments.replace('\n', " ")));
        }
    }
    found
}

#[test]
fn droppable_results_are_found() {
    let text = "\
        /// Returns the next action.\n    pub fn next(&mut self) -> Option<Action> {}\n\n\
        #[must_use]\n    pub fn flush(&mut self) -> bool {}\n\n\
        pub fn close(&mut self) {}\n\n\
        pub fn is_open(&self) -> bool {}\n";
    assert_eq!(droppable(text), ["pub fn next(&mut self) -> Option<Action>"]);
}

#[test]
fn methods_with_results_for_the_host_are_must_use() {
    for path in ROOMS.into_iter().flat_map(|room| files::with_extension(room, "rs")) {
        let found = droppable(&fs::read_to_string(&path).unwrap());
        assert!(found.is_empty(), "{} lacks #[must_use] on {found:#?}", path.display());
    }
}
