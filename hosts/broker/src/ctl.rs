//! `broker ctl`: asks a running broker over its control socket.

use crate::control::Request;
use anyhow::{Context as _, bail};
use serde_json::{Map, Value};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// The flags of `broker ctl`.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The control socket of the broker.
    #[arg(long, value_name = "PATH", default_value = "/run/mqtt-sansio/control")]
    socket: PathBuf,
    /// Print JSON, a line for each item.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    request: Request,
}

/// Sends the request, and prints the answer.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let path = arguments.socket.display();
    let mut stream = UnixStream::connect(&arguments.socket).with_context(|| path.to_string())?;
    writeln!(stream, "{}", serde_json::to_string(&arguments.request)?)?;
    stream.shutdown(Shutdown::Write)?;
    let mut rows = Vec::new();
    for line in BufReader::new(stream).lines() {
        let row: Map<String, Value> = serde_json::from_str(&line?)?;
        if let Some(error) = row.get("error") {
            bail!("{}", cell(error));
        }
        rows.push(row);
    }
    let mut output = std::io::stdout().lock();
    for line in if arguments.json { lines(rows) } else { table(&rows) } {
        writeln!(output, "{line}")?;
    }
    Ok(())
}

fn lines(rows: Vec<Map<String, Value>>) -> Vec<String> {
    rows.into_iter().map(|row| Value::Object(row).to_string()).collect()
}

/// Returns the lines of a table with a column for each name.
fn table(rows: &[Map<String, Value>]) -> Vec<String> {
    let mut names: Vec<&String> = Vec::new();
    for name in rows.iter().flat_map(Map::keys) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut lines = vec![String::new(); rows.len() + usize::from(!rows.is_empty())];
    for name in names {
        let values = rows.iter().map(|row| row.get(name).map_or("-".to_owned(), cell));
        let column: Vec<_> = std::iter::once(name.to_uppercase()).chain(values).collect();
        let width = column.iter().map(|text| text.chars().count()).max().unwrap_or_default();
        for (line, text) in lines.iter_mut().zip(&column) {
            *line = format!("{line}{text:width$}  ");
        }
    }
    lines.iter().map(|line| line.trim_end().to_owned()).collect()
}

/// Returns a value as text, without characters that would confuse a terminal.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) if text.contains(char::is_control) => format!("{text:?}"),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_has_a_column_for_each_name() {
        let rows = [r#"{"a":"one","b":10}"#, r#"{"a":"\u001b","c":null}"#];
        let rows: Vec<_> = rows.iter().map(|row| serde_json::from_str(row).unwrap()).collect();
        let escape = "\"\\u{1b}\"";
        assert_eq!(
            table(&rows),
            ["A         B   C".to_owned(), "one       10  -".into(), format!("{escape}  -   -")]
        );
        assert!(table(&[]).is_empty());
    }
}
