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
            if let Some(delta) = &choice.delta {
                self.say(delta, false, out)?;
            }
            if let Some(message) = &choice.message {
                self.say(message, true, out)?;
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

    /// Tells what is said; in a whole answer each call stands for itself, in a
    /// stream it may be a piece of one.
    fn say(&mut self, said: &Said<'_>, is_whole: bool, out: &mut Vec<Event>) -> Option<()> {
        // Some servers say the same under both names.
        let thought = match words(said.reasoning_content)? {
            Some(thought) => Some(thought),
            None => words(said.reasoning)?,
        };
        out.extend(thought.map(Event::Thinking));
        out.extend(words(said.content)?.map(Event::Text));
        out.extend(words(said.refusal)?.map(Event::Refusal));
        if let Some(calls) = said.tool_calls.filter(|it| !json::is_nothing(it)) {
            for (place, call) in (0..).zip(serde_json::from_str::<Vec<Call<'_>>>(calls.get()).ok()?) {
                let id = call.id.and_then(json::text).filter(|it| !it.is_empty()).map(Cow::into_owned);
                let function = call.function.unwrap_or(Function { name: None, arguments: None });
                let index = if is_whole { Some(place) } else { call.index };
                self.call(index, id, &function, out)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dialect::{
            Verdict,
            openai::{Reader, judge_plain, plain},
        },
        fault::Cause,
        generate::{Operation, Usage},
    };

    fn told(operation: Operation, chunks: &[&str]) -> Vec<Event> {
        let mut reader = Reader::new(operation);
        let mut out = Vec::new();
        for chunk in chunks {
            reader.tell(chunk.as_bytes(), &mut out);
        }
        assert_eq!(reader.end(true), Ok(()), "for {chunks:?}");
        out
    }

    fn delta(delta: &str) -> String {
        format!("{{\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":null}}]}}")
    }

    const STOP: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
    const CALLS: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}"#;

    fn text(text: &str) -> Event {
        Event::Text(text.to_owned())
    }

    fn call(index: usize, id: Option<&str>, name: &str) -> Event {
        Event::Call { index, id: id.map(str::to_owned), name: name.to_owned() }
    }

    fn piece(index: usize, text: &str) -> Event {
        Event::Arguments { index, text: text.to_owned() }
    }

    fn finished(reason: Reason) -> Event {
        Event::Finished { reason, stop: None }
    }

    fn check_calls(deltas: &[&str], expected: &[Event]) {
        let chunks: Vec<String> =
            deltas.iter().map(|it| delta(&format!("{{\"tool_calls\":{it}}}"))).collect();
        let mut chunks: Vec<&str> = chunks.iter().map(String::as_str).collect();
        chunks.push(CALLS);
        let mut expected = expected.to_vec();
        expected.push(finished(Reason::ToolCalls));
        assert_eq!(told(Operation::Chat, &chunks), expected, "for {deltas:?}");
    }

    #[test]
    fn what_is_said_is_told_in_its_order() {
        let both = delta(r#"{"reasoning":"hm","reasoning_content":"hm"}"#);
        let chunks = [
            &delta(r#"{"role":"assistant","content":""}"#),
            &delta(r#"{"reasoning":"w","content":null}"#),
            &both,
            &delta(r#"{"reasoning_content":"x","content":"a"}"#),
            &delta(r#"{"content":[{"type":"text","text":"b"}],"tool_calls":[]}"#),
            &delta(r#"{"refusal":"no"}"#),
            STOP,
            r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"completion_tokens_details":{"reasoning_tokens":1}}}"#,
            "[DONE]",
        ];
        let thought = |text: &str| Event::Thinking(text.to_owned());
        let usage = Usage {
            input_tokens: Some(3),
            output_tokens: Some(2),
            reasoning_tokens: Some(1),
            ..Usage::default()
        };
        let expected = [
            thought("w"),
            thought("hm"),
            thought("x"),
            text("a"),
            text("b"),
            Event::Refusal("no".to_owned()),
            finished(Reason::Stop),
            Event::Usage(usage),
        ];
        assert_eq!(told(Operation::Chat, &chunks), expected);
    }

    #[test]
    fn calls_come_in_pieces_and_take_turns() {
        check_calls(
            &[
                r#"[{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":""}}]"#,
                r#"[{"index":0,"function":{"arguments":"{\"x\""}}]"#,
                r#"[{"index":1,"id":"b","function":{"name":"g","arguments":"{"}}]"#,
                r#"[{"index":0,"function":{"arguments":":1}"}},{"index":1,"function":{"arguments":"}"}}]"#,
            ],
            &[
                call(0, Some("a"), "f"),
                piece(0, "{\"x\""),
                call(1, Some("b"), "g"),
                piece(1, "{"),
                piece(0, ":1}"),
                piece(1, "}"),
            ],
        );
    }

    #[test]
    fn calls_are_told_apart_without_numbers_and_without_ids() {
        let whole =
            r#"[{"function":{"name":"f","arguments":"{}"}},{"function":{"name":"f","arguments":"{}"}}]"#;
        check_calls(&[whole], &[call(0, None, "f"), piece(0, "{}"), call(1, None, "f"), piece(1, "{}")]);
        let ids = [
            r#"[{"id":"a","function":{"name":"f","arguments":"{"}}]"#,
            r#"[{"function":{"arguments":"}"}}]"#,
            r#"[{"id":"b","function":{"name":"f","arguments":"{}"}}]"#,
        ];
        let (a, b) = (call(0, Some("a"), "f"), call(1, Some("b"), "f"));
        check_calls(&ids, &[a.clone(), piece(0, "{"), piece(0, "}"), b.clone(), piece(1, "{}")]);
        let all_zero = [
            r#"[{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}]"#,
            r#"[{"index":0,"id":"b","function":{"name":"f","arguments":"{}"}}]"#,
        ];
        check_calls(&all_zero, &[a, piece(0, "{}"), b, piece(1, "{}")]);
    }

    #[test]
    fn names_and_ids_may_be_repeated_or_late() {
        let repeated = [
            r#"[{"index":0,"id":"a","function":{"name":"f","arguments":"{"}}]"#,
            r#"[{"index":0,"id":"a","function":{"name":"f","arguments":"}"}}]"#,
        ];
        check_calls(&repeated, &[call(0, Some("a"), "f"), piece(0, "{"), piece(0, "}")]);
        let late = [
            r#"[{"index":0,"function":{"arguments":"{"}}]"#,
            r#"[{"index":0,"id":"a","function":{"name":"f","arguments":"}"}}]"#,
        ];
        check_calls(&late, &[call(0, Some("a"), "f"), piece(0, "{"), piece(0, "}")]);
    }

    #[test]
    fn arguments_may_be_an_object_or_nothing() {
        let object = r#"[{"index":0,"id":"a","function":{"name":"f","arguments":{"x": 1}}}]"#;
        check_calls(&[object], &[call(0, Some("a"), "f"), piece(0, "{\"x\": 1}")]);
        let nothing = r#"[{"index":0,"id":"a","function":{"name":"f","arguments":null}}]"#;
        check_calls(&[nothing], &[call(0, Some("a"), "f"), piece(0, "{}")]);
    }

    #[test]
    fn the_older_form_of_a_call_is_a_call() {
        let chunks = [
            &delta(r#"{"function_call":{"name":"f","arguments":""}}"#),
            &delta(r#"{"function_call":{"arguments":"{}"}}"#),
            r#"{"choices":[{"index":0,"delta":{},"finish_reason":"function_call"}]}"#,
        ];
        let expected = [call(0, None, "f"), piece(0, "{}"), finished(Reason::ToolCalls)];
        assert_eq!(told(Operation::Chat, &chunks), expected);
    }

    #[test]
    fn the_reason_fits_what_was_said() {
        let called = delta(r#"{"tool_calls":[{"index":0,"function":{"name":"f","arguments":"{}"}}]}"#);
        let forced = told(Operation::Chat, &[&called, STOP]);
        assert_eq!(forced.last(), Some(&finished(Reason::ToolCalls)), "vLLM");
        assert_eq!(told(Operation::Chat, &[CALLS]), [finished(Reason::Stop)]);
        let stop = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop","stop_reason":" acid"}]}"#;
        let expected = Event::Finished { reason: Reason::Stop, stop: Some(" acid".to_owned()) };
        assert_eq!(told(Operation::Chat, &[stop]), [expected], "vLLM");
        let token = stop.replace("\" acid\"", "128001");
        assert_eq!(told(Operation::Chat, &[&token]), [finished(Reason::Stop)]);
    }

    #[test]
    fn log_probabilities_have_one_form() {
        let chat = r#"{"choices":[{"index":0,"delta":{"content":"a"},"logprobs":{"content":[{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[]}]},"finish_reason":"stop"}]}"#;
        let entry = json!({"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []});
        let expected = [text("a"), Event::Logprobs(vec![entry]), finished(Reason::Stop)];
        assert_eq!(told(Operation::Chat, &[chat]), expected);
        let older = r#"{"choices":[{"index":0,"text":"ä","logprobs":{"tokens":["ä"],"token_logprobs":[-0.5],"top_logprobs":[{"b":-1.5}],"text_offset":[0]},"finish_reason":"stop"}]}"#;
        let entry = json!({"token": "ä", "logprob": -0.5, "bytes": [195, 164],
            "top_logprobs": [{"token": "b", "logprob": -1.5, "bytes": [98]}]});
        let expected = [text("ä"), Event::Logprobs(vec![entry]), finished(Reason::Stop)];
        assert_eq!(told(Operation::Complete, &[older]), expected);
    }

    #[test]
    fn other_choices_are_passed_over() {
        let choice = |index: u32, text: &str| {
            format!(
                "{{\"choices\":[{{\"index\":{index},\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":\"stop\"}}]}}"
            )
        };
        let (first, second) = (choice(0, "a"), choice(1, "b"));
        let expected = [text("a"), finished(Reason::Stop)];
        assert_eq!(told(Operation::Chat, &[&second, &first]), expected);
    }

    #[test]
    fn what_has_another_shape_is_unreadable_and_never_guessed() {
        for broken in [
            r#"{"tool_calls":"f"}"#,
            r#"{"tool_calls":[5]}"#,
            r#"{"content":{"a":1}}"#,
            r#"{"function_call":"f"}"#,
        ] {
            let mut reader = Reader::new(Operation::Chat);
            let judged = reader.tell(delta(broken).as_bytes(), &mut Vec::new());
            assert_eq!(judged.verdict, Verdict::Unreadable, "for {broken}");
            reader.tell(STOP.as_bytes(), &mut Vec::new());
            assert_eq!(reader.end(true), Err(Cause::Unreadable));
        }
    }

    #[test]
    fn calls_without_end_are_not_held() {
        let mut reader = Reader::new(Operation::Chat);
        let mut last = Verdict::Quiet;
        for index in 0..=MOST_CALLS {
            let called =
                delta(&format!(r#"{{"tool_calls":[{{"index":{index},"function":{{"name":"f"}}}}]}}"#));
            last = reader.tell(called.as_bytes(), &mut Vec::new()).verdict;
        }
        assert_eq!(last, Verdict::Unreadable);
        let held = delta(&format!(
            r#"{{"tool_calls":[{{"index":0,"function":{{"arguments":"{}"}}}}]}}"#,
            "a".repeat(MOST_HELD / 2)
        ));
        let mut reader = Reader::new(Operation::Chat);
        let verdicts: Vec<_> =
            (0..3).map(|_| reader.tell(held.as_bytes(), &mut Vec::new()).verdict).collect();
        assert_eq!(verdicts, [Verdict::Content, Verdict::Content, Verdict::Unreadable]);
    }

    fn whole(operation: Operation, body: &str) -> Result<Vec<Event>, Cause> {
        let mut out = Vec::new();
        let judged = judge_plain(operation, body.as_bytes())?;
        plain::tell(operation, body.as_bytes(), &judged, &mut out)?;
        Ok(out)
    }

    #[test]
    fn a_whole_answer_is_told_as_its_stream_would_be() {
        let body = r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"a","reasoning":"h","refusal":null,
            "tool_calls":[{"id":"x","type":"function","function":{"name":"f","arguments":"{}"}}]},
            "finish_reason":"tool_calls","stop_reason":null}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
        let usage = Usage { input_tokens: Some(1), output_tokens: Some(2), ..Usage::default() };
        let expected = vec![
            Event::Thinking("h".to_owned()),
            text("a"),
            call(0, Some("x"), "f"),
            piece(0, "{}"),
            finished(Reason::ToolCalls),
            Event::Usage(usage),
        ];
        assert_eq!(whole(Operation::Chat, body), Ok(expected));
    }

    #[test]
    fn calls_of_a_whole_answer_are_told_apart_whatever_their_ids() {
        let body = r#"{"choices":[{"message":{"tool_calls":[{"id":"x","function":{"name":"f","arguments":"{}"}},
            {"id":"x","function":{"name":"f","arguments":"{}"}}]},"finish_reason":"tool_calls"}]}"#;
        let expected = vec![
            call(0, Some("x"), "f"),
            piece(0, "{}"),
            call(1, Some("x"), "f"),
            piece(1, "{}"),
            finished(Reason::ToolCalls),
        ];
        assert_eq!(whole(Operation::Chat, body), Ok(expected));
    }

    #[test]
    fn vectors_come_in_the_order_of_the_inputs() {
        let vector = |numbers: &[f32]| Event::Vector(numbers.to_vec());
        let body = r#"{"data":[{"index":1,"embedding":[0.5,1]},{"index":0,"embedding":"AACAPw=="}]}"#;
        assert_eq!(whole(Operation::Embed, body), Ok(vec![vector(&[1.0]), vector(&[0.5, 1.0])]));
        for broken in ["\"?\"", "[\"a\"]", "[[0.5]]", "[1e300]", "\"AACAfw==\""] {
            let body = format!("{{\"data\":[{{\"embedding\":{broken}}}]}}");
            assert_eq!(whole(Operation::Embed, &body), Err(Cause::Unreadable), "for {broken}");
        }
    }
}
