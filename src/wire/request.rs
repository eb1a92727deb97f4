//! One finished request as it is shown: how it was decided, and how it ended.

use serde::{Deserialize, Serialize};

use super::{FaultView, LoadView, Spread, millis, rfc3339};
use crate::{
    generate::{Attempt, Candidate, Ending, Operation, Outcome, Reason, Substitution, Usage},
    server::{KindId, ModelName, ServerId, Zone},
    stats,
};

/// The last requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RequestList {
    /// The requests, the last one first.
    pub requests: Vec<RequestView>,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RequestView {
    /// The id that the caller got in `x-lovable-request-id`.
    pub request_id: String,
    /// When it arrived.
    pub at: String,
    /// The program that asked, by its own word.
    #[serde(default)]
    pub caller: Option<String>,
    /// The user that it runs as, where it came over the socket.
    #[serde(default)]
    pub uid: Option<u32>,
    /// The language of the caller.
    pub dialect: String,
    /// What was wanted.
    pub operation: Operation,
    /// The model as the caller wrote it.
    pub asked: String,
    /// Whether the caller wanted a stream.
    pub stream: bool,
    /// How it ended.
    pub ending: Ending,
    /// The status that the caller got; `None` when it left before there was one.
    pub status: Option<u16>,
    /// The code of the failure that the caller was told.
    pub failure: Option<String>,
    /// Whether a refusal was the caller's own fault.
    #[serde(default)]
    pub callers_fault: bool,
    /// The tries, in order.
    pub attempts: Vec<AttemptView>,
    /// How the servers were ranked at the last choice.
    pub candidates: Vec<CandidateView>,
    /// The zone of the server that answered.
    pub zone: Option<Zone>,
    /// How far from what was asked the answer was.
    pub substituted: Substitution,
    /// How long it waited for a place at a server.
    #[serde(default)]
    pub queued_ms: f64,
    /// From arrival to the first content.
    pub first_token_ms: Option<f64>,
    /// Between the pieces of the answer.
    #[serde(default)]
    pub gap_ms: Spread,
    /// Tokens per second, as its server gave them.
    #[serde(default)]
    pub tokens_per_second: Option<f64>,
    /// From arrival to the end.
    pub total_ms: f64,
    /// Token counts.
    pub usage: Usage,
    /// Whether they are an estimate: the answer is of several servers, and the last has no
    /// tokenizer to count what was said before it.
    #[serde(default)]
    pub usage_estimated: bool,
    /// What all tries cost together; `null` where none costs money, or nobody knows what.
    pub cost_usd: Option<f64>,
    /// Whether that is the most it can be: a server that was cut off gave no counts.
    pub cost_is_bound: bool,
    /// Why the model stopped.
    pub reason: Option<Reason>,
    /// How many bytes the caller took from the first content of the answer on.
    #[serde(default)]
    pub sent_bytes: u64,
    /// How busy the machine was meanwhile; `null` where that was not seen.
    #[serde(default)]
    pub hardware: Option<LoadView>,
}

/// One try at one server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptView {
    /// Which server.
    pub server: ServerId,
    /// Its kind.
    pub kind: KindId,
    /// The model that was asked of it.
    pub model: ModelName,
    /// From the arrival of the request to this attempt.
    pub after_ms: f64,
    /// From the start of the attempt to its first content.
    pub first_token_ms: Option<f64>,
    /// From the start of the attempt to its end.
    pub total_ms: f64,
    /// How many requests the server got in it: more than one where it had to be asked with more care.
    pub requests: u32,
    /// Why it did not work.
    pub fault: Option<FaultView>,
    /// Token counts that this server gave.
    #[serde(default)]
    pub usage: Usage,
    /// What it cost.
    pub cost_usd: Option<f64>,
    /// How the servers were ranked when this one was chosen.
    #[serde(default)]
    pub candidates: Vec<CandidateView>,
}

/// A server as it was ranked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CandidateView {
    /// Which server.
    pub server: ServerId,
    /// The model that it would have been asked for.
    pub model: ModelName,
    /// Its place among those that were eligible, the first being 1.
    #[serde(default)]
    pub rank: Option<u32>,
    /// Why it stands behind the one before it.
    #[serde(default)]
    pub behind: Option<String>,
    /// Why it was not eligible.
    pub excluded: Option<String>,
}

impl From<&Outcome> for RequestView {
    fn from(outcome: &Outcome) -> Self {
        let cost = outcome.cost();
        Self {
            request_id: outcome.request_id.clone(),
            at: rfc3339(outcome.at_ms),
            caller: outcome.caller.program.clone(),
            uid: outcome.caller.uid,
            dialect: outcome.dialect.to_string(),
            operation: outcome.operation,
            asked: outcome.asked.clone(),
            stream: outcome.stream,
            ending: outcome.ending,
            status: (outcome.status != 0).then_some(outcome.status),
            failure: outcome.failure.as_deref().map(str::to_owned),
            callers_fault: outcome.callers_fault,
            attempts: outcome.attempts.iter().map(AttemptView::from).collect(),
            candidates: candidates(outcome.last_candidates()),
            zone: outcome.zone,
            substituted: outcome.substituted,
            queued_ms: millis(outcome.queued),
            first_token_ms: outcome.first_token.map(millis),
            gap_ms: stats::Spread::of_gaps(&outcome.gaps).into(),
            tokens_per_second: outcome.answered().and_then(stats::speed),
            total_ms: millis(outcome.total),
            usage: outcome.usage,
            usage_estimated: outcome.usage_estimated,
            cost_usd: cost.map(|it| it.usd.dollars()),
            cost_is_bound: cost.is_some_and(|it| it.at_most),
            reason: outcome.reason,
            sent_bytes: outcome.sent,
            hardware: outcome.load.map(LoadView::from),
        }
    }
}

impl From<&Attempt> for AttemptView {
    fn from(attempt: &Attempt) -> Self {
        Self {
            server: attempt.server.clone(),
            kind: attempt.kind.clone(),
            model: attempt.model.clone(),
            after_ms: millis(attempt.after),
            first_token_ms: attempt.first_token.map(millis),
            total_ms: millis(attempt.total),
            requests: attempt.requests,
            fault: attempt.fault.as_ref().map(FaultView::from),
            usage: attempt.usage,
            cost_usd: attempt.cost.map(|it| it.usd.dollars()),
            candidates: candidates(&attempt.candidates),
        }
    }
}

fn candidates(ranking: &[Candidate]) -> Vec<CandidateView> {
    let view = |(candidate, rank): (&Candidate, u32)| CandidateView {
        server: candidate.server.clone(),
        model: candidate.model.clone(),
        rank: candidate.excluded.is_none().then_some(rank),
        behind: candidate.behind.as_deref().map(str::to_owned),
        excluded: candidate.excluded.as_deref().map(str::to_owned),
    };
    ranking.iter().zip(1..).map(view).collect()
}
