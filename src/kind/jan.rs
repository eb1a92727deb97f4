//! Jan: a desktop program that runs models in private servers, and passes some on to the cloud.
//!
//! Its description of itself is open to everybody, its list is not where it has a key. Only what
//! its owner says runs here is here; who else owns a model is one whom it is passed on to.

use serde_json::Value;

use super::{Answers, Kind, Question, Refusal, Verdict, listing, said};
use crate::{
    fault::Cause,
    server::{Model, Problem, Sighting, Zone},
};

/// Jan.
pub(super) struct Jan;

const DESCRIPTION: &str = "/openapi.json";

impl Kind for Jan {
    fn id(&self) -> &'static str {
        "jan"
    }

    fn name(&self) -> &'static str {
        "Jan"
    }

    fn usual_ports(&self) -> &'static [u16] {
        &[1337]
    }

    fn recognise(&self, answers: &Answers) -> Verdict {
        if !answers.get("/").is_some_and(|it| it.is_titled("API Docs")) {
            return Verdict::No;
        }
        let Some(description) = answers.get(DESCRIPTION) else {
            return Verdict::Ask(Question::get(DESCRIPTION));
        };
        let description = description.success().unwrap_or_default();
        if !description["info"]["title"].as_str().is_some_and(|it| it.starts_with("Jan API Server")) {
            return Verdict::No;
        }
        let Some(list) = answers.get(listing::PATH) else {
            return Verdict::Ask(Question::get(listing::PATH));
        };
        let sighting = Sighting::of(self.id());
        if list.status == 403 {
            return Verdict::proof(Sighting { problem: Some(Problem::WrongHost), ..sighting });
        }
        listing::proof(sighting, list, model)
    }

    fn classify(&self, refusal: Refusal<'_>) -> Option<Cause> {
        // All in plain text.
        let it = said::Said::of(refusal.body);
        if it.has(&["no models are available", "no running session found for model"]) {
            return Some(Cause::ModelNotFound);
        }
        said::in_common(refusal, &[])
    }

    fn wants_max_tokens(&self) -> bool {
        true
    }
}

/// `user` is what older releases write of all, which then had none in the cloud.
fn model(entry: &Value) -> Option<Model> {
    let mut model = listing::model(entry)?;
    let here = entry["owned_by"].as_str().is_some_and(|it| ["user", "llama.cpp", "mlx"].contains(&it));
    if here {
        // Only what runs is listed.
        model.loaded = Some(true);
    } else {
        model.zone = Some(Zone::Cloud);
    }
    Some(model)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_does_not_run_here_is_in_the_cloud() {
        let zone = |owner: &str| model(&json!({"id": "a", "owned_by": owner})).unwrap().zone;
        assert_eq!([zone("user"), zone("llama.cpp"), zone("mlx")], [None; 3]);
        assert_eq!([zone("remote"), zone("")], [Some(Zone::Cloud); 2]);
    }
}
