//! The words for work: what is asked, how an answer ends, what is written down.
//!
//! No dialect's JSON is known here. Numbers that a server did not give are
//! `None`, which is never the same as zero.

mod begun;
mod estimate;
mod event;
mod meaning;
mod money;

use std::time::Duration;

pub use self::{
    begun::Begun,
    estimate::{estimate, measure},
    event::{Answer, Event, Said},
    meaning::{
        Call, Chat, Complete, Effort, Embed, Extras, Format, Image, ImageSource, Meaning, Part, Role,
        Sampling, Tool, ToolChoice, ToolResult, Turn,
    },
    money::{Most, Usd},
};
use serde::{Deserialize, Serialize};

use crate::{
    fault::Fault,
    server::{KindId, ModelName, ServerId, Zone},
};

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

/// One try at one server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Which server.
    pub server: ServerId,
    /// Its kind.
    pub kind: KindId,
    /// The model that was asked of it.
    pub model: ModelName,
    /// From the arrival of the request to this attempt.
    pub after: Duration,
    /// From the start of the attempt to its first content.
    pub first_token: Option<Duration>,
    /// From the start of the attempt to its end.
    pub total: Duration,
    /// How many requests the server got in it: more than one where it had to be asked with more care.
    pub requests: u32,
    /// Why it did not work; `None` when it did, or when the caller left.
    pub fault: Option<Fault>,
    /// Token counts that this server gave.
    pub usage: Usage,
    /// What is counted for it, where it costs money.
    #[serde(default)]
    pub cost: Option<Cost>,
}

/// What an attempt costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// So much is counted.
    pub usd: Usd,
    /// Whether that is the most it can have been: the server gave no counts.
    pub at_most: bool,
}

/// A candidate as it was ranked when a server was chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Which server.
    pub server: ServerId,
    /// The model that it would have been asked for.
    pub model: ModelName,
    /// `None` when it was eligible, else why it was not.
    pub excluded: Option<String>,
}

/// What is written down when a request is over. No word of prompt or answer is in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The id that the caller got in `x-lovable-request-id`.
    pub request_id: String,
    /// When the request arrived, milliseconds since 1970.
    pub at_ms: u64,
    /// The language of the caller: `openai`.
    pub dialect: String,
    /// What was wanted.
    pub operation: Operation,
    /// The model as the caller wrote it.
    pub asked: String,
    /// Whether the caller wanted a stream.
    pub stream: bool,
    /// How it ended.
    pub ending: Ending,
    /// The status that the caller got.
    pub status: u16,
    /// The code of the failure that the caller was told, if any.
    pub failure: Option<String>,
    /// Whether a refusal was the caller's own fault.
    pub callers_fault: bool,
    /// The tries, in order.
    pub attempts: Vec<Attempt>,
    /// How the servers were ranked, at the last choice.
    pub candidates: Vec<Candidate>,
    /// The zone of the server that answered.
    pub zone: Option<Zone>,
    /// How far from what was asked the answer was.
    pub substituted: Substitution,
    /// From arrival to the first content that went to the caller.
    pub first_token: Option<Duration>,
    /// From arrival to the end.
    pub total: Duration,
    /// Token counts.
    pub usage: Usage,
    /// Whether they are an estimate.
    pub usage_estimated: bool,
    /// Why the model stopped.
    pub reason: Option<Reason>,
}

impl Outcome {
    /// What all attempts cost together; `None` where none costs money, or nobody knows.
    pub fn cost(&self) -> Option<Cost> {
        self.attempts
            .iter()
            .filter_map(|it| it.cost)
            .reduce(|one, other| Cost { usd: one.usd.plus(other.usd), at_most: one.at_most || other.at_most })
    }

    /// The attempt that answered, if one did.
    pub fn answered(&self) -> Option<&Attempt> {
        match self.ending {
            Ending::Delivered | Ending::Resumed => self.attempts.last(),
            Ending::CutShort
            | Ending::Refused
            | Ending::Exhausted
            | Ending::OutOfTime
            | Ending::CallerGone => None,
        }
    }
}
