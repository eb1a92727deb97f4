//! What can be asked of whom: every language, every kind of server, every feature.
//!
//! The table is made of the core itself, with an example request for each
//! feature, so it cannot say what is not so. `tests/prove dialects` prints it.

use std::fmt::Write as _;

use bytes::Bytes;
use lovable::{
    dialect::{
        Door, To,
        bridge::{self, Way},
    },
    generate::Meaning,
    kind::{self, KINDS},
};

use crate::dialect_example::examples;

/// How a request gets to a server of this kind.
fn cell(kind: &str, door: Door, body: &Bytes) -> Result<&'static str, String> {
    let dialect = door.dialect();
    let request = dialect.peek(door, body).map_err(|it| it.message())?;
    let Some(way) = bridge::pick(kind::doors(kind, request.head.operation), door) else {
        return Err("no door of this kind does that".to_owned());
    };
    let to = To {
        model: "m",
        stream: request.head.stream,
        ask_usage: request.asks_usage,
        max_tokens: true,
        sold: None,
    };
    match way {
        Way::Same => Ok("as it is"),
        Way::Other(other) => {
            let meaning: Meaning = dialect.understand(door, body).map_err(|it| it.message())?;
            let asked = other.dialect().ask(other, &meaning, &to).map_err(|it| it.to_string())?;
            // What was asked must itself be a request that can be read.
            other
                .dialect()
                .peek(other, &asked.body)
                .unwrap_or_else(|it| panic!("{door} to {other}: {}", it.message()));
            Ok(if asked.forced.is_some() { "translated, forced by its form" } else { "translated" })
        }
    }
}

#[test]
fn the_table_of_what_can_be_asked_of_whom_has_no_cell_unexplained() {
    let mut shown = String::new();
    for door in Door::ALL {
        writeln!(shown, "## {} {door}\n", door.dialect().id()).unwrap();
        // Whoever sells answers is told as an OpenAI or an Anthropic is.
        let own = KINDS.iter().filter(|it| it.provider().is_none());
        let kinds: Vec<&str> = own.map(|it| it.id()).collect();
        writeln!(shown, "| | {} |\n|---|{}", kinds.join(" | "), "---|".repeat(kinds.len())).unwrap();
        let mut notes: Vec<String> = Vec::new();
        for (feature, body) in examples(door) {
            let body = Bytes::from(body.to_string());
            let cells: Vec<String> = kinds
                .iter()
                .map(|kind| match cell(kind, door, &body) {
                    Ok(how) => how.to_owned(),
                    Err(why) => {
                        assert!(!why.is_empty(), "{door}, {feature}, {kind}: a refusal must say why");
                        format!("refused: {}", note(&mut notes, why))
                    }
                })
                .collect();
            writeln!(shown, "| {feature} | {} |", cells.join(" | ")).unwrap();
        }
        shown.push('\n');
        for (at, why) in notes.iter().enumerate() {
            writeln!(shown, "{}. {why}", at + 1).unwrap();
        }
        shown.push('\n');
    }
    eprintln!("{shown}");
    insta::assert_snapshot!("table", shown);
}

/// The number of this reason among the notes below the table.
fn note(notes: &mut Vec<String>, why: String) -> usize {
    match notes.iter().position(|it| *it == why) {
        Some(at) => at + 1,
        None => {
            notes.push(why);
            notes.len()
        }
    }
}
