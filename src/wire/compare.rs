//! Two servers or models side by side: `GET /lovable/v1/stats/compare`.

use serde::{Deserialize, Serialize};

use crate::stats::{Interval, Measured, Side};

/// A comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompareView {
    /// What is compared: `server` or `model`.
    pub by: String,
    /// The name of the first.
    pub a: String,
    /// The name of the second.
    pub b: String,
    /// How many requests the first had; attempts where servers are compared.
    pub requests_a: u64,
    /// How many the second had.
    pub requests_b: u64,
    /// How sure the intervals are: `0.95`.
    pub confidence: f64,
    /// Measure by measure.
    pub measures: Vec<MeasureView>,
}

/// One measure of both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeasureView {
    /// `success_rate`, or the median of `first_token_ms`, `total_ms` or `tokens_per_second`.
    pub measure: String,
    /// Of the first.
    pub a: SideView,
    /// Of the second.
    pub b: SideView,
    /// Of rates the first less the second, of times and speeds the first divided by the second;
    /// `null` where there is not enough data.
    pub apart: Option<IntervalView>,
    /// Whether there is enough data to say anything.
    pub enough: bool,
    /// `a` or `b`, where one is better beyond doubt.
    pub better: Option<String>,
}

/// One side of a measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SideView {
    /// How many values there are.
    pub count: u64,
    /// What they say; `null` where they are too few.
    pub interval: Option<IntervalView>,
}

/// A value, and between what it lies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct IntervalView {
    /// The value.
    pub value: f64,
    /// Not less than that.
    pub low: f64,
    /// Not more than that.
    pub high: f64,
}

impl From<&Measured> for MeasureView {
    fn from(it: &Measured) -> Self {
        Self {
            measure: it.measure.as_str().to_owned(),
            a: it.a.into(),
            b: it.b.into(),
            apart: it.apart.map(IntervalView::from),
            enough: it.apart.is_some(),
            better: it.a_is_better.map(|a| if a { "a" } else { "b" }.to_owned()),
        }
    }
}

impl From<Side> for SideView {
    fn from(it: Side) -> Self {
        Self { count: it.count, interval: it.interval.map(IntervalView::from) }
    }
}

impl From<Interval> for IntervalView {
    fn from(Interval { value, low, high }: Interval) -> Self {
        Self { value, low, high }
    }
}
