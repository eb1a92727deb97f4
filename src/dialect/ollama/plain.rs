//! Judges an answer that came whole.

use serde_json::value::RawValue;

use super::{line::Line, reader::Reader};
use crate::{
    dialect::{Door, Plain, Reader as _, json},
    fault::Cause,
    generate::Event,
};

/// Judges the body of a 200.
pub(super) fn judge(door: Door, body: &[u8], events: Option<&mut Vec<Event>>) -> Result<Plain, Cause> {
    if body.trim_ascii().is_empty() {
        return Err(Cause::Empty);
    }
    let line = Line::read(body).ok_or(Cause::Unreadable)?;
    if line.is_error() {
        return Err(Cause::ErrorEvent);
    }
    match door {
        Door::OllamaEmbed => {
            let list = line.embeddings.ok_or(Cause::Unreadable)?;
            let list: Vec<&RawValue> = serde_json::from_str(list.get()).map_err(|_| Cause::Unreadable)?;
            vectors(&list, &line, events)?;
        }
        Door::OllamaEmbeddings => vectors(&[line.embedding.ok_or(Cause::Unreadable)?], &line, events)?,
        // A whole answer is a stream of one line.
        _ => {
            let mut reader = Reader::new(door);
            reader.read(body, events);
            reader.end(true)?;
            return Ok(Plain { usage: reader.usage(), reason: reader.reason(), model: line.model() });
        }
    }
    Ok(Plain { usage: line.usage(), reason: None, model: line.model() })
}

fn vectors(list: &[&RawValue], line: &Line<'_>, events: Option<&mut Vec<Event>>) -> Result<(), Cause> {
    if list.is_empty() {
        return Err(Cause::Empty);
    }
    for vector in list {
        if !vector.get().starts_with('[') {
            return Err(Cause::Unreadable);
        }
        if json::is_nothing(vector) {
            return Err(Cause::Empty);
        }
    }
    if let Some(events) = events {
        for vector in list {
            let vector = serde_json::from_str(vector.get()).map_err(|_| Cause::Unreadable)?;
            events.push(Event::Vector(vector));
        }
        events.push(Event::Usage(line.usage()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{Reason, Usage};

    fn check(door: Door, body: &str, expected: Result<Option<Reason>, Cause>) {
        let judged = judge(door, body.as_bytes(), None).map(|it| it.reason);
        assert_eq!(judged, expected, "for {body}");
        let mut events = Vec::new();
        assert_eq!(judge(door, body.as_bytes(), Some(&mut events)).map(|it| it.reason), expected);
    }

    #[test]
    fn an_answer_is_whole_or_a_fault() {
        use Door::{OllamaChat, OllamaEmbed, OllamaEmbeddings, OllamaGenerate};
        let message = |end: &str| format!("{{\"model\":\"m\",\"message\":{{\"content\":\"a\"}}{end}}}");
        check(OllamaChat, &message(",\"done\":true,\"done_reason\":\"stop\""), Ok(Some(Reason::Stop)));
        check(OllamaChat, &message(",\"done\":true"), Err(Cause::EarlyEnd));
        check(OllamaChat, &message(",\"done\":false"), Err(Cause::EarlyEnd));
        check(OllamaChat, "{\"done\":true,\"done_reason\":\"stop\"}", Err(Cause::Unreadable));
        check(
            OllamaGenerate,
            "{\"response\":\"\",\"done\":true,\"done_reason\":\"length\"}",
            Ok(Some(Reason::Length)),
        );
        check(OllamaGenerate, "{\"error\":\"x\"}", Err(Cause::ErrorEvent));
        check(OllamaGenerate, "", Err(Cause::Empty));
        check(OllamaGenerate, "<html>", Err(Cause::Unreadable));
        check(OllamaEmbed, "{\"embeddings\":[[0.1],[1]]}", Ok(None));
        check(OllamaEmbed, "{\"embeddings\":[]}", Err(Cause::Empty));
        check(OllamaEmbed, "{\"embeddings\":[[]]}", Err(Cause::Empty));
        check(OllamaEmbed, "{\"embeddings\":[5]}", Err(Cause::Unreadable));
        check(OllamaEmbed, "{\"embedding\":[0.1]}", Err(Cause::Unreadable));
        check(OllamaEmbeddings, "{\"embedding\":[0.1]}", Ok(None));
        check(OllamaEmbeddings, "{\"embedding\":[]}", Err(Cause::Empty));
    }

    #[test]
    fn vectors_come_in_the_order_of_the_inputs() {
        let body = br#"{"model":"m","embeddings":[[0.5,-1],[2,0.25]],"prompt_eval_count":4}"#;
        let mut events = Vec::new();
        let plain = judge(Door::OllamaEmbed, body, Some(&mut events)).unwrap();
        let usage = Usage { input_tokens: Some(4), ..Usage::default() };
        assert_eq!(plain, Plain { usage, reason: None, model: Some("m".to_owned()) });
        let vectors = [Event::Vector(vec![0.5, -1.0]), Event::Vector(vec![2.0, 0.25]), Event::Usage(usage)];
        assert_eq!(events, vectors);
    }
}
