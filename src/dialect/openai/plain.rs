//! Judges an answer that came whole.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    dialect::{
        Plain, json,
        openai::{
            base64,
            chunk::{Chunk, Finish},
            events::Events,
        },
    },
    fault::Cause,
    generate::{Event, Operation, Reason, Usage},
};

/// Judges the body of a 200. LM Studio has such bodies with nothing but an error.
pub fn judge_plain(operation: Operation, body: &[u8]) -> Result<Plain, Cause> {
    if body.trim_ascii().is_empty() {
        return Err(Cause::Empty);
    }
    let chunk = Chunk::read(body).ok_or(Cause::Unreadable)?;
    if chunk.is_error() {
        return Err(Cause::ErrorEvent);
    }
    let reason = match operation {
        Operation::Chat | Operation::Complete => Some(whole(operation, &chunk)?),
        Operation::Embed => {
            vectors(chunk.data.ok_or(Cause::Unreadable)?)?;
            None
        }
    };
    Ok(Plain { usage: chunk.usage().unwrap_or_default(), reason, model: chunk.model() })
}

/// Every choice must have what was said, which may be nothing, and why it ended.
fn whole(operation: Operation, chunk: &Chunk<'_>) -> Result<Reason, Cause> {
    let choices = chunk.choices.as_ref().ok_or(Cause::Unreadable)?;
    let mut last = None;
    for choice in choices.iter() {
        let is_there = match operation {
            Operation::Chat => choice.message.is_some(),
            Operation::Complete | Operation::Embed => choice.text.is_some(),
        };
        if !is_there {
            return Err(Cause::Unreadable);
        }
        match choice.finish() {
            Some(Finish::Whole(reason)) => last = last.or(Some(reason)),
            Some(Finish::Failed) => return Err(Cause::ErrorEvent),
            None => return Err(Cause::EarlyEnd),
        }
    }
    last.ok_or(Cause::Empty)
}

fn vectors(data: &RawValue) -> Result<(), Cause> {
    #[derive(Deserialize)]
    struct Vector<'a> {
        #[serde(borrow)]
        embedding: Option<&'a RawValue>,
    }
    let vectors: Vec<Vector<'_>> = serde_json::from_str(data.get()).map_err(|_| Cause::Unreadable)?;
    if vectors.is_empty() {
        return Err(Cause::Empty);
    }
    for vector in vectors {
        // A list of numbers, or base64 of them.
        let embedding = vector.embedding.ok_or(Cause::Unreadable)?;
        if !embedding.get().starts_with(['[', '"']) {
            return Err(Cause::Unreadable);
        }
        if json::is_nothing(embedding) {
            return Err(Cause::Empty);
        }
    }
    Ok(())
}

/// Tells what a body means that was judged to be good.
pub(super) fn tell(
    operation: Operation,
    body: &[u8],
    plain: &Plain,
    events: &mut Vec<Event>,
) -> Result<(), Cause> {
    let told = match operation {
        Operation::Chat | Operation::Complete => Events::default().read(body, plain.reason, events),
        Operation::Embed => tell_vectors(body, events),
    };
    told.ok_or(Cause::Unreadable)?;
    if plain.usage != Usage::default() {
        events.push(Event::Usage(plain.usage));
    }
    Ok(())
}

/// Vectors in the order of the inputs, which is not always the one they come in.
fn tell_vectors(body: &[u8], events: &mut Vec<Event>) -> Option<()> {
    #[derive(Deserialize)]
    struct Vectors<'a> {
        #[serde(borrow)]
        data: Vec<Vector<'a>>,
    }
    #[derive(Deserialize)]
    struct Vector<'a> {
        index: Option<u64>,
        #[serde(borrow)]
        embedding: &'a RawValue,
    }
    let mut vectors: Vectors<'_> = serde_json::from_slice(body).ok()?;
    vectors.data.sort_by_key(|it| it.index);
    for vector in vectors.data {
        let numbers = match json::text(vector.embedding) {
            Some(text) => base64::read(&text)?,
            None => serde_json::from_str(vector.embedding.get()).ok()?,
        };
        // What is no number cannot be written again.
        if !numbers.iter().all(|it: &f32| it.is_finite()) {
            return None;
        }
        events.push(Event::Vector(numbers));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(operation: Operation, body: &str, expected: Result<Option<Reason>, Cause>) {
        let judged = judge_plain(operation, body.as_bytes()).map(|it| it.reason);
        assert_eq!(judged, expected, "for {body}");
    }

    #[test]
    fn an_answer_is_whole_or_a_fault() {
        use Operation::{Chat, Complete, Embed};
        let message = |content: &str, reason: &str| {
            format!("{{\"choices\":[{{\"message\":{{\"content\":{content}}},\"finish_reason\":{reason}}}]}}")
        };
        check(Chat, &message("\"a\"", "\"stop\""), Ok(Some(Reason::Stop)));
        check(Chat, &message("\"\"", "\"length\""), Ok(Some(Reason::Length)));
        check(Chat, &message("null", "\"tool_calls\""), Ok(Some(Reason::ToolCalls)));
        check(Chat, &message("\"a\"", "null"), Err(Cause::EarlyEnd));
        check(Chat, &message("\"a\"", "\"abort\""), Err(Cause::ErrorEvent));
        check(Chat, "{\"choices\":[]}", Err(Cause::Empty));
        check(Chat, "{\"choices\":[{\"finish_reason\":\"stop\"}]}", Err(Cause::Unreadable));
        check(Chat, "", Err(Cause::Empty));
        check(Chat, "<html>", Err(Cause::Unreadable));
        check(Chat, "{}", Err(Cause::Unreadable));
        check(Chat, "{\"error\":\"Unexpected endpoint or method. (POST /x)\"}", Err(Cause::ErrorEvent));
        check(Complete, "{\"choices\":[{\"text\":\"\",\"finish_reason\":\"stop\"}]}", Ok(Some(Reason::Stop)));
        check(Embed, "{\"data\":[{\"embedding\":[0.1]}]}", Ok(None));
        check(Embed, "{\"data\":[{\"embedding\":\"AAAA\"}]}", Ok(None));
        check(Embed, "{\"data\":[{\"embedding\":[]}]}", Err(Cause::Empty));
        check(Embed, "{\"data\":[{\"embedding\":null}]}", Err(Cause::Unreadable));
        check(Embed, "{\"data\":[]}", Err(Cause::Empty));
        check(Embed, "{\"data\":{}}", Err(Cause::Unreadable));
    }
}
