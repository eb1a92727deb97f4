//! What comes back, whatever language it comes in: events, and their sum.

use serde_json::Value;

use super::{Reason, Usage};

/// A piece of an answer.
///
/// `Usage` may come at any time and again, the last one counts; `Finished` comes
/// once, and after it only `Usage`.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// More text.
    Text(String),
    /// More of what the model thinks.
    Thinking(String),
    /// The proof of the thinking before it, opaque.
    Signature(String),
    /// More of a refusal by the model itself.
    Refusal(String),
    /// A tool is called. Calls are numbered from 0 in the order they begin.
    Call {
        /// Its number.
        index: usize,
        /// Its id, where the server gave one.
        id: Option<String>,
        /// The tool.
        name: String,
    },
    /// More of the arguments of a call, a JSON object as text. Calls may take turns.
    Arguments {
        /// The number of the call.
        index: usize,
        /// The piece.
        text: String,
    },
    /// Log probabilities of the tokens before, one object each as in OpenAI's
    /// `logprobs.content`: `token`, `logprob`, `bytes`, `top_logprobs`.
    Logprobs(Vec<Value>),
    /// One vector; they come in the order of the inputs.
    Vector(Vec<f32>),
    /// Token counts.
    Usage(Usage),
    /// Why the model stopped.
    Finished {
        /// Why.
        reason: Reason,
        /// The stop string that it came to, where the server says which.
        stop: Option<String>,
    },
}

/// A whole answer: its events put together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// What was said, in order, neighbours of one sort joined.
    pub said: Vec<Said>,
    /// The vectors, in the order of the inputs.
    pub vectors: Vec<Vec<f32>>,
    /// Log probabilities of all tokens, as in `Event::Logprobs`.
    pub logprobs: Vec<Value>,
    /// The counts that came last.
    pub usage: Usage,
    /// Why the model stopped.
    pub reason: Option<Reason>,
    /// The stop string that it came to, where the server says which.
    pub stop: Option<String>,
    held: usize,
}

/// A part of a whole answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// Text.
    Text(String),
    /// What the model thought, with its proof.
    Thinking {
        /// The thought.
        text: String,
        /// The proof, opaque.
        signature: Option<String>,
    },
    /// A refusal by the model itself.
    Refusal(String),
    /// A call of a tool.
    Call {
        /// Its number.
        index: usize,
        /// Its id, where the server gave one.
        id: Option<String>,
        /// The tool.
        name: String,
        /// A JSON object as text.
        arguments: String,
    },
}

impl Answer {
    /// Adds what came.
    pub fn add(&mut self, event: Event) {
        match event {
            Event::Text(more) => {
                self.held += more.len();
                match self.said.last_mut() {
                    Some(Said::Text(text)) => text.push_str(&more),
                    _ => self.said.push(Said::Text(more)),
                }
            }
            Event::Refusal(more) => {
                self.held += more.len();
                match self.said.last_mut() {
                    Some(Said::Refusal(text)) => text.push_str(&more),
                    _ => self.said.push(Said::Refusal(more)),
                }
            }
            Event::Thinking(more) => {
                self.held += more.len();
                match self.said.last_mut() {
                    Some(Said::Thinking { text, signature: None }) => text.push_str(&more),
                    _ => self.said.push(Said::Thinking { text: more, signature: None }),
                }
            }
            Event::Signature(more) => {
                self.held += more.len();
                match self.said.last_mut() {
                    Some(Said::Thinking { signature, .. }) => {
                        signature.get_or_insert_default().push_str(&more);
                    }
                    _ => self.said.push(Said::Thinking { text: String::new(), signature: Some(more) }),
                }
            }
            Event::Call { index, id, name } => {
                // Calls without a word in them take memory all the same.
                self.held += name.len() + size_of::<Said>();
                self.said.push(Said::Call { index, id, name, arguments: String::new() });
            }
            Event::Arguments { index: wanted, text } => {
                self.held += text.len();
                let call = self.said.iter_mut().rev().find_map(|it| match it {
                    Said::Call { index, arguments, .. } if *index == wanted => Some(arguments),
                    _ => None,
                });
                if let Some(arguments) = call {
                    arguments.push_str(&text);
                }
            }
            Event::Logprobs(more) => {
                // Each is an object of a token, its bytes and its alternatives.
                self.held += more.len() * 256;
                self.logprobs.extend(more);
            }
            Event::Vector(vector) => {
                self.held += size_of_val(&vector[..]);
                self.vectors.push(vector);
            }
            Event::Usage(usage) => self.usage = usage,
            Event::Finished { reason, stop } => {
                self.reason = Some(reason);
                self.stop = stop;
            }
        }
    }

    /// How many bytes are held, about.
    pub fn len(&self) -> usize {
        self.held
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// All text, end to end.
    pub fn text(&self) -> String {
        let texts = self.said.iter().filter_map(|it| match it {
            Said::Text(text) => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }

    /// All thinking, end to end.
    pub fn thinking(&self) -> String {
        let texts = self.said.iter().filter_map(|it| match it {
            Said::Thinking { text, .. } => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }

    /// Whether a tool is called.
    pub fn calls(&self) -> bool {
        self.said.iter().any(|it| matches!(it, Said::Call { .. }))
    }
}

impl FromIterator<Event> for Answer {
    fn from_iter<I: IntoIterator<Item = Event>>(events: I) -> Self {
        let mut answer = Self::default();
        for event in events {
            answer.add(event);
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_joined_and_calls_may_take_turns() {
        let call = |index, name: &str| Event::Call { index, id: None, name: name.to_owned() };
        let piece = |index, text: &str| Event::Arguments { index, text: text.to_owned() };
        let answer: Answer = [
            Event::Thinking("h".to_owned()),
            Event::Thinking("m".to_owned()),
            Event::Signature("s".to_owned()),
            Event::Text("a".to_owned()),
            Event::Text("b".to_owned()),
            call(0, "x"),
            call(1, "y"),
            piece(0, "{"),
            piece(1, "{}"),
            piece(0, "}"),
            Event::Finished { reason: Reason::ToolCalls, stop: None },
            Event::Usage(Usage { output_tokens: Some(5), ..Usage::default() }),
        ]
        .into_iter()
        .collect();
        let call = |index, name: &str| Said::Call {
            index,
            id: None,
            name: name.to_owned(),
            arguments: "{}".to_owned(),
        };
        let thinking = Said::Thinking { text: "hm".to_owned(), signature: Some("s".to_owned()) };
        assert_eq!(answer.said, [thinking, Said::Text("ab".to_owned()), call(0, "x"), call(1, "y")]);
        assert_eq!(answer.reason, Some(Reason::ToolCalls));
        assert_eq!(answer.usage.output_tokens, Some(5));
        assert!(answer.calls() && !answer.is_empty());
    }
}
