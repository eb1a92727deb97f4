//! Text Generation Inference.
//!
//! One model, which its list calls by the same name twice. What it runs on and how much it takes
//! is in `/info`, which is open to everybody.

use super::{
    Answers, Continuation, Door, Kind, Operation, Pulse, Question, Refusal, Verdict, doing, fact, listing,
    listing::Listing, said,
};
use crate::{fault::Cause, server::Sighting};

/// Text Generation Inference.
pub(super) struct Tgi;

const INFO: &str = "/info";
const HEALTH: &str = "/health";
const METRICS: &str = "/metrics";

impl Kind for Tgi {
    fn id(&self) -> &'static str {
        "tgi"
    }

    fn name(&self) -> &'static str {
        "Text Generation Inference"
    }

    fn usual_ports(&self) -> &'static [u16] {
        &[3000, 8080]
    }

    fn recognise(&self, answers: &Answers) -> Verdict {
        let Some(list) = answers.get(listing::PATH) else { return Verdict::No };
        let Listing::Models(entries) = Listing::of(list) else { return Verdict::No };
        if !matches!(&entries[..], [one] if one["owned_by"] == one["id"]) {
            return Verdict::No;
        }
        let Some(info) = answers.get(INFO) else { return Verdict::Ask(Question::get(INFO)) };
        let info = info.success().unwrap_or_default();
        if info["router"] != "text-generation-router" {
            return Verdict::No;
        }
        let mut sighting = Sighting::of(self.id());
        sighting.version = fact::text(&info["version"]);
        sighting.slots = fact::count(&info["max_concurrent_requests"]).and_then(|it| it.try_into().ok());
        let context = fact::count(&info["max_total_tokens"]);
        listing::proof(sighting, list, |entry| {
            let mut model = listing::model(entry)?;
            model.loaded = Some(true);
            model.loaded_context_length = context;
            Some(model)
        })
    }

    fn doors(&self, operation: Operation) -> &'static [Door] {
        listing::doors_of_words(operation)
    }

    fn classify(&self, refusal: Refusal<'_>) -> Option<Cause> {
        let it = said::Said::of(refusal.body);
        if refusal.status == 422 && it.sort == "validation" && it.has(&TOO_LONG) {
            return Some(Cause::ContextOverflow);
        }
        said::in_common(refusal, &[])
    }

    fn pulse(&self, _: &str, answers: &Answers, _: &Answers) -> Pulse {
        if let Err(known) = doing::well(self.id(), answers, HEALTH) {
            return known;
        }
        let Some(metrics) = answers.get(METRICS) else { return Pulse::Ask(Question::get(METRICS)) };
        Pulse::Is(doing::by_gauges(metrics, "tgi_batch_current_size", "tgi_queue_size"))
    }

    fn continuation(&self) -> Continuation {
        // The rendered prompt is cut behind a last turn of the model, and blanks at its end are
        // dropped, by its source.
        Continuation::LastTurn
    }

    fn wants_room_for_the_answer(&self) -> bool {
        true
    }

    fn wants_max_tokens(&self) -> bool {
        true
    }
}

/// A longer context elsewhere may take these.
const TOO_LONG: [&str; 3] = ["max_new_tokens", "max_total_tokens", "inputs must have"];
