//! KoboldCpp.
//!
//! It speaks half a dozen languages of others; its own are under `/api/extra`, and open to
//! everybody also where a password is set.

use serde_json::Value;

use super::{Answers, Kind, Pulse, Question, Verdict, doing, fact, listing};
use crate::server::{Doing, Model, Sighting};

/// KoboldCpp.
pub(super) struct KoboldCpp;

const VERSION: &str = "/api/extra/version";
const CONTEXT: &str = "/api/extra/true_max_context_length";
const PERFORMANCE: &str = "/api/extra/perf";

impl Kind for KoboldCpp {
    fn id(&self) -> &'static str {
        "koboldcpp"
    }

    fn name(&self) -> &'static str {
        "KoboldCpp"
    }

    fn usual_ports(&self) -> &'static [u16] {
        &[5001]
    }

    fn recognise(&self, answers: &Answers) -> Verdict {
        let titled = answers.get("/").is_some_and(|it| it.is_titled("KoboldAI Lite"));
        let list = match listing::known(answers, titled, "koboldcpp") {
            Ok(list) => list,
            Err(verdict) => return verdict,
        };
        let Some(version) = answers.get(VERSION) else { return Verdict::Ask(Question::get(VERSION)) };
        let version = version.success().unwrap_or_default();
        // The page is a program of its own, which others serve as well.
        if version["result"] != "KoboldCpp" {
            return Verdict::No;
        }
        let Some(context) = answers.get(CONTEXT) else { return Verdict::Ask(Question::get(CONTEXT)) };
        let context = context.success().and_then(|it| fact::count(&it["value"]));
        let sighting = Sighting { version: fact::text(&version["version"]), ..Sighting::of(self.id()) };
        listing::proof(sighting, list, |entry| model(entry, context))
    }

    fn pulse(&self, _: &str, answers: &Answers, _: &Answers) -> Pulse {
        let performance = match doing::well(self.id(), answers, PERFORMANCE) {
            Ok(answer) => answer.success().unwrap_or_default(),
            Err(known) => return known,
        };
        Pulse::Is(match (performance["idle"].as_u64(), performance["queue"].as_u64()) {
            (Some(1), _) => Doing::Idle,
            // One works, and others wait behind it.
            (Some(0), Some(2..)) => Doing::Queued,
            (Some(0), _) => Doing::Working,
            _ => Doing::Unknown,
        })
    }

    fn plain_is_cancelled(&self) -> bool {
        // Not known. A plain request goes up as it came, since its streams have no counts.
        true
    }

    fn wants_max_tokens(&self) -> bool {
        true
    }
}

fn model(entry: &Value, context: Option<u64>) -> Option<Model> {
    // Its word for no model at all.
    let mut model = listing::model(entry).filter(|it| it.name != "koboldcpp/inactive")?;
    model.loaded = Some(true);
    model.loaded_context_length = context;
    Some(model)
}
