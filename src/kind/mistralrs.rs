//! mistral.rs.
//!
//! Its root says `OK`, as a health check does, and its list says `local` and begins with the
//! word for whichever model it has.

use serde_json::Value;

use super::{Answers, Kind, Pulse, Verdict, doing, listing, listing::Listing};
use crate::server::{Model, Sighting};

/// mistral.rs.
pub(super) struct MistralRs;

/// What it calls whichever model is asked when none is named.
const ANY: &str = "default";

impl Kind for MistralRs {
    fn id(&self) -> &'static str {
        "mistralrs"
    }

    fn name(&self) -> &'static str {
        "mistral.rs"
    }

    fn usual_ports(&self) -> &'static [u16] {
        &[1234]
    }

    fn recognise(&self, answers: &Answers) -> Verdict {
        let (Some(root), Some(list)) = (answers.get("/"), answers.get(listing::PATH)) else {
            return Verdict::No;
        };
        let ok = root.status == 200 && root.body.trim_ascii() == b"OK";
        let any = matches!(Listing::of(list), Listing::Models(entries) if entries.first().is_some_and(|it| it["id"] == ANY));
        if !ok || !any || !Listing::of(list).is_owned_by("local") {
            return Verdict::No;
        }
        listing::proof(Sighting::of(self.id()), list, model)
    }

    fn pulse(&self, name: &str, answers: &Answers, _: &Answers) -> Pulse {
        // What was unloaded is loaded again for a request.
        doing::by_list(self.id(), answers, model, name)
    }

    fn wants_max_tokens(&self) -> bool {
        true
    }
}

fn model(entry: &Value) -> Option<Model> {
    let mut model = listing::model(entry).filter(|it| it.name != ANY)?;
    model.loaded = entry["status"].as_str().and_then(listing::is_loaded);
    Some(model)
}
