//! `transformers serve`.
//!
//! A FastAPI server that says nothing of itself but which paths it has, and two of those are its
//! own. It lists what lies in the cache of models; one that was started for a model refuses all
//! others. It refuses every field that it does not know, and a last turn of the model is answered
//! from the start (5.19.0, recorded).

use super::{
    Answer, Answers, Door, Kind, Operation, Pulse, Question, Refusal, Verdict, doing, listing,
    listing::Listing, said,
};
use crate::{
    fault::Cause,
    server::{Problem, Sighting},
};

/// `transformers serve`.
pub(super) struct Transformers;

const DESCRIPTION: &str = "/openapi.json";
const HEALTH: &str = "/health";

impl Kind for Transformers {
    fn id(&self) -> &'static str {
        "transformers"
    }

    fn name(&self) -> &'static str {
        "transformers serve"
    }

    fn usual_ports(&self) -> &'static [u16] {
        &[8000]
    }

    fn recognise(&self, answers: &Answers) -> Verdict {
        let Some(list) = answers.get(listing::PATH) else { return Verdict::No };
        let is_its =
            |it: &Answer| it.header("server") == Some("uvicorn") && it.header("x-request-id").is_some();
        if !is_its(list) || !matches!(Listing::of(list), Listing::Models(_)) {
            return Verdict::No;
        }
        let Some(description) = answers.get(DESCRIPTION) else {
            return Verdict::Ask(Question::get(DESCRIPTION));
        };
        let description = description.success().unwrap_or_default();
        let has = |path: &str| description["paths"].get(path).is_some();
        if !["/load_model", "/v1/audio/transcriptions", "/v1/responses"].into_iter().all(has) {
            return Verdict::No;
        }
        let Some(health) = answers.get(HEALTH) else { return Verdict::Ask(Question::get(HEALTH)) };
        let problem = (health.status >= 500).then_some(Problem::Unhealthy);
        listing::proof(Sighting { problem, ..Sighting::of(self.id()) }, list, listing::model)
    }

    fn doors(&self, operation: Operation) -> &'static [Door] {
        listing::doors_of_words(operation)
    }

    fn classify(&self, refusal: Refusal<'_>) -> Option<Cause> {
        let it = said::Said::of(refusal.body);
        if refusal.status == 400 && it.has(&["server is pinned to"]) {
            return Some(Cause::ModelNotFound);
        }
        said::in_common(refusal, &["unexpected fields in the request"])
    }

    fn pulse(&self, _: &str, answers: &Answers, _: &Answers) -> Pulse {
        doing::there(self.id(), answers, HEALTH)
    }

    fn wants_max_tokens(&self) -> bool {
        true
    }
}
