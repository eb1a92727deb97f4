//! Mergeable sums over outcomes, and the questions asked of them.
//!
//! Every number that is shown is made from `Sums`, kept per hour and group
//! (`Bucket`). Requests and attempts are summed apart: rows by server and kind
//! count attempts, all others requests, so an answer that took two servers is
//! one request and two attempts, one of them failed. A request belongs to the
//! server that answered it, or was asked last.
//!
//! Neither storage nor JSON is known here. `add` names the buckets that changed,
//! `bytes` gives what is to be kept of one, `load` takes it back. When a bucket
//! named so has no bytes any more, what was kept of it is to be deleted.

mod bytes;
mod histogram;
mod sample;
mod sums;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use self::sample::samples;
pub use self::{
    bytes::Damaged,
    histogram::Histogram,
    sums::{Endings, Sums},
};
use crate::{
    generate::{Outcome, Usd},
    server::{KindId, ModelName, ServerId, Zone},
};

/// Hours since 1970.
pub type Hour = u32;

/// The hour of a time in milliseconds since 1970.
pub fn hour(at_ms: u64) -> Hour {
    Hour::try_from(at_ms / 3_600_000).unwrap_or(Hour::MAX)
}

/// A group that is summed. The hour comes first, so that a span of time is a range.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Bucket {
    /// When; the first hour of its day once the day is folded.
    pub hour: Hour,
    /// What is counted.
    pub counts: Counts,
    /// The server.
    pub server: Option<ServerId>,
    /// Its kind.
    pub kind: Option<KindId>,
    /// The model that was asked of it. Never a name that only a caller has
    /// written: those have no end.
    pub model: Option<ModelName>,
    /// The zone of the server that answered a request.
    pub zone: Option<Zone>,
    /// The language of the caller.
    pub dialect: String,
}

/// What a bucket counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Counts {
    /// Requests.
    Requests,
    /// Attempts.
    Attempts,
}

impl Bucket {
    /// A key under which it is kept: in the order of hours, since they lead.
    pub fn to_key(&self) -> Vec<u8> {
        let mut key = self.hour.to_be_bytes().to_vec();
        // Strings, numbers and unit variants only: there is nothing to fail on.
        key.extend(serde_json::to_vec(self).unwrap_or_default());
        key
    }

    /// The bucket that is kept under a key.
    pub fn from_key(key: &[u8]) -> Result<Self, Damaged> {
        let text = key.get(size_of::<Hour>()..).ok_or(Damaged)?;
        serde_json::from_slice(text).map_err(|_| Damaged)
    }
}

/// By what rows are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// By server; counts attempts.
    Server,
    /// By kind of server; counts attempts.
    Kind,
    /// By model.
    Model,
    /// By zone.
    Zone,
    /// By the callers' language.
    Dialect,
    /// By hour; of a folded day there is only the first.
    Hour,
    /// By day, in UTC.
    Day,
}

impl By {
    /// Reads the name that `as_str` gives.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == name)
    }

    /// Its name, which is also what its key is called in a row.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Kind => "kind",
            Self::Model => "model",
            Self::Zone => "zone",
            Self::Dialect => "dialect",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Server, Self::Kind, Self::Model, Self::Zone, Self::Dialect, Self::Hour, Self::Day];

    fn counts(self) -> Counts {
        match self {
            Self::Server | Self::Kind => Counts::Attempts,
            Self::Model | Self::Zone | Self::Dialect | Self::Hour | Self::Day => Counts::Requests,
        }
    }

    fn key(self, bucket: &Bucket) -> Key {
        let text = |text: Option<&str>| Key::Name(text.map(str::to_owned));
        match self {
            Self::Server => text(bucket.server.as_ref().map(ServerId::as_str)),
            Self::Kind => text(bucket.kind.as_ref().map(KindId::as_str)),
            Self::Model => text(bucket.model.as_ref().map(ModelName::as_str)),
            Self::Zone => Key::Zone(bucket.zone),
            Self::Dialect => text(Some(&bucket.dialect)),
            Self::Hour => Key::Hour(bucket.hour),
            Self::Day => Key::Hour(bucket.hour - bucket.hour % 24),
        }
    }
}

/// What is asked of the statistics. Times are taken to the hour.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// How rows are made; `None` for one row over all requests.
    pub by: Option<By>,
    /// From this hour on.
    pub since: Option<Hour>,
    /// Before this hour.
    pub until: Option<Hour>,
    /// Only of this server.
    pub server: Option<String>,
    /// Only of this model.
    pub model: Option<String>,
}

/// What a row is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// All there is.
    All,
    /// A server, a kind, a model or a dialect; `None` for requests that never came to one.
    Name(Option<String>),
    /// A zone; `None` for requests that no server answered.
    Zone(Option<Zone>),
    /// The beginning of an hour or a day.
    Hour(Hour),
}

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
    fn new(key: Key, sums: &Sums) -> Self {
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
        }
    }
}

impl Spread {
    fn of(histogram: &Histogram, unit: f64) -> Self {
        let quantile = |share| histogram.quantile(share).map(|it| it / unit);
        Self {
            mean: histogram.mean().map(|it| it / unit),
            p50: quantile(0.5),
            p95: quantile(0.95),
            p99: quantile(0.99),
        }
    }
}

/// What has happened since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests by ending.
    pub endings: Endings,
    /// Attempts that another one followed.
    pub attempts_failed_over: u64,
}

/// All sums, of this run and of what was kept from those before.
#[derive(Debug, Default)]
pub struct Stats {
    buckets: BTreeMap<Bucket, Sums>,
    totals: Totals,
}

impl Stats {
    /// Adds an outcome and names the buckets that changed; one that several attempts
    /// changed is named for each.
    pub fn add(&mut self, outcome: &Outcome) -> Vec<Bucket> {
        self.totals.endings.add(outcome.ending);
        self.totals.attempts_failed_over += outcome.attempts.len().saturating_sub(1) as u64;
        let mut touched = Vec::with_capacity(outcome.attempts.len() + 1);
        for (bucket, sample) in samples(outcome) {
            // Nearly always it is there, and then nothing is copied.
            match self.buckets.get_mut(&bucket) {
                Some(sums) => sums.add(&sample),
                None => self.buckets.entry(bucket.clone()).or_default().add(&sample),
            }
            touched.push(bucket);
        }
        touched
    }

    /// Adds what was kept of a bucket.
    pub fn load(&mut self, bucket: Bucket, bytes: &[u8]) -> Result<(), Damaged> {
        let sums = Sums::from_bytes(bytes)?;
        self.buckets.entry(bucket).or_default().merge(&sums);
        Ok(())
    }

    /// What is to be kept of a bucket; `None` when there is no such bucket (any more).
    pub fn bytes(&self, bucket: &Bucket) -> Option<Vec<u8>> {
        self.buckets.get(bucket).map(Sums::to_bytes)
    }

    /// Answers a question, with rows in the order of their keys.
    pub fn report(&self, query: &Query) -> Vec<Row> {
        let counts = query.by.map_or(Counts::Requests, By::counts);
        let is_of = |wanted: &Option<String>, it: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| it == Some(wanted))
        };
        let mut rows = BTreeMap::<Key, Sums>::new();
        for (bucket, sums) in &self.buckets {
            if bucket.counts == counts
                && query.since.is_none_or(|since| bucket.hour >= since)
                && query.until.is_none_or(|until| bucket.hour < until)
                && is_of(&query.server, bucket.server.as_ref().map(ServerId::as_str))
                && is_of(&query.model, bucket.model.as_ref().map(ModelName::as_str))
            {
                let key = query.by.map_or(Key::All, |by| by.key(bucket));
                rows.entry(key).or_default().merge(sums);
            }
        }
        rows.into_iter().map(|(key, sums)| Row::new(key, &sums)).collect()
    }

    /// How a server has done in this hour and the one before.
    pub fn live(&self, server: &ServerId, now: Hour) -> Row {
        let mut sums = Sums::default();
        let recent = self.buckets.iter().rev().take_while(|(it, _)| it.hour >= now.saturating_sub(1));
        for (bucket, it) in recent {
            if bucket.counts == Counts::Attempts && bucket.server.as_ref() == Some(server) {
                sums.merge(it);
            }
        }
        Row::new(Key::Name(Some(server.to_string())), &sums)
    }

    /// What has happened since the daemon started.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Folds the hours of all days that ended before `hour` into one bucket a
    /// day, and names the buckets that changed or went. They have to be kept and
    /// deleted together, else a crash in between counts them twice.
    ///
    /// Hours of a week ago interest nobody, and a year of them would take more
    /// memory than the rest of the daemon.
    pub fn fold_days_before(&mut self, hour: Hour) -> BTreeSet<Bucket> {
        let first_kept = hour - hour % 24;
        let old: Vec<Bucket> = self
            .buckets
            .keys()
            .take_while(|it| it.hour < first_kept)
            .filter(|it| !it.hour.is_multiple_of(24))
            .cloned()
            .collect();
        let mut touched = BTreeSet::new();
        for bucket in old {
            if let Some(sums) = self.buckets.remove(&bucket) {
                let day = Bucket { hour: bucket.hour - bucket.hour % 24, ..bucket.clone() };
                self.buckets.entry(day.clone()).or_default().merge(&sums);
                touched.extend([bucket, day]);
            }
        }
        touched
    }

    /// Forgets all hours before `hour`, and names the buckets that went.
    pub fn forget_before(&mut self, hour: Hour) -> BTreeSet<Bucket> {
        let old: BTreeSet<Bucket> = self.buckets.keys().take_while(|it| it.hour < hour).cloned().collect();
        self.buckets.retain(|it, _| it.hour >= hour);
        old
    }
}
