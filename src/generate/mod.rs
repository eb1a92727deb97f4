//! The words for work: what is asked, how an answer ends, what is written down.
//!
//! No dialect's JSON is known here. Numbers that a server did not give are
//! `None`, which is never the same as zero.

mod begun;
mod estimate;
mod event;
mod histogram;
mod load;
mod meaning;
mod money;
mod outcome;

pub use self::{
    begun::Begun,
    estimate::{estimate, measure},
    event::{Answer, Event, Said},
    histogram::{Gaps, Histogram},
    load::{Load, MEASURES, Reading},
    meaning::{
        Call, Chat, Complete, Effort, Embed, Extras, Format, Image, ImageSource, Meaning, Part, Role,
        Sampling, Tool, ToolChoice, ToolResult, Turn,
    },
    money::{Most, Usd},
    outcome::{Attempt, Caller, Candidate, Cost, Outcome},
};
use serde::{Deserialize, Serialize};

/// What a request wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// Answer a conversation.
    Chat,
    /// Continue a text.
    Complete,
    /// Turn text into vectors.
    Embed,
}

/// What a request needs of a model beyond its operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// It offers tools.
    pub tools: bool,
    /// It shows images.
    pub vision: bool,
    /// It wants the middle of a text.
    pub fim: bool,
}

/// All that routing needs to know of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// What is wanted.
    pub operation: Operation,
    /// The model as the caller wrote it.
    pub model: String,
    /// Whether the caller wants the answer as it comes.
    pub stream: bool,
    /// The most tokens that the caller wants, if it said so.
    pub max_tokens: Option<u64>,
    /// What the model must be able to do.
    pub needs: Needs,
}

/// What a prompt takes of a context, in tokens, as far as that can be told without a tokenizer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Length {
    /// Surely not less than that.
    pub least: u64,
    /// About that.
    pub likely: u64,
    /// How large a context the caller wants to have loaded, if it says so.
    pub context: Option<u64>,
}

/// Token counts of an answer, as the server gave them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt, cached ones included.
    pub input_tokens: Option<u64>,
    /// Tokens of the answer, thinking included.
    pub output_tokens: Option<u64>,
    /// Those tokens of the prompt that the server had read before.
    #[serde(default)]
    pub cached_tokens: Option<u64>,
    /// Those tokens of the answer that were thinking.
    #[serde(default)]
    pub reasoning_tokens: Option<u64>,
    /// Those tokens of the prompt that the server wrote to a cache that it bills by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_tokens: Option<u64>,
}

/// Why a model stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It was done, or came to a stop string.
    Stop,
    /// It came to the limit of tokens or of its context.
    Length,
    /// It calls tools.
    ToolCalls,
    /// It was filtered.
    ContentFilter,
    /// It gave a reason that we have no word for.
    Other,
}

/// How a request ended. Every number that is shown is a sum over these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The whole answer of one server went to the caller.
    Delivered,
    /// The whole answer went to the caller, from more than one server.
    Resumed,
    /// The answer had begun and could not be finished.
    CutShort,
    /// The request was turned down: its own fault, or nothing may serve it.
    Refused,
    /// Every candidate failed.
    Exhausted,
    /// The deadline passed before content came.
    OutOfTime,
    /// The caller left.
    CallerGone,
}

impl Ending {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Delivered,
        Self::Resumed,
        Self::CutShort,
        Self::Refused,
        Self::Exhausted,
        Self::OutOfTime,
        Self::CallerGone,
    ];

    /// Its name, as the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Resumed => "resumed",
            Self::CutShort => "cut_short",
            Self::Refused => "refused",
            Self::Exhausted => "exhausted",
            Self::OutOfTime => "out_of_time",
            Self::CallerGone => "caller_gone",
        }
    }

    /// Whether the caller has a whole answer.
    pub fn is_success(self) -> bool {
        match self {
            Self::Delivered | Self::Resumed => true,
            Self::CutShort | Self::Refused | Self::Exhausted | Self::OutOfTime | Self::CallerGone => false,
        }
    }
}

/// How far from what was asked the answering model was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Substitution {
    /// The model that was asked for.
    #[default]
    No,
    /// The same model under another server's name.
    Equivalent,
    /// Another model.
    Alternative,
    /// A model in the cloud in place of a local one.
    Cloud,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_are_called_as_in_the_api() {
        for ending in Ending::ALL {
            assert_eq!(serde_json::to_value(ending).unwrap(), ending.as_str());
        }
    }
}
