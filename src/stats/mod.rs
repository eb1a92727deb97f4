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
mod sums;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use self::sums::Sample;
pub use self::{
    bytes::Damaged,
    histogram::Histogram,
    sums::{Endings, Sums},
};
use crate::{
    fault::{Blame, Cause, Fault, Stage},
    generate::{Ending, Outcome},
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
    pub first_token_ms: Option<Spread>,
    /// Time of whole answers.
    pub total_ms: Option<Spread>,
    /// Tokens per second after the first.
    pub tokens_per_second: Option<Spread>,
    /// Tokens of prompts.
    pub input_tokens: Option<u64>,
    /// Tokens of answers.
    pub output_tokens: Option<u64>,
    /// Whole answers whose server gave no token counts.
    pub usage_absent: u64,
}

/// How values are spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Their mean.
    pub mean: f64,
    /// Half of them are at most that.
    pub p50: f64,
    /// 95 % of them are at most that.
    pub p95: f64,
    /// 99 % of them are at most that.
    pub p99: f64,
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
        }
    }
}

impl Spread {
    fn of(histogram: &Histogram, unit: f64) -> Option<Self> {
        Some(Self {
            mean: histogram.mean()? / unit,
            p50: histogram.quantile(0.5)? / unit,
            p95: histogram.quantile(0.95)? / unit,
            p99: histogram.quantile(0.99)? / unit,
        })
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
    /// Adds an outcome and names the buckets that changed.
    pub fn add(&mut self, outcome: &Outcome) -> BTreeSet<Bucket> {
        self.totals.endings.add(outcome.ending);
        self.totals.attempts_failed_over += outcome.attempts.len().saturating_sub(1) as u64;
        let mut touched = BTreeSet::new();
        for (bucket, sample) in samples(outcome) {
            self.buckets.entry(bucket.clone()).or_default().add(&sample);
            touched.insert(bucket);
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

    /// How servers have done in this hour and the one before, by their ids.
    pub fn lately(&self, now: Hour) -> BTreeMap<ServerId, Row> {
        let mut servers = BTreeMap::<ServerId, Sums>::new();
        for (bucket, sums) in self.buckets.iter().rev() {
            if bucket.hour < now.saturating_sub(1) {
                break;
            }
            if let (Counts::Attempts, Some(server)) = (bucket.counts, &bucket.server) {
                servers.entry(server.clone()).or_default().merge(sums);
            }
        }
        let row = |(server, sums): (ServerId, Sums)| {
            let key = Key::Name(Some(server.to_string()));
            (server, Row::new(key, &sums))
        };
        servers.into_iter().map(row).collect()
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

/// The request and its attempts, each with its group.
fn samples(outcome: &Outcome) -> Vec<(Bucket, Sample)> {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::{collection::vec, option, prelude::*};

    use super::*;
    use crate::generate::{Attempt, Operation, Substitution, Usage};

    fn attempt(server: &str, fault: Option<Fault>) -> Attempt {
        Attempt {
            server: server.into(),
            kind: "vllm".into(),
            model: "m".into(),
            after: Duration::ZERO,
            first_token: fault.is_none().then_some(Duration::from_millis(100)),
            total: Duration::from_millis(1100),
            fault,
            usage: Usage::default(),
        }
    }

    fn outcome(hour: u64, ending: Ending, attempts: Vec<Attempt>) -> Outcome {
        Outcome {
            request_id: "r".to_owned(),
            at_ms: hour * 3_600_000,
            dialect: "openai".to_owned(),
            operation: Operation::Chat,
            asked: "whatever".to_owned(),
            stream: true,
            ending,
            status: 200,
            failure: None,
            callers_fault: false,
            attempts,
            candidates: Vec::new(),
            zone: ending.is_success().then_some(Zone::Machine),
            substituted: Substitution::No,
            first_token: ending.is_success().then_some(Duration::from_millis(200)),
            total: Duration::from_millis(1200),
            usage: Usage { input_tokens: Some(5), output_tokens: Some(101) },
            reason: None,
        }
    }

    fn by(by: By) -> Query {
        Query { by: Some(by), ..Query::default() }
    }

    fn one(stats: &Stats, query: &Query) -> Row {
        let mut rows = stats.report(query);
        assert_eq!(rows.len(), 1, "{rows:?}");
        rows.remove(0)
    }

    const RESET: Fault = Fault { stage: Stage::Head, cause: Cause::Reset, status: None };

    #[test]
    fn an_answer_that_took_two_servers_is_one_request_and_two_attempts() {
        let mut stats = Stats::default();
        let attempts = vec![attempt("a", Some(RESET)), attempt("b", None)];
        assert_eq!(stats.add(&outcome(0, Ending::Delivered, attempts)).len(), 3);

        let row = one(&stats, &by(By::Model));
        assert_eq!((row.endings.all(), row.endings.delivered, row.failed_over), (1, 1, 1));
        assert_eq!(row.key, Key::Name(Some("m".to_owned())));
        let rows = stats.report(&by(By::Server));
        let seen: Vec<_> = rows.iter().map(|it| (&it.key, it.success_rate, it.failed_over)).collect();
        let name = |name: &str| Key::Name(Some(name.to_owned()));
        assert_eq!(seen, [(&name("a"), Some(0.0), 1), (&name("b"), Some(1.0), 0)]);
        assert_eq!(one(&stats, &by(By::Kind)).success_rate, Some(0.5));
        assert_eq!(stats.totals().attempts_failed_over, 1);
    }

    #[test]
    fn times_and_speed_are_those_of_the_caller() {
        let mut stats = Stats::default();
        stats.add(&outcome(0, Ending::Delivered, vec![attempt("a", None)]));
        let row = one(&stats, &Query::default());
        let near = |shown: Option<Spread>, exact: f64| (shown.unwrap().p95 / exact - 1.0).abs() < 0.02;
        assert!(near(row.first_token_ms, 200.0) && near(row.total_ms, 1200.0), "{row:?}");
        assert!(near(row.tokens_per_second, 100.0), "{row:?}");
        assert_eq!((row.input_tokens, row.output_tokens, row.usage_absent), (Some(5), Some(101), 0));
    }

    #[test]
    fn absent_is_not_zero() {
        let mut stats = Stats::default();
        stats.add(&Outcome { usage: Usage::default(), ..outcome(0, Ending::Delivered, vec![]) });
        stats.add(&Outcome { usage: Usage::default(), ..outcome(0, Ending::Exhausted, vec![]) });
        let row = one(&stats, &Query::default());
        assert_eq!((row.input_tokens, row.output_tokens, row.usage_absent), (None, None, 1));
        assert_eq!(row.tokens_per_second, None);
    }

    #[test]
    fn success_is_counted_without_those_that_left_or_were_to_blame() {
        let mut stats = Stats::default();
        let mut add = |ending, callers_fault| {
            stats.add(&Outcome { callers_fault, ..outcome(0, ending, vec![]) });
        };
        add(Ending::CallerGone, false);
        add(Ending::Refused, true);
        assert_eq!(one(&stats, &Query::default()).success_rate, None);
        let mut add = |ending| {
            stats.add(&outcome(0, ending, vec![]));
        };
        add(Ending::Refused);
        add(Ending::CutShort);
        add(Ending::Delivered);
        add(Ending::Resumed);
        let row = one(&stats, &Query::default());
        assert_eq!((row.success_rate, row.endings.all()), (Some(0.5), 6));
        assert_eq!(stats.totals().endings, row.endings);
    }

    #[test]
    fn a_failure_has_no_place_among_the_times_of_answers() {
        let mut stats = Stats::default();
        stats.add(&outcome(0, Ending::Exhausted, vec![attempt("a", Some(RESET))]));
        assert_eq!(one(&stats, &by(By::Server)).total_ms, None);
        assert_eq!(one(&stats, &Query::default()).total_ms, None);
    }

    #[test]
    fn names_that_only_callers_know_make_no_groups() {
        let mut stats = Stats::default();
        for asked in ["x", "y", "z"] {
            stats.add(&Outcome { asked: asked.to_owned(), ..outcome(0, Ending::Refused, vec![]) });
        }
        assert_eq!(one(&stats, &by(By::Model)).key, Key::Name(None));
    }

    #[test]
    fn a_question_is_narrowed_by_time_server_and_model() {
        let mut stats = Stats::default();
        for (hour, server) in [(23, "a"), (24, "a"), (25, "b"), (49, "b")] {
            stats.add(&outcome(hour, Ending::Delivered, vec![attempt(server, None)]));
        }
        let count = |query: &Query| one(&stats, query).endings.all();
        let all = Query::default();
        assert_eq!(count(&Query { since: Some(24), ..all.clone() }), 3);
        assert_eq!(count(&Query { since: Some(24), until: Some(25), ..all.clone() }), 1);
        assert_eq!(count(&Query { server: Some("a".to_owned()), ..all.clone() }), 2);
        assert_eq!(stats.report(&Query { model: Some("other".to_owned()), ..all }), []);
        let keys = |it| stats.report(&by(it)).into_iter().map(|it| it.key).collect::<Vec<_>>();
        assert_eq!(keys(By::Hour), [23, 24, 25, 49].map(Key::Hour));
        assert_eq!(keys(By::Day), [0, 24, 48].map(Key::Hour));
    }

    #[test]
    fn lately_is_this_hour_and_the_one_before() {
        let mut stats = Stats::default();
        for (hour, server) in [(7, "old"), (8, "a"), (9, "a"), (9, "b")] {
            stats.add(&outcome(hour, Ending::Delivered, vec![attempt(server, None)]));
        }
        let lately = stats.lately(9);
        let seen: Vec<_> = lately.iter().map(|(id, row)| (id.as_str(), row.endings.delivered)).collect();
        assert_eq!(seen, [("a", 2), ("b", 1)]);
    }

    #[test]
    fn a_folded_day_says_the_same_as_its_hours() {
        let mut stats = Stats::default();
        for hour in 20..50 {
            stats.add(&outcome(hour, Ending::Delivered, vec![attempt("a", None)]));
        }
        let before = stats.report(&by(By::Day));
        let touched = stats.fold_days_before(50);
        assert_eq!(before, stats.report(&by(By::Day)));
        let hours: Vec<_> = stats.report(&by(By::Hour)).into_iter().map(|it| it.key).collect();
        assert_eq!(hours, [0, 24, 48, 49].map(Key::Hour));
        let (kept, gone): (Vec<_>, Vec<_>) = touched.iter().partition(|it| stats.bytes(it).is_some());
        assert_eq!((kept.len(), gone.len()), (4, 2 * (4 + 23)));
        assert!(stats.fold_days_before(50).is_empty());
        assert_eq!(stats.forget_before(48).len(), 4);
    }

    #[test]
    fn every_name_of_a_grouping_is_read_back() {
        for it in By::ALL {
            assert_eq!(By::parse(it.as_str()), Some(it));
        }
        assert_eq!(By::parse("caller"), None);
    }

    /// What version 1 wrote stays readable; these bytes are never regenerated.
    #[test]
    fn bytes_of_version_1_are_read() {
        let bytes =
            [&[1, 2, 0, 1, 1, 0, 0, 0, 1, 1, 0, 1, 10, 0][..], &[144, 78, 1, 252, 2, 2], &[0, 0], &[0, 0]]
                .concat();
        let sums = Sums::from_bytes(&bytes).unwrap();
        assert_eq!((sums.endings.delivered, sums.endings.cut_short, sums.endings.refused), (2, 1, 1));
        assert_eq!((sums.input_tokens, sums.output_tokens), (Some(10), None));
        assert_eq!((sums.first_token.count(), sums.first_token.mean()), (2, Some(5000.0)));
        assert_eq!(sums.to_bytes(), bytes);
    }

    #[test]
    fn an_hour_of_one_model_is_small() {
        let mut sums = Sums::default();
        assert!(size_of::<Sums>() <= 256 && sums.to_bytes().len() < 32);
        for turn in 0..1000_u64 {
            let first = Duration::from_millis(100 + turn % 400);
            let usage = Usage { input_tokens: Some(1), output_tokens: Some(100) };
            let total = Duration::from_millis(1000 + turn);
            let (ending, first_token) = (Ending::Delivered, Some(first));
            sums.add(&Sample { ending, callers_fault: false, failed_over: false, first_token, total, usage });
        }
        assert!(sums.to_bytes().len() < 700, "{} bytes", sums.to_bytes().len());
    }

    fn outcomes() -> impl Strategy<Value = Outcome> {
        let ending = prop::sample::select(vec![
            Ending::Delivered,
            Ending::Resumed,
            Ending::CutShort,
            Ending::Refused,
            Ending::Exhausted,
            Ending::OutOfTime,
            Ending::CallerGone,
        ]);
        let cause =
            prop::sample::select(vec![Cause::Reset, Cause::Loading, Cause::Stalled, Cause::Malformed]);
        let fault = (cause, prop::sample::select(vec![Stage::Head, Stage::Content]))
            .prop_map(|(cause, stage)| Fault::new(stage, cause));
        let tries = vec((prop::sample::select(vec!["a", "b", "c"]), option::of(fault), 0_u64..100_000), 0..4);
        (ending, tries, 0_u64..60, any::<bool>(), option::of(0_u64..1000), 0_u64..10_000_000).prop_map(
            |(ending, tries, hour, callers_fault, output_tokens, micros)| {
                let attempts = tries
                    .into_iter()
                    .map(|(server, fault, millis)| Attempt {
                        total: Duration::from_millis(100 + millis),
                        ..attempt(server, fault)
                    })
                    .collect();
                Outcome {
                    callers_fault,
                    usage: Usage { input_tokens: None, output_tokens },
                    first_token: Some(Duration::from_micros(micros)),
                    total: Duration::from_micros(micros * 2),
                    ..outcome(hour, ending, attempts)
                }
            },
        )
    }

    fn summed<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> Stats {
        let mut stats = Stats::default();
        outcomes.into_iter().for_each(|it| {
            stats.add(it);
        });
        stats
    }

    /// What is kept of all buckets goes to another one.
    fn keep(from: &Stats, to: &mut Stats) {
        for bucket in from.buckets.keys() {
            let (key, bytes) = (bucket.to_key(), from.bytes(bucket).unwrap());
            to.load(Bucket::from_key(&key).unwrap(), &bytes).unwrap();
        }
    }

    proptest! {
        #[test]
        fn any_order_and_any_grouping_gives_the_same_sums(
            outcomes in vec(outcomes(), 0..30),
            seed in any::<prop::sample::Index>(),
        ) {
            let whole = summed(&outcomes);
            prop_assert_eq!(&summed(outcomes.iter().rev()).buckets, &whole.buckets);

            let (left, right) = outcomes.split_at(seed.index(outcomes.len() + 1));
            let mut merged = Stats::default();
            keep(&summed(right), &mut merged);
            keep(&summed(left), &mut merged);
            prop_assert_eq!(&merged.buckets, &whole.buckets);
        }

        #[test]
        fn every_row_sums_up_to_all_requests(outcomes in vec(outcomes(), 1..30)) {
            let stats = summed(&outcomes);
            for it in By::ALL {
                let sum: u64 = stats.report(&by(it)).iter().map(|row| row.endings.all()).sum();
                let attempts: usize = outcomes.iter().map(|it| it.attempts.len()).sum();
                let expected = match it.counts() {
                    Counts::Requests => outcomes.len(),
                    Counts::Attempts => attempts,
                };
                prop_assert_eq!(sum, expected as u64, "{:?}", it);
            }
        }

        #[test]
        fn damaged_bytes_are_an_error_and_no_panic(
            outcomes in vec(outcomes(), 1..5),
            noise in vec(any::<u8>(), 0..40),
            cut: prop::sample::Index,
        ) {
            let stats = summed(&outcomes);
            let (bucket, sums) = stats.buckets.first_key_value().unwrap();
            let bytes = sums.to_bytes();
            prop_assert_eq!(Sums::from_bytes(&bytes[..cut.index(bytes.len())]), Err(Damaged));
            let _ = Sums::from_bytes(&[&[VERSION_1], &noise[..]].concat());
            prop_assert!(Bucket::from_key(&bucket.to_key()[..cut.index(bucket.to_key().len())]).is_err());
        }
    }

    const VERSION_1: u8 = 1;
}
