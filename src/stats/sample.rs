//! What one outcome adds to the sums: the request, and each of its attempts.

use std::time::Duration;

use super::{Bucket, Counts, hour};
use crate::{
    fault::{Blame, Cause, Fault, Stage},
    generate::{Ending, Outcome, Usage},
};

/// One request or attempt, as it is summed.
pub(super) struct Sample {
    pub(super) ending: Ending,
    pub(super) callers_fault: bool,
    pub(super) failed_over: bool,
    pub(super) first_token: Option<Duration>,
    pub(super) total: Duration,
    pub(super) usage: Usage,
}

/// The request and its attempts, each with its group.
pub(super) fn samples(outcome: &Outcome) -> Vec<(Bucket, Sample)> {
    let hour = hour(outcome.at_ms);
    let last = outcome.attempts.last();
    let request = Bucket {
        hour,
        counts: Counts::Requests,
        server: last.map(|it| it.server.clone()),
        kind: last.map(|it| it.kind.clone()),
        model: last.map(|it| it.model.clone()),
        zone: outcome.zone,
        dialect: outcome.dialect.clone(),
    };
    let sample = Sample {
        ending: outcome.ending,
        callers_fault: outcome.callers_fault,
        failed_over: outcome.attempts.len() > 1,
        first_token: outcome.first_token,
        total: outcome.total,
        usage: outcome.usage,
    };
    let mut samples = vec![(request, sample)];
    for (index, attempt) in outcome.attempts.iter().enumerate() {
        let is_last = index + 1 == outcome.attempts.len();
        let bucket = Bucket {
            hour,
            counts: Counts::Attempts,
            server: Some(attempt.server.clone()),
            kind: Some(attempt.kind.clone()),
            model: Some(attempt.model.clone()),
            zone: None,
            dialect: outcome.dialect.clone(),
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
