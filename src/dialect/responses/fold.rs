//! Makes one whole answer out of a stream.
//!
//! The last event has it, as the server itself puts it together, and that is
//! kept as it was written. Some servers leave the output out there: then it is
//! made of the items as they were when they were done.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::Whole;
use crate::{
    dialect::json::{self, is_nothing},
    fault::Cause,
};

/// Collects what a whole answer is made of.
#[derive(Debug, Default)]
pub(super) struct Fold {
    items: BTreeMap<u64, String>,
    response: Option<Bytes>,
    held: usize,
    broken: bool,
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow)]
    r#type: Option<&'a RawValue>,
    #[serde(borrow)]
    item: Option<&'a RawValue>,
    #[serde(borrow)]
    response: Option<&'a RawValue>,
    #[serde(borrow)]
    output_index: Option<&'a RawValue>,
}

impl Fold {
    fn try_add(&mut self, data: &[u8]) -> Option<()> {
        let frame: Frame<'_> = serde_json::from_slice(data).ok()?;
        match json::text(frame.r#type?)?.as_ref() {
            "response.output_item.done" => {
                let item = frame.item?.get();
                // Without a number it follows the one before.
                let next = self.items.last_key_value().map_or(0, |(last, _)| last + 1);
                let at = frame.output_index.and_then(|it| it.get().parse().ok()).unwrap_or(next);
                self.held += item.len();
                self.items.insert(at, item.to_owned());
            }
            "response.completed" | "response.incomplete" => {
                let response = frame.response?.get();
                self.held += response.len();
                self.response = Some(Bytes::copy_from_slice(response.as_bytes()));
            }
            _ => {}
        }
        Some(())
    }
}

impl crate::dialect::Fold for Fold {
    fn add(&mut self, data: &[u8]) {
        if data.trim_ascii() != b"[DONE]" && self.try_add(data).is_none() {
            self.broken = true;
        }
    }

    fn held(&self) -> usize {
        self.held
    }

    fn is_broken(&self) -> bool {
        self.broken
    }

    fn finish(self: Box<Self>) -> Result<Bytes, Cause> {
        if self.broken {
            return Err(Cause::Unreadable);
        }
        let response = self.response.ok_or(Cause::EarlyEnd)?;
        let whole = Whole::read(&response).ok_or(Cause::Unreadable)?;
        if whole.output.is_some_and(|it| !is_nothing(it)) || self.items.is_empty() {
            return Ok(response);
        }
        let items: Vec<&str> = self.items.values().map(String::as_str).collect();
        Ok(json::set(&response, &[("output", &format!("[{}]", items.join(",")))]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Fold as _;

    fn check(frames: &[&str], expected: Result<&str, Cause>) {
        let mut fold = Box::<Fold>::default();
        for frame in frames {
            fold.add(frame.as_bytes());
        }
        assert_eq!(
            fold.finish().as_deref(),
            expected.map(str::as_bytes).as_ref().map(|it| *it),
            "for {frames:?}"
        );
    }

    const ITEM: &str =
        r#"{"type":"response.output_item.done","output_index":0,"item":{"type":"message","x":1.10}}"#;

    #[test]
    fn the_answer_is_kept_as_it_was_written() {
        let response = r#"{"id":"r", "status":"completed","output":[{"type":"message"}],"unknown":1.10}"#;
        let last = format!("{{\"type\":\"response.completed\",\"response\":{response}}}");
        check(&[r#"{"type":"response.created","response":{"id":"r"}}"#, ITEM, &last, "[DONE]"], Ok(response));
    }

    #[test]
    fn an_output_that_is_left_out_is_made_of_the_items() {
        check(
            &[ITEM, r#"{"type":"response.incomplete","response":{"id":"r","output":[]}}"#],
            Ok(r#"{"id":"r","output":[{"type":"message","x":1.10}]}"#),
        );
        check(
            &[ITEM, r#"{"type":"response.completed","response":{"id":"r"}}"#],
            Ok(r#"{"output":[{"type":"message","x":1.10}],"id":"r"}"#),
        );
    }

    #[test]
    fn what_cannot_be_put_together_is_a_fault() {
        check(&[ITEM], Err(Cause::EarlyEnd));
        check(&["{"], Err(Cause::Unreadable));
        check(&[r#"{"type":"response.completed"}"#], Err(Cause::Unreadable));
        check(&[r#"{"type":"response.completed","response":5}"#], Err(Cause::Unreadable));
    }
}
