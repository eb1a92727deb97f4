//! TabbyAPI.
//!
//! It wants a key unless it is told not to, and then says who it is at one open path. Its list is
//! of all that lies in its folder, but the model in memory answers, whatever name is asked for:
//! only that one is offered.

use super::{Answers, Continuation, Json, Kind, Question, Verdict, fact, listing, listing::Listing};
use crate::server::{Model, Problem, Sighting};

/// TabbyAPI.
pub(super) struct TabbyApi;

const INFO: &str = "/.well-known/serviceinfo";
const LOADED: &str = "/v1/model";

impl Kind for TabbyApi {
    fn id(&self) -> &'static str {
        "tabbyapi"
    }

    fn name(&self) -> &'static str {
        "TabbyAPI"
    }

    fn usual_ports(&self) -> &'static [u16] {
        &[5000]
    }

    fn recognise(&self, answers: &Answers) -> Verdict {
        let Some(list) = answers.get(listing::PATH) else { return Verdict::No };
        let wants_key = match list.json() {
            Json::Whole(value) => list.status == 401 && value["detail"] == "Please provide an API key",
            Json::Torn | Json::None => false,
        };
        if !wants_key && !Listing::of(list).is_owned_by("tabbyAPI") {
            return Verdict::No;
        }
        let Some(info) = answers.get(INFO) else { return Verdict::Ask(Question::get(INFO)) };
        let info = info.success().unwrap_or_default();
        let says_so = info["software"]["name"] == "TabbyAPI";
        let mut sighting = Sighting::of(self.id());
        sighting.version = fact::text(&info["software"]["version"]);
        if wants_key {
            sighting.problem = Some(Problem::NeedsKey);
            return if says_so { Verdict::proof(sighting) } else { Verdict::No };
        }
        let Some(loaded) = answers.get(LOADED) else { return Verdict::Ask(Question::get(LOADED)) };
        let loaded = loaded.success().unwrap_or_default();
        if let Some(name) = fact::text(&loaded["id"]) {
            let context = fact::count(&loaded["parameters"]["max_seq_len"]);
            sighting.models =
                vec![Model { loaded: Some(true), loaded_context_length: context, ..Model::named(name) }];
        }
        Verdict::proof(sighting)
    }

    fn continuation(&self) -> Continuation {
        // It wants both flags, by its source.
        Continuation::Flags
    }

    fn wants_max_tokens(&self) -> bool {
        true
    }
}
