//! Mergeable sums over outcomes, and the questions asked of them.
//!
//! Every number that is shown is made from `Sums`, kept per hour and group
//! (`Bucket`). Requests and attempts are summed apart: rows by server and kind
//! count attempts, all others requests, so an answer that took two servers is
//! one request and two attempts, one of them failed. A request belongs to the
//! server that answered it, or was asked last.
//!
//! A caller's name comes from outside, and there is no end of those: of each hour only so many
//! are told apart, and of each day once its hours are folded; the others are counted together.
//!
//! Neither storage nor JSON is known here. `add` names the buckets that changed,
//! `bytes` gives what is to be kept of one, `load` takes it back. When a bucket
//! named so has no bytes any more, what was kept of it is to be deleted.

mod bytes;
mod compare;
mod load;
mod row;
mod sample;
mod sums;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use self::sample::samples;
pub use self::{
    bytes::Damaged,
    compare::{Comparison, Interval, Measure, Measured, Side, compare},
    row::{Row, Spread},
    sums::{Endings, Sums},
};
use crate::{
    generate::{self, Attempt, Outcome},
    server::{KindId, ModelName, ServerId, Zone},
};

/// How times and speeds are spread: within 2 % of every value.
pub type Histogram = generate::Histogram<5>;

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
    /// The program that asked. Absent in keys where it is not known, as it was in all keys
    /// before callers were counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// Whether it is of requests that are not to be kept: it is never named as changed.
    #[serde(skip)]
    pub unkept: bool,
}

/// So many callers are told apart in an hour, and in a day that is folded.
const CALLERS: usize = 16;
/// What the others are called; no program can call itself so, since a space is in it.
pub const OTHERS: &str = "all others";

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
    /// Comes before all of this hour.
    fn first_of(hour: Hour) -> Self {
        Self {
            hour,
            counts: Counts::Requests,
            server: None,
            kind: None,
            model: None,
            zone: None,
            dialect: String::new(),
            caller: None,
            unkept: false,
        }
    }

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
    /// By the program that asked.
    Caller,
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
            Self::Caller => "caller",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Server,
        Self::Kind,
        Self::Model,
        Self::Zone,
        Self::Dialect,
        Self::Caller,
        Self::Hour,
        Self::Day,
    ];

    fn counts(self) -> Counts {
        match self {
            Self::Server | Self::Kind => Counts::Attempts,
            Self::Model | Self::Zone | Self::Dialect | Self::Caller | Self::Hour | Self::Day => {
                Counts::Requests
            }
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
            Self::Caller => text(bucket.caller.as_deref()),
            Self::Hour => Key::Hour(bucket.hour),
            Self::Day => Key::Hour(bucket.hour - bucket.hour % 24),
        }
    }
}

/// What is asked of the statistics. Times are taken to the hour, and where the hours of a day
/// are folded, to the day.
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
    /// Only of this caller.
    pub caller: Option<String>,
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

/// Tokens per second after the first of an answer, where that can be told.
pub fn speed(attempt: &Attempt) -> Option<f64> {
    sample::speed(attempt).map(|it| it as f64 / 100.0)
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
    /// The callers that are told apart, by hour.
    callers: BTreeMap<Hour, BTreeSet<String>>,
    /// Before this hour there are days.
    folded: Hour,
    totals: Totals,
}

/// Sums on their way to rows: more can be added to them.
pub type Gathered = BTreeMap<Key, Sums>;

/// Rows, in the order of their keys.
pub fn rows(gathered: Gathered) -> Vec<Row> {
    gathered.into_iter().map(|(key, sums)| Row::new(key, &sums)).collect()
}

impl Stats {
    /// Adds an outcome and names the buckets that changed; one that several attempts
    /// changed is named for each.
    pub fn add(&mut self, outcome: &Outcome) -> Vec<Bucket> {
        self.count(outcome);
        self.add_past(outcome)
    }

    /// The same for one that is not to be kept anywhere.
    pub fn add_unkept(&mut self, outcome: &Outcome) {
        self.count(outcome);
        self.put(outcome, true);
    }

    /// The same for one that is not of this run of the daemon.
    pub fn add_past(&mut self, outcome: &Outcome) -> Vec<Bucket> {
        self.put(outcome, false)
    }

    fn count(&mut self, outcome: &Outcome) {
        self.totals.endings.add(outcome.ending);
        self.totals.attempts_failed_over += outcome.attempts.len().saturating_sub(1) as u64;
    }

    fn put(&mut self, outcome: &Outcome, unkept: bool) -> Vec<Bucket> {
        let known = self.callers.entry(hour(outcome.at_ms)).or_default();
        let caller = outcome.caller.program.as_deref().map(|it| counted_as(known, it));
        let mut touched = Vec::with_capacity(outcome.attempts.len() + 1);
        for (mut bucket, sample) in samples(outcome, caller) {
            bucket.unkept = unkept;
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
        if let Some(caller) = bucket.caller.as_ref().filter(|it| *it != OTHERS) {
            self.callers.entry(bucket.hour).or_default().insert(caller.clone());
        }
        self.buckets.entry(bucket).or_default().merge(&sums);
        Ok(())
    }

    /// What is to be kept of a bucket; `None` when there is no such bucket (any more).
    pub fn bytes(&self, bucket: &Bucket) -> Option<Vec<u8>> {
        self.buckets.get(bucket).map(Sums::to_bytes)
    }

    /// Forgets everything but what has happened since the daemon started.
    pub fn clear(&mut self) {
        *self = Self { totals: self.totals, ..Self::default() };
    }

    /// Answers a question, with rows in the order of their keys.
    pub fn report(&self, query: &Query) -> Vec<Row> {
        let mut gathered = Gathered::new();
        self.gather(query, &mut gathered);
        rows(gathered)
    }

    /// Adds what answers a question to what is there already.
    pub fn gather(&self, query: &Query, gathered: &mut Gathered) {
        let counts = query.by.map_or(Counts::Requests, By::counts);
        let is_of = |wanted: &Option<String>, it: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| it == Some(wanted))
        };
        // A day that is folded stands at its first hour.
        let since = query.since.map_or(0, |it| if it < self.folded { it - it % 24 } else { it });
        let from = self.buckets.range(Bucket::first_of(since)..);
        for (bucket, sums) in from.take_while(|(it, _)| query.until.is_none_or(|until| it.hour < until)) {
            if bucket.counts == counts
                && is_of(&query.server, bucket.server.as_ref().map(ServerId::as_str))
                && is_of(&query.model, bucket.model.as_ref().map(ModelName::as_str))
                && is_of(&query.caller, bucket.caller.as_deref())
            {
                let key = query.by.map_or(Key::All, |by| by.key(bucket));
                gathered.entry(key).or_default().merge(sums);
            }
        }
    }

    /// How many requests arrived in an hour; `None` where only its day is known.
    pub fn requests_in(&self, hour: Hour) -> Option<u64> {
        let query = Query { since: Some(hour), until: Some(hour.saturating_add(1)), ..Query::default() };
        let mut gathered = Gathered::new();
        self.gather(&query, &mut gathered);
        (hour >= self.folded).then(|| gathered.values().map(|it| it.endings.all()).sum())
    }

    /// Whether some bucket is of this server.
    pub fn has_server(&self, name: &str) -> bool {
        self.buckets.keys().any(|it| it.server.as_ref().is_some_and(|it| it == name))
    }

    /// Attempts at servers in this hour and the one before.
    fn lately(&self, now: Hour) -> impl Iterator<Item = (&ServerId, &Sums)> {
        let recent = self.buckets.iter().rev().take_while(move |(it, _)| it.hour >= now.saturating_sub(1));
        let attempts = recent.filter(|(it, _)| it.counts == Counts::Attempts);
        attempts.filter_map(|(bucket, it)| Some((bucket.server.as_ref()?, it)))
    }

    /// How a server has done in this hour and the one before.
    pub fn live(&self, server: &ServerId, now: Hour) -> Row {
        let mut sums = Sums::default();
        self.lately(now).filter(|(it, _)| *it == server).for_each(|(_, it)| sums.merge(it));
        Row::new(Key::Name(Some(server.to_string())), &sums)
    }

    /// The same of all servers that were asked anything then.
    pub fn all_live(&self, now: Hour) -> BTreeMap<ServerId, Row> {
        let mut all: BTreeMap<&ServerId, Sums> = BTreeMap::new();
        self.lately(now).for_each(|(server, it)| all.entry(server).or_default().merge(it));
        let row = |(server, sums): (&ServerId, Sums)| {
            (server.clone(), Row::new(Key::Name(Some(server.to_string())), &sums))
        };
        all.into_iter().map(row).collect()
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
        self.folded = self.folded.max(first_kept);
        let mut touched = BTreeSet::new();
        for bucket in old {
            if let Some(sums) = self.buckets.remove(&bucket) {
                let first = bucket.hour - bucket.hour % 24;
                let known = self.callers.entry(first).or_default();
                let caller = bucket.caller.as_deref().map(|it| counted_as(known, it).to_owned());
                let day = Bucket { hour: first, caller, ..bucket.clone() };
                self.buckets.entry(day.clone()).or_default().merge(&sums);
                touched.extend([bucket, day].into_iter().filter(|it| !it.unkept));
            }
        }
        self.callers.retain(|hour, _| *hour >= first_kept || hour.is_multiple_of(24));
        touched
    }

    /// Forgets all hours before `hour`, and names the buckets that went.
    pub fn forget_before(&mut self, hour: Hour) -> BTreeSet<Bucket> {
        let old = self.buckets.keys().take_while(|it| it.hour < hour).filter(|it| !it.unkept);
        let old: BTreeSet<Bucket> = old.cloned().collect();
        self.buckets.retain(|it, _| it.hour >= hour);
        self.callers.retain(|it, _| *it >= hour);
        old
    }
}

/// By what name a caller is counted in an hour with these callers.
fn counted_as<'a>(known: &mut BTreeSet<String>, caller: &'a str) -> &'a str {
    if caller != OTHERS && !known.contains(caller) {
        if known.len() >= CALLERS {
            return OTHERS;
        }
        known.insert(caller.to_owned());
    }
    caller
}
