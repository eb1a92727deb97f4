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
