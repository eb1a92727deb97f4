//! OpenAI's responses, in the order of events that its clients demand.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{
    answer::{Reason, Voice, Writes},
    openai::event_stream,
    pieces::Bit,
};

/// How it is written.
pub(super) struct Responses;

impl Writes for Responses {
    fn content_type(&self, voice: &Voice<'_>) -> &'static str {
        event_stream(voice.shape)
    }

    fn opening(&self, voice: &Voice<'_>) -> Option<String> {
        let response = voice.response("in_progress", &[]);
        let mut out = Numbered { next: 0, out: String::new() };
        out.say(json!({"type": "response.created", "response": response}));
        out.say(json!({"type": "response.in_progress", "response": response}));
        Some(out.out)
    }

    fn piece(&self, voice: &Voice<'_>, index: usize, _last: bool) -> String {
        let item = voice.pieces.block(index);
        let mut out = voice.numbered(index);
        if voice.pieces.begins(index) {
            if let Some(before) = index.checked_sub(1) {
                voice.close(voice.pieces.block(before), &mut out);
            }
            voice.open(index, &mut out);
        }
        let id = voice.item_id(item);
        match voice.pieces.at(index) {
            Bit::Thinking(text) => out.say(json!({
                "type": "response.reasoning_text.delta", "item_id": id, "output_index": item,
                "content_index": 0, "delta": text,
            })),
            Bit::Text(text) => out.say(json!({
                "type": "response.output_text.delta", "item_id": id, "output_index": item,
                "content_index": 0, "delta": text,
                "logprobs": voice.logprob(index).into_iter().collect::<Vec<_>>(),
            })),
            // What begins a call has no arguments yet, and the event of the item has said the rest.
            Bit::Call { piece, .. } if piece.is_empty() => {}
            Bit::Call { piece, .. } => out.say(json!({
                "type": "response.function_call_arguments.delta", "item_id": id, "output_index": item,
                "delta": piece,
            })),
        }
        out.out
    }

    fn ending(&self, voice: &Voice<'_>) -> Vec<String> {
        let count = voice.pieces.count();
        let mut out = voice.numbered(count);
        let items = match count.checked_sub(1) {
            Some(last) => {
                let last = voice.pieces.block(last);
                voice.close(last, &mut out);
                (0..=last).map(|it| voice.item(it, "completed")).collect()
            }
            None => Vec::new(),
        };
        let status = voice.status();
        let response = voice.response(status, &items);
        out.say(json!({"type": format!("response.{status}"), "response": response}));
        vec![out.out]
    }

    /// That of another language: the last event of this one is the answer itself.
    fn terminator(&self, _: &Voice<'_>) -> String {
        "data: [DONE]\n\n".to_owned()
    }

    fn blank(&self, voice: &Voice<'_>) -> String {
        let mut out = voice.numbered(voice.pieces.count());
        out.say(json!({"type": "response.in_progress", "response": voice.response("in_progress", &[])}));
        out.out
    }

    fn error(&self, voice: &Voice<'_>, message: &str) -> String {
        let mut out = voice.numbered(voice.pieces.count());
        let mut response = voice.response("failed", &[]);
        response["error"] = json!({"code": "server_error", "message": message});
        out.say(json!({"type": "response.failed", "response": response}));
        out.out
    }

    fn whole(&self, voice: &Voice<'_>, finished: bool) -> String {
        let items = match voice.pieces.count().checked_sub(1) {
            Some(last) => (0..=voice.pieces.block(last)).map(|it| voice.item(it, "completed")).collect(),
            None => Vec::new(),
        };
        let status = if finished { voice.status() } else { "in_progress" };
        voice.response(status, &items).to_string()
    }

    fn nothing(&self) -> Value {
        json!({"object": "response", "output": []})
    }
}

/// Events with their numbers.
struct Numbered {
    next: usize,
    out: String,
}

impl Numbered {
    fn say(&mut self, mut event: Value) {
        event["sequence_number"] = self.next.into();
        self.next += 1;
        let name = event["type"].as_str().unwrap_or_default().to_owned();
        let _ = write!(self.out, "event: {name}\ndata: {event}\n\n");
    }
}

/// So many events a piece makes at most; numbers may have gaps, they only grow.
const MOST_EVENTS: usize = 8;

impl Voice<'_> {
    fn numbered(&self, index: usize) -> Numbered {
        Numbered { next: 2 + index * MOST_EVENTS, out: String::new() }
    }

    fn status(&self) -> &'static str {
        match self.reason() {
            Reason::Stop | Reason::Calls => "completed",
            Reason::Length => "incomplete",
        }
    }

    fn response(&self, status: &str, output: &[Value]) -> Value {
        let is_over = ["completed", "incomplete"].contains(&status);
        let usage = is_over.then(|| {
            let (prompt, said) = (self.prompt_tokens(), self.pieces.count());
            json!({
                "input_tokens": prompt, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": said,
                "output_tokens_details": {"reasoning_tokens": self.pieces.thoughts()}, "total_tokens": prompt + said,
            })
        });
        let cut = (status == "incomplete").then(|| json!({"reason": "max_output_tokens"}));
        json!({
            "id": format!("resp_{:016x}", self.number), "object": "response", "created_at": self.created,
            "status": status, "error": null, "incomplete_details": cut, "instructions": null,
            "max_output_tokens": self.ask.max_tokens, "model": self.model, "output": output,
            "parallel_tool_calls": true, "previous_response_id": null, "reasoning": null, "store": false,
            "temperature": 1.0, "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [],
            "top_p": 1.0, "truncation": "disabled", "usage": usage, "metadata": {},
        })
    }

    /// The first piece of an item.
    fn first_of(&self, item: usize) -> usize {
        (0..self.pieces.count()).find(|it| self.pieces.block(*it) == item).unwrap_or(0)
    }

    fn item_id(&self, item: usize) -> String {
        format!("item_{:06x}{item:02x}", self.number)
    }

    /// An item, with all that is in it unless it is only begun.
    fn item(&self, item: usize, status: &str) -> Value {
        let id = self.item_id(item);
        let whole = status == "completed";
        match self.pieces.at(self.first_of(item)) {
            Bit::Thinking(_) => {
                let text = json!({"type": "reasoning_text", "text": self.pieces.thinking()});
                let content = if whole { json!([text]) } else { json!([]) };
                json!({"type": "reasoning", "id": id, "summary": [], "content": content, "status": status})
            }
            Bit::Text(_) => {
                let content = if whole { json!([self.text_part()]) } else { json!([]) };
                json!({"type": "message", "id": id, "role": "assistant", "status": status, "content": content})
            }
            Bit::Call { nth, .. } => {
                let call = &self.pieces.calls()[nth];
                let arguments = if whole { call.arguments.as_str() } else { "" };
                json!({
                    "type": "function_call", "id": id, "call_id": call.id, "name": call.name,
                    "arguments": arguments, "status": status,
                })
            }
        }
    }

    fn text_part(&self) -> Value {
        let logprobs = self.logprobs().unwrap_or_default();
        json!({"type": "output_text", "text": self.pieces.text(), "annotations": [], "logprobs": logprobs})
    }

    fn open(&self, index: usize, out: &mut Numbered) {
        let item = self.pieces.block(index);
        out.say(json!({
            "type": "response.output_item.added", "output_index": item, "item": self.item(item, "in_progress"),
        }));
        let part = match self.pieces.at(index) {
            Bit::Thinking(_) => json!({"type": "reasoning_text", "text": ""}),
            Bit::Text(_) => json!({"type": "output_text", "text": "", "annotations": [], "logprobs": []}),
            Bit::Call { .. } => return,
        };
        out.say(json!({
            "type": "response.content_part.added", "item_id": self.item_id(item), "output_index": item,
            "content_index": 0, "part": part,
        }));
    }

    fn close(&self, item: usize, out: &mut Numbered) {
        let id = self.item_id(item);
        let (done, part) = match self.pieces.at(self.first_of(item)) {
            Bit::Thinking(_) => {
                let text = self.pieces.thinking();
                let part = json!({"type": "reasoning_text", "text": text});
                (json!({"type": "response.reasoning_text.done", "text": text}), Some(part))
            }
            Bit::Text(_) => {
                let done = json!({
                    "type": "response.output_text.done", "text": self.pieces.text(),
                    "logprobs": self.logprobs().unwrap_or_default(),
                });
                (done, Some(self.text_part()))
            }
            Bit::Call { nth, .. } => {
                let call = &self.pieces.calls()[nth];
                let done = json!({
                    "type": "response.function_call_arguments.done", "name": call.name,
                    "arguments": call.arguments,
                });
                (done, None)
            }
        };
        let mut done = done;
        done["item_id"] = id.as_str().into();
        done["output_index"] = item.into();
        if part.is_some() {
            done["content_index"] = 0.into();
        }
        out.say(done);
        if let Some(part) = part {
            out.say(json!({
                "type": "response.content_part.done", "item_id": id, "output_index": item, "content_index": 0,
                "part": part,
            }));
        }
        out.say(json!({
            "type": "response.output_item.done", "output_index": item, "item": self.item(item, "completed"),
        }));
    }
}
