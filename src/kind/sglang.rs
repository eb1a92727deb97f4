//! SGLang.
//!
//! Its root is a JSON text, in quotes, also where it poses as an Ollama. Its Ollama doors drop
//! tools and thinking and end every answer with `stop`, so it is asked as what it is. `/health`
//! generates a token in many releases, and what its scheduler is asked waits for a step of it:
//! neither is asked to find it.

use super::{Answer, Answers, Continuation, Kind, Pulse, Question, Verdict, doing, listing};
use crate::server::{Capability, Sighting};

/// SGLang.
pub(super) struct Sglang;

const INFO: &str = "/get_model_info";
const LOADS: &str = "/v1/loads?include=core";

impl Kind for Sglang {
    fn id(&self) -> &'static str {
        "sglang"
    }

    fn name(&self) -> &'static str {
        "SGLang"
    }

    fn usual_ports(&self) -> &'static [u16] {
        &[30000]
    }

    fn recognise(&self, answers: &Answers) -> Verdict {
        let says_so = answers.get("/").and_then(Answer::success).is_some_and(|it| it == "SGLang is running");
        let list = match listing::known(answers, says_so, "sglang") {
            Ok(list) => list,
            Err(verdict) => return verdict,
        };
        let Some(info) = answers.get(INFO) else { return Verdict::Ask(Question::get(INFO)) };
        let embeds = info.success().is_some_and(|it| it["is_generation"] == false);
        listing::proof(Sighting::of(self.id()), list, |entry| {
            let mut model = listing::model(entry)?;
            model.loaded = Some(true);
            model.capabilities.extend(embeds.then_some(Capability::Embed));
            Some(model)
        })
    }

    fn pulse(&self, _: &str, answers: &Answers, _: &Answers) -> Pulse {
        if let Err(known) = doing::well(self.id(), answers, listing::PATH) {
            return known;
        }
        let Some(loads) = answers.get(LOADS) else { return Pulse::Ask(Question::get(LOADS)) };
        // Older releases do not say it.
        let loads = loads.success().unwrap_or_default();
        let sum = |field: &str| -> Option<f64> {
            loads["loads"].as_array()?.iter().map(|it| it[field].as_f64()).sum()
        };
        Pulse::Is(doing::by_counts(sum("num_running_reqs"), sum("num_waiting_reqs")))
    }

    fn continuation(&self) -> Continuation {
        // Without its flag a last turn of the model becomes one of the user (by its source).
        Continuation::Flags
    }

    fn plain_is_cancelled(&self) -> bool {
        true
    }

    fn wants_room_for_the_answer(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Doing;
    use serde_json::{Value, json};

    #[test]
    fn its_scheduler_says_what_it_does() {
        let check = |loads: Value, expected: Doing| {
            let mut answers = Answers::default();
            for (path, body) in [(listing::PATH, json!({"data": []})), (LOADS, loads)] {
                let body = body.to_string().into();
                answers.push(Question::get(path), Answer { status: 200, body, ..Answer::default() });
            }
            assert_eq!(Sglang.pulse("a", &answers, &Answers::default()), Pulse::Is(expected));
        };
        let rank =
            |running: u32, waiting: u32| json!({"num_running_reqs": running, "num_waiting_reqs": waiting});
        check(json!({"loads": [rank(0, 0), rank(2, 0)]}), Doing::Working);
        check(json!({"loads": [rank(0, 1)]}), Doing::Queued);
        check(json!({"loads": [rank(0, 0)]}), Doing::Idle);
        check(json!({"loads": [{"dp_rank": 0}]}), Doing::Unknown);
        check(json!({"detail": "Not Found"}), Doing::Unknown);
    }
}
