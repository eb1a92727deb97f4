//! What a chunk or an answer means, for whoever speaks another language.
//!
//! The judging comes first and looks only as deep as it must; this looks again,
//! deeper, and only where something will be translated. Other choices than the
//! first are passed over: no other language can ask for them.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use crate::{
    dialect::json,
    generate::{Event, Reason},
};

/// The most calls in one answer. OpenAI allows 128 tools; an answer that calls
/// without end is a server gone mad.
const MOST_CALLS: usize = 1024;

/// The most of a call's arguments that is held until its name comes.
const MOST_HELD: usize = 1 << 20;

/// Makes events of the chunks of one stream, or of a whole answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Events {
    calls: Vec<Slot>,
    finished: bool,
}

/// A call that has begun.
#[derive(Clone, Debug, Default)]
struct Slot {
    /// As the server numbers it.
    index: Option<u64>,
    id: Option<String>,
    /// Whether its name is known and it has been told of.
    told: bool,
    /// Whether it has arguments.
    argued: bool,
    /// Arguments that came before the name.
    held: String,
}

#[derive(Deserialize)]
struct Deep<'a> {
    #[serde(borrow)]
    choices: Option<Vec<Choice<'a>>>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    index: Option<u32>,
    #[serde(borrow)]
    delta: Option<Said<'a>>,
    #[serde(borrow)]
    message: Option<Said<'a>>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    logprobs: Option<&'a RawValue>,
    #[serde(borrow)]
    stop_reason: Option<&'a RawValue>,
    #[serde(borrow)]
    finish_reason: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Said<'a> {
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    reasoning: Option<&'a RawValue>,
    #[serde(borrow)]
    reasoning_content: Option<&'a RawValue>,
    #[serde(borrow)]
    refusal: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_calls: Option<&'a RawValue>,
    #[serde(borrow)]
    function_call: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Call<'a> {
    index: Option<u64>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    function: Option<Function<'a>>,
}

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
}

impl Events {
    /// Reads what was judged to be good; `reason` is why the answer ended, where it did with
    /// this. `None` where it cannot be read for what it means.
    pub(super) fn read(&mut self, data: &[u8], reason: Option<Reason>, out: &mut Vec<Event>) -> Option<()> {
        let deep: Deep<'_> = serde_json::from_slice(data).ok()?;
        for choice in deep.choices.into_iter().flatten() {
            if choice.index.unwrap_or(0) != 0 || self.finished {
                continue;
            }
            for said in [&choice.delta, &choice.message].into_iter().flatten() {
                self.say(said, out)?;
            }
            if let Some(text) = words(choice.text)? {
                out.push(Event::Text(text));
            }
            let logprobs = choice.logprobs.map(logprobs).unwrap_or_default();
            if !logprobs.is_empty() {
                out.push(Event::Logprobs(logprobs));
            }
            let ends = choice.finish_reason.is_some_and(|it| !json::is_nothing(it));
            if let Some(reason) = reason.filter(|_| ends) {
                // vLLM says which stop string it was; a number is a token's.
                let stop = choice.stop_reason.and_then(json::text).map(Cow::into_owned);
                self.finish(reason, stop, out);
            }
        }
        Some(())
    }

    fn say(&mut self, said: &Said<'_>, out: &mut Vec<Event>) -> Option<()> {
        // Some servers say the same under both names.
        let thought = match words(said.reasoning_content)? {
            Some(thought) => Some(thought),
            None => words(said.reasoning)?,
        };
        out.extend(thought.map(Event::Thinking));
        out.extend(words(said.content)?.map(Event::Text));
        out.extend(words(said.refusal)?.map(Event::Refusal));
        if let Some(calls) = said.tool_calls.filter(|it| !json::is_nothing(it)) {
            for call in serde_json::from_str::<Vec<Call<'_>>>(calls.get()).ok()? {
                let id = call.id.and_then(json::text).filter(|it| !it.is_empty()).map(Cow::into_owned);
                let function = call.function.unwrap_or(Function { name: None, arguments: None });
                self.call(call.index, id, &function, out)?;
            }
        }
        if let Some(call) = said.function_call.filter(|it| !json::is_nothing(it)) {
            // As it was before there were several: one call, without an id.
            self.call(Some(0), None, &serde_json::from_str(call.get()).ok()?, out)?;
        }
        Some(())
    }

    fn call(
        &mut self,
        index: Option<u64>,
        id: Option<String>,
        function: &Function<'_>,
        out: &mut Vec<Event>,
    ) -> Option<()> {
        let name = function.name.and_then(json::text).filter(|it| !it.is_empty());
        let at = self.slot(index, id.as_deref(), name.is_some());
        if at >= MOST_CALLS {
            return None;
        }
        let slot = &mut self.calls[at];
        if slot.id.is_none() {
            slot.id = id;
        }
        let arguments = match function.arguments {
            None => Cow::Borrowed(""),
            Some(raw) if raw.get() == "null" => Cow::Borrowed(""),
            Some(raw) if raw.get().starts_with('"') => json::text(raw)?,
            // The object itself, in place of a text of it.
            Some(raw) => Cow::Borrowed(raw.get()),
        };
        if let (Some(name), false) = (name, slot.told) {
            slot.told = true;
            out.push(Event::Call { index: at, id: slot.id.clone(), name: name.into_owned() });
            let held = std::mem::take(&mut slot.held);
            if !held.is_empty() {
                out.push(Event::Arguments { index: at, text: held });
            }
        }
        if !arguments.is_empty() {
            slot.argued = true;
            if slot.told {
                out.push(Event::Arguments { index: at, text: arguments.into_owned() });
            } else {
                slot.held.push_str(&arguments);
                if slot.held.len() > MOST_HELD {
                    return None;
                }
            }
        }
        Some(())
    }

    /// Where a piece of a call belongs: by its number, by its id, else to the last one.
    ///
    /// Some servers number all calls 0 or not at all; then another id, or without
    /// ids a name, begins another call.
    fn slot(&mut self, index: Option<u64>, id: Option<&str>, named: bool) -> usize {
        let same = |slot: &Slot| match (id, slot.id.as_deref()) {
            (Some(id), Some(known)) => id == known,
            _ => true,
        };
        let found = match (index, id) {
            (Some(index), _) => {
                self.calls.iter().rposition(|it| it.index == Some(index) && (same(it) || !named))
            }
            (None, Some(id)) => self.calls.iter().rposition(|it| it.id.as_deref() == Some(id)),
            (None, None) if named => None,
            (None, None) => self.calls.len().checked_sub(1),
        };
        found.unwrap_or_else(|| {
            self.calls.push(Slot { index, ..Slot::default() });
            self.calls.len() - 1
        })
    }

    fn finish(&mut self, reason: Reason, stop: Option<String>, out: &mut Vec<Event>) {
        self.finished = true;
        for (index, slot) in self.calls.iter_mut().enumerate() {
            if !slot.told {
                // Nameless to the end: told all the same, so that nothing is lost in silence.
                out.push(Event::Call { index, id: slot.id.clone(), name: String::new() });
                let text = std::mem::take(&mut slot.held);
                out.extend((!text.is_empty()).then_some(Event::Arguments { index, text }));
            }
            if !slot.argued {
                out.push(Event::Arguments { index, text: "{}".to_owned() });
            }
        }
        // vLLM says `stop` after a call that was forced.
        let reason = match reason {
            Reason::Stop if !self.calls.is_empty() => Reason::ToolCalls,
            Reason::ToolCalls if self.calls.is_empty() => Reason::Stop,
            other => other,
        };
        out.push(Event::Finished { reason, stop });
    }
}

/// A text that is not empty, or the texts of a list of parts.
fn words(value: Option<&RawValue>) -> Option<Option<String>> {
    #[derive(Deserialize)]
    struct Piece {
        #[serde(default)]
        text: String,
    }
    let Some(value) = value.filter(|it| !json::is_nothing(it)) else { return Some(None) };
    if value.get().starts_with('"') {
        return Some(Some(json::text(value)?.into_owned()));
    }
    let pieces: Vec<Piece> = serde_json::from_str(value.get()).ok()?;
    let text: String = pieces.into_iter().map(|it| it.text).collect();
    Some((!text.is_empty()).then_some(text))
}

/// Log probabilities in the form of chats, whichever form they have. What is in
/// neither form is passed over.
fn logprobs(raw: &RawValue) -> Vec<Value> {
    let mut value: Value = serde_json::from_str(raw.get()).unwrap_or_default();
    let mut all = Vec::new();
    for name in ["content", "refusal"] {
        if let Some(Value::Array(list)) = value.get_mut(name).map(Value::take) {
            all.extend(list.into_iter().filter(Value::is_object));
        }
    }
    let tokens = value.get("tokens").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for (at, token) in tokens.iter().enumerate() {
        let Some(token) = token.as_str() else { continue };
        let mut entry = likely(token, &value["token_logprobs"][at]);
        let top = value["top_logprobs"][at].as_object();
        let top: Vec<Value> =
            top.into_iter().flatten().map(|(token, logprob)| likely(token, logprob)).collect();
        entry["top_logprobs"] = top.into();
        all.push(entry);
    }
    all
}

fn likely(token: &str, logprob: &Value) -> Value {
    json!({"token": token, "logprob": logprob, "bytes": token.as_bytes()})
}
