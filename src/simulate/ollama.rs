//! Ollama's own language: one JSON object a line, calls whole, the counts in the last line.

use serde_json::{Map, Value, json};

use super::{
    answer::{Reason, Voice, Writes},
    ask::Gate,
    begun,
    pieces::{Bit, Call},
};

/// How it is written.
pub(super) struct Ollama;

impl Writes for Ollama {
    fn content_type(&self, _: &Voice<'_>) -> &'static str {
        "application/x-ndjson"
    }

    fn opening(&self, _: &Voice<'_>) -> Option<String> {
        None
    }

    fn piece(&self, voice: &Voice<'_>, index: usize, _last: bool) -> String {
        let said = match voice.pieces.at(index) {
            Bit::Text(text) => voice.said(&text, "", &[]),
            Bit::Thinking(text) => voice.said("", &text, &[]),
            Bit::Call { nth, .. } => voice.said("", "", &voice.pieces.calls()[nth..nth + 1]),
        };
        let mut line = voice.around(said);
        line.insert("done".to_owned(), false.into());
        if let Some(it) = voice.logprob(index) {
            line.insert("logprobs".to_owned(), vec![it].into());
        }
        Value::Object(line).to_string() + "\n"
    }

    fn ending(&self, voice: &Voice<'_>) -> Vec<String> {
        let mut line = voice.around(voice.said("", "", &[]));
        voice.end(&mut line, true);
        vec![Value::Object(line).to_string() + "\n"]
    }

    fn terminator(&self, voice: &Voice<'_>) -> String {
        let mut line = voice.around(voice.said("", "", &[]));
        line.insert("done".to_owned(), true.into());
        Value::Object(line).to_string() + "\n"
    }

    fn blank(&self, voice: &Voice<'_>) -> String {
        let mut line = voice.around(voice.said("", "", &[]));
        line["model"] = "".into();
        line["created_at"] = "0001-01-01T00:00:00Z".into();
        line.insert("done".to_owned(), false.into());
        Value::Object(line).to_string() + "\n"
    }

    /// There are no comments; empty lines pass for some.
    fn comment(&self) -> &'static [u8] {
        b"\n"
    }

    fn frame_end(&self) -> &'static [u8] {
        b"\n"
    }

    fn error(&self, _: &Voice<'_>, message: &str) -> String {
        let message = format!("an error was encountered while running the model: {message}");
        json!({"error": message}).to_string() + "\n"
    }

    fn whole(&self, voice: &Voice<'_>, finished: bool) -> String {
        let (pieces, tokens) = (&voice.pieces, voice.prompt_tokens());
        match voice.ask.gate {
            Gate::OllamaEmbed => {
                return json!({
                    "model": voice.model, "embeddings": voice.vectors(), "total_duration": 14_143_917,
                    "load_duration": 1_019_500, "prompt_eval_count": tokens,
                })
                .to_string();
            }
            Gate::OllamaEmbeddings => {
                return json!({"embedding": voice.vectors().into_iter().next()}).to_string();
            }
            _ => {}
        }
        if let Some(loads) = voice.ask.only_loads {
            let mut body = voice.around(voice.said("", "", &[]));
            body.insert("done".to_owned(), true.into());
            body.insert("done_reason".to_owned(), if loads { "load" } else { "unload" }.into());
            return Value::Object(body).to_string();
        }
        let mut body = voice.around(voice.said(&pieces.text(), &pieces.thinking(), pieces.calls()));
        voice.end(&mut body, finished);
        if let Some(all) = voice.logprobs() {
            body.insert("logprobs".to_owned(), all.into());
        }
        Value::Object(body).to_string()
    }

    fn nothing(&self) -> Value {
        json!({})
    }
}

/// A conversation as the text that the model sees, where that is asked for instead of an
/// answer: the JSON of its turns, so that it weighs the same. A last turn of the model is laid
/// out where it thinks.
pub(super) fn rendered(body: &[u8]) -> Option<Value> {
    memchr::memmem::find(body, b"_debug_render_only")?;
    let body: Value = serde_json::from_slice(body).ok()?;
    (body["_debug_render_only"] == true).then(|| {
        let last = body["messages"].as_array().and_then(|it| it.last());
        let (prompt, begun) = begun::rendered(&body, last.is_some_and(|it| it["thinking"].is_string()));
        json!({"model": body["model"], "created_at": "2026-08-21T10:00:00.52472528Z",
            "message": {"role": "", "content": ""}, "done": false,
            "_debug_info": {"rendered_template": prompt + &begun}})
    })
}

impl Voice<'_> {
    /// What is said, as fields: a message, or the text alone.
    fn said(&self, text: &str, thinking: &str, calls: &[Call]) -> Map<String, Value> {
        let mut said = Map::new();
        let is_chat = self.ask.gate == Gate::OllamaChat;
        if is_chat {
            said.insert("role".to_owned(), "assistant".into());
        }
        said.insert(if is_chat { "content" } else { "response" }.to_owned(), text.into());
        if !thinking.is_empty() {
            said.insert("thinking".to_owned(), thinking.into());
        }
        if !calls.is_empty() {
            let calls = calls.iter().enumerate().map(|(index, it)| {
                let arguments: Value = serde_json::from_str(&it.arguments).unwrap_or_default();
                json!({"id": it.id, "function": {"index": index, "name": it.name, "arguments": arguments}})
            });
            said.insert("tool_calls".to_owned(), calls.collect());
        }
        if is_chat { Map::from_iter([("message".to_owned(), Value::Object(said))]) } else { said }
    }

    /// A line around what is said.
    fn around(&self, said: Map<String, Value>) -> Map<String, Value> {
        let mut line = Map::new();
        line.insert("model".to_owned(), self.model.into());
        line.insert("created_at".to_owned(), "2026-08-21T10:00:00.52472528Z".into());
        line.extend(said);
        line
    }

    /// The fields of the last line.
    fn end(&self, line: &mut Map<String, Value>, finished: bool) {
        let reason = match self.reason() {
            Reason::Stop | Reason::Calls => "stop",
            Reason::Length => "length",
        };
        line.insert("done".to_owned(), finished.into());
        if finished {
            line.insert("done_reason".to_owned(), reason.into());
        }
        if self.ask.gate == Gate::OllamaGenerate {
            line.insert("context".to_owned(), json!([1262, 117, 115]));
        }
        for (name, number) in [
            ("total_duration", 6_030_570),
            ("load_duration", 1_558_938),
            ("prompt_eval_count", self.prompt_tokens()),
            ("prompt_eval_duration", 509_965),
            ("eval_count", self.pieces.count()),
            ("eval_duration", 2_828_910),
        ] {
            // Go leaves out what is zero.
            if number > 0 {
                line.insert(name.to_owned(), number.into());
            }
        }
    }
}
