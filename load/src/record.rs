//! A run as it is kept: a line of JSON, and a table for people.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::{digits, table};

/// Shows a run and adds it to a file.
///
/// # Errors
/// It has `faults`, so it does not count.
pub(crate) fn finish(record: &Value, out: Option<&Path>) -> anyhow::Result<()> {
    out.map_or(Ok(()), |path| append(path, record))?;
    show(record);
    match record["faults"].as_array() {
        Some(faults) if !faults.is_empty() => bail!("the run does not count: {}", Value::from(faults.clone())),
        _ => Ok(()),
    }
}

fn show(record: &Value) {
    let mut table = table(&["row", "value"]);
    let mut add = |name: &str, value: &Value| {
        let shown = value.as_f64().filter(|_| value.is_f64()).map_or_else(|| value.to_string(), digits);
        table.add_row([name.replace('_', " "), shown.trim_matches('"').to_owned()]);
    };
    for (name, value) in record.as_object().into_iter().flatten() {
        match value.as_object() {
            Some(inner) => inner.iter().for_each(|(percent, value)| add(&format!("{name} {percent}"), value)),
            None => add(name, value),
        }
    }
    println!("{table}");
}

fn append(path: &Path, record: &Value) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    let file = options.create(true).append(true).open(path);
    let mut file = file.with_context(|| path.display().to_string())?;
    Ok(writeln!(file, "{record}")?)
}
