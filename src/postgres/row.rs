//! Outcomes as a database gets them.
//!
//! What tells one from all others is what is in it, and its number: a row of the ledger is never
//! changed, so whoever sends it again, under whatever name, sends the same.

use ring::digest::{SHA256, digest};
use serde_json::{Map, Value as Json, json};

use crate::{
    ledger,
    wire::{COLUMNS, RequestView, Value, flat},
};

/// A piece of what is sent: rows as JSON, with their numbers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Batch {
    rows: Vec<(u64, Json)>,
    /// Once these are sent, so is everything up to this number.
    pub(super) until: u64,
}

impl Batch {
    /// Of rows as the ledger has them. One that is damaged is left out.
    pub(super) fn of(rows: &[(u64, Vec<u8>)]) -> Self {
        let until = rows.last().map_or(0, |(number, _)| *number);
        let rows = rows.iter().filter_map(|(number, row)| Some((*number, of(*number, row)?))).collect();
        Self { rows, until }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// All of them as one text.
    pub(super) fn text(&self) -> String {
        // Text cannot fail to be written.
        serde_json::to_string(&self.rows.iter().map(|(_, row)| row).collect::<Vec<_>>()).unwrap_or_default()
    }

    /// The first half and the other one.
    pub(super) fn halves(mut self) -> [Self; 2] {
        let rest = Self { rows: self.rows.split_off(self.rows.len() / 2), until: self.until };
        let until = self.rows.last().map_or(0, |(number, _)| *number);
        [Self { until, ..self }, rest]
    }
}

fn of(number: u64, row: &[u8]) -> Option<Json> {
    let view = RequestView::from(&ledger::read(row).ok()?);
    let mut fields = Map::new();
    fields.insert("id".to_owned(), json!(id(number, row)));
    fields.insert("attempt_list".to_owned(), serde_json::to_value(&view.attempts).ok()?);
    for ((name, _), value) in COLUMNS.iter().zip(flat(&view)) {
        let value = match value {
            Value::Null => Json::Null,
            Value::Text(it) => json!(it),
            Value::Int(it) => json!(it),
            Value::Real(it) => json!(it),
            Value::Bool(it) => json!(it),
        };
        fields.insert((*name).to_owned(), value);
    }
    let mut row = Json::Object(fields);
    take_out_nul(&mut row);
    Some(row)
}

fn id(number: u64, row: &[u8]) -> String {
    let digest = digest(&SHA256, &[&number.to_be_bytes(), row].concat());
    digest.as_ref().iter().take(16).map(|it| format!("{it:02x}")).collect()
}

/// Texts of PostgreSQL cannot have the character 0 in them; names of models can, for a caller may
/// ask for any.
fn take_out_nul(json: &mut Json) {
    match json {
        Json::String(text) if text.contains('\0') => *text = text.replace('\0', "\u{fffd}"),
        Json::Array(list) => list.iter_mut().for_each(take_out_nul),
        Json::Object(map) => map.values_mut().for_each(take_out_nul),
        Json::String(_) | Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ledger::tests::outcome;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn a_row_has_every_column_once_and_nothing_that_postgresql_cannot_hold(
            outcome in outcome(), number in any::<u64>(),
        ) {
            let row = ledger::row(&outcome);
            let batch = Batch::of(&[(1, row.clone()), (number, vec![255])]);
            prop_assert_eq!((batch.len(), batch.until), (1, number));
            let text = batch.text();
            prop_assert!(!text.contains("\\u0000"));
            let rows: Vec<Map<String, Json>> = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(rows[0].len(), COLUMNS.len() + 2);
            prop_assert_eq!(Batch::of(&[(1, row.clone())]).text(), batch.text());
            prop_assert_ne!(id(number.wrapping_add(1), &row), id(number, &row));
        }
    }

    proptest! {
        #[test]
        fn halves_are_the_whole_in_its_order(outcomes in proptest::collection::vec(outcome(), 2..9)) {
            let rows: Vec<_> = (3..).zip(outcomes.iter().map(ledger::row)).collect();
            let whole = Batch::of(&rows);
            let [first, second] = whole.clone().halves();
            prop_assert!(first.len() > 0 && second.len() > 0 && first.until < second.until);
            prop_assert_eq!(second.until, whole.until);
            prop_assert_eq!([first.rows, second.rows].concat(), whole.rows);
        }
    }

    #[test]
    fn the_character_0_is_replaced_wherever_it_stands() {
        let mut json = json!({ "a": ["x\0y", { "b": "\0" }], "c": 1 });
        take_out_nul(&mut json);
        assert_eq!(json, json!({ "a": ["x\u{fffd}y", { "b": "\u{fffd}" }], "c": 1 }));
    }
}
