//! The items of an answer that we write, as the streams and the whole answer show them.

use serde_json::{Value, json};

/// One item of the output.
#[derive(Debug)]
pub(super) struct Item {
    /// Its id.
    pub(super) id: String,
    /// What it is.
    pub(super) body: Body,
}

/// What an item is.
#[derive(Debug)]
pub(super) enum Body {
    /// What the model says.
    Message(Vec<Piece>),
    /// What it thinks, with the proof.
    Reasoning {
        /// The thought. It is shown as a summary, for that is what every client shows.
        text: String,
        /// The proof, opaque.
        signature: Option<String>,
    },
    /// A call of a function, or of a custom tool that was said as one.
    Call {
        /// The id that its result has to name.
        call_id: String,
        /// The tool.
        name: String,
        /// The arguments of a function; the input of a custom tool.
        text: String,
        /// Whether the caller knows it as a custom tool.
        is_custom: bool,
    },
}

/// A part of a message.
#[derive(Debug)]
pub(super) struct Piece {
    /// The text.
    pub(super) text: String,
    /// Whether the model refuses with it.
    pub(super) is_refusal: bool,
    /// Log probabilities of its tokens.
    pub(super) logprobs: Vec<Value>,
}

impl Piece {
    /// The part as JSON.
    pub(super) fn show(&self) -> Value {
        match self.is_refusal {
            true => json!({"type": "refusal", "refusal": self.text}),
            false => json!({
                "type": "output_text",
                "text": self.text,
                "annotations": [],
                "logprobs": self.logprobs,
            }),
        }
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
    /// Its word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Incomplete => "incomplete",
        }
    }
}

impl Item {
    /// The item as JSON; of one that is in progress only the frame.
    pub(super) fn show(&self, status: Status) -> Value {
        let begins = status == Status::InProgress;
        let mut shown = match &self.body {
            Body::Message(pieces) => {
                let content: Vec<Value> =
                    if begins { Vec::new() } else { pieces.iter().map(Piece::show).collect() };
                json!({"type": "message", "role": "assistant", "content": content})
            }
            Body::Reasoning { text, signature } => {
                let summary: Vec<Value> = match begins || text.is_empty() {
                    true => Vec::new(),
                    false => vec![json!({"type": "summary_text", "text": text})],
                };
                let signature = if begins { None } else { signature.as_deref() };
                json!({"type": "reasoning", "summary": summary, "encrypted_content": signature})
            }
            Body::Call { call_id, name, text, is_custom } => {
                let text = if begins { "" } else { text };
                match is_custom {
                    true => {
                        json!({"type": "custom_tool_call", "call_id": call_id, "name": name, "input": text})
                    }
                    false => {
                        json!({"type": "function_call", "call_id": call_id, "name": name, "arguments": text})
                    }
                }
            }
        };
        shown["id"] = self.id.as_str().into();
        shown["status"] = status.word().into();
        shown
    }
}
