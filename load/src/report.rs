//! Numbers and tables for people.

use comfy_table::{CellAlignment, Table, presets};

/// A table in Markdown: numbers to the right, names to the left.
#[must_use]
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header.to_vec());
    for index in 1..header.len() {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Three digits that say something.
#[must_use]
pub fn digits(value: f64) -> String {
    let decimals = match value.abs() {
        value if value >= 99.95 => 0,
        value if value >= 9.995 => 1,
        value if value >= 0.9995 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits() {
        let shown = [0.1234, 0.99949, 1.234, 9.9951, 12.34, 99.96, 1234.5].map(digits);
        assert_eq!(shown, ["0.123", "0.999", "1.23", "10.0", "12.3", "100", "1234"]);
    }
}
