//! Walks a parsed file: takes settings out by name, remembers where each value
//! came from, and complains of what is left over.
//!
//! All problems are collected, so that a person mends a file in one go. No
//! problem repeats a value that it could not read; a file may hold secrets in
//! the wrong place.

use std::{collections::BTreeMap, fmt, ops::Range, path::PathBuf};

use serde_json::Value as Json;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::values::Value;

/// Where a value came from; the earlier wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// A flag of the command line.
    Flag,
    /// An environment variable.
    Environment,
    /// The configuration file.
    File,
    /// Nobody said anything.
    Default,
}

/// A setting in force.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Setting {
    /// Its path: `patience.gap`, `servers[0].url`.
    pub key: String,
    /// Its value, as it is written. Never a secret.
    pub value: Json,
    /// Where it came from.
    pub from: Origin,
    /// The flag, the variable, or file and line; `null` for a default.
    pub at: Option<String>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// File, line and column; flag or variable.
    pub at: String,
    /// What is wrong there.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.message)
    }
}

/// A flag or variable that has a word in a setting.
pub(super) struct Override {
    pub(super) from: Origin,
    /// `--listen` or `LOVABLE_LISTEN`.
    pub(super) name: String,
    pub(super) text: String,
}

/// What is gathered on the way through the file.
pub(super) struct Reader<'a> {
    pub(super) file: PathBuf,
    pub(super) text: &'a str,
    pub(super) overrides: BTreeMap<&'static str, Override>,
    pub(super) settings: Vec<Setting>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
    /// The files that have a word in it.
    pub(super) files: Vec<PathBuf>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: PathBuf, text: &'a str) -> Self {
        Self {
            files: vec![file.clone()],
            file,
            text,
            overrides: BTreeMap::new(),
            settings: Vec::new(),
            problems: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// The whole file as one section.
    pub(super) fn root(&mut self) -> Section<'a> {
        let table = match DeTable::parse(self.text) {
            Ok(table) => table.into_inner(),
            Err(error) => {
                // The message alone: the full text quotes the line.
                self.problem(error.span(), error.message().to_owned());
                DeTable::default()
            }
        };
        Section { path: String::new(), span: None, table, known: Vec::new() }
    }

    pub(super) fn at(&self, span: Option<Range<usize>>) -> String {
        match span {
            Some(span) => {
                let before = self.text.as_bytes().get(..span.start).unwrap_or_default();
                let line = 1 + before.iter().filter(|it| **it == b'\n').count();
                format!("{}:{line}", self.file.display())
            }
            None => self.file.display().to_string(),
        }
    }

    /// The same with the column, counted in characters as editors do.
    fn place(&self, span: Option<Range<usize>>) -> String {
        let start = span.as_ref().map(|it| it.start);
        let column = start.and_then(|it| self.text.get(..it)).map(|before| {
            let line = before.rsplit('\n').next().unwrap_or_default();
            1 + line.chars().count()
        });
        match column {
            Some(column) => format!("{}:{column}", self.at(span)),
            None => self.at(span),
        }
    }

    pub(super) fn problem(&mut self, span: Option<Range<usize>>, message: String) {
        let at = self.place(span);
        self.problems.push(Problem { at, message });
    }

    pub(super) fn setting(&mut self, key: String, value: Json, from: Origin, at: Option<String>) {
        self.settings.push(Setting { key, value, from, at });
    }
}

/// A table of the file. What is taken by name is known; `done` refuses the rest.
pub(super) struct Section<'a> {
    path: String,
    /// Where it stands, for what is missing in it.
    pub(super) span: Option<Range<usize>>,
    table: DeTable<'a>,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// Takes a setting, if anybody has set it, into `value`; records what holds.
    pub(super) fn take<T: Value>(&mut self, reader: &mut Reader<'_>, key: &'static str, value: &mut T) {
        let path = self.key(key);
        let mut origin = (Origin::Default, None);
        if let Some((found, span)) = self.take_raw(key) {
            match T::from_toml(&found) {
                Ok(read) => {
                    *value = read;
                    origin = (Origin::File, Some(reader.at(Some(span))));
                }
                Err(why) => reader.problem(Some(span), format!("`{path}` {why}")),
            }
        }
        if let Some(over) = reader.overrides.get(path.as_str()) {
            match T::from_text(&over.text) {
                Ok(read) => {
                    *value = read;
                    origin = (over.from, Some(over.name.clone()));
                }
                Err(message) => reader.problems.push(Problem { at: over.name.clone(), message }),
            }
        }
        reader.setting(path, value.show(), origin.0, origin.1);
    }

    /// Takes a value that the caller reads and records by itself.
    pub(super) fn take_raw(&mut self, key: &'static str) -> Option<(DeValue<'a>, Range<usize>)> {
        self.known.push(key);
        self.table.remove(key).map(|it| (it.get_ref().clone(), it.span()))
    }

    /// Takes a table; one that is not there is empty.
    pub(super) fn section(&mut self, reader: &mut Reader<'_>, key: &'static str) -> Section<'a> {
        let path = self.key(key);
        let (table, span) = match self.take_raw(key) {
            Some((DeValue::Table(table), span)) => (table, Some(span)),
            Some((_, span)) => {
                reader.problem(Some(span), format!("`{path}` must be a table: [{path}]"));
                (DeTable::default(), None)
            }
            None => (DeTable::default(), None),
        };
        Section { path, span, table, known: Vec::new() }
    }

    /// Takes a list of tables.
    pub(super) fn list(&mut self, reader: &mut Reader<'_>, key: &'static str) -> Vec<Section<'a>> {
        let path = self.key(key);
        let Some((value, span)) = self.take_raw(key) else { return Vec::new() };
        let wrong = format!("`{path}` must be a list of tables: [[{path}]]");
        let DeValue::Array(list) = value else {
            reader.problem(Some(span), wrong);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (at, item) in list.into_iter().enumerate() {
            let span = item.span();
            match item.into_inner() {
                DeValue::Table(table) => {
                    let path = format!("{path}[{at}]");
                    sections.push(Section { path, span: Some(span), table, known: Vec::new() });
                }
                _ => reader.problem(Some(span), wrong.clone()),
            }
        }
        sections
    }

    /// Takes all that is left, for a table whose keys are the person's own words.
    pub(super) fn entries(&mut self) -> Vec<(String, Spanned<DeValue<'a>>)> {
        std::mem::take(&mut self.table)
            .into_iter()
            .map(|(key, value)| (key.into_inner().into_owned(), value))
            .collect()
    }

    /// The full name of one of its keys.
    pub(super) fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Refuses what was not taken, with the nearest name that exists.
    pub(super) fn done(self, reader: &mut Reader<'_>) {
        for key in self.table.keys() {
            let name = key.get_ref();
            let full = self.key(name);
            let message = match nearest(name, &self.known) {
                Some(known) => format!("unknown setting `{full}`; did you mean `{}`?", self.key(known)),
                None => format!("unknown setting `{full}`; known here: {}", self.known.join(", ")),
            };
            reader.problem(Some(key.span()), message);
        }
    }
}

/// The name that was probably meant.
fn nearest<'n>(name: &str, known: &[&'n str]) -> Option<&'n str> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    known
        .iter()
        .map(|it| (strsim::jaro_winkler(&name, it), *it))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, it)| it)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_finds_the_one_that_was_meant() {
        let known = ["connect", "first_token", "load", "gap", "before_commit", "open_after"];
        for (name, meant) in [
            ("conect", Some("connect")),
            ("first-token", Some("first_token")),
            ("firsttoken", Some("first_token")),
            ("Gap", Some("gap")),
            ("zzz", None),
        ] {
            assert_eq!(nearest(name, &known), meant, "{name}");
        }
    }
}
