//! What is written down when a request is over.
//!
//! No word of a prompt, of an answer or of a server's error is in it. Times are whole
//! microseconds, so that what was written down and read again gives the very same sums.

use std::{borrow::Cow, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Ending, Gaps, Load, Operation, Reason, Substitution, Usage, Usd};
use crate::{
    fault::Fault,
    server::{KindId, ModelName, ServerId, Zone},
};

/// Who asked, as far as that shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The program, by its own word.
    pub program: Option<String>,
    /// The user that it runs as, where it came over the socket.
    pub uid: Option<u32>,
}

/// The longest name of a program that is kept.
const LONGEST_NAME: usize = 48;

impl Caller {
    /// The name of a program in what it sends as `user-agent`: the first product, without its
    /// version, which would be another caller after each update.
    pub fn program_of(user_agent: &str) -> Option<String> {
        let product = user_agent.split([' ', '(', ';', ',']).find(|it| !it.is_empty())?;
        let name = match product.rsplit_once('/') {
            Some((name, version))
                if version.trim_start_matches('v').starts_with(|it: char| it.is_ascii_digit()) =>
            {
                name
            }
            _ => product,
        };
        let is_fit =
            |it: &char| it.is_ascii_alphanumeric() || matches!(it, '/' | '.' | '-' | '_' | '+' | '@');
        let name: String = name.chars().filter(is_fit).take(LONGEST_NAME).collect();
        (!name.is_empty()).then_some(name)
    }
}

/// One try at one server.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// Which server.
    pub server: ServerId,
    /// Its kind.
    pub kind: KindId,
    /// The model that was asked of it.
    pub model: ModelName,
    /// How all servers were ranked when it was chosen.
    pub candidates: Vec<Candidate>,
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

/// A candidate as it was ranked when a server was chosen; the best comes first, and after all
/// that were eligible those that were not.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Which server.
    pub server: ServerId,
    /// The model that it would have been asked for.
    pub model: ModelName,
    /// `None` when it was eligible, else why it was not.
    pub excluded: Option<Cow<'static, str>>,
    /// Why it stood behind the one before it; `None` for the first, and for those that were
    /// not eligible.
    pub behind: Option<Cow<'static, str>>,
}

/// What is written down when a request is over.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The id that the caller got in `x-lovable-request-id`.
    pub request_id: String,
    /// When the request arrived, milliseconds since 1970.
    pub at_ms: u64,
    /// Who asked.
    pub caller: Caller,
    /// The language of the caller: `openai`.
    pub dialect: Cow<'static, str>,
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
    pub failure: Option<Cow<'static, str>>,
    /// Whether a refusal was the caller's own fault.
    pub callers_fault: bool,
    /// The tries, in order.
    pub attempts: Vec<Attempt>,
    /// How the servers were ranked at the last choice, where no attempt followed it.
    pub candidates: Vec<Candidate>,
    /// The zone of the server that answered.
    pub zone: Option<Zone>,
    /// How far from what was asked the answer was.
    pub substituted: Substitution,
    /// How long it waited for a place at a server.
    pub queued: Duration,
    /// From arrival to the first content that went to the caller.
    pub first_token: Option<Duration>,
    /// Between the pieces of the answer.
    pub gaps: Gaps,
    /// From arrival to the end.
    pub total: Duration,
    /// Token counts.
    pub usage: Usage,
    /// Whether they are an estimate.
    pub usage_estimated: bool,
    /// Why the model stopped.
    pub reason: Option<Reason>,
    /// How many bytes the caller took from the first content of the answer on.
    pub sent: u64,
    /// How busy the machine was meanwhile, as far as that was seen.
    pub load: Option<Load>,
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

    /// How the servers were ranked at the last choice.
    pub fn last_candidates(&self) -> &[Candidate] {
        match (&self.candidates[..], self.attempts.last()) {
            ([], Some(last)) => &last.candidates,
            (own, _) => own,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_the_first_product_without_its_version() {
        for (agent, name) in [
            ("curl/8.5.0", Some("curl")),
            ("OpenAI/Python 1.40.3", Some("OpenAI/Python")),
            ("AsyncOpenAI/JS 4.2", Some("AsyncOpenAI/JS")),
            ("ollama-python/0.4.1 (x86_64 linux) Python/3.11.2", Some("ollama-python")),
            ("Mozilla/5.0 (X11; Linux x86_64)", Some("Mozilla")),
            ("node", Some("node")),
            ("a b\u{7}c", Some("a")),
            ("  lovablectl/v0.1", Some("lovablectl")),
            ("", None),
            ("\u{1f600}", None),
        ] {
            assert_eq!(Caller::program_of(agent).as_deref(), name, "{agent}");
        }
        assert_eq!(Caller::program_of(&"x".repeat(500)).unwrap().len(), LONGEST_NAME);
    }
}
