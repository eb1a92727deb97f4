//! The beginning of an answer, as it comes in a request: as the last turn, or at the end of a
//! prompt.

use serde_json::Value;

use super::{ask::Gate, shape::Shape};

/// What opens thinking in a text, and what closes it.
pub(super) const THINK: (&str, &str) = ("<think>", "</think>");

/// The beginning of an answer.
#[derive(Clone, Default)]
pub(super) struct Begun {
    pub(super) text: String,
    /// How many thoughts were thought.
    pub(super) thoughts: usize,
    /// Whether the thinking goes on.
    pub(super) inside: bool,
    /// Whether it is the end of a prompt, with something before it.
    pub(super) ends_prompt: bool,
    /// How many bytes of the prompt are thinking.
    pub(super) thought_bytes: usize,
}

/// The beginning of the answer, taken off the turns. vLLM goes on with it where two flags say
/// so, llama.cpp and LM Studio by themselves, and whoever continues a text does. Only llama.cpp
/// goes on inside a turn's thinking.
pub(super) fn taken(shape: Shape, gate: Gate, body: &Value, turns: &mut Vec<Value>) -> Option<Begun> {
    let flag = &body["continue_final_message"];
    let is_told = *flag == true && body["add_generation_prompt"] == false;
    let inside = shape == Shape::LlamaCpp && flag == "reasoning_content";
    let goes_on = match (shape, gate) {
        (Shape::LlamaCpp | Shape::LmStudio, Gate::Chat) => true,
        (Shape::Vllm, Gate::Chat) => is_told,
        (_, Gate::Complete) | (Shape::Ollama, Gate::OllamaGenerate) => {
            let raw = gate == Gate::Complete || body["raw"] == true;
            return Some(at_end_of(body["prompt"].as_str().filter(|_| raw)?));
        }
        _ => false,
    };
    let last = turns.last().filter(|it| goes_on && it["role"] == "assistant")?;
    let begun = Begun {
        text: last["content"].as_str()?.to_owned(),
        thoughts: words(last["reasoning_content"].as_str().unwrap_or_default()),
        inside,
        ..Begun::default()
    };
    turns.pop();
    Some(begun)
}

fn at_end_of(prompt: &str) -> Begun {
    let begun = Begun { text: prompt.to_owned(), ends_prompt: true, ..Begun::default() };
    let Some(at) = prompt.rfind(THINK.0) else { return begun };
    let thinking = &prompt[at + THINK.0.len()..];
    let end = thinking.find(THINK.1);
    Begun {
        thoughts: words(&thinking[..end.unwrap_or(thinking.len())]),
        inside: end.is_none(),
        thought_bytes: end.map_or(prompt.len() - at, |it| THINK.0.len() + it + THINK.1.len()),
        ..begun
    }
}

/// A conversation as a text: the JSON of its turns, so that it weighs the same, and behind it
/// what was begun.
pub(super) fn rendered(body: &Value, is_begun: bool) -> (String, String) {
    let turns = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let last = turns.split_last().filter(|(it, _)| is_begun && it["role"] == "assistant");
    let Some((last, before)) = last else { return (body["messages"].to_string(), String::new()) };
    let said = |name: &str| last[name].as_str().unwrap_or_default();
    let thinking = format!("{}{}", said("reasoning_content"), said("thinking"));
    let thinking = match thinking.as_str() {
        "" => thinking,
        _ => format!("{}{thinking}{}", THINK.0, THINK.1),
    };
    (Value::from(before).to_string(), thinking + said("content"))
}

/// How many words a text has: each begins after a blank.
pub(super) fn words(text: &str) -> usize {
    match text.trim() {
        "" => 0,
        text => 1 + text.matches(char::is_whitespace).count(),
    }
}

/// How many tokens a text has: a word of an answer is one, and else four bytes are.
pub(super) fn tokens(text: &str) -> usize {
    if text.contains('{') {
        return text.len().div_ceil(4);
    }
    let parts = text.split(THINK.0).flat_map(|it| it.split(THINK.1));
    parts.map(words).sum()
}
