//! Anthropic's messages, as servers of models speak them.

use serde_json::{Value, json};

use super::{
    answer::{Reason, Voice, Writes},
    openai::event_stream,
    pieces::Bit,
    shape::Shape,
};

/// How it is written.
pub(super) struct Messages;

impl Writes for Messages {
    fn content_type(&self, voice: &Voice<'_>) -> &'static str {
        event_stream(voice.shape)
    }

    fn opening(&self, voice: &Voice<'_>) -> Option<String> {
        let usage = json!({"input_tokens": voice.prompt_tokens(), "output_tokens": 0});
        Some(event(json!({"type": "message_start", "message": {
            "id": voice.message_id(), "type": "message", "role": "assistant", "model": voice.model,
            "content": [], "stop_reason": null, "stop_sequence": null, "usage": usage,
        }})))
    }

    fn piece(&self, voice: &Voice<'_>, index: usize, _last: bool) -> String {
        let block = voice.pieces.block(index);
        let bit = voice.pieces.at(index);
        let mut out = String::new();
        if voice.pieces.begins(index) {
            if let Some(before) = index.checked_sub(1) {
                out += &close(voice.pieces.block(before));
            }
            let content = match &bit {
                Bit::Thinking(_) => json!({"type": "thinking", "thinking": "", "signature": ""}),
                Bit::Text(_) => json!({"type": "text", "text": ""}),
                Bit::Call { nth, .. } => {
                    let call = &voice.pieces.calls()[*nth];
                    json!({"type": "tool_use", "id": tool_id(&call.id), "name": call.name, "input": {}})
                }
            };
            out += &event(json!({"type": "content_block_start", "index": block, "content_block": content}));
        }
        let delta = match bit {
            Bit::Thinking(text) => json!({"type": "thinking_delta", "thinking": text}),
            Bit::Text(text) => json!({"type": "text_delta", "text": text}),
            Bit::Call { piece, .. } => json!({"type": "input_json_delta", "partial_json": piece}),
        };
        out += &event(json!({"type": "content_block_delta", "index": block, "delta": delta}));
        out
    }

    fn ending(&self, voice: &Voice<'_>) -> Vec<String> {
        let mut out = String::new();
        if let Some(last) = voice.pieces.count().checked_sub(1) {
            out += &close(voice.pieces.block(last));
        }
        let mut delta = json!({"stop_reason": voice.stop_reason()});
        if voice.shape != Shape::Vllm {
            delta["stop_sequence"] = json!(voice.pieces.stop);
        }
        out += &event(json!({"type": "message_delta", "delta": delta, "usage": voice.tokens()}));
        let mut ending = vec![out, self.terminator(voice)];
        // vLLM adds what belongs to another language.
        if voice.shape == Shape::Vllm {
            ending.push("data: [DONE]\n\n".to_owned());
        }
        ending
    }

    fn terminator(&self, _: &Voice<'_>) -> String {
        event(json!({"type": "message_stop"}))
    }

    fn blank(&self, _: &Voice<'_>) -> String {
        event(json!({"type": "ping"}))
    }

    fn error(&self, voice: &Voice<'_>, message: &str) -> String {
        let error = match voice.shape {
            // Not in its usual wrapping.
            Shape::LlamaCpp => json!({"code": 500, "message": message, "type": "server_error"}),
            Shape::Vllm => {
                json!({"type": "error", "error": {"type": "internal_error", "message": message}})
            }
            Shape::Ollama | Shape::LmStudio | Shape::OpenAi => {
                json!({"type": "error", "error": {"type": "api_error", "message": message}})
            }
        };
        format!("event: error\ndata: {error}\n\n")
    }

    fn whole(&self, voice: &Voice<'_>, finished: bool) -> String {
        let pieces = &voice.pieces;
        let mut content = Vec::new();
        if pieces.thoughts() > 0 {
            content.push(json!({"type": "thinking", "thinking": pieces.thinking(), "signature": ""}));
        }
        if pieces.calls().is_empty() {
            content.push(json!({"type": "text", "text": pieces.text()}));
        }
        content.extend(pieces.calls().iter().map(|it| {
            let input: Value = serde_json::from_str(&it.arguments).unwrap_or_default();
            json!({"type": "tool_use", "id": tool_id(&it.id), "name": it.name, "input": input})
        }));
        let mut body = json!({
            "id": voice.message_id(), "type": "message", "role": "assistant", "content": content,
            "model": voice.model, "stop_reason": finished.then(|| voice.stop_reason()), "usage": voice.tokens(),
        });
        if voice.shape != Shape::Vllm {
            body["stop_sequence"] = json!(pieces.stop);
        }
        body.to_string()
    }

    fn nothing(&self) -> Value {
        json!({"type": "message", "role": "assistant", "content": []})
    }
}

/// A call's id in this language's habit.
fn tool_id(id: &str) -> String {
    id.replace("call_", "toolu_")
}

fn event(data: Value) -> String {
    format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap_or_default())
}

fn close(block: usize) -> String {
    event(json!({"type": "content_block_stop", "index": block}))
}

impl Voice<'_> {
    fn message_id(&self) -> String {
        let number = self.number;
        match self.shape {
            Shape::Vllm | Shape::LlamaCpp => format!("chatcmpl-{number:016x}"),
            Shape::Ollama | Shape::LmStudio | Shape::OpenAi => format!("msg_{number:016x}"),
        }
    }

    fn stop_reason(&self) -> &'static str {
        match self.reason() {
            Reason::Stop if self.pieces.stop.is_some() => "stop_sequence",
            Reason::Stop => "end_turn",
            Reason::Length => "max_tokens",
            Reason::Calls => "tool_use",
        }
    }

    fn tokens(&self) -> Value {
        json!({"input_tokens": self.prompt_tokens(), "output_tokens": self.pieces.count()})
    }
}
