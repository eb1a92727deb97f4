//! Rows of version 1. Nothing here changes any more; another layout is another file.
//!
//! Written by postcard: small numbers take one byte, absent ones too. The names of servers,
//! kinds, models, programs and reasons stand in a table at the front, since most of them occur
//! several times in a row. Enums are numbers that are given here, so that neither their order
//! nor their names matter.

use std::{borrow::Cow, time::Duration};

use serde::{Deserialize, Serialize};

use super::Damaged;
use crate::{
    fault::{Cause, Fault, Stage},
    generate::{
        Attempt, Caller, Candidate, Cost, Ending, Gaps, Operation, Outcome, Reason, Substitution, Usage, Usd,
    },
    server::Zone,
};

/// A place in the table of names.
type Name = u16;

#[derive(Serialize, Deserialize)]
struct Row<'a> {
    // First, so that a request is found without reading on.
    request_id: &'a str,
    #[serde(borrow)]
    names: Vec<&'a str>,
    at_ms: u64,
    program: Option<Name>,
    uid: Option<u32>,
    dialect: Name,
    operation: u8,
    asked: Name,
    /// Stream, caller's fault, estimated usage, from the lowest bit on.
    flags: u8,
    ending: u8,
    status: u16,
    failure: Option<Name>,
    attempts: Vec<Try>,
    candidates: Vec<Ranked>,
    zone: Option<u8>,
    substituted: u8,
    queued: u64,
    first_token: Option<u64>,
    gaps: Vec<(u16, u32)>,
    gaps_sum: u64,
    total: u64,
    usage: Counts,
    reason: Option<u8>,
    sent: u64,
}

#[derive(Serialize, Deserialize)]
struct Try {
    server: Name,
    kind: Name,
    model: Name,
    candidates: Vec<Ranked>,
    after: u64,
    first_token: Option<u64>,
    total: u64,
    requests: u32,
    fault: Option<Wrong>,
    usage: Counts,
    /// In billionths, and whether that is the most.
    cost: Option<(u64, bool)>,
}

#[derive(Serialize, Deserialize)]
struct Ranked {
    server: Name,
    model: Name,
    excluded: Option<Name>,
    behind: Option<Name>,
}

#[derive(Serialize, Deserialize)]
struct Wrong {
    stage: u8,
    cause: u8,
    retry_after: Option<u64>,
    status: Option<u16>,
}

#[derive(Serialize, Deserialize)]
struct Counts {
    input: Option<u64>,
    output: Option<u64>,
    cached: Option<u64>,
    reasoning: Option<u64>,
    written: Option<u64>,
}

macro_rules! codes {
    ($write:ident, $read:ident: $of:ident { $($name:ident = $code:literal),* $(,)? }) => {
        fn $write(it: $of) -> u8 {
            match it { $($of::$name => $code),* }
        }
        fn $read(code: u8) -> Result<$of, Damaged> {
            match code { $($code => Ok($of::$name),)* _ => Err(Damaged) }
        }
    };
}

codes!(operation_code, operation: Operation { Chat = 0, Complete = 1, Embed = 2 });
codes!(ending_code, ending: Ending {
    Delivered = 0, Resumed = 1, CutShort = 2, Refused = 3, Exhausted = 4, OutOfTime = 5, CallerGone = 6,
});
codes!(zone_code, zone: Zone { Machine = 0, Lan = 1, Cloud = 2 });
codes!(substitution_code, substitution: Substitution { No = 0, Equivalent = 1, Alternative = 2, Cloud = 3 });
codes!(reason_code, reason: Reason { Stop = 0, Length = 1, ToolCalls = 2, ContentFilter = 3, Other = 4 });
codes!(stage_code, stage: Stage { Connect = 0, Head = 1, FirstToken = 2, Content = 3 });

fn cause_code(cause: Cause) -> u8 {
    match cause {
        Cause::Refused => 0,
        Cause::Unreachable => 1,
        Cause::Tls => 2,
        Cause::ConnectTimeout => 3,
        Cause::Reset => 4,
        Cause::FirstTokenTimeout => 5,
        Cause::Stalled => 6,
        Cause::Status => 7,
        Cause::Redirect => 8,
        Cause::BadHead => 9,
        Cause::Unreadable => 10,
        Cause::Empty => 11,
        Cause::EarlyEnd => 12,
        Cause::ErrorEvent => 13,
        Cause::Busy { .. } => 14,
        Cause::NoCredit => 15,
        Cause::Loading => 16,
        Cause::ContextOverflow => 17,
        Cause::ModelNotFound => 18,
        Cause::Unsupported => 19,
        Cause::NeedsKey => 20,
        Cause::Forbidden => 21,
        Cause::TooLarge => 22,
        Cause::Unfunded => 23,
        Cause::Malformed => 24,
        Cause::Internal => 25,
        Cause::WrongPin => 26,
        Cause::TooFar => 27,
        Cause::Barred => 28,
        Cause::NobodyLeft => 29,
        Cause::Unresponsive => 30,
    }
}

fn cause(code: u8, retry_after: Option<Duration>) -> Result<Cause, Damaged> {
    Ok(match code {
        0 => Cause::Refused,
        1 => Cause::Unreachable,
        2 => Cause::Tls,
        3 => Cause::ConnectTimeout,
        4 => Cause::Reset,
        5 => Cause::FirstTokenTimeout,
        6 => Cause::Stalled,
        7 => Cause::Status,
        8 => Cause::Redirect,
        9 => Cause::BadHead,
        10 => Cause::Unreadable,
        11 => Cause::Empty,
        12 => Cause::EarlyEnd,
        13 => Cause::ErrorEvent,
        14 => Cause::Busy { retry_after },
        15 => Cause::NoCredit,
        16 => Cause::Loading,
        17 => Cause::ContextOverflow,
        18 => Cause::ModelNotFound,
        19 => Cause::Unsupported,
        20 => Cause::NeedsKey,
        21 => Cause::Forbidden,
        22 => Cause::TooLarge,
        23 => Cause::Unfunded,
        24 => Cause::Malformed,
        25 => Cause::Internal,
        26 => Cause::WrongPin,
        27 => Cause::TooFar,
        28 => Cause::Barred,
        29 => Cause::NobodyLeft,
        30 => Cause::Unresponsive,
        _ => return Err(Damaged),
    })
}

/// The row of an outcome, behind the number of its version.
pub(super) fn write(version: u8, it: &Outcome) -> Vec<u8> {
    let mut names = Names::default();
    let row = Row {
        request_id: &it.request_id,
        at_ms: it.at_ms,
        program: it.caller.program.as_deref().map(|it| names.place(it)),
        uid: it.caller.uid,
        dialect: names.place(&it.dialect),
        operation: operation_code(it.operation),
        asked: names.place(&it.asked),
        flags: u8::from(it.stream) | u8::from(it.callers_fault) << 1 | u8::from(it.usage_estimated) << 2,
        ending: ending_code(it.ending),
        status: it.status,
        failure: it.failure.as_deref().map(|it| names.place(it)),
        attempts: it.attempts.iter().map(|it| names.attempt(it)).collect(),
        candidates: it.candidates.iter().map(|it| names.candidate(it)).collect(),
        zone: it.zone.map(zone_code),
        substituted: substitution_code(it.substituted),
        queued: micros(it.queued),
        first_token: it.first_token.map(micros),
        gaps: it.gaps.parts().0.to_vec(),
        gaps_sum: it.gaps.parts().1,
        total: micros(it.total),
        usage: counts(it.usage),
        reason: it.reason.map(reason_code),
        sent: it.sent,
        names: names.0,
    };
    // Numbers, text and lists of known length only: there is nothing to fail on.
    postcard::to_extend(&row, vec![version]).unwrap_or_default()
}

/// When the request arrived, without reading on.
pub(super) fn at_ms(bytes: &[u8]) -> Option<u64> {
    let (_, rest) = postcard::take_from_bytes::<&[u8]>(bytes).ok()?;
    // A list is how many there are, and then each of them.
    let (names, mut rest) = postcard::take_from_bytes::<u64>(rest).ok()?;
    for _ in 0..names {
        rest = postcard::take_from_bytes::<&[u8]>(rest).ok()?.1;
    }
    Some(postcard::take_from_bytes(rest).ok()?.0)
}

/// The request that a row is of, read from its front.
pub(super) fn request_id(row: &[u8]) -> Option<&str> {
    postcard::take_from_bytes::<&str>(row).ok().map(|(id, _)| id)
}

/// The outcome of a row.
pub(super) fn read(row: &[u8]) -> Result<Outcome, Damaged> {
    match take(row)? {
        (outcome, []) => Ok(outcome),
        (_, _) => Err(Damaged),
    }
}

/// The outcome at the front of a row, and what stands behind it.
pub(super) fn take(row: &[u8]) -> Result<(Outcome, &[u8]), Damaged> {
    let (it, rest) = postcard::take_from_bytes::<Row<'_>>(row).map_err(|_| Damaged)?;
    let table = Table(&it.names);
    let names = &table;
    let text = |it: Name| names.name(it).map(str::to_owned);
    let outcome = Outcome {
        request_id: it.request_id.to_owned(),
        at_ms: it.at_ms,
        caller: Caller { program: it.program.map(text).transpose()?, uid: it.uid },
        dialect: Cow::Owned(text(it.dialect)?),
        operation: operation(it.operation)?,
        asked: text(it.asked)?,
        stream: it.flags & 1 != 0,
        ending: ending(it.ending)?,
        status: it.status,
        failure: it.failure.map(text).transpose()?.map(Cow::Owned),
        callers_fault: it.flags & 2 != 0,
        attempts: it.attempts.into_iter().map(|it| names.attempt(it)).collect::<Result<_, _>>()?,
        candidates: it.candidates.into_iter().map(|it| names.candidate(it)).collect::<Result<_, _>>()?,
        zone: it.zone.map(zone).transpose()?,
        substituted: substitution(it.substituted)?,
        queued: Duration::from_micros(it.queued),
        first_token: it.first_token.map(Duration::from_micros),
        gaps: Gaps::from_parts(it.gaps, it.gaps_sum).ok_or(Damaged)?,
        total: Duration::from_micros(it.total),
        usage: usage(&it.usage),
        usage_estimated: it.flags & 4 != 0,
        reason: it.reason.map(reason).transpose()?,
        sent: it.sent,
        load: None,
    };
    Ok((outcome, rest))
}

/// The names of a row, while it is written.
#[derive(Default)]
struct Names<'a>(Vec<&'a str>);

impl<'a> Names<'a> {
    fn place(&mut self, name: &'a str) -> Name {
        let at = self.0.iter().position(|it| *it == name).unwrap_or_else(|| {
            self.0.push(name);
            self.0.len() - 1
        });
        // No snapshot has so many servers.
        Name::try_from(at).unwrap_or(Name::MAX)
    }

    fn attempt(&mut self, it: &'a Attempt) -> Try {
        Try {
            server: self.place(it.server.as_str()),
            kind: self.place(it.kind.as_str()),
            model: self.place(it.model.as_str()),
            candidates: it.candidates.iter().map(|it| self.candidate(it)).collect(),
            after: micros(it.after),
            first_token: it.first_token.map(micros),
            total: micros(it.total),
            requests: it.requests,
            fault: it.fault.map(|Fault { stage, cause, status }| {
                let retry_after =
                    if let Cause::Busy { retry_after } = cause { retry_after.map(micros) } else { None };
                Wrong { stage: stage_code(stage), cause: cause_code(cause), retry_after, status }
            }),
            usage: counts(it.usage),
            cost: it.cost.map(|it| (it.usd.nanos(), it.at_most)),
        }
    }

    fn candidate(&mut self, it: &'a Candidate) -> Ranked {
        Ranked {
            server: self.place(it.server.as_str()),
            model: self.place(it.model.as_str()),
            excluded: it.excluded.as_deref().map(|it| self.place(it)),
            behind: it.behind.as_deref().map(|it| self.place(it)),
        }
    }
}

/// The names of a row, while it is read.
struct Table<'a>(&'a [&'a str]);

impl<'a> Table<'a> {
    fn name(&self, at: Name) -> Result<&'a str, Damaged> {
        self.0.get(usize::from(at)).copied().ok_or(Damaged)
    }

    fn attempt(&self, it: Try) -> Result<Attempt, Damaged> {
        let fault = |Wrong { stage: at, cause: code, retry_after, status }| {
            let cause = cause(code, retry_after.map(Duration::from_micros))?;
            Ok(Fault { stage: stage(at)?, cause, status })
        };
        Ok(Attempt {
            server: self.name(it.server)?.into(),
            kind: self.name(it.kind)?.into(),
            model: self.name(it.model)?.into(),
            candidates: it.candidates.into_iter().map(|it| self.candidate(it)).collect::<Result<_, _>>()?,
            after: Duration::from_micros(it.after),
            first_token: it.first_token.map(Duration::from_micros),
            total: Duration::from_micros(it.total),
            requests: it.requests,
            fault: it.fault.map(fault).transpose()?,
            usage: usage(&it.usage),
            cost: it.cost.map(|(nanos, at_most)| Cost { usd: Usd::from_nanos(nanos), at_most }),
        })
    }

    fn candidate(&self, it: Ranked) -> Result<Candidate, Damaged> {
        let text = |it: Name| self.name(it).map(|it| Cow::Owned(it.to_owned()));
        Ok(Candidate {
            server: self.name(it.server)?.into(),
            model: self.name(it.model)?.into(),
            excluded: it.excluded.map(text).transpose()?,
            behind: it.behind.map(text).transpose()?,
        })
    }
}

fn counts(it: Usage) -> Counts {
    Counts {
        input: it.input_tokens,
        output: it.output_tokens,
        cached: it.cached_tokens,
        reasoning: it.reasoning_tokens,
        written: it.written_tokens,
    }
}

fn usage(it: &Counts) -> Usage {
    Usage {
        input_tokens: it.input,
        output_tokens: it.output,
        cached_tokens: it.cached,
        reasoning_tokens: it.reasoning,
        written_tokens: it.written,
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
