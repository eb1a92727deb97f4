//! The items of an answer that we write: their shapes, and the events that tell of them.
//!
//! An item grows as events come and remembers how much of it has been told, so
//! that it may wait for its turn and lose nothing.

use serde_json::{Value, json};

use super::tool;

/// Takes an event: its type and its fields.
pub(super) type Tell<'a> = dyn FnMut(&str, Value) + 'a;

/// One item of the output.
#[derive(Debug)]
pub(super) struct Item {
    id: String,
    /// Its number.
    at: usize,
    begun: bool,
    /// What it is.
    pub(super) body: Body,
}

/// What an item is.
#[derive(Debug)]
pub(super) enum Body {
    /// What the model says.
    Message {
        /// The parts.
        pieces: Vec<Piece>,
        /// How many of them have been told to their end.
        closed: usize,
    },
    /// What it thinks, with the proof. It is shown as a summary, for that is what every client shows.
    Reasoning {
        /// The thought.
        thought: Growing,
        /// The proof, opaque.
        signature: Option<String>,
    },
    /// A call of a function, or of a custom tool that was said as one.
    Call {
        /// The id that its result has to name.
        call_id: String,
        /// The tool.
        name: String,
        /// The arguments.
        arguments: Growing,
        /// Whether they are whole.
        braces: Braces,
        /// Whether the caller knows it as a custom tool.
        is_custom: bool,
    },
}

/// A text, and how much of it has been told.
#[derive(Debug, Default)]
pub(super) struct Growing {
    pub(super) text: String,
    told: usize,
}

impl Growing {
    /// What has not been told.
    fn rest(&mut self) -> Option<&str> {
        let from = std::mem::replace(&mut self.told, self.text.len());
        Some(&self.text[from..]).filter(|it| !it.is_empty())
    }
}

/// A part of a message.
#[derive(Debug, Default)]
pub(super) struct Piece {
    /// The text.
    pub(super) said: Growing,
    /// Whether the model refuses with it.
    pub(super) is_refusal: bool,
    /// Log probabilities of its tokens.
    pub(super) logprobs: Vec<Value>,
    told_logprobs: usize,
    begun: bool,
}

impl Piece {
    /// A part without a word yet.
    pub(super) fn new(is_refusal: bool) -> Self {
        Self { is_refusal, ..Self::default() }
    }

    fn show(&self) -> Value {
        match self.is_refusal {
            true => json!({"type": "refusal", "refusal": self.said.text}),
            false => json!({
                "type": "output_text",
                "text": self.said.text,
                "annotations": [],
                "logprobs": self.logprobs,
            }),
        }
    }

    fn more(&mut self, mut tell: impl FnMut(&str, Value)) {
        if !std::mem::replace(&mut self.begun, true) {
            tell("response.content_part.added", json!({"part": Self::new(self.is_refusal).show()}));
        }
        let from = std::mem::replace(&mut self.told_logprobs, self.logprobs.len());
        let logprobs = &self.logprobs[from..];
        let rest = self.said.rest();
        if rest.is_none() && logprobs.is_empty() {
            return;
        }
        let delta = rest.unwrap_or_default();
        match self.is_refusal {
            true => tell("response.refusal.delta", json!({"delta": delta})),
            false => tell("response.output_text.delta", json!({"delta": delta, "logprobs": logprobs})),
        }
    }

    fn close(&self, mut tell: impl FnMut(&str, Value)) {
        let text = &self.said.text;
        match self.is_refusal {
            true => tell("response.refusal.done", json!({"refusal": text})),
            false => tell("response.output_text.done", json!({"text": text, "logprobs": self.logprobs})),
        }
        tell("response.content_part.done", json!({"part": self.show()}));
    }
}

/// Follows JSON as it comes and knows when it is whole, without reading it twice.
#[derive(Debug, Default)]
pub(super) struct Braces {
    depth: usize,
    begun: bool,
    in_text: bool,
    escaped: bool,
}

impl Braces {
    /// Follows what came.
    pub(super) fn follow(&mut self, more: &str) {
        for byte in more.bytes() {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_text => self.escaped = true,
                b'"' => self.in_text = !self.in_text,
                _ if self.in_text => {}
                b'{' | b'[' => (self.depth, self.begun) = (self.depth + 1, true),
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
    }

    fn is_whole(&self) -> bool {
        self.begun && self.depth == 0 && !self.in_text
    }
}

/// How far an item has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// More comes.
    InProgress,
    /// It is whole.
    Completed,
    /// The answer ended in the middle of it.
    Incomplete,
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Incomplete => "incomplete",
        }
    }
}

impl Item {
    /// An item that has not been told; `answer` is the id of the answer, `at` its own number in it.
    pub(super) fn new(answer: &str, at: usize, body: Body) -> Self {
        let prefix = match &body {
            Body::Message { .. } => "msg",
            Body::Reasoning { .. } => "rs",
            Body::Call { is_custom: true, .. } => "ctc",
            Body::Call { is_custom: false, .. } => "fc",
        };
        Self { id: format!("{prefix}_{answer}_{at}"), at, begun: false, body }
    }

    /// Whether it is whole now that another one follows. Only pieces of a call can still come then.
    pub(super) fn is_whole(&self) -> bool {
        match &self.body {
            Body::Message { .. } | Body::Reasoning { .. } => true,
            Body::Call { braces, .. } => braces.is_whole(),
        }
    }

    /// Tells what is new.
    pub(super) fn more(&mut self, tell: &mut Tell<'_>) {
        if !std::mem::replace(&mut self.begun, true) {
            let shown = self.show(Status::InProgress);
            tell("response.output_item.added", json!({"output_index": self.at, "item": shown}));
        }
        let (id, at) = (&self.id, self.at);
        match &mut self.body {
            Body::Message { pieces, closed } => {
                let last = pieces.len().saturating_sub(1);
                for (index, piece) in pieces.iter_mut().enumerate().skip(*closed) {
                    piece.more(|kind, fields| tell(kind, of_part(id, at, index, fields)));
                    if index < last {
                        piece.close(|kind, fields| tell(kind, of_part(id, at, index, fields)));
                        *closed += 1;
                    }
                }
            }
            Body::Reasoning { thought, .. } => {
                let begins = thought.told == 0;
                let Some(delta) = thought.rest() else { return };
                if begins {
                    let part = json!({"type": "summary_text", "text": ""});
                    tell("response.reasoning_summary_part.added", of_thought(id, at, "part", part));
                }
                tell("response.reasoning_summary_text.delta", of_thought(id, at, "delta", delta.into()));
            }
            // The input of a custom tool stands inside the arguments: told when they are whole.
            Body::Call { is_custom: true, .. } => {}
            Body::Call { arguments, .. } => {
                if let Some(delta) = arguments.rest() {
                    let fields = of_item(id, at, json!({"delta": delta}));
                    tell("response.function_call_arguments.delta", fields);
                }
            }
        }
    }

    /// Tells that it is over.
    pub(super) fn close(&mut self, status: Status, tell: &mut Tell<'_>) {
        if let Body::Call { arguments, is_custom: false, .. } = &mut self.body
            && arguments.text.trim().is_empty()
            && status == Status::Completed
        {
            // Clients parse them, and a tool without parameters may be called with nothing.
            arguments.text.push_str("{}");
        }
        self.more(tell);
        let (id, at) = (&self.id, self.at);
        match &self.body {
            Body::Message { pieces, .. } => {
                if let Some(piece) = pieces.last() {
                    piece.close(|kind, fields| tell(kind, of_part(id, at, pieces.len() - 1, fields)));
                }
            }
            Body::Reasoning { thought, .. } if !thought.text.is_empty() => {
                let text = thought.text.as_str();
                tell("response.reasoning_summary_text.done", of_thought(id, at, "text", text.into()));
                let part = json!({"type": "summary_text", "text": text});
                tell("response.reasoning_summary_part.done", of_thought(id, at, "part", part));
            }
            Body::Reasoning { .. } => {}
            Body::Call { arguments, is_custom: true, .. } => {
                let input = tool::custom_input(&arguments.text);
                if !input.is_empty() {
                    let fields = of_item(id, at, json!({"delta": input}));
                    tell("response.custom_tool_call_input.delta", fields);
                }
                let fields = of_item(id, at, json!({"input": input}));
                tell("response.custom_tool_call_input.done", fields);
            }
            Body::Call { arguments, name, .. } => {
                let fields = of_item(id, at, json!({"name": name, "arguments": arguments.text}));
                tell("response.function_call_arguments.done", fields);
            }
        }
        let shown = self.show(status);
        tell("response.output_item.done", json!({"output_index": at, "item": shown}));
    }

    /// The item as JSON; of one that is in progress only the frame.
    pub(super) fn show(&self, status: Status) -> Value {
        let begins = status == Status::InProgress;
        let mut shown = match &self.body {
            Body::Message { pieces, .. } => {
                let content: Vec<Value> =
                    if begins { Vec::new() } else { pieces.iter().map(Piece::show).collect() };
                json!({"type": "message", "role": "assistant", "content": content})
            }
            Body::Reasoning { thought, signature } => {
                let summary = match begins || thought.text.is_empty() {
                    true => json!([]),
                    false => json!([{"type": "summary_text", "text": thought.text}]),
                };
                let signature = if begins { None } else { signature.as_deref() };
                json!({"type": "reasoning", "summary": summary, "encrypted_content": signature})
            }
            Body::Call { call_id, name, arguments, is_custom: true, .. } => {
                let input = if begins { String::new() } else { tool::custom_input(&arguments.text) };
                json!({"type": "custom_tool_call", "call_id": call_id, "name": name, "input": input})
            }
            Body::Call { call_id, name, arguments, .. } => {
                let arguments = if begins { "" } else { &arguments.text };
                json!({"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments})
            }
        };
        shown["id"] = self.id.as_str().into();
        shown["status"] = status.word().into();
        shown
    }
}

fn of_item(id: &str, at: usize, mut fields: Value) -> Value {
    fields["item_id"] = id.into();
    fields["output_index"] = at.into();
    fields
}

fn of_part(id: &str, at: usize, index: usize, fields: Value) -> Value {
    let mut fields = of_item(id, at, fields);
    fields["content_index"] = index.into();
    fields
}

fn of_thought(id: &str, at: usize, name: &str, value: Value) -> Value {
    of_item(id, at, json!({"summary_index": 0, name: value}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_whole_when_their_braces_are() {
        let check = |pieces: &[&str], expected: bool| {
            let mut braces = Braces::default();
            pieces.iter().for_each(|it| braces.follow(it));
            assert_eq!(braces.is_whole(), expected, "for {pieces:?}");
        };
        check(&[], false);
        check(&["{}"], true);
        check(&["{\"a\":[{", "}]}", " "], true);
        check(&["{\"a\":[{", "}]"], false);
        check(&[r#"{"a":"}"#], false);
        check(&[r#"{"a":"}"#, "\"}"], true);
        check(&[r#"{"a":"\"#, r#""}"}"#], true);
        check(&[r#"{"a":"\\"#, "\"}"], true);
        check(&["\""], false);
    }
}
