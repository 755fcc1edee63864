//! Files of lines, with comments, in which an error names its file and line.

use anyhow::Context as _;
use std::fs;
use std::path::Path;

/// Reads a file.
pub(crate) fn read<T>(path: &Path, parse: fn(&str) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    parse(&text).with_context(|| path.display().to_string())
}

/// Calls `add` for each line that is neither empty nor a comment.
pub(crate) fn for_each(
    text: &str,
    mut add: impl FnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if !(line.is_empty() || line.starts_with('#')) {
            add(line).with_context(|| format!("line {number}"))?;
        }
    }
    Ok(())
}
