//! Sums as they are shown: averages and percentiles, made at the last moment.

use super::{Endings, Key, Sums};
use crate::generate::{Gaps, Histogram, Load, Usd};

/// One line of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What it is about.
    pub key: Key,
    /// How many, by ending.
    pub endings: Endings,
    /// Successes out of all but those that left or were themselves to blame.
    pub success_rate: Option<f64>,
    /// Requests that took more than one attempt; attempts that another one followed.
    pub failed_over: u64,
    /// Time to the first content.
    pub first_token_ms: Spread,
    /// Time of whole answers.
    pub total_ms: Spread,
    /// Tokens per second after the first.
    pub tokens_per_second: Spread,
    /// Tokens of prompts.
    pub input_tokens: Option<u64>,
    /// Tokens of answers.
    pub output_tokens: Option<u64>,
    /// Whole answers whose server gave no token counts.
    pub usage_absent: u64,
    /// What it cost.
    pub cost: Option<Usd>,
    /// Time between the pieces of answers.
    pub gap_ms: Spread,
    /// How many had to wait for a place at a server.
    pub queued: u64,
    /// How long those waited.
    pub queued_ms: Spread,
    /// How busy the machine was: when they began, in the mean, and at the most meanwhile.
    pub load: Option<Load>,
}

/// How values are spread; all `None` when there are no values.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    /// Their mean.
    pub mean: Option<f64>,
    /// Half of them are at most that.
    pub p50: Option<f64>,
    /// 95 % of them are at most that.
    pub p95: Option<f64>,
    /// 99 % of them are at most that.
    pub p99: Option<f64>,
}

impl Row {
    pub(super) fn new(key: Key, sums: &Sums) -> Self {
        Self {
            key,
            endings: sums.endings,
            success_rate: sums.success_rate(),
            failed_over: sums.failed_over,
            first_token_ms: Spread::of(&sums.first_token, 1000.0),
            total_ms: Spread::of(&sums.total, 1000.0),
            tokens_per_second: Spread::of(&sums.speed, 100.0),
            input_tokens: sums.input_tokens,
            output_tokens: sums.output_tokens,
            usage_absent: sums.usage_absent,
            cost: sums.cost,
            gap_ms: Spread::of_gaps(&sums.gaps),
            queued: sums.queued.count(),
            queued_ms: Spread::of(&sums.queued, 1000.0),
            load: sums.load.as_ref().and_then(|it| it.whole().known()),
        }
    }
}

impl Spread {
    fn of<const FINE: u32>(histogram: &Histogram<FINE>, unit: f64) -> Self {
        let quantile = |share| histogram.quantile(share).map(|it| it / unit);
        Self {
            mean: histogram.mean().map(|it| it / unit),
            p50: quantile(0.5),
            p95: quantile(0.95),
            p99: quantile(0.99),
        }
    }

    /// Of the pauses in answers.
    pub fn of_gaps(gaps: &Gaps) -> Self {
        Self::of(gaps, 1000.0)
    }
}
