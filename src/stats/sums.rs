//! What is summed for one group of requests or attempts.
//!
//! Every field is a sum or a histogram, so two of them added are the sums of
//! both, in whatever order. Averages and percentiles are made from them at the
//! last moment and are never kept.

use std::time::Duration;

use super::{
    bytes::{Damaged, Reader, put},
    histogram::Histogram,
    sample::Sample,
};
use crate::generate::{Ending, Usd};

/// Sums over requests, or over attempts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// How many ended in which way.
    pub endings: Endings,
    /// How many of the refusals were the caller's own fault.
    pub callers_fault: u64,
    /// Requests that took more than one attempt; attempts that another one followed.
    pub failed_over: u64,
    /// Whole answers whose server gave no token counts.
    pub usage_absent: u64,
    /// Tokens of prompts; `None` when no server gave any.
    pub input_tokens: Option<u64>,
    /// Tokens of answers; `None` when no server gave any.
    pub output_tokens: Option<u64>,
    /// What it cost; `None` when nothing did, as far as anybody knows.
    pub cost: Option<Usd>,
    /// Time to the first content, in microseconds.
    pub first_token: Histogram,
    /// Time of whole answers, in microseconds. A failure is often fast, and would look good here.
    pub total: Histogram,
    /// Tokens per second after the first, in hundredths.
    pub speed: Histogram,
}

/// How often each ending occurred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endings {
    /// A whole answer of one server.
    pub delivered: u64,
    /// A whole answer of several.
    pub resumed: u64,
    /// Half an answer.
    pub cut_short: u64,
    /// Turned down.
    pub refused: u64,
    /// Failed before content.
    pub exhausted: u64,
    /// Not in time.
    pub out_of_time: u64,
    /// Nobody waited any more.
    pub caller_gone: u64,
}

impl Endings {
    /// All of them.
    pub fn all(&self) -> u64 {
        self.parts().into_iter().fold(0, u64::saturating_add)
    }

    /// Counts one.
    pub fn add(&mut self, ending: Ending) {
        let count = match ending {
            Ending::Delivered => &mut self.delivered,
            Ending::Resumed => &mut self.resumed,
            Ending::CutShort => &mut self.cut_short,
            Ending::Refused => &mut self.refused,
            Ending::Exhausted => &mut self.exhausted,
            Ending::OutOfTime => &mut self.out_of_time,
            Ending::CallerGone => &mut self.caller_gone,
        };
        *count = count.saturating_add(1);
    }

    fn parts(&self) -> [u64; 7] {
        let Self { delivered, resumed, cut_short, refused, exhausted, out_of_time, caller_gone } = *self;
        [delivered, resumed, cut_short, refused, exhausted, out_of_time, caller_gone]
    }

    fn from_parts(parts: [u64; 7]) -> Self {
        let [delivered, resumed, cut_short, refused, exhausted, out_of_time, caller_gone] = parts;
        Self { delivered, resumed, cut_short, refused, exhausted, out_of_time, caller_gone }
    }
}

impl Sums {
    pub(super) fn add(&mut self, sample: &Sample) {
        self.endings.add(sample.ending);
        self.callers_fault += u64::from(sample.ending == Ending::Refused && sample.callers_fault);
        self.failed_over += u64::from(sample.failed_over);
        self.input_tokens = plus(self.input_tokens, sample.usage.input_tokens);
        self.output_tokens = plus(self.output_tokens, sample.usage.output_tokens);
        self.cost = both(self.cost, sample.cost);
        if let Some(first_token) = sample.first_token {
            self.first_token.add(micros(first_token));
        }
        if sample.ending.is_success() {
            let absent = sample.usage.input_tokens.is_none() && sample.usage.output_tokens.is_none();
            self.usage_absent += u64::from(absent);
            self.total.add(micros(sample.total));
            if let Some(speed) = sample.speed {
                self.speed.add(speed);
            }
        }
    }

    /// Adds the sums of another.
    pub fn merge(&mut self, other: &Self) {
        let (mut parts, others) = (self.endings.parts(), other.endings.parts());
        parts.iter_mut().zip(others).for_each(|(part, other)| *part = part.saturating_add(other));
        self.endings = Endings::from_parts(parts);
        self.callers_fault = self.callers_fault.saturating_add(other.callers_fault);
        self.failed_over = self.failed_over.saturating_add(other.failed_over);
        self.usage_absent = self.usage_absent.saturating_add(other.usage_absent);
        self.input_tokens = plus(self.input_tokens, other.input_tokens);
        self.output_tokens = plus(self.output_tokens, other.output_tokens);
        self.cost = both(self.cost, other.cost);
        self.first_token.merge(&other.first_token);
        self.total.merge(&other.total);
        self.speed.merge(&other.speed);
    }

    /// Successes out of all that could have been one; `None` when none could.
    pub fn success_rate(&self) -> Option<f64> {
        let spared = self.endings.caller_gone.saturating_add(self.callers_fault);
        let counted = self.endings.all().saturating_sub(spared);
        let successes = self.endings.delivered.saturating_add(self.endings.resumed);
        (counted > 0).then(|| successes as f64 / counted as f64)
    }

    /// As bytes that `from_bytes` of this and every later version reads.
    pub fn to_bytes(&self) -> Vec<u8> {
        // What costs nothing is written as it was before anything could.
        let mut bytes = vec![if self.cost.is_some() { WITH_COST } else { WITHOUT }];
        if let Some(cost) = self.cost {
            put(&mut bytes, cost.nanos());
        }
        for number in self.endings.parts() {
            put(&mut bytes, number);
        }
        for number in [self.callers_fault, self.failed_over, self.usage_absent] {
            put(&mut bytes, number);
        }
        for tokens in [self.input_tokens, self.output_tokens] {
            put(&mut bytes, u64::from(tokens.is_some()));
            if let Some(tokens) = tokens {
                put(&mut bytes, tokens);
            }
        }
        for histogram in [&self.first_token, &self.total, &self.speed] {
            histogram.write(&mut bytes);
        }
        bytes
    }

    /// Reads what `to_bytes` of this or an earlier version wrote.
    ///
    /// A new version is a new arm here; the arms before it stay as they are.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Damaged> {
        match bytes {
            [WITHOUT, rest @ ..] => Self::read_1(Reader(rest), None),
            [WITH_COST, rest @ ..] => {
                let mut from = Reader(rest);
                let cost = Usd::from_nanos(from.number()?);
                Self::read_1(from, Some(cost))
            }
            _ => Err(Damaged),
        }
    }

    fn read_1(mut from: Reader<'_>, cost: Option<Usd>) -> Result<Self, Damaged> {
        let mut parts = [0; 7];
        for part in &mut parts {
            *part = from.number()?;
        }
        let sums = Self {
            endings: Endings::from_parts(parts),
            callers_fault: from.number()?,
            failed_over: from.number()?,
            usage_absent: from.number()?,
            input_tokens: tokens(&mut from)?,
            output_tokens: tokens(&mut from)?,
            cost,
            first_token: Histogram::read(&mut from)?,
            total: Histogram::read(&mut from)?,
            speed: Histogram::read(&mut from)?,
        };
        from.end()?;
        Ok(sums)
    }
}

const WITHOUT: u8 = 1;
const WITH_COST: u8 = 2;

fn both(left: Option<Usd>, right: Option<Usd>) -> Option<Usd> {
    left.into_iter().chain(right).reduce(Usd::plus)
}

fn plus(left: Option<u64>, right: Option<u64>) -> Option<u64> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left.saturating_add(right)),
        (one, None) | (None, one) => one,
    }
}

fn tokens(from: &mut Reader<'_>) -> Result<Option<u64>, Damaged> {
    match from.number()? {
        0 => Ok(None),
        1 => from.number().map(Some),
        _ => Err(Damaged),
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
