//! Rows come back as they were, and what is no row is an error.

use std::{borrow::Cow, time::Duration};

use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::{
    fault::{Cause, Fault, Stage},
    generate::{
        Attempt, Caller, Candidate, Cost, Ending, Gaps, Load, MEASURES, Operation, Reading, Reason,
        Substitution, Usage, Usd,
    },
    server::Zone,
};

fn text() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["", "a", "vllm", "qwen3:8b", "größer", "one that is rather long, with, commas"])
        .prop_map(str::to_owned)
}

fn micros() -> impl Strategy<Value = Duration> {
    prop_oneof![0_u64..1000, 0_u64..100_000_000].prop_map(Duration::from_micros)
}

fn usage() -> impl Strategy<Value = Usage> {
    vec(option::of(0_u64..100_000), 5).prop_map(|it| Usage {
        input_tokens: it[0],
        output_tokens: it[1],
        cached_tokens: it[2],
        reasoning_tokens: it[3],
        written_tokens: it[4],
    })
}

fn fault() -> impl Strategy<Value = Fault> {
    let causes = vec![
        Cause::Refused,
        Cause::Stalled,
        Cause::Unresponsive,
        Cause::Busy { retry_after: None },
        Cause::Busy { retry_after: Some(Duration::from_secs(7)) },
        Cause::Unfunded,
        Cause::Internal,
    ];
    let stages = vec![Stage::Connect, Stage::Head, Stage::FirstToken, Stage::Content];
    (prop::sample::select(stages), prop::sample::select(causes), option::of(100_u16..600))
        .prop_map(|(stage, cause, status)| Fault { stage, cause, status })
}

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let one = (text(), text(), option::of(text()), option::of(text())).prop_map(
        |(server, model, excluded, behind)| {
            let own = |it: Option<String>| it.map(Cow::Owned);
            Candidate {
                server: server.into(),
                model: model.into(),
                excluded: own(excluded),
                behind: own(behind),
            }
        },
    );
    vec(one, 0..4)
}

fn attempt() -> impl Strategy<Value = Attempt> {
    let names = (text(), text(), text(), candidates());
    let times = (micros(), option::of(micros()), micros(), 1_u32..3);
    (names, times, option::of(fault()), usage(), option::of((any::<u64>(), any::<bool>()))).prop_map(
        |((server, kind, model, candidates), (after, first_token, total, requests), fault, usage, cost)| {
            Attempt {
                server: server.into(),
                kind: kind.into(),
                model: model.into(),
                candidates,
                after,
                first_token,
                total,
                requests,
                fault,
                usage,
                cost: cost.map(|(nanos, at_most)| Cost { usd: Usd::from_nanos(nanos), at_most }),
            }
        },
    )
}

fn load() -> impl Strategy<Value = Load> {
    let reading = || {
        vec(option::of(0_u64..1 << 40), MEASURES)
            .prop_map(|it| Reading::from_parts(std::array::from_fn(|at| it[at])))
    };
    (reading(), reading()).prop_map(|(start, peak)| Load { start, peak })
}

/// Any outcome at all.
pub(crate) fn outcome() -> impl Strategy<Value = Outcome> {
    let endings = Ending::ALL.to_vec();
    let operations = vec![Operation::Chat, Operation::Complete, Operation::Embed];
    let reasons = vec![Reason::Stop, Reason::Length, Reason::ToolCalls, Reason::ContentFilter, Reason::Other];
    let zones = vec![Zone::Machine, Zone::Lan, Zone::Cloud];
    let substitutions =
        vec![Substitution::No, Substitution::Equivalent, Substitution::Alternative, Substitution::Cloud];
    let who = (text(), any::<u64>(), option::of(text()), option::of(any::<u32>()), text(), text());
    let what = (
        prop::sample::select(operations),
        prop::sample::select(endings),
        option::of(prop::sample::select(reasons)),
        option::of(prop::sample::select(zones)),
        prop::sample::select(substitutions),
        option::of(text()),
    );
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<u16>(), any::<u64>());
    let times = (micros(), option::of(micros()), micros(), vec(micros(), 0..20));
    (who, what, flags, times, (vec(attempt(), 0..4), candidates(), usage(), option::of(load()))).prop_map(
        |(
            (request_id, at_ms, program, uid, dialect, asked),
            (operation, ending, reason, zone, substituted, failure),
            (stream, callers_fault, usage_estimated, status, sent),
            (queued, first_token, total, pauses),
            (attempts, candidates, usage, load),
        )| {
            let mut gaps = Gaps::default();
            pauses.into_iter().for_each(|it| gaps.add_time(it));
            Outcome {
                request_id,
                at_ms,
                caller: Caller { program, uid },
                dialect: Cow::Owned(dialect),
                operation,
                asked,
                stream,
                ending,
                status,
                failure: failure.map(Cow::Owned),
                callers_fault,
                attempts,
                candidates,
                zone,
                substituted,
                queued,
                first_token,
                gaps,
                total,
                usage,
                usage_estimated,
                reason,
                sent,
                load,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_row_comes_back_as_it_was(outcome in outcome(), cut: prop::sample::Index, noise in vec(any::<u8>(), 0..80), version in 0_u8..4) {
        let bytes = row(&outcome);
        prop_assert_eq!(read(&bytes), Ok(outcome.clone()));
        prop_assert!(is_of(&bytes, &outcome.request_id));
        prop_assert!(!is_of(&bytes, "another"));
        prop_assert_eq!(at_ms(&bytes), Some(outcome.at_ms));
        prop_assert_eq!(read(&bytes[..cut.index(bytes.len())]), Err(Damaged));
        // No panic, whatever it is.
        let _ = read(&[&[version], &noise[..]].concat());
        let _ = (is_of(&noise, ""), at_ms(&[&[version], &noise[..]].concat()));
    }
}

pub(crate) fn plain() -> Outcome {
    let candidate =
        Candidate { server: "vllm".into(), model: "Qwen/Qwen3-8B".into(), excluded: None, behind: None };
    let mut gaps = Gaps::default();
    (0..200).for_each(|it| gaps.add_time(Duration::from_micros(15_000 + it * 37)));
    Outcome {
        request_id: "req-0123456789abcdef".to_owned(),
        at_ms: 1_772_366_400_250,
        caller: Caller { program: Some("OpenAI/Python".to_owned()), uid: Some(1000) },
        dialect: "openai".into(),
        operation: Operation::Chat,
        asked: "Qwen/Qwen3-8B".to_owned(),
        stream: true,
        ending: Ending::Delivered,
        status: 200,
        failure: None,
        callers_fault: false,
        attempts: vec![Attempt {
            server: "vllm".into(),
            kind: "vllm".into(),
            model: "Qwen/Qwen3-8B".into(),
            candidates: vec![
                candidate.clone(),
                Candidate {
                    server: "ollama".into(),
                    behind: Some("its model is not loaded".into()),
                    ..candidate
                },
            ],
            after: Duration::from_micros(310),
            first_token: Some(Duration::from_millis(180)),
            total: Duration::from_millis(4_100),
            requests: 1,
            fault: None,
            usage: Usage { input_tokens: Some(900), output_tokens: Some(201), ..Usage::default() },
            cost: None,
        }],
        candidates: Vec::new(),
        zone: Some(Zone::Machine),
        substituted: Substitution::No,
        queued: Duration::ZERO,
        first_token: Some(Duration::from_millis(181)),
        gaps,
        total: Duration::from_millis(4_101),
        usage: Usage { input_tokens: Some(900), output_tokens: Some(201), ..Usage::default() },
        usage_estimated: false,
        reason: Some(Reason::Stop),
        sent: 41_000,
        load: None,
    }
}

#[test]
fn a_usual_row_is_small() {
    let bytes = row(&plain());
    assert!(bytes.len() < 200, "{} bytes", bytes.len());
}

#[test]
fn only_those_that_are_meant_are_let_through() {
    let it = plain();
    let all = Filter::default();
    let some = |text: &str| Some(text.to_owned());
    for (filter, lets) in [
        (all.clone(), true),
        (Filter { since_ms: Some(it.at_ms), until_ms: Some(it.at_ms + 1), ..all.clone() }, true),
        (Filter { since_ms: Some(it.at_ms + 1), ..all.clone() }, false),
        (Filter { until_ms: Some(it.at_ms), ..all.clone() }, false),
        (
            Filter {
                server: some("vllm"),
                model: some("Qwen/Qwen3-8B"),
                caller: some("OpenAI/Python"),
                ..all.clone()
            },
            true,
        ),
        (Filter { server: some("ollama"), ..all.clone() }, false),
        (Filter { model: some("m"), ..all.clone() }, false),
        (Filter { caller: some("curl"), ..all.clone() }, false),
        (Filter { uid: Some(1000), ..all.clone() }, true),
        (Filter { uid: Some(1001), ..all.clone() }, false),
    ] {
        assert_eq!(filter.lets(&it), lets, "{filter:?}");
    }
}
