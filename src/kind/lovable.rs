//! Another lovable, or this one seen from outside.
//!
//! It is known by what stands in every reply of one, and is never a server to
//! route to: two daemons that route to each other would pass a request round
//! in a circle, and the one that asks must not find itself.

use super::{Answer, Answers, Kind, Question, Refusal, Verdict, fact};
use crate::{fault::Cause, server::Sighting};

/// A lovable.
pub(super) struct Lovable;

const STATUS: &str = "/lovable/v1/status";

impl Kind for Lovable {
    fn id(&self) -> &'static str {
        "lovable"
    }

    fn name(&self) -> &'static str {
        "lovable"
    }

    fn recognise(&self, answers: &Answers) -> Verdict {
        let asked = [answers.get("/"), answers.get(STATUS)];
        let Some(version) = asked.iter().flatten().find_map(|answer| version(answer)) else {
            return Verdict::No;
        };
        match asked.iter().flatten().find_map(|answer| answer.header("x-lovable-instance")) {
            Some(instance) if fact::is_name(instance) => {
                let mut sighting = Sighting::of(self.id());
                sighting.version = Some(version);
                sighting.instance = Some(instance.to_owned());
                Verdict::Proof(Box::new(sighting))
            }
            Some(_) => Verdict::No,
            None if answers.get(STATUS).is_none() => Verdict::Ask(Question::get(STATUS)),
            None => Verdict::No,
        }
    }

    fn classify(&self, _: Refusal<'_>) -> Option<Cause> {
        None
    }

    fn plain_is_cancelled(&self) -> bool {
        true
    }
}

fn version(answer: &Answer) -> Option<String> {
    let version = answer.header("server")?.strip_prefix("lovable/")?;
    fact::is_name(version).then(|| version.to_owned())
}
