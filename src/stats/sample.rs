//! What one outcome adds to the sums: the request, and each of its attempts.

use std::time::Duration;

use super::{Bucket, Counts, hour};
use crate::{
    fault::{Blame, Cause, Fault, Stage},
    generate::{Attempt, Cost, Ending, Gaps, Load, Outcome, Usage, Usd},
};

/// One request or attempt, as it is summed.
pub(super) struct Sample<'a> {
    pub(super) ending: Ending,
    pub(super) callers_fault: bool,
    pub(super) failed_over: bool,
    pub(super) first_token: Option<Duration>,
    pub(super) total: Duration,
    pub(super) usage: Usage,
    pub(super) cost: Option<Usd>,
    /// Tokens per second after the first, in hundredths.
    pub(super) speed: Option<u64>,
    pub(super) gaps: Option<&'a Gaps>,
    /// How long it waited for a place, if it had to.
    pub(super) queued: Option<Duration>,
    pub(super) load: Option<&'a Load>,
}

/// The request and its attempts, each with its group. `caller` is by what name the caller is counted.
pub(super) fn samples<'a>(outcome: &'a Outcome, caller: Option<&str>) -> Vec<(Bucket, Sample<'a>)> {
    let hour = hour(outcome.at_ms);
    let last = outcome.attempts.last();
    let request = Bucket {
        hour,
        counts: Counts::Requests,
        server: last.map(|it| it.server.clone()),
        kind: last.map(|it| it.kind.clone()),
        model: last.map(|it| it.model.clone()),
        zone: outcome.zone,
        dialect: outcome.dialect.to_string(),
        caller: caller.map(str::to_owned),
        unkept: false,
    };
    let sample = Sample {
        ending: outcome.ending,
        callers_fault: outcome.callers_fault,
        failed_over: outcome.attempts.len() > 1,
        first_token: outcome.first_token,
        total: outcome.total,
        usage: outcome.usage,
        cost: outcome.cost().map(|it| it.usd),
        // Not by the caller's clock: a plain answer reaches it in one piece.
        speed: outcome.answered().and_then(speed),
        gaps: Some(&outcome.gaps),
        queued: (!outcome.queued.is_zero()).then_some(outcome.queued),
        load: outcome.load.as_ref(),
    };
    let mut samples = vec![(request, sample)];
    let is_alone = outcome.ending != Ending::Resumed;
    for (index, attempt) in outcome.attempts.iter().enumerate() {
        let is_last = index + 1 == outcome.attempts.len();
        let bucket = Bucket {
            hour,
            counts: Counts::Attempts,
            server: Some(attempt.server.clone()),
            kind: Some(attempt.kind.clone()),
            model: Some(attempt.model.clone()),
            zone: None,
            dialect: outcome.dialect.to_string(),
            caller: caller.map(str::to_owned),
            unkept: false,
        };
        let ending = match &attempt.fault {
            Some(fault) => ending_of(fault),
            None if outcome.ending == Ending::Resumed => Ending::Delivered,
            None => outcome.ending,
        };
        // Misfits everywhere mean that the request is at fault, not the servers.
        let callers_fault = outcome.ending == Ending::Refused && outcome.callers_fault
            || attempt.fault.is_some_and(|it| it.blame() == Blame::Caller);
        samples.push((
            bucket,
            Sample {
                ending,
                callers_fault,
                failed_over: !is_last,
                first_token: attempt.first_token,
                total: attempt.total,
                usage: attempt.usage,
                cost: attempt.cost.map(|Cost { usd, .. }| usd),
                speed: speed(attempt),
                // Both belong to the whole answer, which may be one of several servers.
                gaps: (attempt.fault.is_none() && is_alone).then_some(&outcome.gaps),
                queued: None,
                // Of the whole request as well, most of which was the last attempt.
                load: outcome.load.as_ref().filter(|_| is_last),
            },
        ));
    }
    samples
}

/// How an attempt ended, in the words for requests.
fn ending_of(fault: &Fault) -> Ending {
    match fault.blame() {
        Blame::Busy { .. } | Blame::Loading | Blame::Misfit | Blame::Caller | Blame::Daemon => {
            Ending::Refused
        }
        Blame::Server if fault.stage == Stage::Content => Ending::CutShort,
        Blame::Server if matches!(fault.cause, Cause::ConnectTimeout | Cause::FirstTokenTimeout) => {
            Ending::OutOfTime
        }
        Blame::Server => Ending::Exhausted,
    }
}

/// An answer that came in one piece has no speed: a plain reply, or one that
/// was cached. Real servers need longer than that for two tokens.
const IN_ONE_PIECE: Duration = Duration::from_millis(5);

pub(super) fn speed(attempt: &Attempt) -> Option<u64> {
    let tokens = attempt.usage.output_tokens?.checked_sub(1).filter(|it| *it > 0)?;
    let took = attempt.total.checked_sub(attempt.first_token?).filter(|it| *it >= IN_ONE_PIECE)?;
    Some((tokens as f64 * 100.0 / took.as_secs_f64()).round() as u64)
}
