//! OpenAI's chat completions, completions and embeddings, as each shape cuts them.
//!
//! vLLM's finish reason rides on the last word, llama.cpp's first word shares its chunk with
//! the role, Ollama says the role in every delta and its ending is one chunk.

use serde_json::{Value, json};

use super::{
    answer::{Reason, Voice, Writes, quoted},
    ask::Operation,
    pieces::Bit,
    shape::Shape,
};

/// How it is written.
pub(super) struct OpenAi;

const DONE: &str = "data: [DONE]\n\n";

impl Writes for OpenAi {
    fn content_type(&self, voice: &Voice<'_>) -> &'static str {
        event_stream(voice.shape)
    }

    /// The event with the role alone, where the shape has one.
    fn opening(&self, voice: &Voice<'_>) -> Option<String> {
        if voice.ask.operation() == Operation::Complete {
            return None;
        }
        let delta = match voice.shape {
            Shape::Ollama | Shape::LmStudio => return None,
            Shape::LlamaCpp => {
                r#"{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}"#
            }
            Shape::Vllm => {
                r#"{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}"#
            }
            Shape::OpenAi => {
                r#"{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}"#
            }
        };
        let more =
            if voice.shape == Shape::Vllm { r#","prompt_token_ids":null,"prompt_text":null"# } else { "" };
        Some(voice.event(delta, more))
    }

    fn piece(&self, voice: &Voice<'_>, index: usize, last: bool) -> String {
        let bit = voice.pieces.at(index);
        let reason = match voice.shape {
            Shape::Vllm if last => format!("\"{}\"", voice.word()),
            _ => "null".to_owned(),
        };
        let said = match (&bit, voice.ask.operation()) {
            (Bit::Text(text), Operation::Complete) => quoted(text),
            _ => voice.delta(&bit),
        };
        let probable = voice
            .logprob(index)
            .map_or_else(|| "null".to_owned(), |it| json!({"content": [it], "refusal": null}).to_string());
        let choice = match (voice.ask.operation(), voice.shape) {
            (Operation::Complete, Shape::Vllm) => format!(
                "{{\"index\":0,\"text\":{said},\"logprobs\":null,\"finish_reason\":{reason},\"stop_reason\":null}}"
            ),
            (Operation::Complete, _) => format!("{{\"text\":{said},\"index\":0,\"finish_reason\":null}}"),
            (_, Shape::Ollama) => {
                let more =
                    if probable == "null" { String::new() } else { format!(",\"logprobs\":{probable}") };
                format!(
                    "{{\"index\":0,\"delta\":{{\"role\":\"assistant\",{said}}},\"finish_reason\":null{more}}}"
                )
            }
            (_, Shape::LlamaCpp) => {
                let more =
                    if probable == "null" { String::new() } else { format!("\"logprobs\":{probable},") };
                format!("{{{more}\"finish_reason\":null,\"index\":0,\"delta\":{{{said}}}}}")
            }
            (_, Shape::Vllm) => format!(
                "{{\"index\":0,\"delta\":{{{said}}},\"logprobs\":{probable},\"finish_reason\":{reason},\
                 \"token_ids\":null}}"
            ),
            (_, Shape::LmStudio | Shape::OpenAi) => {
                let role = if voice.shape == Shape::LmStudio { "\"role\":\"assistant\"," } else { "" };
                format!(
                    "{{\"index\":0,\"delta\":{{{role}{said}}},\"logprobs\":{probable},\"finish_reason\":null}}"
                )
            }
        };
        voice.event(&choice, "")
    }

    fn ending(&self, voice: &Voice<'_>) -> Vec<String> {
        let reason = voice.word();
        let finish = match (voice.ask.operation(), voice.shape) {
            (_, Shape::Vllm) if voice.pieces.count() > 0 => None,
            (Operation::Complete, _) => {
                Some(format!("{{\"text\":\"\",\"index\":0,\"finish_reason\":\"{reason}\"}}"))
            }
            (_, Shape::Ollama) => Some(format!(
                "{{\"index\":0,\"delta\":{{\"role\":\"assistant\",\"content\":\"\"}},\"finish_reason\":\"{reason}\"}}"
            )),
            (_, Shape::LlamaCpp) => {
                Some(format!("{{\"finish_reason\":\"{reason}\",\"index\":0,\"delta\":{{}}}}"))
            }
            (_, Shape::Vllm | Shape::LmStudio | Shape::OpenAi) => Some(format!(
                "{{\"index\":0,\"delta\":{{}},\"logprobs\":null,\"finish_reason\":\"{reason}\"}}"
            )),
        };
        let timings = |wanted: bool| match voice.shape {
            Shape::LlamaCpp if wanted => {
                format!(",\"timings\":{{\"prompt_n\":1,\"predicted_n\":{}}}", voice.pieces.count())
            }
            _ => String::new(),
        };
        let finish = finish.map(|choice| voice.event(&choice, &timings(!voice.ask.usage)));
        let usage = voice
            .ask
            .usage
            .then(|| voice.event("", &format!(",\"usage\":{}{}", voice.usage(), timings(true))));
        match voice.shape {
            // All in one chunk.
            Shape::Ollama => vec![finish.into_iter().chain(usage).chain([DONE.to_owned()]).collect()],
            // The terminator has a chunk of its own.
            Shape::LlamaCpp => {
                let both: String = finish.into_iter().chain(usage).collect();
                vec![both, DONE.to_owned()]
            }
            Shape::Vllm | Shape::LmStudio | Shape::OpenAi => {
                finish.into_iter().chain(usage).chain([DONE.to_owned()]).collect()
            }
        }
    }

    fn terminator(&self, _: &Voice<'_>) -> String {
        DONE.to_owned()
    }

    /// The event that Ollama sends when its runner has died.
    fn blank(&self, _: &Voice<'_>) -> String {
        "data: {\"id\":\"chatcmpl-0\",\"object\":\"chat.completion.chunk\",\"created\":0,\"model\":\"\",\
         \"system_fingerprint\":\"fp_ollama\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\
         \"content\":\"\"},\"finish_reason\":null}]}\n\n"
            .to_owned()
    }

    fn error(&self, voice: &Voice<'_>, message: &str) -> String {
        let error =
            json!({"error": {"message": message, "type": "server_error", "param": null, "code": 500}});
        match voice.shape {
            Shape::LmStudio => format!("event: error\ndata: {error}\n\n"),
            Shape::Ollama | Shape::Vllm | Shape::LlamaCpp | Shape::OpenAi => format!("data: {error}\n\n"),
        }
    }

    fn whole(&self, voice: &Voice<'_>, finished: bool) -> String {
        let reason = if finished { json!(voice.word()) } else { Value::Null };
        let mut body = match voice.ask.operation() {
            Operation::Embed => return vectors(voice),
            Operation::Chat => json!({
                "object": "chat.completion",
                "choices": [{"index": 0, "message": voice.message(), "finish_reason": reason}],
            }),
            Operation::Complete => json!({
                "object": "text_completion",
                "choices": [{
                    "index": 0, "text": voice.pieces.text(), "logprobs": null, "finish_reason": reason,
                }],
            }),
        };
        if let (Operation::Chat, Some(all)) = (voice.ask.operation(), voice.logprobs()) {
            body["choices"][0]["logprobs"] = json!({"content": all, "refusal": null});
        }
        body["id"] = voice.id().into();
        body["created"] = voice.created.into();
        body["model"] = voice.model.into();
        body["system_fingerprint"] = voice.fingerprint().into();
        body["usage"] = voice.usage();
        if voice.shape == Shape::LlamaCpp {
            body["timings"] = json!({"prompt_n": 1, "predicted_n": voice.pieces.count()});
        }
        body.to_string()
    }

    fn nothing(&self) -> Value {
        json!({"object": "chat.completion", "choices": []})
    }
}

/// The content type of server-sent events.
pub(super) fn event_stream(shape: Shape) -> &'static str {
    match shape {
        Shape::Vllm => "text/event-stream; charset=utf-8",
        Shape::Ollama | Shape::LmStudio | Shape::LlamaCpp | Shape::OpenAi => "text/event-stream",
    }
}

impl Shape {
    /// How thoughts are called here.
    fn thinking(self) -> &'static str {
        match self {
            Self::Ollama | Self::Vllm => "reasoning",
            Self::LmStudio | Self::LlamaCpp | Self::OpenAi => "reasoning_content",
        }
    }
}

impl Voice<'_> {
    fn word(&self) -> &'static str {
        match self.reason() {
            Reason::Stop => "stop",
            Reason::Length => "length",
            Reason::Calls => "tool_calls",
        }
    }

    fn id(&self) -> String {
        let number = self.number;
        match (self.shape, self.ask.operation()) {
            (Shape::LlamaCpp, _) | (_, Operation::Chat) => format!("chatcmpl-{number:016x}"),
            (_, Operation::Complete) => format!("cmpl-{number:016x}"),
            (_, Operation::Embed) => format!("embd-{number:016x}"),
        }
    }

    fn usage(&self) -> Value {
        let (prompt, completion) = (self.prompt_tokens(), self.pieces.count());
        let mut usage = json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion});
        if self.pieces.thoughts() > 0 {
            usage["completion_tokens_details"] = json!({"reasoning_tokens": self.pieces.thoughts()});
        }
        usage
    }

    fn fingerprint(&self) -> &'static str {
        match self.shape {
            Shape::Ollama => "fp_ollama",
            Shape::Vllm => "vllm-0.32.0-simulated",
            Shape::LlamaCpp => "b0-simulated",
            Shape::LmStudio | Shape::OpenAi => "simulated",
        }
    }

    /// One event around `choices` (JSON text, without brackets).
    fn event(&self, choices: &str, more: &str) -> String {
        let object = match self.ask.operation() {
            Operation::Complete => "text_completion",
            Operation::Chat | Operation::Embed => "chat.completion.chunk",
        };
        let (id, model, created) = (self.id(), quoted(self.model), self.created);
        match self.shape {
            Shape::LlamaCpp => format!(
                "data: {{\"choices\":[{choices}],\"created\":{created},\"id\":\"{id}\",\"model\":{model},\
                 \"system_fingerprint\":\"{}\",\"object\":\"{object}\"{more}}}\n\n",
                self.fingerprint()
            ),
            Shape::Vllm => format!(
                "data: {{\"id\":\"{id}\",\"object\":\"{object}\",\"created\":{created},\"model\":{model},\
                 \"choices\":[{choices}]{more}}}\n\n"
            ),
            Shape::Ollama | Shape::LmStudio | Shape::OpenAi => format!(
                "data: {{\"id\":\"{id}\",\"object\":\"{object}\",\"created\":{created},\"model\":{model},\
                 \"system_fingerprint\":\"{}\",\"choices\":[{choices}]{more}}}\n\n",
                self.fingerprint()
            ),
        }
    }

    /// The fields of a delta, without its braces.
    fn delta(&self, bit: &Bit) -> String {
        match bit {
            Bit::Text(text) => format!("\"content\":{}", quoted(text)),
            Bit::Thinking(text) => format!("\"{}\":{}", self.shape.thinking(), quoted(text)),
            Bit::Call { nth, begins: true, piece } => {
                let call = &self.pieces.calls()[*nth];
                let function = json!({"name": call.name, "arguments": piece});
                let begun = json!({"index": nth, "id": call.id, "type": "function", "function": function});
                format!("\"tool_calls\":[{begun}]")
            }
            Bit::Call { nth, begins: false, piece } => {
                format!("\"tool_calls\":[{}]", json!({"index": nth, "function": {"arguments": piece}}))
            }
        }
    }

    fn message(&self) -> Value {
        let calls = self.pieces.calls();
        let text = match self.shape {
            Shape::LlamaCpp => self.pieces.text_with_begun(),
            Shape::Ollama | Shape::Vllm | Shape::LmStudio | Shape::OpenAi => self.pieces.text(),
        };
        let mut message = json!({"role": "assistant", "content": text});
        if !calls.is_empty() {
            message["content"] = Value::Null;
            message["tool_calls"] = calls
                .iter()
                .map(|it| {
                    let function = json!({"name": it.name, "arguments": it.arguments});
                    json!({"id": it.id, "type": "function", "function": function})
                })
                .collect();
        }
        if self.pieces.thoughts() > 0 {
            message[self.shape.thinking()] = self.pieces.thinking().into();
        }
        message
    }
}

fn vectors(voice: &Voice<'_>) -> String {
    let vectors = voice.vectors().into_iter().enumerate();
    let data: Vec<_> =
        vectors.map(|(index, it)| json!({"object": "embedding", "index": index, "embedding": it})).collect();
    let tokens = voice.prompt_tokens();
    json!({
        "object": "list",
        "data": data,
        "model": voice.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    })
    .to_string()
}
