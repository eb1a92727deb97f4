//! Sums told as sentences, and held against random outcomes.

use std::time::Duration;

use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::{
    fault::{Cause, Fault, Stage},
    generate::{Attempt, Caller, Cost, Ending, Gaps, Load, Operation, Reading, Substitution, Usage, Usd},
    stats::sample::Sample,
};

fn attempt(server: &str, fault: Option<Fault>) -> Attempt {
    Attempt {
        server: server.into(),
        kind: "vllm".into(),
        model: "m".into(),
        candidates: Vec::new(),
        after: Duration::ZERO,
        first_token: fault.is_none().then_some(Duration::from_millis(100)),
        total: Duration::from_millis(1100),
        requests: 1,
        fault,
        usage: Usage {
            input_tokens: None,
            output_tokens: fault.is_none().then_some(101),
            ..Usage::default()
        },
        cost: None,
    }
}

fn outcome(hour: u64, ending: Ending, attempts: Vec<Attempt>) -> Outcome {
    Outcome {
        request_id: "r".to_owned(),
        at_ms: hour * 3_600_000,
        caller: Caller::default(),
        dialect: "openai".into(),
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
        queued: Duration::ZERO,
        first_token: ending.is_success().then_some(Duration::from_millis(200)),
        gaps: Gaps::default(),
        total: Duration::from_millis(1200),
        usage: Usage { input_tokens: Some(5), output_tokens: Some(101), ..Usage::default() },
        usage_estimated: false,
        reason: None,
        sent: 0,
        load: None,
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
fn times_are_the_callers_and_speed_is_the_servers() {
    let mut stats = Stats::default();
    stats.add(&outcome(0, Ending::Delivered, vec![attempt("a", None)]));
    let row = one(&stats, &Query::default());
    let near = |shown: Spread, exact: f64| (shown.p95.unwrap() / exact - 1.0).abs() < 0.02;
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
    assert_eq!(row.tokens_per_second, Spread::default());
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
    assert_eq!(one(&stats, &by(By::Server)).total_ms, Spread::default());
    assert_eq!(one(&stats, &Query::default()).total_ms, Spread::default());
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
fn live_is_this_hour_and_the_one_before() {
    let mut stats = Stats::default();
    for (hour, server) in [(7, "a"), (8, "a"), (9, "a"), (9, "b")] {
        stats.add(&outcome(hour, Ending::Delivered, vec![attempt(server, None)]));
    }
    assert_eq!(stats.live(&"a".into(), 9).endings.delivered, 2);
    assert_eq!(stats.live(&"new".into(), 9).total_ms, Spread::default());
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
    assert_eq!(By::parse("colour"), None);
}

#[test]
fn of_callers_without_end_only_some_are_told_apart_and_all_are_counted() {
    let mut stats = Stats::default();
    let named = |name: String, hour| Outcome {
        caller: Caller { program: Some(name), uid: None },
        ..outcome(hour, Ending::Delivered, vec![attempt("a", None)])
    };
    for hour in [0, 1, 30] {
        for number in 0..100 {
            stats.add(&named(format!("{hour}-{number}"), hour));
        }
        stats.add(&outcome(hour, Ending::Delivered, vec![]));
    }
    let count = |stats: &Stats| {
        let rows = stats.report(&by(By::Caller));
        (rows.len(), rows.iter().map(|it| it.endings.all()).sum::<u64>())
    };
    assert_eq!(count(&stats), (3 * CALLERS + 2, 303), "with those that have no name, and the others");
    let mut again = Stats::default();
    keep(&stats, &mut again);
    again.add(&named("late".to_owned(), 1));
    assert_eq!(count(&again), (3 * CALLERS + 2, 304), "they are known after a restart too");
    stats.fold_days_before(48);
    assert_eq!(count(&stats), (2 * CALLERS + 2, 303));
    let one = Query { caller: Some("0-3".to_owned()), ..Query::default() };
    assert_eq!(stats.report(&one)[0].endings.all(), 1);
}

#[test]
fn a_bucket_from_before_callers_were_counted_has_the_key_that_it_had() {
    let mut key = 7_u32.to_be_bytes().to_vec();
    key.extend(br#"{"hour":7,"counts":"requests","server":"a","kind":"vllm","model":"m","zone":"machine","dialect":"openai"}"#);
    let bucket = Bucket::from_key(&key).unwrap();
    assert_eq!((bucket.caller.as_deref(), bucket.to_key()), (None, key));
}

#[test]
fn pauses_and_queues_are_summed() {
    let mut stats = Stats::default();
    let mut gaps = Gaps::default();
    (0..100).for_each(|_| gaps.add_time(Duration::from_millis(20)));
    let queued = Duration::from_millis(300);
    stats.add(&Outcome { gaps, queued, ..outcome(0, Ending::Delivered, vec![attempt("a", None)]) });
    stats.add(&outcome(0, Ending::Delivered, vec![attempt("a", None)]));
    let row = one(&stats, &Query::default());
    assert_eq!((row.queued, row.gap_ms.mean), (1, Some(20.0)));
    assert!(row.queued_ms.p50.is_some_and(|it| (it - 300.0).abs() < 6.0), "{row:?}");
    let mut again = Stats::default();
    keep(&stats, &mut again);
    assert_eq!(again.buckets, stats.buckets);
}

#[test]
fn a_span_that_begins_within_a_folded_day_has_all_of_it() {
    let mut stats = Stats::default();
    for hour in [3, 20, 30] {
        stats.add(&outcome(hour, Ending::Delivered, vec![]));
    }
    let since = Query { since: Some(10), ..Query::default() };
    assert_eq!(one(&stats, &since).endings.all(), 2);
    stats.fold_days_before(24);
    assert_eq!(one(&stats, &since).endings.all(), 3);
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
fn what_it_cost_is_a_sum_and_nothing_known_is_not_zero() {
    let cost = |nanos| Some(Cost { usd: Usd::from_nanos(nanos), at_most: false });
    let mut stats = Stats::default();
    let tries = vec![Attempt { cost: cost(5), ..attempt("cloud", None) }, attempt("local", None)];
    stats.add(&outcome(0, Ending::Delivered, tries));
    stats.add(&outcome(0, Ending::Delivered, vec![Attempt { cost: cost(7), ..attempt("cloud", None) }]));
    stats.add(&outcome(0, Ending::Delivered, vec![attempt("local", None)]));
    let costs: Vec<_> = stats.report(&by(By::Server)).iter().map(|it| it.cost.map(Usd::nanos)).collect();
    assert_eq!(costs, [Some(12), None]);
    assert_eq!(stats.report(&Query::default())[0].cost.map(Usd::nanos), Some(12));
    let bucket =
        stats.add(&outcome(9, Ending::Delivered, vec![Attempt { cost: cost(3), ..attempt("a", None) }]));
    let bytes = stats.bytes(&bucket[0]).unwrap();
    assert_eq!((bytes[0], Sums::from_bytes(&bytes).unwrap().cost.map(Usd::nanos)), (2, Some(3)));
}

#[test]
fn an_hour_of_one_model_is_small() {
    let mut sums = Sums::default();
    assert!(size_of::<Sums>() <= 320 && sums.to_bytes().len() < 32);
    for turn in 0..1000_u64 {
        let first = Duration::from_millis(100 + turn % 400);
        let usage = Usage { input_tokens: Some(1), output_tokens: Some(100), ..Usage::default() };
        let total = Duration::from_millis(1000 + turn);
        let (ending, first_token) = (Ending::Delivered, Some(first));
        sums.add(&Sample {
            ending,
            callers_fault: false,
            failed_over: false,
            first_token,
            total,
            usage,
            cost: None,
            speed: Some(turn * 10),
            gaps: None,
            queued: None,
            load: None,
        });
    }
    assert!(sums.to_bytes().len() < 700, "{} bytes", sums.to_bytes().len());
}

fn outcomes() -> impl Strategy<Value = Outcome> {
    let ending = prop::sample::select(Ending::ALL.to_vec());
    let cause = prop::sample::select(vec![Cause::Reset, Cause::Loading, Cause::Stalled, Cause::Malformed]);
    let fault = (cause, prop::sample::select(vec![Stage::Head, Stage::Content]))
        .prop_map(|(cause, stage)| Fault::new(stage, cause));
    let tries = vec((prop::sample::select(vec!["a", "b", "c"]), option::of(fault), 0_u64..100_000), 0..4);
    (ending, tries, 0_u64..60, any::<bool>(), option::of(0_u64..1000), 0_u64..10_000_000).prop_map(
        |(ending, tries, hour, callers_fault, output_tokens, micros)| {
            let attempts = tries
                .into_iter()
                .map(|(server, fault, millis)| Attempt {
                    total: Duration::from_millis(100 + millis),
                    requests: 1,
                    cost: (millis % 3 == 0).then(|| Cost { usd: Usd::from_nanos(millis), at_most: false }),
                    ..attempt(server, fault)
                })
                .collect();
            let mut gaps = Gaps::default();
            (0..hour % 3).for_each(|it| gaps.add_time(Duration::from_micros(micros / (it + 1))));
            let name = ["curl", "node"].get(hour as usize % 3).map(|it| (*it).to_owned());
            Outcome {
                callers_fault,
                gaps,
                caller: Caller { program: name, uid: None },
                queued: Duration::from_micros(micros % 2 * 5_000),
                usage: Usage { input_tokens: None, output_tokens, ..Usage::default() },
                first_token: Some(Duration::from_micros(micros)),
                total: Duration::from_micros(micros * 2),
                load: (hour % 4 == 0).then(|| load(micros)),
                ..outcome(hour, ending, attempts)
            }
        },
    )
}

fn load(of: u64) -> Load {
    let reading = |it| Reading { processor: Some(it), power: Some(it / 2), ..Reading::default() };
    Load { start: reading(of % 500), peak: reading(of % 1000) }
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
