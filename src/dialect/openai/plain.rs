//! Judges an answer that came whole.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    dialect::{
        Plain, json,
        openai::chunk::{Chunk, Finish},
    },
    fault::Cause,
    generate::{Operation, Reason},
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
