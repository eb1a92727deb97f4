//! How long a suite runs, and where its table goes.
//!
//! `cargo test` runs every suite in short form. `tests/prove` sets
//! `LOVABLE_PROVE` and runs the same suites at full length.

use std::fmt::Write as _;

/// Whether this is the long run.
pub(crate) fn is_full() -> bool {
    std::env::var_os("LOVABLE_PROVE").is_some()
}

/// How often something is repeated.
pub(crate) fn times(short: usize, full: usize) -> usize {
    if is_full() { full } else { short }
}

/// A table for people, shown with `--nocapture` and kept under `target/prove`.
#[derive(Debug)]
pub(crate) struct Table {
    title: String,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(title: &str, columns: &[&str]) -> Self {
        Self { title: title.to_owned(), rows: vec![columns.iter().map(|it| (*it).to_owned()).collect()] }
    }

    pub(crate) fn row(&mut self, cells: &[&dyn std::fmt::Display]) {
        self.rows.push(cells.iter().map(ToString::to_string).collect());
    }

    /// Prints the table and keeps it, in a run of `tests/prove`.
    pub(crate) fn show(&self) {
        let text = self.text();
        #[expect(clippy::print_stdout, reason = "the table is what the suite is run for")]
        {
            println!("\n{text}");
        }
        if is_full() {
            let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/prove");
            let name: String =
                self.title.chars().map(|it| if it.is_ascii_alphanumeric() { it } else { '-' }).collect();
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(directory.join(format!("{name}.txt")), text).unwrap();
        }
    }

    pub(crate) fn text(&self) -> String {
        let widths: Vec<usize> = (0..self.rows[0].len())
            .map(|column| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        let mut out = format!("{}\n", self.title);
        for row in &self.rows {
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(out, "  {cell:<width$}");
            }
            out.truncate(out.trim_end().len());
            out.push('\n');
        }
        out
    }
}
