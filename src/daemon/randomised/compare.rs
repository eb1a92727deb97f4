//! Whether what was recorded is what happened.

use std::{sync::Arc, time::Duration};

use super::{
    Sequence,
    caller::{Account, Saw},
};
use crate::{
    fault::Cause,
    generate::{Ending, Outcome},
    housekeeping::Housekeeping,
    simulate::Counts,
    stats::{By, Query},
};

/// What a caller measures may differ from what was recorded by that.
const BLUR: Duration = Duration::from_millis(60);

pub(super) fn is_settled(it: &Counts) -> bool {
    it.in_flight == 0 && it.received == it.served + it.refused + it.faulted + it.cancelled
}

pub(super) fn agree<T: PartialEq + std::fmt::Debug>(what: &str, one: &T, other: &T) -> Result<(), String> {
    if one == other { Ok(()) } else { Err(format!("{what}: {one:?} and {other:?}")) }
}

/// Whether what was recorded of a request is what its caller saw.
pub(super) fn same(account: &Account, outcome: &Outcome, sequence: &Sequence) -> Result<(), String> {
    let err = |why: &str| Err(format!("{why}: {account:?}\n{outcome:#?}"));
    let words = sequence.servers[0].words;
    let ending = outcome.ending;
    let refused = matches!(ending, Ending::Refused | Ending::Exhausted | Ending::OutOfTime);
    let agrees = match account.saw {
        Saw::Wrong(ref why) => return err(why),
        Saw::Whole { words: seen, tokens } => {
            let told = outcome.usage.output_tokens;
            if seen != words {
                return err("other words");
            }
            if tokens != told || told.is_some_and(|it| it != words as u64) {
                return err("other tokens");
            }
            outcome.status == 200 && ending.is_success()
        }
        Saw::BrokenOff { status } => outcome.status == status && (ending == Ending::CutShort || refused),
        Saw::Refused { status } => outcome.status == status && refused,
        // What was on its way when it left may have been all of it.
        Saw::Left => ending == Ending::CallerGone || outcome.total <= account.total,
    };
    if !agrees {
        return err("another ending");
    }
    let blamed = outcome.failure.is_some() && matches!(outcome.status, 400 | 422);
    if sequence.has_a_good_one && !ending.is_success() && ending != Ending::CallerGone && !blamed {
        return err("a failure beside a server that never fails");
    }
    // A success is one good attempt after only bad ones.
    let good = outcome.attempts.iter().filter(|it| it.fault.is_none()).count();
    let is_last = outcome.attempts.last().is_some_and(|it| it.fault.is_none());
    if ending.is_success() && !(good == 1 && is_last) {
        return err("other attempts");
    }
    // Where the caller or the time was gone it was not the last server's fault.
    let nobodys = matches!(ending, Ending::CallerGone | Ending::OutOfTime | Ending::CutShort) && is_last;
    if !ending.is_success() && good > usize::from(nobodys) {
        return err("a good attempt and a failure");
    }
    if ending == Ending::Resumed && outcome.attempts.len() < 2 {
        return err("resumed by nobody");
    }
    if account.attempts.is_some_and(|it| it > outcome.attempts.len()) {
        return err("more attempts in the head");
    }
    let near = |one: Duration, other: Duration| one.abs_diff(other) <= BLUR;
    if !matches!(account.saw, Saw::Left) && !near(account.total, outcome.total) {
        return err("another time");
    }
    if account.plans.stream
        && let (Some(first), Some(told)) = (account.first, outcome.first_token)
        && !near(first, told)
    {
        return err("another first word");
    }
    Ok(())
}

/// Whether what was recorded of a server is what it counted.
pub(super) fn same_at_server(
    house: &Housekeeping,
    id: &str,
    counts: &Counts,
    outcomes: &[Arc<Outcome>],
) -> Result<(), String> {
    let (mut attempts, mut requests, mut whole, mut left, mut late) = (0, 0, 0, 0, 0);
    for outcome in outcomes {
        for attempt in outcome.attempts.iter().filter(|it| it.server.as_str() == id) {
            attempts += 1;
            requests += u64::from(attempt.requests);
            match attempt.fault {
                None if outcome.ending.is_success() => whole += 1,
                // It may have come to its end all the same, or not have begun.
                None => left += 1,
                Some(fault) => late += u64::from(fault.cause == Cause::FirstTokenTimeout),
            }
        }
    }
    let err = |what: &str| {
        Err(format!(
            "{what} at {id}: {counts:?}, attempts {attempts} of {requests} requests, whole {whole}, left {left}: {outcomes:#?}"
        ))
    };
    if !is_settled(counts) {
        return err("not settled");
    }
    // What broke on a connection from the pool is sent once more within the same attempt.
    if counts.received > requests + counts.hung_up || counts.received + left < requests {
        return err("attempts");
    }
    if counts.served < whole || counts.served > whole + left + late {
        return err("whole answers");
    }
    if house.traffic().look().of(&id.into()) != 0 {
        return err("a place that is still taken");
    }
    let query = Query { by: Some(By::Server), server: Some(id.to_owned()), ..Query::default() };
    let rows: u64 = house.report(&query).iter().map(|it| it.endings.all()).sum();
    if rows != attempts {
        return err("statistics");
    }
    Ok(())
}
