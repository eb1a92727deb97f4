//! vLLM.
//!
//! A FastAPI server like several others: what sets it apart is `owned_by` in
//! its list, or, where the list wants a key, an open `/version`. The list stays
//! well when the engine is dead, so `/health` is asked as well, but only once
//! it is known whose health that is.

use std::time::Duration;

use serde_json::Value;

use super::{
    Answer, Answers, Continuation, Json, Kind, Pulse, Question, Refusal, Tokenizer, Verdict, doing, fact,
    listing, listing::Listing, said,
};
use crate::{
    fault::Cause,
    server::{Doing, Model, Problem, Sighting},
};

/// vLLM.
pub(super) struct Vllm;

const VERSION: &str = "/version";
const HEALTH: &str = "/health";
const METRICS: &str = "/metrics";

impl Kind for Vllm {
    fn id(&self) -> &'static str {
        "vllm"
    }

    fn name(&self) -> &'static str {
        "vLLM"
    }

    fn usual_ports(&self) -> &'static [u16] {
        &[8000, 8001, 8002, 8003, 8004, 8005, 8006, 8007, 8008, 8009, 8010]
    }

    fn recognise(&self, answers: &Answers) -> Verdict {
        let Some(list) = answers.get(listing::PATH) else { return Verdict::No };
        let listing = Listing::of(list);
        let listed = listing.is_owned_by("vllm");
        if !listed && !wants_key(list) {
            return Verdict::No;
        }
        let Some(version) = answers.get(VERSION) else { return Verdict::Ask(Question::get(VERSION)) };
        let mut sighting = Sighting { version: fact::only_version(version), ..Sighting::of(self.id()) };
        if !listed {
            // SGLang says the same, but guards `/version` too.
            if sighting.version.is_none() {
                return Verdict::No;
            }
            sighting.problem = Some(Problem::NeedsKey);
            return Verdict::Proof(Box::new(sighting));
        }
        let Some(health) = answers.get(HEALTH) else { return Verdict::Ask(Question::get(HEALTH)) };
        if health.status >= 500 {
            sighting.problem = Some(Problem::Unhealthy);
        }
        if let Listing::Models(entries) = listing {
            sighting.models = entries.iter().filter_map(model).collect();
        }
        Verdict::Proof(Box::new(sighting))
    }

    fn classify(&self, refusal: Refusal<'_>) -> Option<Cause> {
        let it = said::Said::of(refusal.body);
        match refusal.status {
            // A body that did not pass validation. It is quoted in the message,
            // so the words are not looked at.
            400 if it.sort == "bad request" => Some(Cause::Malformed),
            400 | 422 if it.is_overflow() || it.has(&TOO_LONG) => Some(Cause::ContextOverflow),
            400 if it.is_beyond_it() || it.has(&NOT_HERE) => Some(Cause::Unsupported),
            404 if it.sort == "notfounderror" || it.is_unknown_model() => Some(Cause::ModelNotFound),
            // FastAPI's own: a server for embeddings has no chat route, and the other way round.
            404 => Some(Cause::Unsupported),
            _ => None,
        }
    }

    fn tokenizer(&self) -> Option<Tokenizer> {
        Some(Tokenizer::Conversation)
    }

    fn pulse(&self, _: &str, answers: &Answers, earlier: &Answers) -> Pulse {
        // Its list stays well when the engine is dead.
        if let Err(known) = doing::well(self.id(), answers, HEALTH) {
            return known;
        }
        let Some(metrics) = answers.get(METRICS) else { return Pulse::Ask(Question::get(METRICS)) };
        let doing = doing::by_gauges(metrics, "vllm:num_requests_running", "vllm:num_requests_waiting");
        Pulse::Is(match (doing, progress(earlier)) {
            // An engine that hangs counts what it runs as well, but gets nowhere with it.
            (Doing::Working, before @ Some(_)) if progress(answers) == before => Doing::Unknown,
            (doing, _) => doing,
        })
    }

    fn shows_after(&self) -> Duration {
        // Its gauges move after a step of the engine, and the first one for a long prompt may
        // take seconds.
        Duration::from_secs(8)
    }

    fn continuation(&self) -> Continuation {
        // 0.32.0, recorded. Without the flags it starts again.
        Continuation::Flags
    }

    fn plain_is_cancelled(&self) -> bool {
        true
    }

    fn wants_room_for_the_answer(&self) -> bool {
        true
    }
}

/// How far it has come with all that it runs: counters of tokens, and the memory that grows with
/// each piece of a long prompt. 0.32.0; the last name is that of older versions.
fn progress(answers: &Answers) -> Option<Vec<f64>> {
    let metrics = answers.get(METRICS).filter(|it| it.status == 200)?;
    let text = String::from_utf8_lossy(&metrics.body);
    let names = [
        "vllm:prompt_tokens_total",
        "vllm:generation_tokens_total",
        "vllm:kv_cache_usage_perc",
        "vllm:gpu_cache_usage_perc",
    ];
    let known: Vec<f64> = names.iter().filter_map(|it| doing::gauge(&text, it)).collect();
    Some(known).filter(|it| !it.is_empty())
}

/// A longer context elsewhere may take these.
const TOO_LONG: [&str; 2] = ["cannot be greater than max_model_len", "too long to fit into the model"];

/// What another server, or this one with other flags, may well take.
const NOT_HERE: [&str; 3] =
    // Tools without `--enable-auto-tool-choice`; images for a model that cannot
    // see; a model without a chat template.
    ["tool choice requires", "image(s) may be provided", "must provide a chat template"];

fn wants_key(answer: &Answer) -> bool {
    match answer.json() {
        Json::Whole(value) => answer.status == 401 && value["error"] == "Unauthorized",
        _ => false,
    }
}

/// A base model or one of its adapters. What it can do is not said: a server
/// for embeddings has the same list, and tools depend on flags.
fn model(entry: &Value) -> Option<Model> {
    let mut model = Model::named(entry["id"].as_str()?);
    let context = fact::count(&entry["max_model_len"]);
    model.context_length = context;
    model.loaded_context_length = context;
    model.loaded = Some(true);
    Some(model)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: u16, body: &str, expected: Option<Cause>) {
        let refusal = Refusal { status, retry_after: None, body: body.as_bytes() };
        assert_eq!(Vllm.classify(refusal), expected, "{body}");
    }

    #[test]
    fn what_was_not_recorded_is_understood_too() {
        let old = r#"{"object":"error","message":"This model's maximum context length is 4096 tokens.","type":"BadRequestError","code":400}"#;
        check(400, old, Some(Cause::ContextOverflow));
        let long = r#"{"error":{"message":"The prompt (total length 9000) is too long to fit into the model (context length 4096).","type":"BadRequestError"}}"#;
        check(400, long, Some(Cause::ContextOverflow));
        let image = r#"{"error":{"message":"At most 0 image(s) may be provided in one prompt.","type":"BadRequestError"}}"#;
        check(400, image, Some(Cause::Unsupported));
        let suffix = r#"{"error":{"message":"suffix is not currently supported","type":"BadRequestError"}}"#;
        check(400, suffix, Some(Cause::Unsupported));
        check(
            404,
            r#"{"object":"error","message":"The model `x` does not exist."}"#,
            Some(Cause::ModelNotFound),
        );
        check(404, r#"{"detail":"Not Found"}"#, Some(Cause::Unsupported));
        check(500, r#"{"error":{"message":"EngineCore encountered an issue."}}"#, None);
    }

    #[test]
    fn the_quoted_words_of_a_caller_decide_nothing() {
        let quoted = r#"{"error":{"message":"1 validation error: {'input': 'maximum context length, not supported'}","type":"Bad Request","code":400}}"#;
        check(400, quoted, Some(Cause::Malformed));
    }

    #[test]
    fn what_runs_and_gets_nowhere_may_hang() {
        let answers = |running: u32, waiting: u32, more: &str| {
            let text = format!(
                "vllm:num_requests_running{{m=\"a\"}} {running}.0\nvllm:num_requests_waiting{{m=\"a\"}} {waiting}.0\n{more}"
            );
            let mut answers = Answers::default();
            for (path, body) in [(HEALTH, String::new()), (METRICS, text)] {
                answers.push(
                    Question::get(path),
                    Answer { status: 200, headers: Vec::new(), body: body.into(), at: None },
                );
            }
            answers
        };
        let check = |now: &Answers, earlier: &Answers, expected: Doing| {
            let Pulse::Is(doing) = Vllm.pulse("a", now, earlier) else { panic!("it asks for more") };
            assert_eq!(doing, expected);
        };
        let none = Answers::default();
        let at =
            |tokens: u32| answers(1, 0, &format!("vllm:generation_tokens_total{{m=\"a\"}} {tokens}.0\n"));
        check(&at(5), &none, Doing::Working);
        check(&at(6), &at(5), Doing::Working);
        check(&at(5), &at(5), Doing::Unknown);
        check(&answers(1, 0, ""), &answers(1, 0, ""), Doing::Working);
        check(&answers(0, 2, ""), &none, Doing::Queued);
        check(&answers(0, 0, ""), &none, Doing::Idle);
    }
}
