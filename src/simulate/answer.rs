//! What is said, and how each shape cuts it into events.
//!
//! The orders and fields are those of recorded servers: vLLM's finish reason
//! rides on the last word, llama.cpp's first word shares its chunk with the
//! role, Ollama says the role in every delta and its ending is one chunk.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::{script::Script, shape::Shape};

/// Word number `n`, counted from 1, as it stands in an answer: the first without
/// a space before it.
pub fn word(n: usize) -> String {
    if n == 1 { "w1".to_owned() } else { format!(" w{n}") }
}

/// An answer of `words` words.
pub fn text(words: usize) -> String {
    (1..=words).map(word).collect()
}

/// Checks a numbered answer and returns how many words it has.
///
/// The error says what stood where another word should have been.
pub fn check(text: &str) -> Result<usize, String> {
    let mut count = 0;
    for (at, found) in text.split_ascii_whitespace().enumerate() {
        let wanted = format!("w{}", at + 1);
        if found != wanted {
            return Err(format!("`{found}` where `{wanted}` belongs"));
        }
        count += 1;
    }
    Ok(count)
}

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Chat,
    Complete,
    Embed,
}

/// The part of a request that a simulated server looks at.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) operation: Operation,
    pub(super) model: Option<String>,
    pub(super) stream: bool,
    pub(super) max_tokens: Option<usize>,
    pub(super) usage: bool,
    pub(super) inputs: usize,
    pub(super) prompt_tokens: usize,
}

/// An answer before it is written: its pieces and what stands around each.
pub(super) struct Voice<'a> {
    pub(super) shape: Shape,
    pub(super) ask: &'a Ask,
    /// The model's name as it is echoed.
    pub(super) model: &'a str,
    pub(super) pieces: Pieces<'a>,
    pub(super) number: u64,
    pub(super) created: u64,
}

/// The words of an answer.
pub(super) enum Pieces<'a> {
    Numbered(usize),
    Stamped(usize),
    Sentence(Vec<&'a str>, usize),
}

impl<'a> Pieces<'a> {
    pub(super) fn of(script: &'a Script, max_tokens: Option<usize>) -> Self {
        let limit = max_tokens.unwrap_or(usize::MAX);
        match &script.sentence {
            Some(sentence) => {
                let words: Vec<_> = sentence.split_inclusive(' ').collect();
                let count = words.len().min(limit);
                Self::Sentence(words, count)
            }
            None if script.stamps => Self::Stamped(script.words.min(limit)),
            // A request that asks for more than the script's words gets the script's.
            None => Self::Numbered(script.words.min(limit)),
        }
    }

    pub(super) fn count(&self) -> usize {
        match self {
            Self::Numbered(count) | Self::Stamped(count) | Self::Sentence(_, count) => *count,
        }
    }

    /// Piece `index`, counted from 0; beyond the end it goes on counting.
    pub(super) fn at(&self, index: usize) -> String {
        match self {
            Self::Numbered(_) => word(index + 1),
            Self::Stamped(_) => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                format!("{} ", now.as_nanos())
            }
            Self::Sentence(words, _) => words[index % words.len()].to_owned(),
        }
    }

    fn text(&self) -> String {
        (0..self.count()).map(|index| self.at(index)).collect()
    }
}

impl Voice<'_> {
    /// `length` when the request's limit cut it, else `stop`.
    fn reason(&self) -> &'static str {
        match self.ask.max_tokens {
            Some(limit) if self.pieces.count() >= limit => "length",
            _ => "stop",
        }
    }

    fn id(&self) -> String {
        let number = self.number;
        match (self.shape, self.ask.operation) {
            (Shape::LlamaCpp, _) | (_, Operation::Chat) => format!("chatcmpl-{number:016x}"),
            (_, Operation::Complete) => format!("cmpl-{number:016x}"),
            (_, Operation::Embed) => format!("embd-{number:016x}"),
        }
    }

    fn usage(&self) -> Value {
        let (prompt, completion) = (self.ask.prompt_tokens, self.pieces.count());
        json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion})
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
        let object = match self.ask.operation {
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

    /// The event with the role alone, where the shape has one.
    pub(super) fn opening(&self) -> Option<String> {
        if self.ask.operation == Operation::Complete {
            return None;
        }
        let delta = match self.shape {
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
            if self.shape == Shape::Vllm { r#","prompt_token_ids":null,"prompt_text":null"# } else { "" };
        Some(self.event(delta, more))
    }

    /// The event of one piece. `last` is true for the last one of a whole answer.
    pub(super) fn piece(&self, index: usize, last: bool) -> String {
        let said = quoted(&self.pieces.at(index));
        let reason = match self.shape {
            Shape::Vllm if last => format!("\"{}\"", self.reason()),
            _ => "null".to_owned(),
        };
        let choice = match (self.ask.operation, self.shape) {
            (Operation::Complete, Shape::Vllm) => format!(
                "{{\"index\":0,\"text\":{said},\"logprobs\":null,\"finish_reason\":{reason},\"stop_reason\":null}}"
            ),
            (Operation::Complete, _) => format!("{{\"text\":{said},\"index\":0,\"finish_reason\":null}}"),
            (_, Shape::Ollama) => format!(
                "{{\"index\":0,\"delta\":{{\"role\":\"assistant\",\"content\":{said}}},\"finish_reason\":null}}"
            ),
            (_, Shape::LlamaCpp) => {
                format!("{{\"finish_reason\":null,\"index\":0,\"delta\":{{\"content\":{said}}}}}")
            }
            (_, Shape::Vllm) => format!(
                "{{\"index\":0,\"delta\":{{\"content\":{said}}},\"logprobs\":null,\"finish_reason\":{reason},\
                 \"token_ids\":null}}"
            ),
            (_, Shape::LmStudio | Shape::OpenAi) => {
                let role = if self.shape == Shape::LmStudio { "\"role\":\"assistant\"," } else { "" };
                format!(
                    "{{\"index\":0,\"delta\":{{{role}\"content\":{said}}},\"logprobs\":null,\"finish_reason\":null}}"
                )
            }
        };
        self.event(&choice, "")
    }

    /// The chunks after the last piece: finish reason, usage where asked for, `[DONE]`.
    pub(super) fn ending(&self) -> Vec<String> {
        let reason = self.reason();
        let finish = match (self.ask.operation, self.shape) {
            (_, Shape::Vllm) if self.pieces.count() > 0 => None,
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
        let timings = |wanted: bool| match self.shape {
            Shape::LlamaCpp if wanted => {
                format!(",\"timings\":{{\"prompt_n\":1,\"predicted_n\":{}}}", self.pieces.count())
            }
            _ => String::new(),
        };
        let finish = finish.map(|choice| self.event(&choice, &timings(!self.ask.usage)));
        let usage =
            self.ask.usage.then(|| self.event("", &format!(",\"usage\":{}{}", self.usage(), timings(true))));
        let done = "data: [DONE]\n\n".to_owned();
        match self.shape {
            // All in one chunk.
            Shape::Ollama => vec![finish.into_iter().chain(usage).chain([done]).collect()],
            // The terminator has a chunk of its own.
            Shape::LlamaCpp => {
                let both: String = finish.into_iter().chain(usage).collect();
                vec![both, done]
            }
            Shape::Vllm | Shape::LmStudio | Shape::OpenAi => {
                finish.into_iter().chain(usage).chain([done]).collect()
            }
        }
    }

    /// The event that Ollama sends when its runner has died.
    pub(super) fn blank(&self) -> String {
        "data: {\"id\":\"chatcmpl-0\",\"object\":\"chat.completion.chunk\",\"created\":0,\"model\":\"\",\
         \"system_fingerprint\":\"fp_ollama\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\
         \"content\":\"\"},\"finish_reason\":null}]}\n\n"
            .to_owned()
    }

    /// A whole answer. Without `finished` its finish reason is missing.
    pub(super) fn whole(&self, finished: bool) -> String {
        let reason = if finished { json!(self.reason()) } else { Value::Null };
        let mut body = match self.ask.operation {
            Operation::Embed => return self.vectors(),
            Operation::Chat => json!({
                "object": "chat.completion",
                "choices": [{
                    "index": 0,
                    "message": {"role": "assistant", "content": self.pieces.text()},
                    "finish_reason": reason,
                }],
            }),
            Operation::Complete => json!({
                "object": "text_completion",
                "choices": [{"index": 0, "text": self.pieces.text(), "logprobs": null, "finish_reason": reason}],
            }),
        };
        body["id"] = self.id().into();
        body["created"] = self.created.into();
        body["model"] = self.model.into();
        body["system_fingerprint"] = self.fingerprint().into();
        body["usage"] = self.usage();
        if self.shape == Shape::LlamaCpp {
            body["timings"] = json!({"prompt_n": 1, "predicted_n": self.pieces.count()});
        }
        body.to_string()
    }

    fn vectors(&self) -> String {
        let data: Vec<_> = (0..self.ask.inputs)
            .map(|index| {
                let vector: Vec<f64> = (1..=8).map(|it| (index + it) as f64 / 16.0).collect();
                json!({"object": "embedding", "index": index, "embedding": vector})
            })
            .collect();
        let tokens = self.ask.prompt_tokens;
        json!({
            "object": "list",
            "data": data,
            "model": self.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        })
        .to_string()
    }
}

/// As a JSON string.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_numbered_text_shows_what_is_missing_doubled_or_torn() {
        assert_eq!(check(&text(12)), Ok(12));
        assert_eq!(check(""), Ok(0));
        assert_eq!(check("w1 w3"), Err("`w3` where `w2` belongs".to_owned()));
        assert_eq!(check("w1 w1"), Err("`w1` where `w2` belongs".to_owned()));
        assert_eq!(check("w1 w"), Err("`w` where `w2` belongs".to_owned()));
    }

    fn events(shape: Shape, operation: Operation, usage: bool) -> (String, Vec<Value>) {
        let ask = Ask {
            operation,
            model: Some("m".into()),
            stream: true,
            max_tokens: Some(3),
            usage,
            inputs: 1,
            prompt_tokens: 5,
        };
        let script = Script::default();
        let pieces = Pieces::of(&script, ask.max_tokens);
        let voice = Voice { shape, ask: &ask, model: "m", pieces, number: 1, created: 2 };
        let mut all = voice.opening().unwrap_or_default();
        for index in 0..3 {
            all += &voice.piece(index, index == 2);
        }
        all += &voice.ending().concat();
        let data = all.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap());
        let values =
            data.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect();
        (all, values)
    }

    #[test]
    fn every_shape_says_the_words_one_finish_reason_and_done() {
        for shape in Shape::ALL.iter().copied() {
            for operation in [Operation::Chat, Operation::Complete] {
                let (all, values) = events(shape, operation, true);
                assert!(all.ends_with("data: [DONE]\n\n"), "{shape:?}");
                let said: String = values
                    .iter()
                    .filter_map(|value| {
                        let choice = &value["choices"][0];
                        choice["delta"]["content"].as_str().or(choice["text"].as_str()).map(str::to_owned)
                    })
                    .collect();
                assert_eq!(said, text(3), "{shape:?} {operation:?}");
                let reasons =
                    values.iter().filter(|value| value["choices"][0]["finish_reason"] == "length").count();
                assert_eq!(reasons, 1, "{shape:?} {operation:?}");
                assert_eq!(values.last().unwrap()["usage"]["completion_tokens"], 3, "{shape:?}");
            }
        }
    }

    #[test]
    fn usage_comes_only_when_asked_for() {
        for shape in Shape::ALL.iter().copied() {
            let (all, _) = events(shape, Operation::Chat, false);
            assert!(!all.contains("\"usage\""), "{shape:?}");
        }
    }
}
