//! What all who sell answers have in common.
//!
//! They are known by the configuration and by nothing else: nobody is asked who they are, and
//! no prompt goes to a listener that only says that it is one. What is asked is one list of
//! models, with the key, and rarely.

use serde_json::Value;

use super::{Answer, Verdict, listing::Listing, said::Said};
use crate::{
    fault::Cause,
    server::{Model, Problem, Sighting},
};

/// Where somebody sells answers, and how they are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Its address, where the configuration names no other.
    pub url: &'static str,
    /// The variable that holds its key.
    pub key_env: &'static str,
    /// Where its list of models is.
    pub list: &'static str,
    /// Whether the key has a header of its own, instead of being a bearer's.
    pub key_header: Option<&'static str>,
    /// What every request to it has to say.
    pub headers: &'static [(&'static str, &'static str)],
    /// Whether `max_tokens` is called `max_completion_tokens`.
    pub newer: bool,
    /// Whether it refuses fields that OpenAI does not have.
    pub strict: bool,
}

impl Provider {
    /// One that is asked as OpenAI's clients ask.
    pub(super) const fn at(url: &'static str, key_env: &'static str) -> Self {
        Self {
            url,
            key_env,
            list: super::listing::PATH,
            key_header: None,
            headers: &[],
            newer: false,
            strict: true,
        }
    }
}

/// What its list says. `needs_key` says whether the answer is about the key.
pub(super) fn listed(
    kind: &'static str,
    answer: &Answer,
    needs_key: bool,
    model: impl Fn(&Value) -> Option<Model>,
) -> Verdict {
    let mut sighting = Sighting::of(kind);
    match Listing::of(answer) {
        Listing::Models(entries) => sighting.models = entries.iter().filter_map(model).collect(),
        Listing::Other if needs_key || matches!(answer.status, 401 | 403) => {
            sighting.problem = Some(Problem::NeedsKey);
        }
        Listing::Torn | Listing::Other => return Verdict::NotYet,
    }
    Verdict::Proof(Box::new(sighting))
}

/// What most of them mean by what they refuse; `None` leaves it to the status.
pub(super) fn refused(status: u16, said: &Said) -> Option<Cause> {
    match status {
        402 => Some(Cause::NoCredit),
        429 if is_about_credit(said) => Some(Cause::NoCredit),
        400 | 404 | 413 | 422 if said.is_overflow() => Some(Cause::ContextOverflow),
        400 | 404 if said.is_unknown_model() || said.code == "model_decommissioned" => {
            Some(Cause::ModelNotFound)
        }
        400 | 404 | 422 if said.is_beyond_it() || is_unknown_field(said) => Some(Cause::Unsupported),
        _ => None,
    }
}

/// Whether somebody has to pay first. Waiting a minute is no use then.
fn is_about_credit(said: &Said) -> bool {
    said.code == "insufficient_quota"
        || said.sort == "insufficient_quota"
        || said.has(&["exceeded your current quota, please check your plan and billing"])
}

/// A field that this one does not take. Another server may well.
fn is_unknown_field(said: &Said) -> bool {
    matches!(said.code.as_str(), "unknown_parameter" | "invalid_parameter")
        || said.has(&["unrecognized request argument", "unknown parameter", "unknown name", "extra inputs"])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{Kind, Refusal, by_id};
    use super::*;

    #[track_caller]
    fn check(kind: &str, status: u16, error: &Value, expected: Option<Cause>) {
        let body = json!({"error": error}).to_string();
        let refusal = Refusal { status, retry_after: None, body: body.as_bytes() };
        assert_eq!(
            by_id(kind).and_then(|it: &dyn Kind| it.classify(refusal)),
            expected,
            "{kind} {status} {body}"
        );
    }

    #[test]
    fn refusals_mean_what_whoever_sells_answers_documents() {
        let said = |message: &str| json!({"message": message, "type": "invalid_request_error"});
        let coded = |code: &str| json!({"message": "x", "type": "x", "code": code});
        check("openai", 429, &coded("insufficient_quota"), Some(Cause::NoCredit));
        check("openai", 429, &coded("rate_limit_exceeded"), None);
        check("openai", 404, &coded("model_not_found"), Some(Cause::ModelNotFound));
        check("openai", 400, &coded("context_length_exceeded"), Some(Cause::ContextOverflow));
        check("openai", 400, &coded("unsupported_parameter"), Some(Cause::Unsupported));
        check(
            "openai",
            400,
            &said("Unrecognized request argument supplied: top_k"),
            Some(Cause::Unsupported),
        );
        check("openai", 400, &said("Invalid value for 'messages'"), None);
        let low = "Your credit balance is too low to access the Anthropic API.";
        check("anthropic", 400, &said(low), Some(Cause::NoCredit));
        check(
            "anthropic",
            400,
            &said("prompt is too long: 210000 tokens > 200000 maximum"),
            Some(Cause::ContextOverflow),
        );
        let prefill = "This model does not support assistant message prefill.";
        check("anthropic", 400, &said(prefill), Some(Cause::Unsupported));
        check(
            "anthropic",
            404,
            &json!({"type": "not_found_error", "message": "model: x"}),
            Some(Cause::ModelNotFound),
        );
        check("anthropic", 529, &json!({"type": "overloaded_error", "message": "Overloaded"}), None);
        check("groq", 498, &said("capacity"), Some(Cause::Busy { retry_after: None }));
        check("groq", 400, &coded("model_decommissioned"), Some(Cause::ModelNotFound));
        check("groq", 400, &coded("tool_use_failed"), Some(Cause::Status));
        check("openrouter", 402, &said("Insufficient credits"), Some(Cause::NoCredit));
        let flagged = json!({"message": "x", "code": 403, "metadata": {"reasons": ["violence"]}});
        check("openrouter", 403, &flagged, Some(Cause::Malformed));
        check("openrouter", 403, &said("Key limit exceeded"), None);
        check("openrouter", 404, &said("No endpoints found that support tool use"), Some(Cause::Unsupported));
    }

    #[test]
    fn a_list_is_asked_for_once_and_a_key_that_is_refused_is_a_problem() {
        use super::super::{Answers, recognise, recognise_as};
        let mut answers = Answers::default();
        let Verdict::Ask(question) = recognise_as("anthropic", &answers) else { panic!("nothing is asked") };
        assert_eq!(question.path, "/v1/models?limit=1000");
        assert_eq!(question.headers, [("anthropic-version", "2023-06-01")]);
        let body = json!({"data": [{"type": "model", "id": "claude-x"}], "has_more": false}).to_string();
        answers.push(question.clone(), Answer { status: 200, body: body.into(), ..Answer::default() });
        let Verdict::Proof(sighting) = recognise_as("anthropic", &answers) else { panic!("it is a list") };
        assert_eq!((sighting.kind.as_str(), sighting.models[0].name.as_str()), ("anthropic", "claude-x"));
        let refused = |status: u16| {
            let mut answers = Answers::default();
            answers.push(question.clone(), Answer { status, body: "{}".into(), ..Answer::default() });
            recognise_as("anthropic", &answers)
        };
        assert!(matches!(refused(401), Verdict::Proof(it) if it.problem == Some(Problem::NeedsKey)));
        assert_eq!((refused(500), refused(404)), (Verdict::NotYet, Verdict::NotYet));
        // Nobody is taken for one by what it says.
        assert!(!matches!(recognise(&answers), Verdict::Proof(it) if it.kind == "anthropic"));
    }
}
