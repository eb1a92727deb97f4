//! A request as a trace: a span of its own, and one below it for each attempt.
//!
//! Names and attributes are those of the conventions for generative AI, as in `metrics`. No word
//! of a prompt, an answer or a server's error is in it: an outcome has none.

use std::time::Duration;

use super::message::{
    CLIENT, ERROR, Event, KeyValue, List, ResourceSpans, SERVER, ScopeSpans, Span, Status, TraceRequest,
    Value, attribute, resource, scope,
};
use crate::{
    generate::{Attempt, Ending, Outcome, Reason, Usage},
    metrics,
};

/// A caller may write anything where a model's name belongs.
const NAME: usize = 100;

/// The span of the caller that a request belongs to (W3C Trace Context, `traceparent`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    trace: u128,
    span: u64,
    /// Whether the caller keeps this trace; what it throws away is not sent.
    sampled: bool,
}

impl Parent {
    /// Reads the header; `None` where it is not one.
    pub fn read(header: &str) -> Option<Self> {
        let mut parts = header.trim().split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_hex = |it: &str, digits: usize| {
            it.len() == digits && it.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))
        };
        // A later version may have more parts, and begins with these.
        let fits = is_hex(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
        if !(fits && is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2)) {
            return None;
        }
        let trace = u128::from_str_radix(trace, 16).ok().filter(|it| *it != 0)?;
        let span = u64::from_str_radix(span, 16).ok().filter(|it| *it != 0)?;
        let flags = u8::from_str_radix(flags, 16).ok()?;
        Some(Self { trace, span, sampled: flags & 1 != 0 })
    }

    /// Whether the caller keeps the trace.
    pub fn is_sampled(&self) -> bool {
        self.sampled
    }
}

/// Requests as one message. `luck` gives numbers that nobody else has.
pub(super) fn request<'a>(
    outcomes: impl Iterator<Item = (&'a Outcome, Option<Parent>)>,
    instance: &str,
    mut luck: impl FnMut() -> u64,
) -> TraceRequest {
    let spans = outcomes.flat_map(|(outcome, parent)| spans(outcome, parent, &mut luck)).collect();
    let scope_spans = vec![ScopeSpans { scope: scope(), spans }];
    TraceRequest { resource_spans: vec![ResourceSpans { resource: resource(instance), scope_spans }] }
}

fn spans(outcome: &Outcome, parent: Option<Parent>, luck: &mut impl FnMut() -> u64) -> Vec<Span> {
    // Zero is no number of a trace or a span.
    let new = |luck: &mut dyn FnMut() -> u64| luck().max(1);
    let trace = parent
        .map_or_else(|| u128::from(new(luck)) << 64 | u128::from(luck()), |it| it.trace)
        .to_be_bytes()
        .to_vec();
    let id = new(luck).to_be_bytes().to_vec();
    let begun = outcome.at_ms.saturating_mul(1_000_000);
    let asked: String = outcome.asked.chars().filter(|it| !it.is_control()).take(NAME).collect();
    let own = Span {
        trace_id: trace.clone(),
        span_id: id.clone(),
        parent_span_id: parent.map(|it| it.span.to_be_bytes().to_vec()).unwrap_or_default(),
        name: format!("{} {asked}", metrics::operation(outcome.operation)),
        kind: SERVER,
        start_time_unix_nano: begun,
        end_time_unix_nano: after(begun, outcome.total),
        attributes: attributes(outcome, &asked),
        events: outcome.first_token.map(|it| first_token(after(begun, it))).into_iter().collect(),
        status: failed(outcome),
    };
    let attempts = outcome.attempts.iter().map(|attempt| {
        let from = after(begun, attempt.after);
        Span {
            trace_id: trace.clone(),
            span_id: new(luck).to_be_bytes().to_vec(),
            parent_span_id: id.clone(),
            name: format!("{} {}", metrics::operation(outcome.operation), attempt.model),
            kind: CLIENT,
            start_time_unix_nano: from,
            end_time_unix_nano: after(from, attempt.total),
            attributes: of_attempt(outcome, attempt),
            events: attempt.first_token.map(|it| first_token(after(from, it))).into_iter().collect(),
            status: attempt.fault.map(|it| Status { message: it.to_string(), code: ERROR }),
        }
    });
    let attempts: Vec<Span> = attempts.collect();
    [own].into_iter().chain(attempts).collect()
}

fn first_token(at: u64) -> Event {
    Event { time_unix_nano: at, name: "first token".to_owned() }
}

fn after(at: u64, time: Duration) -> u64 {
    at.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

/// Whoever left, or was refused for a mistake of theirs, is no error of ours.
fn failed(outcome: &Outcome) -> Option<Status> {
    let is_ours = match outcome.ending {
        Ending::Delivered | Ending::Resumed | Ending::CallerGone => false,
        Ending::CutShort | Ending::Refused | Ending::Exhausted | Ending::OutOfTime => !outcome.callers_fault,
    };
    let message = metrics::error(outcome)?.to_owned();
    is_ours.then_some(Status { message, code: ERROR })
}

fn attributes(outcome: &Outcome, asked: &str) -> Vec<KeyValue> {
    let mut all = vec![
        attribute("gen_ai.operation.name", metrics::operation(outcome.operation)),
        attribute("gen_ai.request.model", asked),
        attribute("lovable.request_id", &*outcome.request_id),
        attribute("lovable.dialect", &*outcome.dialect),
        attribute("lovable.stream", outcome.stream),
        attribute("lovable.ending", outcome.ending.as_str()),
        attribute("lovable.attempts", outcome.attempts.len() as u64),
        attribute("lovable.queue.duration", outcome.queued.as_secs_f64()),
    ];
    let mut also = |name: &str, value: Option<Value>| all.extend(value.map(|it| attribute(name, it)));
    let last = outcome.attempts.last();
    also("gen_ai.provider.name", last.map(|it| metrics::provider(&it.kind).into()));
    also("gen_ai.response.model", outcome.answered().map(|it| it.model.as_str().into()));
    also("lovable.server", last.map(|it| it.server.as_str().into()));
    also("lovable.zone", outcome.zone.map(|it| it.as_str().into()));
    also("http.response.status_code", (outcome.status != 0).then(|| u64::from(outcome.status).into()));
    also("error.type", metrics::error(outcome).map(Value::from));
    also("user_agent.name", outcome.caller.program.as_deref().map(Value::from));
    also("lovable.cost_usd", outcome.cost().map(|it| it.usd.dollars().into()));
    also("gen_ai.response.finish_reasons", outcome.reason.map(|it| list(reason(it))));
    all.extend(used(outcome.usage));
    all
}

fn of_attempt(outcome: &Outcome, attempt: &Attempt) -> Vec<KeyValue> {
    let mut all = vec![
        attribute("gen_ai.operation.name", metrics::operation(outcome.operation)),
        attribute("gen_ai.provider.name", metrics::provider(&attempt.kind)),
        attribute("gen_ai.request.model", attempt.model.as_str()),
        attribute("lovable.server", attempt.server.as_str()),
    ];
    if let Some(fault) = &attempt.fault {
        let stage = serde_json::to_value(fault.stage).ok();
        let stage = stage.as_ref().and_then(|it| it.as_str()).unwrap_or_default();
        all.push(attribute("error.type", &*fault.cause.word()));
        all.push(attribute("lovable.fault.stage", stage));
        all.extend(fault.status.map(|it| attribute("http.response.status_code", u64::from(it))));
    }
    all.extend(used(attempt.usage));
    all
}

fn used(usage: Usage) -> impl Iterator<Item = KeyValue> {
    let counts = [
        ("gen_ai.usage.input_tokens", usage.input_tokens),
        ("gen_ai.usage.output_tokens", usage.output_tokens),
    ];
    counts.into_iter().filter_map(|(name, count)| Some(attribute(name, count?)))
}

fn list(text: &str) -> Value {
    Value::List(List { values: vec![super::message::AnyValue { value: Some(text.into()) }] })
}

/// As OpenAI says it, which is what the conventions' examples have.
fn reason(it: Reason) -> &'static str {
    match it {
        Reason::Stop => "stop",
        Reason::Length => "length",
        Reason::ToolCalls => "tool_calls",
        Reason::ContentFilter => "content_filter",
        Reason::Other => "other",
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::ledger::tests::outcome;

    const HEADER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_caller_that_traces_is_joined_and_what_is_no_header_is_not() {
        let parent = Parent::read(HEADER).unwrap();
        assert_eq!(
            (parent.trace, parent.span),
            (0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, 0x00f0_67aa_0ba9_02b7)
        );
        assert!(parent.is_sampled() && !Parent::read(&HEADER.replace("-01", "-00")).unwrap().is_sampled());
        assert!(Parent::read(&HEADER.replace("00-4b", "cc-4b").replace("-01", "-01-more")).is_some());
        for wrong in [
            "",
            "00-1-2-3",
            &HEADER.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &HEADER.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &HEADER.replace("00-4b", "ff-4b"),
            &HEADER.replace("-01", "-01-more"),
            &HEADER.to_uppercase(),
        ] {
            assert_eq!(Parent::read(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn each_request_is_a_trace_of_its_own_with_a_span_for_each_attempt(
            outcomes in vec(outcome(), 1..5),
            joins: bool,
        ) {
            let mut next = 0;
            let luck = || { next += 1; next };
            let parent = Parent::read(HEADER).filter(|_| joins);
            let message = request(outcomes.iter().map(|it| (it, parent)), "i", luck);
            let spans = &message.resource_spans[0].scope_spans[0].spans;
            let mut ids: Vec<_> = spans.iter().map(|it| it.span_id.clone()).collect();
            ids.sort();
            ids.dedup();
            prop_assert_eq!(ids.len(), spans.len(), "no number twice");
            let own: Vec<_> = spans.iter().filter(|it| it.kind == SERVER).collect();
            prop_assert_eq!(own.len(), outcomes.len());
            for (span, outcome) in own.into_iter().zip(&outcomes) {
                let below: Vec<_> = spans.iter().filter(|it| it.parent_span_id == span.span_id).collect();
                prop_assert_eq!(below.len(), outcome.attempts.len());
                prop_assert!(below.iter().all(|it| it.trace_id == span.trace_id && it.kind == CLIENT));
                let failed = below.iter().filter(|it| it.status.is_some()).count();
                prop_assert_eq!(failed, outcome.attempts.iter().filter(|it| it.fault.is_some()).count());
                prop_assert_eq!(span.parent_span_id.len(), if joins { 8 } else { 0 });
                prop_assert_eq!((span.trace_id.len(), span.span_id.len()), (16, 8));
            }
        }
    }
}
