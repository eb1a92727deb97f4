//! What is summed for one group of requests or attempts.
//!
//! Every field is a sum or a histogram, so two of them added are the sums of
//! both, in whatever order. Averages and percentiles are made from them at the
//! last moment and are never kept.

use super::{
    Histogram,
    bytes::{Damaged, Reader, put, put_histogram},
    load::Loads,
    sample::Sample,
};
use crate::generate::{Ending, Gaps, Usd};

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
    /// Between the pieces of answers.
    pub gaps: Gaps,
    /// Time in the queue of those that had to wait there, in microseconds.
    pub queued: Histogram,
    /// How busy the machine was; nothing where nobody saw it.
    pub load: Option<Box<Loads>>,
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
            self.first_token.add_time(first_token);
        }
        if let Some(queued) = sample.queued {
            self.queued.add_time(queued);
        }
        if let Some(gaps) = sample.gaps {
            self.gaps.merge(gaps);
        }
        if let Some(load) = sample.load {
            self.load.get_or_insert_default().add(load);
        }
        if sample.ending.is_success() {
            let absent = sample.usage.input_tokens.is_none() && sample.usage.output_tokens.is_none();
            self.usage_absent += u64::from(absent);
            self.total.add_time(sample.total);
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
        self.gaps.merge(&other.gaps);
        self.queued.merge(&other.queued);
        if let Some(load) = &other.load {
            self.load.get_or_insert_default().merge(load);
        }
    }

    /// Successes, and all that could have been one.
    pub fn successes(&self) -> (u64, u64) {
        let spared = self.endings.caller_gone.saturating_add(self.callers_fault);
        let counted = self.endings.all().saturating_sub(spared);
        (self.endings.delivered.saturating_add(self.endings.resumed), counted)
    }

    /// Successes out of all that could have been one; `None` when none could.
    pub fn success_rate(&self) -> Option<f64> {
        let (successes, counted) = self.successes();
        (counted > 0).then(|| successes as f64 / counted as f64)
    }

    /// As bytes that `from_bytes` of this and every later version reads.
    pub fn to_bytes(&self) -> Vec<u8> {
        // What has nothing of what came later is written as it was before.
        let is_old = self.gaps.is_empty() && self.queued.count() == 0 && self.load.is_none();
        let mut bytes = vec![match (is_old, self.cost, &self.load) {
            (true, None, _) => WITHOUT,
            (true, Some(_), _) => WITH_COST,
            (false, _, None) => WITH_GAPS,
            (false, _, Some(_)) => WITH_LOAD,
        }];
        match (is_old, self.cost) {
            (true, None) => {}
            (true, Some(cost)) => put(&mut bytes, cost.nanos()),
            (false, cost) => put_some(&mut bytes, cost.map(Usd::nanos)),
        }
        for number in self.endings.parts() {
            put(&mut bytes, number);
        }
        for number in [self.callers_fault, self.failed_over, self.usage_absent] {
            put(&mut bytes, number);
        }
        put_some(&mut bytes, self.input_tokens);
        put_some(&mut bytes, self.output_tokens);
        for histogram in [&self.first_token, &self.total, &self.speed] {
            put_histogram(&mut bytes, histogram);
        }
        if !is_old {
            put_histogram(&mut bytes, &self.gaps);
            put_histogram(&mut bytes, &self.queued);
        }
        if let Some(load) = &self.load {
            load.put(&mut bytes);
        }
        bytes
    }

    /// Reads what `to_bytes` of this or an earlier version wrote.
    ///
    /// A new version is a new arm here; the arms before it stay as they are.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Damaged> {
        let Some((version, rest)) = bytes.split_first() else { return Err(Damaged) };
        let mut from = Reader(rest);
        let cost = match *version {
            WITHOUT => None,
            WITH_COST => Some(from.number()?),
            WITH_GAPS | WITH_LOAD => some(&mut from)?,
            _ => return Err(Damaged),
        };
        let mut sums = Self::read_1(&mut from, cost.map(Usd::from_nanos))?;
        if matches!(*version, WITH_GAPS | WITH_LOAD) {
            sums.gaps = from.histogram()?;
            sums.queued = from.histogram()?;
        }
        if *version == WITH_LOAD {
            sums.load = Some(Box::new(Loads::read(&mut from)?));
        }
        from.end()?;
        Ok(sums)
    }

    fn read_1(from: &mut Reader<'_>, cost: Option<Usd>) -> Result<Self, Damaged> {
        let mut parts = [0; 7];
        for part in &mut parts {
            *part = from.number()?;
        }
        Ok(Self {
            endings: Endings::from_parts(parts),
            callers_fault: from.number()?,
            failed_over: from.number()?,
            usage_absent: from.number()?,
            input_tokens: some(from)?,
            output_tokens: some(from)?,
            cost,
            first_token: from.histogram()?,
            total: from.histogram()?,
            speed: from.histogram()?,
            ..Self::default()
        })
    }
}

const WITHOUT: u8 = 1;
const WITH_COST: u8 = 2;
const WITH_GAPS: u8 = 3;
const WITH_LOAD: u8 = 4;

fn both(left: Option<Usd>, right: Option<Usd>) -> Option<Usd> {
    left.into_iter().chain(right).reduce(Usd::plus)
}

fn plus(left: Option<u64>, right: Option<u64>) -> Option<u64> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left.saturating_add(right)),
        (one, None) | (None, one) => one,
    }
}

fn put_some(to: &mut Vec<u8>, number: Option<u64>) {
    put(to, u64::from(number.is_some()));
    if let Some(number) = number {
        put(to, number);
    }
}

fn some(from: &mut Reader<'_>) -> Result<Option<u64>, Damaged> {
    match from.number()? {
        0 => Ok(None),
        1 => from.number().map(Some),
        _ => Err(Damaged),
    }
}
