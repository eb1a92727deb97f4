//! Judges an answer that came whole.

use serde_json::value::RawValue;

use super::{
    UNSIGNED,
    frame::{Block, Counts, Frame, Stop, something},
};
use crate::{dialect::Plain, fault::Cause, generate::Event};

/// Judges the body of a 200. LM Studio has such bodies with nothing but an error.
pub(super) fn judge_plain(body: &[u8], events: Option<&mut Vec<Event>>) -> Result<Plain, Cause> {
    if body.trim_ascii().is_empty() {
        return Err(Cause::Empty);
    }
    let message = Frame::read(body).ok_or(Cause::Unreadable)?;
    if message.is_error() {
        return Err(Cause::ErrorEvent);
    }
    let content = message.content.ok_or(Cause::Unreadable)?;
    let blocks: Vec<&RawValue> = serde_json::from_str(content.get()).map_err(|_| Cause::Unreadable)?;
    let reason = something(message.stop_reason).ok_or(Cause::EarlyEnd)?;
    let Stop::Whole(reason) = Stop::of(&reason) else { return Err(Cause::ErrorEvent) };
    let mut all = Vec::new();
    let mut calls = 0;
    for block in &blocks {
        let block = Block::read(Some(block)).ok_or(Cause::Unreadable)?;
        say(&block, &mut calls, &mut all).ok_or(Cause::Unreadable)?;
    }
    let mut counts = Counts::default();
    counts.take(message.usage);
    let usage = counts.usage(!blocks.is_empty());
    if let Some(events) = events {
        all.push(Event::Usage(usage));
        all.push(Event::Finished { reason, stop: something(message.stop_sequence) });
        events.append(&mut all);
    }
    Ok(Plain { usage, reason: Some(reason), model: something(message.model) })
}

/// What a block means; `None` is one without a type.
fn say(block: &Block<'_>, calls: &mut usize, events: &mut Vec<Event>) -> Option<()> {
    match block.kind()?.as_ref() {
        "text" => events.push(Event::Text(block.text().into_owned())),
        "thinking" => {
            events.push(Event::Thinking(block.thinking().into_owned()));
            let signature = block.signature();
            if !signature.is_empty() && signature != UNSIGNED {
                events.push(Event::Signature(signature.into_owned()));
            }
        }
        "redacted_thinking" => events.push(Event::Signature(block.data().into_owned())),
        "tool_use" => {
            let index = *calls;
            *calls += 1;
            events.push(Event::Call { index, id: block.id(), name: block.name().into_owned() });
            let text = block.input.map_or("{}", |it| it.get()).to_owned();
            events.push(Event::Arguments { index, text });
        }
        // The server's own tools: only a caller of this language asks for them.
        _ => {}
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{Reason, Usage};

    fn message(content: &str, reason: &str) -> String {
        format!(
            "{{\"id\":\"m\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"x\",\"content\":{content},\
             \"stop_reason\":{reason},\"stop_sequence\":null,\"usage\":{{\"input_tokens\":3,\"output_tokens\":2}}}}"
        )
    }

    fn check(body: &str, expected: Result<Reason, Cause>) {
        let judged = judge_plain(body.as_bytes(), None).map(|it| it.reason.unwrap());
        assert_eq!(judged, expected, "for {body}");
    }

    #[test]
    fn an_answer_is_whole_or_a_fault() {
        let text = "[{\"type\":\"text\",\"text\":\"a\"}]";
        check(&message(text, "\"end_turn\""), Ok(Reason::Stop));
        check(&message(text, "\"max_tokens\""), Ok(Reason::Length));
        check(&message("[]", "\"end_turn\""), Ok(Reason::Stop));
        check(&message(text, "null"), Err(Cause::EarlyEnd));
        check(&message(text, "\"abort\""), Err(Cause::ErrorEvent));
        check(&message("null", "\"end_turn\""), Err(Cause::Unreadable));
        check(&message("\"a\"", "\"end_turn\""), Err(Cause::Unreadable));
        check(&message("[5]", "\"end_turn\""), Err(Cause::Unreadable));
        check(&message("[{}]", "\"end_turn\""), Err(Cause::Unreadable));
        check("", Err(Cause::Empty));
        check("<html>", Err(Cause::Unreadable));
        check("{}", Err(Cause::Unreadable));
        check("{\"error\":\"Unexpected endpoint or method. (POST /v1/messages)\"}", Err(Cause::ErrorEvent));
        check(r#"{"type":"error","error":{"type":"api_error","message":"x"}}"#, Err(Cause::ErrorEvent));
    }

    #[test]
    fn it_says_what_it_means() {
        let content = r#"[{"type":"thinking","thinking":"hm","signature":"s"},{"type":"text","text":"a"},
            {"type":"tool_use","id":"t","name":"f","input":{"a": 1}}]"#;
        let mut events = Vec::new();
        let plain = judge_plain(message(content, "\"tool_use\"").as_bytes(), Some(&mut events)).unwrap();
        let usage = Usage { input_tokens: Some(3), output_tokens: Some(2), ..Usage::default() };
        let expected = [
            Event::Thinking("hm".to_owned()),
            Event::Signature("s".to_owned()),
            Event::Text("a".to_owned()),
            Event::Call { index: 0, id: Some("t".to_owned()), name: "f".to_owned() },
            Event::Arguments { index: 0, text: "{\"a\": 1}".to_owned() },
            Event::Usage(usage),
            Event::Finished { reason: Reason::ToolCalls, stop: None },
        ];
        assert_eq!(events, expected);
        let expected = Plain { usage, reason: Some(Reason::ToolCalls), model: Some("x".to_owned()) };
        assert_eq!(plain, expected);
    }
}
