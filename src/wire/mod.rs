//! What crosses our own control API: the shapes of the contract, with serde.
//!
//! Every struct here is one JSON object that scripts and plugins hold on to.
//! Absent is `null` and never 0, times are RFC 3339 in UTC, durations carry
//! their unit in their name, and a list comes as an object with one list in it.
//! Where the values come from is not known here, except that our own words
//! (`Server`, `Model`, `Outcome`, `Fault`) know how they look from outside.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::stats as figures;

mod compare;
mod config;
mod event;
mod export;
mod fault;
mod generate;
mod hardware;
mod model;
mod request;
mod server;
mod stats;
mod status;

pub use compare::{CompareView, IntervalView, MeasureView, SideView};
pub use config::{ConfigView, Setting, SettingSource};
pub use event::{BegunView, EventView};
pub use export::{COLUMNS, Column, Value, csv_head, csv_line, flat};
pub use fault::{ErrorBody, ErrorView, FaultView};
pub use generate::{Content, GenerateBody, ImageUrl, Message, Part, StreamOptions};
pub use hardware::{GpuView, HardwareView, LoadView, ReadingView};
pub use model::{ModelList, ModelOnServer, ModelView, models};
pub use request::{AttemptView, CandidateView, RequestList, RequestView};
pub use server::{AddServer, Added, LiveFigures, PinWish, ServerList, ServerView, Trust, TrustServer};
pub use stats::{Group, Quality, StatsList, StatsRow};
pub use status::{
    CloudView, Health, LookupView, ModelCounts, OtlpView, PostgresView, RequestCounts, ServerCounts, Status,
    StoreView,
};

/// Two percentiles of a duration in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half are at most this.
    pub p50: Option<f64>,
    /// All but one in twenty are at most this.
    pub p95: Option<f64>,
}

/// Mean and percentiles of a duration in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The mean.
    pub mean: Option<f64>,
    /// Half are at most this.
    pub p50: Option<f64>,
    /// All but one in twenty are at most this.
    pub p95: Option<f64>,
    /// All but one in a hundred are at most this.
    pub p99: Option<f64>,
}

impl From<figures::Spread> for Spread {
    fn from(it: figures::Spread) -> Self {
        Self { mean: it.mean, p50: it.p50, p95: it.p95, p99: it.p99 }
    }
}

/// A moment as the API writes it: `2026-03-01T12:00:00.250Z`.
pub fn rfc3339(ms: u64) -> String {
    let moment = i64::try_from(ms).ok().and_then(|it| Timestamp::from_millisecond(it).ok());
    moment.unwrap_or(Timestamp::MAX).to_string()
}

/// The moment that a text in RFC 3339 names, in milliseconds since 1970.
pub fn from_rfc3339(text: &str) -> Option<u64> {
    text.parse::<Timestamp>().ok().and_then(|it| u64::try_from(it.as_millisecond()).ok())
}

/// A duration as the API writes it: milliseconds with two decimals, which is
/// finer than any clock here is steady.
pub fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 100_000.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_survives_writing_and_reading() {
        assert_eq!(rfc3339(1_772_366_400_250), "2026-03-01T12:00:00.25Z");
        assert_eq!(from_rfc3339(&rfc3339(1_772_366_400_250)), Some(1_772_366_400_250));
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn a_moment_beyond_all_calendars_is_the_last_one() {
        assert!(rfc3339(u64::MAX).starts_with("9999-12-"));
    }

    #[test]
    fn what_is_no_moment_is_none() {
        assert_eq!(from_rfc3339("yesterday"), None);
        assert_eq!(from_rfc3339("1969-12-31T23:59:59Z"), None);
    }

    #[test]
    fn milliseconds_keep_two_decimals() {
        assert_eq!(millis(Duration::from_micros(1_234)), 1.23);
        assert_eq!(millis(Duration::from_secs(2)), 2000.0);
    }
}
